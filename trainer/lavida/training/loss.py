"""The loss, LAVIDA eq. 10: text cross-entropy + 20 focal + 2 dice + 1 L1-IoU + 2 object BCE.

    focal   mean over a frame's pixels of alpha_t (1 - p_t)^gamma BCE           of the best mask
    dice    1 - (2 sum p t + 1) / (sum p + sum t + 1)                           of the best mask
    iou     |predicted IoU - IoU of the mask at logit 0|, mean over the K masks
    object  BCE of the frame's object logit against its label
    text    cross-entropy of the answer's tokens

The best of the K masks is that of the least 20 focal + 2 dice in its frame. The IoU head learns from all K, not from
the best alone: in evaluation it chooses among them. focal, dice and iou count only in frames whose label is 1 and whose
mask is not empty; their sums, like that of the object term, are divided by the number of frames with a label, text by
the number of answer tokens. A frame labelled 255 (`aesampler.sample.UNKNOWN`) or padded leaves every sum and the count;
an ignored pixel is masked out before anything is computed of it, so that not even its gradient exists.

Everything here is a sum or a count. Both are added up over the micro-steps and the processes of a global batch before
the one division (`total`), so that the gradient is that of one process with the whole batch: a mean of means would
weigh a process with few labelled frames like one with many.

Shapes: B samples, F frames of all samples, K masks, H x W pixels of the mask logits, L tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

from aesampler.sample import UNKNOWN
from lavida.data.batch import NO_TARGET, Batch

if TYPE_CHECKING:
    from lavida.model import Output

TERMS = ("focal", "dice", "iou", "object", "text")
"""The order of the sums that `terms` gives."""


class LossSettings(BaseModel):
    """The weights of equation 10; alpha, gamma: of the focal term. anomaly: of the four terms of L_AD together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: float = Field(default=1.0, ge=0.0)
    anomaly: float = Field(default=1.0, ge=0.0)
    focal: float = Field(default=20.0, ge=0.0)
    dice: float = Field(default=2.0, ge=0.0)
    iou: float = Field(default=1.0, ge=0.0)
    object: float = Field(default=2.0, ge=0.0)
    alpha: float = Field(default=0.25, ge=0.0, le=1.0)
    gamma: float = Field(default=2.0, ge=0.0)

    @property
    def weights(self) -> tuple[float, ...]:
        """One a term, in the order of `TERMS`."""
        parts = (self.focal, self.dice, self.iou, self.object)
        return (*(self.anomaly * part for part in parts), self.text)


def counted(batch: Batch) -> Tensor:
    """The frames that have a label: bool [F]."""
    labels_F, _, _ = targets(batch)
    return (labels_F != UNKNOWN) & batch.valid_frames


def counts(batch: Batch) -> Tensor:
    """What the sums are divided by: int64 [2], frames that have a label and tokens of the answers."""
    tokens = (batch.labels[:, 1:] != NO_TARGET).sum()
    return torch.stack([counted(batch).sum(), tokens])


