from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import worlds
import worlds_videos

from aesampler.errors import BadRecord, SourceError
from aesampler.sources.mose import Mose
from aesampler.storage import Folder

SIZE = (worlds.HEIGHT, worlds.WIDTH)


@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds_videos.mose(tmp_path, seed=seed)
    reader = Mose(names="names.json")
    survey = reader.survey(Folder.at(tmp_path))
    worlds.assert_read(world, survey, reader)
    assert survey.skipped == {"videos without names": 1}


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.mose(tmp_path)
    worlds.assert_order_free(tmp_path, Mose(names="names.json"), monkeypatch)


def test_without_names_it_is_refused(tmp_path: Path) -> None:
    worlds_videos.mose(tmp_path)
    message = r'MOSE says where objects are, not what they are; write {"VIDEO": {"1": "dog", .* and set names: FILE'
    with pytest.raises(SourceError, match=message):
        Mose().survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r'no file mine.json; write {"VIDEO"'):
        Mose(names="mine.json").survey(Folder.at(tmp_path))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"a": {"one": "dog"}}, r"objects of video a with an id that is no number, or an empty name; got \['one'\]"),
        ({"a": {"1": " "}}, r"with an id that is no number, or an empty name"),
        ({"a": {"1": None}}, r"the file names no object"),
        ({"a": {"1": "dog"}}, r"none of the videos of names.json has a mask; got 3 videos, the first 00beef00"),
        (["a"], r"names.json: not the expected JSON"),
    ],
)
def test_names_that_say_too_little(tmp_path: Path, body: object, message: str) -> None:
    worlds_videos.mose(tmp_path)
    worlds.write_json(tmp_path / "names.json", body)
    with pytest.raises(SourceError, match=message):
        Mose(names="names.json").survey(Folder.at(tmp_path))


def test_an_object_that_the_file_does_not_have(tmp_path: Path) -> None:
    worlds_videos.mose(tmp_path)
    body = json.loads((tmp_path / "names.json").read_text())
    del body["00beef01"]["1"]
    worlds.write_json(tmp_path / "names.json", body)
    reader, root = Mose(names="names.json"), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    with pytest.raises(BadRecord, match=r"00000.png: objects that names.json does not name; got \[1\]"):
        reader.scene(root, survey.record(1), names, [0], SIZE)


def test_valid_is_marked_in_its_first_frame(tmp_path: Path) -> None:
    worlds_videos.mose(tmp_path)
    shutil.move(tmp_path / "train", tmp_path / "valid")
    for path in (tmp_path / "valid/Annotations").rglob("0000[1-9].png"):
        path.unlink()
    reader = Mose(names="names.json", subset="validation")
    assert len(reader.survey(Folder.at(tmp_path)).record(0).frames) == 1
    every = Mose(names="names.json", subset="validation", frames="all").survey(Folder.at(tmp_path)).record(0)
    assert every.annotated == (True, False, False, False)
    with pytest.raises(SourceError, match=r"train/Annotations: no video has a mask"):
        Mose(names="names.json").survey(Folder.at(tmp_path))


def test_the_real_judo_clip(real_data: Path, tmp_path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        shutil.copytree(real_data / "judo" / kind, tmp_path / "train" / kind / "judo")
    worlds.write_json(tmp_path / "names.json", {"judo": {"1": "fighter", "2": "fighter", "3": "judge", "4": None}})
    reader, root = Mose(names="names.json"), Folder.at(tmp_path)
    record = reader.survey(root).record(0)
    scene = reader.scene(root, record, ["fighter", "judge"], [0, 2], (480, 854))
    planes = worlds_videos.planes(tmp_path / "train/Annotations/judo", ["00000", "00008"])
    worlds.assert_track(scene.segments["fighter"], (planes == 1) | (planes == 2), "fighter")
    worlds.assert_track(scene.void, (planes == 4) | (planes == 255), "void")
