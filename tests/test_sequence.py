from __future__ import annotations

import io

import numpy as np
import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from aesampler.errors import BadRecord
from aesampler.sources import sequence
from aesampler.sources.sequence import Tracks

shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)


def palette_bytes(plane: np.ndarray) -> bytes:
    """A palette PNG of indices."""
    sink = io.BytesIO()
    picture = Image.fromarray(plane)
    picture.putpalette([255 - i // 3 for i in range(768)])
    picture.save(sink, format="PNG")
    return sink.getvalue()


@given(arrays.arrays(np.uint8, shapes))
def test_indices_are_read_raw(plane: np.ndarray) -> None:
    found, binary = sequence.read_objects(palette_bytes(plane))
    assert np.array_equal(found, plane)
    assert not binary  # a palette is never binary, whatever values it uses
    found, binary = sequence.read_objects(worlds.png_bytes(plane))
    assert np.array_equal(found, plane)
    assert binary == (set(np.unique(plane)) <= {0, 255})


@given(arrays.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 2, 255])))
def test_three_equal_channels_are_one(plane: np.ndarray) -> None:
    found, binary = sequence.read_objects(worlds.png_bytes(np.stack([plane] * 3, axis=-1)))
    assert np.array_equal(found, plane)
    assert binary == (set(np.unique(plane)) <= {0, 255})
    colours = np.stack([plane, plane, plane // 2], axis=-1)
    if (plane > 0).any():
        with pytest.raises(BadRecord, match="coloured"):
            sequence.read_objects(worlds.png_bytes(colours))


def test_files_by_sequence() -> None:
    listing = {
        "JPEGImages/480p/b/00002.jpg": 1,
        "JPEGImages/480p/b/00001.JPG": 1,
        "JPEGImages/480p/a/x.png": 1,
        "JPEGImages/480p/a/._x.png": 1,
        "JPEGImages/480p/a/deep/00000.jpg": 1,
        "JPEGImages/480p/readme.jpg": 1,
        "JPEGImages/480p/a/notes.txt": 1,
        "JPEGImages/480pp/c/00000.jpg": 1,
    }
    found = sequence.by_sequence(listing, "JPEGImages/480p", ("jpg", "png"))
    assert {name: list(stems.items()) for name, stems in found.items()} == {
        "a": [("x", "JPEGImages/480p/a/x.png")],
        "b": [("00001", "JPEGImages/480p/b/00001.JPG"), ("00002", "JPEGImages/480p/b/00002.jpg")],
    }


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20), min_size=1))
def test_frames_of_a_record(frames: set[int], marked: set[int]) -> None:
    tracks = Tracks(masks="A/s", objects={1: 3, 2: 0, 3: 3, 4: sequence.UNNAMED})
    paths = {f"{time:05d}": f"I/s/{time:05d}.jpg" for time in frames}
    names = {f"{time:05d}" for time in marked}
    some = sequence.record("s", "g", "I", paths, names, "annotated", tracks)
    assert some.frames == tuple(f"I/s/{time:05d}.jpg" for time in sorted(marked))
    assert all(some.annotated)
    every = sequence.record("s", "g", "I", paths, names, "all", tracks)
    assert every.frames == tuple(f"I/s/{time:05d}.jpg" for time in sorted(marked | frames))
    assert every.annotated == tuple(time in marked for time in sorted(marked | frames))
    assert every.masked == (0, 3)
