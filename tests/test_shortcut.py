"""What a build says of its own lists: how often each rule kept a name off, and what the lists give away."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click.testing
import pytest
import worlds

from aesampler import Corpus, Folder, Inline, Recipe, build_corpus, plan_corpus
from aesampler.audit import audit
from aesampler.cli import cli
from aesampler.exposure import RULES
from aesampler.head import CorpusHead
from aesampler.manifest import ShardReport
from aesampler.plan import audited
from aesampler.shortcut import of_reports
from aesampler.show import reasons, summary
from aesampler.verify import verify

LVIS = {"name": "lvis", "format": "lvis", "root": "lvis"}
COCO = {"name": "coco", "format": "coco", "root": "coco"}
DAVIS = {"name": "davis", "format": "davis", "root": "davis"}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    worlds.coco(tmp_path / "coco", images=40)
    worlds.lvis(tmp_path / "lvis", images=8)
    worlds.davis(tmp_path / "davis", sequences=3, frames=9)
    return tmp_path


def recipe(base: Path, *sources: dict[str, Any], **keys: Any) -> Recipe:
    body = {"name": "tiny", "seed": 44, "sources": list(sources), "shards": {"max_samples": 5}} | keys
    return Recipe.of(body, base=base)


def build(made: Recipe, out: Path) -> CorpusHead:
    return build_corpus(plan_corpus(made), Folder.at(out), Inline()).head


def test_every_name_is_drawable_or_rejected_by_one_rule(world: Path) -> None:
    """Counted again from what is stored, sample by sample."""
    made = recipe(world, COCO, LVIS, DAVIS)
    head = build(made, world / "out")
    corpus = Corpus.open(world / "out")
    counted: dict[str, Counter[str]] = {rule: Counter() for rule in RULES}
    for key in list(corpus.keys()):
        scene, vocabulary = corpus[key].scene, corpus.vocabulary(corpus[key].source)
        drawn = {name.name for name in vocabulary.names if name.weight > 0}
        seen = {*scene.segments, *scene.incomplete, *scene.ignored}
        near, kin = vocabulary.near(scene.seen), vocabulary.kin(scene.seen)
        left = set()
        for name in drawn:
            if name in seen:
                counted["present"][name] += 1
            elif name in scene.present:
                counted["elsewhere"][name] += 1
            elif name in near:
                counted["near"][name] += 1
            elif name in kin and scene.presence(name) != "absent":
                counted["kin"][name] += 1
            else:
                left.add(name)
        if not scene.exhaustive and left & scene.absent:
            counted["unknown"].update(left - scene.absent)
    for rule, found in head.rejections.items():
        assert found.total == counted[rule].total()
        assert found.top == {name: counted[rule][name] for name in found.top}
        assert found.names == len(counted[rule])
    assert {rule for rule in RULES if counted[rule]} == set(head.rejections)
    assert head.rejections["present"].total > 40
    assert head.rejections["unknown"].total > 0


def test_skipped_samples_are_counted_too(world: Path) -> None:
    head = build(recipe(world, LVIS, COCO, exposure={"absence": "strict"}), world / "out")
    assert sum(head.skipped.values()) > 0
    reports = [ShardReport.read(Folder.at(world / "out"), e.path) for e in head.splits["train"]["lvis"].manifests]
    assert sum(sum(names.values()) for report in reports for names in [report.rejections["unknown"]]) > 0


def test_the_rows_are_audited(world: Path) -> None:
    head = build(recipe(world, COCO, DAVIS), world / "out")
    corpus = Corpus.open(world / "out")
    for source in ("coco", "davis"):
        rows = list(corpus.rows(source=source))
        found = audit([r.categories for r in rows], [r.anomalous for r in rows], [r.group for r in rows])
        stored = head.shortcut[source]
        assert (stored.samples, stored.anomalous) == (len(rows), sum(r.anomalous for r in rows))
        assert stored.auc == (None if found.auc is None else round(found.auc, 4))
        assert [(r.length, r.samples, r.anomalous) for r in stored.lengths] == [
            (int(r.what), r.count, r.anomalous) for r in found.lengths
        ]
    assert "kept off the lists" in str(summary(corpus))
    assert "coco: the lists alone tell the label with an AUC of 0." in str(summary(corpus))
    assert of_reports(corpus.folder, []) == {}


def test_verify_looks_at_the_audit(world: Path) -> None:
    build(recipe(world, COCO), world / "out")
    assert verify(Corpus.open(world / "out"), deep=True).ok
    file = world / "out/corpus.json"
    body = json.loads(file.read_text())
    body["shortcut"]["coco"]["auc"] = 0.9
    file.write_text(json.dumps(body))
    found = verify(Corpus.open(world / "out"))
    assert [p.what for p in found.problems if p.check == "head"] == ["shortcut of coco is not that of the manifests"]
    body["rejections"]["present"]["total"] += 1
    file.write_text(json.dumps(body))
    assert "rejections" in str(verify(Corpus.open(world / "out")).problems)


def test_a_plan_foresees_it(world: Path) -> None:
    plan = plan_corpus(recipe(world, COCO, LVIS, DAVIS))
    found = audited(plan)
    assert found["coco"].samples == 40
    assert audited(plan) == found
    assert audited(plan, limit=7)["coco"].samples == 7


def test_plan_and_show_tell(world: Path, tmp_path: Path) -> None:
    file = world / "recipe.yaml"
    file.write_text("name: tiny\nout: out\nseed: 4\nsources: [{name: coco, format: coco, root: coco}]\n")
    run = click.testing.CliRunner().invoke
    told = run(cli, ["plan", "--config", str(file), "--json"])
    assert json.loads(told.stdout)["shortcut"]["coco"]["samples"] == 40
    assert "coco: the lists alone tell the label" in run(cli, ["plan", "--config", str(file)]).stdout
    build(Recipe.load(file), world / "out")
    corpus = Corpus.open(world / "out")
    key = next(row.key for row in corpus.rows() if row.anomalous)
    out = ["--out", str(tmp_path / "a.png")]
    body = json.loads(run(cli, ["show", str(world / "out"), "--key", key, "--json", *out]).stdout)
    assert [entry["name"] for entry in body["categories"]] == list(corpus[key].categories)
    for entry in body["categories"]:
        assert entry["why"].startswith("genuine: visible in frame 0 of 1 frame" if entry["genuine"] else "irrelevant: ")
    printed = run(cli, ["show", str(world / "out"), "--key", key, *out]).stdout
    assert "irrelevant: known absent, as every name that is not annotated is; one draw in" in printed
    assert json.loads(run(cli, ["show", str(world / "out"), "--json"]).stdout)["rejections"]["present"]["total"] > 0


def test_a_clip_says_in_which_frames(world: Path) -> None:
    build(recipe(world, DAVIS, exposure={"anomaly_probability": 1.0, "irrelevant_from": "categories"}), world / "out")
    corpus = Corpus.open(world / "out")
    told = [entry for key in list(corpus.keys()) for entry in reasons(corpus, corpus[key])]
    assert any(entry["why"].startswith("genuine: visible in frames ") for entry in told)
    assert any("unknown" in entry["why"] for entry in told if not entry["genuine"])
