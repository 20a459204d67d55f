"""Batch: what one step of the model is given.

A batch holds B samples, images and clips of any lengths together. The segmenter's frames of all samples are one axis F,
`owner` says whose each is; the MLLM's pictures are in `vision`, as its own processor made them, in the order of the
samples.

Shapes: B samples, F frames of all of them (padding included), S the segmenter's side, S4 = S / 4 the side of SAM 2's
mask logits, L tokens of the longest prompt before any visual token is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

NO_TARGET = -100
"""The label of a token that is not to be predicted (what cross-entropy leaves out)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch.

    keys, categories: one a sample. frames: float32 [F, 3, S, S], ImageNet-normalised. owner: int64 [F], the sample of
    each frame, ascending. valid_frames: bool [F], False for padding, which the MLLM does not see. input_ids,
    attention_mask, labels: int64 [B, L], padded on the right; labels are NO_TARGET outside the answer. seg_position:
    int64 [B], where `<SEG>` stands in input_ids. vision: what the MLLM's processor made of the pictures.
    masks, ignored: bool [F, S4, S4]; frame_labels: uint8 [F], 255 unknown; anomalous: bool [B]; all four None where
    there are no targets.
    """

    keys: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    frames: Tensor
    owner: Tensor
    valid_frames: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    seg_position: Tensor
    vision: dict[str, Tensor]
    masks: Tensor | None = None
    ignored: Tensor | None = None
    frame_labels: Tensor | None = None
    anomalous: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str) -> Batch:
        """The batch on `device`."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, as DataLoader asks for."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {"vision": {name: change(tensor) for name, tensor in self.vision.items()}}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = change(value)
        return replace(self, **changed)
