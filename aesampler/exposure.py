"""The Anomaly Exposure Sampler: which names a sample is listed with, and whether it counts as an anomaly. LAVIDA
equations 1 and 2.

    (1)  irrelevant names: N of them, drawn from the names of the other samples, without any that is present here
    (2)  (list, label) = (shuffle(genuine and irrelevant), anomalous)   with probability p
                         (shuffle(irrelevant),             normal)      with probability 1 - p

`draw` is pure: (scene, vocabulary, settings, generator) -> Exposure. The build and every reader call it; nothing else
decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from aesampler.scene import Presence, Scene
from aesampler.vocabulary import IrrelevantFrom, Vocabulary

Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]


class SimilaritySettings(BaseModel):
    """Names that a CLIP text encoder finds too close to a name that is present are not drawn.

    model: an open_clip architecture. pretrained: a local weights file or an open_clip tag. reject_above: cosine
    similarity, -1 to 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    pretrained: str
    reject_above: float = Field(ge=-1.0, le=1.0)


class ExposureSettings(BaseModel):
    """The `exposure` part of a recipe; a source's own `exposure` overrides single keys of it.

    anomaly_probability: p of equation 2, conditional on the sample having a mask to expose. max_categories: cap of the
    list; where the genuine names reach it, a keyed draw keeps cap - 1 of them. irrelevant_count: N of equation 1:
    "uniform" on 1..min(cap - genuine, pool), an integer, or [low, high]; low may be 0, and a normal sample then still
    lists one name. irrelevant_from: the law of one irrelevant name, see `Vocabulary.weights`. genuine: how many of the
    names visible in the sampled frames are genuine: all, one, or [low, high]. frame_labels: `presence` (1 where the
    mask is) or `clip` (every frame of an anomalous clip). absence: which names may be irrelevant: `known` (known absent
    where the record has any, else the unlisted ones, marked unknown), `strict` (known absent only; a record with none
    is skipped), `unlisted` (whatever is not annotated, as in the paper).
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


def draw(scene: Scene, vocabulary: Vocabulary, settings: ExposureSettings, rng: np.random.Generator) -> Exposure | None:
    """Draw the exposure of one sample (equations 1 and 2); None where no irrelevant name may be drawn: the record is
    skipped by that rule.

    The coin is thrown only where some frame shows a mask; else the sample is normal. `rng` is read in one fixed order:
    the genuine names, N, the coin, the irrelevant names, the order of the list. Only `Generator.random` is used, see
    `aesampler.rng`.
    """
    law = irrelevant_law(scene, vocabulary, settings)
    pool = int(np.count_nonzero(law))
    if pool == 0:
        return None
    visible = sorted(scene.segments)
    genuine = [visible[place] for place in _subset(len(visible), _genuine_count(len(visible), settings, rng), rng)]
    room = settings.max_categories - len(genuine)
    count = _irrelevant_count(min(room, pool), settings, rng)
    anomalous = bool(rng.random() < settings.anomaly_probability) and bool(genuine)
    if not anomalous:
        count = max(count, 1)
    irrelevant = [vocabulary.names[place].name for place in _weighted(law, count, rng)]
    names = (genuine if anomalous else []) + irrelevant
    listed = tuple(names[place] for place in np.argsort(rng.random(len(names)), kind="stable"))
    exposed = frozenset(genuine) if anomalous else frozenset()
    return Exposure(
        anomalous=anomalous,
        categories=listed,
        is_genuine=tuple(name in exposed for name in listed),
        presence=tuple(scene.presence(name) for name in listed),
    )


def irrelevant_law(scene: Scene, vocabulary: Vocabulary, settings: ExposureSettings) -> npt.NDArray[np.float64]:
    """The law of one irrelevant name for `scene`: float64 [names], not normalised, 0 where a name may not be drawn
    (LAVIDA eq. 1).

    "Another record uniformly, one of its names uniformly, reject what may not be drawn" is this law: the rejected names
    only rescale the others.
    """
    law = vocabulary.weights(settings.irrelevant_from).copy()
    seen = scene.seen
    for name in seen | vocabulary.near(seen):
        place = vocabulary.index.get(name)
        if place is not None:
            law[place] = 0.0
    if settings.absence == "unlisted" or scene.exhaustive:
        return law
    known = np.zeros_like(law)
    places = [vocabulary.index[name] for name in scene.absent if name in vocabulary.index]
    known[places] = law[places]
    if settings.absence == "strict" or known.any():
        return known
    return law


def list_lengths(masked: int, pool: int, settings: ExposureSettings) -> tuple[int, int]:
    """Shortest and longest list that a sample can get with `masked` visible names and `pool` drawable ones; pool is at
    least 1.
    """
    low, high = _genuine_range(masked, settings)
    first, last = _irrelevant_range(min(settings.max_categories - high, pool), settings)
    shortest = max(first, 1)  # a normal sample lists irrelevant names only
    if masked and settings.anomaly_probability == 1.0:
        shortest = low + first
    longest = high + last if masked and settings.anomaly_probability > 0 else max(last, 1)
    for genuine in range(low, high + 1):
        longest = max(
            longest,
            _irrelevant_range(min(settings.max_categories - genuine, pool), settings)[1]
            + (genuine if settings.anomaly_probability > 0 else 0),
        )
    return shortest, longest


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
