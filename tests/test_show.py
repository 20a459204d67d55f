"""The pictures of `show`: what is tinted, hatched and left alone, whatever the names and sizes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import corpora
import numpy as np
import pytest
import worlds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aesampler import pictures, show
from aesampler.cli import run
from aesampler.corpus import Corpus
from aesampler.sample import Sample


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpora.write(tmp_path_factory.mktemp("show") / "tiny"))


def drawn(height: int, width: int, frames: int = 1, names: tuple[str, ...] = ("cat", "dog", "cow")) -> Sample:
    """Grey frames; the anomaly is the left third, the right third is ignored."""
    mask, ignored = np.zeros((2, frames, height, width), dtype=bool)
    mask[:, :, : width // 3] = True
    ignored[:, :, -(width // 3) :] = width >= 3
    return Sample(
        key="coco_1",
        source="coco",
        split="train",
        origin="train2017/1.jpg",
        origin_frames=("1",) * frames,
        valid_frames=max(1, frames - 1),
        anomalous=True,
        categories=names,
        is_genuine=tuple(place == 0 for place in range(len(names))),
        presence=tuple(("present", "absent", "unknown")[place % 3] for place in range(len(names))),  # type: ignore[misc]
        frames=np.full((frames, height, width, 3), 128, dtype=np.uint8),
        masks=mask,
        ignored=ignored,
        frame_labels=np.array([1, 0, 255] * frames, dtype=np.uint8)[:frames],
        redraw="",
    )


def test_the_anomaly_is_tinted_and_the_rest_is_left_alone() -> None:
    picture = np.asarray(pictures.overlay(drawn(720, 960))).astype(int)
    inside = picture[pictures.PADDING : pictures.PADDING + 720, pictures.PADDING : pictures.PADDING + 960]
    tint = np.rint((1 - pictures.TINT) * 128 + pictures.TINT * np.array(pictures.RED))
    assert (inside[:, :310] == tint).all()
    assert (inside[:, 330:630] == 128).all()
    hidden = inside[:, 645:]
    assert (hidden != 128).all()
    assert len(np.unique(hidden.reshape(-1, 3), axis=0)) == 2  # two stripes
    assert (np.abs(hidden - hidden.mean(axis=2, keepdims=True)) < 12).all()  # grey
    edge = inside[300, 318:326]
    assert pictures.RED in [tuple(pixel) for pixel in edge]
    assert (255, 255, 255) in [tuple(pixel) for pixel in edge]


def test_a_clip_is_a_film_strip() -> None:
    one, nine = pictures.overlay(drawn(60, 80)), pictures.overlay(drawn(60, 80, frames=9))
    assert one.width == pictures.LARGE[0] + 2 * pictures.PADDING
    assert nine.width == pictures.COLUMNS * pictures.SMALL[0] + (pictures.COLUMNS - 1) * 12 + 2 * pictures.PADDING
    rows = -(-9 // pictures.COLUMNS)
    assert nine.height > rows * pictures.SMALL[1] * 60 / 80


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (2000, 30), (30, 2000), (24, 32)])
def test_any_size(size: tuple[int, int]) -> None:
    for frames in (1, 3):
        picture = pictures.overlay(drawn(*size, frames=frames))
        assert picture.mode == "RGB"
        assert max(picture.size) < 4000


def test_a_mask_of_one_pixel_does_not_vanish() -> None:
    mask = np.zeros((2000, 2000), dtype=bool)
    mask[777, 1234] = True
    assert pictures._scaled(mask, (200, 200)).sum() == 1


@given(st.lists(st.text(max_size=30), max_size=12).map(tuple))
@settings(max_examples=8)
def test_any_name_can_be_written(names: tuple[str, ...]) -> None:
    assert pictures.overlay(drawn(24, 32, names=names)).mode == "RGB"
    assert pictures._card(drawn(24, 32, names=names)).mode == "RGB"


def test_names_without_freetype(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFont

    monkeypatch.setattr(pictures, "_font", lambda size: ImageFont.load_default_imagefont())
    assert pictures.overlay(drawn(24, 32, names=("\u81ea\u8ee2\u8eca", "\u00e9toile"))).mode == "RGB"


def ink(picture: Image.Image) -> np.ndarray:
    """Where anything is drawn on the paper, bool [H, W]."""
    return (np.asarray(picture) != pictures.PAPER).any(axis=2)


@pytest.mark.parametrize("names", [("x" * 400,), tuple(f"name number {place}" for place in range(40)), ()])
def test_nothing_is_cut_off_at_the_border(names: tuple[str, ...]) -> None:
    drawing = ink(pictures.overlay(drawn(24, 32, names=names)))
    border = pictures.PADDING - 1
    assert not drawing[:, :border].any()
    assert not drawing[:, -border:].any()
    assert not drawing[-border:].any()


def test_a_long_text_keeps_both_ends() -> None:
    short = pictures._shortened("coco_train_" + "0" * 80 + "139", 20, 200)
    assert short.startswith("coco_")
    assert short.endswith("0139")
    assert pictures._width(short, 20) <= 200
    assert pictures._shortened("cat", 20, 200) == "cat"


def test_a_contact_sheet_is_half_anomalous(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Sample] = []
    card = pictures._card
    monkeypatch.setattr(pictures, "_card", lambda sample: shown.append(sample) or card(sample))
    pictures.contact_sheet(corpus, 6, seed=3)
    assert sum(sample.anomalous for sample in shown) == 3
    assert len({sample.key for sample in shown}) == 6
    shown.clear()
    pictures.contact_sheet(corpus, 12, seed=3)
    assert [len(shown), sum(sample.anomalous for sample in shown)] == [12, corpus.head.totals.anomalous]
    shown.clear()
    pictures.contact_sheet(corpus, 50)
    assert len(shown) == len(corpus)


def test_a_contact_sheet_depends_on_its_seed_alone(corpus: Corpus) -> None:
    first, second, other = (np.asarray(pictures.contact_sheet(corpus, 4, seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert pictures.contact_sheet(corpus, 1).width > pictures.THUMBNAIL[0]


def test_the_summary(corpus: Corpus) -> None:
    told = show.summary(corpus)
    body = json.loads(json.dumps(told.to_json()))
    assert body["samples"] == len(corpus) == 12
    (images, clips) = body["parts"]
    assert images == {
        "source": "coco",
        "split": "train",
        "kind": "image",
        "each": 1,
        "samples": 9,
        "anomalous": sum(row.anomalous for row in corpus.rows(source="coco")),
        "frames": 9,
        "shards": 2,
        "failed": 1,
        "skipped": 0,
        "bytes": sum(size for path, size in corpus.folder.list().items() if path.endswith(".tar") and "coco" in path),
    }
    assert (clips["kind"], clips["each"], clips["frames"], clips["skipped"]) == ("clip", 3, 9, 1)
    text = str(told)
    for word in ("tiny: 12 samples", "coco", "clips of 3", "exposed most often", "1 x the picture is truncated"):
        assert word in text


def test_a_sample_in_words(corpus: Corpus) -> None:
    sample = corpus["davis_validation_000001"]
    told = json.loads(json.dumps(show.describe(sample)))
    assert told["key"] == "davis_validation_000001"
    assert [entry["name"] for entry in told["categories"]] == list(sample.categories)
    assert told["frame_labels"] == sample.frame_labels.tolist()
    assert (told["frames"], told["height"], told["width"]) == sample.masks.shape


def test_pictures_are_saved_as_png(corpus: Corpus, tmp_path: Path) -> None:
    pictures.overlay(corpus[0]).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"


def test_a_clip_plays_as_an_animated_picture(tmp_path: Path) -> None:
    worlds.davis(tmp_path / "davis", sequences=2, frames=6)
    config = tmp_path / "r.yaml"
    config.write_text("name: x\nsources: [{name: d, format: davis, root: davis}]\nclips: {frames: 4, every: 4}\n")
    assert run(["build", "--config", str(config), "--out", str(tmp_path / "out"), "--executor", "inline"]) == 0
    key = next(iter(Corpus.open(tmp_path / "out").keys()))
    target = tmp_path / "clip.webp"
    assert run(["show", str(tmp_path / "out"), "--key", key, "--out", str(target)]) == 0
    with Image.open(target) as moving:
        assert (moving.format, moving.n_frames, moving.is_animated) == ("WEBP", 4, True)
        shown = []
        for place in range(4):
            moving.seek(place)
            shown.append(np.asarray(moving.convert("RGB")))
    assert all((one != other).any() for one, other in itertools.pairwise(shown[:2]))
