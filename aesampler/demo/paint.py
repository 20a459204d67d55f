"""Pixels and masks of the demo world: a textured backdrop, and things painted over it in their order, with shadows.

A pixel's share of a thing is 1/2 less the signed distance of its centre from the edge, in pixels, within 0..1: a smooth
edge without drawing at a higher resolution. The pixel belongs to the last thing whose share is at least 1/2, that is,
which covers its centre: so masks never overlap, and equal what is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aesampler import rng
from aesampler.demo.shapes import COLOURS, INK, PAPER, SHAPES, Plane, parts
from aesampler.demo.world import Pose, Size, Thing

Pixels = npt.NDArray[np.uint8]

# Dull tones, two a backdrop: nothing in them can be taken for a colour of the vocabulary.
TONES = (
    ((176, 170, 158), (128, 124, 118)),
    ((148, 158, 166), (104, 112, 122)),
    ((186, 182, 176), (150, 142, 138)),
    ((126, 132, 122), (92, 98, 94)),
    ((110, 106, 112), (78, 76, 84)),
    ((196, 190, 176), (158, 156, 150)),
)
SHADOW_SHIFT, SHADOW_BLUR, SHADOW_DEPTH = 3, 4.0, 0.35  # pixels right and down; pixels; share of the light
STRIPE_AXES = ((1.0, 0.0), (0.0, 1.0), (0.6, 0.8), (0.8, -0.6))


def paint(ground: Plane, things: Sequence[Thing]) -> tuple[Pixels, Pixels]:
    """The picture, uint8 [H, W, 3], and the index, uint8 [H, W]: 0 backdrop, k the k-th of `things`.

    ground: float64 [H, W, 3], as of `backdrop`. The things are painted in their order.
    """
    pixels = ground.copy()
    index = np.zeros(ground.shape[:2], dtype=np.uint8)
    for number, thing in enumerate(things, 1):
        for pose in thing.poses:
            _paint_one(pixels, index, number, thing, pose)
    return np.floor(np.clip(pixels, 0.0, 255.0) + 0.5).astype(np.uint8), index


def backdrop(seed: int, kind: str, place: int, size: Size) -> Plane:
    """The textured ground of a picture or clip: float64 [H, W, 3], 0..255."""
    random = rng.generator(seed, "demo", "backdrop", kind, place)
    light, dark = TONES[int(random.random() * len(TONES))]
    texture = _joints(size, int(random.random() * 3), random)
    for cells, depth in ((3, 0.5), (8, 0.3), (24, 0.2)):
        texture += depth * _cloud(random.random((cells + 1, cells + 2)), size)
    mixed = np.clip(texture / 1.3, 0.0, 1.0)[:, :, None]
    ground: Plane = np.array(light) * mixed + np.array(dark) * (1.0 - mixed)
    return ground + 12.0 * (random.random(size)[:, :, None] - 0.5)


def _joints(size: Size, kind: int, random: np.random.Generator) -> Plane:
    """What the ground is laid with: nothing (0), planks (1) or tiles (2), each in its own tone, the joints dark."""
    tone = np.zeros(size)
    if kind == 0:
        return tone + 0.15
    cell = size.height / (5.0 + int(random.random() * 4))
    y, x = (np.arange(size.height) + 0.5) / cell, (np.arange(size.width) + 0.5) / (cell if kind == 2 else cell * 4.0)
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    tone += 0.3 * random.random((row[-1] + 1, column[-1] + 1))[row[:, None], column[None, :]]
    gap = 1.5 / cell
    tone[y - row < gap, :] -= 0.35
    tone[:, x - column < (gap if kind == 2 else gap / 4.0)] -= 0.35
    return tone


def _cloud(grid: Plane, size: Size) -> Plane:
    """`grid` drawn large: [H, W], smooth between its points."""
    top, down = _steps(size.height, grid.shape[0])
    left, right = _steps(size.width, grid.shape[1])
    rows = grid[top] * (1.0 - down)[:, None] + grid[top + 1] * down[:, None]
    return rows[:, left] * (1.0 - right) + rows[:, left + 1] * right


@lru_cache(maxsize=64)
def _steps(length: int, points: int) -> tuple[npt.NDArray[np.int64], Plane]:
    """For each of `length` pixels: the grid point before it, and the share of the one after."""
    where = (np.arange(length) + 0.5) / length * (points - 1)
    before = np.minimum(np.floor(where), points - 2)
    share = where - before
    return before.astype(np.int64), share * share * (3.0 - 2.0 * share)


def _paint_one(pixels: Plane, index: Pixels, number: int, thing: Thing, pose: Pose) -> None:
    height, width = index.shape
    # No shape reaches further than 1.2 of its radius from its centre; the shadow a little more.
    reach = 1.2 * pose.radius + SHADOW_SHIFT + SHADOW_BLUR + 1.0
    top, bottom = max(int(np.floor(pose.y - reach)), 0), min(int(np.ceil(pose.y + reach)), height)
    left, right = max(int(np.floor(pose.x - reach)), 0), min(int(np.ceil(pose.x + reach)), width)
    if top >= bottom or left >= right:
        return
    look, shape = parts(thing.name)
    x, y = _own(pose, (top - SHADOW_SHIFT, bottom), (left - SHADOW_SHIFT, right))
    distance = SHAPES[shape](x, y) * pose.radius
    shade = distance[:-SHADOW_SHIFT, :-SHADOW_SHIFT]
    x, y, distance = (plane[SHADOW_SHIFT:, SHADOW_SHIFT:] for plane in (x, y, distance))
    share = np.clip(0.5 - distance, 0.0, 1.0)[:, :, None]
    dark = SHADOW_DEPTH * np.clip(0.5 - shade / (2.0 * SHADOW_BLUR), 0.0, 1.0)[:, :, None]
    light = (1.0 - 0.14 * (x + y)) * (1.0 - 0.22 * np.clip(1.0 + distance / 2.5, 0.0, 1.0))
    surface = _surface(look, thing, pose, x, y) * light[:, :, None]
    box = pixels[top:bottom, left:right]
    box[...] = box * (1.0 - dark) * (1.0 - share) + surface * share
    index[top:bottom, left:right][distance <= 0.0] = number


def _own(pose: Pose, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[Plane, Plane]:
    """Centres of the pixels of a box in the thing's own coordinates: x and y, [rows, columns]."""
    half = pose.tilt * pose.tilt
    # Of the angle whose half has the tangent `tilt`; numpy.sin and cos differ between machines in the last bit.
    cosine, sine = (1.0 - half) / (1.0 + half), 2.0 * pose.tilt / (1.0 + half)
    down = ((np.arange(*rows) + 0.5) - pose.y)[:, None] / pose.radius
    across = ((np.arange(*columns) + 0.5) - pose.x)[None, :] / pose.radius
    return across * cosine + down * sine, down * cosine - across * sine


def _surface(look: str, thing: Thing, pose: Pose, x: Plane, y: Plane) -> Plane:
    """The colours of a thing before light falls on it: [rows, columns, 3]."""
    first, second, third, fourth = thing.chance
    if look in COLOURS:
        varied = np.array(COLOURS[look]) * (0.88 + 0.2 * first) + 16.0 * (np.array([second, third, fourth]) - 0.5)
        return np.broadcast_to(varied, (*x.shape, 3))
    # At least 2.5 pixels a stripe, so that a small thing's pattern can still be seen.
    period = max(0.4 + 0.2 * first, 5.0 / pose.radius)
    along, across = STRIPE_AXES[int(second * len(STRIPE_AXES))]
    u = (x * along + y * across) / period + third
    u = np.abs(u - np.floor(u) - 0.5)
    if look == "striped":
        edge = u - 0.25
    else:
        v = (y * along - x * across) / period + fourth
        v = np.abs(v - np.floor(v) - 0.5)
        edge = np.sqrt(u * u + v * v) - 0.32
    ink = np.clip(0.5 - edge * period * pose.radius, 0.0, 1.0)[:, :, None]
    surface: Plane = np.array(INK) * ink + np.array(PAPER) * (1.0 - ink)
    return surface
