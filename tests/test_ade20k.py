from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import worlds
from conftest import S3
from PIL import Image

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.ade20k import Ade20k
from aesampler.sources.source import Survey
from aesampler.storage import Folder

STREET = "ADE20K_2021_17_01/images/ADE/training/urban/street"


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = Ade20k(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


def street(root: Path) -> Path:
    """The stem of a world's first picture."""
    return root / STREET / "ADE_train_00000001"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("parts", [False, True])
def test_a_world_is_read_to_the_pixel(tmp_path: Path, parts: bool, seed: int) -> None:
    world = worlds.ade20k(tmp_path, images=6, seed=seed, parts=parts)
    reader = Ade20k(**world.options)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_validation_folder_has_the_names_of_both(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path, images=4)
    worlds.ade20k(tmp_path, images=1, subset="validation")
    train, scenes = read(tmp_path)
    validation, found = read(tmp_path, subset="validation")
    assert validation.categories == train.categories
    assert list(found) == ["ADE_valid_00000001"]
    assert len(scenes) == 4


def test_the_root_may_be_the_inner_folder(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path)
    outer, one = read(tmp_path)
    inner, two = read(tmp_path / "ADE20K_2021_17_01")
    assert one == two
    assert inner.categories == outer.categories
    assert inner.record(0).frames == (outer.record(0).frames[0].removeprefix("ADE20K_2021_17_01/"),)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.ade20k(tmp_path)
    worlds.assert_order_free(tmp_path, Ade20k(parts=True), monkeypatch)


def test_instance_folders_are_not_listed(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path, images=2)
    survey, _ = read(tmp_path)
    kept = {path.rpartition("/")[2] for path in survey.listing}
    first = {f"ADE_train_00000001{end}" for end in (".jpg", "_seg.png", "_parts_1.png", "_parts_2.png")}
    assert kept == first | {"ADE_train_00000002.jpg", "ADE_train_00000002_seg.png"}
    base = "ADE20K_2021_17_01/images/ADE/training"
    assert set(survey.folders) == {
        base,
        *(f"{base}/{name}" for name in ("urban", "urban/street", "nature_landscape", "nature_landscape/park")),
    }
    assert all(path.endswith(".json") for path in survey.files)
    assert len(survey.files) == 2


@pytest.mark.parametrize("parts", [False, True])
def test_the_real_pictures_equal_an_independent_reading(real_data: Path, parts: bool) -> None:
    survey, scenes = read(real_data / "ade20k", parts=parts)
    assert survey.exhaustive is not parts
    assert len(survey.categories) == (40 if parts else 24)
    shown = {int(entry.origin): entry.name for entry in survey.categories}
    assert (shown[312], shown[1831], shown[2836]) == ("building", "person", "traffic light")
    for name, scene in scenes.items():
        stem = real_data / "ade20k" / STREET / name
        files = [Path(f"{stem}_seg.png")] + (sorted(stem.parent.glob(f"{name}_parts_*.png")) if parts else [])
        planes = []
        for file in files:
            red, green = worlds.pixels(file)[..., :2].astype(int).transpose(2, 0, 1)
            planes.append(red // 10 * 256 + green)
        classes = sorted(set().union(*(np.unique(plane).tolist() for plane in planes)) - {0})
        assert set(scene.segments) == {shown[number] for number in classes}
        for number in classes:
            mask = np.any([plane == number for plane in planes], axis=0)
            worlds.assert_track(scene.segments[shown[number]], mask[None], f"{name}: {shown[number]}")
        worlds.assert_track(scene.void, (planes[0] == 0)[None], f"{name}: void")


def test_the_real_pictures_agree_with_their_instance_pngs(real_data: Path) -> None:
    """A class is what its instances show (255). Where one stands before another of its class, up to 196 pixels are
    marked as covered (128) in all of them, though the class is there."""
    survey, scenes = read(real_data / "ade20k")
    shown = {int(entry.origin): entry.name for entry in survey.categories}
    for name, scene in scenes.items():
        stem = real_data / "ade20k" / STREET / name
        found: dict[str, list[np.ndarray]] = {}
        for entry in json.loads(Path(f"{stem}.json").read_bytes())["annotation"]["object"]:
            if entry["parts"]["part_level"] == 0:
                found.setdefault(shown[entry["name_ndx"]], []).append(
                    worlds.pixels(stem.parent / entry["instance_mask"])
                )
        assert set(scene.segments) == set(found)
        for word, instances in found.items():
            (counts,) = scene.segments[word]
            assert counts is not None
            mask = worlds.decoded(counts, *instances[0].shape)
            visible, covered = np.max(instances, axis=0) == 255, np.max(instances, axis=0) > 0
            assert not (visible & ~mask).any(), f"{name}: {word}"
            assert not (mask & ~covered).any(), f"{name}: {word}"
            assert (mask & ~visible).sum() <= 196, f"{name}: {word}"


def test_a_part_that_is_an_object_elsewhere_is_present(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path)
    _, scenes = read(tmp_path, void_limit=0.5)
    scene = scenes["ADE_train_00000001"]
    assert scene.present == {"window", "ashcan"}  # a part of the building; an object that the building hides
    assert scene.presence("tree") == "absent"
    assert scene.presence("window") == "present"
    _, scenes = read(tmp_path)
    assert scenes["ADE_train_00000001"].presence("tree") == "unknown"  # it may be where nothing is labelled
    _, scenes = read(tmp_path, parts=True, void_limit=1.0)
    assert scenes["ADE_train_00000001"].presence("tree") == "unknown"  # with parts nothing is known absent


def test_a_class_without_a_name_is_a_bad_record(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path, images=2)
    path = Path(f"{street(tmp_path)}_seg.png")
    pixels = worlds.pixels(path)
    pixels[:3, :3] = (50, 7, 200)
    Image.fromarray(pixels).save(path)
    with pytest.raises(BadRecord, match=r"00000001_seg.png: classes that .* does not name; got \[1287\]"):
        read(tmp_path)


def test_a_class_that_the_json_has_as_a_part_only_is_void_in_the_object_png(tmp_path: Path) -> None:
    world = worlds.ade20k(tmp_path, images=2)
    path = Path(f"{street(tmp_path)}_seg.png")
    pixels = worlds.pixels(path)
    pixels[:3, :3, :2] = (774 // 256 * 10, 774 % 256)  # "door" is nowhere an object, so it is no category
    Image.fromarray(pixels).save(path)
    void = world.void["ADE_train_00000001"].copy()
    assert not void[0, :3, :3].any()
    void[0, :3, :3] = True
    _, scenes = read(tmp_path)
    worlds.assert_track(scenes["ADE_train_00000001"].void, void, "void")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path, images=1)
    path = Path(f"{street(tmp_path)}_seg.png")
    pixels = worlds.pixels(path)
    Image.fromarray(pixels[:, :-1]).save(path)
    _, scenes = read(tmp_path)
    void = (pixels[..., :2] == 0).all(-1)
    void[:, -1] = True
    worlds.assert_track(scenes["ADE_train_00000001"].void, void[None], "void")
    Image.fromarray(pixels[:, :-9]).save(path)
    with pytest.raises(BadRecord, match=r"_seg\.png: a mask is of another size"):
        read(tmp_path)
    Image.fromarray(pixels[..., 0]).save(path)
    with pytest.raises(BadRecord, match=r"_seg\.png: not an RGB picture"):
        read(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadRecord, match=r"_seg\.png: "):
        read(tmp_path)


def test_latin_1_names(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path)
    park = tmp_path / "ADE20K_2021_17_01/images/ADE/training/nature_landscape/park/ADE_train_00000002.json"
    assert b"caf\xe9" in park.read_bytes()
    survey, scenes = read(tmp_path)
    assert "caf\u00e9 front" in scenes["ADE_train_00000002"].segments
    park.write_bytes(park.read_bytes().decode("latin-1").encode())
    assert read(tmp_path)[0].categories == survey.categories


def test_a_json_of_one_object_and_of_none(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path, images=1)
    path, seg = Path(f"{street(tmp_path)}.json"), Path(f"{street(tmp_path)}_seg.png")
    body = json.loads(path.read_text())
    pixels = np.zeros((worlds.HEIGHT, worlds.WIDTH, 3), dtype=np.uint8)
    pixels[5:9, 5:9, :2] = (2420 // 256 * 10, 2420 % 256)
    Image.fromarray(pixels).save(seg)
    body["annotation"]["object"] = body["annotation"]["object"][0]
    path.write_text(json.dumps(body))
    survey, scenes = read(tmp_path)
    assert [entry.name for entry in survey.categories] == ["sky"]
    assert list(scenes["ADE_train_00000001"].segments) == ["sky"]
    body["annotation"]["object"] = []
    path.write_text(json.dumps(body))
    assert read_survey_only(tmp_path).categories == ()


def read_survey_only(root: Path) -> Survey:
    return Ade20k().survey(Folder.at(root))


def test_two_pictures_of_one_name_keep_apart_by_their_folders(tmp_path: Path) -> None:
    worlds.ade20k(tmp_path, images=2)
    here = street(tmp_path)
    there = tmp_path / "ADE20K_2021_17_01/images/ADE/training/urban/plaza"
    there.mkdir()
    for end in (".jpg", ".json", "_seg.png"):
        (there / f"{here.name}{end}").write_bytes(Path(f"{here}{end}").read_bytes())
    survey, _ = read(tmp_path)
    assert sorted(item.id for item in survey.items) == [
        "ADE_train_00000002",
        "urban/plaza/ADE_train_00000001",
        "urban/street/ADE_train_00000001",
    ]


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (
            ".json",
            "1 of 2 pictures have no .json file, the first .*ADE_train_00000001.jpg; see: aesampler sources ade20k",
        ),
        ("_seg.png", "1 of 2 pictures have no _seg.png file"),
    ],
)
def test_a_lost_file_is_named(tmp_path: Path, lost: str, message: str) -> None:
    worlds.ade20k(tmp_path, images=2)
    Path(f"{street(tmp_path)}{lost}").unlink()
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no folder ADE20K_2021_17_01/images/ADE/training; see: aesampler sources ade20k"
    ):
        read(tmp_path)
    base = tmp_path / "images/ADE/training"
    base.mkdir(parents=True)
    with pytest.raises(SourceError, match="no picture in GROUP/SCENE/"):
        read(tmp_path)
    with pytest.raises(SourceError, match="no annotated test pictures"):
        read(tmp_path, subset="test")
    worlds.ade20k(tmp_path / "other", images=1)
    Path(f"{street(tmp_path / 'other')}.json").write_text('{"annotation": {"imsize": [1, 2')
    with pytest.raises(SourceError, match=r"00000001\.json: not a JSON file of ADE20K"):
        read(tmp_path / "other")


def test_a_bucket_gives_the_same(s3: S3) -> None:
    bucket = s3.bucket()
    world = worlds.ade20k(s3.disk / bucket.removeprefix("s3://"), images=2)
    reader = Ade20k()
    worlds.assert_read(world, reader.survey(Folder.at(bucket)), reader, Folder.at(bucket))
