"""A corpus of the real samples, pixel for pixel against readings that share no code with ours.

The oracles: pycocotools' own COCO class, the `lvis` package, plain PNGs.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from aesampler import Corpus, Folder, Inline, Recipe, Sample, build_corpus, plan_corpus

Mask = npt.NDArray[np.bool_]
Truth = Callable[[Sample, int], dict[str, Mask]]
"""(sample, frame) -> name -> the whole mask of that name, by the oracle; names without a pixel may be left out."""


@pytest.fixture(scope="module")
def corpus(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Every real sample, as one corpus."""
    folder = tmp_path_factory.mktemp("real")
    recipe = Recipe.parse(
        f"""
        name: real
        seed: 44
        sources:
          - {{name: coco, format: coco, root: "{real_data}/coco"}}
          - {{name: lvis, format: lvis, root: "{real_data}/lvis", split: validation}}
          - {{name: ade, format: ade20k, root: "{real_data}/ade20k"}}
          - {{name: ade150, format: ade20k-150, root: "{real_data}/ADEChallengeData2016", split: validation}}
          - {{name: davis, format: davis, root: "{real_data}/DAVIS"}}
        exposure: {{anomaly_probability: 0.9}}
        """
    )
    build_corpus(plan_corpus(recipe), Folder.at(folder / "corpus"), Inline())
    return Corpus.open(folder / "corpus")


def samples(corpus: Corpus, source: str) -> Iterator[Sample]:
    for row in corpus.rows(source=source):
        yield corpus.sample(row)


def stored(sample: Sample, frame: int) -> dict[str, Mask]:
    """What the redraw string holds for a frame, decoded by pycocotools."""
    body = json.loads(sample.redraw)
    return {
        name: coco_mask.decode(track[frame]).astype(bool)
        for part in ("segments", "incomplete")
        for name, track in body[part].items()
        if track[frame] is not None
    }


def compare(corpus: Corpus, source: str, truth: Truth) -> tuple[int, int]:
    """Stored segments and mask.png of every sample against the oracle; (samples, anomalous ones)."""
    counts = [0, 0]
    for sample in samples(corpus, source):
        for frame in range(sample.valid_frames):
            expected = {name: mask for name, mask in truth(sample, frame).items() if mask.any()}
            got = stored(sample, frame)
            assert set(got) == set(expected), sample.key
            for name, mask in expected.items():
                assert np.array_equal(got[name], mask), (sample.key, frame, name)
            exposed = [n for n, genuine in zip(sample.categories, sample.is_genuine, strict=True) if genuine]
            union = np.zeros(sample.masks.shape[1:], dtype=bool)
            for name in exposed:
                union |= expected.get(name, np.zeros_like(union))
            assert np.array_equal(sample.masks[frame], union), (sample.key, frame)
        for frame in range(sample.valid_frames, len(sample.masks)):
            assert np.array_equal(sample.masks[frame], sample.masks[sample.valid_frames - 1])
        counts[0] += 1
        counts[1] += sample.anomalous
    return counts[0], counts[1]


def merged(parts: Iterator[tuple[str, Mask]]) -> dict[str, Mask]:
    found: dict[str, Mask] = {}
    for name, mask in parts:
        found[name] = found[name] | mask if name in found else mask
    return found


def test_coco(corpus: Corpus, real_data: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(real_data / "coco/annotations/instances_train2017.json"))
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}

    def truth(sample: Sample, frame: int) -> dict[str, Mask]:
        found = coco.loadAnns(coco.getAnnIds(imgIds=[int(Path(sample.origin).stem)], iscrowd=0))
        return merged((names[a["category_id"]], coco.annToMask(a).astype(bool)) for a in found)

    assert compare(corpus, "coco", truth) == (128, COCO_ANOMALOUS)


COCO_ANOMALOUS = 110  # pinned: the draws of seed 44


def test_coco_crowds_are_ignored(corpus: Corpus, real_data: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(real_data / "coco/annotations/instances_train2017.json"))
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    seen = 0
    for sample in samples(corpus, "coco"):
        crowds = coco.loadAnns(coco.getAnnIds(imgIds=[int(Path(sample.origin).stem)], iscrowd=1))
        regions = merged((names[a["category_id"]], coco.annToMask(a).astype(bool)) for a in crowds)
        body = json.loads(sample.redraw)
        assert {n: coco_mask.decode(t[0]).astype(bool).tobytes() for n, t in body["ignored"].items()} == {
            n: m.tobytes() for n, m in regions.items()
        }
        listed = [regions[n] for n in sample.categories if n in regions]
        expected = np.logical_or.reduce(listed) if listed else np.zeros_like(sample.masks[0])
        assert np.array_equal(sample.ignored[0], expected & ~sample.masks[0])
        assert not set(regions) & {n for n, g in zip(sample.categories, sample.is_genuine, strict=True) if not g}
        seen += len(crowds)
    assert seen == 10


