"""Keys and groups, over the whole corpus."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aesampler import manifest, rng
from aesampler.corpus import Corpus
from aesampler.errors import CorpusError
from aesampler.manifest import SampleRow
from aesampler.verify.findings import Findings

_KEY = re.compile(r"[a-z0-9_-]{1,80}")
_BAD_KEY = "a key is of [a-z0-9_-], at most 80 characters"


def look_at_form(path: str, rows: Sequence[SampleRow], findings: Findings) -> None:
    """Whether the keys of a shard are well formed. path: of its manifest."""
    for row in rows:
        findings.look("keys", f"{path}: {row.key}", None if _KEY.fullmatch(row.key) else _BAD_KEY)


@dataclass(slots=True)
class Seen:
    """64-bit hashes of all keys, and of the groups of each split. Equal hashes are looked at again by name."""

    keys: list[npt.NDArray[np.int64]] = field(default_factory=list)
    groups: dict[str, list[npt.NDArray[np.int64]]] = field(default_factory=dict)

    def add(self, split: str, rows: Sequence[SampleRow]) -> None:
        """Take the keys and groups of a shard's samples."""
        self.keys.append(np.array([rng.order("key", row.key) for row in rows], dtype=np.int64))
        groups = {rng.order("group", row.group) for row in rows}
        self.groups.setdefault(split, []).append(np.array(sorted(groups), dtype=np.int64))


def look_for_twins(corpus: Corpus, seen: Seen, findings: Findings) -> None:
    """Whether each key is there once; those whose hashes are equal are read again."""
    hashes = np.sort(np.concatenate([np.empty(0, np.int64), *seen.keys]))
    twice = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not twice:
        return
    met: dict[str, str] = {}
    for path, rows in _columns(corpus, "key"):
        for (key,) in rows:
            if rng.order("key", key) in twice:
                findings.look("keys", f"{path}: {key}", f"the key is in {met[key]} too" if key in met else None)
                met.setdefault(key, path)


def look_at_groups(corpus: Corpus, seen: Seen, findings: Findings) -> None:
    """Whether each group, but for those that the recipe allows, lies in one split."""
    each = [np.unique(np.concatenate(parts)) for parts in seen.groups.values()]
    hashes = np.sort(np.concatenate([np.empty(0, np.int64), *each]))
    shared = frozenset(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    findings.looked["groups"] += len(hashes)
    if not shared:
        return
    allowed = [str(name) for name in corpus.head.recipe.get("allow_shared_groups", [])]
    met: dict[str, set[str]] = {}
    for _, rows in _columns(corpus, "group", "split"):
        for group, split in rows:
            if rng.order("group", group) in shared and not any(_allows(name, group) for name in allowed):
                met.setdefault(group, set()).add(split)
    for group, splits in sorted(met.items()):
        if len(splits) > 1:
            findings.look("groups", group, f"the group lies in {' and '.join(sorted(splits))}")


def _allows(pattern: str, group: str) -> bool:
    return group.startswith(pattern[:-1]) if pattern.endswith("*") else group == pattern


def _columns(corpus: Corpus, *names: str) -> Iterator[tuple[str, Iterator[tuple[str, ...]]]]:
    """Each readable manifest's path, and those columns of its samples."""
    for _, _, part in corpus.head.parts():
        for entry in part.manifests:
            try:
                data = corpus.folder.read(entry.path)
                table = manifest.read_table(io.BytesIO(data), [*names, "status"], entry.path)
            except (CorpusError, FileNotFoundError):
                continue  # told by shards.py
            columns = [column.to_pylist() for column in table.columns]
            yield entry.path, (values[:-1] for values in zip(*columns, strict=True) if values[-1] == "ok")
