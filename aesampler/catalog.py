"""The catalog: a source's records as one Parquet, made once and reopened at once.

Rows ascend by `rng.order("catalog", group, id)`, then id: a random order that is the dataset's own, whatever the seed
and however files are listed. So a shard is a contiguous range of rows, a limit takes the first ones, and the same
dataset gives the same bytes. A row group holds 512 records: a worker reads the groups of its shard and no others.

An entry of the cache ($AESAMPLER_CACHE, else ~/.cache/aesampler) is a folder, named by a hash of format, options, root
and version:

    catalogs/<hash>/catalog.parquet    the records; what goes with them (categories, ...) in the schema's metadata: a
                                       worker needs no other file
    catalogs/<hash>/catalog.json       written last, the done-mark: the fingerprint, and a stamp of all that was read

It is fresh while the stamps hold: on local disks those of every file that was read (masks too), of every folder that
was listed and of every picture that was empty; in an object store those of the files read whole, and a digest of the
listings. What changes while it is read is told, by the files' own times. Where it is made anew under those who use it,
as by `plan` beside a build, they are told by the digest of its rows, which the end of the Parquet holds.

How long it takes, and in how much memory, next to pycocotools: benchmarks/catalog.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from aesampler import rng
from aesampler.errors import CorpusError, SourceError
from aesampler.machine import cpus
from aesampler.record import Category, Record
from aesampler.sources.source import Item, Source, Survey
from aesampler.storage import Folder
from aesampler.vocabulary import Vocabulary

VERSION = 5
"""Raised whenever the rows or their order change: entries of another version are made anew."""
ROW_GROUP = 512
"""Records of a row group; fewer where they are large."""
GROUP_BYTES = 32 << 20
PARQUET, HEAD = "catalog.parquet", "catalog.json"
_ROWS = b"aesampler.rows"
"""The key in the Parquet's metadata of the digest of its rows."""

_indices = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("frames", pa.list_(pa.string()), nullable=False),
        pa.field("frame_bytes", pa.list_(pa.int64()), nullable=False),  # listed bytes of each frame; -1: not there
        pa.field("annotated", pa.list_(pa.bool_()), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("masked", _indices, nullable=False),
        pa.field("ignored", _indices, nullable=False),
        pa.field("incomplete", _indices, nullable=False),
        pa.field("absent", _indices, nullable=False),
        pa.field("elsewhere", _indices, nullable=False),
        pa.field("payload", pa.large_binary(), nullable=False),
    ]
)
_PLAIN = ("id", "group", "height", "width", "payload")
_TUPLES = ("frames", "annotated", "masked", "ignored", "incomplete", "absent", "elsewhere")

Progress = Callable[[int, int], None]
"""Called with (records done, records in all)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row: a record, and the listed bytes of each of its frames, -1 where one is not there."""

    record: Record
    frame_bytes: tuple[int, ...]


class _Meta(msgspec.Struct, forbid_unknown_fields=True):
    """What the Parquet's schema carries."""

    version: int
    categories: list[Category]
    exhaustive: bool
    skipped: dict[str, int]


