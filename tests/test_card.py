"""The data card and the Croissant file: what real clients make of them, and what they must not hold."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pytest
import worlds
import yaml
from apart import apart, executed

from aesampler.cli import run
from aesampler.corpus import Corpus
from aesampler.exposure import RULES
from aesampler.manifest import SCHEMA
from aesampler.report import card, croissant
from aesampler.sample import SampleJson
from aesampler.storage import Folder

# The second name begins with the first: a careless glob of `coco` takes its tars too.
PARTS = (
    corpora.IMAGES,
    replace(corpora.IMAGES, split="test", shards=(3,), bare=0, failed=()),
    replace(corpora.IMAGES, source="coco-x", encoding="png", bare=7),
    corpora.CLIPS,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return corpora.write(tmp_path_factory.mktemp("card") / "tiny", PARTS)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    yield datasets
    datasets.enable_progress_bars()


def front(text: str) -> dict[str, Any]:
    _, matter, _ = text.split("---\n", 2)
    return yaml.safe_load(matter)


def test_the_first_five_samples_are_normal_and_some_later_one_is_not(folder: Folder) -> None:
    rows = list(Corpus.open(folder).rows("train", "coco"))
    assert not any(row.anomalous for row in rows[:5])
    assert any(row.anomalous for row in rows[5:])


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", ["coco", "coco-x", "davis"])
def test_hugging_face_datasets_read_every_sample(
    folder: Folder, datasets: Any, name: str, streaming: bool, tmp_path: Path
) -> None:
    corpus = Corpus.open(folder)
    loaded = datasets.load_dataset(folder.url, name, streaming=streaming, cache_dir=str(tmp_path))
    assert set(loaded) == {split for split, parts in corpus.head.splits.items() if name in parts}
    for split, data in loaded.items():
        rows = list(data)
        assert [row["__key__"] for row in rows] == list(corpus.keys(split, name))
        for row in rows:
            sample = corpus[row["__key__"]]
            first = "000." if name == "davis" else ""
            assert np.array_equal(np.asarray(row[f"{first}mask.png"]) == 255, sample.masks[0])
            assert row["cls"] == int(sample.anomalous)
            body = row["json"]
            assert body["categories"] == list(sample.categories)
            assert body["ignored"][0]["size"] == list(sample.masks.shape[1:])
            assert body["redraw"] == sample.redraw


def test_the_features_are_those_of_datasets(folder: Folder, datasets: Any) -> None:
    for entry in front(folder.read("README.md").decode())["dataset_info"]:
        features = datasets.Features._from_yaml_list(entry["features"])
        assert features._to_yaml_list() == entry["features"]


def snippet(folder: Folder, word: str) -> str:
    """The one Python block of the card that holds `word`, with the corpus's place in it."""
    blocks = re.findall(r"```python\n(.*?)```", folder.read("README.md").decode(), re.S)
    (block,) = [block for block in blocks if word in block]
    return block.replace("CORPUS", folder.url)


@pytest.mark.filterwarnings("ignore")  # webdataset leaves its files to the garbage collector
def test_webdataset_reads_what_the_card_says(folder: Folder) -> None:
    place: dict[str, Any] = {"seen": []}
    code = snippet(folder, "import glob, webdataset")
    exec(code.replace("    sample[", "    seen.append(sample); sample[", 1), place)
    gc.collect()
    assert [sample["__key__"] for sample in place["seen"]] == list(Corpus.open(folder).keys("train", "coco"))
    assert place["seen"][0]["json"]["categories"]
    assert place["seen"][0]["jpg"].size == (corpora.WIDTH, corpora.HEIGHT)


@pytest.mark.parametrize("word", ["import aesampler", "import datasets"])
def test_the_snippets_run(folder: Folder, datasets: Any, word: str) -> None:
    exec(snippet(folder, word), {})


@pytest.mark.long
def test_ray_data_reads_what_the_card_says(folder: Folder) -> None:
    apart(executed, snippet(folder, "import glob, ray"))


def test_the_front_matter(folder: Folder) -> None:
    matter = front(folder.read("README.md").decode())
    assert matter["license"] == "cc-by-4.0"
    assert matter["size_categories"] == ["n<1K"]
    assert "webdataset" in matter["tags"]
    assert matter["configs"][0] == {
        "config_name": "coco",
        "data_files": [
            {"split": "train", "path": "train/coco-[0-9][0-9][0-9][0-9][0-9][0-9].tar"},
            {"split": "test", "path": "test/coco-[0-9][0-9][0-9][0-9][0-9][0-9].tar"},
        ],
    }
    assert [config["config_name"] for config in matter["configs"]] == ["coco", "coco-x", "davis"]


def test_the_fields_are_those_of_the_sample() -> None:
    assert tuple(name for name, _, _ in card.FIELDS) == SampleJson.__struct_fields__
    assert tuple(croissant.COLUMNS) == tuple(SCHEMA.names)


