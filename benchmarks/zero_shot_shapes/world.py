"""The frozen world of the benchmark: which names are held out, the training corpus, and the made VAD clips.

    demo world (aesampler.demo), 48 names = 8 looks x 6 shapes
      -> 40 seen names: pictures and clips -> aesampler's ordinary build -> corpus (train, validation)
      -> all 48 names: clips of 16 frames -> frames, lists of names, masks and labels of the test

Held out are 8 combinations, one of each look; no training picture shows one and no training list names one.

A test clip is a clip of the demo world as it is: every thing, whatever its name, is placed, sized, painted and moved by
one law. The target of an anomalous clip is a thing that is outside at the first frame and comes in later, and whose
name no other thing of the clip has; a frame is anomalous where a pixel of it is visible. Each such clip is used twice,
with the same pixels: under a list with the target's name, and under one of as many names none of which the clip ever
shows, where it is normal throughout. Beside each stand two ordinary clips, normal under their lists, into which three
or more things come: motion says nothing of the label, and things of the 8 unseen names come in unlisted, too.

Where the target is seen, lists hold seen names. Where it is unseen, each list, of normal clips too, has one unseen name
more than chance brings; the other names are drawn from all 48.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from aesampler import Corpus, Folder, Inline, Recipe, build_corpus, plan_corpus, rng
from aesampler.demo import NAMES, Size, write_world
from aesampler.demo.paint import backdrop, paint
from aesampler.demo.world import Way, clip, picture

UNSEEN = (
    "red star",
    "orange ring",
    "yellow cross",
    "green square",
    "blue triangle",
    "purple circle",
    "striped star",
    "dotted square",
)
SEEN = tuple(name for name in NAMES if name not in UNSEEN)

SIDE = 96  # pixels; the demo world's law makes things 19 to 40 pixels wide in it, a crowd's 7 to 10
SIZE = Size(SIDE, SIDE)
SEED, TEST_SEED = 6, 2026
PICTURES, CLIPS, CLIP_FRAMES = 6000, 300, 24
FRAMES = 16
LONGEST = 8
CASES = 80  # clips with a seen target, and as many with an unseen one
ORDINARY, BUSY = 2, 3  # ordinary clips beside each, and things that come into one
ORDINARY_FROM = 100_000  # their places begin here: none is an anomalous clip as well
VALIDATION = 0.04
FROZEN = "a10eb0dbd999a5a2769ff3db1759f00b83a2f93e95917c493de6b8a13ffeb6d1"
"""What `fingerprint` gives; figures of another world are not comparable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Names that a clip is scored under: a list of one name, and one of 2 to 8."""

    one: tuple[str, ...]
    many: tuple[str, ...]


@dataclass(frozen=True)
class VadClip:
    """A clip of the test. target: the place of the listed thing in `ways`, None in an ordinary clip.

    unlisted: lists of names that are not in the clip. listed: lists with the target's name; None in an ordinary clip.
    """

    place: int
    ways: tuple[Way, ...]
    target: int | None
    unlisted: Lists
    listed: Lists | None

    @cached_property
    def painted(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
        """Frames, uint8 [T, SIDE, SIDE, 3], and the target's visible pixels, bool [T, SIDE, SIDE]."""
        ground = backdrop(TEST_SEED, "clip", self.place, SIZE)
        drawn = [paint(ground, [way.at(frame / (FRAMES - 1)) for way in self.ways]) for frame in range(FRAMES)]
        index = np.stack([plane for _, plane in drawn])
        shown = np.zeros(index.shape, np.bool_) if self.target is None else index == self.target + 1
        return np.stack([pixels for pixels, _ in drawn]), shown

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """Frames, uint8 [T, SIDE, SIDE, 3]."""
        return self.painted[0]

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """The target, bool [T, SIDE, SIDE]."""
        return self.painted[1]

    @property
    def labels(self) -> npt.NDArray[np.uint8]:
        """1 where the target is visible: uint8 [T]."""
        return self.masks.any(axis=(1, 2)).astype(np.uint8)


def made_clips(seen: bool, count: int = CASES) -> list[VadClip]:
    """The first `count` clips whose target is a seen, or an unseen, combination, then twice as many ordinary ones."""
    anomalous = (_anomalous(place, seen) for place in itertools.count())
    ordinary = (_ordinary(place, seen) for place in itertools.count(ORDINARY_FROM))
    found = itertools.islice((made for made in anomalous if made), count)
    return [*found, *itertools.islice((made for made in ordinary if made), ORDINARY * count)]


def _anomalous(place: int, seen: bool) -> VadClip | None:
    ways = tuple(clip(TEST_SEED, place, NAMES, SIZE))
    names = [way.name for way in ways]
    pool = SEEN if seen else UNSEEN
    random = _random(place, seen)
    targets = [i for i, way in enumerate(ways) if names.count(way.name) == 1 and way.name in pool and _enters(way)]
    if not targets:
        return None
    target = _shuffled(targets, random)[0]
    listed = _lists(names, seen, names[target], random)
    unlisted = _lists(names, seen, None, random, len(listed.many))
    made = VadClip(place=place, ways=ways, target=target, unlisted=unlisted, listed=listed)
    return made if made.labels.any() and not made.labels[0] else None


