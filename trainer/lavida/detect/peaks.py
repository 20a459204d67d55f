"""The frames at which a video scores highest, found while it is gone through, however long it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lavida.detect import overlay

BUCKETS = 64
"""Thumbnails kept of a video: the best frame of each of so many stretches of equal length."""
BUCKET_S = 0.5
"""The length of a stretch at first; it doubles whenever there are more than BUCKETS."""
THUMBNAIL = 320

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A frame that has its score. picture: a small copy, uint8 [h, w, 3]; mask: pixel scores [H, W] or None."""

    place: int
    time_s: float
    score: float
    picture: Pixels
    mask: npt.NDArray[np.floating] | None


class Peaks:
    """The best frame of each stretch of a video, in at most BUCKETS thumbnails whatever its length."""

    def __init__(self) -> None:
        self._width = BUCKET_S
        self._best: dict[int, Seen] = {}

    def add(self, seen: Seen) -> None:
        """One more frame."""
        bucket = int(seen.time_s // self._width)
        held = self._best.get(bucket)
        if held is not None and held.score >= seen.score:
            return
        small = overlay.shrunk(seen.picture, THUMBNAIL)
        self._best[bucket] = Seen(place=seen.place, time_s=seen.time_s, score=seen.score, picture=small, mask=None)
        if len(self._best) > BUCKETS:
            self._widen()

    def _widen(self) -> None:
        self._width *= 2
        merged: dict[int, Seen] = {}
        for seen in self._best.values():
            bucket = int(seen.time_s // self._width)
            if bucket not in merged or merged[bucket].score < seen.score:
                merged[bucket] = seen
        self._best = merged

    def best(self, count: int) -> Sequence[tuple[float, Pixels]]:
        """At most `count` of them, the highest first to be taken, none near another: (seconds, picture) by time."""
        if not self._best or count == 0:
            return []
        last = max(seen.time_s for seen in self._best.values())
        apart = last / (2 * count)
        taken: list[Seen] = []
        for seen in sorted(self._best.values(), key=lambda seen: (-seen.score, seen.place)):
            if len(taken) < count and all(abs(seen.time_s - other.time_s) >= apart for other in taken):
                taken.append(seen)
        return [(seen.time_s, seen.picture) for seen in sorted(taken, key=lambda seen: seen.place)]
