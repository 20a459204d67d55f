"""What the benchmarks of names claim, on the real sample: none in the picture under `strict`, fewer with relations; a
balanced list tells nothing.
"""

from __future__ import annotations

import runpy
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def test_strict_draws_nothing_that_is_in_the_picture(real_data: Path) -> None:
    rows = runpy.run_path(str(BENCHMARKS / "false_negatives.py"))["table"](real_data, 3)
    shares = {(row["annotation"], row["relations"], row["absence"]): row for row in rows}
    for (_, _, absence), row in shares.items():
        assert row["drawn"] > 1000
        assert row["in_picture"] > 0 or absence != "unlisted"
        assert row["in_picture"] == 0 or absence != "strict"
    for absence in ("unlisted", "known"):
        without, beside = (shares["federated COCO", side, absence] for side in ("without", "with"))
        assert beside["share"] < without["share"]
    orders = [shares["federated COCO", "with", absence]["share"] for absence in ("unlisted", "known", "strict")]
    assert orders == sorted(orders, reverse=True)


def test_balanced_lists_tell_nothing(real_data: Path) -> None:
    rows = runpy.run_path(str(BENCHMARKS / "shortcut.py"))["table"](real_data, 1500)
    auc = {row["case"]: row["auc"] for row in rows}
    for case in ("all genuine, uniform", "all genuine, 5 names", "one genuine, uniform", "one genuine, 5 names"):
        assert abs(auc[f"balanced, {case}"] - 0.5) < 0.09
        assert auc[f"samples, {case}"] > 0.54
    assert auc["samples, all genuine, uniform"] > 0.68
