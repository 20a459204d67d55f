"""From a decision to labels and pixels: `label` makes masks of an exposure, `encode` the members of a shard, and
`Sample` is what a reader gets back.

Rules, all of them here:
- the mask is the union of the exposed names' segments; a pixel covered twice is covered once;
- ignored pixels are void and the ignored regions of the LISTED names, less the mask;
- a frame's label is 1 where its mask is not empty (`presence`), or 1 in every frame of an anomalous clip (`clip`); else
  0. It is 255, unknown, for padding; and, under `presence`, for an unannotated frame and where a listed name lies in
  ignored pixels only;
- a clip shorter than asked for is padded with its last frame, picture and mask, labelled 255.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from aesampler import image, masks, rng
from aesampler.errors import CorpusError
from aesampler.exposure import Exposure, ExposureSettings, Why, draw
from aesampler.scene import Presence, Scene, Track
from aesampler.vocabulary import Vocabulary

UNKNOWN = 255
"""The label of a frame about which nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of one sample, T frames with the padding.

    masks, ignored: compressed RLE counts of [height, width], one a frame. frame_labels: 0, 1 or 255, one a frame.
    """

    masks: tuple[str, ...]
    ignored: tuple[str, ...]
    frame_labels: tuple[int, ...]


def anomaly(scene: Scene, exposure: Exposure, frames: int) -> tuple[str, ...]:
    """The masks of `scene` under `exposure`, as `label` has them, padded to `frames`."""
    nothing = masks.empty(scene.height, scene.width)
    found = [_union(scene.segments, exposure.genuine, place, scene) or nothing for place in range(len(scene.annotated))]
    return tuple(found + found[-1:] * (frames - len(found)))


def label(scene: Scene, exposure: Exposure, frames: int, rule: Literal["presence", "clip"]) -> Labels:
    """The labels of `scene` under `exposure`, padded to `frames`; the module's docstring has the rules."""
    height, width = scene.height, scene.width
    nothing = masks.empty(height, width)
    anomalous = anomaly(scene, exposure, frames)
    ignored, labels = [], []
    for place, annotated in enumerate(scene.annotated):
        mask = anomalous[place]
        blurred = _union(scene.ignored, exposure.categories, place, scene)
        hidden = [counts for counts in (scene.void[place], blurred) if counts is not None]
        beside = masks.union(hidden, height, width) if hidden else nothing
        if hidden and mask != nothing:
            beside = masks.subtract(beside, mask, height, width)
        ignored.append(beside)
        if rule == "clip":
            labels.append(int(exposure.anomalous))
        elif mask != nothing:
            labels.append(1)
        else:
            labels.append(0 if annotated and blurred in (None, nothing) else UNKNOWN)
    padding = frames - len(labels)
    return Labels(
        masks=anomalous,
        ignored=tuple(ignored + ignored[-1:] * padding),
        frame_labels=tuple(labels + [UNKNOWN] * padding),
    )


def derive(
    scene: Scene,
    vocabulary: Vocabulary,
    settings: ExposureSettings,
    *,
    seed: int,
    source: str,
    key: str,
    epoch: int,
    frames: int,
    why: Why | None = None,
) -> tuple[Exposure, Labels] | None:
    """The draw keyed by (seed, source, key, epoch) and its labels: at epoch 0 with the recipe's settings, what the
    corpus stores. None, and why: see `draw`.
    """
    exposure = draw(scene, vocabulary, settings, rng.generator(seed, "exposure", source, key, epoch), why=why)
    if exposure is None:
        return None
    return exposure, label(scene, exposure, frames, settings.frame_labels)


