"""The made VAD clips scored, and the figures of the benchmark.

A clip goes through the model as two clips of eight frames, under all its lists at once; the frames are encoded once.
Each figure is over all frames of all clips together, as in VAD. With `one` lists of one name, with `many` of 2 to 8:

    frame AUC    frames that show the target under the list that names it, against all other frames: those without it,
                 the same clip under the list that does not name it, the ordinary clips
    wrong names  the same frames and labels, but the clip under the list that does not name its target
    swap         frames that show the target: is the score higher under the list that names it than under the other,
                 the same frame (paired AUC; a tie counts half)
    pixel AUC    pixel scores (an object is there, and the pixel its own), lists of one, all pixels of the same frames
    IoU          of the mask at probability 1/2, in the frames that show the target, under the list that names it
    motion       the change to the frame before, and to the median frame: the higher AUC of the two

Shapes: T frames of a clip, L lists, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.zero_shot_shapes.pretrain import normalised
from benchmarks.zero_shot_shapes.world import FRAMES, VadClip
from lavida.data import Collator
from lavida.metrics import PixelAuc, frame_auc
from lavida.model import LavidaModel
from lavida.model.lavida import Output

WINDOW = 8
Floats = npt.NDArray[np.float32]
Asked = tuple[str, str, tuple[str, ...]]
"""Kind of list, side, names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One clip under one list. frames: scores float32 [T]; pixels: scores float32 [T, S, S]; masks: bool [T, S, S]."""

    frames: Floats
    pixels: Floats
    masks: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is reported of lists of one kind; see the module. pixels: None for long lists."""

    frame_auc: float
    wrong_names: float
    swap: float
    pixel_auc: float | None
    iou: float
    motion: float


def figures(model: LavidaModel, clips: Sequence[VadClip]) -> dict[str, Figures]:
    """The figures of `one` and of `many` names."""
    collator = model.collator(training=False)
    scored = [_scored(model, collator, clip) for clip in clips]
    return {kind: _figures(clips, [each[kind] for each in scored], kind) for kind in ("one", "many")}


@torch.no_grad()
def _scored(model: LavidaModel, collator: Collator, clip: VadClip) -> dict[str, dict[str, Scored]]:
    """Scores by the kind of list, then by `listed` and `unlisted`."""
    told = {"unlisted": clip.unlisted} | ({"listed": clip.listed} if clip.listed else {})
    asked = [(kind, side, getattr(lists, kind)) for kind in ("one", "many") for side, lists in told.items()]
    model.eval()
    parts = [_window(model, collator, clip.frames[at : at + WINDOW], asked) for at in range(0, FRAMES, WINDOW)]
    found: dict[str, dict[str, Scored]] = {"one": {}, "many": {}}
    for place, (kind, side, _) in enumerate(asked):
        frames, pixels, masks = (
            np.concatenate([each[place] for each in column]) for column in zip(*parts, strict=True)
        )
        found[kind][side] = Scored(frames=frames, pixels=pixels, masks=masks)
    return found


def _window(
    model: LavidaModel, collator: Collator, frames: npt.NDArray[np.uint8], asked: Sequence[Asked]
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Frame scores [L, T], pixel scores and masks [L, T, S, S] of the same frames under all lists."""
    batch = collator.clips_to_batch([frames] * len(asked), [names for *_, names in asked])
    features = model.encode_frames(normalised(frames)).repeat(torch.arange(len(frames)).repeat(len(asked)))
    output: Output = model(batch, features)
    size = frames.shape[1:3]
    shape = (len(asked), len(frames))
    return (
        model.frame_scores(output).view(shape).numpy(),
        model.pixel_scores(output, *size).view(*shape, *size).numpy(),
        (model.mask_logits(output, *size) > 0).view(*shape, *size).numpy(),
    )


def _figures(clips: Sequence[VadClip], scored: Sequence[dict[str, Scored]], kind: str) -> Figures:
    labels, scores, wrong, pixels = [], [], [], PixelAuc()
    won, ious = [], []
    for clip, found in zip(clips, scored, strict=True):
        blank = found["unlisted"]
        labels.append(clip.labels)
        wrong.append(blank.frames)
        shown = clip.labels == 1
        right = found.get("listed")
        if right is not None:
            scores.append(right.frames)
            labels.append(np.zeros_like(clip.labels))
            pixels.update(right.pixels, clip.masks)
            won.append(0.5 + 0.5 * np.sign(right.frames[shown] - blank.frames[shown]))
            ious.append(_iou(right.masks[shown], clip.masks[shown]))
        scores.append(blank.frames)
        pixels.update(blank.pixels, np.zeros_like(clip.masks))
    truth = np.concatenate([clip.labels for clip in clips])
    return Figures(
        frame_auc=float(frame_auc(np.concatenate(scores), np.concatenate(labels))),
        wrong_names=float(frame_auc(np.concatenate(wrong), truth)),
        swap=float(np.concatenate(won).mean()),
        pixel_auc=float(pixels.value()) if kind == "one" else None,
        iou=float(np.concatenate(ious).mean()),
        motion=motion_auc(clips),
    )


def _iou(drawn: npt.NDArray[np.bool_], shown: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    both, either = (drawn & shown).sum((1, 2)), (drawn | shown).sum((1, 2))
    return np.asarray(both / np.maximum(either, 1))


def motion_auc(clips: Sequence[VadClip]) -> float:
    """Frame AUC of motion alone, over the same frames as the model's: the better of two measures."""
    labels = np.concatenate([np.concatenate([c.labels, 0 * c.labels]) if c.listed else c.labels for c in clips])
    found = []
    for measure in (_change, _difference):
        moved = [measure(clip.frames.astype(np.float64)) for clip in clips]
        scores = [np.concatenate([m, m]) if clip.listed else m for m, clip in zip(moved, clips, strict=True)]
        found.append(float(frame_auc(np.concatenate(scores), labels)))
    return max(found)


def _change(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean change to the frame before; the first frame has the second's."""
    change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    return np.concatenate([change[:1], change])


def _difference(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean difference to the median frame of the clip."""
    return np.asarray(np.abs(frames - np.median(frames, axis=0)).mean((1, 2, 3)))
