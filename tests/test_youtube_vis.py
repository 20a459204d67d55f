from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import worlds
import worlds_videos

from aesampler.errors import BadRecord, SourceError
from aesampler.sources.ovis import Ovis
from aesampler.sources.youtube_vis import YouTubeVis
from aesampler.storage import Folder

SIZE = (worlds.HEIGHT, worlds.WIDTH)


@pytest.mark.parametrize("year", [2019, 2021])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, year: int, seed: int) -> None:
    world = worlds_videos.youtube_vis(tmp_path, seed=seed, year=year)
    reader = YouTubeVis()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


@pytest.mark.parametrize("seed", range(3))
def test_a_world_of_ovis_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds_videos.ovis(tmp_path, seed=seed)
    reader = Ovis()
    survey = reader.survey(Folder.at(tmp_path))
    worlds.assert_read(world, survey, reader)
    told = {entry.name: entry for entry in survey.categories}
    assert told["vehicle"].aliases == ("Vehical",)
    assert told["giant panda"].aliases == ()


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.youtube_vis(tmp_path)
    worlds.assert_order_free(tmp_path, YouTubeVis(), monkeypatch)


def test_names_are_those_of_the_file(tmp_path: Path) -> None:
    for year, has, lacks in ((2019, "sedan", "car"), (2021, "car", "sedan")):
        worlds_videos.youtube_vis(tmp_path / str(year), year=year)
        survey = YouTubeVis().survey(Folder.at(tmp_path / str(year)))
        names = {entry.name for entry in survey.categories}
        assert has in names
        assert lacks not in names
        assert "giant panda" in names


def test_absent_is_what_has_no_track_in_the_video(tmp_path: Path) -> None:
    worlds_videos.youtube_vis(tmp_path, frames=4)
    reader, root = YouTubeVis(), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    scene = reader.scene(root, survey.record(3), names, [2, 3], SIZE)
    assert scene.presence("hand") == "absent"
    empty = reader.scene(root, survey.record(2), names, [0], SIZE)
    assert empty.seen == frozenset()
    assert empty.presence("person") == "absent"
    bare = reader.scene(root, survey.record(1), names, [0], SIZE)
    assert bare.presence("person") == "present"  # its track is null throughout
    assert "person" not in bare.segments


def test_the_file_is_found_by_what_it_holds(tmp_path: Path) -> None:
    worlds_videos.youtube_vis(tmp_path)
    before = YouTubeVis().survey(Folder.at(tmp_path)).record(0)
    (tmp_path / "annotations").mkdir()
    shutil.move(tmp_path / "train.json", tmp_path / "annotations/instances_train_sub.json")
    survey = YouTubeVis().survey(Folder.at(tmp_path))
    assert survey.files == ("annotations/instances_train_sub.json",)
    assert survey.record(0) == before
    shutil.move(tmp_path / "annotations/instances_train_sub.json", tmp_path / "my.json")
    assert YouTubeVis().survey(Folder.at(tmp_path)).files == ("my.json",)
    named = YouTubeVis(annotations="my.json", images="train/JPEGImages/").survey(Folder.at(tmp_path))
    assert named.record(0) == before


def test_the_other_parts_have_no_tracks(tmp_path: Path) -> None:
    worlds_videos.youtube_vis(tmp_path)
    body = json.loads((tmp_path / "valid.json").read_text())
    for video in body["videos"]:
        video["file_names"] = ["v" + name for name in video["file_names"]]
        for name in video["file_names"]:
            worlds.jpeg(tmp_path / "valid/JPEGImages" / name, [], 0)
    worlds.write_json(tmp_path / "valid.json", body)
    with pytest.raises(SourceError, match=r"valid.json: no track of these videos: the owners publish those of the tra"):
        YouTubeVis(subset="validation").survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"no file that describes videos of test/JPEGImages or JPEGImages; got other"):
        YouTubeVis(subset="test").survey(Folder.at(tmp_path))


