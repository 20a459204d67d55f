"""From the scores of the questions to scores of frames: weights, and smoothing that never leaves a video.

    score = (g1 frame + g2 position + g3 temporal) / (g1 + g2 + g3)                                             [P]

Divided by the sum of the weights [O], which moves no AUC and keeps scores in 0..1. Of several texts each question takes
the highest answer [C]. A question without an answer is left out, its weight too; where none has one, the score is
`UNKNOWN`, half way, and counted by the detector. All of it is numpy: an evaluation fuses and smooths again, with other
weights, without asking the model again.

A segment's score is repeated over its frames, then a 1-D Gaussian runs over the frames of ONE video, mirrored at its
ends. The released code lets it run across video borders and picks sigma (1 to 99) and the weights by the test labels;
here sigma is 12, half a segment, and the weights are equal, unless a preset is asked for by name. What tuning the
weights is worth (Table S3): 87.3 against 84.4 on Avenue, 79.7 against 79.4 on ShanghaiTech.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from lavida.detectors.anyanomaly.prompts import View
from lavida.detectors.detector import Scores

VIEWS: tuple[View, View, View] = ("frame", "position", "temporal")
UNKNOWN = 0.5
TRUNCATE = 4.0
"""The Gaussian ends at this many sigma, as scipy's does by default."""
Weights = tuple[float, float, float]
"""Of VIEWS, in this order."""
PresetName = Literal["untuned", "avenue", "shanghaitech"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Weights, and sides of windows in a 240 x 240 frame. note: what must be said beside a result; empty if nothing."""

    weights: Weights
    windows: tuple[int, ...] = (48, 80, 120)
    note: str = ""


_CHOSEN = "the weights of this preset were tuned by the paper's authors on the test labels of {} (its Table S3)"
PRESETS: dict[PresetName, Preset] = {
    "untuned": Preset(weights=(1.0, 1.0, 1.0)),
    "avenue": Preset(weights=(0.6, 0.3, 0.1), windows=(48, 80, 240), note=_CHOSEN.format("CUHK Avenue")),
    "shanghaitech": Preset(weights=(0.5, 0.3, 0.2), note=_CHOSEN.format("ShanghaiTech")),
}


def fuse(parts: Mapping[str, Scores], weights: Sequence[float]) -> Scores:
    """The weighted mean of the questions. parts: float32 [n] by view, NaN without an answer; a view that was not asked
    is missing. weights: of VIEWS. Returns float32 [n]. Raises ValueError where no view of weight above 0 was asked.
    """
    used = [(parts[view], weight) for view, weight in zip(VIEWS, weights, strict=True) if weight > 0 and view in parts]
    if not used:
        raise ValueError(f"no view with a weight was asked: {sorted(parts)} with weights {list(weights)}")
    values = np.stack([part for part, _ in used]).astype(np.float64)
    shares = np.where(np.isnan(values), 0.0, np.array([[weight] for _, weight in used]))
    total = shares.sum(axis=0)
    mean = (np.nan_to_num(values) * shares).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, mean, UNKNOWN).astype(np.float32)


def smooth(scores: npt.NDArray[np.floating], sigma: float) -> Scores:
    """One video's scores [T] after a Gaussian of `sigma` frames, mirrored at both ends; sigma 0 changes nothing."""
    if sigma == 0 or not len(scores):
        return np.asarray(scores, dtype=np.float32)
    known = np.asarray(scores, dtype=np.float64)
    return np.asarray(gaussian_filter1d(known, sigma, mode="reflect", truncate=TRUNCATE), dtype=np.float32)


class Smoother:
    """`smooth`, as the scores of one video come: a score leaves once those up to 4 sigma after it are known."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma
        self.reach = int(TRUNCATE * sigma + 0.5)
        self._known: npt.NDArray[np.float64] = np.empty(0)  # from 4 sigma before the first that has not left
        self._left = 0  # how many of them have left

    def push(self, scores: Scores) -> Scores:
        """Take the next scores; give those that are settled, perhaps none."""
        self._known = np.concatenate([self._known, np.asarray(scores, dtype=np.float64)])
        return self._leave(max(self._left, len(self._known) - self.reach))

    def close(self) -> Scores:
        """The video ended: give the rest."""
        return self._leave(len(self._known))

    def _leave(self, stop: int) -> Scores:
        settled = smooth(self._known, self.sigma)[self._left : stop]
        drop = max(0, stop - self.reach)
        self._known = self._known[drop:]
        self._left = stop - drop
        return settled