def targets(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """frame_labels uint8 [F], masks bool [F, H, W] without what is ignored, and seen bool [F, H, W].

    Raises ValueError where the batch was made for scoring and has none.
    """
    if batch.frame_labels is None or batch.masks is None or batch.ignored is None:
        raise ValueError("the batch has no targets: it was made for scoring")
    seen_FHW = ~batch.ignored
    return batch.frame_labels, batch.masks & seen_FHW, seen_FHW


def terms(output: Output, batch: Batch, settings: LossSettings) -> Tensor:
    """The sums of the terms of equation 10 over the frames and tokens of a batch: float32 [5], in the order of `TERMS`,
    unweighted.
    """
    labels_F, masks_FHW, seen_FHW = targets(batch)
    known_F = counted(batch)
    shown_F = known_F & (labels_F == 1) & masks_FHW.flatten(1).any(1)
    focal_FK, dice_FK, iou_FK = mask_terms(
        output.mask_logits[shown_F].float(),
        output.iou_scores[shown_F].float(),
        masks_FHW[shown_F],
        seen_FHW[shown_F],
        settings,
    )
    best_F = (settings.focal * focal_FK + settings.dice * dice_FK).detach().argmin(1, keepdim=True)
    object_sum = functional.binary_cross_entropy_with_logits(
        output.object_logits[known_F].float(), (labels_F[known_F] == 1).float(), reduction="sum"
    )
    return torch.stack(
        [
            focal_FK.gather(1, best_F).sum(),
            dice_FK.gather(1, best_F).sum(),
            iou_FK.mean(1).sum(),
            object_sum,
            output.text_loss_sum.float(),
        ]
    )


def mask_terms(
    logits_FKHW: Tensor, iou_FK: Tensor, masks_FHW: Tensor, seen_FHW: Tensor, settings: LossSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Focal, dice and L1-IoU of each mask of each frame: float32 [F, K] each. masks: subset of seen."""
    seen_F1HW = seen_FHW[:, None]
    logits_FKHW = torch.where(seen_F1HW, logits_FKHW, 0.0)
    target_F1HW, weight_F1HW = masks_FHW[:, None].float(), seen_F1HW.float()
    chance_FKHW = logits_FKHW.sigmoid() * weight_F1HW
    actual_FK = overlap(logits_FKHW, masks_FHW, seen_FHW)
    return (
        focal(logits_FKHW, target_F1HW, weight_F1HW, settings.alpha, settings.gamma),
        dice(chance_FKHW, target_F1HW),
        (iou_FK - actual_FK).abs(),
    )


def focal(logits_FKHW: Tensor, target_F1HW: Tensor, weight_F1HW: Tensor, alpha: float, gamma: float) -> Tensor:
    """The focal loss, mean over the pixels of weight 1: [F, K]."""
    target_FKHW = target_F1HW.expand_as(logits_FKHW)
    entropy_FKHW = functional.binary_cross_entropy_with_logits(logits_FKHW, target_FKHW, reduction="none")
    chance_FKHW = logits_FKHW.sigmoid()
    wrong_FKHW = chance_FKHW + target_FKHW - 2 * chance_FKHW * target_FKHW
    alpha_FKHW = alpha * target_FKHW + (1 - alpha) * (1 - target_FKHW)
    sum_FK = (alpha_FKHW * wrong_FKHW**gamma * entropy_FKHW * weight_F1HW).sum((2, 3))
    return sum_FK / weight_F1HW.sum((2, 3)).clamp(min=1)


def dice(chance_FKHW: Tensor, target_F1HW: Tensor) -> Tensor:
    """1 - the dice coefficient of probabilities, smoothed by 1: [F, K]."""
    both_FK = (chance_FKHW * target_F1HW).sum((2, 3))
    return 1 - (2 * both_FK + 1) / (chance_FKHW.sum((2, 3)) + target_F1HW.sum((2, 3)) + 1)


def overlap(logits_FKHW: Tensor, masks_FHW: Tensor, seen_FHW: Tensor) -> Tensor:
    """IoU of each mask at logit 0 among the pixels that are seen: float32 [F, K]; 0 where both are empty."""
    drawn_FKHW = (logits_FKHW > 0) & seen_FHW[:, None]
    masks_F1HW = masks_FHW[:, None]
    both_FK = (drawn_FKHW & masks_F1HW).sum((2, 3))
    either_FK = (drawn_FKHW | masks_F1HW).sum((2, 3))
    return both_FK / either_FK.clamp(min=1)


def total(sums_5: Tensor, counts_2: Tensor, settings: LossSettings) -> Tensor:
    """Equation 10 as one number. counts_2: frames and tokens of the whole global batch, whatever part of it the sums
    are of.
    """
    return (per_count(sums_5, counts_2) * sums_5.new_tensor(settings.weights)).sum()


def per_count(sums_5: Tensor, counts_2: Tensor) -> Tensor:
    """Each sum divided by its count: float32 [5]; a count of 0 counts as 1."""
    return sums_5 / counts_2.clamp(min=1)[[0, 0, 0, 0, 1]]
