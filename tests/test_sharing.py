"""What one source of a recipe knows of a picture holds for the others that have it too."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from aesampler import Corpus, Folder, Inline, Recipe, build_corpus, plan_corpus
from aesampler.catalog import Catalog
from aesampler.sharing import shared
from aesampler.sources.coco import Coco

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def dataset(root: Path, names: list[str], pictures: dict[int, list[str]], years: int = 2017) -> Folder:
    """COCO's layout: the names that each picture shows."""
    (root / f"train{years}").mkdir(parents=True)
    (root / "annotations").mkdir()
    body: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for number, shown in pictures.items():
        file = f"{number:012d}.jpg"
        Image.new("RGB", (10, 8), (number, 90, 30)).save(root / f"train{years}" / file)
        body["images"].append({"id": number, "file_name": file, "height": 8, "width": 10})
        for name in shown:
            entry = {"image_id": number, "category_id": names.index(name), "segmentation": SQUARE}
            body["annotations"].append({"id": len(body["annotations"]), **entry})
    body["categories"] = [{"id": place, "name": name} for place, name in enumerate(names)]
    (root / f"annotations/instances_train{years}.json").write_text(json.dumps(body))
    return Folder.at(root)


HOME = ["couch", "dog", "lamp", "cat"]
ZOO = ["dogs", "sofa", "cat", "zebra", "lamp"]


@pytest.fixture
def pair(tmp_path: Path) -> list[Catalog]:
    """Two datasets that share picture 1 alone."""
    home = dataset(tmp_path / "home", HOME, {1: ["couch", "dog"], 2: ["lamp"], 3: ["cat"], 4: ["dog"]})
    zoo = dataset(tmp_path / "zoo", ZOO, {1: ["lamp", "zebra"], 5: ["sofa"], 6: ["dogs", "cat"]})
    return [Catalog.of(Coco(), root) for root in (home, zoo)]


def elsewhere(catalog: Catalog) -> dict[str, set[str]]:
    return {
        entry.record.group: {catalog.categories[place].name for place in entry.record.elsewhere}
        for entry in catalog.rows()
    }


def test_what_another_source_finds_is_elsewhere(pair: list[Catalog]) -> None:
    home, zoo = shared(pair, None)
    # "dogs" is a spelling of dog; sofa and couch stand in one row of our own table.
    assert elsewhere(zoo) == {"coco:1": {"dogs", "sofa"}, "coco:5": set(), "coco:6": set()}
    assert elsewhere(home) == {"coco:1": {"lamp"}, "coco:2": set(), "coco:3": set(), "coco:4": set()}
    assert all(not names for catalog in pair for names in elsewhere(catalog).values())


def test_all_else_of_a_row_stays(pair: list[Catalog]) -> None:
    for before, after in zip(pair, shared(pair, None), strict=True):
        for one, other in zip(before.rows(), after.rows(), strict=True):
            assert one.frame_bytes == other.frame_bytes
            for field in ("id", "group", "frames", "masked", "ignored", "absent", "payload"):
                assert getattr(one.record, field) == getattr(other.record, field)


def test_the_fingerprint_says_so_and_the_cache_keeps_it(pair: list[Catalog]) -> None:
    once, again = shared(pair, None), shared(pair, None)
    assert [catalog.folder for catalog in once] == [catalog.folder for catalog in again]
    for alone, both in zip(pair, once, strict=True):
        assert set(both.fingerprint) - set(alone.fingerprint) == {"others"}
        assert both.fingerprint["catalog"] == alone.fingerprint["catalog"]
    assert once[0].fingerprint["others"] != once[1].fingerprint["others"]


def test_masks_that_were_corrected_are_read_again(tmp_path: Path, pair: list[Catalog]) -> None:
    """The names of all pictures are as they were, and where their masks lie in the file is not."""
    shared(pair, None)
    before = [entry.record.payload for entry in pair[0].rows()]
    file = tmp_path / "home/annotations/instances_train2017.json"
    file.write_text(file.read_text().replace(json.dumps(SQUARE), json.dumps([[2, 2, 8, 2, 8, 7, 2, 7]])))
    os.utime(file, ns=(1, 1))  # as large as before, and a disk's clock has ticks
    home = Catalog.of(Coco(), Folder.at(tmp_path / "home"))
    revised, _ = shared([home, pair[1]], None)
    now = [entry.record.payload for entry in home.rows()]
    assert [entry.record.payload for entry in revised.rows()] == now != before


def test_sources_that_share_nothing_are_left_alone(tmp_path: Path, pair: list[Catalog]) -> None:
    other = Catalog.of(Coco(), dataset(tmp_path / "other", ["dog"], {9: ["dog"]}))
    assert shared([pair[0], other], None) == [pair[0], other]
    assert shared([pair[0], pair[0]], None) == [pair[0], pair[0]]


def test_the_names_that_are_known_absent_are_so_no_more(tmp_path: Path) -> None:
    """LVIS verified that there is no dog; COCO has drawn one."""
    from aesampler.sources.lvis import Lvis

    coco = dataset(tmp_path / "coco", ["dog", "cat"], {1: ["dog"]})
    root = tmp_path / "lvis"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    Image.new("RGB", (10, 8)).save(root / "train2017/000000000001.jpg")
    image = {"id": 1, "coco_url": "http://x/train2017/000000000001.jpg", "height": 8, "width": 10}
    image |= {"neg_category_ids": [1, 2], "not_exhaustive_category_ids": []}
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "zebra"}]
    for entry in categories:
        entry |= {"synset": f"{entry['name']}.n.01", "synonyms": [entry["name"]], "def": "", "frequency": "f"}
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": SQUARE, "area": 9, "bbox": [1, 1, 4, 4]}
    body = {"images": [image], "categories": categories, "annotations": [annotation]}
    (root / "annotations/lvis_v1_train.json").write_text(json.dumps(body))
    alone = [Catalog.of(Coco(), coco), Catalog.of(Lvis(), Folder.at(root))]
    assert [entry.record.absent for entry in alone[1].rows()] == [(0, 1)]
    (found,) = shared(alone, None)[1].rows()
    assert (found.record.absent, found.record.elsewhere) == ((1,), (0,))


def test_no_build_lists_them(tmp_path: Path, pair: list[Catalog]) -> None:
    recipe = {
        "name": "both",
        "sources": [
            {"name": name, "format": "coco", "root": str(tmp_path / name), "split": "train"} for name in ("home", "zoo")
        ],
        "exposure": {"anomaly_probability": 0.0, "absence": "unlisted", "irrelevant_from": "categories"},
    }
    listed: dict[str, set[str]] = {"home": set(), "zoo": set()}
    for seed in range(12):
        path = tmp_path / f"r{seed}.yaml"
        path.write_text(yaml.safe_dump(recipe | {"seed": seed}))
        out = Folder.at(tmp_path / f"out{seed}")
        build_corpus(plan_corpus(Recipe.load(path)), out, Inline())
        corpus = Corpus.open(out.url)
        for row in corpus.rows():
            if row.group == "coco:1":
                listed[row.source].update(row.categories)
        assert corpus.head.rejections["elsewhere"].top == {"dogs": 1, "lamp": 1, "sofa": 1}
    # The couch and the dog of one are the sofa and the dogs of the other; each lamp and zebra is only the other's.
    assert listed == {"home": {"cat"}, "zoo": {"cat"}}