def _ordinary(place: int, seen: bool) -> VadClip | None:
    ways = tuple(clip(TEST_SEED, place, NAMES, SIZE))
    if sum(map(_enters, ways)) < BUSY:
        return None
    unlisted = _lists([way.name for way in ways], seen, None, _random(place, seen))
    return VadClip(place=place, ways=ways, target=None, unlisted=unlisted, listed=None)


def _lists(
    shown: Sequence[str], seen: bool, target: str | None, random: np.random.Generator, length: int | None = None
) -> Lists:
    """Lists of `target`, or of an absent name like it, and of other absent names."""
    absent = _shuffled([name for name in (SEEN if seen else NAMES) if name not in shown], random)
    first = target or next(name for name in absent if name in (SEEN if seen else UNSEEN))
    length = length or 2 + int(random.random() * (LONGEST - 1))
    beside = [name for name in absent if name != first][: length - 1]
    return Lists(one=(first,), many=tuple(_shuffled([first, *beside], random)))


def _random(place: int, seen: bool) -> np.random.Generator:
    return rng.generator(TEST_SEED, "zero-shot-shapes", "seen" if seen else "unseen", place)


def _enters(way: Way) -> bool:
    """Whether a thing stands outside the picture before it sets off, and sets off before the end."""
    pose = way.start
    outside = not (-pose.radius < pose.x < SIDE + pose.radius and -pose.radius < pose.y < SIDE + pose.radius)
    return outside and way.leave < 1.0


def _shuffled(things: Sequence[Any], random: np.random.Generator) -> list[Any]:
    return [things[place] for place in np.argsort(random.random(len(things)), kind="stable")]


# -- the training corpus -----------------------------------------------------------------------------------------------


def recipe(pictures: int = PICTURES, clips: int = CLIPS) -> dict[str, Any]:
    """The recipe of the training corpus, beside the folder `world`."""
    split = {"train": 1.0 - VALIDATION, "validation": VALIDATION}
    sources = [
        {"name": "shapes", "format": "coco", "root": "world/coco", "split": split, "weight": 0.5},
        {"name": "shapes-clips", "format": "youtube-vos", "root": "world/youtube-vos", "split": split, "weight": 0.5},
    ]
    return {
        "name": "zero-shot-shapes",
        "about": {"description": "Seen combinations of the demo world", "license": "CC0-1.0", "date": "2026-11-22"},
        "out": "corpus",
        "seed": SEED,
        "sources": [source for source, count in zip(sources, (pictures, clips), strict=True) if count],
        "exposure": {
            "anomaly_probability": 0.5,
            "max_categories": LONGEST,
            "irrelevant_from": "balanced",  # lists as long for normal samples as for others, of one name upwards
            "irrelevant_count": [0, LONGEST - 1],
            "genuine": "one",
        },
        "clips": {"frames": 8, "stride": 1, "every": 8},
        "shards": {"max_samples": 500},
    }


def training_corpus(folder: Path, pictures: int = PICTURES, clips: int = CLIPS) -> Corpus:
    """The training corpus in `folder`, made there where it is not: the world written, then aesampler's build."""
    write_world(
        folder / "world",
        images=pictures,
        videos=clips,
        frames=CLIP_FRAMES,
        size=SIZE,
        seed=SEED,
        names=SEEN,
    )
    path = folder / "corpus.yaml"
    path.write_text(yaml.safe_dump(recipe(pictures, clips), sort_keys=False))
    out = Folder.at(folder / "corpus")
    build_corpus(plan_corpus(Recipe.load(path)), out, Inline())
    return Corpus.open(out)


# -- the freeze --------------------------------------------------------------------------------------------------------


def fingerprint() -> str:
    """Sha256 over the split, the recipe, what the training pictures show, and the labels, masks and lists of all cases.

    Masks and numbers of the demo world are the same on every machine; the bytes of its JPEGs are not, and stay out.
    """
    digest = hashlib.sha256(json.dumps([SEEN, UNSEEN, recipe(), SIDE, FRAMES], sort_keys=True).encode())
    for place in range(0, PICTURES, 100):
        digest.update(repr(picture(SEED, place, SEEN, SIZE)).encode())
    for place in range(0, CLIPS, 50):
        digest.update(repr(clip(SEED, place, SEEN, SIZE)).encode())
    for made in (*made_clips(True), *made_clips(False)):
        lists = [made.unlisted, made.listed] if made.listed else [made.unlisted]
        digest.update(json.dumps([made.place, *([each.one, each.many] for each in lists)]).encode())
        digest.update(np.packbits(made.masks).tobytes())
    return digest.hexdigest()
