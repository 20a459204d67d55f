from __future__ import annotations

import json
from pathlib import Path

import pytest
import worlds
import worlds_images

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.cityscapes import Cityscapes
from aesampler.sources.source import Survey
from aesampler.storage import Folder

FORMS = ("instances", "labels", "polygons")


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = Cityscapes(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("subset", "truth"), [("train", "gtFine"), ("validation", "gtCoarse")])
def test_a_world_is_read_to_the_pixel(tmp_path: Path, form: str, subset: str, truth: str) -> None:
    world = worlds_images.cityscapes(tmp_path, images=6, form=form, subset=subset, truth=truth)
    reader = Cityscapes(**world.options, subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.cityscapes(tmp_path)
    worlds.assert_order_free(tmp_path, Cityscapes(), monkeypatch)


def test_instances_and_polygons_agree(tmp_path: Path) -> None:
    worlds_images.cityscapes(tmp_path, images=6)
    assert read(tmp_path)[1] == read(tmp_path, form="polygons")[1]


def test_the_vocabulary(tmp_path: Path) -> None:
    worlds_images.cityscapes(tmp_path)
    categories = read(tmp_path)[0].categories
    assert len(categories) == 26
    kinds = {entry.name: entry.supercategory for entry in categories}
    assert [kinds[name] for name in ("parking", "tunnel", "pole", "terrain", "sky", "rider", "bicycle")] == [
        *("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    ]


def test_a_rider_is_a_person_and_static_things_hide_names(tmp_path: Path) -> None:
    worlds_images.cityscapes(tmp_path)
    scenes = read(tmp_path)[1]
    rider = scenes["aachen_000002_000019"]
    assert rider.exhaustive
    assert "person" not in rider.segments
    assert [rider.presence(name) for name in ("rider", "person", "bicycle", "car")] == [
        *("present", "present", "present", "absent")
    ]
    assert not scenes["aachen_000000_000019"].exhaustive
    assert read(tmp_path, void_limit=1.0)[1]["aachen_000000_000019"].exhaustive


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="leftImg8bit/train: no picture; see: aesampler sources cityscapes"):
        read(tmp_path)
    worlds_images.cityscapes(tmp_path)
    for options in ({"subset": "test"}, {"part": "test"}):
        with pytest.raises(SourceError, match="test part are dummies"):
            read(tmp_path, **options)
    with pytest.raises(
        SourceError,
        match=r"3 of 3 pictures have no instanceIds.png in gtCoarse/train/CITY/, .* no file gtCoarse/train/aachen",
    ):
        read(tmp_path, annotations="gtCoarse")


def test_bad_polygons_are_named(tmp_path: Path) -> None:
    worlds_images.cityscapes(tmp_path, images=1)
    path = tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json"
    body = json.loads(path.read_text())
    for change, message in (
        ({"imgWidth": 10**9}, "an impossible size"),
        ({"objects": [{"label": "dragon", "polygon": []}]}, "a label that Cityscapes does not have; got 'dragon'"),
        ({"objects": [{"label": "car", "polygon": [[1, 1], [2, 2]]}]}, "a polygon of fewer than 3 points"),
        ({"objects": [{"label": "car", "polygon": [[1, 1], [2, 2], [1e9, 0]]}]}, "far outside the picture"),
        ({"objects": 3}, "not a JSON file of Cityscapes"),
        ({"imgHeight": 20}, "a mask is of another size"),
    ):
        worlds.write_json(path, {**body, **change})
        with pytest.raises(BadRecord, match=rf"polygons.json: {message}|{message}"):
            read(tmp_path, form="polygons")
