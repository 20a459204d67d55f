from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
import worlds_videos
from conftest import S3

from aesampler import build_corpus, image, plan_corpus
from aesampler.catalog import Catalog
from aesampler.corpus import Corpus
from aesampler.errors import BadRecord, SourceError
from aesampler.executors.inline import Inline
from aesampler.recipe import Recipe
from aesampler.sources.sa_v import SaV
from aesampler.storage import Folder

SIZE = (worlds.HEIGHT, worlds.WIDTH)


@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds_videos.sa_v(tmp_path, seed=seed)
    reader, root = SaV(names="names.json"), Folder.at(tmp_path)
    survey = reader.survey(root)
    assert survey.skipped == {"videos without names": 1}
    names = [entry.name for entry in survey.categories]
    assert tuple(names) == world.names
    assert {item.id: item.group for item in survey.items} == dict(world.groups)
    for place, item in enumerate(survey.items):
        record = survey.record(place)
        assert record.frames == world.frames[item.id]
        assert record.annotated == (True,) * 3
        scene = reader.scene(root, record, names, range(3), SIZE)
        assert set(scene.segments) == set(world.truth[item.id])
        for name, track in scene.segments.items():
            worlds.assert_track(track, world.truth[item.id][name], name)
        worlds.assert_track(scene.void, world.void[item.id], "void")
        assert scene.seen == world.present[item.id]
        assert scene.presence("cat") == "unknown"
        found = [image.decode(data) for data in reader.pictures(root, record, [2, 0])]
        assert [worlds_videos.number(picture) for picture in found] == [8, 0]
        assert found[0].shape == (*SIZE, 3)


@pytest.mark.parametrize("seed", range(3))
def test_val_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds_videos.sa_v_val(tmp_path, seed=seed)
    reader, root = SaV(names="names.json", subset="validation"), Folder.at(tmp_path)
    survey = reader.survey(root)
    worlds.assert_read(world, survey, reader)
    assert survey.skipped == {"videos without names": 1}
    record = survey.record(0)
    assert reader.pictures(root, record, [1]) == [(tmp_path / record.frames[1]).read_bytes()]


def test_val_that_is_wrong(tmp_path: Path) -> None:
    world = worlds_videos.sa_v_val(tmp_path)
    reader, root = SaV(names="names.json", subset="validation"), Folder.at(tmp_path)
    survey = reader.survey(root)
    names, record = [entry.name for entry in survey.categories], survey.record(0)
    path = f"sav_val/Annotations_6fps/{record.id}/000/00000.png"
    (tmp_path / path).write_bytes(b"x")
    with pytest.raises(BadRecord, match=rf"{path}: an image cannot be read"):
        reader.scene(root, record, names, [0], SIZE)
    shutil.rmtree(tmp_path / f"sav_val/Annotations_6fps/{record.id}/001")
    with pytest.raises(SourceError, match=rf"{record.id}: objects are named that have no masks; got \[1\]"):
        reader.survey(root).record(0)
    (tmp_path / "sav_val/sav_val.txt").unlink()
    assert reader.survey(root).skipped == {"videos without names": 2}
    worlds.write_json(tmp_path / "names.json", {"x": {"0": "dog"}})
    with pytest.raises(SourceError, match=r"no named video has both frames and masks; got 4 such videos, names of 1"):
        reader.survey(root)
    assert world.kind == "clip"


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.sa_v(tmp_path)
    worlds.assert_order_free(tmp_path, SaV(names="names.json"), monkeypatch)


@pytest.mark.parametrize("kind", ["manual", "auto"])
def test_the_real_masklets(real_data: Path, tmp_path: Path, kind: Any) -> None:
    """Every mask of the real JSON, and the frames that it is of in a video of its size and length."""
    shutil.copy(real_data / f"sa-v/sav_000001_{kind}.json", tmp_path)
    body = json.loads((tmp_path / f"sav_000001_{kind}.json").read_text())
    height, width = int(body["video_height"]), int(body["video_width"])
    count = int(body["video_frame_count"])
    assert (count, len(body["masklet"])) == (483, 121)
    worlds_videos.write_video(
        tmp_path / "sav_000001.mp4", worlds_videos.numbered(count, (height, width)), fast=True, every=48
    )
    owners = {0: "thing", 1: "thing", 2: "part", 3: None}
    worlds.write_json(tmp_path / "mine.json", {"sav_000001": {str(number): name for number, name in owners.items()}})
    reader, root = SaV(names="mine.json", masklets=kind), Folder.at(tmp_path)
    survey = reader.survey(root)
    record = survey.record(0)
    assert (record.height, record.width, len(record.frames)) == (848, 480, 121)
    assert record.frames[24] == "sav_000001.mp4/00096.ppm"
    chosen = [0, 1, 24, 60, 113, 120]
    scene = reader.scene(root, record, ["part", "thing"], chosen, (height, width))
    planes = np.stack(
        [[worlds.decoded(entry["counts"], height, width) for entry in body["masklet"][k]] for k in chosen]
    )
    thing, part = planes[:, 0] | planes[:, 1], planes[:, 2]
    worlds.assert_track(scene.segments["thing"], thing, "thing")
    worlds.assert_track(scene.segments["part"], part, "part")
    worlds.assert_track(scene.void, planes[:, 3:].any(axis=1) & ~thing & ~part, "void")
    found = [image.decode(data) for data in reader.pictures(root, record, chosen)]
    assert [worlds_videos.number(picture) for picture in found] == [4 * k % 256 for k in chosen]
    assert {picture.shape for picture in found} == {(height, width, 3)}


