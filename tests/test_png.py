"""The PNG of a mask: read back by Pillow and by hand, bounded, and of pinned bytes."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from aesampler import png


def by_hand(data: bytes) -> np.ndarray:
    """The pixels of an 8-bit grey PNG of filters None and Up, every checksum tested (zlib tests its own)."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        name, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length]) == (zlib.crc32(name + body),)
        chunks.append((name, body))
        place += 12 + length
    assert [name for name, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 0, 0, 0, 0]
    inflate = zlib.decompressobj()
    raw = inflate.decompress(chunks[1][1])
    assert inflate.eof
    assert not inflate.unused_data
    rows = np.frombuffer(raw, np.uint8).reshape(height, width + 1)
    pixels = np.zeros((height, width), np.uint8)
    for row, (kind, *_) in enumerate(rows):
        assert kind in (0, 2)
        above = pixels[row - 1] if row and kind == 2 else 0
        pixels[row] = rows[row, 1:] + above
    return pixels


def check(mask: np.ndarray) -> None:
    data = png.encode(mask)
    expected = mask * np.uint8(255)
    assert np.array_equal(by_hand(data), expected)
    with Image.open(io.BytesIO(data)) as image:
        image.verify()
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "L"
        assert np.array_equal(np.array(image), expected)
    assert len(data) <= mask.size * 3 / 8 + mask.shape[0] / 2 + 128


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 1.0]),
    st.integers(1, 20),
    st.integers(1, 300),
    st.integers(0, 2**32),
)
@example(1, 1, 1.0, 1, 1, 0)
@example(1, 1, 0.0, 1, 1, 0)
def test_any_mask_reads_back(height: int, width: int, density: float, tall: int, wide: int, seed: int) -> None:
    noise = np.random.default_rng(seed).random((-(-height // tall), width)) < density
    check(np.repeat(np.repeat(noise, tall, axis=0)[:height], wide, axis=1)[:, : width * max(1, wide // 2)])


@pytest.mark.parametrize("width", [*range(1, 12), *range(255, 264), *range(511, 522), 773, 774, 775, 4000])
def test_runs_of_every_length_read_back(width: int) -> None:
    """Full rows, a lone pixel at either end, and a gap: runs of width - 1, width, width + 1 and their sums."""
    full = np.ones((4, width), bool)
    check(full)
    check(~full)
    for place in (0, width // 2, width - 1):
        lone = np.zeros((4, width), bool)
        lone[1:3, place] = True
        check(lone)
        check(~lone)


@pytest.mark.parametrize("size", [(64, 48), (480, 640), (1, 3000), (3000, 1)])
def test_the_worst_masks_stay_in_bounds(size: tuple[int, int]) -> None:
    rows, columns = np.indices(size)
    check((rows + columns) % 2 == 0)
    check(rows % 2 == 0)
    check(columns % 2 == 0)
    check(np.random.default_rng(0).random(size) < 0.5)


def test_the_bound_follows_from_the_code() -> None:
    assert sum(2.0**-bits for bits in png.LENGTHS.values()) == 1  # a complete code: no reader refuses it
    assert max(png.LENGTHS[0], png.LENGTHS[1], png.LENGTHS[255]) == 3
    assert png.LENGTHS[2] == 4
    for kinds in png._RUNS[[0, 1, 3]]:
        bits = (kinds >> np.uint64(32)).astype(int)
        assert (bits <= 3 * np.arange(1, 259)).all()  # a match costs no more than the literals that it stands for


def test_memory_order_does_not_matter() -> None:
    mask = np.random.default_rng(1).random((30, 41)) < 0.3
    assert png.encode(np.asfortranarray(mask)) == png.encode(mask) == png.encode(mask[::-1][::-1])


def test_bytes_are_pinned() -> None:
    """Equal bytes on every machine: these were made once, and change only with the version of the corpus format."""
    rows, columns = np.indices((480, 640))
    disk = (rows - 200) ** 2 + (columns - 300) ** 2 < 150**2
    small = disk[40:360:80, 140:460:80]
    noise = (rows * 7919 + columns * 104729) % 13 < 5
    made = {name: png.encode(mask) for name, mask in {"disk": disk, "empty": disk & False, "noise": noise}.items()}
    assert {name: (len(data), hashlib.sha256(data).hexdigest()[:16]) for name, data in made.items()} == {
        "disk": (1824, "6b9181546792c76f"),
        "empty": (544, "eabf8b26f32011da"),
        "noise": (88951, "a81eb72b7e5eccdd"),
    }
    assert png.encode(small).hex() == (
        "89504e470d0a1a0a0000000d49484452000000040000000408000000008c9ac1a20000002d494441547801ede1db92244992"
        "2ccb12cbffff33574466666544664484bbbbb99b991921f26a683bbc185efc07242c0304122a56d40000000049454e44ae42"
        "6082"
    )


def test_nothing_but_checksums_comes_from_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compress", "compressobj"):
        monkeypatch.delattr(zlib, name)
    assert sys.modules["zlib"] is zlib
    check(np.random.default_rng(2).random((20, 30)) < 0.2)
