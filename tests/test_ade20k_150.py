from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import worlds

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.ade20k_150 import Ade20k150
from aesampler.sources.source import Survey
from aesampler.storage import Folder

BASE = "ADEChallengeData2016"


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = Ade20k150(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, subset: str, seed: int) -> None:
    world = worlds.ade20k_150(tmp_path, images=6, seed=seed, subset=subset)
    reader = Ade20k150(subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.ade20k_150(tmp_path)
    worlds.assert_order_free(tmp_path, Ade20k150(), monkeypatch)


def test_the_real_pictures_equal_an_independent_reading(real_data: Path) -> None:
    survey, scenes = read(real_data, subset="validation")
    rows = (real_data / BASE / "objectInfo150.txt").read_text().splitlines()[1:]
    published = {int(row.split("\t")[0]): [word.strip() for word in row.split("\t")[4].split(",")] for row in rows}
    shown = {int(entry.origin): entry.name for entry in survey.categories}
    assert len(shown) == 150
    assert all(shown[number] in words for number, words in published.items())
    shared = {"ground", "counter", "screen", "pot", "stool"}
    assert not shared & {alias for entry in survey.categories for alias in entry.aliases}
    # Only a class that has no other name is shown by a shared one.
    assert {(number, shown[number]) for number in shown if shown[number] in shared} == {(46, "counter"), (111, "stool")}
    assert [shown[n] for n in (14, 59, 64, 66, 95, 100, 126, 131)] == [
        *("earth", "screen door", "blind", "toilet", "land", "buffet", "flowerpot", "silver screen")
    ]
    assert set(scenes) == {f"ADE_val_{number:08d}" for number in (1, 2, 3)}
    for name, scene in scenes.items():
        plane = worlds.pixels(real_data / BASE / f"annotations/validation/{name}.png")
        assert set(scene.segments) == {shown[int(number)] for number in np.unique(plane) if number}
        for number in np.unique(plane):
            if number:
                worlds.assert_track(scene.segments[shown[int(number)]], (plane == number)[None], f"{name}: {number}")
        worlds.assert_track(scene.void, (plane == 0)[None], name)
        assert scene.exhaustive


def test_other_folders_and_the_inner_root(tmp_path: Path) -> None:
    worlds.ade20k_150(tmp_path, subset="train")
    _, one = read(tmp_path)
    inner = tmp_path / BASE
    assert read(inner)[1] == one
    (inner / "images").rename(inner / "pictures")
    assert read(inner, images="./pictures/training/")[1] == one
    with pytest.raises(SourceError, match=r"images/training: no picture"):
        read(inner)


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"no file ADEChallengeData2016/objectInfo150.txt; see: aesampler sources ade20k-150"
    ):
        read(tmp_path)
    worlds.ade20k_150(tmp_path)
    with pytest.raises(SourceError, match="no annotated test pictures"):
        read(tmp_path, subset="test")
    (tmp_path / BASE / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(SourceError, match="1 of 4 pictures have no PNG, the first ADE_train_00000002"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"Idx,Ratio,Train,Val,Name\n1,0.1,2,3,wall\n", "not a table"),
        (b"Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t2\t3\twall\n3\t0.1\t2\t3\tsky\n", "numbered 1, 2, 3"),
        (b"Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t2\t3\t \n", "a name each"),
    ],
)
def test_wrong_tables(tmp_path: Path, table: bytes, message: str) -> None:
    worlds.ade20k_150(tmp_path)
    (tmp_path / BASE / "objectInfo150.txt").write_bytes(table)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_bad_masks_are_named(tmp_path: Path) -> None:
    worlds.ade20k_150(tmp_path, images=1)
    path = tmp_path / BASE / "annotations/training/ADE_train_00000001.png"
    plane = worlds.pixels(path)
    worlds.grey_png(path, np.where(plane == 3, 77, plane))
    with pytest.raises(
        BadRecord, match=r"00000001.png: classes that objectInfo150.txt does not have; got \[77\]; allowed: 0 to 9"
    ):
        read(tmp_path)
    worlds.grey_png(path, plane[:-7])
    with pytest.raises(BadRecord, match=r"00000001.png: a mask is of another size"):
        read(tmp_path)
    path.write_bytes(worlds.png_bytes(np.stack([plane] * 3, axis=-1)))
    with pytest.raises(BadRecord, match=r"00000001.png: not an 8-bit index PNG"):
        read(tmp_path)
    path.write_bytes(b"")
    reader, root = Ade20k150(), Folder.at(tmp_path)
    record = reader.survey(root).record(0)
    assert record.masked == ()
    with pytest.raises(BadRecord, match=r"00000001.png: an image cannot be read"):
        reader.scene(root, record, [], [0], plane.shape)


def test_a_mask_a_pixel_short_leaves_void(tmp_path: Path) -> None:
    world = worlds.ade20k_150(tmp_path, images=1)
    path = tmp_path / BASE / "annotations/training/ADE_train_00000001.png"
    worlds.grey_png(path, worlds.pixels(path)[:-1])
    void = world.void["ADE_train_00000001"].copy()
    void[0, -1] = True
    worlds.assert_track(read(tmp_path)[1]["ADE_train_00000001"].void, void, "void")
