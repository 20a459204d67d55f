"""The vocabulary of the demo world: the looks, the shapes, and the 48 names that they make.

A shape is a signed distance in its own coordinates, where its size is about 1: negative inside, x to the right, y down.
The shape is where it is 0 or less; it is exact near the edge, which is all that is asked of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float64]
Distance = Callable[[Plane, Plane], Plane]

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (204, 42, 48),
    "orange": (240, 132, 30),
    "yellow": (246, 212, 52),
    "green": (52, 156, 72),
    "blue": (46, 98, 206),
    "purple": (142, 66, 180),
}
# A pattern has no colour of its own: ink on paper, so that "striped" and "red" never compete for one thing.
PATTERNS = ("striped", "dotted")
PAPER, INK = (240, 238, 230), (38, 38, 46)
LOOKS = (*COLOURS, *PATTERNS)

SQUARE_SIDE, TRIANGLE_REACH, CROSS_WIDTH = 0.84, 1.14, 0.36  # half a side; centre to corner; half an arm
RING_MIDDLE, RING_WIDTH = 0.72, 0.28  # radius of its middle; half its width
STAR_WAIST = 0.45  # radius of its inner corners
HALF_ROOT_3 = math.sqrt(3.0) / 2.0
COS_36, SIN_36 = 0.8090169943749475, 0.5877852522924731


def _length(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y)  # sqrt is exact by IEEE 754; hypot is not


def _box(x: Plane, y: Plane, width: float, height: float) -> Plane:
    right, down = np.abs(x) - width, np.abs(y) - height
    return _length(np.maximum(right, 0.0), np.maximum(down, 0.0)) + np.minimum(np.maximum(right, down), 0.0)


def circle(x: Plane, y: Plane) -> Plane:
    """A disc of radius 1."""
    return _length(x, y) - 1.0


def ring(x: Plane, y: Plane) -> Plane:
    """A disc with a hole, which no single polygon can say."""
    return np.abs(_length(x, y) - RING_MIDDLE) - RING_WIDTH


def square(x: Plane, y: Plane) -> Plane:
    """A square standing on its side."""
    return _box(x, y, SQUARE_SIDE, SQUARE_SIDE)


def triangle(x: Plane, y: Plane) -> Plane:
    """An equilateral triangle, corner up."""
    return np.maximum(HALF_ROOT_3 * np.abs(x) - 0.5 * y, y) - 0.5 * TRIANGLE_REACH


def cross(x: Plane, y: Plane) -> Plane:
    """A plus sign."""
    return np.minimum(_box(x, y, 1.0, CROSS_WIDTH), _box(x, y, CROSS_WIDTH, 1.0))


def star(x: Plane, y: Plane) -> Plane:
    """A star of five corners, corner up: folded along its axes onto one edge."""
    x, y = np.abs(x), -y
    for side in (COS_36, -COS_36):
        over = 2.0 * np.maximum(side * x - SIN_36 * y, 0.0)
        x, y = x - over * side, y + over * SIN_36
    x, y = np.abs(x), y - 1.0
    edge_x, edge_y = STAR_WAIST * SIN_36, STAR_WAIST * COS_36 - 1.0
    along = np.clip((x * edge_x + y * edge_y) / (edge_x * edge_x + edge_y * edge_y), 0.0, 1.0)
    distance = _length(x - edge_x * along, y - edge_y * along)
    return np.where(y * edge_x - x * edge_y <= 0.0, -distance, distance)


SHAPES: Mapping[str, Distance] = {
    "circle": circle,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "ring": ring,
}
NAMES: tuple[str, ...] = tuple(f"{look} {shape}" for look in LOOKS for shape in SHAPES)


def parts(name: str) -> tuple[str, str]:
    """Look and shape of a name: `("red", "circle")`."""
    look, shape = name.split(" ")
    return look, shape
