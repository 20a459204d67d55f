"""The plan: which record lies in which shard, fixed before anything is rendered.

A shard is a contiguous range of catalog rows. Rows lie in keyed-hash order, `limit` takes the first ones (so limits
nest), groups are dealt to splits by their hash: membership and order depend on the recipe and the inputs alone, not on
workers and not on failures.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc

from aesampler import rng
from aesampler.catalog import Catalog
from aesampler.errors import RecipeError, SourceError
from aesampler.exposure import SimilaritySettings, draw, list_lengths
from aesampler.head import Shortcut
from aesampler.manifest import FORMAT_VERSION
from aesampler.recipe import SUBSETS, ClipSettings, Recipe, SourceEntry
from aesampler.relations import WordNet, related
from aesampler.scene import Scene
from aesampler.sharing import shared
from aesampler.shortcut import LIMIT, measured
from aesampler.sources.source import Kind, Subset
from aesampler.vocabulary import Vocabulary

PASSED_THROUGH = {"jpg": "jpg", "jpeg": "jpg", "png": "png"}
"""File endings whose bytes enter shards untouched, and the member's ending; anything else becomes JPEG."""


class Progress(Protocol):
    """Told how far work is."""

    def __call__(self, what: str, done: int, total: int, size: int = 0) -> None:
        """`done` of `total` of `what` is done, `size` bytes so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One shard of the plan: rows [first, last) of the catalog of recipe.sources[entry], those dealt to `split`, as
    shard `index`.
    """

    entry: int
    split: Subset
    index: int
    first: int
    last: int
    samples: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """What one entry gives to one split. bytes: listed bytes of its pictures. missing: samples with a picture that is
    not on disk, or empty. lengths: of the lists.
    """

    source: str
    format: str
    split: Subset
    kind: Kind
    encoding: str
    transcoded: bool
    records: int
    samples: int
    frames: int
    bytes: int
    missing: int
    first_missing: str
    shards: int
    names: int
    lengths: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a build will do, before any of it is done; memory grows with the number of shards."""

    recipe: Recipe
    catalogs: tuple[Catalog, ...]
    vocabularies: Mapping[str, Vocabulary]
    sources: tuple[PlannedSource, ...]
    tasks: tuple[ShardTask, ...]
    encodings: tuple[str, ...]
    transcoded: tuple[bool, ...]

    @property
    def samples(self) -> int:
        """Planned samples."""
        return sum(source.samples for source in self.sources)

    @property
    def bytes(self) -> int:
        """Listed bytes of the planned pictures."""
        return sum(source.bytes for source in self.sources)

    def identity(self) -> dict[str, Any]:
        """What makes two builds the same: the recipe (but its tolerance), the inputs and the tools; JSON-able."""
        return {
            "format_version": FORMAT_VERSION,
            "recipe": {key: value for key, value in self.recipe.document().items() if key != "tolerance"},
            "inputs": self.inputs(),
            "tools": self.tools(),
        }

    def packages(self) -> dict[str, str]:
        """Versions of the packages that the bytes of a worker's shards depend on, those of the readers and of CLIP
        included.
        """
        names = {"aesampler", "msgspec", "numpy", "pillow", "pyarrow", "pycocotools"}
        names.update(*(entry.reader.packages for entry in self.recipe.sources))
        if any(self.gaze(entry) is not None for entry in self.recipe.sources):
            names |= {"open_clip_torch", "torch"}
        return {name: _version(name) for name in sorted(names)}

    def tools(self) -> dict[str, str]:
        """Versions of all that the corpus depends on: the workers' packages, and WordNet, which relations read."""
        wordnet = WordNet.installed()
        return self.packages() if wordnet is None else self.packages() | {"wordnet": wordnet.version}

    def gaze(self, entry: SourceEntry) -> str | None:
        """The weights (file or tag) of the CLIP model that looks at the pictures of an entry; None where none does."""
        asked = self.recipe.settings(entry).similarity
        return None if asked is None or asked.shown_above is None else self.recipe.file(asked.pretrained)

    def inputs(self) -> dict[str, Any]:
        """Fingerprints of each entry's inputs, by `name/split`: its catalog's, and the sha256 of its vocabulary and of
        the file of CLIP's weights, where one looks at the pictures.
        """
        found = {}
        for entry, catalog in zip(self.recipe.sources, self.catalogs, strict=True):
            found[entry.label] = {**catalog.fingerprint, "vocabulary": self.vocabularies[entry.name].sha256()}
            weights = self.gaze(entry)
            if weights is not None and Path(weights).is_file():
                stat = Path(weights).stat()
                found[entry.label]["weights"] = _sha256(weights, stat.st_size, stat.st_mtime_ns)
        return found


