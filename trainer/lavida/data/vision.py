"""Frames to the pixels of an MLLM, within a budget of visual tokens, by its own image and video processors.

- Qwen2-VL and Qwen2.5-VL keep the aspect and take as many pixels as the budget says. Two frames of a clip share their
  tokens, so T frames of n tokens cost ceil(T / 2) * n. A corpus knows no rate of its clips: Qwen2.5-VL's times are
  those of 2 frames a second, its own rate.
- LLaVA-OneVision's frames are 384 x 384, 196 tokens each, and one more ends a clip: it has no budget. A picture is a
  clip of one frame, since its own tiling makes more than 7,000 tokens of a large one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aesampler.errors import ModelError
from lavida.data.chat import Kind

Clip = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Fewest and most visual tokens of a frame of a clip, and of a single picture."""

    clip: tuple[int, int]
    image: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the MLLM sees. tensors: for its vision tower, in the order of the clips; tokens, kinds: one a clip."""

    tensors: dict[str, Tensor]
    tokens: tuple[int, ...]
    kinds: tuple[Kind, ...]


class Vision(Protocol):
    """The picture side of a processor."""

    def prepare(self, clips: Sequence[Clip], budgets: Budgets) -> Prepared:
        """The pixels of clips, uint8 [T, H, W, 3] of T >= 1 frames."""

    def most(self, frames: int, budgets: Budgets) -> int:
        """The most visual tokens that a clip of so many frames comes to."""


def vision_of(processor: Any) -> Vision:
    """The picture side of transformers' processor. Raises ModelError where it is of no family that is supported."""
    name = type(processor).__name__
    if name in ("Qwen2VLProcessor", "Qwen2_5_VLProcessor"):
        return QwenVision(processor)
    if name == "LlavaOnevisionProcessor":
        return LlavaVision(processor)
    raise ModelError(
        "this processor is of no supported family", got=name, allowed="those of Qwen2-VL, Qwen2.5-VL, LLaVA-OneVision"
    )


class QwenVision:
    """Qwen2-VL and Qwen2.5-VL: tensors pixel_values, image_grid_thw, pixel_values_videos, video_grid_thw."""

    def __init__(self, processor: Any) -> None:
        self._image, self._video = processor.image_processor, processor.video_processor

    def prepare(self, clips: Sequence[Clip], budgets: Budgets) -> Prepared:
        """See Vision."""
        images = [_planes(clip)[0] for clip in clips if len(clip) == 1]
        videos = [_planes(clip) for clip in clips if len(clip) > 1]
        tensors: dict[str, Tensor] = {}
        if images:
            tensors |= dict(self._image(images=images, size=self._size(budgets.image), return_tensors="pt"))
        if videos:
            size = self._size(budgets.clip)
            # The clips are what is to be seen: nothing is sampled from them; and the budget is each frame's own.
            options = {"do_sample_frames": False, "cap_pixels_per_frame": False, "return_tensors": "pt"}
            made = self._video(videos=videos, size=size, **options)
            tensors |= {name: made[name] for name in ("pixel_values_videos", "video_grid_thw")}
        counts = {
            "image": iter(self._tokens(tensors.get("image_grid_thw"))),
            "video": iter(self._tokens(tensors.get("video_grid_thw"))),
        }
        kinds: list[Kind] = ["image" if len(clip) == 1 else "video" for clip in clips]
        return Prepared(tensors=tensors, tokens=tuple(next(counts[kind]) for kind in kinds), kinds=tuple(kinds))

    def most(self, frames: int, budgets: Budgets) -> int:
        """See Vision."""
        if frames == 1:
            return budgets.image[1]
        return math.ceil(frames / int(self._video.temporal_patch_size)) * budgets.clip[1]

    def _size(self, budget: tuple[int, int]) -> dict[str, int]:
        pixels = (self._image.patch_size * self._image.merge_size) ** 2
        return {"shortest_edge": budget[0] * pixels, "longest_edge": budget[1] * pixels}

    def _tokens(self, grids: Tensor | None) -> list[int]:
        if grids is None:
            return []
        found: list[int] = (grids.prod(1) // self._image.merge_size**2).tolist()
        return found


class LlavaVision:
    """LLaVA-OneVision: tensors pixel_values_videos, float32 [frames of all clips, 3, side, side], and frame_counts,
    int64 [clips].
    """

    def __init__(self, processor: Any) -> None:
        self._video = processor.video_processor
        self._frame_tokens = math.ceil(math.isqrt(int(processor.num_image_tokens)) / 2) ** 2

    def prepare(self, clips: Sequence[Clip], budgets: Budgets) -> Prepared:
        """See Vision; the budgets are not used."""
        made = [
            self._video(videos=[_planes(clip)], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
            for clip in clips
        ]
        counts = torch.tensor([len(each) for each in made])
        tokens = tuple(len(each) * self._frame_tokens + 1 for each in made)
        tensors = {"pixel_values_videos": torch.cat(made), "frame_counts": counts}
        kinds: list[Kind] = ["video"] * len(made)
        return Prepared(tensors=tensors, tokens=tokens, kinds=tuple(kinds))

    def most(self, frames: int, budgets: Budgets) -> int:
        """See Vision."""
        return frames * self._frame_tokens + 1


def _planes(clip: Clip) -> Tensor:
    """uint8 [T, 3, H, W] of uint8 [T, H, W, 3]."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2)))