def resized(scene: Scene, height: int, width: int) -> Scene:
    """`scene` with every mask resized to [height, width], nearest neighbour; a mask that vanishes makes its name merely
    present.
    """

    def track(counts: Track) -> Track:
        smaller = (None if c is None else masks.resize(c, scene.height, scene.width, height, width) for c in counts)
        return tuple(None if c is None or c == masks.empty(height, width) else c for c in smaller)

    def tracks(named: Mapping[str, Track]) -> dict[str, Track]:
        smaller = {name: track(counts) for name, counts in named.items()}
        return {name: counts for name, counts in smaller.items() if any(c is not None for c in counts)}

    return Scene(
        height=height,
        width=width,
        annotated=scene.annotated,
        segments=tracks(scene.segments),
        incomplete=tracks(scene.incomplete),
        ignored=tracks(scene.ignored),
        void=track(scene.void),
        present=scene.seen,
        absent=scene.absent,
        exhaustive=scene.exhaustive,
    )


@lru_cache(maxsize=256)
def _blank(height: int, width: int) -> tuple[bytes, bytes]:
    return masks.draw(masks.empty(height, width), height, width)


def _union(tracks: Mapping[str, Track], names: Sequence[str], place: int, scene: Scene) -> str | None:
    found = [counts for name in names if name in tracks and (counts := tracks[name][place]) is not None]
    if len(found) < 2:
        return found[0] if found else None
    return masks.union(found, scene.height, scene.width)


class _Rle(msgspec.Struct):
    size: tuple[int, int]
    counts: str


