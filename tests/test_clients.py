"""Corpora read by the field's own loaders, without code of ours on the reading side, compared with ours in full.

One corpus has anomalies; in another all samples are normal and shards begin with pictures without any segment: the case
in which a loader that infers its schema from the first five samples would go wrong.
"""

from __future__ import annotations

import gc
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
from apart import apart, ray_rows
from PIL import Image

from aesampler import Corpus, Folder, Inline, Recipe, Sample, build_corpus, plan_corpus

# webdataset and datasets leave the tars they have read to the garbage collector.
leaves_files_open = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning",
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture
def collected() -> Iterator[None]:
    """Files left open are collected within the test that left them."""
    yield
    gc.collect()


@pytest.fixture(scope="module", params=["mixed", "normal"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    base = tmp_path_factory.mktemp(request.param)
    coco = worlds.coco(base / "coco", images=24)
    worlds.davis(base / "davis", sequences=3, frames=9)
    worlds.lvis(base / "lvis", images=8)
    if request.param == "normal":
        file = next((coco.root).rglob("instances_*.json"))
        body = json.loads(file.read_text())
        kept = sorted(image["id"] for image in body["images"])[-4:]
        body["annotations"] = [a for a in body["annotations"] if a["image_id"] in kept]
        file.write_text(json.dumps(body))
    probability = 0.8 if request.param == "mixed" else 0.0
    recipe = Recipe.of(
        {
            "name": "clients",
            "sources": [
                {"name": "coco", "format": "coco", "root": "coco", "split": {"train": 0.7, "validation": 0.3}},
                {"name": "lvis", "format": "lvis", "root": "lvis"},
                {"name": "davis", "format": "davis", "root": "davis"},
            ],
            "clips": {"frames": 4, "every": 4},
            "exposure": {"anomaly_probability": probability},
            "shards": {"max_samples": 8},
        },
        base=base,
    )
    build_corpus(plan_corpus(recipe), Folder.at(base / "corpus"), Inline())
    made = Corpus.open(base / "corpus")
    if request.param == "normal":
        assert not any(row.anomalous for row in made.rows())
        first = [made.sample(row) for row in list(made.rows(split="train", source="coco"))[:5]]
        assert any(not sample.scene.segments for sample in first)
    return made


def tars(corpus: Corpus, split: str, source: str) -> list[str]:
    return sorted(str(path) for path in (corpus.folder.path / split).glob(f"{source}-*.tar"))


def parts(corpus: Corpus) -> Iterator[tuple[str, str, dict[str, Sample]]]:
    """(split, source, key -> sample) as our own reader gives them."""
    for split, sources in corpus.head.splits.items():
        for source in sources:
            yield split, source, {row.key: corpus.sample(row) for row in corpus.rows(split, source)}


def agree(sample: Sample, body: dict[str, Any], frames: list[Any], masks: list[Any]) -> None:
    """A client's decoded JSON, pictures and masks are those of our reader."""
    assert body["key"] == sample.key
    assert list(body["categories"]) == list(sample.categories)
    assert [bool(value) for value in body["is_genuine"]] == list(sample.is_genuine)
    assert list(body["presence"]) == list(sample.presence)
    assert list(body["frame_labels"]) == sample.frame_labels.tolist()
    assert bool(body["anomalous"]) == sample.anomalous
    assert body["redraw"] == sample.redraw
    assert np.array_equal(np.stack([np.asarray(frame) for frame in frames]), sample.frames)
    # webdataset's and Ray's decoders make RGB of grey.
    planes = [plane if plane.ndim == 2 else plane[..., 0] for plane in map(np.asarray, masks)]
    assert np.array_equal(np.stack(planes) == 255, sample.masks)


def members(sample: Sample) -> tuple[list[str], list[str]]:
    if sample.key.startswith("davis"):
        return [f"{i:03d}.jpg" for i in range(4)], [f"{i:03d}.mask.png" for i in range(4)]
    return ["jpg"], ["mask.png"]


def test_tarfile(corpus: Corpus) -> None:
    for split, source, samples in parts(corpus):
        found: dict[str, dict[str, bytes]] = {}
        for path in tars(corpus, split, source):
            with tarfile.open(path) as tar:
                for member in tar:
                    key, _, extension = member.name.partition(".")
                    file = tar.extractfile(member)
                    assert file is not None
                    found.setdefault(key, {})[extension] = file.read()
                    assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert found.keys() == samples.keys()
        for key, sample in samples.items():
            frames, masks = members(sample)
            pictures = [[Image.open(io.BytesIO(found[key][e])) for e in group] for group in (frames, masks)]
            agree(sample, json.loads(found[key]["json"]), *pictures)


def test_offsets_give_the_same_members_as_reading_through(corpus: Corpus) -> None:
    for row in corpus.rows():
        data = (corpus.folder.path / row.shard).read_bytes()[row.offset : row.offset + row.size]
        with tarfile.open(fileobj=io.BytesIO(data)) as block, tarfile.open(corpus.folder.path / row.shard) as tar:
            inside = {member.name: block.extractfile(member).read() for member in block}  # type: ignore[union-attr]
            through = {
                member.name: tar.extractfile(member).read()  # type: ignore[union-attr]
                for member in tar
                if member.name.split(".")[0] == row.key
            }
            assert list(inside) == list(through)
            assert inside == through


@leaves_files_open
@pytest.mark.usefixtures("collected")
def test_webdataset(corpus: Corpus) -> None:
    import webdataset

    for split, source, samples in parts(corpus):
        dataset = webdataset.WebDataset(tars(corpus, split, source), shardshuffle=False).decode("pil")
        seen = 0
        for item in dataset:
            sample = samples[item["__key__"]]
            frames, masks = members(sample)
            agree(sample, item["json"], [item[e] for e in frames], [item[e] for e in masks])
            assert item["cls"] == int(sample.anomalous)
            seen += 1
        assert seen == len(samples)


@leaves_files_open
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(corpus: Corpus, streaming: bool, tmp_path: Path) -> None:
    import datasets

    for split, source, samples in parts(corpus):
        dataset = datasets.load_dataset(
            str(corpus.folder.path), source, split=split, streaming=streaming, cache_dir=str(tmp_path)
        )
        seen = 0
        for item in dataset:
            sample = samples[item["__key__"]]
            frames, masks = members(sample)
            agree(sample, item["json"], [item[e] for e in frames], [item[e] for e in masks])
            seen += 1
        assert seen == len(samples)


@pytest.mark.long
def test_ray_data(corpus: Corpus) -> None:
    for split, source, samples in parts(corpus):
        rows = apart(ray_rows, tars(corpus, split, source))
        for item in rows:
            sample = samples[item["__key__"]]
            frames, masks = members(sample)
            agree(sample, item["json"], [item[e] for e in frames], [item[e] for e in masks])
        assert len(rows) == len(samples)
