"""What may be chosen on the test labels, and only when it was asked for: smoothing and the weights of fusion.

The search is a plain grid: widths SIGMAS of the Gaussian filter, and for a detector whose score is made of parts
(AnyAnomaly's three questions) all weights in tenths that add up to 1. A result that was tuned so is an upper bound,
not a result; the figures carry what was chosen, and every output says that they do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lavida.detectors.anyanomaly.fusion import VIEWS, fuse, smooth

SIGMAS = (0.0, 2.0, 5.0, 8.0, 12.0, 16.0, 20.0, 30.0, 50.0)
"""Standard deviations of the filter, in frames."""
STEPS = 10
"""Weights are multiples of 1 / STEPS."""

Scores = npt.NDArray[np.float32]
Parts = Mapping[str, Scores]


def tune(
    scores: Sequence[Scores], parts: Sequence[Parts], worth: Callable[[list[Scores]], float]
) -> tuple[list[Scores], dict[str, Any]]:
    """The scores of videos [T] each, fused and smoothed so that they are worth most; and what was chosen.

    parts: of each video, before fusion and smoothing, or empty. Of equals the first is taken: less smoothing, more of
    the first part.
    """
    best: tuple[float, list[Scores], dict[str, Any]] | None = None
    for weights in _weights(parts):
        fused = list(scores) if weights is None else [fuse(each, weights) for each in parts]
        for sigma in SIGMAS:
            smoothed = [smooth(each, sigma) for each in fused]
            value = worth(smoothed)
            if best is None or value > best[0]:
                best = value, smoothed, {"sigma": sigma} | _told(weights)
    assert best is not None
    return best[1], best[2]


def _told(weights: tuple[float, ...] | None) -> dict[str, Any]:
    return {} if weights is None else {"weights": dict(zip(VIEWS, weights, strict=True))}


def _weights(parts: Sequence[Parts]) -> Iterator[tuple[float, ...] | None]:
    """All weights of the views that every video was asked about; None alone where a score is not made of views."""
    asked = [view for view in VIEWS if parts and all(view in each for each in parts)]
    if not asked:
        yield None
        return
    for steps in itertools.product(range(STEPS, -1, -1), repeat=len(VIEWS)):
        if sum(steps) == STEPS and all(view in asked or not step for view, step in zip(VIEWS, steps, strict=True)):
            yield tuple(step / STEPS for step in steps)
