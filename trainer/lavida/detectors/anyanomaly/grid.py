"""Temporal context: one window of the four key frames, side by side in time as a 2 x 2 picture.

The windows are those of the position context, cut from the four key frames at the same place: 25 + 9 + 4 grids. A grid
is read row by row: the earliest frame upper left, then upper right, lower left, the latest lower right. Each cell is
resized to 120 x 120, so that every grid is 240 x 240. Of all grids of all sizes, the one whose own CLIP similarity to
the text is highest is asked about [P]; the released code compares single cells instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lavida.detectors.anyanomaly.windows import SIDE, SIZES, cut, square
from lavida.detectors.detector import Frame


def grids(pictures: Sequence[Frame], sizes: Sequence[int] = SIZES) -> list[Frame]:
    """All grids of four square pictures [side, side, 3] given in the order of time: each uint8 [240, 240, 3], in the
    order of `cut`.
    """
    return [assembled(cells) for cells in zip(*(cut(picture, sizes) for picture in pictures), strict=True)]


def assembled(cells: Sequence[Frame]) -> Frame:
    """Four cells in the order of time as one picture uint8 [240, 240, 3]."""
    first, second, third, fourth = (square(cell, SIDE // 2) for cell in cells)
    return np.block([[[first], [second]], [[third], [fourth]]])
