"""Records and scenes of an instances JSON, the file form of COCO and LVIS (instances_json.py decodes it).

A record's payload says what its annotations are in one of two forms. Where the file is on a local disk, it refers to
it: `@`, the path of the file below the root, a line feed, and a row of `REFERENCE` an annotation, with the CRC-32 of
the text, so that a file that changed after it was catalogued is noticed by whoever builds from it. Elsewhere, where
each text would be a request, it holds them: JSON, `[[category, iscrowd, segmentation], ...]`. Copying the texts of
train2017 in the order of the catalog took 1.4 s of 5.7, packing and hashing them another second.
"""

from __future__ import annotations

import itertools
import os
import re
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Generic, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene, Track
from aesampler.sources.instances_json import Named, P, Whole, decode
from aesampler.sources.source import Item
from aesampler.storage import Folder

REFERENCE = np.dtype([("offset", "<i8"), ("size", "<i4"), ("code", "<i4"), ("crc", "<u4")])
"""A text in the file: its bytes, 2 times the index into the categories plus 1 for a crowd, and its CRC-32."""

_COCO_FILE = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.\w+$")
_BARRED = re.compile(r"[\\\0]").search


class _Texts:
    """The open file that texts are read from; closed when the last who holds this lets go, it may be removed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


class _Lists(NamedTuple):
    """A list a picture: values int64 [all]; bounds int64 [pictures + 1], of which i and i + 1 bound picture i's."""

    values: npt.NDArray[np.int64]
    bounds: npt.NDArray[np.int64]

    @classmethod
    def grouped(cls, values: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], pictures: int) -> _Lists:
        """`values` by their owners, which ascend."""
        return cls(values, np.searchsorted(owners, np.arange(pictures + 1)))

    def where(self, places: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Where the values of `places` are, one picture after the other, and where each one's begin among them, int32
        [places + 1].
        """
        firsts = self.bounds[places]
        sizes = self.bounds[places + 1] - firsts
        begins = np.concatenate([[0], np.cumsum(sizes)])
        return np.arange(begins[-1]) + np.repeat(firsts - begins[:-1], sizes), begins.astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class Instances(Generic[P]):
    """What an instances JSON holds, its annotations grouped by picture.

    pictures, categories: in the file's order. names: masked, ignored, incomplete, absent, elsewhere, as `Record` has
    them. codes: of each annotation, 2 times the index into categories, plus 1 for a crowd. offsets, sizes, checks: of
    each annotation, the bytes of the segmentation's text in the file, and its CRC-32. refers: the path of the file
    below the root where payloads refer to it, "" where they hold its texts.
    """

    where: str
    refers: str
    pictures: list[P]
    categories: list[Named]
    names: Mapping[str, _Lists]
    codes: _Lists
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    checks: npt.NDArray[np.int64]
    texts: _Texts

    def heads(self, items: Sequence[Item], frames: Sequence[str], listing: Mapping[str, int]) -> pa.RecordBatch:
        """What a row has besides its names and its payload, of every picture; items, frames: one a picture; listing:
        frame -> bytes.
        """
        columns = {
            "id": pa.array([item.id for item in items], pa.string()),
            "group": pa.array([item.group for item in items], pa.string()),
            "frames": pa.array(frames, pa.string()),
            "frame_bytes": pa.array([listing.get(frame, -1) for frame in frames], pa.int64()),
            "height": pa.array([picture.height for picture in self.pictures], pa.int32()),
            "width": pa.array([picture.width for picture in self.pictures], pa.int32()),
        }
        return pa.record_batch(columns)

    def batch(self, places: Sequence[int], heads: pa.RecordBatch) -> dict[str, pa.Array]:
        """The records of `places` as `Survey.batch` has them; heads: of all pictures, see there.

        The payload says nothing where there is no annotation. A name whose segmentations are all empty is present
        without a mask (`elsewhere`).
        """
        ones = np.arange(len(places) + 1, dtype=np.int32)
        chosen = np.array(places, dtype=np.int64)
        taken = heads.take(pa.array(chosen))
        columns = {name: taken[name] for name in ("id", "group", "height", "width")}
        columns |= {name: pa.ListArray.from_arrays(ones, taken[name]) for name in ("frames", "frame_bytes")}
        columns["annotated"] = pa.ListArray.from_arrays(ones, pa.array(np.ones(len(places), dtype=np.bool_)))
        columns["payload"] = self._references(chosen) if self.refers else self._payloads(chosen)
        for name, lists in self.names.items():
            those, begins = lists.where(chosen)
            columns[name] = pa.ListArray.from_arrays(begins, pa.array(lists.values[those].astype(np.int32)))
        return columns

    def record(self, place: int, heads: pa.RecordBatch) -> Record:
        """The record of pictures[place]."""
        row: dict[str, Any] = {}
        columns = self.batch([place], heads)
        del columns["frame_bytes"]
        for name, column in columns.items():
            value = column[0].as_py()
            row[name] = tuple(value) if isinstance(value, list) else value
        return Record(**row)

    def _references(self, places: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
        annotations, begins = self.codes.where(places)
        rows = np.empty(len(annotations), dtype=REFERENCE)
        columns = {"offset": self.offsets, "size": self.sizes, "code": self.codes.values, "crc": self.checks}
        for name, column in columns.items():
            rows[name] = column[annotations]
        ends = begins.astype(np.int64) * REFERENCE.itemsize
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(rows)]
        told = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(places), buffers)
        head, nothing = (pa.scalar(text, pa.large_binary()) for text in (f"@{self.refers}\n".encode(), b""))
        return pc.if_else(pa.array(ends[:-1] < ends[1:]), pc.binary_join_element_wise(head, told, nothing), nothing)

    def _payloads(self, places: npt.NDArray[np.int64]) -> pa.LargeBinaryArray:
        annotations, begins = self.codes.where(places)
        first = np.zeros(len(annotations), dtype=np.int64)
        first[begins[:-1][begins[:-1] < begins[1:]]] = 1
        # What stands before a text closes what came before it: an annotation, or with a picture's first the whole
        # payload of the picture before.
        kinds, kind = np.unique(self.codes.values[annotations] * 2 + first, return_inverse=True)
        openings = [(b"]][[%d,%d," if code & 1 else b"],[%d,%d,") % divmod(code >> 1, 2) for code in kinds.tolist()]
        offsets, sizes, read, file = self.offsets[annotations], self.sizes[annotations], os.pread, self.texts.descriptor
        pieces: list[bytes] = []
        for which, offset, size in zip(kind.tolist(), offsets.tolist(), sizes.tolist(), strict=True):
            pieces += (openings[which], read(file, size, offset))
        data = b"".join((*pieces, b"]]"))
        widths = np.array([len(opening) for opening in openings], dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(widths[kind] + sizes)]).astype(np.int64)
        if len(data) != ends[-1] + 2:
            raise SourceError(
                "the file became shorter while it was read", where=self.where, do="run again when it is at rest"
            )
        buffers = [None, pa.py_buffer(ends[begins] + 2), pa.py_buffer(data)]
        return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(places), buffers)


def read(root: Folder, path: str, picture: type[P], *, hold: bool = False) -> Instances[P]:
    """The instances JSON at `path` below `root`, its references checked. hold: payloads hold the texts, wherever the
    file is.

    Raises SourceError: no such file, not JSON, a missing key, no categories, an id or a name twice, an annotation of an
    unknown picture or category.
    """
    where = f"{root.url}/{path}"
    try:
        with root.local_copy(path) as local:
            if local.stat().st_size == 0:
                raise SourceError("the file is empty", where=where)
            texts = _Texts(local)
            whole, columns = decode(texts.descriptor, picture)
    except FileNotFoundError as error:
        raise SourceError("no such file", where=where, do="set annotations to the file, below root") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(
            f"not an instances JSON: {error}",
            where=where,
            do="it needs images, annotations and categories, as COCO's has",
        ) from error
    except OverflowError as error:
        raise SourceError("an id does not fit into 64 bits", where=where) from error
    _check_unique("images", "id", [entry.id for entry in whole.images], where)
    _check_unique("categories", "id", [entry.id for entry in whole.categories], where)
    _check_unique("categories", "name", [entry.name for entry in whole.categories], where)
    if not whole.categories:
        raise SourceError("it names no categories: the vocabulary is empty", where=where)
    if not whole.images:
        raise SourceError("it names no images", where=where)

    def who(first: int) -> str:
        return f"{where}: annotation {columns.ids[first]}"

    images = _places(columns.images, [entry.id for entry in whole.images], "image", who)
    categories = _places(columns.categories, [entry.id for entry in whole.categories], "category", who)
    order = np.argsort(images, kind="stable")
    owners, category, crowd = images[order], categories[order], columns.crowd[order]
    return Instances(
        where=where,
        refers=path if root.is_local and not hold else "",
        pictures=whole.images,
        categories=whole.categories,
        names=_names(whole, owners, category, crowd, columns.empty[order], where),
        codes=_Lists.grouped(category * 2 + crowd, owners, len(whole.images)),
        offsets=columns.offsets[order],
        sizes=columns.sizes[order],
        checks=columns.checks[order],
        texts=texts,
    )


def _names(
    whole: Whole[P],
    owners: npt.NDArray[np.int64],
    category: npt.NDArray[np.int64],
    crowd: npt.NDArray[np.bool_],
    empty: npt.NDArray[np.bool_],
    where: str,
) -> dict[str, _Lists]:
    """The names of each picture by what is known of them. A pair (picture, name) is one number, so that sets of pairs
    are sorted arrays.
    """
    width = len(whole.categories)
    known = [entry.id for entry in whole.categories]

    def told(field: str) -> npt.NDArray[np.int64]:
        lists = [getattr(picture, field, ()) for picture in whole.images]
        pictures = np.repeat(np.arange(len(lists)), [len(ids) for ids in lists])
        wanted = np.fromiter(itertools.chain.from_iterable(lists), np.int64, len(pictures))

        def who(first: int) -> str:
            return f"{where}: {field} of image {whole.images[pictures[first]].id}"

        return _distinct(pictures * width + _places(wanted, known, "category", who))

    pairs = owners * width + category
    masked = _distinct(pairs[~(crowd | empty)])
    ignored = _distinct(pairs[crowd & ~empty])
    bare = _distinct(pairs[empty])
    partly, absent = told("not_exhaustive_category_ids"), told("neg_category_ids")
    sets = {
        "masked": _without(masked, partly),
        "ignored": ignored,
        "incomplete": partly,
        "absent": _without(absent, masked, ignored, bare, partly),
        "elsewhere": _without(bare, masked, ignored, partly),
    }
    return {name: _Lists.grouped(found % width, found // width, len(whole.images)) for name, found in sets.items()}


def _distinct(pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    # numpy's own `unique` builds a hash table, which takes ten times as long on numbers that are nearly sorted.
    ascending = np.sort(pairs)
    found: npt.NDArray[np.int64] = ascending[np.diff(ascending, prepend=-1) > 0]
    return found


def _without(pairs: npt.NDArray[np.int64], *others: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    for other in others:
        if len(pairs) and len(other):
            pairs = np.setdiff1d(pairs, other, assume_unique=True)
    return pairs


def categories(entries: Sequence[Named]) -> tuple[Category, ...]:
    """The vocabulary of a file, its names as they stand."""
    return tuple(
        Category(name=entry.name, origin=str(entry.id), supercategory=entry.supercategory or "") for entry in entries
    )


def ids(paths: Sequence[str], where: str) -> list[str]:
    """A record id for each picture: its path without the ending; with it, for all, where two would be alike.

    Raises SourceError where two pictures have one path.
    """
    _check_unique("images", "file name", paths, where)
    stems = [path.rpartition(".")[0] or path for path in paths]
    return stems if len(set(stems)) == len(stems) else list(paths)


def group(frame: str) -> str:
    """The identity of a picture: COCO's own number where the file is named as COCO names its files, in whatever set;
    else its path.
    """
    found = _COCO_FILE.match(frame, frame.rfind("/") + 1)
    return f"coco:{int(found[1])}" if found else f"image:{frame}"


def confined(path: str, where: str) -> str:
    """`path` of a picture, as the file names it, without "." and empty parts. Raises SourceError where it would leave
    its folder.
    """
    if path and path[0] != "/" and ".." not in path and "./" not in path and "//" not in path and not _BARRED(path):
        return path
    if not path or path.startswith("/") or "\\" in path or "\0" in path or ".." in path.split("/"):
        raise SourceError("a path leaves its folder, or is none", where=where, got=repr(path))
    return str(PurePosixPath(path))


def listed(
    root: Folder, folder: str, paths: Sequence[str], where: str, there: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Path below root -> bytes of those pictures of `folder`, whose paths in it are given, that are there. Raises
    SourceError where none is. there: what lies straight in the folder, where that has been listed already.
    """
    deep = any("/" in path for path in paths)
    if there is None or deep:
        there = root.list(folder, depth=None if deep else 0)
    frames = [f"{folder}/{path}" for path in paths] if folder else paths
    found = {frame: there[frame] for frame in frames if frame in there}
    if not found:
        raise SourceError(
            "none of the pictures that the annotations name lies in the folder of pictures",
            where=where,
            got=f"{root.url}/{folder} with {len(there)} files, the first picture being {frames[0]}",
            do="set images to their folder, below root",
        )
    return found


def scene(root: Folder, record: Record, names: Sequence[str], size: tuple[int, int], *, exhaustive: bool) -> Scene:
    """The scene of a record that `Instances.record` made. Raises BadRecord on an impossible mask, or a picture that is
    not of the annotated size; SourceError where the file that its payload refers to has changed.
    """
    height, width = size
    if record.height and (record.height, record.width) != size:
        raise BadRecord(
            "the picture is not of the size that the annotations say",
            where=record.id,
            got=f"{height} x {width}",
            allowed=f"{record.height} x {record.width}",
        )
    partly = set(record.incomplete)
    found: dict[tuple[str, int], list[Any]] = {}
    for index, is_crowd, segmentation in marks(root, record.payload):
        if segmentation:
            kind = "ignored" if is_crowd else "incomplete" if index in partly else "segments"
            found.setdefault((kind, index), []).append(segmentation)
    tracks: dict[str, dict[str, Track]] = {"segments": {}, "incomplete": {}, "ignored": {}}
    for (kind, index), segmentations in found.items():
        try:
            counts = masks.union_of_coco(segmentations, height, width)
        except BadRecord as error:
            raise BadRecord(
                error.what, where=f"{record.id}: {names[index]}", got=error.got, allowed=error.allowed
            ) from error
        if counts != masks.empty(height, width):  # a name without a pixel is merely present
            tracks[kind][names[index]] = (counts,)
    seen = {names[i] for i in (*record.masked, *record.ignored, *record.incomplete, *record.elsewhere)}
    return Scene(
        height=height,
        width=width,
        annotated=(True,),
        segments=tracks["segments"],
        incomplete=tracks["incomplete"],
        ignored=tracks["ignored"],
        present=frozenset(seen.difference(*tracks.values())),
        absent=frozenset(names[index] for index in record.absent),
        exhaustive=exhaustive,
    )


def marks(root: Folder, payload: bytes) -> Iterator[tuple[int, int, Any]]:
    """(category, iscrowd, segmentation) of each annotation of a record, see the module's docstring. Raises SourceError
    where the file has changed.
    """
    if not payload.startswith(b"@"):
        yield from msgspec.json.decode(payload or b"[]", type=list[tuple[int, int, Any]])
        return
    path, _, rows = payload[1:].partition(b"\n")
    file = f"{root.url}/{path.decode()}"
    texts = _opened(file)
    for offset, size, code, crc in np.frombuffer(rows, REFERENCE).tolist():
        text = os.pread(texts.descriptor, size, offset)
        if zlib.crc32(text) != crc:
            _opened.cache_clear()  # the file that was held may since have been replaced
            texts = _opened(file)
            text = os.pread(texts.descriptor, size, offset)
            if zlib.crc32(text) != crc:
                raise SourceError(
                    "the file has changed since it was catalogued", where=file, do="run again when it is at rest"
                )
        yield code >> 1, code & 1, msgspec.json.decode(text)


@lru_cache(maxsize=16)
def _opened(file: str) -> _Texts:
    return _Texts(file)


def _places(
    wanted: npt.NDArray[np.int64], there: Sequence[int], kind: str, who: Callable[[int], str]
) -> npt.NDArray[np.int64]:
    """The place of each wanted id in `there`. Raises SourceError for the first that is not there, of which `who` tells
    where it stands.
    """
    found = pc.index_in(pa.array(wanted), value_set=pa.array(there, pa.int64()))
    places: npt.NDArray[np.int64] = found.fill_null(-1).to_numpy().astype(np.int64)
    unknown = places < 0
    if unknown.any():
        first = int(np.argmax(unknown))
        raise SourceError(
            f"an unknown {kind} is named",
            where=who(first),
            got=f"{kind}_id {wanted[first]}, the first of {int(unknown.sum())}",
            do="the file is cut or mixed: take the official one",
        )
    return places


def _check_unique(table: str, field: str, values: Sequence[object], where: str) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[object] = set()
    twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
    raise SourceError(
        f"two of {table} have one {field}", where=where, got=repr(twice), do=f"each {field} must occur once"
    )