@lru_cache(maxsize=16)
def _sha256(path: str, size: int, time: int) -> str:
    """Of a file as it was at that time."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def plan_corpus(recipe: Recipe, *, progress: Progress | None = None, refresh: bool = False) -> Plan:
    """Read (or reopen) the catalogs, deal records to splits and shards, and check what can be checked before anything
    is written.

    Raises RecipeError and SourceError: an empty vocabulary, a source in which nothing can be drawn, one group in two
    splits.
    """
    alone = [catalog_of(recipe, entry, progress=progress, refresh=refresh) for entry in recipe.sources]
    catalogs = shared(alone, WordNet.installed())
    vocabularies = _vocabularies(recipe, catalogs)
    sources: list[PlannedSource] = []
    tasks: list[ShardTask] = []
    encodings: list[tuple[str, bool]] = []
    for place, (entry, catalog) in enumerate(zip(recipe.sources, catalogs, strict=True)):
        vocabulary = vocabularies[entry.name]
        encodings.append(_encoding(recipe, catalog))
        lengths = _lengths(recipe, entry, catalog, vocabulary)
        for dealer in _dealt(recipe, place, catalog):
            tasks += dealer.tasks
            sources.append(dealer.summary(*encodings[-1], names=len(vocabulary.names), lengths=lengths))
    _refuse_shared_groups(recipe, catalogs)
    return Plan(
        recipe=recipe,
        catalogs=tuple(catalogs),
        vocabularies=vocabularies,
        sources=tuple(sources),
        tasks=tuple(tasks),
        encodings=tuple(encoding for encoding, _ in encodings),
        transcoded=tuple(transcoded for _, transcoded in encodings),
    )


def catalog_of(
    recipe: Recipe, entry: SourceEntry, *, progress: Progress | None = None, refresh: bool = False
) -> Catalog:
    """The catalog of one entry, made or reopened: see `Catalog.of`. Raises SourceError where its root is not there."""
    root = recipe.folder(entry.root)
    if root.is_local and not root.exists():
        raise SourceError("no such folder", where=f"{entry.label}: {root.url}", do="set root to where the dataset lies")

    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(f"catalog {entry.label}", done, total)

    return Catalog.of(entry.reader, root, refresh=refresh, progress=told)


def _rows(catalog: Catalog, limit: int | None) -> Iterator[tuple[str, list[int]]]:
    """(group, listed bytes of each frame) of the records that `limit` leaves: the first ones, since rows lie in hash
    order.
    """
    pairs = (
        pair
        for batch in catalog.columns(["group", "frame_bytes"])
        for pair in zip(batch["group"].to_pylist(), batch["frame_bytes"].to_pylist(), strict=True)
    )
    return itertools.islice(pairs, limit)


def split_of(entry: SourceEntry, group: str) -> Subset:
    """The split that `group` is dealt to: by its hash alone, so that two sources that share a picture deal it alike."""
    shares = entry.shares
    if len(shares) == 1:
        return next(iter(shares))
    place, edge = rng.share("split", group), 0.0
    for split, part in shares.items():
        edge += part
        if place < edge:
            return split
    return next(reversed(shares))


def _dealt(recipe: Recipe, place: int, catalog: Catalog) -> list[_Dealer]:
    """The records of recipe.sources[place], dealt to its splits and cut into shards."""
    entry = recipe.sources[place]
    dealers = {split: _Dealer(recipe, place, split) for split in entry.shares}
    for row, (group, frame_bytes) in enumerate(_rows(catalog, entry.limit)):
        dealers[split_of(entry, group)].add(row, group, frame_bytes)
    for dealer in dealers.values():
        dealer.close()
    return list(dealers.values())


class _Dealer:
    """Cuts the records of one entry and split into shards, in row order."""

    def __init__(self, recipe: Recipe, place: int, split: Subset) -> None:
        self.recipe, self.place, self.split = recipe, place, split
        self.entry = recipe.sources[place]
        self.clips = recipe.clips if self.entry.reader.kind == "clip" else ClipSettings(frames=1)
        self.tasks: list[ShardTask] = []
        self.records = self.samples = self.frames = self.missing = 0
        self.first_missing = ""
        self._first = self._last = self._samples = self._bytes = 0

    def add(self, row: int, group: str, frame_bytes: list[int]) -> None:
        """Take one record; a video's clips stay in one shard."""
        clips = self.clips
        starts = clips.starts(len(frame_bytes))
        taken = [[frame_bytes[place] for place in clips.places(start, len(frame_bytes))] for start in starts]
        size = sum(max(value, 0) for clip in taken for value in clip)
        limits = self.recipe.shards
        full = self._samples + len(starts) > limits.max_samples or self._bytes + size > limits.max_bytes
        if self._samples and full:
            self.close()
        if not self._samples:
            self._first = row
        self._last, self._samples, self._bytes = row + 1, self._samples + len(starts), self._bytes + size
        self.records += 1
        self.samples += len(starts)
        self.frames += len(starts) * clips.frames
        missing = sum(min(clip) <= 0 for clip in taken)
        if missing and not self.missing:
            self.first_missing = group
        self.missing += missing

    def close(self) -> None:
        """End the shard at hand, if it holds anything."""
        if self._samples:
            self.tasks.append(
                ShardTask(
                    entry=self.place,
                    split=self.split,
                    index=len(self.tasks),
                    first=self._first,
                    last=self._last,
                    samples=self._samples,
                    bytes=self._bytes,
                )
            )
        self._samples = self._bytes = 0

    def summary(self, encoding: str, transcoded: bool, *, names: int, lengths: tuple[int, int]) -> PlannedSource:
        """What came of it."""
        return PlannedSource(
            source=self.entry.name,
            format=self.entry.format,
            split=self.split,
            kind=self.entry.reader.kind,
            encoding=encoding,
            transcoded=transcoded,
            records=self.records,
            samples=self.samples,
            frames=self.frames,
            bytes=sum(task.bytes for task in self.tasks),
            missing=self.missing,
            first_missing=self.first_missing,
            shards=len(self.tasks),
            names=names,
            lengths=lengths,
        )


