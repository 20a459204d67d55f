"""The numbers that the papers report, to stand beside ours.

`published.csv` holds every number of the result tables of two papers, one a row: LAVIDA (arXiv 2602.19248, tables 1-5
and section 4.3.2) and AnyAnomaly (WACV 2026, tables 1, 2, 5, S1, S2, S4). Its columns: source (paper and table),
method, setting (supervision, model or what an ablation changes), dataset, metric, value (percent, but frames/s).

AnyAnomaly's tables 1 and 2 name a class behind the set (`C-ShT: Running`); `Average` stands there twice a method, first
of the action classes, then of the appearance classes. The averages of `+KSM` on C-ShT (72.00, 77.48) do not follow from
its classes, of which the means are 70.97 and 76.83; all others do. LAVIDA's released code scores the 158 abnormal
videos of UBnormal; which videos the papers' numbers are of, they do not say, so they stand beside both protocols.
"""

from __future__ import annotations

import csv
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

DATASETS: Mapping[str, str] = {
    "ped2": "UCSD Ped2",
    "avenue": "Avenue",
    "shanghaitech": "ShanghaiTech",
    "ubnormal": "UBnormal",
    "ubnormal-abnormal": "UBnormal",
    "ucf-crime": "UCF-Crime",
    "xd-violence": "XD-Violence",
    "c-sht": "C-ShT",
    "c-ave": "C-Ave",
}
"""Benchmark -> the papers' name of its set."""
METRICS: Mapping[str, str] = {
    "frame AUC": "frame_auc",
    "micro frame AUC": "frame_auc",
    "frame AP": "average_precision",
    "pixel AUC": "pixel_auc",
}
"""The papers' name of a metric -> ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A number of a paper.

    source: paper and table. dataset: the papers' name of the set, without the class. category: a class of C-ShT or
    C-Ave in lower case, `average` (of a group of classes), `overall average`, or "". metric: as the paper calls it.
    value: percent, or what the metric says.
    """

    source: str
    method: str
    setting: str
    dataset: str
    category: str
    metric: str
    value: float

    @property
    def key(self) -> str | None:
        """Our name of the metric; None for what is none of ours (frames/s)."""
        return METRICS.get(self.metric)


def published(benchmark: str | None = None, *, tables: tuple[str, ...] | None = None) -> tuple[Published, ...]:
    """The papers' numbers, in their order: all, or those of a benchmark; of some tables (`LAVIDA table 1`) only.

    A benchmark that no paper has (`folder`) has none.
    """
    dataset = None if benchmark is None else DATASETS.get(benchmark, "")
    return tuple(
        row
        for row in _rows()
        if (dataset is None or row.dataset == dataset) and (tables is None or row.source in tables)
    )


@lru_cache(maxsize=1)
def _rows() -> tuple[Published, ...]:
    text = (importlib.resources.files("lavida.benchmarks") / "published.csv").read_text(encoding="utf-8")
    rows = []
    for row in csv.DictReader(text.splitlines()):
        dataset, _, category = row["dataset"].partition(": ")
        told = {key: row[key] for key in ("source", "method", "setting", "metric")}
        rows.append(Published(**told, dataset=dataset, category=category.lower(), value=float(row["value"])))
    return tuple(rows)
