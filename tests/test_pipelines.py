"""Every bundled recipe is one; LAVIDA's mix is the paper's."""

from __future__ import annotations

from importlib import resources

import pytest

from aesampler.recipe import Recipe, bundled

NAMES = sorted(
    file.name.removesuffix(".yaml")
    for file in (resources.files("aesampler") / "pipelines").iterdir()
    if file.name.endswith(".yaml") and not file.name.startswith(("train-", "ablate-"))
)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_loads(name: str) -> None:
    recipe = Recipe.parse(bundled(name), where=name)
    assert recipe.name == name or name == "demo"
    assert recipe.out is not None
    for entry in recipe.sources:
        assert entry.reader.format == entry.format
        assert recipe.settings(entry).absence == "known" or name == "demo"


def test_the_mix_of_the_paper() -> None:
    recipe = Recipe.parse(bundled("lavida-paper"))
    shares = {entry.name: entry.weight for entry in recipe.sources}
    family = ("refclef", "refcoco", "refcoco-plus", "refcocog")
    assert sum(shares[name] or 0 for name in family) == pytest.approx(0.10)
    others = {name: share for name, share in shares.items() if name not in family}
    assert others == {
        "youtube-vos": 0.05,
        "ref-youtube-vos": 0.20,
        "mevis": 0.25,
        "ref-davis": 0.20,
        "cityscapes": 0.05,
        "ade20k-150": 0.10,
        "mapillary": 0.05,
    }
    assert sum(share or 0 for share in shares.values()) == pytest.approx(1.0)
    caps = {entry.name: recipe.settings(entry).max_categories for entry in recipe.sources}
    assert {name: cap for name, cap in caps.items() if cap != 30} == {"cityscapes": 6, "mapillary": 20}
    one = {entry.name for entry in recipe.sources if recipe.settings(entry).genuine == "one"}
    assert one == {"cityscapes", "ade20k-150", "mapillary"}
    assert (recipe.clips.frames, recipe.clips.stride, recipe.clips.every) == (8, 1, 8)
    assert recipe.exposure.anomaly_probability == 0.5
