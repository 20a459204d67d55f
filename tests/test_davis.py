from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import worlds
from conftest import S3
from PIL import Image

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.davis import Davis
from aesampler.sources.source import Survey
from aesampler.storage import Folder


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and the scene of all frames of each record."""
    reader, folder = Davis(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        size = worlds.size_of(root / record.frames[0])
        scenes[record.id] = reader.scene(folder, record, names, range(len(record.frames)), size)
    return survey, scenes


def judo(real_data: Path, root: Path) -> Path:
    """The real clip, laid out as DAVIS publishes its sequences. Each of its four masks shows an object of its own."""
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p").mkdir(parents=True)
        shutil.copytree(real_data / "judo" / kind, root / kind / "480p" / "judo")
    worlds.write_json(
        root / "davis_semantics.json", {"judo": {"1": "fighter", "2": "fighter", "3": "judge", "4": "judge"}}
    )
    return root


@pytest.mark.parametrize("year", [2016, 2017])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, year: int, seed: int) -> None:
    world = worlds.davis(tmp_path, sequences=5, seed=seed, year=year)
    for reader in (Davis(), Davis(year=year)):
        worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.davis(tmp_path)
    worlds.assert_order_free(tmp_path, Davis(frames="all"), monkeypatch)


def test_the_real_sequences_of_2016(real_data: Path) -> None:
    survey, scenes = read(real_data / "DAVIS")
    assert [entry.name for entry in survey.categories] == ["car", "dog", "swan"]
    assert not survey.exhaustive
    named = {"dog": ("dog", 60), "car-shadow": ("car", 40), "blackswan": ("swan", 50)}
    assert set(scenes) == set(named)
    assert {item.group for item in survey.items} == {f"davis:{name}" for name in named}
    for sequence, (name, count) in named.items():
        files = sorted((real_data / "DAVIS/Annotations/480p" / sequence).glob("*.png"))
        masks = np.stack([worlds.pixels(file) for file in files])
        assert masks.shape[0] == count
        assert set(np.unique(masks)) == {0, 255}
        worlds.assert_track(scenes[sequence].segments[name], masks == 255, sequence)
        assert set(scenes[sequence].segments) == {name}
        assert scenes[sequence].void == (None,) * count
        assert scenes[sequence].presence("bicycle") == "unknown"


def test_a_real_mask_that_is_a_column_short(real_data: Path, tmp_path: Path) -> None:
    survey, scenes = read(judo(real_data, tmp_path))
    record, scene = survey.record(0), scenes["judo"]
    assert [Path(frame).name for frame in record.frames] == ["00000.jpg", "00005.jpg", "00008.jpg", "00013.jpg"]
    assert record.annotated == (True,) * 4
    planes = [worlds.pixels(tmp_path / f"Annotations/480p/judo/{Path(frame).stem}.png") for frame in record.frames]
    assert [plane.shape for plane in planes] == [(480, 854), (480, 853), (480, 854), (480, 854)]
    short = np.pad(planes[1], ((0, 0), (0, 1)), constant_values=255)
    video = np.stack([planes[0], short, planes[2], planes[3]])
    assert set(np.unique(video)) == {0, 1, 2, 3, 4, 255}
    worlds.assert_track(scene.segments["fighter"], (video == 1) | (video == 2), "fighter")
    worlds.assert_track(scene.segments["judge"], (video == 3) | (video == 4), "judge")
    worlds.assert_track(scene.void, video == 255, "void")


def test_all_frames_of_a_clip_that_is_marked_in_some(real_data: Path, tmp_path: Path) -> None:
    survey, scenes = read(judo(real_data, tmp_path), frames="all")
    record, scene = survey.record(0), scenes["judo"]
    assert [Path(frame).name for frame in record.frames] == [f"{time:05d}.jpg" for time in range(16)]
    marked = [time for time in range(16) if record.annotated[time]]
    assert marked == [0, 5, 8, 13]
    assert scene.annotated == record.annotated
    assert all(
        scene.void[time] is None and scene.segments["judge"][time] is None for time in set(range(16)) - set(marked)
    )
    names = [entry.name for entry in survey.categories]
    between = Davis(frames="all").scene(Folder.at(tmp_path), record, names, [1, 2, 3], (480, 854))
    assert (dict(between.segments), between.annotated) == ({}, (False,) * 3)
    assert between.present == {"fighter", "judge"}  # presence is the video's


def test_frames_are_taken_as_asked_for(tmp_path: Path) -> None:
    world = worlds.davis(tmp_path)
    reader, folder = Davis(), Folder.at(tmp_path)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    record = next(r for r in map(survey.record, range(3)) if r.id == "duo")
    scene = reader.scene(folder, record, names, [3, 1], (worlds.HEIGHT, worlds.WIDTH))
    worlds.assert_track(scene.segments["person"], world.truth["duo"]["person"][[3, 1]], "person")
    worlds.assert_track(scene.void, world.void["duo"][[3, 1]], "void")
    last = reader.scene(folder, record, names, [4], (worlds.HEIGHT, worlds.WIDTH))
    assert last.present == {"cell phone"}  # it left the picture
    assert set(last.segments) == {"person"}


def test_misspelt_names_are_corrected_and_kept_as_aliases(tmp_path: Path) -> None:
    worlds.davis(tmp_path, sequences=4)
    told = {entry.origin: entry for entry in read(tmp_path)[0].categories}
    assert (told["chamaleon"].name, told["chamaleon"].aliases) == ("chameleon", ("chamaleon",))
    assert (told["cellphone"].name, told["cellphone"].aliases) == ("cell phone", ("cellphone",))
    assert (told["camel"].name, told["camel"].aliases) == ("camel", ())


def test_lists_of_sequences(tmp_path: Path) -> None:
    worlds.davis(tmp_path, sequences=4)
    sets = tmp_path / "ImageSets/2017"
    (sets / "val.txt").write_text("camel\n\n zoo \n")
    (tmp_path / "mine.txt").write_text("duo\nduo\n")
    assert set(read(tmp_path, subset="validation")[1]) == {"camel", "zoo"}
    assert set(read(tmp_path, sequences="mine.txt")[1]) == {"duo"}
    with pytest.raises(SourceError, match=r"ImageSets has no list of the test sequences.*sequences: FILE"):
        read(tmp_path, subset="test")
    with pytest.raises(SourceError, match=r"no file ImageSets/480p/train.txt"):
        read(tmp_path, year=2016)
    (tmp_path / "mine.txt").write_text("\n")
    with pytest.raises(SourceError, match=r"mine.txt: the list names no sequence"):
        read(tmp_path, sequences="mine.txt")
    shutil.rmtree(tmp_path / "ImageSets")
    assert set(read(tmp_path, subset="test")[1]) == {"bike-walk", "camel", "duo", "zoo"}
    (tmp_path / "mine.txt").write_text("duo\nlost\n")
    with pytest.raises(SourceError, match="1 of 2 sequences have no frames, the first lost"):
        read(tmp_path, sequences="mine.txt")
    shutil.rmtree(tmp_path / "Annotations/480p/duo")
    with pytest.raises(SourceError, match="1 of 4 sequences have no mask, the first duo"):
        read(tmp_path)


def test_other_folders(tmp_path: Path) -> None:
    worlds.davis(tmp_path)
    _, one = read(tmp_path)
    shutil.move(tmp_path / "JPEGImages/480p", tmp_path / "JPEGImages/Full-Resolution")
    with pytest.raises(SourceError, match="no sequence in JPEGImages/480p/; see: aesampler sources davis"):
        read(tmp_path)
    assert read(tmp_path, images="./JPEGImages/Full-Resolution/")[1] == one
    shutil.move(tmp_path / "Annotations/480p", tmp_path / "Annotations/Full-Resolution")
    assert read(tmp_path, resolution="Full-Resolution")[1] == one
    with pytest.raises(SourceError):
        read(tmp_path, semantics="../davis_semantics.json")


def test_semantics_that_say_too_little(tmp_path: Path) -> None:
    worlds.davis(tmp_path)
    path = tmp_path / "davis_semantics.json"
    body = json.loads(path.read_text())
    path.unlink()
    with pytest.raises(SourceError, match=r'no file davis_semantics.json; write {"SEQ": {"1": "name of object 1"'):
        read(tmp_path)
    worlds.write_json(path, {key: value for key, value in body.items() if key != "camel"})
    with pytest.raises(SourceError, match=r"davis_semantics.json: no objects are named for sequence camel; write"):
        read(tmp_path)
    worlds.write_json(path, {**body, "camel": {"first": "camel"}})
    with pytest.raises(SourceError, match="object ids of camel are not numbers"):
        read(tmp_path)
    worlds.write_json(path, {**body, "bike-walk": {"1": "bicycle"}})
    with pytest.raises(
        BadRecord,
        match=r"bike-walk/00000.png: objects that davis_semantics.json does not name; got \[2\]; allowed: \[1\]",
    ):
        read(tmp_path)
    path.write_text("[1]")
    with pytest.raises(SourceError, match=r"davis_semantics.json: not the expected JSON"):
        read(tmp_path)


def test_binary_masks_of_several_things(tmp_path: Path) -> None:
    worlds.davis(tmp_path, year=2016)
    path = tmp_path / "davis_semantics.json"
    body = json.loads(path.read_text())
    worlds.write_json(path, {**body, "camel": {"1": "camel", "2": "camel"}})
    assert set(read(tmp_path)[1]["camel"].segments) == {"camel"}
    worlds.write_json(path, {**body, "camel": {"1": "camel", "2": "rider"}})
    with pytest.raises(SourceError, match=r"1 of 3 sequences .* masks of one foreground .* camel \(camel and rider\)"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["grey index", "RGB", "RGBA", "colours", "cut off"])
def test_masks_in_other_clothes(tmp_path: Path, kind: str) -> None:
    world = worlds.davis(tmp_path, sequences=1, frames=2, year=2017 if kind == "grey index" else 2016)
    path = tmp_path / "Annotations/480p/bike-walk/00000.png"
    plane = worlds.pixels(path)
    if kind == "grey index":  # palette lost, values kept: still indices
        worlds.grey_png(path, plane)
    elif kind in ("RGB", "RGBA"):  # some of 2016's have three or four channels
        bands = [plane, plane, plane, np.full_like(plane, 255)]
        path.write_bytes(worlds.png_bytes(np.stack(bands[: len(kind)], axis=-1)))
    elif kind == "colours":
        Image.fromarray(np.stack([plane, plane // 2, plane], axis=-1)).save(path)
        with pytest.raises(BadRecord, match=r"bike-walk/00000.png: a coloured mask: its object ids are lost"):
            read(tmp_path)
        return
    else:
        path.write_bytes(path.read_bytes()[:60])
        with pytest.raises(BadRecord, match=r"bike-walk/00000.png: "):
            read(tmp_path)
        return
    reader = Davis()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_a_mask_of_another_picture(tmp_path: Path) -> None:
    worlds.davis(tmp_path, sequences=1)
    worlds.palette_png(tmp_path / "Annotations/480p/bike-walk/00002.png", np.zeros((worlds.HEIGHT, worlds.WIDTH + 9)))
    with pytest.raises(BadRecord, match=r"bike-walk/00002.png: a mask is of another size"):
        read(tmp_path)


def test_a_marked_frame_that_is_missing_stays_in_the_record(tmp_path: Path) -> None:
    worlds.davis(tmp_path, sequences=1)
    (tmp_path / "JPEGImages/480p/bike-walk/00002.jpg").unlink()
    record = Davis().survey(Folder.at(tmp_path)).record(0)
    assert [Path(frame).name for frame in record.frames] == [f"{time:05d}.jpg" for time in range(5)]
    assert "JPEGImages/480p/bike-walk/00002.jpg" not in Davis().survey(Folder.at(tmp_path)).listing


def test_a_bucket_gives_the_same(s3: S3) -> None:
    bucket = s3.bucket()
    world = worlds.davis(s3.disk / bucket.removeprefix("s3://"), sequences=2, frames=3)
    reader = Davis()
    worlds.assert_read(world, reader.survey(Folder.at(bucket)), reader, Folder.at(bucket))
