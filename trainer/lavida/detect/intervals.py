"""Scores of frames to intervals of time: where something begins, and where it ends.

An interval is a run of frames that score at least `low` and of which one scores at least `high` (hysteresis: a score
that wavers about one threshold would give a dozen intervals). Runs that lie at most `gap_s` apart are one; what is then
shorter than `min_s` is left out. A detector whose scores have a scale (0..1) says its own `high`; for another it is
the median of the video's scores plus SPREADS robust standard deviations, so that a video in which nothing stands out
may still show one: the answer says which rule made the threshold.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SPREADS = 3.0
"""Robust standard deviations above the median."""
KEPT = 0.8
"""`low` lies at this share of the way from the base (0, or the median) to `high`."""
_NORMAL = 1.4826  # a normal distribution's standard deviation in median absolute deviations

Scores = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """high: where an interval may begin; low: what it keeps to; rule: how they were found, in words."""

    high: float
    low: float
    rule: str

    @classmethod
    def given(cls, high: float, rule: str) -> Threshold:
        """A threshold on a scale from 0; below it (cosines may be) an interval keeps to where it begins."""
        return cls(high=high, low=min(high, KEPT * high), rule=rule)

    @classmethod
    def robust(cls, scores: Scores) -> Threshold:
        """The threshold of scores without a scale; see the module. scores: float32 [T]."""
        middle = float(np.median(scores))
        spread = _NORMAL * float(np.median(np.abs(scores - np.float32(middle))))
        if spread == 0:  # more than half of the frames score the same
            high = low = float(np.nextafter(np.float32(middle), np.float32(np.inf)))
        else:
            high, low = middle + SPREADS * spread, middle + KEPT * SPREADS * spread
        return cls(high=high, low=low, rule=f"median + {SPREADS:g} robust standard deviations of this video's scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Frames `start_frame` up to and without `stop_frame`, seconds from the first frame, the highest score in it."""

    start_frame: int
    stop_frame: int
    start_s: float
    stop_s: float
    peak_frame: int
    peak_s: float
    peak_score: float
    mean_score: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, times to the millisecond."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


def find_intervals(scores: Scores, times: Times, threshold: Threshold, *, gap_s: float, min_s: float) -> list[Interval]:
    """The intervals of a video, in order. scores: float32 [T]; times: seconds [T], ascending."""
    runs = [
        (start, stop) for start, stop in _runs(scores >= threshold.low) if scores[start:stop].max() >= threshold.high
    ]
    ends = _ends(times)
    joined: list[tuple[int, int]] = []
    for start, stop in runs:
        if joined and times[start] - ends[joined[-1][1] - 1] <= gap_s:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return [
        _interval(scores, times, ends, start, stop) for start, stop in joined if ends[stop - 1] - times[start] >= min_s
    ]


def _runs(inside: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _ends(times: Times) -> Times:
    """When each frame ends: where the next begins; the last one lasts as long as the median one."""
    if len(times) < 2:
        return times.copy()
    return np.append(times[1:], times[-1] + np.median(np.diff(times)))


def _interval(scores: Scores, times: Times, ends: Times, start: int, stop: int) -> Interval:
    peak = start + int(np.argmax(scores[start:stop]))
    return Interval(
        start_frame=start,
        stop_frame=stop,
        start_s=float(times[start]),
        stop_s=float(ends[stop - 1]),
        peak_frame=peak,
        peak_s=float(times[peak]),
        peak_score=float(scores[peak]),
        mean_score=float(scores[start:stop].mean()),
    )
