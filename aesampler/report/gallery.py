"""The samples that a report shows: small pictures, their masks as layers over them, and where anomalies lie.

Which samples: those with the lowest keyed hashes, dealt in turn over the sources and the two labels, so that a small
source is seen too, and a larger gallery holds the smaller one. A frame is a WebP of the plain picture and, where it has
a mask or ignored pixels, a lossless WebP with the colours of `aesampler show` and nothing where the picture shows. All
pictures together take some `BUDGET` bytes: a clip of many frames is shown in fewer, smaller ones.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from aesampler import masks, rng
from aesampler.corpus import Corpus
from aesampler.manifest import SampleRow
from aesampler.pictures import LABELS, veil
from aesampler.report.tally import LOOKED_AT, Integers
from aesampler.sample import Sample

BUDGET = 3_400_000
"""Bytes of all pictures, before base64 makes them a third longer."""
FRAMES = 16
"""Frames of a clip that are shown, evenly spaced, the first and last among them."""
STEPS = ((400, 74), (320, 68), (256, 62), (208, 56), (160, 48))
"""Longest side and quality, tried in turn until a sample fits its share of the budget."""
GRID = (24, 18)
"""Columns and rows of the heat map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A frame. place: of the frame in the sample; label: normal, anomalous, unknown or padding.

    picture, layer: data URIs; layer is "" where there is neither mask nor ignored pixels. area: the mask's share.
    """

    place: int
    label: str
    picture: str
    layer: str
    area: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A listed name; exposed where it is genuine; presence as in the manifest."""

    text: str
    exposed: bool
    presence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A sample in the gallery. first: which of its shots shows most of the anomaly; size: of the stored frames.

    labels: one a frame, also of frames that are not shown; names: exposed ones first, then in the list's order.
    """

    key: str
    source: str
    split: str
    origin: str
    anomalous: bool
    names: tuple[Name, ...]
    shots: tuple[Shot, ...]
    labels: tuple[str, ...]
    first: int
    width: int
    height: int
    shown: tuple[int, int]
    area: float

    @property
    def label(self) -> str:
        """Normal or anomalous."""
        return LABELS[int(self.anomalous)][0]


def chosen(nearest: Mapping[tuple[str, bool], Integers], count: int, seed: int) -> list[int]:
    """The places of `count` samples (fewer where there are fewer), dealt in turn over sources and labels; shuffled."""
    queues = [pairs.tolist() for _, pairs in sorted(nearest.items()) if len(pairs)]
    taken: list[list[int]] = []
    for turn in range(max(map(len, queues), default=0)):
        taken += [queue[turn] for queue in queues if turn < len(queue)]
        if len(taken) >= count:
            break
    return [place for _, place in sorted(taken[:count], key=lambda pair: rng.order(seed, "gallery", pair[0]))]


def cards(corpus: Corpus, places: Sequence[int]) -> list[Card]:
    """The samples at `places`, read and drawn. Raises CorpusError where a shard is gone or broken."""
    share = BUDGET // max(len(places), 1)
    return [_card(corpus[place], share) for place in places]


def heat(
    corpus: Corpus, nearest: Mapping[tuple[str, bool], Integers], seed: int
) -> tuple[npt.NDArray[np.float64], int]:
    """How often a place of the picture is anomalous, [rows, columns] in [0, 1], and over how many samples.

    The masks of anomalous samples only, each the mean of its frames, fitted to the grid whatever the picture's shape.
    """
    rows = [corpus.row(place) for place in chosen({k: v for k, v in nearest.items() if k[1]}, LOOKED_AT, seed)]
    total = np.zeros(GRID[::-1])
    for row in rows:
        planes = [masks.read_png(data) for data in _masks(corpus, row)]
        total += np.mean([_small(plane) for plane in planes], axis=0)
    return total / max(len(rows), 1), len(rows)


def _masks(corpus: Corpus, row: SampleRow) -> list[bytes]:
    found = [(name, data) for name, data in corpus.members(row).items() if name.endswith("mask.png")]
    return [data for _, data in sorted(found)][: max(row.valid_frames, 1)]


def _small(plane: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.resize(GRID, Image.Resampling.BOX), dtype=np.float64)


def _card(sample: Sample, share: int) -> Card:
    frames, height, width = sample.masks.shape
    places = np.unique(np.linspace(0, frames - 1, min(frames, FRAMES)).round().astype(int)).tolist()
    areas = sample.masks.mean(axis=(1, 2))
    first = int(np.argmax(areas[places]))
    for side, quality in STEPS:
        scale = min(1.0, side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        like = _shot(sample, places[first], size, quality)
        if (len(like.picture) + len(like.layer)) * 3 // 4 * len(places) <= share:
            break
    names = [
        Name(text=text, exposed=exposed, presence=presence)
        for text, exposed, presence in zip(sample.categories, sample.is_genuine, sample.presence, strict=True)
    ]
    return Card(
        key=sample.key,
        source=sample.source,
        split=sample.split,
        origin=sample.origin,
        anomalous=sample.anomalous,
        names=tuple(sorted(names, key=lambda name: not name.exposed)),
        shots=tuple(_shot(sample, place, size, quality) for place in places),
        labels=tuple(_label(sample, place) for place in range(frames)),
        first=first,
        width=width,
        height=height,
        shown=size,
        area=float(areas[: sample.valid_frames].mean()),
    )


def _label(sample: Sample, place: int) -> str:
    return "padding" if place >= sample.valid_frames else LABELS[int(sample.frame_labels[place])][0]


def _shot(sample: Sample, place: int, size: tuple[int, int], quality: int) -> Shot:
    mask, ignored = sample.masks[place], sample.ignored[place]
    picture = Image.fromarray(sample.frames[place]).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    layer = ""
    if mask.any() or ignored.any():
        colour, cover = veil(mask, ignored, size)
        pixels = np.concatenate([colour, np.rint(cover * 255)], axis=2).astype(np.uint8)
        layer = _uri(Image.fromarray(pixels), lossless=True, quality=60, exact=False)
    return Shot(
        place=place,
        label=_label(sample, place),
        picture=_uri(picture, lossless=False, quality=quality),
        layer=layer,
        area=float(mask.mean()),
    )


def _uri(picture: Image.Image, *, lossless: bool, quality: int, exact: bool = False) -> str:
    sink = io.BytesIO()
    picture.save(sink, format="WEBP", lossless=lossless, quality=quality, method=4, exact=exact)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode("ascii")
