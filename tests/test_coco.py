from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
from conftest import S3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Record
from aesampler.scene import Scene
from aesampler.sources import instances, instances_json
from aesampler.sources.coco import Coco
from aesampler.sources.source import Survey
from aesampler.storage import Folder

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]
Body = dict[str, Any]


def body(**changes: object) -> Body:
    """One picture with one dog, and a second picture without any annotation."""
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 8, "width": 10},
            {"id": 3, "file_name": "b.jpg", "height": 8, "width": 10},
        ],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 18, "segmentation": SQUARE, "iscrowd": 0}],
        "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
        **changes,
    }


def written(root: Path, content: Body | str | bytes, pictures: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Folder:
    """A root that holds `content` as its annotations, and empty files for pictures."""
    for picture in pictures:
        place = root / "train2017" / picture
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    file = root / "annotations" / "instances_train2017.json"
    file.parent.mkdir(exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return Folder.at(root)


def records(survey: Survey) -> dict[str, Record]:
    return {item.id: survey.record(place) for place, item in enumerate(survey.items)}


def scene(survey: Survey, id: str, root: Path, size: tuple[int, int] = (8, 10)) -> Scene:
    names = [category.name for category in survey.categories]
    return Coco().scene(Folder.at(root), records(survey)[id], names, (0,), size)


@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, subset: Any, seed: int) -> None:
    world = worlds.coco(tmp_path, images=12, seed=seed, subset=subset)
    reader = Coco(subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_a_world_is_read_from_a_store(tmp_path: Path, s3: S3) -> None:
    bucket = s3.bucket()
    world = worlds.coco(s3.disk / bucket.removeprefix("s3://") / "coco")
    root = Folder.at(f"{bucket}/coco")
    worlds.assert_read(world, Coco().survey(root), Coco(), root)


def test_nothing_depends_on_the_order_of_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.coco(tmp_path)
    worlds.assert_order_free(tmp_path, Coco(), monkeypatch)


def test_real_masks_equal_pycocotools(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Folder.at(real_data / "coco")
    survey = Coco().survey(root)
    oracle = COCO(str(real_data / "coco/annotations/instances_train2017.json"))
    capsys.readouterr()
    names = [category.name for category in survey.categories]
    assert names == [entry["name"] for entry in oracle.dataset["categories"]]
    assert len(survey.items) == 128
    assert sum(not record.masked and not record.ignored for record in records(survey).values()) == 2
    crowds = 0
    for record in records(survey).values():
        assert record.group == f"coco:{int(record.id)}"
        assert survey.listing[record.frames[0]] == os.stat(real_data / "coco" / record.frames[0]).st_size
        found = Coco().scene(root, record, names, (0,), (record.height, record.width))
        expected: dict[str, dict[str, Any]] = {"segments": {}, "ignored": {}}
        for entry in oracle.loadAnns(oracle.getAnnIds(int(record.id))):
            kind = "ignored" if entry["iscrowd"] else "segments"
            crowds += entry["iscrowd"]
            name = oracle.cats[entry["category_id"]]["name"]
            mask = oracle.annToMask(entry).astype(bool)
            expected[kind][name] = mask | expected[kind].get(name, False)
        for kind, by_name in expected.items():
            told = getattr(found, kind)
            assert set(told) == set(by_name)
            for name, mask in by_name.items():
                assert np.array_equal(masks.decode(told[name][0], record.height, record.width), mask)
        assert found.exhaustive
        assert found.seen == set(expected["segments"]) | set(expected["ignored"])
    assert crowds == 10


def test_the_survey_in_full(tmp_path: Path) -> None:
    survey = Coco().survey(written(tmp_path, body()))
    assert [(c.name, c.origin) for c in survey.categories] == [("dog", "18"), ("person", "1")]
    assert survey.exhaustive
    assert survey.files == ("annotations/instances_train2017.json",)
    assert survey.folders == ("train2017",)
    assert survey.listing == {"train2017/a.jpg": 0, "train2017/b.jpg": 0}
    file = (tmp_path / "annotations/instances_train2017.json").read_bytes()
    text = b"[[1, 1, 5, 1, 5, 5, 1, 5]]"
    row = np.array([(file.index(text), len(text), 0, zlib.crc32(text))], dtype=instances.REFERENCE)
    assert records(survey) == {
        "a": Record(
            id="a",
            group="image:train2017/a.jpg",
            frames=("train2017/a.jpg",),
            annotated=(True,),
            height=8,
            width=10,
            masked=(0,),
            payload=b"@annotations/instances_train2017.json\n" + row.tobytes(),
        ),
        "b": Record(
            id="b", group="image:train2017/b.jpg", frames=("train2017/b.jpg",), annotated=(True,), height=8, width=10
        ),
    }


def test_a_file_that_changed_since_it_was_catalogued_is_refused(tmp_path: Path) -> None:
    survey = Coco().survey(written(tmp_path, body()))
    found = records(survey)["a"]
    file = tmp_path / "annotations/instances_train2017.json"
    text = file.read_text()
    assert text.count("[[1, 1, 5, 1, 5, 5, 1, 5]]") == 1
    assert scene(survey, "a", tmp_path).segments
    for changed in (text.replace("[[1, 1, 5, 1,", "[[1, 1, 6, 1,"), text[: len(text) // 4]):
        file.write_text(changed)
        with pytest.raises(SourceError, match=r"instances_train2017\.json: the file has changed since it was catal"):
            Coco().scene(Folder.at(tmp_path), found, ["dog", "person"], (0,), (8, 10))


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    """Another dataset at the same place, in one process."""
    for name in ("dog", "zebra"):
        categories = [{"id": 18, "name": name}, {"id": 1, "name": "person"}]
        (tmp_path / "next/annotations").mkdir(parents=True)
        (tmp_path / "next/annotations/x.json").write_text(json.dumps({"note": name} | body(categories=categories)))
        written(tmp_path, body())
        file = tmp_path / "annotations/instances_train2017.json"
        (tmp_path / "next/annotations/x.json").rename(file)
        shutil.rmtree(tmp_path / "next")
        assert set(scene(Coco().survey(Folder.at(tmp_path)), "a", tmp_path).segments) == {name}


def test_records_at_once_equal_records_one_by_one(tmp_path: Path) -> None:
    worlds.coco(tmp_path, images=12)
    survey = Coco().survey(Folder.at(tmp_path))
    assert survey.batch is not None
    places = random.Random(1).sample(range(12), 12)
    columns = survey.batch(places)
    for row, place in enumerate(places):
        record = survey.record(place)
        wanted = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        wanted["frame_bytes"] = tuple(survey.listing[frame] for frame in record.frames)
        found = {name: column[row].as_py() for name, column in columns.items()}
        assert {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()} == wanted


def test_what_a_crowd_and_an_empty_segmentation_say(tmp_path: Path) -> None:
    rle = {"size": [8, 10], "counts": [0, 16, 64]}
    nothing = {"size": [8, 10], "counts": [80]}
    entries = [
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": SQUARE},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": rle, "iscrowd": 1},
        {"id": 3, "image_id": 7, "category_id": 18, "segmentation": []},
        {"id": 4, "image_id": 3, "category_id": 18, "segmentation": nothing, "iscrowd": 0},
        {"id": 5, "image_id": 3, "category_id": 1, "segmentation": [], "iscrowd": 1},
    ]
    survey = Coco().survey(written(tmp_path, body(annotations=entries)))
    first, second = records(survey)["a"], records(survey)["b"]
    assert (first.masked, first.ignored, first.elsewhere) == ((1,), (1,), (0,))
    assert (second.masked, second.ignored, second.elsewhere) == ((0,), (), (1,))
    found = scene(survey, "a", tmp_path)
    assert (set(found.segments), set(found.ignored), found.present) == ({"person"}, {"person"}, {"dog"})
    assert found.ignored["person"] == (masks.from_coco(rle, 8, 10),)
    assert scene(survey, "b", tmp_path).segments == {}
    assert scene(survey, "b", tmp_path).present == {"dog", "person"}


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1]],
        {"size": [10, 8], "counts": [80]},
        {"size": [8, 10], "counts": [81]},
        {"size": [8, 10], "counts": "zzz"},
        "polygon",
        [[1, 1, None, 2, 3, 4]],
    ],
)
def test_an_impossible_mask_is_a_bad_record(tmp_path: Path, segmentation: object) -> None:
    entries = [{"id": 1, "image_id": 7, "category_id": 18, "segmentation": segmentation}]
    survey = Coco().survey(written(tmp_path, body(annotations=entries)))
    with pytest.raises(BadRecord, match=r"^a: dog: "):
        scene(survey, "a", tmp_path)


