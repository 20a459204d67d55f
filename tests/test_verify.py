"""What `verify` finds: nothing in a sound corpus, and each fault by the check that is meant for it."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpora
import msgspec
import numpy as np
import pytest
from PIL import Image

from aesampler import masks
from aesampler.corpus import Corpus
from aesampler.head import CorpusHead
from aesampler.manifest import SampleRow
from aesampler.storage import Folder
from aesampler.verify import CHECKS, SHOWN, verify

Members = dict[str, bytes]
TAR, PARQUET = "train/coco-000000.tar", "manifest/train/coco-000000.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return corpora.write(
        tmp_path_factory.mktemp("sound") / "tiny", (*corpora.PARTS, replace(corpora.IMAGES, source="ade"))
    )


@pytest.fixture
def folder(sound: Folder, tmp_path: Path) -> Folder:
    shutil.copytree(sound.path, tmp_path / "tiny")
    return Folder.at(tmp_path / "tiny")


def found(folder: Folder, deep: bool = False) -> dict[str, list[str]]:
    """Check -> its problems."""
    told: dict[str, list[str]] = {}
    for problem in verify(Corpus.open(folder), deep=deep).problems:
        told.setdefault(problem.check, []).append(str(problem))
    return told


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_corpus(sound: Folder, deep: bool) -> None:
    seen: list[tuple[str, int, int, int]] = []
    verdict = verify(Corpus.open(sound), deep=deep, progress=lambda *told: seen.append(told))
    assert verdict.problems == verdict.warnings == ()
    assert verdict.ok
    assert verdict.line.endswith(f"21 samples, {12 + deep} checks{', deep' * deep}: nothing is wrong")
    looked = {check.name: check.looked for check in verdict.checks}
    assert list(looked) == list(CHECKS)
    assert looked["offsets"] == looked["masks"] == looked["labels"] == looked["pictures"] == 21
    assert looked["draws"] == 21 * deep
    assert [told[1] for told in seen] == [6, 9, 15, 18, 21]
    assert seen[-1][::2] == ("samples", 21)
    assert seen[-1][3] == sum((sound / "train").list().values()) + 40960
    assert json.loads(json.dumps(verdict.to_json()))["ok"] is True


def flip(folder: Folder, path: str, place: int) -> None:
    data = bytearray(folder.read(path))
    data[place] ^= 1
    folder.commit_bytes(path, bytes(data))


def edit_head(folder: Folder, change: Callable[[dict[str, Any]], object]) -> None:
    body = json.loads(folder.read("corpus.json"))
    change(body)
    folder.commit_bytes("corpus.json", CorpusHead.of_json(json.dumps(body).encode()).to_json())


FILES: dict[str, tuple[Callable[[Folder], object], dict[str, str]]] = {
    "a byte of a picture": (
        lambda folder: flip(folder, TAR, folder.read(TAR).index(b"\xff\xd8") + 300),
        {"tars": "sha256 is"},
    ),
    "a byte of a header": (
        lambda folder: flip(folder, TAR, 3),
        {"tars": "not a tar of samples after 0 of them"},
    ),
    "a tar cut short": (
        lambda folder: folder.commit_bytes(TAR, folder.read(TAR)[:-11000]),
        {"tars": "its size is"},
    ),
    "no tar": (lambda folder: folder.remove(TAR), {"tars": f"{TAR}: missing"}),
    "another tar": (
        lambda folder: folder.commit_bytes(TAR, folder.read("train/coco-000001.tar")),
        {"tars": "the number of its samples is 3, 6 is stated", "offsets": "its place"},
    ),
    "no manifest": (lambda folder: folder.remove(PARQUET), {"manifests": f"{PARQUET}: missing", "head": "totals"}),
    "another manifest": (
        lambda folder: folder.commit_bytes(PARQUET, folder.read("manifest/train/coco-000001.parquet")),
        {"manifests": "sha256 is", "head": "not the sum", "tars": "the number of its rows is 3, 6 is stated"},
    ),
    "no Parquet": (lambda folder: folder.commit_bytes(PARQUET, b"x" * 99), {"manifests": "not a manifest of a shard"}),
    "no card": (lambda folder: folder.remove("README.md"), {"card": "README.md: missing"}),
    "another card": (lambda folder: flip(folder, "README.md", 900), {"card": "README.md: not what corpus.json"}),
    "another croissant": (lambda folder: flip(folder, "croissant.json", 900), {"card": "croissant.json: not what"}),
    "no vocabulary": (
        lambda folder: folder.remove("vocabulary/coco.parquet"),
        {"vocabulary": "the vocabulary is gone", "card": "croissant.json: missing: "},
    ),
    "another vocabulary": (
        lambda folder: flip(folder, "vocabulary/coco.parquet", 40),
        {"vocabulary": "not a vocabulary: ", "card": "croissant.json: not what"},
    ),
    "a sum": (
        lambda folder: edit_head(folder, lambda body: body["totals"].update(samples=7)),
        {"head": "not the sum of the manifests: totals", "card": "README.md"},
    ),
    "the recipe": (
        lambda folder: edit_head(folder, lambda body: body["recipe"].update(name="other")),
        {"head": "not the sum of the manifests: name, recipe_sha256"},
    ),
    "a recipe without its sources": (
        lambda folder: edit_head(folder, lambda body: body["recipe"].update(sources=[])),
        {"head": "the recipe says nothing sound of coco, train"},
    ),
    "the sum of a tar": (
        lambda folder: edit_head(
            folder, lambda body: body["splits"]["train"]["coco"]["shards"][0].update(sha256="0" * 64)
        ),
        {"manifests": "it says something else of its tar than corpus.json", "tars": "sha256 is", "head": "splits"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file(folder: Folder, name: str) -> None:
    change, expected = FILES[name]
    change(folder)
    told = found(folder)
    for check, text in expected.items():
        assert any(text in line for line in told[check]), told


def body(members: Members, **changes: Any) -> Members:
    return members | {"json": msgspec.json.encode(msgspec.json.decode(members["json"]) | changes)}


def png(members: Members, array: np.ndarray, extension: str = "mask.png") -> Members:
    sink = io.BytesIO()
    Image.fromarray(array).save(sink, format="PNG")
    return members | {extension: sink.getvalue()}


def plane(members: Members) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(members["mask.png"])))


def moved(members: Members) -> Members:
    return png(members, np.roll(plane(members), 1, axis=0))


def redraw(members: Members, **changes: Any) -> Members:
    stored = json.loads(json.loads(members["json"])["redraw"])
    return body(members, redraw=json.dumps(stored | changes))


BAD_RLE = [{"size": [1, 1], "counts": "0"}]

# What is done to (row, members) of the first anomalous picture of coco, the check that finds it, and what it says.
SAMPLES: dict[str, tuple[Callable[[SampleRow, Members], tuple[SampleRow, Members]], str, str]] = {
    "cls": (lambda row, m: (row, m | {"cls": b"0"}), "members", "K.cls is not the label of the row"),
    "order": (lambda row, m: (row, {"cls": m["cls"]} | m), "members", "the list of members is cls, json, jpg"),
    "a member more": (lambda row, m: (row, m | {"txt": b""}), "members", "jpg, mask.png, txt"),
    "a member less": (
        lambda row, m: (row, {ext: data for ext, data in m.items() if ext != "jpg"}),
        "members",
        "the list of members is json, cls, mask.png",
    ),
    "json": (lambda row, m: (row, m | {"json": b"{"}), "members", "K.json is not as the corpus format says"),
    "a null": (lambda row, m: (row, body(m, origin=None)), "members", "Expected `str`, got `null`"),
    "a field more": (lambda row, m: (row, body(m, extra=1)), "members", "K.json holds more than its fields"),
    "an empty list": (lambda row, m: (row, body(m, origin_frames=[])), "members", "origin_frames of K.json is empty"),
    "another name": (lambda row, m: (row, body(m, categories=["cow"])), "members", "categories of K.json is ['cow']"),
    "another size": (lambda row, m: (row, body(m, width=9)), "members", "width of K.json is 9, 32 (of the row)"),
    "a redraw": (lambda row, m: (row, body(m, redraw="{}")), "members", "redraw cannot be read"),
    "a redraw of another size": (
        lambda row, m: (row, redraw(m, size=[1, 2])),
        "members",
        "redraw (height, width, valid frames) is (1, 2, 1)",
    ),
    "a truncated picture": (lambda row, m: (row, m | {"jpg": m["jpg"][:-20]}), "pictures", "jpg: "),
    "a picture of another size": (
        lambda row, m: (row, png(m, np.zeros((3, 3, 3), np.uint8), "jpg")),
        "pictures",
        "jpg is ('png', (3, 3)), ('jpg', (24, 32)) is stated",
    ),
    "a moved mask": (lambda row, m: (row, moved(m)), "masks", "masks_sha256 is"),
    "a mask of ones": (lambda row, m: (row, png(m, plane(m) // 255)), "masks", "not 8-bit grey of 0 and 255"),
    "a mask in colour": (
        lambda row, m: (row, png(m, np.stack([plane(m)] * 3, -1))),
        "masks",
        "not 8-bit grey of 0 and 255",
    ),
    "a smaller mask": (lambda row, m: (row, png(m, plane(m)[:3])), "masks", "the size of mask.png is (3, 32)"),
    "no mask at all": (lambda row, m: (row, m | {"mask.png": b"none"}), "masks", "mask.png: "),
    "an area": (lambda row, m: (replace(row, anomaly_area=(0.5,)), m), "masks", "anomaly_area is"),
    "an ignored area": (lambda row, m: (replace(row, ignored_area=(0.5,)), m), "masks", "ignored_area is"),
    "an ignored mask": (lambda row, m: (row, body(m, ignored=BAD_RLE)), "masks", "no run-length mask of the picture's"),
    "ignored and anomalous": (
        lambda row, m: (row, body(m, ignored=[{"size": [24, 32], "counts": masks.encode(np.ones((24, 32), bool))}])),
        "masks",
        "both anomalous and ignored",
    ),
    "a frame label": (
        lambda row, m: (replace(row, frame_labels=(0,)), body(m, frame_labels=[0])),
        "labels",
        "frame 0 is labelled 0, where the masks allow [1]",
    ),
    "the label": (
        lambda row, m: (replace(row, anomalous=False), body(m, anomalous=False) | {"cls": b"0"}),
        "labels",
        "anomalous is not whether there is a mask",
    ),
    "no genuine name": (
        lambda row, m: (
            replace(row, is_genuine=(False,) * len(row.is_genuine)),
            body(m, is_genuine=[False] * len(row.is_genuine)),
        ),
        "labels",
        "is marked present and is irrelevant",
    ),
    "a name twice": (
        lambda row, m: (
            replace(row, categories=row.categories[:1] * len(row.categories)),
            body(m, categories=list(row.categories[:1]) * len(row.categories)),
        ),
        "labels",
        "a name is listed twice",
    ),
    "a name of no vocabulary": (
        lambda row, m: (
            replace(row, categories=("cow", *row.categories[1:])),
            body(m, categories=["cow", *row.categories[1:]]),
        ),
        "vocabulary",
        "listed, and not in the vocabulary: cow",
    ),
    "valid frames": (
        lambda row, m: (replace(row, valid_frames=0), body(m, valid_frames=0)),
        "members",
        "0 valid frames of 1",
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_changed_sample(folder: Folder, name: str) -> None:
    change, check, text = SAMPLES[name]
    target = next(row.key for row in Corpus.open(folder).rows(source="coco") if row.anomalous)
    corpora.rewrite(folder, lambda row, members: change(row, members) if row.key == target else (row, members))
    told = found(folder)
    assert any(text in line and target in line for line in told[check]), told
    assert told.keys() <= {"members", "pictures", "masks", "labels", "vocabulary"}


def test_an_offset_that_points_elsewhere(folder: Folder) -> None:
    import aesampler.manifest as manifest

    data = folder.read(PARQUET)
    head, rows = manifest.read_head(io.BytesIO(data)), manifest.read_rows(io.BytesIO(data))
    rows[2] = replace(rows[2], offset=rows[1].offset)
    folder.commit(PARQUET, lambda sink: manifest.write(rows, sink, head))
    told = found(folder)
    assert any("its place (key, shard, index, offset, size)" in line for line in told["offsets"])
    assert len(told["offsets"]) == 1


def test_the_deep_look_draws_again(folder: Folder) -> None:
    target = next(row.key for row in Corpus.open(folder).rows(source="coco") if not row.anomalous)
    seen = {"segments": {}, "present": ["cat"], "exhaustive": False, "absent": []}
    corpora.rewrite(folder, lambda row, m: (row, redraw(m, **seen)) if row.key == target else (row, m))
    assert found(folder) == {}
    told = found(folder, deep=True)
    assert told.keys() == {"draws"}
    assert f"{target}: drawn again, it differs in " in told["draws"][0]


def test_the_deep_look_decodes_pictures(folder: Folder) -> None:
    def spoil(row: SampleRow, members: Members) -> tuple[SampleRow, Members]:
        if row.source != "coco" or row.index != 1:
            return row, members
        data = members["jpg"]
        table = data.index(b"\xff\xc4") + 5  # the counts of a Huffman table: more codes than there can be
        return row, members | {"jpg": data[:table] + b"\xff" * 16 + data[table + 16 :]}

    corpora.rewrite(folder, spoil)
    assert found(folder) == {}
    assert "cannot be decoded" in found(folder, deep=True)["pictures"][0]


def test_keys_are_unique_and_well_formed(folder: Folder) -> None:
    def rename(row: SampleRow, members: Members) -> tuple[SampleRow, Members]:
        if row.key != "ade_train_000002":
            return row, members
        return replace(row, key="coco_train_000009"), body(members, key="coco_train_000009")

    corpora.rewrite(folder, rename)
    (line,) = found(folder)["keys"]
    assert line.endswith(
        "manifest/train/coco-000001.parquet: coco_train_000009: the key is in manifest/train/ade-000000.parquet too"
    )


def grouped(folder: Folder, *allowed: str) -> dict[str, list[str]]:
    def change(row: SampleRow, members: Members) -> tuple[SampleRow, Members]:
        return (replace(row, group="davis:bear") if row.key.endswith("0") else row), members

    def allow(head: CorpusHead) -> CorpusHead:
        recipe = head.recipe | {"allow_shared_groups": list(allowed)}
        return msgspec.structs.replace(head, recipe=recipe, recipe_sha256=corpora.recipe_hash(recipe))

    corpora.rewrite(folder, change, head=allow)
    return found(folder)


def test_a_group_in_two_splits(folder: Folder) -> None:
    assert grouped(folder) == {"groups": ["davis:bear: the group lies in train and validation"]}


@pytest.mark.parametrize("allowed", ["davis:bear", "davis:*"])
def test_a_group_that_may_lie_in_two_splits(folder: Folder, allowed: str) -> None:
    assert grouped(folder, "coco:*", allowed) == {}


def test_foreign_files_are_warnings(folder: Folder) -> None:
    folder.commit_bytes("train/notes.txt", b"hello")
    folder.commit_bytes(".build/plan.json", b"{}")
    verdict = verify(Corpus.open(folder))
    assert verdict.ok
    assert [str(warning) for warning in verdict.warnings] == [
        ".build/plan.json: does not belong to the corpus",
        "train/notes.txt: does not belong to the corpus",
    ]
    assert verdict.line.endswith("nothing is wrong; 2 files do not belong to it")


def test_a_card_of_another_version_is_not_a_fault(folder: Folder) -> None:
    edit_head(folder, lambda body: body["tools"].update(aesampler="0.0.1"))
    assert found(folder) == {}


def test_many_problems_are_counted_and_some_told(tmp_path: Path) -> None:
    many = replace(corpora.IMAGES, shards=(SHOWN + 10,), bare=0, failed=())
    folder = corpora.write(tmp_path / "many", (many,))
    corpora.rewrite(folder, lambda row, members: (row, members | {"cls": b"2"}))
    verdict = verify(Corpus.open(folder))
    assert len(verdict.problems) == SHOWN
    assert f": {SHOWN + 10} problems" in verdict.line
