"""The Anomaly Exposure Sampler: which names a sample is listed with, and whether it counts as an anomaly. LAVIDA
equations 1 and 2.

    (1)  irrelevant names: N of them, drawn from the names of the other samples, without any that is present here
    (2)  (list, label) = (shuffle(genuine and irrelevant), anomalous)   with probability p
                         (shuffle(irrelevant),             normal)      with probability 1 - p

`draw` is pure: (scene, vocabulary, settings, generator) -> Exposure. The build and every reader call it; nothing else
decides.

With `irrelevant_from: balanced` a list tells as little of its label as can be. The paper's law gives two things away:
a list with an anomaly is longer, by its genuine names; and a frequent name is mostly genuine where it is listed, since
it cannot be irrelevant where it is present. So a normal sample lists as many names more as it would have exposed
(`stand-ins`), drawn by the odds f / (1 - f) of a name that f of the records show, which the rejection of present names
turns into f again; all other irrelevant names are drawn by 1 / (odds + mean odds), so that those which are often
genuine are seldom fillers. See benchmarks/shortcut.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aesampler.scene import Presence, Scene
from aesampler.vocabulary import IrrelevantFrom, Vocabulary

Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


RULES = ("present", "elsewhere", "near", "kin", "shown", "unknown")
"""Why a name is not drawn. present: marked in the sampled frames. elsewhere: present in the record or its group,
without a mask in these frames. near, kin: see `aesampler.relations`. shown: a CLIP image tower takes the picture to
show it, and it is not known absent. unknown: not known absent, where `absence` asks for it.
"""

Why = npt.NDArray[np.int8]
"""Why each name of a vocabulary may not be irrelevant in a scene: int8 [names], see `rejections`."""


class SimilaritySettings(BaseModel):
    """Names that a CLIP text encoder finds too close to a name that is present are not drawn; nor, if asked for, those
    that its image encoder takes the picture to show.

    model: an open_clip architecture. pretrained: a local weights file or an open_clip tag. reject_above: cosine
    similarity of two names, -1 to 1. shown_above: cosine similarity of a name and a frame; null: frames are not looked
    at. CLIP's similarities of text and picture are far lower than those of two texts: with OpenAI's ViT-B-32, 0.3 is
    high.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    pretrained: str
    reject_above: float = Field(ge=-1.0, le=1.0)
    shown_above: float | None = Field(default=None, ge=-1.0, le=1.0)


class HardSettings(BaseModel):
    """A share of the irrelevant names is drawn from those near the genuine ones, and known absent.

    share: of the irrelevant names, where there are as many. by: what is near a genuine name: `supercategory`, the names
    of its supercategory, where the source has such, and its kin (see `aesampler.relations`); `similarity`, the 10 names
    most similar to it of those that `similarity` does not reject.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    share: float = Field(ge=0.0, le=1.0)
    by: Literal["supercategory", "similarity"] = "supercategory"


class ExposureSettings(BaseModel):
    """The `exposure` part of a recipe; a source's own `exposure` overrides single keys of it.

    anomaly_probability: p of equation 2, conditional on the sample having a mask to expose. max_categories: cap of the
    list; where the genuine names reach it, a keyed draw keeps cap - 1 of them. irrelevant_count: N of equation 1:
    "uniform" on 1..min(cap - genuine, pool), an integer, or [low, high]; low may be 0, and a normal sample then still
    lists one name. irrelevant_from: the law of one irrelevant name, see `Vocabulary.weights`; `balanced` also makes
    normal lists as long as the others, see the module. genuine: how many of the names visible in the sampled frames are
    genuine: all, one, or [low, high]. frame_labels: `presence` (1 where the mask is) or `clip` (every frame of an
    anomalous clip). absence: which names may be irrelevant: `known` (known absent where the record has any, else the
    unlisted ones, marked unknown), `strict` (known absent only; a record with none is skipped), `unlisted` (whatever is
    not annotated, as in the paper). hard: a share of hard negatives; null draws
    none on purpose.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    anomaly_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    max_categories: int = Field(default=30, ge=2)
    irrelevant_count: Literal["uniform"] | Annotated[int, Field(ge=1)] | Range = "uniform"
    irrelevant_from: IrrelevantFrom = "samples"
    genuine: Literal["all", "one"] | Range = "all"
    frame_labels: Literal["presence", "clip"] = "presence"
    absence: Literal["known", "strict", "unlisted"] = "known"
    similarity: SimilaritySettings | None = None
    hard: HardSettings | None = None

    @model_validator(mode="before")
    @classmethod
    def _yaml_lists(cls, data: object) -> object:
        # YAML has lists where strict validation wants tuples.
        if isinstance(data, dict):
            return {
                key: tuple(value) if key in ("irrelevant_count", "genuine") and isinstance(value, list) else value
                for key, value in data.items()
            }
        return data

    @model_validator(mode="after")
    def _ordered(self) -> ExposureSettings:
        for key in ("irrelevant_count", "genuine"):
            value = getattr(self, key)
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ValueError(f"{key}: low is above high: {list(value)}")
        if isinstance(self.genuine, tuple) and self.genuine[0] < 1:
            raise ValueError("genuine: at least one name is exposed: low must be 1 or more")
        if self.hard is not None and self.hard.by == "similarity" and self.similarity is None:
            raise ValueError("hard: by similarity needs the model that `similarity` names")
        if isinstance(self.irrelevant_count, tuple) and self.irrelevant_count[1] < 1:
            raise ValueError("irrelevant_count: high must be 1 or more")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """One decision: the list of names, in its shown order, and the label. Small, pure, JSON-able.

    anomalous: the label Y of equation 2. categories: the list A. is_genuine: whether each listed name is exposed (none
    is in a normal sample). presence: what is known of each listed name in the whole record.
    """

    anomalous: bool
    categories: tuple[str, ...]
    is_genuine: tuple[bool, ...]
    presence: tuple[Presence, ...]

    @property
    def genuine(self) -> tuple[str, ...]:
        """The exposed names, in list order."""
        return tuple(name for name, genuine in zip(self.categories, self.is_genuine, strict=True) if genuine)


