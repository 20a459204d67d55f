"""Datasets that `datasets` itself wrote, offline."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
import worlds_images

from aesampler.build import build_corpus
from aesampler.corpus import Corpus
from aesampler.errors import BadRecord, MissingExtra, SourceError
from aesampler.executors.inline import Inline
from aesampler.plan import plan_corpus
from aesampler.recipe import Recipe
from aesampler.sources import hugging_face
from aesampler.sources.hugging_face import HuggingFace
from aesampler.storage import Folder
from aesampler.verify import verify

datasets = pytest.importorskip("datasets")
FORMS = ("parquet", "dataset", "dict")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cache of `datasets` within the test, and nothing of another test in memory."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    hugging_face._open.cache_clear()
    yield
    hugging_face._open.cache_clear()


def assert_read(world: worlds.World, reader: HuggingFace) -> None:
    """Fail unless records, pictures and masks are those of `world`; pictures are rows, not the files it looks for."""
    root = Folder.at(world.root)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    assert sorted(names) == list(world.names)
    assert {item.id: item.group for item in survey.items} == dict(world.groups)
    files = world.root.parent / f"{world.root.name}-files"
    for place, item in enumerate(survey.items):
        record = survey.record(place)
        assert record.frames == world.frames[item.id]
        (data,) = reader.pictures(root, record, [0])
        stored = files / record.frames[0].rpartition("/")[2].lstrip("0").rjust(5, "0")[-5:]
        assert data == stored.read_bytes()
        assert survey.listing[record.frames[0]] == len(data)
        size = worlds.size_of(stored)
        scene = reader.scene(root, record, names, [0], size)
        assert set(scene.segments) == set(world.truth[item.id])
        for name, track in scene.segments.items():
            worlds.assert_track(track, world.truth[item.id][name], f"{item.id}: {name}")
        worlds.assert_track(scene.void, world.void[item.id], item.id)
        assert scene.seen == world.present[item.id] == {names[i] for i in record.masked}


@pytest.mark.parametrize("form", FORMS)
def test_a_world_is_read_to_the_pixel(tmp_path: Path, form: str) -> None:
    world = worlds_images.hugging_face(tmp_path / "world", form=form)
    assert_read(world, HuggingFace(**world.options))


@pytest.mark.parametrize("form", FORMS)
def test_a_corpus_is_built_and_sound(tmp_path: Path, form: str) -> None:
    world = worlds_images.hugging_face(tmp_path / "world", form=form)
    entry: dict[str, Any] = {"name": "hub", "format": "hf", "root": str(world.root), **world.options}
    recipe = Recipe.of({"name": "x", "out": "corpus", "seed": 1, "sources": [entry]}, base=tmp_path)
    build_corpus(plan_corpus(recipe), Folder.at(tmp_path / "corpus"), Inline())
    corpus = Corpus.open(tmp_path / "corpus")
    assert len(corpus) == 5
    assert not verify(corpus, deep=True).problems


def test_names_in_the_recipe_and_rows_without_ids(tmp_path: Path) -> None:
    worlds_images.hugging_face(tmp_path / "world", part="validation")
    reader = HuggingFace(names=list(worlds_images.HF_NAMES), subset="validation", exhaustive=True)
    survey = reader.survey(Folder.at(tmp_path / "world"))
    assert [item.id for item in survey.items] == [f"{row:08d}" for row in range(5)]
    assert [entry.origin for entry in survey.categories] == ["1", "2", "3"]
    assert survey.exhaustive


def test_wrong_layouts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"neither a saved dataset .* nor a Parquet file; see: aesampler sources hf"):
        HuggingFace(names=["a"]).survey(Folder.at(tmp_path / "empty"))
    world = worlds_images.hugging_face(tmp_path / "world")
    root = Folder.at(world.root)
    for options, message in (
        ({"mask": "label"}, r"no column 'label'; got key, image, mask; name it with mask"),
        ({"part": "validation"}, "no Parquet file of the part validation"),
        ({"names": "x.yaml"}, r"no file x.yaml"),
    ):
        with pytest.raises(SourceError, match=message):
            HuggingFace(**{**world.options, **options}).survey(root)
    worlds_images.hugging_face(tmp_path / "saved", form="dict")
    with pytest.raises(SourceError, match=r"no files of the part test|cannot open it"):
        HuggingFace(**world.options, part="test").survey(Folder.at(tmp_path / "saved"))
    with pytest.raises(SourceError, match="must lie in a local folder"):
        HuggingFace(names=["a"]).survey(Folder.at("memory://bucket/x"))


def test_maps_without_indices_are_bad_records(tmp_path: Path) -> None:
    world = worlds_images.hugging_face(tmp_path / "world", images=4)
    reader = HuggingFace(**{**world.options, "mask": "image"})
    survey = reader.survey(Folder.at(world.root))
    for place in range(2):
        record = survey.record(place)
        with pytest.raises(BadRecord, match=r"image of train/0000000\d: (an image cannot be read|a coloured map)"):
            reader.scene(Folder.at(world.root), record, [], [0], (worlds.HEIGHT, worlds.WIDTH))


def test_the_hub_is_asked_for_one_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds_images.hugging_face(tmp_path / "world", form="dataset")
    table = datasets.load_from_disk(str(world.root))
    asked = []

    def load(*arguments: object, **options: object) -> Any:
        asked.append((arguments, options))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load)
    options = {"hub": "owner/scenes", "names": list(worlds_images.HF_NAMES), "config": "small"}
    with pytest.raises(SourceError, match=r"owner/scenes: a dataset of the hub changes: its revision is needed"):
        HuggingFace(**options).survey(Folder.at(tmp_path))
    survey = HuggingFace(**options, revision="v1").survey(Folder.at(tmp_path))
    assert asked == [
        (("owner/scenes", "small"), {"split": "train", "revision": "v1", "cache_dir": tmp_path}),
    ]
    assert survey.files == ()
    assert survey.items[0].group == "hf:owner/scenes:train:00000000"


def test_rows_that_say_no_group_are_groups_of_their_own(tmp_path: Path) -> None:
    """Two local datasets with the same numbers of rows have no picture in common."""
    groups = []
    for name, images, told in (("one", 5, ["7", None, "", "7", "coco:139"]), ("two", 6, None)):
        world = worlds_images.hugging_face(tmp_path / name, images=images, form="dataset")
        table = datasets.load_from_disk(str(world.root))
        options: dict[str, Any] = {"names": "names.json"}
        if told is not None:
            table.add_column("scene", told).save_to_disk(tmp_path / "told")
            (tmp_path / "told/names.json").write_bytes((world.root / "names.json").read_bytes())
            options["group"] = "scene"
        root = Folder.at(world.root if told is None else tmp_path / "told")
        groups.append([item.group for item in HuggingFace(**options).survey(root).items])
    first, second = groups
    assert (first[0], first[3], first[4]) == ("hf:local:group:7", "hf:local:group:7", "coco:139")
    assert len({*first, *second}) == 4 + 6


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = worlds_images.hugging_face(tmp_path / "world")
    plain = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"package datasets, which is not installed; pip install 'aesampler\[hf\]'"):
        HuggingFace(**world.options).survey(Folder.at(world.root))


def test_pictures_keep_their_bytes(tmp_path: Path) -> None:
    world = worlds_images.hugging_face(tmp_path / "world")
    reader, root = HuggingFace(**world.options), Folder.at(world.root)
    survey = reader.survey(root)
    data = reader.pictures(root, survey.record(0), [0, 0])
    assert data[0] == data[1] == (tmp_path / "world-files/0.jpg").read_bytes()
    assert np.array_equal(worlds.pixels(tmp_path / "world-files/0_mask.png"), reader._plane(root, "train/00000000"))
