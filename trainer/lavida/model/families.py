"""What differs between MLLMs: how pixels become visual tokens, and where each token of a sequence stands.

Qwen2-VL and Qwen2.5-VL number time, row and column of each visual token (3-D); LLaVA-OneVision counts along the
sequence (1-D). Both are computed on the whole sequence, before any token is left out: a kept token keeps its position.

Shapes: B samples, L tokens of the longest whole sequence, M visual tokens of a sample, D width, A axes of a position (3
or 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from aesampler.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Visual:
    """The visual tokens of one sample. tokens: [M, D]. grid: (t, h, w), t * h * w = M. end: [E, D], tokens that close
    them and always stay.
    """

    tokens: Tensor
    grid: tuple[int, int, int]
    end: Tensor


class Family(Protocol):
    """One family of MLLMs."""

    def visuals(self, model: Any, vision: Mapping[str, Tensor], is_video: list[bool]) -> list[Visual]:
        """The visual tokens of each sample. vision: what its processor made; is_video: whether a sample is a clip."""

    def positions(self, model: Any, vision: Mapping[str, Tensor], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The position of each token of the whole sequences, int64 [A, B, L]."""


def family_of(config: Any, where: str = "") -> Family:
    """The family of a transformers config. Raises ModelError for one that is not supported."""
    families: dict[str, Family] = {"qwen2_vl": Qwen(), "qwen2_5_vl": Qwen(), "llava_onevision": LlavaOneVision()}
    if config.model_type not in families:
        allowed = ", ".join(families)
        raise ModelError("this MLLM is of no supported family", where=where, got=config.model_type, allowed=allowed)
    return families[config.model_type]


class Qwen:
    """Qwen2-VL and Qwen2.5-VL."""

    def visuals(self, model: Any, vision: Mapping[str, Tensor], is_video: list[bool]) -> list[Visual]:
        """See Family."""
        merge = model.config.vision_config.spatial_merge_size
        found = {}
        for video, pixels, grids in (
            (False, "pixel_values", "image_grid_thw"),
            (True, "pixel_values_videos", "video_grid_thw"),
        ):
            if pixels in vision:
                features = model.model.get_video_features if video else model.model.get_image_features
                tokens = features(vision[pixels], vision[grids]).pooler_output
                shapes = [(t, h // merge, w // merge) for t, h, w in vision[grids].tolist()]
                found[video] = iter(zip(tokens, shapes, strict=True))
        visuals = []
        for video in is_video:
            tokens_MD, grid = next(found[video])
            visuals.append(Visual(tokens=tokens_MD, grid=grid, end=tokens_MD.new_empty(0, tokens_MD.shape[1])))
        return visuals

    def positions(self, model: Any, vision: Mapping[str, Tensor], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See Family: time, row, column."""
        # transformers loops over them in Python: on the CPU nothing waits for a GPU at every step.
        ids, mask = input_ids.cpu(), attention_mask.cpu()
        kinds = (ids == model.config.image_token_id).int() + 2 * (ids == model.config.video_token_id).int()
        grids = {name: vision[name].cpu() for name in ("image_grid_thw", "video_grid_thw") if name in vision}
        position_ids, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, attention_mask=mask, **grids)
        found: Tensor = position_ids.to(input_ids.device)
        return found


class LlavaOneVision:
    """LLaVA-OneVision; a picture is a clip of one frame, and every clip ends in one token of its own."""

    def visuals(self, model: Any, vision: Mapping[str, Tensor], is_video: list[bool]) -> list[Visual]:
        """See Family."""
        counts = vision["frame_counts"].tolist()
        inner = model.model
        # All frames as one clip, whose last token is the end of it.
        tokens_MD = inner.get_video_features(vision["pixel_values_videos"][None]).pooler_output[0, :-1]
        side = math.isqrt(len(tokens_MD) // sum(counts))
        parts = torch.split(tokens_MD, [count * side * side for count in counts])
        end = inner.image_newline[None].to(tokens_MD.dtype)
        return [
            Visual(tokens=part, grid=(count, side, side), end=end) for part, count in zip(parts, counts, strict=True)
        ]

    def positions(self, model: Any, vision: Mapping[str, Tensor], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See Family: the place in the sequence."""
        return (attention_mask.cumsum(1) - 1).clamp_min(0)[None]
