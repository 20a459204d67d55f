"""The plan: which record lies where, how limits nest, that splits share no picture; what is refused beforehand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import worlds

from aesampler.errors import AesamplerError, RecipeError, SourceError
from aesampler.plan import Plan, plan_corpus, split_of
from aesampler.recipe import Recipe


def recipe(root: Path, *sources: dict[str, Any], **keys: Any) -> Recipe:
    return Recipe.of({"name": "tiny", "sources": list(sources), **keys}, base=root)


def plan(root: Path, *sources: dict[str, Any], **keys: Any) -> Plan:
    return plan_corpus(recipe(root, *sources, **keys))


def ids(made: Plan, split: str) -> list[str]:
    """Ids of the planned records of the first entry in a split, in order, over all shards."""
    entry = made.recipe.sources[0]
    return [
        row.record.id
        for task in made.tasks
        if task.split == split and task.entry == 0
        for row in made.catalogs[0].rows(task.first, task.last)
        if split_of(entry, row.record.group) == split
    ]


def test_every_record_lies_in_one_shard(tmp_path: Path) -> None:
    worlds.coco(tmp_path / "coco", images=60)
    entry = {"name": "coco", "format": "coco", "root": "coco", "split": {"train": 0.8, "validation": 0.2}}
    made = plan(tmp_path, entry, shards={"max_samples": 7})
    train, validation = ids(made, "train"), ids(made, "validation")
    assert Counter(train + validation) == Counter(row.record.id for row in made.catalogs[0].rows())
    assert len(validation) == PINNED_VALIDATION
    assert all(task.samples <= 7 for task in made.tasks)
    assert [s.samples for s in made.sources] == [len(train), len(validation)]
    # Another seed changes the draws, never who is where.
    again = plan(tmp_path, entry, shards={"max_samples": 7}, seed=9)
    assert again.tasks == made.tasks


PINNED_VALIDATION = 12


def test_limits_nest_and_do_not_change_draws(tmp_path: Path) -> None:
    worlds.coco(tmp_path / "coco", images=30)
    entry = {"name": "coco", "format": "coco", "root": "coco"}
    whole = plan(tmp_path, entry)
    order = ids(whole, "train")
    assert order != sorted(order)
    for limit in (1, 5, 29, 30, 99):
        some = plan(tmp_path, entry | {"limit": limit})
        assert ids(some, "train") == order[:limit]
        assert some.vocabularies["coco"] == whole.vocabularies["coco"]


def test_bytes_cut_shards(tmp_path: Path) -> None:
    worlds.coco(tmp_path / "coco", images=20)
    entry = {"name": "coco", "format": "coco", "root": "coco"}
    sizes = [row.frame_bytes[0] for row in plan(tmp_path, entry).catalogs[0].rows()]
    limit = 3 * max(sizes)
    made = plan(tmp_path, entry, shards={"max_bytes": limit})
    assert sum(task.bytes for task in made.tasks) == sum(sizes) == made.bytes
    for task in made.tasks[:-1]:
        assert task.bytes <= limit < task.bytes + sizes[task.last]


def test_a_videos_clips_stay_together(tmp_path: Path) -> None:
    worlds.davis(tmp_path / "davis", sequences=4, frames=9)
    entry = {"name": "davis", "format": "davis", "root": "davis"}
    made = plan(tmp_path, entry, clips={"frames": 2, "every": 2}, shards={"max_samples": 7})
    assert [task.samples for task in made.tasks] == [5, 5, 5, 5]
    (source,) = made.sources
    assert (source.records, source.samples, source.frames) == (4, 20, 40)


def test_one_picture_in_two_splits_is_refused(tmp_path: Path) -> None:
    worlds.coco(tmp_path / "coco", images=6)
    two = [
        {"name": "one", "format": "coco", "root": "coco", "split": "train"},
        {"name": "two", "format": "coco", "root": "coco", "split": "validation", "subset": "train"},
    ]
    with pytest.raises(RecipeError, match=r"6 pictures or videos lie in both train and validation, the first coco:"):
        plan(tmp_path, *two)
    plan(tmp_path, *two, allow_shared_groups=["coco:*"])
    shares = {"train": 0.5, "validation": 0.5}
    dealt = plan(tmp_path, *(entry | {"split": shares, "subset": "train"} for entry in two))
    assert len({s.samples for s in dealt.sources if s.split == "train"}) == 1


def test_missing_pictures_are_counted(tmp_path: Path) -> None:
    worlds.coco(tmp_path / "coco", images=6)
    next((tmp_path / "coco").rglob("*.jpg")).unlink()
    (source,) = plan(tmp_path, {"name": "coco", "format": "coco", "root": "coco"}).sources
    assert (source.samples, source.missing) == (6, 1)


def annotations(root: Path) -> Path:
    (file,) = root.rglob("instances_*.json")
    return file


def edit(root: Path, change: Any) -> None:
    file = annotations(root)
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


def _no_categories(body: Any) -> None:
    body["categories"], body["annotations"] = [], []


def _one_category(body: Any) -> None:
    body["categories"] = body["categories"][:1]
    body["annotations"] = [a | {"category_id": body["categories"][0]["id"]} for a in body["annotations"]]
    shown = {a["image_id"] for a in body["annotations"]}
    body["images"] = [i for i in body["images"] if i["id"] in shown]


def _unknown_image(body: Any) -> None:
    body["annotations"][0]["image_id"] = 987_654


def _unknown_category(body: Any) -> None:
    body["annotations"][0]["category_id"] = 987_654


def _duplicate(body: Any) -> None:
    body["images"].append(dict(body["images"][0]))


def _escaping(body: Any) -> None:
    body["images"][0]["file_name"] = "../../etc/passwd"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (_no_categories, ["categor"]),
        (_one_category, ["irrelevant name"]),
        (_unknown_image, ["987654", "instances_train2017.json"]),
        (_unknown_category, ["987654", "instances_train2017.json"]),
        (_duplicate, ["instances_train2017.json"]),
        (_escaping, ["passwd"]),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path: Path, change: Any, parts: list[str]) -> None:
    worlds.coco(tmp_path / "coco", images=6)
    edit(tmp_path / "coco", change)
    with pytest.raises(SourceError) as caught:
        plan(tmp_path, {"name": "coco", "format": "coco", "root": "coco"}, exposure={"absence": "strict"})
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("breakage", ["no root", "no file", "not JSON", "empty"])
def test_a_missing_or_broken_dataset_is_named(tmp_path: Path, breakage: str) -> None:
    worlds.coco(tmp_path / "coco", images=2)
    file = annotations(tmp_path / "coco")
    if breakage == "no file":
        file.unlink()
    elif breakage == "not JSON":
        file.write_text("{")
    elif breakage == "empty":
        file.write_text('{"images": [], "annotations": [], "categories": []}')
    root = "elsewhere" if breakage == "no root" else "coco"
    with pytest.raises(AesamplerError) as caught:
        plan(tmp_path, {"name": "coco", "format": "coco", "root": root})
    assert caught.value.exit_code == 2
    assert root in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_second_plan_reads_no_annotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.coco(tmp_path / "coco", images=6)
    entry = {"name": "coco", "format": "coco", "root": "coco"}
    first = plan(tmp_path, entry)
    monkeypatch.setattr("aesampler.sources.coco.Coco.survey", None)
    assert plan(tmp_path, entry).tasks == first.tasks