def draw(
    scene: Scene,
    vocabulary: Vocabulary,
    settings: ExposureSettings,
    rng: np.random.Generator,
    *,
    why: Why | None = None,
) -> Exposure | None:
    """Draw the exposure of one sample (equations 1 and 2); None where no irrelevant name may be drawn: the record is
    skipped by that rule.

    The coin is thrown only where some frame shows a mask; else the sample is normal. `rng` is read in one fixed order:
    the genuine names, N, the coin, the hard irrelevant names where there are to be any, the irrelevant names, the order
    of the list. Only `Generator.random` is used, see `aesampler.rng`. why: the scene's `rejections`, given by who has
    them already.
    """
    law = irrelevant_law(scene, vocabulary, settings, why=why)
    pool = int(np.count_nonzero(law))
    if pool == 0:
        return None
    visible = sorted(scene.segments)
    genuine = [visible[place] for place in _subset(len(visible), _genuine_count(len(visible), settings, rng), rng)]
    room = settings.max_categories - len(genuine)
    count = _irrelevant_count(min(room, pool), settings, rng)
    anomalous = bool(rng.random() < settings.anomaly_probability) and bool(genuine)
    places: list[int] = []
    if settings.irrelevant_from == "balanced" and not anomalous:
        places = _weighted(vocabulary.odds(settings.genuine == "one") * (law > 0), _stand_ins(len(genuine), pool), rng)
        law[places] = 0.0
        count = min(count, min(settings.max_categories, pool) - len(places))
    elif not anomalous:
        count = max(count, 1)
    if settings.hard is not None:
        places += (hard := _hard(scene, vocabulary, settings.hard, genuine, law, count, rng))
        law[hard] = 0.0
        count -= len(hard)
    places += _weighted(law, count, rng)
    irrelevant = [vocabulary.names[place].name for place in places]
    names = (genuine if anomalous else []) + irrelevant
    listed = tuple(names[place] for place in np.argsort(rng.random(len(names)), kind="stable"))
    exposed = frozenset(genuine) if anomalous else frozenset()
    return Exposure(
        anomalous=anomalous,
        categories=listed,
        is_genuine=tuple(name in exposed for name in listed),
        presence=tuple(scene.presence(name) for name in listed),
    )


def irrelevant_law(
    scene: Scene, vocabulary: Vocabulary, settings: ExposureSettings, *, why: Why | None = None
) -> npt.NDArray[np.float64]:
    """The law of one irrelevant name for `scene`: float64 [names], not normalised, 0 where a name may not be drawn
    (LAVIDA eq. 1).

    "Another record uniformly, one of its names uniformly, reject what may not be drawn" is this law: the rejected names
    only rescale the others.
    """
    law = vocabulary.weights(settings.irrelevant_from).copy()
    law[(rejections(scene, vocabulary, settings) if why is None else why) > 0] = 0.0
    return law


def hard_negatives(
    scene: Scene, vocabulary: Vocabulary, settings: HardSettings, genuine: Iterable[str]
) -> frozenset[str]:
    """The names near those of `genuine` that are known absent from `scene`."""
    if settings.by == "similarity":
        close = vocabulary.alike(genuine)
    else:
        close = vocabulary.kin(genuine) | vocabulary.siblings(genuine)
    return frozenset(name for name in close if scene.presence(name) == "absent")


