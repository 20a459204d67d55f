"""Pictures as bytes: what one is (`probe`, without decoding it), its pixels, and the two ways to make a new one.

A build passes pictures through untouched, so it must know of each, cheaply, its format, its size and that it is whole.
`probe` walks the markers of a JPEG up to its scan and looks for the end marker (3 us for a picture of COCO; Pillow
decodes it in 2 to 5 ms), or the chunks of a PNG with their checksums (0.3 ms a MB). What the short way cannot vouch for
is decoded, and Pillow's verdict counts: a JPEG with something behind its end, or of a rare kind, every other format.
Whether the compressed pixels of a whole JPEG make sense is seen by whoever decodes it, not here.

EXIF is ignored: annotations are made for the stored pixels, whichever way up a camera says they are.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from aesampler.errors import BadRecord

Pixels = npt.NDArray[np.uint8]

PASSED = frozenset({"jpg", "png"})
"""Formats that a shard may hold; a picture of any other is transcoded."""

_NAMES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}
_PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive: what every reader knows
_OTHER_FRAMES = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a picture's bytes are.

    format: its usual extension (jpg, png, webp, bmp, tif, gif). height, width: pixels as stored.
    """

    format: str
    height: int
    width: int


def probe(data: bytes) -> Picture:
    """The format and size of a whole picture. Raises BadRecord where it cannot be read or ends too early."""
    if data.startswith(b"\xff\xd8"):
        header = _jpeg_header(data)
        if header is not None:
            picture, scan = header
            if _ends(data):
                return picture
            if data.rfind(_END_OF_IMAGE, scan) < 0:
                # Not left to Pillow: a download that was never filled, zeros to its end, decodes without complaint.
                raise BadRecord("a JPEG ends too early", got=f"{len(data)} bytes without an end marker")
    elif data.startswith(_PNG):
        return _walk_png(data)
    image = load(data)
    name = image.format or ""
    return Picture(format=_NAMES.get(name, name.lower()), height=image.height, width=image.width)


def load(data: bytes, formats: tuple[str, ...] | None = None, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The decoded image, as Pillow stores it. Raises BadRecord where Pillow cannot read it, or not to its end.

    at_least: (height, width); a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is as large, and faster.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if at_least is not None:
            width, height = image.size
            fitting = (s for s in (8, 4, 2) if -(-height // s) >= at_least[0] and -(-width // s) >= at_least[1])
            scale = next(fitting, 1)
            image.draft(None, (max(width // scale, 1), max(height // scale, 1)))
        image.load()
    except (
        *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, RuntimeError),
        *(
            struct.error,
            zlib.error,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,  # where warnings are errors
        ),  # whatever a broken file makes Pillow's parsers raise
    ) as error:
        if "out of memory" in str(error):  # Pillow's decoders report it as an OSError; the picture may be good
            raise MemoryError(str(error)) from error
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise BadRecord(f"an image cannot be read ({reason})", got=f"{len(data)} bytes") from error
    return image


def decode(data: bytes, size: tuple[int, int] | None = None) -> Pixels:
    """The pixels [height, width, 3], RGB: grey is repeated, CMYK converted, alpha dropped, 16 bits cut to 8.

    size: (height, width) to resize to, bilinear over all pixels covered; a JPEG is decoded no larger than that needs.
    """
    image = load(data, at_least=size)
    if image.mode.startswith("I"):
        # Pillow clips 16 bits at 255 where it converts them.
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    if size is not None and image.size != size[::-1]:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(image)


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """A JPEG of the pixels [height, width, 3]; its bytes depend on the version of libjpeg-turbo inside Pillow."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def resized(data: bytes, max_side: int, quality: int) -> tuple[bytes, int, int]:
    """The picture as a JPEG whose longer side is at most max_side pixels, its height and its width.

    A JPEG that is small enough already comes back untouched; other formats are encoded again.
    """
    picture = probe(data)
    side = max(picture.height, picture.width)
    if side <= max_side:
        kept = data if picture.format == "jpg" else encode_jpeg(decode(data), quality)
        return kept, picture.height, picture.width
    height, width = (max(1, (2 * each * max_side + side) // (2 * side)) for each in (picture.height, picture.width))
    image = Image.fromarray(decode(data)).resize((width, height), Image.Resampling.LANCZOS)
    return encode_jpeg(np.asarray(image), quality), height, width


def _jpeg_header(data: bytes) -> tuple[Picture, int] | None:
    """What a JPEG is and where its first scan begins, if all is whole up to there; None where the short way ends."""
    place, picture = 2, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker in _WITHOUT_LENGTH:
            place += 2
            continue
        length = data[place + 2] << 8 | data[place + 3]
        if length < 2 or place + 2 + length > len(data):
            return None
        if marker == _START_OF_SCAN:
            return None if picture is None else (picture, place)
        if marker in _FRAMES:
            if picture is not None or length < 11 or data[place + 4] != 8:  # 12 bits a sample are of a rare kind
                return None
            height, width = data[place + 5] << 8 | data[place + 6], data[place + 7] << 8 | data[place + 8]
            if not height or not width:
                return None
            picture = Picture(format="jpg", height=height, width=width)
        elif marker in _OTHER_FRAMES:
            return None
        place += 2 + length
    return None


def _ends(data: bytes) -> bool:
    """Whether the last that a JPEG says is its end; some cameras and writers pad it with zeros."""
    return data.endswith(_END_OF_IMAGE) or (data.endswith(b"\0") and data.rstrip(b"\0").endswith(_END_OF_IMAGE))


def _walk_png(data: bytes) -> Picture:
    place, picture, pixels = len(_PNG), None, False
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        name = data[place + 4 : place + 8]
        end = place + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise BadRecord("a PNG is damaged: a checksum is wrong", where=f"chunk {name!r} at byte {place}")
        if picture is None:
            if name != b"IHDR" or length != 13:
                raise BadRecord("a PNG does not begin with its header", got=repr(name))
            width, height = struct.unpack(">II", data[place + 8 : place + 16])
            picture = Picture(format="png", height=height, width=width)
        pixels = pixels or name == b"IDAT"
        if name == b"IEND":
            if not pixels or picture.height < 1 or picture.width < 1:
                raise BadRecord("a PNG holds no pixels", got=f"{picture.height} x {picture.width}")
            return picture
        place = end
    raise BadRecord("a PNG ends too early", got=f"{len(data)} bytes")
