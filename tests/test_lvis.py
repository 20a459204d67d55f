from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
from conftest import S3
from lvis import LVIS

from aesampler import masks
from aesampler.errors import SourceError
from aesampler.record import Record
from aesampler.sources.instances_json import Named
from aesampler.sources.lvis import Lvis, categories
from aesampler.sources.source import Survey
from aesampler.storage import Folder


def records(survey: Survey) -> dict[str, Record]:
    return {item.id: survey.record(place) for place, item in enumerate(survey.items)}


def edited(root: Path, version: str, change: Any) -> Folder:
    """The annotations of the world at `root` (v1 train), changed by `change(body)`."""
    file = root / f"annotations/lvis_{version}_train.json"
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))
    return Folder.at(root)


@pytest.mark.parametrize("version", ["v1", "v0.5"])
@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("seed", range(2))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, version: str, subset: Any, seed: int) -> None:
    world = worlds.lvis(tmp_path, images=9, seed=seed, version=version, subset=subset)
    reader = Lvis(subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_a_world_is_read_from_a_store(tmp_path: Path, s3: S3) -> None:
    bucket = s3.bucket()
    world = worlds.lvis(s3.disk / bucket.removeprefix("s3://") / "lvis")
    root = Folder.at(f"{bucket}/lvis")
    worlds.assert_read(world, Lvis().survey(root), Lvis(), root)


def test_nothing_depends_on_the_order_of_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.lvis(tmp_path)
    worlds.assert_order_free(tmp_path, Lvis(), monkeypatch)


def test_real_masks_and_lists_equal_those_of_the_lvis_package(real_data: Path) -> None:
    root = Folder.at(real_data / "lvis")
    reader = Lvis(subset="validation")
    survey = reader.survey(root)
    oracle = LVIS(str(real_data / "lvis/annotations/lvis_v0.5_val.json"))
    names = [category.name for category in survey.categories]
    shown = {int(category.origin): category.name for category in survey.categories}
    assert len(set(names)) == 1230
    assert len(survey.items) == 9
    total = 0
    for record in records(survey).values():
        number = int(record.id)
        assert record.group == f"coco:{number}"
        assert record.frames == (f"val2017/{number:012d}.jpg",)
        assert record.frames[0] in survey.listing
        image = oracle.load_imgs([number])[0]
        found = reader.scene(root, record, names, (0,), (record.height, record.width))
        expected: dict[str, Any] = {}
        for entry in oracle.load_anns(oracle.get_ann_ids(img_ids=[number])):
            name = shown[entry["category_id"]]
            expected[name] = oracle.ann_to_mask(entry).astype(bool) | expected.get(name, False)
            total += 1
        partly = {shown[id] for id in image["not_exhaustive_category_ids"]}
        assert set(found.segments) == set(expected) - partly
        assert set(found.incomplete) == set(expected) & partly
        for name, mask in expected.items():
            (counts,) = found.segments.get(name) or found.incomplete[name]
            assert counts is not None
            assert np.array_equal(masks.decode(counts, record.height, record.width), mask)
        assert found.absent == {shown[id] for id in image["neg_category_ids"]}
        assert found.seen == set(expected) | partly
        assert not found.exhaustive
    assert total == 55


def test_real_names(real_data: Path) -> None:
    survey = Lvis(subset="validation").survey(Folder.at(real_data / "lvis"))
    by_origin = {int(category.origin): category for category in survey.categories}
    assert {id: by_origin[id].name for id in (1, 136, 137, 453, 454, 708, 741, 742, 764, 765, 921, 922)} == {
        1: "acorn",
        136: "bow (weapon)",
        137: "bow (decorative ribbons)",
        453: "fish",
        454: "fish (food)",
        708: "monitor",
        741: "octopus (food)",
        742: "octopus (animal)",
        764: "pan (for cooking)",
        765: "pan (metal container)",
        921: "salmon (fish)",
        922: "salmon (food)",
    }
    assert by_origin[708].aliases == ("computer monitor",)
    assert by_origin[764].aliases == ("cooking pan",)
    assert not any("_" in category.name for category in survey.categories)
    senses = sorted(category.name for category in survey.categories if "(" in category.name)
    assert len(senses) == 13
    person = next(category for category in survey.categories if category.name == "person")
    assert {"baby", "child", "boy", "girl", "man", "woman"} <= set(person.aliases)
    owners = [alias for category in survey.categories for alias in category.aliases]
    assert len(set(owners)) == len(owners)
    assert not set(owners) & {category.name for category in survey.categories}


def test_names_and_aliases() -> None:
    named = [
        Named(id=1, name="bat_(animal)", synonyms=["bat_(animal)", "flying_mouse"]),
        Named(id=2, name="baseball_bat", synonyms=["baseball_bat", "bat", "club"]),
        Named(id=3, name="bow_(weapon)", synonyms=["bow_(weapon)", "club"]),
        Named(id=4, name="bow_(decorative_ribbons)", synonyms=["bow_(decorative_ribbons)", "ribbon", "ribbon"]),
    ]
    assert [(c.name, c.origin, c.aliases) for c in categories(named)] == [
        ("bat", "1", ("flying mouse",)),
        ("baseball bat", "2", ()),
        ("bow (weapon)", "3", ()),
        ("bow (decorative ribbons)", "4", ("ribbon",)),
    ]
    with pytest.raises(SourceError, match="two categories have one name; got 'a b'"):
        categories([Named(id=1, name="a_b"), Named(id=2, name="a b")])


def test_a_picture_is_found_by_any_rule(tmp_path: Path) -> None:
    worlds.lvis(tmp_path, images=3)

    def named(body: dict[str, Any]) -> None:
        for image, file in zip(body["images"], ("COCO_train2014_{:012d}.jpg", "", "here.jpg"), strict=True):
            image.pop("coco_url")
            image["file_name"] = file.format(image["id"])
        body["images"][1]["coco_url"] = f"http://x/val2017/{body['images'][1]['id']:012d}.jpg"

    root = edited(tmp_path, "v1", named)
    (tmp_path / "here.jpg").touch()
    found = records(Lvis().survey(root))
    assert {id: record.frames for id, record in found.items()} == {
        "000000000050": ("train2017/000000000050.jpg",),  # by its digits
        "000000000067": ("train2017/000000000067.jpg",),  # coco_url says val2017
        "here": ("here.jpg",),
    }
    assert found["here"].group == "image:here.jpg"
    (tmp_path / "pictures").mkdir()
    shutil.move(tmp_path / "train2017", tmp_path / "pictures/train2017")
    moved = Lvis(images="pictures").survey(root)
    assert records(moved)["000000000050"].frames == ("pictures/train2017/000000000050.jpg",)
    assert records(moved)["here"].frames[0] not in moved.listing
    inside = Lvis(images="pictures/train2017").survey(root)
    assert records(inside)["000000000067"].frames == ("pictures/train2017/000000000067.jpg",)


def test_the_lists_of_names(tmp_path: Path) -> None:
    worlds.lvis(tmp_path, images=3)

    def contradict(body: dict[str, Any]) -> None:
        # The first picture shows apple (2) and bottle (5).
        body["images"][0] |= {"neg_category_ids": [2, 11, 12, 11], "not_exhaustive_category_ids": [12, 5]}

    root = edited(tmp_path, "v1", contradict)
    survey = Lvis().survey(root)
    names = [category.name for category in survey.categories]
    record = records(survey)["000000000050"]
    told = {
        field: {names[place] for place in getattr(record, field)}
        for field in ("masked", "incomplete", "absent", "ignored", "elsewhere")
    }
    assert told == {
        "masked": {"apple"},
        "incomplete": {"bottle", "lamp"},
        "absent": {"kite"},
        "ignored": set(),
        "elsewhere": set(),
    }
    found = Lvis().scene(root, record, names, (0,), (worlds.HEIGHT, worlds.WIDTH))
    assert (set(found.segments), set(found.incomplete), found.present) == ({"apple"}, {"bottle"}, {"lamp"})
    assert found.absent == {"kite"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda body: body["images"][1].update(neg_category_ids=[2, 99]),
            "neg_category_ids of image 67: an unknown category is named; got category_id 99",
        ),
        (
            lambda body: body["images"][1].update(not_exhaustive_category_ids=[98]),
            "not_exhaustive_category_ids of image 67: an unknown category is named; got category_id 98",
        ),
        (lambda body: body["images"][1].pop("coco_url"), "neither file_name nor coco_url"),
        (lambda body: body["images"][1].update(coco_url="http://x/../67.jpg"), "leaves its folder"),
        (lambda body: body["images"][1].update(coco_url=body["images"][0]["coco_url"]), "have one file name"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    worlds.lvis(tmp_path, images=3)
    with pytest.raises(SourceError, match=message):
        Lvis().survey(edited(tmp_path, "v1", change))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"annotations/lvis_v1_train\.json: no such file"):
        Lvis().survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match="no masks of its test pictures"):
        Lvis(subset="test").survey(Folder.at(tmp_path))
    worlds.lvis(tmp_path)
    shutil.rmtree(tmp_path / "train2017")
    with pytest.raises(SourceError, match=r"none of the pictures .* got no train2017/000000000050\.jpg below"):
        Lvis().survey(Folder.at(tmp_path))
    worlds.lvis(tmp_path)
    shutil.move(tmp_path / "annotations/lvis_v1_train.json", tmp_path / "lvis_v1_train.json")
    assert len(Lvis().survey(Folder.at(tmp_path)).items) == 6
