"""A video with what the detector says drawn into it, frame by frame as they come: the mask in red, the score below.

Only what has been seen so far is known, so scores without a scale of their own (0..1) are drawn on one that grows with
the highest score yet.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]

SIDE = 960
"""The longer side of an overlay, at most."""
HISTORY_S = 10.0
"""Seconds of scores below the picture."""
RED, WHITE, DARK, GREY = (222, 38, 72), (255, 255, 255), (19, 22, 27), (92, 99, 112)
MASKED = 0.6
"""How much of the red the highest pixel score takes."""
MARKED = 0.5
"""The share of the scale from which a pixel is outlined."""


def shrunk(frame: Pixels, side: int = SIDE) -> Pixels:
    """The frame with its longer side at most `side`: itself where it is small enough."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return frame
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))


class Painter:
    """Draws the frames of one video, in order.

    threshold: where the border turns red; None: never. scaled: scores lie in 0..1; else the scale grows with them.
    """

    def __init__(self, rate: float, threshold: float | None, scaled: bool) -> None:
        self._threshold = threshold
        self._highest = 1.0 if scaled else 0.0
        self._highest_pixel = 1.0 if scaled else 0.0
        self._history: deque[float] = deque(maxlen=max(2, round(HISTORY_S * rate)))

    def paint(self, picture: Pixels, time_s: float, score: float, mask: npt.NDArray[np.floating] | None) -> Pixels:
        """One frame, uint8 [h + strip, w, 3]. picture: uint8 [h, w, 3]; mask: pixel scores [H, W] of any size."""
        self._history.append(score)
        self._highest = max(self._highest, score)
        shown = picture if mask is None else self._masked(picture, mask)
        height, width = shown.shape[:2]
        strip = max(36, round(height * 0.12))
        canvas = Image.new("RGB", (width, height + strip), DARK)
        canvas.paste(Image.fromarray(shown), (0, 0))
        draw = ImageDraw.Draw(canvas)
        self._strip(draw, width, height, strip)
        draw.text((8, height + 4), f"{time_s:.1f} s   score {score:.3g}", fill=WHITE, font_size=max(12, strip // 4))
        if self._threshold is not None and score >= self._threshold:
            draw.rectangle((0, 0, width - 1, height - 1), outline=RED, width=max(2, height // 120))
        return np.asarray(canvas)

    def _masked(self, picture: Pixels, mask: npt.NDArray[np.floating]) -> Pixels:
        plane = mask.astype(np.float32)
        if plane.shape != picture.shape[:2]:
            size = (picture.shape[1], picture.shape[0])
            plane = np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR))
        self._highest_pixel = max(self._highest_pixel, float(plane.max()))
        if self._highest_pixel <= 0:
            return picture
        share = np.clip(plane / self._highest_pixel, 0, 1)
        weight = (MASKED * share)[..., None]
        blended = picture * (1 - weight) + np.asarray(RED, dtype=np.float32) * weight
        blended[_outline(share >= MARKED)] = RED
        return np.asarray(np.round(blended), dtype=np.uint8)

    def _strip(self, draw: ImageDraw.ImageDraw, width: int, top: int, strip: int) -> None:
        """The scores of the last seconds as a line, the newest at the right edge."""
        room = self._history.maxlen or 2
        scale = (strip - 4) / self._highest if self._highest > 0 else 0.0
        floor = top + strip - 2
        first = width - 1 - (len(self._history) - 1) * (width - 1) / (room - 1)
        step = (width - 1) / (room - 1)
        points = [(first + place * step, floor - max(score, 0.0) * scale) for place, score in enumerate(self._history)]
        if self._threshold is not None and 0 < self._threshold <= self._highest:
            level = floor - self._threshold * scale
            draw.line((0, level, width, level), fill=GREY)
        if len(points) > 1:
            draw.polygon([(points[0][0], floor), *points, (points[-1][0], floor)], fill=(96, 22, 38))
            draw.line(points, fill=RED, width=2)


def _outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels of a mask that touch what is outside of it."""
    inner = mask.copy()
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    return mask & ~inner
