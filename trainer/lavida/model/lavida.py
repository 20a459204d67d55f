"""LAVIDA, put together: clips and the names that would be anomalies in them to a score and a mask for each frame.

    h = MLLM(clip, names)       at <SEG>, on compressed tokens                mllm.py       (3-5)
    F = SAM 2 image encoder, e = CLIP text encoder                            segmenter.py, text.py  (6)
    s = projector(h, e, F)      a prompt for each frame                       projector.py  (7-8)
    score, mask = SAM 2 mask decoder(F, s)                                    segmenter.py  (9)

One forward serves training and scoring; a batch holds clips and images of any lengths. Which part is trained is the
configuration's to say (config.py): it is set by `train_only`, and nothing else has `requires_grad`. How a model is kept
on disk is in folder.py.

Shapes: B clips, F frames of all of them, S side of the segmenter's frames, K masks a frame (3 in training, else 1),
T, H, W frames, height and width of a clip to be scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from aesampler import rng
from lavida.clip import Clip
from lavida.data import Batch, Collator, DataSettings
from lavida.model import folder, tiny
from lavida.model.config import ModelConfig, Part
from lavida.model.mllm import Mllm
from lavida.model.pretrained import drawn_from
from lavida.model.projector import Projector
from lavida.model.segmenter import Features, Segmenter
from lavida.model.text import CategoryText


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the model says of a batch.

    text_loss_sum: cross-entropy summed over the answers' tokens; text_tokens: their number. object_logits: float32 [F],
    the frame scores before the sigmoid. mask_logits: float32 [F, K, S / 4, S / 4]. iou_scores: float32 [F, K]. lengths:
    int64 [B], the tokens of each sequence that the MLLM really read.
    """

    text_loss_sum: Tensor
    text_tokens: Tensor
    object_logits: Tensor
    mask_logits: Tensor
    iou_scores: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The scores of one clip. frames: float32 [T]; pixels: float32 [T, H, W], or None; all in 0..1, see `squashed`."""

    frames: npt.NDArray[np.float32]
    pixels: npt.NDArray[np.float32] | None


TEMPERATURE = 4.0
"""What logits are divided by before they become scores."""


def squashed(logits: Tensor) -> Tensor:
    """Scores in 0..1, 1/2 for a logit of 0. A plain sigmoid is 1.0 in float32 from 17 on, and confident scores would no
    longer be ranked; this one tells them apart up to 40.
    """
    return (logits / TEMPERATURE).sigmoid()


def both(objects: Tensor, masks: Tensor) -> Tensor:
    """The logit of the product of two probabilities, given as logits: of an object being there, and of a pixel being
    its own. No loss asks what the decoder draws where nothing is (see `loss.py`), so masks alone are no scores; SAM 2
    leaves them out where its object logit is negative.
    """
    return -torch.logaddexp(torch.logaddexp(-objects, -masks), -objects - masks)


class LavidaModel(nn.Module):
    """The model; `build`, `tiny` and `from_pretrained` make one."""

    def __init__(self, config: ModelConfig, *, mllm: Mllm, segmenter: Segmenter, text: CategoryText) -> None:
        super().__init__()
        self.config = config
        self.mllm = mllm
        self.segmenter = segmenter
        self.text = text
        with drawn_from(rng.order(config.seed, "lavida", "projector")):
            self.projector = Projector(
                config.projector, hidden=mllm.hidden_size, text=text.width, vision=segmenter.width
            )
        self.changed: set[Part] = {"projector"}
        self.train_only(config.trained)

    @classmethod
    def build(cls, config: ModelConfig, *, device: str | torch.device = "cpu") -> Self:
        """The model of `config`, from folders and hub names, what has no weights drawn by its seed.

        Raises MissingExtra for a missing package, ModelError for a part that cannot be loaded.
        """
        sam, text = config.segmenter, config.text
        if sam.model == "tiny":
            segmenter = tiny.segmenter(sam.tiny, seed=config.seed, frames_at_once=sam.frames_at_once)
        else:
            segmenter = Segmenter.load(sam)
        if text.model == "tiny":
            clip = Clip.tiny(config.seed, width=text.tiny.width, layers=text.tiny.layers, images=False)
        else:
            clip = Clip.load(text.model, text.pretrained, images=False)
        mllm = Mllm.build(config.mllm, seed=config.seed, dtype=config.torch_dtype)
        return cls(config, mllm=mllm, segmenter=segmenter, text=CategoryText(clip, text.prompt)).to(device)

    @classmethod
    def tiny(cls, seed: int = 0, *, device: str | torch.device = "cpu", **changes: Any) -> Self:
        """A small random model of the same classes; `changes` as in `ModelConfig.tiny`."""
        return cls.build(ModelConfig.tiny(seed=seed, **changes), device=device)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | torch.device = "cpu", dtype: str | None = None
    ) -> LavidaModel:
        """The model of a folder that `save_pretrained` wrote, or of such a folder on the hub, in evaluation mode.

        dtype: "float32" or "bfloat16", another than the saved one for what is frozen and large. Raises ModelError where
        the folder is missing, is no model of ours, or is incomplete.
        """
        return folder.load(name, cls, dtype=dtype).to(device).eval()

    def save_pretrained(self, path: str | Path, *, frozen: bool = True, state: dict[str, Tensor] | None = None) -> None:
        """Write the model to a folder, whole or not at all; see folder.py.

        frozen: whether to write what is not trained too; without, it is loaded again from where the configuration
        says. state: the state dict to write, where it had to be gathered from several processes.
        """
        folder.save(self, Path(path), frozen=frozen, state=state)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.projector.hidden.weight.device

    def collator(self, training: bool, settings: DataSettings | None = None) -> Collator:
        """What makes batches for this model."""
        return Collator(
            processor=self.mllm.processor,
            side=self.segmenter.side,
            settings=self.config.inputs if settings is None else settings,
            training=training,
            context=self.mllm.context,
        )

    def encode_frames(self, frames: Tensor) -> Features:
        """The segmenter's view of frames, float32 [F, 3, S, S]: for several forwards over the same frames."""
        return self.segmenter.encode(frames)

    def forward(self, batch: Batch, features: Features | None = None) -> Output:
        """Score and segment a batch that lies on the model's device; `features` of its frames where there are any.

        Masks and scores are those of all F frames, padded ones too. Raises ModelError for frames of another size than
        the segmenter's.
        """
        with torch.autocast(self.device.type, self.config.torch_dtype, enabled=self.config.dtype != "float32"):
            said = self.mllm(
                batch, ratio=self.config.mllm.ratio, prune=None if self.training else self.config.mllm.prune
            )
        with torch.autocast(self.device.type, enabled=False):
            if features is None:
                features = self.encode_frames(batch.frames)
            text_BNT, listed_BN = self.text(batch.categories)
            prompts_F1C = self.projector(
                said_BH=said.seg_BD.float(),
                text_BNT=text_BNT,
                listed_BN=listed_BN,
                image_FChw=features.image,
                place_Chw=features.place,
                owner_F=batch.owner,
            )
            found = self.segmenter.decode(features, prompts_F1C)
        return Output(
            text_loss_sum=said.text_loss_sum,
            text_tokens=said.text_tokens,
            object_logits=found.objects,
            mask_logits=found.masks,
            iou_scores=found.iou,
            lengths=said.lengths,
        )

    @staticmethod
    def frame_scores(output: Output) -> Tensor:
        """The frame scores, float32 [F] in 0..1."""
        return squashed(output.object_logits)

    @classmethod
    def pixel_scores(cls, output: Output, height: int, width: int) -> Tensor:
        """The scores of pixels, float32 [F, height, width] in 0..1: an object is there, and they are its own."""
        return squashed(both(output.object_logits[:, None, None], cls.mask_logits(output, height, width)))

    @staticmethod
    def mask_logits(output: Output, height: int, width: int) -> Tensor:
        """The likeliest mask of each frame at the frame's own size, resized bilinear: logits [F, height, width]."""
        best = output.iou_scores.argmax(dim=1)
        chosen = output.mask_logits[torch.arange(len(best), device=best.device), best]
        sized = nn.functional.interpolate(chosen[:, None], (height, width), mode="bilinear", align_corners=False)
        return sized[:, 0]

    @torch.no_grad()
    def score(
        self,
        clips: Sequence[npt.NDArray[np.uint8]],
        categories: Sequence[Sequence[str]],
        *,
        pixels: bool = True,
        collator: Collator | None = None,
    ) -> list[Scores]:
        """Scores of clips, uint8 [T, H, W, 3] of any sizes, each with its own list of names; one forward for all.

        The model is left in the mode that it was in. collator: of `collator(training=False)`, which is made where none
        is given. Raises ModelError for an empty list of names.
        """
        batch = (collator or self.collator(training=False)).clips_to_batch(clips, categories).to(self.device)
        training = self.training
        self.eval()
        try:
            output = self(batch)
        finally:
            self.train(training)
        found = []
        for clip, (start, stop) in zip(clips, _spans([len(clip) for clip in clips]), strict=True):
            part = replace(
                output,
                object_logits=output.object_logits[start:stop],
                mask_logits=output.mask_logits[start:stop],
                iou_scores=output.iou_scores[start:stop],
            )
            shown = self.pixel_scores(part, *clip.shape[1:3]).cpu().numpy() if pixels else None
            found.append(Scores(frames=self.frame_scores(part).cpu().numpy(), pixels=shown))
        return found

    def train_only(self, parts: Sequence[Part]) -> None:
        """Ask a gradient of these parts and of no other; what has one becomes float32, what has none and is large
        `config.dtype`. The parts are noted in `changed`: they are no longer what they were loaded as.
        """
        self.changed.update(parts)
        asked = {id(parameter) for part in parts for parameter in self.part(part)}
        modules = (self.mllm, self.segmenter.sam.vision_encoder)
        large = {id(parameter) for module in modules for parameter in module.parameters()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in asked)
            parameter.grad = None
            frozen = id(parameter) in large and id(parameter) not in asked
            parameter.data = parameter.data.to(self.config.torch_dtype if frozen else torch.float32)

    def part(self, part: Part) -> Iterator[nn.Parameter]:
        """The parameters that a gradient can reach in a part."""
        sam = self.segmenter.sam
        if part == "lora":
            yield from (parameter for name, parameter in self.mllm.named_parameters() if "lora_" in name)
        elif part == "lm_head":
            yield from self.mllm.get_output_embeddings().parameters()
        elif part == "embeddings":
            yield from self.mllm.get_input_embeddings().parameters()
        elif part == "mllm":
            yield from self.mllm.parameters()
        elif part == "projector":
            yield from self.projector.parameters()
        elif part == "prompt_encoder":
            yield from sam.prompt_encoder.no_mask_embed.parameters()
        elif part == "mask_decoder":
            yield from sam.mask_decoder.parameters()
        elif part == "vision_encoder":
            yield from sam.vision_encoder.parameters()
        else:
            yield from self.text.tower()

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Name to parameter, of all that is trained."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}


def _spans(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    stop = 0
    for length in lengths:
        start, stop = stop, stop + length
        yield start, stop
