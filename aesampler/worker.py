"""What a worker does: `build_shard(task, job)` makes one shard of a plan.

It is idempotent: the tar is put in place first, its Parquet last; where the Parquet is, the shard is done and is not
touched again. A record with a lasting fault of content becomes a row with a status and leaves the shard shorter;
whatever may pass (reading, memory) is raised, to be tried again.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from aesampler import image, manifest, sample
from aesampler.catalog import Catalog
from aesampler.errors import BadRecord, CorpusError, SourceError
from aesampler.exposure import RULES, ExposureSettings, SimilaritySettings, Why, rejections
from aesampler.head import PLAN
from aesampler.manifest import SampleRow, ShardHead, ShardReport
from aesampler.plan import ShardTask, split_of
from aesampler.recipe import Recipe, SourceEntry
from aesampler.record import Record
from aesampler.scene import Scene
from aesampler.shard import Member, ShardWriter
from aesampler.sources import open_videos
from aesampler.sources.source import Source
from aesampler.storage import Folder
from aesampler.vocabulary import Vocabulary

if TYPE_CHECKING:
    from aesampler.similarity import Gaze

NOTHING_TO_DRAW = "no irrelevant name may be drawn"
"""Why a record is skipped by rule: see `exposure.draw`."""

AHEAD = 16
"""Samples whose pictures are fetched ahead from an object store, one thread each."""

Note = Callable[[str], None]
"""Told each key before its record is touched."""

Row = dict[str, Any]
"""Fields of a `SampleRow`, all but its place in the shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all tasks of a build share: small, picklable, the same for every worker.

    plan_sha256: of the plan that lies in OUT while the build runs. packages: those on whose versions bytes depend.
    roots, catalogs, encodings (jpg, png), transcoded (whether pictures are encoded anew)
    and weights (of the CLIP model that looks at them, or none): one a recipe entry.
    """

    recipe: Recipe
    plan_sha256: str
    packages: tuple[str, ...]
    out: Folder
    roots: tuple[Folder, ...]
    catalogs: tuple[Catalog, ...]
    encodings: tuple[str, ...]
    transcoded: tuple[bool, ...]
    weights: tuple[str | None, ...]


def paths(recipe: Recipe, task: ShardTask) -> tuple[str, str]:
    """The tar and the Parquet of a task, below the corpus."""
    stem = f"{task.split}/{recipe.sources[task.entry].name}-{task.index:06d}"
    return f"{stem}.tar", f"manifest/{stem}.parquet"


@open_videos.kept()
def build_shard(task: ShardTask, job: Job, note: Note = lambda key: None) -> ShardReport:
    """Make one shard and its Parquet, or report the one that is there."""
    tar, parquet = paths(job.recipe, task)
    if job.out.exists(parquet):
        return ShardReport.read(job.out, parquet)
    rows: list[SampleRow] = []
    bench = _Bench.of(task, job)
    made = _samples(bench, rows, note)
    first = next(made, None)
    head = ShardHead(encoding=bench.encoding, rejections=bench.rejections())
    if first is not None:

        def write(sink: BinaryIO) -> None:
            nonlocal head
            writer = ShardWriter(sink)
            for index, (row, members) in enumerate(itertools.chain([first], made)):
                block = writer.add(row["key"], members)
                rows.append(SampleRow(shard=tar, index=index, offset=block.offset, size=block.size, **row))
            done = writer.finish()
            head = ShardHead(
                encoding=bench.encoding,
                path=tar,
                bytes=done.bytes,
                samples=done.samples,
                sha256=done.sha256,
                rejections=bench.rejections(),
            )

        job.out.commit(tar, write)
    _same_plan(job)
    job.out.commit(parquet, lambda sink: manifest.write(rows, sink, head))
    return ShardReport.read(job.out, parquet)


def _same_plan(job: Job) -> None:
    """Refuse to finish a shard in a folder where another build has begun meanwhile: this worker has outlived its
    own.
    """
    there = job.out.read(PLAN) if job.out.exists(PLAN) else b""
    if hashlib.sha256(there).hexdigest() != job.plan_sha256:
        raise CorpusError("another build has begun in this folder", where=job.out.url, do="let it end, or stop it")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """All that stays the same over the samples of a task, but for `tally`: how often each rule rejected each name,
    int64 [rules, names], see `exposure.rejections`.
    """

    task: ShardTask
    recipe: Recipe
    entry: SourceEntry
    reader: Source
    settings: ExposureSettings
    root: Folder
    catalog: Catalog
    names: tuple[str, ...]
    vocabulary: Vocabulary
    encoding: str
    transcoded: bool
    gaze: Gaze | None
    tally: npt.NDArray[np.int64]

    @classmethod
    def of(cls, task: ShardTask, job: Job) -> _Bench:
        entry = job.recipe.sources[task.entry]
        catalog = job.catalogs[task.entry]
        vocabulary = _vocabulary(job.out, entry.name, job.plan_sha256)
        settings = job.recipe.settings(entry)
        return cls(
            task=task,
            recipe=job.recipe,
            entry=entry,
            reader=entry.reader,
            settings=settings,
            root=job.roots[task.entry],
            catalog=catalog,
            names=tuple(category.name for category in catalog.categories),
            vocabulary=vocabulary,
            encoding=job.encodings[task.entry],
            transcoded=job.transcoded[task.entry],
            gaze=_gaze(vocabulary, settings.similarity, job.weights[task.entry]),
            tally=np.zeros((len(RULES), len(vocabulary.names)), dtype=np.int64),
        )

    def counted(self, scene: Scene) -> Why:
        """Why each name may not be drawn for one sample, which is counted."""
        why = rejections(scene, self.vocabulary, self.settings)
        rejected = np.flatnonzero(why)
        self.tally[why[rejected] - 1, rejected] += 1
        return why

    def rejections(self) -> dict[str, dict[str, int]]:
        """Rule -> name -> samples, of the rules and names that were counted."""
        found = {}
        for rule, counts in zip(RULES, self.tally, strict=True):
            names = {self.vocabulary.names[place].name: int(counts[place]) for place in np.flatnonzero(counts)}
            if names:
                found[rule] = dict(sorted(names.items()))
        return found

    @property
    def frames(self) -> int:
        """Frames of every sample, padding included."""
        return self.recipe.clips.frames if self.reader.kind == "clip" else 1


# A process may outlive a build: what is held is held for its plan, which says what lies in those places.


@lru_cache(maxsize=64)
def _vocabulary(out: Folder, source: str, plan_sha256: str) -> Vocabulary:
    with out.open(f"vocabulary/{source}.parquet") as file:
        return Vocabulary.read(file)


def _gaze(vocabulary: Vocabulary, asked: SimilaritySettings | None, weights: str | None) -> Gaze | None:
    if asked is None or weights is None:
        return None
    names = tuple(entry.name for entry in vocabulary.names)
    return _held_gaze(names, asked.model_copy(update={"pretrained": weights}))


@lru_cache(maxsize=2)
def _held_gaze(names: tuple[str, ...], settings: SimilaritySettings) -> Gaze:
    from aesampler.similarity import Gaze  # torch is imported for those who ask for it only

    return Gaze(names, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """One planned sample: the frames of `record` at `places`, without padding."""

    key: str
    record: Record
    frame_bytes: tuple[int, ...]
    places: tuple[int, ...]


def _units(bench: _Bench) -> Iterator[_Unit]:
    """The planned samples of a task, in order."""
    recipe, entry, task = bench.recipe, bench.entry, bench.task
    several = sum(len(other.shares) for other in recipe.sources if other.name == entry.name) > 1
    prefix = f"{entry.name}_{task.split}" if several else entry.name
    for found in bench.catalog.rows(task.first, task.last):
        record = found.record
        if split_of(entry, record.group) != task.split:
            continue
        if bench.reader.kind == "image":
            yield _Unit(key=sample_key(prefix, record.id), record=record, frame_bytes=found.frame_bytes, places=(0,))
            continue
        for start in recipe.clips.starts(len(record.frames)):
            places = tuple(recipe.clips.places(start, len(record.frames)))
            yield _Unit(
                key=sample_key(prefix, record.id, start), record=record, frame_bytes=found.frame_bytes, places=places
            )


def sample_key(prefix: str, identity: str, start: int | None = None) -> str:
    """The key of a sample: `prefix_slug`, for a clip with the place of its first frame; at most 80 of [a-z0-9_-].

    Where the slug loses anything of the id, 10 hex digits of the id's sha256 follow, so that different ids never share
    a key.
    """
    ending = "" if start is None else f"-{start:05d}"
    slug = re.sub(r"[^a-z0-9_-]+", "-", identity.lower())
    room = 80 - len(prefix) - 1 - len(ending)
    if slug != identity or len(slug) > room:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
        slug = f"{slug[: room - 11].strip('-')}-{digest}"
    return f"{prefix}_{slug}{ending}"


def _pictures(unit: _Unit, reader: Source, root: Folder) -> list[bytes]:
    """The bytes of a sample's pictures, one a frame, without padding. Raises BadRecord where one is missing,
    SourceError where one has another size than when the dataset was catalogued.
    """
    for place in unit.places:
        if unit.frame_bytes[place] <= 0:
            raise BadRecord("a picture is missing, or empty", where=unit.record.frames[place])
    found = reader.pictures(root, unit.record, unit.places)
    if type(reader).pictures is Source.pictures:  # else a frame is no file
        for place, data in zip(unit.places, found, strict=True):
            if len(data) != unit.frame_bytes[place]:
                raise SourceError(
                    "the picture has changed since the dataset was catalogued",
                    where=f"{root.url}/{unit.record.frames[place]}",
                    got=f"{len(data)} bytes",
                    allowed=f"{unit.frame_bytes[place]}",
                    do="run again with --fresh when the dataset is at rest",
                )
    return found


def _fetched(units: Iterator[_Unit], reader: Source, root: Folder) -> Iterator[tuple[_Unit, Callable[[], list[bytes]]]]:
    """Each unit with a call that gives its pictures; from an object store they are fetched ahead, since each takes a
    round trip.
    """
    if root.is_local:
        for unit in units:
            yield unit, partial(_pictures, unit, reader, root)
        return
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch") as pool:
        waiting: deque[tuple[_Unit, Future[list[bytes]]]] = deque()
        for unit in units:
            waiting.append((unit, pool.submit(copy_context().run, _pictures, unit, reader, root)))
            if len(waiting) > AHEAD:
                ready, future = waiting.popleft()
                yield ready, future.result
        while waiting:
            ready, future = waiting.popleft()
            yield ready, future.result


def _samples(bench: _Bench, rows: list[SampleRow], note: Note) -> Iterator[tuple[Row, list[Member]]]:
    """The samples of a task, each its row and its members; what failed or was skipped goes straight to `rows`."""
    for unit, fetch in _fetched(_units(bench), bench.reader, bench.root):
        note(unit.key)
        record = unit.record
        kind = bench.reader.kind
        row: Row = {
            "key": unit.key,
            "source": bench.entry.name,
            "split": bench.task.split,
            "group": record.group,
            "kind": kind,
            "origin": record.frames[0] if kind == "image" else record.id,
            "origin_frames": tuple(_stem(record.frames[place]) for place in unit.places),
        }
        try:
            rendered = _render(bench, unit, fetch(), row)
        except BadRecord as error:
            rows.append(SampleRow(status="failed", reason=error.what, **row))
            continue
        if rendered is None:
            rows.append(SampleRow(status="skipped", reason=NOTHING_TO_DRAW, **row))
        else:
            yield rendered


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _render(bench: _Bench, unit: _Unit, pictures: list[bytes], row: Row) -> tuple[Row, list[Member]] | None:
    """One sample: its row and members; None where no irrelevant name may be drawn. Raises BadRecord."""
    size, formats = _checked(unit, pictures)
    scene = bench.reader.scene(bench.root, unit.record, bench.names, unit.places, size)
    pictures, size = _encoded(bench, unit, pictures, size, formats)
    if size != (scene.height, scene.width):
        scene = sample.resized(scene, *size)
    if bench.gaze is not None:
        scene = replace(scene, shown=bench.gaze.shown([image.decode(data) for data in pictures]))
    derived = sample.derive(
        scene,
        bench.vocabulary,
        bench.settings,
        seed=bench.recipe.seed,
        source=bench.entry.name,
        key=unit.key,
        epoch=0,
        frames=bench.frames,
        why=bench.counted(scene),
    )
    if derived is None:
        return None
    exposure, labels = derived
    padding = bench.frames - len(pictures)
    encoded = sample.encode(
        key=unit.key,
        source=row["source"],
        split=row["split"],
        origin=row["origin"],
        origin_frames=row["origin_frames"],
        kind=bench.reader.kind,
        pictures=pictures + pictures[-1:] * padding,
        encoding=bench.encoding,
        scene=scene,
        exposure=exposure,
        labels=labels,
    )
    return row | {
        "frames": bench.frames,
        "valid_frames": len(pictures),
        "height": scene.height,
        "width": scene.width,
        "anomalous": exposure.anomalous,
        "categories": exposure.categories,
        "is_genuine": exposure.is_genuine,
        "presence": exposure.presence,
        "frame_labels": labels.frame_labels,
        "anomaly_area": encoded.anomaly_area,
        "ignored_area": encoded.ignored_area,
        "masks_sha256": encoded.masks_sha256,
    }, encoded.members


def _checked(unit: _Unit, pictures: list[bytes]) -> tuple[tuple[int, int], set[str]]:
    """The one size (height, width) of a sample's pictures, each whole and as large as annotated, and their formats.

    Raises BadRecord.
    """
    record = unit.record
    annotated = (record.height, record.width) if record.height else None
    first: tuple[int, int] | None = None
    formats = set()
    for place, data in zip(unit.places, pictures, strict=True):
        try:
            picture = image.probe(data)
        except BadRecord as error:
            raise BadRecord(error.what, where=record.frames[place]) from error
        size = (picture.height, picture.width)
        if annotated is not None and size != annotated:
            raise BadRecord(
                "the picture has not the annotated size", where=record.frames[place], got=size, allowed=annotated
            )
        if first is not None and size != first:
            raise BadRecord(
                "the frames of the clip differ in size", where=record.frames[place], got=size, allowed=first
            )
        first = size
        formats.add(picture.format)
    assert first is not None
    return first, formats


def _encoded(
    bench: _Bench, unit: _Unit, pictures: list[bytes], size: tuple[int, int], formats: set[str]
) -> tuple[list[bytes], tuple[int, int]]:
    """The pictures as the shard holds them, and their size: untouched unless the plan transcodes, or a file holds
    another format than its name says.
    """
    settings = bench.recipe.images
    if not bench.transcoded and formats == {bench.encoding}:
        return pictures, size
    if bench.encoding != "jpg":
        where = unit.record.frames[unit.places[0]]
        raise BadRecord("the picture is in another format than its name says", where=where, allowed=bench.encoding)
    made = [image.resized(data, settings.max_side or max(size), settings.jpeg_quality) for data in pictures]
    return [data for data, _, _ in made], made[0][1:]