def test_lvis(corpus: Corpus, real_data: Path) -> None:
    from lvis import LVIS

    lvis = LVIS(str(real_data / "lvis/annotations/lvis_v0.5_val.json"))
    shown = {category["synset"]: category for category in lvis.dataset["categories"]}
    assert len(shown) == 1230
    ours = {name.name: name for name in corpus.vocabulary("lvis").names}
    by_id = dict(zip([c["id"] for c in lvis.dataset["categories"]], ours, strict=True))

    def truth(sample: Sample, frame: int) -> dict[str, Mask]:
        annotations = lvis.load_anns(lvis.get_ann_ids(img_ids=[int(Path(sample.origin).stem)]))
        return merged((by_id[a["category_id"]], lvis.ann_to_mask(a).astype(bool)) for a in annotations)

    assert compare(corpus, "lvis", truth)[0] == 9
    for sample in samples(corpus, "lvis"):
        (image,) = lvis.load_imgs([int(Path(sample.origin).stem)])
        absent = {by_id[i] for i in image["neg_category_ids"]}
        marked = {by_id[i] for i in image["not_exhaustive_category_ids"]}
        body = json.loads(sample.redraw)
        assert set(body["absent"]) == absent
        assert marked <= set(body["incomplete"]) | set(body["present"])
        assert not marked & {n for n, g in zip(sample.categories, sample.is_genuine, strict=True) if g}
        irrelevant = {n for n, g in zip(sample.categories, sample.is_genuine, strict=True) if not g}
        drawable = {n for n in absent if ours[n].weight > 0}
        assert irrelevant <= drawable if drawable else not irrelevant & absent


def test_ade20k(corpus: Corpus, real_data: Path) -> None:
    names: dict[str, dict[int, str]] = {}
    for file in real_data.glob("ade20k/ADE20K_2021_17_01/images/ADE/*/*/*/*.json"):
        for thing in json.loads(file.read_text())["annotation"]["object"]:
            names.setdefault(file.stem, {})[thing["name_ndx"]] = thing["name"]
    vocabulary = [name.name for name in corpus.vocabulary("ade").names]

    def truth(sample: Sample, frame: int) -> dict[str, Mask]:
        file = real_data / "ade20k" / sample.origin.replace(".jpg", "_seg.png")
        rgb = np.asarray(Image.open(file)).astype(int)
        classes = rgb[..., 0] // 10 * 256 + rgb[..., 1]
        found = {}
        for index in np.unique(classes[classes > 0]):
            synonyms = {part.strip() for part in names[file.stem.removesuffix("_seg")][index].split(",")}
            (shown,) = synonyms.intersection(vocabulary)
            found[shown] = classes == index
        return found

    assert compare(corpus, "ade", truth)[0] == 3
    for sample in samples(corpus, "ade"):
        rgb = np.asarray(Image.open(real_data / "ade20k" / sample.origin.replace(".jpg", "_seg.png"))).astype(int)
        void = rgb[..., 0] // 10 * 256 + rgb[..., 1] == 0
        assert np.array_equal(sample.ignored[0], void & ~sample.masks[0])


def test_ade20k_150(corpus: Corpus, real_data: Path) -> None:
    lines = (real_data / "ADEChallengeData2016/objectInfo150.txt").read_text().splitlines()[1:]
    table = {int(line.split("\t")[0]): {s.strip() for s in line.split("\t")[-1].split(",")} for line in lines}
    vocabulary = [name.name for name in corpus.vocabulary("ade150").names]
    assert len(vocabulary) == 150
    assert all(vocabulary[i - 1] in table[i] or "," in vocabulary[i - 1] for i in table)

    def truth(sample: Sample, frame: int) -> dict[str, Mask]:
        file = real_data / "ADEChallengeData2016/annotations/validation" / f"{Path(sample.origin).stem}.png"
        plane = np.asarray(Image.open(file))
        return {vocabulary[int(i) - 1]: plane == i for i in np.unique(plane[plane > 0])}

    assert compare(corpus, "ade150", truth)[0] == 3


def test_davis(corpus: Corpus, real_data: Path) -> None:
    semantics = json.loads((real_data / "DAVIS/davis_semantics.json").read_text())
    frames: dict[str, set[str]] = {}

    def truth(sample: Sample, frame: int) -> dict[str, Mask]:
        name = sample.origin_frames[frame]
        frames.setdefault(sample.origin, set()).add(name)
        plane = np.asarray(Image.open(real_data / f"DAVIS/Annotations/480p/{sample.origin}/{name}.png"))
        return {semantics[sample.origin]["1"]: plane > 0}

    counts = compare(corpus, "davis", truth)
    assert counts[0] == 8 + 5 + 7
    assert {video: len(seen) for video, seen in frames.items()} == {"dog": 60, "car-shadow": 40, "blackswan": 50}
    for sample in samples(corpus, "davis"):
        marks = dict(zip(sample.categories, sample.presence, strict=True))
        assert set(marks.values()) <= {"present", "unknown"}