@pytest.mark.parametrize(
    ("samples", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**10, "n>1B")],
)
def test_size_categories(samples: int, size: str) -> None:
    assert card._size(samples) == size


@pytest.mark.parametrize(
    ("name", "matter"),
    [
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("mit", {"license": "mit"}),
        ("Our own terms", {"license": "other", "license_name": "Our own terms"}),
        ("", {"license": "unknown"}),
    ],
)
def test_licences(name: str, matter: dict[str, str]) -> None:
    assert card._license(name) == matter


def test_what_the_card_tells(folder: Folder) -> None:
    text = folder.read("README.md").decode()
    for line in (
        "# tiny",
        "A tiny corpus.",
        "- Licence: CC-BY-4.0",
        "| davis | validation | clips of 3 frames | jpg | 3 | ",
        "- 2: the picture is truncated",
        "| `max_categories` | `6` |",
        "| a \\| b | ",
    ):
        assert line in text, line
    assert "## How sure the lists are" not in text


def test_the_card_tells_how_sure_the_lists_are(tmp_path: Path) -> None:
    recipe = {
        "name": "sure",
        "sources": [{"name": "coco", "format": "coco", "root": str(tmp_path / "coco"), "split": "train"}],
    }
    worlds.coco(tmp_path / "coco", images=12)
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    out = Folder.at(tmp_path / "out")
    assert run(["build", "--config", str(tmp_path / "r.yaml"), "--out", out.url, "--executor", "inline"]) == 0
    head = Corpus.open(out).head
    text = out.read("README.md").decode()
    for rule, found in head.rejections.items():
        name, count = next(iter(found.top.items()))
        assert f"| `{rule}`: {card.KEPT_OFF[rule]} | {found.total} | {found.names} | {name} ({count})" in text
    assert set(card.KEPT_OFF) == set(RULES)
    assert "present" in head.rejections
    assert f"- coco: {head.shortcut['coco'].line}" in text


def test_the_licence_of_a_source_comes_from_its_manifest(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    known = {"title": "COCO", "homepage": "https://cocodataset.org", "license": "CC-BY-4.0 | Flickr", "citation": "Lin"}
    monkeypatch.setattr(card, "_dataset", lambda format: known if format == "coco" else {})
    text = card.data_card(Corpus.open(folder).head)
    assert "| coco | [COCO](https://cocodataset.org) | CC-BY-4.0 \\| Flickr |" in text
    assert "- coco: Lin" in text


def test_a_bare_recipe_still_has_a_card(tmp_path: Path) -> None:
    folder = corpora.write(tmp_path / "tiny", (corpora.IMAGES,), about={})
    matter = front(folder.read("README.md").decode())
    assert matter["license"] == "unknown"
    body = json.loads(folder.read("croissant.json"))
    assert body["url"].startswith("urn:sha256:")
    assert body["license"] == body["creator"]["name"] == "unknown"
    assert "datePublished" not in body
    assert body["description"]


def test_no_place_and_no_host_is_told(folder: Folder, tmp_path: Path) -> None:
    again, host = corpora.write(tmp_path / "elsewhere", PARTS), socket.gethostname().encode()
    for name in ("README.md", "croissant.json", "corpus.json"):
        data = folder.read(name)
        assert data == again.read(name)
        assert folder.url.encode() not in data
        assert host not in data or len(host) < 8  # a short one may be a word of the card


def test_croissant(folder: Folder) -> None:
    body = json.loads(folder.read("croissant.json"))
    assert body["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    for name in [
        "@context",
        "@type",
        "conformsTo",
        "name",
        "description",
        "license",
        "url",
        "creator",
        "datePublished",
    ]:
        assert body[name], name
    assert body["license"] == "https://spdx.org/licenses/CC-BY-4.0"
    assert body["datePublished"] == "2026-11-22"
    files = {entry["contentUrl"]: entry for entry in body["distribution"] if entry["@type"] == "cr:FileObject"}
    there = [path for path in folder.list() if path.endswith((".tar", ".parquet"))]
    assert sorted(files) == sorted(there)
    for path, entry in files.items():
        data = folder.read(path)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["contentSize"] == f"{len(data)} B"
        assert entry["encodingFormat"] == ("application/x-tar" if path.endswith("tar") else "application/x-parquet")
    ids = [entry["@id"] for entry in body["distribution"]]
    assert len(set(ids)) == len(ids)
    for entry in body["distribution"]:
        assert {part["@id"] for part in entry.get("containedIn", [])} <= set(ids)
    (records,) = body["recordSet"]
    kinds = {field["name"]: (field["dataType"], field.get("isArray", False)) for field in records["field"]}
    assert list(kinds) == SCHEMA.names
    assert kinds["key"] == ("sc:Text", False)
    assert kinds["anomaly_area"] == ("sc:Float", True)
    assert kinds["is_genuine"] == ("sc:Boolean", True)
    assert kinds["offset"] == ("sc:Integer", False)
