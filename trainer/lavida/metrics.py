"""How well scores tell anomalous frames or pixels from normal ones: ROC AUC, average precision, equal error rate.

Every metric here depends on the scores only through two counts at each distinct score, its positives and its negatives
(`Counts`). Counts of parts are merged into the counts of the whole, so videos can be scored one by one, on any machine
and in any order. All sums are of integers: a perfect detector has an AUC of exactly 1.0, an inverted one of 0.0, a
constant one of 0.5. Equal scores are one threshold, as in scikit-learn, which the tests compare with.

Pixels are too many to keep (ShanghaiTech: 1.7e10). `PixelAuc` keeps exact counts as long as there are few distinct
scores: float16 has 31,744 of them from 0 up, so float16 scores are always exact. Where there are more, neighbouring
scores are put together, so that no group takes in more than 1 / PARTS of the positives, or of the negatives, beside
those at its lowest score. The quantiles are divided, not the axis of scores: whether the scores lie 1e-30 apart near 0
or all within 1e-12 of 1 is the same to it. Counts of equal age are put together in pairs, like the digits of a binary
number, so a pixel moves once every time the number of pixels doubles:

    |error of the AUC| <= moved+ / P + moved- / N <= 2 (1 + ceil(log2(pixels / CHUNK))) / PARTS

moved+ is the largest number of positives that any group took in, summed over the groupings; P all positives. (At a
threshold only the group around it differs, so the true and the false positive rate are off by these shares, and the AUC
is the integral of one over the other.) It is 5e-5 at 1.7e10 pixels at the very most; `error_bound` tells what it was.

Labels: 0 normal, 1 anomalous, 255 unknown (left out). A score of NaN is refused, and so is a metric over one class
only: scikit-learn gives NaN, 0 or 1 there with a warning, and none of them says anything about the detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from aesampler import rng
from aesampler.errors import MetricError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Scores = npt.NDArray[Any]

UNKNOWN = 255
"""The label of a frame that nobody has judged."""
CHUNK = 1 << 22
"""Pixels that are gathered before they are counted."""
PARTS = 1 << 19
"""Groups that each class is divided into where there are too many distinct scores; the counts of up to twice as many
are kept, 24 bytes each.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many positives and negatives have each score.

    scores: float64 [K], ascending, distinct. positives, negatives: int64 [K], never both 0.
    """

    scores: Floats
    positives: Integers
    negatives: Integers

    @classmethod
    def of(cls, scores: npt.ArrayLike, labels: npt.ArrayLike) -> Counts:
        """The counts of scores [n] and labels [n] (0, 1; 255 is left out); also of sequences of those, one a video.

        Raises MetricError where a score is NaN, a label another number, or their lengths differ.
        """
        flat, told = _flat(scores), _flat(labels)
        if flat.shape != told.shape:
            raise MetricError("there must be a label for each score", got=f"{flat.size} scores, {told.size} labels")
        positive, known = told == 1, told != UNKNOWN
        if not np.all(positive | (told == 0) | ~known):
            raise MetricError(
                "a label is no label", got=_some(told[known & ~positive & (told != 0)]), allowed="0, 1, 255"
            )
        return cls._split(flat[known & positive], flat[known & ~positive])

    @classmethod
    def merged(cls, parts: Iterable[Counts]) -> Counts:
        """The counts of all parts together."""
        kept = [part for part in parts if part.scores.size]
        if len(kept) == 1:
            return kept[0]
        every = np.concatenate([part.scores for part in kept]) if kept else np.empty(0)
        scores, place = np.unique(every, return_inverse=True)
        positives, negatives = np.zeros(scores.size, np.int64), np.zeros(scores.size, np.int64)
        first = 0
        for part in kept:  # scores are distinct within a part, so += meets each place once
            places = place[first : first + part.scores.size]
            positives[places] += part.positives
            negatives[places] += part.negatives
            first += part.scores.size
        return cls(scores=scores, positives=positives, negatives=negatives)

    @classmethod
    def _split(cls, positive: Scores, negative: Scores) -> Counts:
        """The counts of the scores of positives and of the scores of negatives, each in any order."""
        first, ups = np.unique(_exact(positive), return_counts=True)
        second, downs = np.unique(_exact(negative), return_counts=True)
        return cls.merged(
            [
                cls(scores=first.astype(np.float64), positives=ups, negatives=np.zeros_like(ups)),
                cls(scores=second.astype(np.float64), positives=np.zeros_like(downs), negatives=downs),
            ]
        )

    @property
    def totals(self) -> tuple[int, int]:
        """How many positives and negatives there are."""
        return int(self.positives.sum()), int(self.negatives.sum())

    def auc(self) -> float:
        """The area under the ROC curve: the chance that a positive has a higher score than a negative, ties half."""
        positives, negatives = self._both("an AUC")
        # Twice the number of ordered pairs: past 2**63 for the pixels of a whole set, so then in Python's integers.
        kind: Any = np.int64 if positives * negatives < 1 << 61 else object
        p: npt.NDArray[Any] = self.positives.astype(kind)
        n: npt.NDArray[Any] = self.negatives.astype(kind)
        below = np.cumsum(n) - n
        return int((p * (2 * below + n)).sum()) / (2 * positives * negatives)

    def average_precision(self) -> float:
        """The precision at each threshold, weighted by the recall that it adds: sum over k of (R_k - R_k-1) P_k."""
        positives, _ = self._both("an average precision")
        hits, alarms = np.cumsum(self.positives[::-1]), np.cumsum((self.positives + self.negatives)[::-1])
        return float((self.positives[::-1] * (hits / alarms)).sum() / positives)

    def equal_error_rate(self) -> float:
        """The share of errors where the ROC curve, with straight lines between thresholds, has as many false positives
        as misses.
        """
        false_positives, true_positives, _ = self.roc()
        # Each threshold adds a score, so the sum rises at every step and crosses 1 once.
        return float(np.interp(1.0, false_positives + true_positives, false_positives))

    def roc(self) -> tuple[Floats, Floats, Floats]:
        """False positive rate, true positive rate, threshold: float64 [K + 1] each, from (0, 0, inf) to (1, 1, lowest).

        A score at or above the threshold is an alarm.
        """
        positives, negatives = self._both("a ROC curve")
        false, true = np.cumsum(self.negatives[::-1]), np.cumsum(self.positives[::-1])
        return (
            np.concatenate([[0.0], false / negatives]),
            np.concatenate([[0.0], true / positives]),
            np.concatenate([[np.inf], self.scores[::-1]]),
        )

    def precision_recall(self) -> tuple[Floats, Floats, Floats]:
        """Precision, recall, threshold: float64 [K] each, from the highest threshold down."""
        positives, _ = self._both("a precision-recall curve")
        hits, alarms = np.cumsum(self.positives[::-1]), np.cumsum((self.positives + self.negatives)[::-1])
        return hits / alarms, hits / positives, self.scores[::-1].copy()

    def thinned(self, parts: int) -> tuple[Counts, tuple[int, int]]:
        """Neighbouring scores put together until no group holds more than 1 / parts of a class beside its lowest score,
        which is where all of it goes; and the most positives and negatives that any group moved.
        """
        cells = [_cells(count, parts) for count in (self.positives, self.negatives)]
        first = np.flatnonzero(np.concatenate([[True], (np.diff(cells[0]) != 0) | (np.diff(cells[1]) != 0)]))
        positives, negatives = np.add.reduceat(self.positives, first), np.add.reduceat(self.negatives, first)
        moved = int((positives - self.positives[first]).max()), int((negatives - self.negatives[first]).max())
        return Counts(scores=self.scores[first], positives=positives, negatives=negatives), moved

    def without_empty(self) -> Counts:
        """These counts without the scores that nothing has."""
        kept = (self.positives + self.negatives) > 0
        return Counts(scores=self.scores[kept], positives=self.positives[kept], negatives=self.negatives[kept])

    def _both(self, what: str) -> tuple[int, int]:
        positives, negatives = self.totals
        if not positives or not negatives:
            raise MetricError(
                f"{what} needs positives and negatives", got=f"{positives} positives, {negatives} negatives"
            )
        return positives, negatives


Metric = Callable[[Counts], float]

METRICS: Mapping[str, Metric] = {
    "auc": Counts.auc,
    "average_precision": Counts.average_precision,
    "equal_error_rate": Counts.equal_error_rate,
}
"""Name -> metric of counts, of frames as of pixels."""


def frame_auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The micro-averaged ROC AUC of frame scores [T] and labels [T] (0, 1; 255 left out), or of sequences of those, one
    a video, taken as one.

    Raises MetricError where a score is NaN, the lengths differ, or only one class is there.
    """
    return Counts.of(scores, labels).auc()


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Average precision (XD-Violence's frame AP), of what `frame_auc` takes."""
    return Counts.of(scores, labels).average_precision()


def equal_error_rate(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The equal error rate, interpolated linearly between thresholds, of what `frame_auc` takes."""
    return Counts.of(scores, labels).equal_error_rate()


def per_class_auc(scores: Mapping[str, npt.ArrayLike], labels: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """The AUC of each class of customised detection (C-ShT, C-Ave): the scores for the class's own name against its own
    labels, both as `frame_auc` takes them. The paper's averages are plain means over classes.
    """
    if scores.keys() != labels.keys():
        raise MetricError(
            "scores and labels are of other classes", got=", ".join(sorted(scores.keys() ^ labels.keys()))
        )
    return {name: frame_auc(scores[name], labels[name]) for name in labels}


@dataclass(frozen=True, slots=True, kw_only=True)
class Macro:
    """A mean over videos. value: NaN-free mean; videos: how many it is over; left_out: how many hold one class only."""

    value: float
    videos: int
    left_out: int


def macro(videos: Iterable[Counts], metric: Metric = Counts.auc) -> Macro:
    """The mean of a metric over the videos that hold both classes. Raises MetricError where none does."""
    every = list(videos)
    values = [metric(video) for video in every if all(video.totals)]
    if not values:
        raise MetricError("a macro average needs a video with both classes", got=f"{len(every)} videos with one")
    return Macro(value=float(np.mean(values)), videos=len(values), left_out=len(every) - len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval. low, high: its ends; level: its share; resamples: how many it is made from."""

    low: float
    high: float
    level: float
    resamples: int


def bootstrap(
    videos: Sequence[Counts],
    metric: Metric = Counts.auc,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a micro-averaged metric when whole videos are drawn again, with replacement.

    Frames of one video are no independent trials, so videos are what is drawn, each with the same chance. A draw that
    holds one class only is left out and not counted in `resamples`. Raises MetricError with fewer than two videos, or
    where no draw holds both classes.
    """
    if len(videos) < 2 or resamples < 1 or not 0 < level < 1:
        raise MetricError(
            "a bootstrap draws from two videos at least, once at least, and its level lies within 0 and 1",
            got=f"{len(videos)} videos, {resamples} resamples, level {level}",
        )
    pool = _Pool(videos)
    draws = rng.generator(seed, "bootstrap").random((resamples, len(videos)))
    values = []
    for draw in (draws * len(videos)).astype(np.int64):
        drawn = pool.drawn(np.bincount(draw, minlength=len(videos)))
        if all(drawn.totals):
            values.append(metric(drawn))
    return _percentiles(values, level, f"{len(videos)} videos")


def bootstrap_mean(
    classes: Sequence[Mapping[str, Counts]],
    metric: Metric = Counts.auc,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a metric's mean over classes when whole videos are drawn again. classes: of each, the
    counts of its videos by name.

    A video is drawn for all classes that judge it together, since their values rise and fall with it. A class of which
    a draw holds no positive, or no negative, is left out of that draw's mean (a class of one anomalous video is, in a
    third of all draws), and a draw without any class is not counted in `resamples`. Raises MetricError as `bootstrap`.
    """
    names = sorted({name for videos in classes for name in videos})
    if len(names) < 2 or resamples < 1 or not 0 < level < 1:
        raise MetricError(
            "a bootstrap draws from two videos at least, once at least, and its level lies within 0 and 1",
            got=f"{len(names)} videos, {resamples} resamples, level {level}",
        )
    number = {name: place for place, name in enumerate(names)}
    pools = [(_Pool(list(videos.values())), [number[name] for name in videos]) for videos in classes]
    draws = rng.generator(seed, "bootstrap").random((resamples, len(names)))
    values = []
    for draw in (draws * len(names)).astype(np.int64):
        times = np.bincount(draw, minlength=len(names))
        found = [drawn for pool, places in pools if all((drawn := pool.drawn(times[places])).totals)]
        if found:
            values.append(float(np.mean([metric(drawn) for drawn in found])))
    return _percentiles(values, level, f"{len(names)} videos")


class _Pool:
    """Videos from which some are drawn again and again."""

    def __init__(self, videos: Sequence[Counts]) -> None:
        self._scores = Counts.merged(videos).scores
        self._places = np.concatenate([np.searchsorted(self._scores, video.scores) for video in videos])
        self._sizes = [video.scores.size for video in videos]
        self._positives = np.concatenate([video.positives for video in videos])
        self._negatives = np.concatenate([video.negatives for video in videos])

    def drawn(self, times: Integers) -> Counts:
        """The counts of each video as often as `times` says, int64 [videos]."""
        each = np.repeat(times, self._sizes)
        return Counts(
            scores=self._scores,
            positives=_summed(self._places, self._positives * each, self._scores.size),
            negatives=_summed(self._places, self._negatives * each, self._scores.size),
        ).without_empty()


def _percentiles(values: Sequence[float], level: float, of: str) -> Interval:
    if not values:
        raise MetricError("no draw of a bootstrap holds both classes", got=of)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level, resamples=len(values))


class PixelAuc:
    """The micro-averaged ROC AUC of pixels in bounded memory: exact, or within `error_bound`; see the module.

    parts: groups a class is divided into at least, where there are too many distinct scores. chunk: pixels gathered
    before they are counted, in their own dtype. At most 2 parts + 1 counts of 24 bytes are kept for every doubling of
    the number of chunks.
    """

    def __init__(self, *, parts: int = PARTS, chunk: int = CHUNK) -> None:
        self.parts, self.chunk = parts, chunk
        self._waiting: list[tuple[Scores, Scores]] = []
        self._runs: dict[int, Counts] = {}  # level -> counts that were put together that many times
        self._moved = [0, 0]

    def update(self, scores: npt.ArrayLike, masks: npt.ArrayLike, ignored: npt.ArrayLike | None = None) -> None:
        """Add pixels: scores float [..., H, W], masks of that shape (True anomalous), ignored alike (True left out).

        Raises MetricError where a score is NaN, a mask is not of 0 and 1, or shapes differ: scores are resized to the
        masks, never the masks to the scores.
        """
        values, mask = np.asarray(scores), _mask(masks, "a mask")
        kept = np.ones_like(mask) if ignored is None else ~_mask(ignored, "a mask of ignored pixels")
        if not values.shape == mask.shape == kept.shape:
            raise MetricError(
                "pixel scores and masks must be of one size",
                got=f"scores {values.shape}, masks {mask.shape}"
                + ("" if ignored is None else f", ignored {kept.shape}"),
                do="resize the scores to the masks",
            )
        self._waiting.append((_exact(values[mask & kept]), _exact(values[~mask & kept])))
        self._settle()

    def merge(self, other: PixelAuc) -> None:
        """Add the pixels of another; it stays as it is."""
        self._waiting += other._waiting
        for level, run in sorted(other._runs.items()):
            self._carry(run, level)
        self._moved = [mine + its for mine, its in zip(self._moved, other._moved, strict=True)]
        self._settle()

    def counts(self) -> Counts:
        """The counts of all pixels so far, for every other metric."""
        waiting = [Counts._split(*_joined(self._waiting))] if self._waiting else []
        return Counts.merged([*self._runs.values(), *waiting])

    def value(self) -> float:
        """The AUC. Raises MetricError where there are pixels of one class only."""
        return self.counts().auc()

    @property
    def error_bound(self) -> float:
        """How far `value` can be from the AUC of the scores as they came: 0.0 where all of them were kept apart."""
        return sum(
            moved / total if moved else 0.0 for moved, total in zip(self._moved, self.counts().totals, strict=True)
        )

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All of it as arrays, to be saved or sent, and merged (not added up): scores float64 [K], positives and
        negatives int64 [K], moved int64 [2].
        """
        counts, moved = self._thinned(self.counts())
        return {
            "scores": counts.scores,
            "positives": counts.positives,
            "negatives": counts.negatives,
            "moved": np.array(self._moved, np.int64) + moved,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, npt.NDArray[Any]], *, parts: int = PARTS, chunk: int = CHUNK) -> Self:
        """One that goes on from a state."""
        made = cls(parts=parts, chunk=chunk)
        if state["scores"].size:
            made._runs[0] = Counts(
                scores=np.asarray(state["scores"], np.float64),
                positives=np.asarray(state["positives"], np.int64),
                negatives=np.asarray(state["negatives"], np.int64),
            )
        made._moved = [int(count) for count in state["moved"]]
        return made

    def _settle(self) -> None:
        if sum(up.size + down.size for up, down in self._waiting) >= self.chunk:
            counts, moved = self._thinned(Counts._split(*_joined(self._waiting)))
            self._waiting = []
            self._note(moved)
            self._carry(counts, 0)

    def _carry(self, run: Counts, level: int) -> None:
        while level in self._runs:
            run, moved = self._thinned(Counts.merged([self._runs.pop(level), run]))
            self._note(moved)
            level += 1
        self._runs[level] = run

    def _thinned(self, counts: Counts) -> tuple[Counts, tuple[int, int]]:
        return counts.thinned(self.parts) if counts.scores.size > 2 * self.parts else (counts, (0, 0))

    def _note(self, moved: tuple[int, int]) -> None:
        self._moved = [before + now for before, now in zip(self._moved, moved, strict=True)]


def pixel_auc(
    scores: Iterable[npt.ArrayLike], masks: Iterable[npt.ArrayLike], ignored: Iterable[npt.ArrayLike] | None = None
) -> float:
    """The micro-averaged pixel AUC of score maps [H, W], one a frame, and their masks; `PixelAuc` says how exact.

    Raises MetricError where shapes or lengths differ, a score is NaN, or only one class is there.
    """
    total = PixelAuc()
    rows = (scores, masks) if ignored is None else (scores, masks, ignored)
    try:
        for row in zip(*rows, strict=True):
            total.update(*row)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise MetricError("there must be a mask for each map of scores", got=str(error)) from error
    return total.value()


def _flat(values: npt.ArrayLike) -> Scores:
    """One array [n] of an array, or of a sequence of arrays of different lengths."""
    if isinstance(values, (list, tuple)) and values and not np.isscalar(values[0]):
        return np.concatenate([np.asarray(part).ravel() for part in values])
    return np.asarray(values).ravel()


def _exact(scores: Scores) -> Scores:
    """Scores as a float dtype that sorts fast and loses nothing, -0.0 as 0.0. Raises MetricError where one is NaN."""
    wide = scores.astype(np.float32 if scores.dtype in (np.float16, np.float32) else np.float64)
    if np.isnan(wide).any():
        raise MetricError("a score is NaN", got=f"{int(np.isnan(wide).sum())} of {wide.size}")
    return wide + 0  # -0.0 becomes 0.0


def _mask(mask: npt.ArrayLike, what: str) -> npt.NDArray[np.bool_]:
    told = np.asarray(mask)
    if told.dtype != np.bool_ and not np.isin(told, (0, 1)).all():
        raise MetricError(f"{what} holds another value", got=_some(told[~np.isin(told, (0, 1))]), allowed="0, 1")
    return told.astype(np.bool_)


def _joined(waiting: Sequence[tuple[Scores, Scores]]) -> tuple[Scores, Scores]:
    return np.concatenate([up for up, _ in waiting]), np.concatenate([down for _, down in waiting])


def _cells(count: Integers, parts: int) -> Integers:
    """Which of `parts` equal shares of the total the last one up to each score falls into; before the first, none."""
    return (np.cumsum(count) - 1) * parts // max(int(count.sum()), 1)


def _summed(places: Integers, counts: Integers, size: int) -> Integers:
    # Weights of bincount are doubles: exact up to 2**53.
    return np.bincount(places, weights=counts, minlength=size).astype(np.int64)


def _some(values: Scores) -> str:
    return ", ".join(str(value) for value in np.unique(values)[:3])
