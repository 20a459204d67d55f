from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import worlds
import worlds_images

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.coco_panoptic import CocoPanoptic
from aesampler.sources.source import Survey
from aesampler.storage import Folder

JSON = "annotations/panoptic_train2017.json"


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and the scene of every record whose picture is there."""
    reader, folder = CocoPanoptic(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        if record.frames[0] in survey.listing:
            scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize(("subset", "inside"), [("train", True), ("validation", False)])
@pytest.mark.parametrize("seed", range(2))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, subset: str, inside: bool, seed: int) -> None:
    world = worlds_images.coco_panoptic(tmp_path, seed=seed, subset=subset, inside=inside)
    reader = CocoPanoptic(subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.coco_panoptic(tmp_path)
    worlds.assert_order_free(tmp_path, CocoPanoptic(), monkeypatch)


def test_void_takes_absence_away(tmp_path: Path) -> None:
    world = worlds_images.coco_panoptic(tmp_path)
    for limit in (0.0, 0.9):
        scenes = read(tmp_path, void_limit=limit)[1]
        assert {key: scene.exhaustive for key, scene in scenes.items()} == {
            key: float(void.mean()) <= limit for key, void in world.void.items()
        }
    scenes = read(tmp_path)[1]
    hidden = next(scene for scene in scenes.values() if not scene.exhaustive)
    assert {hidden.presence(name) for name in world.names} == {"present", "unknown"}
    dense = next(scene for scene in scenes.values() if scene.exhaustive)
    assert {dense.presence(name) for name in world.names} == {"present", "absent"}


def test_real_panoptic_pictures_equal_an_independent_reading(real_data: Path) -> None:
    root = real_data / "coco"
    survey, scenes = read(root)
    body = json.loads((root / JSON).read_text())
    assert len(scenes) == len(survey.items) == 100
    names = {entry["id"]: shown.name for entry, shown in zip(body["categories"], survey.categories, strict=True)}
    raw = {entry["id"]: entry["name"] for entry in body["categories"]}
    assert len(set(names.values())) == 133
    assert not [name for name in names.values() if "merged" in name or "other" in name]
    sized = {picture["id"]: picture for picture in body["images"]}
    shares, crowds, areas = [], 0, 0
    for told in body["annotations"]:
        scene = scenes[told["file_name"][:-4]]
        assert (scene.height, scene.width) == (sized[told["image_id"]]["height"], sized[told["image_id"]]["width"])
        pixels = worlds.pixels(root / "annotations/panoptic_train2017" / told["file_name"]).astype(int)
        plane = pixels[..., 0] + 256 * pixels[..., 1] + 256**2 * pixels[..., 2]
        assert {int(v) for v in np.unique(plane)} - {0} == {segment["id"] for segment in told["segments_info"]}
        truth: dict[str, np.ndarray] = {}
        mobs: dict[str, np.ndarray] = {}
        for segment in told["segments_info"]:
            name, mask = names[segment["category_id"]], plane == segment["id"]
            assert int(mask.sum()) == segment["area"]
            areas += 1
            crowds += segment["iscrowd"]
            kept = mobs if segment["iscrowd"] else truth
            kept[name] = kept.get(name, np.zeros_like(mask)) | mask
        assert set(scene.segments) == set(truth)
        for name, mask in truth.items():
            worlds.assert_track(scene.segments[name], mask[None], f"{told['file_name']}: {name}")
        for name, mask in mobs.items():
            worlds.assert_track(scene.ignored[name], mask[None], f"{told['file_name']}: crowd of {name}")
        # Whatever else is ignored is the wider name of something that is there: "wall" of a wall of brick.
        rests = {names[number] for number, name in raw.items() if "-other" in name}
        assert set(scene.ignored) - set(mobs) <= rests
        worlds.assert_track(scene.void, (plane == 0)[None], told["file_name"])
        shares.append(float((plane == 0).mean()))
        assert scene.exhaustive == (shares[-1] == 0)
    assert (areas, crowds) == (1111, 6)
    assert round(float(np.mean(shares)), 3) == 0.098
    assert round(max(shares), 2) == 0.97
    assert [sum(share <= limit for share in shares) for limit in (0, 0.01, 0.05)] == [3, 35, 62]


def test_the_instances_of_the_same_pictures_contradict_nothing(real_data: Path) -> None:
    """Names that COCO's instances have and panoptic calls absent: none, at any limit of void."""
    root = real_data / "coco"
    body = json.loads((root / "annotations/instances_train2017.json").read_text())
    names = {entry["id"]: entry["name"] for entry in body["categories"]}
    truth: dict[int, set[str]] = {}
    for told in body["annotations"]:
        truth.setdefault(told["image_id"], set()).add(names[told["category_id"]])
    pairs = 0
    for key, scene in read(root, void_limit=1.0)[1].items():
        for name in truth.get(int(key), ()):
            assert scene.presence(name) == "present", (key, name)
            pairs += 1
    assert pairs > 200


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"no file {JSON}; see: aesampler sources coco-panoptic"):
        read(tmp_path)
    with pytest.raises(SourceError, match="no masks of its test pictures"):
        read(tmp_path, subset="test")
    worlds_images.coco_panoptic(tmp_path)
    (tmp_path / "annotations/panoptic_train2017/000000000139.png").unlink()
    with pytest.raises(
        SourceError,
        match=r"1 of 6 pictures have no PNG in annotations/panoptic_train2017/, the first 000000000139; got no file",
    ):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("annotations", 0, "image_id", 5), "an annotation names an unknown picture; got 5"),
        (("annotations", 0, "file_name", "../../x.png"), "a path leaves its folder, or is none; got '../../x.png'"),
        (("images", 0, "file_name", "/etc/x.jpg"), "a path leaves its folder"),
        (("images", 0, "id", 139), "have one id"),
        (("categories", 0, "id", 3), "have one id"),
        (("categories", 0, "id", 2), "names an unknown category; got 1"),
        (("categories", 0, "name", None), "not the expected JSON"),
    ],
)
def test_wrong_files(tmp_path: Path, change: tuple[str, int, str, object], message: str) -> None:
    worlds_images.coco_panoptic(tmp_path)
    body = json.loads((tmp_path / JSON).read_text())
    table, place, key, value = change
    body[table][place][key] = value
    worlds.write_json(tmp_path / JSON, body)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_bad_maps_are_named(tmp_path: Path) -> None:
    worlds_images.coco_panoptic(tmp_path, images=1)
    path = tmp_path / "annotations/panoptic_train2017/000000000139.png"
    pixels = worlds.pixels(path)
    stranger = pixels.copy()
    stranger[0, 0] = (9, 9, 9)
    path.write_bytes(worlds.png_bytes(stranger))
    with pytest.raises(
        BadRecord,
        match=rf"000000000139.png: values that segments_info does not name; got \[{9 + 9 * 256 + 9 * 65536}\]",
    ):
        read(tmp_path)
    path.write_bytes(worlds.png_bytes(pixels[..., 0].copy()))
    with pytest.raises(BadRecord, match=r"000000000139.png: not an RGB picture"):
        read(tmp_path)


def test_pictures_without_an_annotation_are_counted(tmp_path: Path) -> None:
    worlds_images.coco_panoptic(tmp_path)
    body = json.loads((tmp_path / JSON).read_text())
    body["annotations"] = body["annotations"][1:]
    worlds.write_json(tmp_path / JSON, body)
    survey, scenes = read(tmp_path)
    assert (len(scenes), survey.skipped) == (5, {"pictures without an annotation": 1})
