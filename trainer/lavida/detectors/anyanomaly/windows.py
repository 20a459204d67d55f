"""Position context: a frame, dimmed where CLIP does not see the text (WinCLIP's attention).

The frame is resized to 240 x 240 and cut into windows that touch and do not overlap: 5 x 5 of 48, 3 x 3 of 80, 2 x 2 of
120 [P]. Each window's similarity to the text makes a map of its size; the three maps are resized bilinearly to
240 x 240, averaged, brought to 0..1 by their minimum and maximum and multiplied onto the frame. A map without contrast
dims nothing [O].

The text is the mean over WinCLIP's 22 templates. The released code also takes a softmax over the class list of the
dataset, which is closed-set knowledge: `share` does that, and only the option `class_softmax` asks for it.

Legend of shapes: W windows of all sizes, C texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from lavida.detectors.detector import Frame, Scores

SIDE = 240
SIZES = (48, 80, 120)
_SHAPES = (
    "a cropped photo of {} {}.",
    "a close-up photo of {} {}.",
    "a bright photo of {} {}.",
    "a dark photo of {} {}.",
    "a jpeg corrupted photo of {} {}.",
    "a blurry photo of {} {}.",
    "a photo of {} {}.",
    "a photo of {} small {}.",
    "a photo of {} large {}.",
    "a photo of {} {} for visual inspection.",
    "a photo of {} {} for anomaly detection.",
)
# WinCLIP (arXiv 2303.14814), appendix: these with either article, 22 in all.
TEMPLATES = tuple(shape.format(article, "{name}") for shape in _SHAPES for article in ("a", "the"))


def square(frame: Frame, side: int = SIDE) -> Frame:
    """The frame at side x side, whatever its shape was: uint8 [side, side, 3]."""
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR), dtype=np.uint8)


def cut(picture: Frame, sizes: Sequence[int] = SIZES) -> list[Frame]:
    """The windows of a square picture, size after size, each in the order of reading: W of uint8 [size, size, 3]."""
    side = len(picture)
    return [
        picture[top : top + size, left : left + size]
        for size in sizes
        for top in range(0, side, size)
        for left in range(0, side, size)
    ]


def attention(similarity: npt.NDArray[np.floating], sizes: Sequence[int] = SIZES, side: int = SIDE) -> Scores:
    """The similarities [W] of `cut`'s windows as one map float32 [side, side] in 0..1."""
    total = np.zeros((side, side), dtype=np.float64)
    start = 0
    for size in sizes:
        across = side // size
        small = np.asarray(similarity[start : start + across**2], dtype=np.float32).reshape(across, across)
        total += np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BILINEAR))
        start += across**2
    total /= len(sizes)
    low, high = total.min(), total.max()
    if high <= low:
        return np.ones((side, side), dtype=np.float32)
    return np.asarray((total - low) / (high - low), dtype=np.float32)


def attended(picture: Frame, weight: Scores) -> Frame:
    """A picture uint8 [side, side, 3] with each pixel multiplied by its weight [side, side] in 0..1."""
    return np.asarray(np.rint(picture * weight[:, :, None]), dtype=np.uint8)


def share(similarity_CW: npt.NDArray[np.floating], row: int) -> npt.NDArray[np.float64]:
    """The closed-set reading: the softmax over the C texts of each window's cosines, and of that one text's row [W]."""
    raised = np.exp(np.asarray(similarity_CW, dtype=np.float64) - similarity_CW.max(axis=0))
    return np.asarray(raised[row] / raised.sum(axis=0))
