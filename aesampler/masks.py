"""The only mask codec: polygons, run lengths and index images to masks, and masks to PNG.

A mask travels as COCO's compressed run lengths (`counts`, a str; the size is known from the context) and becomes
pixels, bool [height, width], at the last moment. Polygons, unions and `encode` are pycocotools' (`pycocotools.mask`,
never its COCO class), so a mask is the one that every COCO tool draws. Reading run lengths is our own: pycocotools
trusts them and writes outside its array where they are wrong, warns under numpy 2, and is in Fortran order.

Means over 488 masks of 128 COCO pictures (every category's, and all of a picture's), one core, per mask: polygons 0.06
ms, union 0.01, pixels 0.10 (pycocotools and a copy into C order: 0.22), PNG of the pixels 0.17 (Pillow: 1.29), PNG and
bits of the run lengths 0.19.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from aesampler import png
from aesampler.errors import BadRecord
from aesampler.image import load

Mask = npt.NDArray[np.bool_]
_Ints = npt.NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)

SLACK = 2
"""Pixels by which a mask's side may differ from its picture's (DAVIS has masks that are one pixel narrower)."""

# Run lengths


def from_coco(segmentation: object, height: int, width: int) -> str:
    """The counts of a COCO segmentation: a list of polygons, or {"counts": list | str | bytes, "size": [H, W]}.

    The mask is pycocotools' `annToRLE` of it, without the runs of nothing that run lengths may hold. Raises BadRecord
    where that has no answer or a wrong one: no polygon, fewer than 3 points (two are read as a box), an odd number of
    coordinates, coordinates that are not finite or lie more than a picture's side outside (they take memory without
    end), a size that is not the picture's, counts that do not fill it.
    """
    return union_of_coco([segmentation], height, width)


def union_of_coco(segmentations: Sequence[object], height: int, width: int) -> str:
    """The counts of the union of COCO segmentations, at least one: see `from_coco`."""
    polygons: list[npt.NDArray[np.float64]] = []
    found: list[str] = []
    for segmentation in segmentations:
        if isinstance(segmentation, Mapping):
            found.append(_from_counts(segmentation, height, width))
        elif not isinstance(segmentation, list | tuple) or not segmentation:
            raise BadRecord("no polygon and no run lengths in a segmentation", got=_short(segmentation))
        else:
            polygons += map(_polygon, segmentation)
    if not polygons:
        return union(found, height, width)
    _check_inside(polygons, max(height, width))
    parts = [_rle(counts, height, width) for counts in found] + coco.frPyObjects(polygons, height, width)
    return _text(parts[0] if len(parts) == 1 else coco.merge(parts))


def encode(mask: Mask) -> str:
    """The counts of a bool mask [height, width]."""
    return _text(coco.encode(np.asfortranarray(mask, dtype=np.uint8)))


@lru_cache(maxsize=4096)
def empty(height: int, width: int) -> str:
    """The counts of no pixel: of the counts that this module makes, no others say so."""
    return encode(np.zeros((height, width), dtype=np.bool_))


def decode(counts: str, height: int, width: int) -> Mask:
    """The mask [height, width] of counts, in C order. Raises BadRecord where they do not fill the size."""
    runs = _runs(counts, height, width)
    if not runs[1:].all():  # an empty run: what lies on both sides of it is one region
        return np.repeat(np.arange(runs.size) % 2 == 1, runs).reshape(width, height).T.copy()
    return np.unpackbits(_Changes.of(runs, height, width).bits(), axis=1, count=width).view(np.bool_)


def draw(counts: str, height: int, width: int) -> tuple[bytes, bytes]:
    """The PNG of counts, as `write_png` makes it, and the bits of the mask, row by row, high bit first, as
    `numpy.packbits` makes them. Raises BadRecord as `decode` does.
    """
    runs = _runs(counts, height, width)
    if not runs[1:].all():
        mask = decode(counts, height, width)
        return write_png(mask), np.packbits(mask).tobytes()
    changes = _Changes.of(runs, height, width)
    bits = changes.bits()
    filled = np.asarray(bits.view(np.uint64).any(axis=1))
    picture = png.encode_changes(height, width, changes.pixels, changes.set, filled)
    if width % 8:
        return picture, np.packbits(np.unpackbits(bits, axis=1, count=width)).tobytes()
    return picture, bits[:, : width // 8].tobytes()


class _Changes(NamedTuple):
    """The pixels that differ from the one above them, above the first row being nothing. pixels: their places, row by
    row, int64 [changes]; set: what they are.
    """

    height: int
    width: int
    pixels: _Ints
    set: Mask

    @classmethod
    def of(cls, runs: _Ints, height: int, width: int) -> _Changes:
        """Those of run lengths of which none but the first is empty."""
        starts = np.cumsum(runs)[:-1]  # where the value changes, down the columns
        columns, rows = np.divmod(starts, height)
        # The bottom of a column is not above the next one's top: a top is set where an odd number of changes is behind.
        tops = np.flatnonzero(np.searchsorted(starts, np.arange(width) * height, side="right") & 1)
        set = np.ones(starts.size + tops.size, dtype=np.bool_)
        set[1 : starts.size : 2] = False
        below = np.flatnonzero(rows)
        pixels = np.concatenate(((rows * width + columns)[below], tops))
        return cls(height, width, pixels, np.concatenate((set[below], set[starts.size :])))

    def bits(self) -> npt.NDArray[np.uint8]:
        """The mask, 8 pixels a byte, high bit first, rows padded to whole words of 64: uint8 [height, bytes]."""
        stride = -(-self.width // 64) * 8
        rows, columns = np.divmod(self.pixels, self.width)
        bits = np.zeros(self.height * stride, dtype=np.uint8)
        np.add.at(bits, rows * stride + (columns >> 3), (128 >> (columns & 7)).astype(np.uint8))
        words = bits.view(np.uint64).reshape(self.height, -1)
        return np.bitwise_xor.accumulate(words, axis=0).view(np.uint8)


def area(counts: str, height: int, width: int) -> int:
    """How many pixels are set."""
    return int(coco.area(_rle(counts, height, width)))


def union(counts: Sequence[str], height: int, width: int) -> str:
    """The pixels of any of the masks; of none, an empty mask. They are ORed: masks that overlap do not add up."""
    if len(counts) == 1:
        return counts[0]
    if not counts:
        return empty(height, width)
    return _text(coco.merge([_rle(each, height, width) for each in counts]))


def subtract(a: str, b: str, height: int, width: int) -> str:
    """The pixels of a that are not in b."""
    runs = _runs(b, height, width).tolist()
    outside = {"size": [height, width], "counts": runs[1:] if runs[0] == 0 else [0, *runs]}
    return _text(coco.merge([_rle(a, height, width), coco.frPyObjects(outside, height, width)], intersect=True))


def resize(counts: str, height: int, width: int, new_height: int, new_width: int) -> str:
    """The mask at another size: each new pixel takes the one that holds its centre."""
    if (height, width) == (new_height, new_width):
        return counts
    rows = (2 * np.arange(new_height) + 1) * height // (2 * new_height)
    columns = (2 * np.arange(new_width) + 1) * width // (2 * new_width)
    return encode(decode(counts, height, width)[rows[:, None], columns])


def is_valid(counts: str, height: int, width: int) -> bool:
    """Whether counts are well formed and fill the size."""
    try:
        _runs(counts, height, width)
    except BadRecord:
        return False
    return True


def _from_counts(segmentation: Mapping[object, object], height: int, width: int) -> str:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise BadRecord("run lengths are of another size than the picture", got=_short(size), allowed=[height, width])
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")
    if isinstance(counts, str):
        runs = _runs(counts, height, width)
        return counts if runs.size > 1 and runs[1:].all() else encode(decode(counts, height, width))
    if not isinstance(counts, Sequence):
        raise BadRecord("run lengths are neither a list nor a string", got=_short(counts))
    if set(map(type, counts)) != {int} or min(counts) < 0 or sum(counts) != height * width:
        raise BadRecord(
            "run lengths do not fill the picture",
            got=_short(counts),
            allowed=f"counts from 0 that add up to {height * width}",
        )
    text = _text(coco.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width))
    return encode(decode(text, height, width)) if 0 in counts[1:] else text


def _polygon(points: object) -> npt.NDArray[np.float64]:
    try:
        line = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadRecord("a polygon is not a list of numbers", got=_short(points)) from error
    if line.ndim != 1 or line.size < 6 or line.size % 2:
        raise BadRecord("a polygon is not a list of x, y of 3 points or more", got=_short(points))
    return line


def _check_inside(polygons: Sequence[npt.NDArray[np.float64]], side: int) -> None:
    line = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
    low, high = np.minimum.reduce(line), np.maximum.reduce(line)
    if not (low >= -side and high <= 2 * side):  # also where one is NaN
        raise BadRecord(
            "a polygon lies far outside the picture",
            got=f"{low:g} to {high:g}",
            allowed=f"{-side} to {2 * side}",
        )


def _runs(counts: str, height: int, width: int) -> _Ints:
    """The run lengths of compressed counts, zeros first, down the columns.

    Each is written in digits of 5 bits, lowest first, from the character 48 on; 32 says that more follow, 16 in the
    last one is the sign. From the fourth run on they are differences to the run two before.
    """
    try:
        digits = np.frombuffer(counts.encode("latin-1"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        digits = np.zeros(0, dtype=np.int64)
    if digits.size and digits[-1] < 32 and digits.min() >= 0 and digits.max() < 64:
        ends = np.flatnonzero(digits < 32)
        starts = np.concatenate(([0], ends[:-1] + 1))
        places = np.arange(digits.size) - np.repeat(starts, ends - starts + 1)
        if places.max() < 8:
            runs = np.add.reduceat((digits & 31) << (5 * places), starts)
            runs -= ((digits[ends] & 16) << 1) << (5 * places[ends])
            runs[1::2] = np.cumsum(runs[1::2])
            runs[2::2] = np.cumsum(runs[2::2])
            if runs.min() >= 0 and int(runs.sum()) == height * width:
                return runs
    raise BadRecord("run lengths do not fill the picture", got=_short(counts), allowed=f"{height} x {width}")


def _rle(counts: str, height: int, width: int) -> dict[str, object]:
    return {"size": [height, width], "counts": counts}


def _text(rle: Mapping[str, bytes]) -> str:
    return rle["counts"].decode("ascii")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Index images


def read_index(data: bytes) -> npt.NDArray[np.uint8 | np.uint16 | np.int32]:
    """The numbers that a PNG (BMP, TIFF) stores: [H, W] of grey and palette images, uint8 [H, W, 3] of RGB.

    A palette is never applied and grey never stretched: 1, 2 and 4 bits give 0..1, 0..3 and 0..15, 16 bits uint16, 32
    bits int32. Alpha is dropped. Raises BadRecord where the image cannot be read, or only with a loss.
    """
    image = load(data, formats=("PNG", "BMP", "TIFF"))
    stored, plane = image.mode, np.array(image)
    depth, colour = (data[24], data[25]) if image.format == "PNG" else (8, 0)
    if colour in (2, 4, 6) and depth == 16:
        raise BadRecord("an index image has 16 bits a colour", allowed="16 bits in grey only")
    if stored == "L" and depth in (2, 4):  # Pillow stretches them to 0..255
        return plane // np.uint8(255 // ((1 << depth) - 1))
    if stored == "1":
        return plane.astype(np.uint8)
    if stored in ("L", "P", "I", "RGB") or stored.startswith("I;16"):
        return plane.astype(plane.dtype.newbyteorder("="), copy=False)
    if stored in ("RGBA", "LA"):
        return np.ascontiguousarray(plane[..., :3] if stored == "RGBA" else plane[..., 0])
    raise BadRecord("an index image is of a kind without indices", got=stored, allowed="grey, palette, RGB")


def fit(plane: npt.NDArray[_Number], height: int, width: int) -> tuple[npt.NDArray[_Number], Mask]:
    """The plane [H', W', ...] at its picture's size, and the pixels (bool [H, W]) that it did not have, which are void.

    Where a side differs by at most SLACK pixels the plane is cropped, or extended by zeros, at the right and the
    bottom; more is another picture's mask, and BadRecord.
    """
    rows, columns = plane.shape[:2]
    if abs(rows - height) > SLACK or abs(columns - width) > SLACK:
        raise BadRecord(
            "a mask is of another size than its picture",
            got=f"{rows} x {columns}",
            allowed=f"{height} x {width}, each side at most {SLACK} off",
        )
    missing = np.zeros((height, width), dtype=np.bool_)
    missing[rows:], missing[:, columns:] = True, True
    if (rows, columns) == (height, width):
        return plane, missing
    fitted = np.zeros((height, width, *plane.shape[2:]), dtype=plane.dtype)
    fitted[:rows, :columns] = plane[:height, :width]
    return fitted, missing


# PNG


def write_png(mask: Mask) -> bytes:
    """The PNG of a mask [height, width]: 8-bit grey, 0 and 255; equal masks give equal bytes on every machine."""
    return png.encode(mask)


def read_png(data: bytes) -> Mask:
    """The mask [height, width] of an image file: True where it is not 0. Raises BadRecord where it cannot be read.

    Pillow reads our PNGs in 0.7 ms, all of it in inflating; undoing our own few filters by numpy, without it, was no
    faster.
    """
    plane = read_index(data)
    return np.asarray(plane.any(axis=2) if plane.ndim == 3 else plane != 0)
