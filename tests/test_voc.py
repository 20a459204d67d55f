from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import worlds
import worlds_images

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.source import Survey
from aesampler.sources.voc import Voc
from aesampler.storage import Folder

BASE = "VOCdevkit/VOC2012"


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = Voc(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize("subset", ["train", "validation"])
def test_a_world_is_read_to_the_pixel(tmp_path: Path, subset: str, boxes: bool) -> None:
    world = worlds_images.voc(tmp_path, subset=subset, boxes=boxes)
    reader = Voc(subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.voc(tmp_path)
    worlds.assert_order_free(tmp_path, Voc(), monkeypatch)


def test_boxes_say_what_is_absent_and_borders_do_not(tmp_path: Path) -> None:
    worlds_images.voc(tmp_path / "with", boxes=True)
    worlds_images.voc(tmp_path / "without", boxes=False)
    told = read(tmp_path / "with")[1]["2007_000001"]
    assert [told.presence(name) for name in ("person", "bottle", "horse")] == ["present", "present", "absent"]
    scenes = read(tmp_path / "without")[1]
    assert [scenes["2007_000001"].presence(name) for name in ("person", "bottle", "horse")] == [
        *("present", "unknown", "unknown")
    ]
    assert all(scene.exhaustive for scene in read(tmp_path / "without", void_limit=0.5)[1].values())


def test_sbd_masks_and_lists_of_pairs(tmp_path: Path) -> None:
    worlds_images.voc(tmp_path, boxes=False)
    (tmp_path / "aug.txt").write_text("/JPEGImages/2007_000004.jpg /SegmentationClassAug/2007_000004.png\n")
    _, scenes = read(tmp_path, masks="SegmentationClassAug", only="aug.txt", subset="test")
    plane = worlds.pixels(tmp_path / BASE / "SegmentationClassAug/2007_000004.png")
    scene = scenes["2007_000004"]
    assert scene.exhaustive
    worlds.assert_track(scene.segments["cat"], (plane == 8)[None], "cat")
    worlds.assert_track(scene.void, np.zeros((1, *plane.shape), dtype=bool), "void")


def test_inner_roots_and_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder VOCdevkit/VOC2012/JPEGImages; see: aesampler sources voc"):
        read(tmp_path)
    worlds_images.voc(tmp_path)
    one = read(tmp_path)[1]
    assert read(tmp_path / "VOCdevkit")[1] == read(tmp_path / BASE)[1] == one
    with pytest.raises(SourceError, match="no masks of its test pictures"):
        read(tmp_path, subset="test")
    with pytest.raises(SourceError, match=r"no file VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"):
        read(tmp_path, subset="validation")
    with pytest.raises(SourceError, match="leaves its folder"):
        read(tmp_path, masks="../x")
    (tmp_path / BASE / "SegmentationClass/2007_000000.png").unlink()
    with pytest.raises(SourceError, match=r"1 of 4 pictures have no PNG in VOCdevkit/VOC2012/SegmentationClass/"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "defines entities"),
        ("<a><object><name>unicorn</name></object></a>", "a box of no class of VOC"),
    ],
)
def test_wrong_boxes(tmp_path: Path, text: str, message: str) -> None:
    worlds_images.voc(tmp_path)
    (tmp_path / BASE / "Annotations/2007_000001.xml").write_text(text)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_coloured_maps_are_bad_records(tmp_path: Path) -> None:
    worlds_images.voc(tmp_path)
    path = tmp_path / BASE / "SegmentationClass/2007_000001.png"
    path.write_bytes(worlds.png_bytes(np.zeros((worlds.HEIGHT, worlds.WIDTH, 3), dtype=np.uint8)))
    with pytest.raises(BadRecord, match=r"2007_000001.png: a coloured map: its indices are lost"):
        read(tmp_path)
