from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import worlds

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.source import Survey
from aesampler.sources.youtube_vos import YouTubeVos
from aesampler.storage import Folder

FIRST, SECOND = "0f1e2d3c4b", "0f1f3e4d5c"


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and the scene of all frames of each record."""
    reader, folder = YouTubeVos(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        size = worlds.size_of(root / record.frames[0])
        scenes[record.id] = reader.scene(folder, record, names, range(len(record.frames)), size)
    return survey, scenes


def meta(root: Path) -> dict[str, dict[str, dict[str, dict[str, dict[str, object]]]]]:
    """The meta.json of a world's training part."""
    body: dict[str, dict[str, dict[str, dict[str, dict[str, object]]]]] = json.loads(
        (root / "train/meta.json").read_text()
    )
    return body


@pytest.mark.parametrize("seed", range(4))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds.youtube_vos(tmp_path, videos=5, seed=seed)
    reader = YouTubeVos()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.youtube_vos(tmp_path)
    worlds.assert_order_free(tmp_path, YouTubeVos(), monkeypatch)


def test_the_root_may_be_the_part_itself(tmp_path: Path) -> None:
    worlds.youtube_vos(tmp_path)
    one, two = read(tmp_path), read(tmp_path / "train")
    assert one[1] == two[1]
    assert two[0].record(0).frames[0] == f"JPEGImages/{FIRST}/00000.jpg"


def test_the_real_clips_laid_out_as_youtube_vos(real_data: Path, tmp_path: Path) -> None:
    train = tmp_path / "train"
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(real_data / "judo" / kind, train / kind / "0123456789")
    objects = {str(number): {"category": "person", "frames": ["00000", "00005"]} for number in (1, 2, 3, 4)}
    objects["5"] = {"category": "giant_panda", "frames": ["00000"]}
    worlds.write_json(train / "meta.json", {"videos": {"0123456789": {"objects": objects}}})
    survey, scenes = read(tmp_path)
    scene = scenes["0123456789"]
    planes = [worlds.pixels(train / f"Annotations/0123456789/{time:05d}.png") for time in (0, 5, 8, 13)]
    video = np.stack([np.pad(plane, ((0, 0), (0, 854 - plane.shape[1])), constant_values=255) for plane in planes])
    worlds.assert_track(scene.segments["person"], np.isin(video, (1, 2, 3, 4)), "person")
    worlds.assert_track(scene.void, video == 255, "void")
    assert [entry.name for entry in survey.categories] == ["giant panda", "person"]
    assert scene.present == {"giant panda"}  # meta.json claims it, no mask shows it
    assert scene.presence("dog") == "unknown"


def test_others_is_no_name(tmp_path: Path) -> None:
    world = worlds.youtube_vos(tmp_path)
    survey, scenes = read(tmp_path)
    assert "others" not in {entry.name for entry in survey.categories}
    worlds.assert_track(scenes[SECOND].void, world.void[SECOND], "void")
    assert any(scenes[SECOND].void)
    body = meta(tmp_path)
    for told in body["videos"][SECOND]["objects"].values():
        told["category"] = "others"
    worlds.write_json(tmp_path / "train/meta.json", body)
    survey, scenes = read(tmp_path)
    assert (dict(scenes[SECOND].segments), scenes[SECOND].seen) == ({}, frozenset())
    assert survey.record([item.id for item in survey.items].index(SECOND)).masked == ()


def test_the_frames_of_meta_are_a_claim(tmp_path: Path) -> None:
    worlds.youtube_vos(tmp_path)
    _, before = read(tmp_path)
    body = meta(tmp_path)
    for video in body["videos"].values():
        for told in video["objects"].values():
            told["frames"] = []
    worlds.write_json(tmp_path / "train/meta.json", body)
    assert read(tmp_path)[1] == before


def test_frames_between_the_marked_ones(tmp_path: Path) -> None:
    worlds.youtube_vos(tmp_path)
    every = tmp_path / "train_all_frames/JPEGImages"
    shutil.copytree(tmp_path / "train/JPEGImages", every)
    for time in range(1, 5):
        shutil.copy(every / FIRST / "00000.jpg", every / FIRST / f"{time:05d}.jpg")
    options = {"images": "train_all_frames/JPEGImages", "frames": "all"}
    survey, scenes = read(tmp_path, **options)
    record = survey.record([item.id for item in survey.items].index(FIRST))
    assert [Path(frame).stem for frame in record.frames[:6]] == [f"{time:05d}" for time in range(6)]
    assert record.annotated == (True, False, False, False, False, True, True, True, True)
    assert scenes[FIRST].annotated == record.annotated
    plain, marked = read(tmp_path), read(tmp_path, images="train_all_frames/JPEGImages")
    assert plain[1] == marked[1]


def test_the_other_parts_name_no_category(tmp_path: Path) -> None:
    worlds.youtube_vos(tmp_path, subset="validation")
    path = tmp_path / "valid/meta.json"
    body = json.loads(path.read_text())
    del body["videos"][FIRST]["objects"]["1"]["category"]
    worlds.write_json(path, body)
    message = (
        rf"valid/meta.json: 1 of 8 objects have no category, the first object 1 of video {FIRST}; only the training"
    )
    with pytest.raises(SourceError, match=message):
        read(tmp_path, subset="validation")


def test_what_is_not_in_meta(tmp_path: Path) -> None:
    worlds.youtube_vos(tmp_path)
    body = meta(tmp_path)
    del body["videos"][SECOND]
    worlds.write_json(tmp_path / "train/meta.json", body)
    survey, _ = read(tmp_path)
    assert survey.skipped == {"videos that meta.json does not have": 1}
    del body["videos"][FIRST]["objects"]["2"]
    worlds.write_json(tmp_path / "train/meta.json", body)
    with pytest.raises(
        BadRecord, match=rf"{FIRST}/00000.png: objects that meta.json does not name; got \[2\]; allowed: \[1\]"
    ):
        read(tmp_path)


def test_what_is_not_on_disk(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file train/meta.json; see: aesampler sources youtube-vos"):
        read(tmp_path)
    worlds.youtube_vos(tmp_path)
    shutil.rmtree(tmp_path / "train/Annotations" / SECOND)
    survey, scenes = read(tmp_path)
    assert survey.skipped == {"videos without a mask": 1}
    assert SECOND not in scenes
    shutil.rmtree(tmp_path / "train/JPEGImages" / SECOND)
    with pytest.raises(SourceError, match=rf"1 of 3 videos of train/meta.json have no frames, the first {SECOND}"):
        read(tmp_path)
    (tmp_path / "train/meta.json").unlink()
    with pytest.raises(SourceError, match=r"no file train/meta.json"):
        read(tmp_path)
    (tmp_path / "train/meta.json").write_text('{"videos": []}')
    with pytest.raises(SourceError, match=r"train/meta.json: not the expected JSON"):
        read(tmp_path)
    body = {"videos": {FIRST: {"objects": {"one": {"category": "dog"}}}}}
    worlds.write_json(tmp_path / "train/meta.json", body)
    with pytest.raises(SourceError, match=f"object ids of video {FIRST} are not numbers"):
        read(tmp_path)
    shutil.rmtree(tmp_path / "train/Annotations")
    body["videos"][FIRST]["objects"] = {"1": {"category": "dog"}}
    worlds.write_json(tmp_path / "train/meta.json", body)
    with pytest.raises(SourceError, match="no video has a mask"):
        read(tmp_path)
