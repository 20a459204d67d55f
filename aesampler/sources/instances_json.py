"""Decoding of instances JSON, the file form of COCO and LVIS, in bounded memory: pictures and categories as objects,
annotations as columns.

train2017 is 450 MB, nearly all of it polygons, and no polygon is looked at before its sample is built: the small fields
of each annotation become columns, its `segmentation` a place in the file. The file is mapped into memory and its
annotations are decoded some 16 MB at a time, each part's pages given back to the system.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Generic, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

PIECE = 16 << 20
"""Bytes of annotations decoded at once."""

_STAND_IN_ID = -(2**62)
_STAND_IN = b'[{"id":%d,"image_id":0,"category_id":0,"segmentation":null}]' % _STAND_IN_ID
_SEPARATOR = re.compile(rb"\}\s*(,)\s*\{")
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")


class Picture(msgspec.Struct, gc=False):
    """One of `images`."""

    id: int
    file_name: str
    height: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0
    width: Annotated[int, msgspec.Meta(ge=0, lt=2**31)] = 0


class Named(msgspec.Struct):
    """One of `categories`."""

    id: int
    name: str
    synonyms: list[str] = []
    supercategory: str | None = None
    synset: str | None = None


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    segmentation: msgspec.Raw
    id: int = -1
    iscrowd: int | bool = 0


P = TypeVar("P", bound=Picture)


class Whole(msgspec.Struct, Generic[P]):
    """The file; `annotations` is emptied once they are columns."""

    images: list[P]
    categories: list[Named]
    annotations: list[_Annotation]


class Columns(NamedTuple):
    """Annotations as columns, all of length [annotations]; offsets, sizes, checks: the segmentation's text in the file,
    its bytes and its CRC-32; empty: it says nothing.
    """

    ids: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    categories: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    empty: npt.NDArray[np.bool_]
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    checks: npt.NDArray[np.int64]


def decode(descriptor: int, picture: type[P]) -> tuple[Whole[P], Columns]:
    """The file, its annotations as columns. Raises msgspec.DecodeError, which says where in the file."""
    try:
        # A private map: the brackets that are written into it never reach the file.
        return _in_pieces(mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY), picture)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Broken, or laid out as none of these files is: read as one piece, which needs more memory and is the judge of
        # what is wrong.
        view = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        whole = msgspec.json.decode(view, type=Whole[picture])  # type: ignore[valid-type]
        columns = _columns(whole.annotations, view)
        whole.annotations = []
        return whole, columns


def _in_pieces(map: mmap.mmap, picture: type[P]) -> tuple[Whole[P], Columns]:
    """The file decoded with a part of `annotations` at a time.

    The array is cut where one object ends and the next begins: the comma between them is overwritten, in the private
    map, by the bracket that closes one part or opens the next. Where a cut was wrong (inside an annotation), the part
    is no JSON, and all the rest is taken as one part. At the end, the file with a stand-in for the array must decode
    with that stand-in as its `annotations`: this proves that the array was the right one, and ended there.
    """
    view = memoryview(map)
    key = map.find(b'"annotations"')
    begin = map.find(b"[", key) if key >= 0 else -1
    if begin < 0:
        raise msgspec.DecodeError("no annotations")
    decoder = msgspec.json.Decoder(list[_Annotation])
    parts: list[Columns] = []
    start, end = begin, -1
    while end < 0:
        map[start : start + 1] = b"["
        cut = _SEPARATOR.search(map, min(start + PIECE, len(map)))
        part: list[_Annotation] | None = None
        if cut is not None:
            map[cut.start(1) : cut.end(1)] = b"]"
            part = _part(decoder, view[start : cut.end(1)])
            map[cut.start(1) : cut.end(1)] = b","
        if part is None or cut is None:
            end = _array_end(decoder, view, start)
            part = decoder.decode(view[start:end])
            cut = None
        parts.append(_columns(part, view))
        del part
        map.madvise(mmap.MADV_DONTNEED)
        start = cut.start(1) if cut is not None else start
    map[begin : begin + 1] = b"["
    rest = b"".join([view[:begin], _STAND_IN, view[end:]])
    whole = msgspec.json.decode(rest, type=Whole[picture])  # type: ignore[valid-type]
    if [entry.id for entry in whole.annotations] != [_STAND_IN_ID]:
        raise msgspec.DecodeError("another array of this name")
    whole.annotations = []
    return whole, _joined(parts)


def _part(decoder: msgspec.json.Decoder[list[_Annotation]], text: memoryview) -> list[_Annotation] | None:
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return None


def _array_end(decoder: msgspec.json.Decoder[list[_Annotation]], view: memoryview, start: int) -> int:
    """Where the array that begins at `start` ends: the decoder stops at the first character after it, and says where
    that is, counted from 1.
    """
    try:
        decoder.decode(view[start:])
    except msgspec.DecodeError as error:
        found = _TRAILING.search(str(error))
        if found is None:
            raise
        return start + int(found[1]) - 1
    return len(view)


def _columns(part: Sequence[_Annotation], view: memoryview) -> Columns:
    def column(name: str) -> npt.NDArray[np.int64]:
        return np.fromiter(map(attrgetter(name), part), np.int64, len(part))

    # A raw value is a window on the file's map; Arrow says at which address, and the address where the map begins makes
    # a place in the file of it.
    texts = [pa.py_buffer(entry.segmentation) for entry in part]
    sizes = np.fromiter(map(attrgetter("size"), texts), np.int64, len(part))
    offsets = np.fromiter(map(attrgetter("address"), texts), np.int64, len(part)) - pa.py_buffer(view).address
    checks = np.fromiter(map(zlib.crc32, texts), np.int64, len(part))
    empty = np.zeros(len(part), dtype=np.bool_)
    for place in np.flatnonzero(sizes < 16).tolist():
        empty[place] = bytes(texts[place]).translate(None, b" \t\r\n") in (b"[]", b"null", b"{}")
    crowd = column("iscrowd") != 0
    return Columns(column("id"), column("image_id"), column("category_id"), crowd, empty, offsets, sizes, checks)


def _joined(parts: Sequence[Columns]) -> Columns:
    return Columns(*(np.concatenate(column) for column in zip(*parts, strict=True)))
