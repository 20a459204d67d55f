"""Every video set of worlds_videos.py through plan and build to a corpus that says what the world says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds_videos

from aesampler import build_corpus, plan_corpus
from aesampler.corpus import Corpus
from aesampler.executors.inline import Inline
from aesampler.recipe import Recipe
from aesampler.storage import Folder


def recipe(format: str, root: Path, out: Path, options: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": format,
            "out": str(out),
            "sources": [{"name": format, "format": format, "root": str(root), **options}],
            "clips": {"frames": 3, "every": 2},
            "exposure": {"irrelevant_from": "categories", "anomaly_probability": 0.7},
        }
    )


@pytest.mark.parametrize("format", sorted(worlds_videos.BUILDERS))
def test_a_corpus_says_what_the_world_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setenv("AESAMPLER_CACHE", str(tmp_path / "cache"))
    world = worlds_videos.BUILDERS[format](tmp_path / "set")
    made = recipe(format, tmp_path / "set", tmp_path / "out", dict(world.options))
    plan = plan_corpus(made)
    build_corpus(plan, Folder.at(tmp_path / "out"), Inline())
    corpus = Corpus.open(str(tmp_path / "out"))
    assert len(corpus) == plan.samples > 0
    exposed = 0
    for place in range(len(corpus)):
        sample = corpus[place]
        frames = {Path(path).stem: time for time, path in enumerate(world.frames[sample.origin])}
        times = [frames[name] for name in sample.origin_frames]
        truth, present = world.truth[sample.origin], world.present[sample.origin]
        expected = np.zeros_like(sample.masks)
        for name, is_genuine, known in zip(sample.categories, sample.is_genuine, sample.presence, strict=True):
            assert is_genuine == (name in present), f"{sample.key}: {name}"
            absent = world.exhaustive or name in world.absent.get(sample.origin, ())
            assert known == ("present" if is_genuine else "absent" if absent else "unknown")
            if is_genuine:
                expected[: len(times)] |= truth[name][times]
        expected[len(times) :] = expected[len(times) - 1]
        assert np.array_equal(sample.masks & ~sample.ignored, expected & ~sample.ignored), sample.key
        assert sample.anomalous == any(sample.is_genuine)
        exposed += int(expected.sum())
    assert exposed > 0