class SampleJson(msgspec.Struct):
    """`K.json`: no nulls, no empty lists, one type a field, so that every client infers one schema. Lists are parallel
    to categories or to frames.
    """

    key: str
    source: str
    split: str
    origin: str
    origin_frames: list[str]
    valid_frames: int
    height: int
    width: int
    anomalous: bool
    categories: list[str]
    is_genuine: list[bool]
    presence: list[Presence]
    frame_labels: list[int]
    ignored: list[_Rle]
    redraw: str

    @classmethod
    def of(cls, key: str, members: Mapping[str, bytes]) -> SampleJson:
        """The `.json` member of a sample. Raises CorpusError where there is none, or another thing."""
        if "json" not in members:
            raise CorpusError("the sample has no .json member", where=key, got=sorted(members))
        try:
            return msgspec.json.decode(members["json"], type=cls)
        except msgspec.DecodeError as error:
            raise CorpusError(f"K.json is not as the corpus format says: {error}", where=key) from error

    def pictures(self, members: Mapping[str, bytes]) -> list[tuple[bytes, bytes]]:
        """The picture and the mask of each frame, encoded. Raises CorpusError where one is missing."""
        found = []
        for prefix in [""] if "mask.png" in members else [f"{place:03d}." for place in range(len(self.frame_labels))]:
            picture = next((members[prefix + ext] for ext in ("jpg", "png") if prefix + ext in members), None)
            if picture is None or prefix + "mask.png" not in members:
                raise CorpusError(
                    f"frame {prefix or '0'} has no picture or no mask", where=self.key, got=sorted(members)
                )
            found.append((picture, members[prefix + "mask.png"]))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A sample ready for its shard: members in order, and what the manifest says of its pixels (shares of the picture,
    one a frame).
    """

    members: list[tuple[str, bytes]]
    masks_sha256: str
    anomaly_area: tuple[float, ...]
    ignored_area: tuple[float, ...]


def encode(
    *,
    key: str,
    source: str,
    split: str,
    origin: str,
    origin_frames: Sequence[str],
    kind: Literal["image", "clip"],
    pictures: Sequence[bytes],
    encoding: str,
    scene: Scene,
    exposure: Exposure,
    labels: Labels,
) -> Encoded:
    """The members `K.json`, `K.cls`, then the picture and mask of each frame. pictures: encoded as `encoding` (jpg,
    png), one a frame, padding included.
    """
    height, width = scene.height, scene.width
    body = SampleJson(
        key=key,
        source=source,
        split=split,
        origin=origin,
        origin_frames=list(origin_frames),
        valid_frames=len(scene.annotated),
        height=height,
        width=width,
        anomalous=exposure.anomalous,
        categories=list(exposure.categories),
        is_genuine=list(exposure.is_genuine),
        presence=list(exposure.presence),
        frame_labels=list(labels.frame_labels),
        ignored=[_Rle(size=(height, width), counts=counts) for counts in labels.ignored],
        redraw=scene.to_json(),
    )
    members = [("json", msgspec.json.encode(body)), ("cls", b"1" if exposure.anomalous else b"0")]
    nothing = masks.empty(height, width)
    drawn = {counts: masks.draw(counts, height, width) for counts in {*labels.masks} - {nothing}}
    drawn[nothing] = _blank(height, width)
    for place, (picture, counts) in enumerate(zip(pictures, labels.masks, strict=True)):
        prefix = "" if kind == "image" else f"{place:03d}."
        members += [(f"{prefix}{encoding}", picture), (f"{prefix}mask.png", drawn[counts][0])]
    bits = [drawn[counts][1] for counts in labels.masks]

    def share(counts: str) -> float:
        return 0.0 if counts == nothing else masks.area(counts, height, width) / (height * width)

    return Encoded(
        members=members,
        masks_sha256=_digest(bits, height, width) if len(drawn) > 1 else _blank_digest(len(bits), height, width),
        anomaly_area=tuple(map(share, labels.masks)),
        ignored_area=tuple(map(share, labels.ignored)),
    )


def masks_digest(planes: npt.NDArray[np.bool_]) -> str:
    """The manifest's masks_sha256 of bool [T, H, W]: sha256 of the line "T H W" and, frame by frame, the mask's bits,
    row-major, high bit first.
    """
    _, height, width = planes.shape
    return _digest([np.packbits(plane).tobytes() for plane in planes], height, width)


def _digest(bits: Sequence[bytes], height: int, width: int) -> str:
    return hashlib.sha256(b"".join((b"%d %d %d\n" % (len(bits), height, width), *bits))).hexdigest()


@lru_cache(maxsize=256)
def _blank_digest(frames: int, height: int, width: int) -> str:
    return _digest([_blank(height, width)[1]] * frames, height, width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A sample as a reader sees it.

    frames: uint8 [T, H, W, 3], RGB. masks: bool [T, H, W], the anomaly. ignored: bool [T, H, W], pixels that say
    nothing. frame_labels: uint8 [T]: 0, 1, or 255 for unknown. categories, is_genuine, presence: parallel.
    valid_frames: frames that are not padding. redraw: see `aesampler.scene`. duplicate: whether a stream hands it out
    once more, so that every rank has as many steps.
    """

    key: str
    source: str
    split: str
    origin: str
    origin_frames: tuple[str, ...]
    valid_frames: int
    anomalous: bool
    categories: tuple[str, ...]
    is_genuine: tuple[bool, ...]
    presence: tuple[Presence, ...]
    frames: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    frame_labels: npt.NDArray[np.uint8]
    redraw: str
    duplicate: bool = False

    @property
    def scene(self) -> Scene:
        """What is known of the frames, from which other exposures can be drawn."""
        return Scene.from_json(self.redraw)

    @classmethod
    def decode(cls, key: str, members: Mapping[str, bytes]) -> Sample:
        """The sample of a shard's members (extension -> bytes). Raises CorpusError where a member is missing or does
        not fit the others.
        """
        body = SampleJson.of(key, members)
        frames, planes = [], []
        for picture, mask in body.pictures(members):
            frames.append(image.decode(picture))
            planes.append(masks.read_png(mask))
        shapes = {(body.height, body.width), *(f.shape[:2] for f in frames), *(p.shape for p in planes)}
        if len(shapes) > 1:
            raise CorpusError("pictures and masks differ in size", where=key, got=sorted(shapes))
        return cls(
            key=key,
            source=body.source,
            split=body.split,
            origin=body.origin,
            origin_frames=tuple(body.origin_frames),
            valid_frames=body.valid_frames,
            anomalous=body.anomalous,
            categories=tuple(body.categories),
            is_genuine=tuple(body.is_genuine),
            presence=tuple(body.presence),
            frames=np.stack(frames),
            masks=np.stack(planes),
            ignored=np.stack([masks.decode(rle.counts, *rle.size) for rle in body.ignored]),
            frame_labels=np.asarray(body.frame_labels, dtype=np.uint8),
            redraw=body.redraw,
        )