class _Head(msgspec.Struct, forbid_unknown_fields=True):
    """catalog.json."""

    version: int
    fingerprint: dict[str, Any]
    parquet_bytes: int
    files: dict[str, str]
    folders: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """An entry of the cache, or any folder with a `catalog.parquet`: cheap to hold, picklable, nothing stays open.

    fingerprint: {"files": {path: sha256 of each file read whole}, "listing": sha256 of the sorted lines "path NUL
    bytes" of frames and masks, "catalog": sha256 of the rows}; it holds nothing of the host, the place or the time. The
    rows' payloads count but for those of a source with a `batch`, which are of the files read whole.
    Empty where the catalog was opened from its Parquet alone. digest: of the rows; reading them raises SourceError
    where others have taken their place.
    """

    folder: Folder
    digest: str
    categories: tuple[Category, ...]
    exhaustive: bool
    records: int
    skipped: Mapping[str, int]
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        source: Source,
        root: Folder,
        *,
        cache: Folder | None = None,
        refresh: bool = False,
        progress: Progress | None = None,
    ) -> Catalog:
        """The catalog of `source` at `root`: the cached one where nothing has changed, unless `refresh`, else a new
        one.

        Raises SourceError: what the survey refuses, an id twice, no category, no record.
        """
        entry = (default_cache() if cache is None else cache) / f"catalogs/{_key(source, root)}"
        head = None if refresh else _fresh(entry, root)
        if head is None or cls.open(entry).digest != head.fingerprint["catalog"]:
            head = _make(source, root, entry, progress)
        found = replace(cls.open(entry), fingerprint=head.fingerprint)
        if found.digest != head.fingerprint["catalog"]:
            raise _replaced(entry)
        return found

    @classmethod
    def open(cls, folder: Folder) -> Catalog:
        """The catalog whose Parquet lies in `folder`. Raises CorpusError where it is none, or of a version that this
        code does not know.
        """
        where = f"{folder.url}/{PARQUET}"
        try:
            with folder.open(PARQUET) as file:
                parquet = pq.read_metadata(file)
            meta = msgspec.json.decode(parquet.metadata[b"aesampler"], type=_Meta)
            digest = parquet.metadata.get(_ROWS, b"").decode()
        except (pa.ArrowInvalid, KeyError, TypeError, msgspec.DecodeError) as error:
            raise CorpusError(f"not a catalog: {error}", where=where, do="remove it and run again") from error
        if meta.version != VERSION:
            raise CorpusError("a catalog of another version", where=where, got=meta.version, allowed=VERSION)
        return cls(
            folder=folder,
            digest=digest,
            categories=tuple(meta.categories),
            exhaustive=meta.exhaustive,
            records=parquet.num_rows,
            skipped=meta.skipped,
        )

    def revised(self, digest: str, revise: Callable[[pa.Table], pa.Table], *, cache: Folder | None = None) -> Catalog:
        """This catalog with `revise` done to the rows of each row group; kept in the cache under the fingerprint and
        `digest`, which says what was done, and which the new fingerprint holds as "others".
        """
        identity = [VERSION, self.folder.url.rpartition("/")[2], self.fingerprint, digest]
        name = hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:32]
        entry = (default_cache() if cache is None else cache) / f"catalogs/{name}"
        fingerprint = {**self.fingerprint, "others": digest}
        if not entry.exists(HEAD):
            rows = hashlib.sha256(f"{self.digest} {digest}".encode()).hexdigest()
            entry.commit(PARQUET, lambda sink: self._copy(sink, revise, rows))
            head = _Head(
                version=VERSION, fingerprint=fingerprint, parquet_bytes=entry.size(PARQUET), files={}, folders={}
            )
            entry.commit_bytes(HEAD, msgspec.json.encode(head))
        return replace(self.open(entry), fingerprint=fingerprint)

    def _copy(self, sink: BinaryIO, revise: Callable[[pa.Table], pa.Table], digest: str) -> None:
        with self._opened() as parquet:
            schema = parquet.schema_arrow
            with _writer(sink, schema) as writer:
                for place in range(parquet.num_row_groups):
                    writer.write_table(revise(parquet.read_row_group(place)).cast(schema))
                writer.add_key_value_metadata({_ROWS: digest})

    def rows(self, first: int = 0, last: int | None = None) -> Iterator[Entry]:
        """Rows [first, last), in order; only the row groups that they lie in are read, one at a time."""
        end = self.records if last is None else last
        if not 0 <= first <= end <= self.records:
            raise IndexError(f"rows {first} to {end} of a catalog of {self.records}")
        with self._opened() as parquet:
            begin = 0
            for place in range(parquet.num_row_groups):
                size = parquet.metadata.row_group(place).num_rows
                low, high = max(first - begin, 0), min(end - begin, size)
                if low < high:
                    yield from _entries(parquet.read_row_group(place).slice(low, high - low))
                begin += size

    def columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The columns `names` of every row, in order, a batch at a time."""
        with self._opened() as parquet:
            yield from parquet.iter_batches(batch_size=16 * ROW_GROUP, columns=list(names))

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        with self.folder.open(PARQUET) as file:
            parquet = pq.ParquetFile(file)
            if (parquet.metadata.metadata or {}).get(_ROWS, b"").decode() != self.digest:
                raise _replaced(self.folder)
            yield parquet

    def vocabulary(self) -> Vocabulary:
        """The names, counted over every record: `Vocabulary.count` of the `masked` column, a batch at a time."""
        width = len(self.categories)
        by_size: dict[int, npt.NDArray[np.int64]] = {}
        for batch in self.columns(["masked"]):
            lists = batch["masked"]
            sizes = np.diff(lists.offsets.to_numpy())
            owners, names = np.repeat(sizes, sizes), lists.flatten().to_numpy()
            for size in np.unique(owners).tolist():
                found = np.bincount(names[owners == size], minlength=width)
                by_size[size] = by_size.get(size, 0) + found
        return Vocabulary.of_counts(self.categories, by_size)


def _replaced(folder: Folder) -> SourceError:
    return SourceError(
        "the dataset was catalogued anew, and is another one, while the catalog was in use",
        where=f"{folder.url}/{PARQUET}",
        do="give the command again",
    )


def default_cache() -> Folder:
    """Where catalogs are kept: $AESAMPLER_CACHE, else ~/.cache/aesampler."""
    return Folder.at(os.environ.get("AESAMPLER_CACHE") or Path.home() / ".cache" / "aesampler")


def _key(source: Source, root: Folder) -> str:
    identity = {
        "aesampler": importlib.metadata.version("aesampler"),
        "version": VERSION,
        "format": source.format,
        "options": source.model_dump(mode="json"),
        "root": root.url,
    }
    return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()[:32]


def _fresh(entry: Folder, root: Folder) -> _Head | None:
    """The head of a finished entry whose inputs have not changed since."""
    try:
        head = msgspec.json.decode(entry.read(HEAD), type=_Head)
        whole = head.version == VERSION and entry.size(PARQUET) == head.parquet_bytes
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    if not whole or any(root.stat_token(path) != stamp for path, stamp in head.files.items()):
        return None
    return head if all(_folder_stamp(root, path) == stamp for path, stamp in head.folders.items()) else None


def _make(source: Source, root: Folder, entry: Folder, progress: Progress | None) -> _Head:
    began = time.time_ns()
    survey = source.survey(root)
    _check(survey, source, root)
    folders = {path: _folder_stamp(root, path) for path in _folders(survey, root)}
    files = {path: root.stat_token(path) for path in survey.files}
    pictures: set[str] = set()
    empty: set[str] = set()
    with ThreadPoolExecutor(_threads(), thread_name_prefix="catalog") as pool:
        hashes = {path: pool.submit(_sha256, root, path) for path in survey.files}
        digest = hashlib.sha256()
        entry.commit(PARQUET, lambda sink: _write(pool, survey, sink, pictures, empty, digest, progress))
        fingerprint = {
            "files": {path: hashes[path].result() for path in sorted(hashes)},
            "listing": _listing_sha256(survey.listing),
            "catalog": digest.hexdigest(),
        }
    changed = any(root.stat_token(path) != stamp for path, stamp in files.items())
    if root.is_local:
        if survey.batch is None:  # masks are read for the records; of pictures, their folders say enough
            files |= {path: root.stat_token(path) for path in survey.listing if path not in pictures}
        ended = time.time_ns()
        changed = changed or any(began <= _time(stamp) <= ended for stamp in (*files.values(), *folders.values()))
        files |= {path: root.stat_token(path) for path in empty}
    if changed:
        raise SourceError("the dataset changed while it was read", where=root.url, do="run again when it is at rest")
    head = _Head(
        version=VERSION, fingerprint=fingerprint, parquet_bytes=entry.size(PARQUET), files=files, folders=folders
    )
    entry.commit_bytes(HEAD, msgspec.json.encode(head))
    return head


def _check(survey: Survey, source: Source, root: Folder) -> None:
    if not survey.categories:
        raise SourceError(
            "the vocabulary is empty", where=f"{source.format} at {root.url}", do="a source needs category names"
        )
    if not survey.items:
        raise SourceError(
            "no record", where=f"{source.format} at {root.url}", do="see `aesampler sources` for the layout"
        )
    names = Counter(category.name for category in survey.categories)
    ids = Counter(item.id for item in survey.items)
    for kind, found in (("category names", names), ("record ids", ids)):
        if found.total() > len(found):
            twice = found.most_common(1)[0][0]
            raise SourceError(
                f"two {kind} are alike",
                where=f"{source.format} at {root.url}",
                got=repr(twice),
                do="each must occur once",
            )


def _order(items: Sequence[Item]) -> list[int]:
    """The places of `items` in the order of rows."""
    keys = rng.orders("catalog", ((item.group, item.id) for item in items))
    table = pa.table({"key": keys, "id": pa.array([item.id for item in items], pa.string())})
    order: list[int] = pc.sort_indices(table, [("key", "ascending"), ("id", "ascending")]).to_pylist()
    return order


def _maker(survey: Survey, pictures: set[str]) -> Callable[[Sequence[int]], dict[str, pa.Array]]:
    """Places -> their records as columns, and the paths of their frames into `pictures`. Names that are present in a
    record are `elsewhere` in the others of its group, unless known absent there.
    """
    shared = _shared(survey.items, survey.record)

    def joined(place: int) -> Record:
        found = survey.record(place)
        if found.group not in shared:
            return found
        known = {*found.masked, *found.ignored, *found.incomplete, *found.absent}
        return replace(found, elsewhere=tuple(sorted((shared[found.group] | {*found.elsewhere}) - known)))

    def columns(places: Sequence[int]) -> dict[str, pa.Array]:
        if survey.batch is not None and not shared:
            return dict(survey.batch(places))
        made = _columns([joined(place) for place in places])
        frames = made["frames"]
        paths = frames.flatten().to_pylist()
        pictures.update(paths)
        sizes = [survey.listing.get(frame, -1) for frame in paths]
        if -1 in sizes:
            sizes = [size for told in frames.to_pylist() for size in survey.frame_bytes(told)]
        made["frame_bytes"] = pa.ListArray.from_arrays(frames.offsets, pa.array(sizes, pa.int64()))
        return made

    return columns


def _columns(records: Sequence[Record]) -> dict[str, pa.Array]:
    columns = {name: pa.array(list(map(attrgetter(name), records)), SCHEMA.field(name).type) for name in _PLAIN}
    for name in _TUPLES:
        lists = list(map(attrgetter(name), records))
        begins = np.cumsum([0, *map(len, lists)], dtype=np.int32)
        values = pa.array(list(itertools.chain.from_iterable(lists)), SCHEMA.field(name).type.value_type)
        columns[name] = pa.ListArray.from_arrays(begins, values)
    return columns


def _shared(items: Sequence[Item], record: Callable[[int], Record]) -> dict[str, set[int]]:
    """Group -> every name that is present in it, for the groups of several records."""
    several = {group for group, count in Counter(item.group for item in items).items() if count > 1}
    shared: dict[str, set[int]] = {group: set() for group in several}
    for place, item in enumerate(items) if several else ():
        if item.group in several:
            found = record(place)
            shared[item.group].update(found.masked, found.ignored, found.incomplete, found.elsewhere)
    return shared


def _ahead(pool: ThreadPoolExecutor, survey: Survey, schema: pa.Schema, pictures: set[str]) -> Iterator[pa.RecordBatch]:
    """The rows in order, made by the pool a few steps ahead: a source that reads a file a record reads many at once."""
    order, make = _order(survey.items), _maker(survey, pictures)
    # Steps divide a row group; with few records they are short, so that all threads have some.
    step = ROW_GROUP if survey.batch is not None else min(1 << (len(order) // 64).bit_length(), 64)

    def rows(first: int) -> pa.RecordBatch:
        columns = make(order[first : first + step])
        return pa.record_batch([columns[field.name].cast(field.type) for field in schema], schema=schema)

    firsts = iter(range(0, len(order), step))
    waiting = deque(pool.submit(rows, first) for first in itertools.islice(firsts, _threads() + 1))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(rows, first) for first in itertools.islice(firsts, 1))


def _write(
    pool: ThreadPoolExecutor,
    survey: Survey,
    sink: BinaryIO,
    pictures: set[str],
    empty: set[str],
    digest: hashlib._Hash,
    progress: Progress | None,
) -> None:
    """The Parquet, a row group at a time; the paths of all frames go to `pictures`, of those that hold nothing to
    `empty`, and the rows to `digest`.
    """
    counted = [name for name in SCHEMA.names if name != "payload" or survey.batch is None]
    meta = _Meta(
        version=VERSION,
        categories=list(survey.categories),
        exhaustive=survey.exhaustive,
        skipped=dict(sorted(survey.skipped.items())),
    )
    schema = SCHEMA.with_metadata({"aesampler": msgspec.json.encode(meta)})
    done, total = 0, len(survey.items)
    pending: list[pa.RecordBatch] = []
    with _writer(sink, schema) as writer:
        for batch in _ahead(pool, survey, schema, pictures):
            digest.update(batch.select(counted).serialize())
            nothing = pc.equal(batch["frame_bytes"].flatten(), 0)
            empty.update(batch["frames"].flatten().filter(nothing).to_pylist())
            pending.append(batch)
            rows = sum(part.num_rows for part in pending)
            del batch
            if rows >= ROW_GROUP or done + rows == total or sum(part.nbytes for part in pending) >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(pending).combine_chunks(), row_group_size=ROW_GROUP)
                pending.clear()
                done += rows
                if progress is not None:
                    progress(done, total)
        writer.add_key_value_metadata({_ROWS: digest.hexdigest()})


def _writer(sink: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink, schema, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False
    )


def _entries(table: pa.Table) -> Iterator[Entry]:
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for row in range(table.num_rows):
        fields: dict[str, Any] = {name: columns[name][row] for name in _PLAIN}
        fields |= {name: tuple(columns[name][row]) for name in _TUPLES}
        yield Entry(record=Record(**fields), frame_bytes=tuple(columns["frame_bytes"][row]))


def _threads() -> int:
    return max(min(cpus(), 8), 2)


def _folders(survey: Survey, root: Folder) -> Iterable[str]:
    """The folders to watch. A local one says only what lies directly in it, so all below it that hold listed files are
    watched too.
    """
    if not root.is_local:
        return sorted(set(survey.folders))
    watched = set(survey.folders)
    for folder in {path.rpartition("/")[0] for path in survey.listing}:
        step = folder
        while step not in watched and any(not top or step.startswith(top + "/") for top in survey.folders):
            watched.add(step)
            step = step.rpartition("/")[0]
    return sorted(watched)


def _folder_stamp(root: Folder, path: str) -> str:
    return root.stat_token(path) if root.is_local else _listing_sha256(root.list(path))


def _time(stamp: str) -> int:
    """When what is on a local disk was changed last, in nanoseconds; 0 where there is nothing."""
    return int(stamp.rpartition(":")[2] or 0)


def _listing_sha256(listing: Mapping[str, int]) -> str:
    digest = hashlib.sha256()
    for path in sorted(listing):
        digest.update(f"{path}\0{listing[path]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _sha256(folder: Folder, path: str) -> str:
    # Not `hashlib.file_digest`: its small pieces each wait for the interpreter, which the survey's rows are made with.
    digest, piece = hashlib.sha256(), memoryview(bytearray(8 << 20))
    with folder.open(path) as file:
        while size := file.readinto(piece):  # type: ignore[attr-defined]
            digest.update(piece[:size])
    return digest.hexdigest()