def test_a_picture_of_another_size_is_a_bad_record(tmp_path: Path) -> None:
    survey = Coco().survey(written(tmp_path, body()))
    with pytest.raises(BadRecord, match=r"not of the size .* got 10 x 8; allowed: 8 x 10"):
        scene(survey, "a", tmp_path, (10, 8))


def without(key: str) -> Callable[[Body], Body]:
    return lambda content: {name: value for name, value in content.items() if name != key}


def annotated(**changes: object) -> Callable[[Body], Body]:
    return lambda content: {
        **content,
        "annotations": [content["annotations"][0], {**content["annotations"][0], **changes}],
    }


def pictured(*names: str, ids: tuple[object, ...] = (7, 3)) -> Callable[[Body], Body]:
    images = [{"id": id, "file_name": name, "height": 8, "width": 10} for id, name in zip(ids, names, strict=True)]
    return lambda content: {**content, "images": images}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("images"), "missing required field `images`"),
        (without("annotations"), "missing required field `annotations`"),
        (without("categories"), "missing required field `categories`"),
        (annotated(image_id=8), "annotation 5: an unknown image is named; got image_id 8"),
        (annotated(category_id=2), "annotation 5: an unknown category is named; got category_id 2"),
        (annotated(category_id="dog"), r"Expected `int`, got `str` - at `\$.annotations\[1\].category_id`"),
        (annotated(image_id=2**70), "64 bits"),
        (pictured("a.jpg", "b.jpg", ids=(7, 7)), "two of images have one id; got 7"),
        (pictured("a.jpg", "a.jpg"), "two of images have one file name; got 'a.jpg'"),
        (pictured("a.jpg", "../b.jpg"), "leaves its folder"),
        (pictured("a.jpg", "/etc/passwd"), "leaves its folder"),
        (pictured("a.jpg", ""), "leaves its folder, or is none"),
        (pictured("a.jpg", "x\\b.jpg"), "leaves its folder"),
        (pictured("c.jpg", "d.jpg"), "none of the pictures .* with 2 files, the first picture being train2017/c.jpg"),
        (lambda content: {**content, "images": [], "annotations": []}, "names no images"),
        (lambda content: {**content, "categories": [], "annotations": []}, "vocabulary is empty"),
        (lambda content: {**content, "categories": [{"id": 1, "name": "x"}, {"id": 18, "name": "x"}]}, "one name"),
        (lambda content: {**content, "categories": [{"id": 1, "name": "x"}, {"id": 1, "name": "y"}]}, "one id"),
    ],
)
def test_what_is_refused(tmp_path: Path, change: Callable[[Body], Body], message: str) -> None:
    content = body()
    content["annotations"][0]["id"] = 5
    root = written(tmp_path, change(content))
    with pytest.raises(SourceError, match=message) as caught:
        Coco().survey(root)
    assert "instances_train2017.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff\xfe{", "not an instances JSON"),
        (json.dumps(body())[:-1], "truncated"),
        (json.dumps(body())[:150], "truncated"),
        (json.dumps(body()).replace("18", "NaN"), "not an instances JSON"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        Coco().survey(written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"instances_train2017\.json: no such file"):
        Coco().survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match="no masks of its test pictures"):
        Coco(subset="test").survey(Folder.at(tmp_path))


