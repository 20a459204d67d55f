"""What a corpus says of one shard: a Parquet, a row a planned sample; `head.py` sums up the whole.

The Parquet of a shard is written after its tar and carries the tar's sha256, so its presence means that the shard is
done. A `ShardReport` is read from those bytes alone, whether they were written a moment ago or by a build that was
killed: a resumed build sums up what a straight one does. The driver keeps one `ShardReport` a shard (1 kB, and 5 to 10
bytes a category), never a row.

Equal rows give equal bytes (for one version of pyarrow): one row group of zstd pages, no clock in them. 8 kB a
shard, and 60 to 150 bytes a row.
"""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, NamedTuple, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from aesampler.errors import CorpusError
from aesampler.scene import Presence
from aesampler.storage import Folder

FORMAT_VERSION = 1
EXAMPLES = 3
"""Keys kept in a report for each reason of failure."""

Data = bytes
"""The bytes of a file, where a field called `bytes` hides the type."""

Status = Literal["ok", "failed", "skipped"]
Kind = Literal["image", "clip"]
Form = TypeVar("Form", bound=msgspec.Struct)


def _column(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(_column("element", kind))


SCHEMA = pa.schema(
    [
        _column("key", pa.string()),
        _column("status", pa.string()),
        _column("reason", pa.string()),
        _column("source", pa.string()),
        _column("split", pa.string()),
        _column("group", pa.string()),
        _column("shard", pa.string()),
        _column("index", pa.int64()),
        _column("offset", pa.int64()),
        _column("size", pa.int64()),
        _column("kind", pa.string()),
        _column("frames", pa.int64()),
        _column("valid_frames", pa.int64()),
        _column("height", pa.int64()),
        _column("width", pa.int64()),
        _column("anomalous", pa.bool_()),
        _column("categories", _list(pa.string())),
        _column("is_genuine", _list(pa.bool_())),
        _column("presence", _list(pa.string())),
        _column("frame_labels", _list(pa.uint8())),
        _column("anomaly_area", _list(pa.float32())),
        _column("ignored_area", _list(pa.float32())),
        _column("origin", pa.string()),
        _column("origin_frames", _list(pa.string())),
        _column("masks_sha256", pa.string()),
    ]
)
_META = b"aesampler.shard"
_PATH = re.compile(r"manifest/(?P<split>[a-z]+)/(?P<source>[a-z0-9-]+)-(?P<index>\d{6,})\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One planned sample: what came of it and where it lies.

    status: `ok`; `failed` (a bad record, `reason` is its fault) or `skipped` (by the rule named in `reason`). A reason
    is one clause without ids or numbers: equal faults are counted together. shard: path of the tar in the corpus;
    index: place among the shard's samples; offset, size: bytes of the sample's block in the tar; "", -1, -1 and 0 where
    the sample came to nothing. kind, frames (with padding), valid_frames, height, width (pixels). categories,
    is_genuine, presence: parallel. frame_labels (0, 1, 255 for unknown), anomaly_area, ignored_area (share of the
    picture's pixels, float32): one a frame, with padding. origin: path below the source's root, or the video's id;
    origin_frames: one a valid frame. masks_sha256: see `sample.masks_digest`.
    """

    key: str
    status: Status = "ok"
    reason: str = ""
    source: str
    split: str
    group: str
    shard: str = ""
    index: int = -1
    offset: int = -1
    size: int = 0
    kind: Kind
    frames: int = 0
    valid_frames: int = 0
    height: int = 0
    width: int = 0
    anomalous: bool = False
    categories: tuple[str, ...] = ()
    is_genuine: tuple[bool, ...] = ()
    presence: tuple[Presence, ...] = ()
    frame_labels: tuple[int, ...] = ()
    anomaly_area: tuple[float, ...] = ()
    ignored_area: tuple[float, ...] = ()
    origin: str = ""
    origin_frames: tuple[str, ...] = ()
    masks_sha256: str = ""


class ShardHead(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a Parquet says of its tar. path: of the tar in the corpus, "" (and sha256 "") where no sample was left.
    encoding: jpg or png. rejections: rule -> name -> samples in which the rule kept the name off the list, see
    `exposure.RULES`.
    """

    encoding: str
    path: str = ""
    samples: int = 0
    bytes: int = 0
    sha256: str = ""
    rejections: dict[str, dict[str, int]] = {}
    format_version: int = FORMAT_VERSION


def write(rows: Sequence[SampleRow], sink: BinaryIO, head: ShardHead) -> None:
    """The rows of one shard as Parquet; equal rows and heads give equal bytes."""
    columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA.names}
    schema = SCHEMA.with_metadata({_META: msgspec.json.encode(head)})
    pq.write_table(
        pa.Table.from_pydict(columns, schema=schema), sink, compression="zstd", row_group_size=max(len(rows), 1)
    )


def read_head(source: BinaryIO, where: str = "manifest") -> ShardHead:
    """What the Parquet says of its tar. Raises CorpusError where it is no manifest."""
    try:
        stored = (pq.read_metadata(source).metadata or {}).get(_META)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error, where) from error
    if stored is None:
        raise CorpusError("this Parquet is no manifest of a shard", where=where)
    return decoded(stored, ShardHead, where)


def read_table(source: BinaryIO, columns: Sequence[str] | None = None, where: str = "manifest") -> pa.Table:
    """The rows as an Arrow table, all of `SCHEMA` or the columns named. Raises CorpusError where it is no manifest."""
    wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    try:
        table = pq.ParquetFile(source).read(columns=wanted.names, use_threads=False)
        return table.select(wanted.names).cast(wanted)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _unreadable(error, where) from error


def read_rows(source: BinaryIO, where: str = "manifest") -> list[SampleRow]:
    """The rows of one shard, in shard order. Raises CorpusError where it is no manifest."""
    return rows_of(read_table(source, where=where))


def rows_of(table: pa.Table) -> list[SampleRow]:
    """The rows of a table with all columns of `SCHEMA`."""
    columns = [
        [tuple(value) for value in column.to_pylist()] if pa.types.is_list(column.type) else column.to_pylist()
        for column in (table.column(name) for name in SCHEMA.names)
    ]
    return [SampleRow(**dict(zip(SCHEMA.names, values, strict=True))) for values in zip(*columns, strict=True)]


def decoded(data: bytes, form: type[Form], where: str) -> Form:
    """A JSON text of the format. Raises CorpusError where it is none of `form`."""
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorpusError(f"not as the corpus format says: {error}", where=where) from error


def _unreadable(error: Exception, where: str) -> CorpusError:
    return CorpusError(f"not a manifest of a shard: {error}", where=where)


class _Told(NamedTuple):
    """What a report needs of a row."""

    key: str
    status: Status
    reason: str
    kind: Kind
    frames: int
    valid_frames: int
    anomalous: bool
    categories: list[str]
    is_genuine: list[bool]


class ShardEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A tar of the corpus: its path, samples, bytes and sha256."""

    path: str
    samples: int
    bytes: int
    sha256: str


class ManifestEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A Parquet of the corpus: its path, rows (failures too), bytes and sha256."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What one shard adds to its corpus: small, whatever the number of its samples.

    index: its number. path, bytes, sha256: of its tar, "" and 0 where no sample was left. manifest: its Parquet. kind,
    encoding, frames: of every sample, with padding. samples, anomalous; valid_frames: frames that are not padding, in
    all samples. skipped: rule -> samples; failures: reason -> samples; examples: reason -> at most `EXAMPLES` keys.
    packed_names, packed_rejections: `names` and `rejections`, packed, because they hold an entry for each category and
    the driver holds the reports of all shards.
    """

    source: str
    split: str
    index: int
    path: str
    samples: int
    bytes: int
    sha256: str
    manifest: ManifestEntry
    kind: Kind
    encoding: str
    frames: int
    anomalous: int
    valid_frames: int
    skipped: Mapping[str, int]
    failures: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]
    packed_names: Data
    packed_rejections: Data

    @property
    def names(self) -> dict[str, tuple[int, int]]:
        """Name -> samples that list it, samples that expose it."""
        return msgspec.json.decode(zlib.decompress(self.packed_names), type=dict[str, tuple[int, int]])

    @property
    def rejections(self) -> dict[str, dict[str, int]]:
        """Rule -> name -> samples in which the rule kept the name off the list."""
        return msgspec.json.decode(zlib.decompress(self.packed_rejections), type=dict[str, dict[str, int]])

    @property
    def rejected(self) -> int:
        """Planned samples that failed or were skipped."""
        return self.manifest.rows - self.samples

    @classmethod
    def of(cls, rows: Sequence[SampleRow], head: ShardHead, *, source: str, split: str, index: int) -> ShardReport:
        """The report of rows at hand: that of the Parquet that they make."""
        buffer = io.BytesIO()
        write(rows, buffer, head)
        return cls.of_parquet(buffer.getvalue(), f"manifest/{split}/{source}-{index:06d}.parquet")

    @classmethod
    def read(cls, folder: Folder, path: str) -> ShardReport:
        """The report of the Parquet at `path` in the corpus `folder`."""
        return cls.of_parquet(folder.read(path), path)

    @classmethod
    def of_parquet(cls, data: Data, path: str) -> ShardReport:
        """The report of the Parquet `data`, which lies at `path` in the corpus. Raises CorpusError where it is no
        manifest or contradicts itself.
        """
        named = _PATH.fullmatch(path)
        if named is None:
            raise CorpusError(
                "this is not where a manifest lies", where=path, allowed="manifest/SPLIT/SOURCE-000000.parquet"
            )
        head, table = read_head(io.BytesIO(data), path), read_table(io.BytesIO(data), where=path)
        rows = list(map(_Told._make, zip(*(table.column(name).to_pylist() for name in _Told._fields), strict=True)))
        done = [row for row in rows if row.status == "ok"]
        if len(done) != head.samples or not rows:
            raise CorpusError(
                "the rows contradict the head of the Parquet",
                where=path,
                got=f"{len(done)} samples",
                allowed=head.samples,
            )
        examples: dict[str, tuple[str, ...]] = {}
        for row in rows:
            if row.status == "failed" and len(known := examples.get(row.reason, ())) < EXAMPLES:
                examples[row.reason] = (*known, row.key)
        listed = _count(name for row in done for name in row.categories)
        genuine = Counter(
            name for row in done for name, real in zip(row.categories, row.is_genuine, strict=True) if real
        )
        return cls(
            source=named["source"],
            split=named["split"],
            index=int(named["index"]),
            path=head.path,
            samples=head.samples,
            bytes=head.bytes,
            sha256=head.sha256,
            manifest=ManifestEntry(path=path, rows=len(rows), bytes=len(data), sha256=hashlib.sha256(data).hexdigest()),
            kind=rows[0].kind,
            encoding=head.encoding,
            frames=max(row.frames for row in rows),
            anomalous=sum(row.anomalous for row in done),
            valid_frames=sum(row.valid_frames for row in done),
            skipped=_count(row.reason for row in rows if row.status == "skipped"),
            failures=_count(row.reason for row in rows if row.status == "failed"),
            examples=examples,
            packed_names=zlib.compress(
                msgspec.json.encode({name: (count, genuine[name]) for name, count in listed.items()})
            ),
            packed_rejections=zlib.compress(msgspec.json.encode(head.rejections)),
        )


def parquet_path(report: ShardReport) -> str:
    """Where the Parquet of a report lies in the corpus."""
    return report.manifest.path


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
