"""Masks against pycocotools' annToMask, the lvis package, numpy and Pillow, on real annotations and on drawn ones."""

from __future__ import annotations

import io
import json
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as oracle

from aesampler import masks
from aesampler.errors import BadRecord

# The oracle's decode; aesampler never calls it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


@st.composite
def drawn(draw: st.DrawFn, side: int = 40) -> np.ndarray:
    """A mask of any size from 1 x 1: noise of any density, or blocks of it."""
    height, width = draw(st.integers(1, side)), draw(st.integers(1, side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.98, 1.0]))
    block = draw(st.integers(1, 9))
    noise = rng.random((-(-height // block), -(-width // block))) < density
    return np.repeat(np.repeat(noise, block, axis=0), block, axis=1)[:height, :width]


def counts_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, by hand: down the columns, zeros first."""
    runs, value = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


# Against the datasets' own packages


def test_every_coco_annotation_is_ann_to_mask(real_data: Path) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(real_data / "coco/annotations/instances_train2017.json"))
    crowds = 0
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        size = image["height"], image["width"]
        counts = masks.from_coco(annotation["segmentation"], *size)
        expected = coco.annToMask(annotation)
        assert np.array_equal(masks.decode(counts, *size), expected)
        assert masks.area(counts, *size) == expected.sum()
        assert counts == coco.annToRLE(annotation)["counts"].decode()
        crowds += annotation["iscrowd"]
    assert (len(coco.anns), crowds) == (939, 10)


def test_the_union_of_each_coco_category_is_numpys_or(real_data: Path) -> None:
    data = json.loads((real_data / "coco/annotations/instances_train2017.json").read_bytes())
    images = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    groups: dict[tuple[int, int], list[str]] = {}
    for annotation in data["annotations"]:
        counts = masks.from_coco(annotation["segmentation"], *images[annotation["image_id"]])
        groups.setdefault((annotation["image_id"], annotation["category_id"]), []).append(counts)
    assert max(map(len, groups.values())) > 10
    for (image, _), counts in groups.items():
        size = images[image]
        union = masks.union(counts, *size)
        expected = np.any([oracle.decode({"size": list(size), "counts": each}) for each in counts], axis=0)
        plane = masks.decode(union, *size)
        assert np.array_equal(plane, expected)
        assert np.array_equal(np.array(Image.open(io.BytesIO(masks.write_png(plane)))), expected * np.uint8(255))


def test_every_lvis_annotation_is_the_lvis_packages(real_data: Path) -> None:
    from lvis import LVIS

    lvis = LVIS(str(real_data / "lvis/annotations/lvis_v0.5_val.json"))
    for annotation in lvis.anns.values():
        image = lvis.imgs[annotation["image_id"]]
        size = image["height"], image["width"]
        counts = masks.from_coco(annotation["segmentation"], *size)
        assert np.array_equal(masks.decode(counts, *size), lvis.ann_to_mask(annotation))
    assert len(lvis.anns) == 55


def test_every_sa_v_masklet_is_pycocotools(real_data: Path) -> None:
    read = 0
    for path in sorted((real_data / "sa-v").rglob("*.json")):
        for frame in json.loads(path.read_bytes())["masklet"]:
            for rle in frame:
                size = tuple(rle["size"])
                assert np.array_equal(masks.decode(masks.from_coco(rle, *size), *size), oracle.decode(rle))
                read += 1
    assert read > 1000


# Run lengths


@given(drawn())
def test_encode_decode_and_the_three_forms_of_counts(mask: np.ndarray) -> None:
    size = mask.shape
    counts = masks.encode(mask)
    assert np.array_equal(masks.decode(counts, *size), mask)
    assert masks.decode(counts, *size).flags.c_contiguous
    assert np.array_equal(oracle.decode({"size": list(size), "counts": counts}), mask)
    assert masks.area(counts, *size) == mask.sum()
    assert masks.is_valid(counts, *size)
    for form in (counts, counts.encode(), counts_of(mask)):
        assert masks.from_coco({"size": list(size), "counts": form}, *size) == counts


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 9))
def test_runs_of_length_0_are_read_as_pycocotools_does(runs: list[int], height: int) -> None:
    runs[-1] += max(height - sum(runs), -sum(runs) % height)
    size = height, sum(runs) // height
    rle = {"size": list(size), "counts": runs}
    counts = masks.from_coco(rle, *size)
    mask = masks.decode(counts, *size)
    assert np.array_equal(mask, oracle.decode(oracle.frPyObjects(rle, *size)))
    text = {"size": list(size), "counts": oracle.frPyObjects(rle, *size)["counts"]}
    assert masks.from_coco(text, *size) == counts == masks.encode(mask)
    assert (counts == masks.empty(*size)) == (not mask.any())


@given(st.data(), st.integers(1, 30), st.integers(1, 30), st.integers(1, 6))
def test_union_and_subtract_are_numpys(data: st.DataObject, height: int, width: int, number: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    planes = rng.random((number, height, width)) < data.draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    counts = [masks.encode(plane) for plane in planes]
    assert masks.union(counts, height, width) == masks.encode(planes.any(axis=0))
    expected = planes[0] & ~planes[-1]
    assert masks.subtract(counts[0], counts[-1], height, width) == masks.encode(expected)


def test_the_union_of_nothing_is_empty() -> None:
    assert masks.union([], 3, 5) == masks.encode(np.zeros((3, 5), bool))


@given(drawn(), st.integers(1, 50), st.integers(1, 50))
def test_resize_takes_the_pixel_that_holds_the_centre(mask: np.ndarray, height: int, width: int) -> None:
    resized = masks.decode(masks.resize(masks.encode(mask), *mask.shape, height, width), height, width)
    centres = [
        [(Fraction(2 * i + 1, 2) * old / new) for i in range(new)]
        for old, new in zip(mask.shape, (height, width), strict=True)
    ]
    rows, columns = ([int(centre) for centre in line] for line in centres)
    assert np.array_equal(resized, mask[np.ix_(rows, columns)])
    if all(centre.denominator > 1 for line in centres for centre in line):  # Pillow's floats decide ties at random
        pillow = Image.fromarray(mask.view(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
        assert np.array_equal(resized, np.array(pillow))


def test_counts_are_pinned() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    assert masks.encode(mask) == "=3300000005"
    assert masks.from_coco([[2, 1, 7, 1, 7, 4, 2, 4]], 6, 8) == "=3300000005"


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([], "no polygon"),
        (None, "no polygon"),
        ("abc", "no polygon"),
        ([[]], "3 points"),
        ([[1, 1, 5, 5]], "3 points"),  # pycocotools reads a box
        ([[1, 1, 5, 1, 5]], "3 points"),
        ([[1, 1, 5, 1, 5, 5, 1]], "3 points"),
        ([1, 1, 5, 1, 5, 5], "3 points"),
        ([[1, 1, 5, 1, 5, float("nan")]], "far outside"),
        ([[1, 1, 5, 1, 5, float("inf")]], "far outside"),
        ([[1, 1, 5, 1, 5, 1e9]], "far outside"),
        ([[1, 1, 5, 1, 5, -9]], "far outside"),
        ([["a", 1, 5, 1, 5, 5]], "list of numbers"),
        ([{"counts": "=3"}], "list of numbers"),
        ({}, "another size"),
        ({"size": [8, 6], "counts": [48]}, "another size"),
        ({"size": "68", "counts": [48]}, "another size"),
        ({"size": [6, 8]}, "neither a list nor a string"),
        ({"size": [6, 8], "counts": []}, "do not fill"),
        ({"size": [6, 8], "counts": [47]}, "do not fill"),
        ({"size": [6, 8], "counts": [40, 9]}, "do not fill"),
        ({"size": [6, 8], "counts": [50, -2]}, "do not fill"),
        ({"size": [6, 8], "counts": [48.0]}, "do not fill"),
        ({"size": [6, 8], "counts": ""}, "do not fill"),
        ({"size": [6, 8], "counts": "=330000000"}, "do not fill"),
        ({"size": [6, 8], "counts": "=33000000055"}, "do not fill"),
        ({"size": [6, 8], "counts": b"\xff\xfe"}, "do not fill"),
        ({"size": [6, 8], "counts": "\u20ac"}, "do not fill"),
        ({"size": [6, 8], "counts": "o" * 60 + "0"}, "do not fill"),
    ],
)
def test_impossible_segmentations_are_bad_records(segmentation: Any, says: str) -> None:
    with pytest.raises(BadRecord, match=says) as caught:
        masks.from_coco(segmentation, 6, 8)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@given(st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=12), st.integers(1, 6), st.integers(1, 6))
def test_any_string_is_valid_or_refused(text: str, height: int, width: int) -> None:
    if masks.is_valid(text, height, width):
        plane = masks.decode(text, height, width)
        assert np.array_equal(plane, oracle.decode({"size": [height, width], "counts": text}))
    else:
        with pytest.raises(BadRecord):
            masks.decode(text, height, width)


@given(
    st.lists(
        st.lists(st.floats(-20, 40), min_size=6, max_size=14).map(lambda p: p[: len(p) // 2 * 2]),
        min_size=1,
        max_size=3,
    )
)
def test_any_polygons_are_pycocotools(polygons: list[list[float]]) -> None:
    counts = masks.from_coco(polygons, 20, 17)
    assert counts == oracle.merge(oracle.frPyObjects(polygons, 20, 17))["counts"].decode()


@given(st.lists(st.sampled_from(["square", "triangle", "runs", "text"]), min_size=1, max_size=4))
def test_the_union_of_segmentations_of_any_form_is_that_of_their_masks(kinds: list[str]) -> None:
    plane = np.zeros((20, 17), dtype=bool)
    plane[3:9, ::2] = True
    forms = {
        "square": [[2, 2, 9, 2, 9, 12, 2, 12], [11, 1, 15, 1, 15, 4]],
        "triangle": [[1, 18, 16, 19, 8, 6]],
        "runs": {"size": [20, 17], "counts": counts_of(plane)},
        "text": {"size": [20, 17], "counts": masks.encode(plane[::-1])},
    }
    given_forms = [forms[kind] for kind in kinds]
    one_by_one = [masks.from_coco(form, 20, 17) for form in given_forms]
    assert masks.union_of_coco(given_forms, 20, 17) == masks.union(one_by_one, 20, 17)


# Index images


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4)


def palette_image(indices: np.ndarray) -> Image.Image:
    image = Image.fromarray(indices).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([200, 7, 9] * 256)  # every index of one colour: whoever applies it loses them all
    return image


@pytest.mark.parametrize("bits", [4, 8])
def test_a_palette_is_not_applied(bits: int) -> None:
    plane = masks.read_index(saved(palette_image(INDICES), bits=bits))
    assert plane.dtype == np.uint8
    assert np.array_equal(plane, INDICES)


def test_a_palette_with_transparency_is_not_applied() -> None:
    data = saved(palette_image(INDICES), transparency=bytes(range(12)))
    assert np.array_equal(masks.read_index(data), INDICES)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey_and_rgb_as_stored(kind: str) -> None:
    assert np.array_equal(masks.read_index(saved(Image.fromarray(INDICES), kind)), INDICES)
    rgb = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert np.array_equal(masks.read_index(saved(Image.fromarray(rgb), kind)), rgb)


def test_16_and_32_bits_and_alpha() -> None:
    wide = INDICES.astype(np.uint16) * 1000
    plane = masks.read_index(saved(Image.fromarray(wide)))
    assert plane.dtype == np.uint16
    assert np.array_equal(plane, wide)
    deep = INDICES.astype(np.int32) * 100_000
    plane = masks.read_index(saved(Image.fromarray(deep), "TIFF"))
    assert plane.dtype == np.int32
    assert np.array_equal(plane, deep)
    rgba = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    assert np.array_equal(masks.read_index(saved(Image.fromarray(rgba))), rgba[..., :3])
    assert np.array_equal(masks.read_index(saved(Image.fromarray(rgba[..., :2]))), rgba[..., 0])


def raw_png(depth: int, colour: int, width: int, rows: list[bytes]) -> bytes:
    """A PNG by hand, of kinds that Pillow does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + len(rows).to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_few_bits_of_grey_are_not_stretched() -> None:
    assert masks.read_index(raw_png(1, 0, 8, [b"\xa5"])).tolist() == [[1, 0, 1, 0, 0, 1, 0, 1]]
    assert masks.read_index(raw_png(2, 0, 4, [b"\x1b"])).tolist() == [[0, 1, 2, 3]]
    assert masks.read_index(raw_png(4, 0, 4, [b"\x1f\x70"])).tolist() == [[1, 15, 7, 0]]


def test_unreadable_index_images_are_bad_records() -> None:
    good = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)))
    for data in (b"", b"PNG", good[:40], good[:-200], saved(Image.fromarray(INDICES), "JPEG")):
        with pytest.raises(BadRecord):
            masks.read_index(data)
    with pytest.raises(BadRecord, match="16 bits"):
        masks.read_index(raw_png(16, 2, 1, [b"\0\1\0\2\0\3"]))
    with pytest.raises(BadRecord, match="without indices"):
        masks.read_index(saved(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


def test_real_palettes_are_read_as_indices(real_data: Path) -> None:
    judo = {path.stem: masks.read_index(path.read_bytes()) for path in (real_data / "judo/Annotations").iterdir()}
    indices = {stem: np.unique(plane).tolist() for stem, plane in judo.items()}
    assert indices == {"00000": [0, 1], "00005": [0, 2], "00008": [0, 3], "00013": [0, 4]}
    ade = masks.read_index(
        (real_data / "ADEChallengeData2016/annotations/validation/ADE_val_00000001.png").read_bytes()
    )
    assert ade.dtype == np.uint8
    assert ade.ndim == 2
    seg = next((real_data / "ade20k").rglob("*_seg.png"))
    assert masks.read_index(seg.read_bytes()).shape[2] == 3


# Sizes that do not fit


def test_fit_crops_and_extends_at_the_right_and_the_bottom() -> None:
    plane, missing = masks.fit(INDICES, 3, 4)
    assert plane is INDICES
    assert not missing.any()
    plane, missing = masks.fit(INDICES, 4, 6)
    assert plane.tolist() == [[0, 1, 2, 3, 0, 0], [4, 5, 6, 7, 0, 0], [8, 9, 10, 11, 0, 0], [0] * 6]
    assert missing.tolist() == [[False] * 4 + [True] * 2] * 3 + [[True] * 6]
    plane, missing = masks.fit(INDICES, 2, 5)
    assert plane.tolist() == [[0, 1, 2, 3, 0], [4, 5, 6, 7, 0]]
    assert missing.tolist() == [[False] * 4 + [True]] * 2
    plane, missing = masks.fit(np.stack([INDICES] * 3, axis=2), 1, 2)
    assert plane.tolist() == [[[0] * 3, [1] * 3]]
    assert not missing.any()


@pytest.mark.parametrize("size", [(6, 4), (3, 7), (3, 1)])
def test_more_than_two_pixels_is_another_pictures_mask(size: tuple[int, int]) -> None:
    with pytest.raises(BadRecord, match="another size"):
        masks.fit(INDICES, *size)


def test_the_real_mismatch_of_judo(real_data: Path) -> None:
    plane = masks.read_index((real_data / "judo/Annotations/00005.png").read_bytes())
    with Image.open(real_data / "judo/JPEGImages/00005.jpg") as frame:
        width, height = frame.size
    assert (plane.shape, height, width) == ((480, 853), 480, 854)
    fitted, missing = masks.fit(plane, height, width)
    assert np.array_equal(fitted[:, :853], plane)
    assert missing.sum() == 480
    assert missing[:, 853].all()


# PNG


@given(st.integers(1, 30), st.integers(1, 150), st.integers(1, 9), st.floats(0, 1), st.integers(0, 2**32))
def test_a_mask_drawn_from_its_counts_is_the_one_drawn_from_its_pixels(
    height: int, width: int, cell: int, density: float, seed: int
) -> None:
    cells = np.random.default_rng(seed).random((height, width)) < density**2
    mask = np.repeat(np.repeat(cells, cell, axis=0), cell, axis=1)[:height, :width]
    picture, bits = masks.draw(masks.encode(mask), height, width)
    assert picture == masks.write_png(mask)
    assert bits == np.packbits(mask).tobytes()


def test_empty_runs_are_drawn_too() -> None:
    counts = masks.from_coco({"size": [3, 5], "counts": [0, 2, 0, 4, 3, 0, 6]}, 3, 5)
    mask = masks.decode(counts, 3, 5)
    assert masks.draw(counts, 3, 5) == (masks.write_png(mask), np.packbits(mask).tobytes())
    with pytest.raises(BadRecord):
        masks.draw(counts, 3, 6)


@given(drawn())
def test_png_round_trip(mask: np.ndarray) -> None:
    assert np.array_equal(masks.read_png(masks.write_png(mask)), mask)


def test_read_png_takes_other_writers() -> None:
    rgb = np.zeros((3, 4, 3), np.uint8)
    rgb[1, 2, 1] = 9
    assert np.array_equal(masks.read_png(saved(Image.fromarray(rgb))), rgb[..., 1] == 9)
    assert np.array_equal(masks.read_png(saved(Image.fromarray(INDICES))), INDICES > 0)