def test_the_year_2014_is_read_where_2017_is_missing(tmp_path: Path) -> None:
    stem = "COCO_train2014_000000000009"
    image = {"id": 9, "file_name": f"{stem}.jpg", "height": 8, "width": 10}
    content = body(images=[image], annotations=[])
    written(tmp_path, content)
    (tmp_path / "annotations/instances_train2017.json").rename(tmp_path / "annotations/instances_train2014.json")
    (tmp_path / "train2014").mkdir()
    (tmp_path / f"train2014/{stem}.jpg").touch()
    survey = Coco().survey(Folder.at(tmp_path))
    assert records(survey)[stem].frames == (f"train2014/{stem}.jpg",)
    assert records(survey)[stem].group == "coco:9"


def test_pictures_in_folders_and_odd_paths(tmp_path: Path) -> None:
    root = written(tmp_path, pictured("x/a.jpg", "./y//a.png")(body()), ("x/a.jpg", "y/a.png"))
    survey = Coco().survey(root)
    assert {r.id: r.frames[0] for r in records(survey).values()} == {
        "x/a": "train2017/x/a.jpg",
        "y/a": "train2017/y/a.png",
    }
    same = Coco().survey(written(tmp_path, pictured("x/a.jpg", "x/a.png")(body()), ("x/a.jpg", "x/a.png")))
    assert set(records(same)) == {"x/a.jpg", "x/a.png"}


