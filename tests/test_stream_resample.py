"""Fresh exposures: pass 0 by the recipe's own settings is what the build drew, of every sample of every format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pytest
import worlds
import worlds_images
import worlds_videos
from test_stream import same

from aesampler import Corpus, ExposureSettings, Folder, Inline, Recipe, build_corpus, plan_corpus, sources
from aesampler.sample import derive
from aesampler.scene import Scene

LARGER: dict[str, dict[str, int]] = {
    "coco": {"images": 24},
    "lvis": {"images": 8},
    "davis": {"frames": 9},
    "youtube-vos": {"frames": 9},
}


def built(root: Path, **exposure: Any) -> Corpus:
    """A corpus of every format in its official layout."""
    sources = []
    for name, build in (worlds.BUILDERS | worlds_images.BUILDERS | worlds_videos.BUILDERS).items():
        made = build(root / name, **LARGER.get(name, {}))
        split = {"train": 0.6, "validation": 0.4} if name == "mapillary" else "train"
        sources.append({"name": name, "format": name, "root": str(made.root), "split": split, **made.options})
    body = {
        "name": "tiny",
        "seed": 44,
        "sources": sources,
        "shards": {"max_samples": 5},
        "exposure": {"absence": "unlisted", "irrelevant_from": "categories"} | exposure,
    }
    recipe = Recipe.of(body, base=root)
    build_corpus(plan_corpus(recipe), Folder.at(root / "out"), Inline())
    return Corpus.open(root / "out")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return built(tmp_path_factory.mktemp("world"), anomaly_probability=0.7)


def test_pass_0_is_what_the_build_drew(corpus: Corpus) -> None:
    seen: Counter[str] = Counter()
    for split in corpus.splits:
        for resample in (True, {}, {"anomaly_probability": 0.7}, False):
            stream = corpus.stream(split, resample=resample)
            for sample in stream:
                same(sample, corpus[sample.key])
                seen[sample.source] += 1
            assert stream.kept == 0
    assert sum(seen.values()) == 4 * len(corpus)
    assert set(seen) == set(sources.FORMATS)


def test_each_pass_draws_anew_and_the_same_everywhere(corpus: Corpus) -> None:
    first = {sample.key: sample for sample in corpus.stream("train", epoch=3, resample=True)}
    again = [
        sample
        for rank in range(3)
        for sample in corpus.stream("train", epoch=3, resample=True, rank=rank, world_size=3, last="pad")
    ]
    for sample in again:
        same(sample, first[sample.key], but=["duplicate"])
    assert any(sample.categories != corpus[key].categories for key, sample in first.items())
    assert any(sample.anomalous != corpus[key].anomalous for key, sample in first.items())
    for key, sample in first.items():
        drawn = derive(
            Scene.from_json(sample.redraw),
            corpus.vocabulary(sample.source),
            corpus.settings("train", sample.source),
            seed=44,
            source=sample.source,
            key=key,
            epoch=3,
            frames=len(sample.frames),
        )
        assert drawn is not None
        assert sample.categories == drawn[0].categories
        assert sample.frame_labels.tolist() == list(drawn[1].frame_labels)


def test_other_settings_change_labels_and_not_the_order(corpus: Corpus) -> None:
    stored = [sample.key for sample in corpus.stream("train")]
    normal = list(corpus.stream("train", resample={"anomaly_probability": 0.0, "max_categories": 3}))
    assert [sample.key for sample in normal] == stored
    assert not any(sample.anomalous or sample.masks.any() for sample in normal)
    assert {len(sample.categories) for sample in normal} <= {1, 2, 3}
    unlisted: dict[str, Any] = {"absence": "unlisted", "irrelevant_from": "categories"}
    settings = ExposureSettings(anomaly_probability=1.0, genuine="one", frame_labels="clip", **unlisted)
    anomalous = list(corpus.stream("train", resample=settings))
    assert [sample.key for sample in anomalous] == stored
    for sample in anomalous:
        assert sample.anomalous == bool(sample.scene.segments)
        assert sum(sample.is_genuine) == sample.anomalous
        assert sample.masks.any() == sample.anomalous
        labels = sample.frame_labels[: sample.valid_frames]
        assert np.array_equal(labels, np.full(len(labels), sample.anomalous))


def test_nothing_to_draw_keeps_what_is_stored(tmp_path: Path) -> None:
    corpus = Corpus.open(corpora.write(tmp_path / "tiny", (corpora.Part(source="coco", shards=(20,), bare=2),)))
    stream = corpus.stream("train", resample={"absence": "strict"}, epoch=1)
    kept = 0
    for sample in stream:
        if not sample.scene.exhaustive and not sample.scene.absent:
            same(sample, corpus[sample.key])
            kept += 1
    assert 0 < kept == stream.kept < 20


def test_a_sample_seen_twice_in_an_epoch_is_drawn_twice(tmp_path: Path) -> None:
    corpus = Corpus.open(corpora.write(tmp_path / "tiny", (corpora.Part(source="coco", shards=(20,), bare=2),)))
    found: dict[str, set[tuple[str, ...]]] = {}
    for sample in corpus.stream("train", resample=True, epoch_samples=100):
        found.setdefault(sample.key, set()).add(sample.categories)
    assert np.mean([len(lists) for lists in found.values()]) > 3
