from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import worlds
import worlds_images

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.coco_stuff import LABELS, UNUSED, CocoStuff
from aesampler.sources.source import Survey
from aesampler.storage import Folder

FORMS = ("stuffthingmaps", "pixelmaps", "json")


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = CocoStuff(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("subset", ["train", "validation"])
def test_a_world_is_read_to_the_pixel(tmp_path: Path, form: str, subset: str) -> None:
    world = worlds_images.coco_stuff(tmp_path, form=form, subset=subset)
    reader = CocoStuff(form=form, subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.coco_stuff(tmp_path, form=form)
    worlds.assert_order_free(tmp_path, CocoStuff(form=form), monkeypatch)


def test_the_forms_agree_on_stuff(tmp_path: Path) -> None:
    found = {}
    for form in FORMS:
        worlds_images.coco_stuff(tmp_path / form, form=form)
        found[form] = read(tmp_path / form, form=form)[1]
    for key, scene in found["pixelmaps"].items():
        assert scene.segments == found["json"][key].segments
        assert scene.void == found["json"][key].void
        stuff = {name: track for name, track in found["stuffthingmaps"][key].segments.items() if name != "person"}
        assert stuff == scene.segments


def test_the_form_is_never_guessed(tmp_path: Path) -> None:
    """Maps of one form read as the other name every kind wrongly, so they must not be found by the other."""
    worlds_images.coco_stuff(tmp_path, form="pixelmaps")
    with pytest.raises(SourceError, match=r"have no PNG in stuffthingmaps/train2017/"):
        read(tmp_path)


def test_the_vocabulary_is_the_published_one(tmp_path: Path) -> None:
    worlds_images.coco_stuff(tmp_path)
    survey, _ = read(tmp_path)
    assert len(LABELS) == 182
    assert len(survey.categories) == 171
    assert [LABELS[number - 1] for number in sorted(UNUSED)] == [
        *("street sign", "hat", "shoe", "eye glasses", "plate", "mirror", "window", "desk", "door", "blender"),
        "hair brush",
    ]
    shown = {int(entry.origin): entry.name for entry in survey.categories}
    assert (shown[1], shown[91 + 1], shown[112], shown[157], shown[181], shown[182]) == (
        *("person", "banner", "door", "sky", "window"),
        "wood",
    )
    assert not [name for name in shown.values() if name.endswith(("other", "stuff"))]


@pytest.mark.parametrize("form", FORMS)
def test_void_takes_absence_away(tmp_path: Path, form: str) -> None:
    world = worlds_images.coco_stuff(tmp_path, form=form)
    for limit in (0.0, 1.0):
        scenes = read(tmp_path, form=form, void_limit=limit)[1]
        assert {key: scene.exhaustive for key, scene in scenes.items()} == {
            key: float(void.mean()) <= limit for key, void in world.void.items()
        }


def test_pictures_without_a_map_are_counted(tmp_path: Path) -> None:
    worlds_images.coco_stuff(tmp_path)
    assert read(tmp_path)[0].skipped == {"pictures without a PNG in stuffthingmaps/train2017": 1}


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="train2017: no picture; see: aesampler sources coco-stuff"):
        read(tmp_path)
    with pytest.raises(SourceError, match=r"stuff_train2017.json: no such file"):
        read(tmp_path, form="json")
    with pytest.raises(SourceError, match="no masks of its test pictures"):
        read(tmp_path, subset="test")
    with pytest.raises(SourceError, match="leaves its folder"):
        read(tmp_path, maps="../x")


def test_unused_ids_are_bad_records(tmp_path: Path) -> None:
    worlds_images.coco_stuff(tmp_path, images=1)
    path = tmp_path / "stuffthingmaps/train2017/000000000009.png"
    worlds.grey_png(path, np.full((worlds.HEIGHT, worlds.WIDTH), 25))  # "hat", id 26
    with pytest.raises(BadRecord, match=r"009.png: values that labels.txt, in the form stuffthingmaps, does not name"):
        read(tmp_path)