def test_options_name_the_paths(tmp_path: Path) -> None:
    written(tmp_path, body())
    (tmp_path / "train2017").rename(tmp_path / "pictures")
    (tmp_path / "annotations/instances_train2017.json").rename(tmp_path / "mine.json")
    survey = Coco(images="pictures/", annotations="mine.json").survey(Folder.at(tmp_path))
    assert records(survey)["a"].frames == ("pictures/a.jpg",)
    inside = Coco(images=".", annotations="../mine.json").survey
    with pytest.raises(SourceError, match="confined"):
        inside(Folder.at(tmp_path / "pictures"))
    os.link(tmp_path / "mine.json", tmp_path / "pictures/mine.json")
    flat = Coco(images=".", annotations="mine.json").survey(Folder.at(tmp_path / "pictures"))
    assert records(flat)["a"].frames == ("a.jpg",)
    with pytest.raises(SourceError, match="no folder of pictures is known"):
        Coco(annotations="mine.json").survey(Folder.at(tmp_path))


def spelt(content: Body, order: list[str], random: random.Random) -> str:
    """The object as JSON, its keys in some order, with some white space."""
    gaps = ["", " ", "\n", "\t "]

    def gap() -> str:
        return random.choice(gaps)

    def text(value: object) -> str:
        if isinstance(value, dict):
            entries = [f"{gap()}{json.dumps(key)}{gap()}:{gap()}{text(entry)}{gap()}" for key, entry in value.items()]
            return "{" + ",".join(entries) + "}"
        if isinstance(value, list):
            return "[" + ",".join(f"{gap()}{text(entry)}{gap()}" for entry in value) + "]"
        return json.dumps(value)

    return gap() + text({key: content[key] for key in order}) + gap()


names = st.sampled_from(["dog", '"annotations": [', "}, {", "}]", "x\\", "\u00e9"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), piece=st.integers(1, 200))
def test_any_layout_is_read_as_json_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, piece: int
) -> None:
    """Whatever the order of keys, the spacing and the cuts: records equal those of `json.loads`."""
    monkeypatch.setattr(instances_json, "PIECE", piece)

    count = data.draw(st.integers(0, 12))
    entry = st.fixed_dictionaries(
        {"id": st.integers(0, 99), "image_id": st.sampled_from([7, 3]), "category_id": st.sampled_from([18, 1])},
        optional={
            "iscrowd": st.sampled_from([0, 1]),
            "note": names,
            "parts": st.just([{"a": [{"b": 1}]}, {"annotations": [{}, {}]}]),
        },
    )
    segmentation = st.sampled_from(
        [SQUARE, [], [[1.5, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6]], {"size": [8, 10], "counts": "Z2"}]
    )
    entries = [{**data.draw(entry), "segmentation": data.draw(segmentation)} for _ in range(count)]
    content = body(
        annotations=entries, info={"annotations": data.draw(st.sampled_from([None, [], [{"x": 1}], 3, entries]))}
    )
    order = data.draw(st.permutations(list(content)))
    root = written(tmp_path, spelt(content, order, random.Random(data.draw(st.integers(0, 99)))))
    survey = Coco().survey(root)
    index = {18: 0, 1: 1}
    for id, image in (("a", 7), ("b", 3)):
        mine = [entry for entry in entries if entry["image_id"] == image]
        record = records(survey)[id]
        expected = [(index[e["category_id"]], e.get("iscrowd", 0), e["segmentation"]) for e in mine]
        assert list(instances.marks(root, record.payload)) == expected
        found = instances.read(root, survey.files[0], instances_json.Picture, hold=True)
        heads = found.heads(survey.items, ["a", "b"], {})
        held = found.record([7, 3].index(image), heads).payload
        assert json.loads(held or b"[]") == [list(each) for each in expected]
        assert set(record.masked) == {c for c, crowd, s in expected if s and not crowd}
        assert set(record.ignored) == {c for c, crowd, s in expected if s and crowd}
        assert set(record.elsewhere) == {c for c, _, s in expected if not s} - {*record.masked, *record.ignored}


def test_the_usual_layout_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances_json, "PIECE", 200)
    worlds.coco(tmp_path, images=12)
    monkeypatch.setattr(instances.msgspec.json, "decode", whole_only_of_the_rest := WithoutWhole())
    survey = Coco().survey(Folder.at(tmp_path))
    assert len(survey.items) == 12
    assert whole_only_of_the_rest.calls == 1


class WithoutWhole:
    """msgspec's decode, which fails on a file with more annotations than the stand-in."""

    def __init__(self) -> None:
        self.calls = 0
        self._decode = instances.msgspec.json.decode

    def __call__(self, text: Any, **options: Any) -> Any:
        self.calls += 1
        found = self._decode(text, **options)
        assert len(found.annotations) == 1
        return found
