from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
import worlds_videos

from aesampler.errors import BadRecord, SourceError
from aesampler.sources.ref_davis import RefDavis
from aesampler.sources.ref_youtube_vos import RefYouTubeVos
from aesampler.storage import Folder

SIZE = (worlds.HEIGHT, worlds.WIDTH)
TRAIN = "meta_expressions/train/meta_expressions.json"


@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds_videos.ref_youtube_vos(tmp_path, seed=seed)
    reader = RefYouTubeVos()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_of_davis_is_read_to_the_pixel(tmp_path: Path, seed: int, texts: bool) -> None:
    world = worlds_videos.ref_davis(tmp_path, seed=seed, texts=texts)
    reader = RefDavis()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.ref_youtube_vos(tmp_path)
    worlds.assert_order_free(tmp_path, RefYouTubeVos(), monkeypatch)


def test_phrases_of_the_video_are_present_and_others_unknown(tmp_path: Path) -> None:
    worlds_videos.ref_youtube_vos(tmp_path)
    reader, root = RefYouTubeVos(), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    scene = reader.scene(root, survey.record(1), names, [2, 3], SIZE)
    assert scene.presence("a dog that leaves") == "present"
    assert "a dog that leaves" not in scene.segments
    assert scene.presence("the dog") == "unknown"
    assert scene.absent == frozenset()
    assert {entry.count("  ") for entry in names} == {0}


def change(root: Path, edit: Any, path: str = TRAIN) -> None:
    body = json.loads((root / path).read_text())
    edit(body["videos"])
    worlds.write_json(root / path, body)


def test_an_object_in_no_mask_is_a_bad_record(tmp_path: Path) -> None:
    worlds_videos.ref_youtube_vos(tmp_path)
    change(tmp_path, lambda videos: next(iter(videos.values()))["expressions"]["0"].update(obj_id="9"))
    reader, root = RefYouTubeVos(), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    with pytest.raises(BadRecord, match=r"a phrase is said of an object that is in no mask of the video; got \[9\]"):
        reader.scene(root, survey.record(0), names, [0, 1], SIZE)
    assert reader.scene(root, survey.record(1), names, [3], SIZE).segments  # object 3 is seen in frame 0 alone


def test_valid_names_no_object_and_leaves_out_test(tmp_path: Path) -> None:
    worlds_videos.ref_youtube_vos(tmp_path)
    with pytest.raises(SourceError, match=r"1 of 1 phrases of 1 videos name no object; only the training part names"):
        RefYouTubeVos(subset="validation").survey(Folder.at(tmp_path))
    shutil.rmtree(tmp_path / "meta_expressions")
    world = worlds_videos.ref_youtube_vos(tmp_path, subset="validation")
    path = "meta_expressions/valid/meta_expressions.json"
    change(tmp_path, lambda videos: videos.update(aa00={"expressions": {"0": {"exp": "a cat"}}}), path)
    reader = RefYouTubeVos(subset="validation")
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)
    shutil.move(tmp_path / "meta_expressions/valid", tmp_path / "meta_expressions/val")  # ReferFormer's spelling
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_real_judo_clip_with_phrases(real_data: Path, tmp_path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "train" / kind).mkdir(parents=True)
        shutil.copytree(real_data / "judo" / kind, tmp_path / "train" / kind / "judo")
    said = [("two men fighting", "1"), ("two men fighting", "2"), ("the judge", "3")]
    expressions = {str(i): {"exp": text, "obj_id": number} for i, (text, number) in enumerate(said)}
    worlds.write_json(tmp_path / TRAIN, {"videos": {"judo": {"expressions": expressions}}})
    reader, root = RefDavis(), Folder.at(tmp_path)
    survey = reader.survey(root)
    record = survey.record(0)
    assert (record.group, len(record.frames)) == ("davis:judo", 4)
    scene = reader.scene(root, record, ["the judge", "two men fighting"], range(4), (480, 854))
    stems = ["00000", "00005", "00008", "00013"]
    planes = [worlds.pixels(tmp_path / f"train/Annotations/judo/{stem}.png") for stem in stems]
    video = np.stack([np.pad(p, ((0, 0), (0, 854 - p.shape[1])), constant_values=255) for p in planes])
    worlds.assert_track(scene.segments["two men fighting"], (video == 1) | (video == 2), "fighters")
    worlds.assert_track(scene.segments["the judge"], video == 3, "judge")
    worlds.assert_track(scene.void, video == 255, "void")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda v: next(iter(v.values()))["expressions"]["0"].update(exp=" "), "is empty, or its object is no number"),
        (lambda v: next(iter(v.values()))["expressions"]["0"].update(obj_id="x"), "or its object is no number; got"),
        (lambda v: v.update(lost=next(iter(v.values()))), "1 of 4 videos of .* have no frames, the first lost"),
        (lambda v: v.clear(), "0 of 0 phrases of 0 videos name no object"),
    ],
)
def test_a_file_that_says_too_little(tmp_path: Path, edit: Any, message: str) -> None:
    worlds_videos.ref_youtube_vos(tmp_path)
    change(tmp_path, edit)
    with pytest.raises(SourceError, match=message):
        RefYouTubeVos().survey(Folder.at(tmp_path))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"no file {TRAIN}; see: aesampler sources ref-youtube-vos"):
        RefYouTubeVos().survey(Folder.at(tmp_path))
    world = worlds_videos.ref_youtube_vos(tmp_path)
    shutil.rmtree(tmp_path / "train/Annotations" / world.ids[0])
    assert RefYouTubeVos().survey(Folder.at(tmp_path)).skipped == {"videos without a mask": 1}
    shutil.rmtree(tmp_path / "train/Annotations")
    with pytest.raises(SourceError, match="no video has a mask"):
        RefYouTubeVos().survey(Folder.at(tmp_path))


def test_what_was_converted_is_read_before_the_text_files(tmp_path: Path) -> None:
    """The usual script leaves them where they are, and moves the frames away."""
    worlds_videos.ref_davis(tmp_path / "published", texts=True)
    world = worlds_videos.ref_davis(tmp_path / "converted")
    shutil.copytree(tmp_path / "published/davis_text_annotations", tmp_path / "converted/davis_text_annotations")
    survey = RefDavis().survey(Folder.at(tmp_path / "converted"))
    assert tuple(item.id for item in survey.items) == world.ids


def test_the_text_files_of_davis(tmp_path: Path) -> None:
    worlds_videos.ref_davis(tmp_path, texts=True)
    path = tmp_path / "davis_text_annotations/Davis17_annot1.txt"
    path.write_text(path.read_text() + "\nclassic-car\n")
    with pytest.raises(SourceError, match=r"Davis17_annot1.txt: not a line SEQ OBJ"):
        RefDavis().survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"no file DAVIS/ImageSets/2017/val.txt"):
        RefDavis(subset="validation").survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"no phrases of the test part"):
        RefDavis(subset="test").survey(Folder.at(tmp_path))
