"""The shortcut audit: how well the label of a sample can be told from its list of names, without a look at a pixel.

A name that is often exposed and rarely irrelevant, or a list that is longer when it holds an anomaly, is a shortcut: a
model that learns it seems to detect. The audit is a classifier that sees only which names are listed and how many; its
AUC on samples that it was not trained on is 0.5 where there is nothing to learn, and each step above it is what pixels
were not needed for.

The classifier is a logistic regression, one weight a name and one a length of list, with an L2 penalty of 1 (that of
scikit-learn's default), fitted by Newton's method in numpy. Samples are dealt to 5 folds by a hash of their group, so
two clips of a video are never on both sides. 100,000 lists of up to 30 names take about 3 s.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aesampler import rng

FOLDS = 5
PENALTY = 1.0
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of `count` samples, `anomalous` are. what: a name, or a length of list."""

    what: str
    count: int
    anomalous: int

    @property
    def share(self) -> float:
        """The anomaly rate."""
        return self.anomalous / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the rate."""
        if not self.count:
            return 0.0, 1.0
        z, n, p = 1.96, self.count, self.share
        middle, width = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return max(0.0, (middle - width) / (1 + z * z / n)), min(1.0, (middle + width) / (1 + z * z / n))

    def surprise(self, base: float) -> float:
        """How many standard deviations the rate lies from `base`."""
        spread = (self.count * base * (1 - base)) ** 0.5
        return (self.anomalous - self.count * base) / spread if spread else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the lists give away.

    auc: held out, in [0, 1]; None where it has no meaning: fewer than two samples of a label on a side of every fold.
    error: its standard error (Hanley and McNeil). samples, base: how many, and their anomaly rate. names: by name, the
    most surprising first; lengths: by length of list, ascending.
    """

    auc: float | None
    error: float
    samples: int
    base: float
    names: tuple[Rate, ...]
    lengths: tuple[Rate, ...]


def audit(lists: Sequence[Sequence[str]], anomalous: Sequence[bool], groups: Sequence[str] | None = None) -> Audit:
    """The audit of samples: the listed names and the label of each, and its group (a sample is its own without)."""
    label = np.asarray(anomalous, dtype=bool)
    base = float(label.mean()) if len(label) else 0.0
    auc, error = _held_out(lists, label, groups)
    listed = Counter(name for names in lists for name in names)
    exposed = Counter(name for names, flag in zip(lists, label, strict=True) if flag for name in names)
    names = [Rate(what=name, count=count, anomalous=exposed[name]) for name, count in listed.items()]
    sizes = Counter(len(names) for names in lists)
    anomalies = Counter(len(names) for names, flag in zip(lists, label, strict=True) if flag)
    return Audit(
        auc=auc,
        error=error,
        samples=len(label),
        base=base,
        names=tuple(sorted(names, key=lambda rate: (-abs(rate.surprise(base)), rate.what))),
        lengths=tuple(Rate(what=str(size), count=sizes[size], anomalous=anomalies[size]) for size in sorted(sizes)),
    )