def _vocabularies(recipe: Recipe, catalogs: Sequence[Catalog]) -> dict[str, Vocabulary]:
    """One vocabulary a source name, counted over all its entries, with the relations of its names and the names that
    similarity bans.
    """
    found: dict[str, Vocabulary] = {}
    for entry, catalog in zip(recipe.sources, catalogs, strict=True):
        own = catalog.vocabulary()
        if not own.names:
            raise SourceError(
                "the vocabulary is empty",
                where=entry.label,
                do="a source needs category names, see `aesampler sources`",
            )
        found[entry.name] = own if entry.name not in found else found[entry.name].merged(own)
    wordnet = WordNet.installed()
    found = {name: related(vocabulary, wordnet) for name, vocabulary in found.items()}
    banned: dict[str, SimilaritySettings] = {}
    for entry in recipe.sources:
        similarity = recipe.settings(entry).similarity
        if similarity is None:
            continue
        if banned.setdefault(entry.name, similarity) != similarity:
            raise RecipeError("two entries of one source differ in similarity", where=entry.label, do="give them one")
    settings = [(entry.name, recipe.settings(entry).hard) for entry in recipe.sources]
    by_similarity = {name for name, hard in settings if hard is not None and hard.by == "similarity"}
    for name, similarity in banned.items():
        from aesampler.similarity import neighbours  # torch is imported for those who ask for it only

        weights = similarity.model_copy(update={"pretrained": recipe.file(similarity.pretrained)})
        near, alike = neighbours([entry.name for entry in found[name].names], weights)
        found[name] = found[name].with_near(near)
        if name in by_similarity:
            found[name] = found[name].with_alike(alike)
    return found


def _encoding(recipe: Recipe, catalog: Catalog) -> tuple[str, bool]:
    """The ending of the source's pictures in shards, and whether they are encoded anew."""
    endings: set[str] = set()
    for batch in catalog.columns(["frames"]):
        tails = pc.unique(pc.utf8_lower(pc.utf8_slice_codeunits(pc.list_flatten(batch["frames"]), -6)))
        endings |= {tail.rpartition(".")[2] for tail in tails.to_pylist()}
    kept = {PASSED_THROUGH.get(ending, ending) for ending in endings}
    if len(kept) == 1 and kept <= set(PASSED_THROUGH.values()) and recipe.images.max_side is None:
        return kept.pop(), False
    return "jpg", bool(endings)