def test_the_real_frames_laid_out_as_youtube_vis(real_data: Path, tmp_path: Path) -> None:
    """Of a marked video every 5th frame is kept; its masks are written as run lengths by columns, as a list."""
    (tmp_path / "train/JPEGImages").mkdir(parents=True)
    (tmp_path / "train/JPEGImages/dog").symlink_to(real_data / "DAVIS/JPEGImages/480p/dog")
    stems = [f"{time:05d}" for time in range(0, 60, 5)]
    masks = worlds_videos.planes(real_data / "DAVIS/Annotations/480p/dog", stems) == 255
    body = {
        "videos": [
            {"id": 1, "width": 854, "height": 480, "length": 12, "file_names": [f"dog/{stem}.jpg" for stem in stems]}
        ],
        "categories": [{"id": 3, "name": "dog"}, {"id": 8, "name": "giant_panda"}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 3, "iscrowd": 0, "segmentations": list(map(worlds.list_rle, masks))}
        ],
    }
    worlds.write_json(tmp_path / "train.json", body)
    reader, root = YouTubeVis(), Folder.at(tmp_path)
    record = reader.survey(root).record(0)
    assert record.group == "youtube-vos:dog"
    scene = reader.scene(root, record, ["dog", "giant panda"], range(12), (480, 854))
    worlds.assert_track(scene.segments["dog"], masks, "dog")
    assert scene.presence("giant panda") == "absent"


def change(root: Path, edit: Any) -> None:
    """The train.json of a world, changed in place by `edit`."""
    body = json.loads((root / "train.json").read_text())
    edit(body)
    worlds.write_json(root / "train.json", body)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b["annotations"][0].update(video_id=99), "a track of an unknown video or category; got video 99"),
        (lambda b: b["annotations"][0].update(category_id=99), "a track of an unknown video or category"),
        (lambda b: b["videos"][1].update(id=b["videos"][0]["id"]), "two videos have one id"),
        (lambda b: b["videos"][0]["file_names"].append("../../x.jpg"), "a path leaves its folder"),
        (lambda b: b["videos"][0]["file_names"].append("x/0.jpg"), "do not lie in one folder"),
        (lambda b: b["categories"].append({"id": 77, "name": "Sedan"}), "no category, or two of one name or id"),
    ],
)
def test_a_file_that_contradicts_itself(tmp_path: Path, edit: Any, message: str) -> None:
    worlds_videos.youtube_vis(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(SourceError, match=message):
        YouTubeVis().survey(Folder.at(tmp_path))


def test_a_track_of_another_length(tmp_path: Path) -> None:
    worlds_videos.youtube_vis(tmp_path)
    change(tmp_path, lambda b: b["annotations"][0]["segmentations"].pop())
    survey = YouTubeVis().survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"a track has not one segmentation a frame; got 3; allowed: 4"):
        [survey.record(place) for place in range(4)]


def test_an_impossible_mask_is_a_bad_record(tmp_path: Path) -> None:
    worlds_videos.youtube_vis(tmp_path)

    def cut(body: Any) -> None:
        for entry in body["annotations"]:
            for told in entry["segmentations"]:
                if told:
                    told["counts"] = told["counts"][:-1]

    change(tmp_path, cut)
    reader, root = YouTubeVis(), Folder.at(tmp_path)
    survey = reader.survey(root)
    record = survey.record(0)
    with pytest.raises(BadRecord, match=rf"{record.id}: (sedan|person): run lengths do not fill the picture"):
        reader.scene(root, record, [entry.name for entry in survey.categories], [0], SIZE)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no JSON file; see: aesampler sources youtube-vis"):
        YouTubeVis().survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"my.json: not a file of videos.*no such file"):
        YouTubeVis(annotations="my.json").survey(Folder.at(tmp_path))
    (tmp_path / "my.json").write_text("")
    with pytest.raises(SourceError, match=r"my.json: not a file of videos.*Input data was truncated"):
        YouTubeVis(annotations="my.json").survey(Folder.at(tmp_path))
    (tmp_path / "my.json").write_text("[]")
    with pytest.raises(SourceError, match=r"my.json: not a file of videos, categories and annotations"):
        YouTubeVis(annotations="my.json").survey(Folder.at(tmp_path))
