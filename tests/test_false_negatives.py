"""What the benchmarks of names claim, on the real sample: none in the picture under `strict`, fewer with relations; a
balanced list tells nothing.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import worlds

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_strict_draws_nothing_that_is_in_the_picture(real_data: Path) -> None:
    rows = runpy.run_path(str(BENCHMARKS / "false_negatives.py"))["table"](real_data, 3)
    shares = {(row["annotation"], row["relations"], row["absence"]): row for row in rows}
    for (case, _, absence), row in shares.items():
        assert row["drawn"] > 1000
        assert row["in_picture"] > 0 or absence != "unlisted" or "beside" in case
        assert row["in_picture"] == 0 or absence != "strict"
    for half, both in (("one half", "one, other beside"), ("other half", "other, one beside")):
        for absence in ("unlisted", "known"):
            assert shares[half, "with", absence]["in_picture"] > 0
            assert shares[both, "with", absence]["in_picture"] == 0
    for absence in ("unlisted", "known"):
        without, beside = (shares["federated COCO", side, absence] for side in ("without", "with"))
        assert beside["share"] < without["share"]
    orders = [shares["federated COCO", "with", absence]["share"] for absence in ("unlisted", "known", "strict")]
    assert orders == sorted(orders, reverse=True)


def test_lvis_beside_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Picture 288 is in both worlds: LVIS marks a spoon, COCO lamps and a car, of which LVIS has the name lamp."""
    monkeypatch.setenv("AESAMPLER_CACHE", str(tmp_path / "cache"))
    worlds.coco(tmp_path / "coco", images=10)
    worlds.lvis(tmp_path / "lvis", images=15)
    annotations = tmp_path / "coco/annotations/instances_train2017.json"
    annotations.write_text(annotations.read_text().replace('"person"', '"lamp"'))
    benchmark = runpy.run_path(str(BENCHMARKS / "false_negatives.py"))
    cases = benchmark["two_sets"](tmp_path / "coco", tmp_path / "lvis")
    for _, (seen,) in cases.values():
        assert seen.truth == {"spoon", "lamp"}
    found = {(row["annotation"], row["absence"]): row for row in benchmark["beside"](cases, 200)}
    for absence in ("unlisted", "known"):
        assert found["LVIS", absence]["in_picture"] > 20
        assert found["LVIS, COCO beside", absence]["in_picture"] == 0 < found["LVIS, COCO beside", absence]["drawn"]


def test_balanced_lists_tell_nothing(real_data: Path) -> None:
    rows = runpy.run_path(str(BENCHMARKS / "shortcut.py"))["table"](real_data, 1500)
    auc = {row["case"]: row["auc"] for row in rows}
    for case in ("all genuine, uniform", "all genuine, 5 names", "one genuine, uniform", "one genuine, 5 names"):
        assert abs(auc[f"balanced, {case}"] - 0.5) < 0.09
        assert auc[f"samples, {case}"] > 0.54
    assert auc["samples, all genuine, uniform"] > 0.68
