"""Pictures: probe against Pillow on real and made files, whole, cut and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aesampler import image
from aesampler.errors import BadRecord
from aesampler.image import Picture, probe

rows, columns = np.indices((37, 53))
SMOOTH = np.stack([rows * 5, columns * 4, (rows + columns) * 2], axis=2).astype(np.uint8)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    picture.save(sink, kind, **options)
    return sink.getvalue()


JPEG = saved(SMOOTH, "JPEG")
PNG = saved(SMOOTH, "PNG")


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(image, "load", refuse)


# What a whole picture is


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"quality": 5},
        {"subsampling": 0},
        {"restart_marker_rows": 1},
        {"comment": b"\xff\xd9" * 9},
    ],
)
def test_a_jpeg_is_known_without_decoding(options: dict[str, Any]) -> None:
    assert probe(saved(SMOOTH, "JPEG", **options)) == Picture(format="jpg", height=37, width=53)
    assert probe(saved(SMOOTH[..., 0], "JPEG", **options)) == Picture(format="jpg", height=37, width=53)


@pytest.mark.usefixtures("no_decoding")
def test_a_thumbnail_and_its_size_are_not_the_picture() -> None:
    thumbnail = saved(SMOOTH[:8, :9], "JPEG")
    segment = b"Exif\0\0" + thumbnail
    data = JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + JPEG[2:]
    assert probe(data) == Picture(format="jpg", height=37, width=53)


@pytest.mark.usefixtures("no_decoding")
def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    data = saved(SMOOTH, "JPEG", exif=exif)
    assert probe(data) == Picture(format="jpg", height=37, width=53)


@pytest.mark.usefixtures("no_decoding")
def test_a_jpeg_may_have_fill_bytes_and_zeros_at_its_end() -> None:
    filled = JPEG[:2] + b"\xff\xff\xff" + JPEG[2:]
    assert np.array_equal(np.array(Image.open(io.BytesIO(filled))), np.array(Image.open(io.BytesIO(JPEG))))
    assert probe(filled) == probe(JPEG + bytes(7)) == Picture(format="jpg", height=37, width=53)


@pytest.mark.parametrize("tail", [b"garbage", b"\xff\xd9more\0\0", JPEG[:-5]])
def test_garbage_behind_the_end_is_left_to_pillow(tail: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    load = image.load
    monkeypatch.setattr(image, "load", lambda data: decoded.append(len(data)) or load(data))
    assert probe(JPEG + tail) == Picture(format="jpg", height=37, width=53)
    assert decoded == [len(JPEG + tail)]


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "I;16"])
def test_a_png_is_known_without_decoding(mode: str) -> None:
    picture = (
        Image.fromarray(SMOOTH).convert("L").convert(mode) if mode == "I;16" else Image.fromarray(SMOOTH).convert(mode)
    )
    assert probe(saved(picture, "PNG")) == Picture(format="png", height=37, width=53)
    assert probe(saved(picture, "PNG") + b"more") == Picture(format="png", height=37, width=53)


@pytest.mark.parametrize(("kind", "name"), [("BMP", "bmp"), ("TIFF", "tif"), ("GIF", "gif"), ("WEBP", "webp")])
def test_other_formats(kind: str, name: str) -> None:
    data = saved(SMOOTH, kind)
    assert probe(data) == Picture(format=name, height=37, width=53)
    assert name not in image.PASSED
    with pytest.raises(BadRecord):
        probe(data[: len(data) // 2])


def test_every_real_picture(real_data: Path) -> None:
    probed = 0
    for path in sorted([*real_data.rglob("*.jpg"), *real_data.rglob("*.png")]):
        picture = probe(path.read_bytes())
        with Image.open(path) as opened:
            assert (picture.width, picture.height) == opened.size
            assert picture.format == {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}[str(opened.format)]
        probed += 1
    assert probed > 800


# What is not whole


@pytest.mark.parametrize("data", [JPEG, PNG], ids=["jpg", "png"])
def test_every_cut_is_refused(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(BadRecord) as caught:
            probe(data[:size])
        assert "\n" not in str(caught.value)


def test_a_real_jpeg_cut_anywhere_is_refused(real_data: Path) -> None:
    data = (real_data / "lvis/val2017/000000006460.jpg").read_bytes()
    for size in np.linspace(0, len(data) - 1, 40).astype(int):
        with pytest.raises(BadRecord):
            probe(data[:size])
        if size:
            with pytest.raises(BadRecord):
                probe(data[:size] + bytes(len(data) - size))  # a download that was never filled


@given(st.integers(8, len(PNG) - 1), st.integers(1, 255))
def test_any_changed_byte_of_a_png_is_refused(place: int, change: int) -> None:
    damaged = bytearray(PNG)
    damaged[place] ^= change
    with pytest.raises(BadRecord):
        probe(bytes(damaged))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of odd metadata before it gives up
@given(
    st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff", PNG[:8], b"GIF89a", b"II*\0", b"BM"])
)
def test_garbage_is_refused(tail: bytes, head: bytes) -> None:
    with pytest.raises(BadRecord):
        probe(head + tail)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        ([chunk(b"IEND", b"")], "does not begin with its header"),
        ([chunk(b"IHDR", bytes(13)), chunk(b"IDAT", b""), chunk(b"IEND", b"")], "holds no pixels"),
        ([PNG[8:33], chunk(b"IEND", b"")], "holds no pixels"),
        ([PNG[8:33]], "ends too early"),
        ([PNG[8:32] + b"\0"], "checksum"),
    ],
)
def test_what_a_png_must_have(chunks: list[bytes], says: str) -> None:
    with pytest.raises(BadRecord, match=says):
        probe(PNG[:8] + b"".join(chunks))


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns of the first and refuses the second
def test_a_huge_size_is_no_other_error(side: int) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    with pytest.raises(BadRecord, match=f"{side * side} pixels"):
        probe(b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header)


def test_want_of_memory_is_no_bad_record(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise OSError("out of memory when reading image file")

    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", fail)
    with pytest.raises(MemoryError):
        probe(saved(SMOOTH, "BMP"))


# Pixels


def test_decode_is_rgb_whatever_is_stored() -> None:
    assert np.array_equal(image.decode(PNG), SMOOTH)
    assert np.array_equal(image.decode(JPEG), np.array(Image.open(io.BytesIO(JPEG))))
    grey = SMOOTH[..., 0]
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(image.decode(saved(grey, kind)), np.repeat(grey[..., None], 3, axis=2))
    cmyk = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=100)
    assert probe(cmyk) == Picture(format="jpg", height=37, width=53)
    assert np.abs(image.decode(cmyk).astype(int) - SMOOTH).max() < 20
    rgba = np.concatenate([SMOOTH, SMOOTH[..., :1]], axis=2)
    assert np.array_equal(image.decode(saved(rgba, "PNG")), SMOOTH)


def test_decode_keeps_the_high_byte_of_16_bits() -> None:
    wide = SMOOTH[..., 0].astype(np.uint16) * 257
    assert np.array_equal(image.decode(saved(wide, "PNG"))[..., 1], SMOOTH[..., 0])


def test_decode_applies_a_palette_with_transparency() -> None:
    indices = Image.frombytes("P", (2, 1), b"\0\1")
    indices.putpalette([1, 2, 3, 40, 50, 60])
    data = saved(indices, "PNG", transparency=b"\0\x80")
    assert image.decode(data).tolist() == [[[1, 2, 3], [40, 50, 60]]]


def test_encode_jpeg_is_repeatable_and_close() -> None:
    data = image.encode_jpeg(SMOOTH, 95)
    assert data == image.encode_jpeg(SMOOTH.copy(), 95)
    assert probe(data) == Picture(format="jpg", height=37, width=53)
    assert np.abs(image.decode(data).astype(int) - SMOOTH).mean() < 3


@pytest.mark.parametrize(
    ("max_side", "size"), [(52, (36, 52)), (26, (18, 26)), (10, (7, 10)), (1, (1, 1)), (53, (37, 53)), (99, (37, 53))]
)
def test_resized(max_side: int, size: tuple[int, int]) -> None:
    for source in (JPEG, PNG):
        data, height, width = image.resized(source, max_side, 95)
        assert (height, width) == size
        assert probe(data) == Picture(format="jpg", height=height, width=width)
        assert (data is source) == (source is JPEG and max_side >= 53)
        if max_side >= 26:
            expected = np.array(Image.fromarray(SMOOTH).resize((width, height), Image.Resampling.BOX))
            assert np.abs(image.decode(data).astype(int) - expected).mean() < 6
