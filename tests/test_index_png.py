from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import worlds
import worlds_images

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.index_png import IndexPng
from aesampler.sources.source import Survey
from aesampler.storage import Folder


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = IndexPng(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize("form", ["yaml", "json", "text"])
@pytest.mark.parametrize("seed", range(2))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, form: str, seed: int) -> None:
    world = worlds_images.index_png(tmp_path, seed=seed, form=form)
    reader = IndexPng(**world.options)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.index_png(tmp_path)
    worlds.assert_order_free(tmp_path, IndexPng(), monkeypatch)


def test_void_takes_absence_away(tmp_path: Path) -> None:
    world = worlds_images.index_png(tmp_path)
    share = {key: float(void.mean()) for key, void in world.void.items()}
    assert 0 in share.values()
    assert max(share.values()) > 0.01
    assert not any(scene.exhaustive for scene in read(tmp_path)[1].values())
    for limit in (0.0, 0.01, max(share.values()), 1.0):
        survey, scenes = read(tmp_path, exhaustive=True, void_limit=limit)
        assert survey.exhaustive
        assert {key: scene.exhaustive for key, scene in scenes.items()} == {k: s <= limit for k, s in share.items()}


def test_lists_of_names_and_other_folders(tmp_path: Path) -> None:
    worlds.jpeg(tmp_path / "p/x.jpg", [], 0)
    worlds.jpeg(tmp_path / "p/y.jpg", [], 0)
    plane = worlds_images.drawn([1, 2], 0, 0, 0)
    for name in "xy":
        worlds.grey_png(tmp_path / f"p/{name}_m.png", plane)
    (tmp_path / "classes.txt").write_text("# what is seen\nsky\n\nsea\nbright red boat\n")
    (tmp_path / "few.txt").write_text("y\n")
    options = {"images": "./p/", "masks": "p", "suffix": "_m", "names": "classes.txt"}
    survey, scenes = read(tmp_path, **options)
    assert [(entry.origin, entry.name) for entry in survey.categories] == [
        *(("0", "sky"), ("1", "sea"), ("2", "bright red boat"))
    ]
    assert set(scenes["x"].segments) == {"sky", "sea", "bright red boat"}
    worlds.assert_track(scenes["x"].segments["sky"], (plane == 0)[None], "sky")
    assert set(read(tmp_path, **options, only="few.txt")[1]) == {"y"}
    _, scenes = read(tmp_path, **options, background=[0], void=[1], exhaustive=True)
    assert set(scenes["x"].segments) == {"bright red boat"}
    worlds.assert_track(scenes["x"].void, (plane == 1)[None], "void")
    (tmp_path / "few.txt").write_text("y\nz\n")
    with pytest.raises(SourceError, match=r"1 of 2 pictures of few.txt are not there, the first z"):
        read(tmp_path, **options, only="few.txt")


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r'no file names.yaml; write \{1: "name"'):
        read(tmp_path)
    worlds_images.index_png(tmp_path)
    with pytest.raises(SourceError, match="photos: no picture; see: aesampler sources index-png"):
        read(tmp_path, images="photos")
    (tmp_path / "masks/a/1.png").unlink()
    with pytest.raises(
        SourceError, match=r"1 of 5 pictures have no PNG in masks/, the first a/1; got no file masks/a/1.png"
    ):
        read(tmp_path)
    with pytest.raises(SourceError, match="confined to their root"):
        read(tmp_path, names="../names.yaml")
    with pytest.raises(SourceError, match="leaves its folder"):
        read(tmp_path, masks="../masks")
    worlds.grey_png(tmp_path / "masks/a/1.png", np.zeros((worlds.HEIGHT, worlds.WIDTH)))
    worlds.grey_png(tmp_path / "images/a/1.jpg", np.zeros((worlds.HEIGHT, worlds.WIDTH)))
    with pytest.raises(SourceError, match="two pictures have one name"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("names.yaml", "just words", "no mapping of index to name"),
        ("names.yaml", "{1: road, 1: car", "not readable"),
        ("names.json", "{", "not readable"),
        ("names.yaml", "a: road", "not an index and a name; got 'a': 'road'"),
        ("names.yaml", "1: [road]", "not an index and a name"),
        ("names.yaml", "[]", "no mapping"),
        ("names.txt", "1: road\n1: car\n", "named twice; got 1"),
        (
            "names.txt",
            "1: road\n2:\n3: car\n",
            "lines are an index and a name, and others are not; got '2:'; give",
        ),
    ],
)
def test_wrong_names(tmp_path: Path, file: str, text: str, message: str) -> None:
    worlds_images.index_png(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(SourceError, match=message):
        read(tmp_path, names=file)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    worlds_images.index_png(tmp_path)
    (tmp_path / "names.yaml").write_bytes(b"1: \xff")
    with pytest.raises(SourceError, match="not UTF-8"):
        read(tmp_path)


def test_bad_masks_are_named(tmp_path: Path) -> None:
    worlds_images.index_png(tmp_path, images=2)
    path = tmp_path / "masks/a/1.png"
    plane = worlds.pixels(path)
    worlds.grey_png(path, np.where(plane == 1, 77, plane))
    with pytest.raises(BadRecord, match=r"masks/a/1.png: values that names.yaml does not name; got \[77\]"):
        read(tmp_path)
    worlds.grey_png(path, plane[:-7])
    with pytest.raises(BadRecord, match=r"masks/a/1.png: a mask is of another size"):
        read(tmp_path)
    path.write_bytes(worlds.png_bytes(np.stack([plane] * 3, axis=-1).astype(np.uint8)))
    with pytest.raises(BadRecord, match=r"masks/a/1.png: a coloured map"):
        read(tmp_path)
    path.write_bytes(b"no PNG")
    # The survey of the others goes on: one unreadable mask is a bad record, not the end.
    reader, folder = IndexPng(), Folder.at(tmp_path)
    survey = reader.survey(folder)
    found = {item.id: survey.record(place) for place, item in enumerate(survey.items)}
    assert found["a/1"].masked == ()
    assert found["b/c/0"].masked
    with pytest.raises(BadRecord, match=r"masks/a/1.png: an image cannot be read"):
        reader.scene(folder, found["a/1"], [], [0], plane.shape)


def test_real_pictures_are_read_as_their_own_format_reads_them(real_data: Path, tmp_path: Path) -> None:
    """SceneParsing's three pictures: the same masks as `ade20k-150` finds, which its own test holds against Pillow."""
    from aesampler.sources.ade20k_150 import Ade20k150

    base = real_data / "ADEChallengeData2016"
    folder = Folder.at(base)
    own = Ade20k150(subset="validation")
    official = own.survey(folder)
    names = [entry.name for entry in official.categories]
    (tmp_path / "names.txt").write_text("".join(f"{entry.origin}\t{entry.name}\n" for entry in official.categories))
    for name in ("images", "annotations"):
        (tmp_path / name).symlink_to(base / name / "validation")
    _, scenes = read(tmp_path, masks="annotations", names="names.txt", background=[], void=[0])
    assert len(scenes) == 3
    for place in range(3):
        record = official.record(place)
        size = worlds.size_of(base / record.frames[0])
        expected = own.scene(folder, record, names, [0], size)
        assert scenes[record.id].segments == expected.segments
        assert scenes[record.id].void == expected.void
