"""From the files of a sample to its pixels, and to another exposure of them where one is asked for.

A stream decodes masks from the run lengths in `redraw`, the union of the exposed names', and never the mask's PNG: 0.1
ms where Pillow takes 0.7, and a normal sample has no mask to decode. They are the same pixels by construction, which
`aesampler verify --deep` checks of a corpus. `Corpus` reads the PNG.

JPEGs are decoded by simplejpeg where it is installed (`pip install aesampler[fast]`): the same pixels as Pillow's, bit
for bit, 1.25 times as fast; its faster modes change pixels and are not used. What it refuses, Pillow decides on. Frames
that are to be smaller are decoded by Pillow at 1/2, 1/4 or 1/8 first, then resized.

A fresh exposure is drawn by `sample.derive`, the build's own, keyed by the pass of the source: pass 0 with the recipe's
settings gives the stored labels. Where nothing may be drawn under other settings (`absence: strict` in a record that
knows of no absent name), the sample keeps its stored exposure and is counted in `Stream.kept`: to leave it out would
give the ranks unequal steps, and another order to each setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from aesampler import image, masks, sample
from aesampler.errors import CorpusError
from aesampler.exposure import Exposure, ExposureSettings
from aesampler.sample import Labels, Sample, SampleJson
from aesampler.scene import Scene
from aesampler.vocabulary import Vocabulary

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

Resize = int | tuple[int, int] | None
"""The longest side that a frame may have, or (height, width), in pixels."""

Resample = bool | ExposureSettings | Mapping[str, object]
"""Whether and by which settings exposures are drawn afresh."""

Masks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redraw:
    """What fresh exposures of a source are drawn from and by. seed: the corpus's."""

    vocabulary: Vocabulary
    settings: ExposureSettings
    seed: int

    @classmethod
    def of(cls, vocabulary: Vocabulary, stored: ExposureSettings, given: Resample, seed: int) -> Redraw:
        """As `given` says: True the stored settings, a mapping the stored ones with some changed, or others.

        Raises CorpusError where they are no settings, or ask for a similarity that the build has not measured.
        """
        settings = stored
        if isinstance(given, ExposureSettings):
            settings = given
        elif isinstance(given, Mapping):
            try:
                settings = ExposureSettings.model_validate(stored.model_dump() | dict(given))
            except ValidationError as error:
                first = error.errors()[0]
                where = "resample." + ".".join(map(str, first["loc"])) if first["loc"] else "resample"
                raise CorpusError(first["msg"], where=where, got=repr(first["input"])[:60]) from error
        asked = settings.hard is not None and settings.hard.by == "similarity"
        measured = stored.hard is not None and stored.hard.by == "similarity"
        if settings.similarity != stored.similarity or (asked and not measured):
            raise CorpusError(
                "which names are similar was measured in the build, and by other settings",
                where="resample.similarity" if settings.similarity != stored.similarity else "resample.hard",
                got=settings.similarity or "null",
                allowed=stored.similarity or "null",
            )
        return cls(vocabulary=vocabulary, settings=settings, seed=seed)


def decode(
    key: str, members: Mapping[str, bytes], *, resize: Resize = None, redraw: Redraw | None = None, number: int = 0
) -> tuple[Sample, bool]:
    """The sample of a shard's members, and whether `redraw` could not draw and left it as stored.

    number: the pass of its source, which keys the draw. Masks are resized by nearest neighbour, labels stay. Raises
    CorpusError and BadRecord where members are missing, unreadable or do not fit each other.
    """
    body = SampleJson.of(key, members)
    stored = (body.height, body.width)
    size = _target(stored, resize)
    scene = Scene.from_json(body.redraw) if redraw is not None or body.anomalous else None
    derived = None
    if redraw is not None and scene is not None:
        derived = sample.derive(
            scene,
            redraw.vocabulary,
            redraw.settings,
            seed=redraw.seed,
            source=body.source,
            key=key,
            epoch=number,
            frames=len(body.frame_labels),
        )
    exposure, labels = derived or _as_stored(body, scene)
    return Sample(
        key=key,
        source=body.source,
        split=body.split,
        origin=body.origin,
        origin_frames=tuple(body.origin_frames),
        valid_frames=body.valid_frames,
        anomalous=exposure.anomalous,
        categories=exposure.categories,
        is_genuine=exposure.is_genuine,
        presence=exposure.presence,
        frames=_frames([picture for picture, _ in body.pictures(members)], stored, size),
        masks=_planes(labels.masks, stored, size),
        ignored=_planes(labels.ignored, stored, size),
        frame_labels=np.asarray(labels.frame_labels, dtype=np.uint8),
        redraw=body.redraw,
    ), redraw is not None and derived is None


def _as_stored(body: SampleJson, scene: Scene | None) -> tuple[Exposure, Labels]:
    """The exposure and the labels that the build drew; scene: of an anomalous sample."""
    exposure = Exposure(
        anomalous=body.anomalous,
        categories=tuple(body.categories),
        is_genuine=tuple(body.is_genuine),
        presence=tuple(body.presence),
    )
    counts = [masks.empty(body.height, body.width)] * len(body.frame_labels)
    if exposure.anomalous and scene is not None:
        counts = list(sample.anomaly(scene, exposure, len(body.frame_labels)))
    labels = Labels(
        masks=tuple(counts),
        ignored=tuple(rle.counts for rle in body.ignored),
        frame_labels=tuple(body.frame_labels),
    )
    return exposure, labels


def _frames(pictures: Sequence[bytes], stored: tuple[int, int], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The pictures as uint8 [T, H, W, 3]; one that repeats the one before it (padding) is decoded once."""
    frames: list[npt.NDArray[np.uint8]] = []
    for place, data in enumerate(pictures):
        if place and data == pictures[place - 1]:
            frames.append(frames[-1])
            continue
        if size != stored:
            header = image.probe(data)
            shape = (header.height, header.width)
            frames.append(image.decode(data, size))
        else:
            frames.append(_decoded(data))
            shape = frames[-1].shape[:2]
        if shape != stored:
            raise CorpusError("the picture has not the size of its masks", got=shape, allowed=stored)
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def _decoded(data: bytes) -> npt.NDArray[np.uint8]:
    """The pixels of a picture as `image.decode` gives them."""
    if simplejpeg is not None and data.startswith(b"\xff\xd8"):
        try:
            if simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "Gray"):
                found: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB")
                return found
        except ValueError:  # broken, or of a rare kind: Pillow knows
            return image.decode(data)
    return image.decode(data)


def _planes(counts: Sequence[str], stored: tuple[int, int], size: tuple[int, int]) -> Masks:
    """Masks [T, H, W], each pixel of the new size the one that holds its centre, as `masks.resize` has it."""
    planes = np.zeros((len(counts), *size), dtype=np.bool_)
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size, stored, strict=True))
    for place, each in enumerate(counts):
        if place and each == counts[place - 1]:
            planes[place] = planes[place - 1]
        elif each != masks.empty(*stored):
            plane = masks.decode(each, *stored)
            planes[place] = plane if size == stored else plane[rows[:, None], columns]
    return planes


def _target(stored: tuple[int, int], resize: Resize) -> tuple[int, int]:
    if resize is None:
        return stored
    if isinstance(resize, tuple):
        return resize
    side = max(stored)
    if side <= resize:
        return stored
    height, width = (max(1, (2 * each * resize + side) // (2 * side)) for each in stored)
    return height, width
