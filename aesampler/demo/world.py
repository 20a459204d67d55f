"""What is where in the demo world: pictures and clips as data, made from (seed, place) alone; `paint` draws them.

Every name is treated by the same law of place, size, order and motion, so that nothing but the look of a thing tells
what it is: in a clip the red circle enters no faster and no later than anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from aesampler import rng

T = TypeVar("T")

MOST_THINGS = 5
CROWD_SHARE = 0.1  # of pictures
REPEAT_SHARE = 0.3  # of the things after the first two: another of the first one's name


class Size(NamedTuple):
    """Of a picture, in pixels."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where a thing is in one frame. x, y: centre, radius: size, in pixels; tilt: tangent of half its angle."""

    x: float
    y: float
    radius: float
    tilt: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One annotated thing of a picture: one pose, or several where it is a crowd.

    chance: what varies within its look, each number in [0, 1).
    """

    name: str
    poses: tuple[Pose, ...]
    chance: tuple[float, float, float, float]
    crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A thing's way through a clip: from `start` by `middle` to `end`, a quadratic curve.

    leave, arrive: when it is under way, from 0 (first frame) to 1 (last); before and after it rests. An arrival later
    than 1 is not seen.
    """

    name: str
    chance: tuple[float, float, float, float]
    start: Pose
    middle: Pose
    end: Pose
    leave: float
    arrive: float

    def at(self, time: float) -> Thing:
        """The thing at `time`, 0..1 of the clip."""
        step = min(max((time - self.leave) / (self.arrive - self.leave), 0.0), 1.0)
        first, second, third = (1.0 - step) * (1.0 - step), 2.0 * step * (1.0 - step), step * step

        def mixed(one: float, two: float, three: float) -> float:
            return first * one + second * two + third * three

        start, middle, end = self.start, self.middle, self.end
        pose = Pose(
            x=mixed(start.x, middle.x, end.x),
            y=mixed(start.y, middle.y, end.y),
            radius=mixed(start.radius, middle.radius, end.radius),
            tilt=mixed(start.tilt, middle.tilt, end.tilt),
        )
        return Thing(name=self.name, chance=self.chance, poses=(pose,))


def picture(seed: int, place: int, names: Sequence[str], size: Size) -> list[Thing]:
    """The things of picture `place`, in the order in which they are painted."""
    dice = _Dice(seed, "picture", place)
    listed = dice.names(names)
    things: list[Thing] = []
    for name in listed:
        pose = dice.free_pose(size, [thing.poses[0] for thing in things])
        things.append(Thing(name=name, poses=(pose,), chance=dice.chance()))
    if dice.roll() < CROWD_SHARE:
        things.insert(0, Thing(name=dice.pick(names), poses=dice.crowd_poses(size), chance=dice.chance(), crowd=True))
    return things


def clip(seed: int, place: int, names: Sequence[str], size: Size) -> list[Way]:
    """The ways of the things of clip `place`, in the order in which they are painted, in every frame."""
    dice = _Dice(seed, "clip", place)
    return [dice.way(name, size) for name in dice.names(names)]


class _Dice:
    """The draws of one picture or clip, in one fixed order."""

    def __init__(self, seed: int, kind: str, place: int) -> None:
        self.seed, self.kind, self.place = seed, kind, place
        self.random = rng.generator(seed, "demo", kind, place)

    def roll(self) -> float:
        return float(self.random.random())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.roll()

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.roll() * len(choices))]

    def chance(self) -> tuple[float, float, float, float]:
        return self.roll(), self.roll(), self.roll(), self.roll()

    def names(self, names: Sequence[str]) -> list[str]:
        """2 to 5 names: two cards of the deck, then any, or the first again; in random order."""
        listed = [self._card(2 * self.place, names), self._card(2 * self.place + 1, names)]
        for _ in range(int(self.between(0, MOST_THINGS - 1))):
            listed.append(listed[0] if self.roll() < REPEAT_SHARE else self.pick(names))
        return [listed[i] for i in np.argsort(self.random.random(len(listed)), kind="stable")]

    def _card(self, number: int, names: Sequence[str]) -> str:
        deck, card = divmod(number, len(names))
        return sorted(names, key=lambda name: rng.order(self.seed, "demo", self.kind, deck, name))[card]

    def pose(self, size: Size) -> Pose:
        radius = self.between(0.1, 0.21) * size.height
        return Pose(
            x=self.between(0.6 * radius, size.width - 0.6 * radius),
            y=self.between(0.6 * radius, size.height - 0.6 * radius),
            radius=radius,
            tilt=self.between(-0.18, 0.18),
        )

    def free_pose(self, size: Size, taken: Sequence[Pose]) -> Pose:
        """A pose that may overlap those taken and bury none: of eight tries the first so, or the last."""
        for _ in range(8):
            pose = self.pose(size)
            if all(_apart(pose, other) >= 0.8 for other in taken):
                break
        return pose

    def crowd_poses(self, size: Size) -> tuple[Pose, ...]:
        """Three rows of three to five small things, close together."""
        radius, columns = self.between(0.035, 0.05) * size.height, int(self.between(3, 6))
        left = self.between(2 * radius, size.width - 2.2 * radius * columns)
        top = self.between(2 * radius, size.height - 7 * radius)
        return tuple(
            Pose(
                x=left + (2.2 * column + self.between(-0.3, 0.3)) * radius,
                y=top + (2.2 * row + self.between(-0.3, 0.3)) * radius,
                radius=radius,
                tilt=self.between(-0.18, 0.18),
            )
            for row in range(3)
            for column in range(columns)
        )

    def way(self, name: str, size: Size) -> Way:
        """Drifts (35 %), enters (25 %), leaves (20 %) or crosses (20 %)."""
        inside, other = self.pose(size), self.pose(size)
        kind, outside, beyond = self.roll(), self._outside(size, inside.radius), self._outside(size, inside.radius)
        end = Pose(x=other.x, y=other.y, radius=inside.radius * self.between(0.8, 1.25), tilt=other.tilt)
        leave = self.between(0.0, 0.5)
        arrive = leave + self.between(0.3, 0.5)
        if kind < 0.35:
            start, leave, arrive = inside, 0.0, 1.0
        elif kind < 0.6:
            start = _moved(inside, outside)
        elif kind < 0.8:
            start, end = inside, _moved(inside, outside)
        else:
            start, end = _moved(inside, outside), _moved(inside, beyond)
        middle, chance = self.pose(size), self.chance()
        return Way(name=name, chance=chance, start=start, middle=middle, end=end, leave=leave, arrive=arrive)

    def _outside(self, size: Size, radius: float) -> tuple[float, float]:
        """A centre from which nothing reaches into the picture, beyond one of its four sides."""
        side, along, away = self.pick(["left", "right", "top", "bottom"]), self.roll(), 1.3 * radius
        if side in ("left", "right"):
            return (-away if side == "left" else size.width + away), along * size.height
        return along * size.width, (-away if side == "top" else size.height + away)


def _moved(pose: Pose, centre: tuple[float, float]) -> Pose:
    return Pose(x=centre[0], y=centre[1], radius=pose.radius, tilt=pose.tilt)


def _apart(one: Pose, other: Pose) -> float:
    """Distance of two centres, in mean diameters."""
    x, y = one.x - other.x, one.y - other.y
    return float(np.sqrt(x * x + y * y)) / (one.radius + other.radius)
