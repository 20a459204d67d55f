"""Where the samples of a stream come from: the sources of one split of some corpora, with their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from aesampler.errors import CorpusError
from aesampler.exposure import ExposureSettings
from aesampler.head import CorpusHead, SourceHead
from aesampler.storage import Folder
from aesampler.stream.reading import Part
from aesampler.vocabulary import Vocabulary


class Readable(Protocol):
    """What a stream needs of a `Corpus`."""

    folder: Folder
    head: CorpusHead

    def vocabulary(self, source: str) -> Vocabulary:
        """The names of a source."""

    def settings(self, split: str, source: str) -> ExposureSettings:
        """The exposure settings that a source was drawn with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A source of the stream. head: of its split. label: CORPUS/SOURCE."""

    corpus: Readable
    source: str
    head: SourceHead

    @property
    def label(self) -> str:
        """The name that no other source has."""
        return f"{self.corpus.head.name}/{self.source}"

    def part(self, split: str) -> Part:
        """Where its shards lie. Manifests that have one are named alike, SPLIT/SOURCE-NUMBER."""
        stems = {entry.path.removeprefix("manifest/").rpartition(".")[0]: entry for entry in self.head.manifests}
        shards = tuple(self.head.shards)
        return Part(
            folder=self.corpus.folder,
            split=split,
            source=self.source,
            shards=shards,
            manifests=tuple(stems[entry.path.rpartition(".")[0]] for entry in shards),
        )


def find(corpora: Sequence[Readable], split: str) -> list[Origin]:
    """The sources of the split that have a sample: all records of one may have failed. Raises CorpusError where there
    is no such split, or no sample, or two corpora have one name.
    """
    names = [corpus.head.name for corpus in corpora]
    if not names or len(set(names)) < len(names):
        raise CorpusError("corpora that are streamed together need different names", got=", ".join(names) or "none")
    for corpus in corpora:
        if split not in corpus.head.splits:
            allowed = ", ".join(corpus.head.splits)
            raise CorpusError("no such split", where=corpus.folder.url, got=split, allowed=allowed)
    found = [
        Origin(corpus=corpus, source=source, head=head)
        for corpus in corpora
        for source, head in corpus.head.splits[split].items()
        if head.samples
    ]
    if not found:
        raise CorpusError("the split holds no sample", where=corpora[0].folder.url, got=split)
    return found


def weigh(
    origins: Sequence[Origin], split: str, given: Mapping[str, float] | Literal["recipe"] | None
) -> list[float] | None:
    """The weight of each source; None where every sample counts once. given: as `Settings.weights`. Raises CorpusError
    where they are of other sources, or no shares.
    """
    if given is None:
        return None
    counted = [origin.source for origin in origins]
    names = [origin.source if counted.count(origin.source) == 1 else origin.label for origin in origins]
    if isinstance(given, str):
        if given != "recipe":
            raise CorpusError("weights are a mapping, or 'recipe'", where="weights", got=repr(given))
        weights = [_recipe_weight(origin, split) for origin in origins]
    else:
        known = [origin.label if origin.label in given else name for origin, name in zip(origins, names, strict=True)]
        if set(known) != set(given):
            what = "weights name every source, and no other; 0 leaves one out"
            raise CorpusError(what, where="weights", got=", ".join(map(str, given)), allowed=", ".join(names))
        weights = [float(given[name]) for name in known]
    for name, origin, weight in zip(names, origins, weights, strict=True):
        if not 0.0 <= weight < float("inf"):
            raise CorpusError("a weight is not a share", where=f"weights.{name}", got=weight, allowed="0 or more")
        if weight and not origin.head.samples:
            raise CorpusError("the source has no sample", where=f"weights.{name}", got=weight, allowed=0)
    if not any(weights):
        raise CorpusError("every weight is 0", where="weights")
    return weights


def _recipe_weight(origin: Origin, split: str) -> float:
    for entry in origin.corpus.head.recipe["sources"]:
        if entry["name"] == origin.source and (entry["split"] == split or split in entry["split"]):
            if entry.get("weight") is None:
                raise CorpusError(
                    "the recipe gives this source no weight",
                    where=f"{origin.corpus.folder}/corpus.json",
                    got=origin.source,
                    do="give weights as a mapping",
                )
            return float(entry["weight"])
    raise CorpusError("the stored recipe has no such source", where=origin.corpus.folder.url, got=origin.source)


def digest(head: CorpusHead, split: str) -> str:
    """What the samples of a split are, in 16 hex digits."""
    found = hashlib.sha256()
    for source, part in head.splits[split].items():
        found.update(f"{source}\n".encode())
        for entry in part.shards:
            found.update(f"{entry.path} {entry.samples} {entry.sha256}\n".encode())
    return found.hexdigest()[:16]
