"""The recipe: what is refused, in one line that says where; what is stored; how clips are cut."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesampler.errors import RecipeError, tolerated
from aesampler.recipe import ClipSettings, Recipe

GOOD = """
name: tiny
out: ../corpora/tiny
seed: 44
sources:
  - {name: coco, format: coco, root: "${TINY_ROOT}/coco", split: {train: 0.9, validation: 0.1}, limit: 10, weight: 1}
  - {name: lvis, format: lvis, root: lvis, exposure: {genuine: one}}
exposure: {max_categories: 20, irrelevant_count: [0, 5]}
shards: {max_bytes: 5MB}
about: {description: a test, date: 2026-11-22}
"""


def test_a_recipe_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TINY_ROOT", str(tmp_path))
    recipe = Recipe.parse(GOOD, base=tmp_path)
    coco, lvis = recipe.sources
    assert recipe.folder(coco.root).path == tmp_path / "coco"
    assert recipe.folder(lvis.root).path == tmp_path / "lvis"
    assert coco.shares == {"train": 0.9, "validation": 0.1}
    assert recipe.shards.max_bytes == 5_000_000
    assert recipe.about.date == "2026-11-22"
    assert recipe.settings(coco).genuine == "all"
    assert recipe.settings(lvis).genuine == "one"
    assert recipe.settings(lvis).max_categories == 20


def test_the_stored_document_is_whole_and_reads_back(tmp_path: Path) -> None:
    recipe = Recipe.parse(GOOD, base=tmp_path)
    stored = recipe.document()
    assert "out" not in stored
    assert "base" not in stored
    assert str(tmp_path) not in str(stored)
    assert stored["sources"][0]["root"] == "${TINY_ROOT}/coco"
    again = Recipe.of(stored)
    assert again.document() == stored
    assert again.sha256() == recipe.sha256()
    assert Recipe.parse(GOOD.replace("../corpora", "elsewhere")).sha256() == recipe.sha256()
    assert Recipe.parse(GOOD.replace("44", "45")).sha256() != recipe.sha256()


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (replaced("seed: 44", "sed: 44"), ["unknown key 'sed'", "did you mean 'seed'"]),
        (replaced("max_categories", "max_category"), ["exposure", "did you mean 'max_categories'"]),
        (replaced("limit: 10", "limt: 10"), ["sources.0", "did you mean 'limit'"]),
        (replaced("{genuine: one}", "{genuin: one}"), ["sources.1.exposure", "did you mean 'genuine'"]),
        (replaced("{genuine: one}", "{genuine: two}"), ["sources.1.exposure", "'two'"]),
        (replaced("seed: 44", "seed: many"), ["seed", "'many'"]),
        (replaced("limit: 10", "limit: 0"), ["sources.0.limit", "0"]),
        (replaced("format: lvis", "format: lvs"), ["sources.1.format", "unknown format 'lvs'", "did you mean lvis"]),
        (replaced("name: tiny", "name: Tiny World"), ["name", "'Tiny World'"]),
        (replaced("0.1}", "0.2}"), ["sources.0.split", "add up to 1"]),
        (replaced("name: lvis", "name: coco"), ["coco"]),
        (replaced("split: {train: 0.9, validation: 0.1}", "split: trian"), ["sources.0.split"]),
        (replaced("max_bytes: 5MB", "max_bytes: huge"), ["shards.max_bytes"]),
        (replaced("seed: 44", "seed: 44\nseed: 45"), ["'seed' is written twice"]),
        (replaced("out: ../corpora/tiny", "out: [1]"), ["out"]),
        (replaced("2026-11-22", "yesterday"), ["about.date"]),
        ("- a list", ["a recipe is a mapping"]),
        ("a: [", ["not YAML"]),
        ("name: x\nsources: []", ["sources"]),
        ("name: x", ["sources", "missing"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text: str, parts: list[str]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse(text, where="r.yaml")
    line = str(caught.value)
    assert line.startswith("r.yaml")
    assert "\n" not in line
    for part in parts:
        assert part in line, line


def test_yaml_never_makes_objects() -> None:
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.parse("name: !!python/object/apply:os.getcwd []")


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINY_ROOT", raising=False)
    recipe = Recipe.parse(GOOD)
    with pytest.raises(RecipeError, match="TINY_ROOT is not set"):
        recipe.folder(recipe.sources[0].root)


def test_no_such_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        Recipe.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("length", "settings", "clips"),
    [
        (16, {}, [[0, 8], [8, 16]]),
        (20, {}, [[0, 8], [8, 16], [16, 20]]),
        (3, {}, [[0, 3]]),
        (1, {}, [[0, 1]]),
        (10, {"every": 1}, [[0, 8], [1, 9], [2, 10]]),
        (9, {"frames": 2, "every": 4}, [[0, 2], [4, 6], [8, 9]]),
    ],
)
def test_clips(length: int, settings: dict[str, Any], clips: list[list[int]]) -> None:
    cut = ClipSettings(**settings)
    assert [cut.places(s, length) for s in cut.starts(length)] == [list(range(*c)) for c in clips]


@given(length=st.integers(1, 200), frames=st.integers(1, 20), stride=st.integers(1, 5), every=st.integers(1, 30))
def test_clips_reach_the_end_and_never_leave_the_video(length: int, frames: int, stride: int, every: int) -> None:
    cut = ClipSettings(frames=frames, stride=stride, every=every)
    clips = [cut.places(start, length) for start in cut.starts(length)]
    assert all(1 <= len(c) <= frames and c[-1] < length for c in clips)
    assert all(b - a == stride for c in clips for a, b in itertools.pairwise(c))
    if every <= frames and stride == 1:
        assert {place for c in clips for place in c} == set(range(length))


@pytest.mark.parametrize(("share", "samples", "allowed"), [(0.29, 100, 29), (0.57, 100, 57), (0.0, 9, 0), (0.1, 24, 2)])
def test_the_share_that_is_tolerated_is_the_one_that_is_written(share: float, samples: int, allowed: int) -> None:
    assert tolerated(share, samples) == allowed
