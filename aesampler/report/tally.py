"""The figures of a report: one pass over the manifest, a shard at a time, in numpy.

What is kept does not grow with the number of samples: counts by name, by length and by frame, the keys with the lowest
hashes of each source and label (the samples to look at), and the lists of at most `AUDITED` samples, every n-th of the
corpus. A million samples take some 20 s, a third of it in hashing keys.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aesampler import rng
from aesampler.audit import Audit, audit
from aesampler.corpus import Corpus
from aesampler.sample import UNKNOWN

AUDITED = 100_000
"""Samples whose lists the shortcut audit sees."""
LOOKED_AT = 240
"""Anomalous samples whose masks the heat map adds up, over all sources."""
AREAS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Edges of the classes of anomaly area, as shares of the picture; a class holds its upper edge."""

COLUMNS = (
    *("key", "status", "reason", "source", "group", "frames", "valid_frames", "anomalous", "categories", "is_genuine"),
    *("presence", "frame_labels", "anomaly_area", "ignored_area"),
)
Integers = npt.NDArray[np.int64]


@dataclass(slots=True)
class Frames:
    """Of the clips of a source: frames by place and label, each int64 [frames].

    calm: frames of normal clips. anomalous, normal, unknown: frames of anomalous clips. padding: of either.
    """

    calm: Integers
    anomalous: Integers
    normal: Integers
    unknown: Integers
    padding: Integers

    @classmethod
    def none(cls, frames: int) -> Frames:
        """All counts zero."""
        return cls(*(np.zeros(frames, dtype=np.int64) for _ in range(5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """Planned samples that came to nothing. status: failed or skipped; example: the key of one."""

    status: str
    source: str
    reason: str
    count: int
    example: str


@dataclass(slots=True)
class Tally:
    """The sums over a corpus.

    exposed, irrelevant: name -> samples that list it so. presence: (source, exposed, presence) -> listed names.
    areas: source -> anomalous samples in each class of `AREAS`, int64. hatched: samples with ignored pixels.
    clips: source -> its frames. lost: by (status, source, reason). nearest: (source, anomalous) -> the (hash, place)
    pairs of the samples to look at, ascending, int64 [n, 2]; place as `Corpus.row` counts.
    """

    samples: int = 0
    exposed: Counter[str] = field(default_factory=Counter)
    irrelevant: Counter[str] = field(default_factory=Counter)
    presence: Counter[tuple[str, bool, str]] = field(default_factory=Counter)
    areas: dict[str, Integers] = field(default_factory=dict)
    hatched: int = 0
    clips: dict[str, Frames] = field(default_factory=dict)
    lost: tuple[Lost, ...] = ()
    nearest: dict[tuple[str, bool], Integers] = field(default_factory=dict)
    audit: Audit = field(default_factory=lambda: audit([], []))

    @property
    def names(self) -> int:
        """Different names listed."""
        return len(self.exposed.keys() | self.irrelevant.keys())


def tally(corpus: Corpus, seed: int, keep: int) -> Tally:
    """The sums of `corpus`; `keep` samples of each source and label are picked, by `seed`.

    Raises CorpusError where a manifest is gone or broken.
    """
    sums = Tally()
    lost: dict[tuple[str, str, str], list[Any]] = {}
    lists: list[list[str]] = []
    labels: list[bool] = []
    groups: list[str] = []
    every = -(-len(corpus) // AUDITED) or 1
    for _, table in corpus.tables(COLUMNS):
        for status, source, reason, key in _rejected(table):
            entry = lost.setdefault((status, source, reason), [0, key])
            entry[0] += 1
        rows = table.filter(pc.equal(table.column("status"), "ok")).combine_chunks()
        if not rows.num_rows:
            continue
        first = sums.samples
        chosen = rows.take(pa.array(range(-first % every, rows.num_rows, every), pa.int64()))
        lists += chosen.column("categories").to_pylist()
        labels += chosen.column("anomalous").to_pylist()
        groups += chosen.column("group").to_pylist()
        _add(sums, rows, seed, keep)
    sums.lost = tuple(
        Lost(status=status, source=source, reason=reason, count=count, example=example)
        for (status, source, reason), (count, example) in sorted(lost.items(), key=lambda item: (-item[1][0], item[0]))
    )
    sums.audit = audit(lists, labels, groups)
    return sums


def _rejected(table: pa.Table) -> list[tuple[str, str, str, str]]:
    rows = table.filter(pc.not_equal(table.column("status"), "ok"))
    return list(zip(*(rows.column(name).to_pylist() for name in ("status", "source", "reason", "key")), strict=True))


def _add(sums: Tally, rows: pa.Table, seed: int, keep: int) -> None:
    """Count the samples of one shard: of one source, with one number of frames."""
    source, count = rows.column("source")[0].as_py(), rows.num_rows
    anomalous = _plain(rows, "anomalous").astype(bool)
    _add_names(sums, rows, source)
    frames = int(_plain(rows, "frames").max())
    valid = np.arange(frames) < _plain(rows, "valid_frames")[:, None]
    area = _matrix(rows, "anomaly_area", frames)
    mean = (area * valid).sum(axis=1) / np.maximum(valid.sum(axis=1), 1)
    classes = np.searchsorted(AREAS[1:-1], mean[anomalous])
    known = sums.areas.setdefault(source, np.zeros(len(AREAS) - 1, dtype=np.int64))
    known += np.bincount(classes, minlength=len(known))
    sums.hatched += int((_matrix(rows, "ignored_area", frames) > 0).any(axis=1).sum())
    if frames > 1:
        _add_frames(sums.clips.setdefault(source, Frames.none(frames)), rows, anomalous, valid)
    keys = rows.column("key").to_pylist()
    hashes = np.fromiter((rng.order(seed, "report", key) for key in keys), dtype=np.int64, count=count)
    found = np.stack([hashes, np.arange(sums.samples, sums.samples + count)], axis=1)
    for flag in (False, True):
        before = sums.nearest.get((source, flag), np.zeros((0, 2), dtype=np.int64))
        pairs = np.concatenate([before, found[anomalous == flag]])
        sums.nearest[source, flag] = pairs[np.lexsort(pairs.T[::-1])[:keep]]
    sums.samples += count


def _add_names(sums: Tally, rows: pa.Table, source: str) -> None:
    genuine = _flat(rows, "is_genuine").to_numpy(zero_copy_only=False).astype(bool)
    names = _flat(rows, "categories").dictionary_encode()
    code = names.indices.to_numpy(zero_copy_only=False)
    for counter, which in ((sums.exposed, genuine), (sums.irrelevant, ~genuine)):
        counts = np.bincount(code[which], minlength=len(names.dictionary)).tolist()
        counter.update({name: n for name, n in zip(names.dictionary.to_pylist(), counts, strict=True) if n})
    presence = _flat(rows, "presence").dictionary_encode()
    code = presence.indices.to_numpy(zero_copy_only=False)
    for flag in (False, True):
        counts = np.bincount(code[genuine == flag], minlength=len(presence.dictionary)).tolist()
        for known, n in zip(presence.dictionary.to_pylist(), counts, strict=True):
            sums.presence[source, flag, known] += n


def _add_frames(frames: Frames, rows: pa.Table, anomalous: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_]) -> None:
    label = _matrix(rows, "frame_labels", valid.shape[1])
    exposed = anomalous[:, None] & valid
    frames.calm += (~anomalous[:, None] & valid).sum(axis=0)
    frames.anomalous += (exposed & (label == 1)).sum(axis=0)
    frames.normal += (exposed & (label == 0)).sum(axis=0)
    frames.unknown += (exposed & (label == UNKNOWN)).sum(axis=0)
    frames.padding += (~valid).sum(axis=0)


def _plain(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = rows.column(name).to_numpy()
    return values


def _flat(rows: pa.Table, name: str) -> pa.Array:
    """The elements of a column of lists, one after the other."""
    return pa.concat_arrays([chunk.flatten() for chunk in rows.column(name).chunks])


def _matrix(rows: pa.Table, name: str, frames: int) -> npt.NDArray[Any]:
    """A column of lists, one element a frame, as [samples, frames]."""
    values: npt.NDArray[Any] = _flat(rows, name).to_numpy(zero_copy_only=False)
    return values.reshape(rows.num_rows, frames)
