from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import worlds
import worlds_videos

from aesampler.errors import BadRecord, SourceError
from aesampler.sources.mevis import Mevis
from aesampler.storage import Folder

SIZE = (worlds.HEIGHT, worlds.WIDTH)


@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, seed: int, subset: Any) -> None:
    world = worlds_videos.mevis(tmp_path, seed=seed, subset=subset)
    reader = Mevis(subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.mevis(tmp_path)
    worlds.assert_order_free(tmp_path, Mevis(), monkeypatch)


def test_presence(tmp_path: Path) -> None:
    worlds_videos.mevis(tmp_path)
    reader, root = Mevis(), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    scene = reader.scene(root, survey.record(0), names, [3], SIZE)
    assert scene.presence("the one that leaves") == "present"
    assert "the one that leaves" not in scene.segments
    assert scene.presence("seen by nobody") == "unknown"
    assert reader.scene(root, survey.record(2), names, [0], SIZE).presence("flying away") == "absent"


def test_the_real_frames_laid_out_as_mevis(real_data: Path, tmp_path: Path) -> None:
    """Two objects are made of a real one by its upper and its lower half, and ORed again by the phrase of both."""
    (tmp_path / "train/JPEGImages").mkdir(parents=True)
    (tmp_path / "train/JPEGImages/dog").symlink_to(real_data / "DAVIS/JPEGImages/480p/dog")
    stems = [f"{time:05d}" for time in range(60)]
    masks = worlds_videos.planes(real_data / "DAVIS/Annotations/480p/dog", stems) == 255
    upper, lower = masks.copy(), masks.copy()
    upper[:, 240:], lower[:, :260] = False, False
    told = {"a dog that turns": [4, 5], "the upper half": [4]}
    expressions = {str(i): {"exp": text, "anno_id": ids} for i, (text, ids) in enumerate(told.items())}
    worlds.write_json(
        tmp_path / "train/meta_expressions.json", {"videos": {"dog": {"expressions": expressions, "frames": stems}}}
    )
    body = {
        str(number): [worlds.string_rle(mask) if mask.any() else None for mask in half]
        for number, half in ((4, upper), (5, lower))
    }
    worlds.write_json(tmp_path / "train/mask_dict.json", body)
    reader, root = Mevis(), Folder.at(tmp_path)
    survey = reader.survey(root)
    record = survey.record(0)
    assert len(record.frames) == 60
    chosen = list(range(0, 60, 7))
    scene = reader.scene(root, record, [entry.name for entry in survey.categories], chosen, (480, 854))
    worlds.assert_track(scene.segments["a dog that turns"], (upper | lower)[chosen], "both")
    worlds.assert_track(scene.segments["the upper half"], upper[chosen], "upper")


def change(path: Path, edit: Any) -> None:
    body = json.loads(path.read_text())
    edit(body)
    worlds.write_json(path, body)


def test_valid_has_no_masks(tmp_path: Path) -> None:
    worlds_videos.mevis(tmp_path)
    with pytest.raises(SourceError, match=r"a phrase is empty, or names no object; got 'a cat'; valid is published wi"):
        Mevis(subset="test").survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"no file valid_u/meta_expressions.json"):
        Mevis(subset="validation").survey(Folder.at(tmp_path))
    assert len(Mevis(subset="validation", part="./train/").survey(Folder.at(tmp_path)).items) == 3
    (tmp_path / "train/mask_dict.json").unlink()
    with pytest.raises(SourceError, match=r"no file train/mask_dict.json; valid is published without it"):
        Mevis().survey(Folder.at(tmp_path))


def test_masks_that_are_wrong(tmp_path: Path) -> None:
    worlds_videos.mevis(tmp_path)
    path = tmp_path / "train/mask_dict.json"
    reader, root = Mevis(), Folder.at(tmp_path)
    names = [entry.name for entry in reader.survey(root).categories]
    change(path, lambda body: body["0"][0].update(size=[9, 9]))
    with pytest.raises(BadRecord, match=r"run lengths are of another size than the picture"):
        reader.scene(root, reader.survey(root).record(0), names, [0], SIZE)
    change(path, lambda body: body["0"].pop())
    with pytest.raises(BadRecord, match=r"an object has not one mask, or null, a frame; got 3; allowed: 4"):
        reader.scene(root, reader.survey(root).record(0), names, [1], SIZE)
    change(path, lambda body: body.update({"0": 5}))
    with pytest.raises(SourceError, match=r"an object's masks are no list"):
        reader.survey(root).record(0)
    change(path, lambda body: body.pop("0"))
    with pytest.raises(SourceError, match=r"mask_dict.json: 1 objects of phrases have no masks; got 0, the first"):
        reader.survey(root)
    path.write_text("")
    with pytest.raises(SourceError, match=r"mask_dict.json: not the expected JSON"):
        reader.survey(root)


def test_frames_that_are_not_there(tmp_path: Path) -> None:
    world = worlds_videos.mevis(tmp_path)
    first = world.ids[0]
    (tmp_path / world.frames[first][1]).unlink()
    survey = Mevis().survey(Folder.at(tmp_path))
    assert survey.record(0).frames == world.frames[first]  # by position in the list of the file
    assert world.frames[first][1] not in survey.listing
    shutil.rmtree(tmp_path / "train/JPEGImages" / first)
    with pytest.raises(SourceError, match=rf"1 of 3 videos of train/meta_expressions.json have no frames, .* {first}"):
        Mevis().survey(Folder.at(tmp_path))
