"""Saved scores to figures: micro metrics with confidence intervals, per video, per class, and what could not be had.

`frame_auc`, `average_precision` and `equal_error_rate` are over all frames of all videos; `macro_auc` is the mean of
the AUC over the videos that hold both classes; `pixel_auc` is over all pixels of the videos that have masks. Of a
customised set each is the plain mean over its classes, as in the paper's last row, and `classes` holds them one by one.
A metric without positives or negatives is None, and `undefined` says why. Confidence intervals: 95%, from whole videos
drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from aesampler.errors import MetricError
from lavida.metrics import METRICS, Counts, PixelAuc, bootstrap, bootstrap_mean, macro

NAMES: Mapping[str, str] = {
    "frame_auc": "auc",
    "average_precision": "average_precision",
    "equal_error_rate": "equal_error_rate",
}
"""Our name -> that in lavida.metrics, of what is computed from the frames of all videos."""
SHORT: Mapping[str, str] = {
    "frame_auc": "frame AUC",
    "average_precision": "AP",
    "equal_error_rate": "EER",
    "macro_auc": "macro AUC",
    "pixel_auc": "pixel AUC",
}
"""How tables call them."""
DRAWN = 150_000
"""Groups of scores that all videos together are drawn again with: a thousand draws of three metrics take 40 s. Up to so
many distinct scores an interval is exact; 2.3 million frames of XD-Violence are put into 187 groups a video.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """A video in one protocol: of a customised set in that of one class. scores: float [T]; labels: uint8 [T]."""

    video: str
    scores: Any
    labels: Any
    category: str | None = None

    @property
    def counts(self) -> Counts:
        """Its frames, counted."""
        return Counts.of(self.scores, self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one detector. metrics: name -> value or None; intervals: name -> (low, high); undefined: name ->
    why there is none; classes: class -> its metrics; videos: one object each, in order; notes: the detector's own.
    """

    detector: str
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    undefined: dict[str, str]
    classes: dict[str, dict[str, float | None]]
    videos: list[dict[str, Any]]
    notes: dict[str, int | str]
    tuned: dict[str, Any] | None = None
    counts: Counts | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, without the videos."""
        told: dict[str, Any] = {
            "detector": self.detector,
            "metrics": self.metrics,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "undefined": self.undefined,
            "tuned_on_test": self.tuned or False,
            "notes": self.notes,
        }
        return told | ({"classes": self.classes} if self.classes else {})


class _Wanted:
    """Values that may not exist: a metric over one class only is None, and why is kept."""

    def __init__(self) -> None:
        self.values: dict[str, float | None] = {}
        self.undefined: dict[str, str] = {}

    def take(self, name: str, value: Callable[[], float]) -> None:
        try:
            self.values[name] = value()
        except MetricError as error:
            self.values[name] = None
            self.undefined[name] = str(error)


def figures(
    detector: str,
    rows: Sequence[Row],
    *,
    classes: Sequence[str] = (),
    pixels: Mapping[str | None, Iterable[PixelAuc]] | None = None,
    resamples: int = 0,
    seed: int = 0,
    notes: Mapping[str, int | str] | None = None,
    tuned: dict[str, Any] | None = None,
) -> Figures:
    """The figures of the rows of a benchmark. pixels: of each row under None, or of a class's rows under its name."""
    found = _Wanted()
    intervals: dict[str, tuple[float, float]] = {}
    per_class: dict[str, dict[str, float | None]] = {}
    whole = None
    planes = pixels or {}
    if classes:
        judged = []
        for name in classes:
            own = [row for row in rows if row.category == name]
            inner, drawn = _micro([row.counts for row in own], planes.get(name, ()))
            per_class[name] = inner.values
            found.undefined |= {f"{name}: {metric}": why for metric, why in inner.undefined.items()}
            judged.append({row.video: counts for row, counts in zip(own, drawn["frame_auc"], strict=True)})
        found.values = _means(list(per_class.values()))
        intervals = _mean_intervals(found, judged, resamples, seed)
    else:
        counts = [row.counts for row in rows]
        whole = Counts.merged(counts)
        found, drawn = _micro(counts, planes.get(None, ()))
        intervals = _intervals(found, drawn, resamples, seed)
    return Figures(
        detector=detector,
        metrics=found.values,
        intervals=intervals,
        undefined=found.undefined,
        classes=per_class,
        videos=[_video(row) for row in rows],
        notes=dict(notes or {}),
        tuned=tuned,
        counts=whole,
    )


def _micro(counts: Sequence[Counts], pixels: Iterable[PixelAuc]) -> tuple[_Wanted, dict[str, list[Counts]]]:
    """The metrics of some videos, and what their intervals are drawn from: metric -> videos."""
    found = _Wanted()
    whole = Counts.merged(counts)
    for name, inner in NAMES.items():
        found.take(name, partial(METRICS[inner], whole))
    found.take("macro_auc", lambda: macro(counts).value)
    parts = max(1, DRAWN // max(1, len(counts)))
    thinned = [each.thinned(parts)[0] for each in counts]
    drawn = dict.fromkeys(NAMES, thinned)
    merged, planes = PixelAuc(), []
    for each in pixels:  # one at a time: the counts of a video may take 25 MB
        merged.merge(each)
        planes.append(each.counts().thinned(parts)[0])
    if planes:
        found.take("pixel_auc", merged.value)
        drawn["pixel_auc"] = planes
    return found, drawn


def _intervals(
    found: _Wanted, drawn: Mapping[str, Sequence[Counts]], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    intervals = {}
    for name, videos in drawn.items():
        if resamples and len(videos) > 1 and found.values[name] is not None:
            told = bootstrap(videos, METRICS[NAMES.get(name, "auc")], resamples=resamples, seed=seed)
            intervals[name] = (told.low, told.high)
    return intervals


def _mean_intervals(
    found: _Wanted, judged: Sequence[Mapping[str, Counts]], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    intervals = {}
    for name, inner in NAMES.items():
        if resamples and found.values[name] is not None and len({video for videos in judged for video in videos}) > 1:
            told = bootstrap_mean(judged, METRICS[inner], resamples=resamples, seed=seed)
            intervals[name] = (told.low, told.high)
    return intervals


def _means(classes: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric over the classes; None where one of them has none."""
    means: dict[str, float | None] = {}
    for metric in classes[0]:
        values = [told.get(metric) for told in classes]
        known = [value for value in values if value is not None]
        means[metric] = float(np.mean(known)) if len(known) == len(values) else None
    return means


def _video(row: Row) -> dict[str, Any]:
    counts = row.counts
    positives, negatives = counts.totals
    told: dict[str, Any] = {"name": row.video}
    if row.category is not None:
        told["category"] = row.category
    both = bool(positives and negatives)
    return told | {
        "frames": len(row.labels),
        "positives": positives,
        "frame_auc": counts.auc() if both else None,
        "mean_score": float(np.mean(row.scores, dtype=np.float64)),
        "max_score": float(np.max(row.scores)),
    }