def rejections(scene: Scene, vocabulary: Vocabulary, settings: ExposureSettings) -> Why:
    """Why each name may not be irrelevant in `scene`: int8 [names], 1 + the place of its rule in `RULES`; 0 where it
    may be, and where the law of `irrelevant_from` never draws it.
    """
    why = np.zeros(len(vocabulary.names), dtype=np.int8)
    drawn = vocabulary.weights(settings.irrelevant_from) > 0
    marked = frozenset(scene.segments).union(scene.incomplete, scene.ignored)
    kin = {name for name in vocabulary.kin(scene.seen) if scene.presence(name) != "absent"}
    shown = {name for name in scene.shown if scene.presence(name) != "absent"}
    groups = (marked, scene.present, vocabulary.near(scene.seen), kin, shown)
    for rule, names in enumerate(groups, start=1):
        for name in names:
            place = vocabulary.index.get(name)
            if place is not None and drawn[place] and not why[place]:
                why[place] = rule
    if settings.absence == "unlisted" or scene.exhaustive:
        return why
    known = np.zeros(len(why), dtype=bool)
    known[[vocabulary.index[name] for name in scene.absent if name in vocabulary.index]] = True
    drawable = drawn & (why == 0)
    if settings.absence == "strict" or (drawable & known).any():
        why[drawable & ~known] = 1 + RULES.index("unknown")
    return why


def list_lengths(masked: int, pool: int, settings: ExposureSettings) -> tuple[int, int]:
    """Shortest and longest list that a sample can get with `masked` visible names and `pool` drawable ones; pool is at
    least 1.
    """
    low, high = _genuine_range(masked, settings)
    lengths: list[int] = []
    for genuine in range(low, high + 1):
        first, last = _irrelevant_range(min(settings.max_categories - genuine, pool), settings)
        if genuine and settings.anomaly_probability > 0:
            lengths += [genuine + first, genuine + last]
        if genuine and settings.anomaly_probability == 1:
            continue
        if settings.irrelevant_from == "balanced":
            beside = _stand_ins(genuine, pool)
            room = min(settings.max_categories, pool) - beside
            lengths += [beside + min(first, room), beside + min(last, room)]
        else:
            lengths += [max(first, 1), max(last, 1)]
    return min(lengths), max(lengths)


def _stand_ins(genuine: int, pool: int) -> int:
    """How many names of a balanced normal sample stand for the genuine ones that it does not list."""
    return min(max(genuine, 1), pool)


def _genuine_range(visible: int, settings: ExposureSettings) -> tuple[int, int]:
    most = min(visible, settings.max_categories - 1)
    if settings.genuine == "all":
        return most, most
    if settings.genuine == "one":
        return min(1, most), min(1, most)
    return min(settings.genuine[0], most), min(settings.genuine[1], most)


def _irrelevant_range(most: int, settings: ExposureSettings) -> tuple[int, int]:
    if settings.irrelevant_count == "uniform":
        return 1, most
    if isinstance(settings.irrelevant_count, int):
        return min(settings.irrelevant_count, most), min(settings.irrelevant_count, most)
    return min(settings.irrelevant_count[0], most), min(settings.irrelevant_count[1], most)


def _between(low: int, high: int, rng: np.random.Generator) -> int:
    return low + int(rng.random() * (high - low + 1)) if low < high else low


def _genuine_count(visible: int, settings: ExposureSettings, rng: np.random.Generator) -> int:
    return _between(*_genuine_range(visible, settings), rng)


def _irrelevant_count(most: int, settings: ExposureSettings, rng: np.random.Generator) -> int:
    return _between(*_irrelevant_range(most, settings), rng)


def _hard(
    scene: Scene,
    vocabulary: Vocabulary,
    settings: HardSettings,
    genuine: Sequence[str],
    law: npt.NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """The places of the hard ones among `count` irrelevant names, drawn by `law`. They are near the genuine names
    whether or not these come onto the list, so that hardness does not tell the label.
    """
    near = [vocabulary.index[name] for name in hard_negatives(scene, vocabulary, settings, genuine)]
    hard = np.zeros_like(law)
    hard[near] = law[near]
    wanted = int(settings.share * count + rng.random())
    return _weighted(hard, min(wanted, count, int(np.count_nonzero(hard))), rng)


def _subset(size: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` of range(size), uniformly, in ascending order."""
    if count == size:
        return list(range(size))
    return sorted(int(place) for place in np.argsort(rng.random(size), kind="stable")[:count])


def _weighted(law: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> list[int]:
    """`count` different places, each next one drawn by `law` among those left.

    The race of exponential clocks: the order in which clocks of rates `law` ring is the order of successive draws
    without replacement.
    """
    times = np.full(law.shape, np.inf)
    drawable = law > 0
    uniform = rng.random(law.shape)  # one a name, drawable or not: a ban moves no other name's clock
    times[drawable] = -np.log1p(-uniform[drawable]) / law[drawable]
    return [int(place) for place in np.argsort(times, kind="stable")[:count]]
