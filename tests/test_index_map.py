from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
import worlds_images
from conftest import S3
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from aesampler import sources
from aesampler.build import build_corpus
from aesampler.errors import SourceError
from aesampler.executors.inline import Inline
from aesampler.plan import plan_corpus
from aesampler.recipe import Recipe
from aesampler.sources import index_map
from aesampler.sources.index_map import BACKGROUND, GROUP, NAME, NAMELESS, VOID, Legend
from aesampler.storage import Folder


@given(
    arrays.arrays(np.int32, st.tuples(st.integers(0, 6), st.integers(0, 6)), elements=st.integers(-3, 5))
    | arrays.arrays(np.int32, (3, 4), elements=st.integers(0, 1 << 24))
)
def test_counts_are_those_of_numpy(plane: np.ndarray) -> None:
    values, pixels = np.unique(plane, return_counts=True)
    assert index_map.counts(plane) == dict(zip(values.tolist(), pixels.tolist(), strict=True))


def test_a_legend_says_what_values_are() -> None:
    legend = Legend(
        names={5: 0, 6: 1},
        groups={7: 1, 8: 0},
        void=frozenset({0}),
        nameless=frozenset({8, 9}),
        background=frozenset({3}),
        wider={1: (0,)},
    )
    assert legend.regions([9, 8, 7, 6, 5, 3, 0, 44]) == [
        *((0, VOID, -1), (3, BACKGROUND, -1), (5, NAME, 0), (6, NAME, 1), (6, GROUP, 0)),
        *((7, GROUP, 1), (7, GROUP, 0), (8, GROUP, 0), (8, NAMELESS, -1), (9, NAMELESS, -1)),
    ]


def test_rests_hold_their_kin() -> None:
    names = ("wall-brick", "wall-other-merged", "wallet", "river", "water-other", "apple", "food-other-merged", "sky")
    kinds = ("wall", "wall", "thing", "water", "water", "food", "food-stuff", "sky")
    assert index_map.widest(names) == {0: (1,)}
    assert index_map.widest(names, kinds) == {0: (1,), 3: (4,), 5: (6,)}


def test_names_lose_their_endings_unless_two_would_be_alike() -> None:
    assert index_map.shown(["sky-other-merged", "floor-wood", "mirror-stuff", "tree-merged", "hot dog"]) == [
        *("sky", "floor wood", "mirror", "tree", "hot dog")
    ]
    assert index_map.shown(["table", "table-merged"]) == ["table", "table merged"]


def test_pictures_are_known_by_their_path_without_ending() -> None:
    listing = {"a/x.jpg": 1, "a/b/x.PNG": 1, "a/notes.txt": 1, "ab/x.jpg": 1}
    assert index_map.pictures(listing, "a") == {"x": "a/x.jpg", "b/x": "a/b/x.PNG"}
    with pytest.raises(SourceError, match=r"a/x.png: two pictures have one name"):
        index_map.pictures({"a/x.jpg": 1, "a/x.png": 1}, "a")


@pytest.mark.parametrize("format", ["index-png", "coco-panoptic", "coco-stuff", "cityscapes", "voc", "refcoco"])
def test_a_world_is_read_from_a_store(tmp_path: Path, s3: S3, format: str) -> None:
    bucket = s3.bucket()
    world = worlds_images.BUILDERS[format](s3.disk / bucket.removeprefix("s3://") / "world")
    root = Folder.at(f"{bucket}/world")
    reader = sources.load(format)(**world.options)
    worlds.assert_read(world, reader.survey(root), reader, root)


@pytest.mark.parametrize("format", sorted({*worlds_images.BUILDERS} - {"hf"}))
def test_a_corpus_is_built_and_sound(tmp_path: Path, format: str) -> None:
    from aesampler.corpus import Corpus
    from aesampler.verify import verify

    world = worlds_images.BUILDERS[format](tmp_path / "world")
    entry: dict[str, Any] = {"name": "world", "format": format, "root": str(world.root), **world.options}
    exposure = {"absence": "known", "irrelevant_from": "categories", "max_categories": 8}
    recipe = Recipe.of(
        {"name": "world", "out": "corpus", "seed": 1, "sources": [entry], "exposure": exposure}, base=tmp_path
    )
    out = Folder.at(tmp_path / "corpus")
    build_corpus(plan_corpus(recipe), out, Inline())
    corpus = Corpus.open(tmp_path / "corpus")
    assert not verify(corpus, deep=True).problems
    origins = {paths[0]: key for key, paths in world.frames.items()}
    known = 0
    for place in range(len(corpus)):
        sample = corpus[place]
        key = origins[sample.origin]
        for name, genuine, presence in zip(sample.categories, sample.is_genuine, sample.presence, strict=True):
            assert (presence == "present") == genuine
            assert (name in world.present[key]) == genuine
            known += presence == "absent"
    assert len(corpus) == len(world.frames)
    assert known or not world.exhaustive