def _lengths(recipe: Recipe, entry: SourceEntry, catalog: Catalog, vocabulary: Vocabulary) -> tuple[int, int]:
    """The shortest and longest list that a record of the source can get. Raises SourceError where no record has an
    irrelevant name.
    """
    settings = recipe.settings(entry)
    drawable = {place for place, weight in enumerate(vocabulary.weights(settings.irrelevant_from)) if weight > 0}
    columns = ("masked", "ignored", "incomplete", "elsewhere", "absent")
    cases: set[tuple[int, int]] = set()
    own = [vocabulary.index[category.name] for category in catalog.categories]
    near, kin = ([{vocabulary.index[name] for name in names} for names in sets] for sets in _relations(vocabulary))
    for batch in catalog.columns(columns):
        for masked, ignored, incomplete, elsewhere, absent in zip(
            *(batch[name].to_pylist() for name in columns), strict=True
        ):
            seen = {own[place] for place in (*masked, *ignored, *incomplete, *elsewhere)}
            gone = seen.union(*(near[place] for place in seen))
            listed = {own[place] for place in absent}
            if not catalog.exhaustive:
                gone |= {name for place in seen for name in kin[place]} - listed
            pool = len(drawable) - len(gone & drawable)
            if settings.absence != "unlisted" and not catalog.exhaustive:
                known = len((drawable & listed) - gone)
                pool = known if known or settings.absence == "strict" else pool
            cases.add((len(masked), pool))
    reached = [list_lengths(masked, pool, settings) for masked, pool in cases if pool]
    if not reached:
        raise SourceError(
            "no record has an irrelevant name to draw",
            where=entry.label,
            got=f"{len(vocabulary.names)} names, from {settings.irrelevant_from}, absence {settings.absence}",
            do="set absence: known, or irrelevant_from: categories, or take a source with more names",
        )
    return min(low for low, _ in reached), max(high for _, high in reached)


def audited(plan: Plan, limit: int = LIMIT) -> dict[str, Shortcut]:
    """What the lists will give away, by source: draws simulated from the first `limit` records of each in the catalogs,
    all of a record's names being visible. About 0.1 ms a record and 80 names.
    """
    rows: dict[str, tuple[list[tuple[str, ...]], list[bool], list[str]]] = {}
    for entry, catalog in zip(plan.recipe.sources, plan.catalogs, strict=True):
        lists, anomalous, groups = rows.setdefault(entry.name, ([], [], []))
        vocabulary, settings = plan.vocabularies[entry.name], plan.recipe.settings(entry)
        room = min(limit - len(lists), entry.limit or limit)
        for identity, group, scene in itertools.islice(scenes(catalog), max(room, 0)):
            random = rng.generator(plan.recipe.seed, "audit", entry.name, identity)
            exposure = draw(scene, vocabulary, settings, random)
            if exposure is not None:
                lists.append(exposure.categories)
                anomalous.append(exposure.anomalous)
                groups.append(group)
    return {source: measured(*columns) for source, columns in rows.items() if columns[0]}


def scenes(catalog: Catalog) -> Iterator[tuple[str, str, Scene]]:
    """(id, group, what the catalog knows of the names) of each record; no masks."""
    names = [category.name for category in catalog.categories]
    columns = ("id", "group", "masked", "ignored", "incomplete", "elsewhere", "absent")
    for batch in catalog.columns(columns):
        for identity, group, *places in zip(*(batch[name].to_pylist() for name in columns), strict=True):
            masked, ignored, incomplete, elsewhere, absent = ([names[place] for place in part] for part in places)
            scene = Scene(
                height=1,
                width=1,
                annotated=(True,),
                segments=dict.fromkeys(masked, ("",)),
                ignored=dict.fromkeys(ignored, ("",)),
                incomplete=dict.fromkeys(incomplete, ("",)),
                present=frozenset(elsewhere),
                absent=frozenset(absent),
                exhaustive=catalog.exhaustive,
            )
            yield identity, group, scene


def _relations(vocabulary: Vocabulary) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    return [entry.near for entry in vocabulary.names], [entry.kin for entry in vocabulary.names]


def _refuse_shared_groups(recipe: Recipe, catalogs: Sequence[Catalog]) -> None:
    """Raise RecipeError where one picture or video would lie in two splits and the recipe does not allow it."""
    hashes: dict[Subset, list[int]] = {split: [] for split in SUBSETS}
    if len({split for entry in recipe.sources for split in entry.shares}) < 2:
        return
    for entry, catalog in zip(recipe.sources, catalogs, strict=True):
        for group, _ in _rows(catalog, entry.limit):
            if not _allowed(recipe, group):
                hashes[split_of(entry, group)].append(rng.order("group", group))
    sets = {split: np.unique(np.array(values, dtype=np.int64)) for split, values in hashes.items()}
    for one, other in itertools.combinations(SUBSETS, 2):
        both = set(np.intersect1d(sets[one], sets[other]).tolist())
        if both:
            where = [
                (entry.label, group)
                for entry, catalog in zip(recipe.sources, catalogs, strict=True)
                for group, _ in _rows(catalog, entry.limit)
                if rng.order("group", group) in both
            ]
            raise RecipeError(
                f"{len(both)} pictures or videos lie in both {one} and {other}, the first {where[0][1]}",
                where=" and ".join(sorted({label for label, _ in where})),
                do="deal both sources by the same shares, or name the groups in allow_shared_groups",
            )


def _allowed(recipe: Recipe, group: str) -> bool:
    return any(
        group == name or (name.endswith("*") and group.startswith(name[:-1])) for name in recipe.allow_shared_groups
    )