def recipe(root: Path, out: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "sa-v",
            "out": str(out),
            "sources": [{"name": "sa-v", "format": "sa-v", "root": str(root), "names": "names.json"}],
            "clips": {"frames": 2, "every": 2},
            "tolerance": {"bad_records": 0.6},
        }
    )


def test_a_corpus_of_decoded_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AESAMPLER_CACHE", str(tmp_path / "cache"))
    worlds_videos.sa_v(tmp_path / "set", frames=21)
    body = json.loads((tmp_path / "set/names.json").read_text())
    body["sav_000002"] = {"0": "cat", "1": "fox"}
    worlds.write_json(tmp_path / "set/names.json", body)
    made = recipe(tmp_path / "set", tmp_path / "out")
    plan = plan_corpus(made)
    (source,) = plan.sources
    assert (source.encoding, source.transcoded, source.missing, source.records) == ("jpg", True, 0, 2)
    sizes = [path.stat().st_size for path in (tmp_path / "set").rglob("*.mp4")][:3]
    assert 0 < source.bytes <= 2 * sum(sizes)
    build_corpus(plan, Folder.at(tmp_path / "out"), Inline())
    corpus = Corpus.open(str(tmp_path / "out"))
    assert len(corpus) == 6
    seen = {}
    for place in range(len(corpus)):
        sample = corpus[place]
        assert sample.frames.shape == (2, *SIZE, 3)
        seen.setdefault(sample.key[:15], []).append([worlds_videos.number(frame) for frame in sample.frames])
    assert sorted(seen["sa-v_sav_000001"]) == [[0, 4], [8, 12], [16, 20]]


def test_the_bytes_of_a_frame_are_its_share_of_the_video(tmp_path: Path) -> None:
    worlds_videos.sa_v(tmp_path / "set")
    catalog = Catalog.of(SaV(names="names.json"), Folder.at(tmp_path / "set"), cache=Folder.at(tmp_path / "cache"))
    for entry in catalog.rows():
        size = (tmp_path / "set" / entry.record.frames[0]).parent.stat().st_size
        assert entry.frame_bytes == (size // 3,) * 3


def test_a_video_that_is_too_short_or_broken(tmp_path: Path) -> None:
    worlds_videos.sa_v(tmp_path)
    reader, root = SaV(names="names.json"), Folder.at(tmp_path)
    record = reader.survey(root).record(0)
    path = tmp_path / "sav_000/sav_000001.mp4"
    worlds_videos.write_video(path, worlds_videos.numbered(6, SIZE))
    with pytest.raises(
        BadRecord, match=r"sav_000/sav_000001.mp4: a video is shorter than its annotation; got 6 frames"
    ):
        reader.pictures(root, record, [0, 2])
    path.write_bytes(b"x" * 900)
    with pytest.raises(BadRecord, match=r"sav_000/sav_000001.mp4: a video cannot be read"):
        reader.pictures(root, record, [0])


def test_a_bucket_gives_the_same(s3: S3, tmp_path: Path) -> None:
    bucket = s3.bucket()
    worlds_videos.sa_v(s3.disk / bucket.removeprefix("s3://"))
    worlds_videos.sa_v(tmp_path)
    reader, there, here = SaV(names="names.json"), Folder.at(bucket), Folder.at(tmp_path)
    record = reader.survey(there).record(0)
    assert record == reader.survey(here).record(0)
    assert reader.pictures(there, record, [1, 2]) == reader.pictures(here, record, [1, 2])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda b: b["masklet"].pop(), r"every fourth frame; got 2 for 10 frames"),
        (lambda b: b["masklet"][0].pop(), r"do not have one mask for each object"),
        (lambda b: b.update(masklet_id=[0, 1, 2, 7, 8]), r"named that the file does not have; got \[3\]; allowed: \[0"),
        (lambda b: b.pop("masklet"), r"sav_000001_manual.json: not the expected JSON"),
    ],
)
def test_masklets_that_contradict_themselves(tmp_path: Path, edit: Any, message: str) -> None:
    worlds_videos.sa_v(tmp_path)
    path = tmp_path / "sav_000/sav_000001_manual.json"
    body = json.loads(path.read_text())
    edit(body)
    worlds.write_json(path, body)
    survey = SaV(names="names.json").survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=message):
        survey.record(0)


def test_what_is_not_there(tmp_path: Path) -> None:
    worlds_videos.sa_v(tmp_path)
    with pytest.raises(
        SourceError, match=r"SA-V says where objects are, not what they are; write .*masklet_id in ID_man"
    ):
        SaV().survey(Folder.at(tmp_path))
    with pytest.raises(
        SourceError, match=r"no named video has both ID.mp4 and ID_auto.json; got 3 videos, 0 such files"
    ):
        SaV(names="names.json", masklets="auto").survey(Folder.at(tmp_path))
    with pytest.raises(SourceError, match=r"no folder sav_val/JPEGImages_24fps; see: aesampler sources sa-v"):
        SaV(names="names.json", subset="validation").survey(Folder.at(tmp_path))
    (tmp_path / "sav_000/sav_000001_manual.json").unlink()
    survey = SaV(names="names.json").survey(Folder.at(tmp_path))
    assert survey.skipped == {"videos without names": 1, "videos without manual masklets": 1}
