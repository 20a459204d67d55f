from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import worlds
import worlds_images

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.mapillary import Mapillary
from aesampler.sources.source import Survey
from aesampler.storage import Folder


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = Mapillary(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


@pytest.mark.parametrize("version", ["2.0", "1.2"])
@pytest.mark.parametrize("subset", ["train", "validation"])
@pytest.mark.parametrize("seed", range(2))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, version: str, subset: str, seed: int) -> None:
    world = worlds_images.mapillary(tmp_path, version=version, subset=subset, seed=seed)
    reader = Mapillary(version=version, subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.mapillary(tmp_path)
    worlds.assert_order_free(tmp_path, Mapillary(), monkeypatch)


def test_a_version_may_be_a_number(tmp_path: Path) -> None:
    worlds_images.mapillary(tmp_path, version="1.2")
    assert Mapillary.model_validate({"version": 1.2}) == Mapillary(version="1.2")


def test_ambiguous_pixels_hide_names_and_known_ones_do_not(tmp_path: Path) -> None:
    worlds_images.mapillary(tmp_path, images=1)
    path = tmp_path / "training/v2.0/labels/k0_-A.png"
    labels = [full for full, _, _ in worlds_images.VISTAS["2.0"]]
    for name, known in (
        ("animal--bird", True),
        ("construction--barrier--ambiguous", False),
        ("construction--barrier--other-barrier", True),
        ("object--vehicle--vehicle-group", False),
        ("object--support--pole-group", True),
        ("void--ego-vehicle", True),
        ("void--unlabeled", False),
    ):
        worlds.grey_png(path, np.full((worlds.HEIGHT, worlds.WIDTH), labels.index(name)))
        assert read(tmp_path)[1]["k0_-A"].exhaustive == known, name
    assert read(tmp_path, void_limit=1.0)[1]["k0_-A"].exhaustive


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file config_v2.0.json; see: aesampler sources mapillary"):
        read(tmp_path)
    worlds_images.mapillary(tmp_path)
    with pytest.raises(SourceError, match="no labels of its test pictures"):
        read(tmp_path, subset="test")
    with pytest.raises(SourceError, match="validation/images: no picture"):
        read(tmp_path, subset="validation")
    (tmp_path / "training/v2.0/labels/k0_-A.png").unlink()
    with pytest.raises(SourceError, match=r"1 of 5 pictures have no PNG in training/v2.0/labels/, the first k0_-A"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "not a JSON object"),
        ("{", "not JSON"),
        ('{"labels": [{"readable": "Car"}]}', "no list `labels` of objects with a name"),
        ('{"labels": [{"name": "a--b"}, {"name": "a--b"}]}', "two labels have one name; got a--b"),
    ],
)
def test_wrong_configs(tmp_path: Path, config: str, message: str) -> None:
    worlds_images.mapillary(tmp_path)
    (tmp_path / "config_v2.0.json").write_text(config)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_an_index_above_the_labels_is_a_bad_record(tmp_path: Path) -> None:
    worlds_images.mapillary(tmp_path, images=1)
    path = tmp_path / "training/v2.0/labels/k0_-A.png"
    worlds.grey_png(path, np.full((worlds.HEIGHT, worlds.WIDTH), 255))
    with pytest.raises(BadRecord, match=r"values that config_v2.0.json does not name; got \[255\]"):
        read(tmp_path)