def roc_auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """The share of (positive, negative) pairs that `scores` orders rightly, ties counting half; both must be there."""
    _, place, counts = np.unique(np.round(scores, 9), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    yes = int(positive.sum())
    return float((ranks[place][positive].sum() - yes * (yes + 1) / 2) / (yes * (len(scores) - yes)))


def _held_out(
    lists: Sequence[Sequence[str]], label: npt.NDArray[np.bool_], groups: Sequence[str] | None
) -> tuple[float | None, float]:
    """The AUC over the pairs within each fold, and its standard error."""
    keys = groups if groups is not None else [str(place) for place in range(len(lists))]
    fold = np.fromiter((rng.order("audit", key) % FOLDS for key in keys), dtype=np.int64, count=len(keys))
    right, pairs, yes, no = 0.0, 0, 0, 0
    features = _Features.of(lists)
    weights = np.zeros(features.columns)
    for part in range(FOLDS):
        test = fold == part
        sides = [int((label & test).sum()), int((~label & test).sum())]
        if min(*sides, int((label & ~test).sum()), int((~label & ~test).sum())) == 0:
            continue
        weights = fit(features.taken(~test), label[~test], weights)  # begun where the fold before ended
        scores = features.taken(test) @ weights
        right += roc_auc(scores, label[test]) * sides[0] * sides[1]
        pairs, yes, no = pairs + sides[0] * sides[1], yes + sides[0], no + sides[1]
    if not pairs:
        return None, 0.0
    auc = right / pairs
    first, second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = auc * (1 - auc) + (yes - 1) * (first - auc * auc) + (no - 1) * (second - auc * auc)
    return auc, float(max(variance, 0.0) / (yes * no)) ** 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Features:
    """A sparse matrix of zeros and ones, a row a sample: its names, its length of list, and a constant, in this order.

    column: int64 [entries], where the ones are, row by row, the constant aside; sizes: int64 [rows], how many ones each
    row has, at least one. row: int64 [entries], the same ones column by column; used: the columns that have any.
    firsts, starts: where each row's ones begin in `column`, and each used column's in `row`.
    """

    column: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    columns: int

    @classmethod
    def of(cls, lists: Sequence[Sequence[str]]) -> _Features:
        """The features of samples; names in sorted order, then lengths."""
        names = {name: place for place, name in enumerate(sorted({name for names in lists for name in names}))}
        sizes = {size: len(names) + place for place, size in enumerate(sorted({len(names) for names in lists}))}
        entries = ([*(names[name] for name in listed), sizes[len(listed)]] for listed in lists)
        column = np.fromiter(itertools.chain.from_iterable(entries), dtype=np.int64)
        ones = np.fromiter((len(listed) + 1 for listed in lists), dtype=np.int64, count=len(lists))
        return cls._both_ways(column, ones, len(names) + len(sizes) + 1)

    @classmethod
    def _both_ways(cls, column: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], columns: int) -> _Features:
        order = np.argsort(column, kind="stable")
        used, starts = np.unique(column[order], return_index=True)
        return cls(
            column=column,
            sizes=sizes,
            row=np.repeat(np.arange(sizes.size), sizes)[order],
            used=used,
            firsts=np.cumsum(sizes) - sizes,
            starts=starts,
            columns=columns,
        )

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self.sizes.size

    def taken(self, which: npt.NDArray[np.bool_]) -> _Features:
        """The rows where `which` is True."""
        return self._both_ways(self.column[np.repeat(which, self.sizes)], self.sizes[which], self.columns)

    def __matmul__(self, weights: Floats) -> Floats:
        total: Floats = np.add.reduceat(weights.take(self.column), self.firsts)
        return total + float(weights[-1])

    def summed(self, values: Floats) -> Floats:
        """The transposed matrix times `values`, one a row."""
        total: Floats = np.zeros(self.columns)
        total[self.used] = np.add.reduceat(values.take(self.row), self.starts)
        total[-1] = values.sum()
        return total


def fit(features: _Features, label: npt.NDArray[np.bool_], weights: Floats) -> Floats:
    """The weights of the logistic regression, the constant last and not penalised: Newton's method from `weights` on,
    each step by conjugate gradients.
    """
    target = label.astype(np.float64)
    penalty = np.full(features.columns, PENALTY)
    penalty[-1] = 0.0

    def loss(weights: Floats) -> float:
        logit = features @ weights
        return float((np.logaddexp(0.0, logit) - target * logit).sum() + 0.5 * (penalty * weights**2).sum())

    now = loss(weights)
    for _ in range(50):
        chance = 1.0 / (1.0 + np.exp(-np.clip(features @ weights, -500, 500)))
        slope = features.summed(chance - target) + penalty * weights
        if np.abs(slope).max() < 1e-6 * max(features.rows, 100):
            break
        step = _newton(features, chance * (1 - chance), penalty, slope)
        size = 1.0
        while (then := loss(weights - size * step)) > now and size > 1e-6:
            size /= 2
        weights, now = weights - size * step, min(now, then)
    return weights


def _newton(features: _Features, curve: Floats, penalty: Floats, slope: Floats) -> Floats:
    """The step x of (F' diag(curve) F + diag(penalty)) x = slope, by conjugate gradients scaled by the diagonal."""
    scale = features.summed(curve) + penalty + 1e-12
    step = np.zeros(features.columns)
    rest = slope.copy()
    scaled = rest / scale
    towards, power = scaled, float((rest * scaled).sum())
    goal = 1e-6 * power
    for _ in range(200):
        if power <= goal:
            break
        bent = features.summed(curve * (features @ towards)) + penalty * towards
        size = power / float((towards * bent).sum())
        step = step + size * towards
        rest = rest - size * bent
        scaled = rest / scale
        before, power = power, float((rest * scaled).sum())
        towards = scaled + (power / before) * towards
    return step
