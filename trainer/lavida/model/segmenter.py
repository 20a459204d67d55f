"""The segmenter: SAM 2.1 through transformers, asked with one prompt token a frame (LAVIDA eq. 6 and 9).

What is SAM's and what is not done with it:
- The image encoder is frozen and runs without gradient, `frames_at_once` frames at a time: at 1024 pixels its finest
  map is 256 x 256 x 256, 33 MB a frame in bfloat16. It gets a gradient only where its parameters ask for one.
- The mask decoder is called by itself, since `Sam2Model.forward` takes no embedded prompts: the prompt is the
  projector's token alone, without the padding point that SAM puts behind clicks. Of the prompt encoder nothing but
  `no_mask_embed` can be reached so: it alone is trained, and every trained parameter gets a gradient in every step.
- Memory is not used: each frame stands for itself, with SAM's "no memory" vector added as it is for a single image.
- All three masks come out in training. In evaluation the one of highest predicted IoU comes out, chosen here:
  the decoder's own single mask is never trained, and `dynamic_multimask_via_stability` would fall back on it.

The decoder computes in float32, whatever the encoder's type: its scores are ranked, and bfloat16 has 128 numbers from 1
to 2. At 1024 pixels it and the projector take 14 GFLOP a frame, beside 269 of the encoder (hiera small), and keep
190 MB a frame for the backward pass.

Shapes: F frames, S side in pixels, C = 256 channels, h = w = S / 16, k masks (3 or 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from aesampler import _torchvision
from aesampler.errors import MissingExtra, ModelError
from lavida.model.pretrained import loaded


class TinySam(BaseModel):
    """Sizes of a random SAM 2 of the same classes: side S in pixels, width C of its features, channels of the first of
    Hiera's four stages (each has twice those of the one before). blocks, heads, windows: of each stage, a window by its
    side in positions. whole: blocks that attend to the whole picture, counted from 0; not the first of a stage.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: int = Field(default=64, ge=32, multiple_of=32)
    width: int = Field(default=32, ge=16, multiple_of=16)
    channels: int = Field(default=8, ge=4, multiple_of=2)
    blocks: tuple[int, int, int, int] = (1, 1, 2, 1)
    heads: tuple[int, int, int, int] = (1, 1, 2, 2)
    windows: tuple[int, int, int, int] = (4, 2, 2, 2)
    whole: tuple[int, ...] = (3,)


class SegmenterSettings(BaseModel):
    """Which SAM 2: a folder, a name on the hub, or `tiny` (random, of the sizes in `tiny`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "facebook/sam2.1-hiera-small"
    frames_at_once: int = Field(default=8, ge=1)
    tiny: TinySam = TinySam()


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What the image encoder sees in F frames, in float32.

    image: [F, C, h, w], eq. 6's F. decoded: the same with SAM's "no memory" vector. fine: the two finer maps that the
    mask decoder reads, [F, C/8, 4h, 4w] and [F, C/4, 2h, 2w]. place: [C, h, w], the encoder's code of the positions.
    """

    image: Tensor
    decoded: Tensor
    fine: tuple[Tensor, Tensor]
    place: Tensor

    def repeat(self, order: Tensor) -> Features:
        """The features of the frames in `order` (int64 [F']): one picture under several lists is encoded once."""
        fine = (self.fine[0][order], self.fine[1][order])
        return replace(self, image=self.image[order], decoded=self.decoded[order], fine=fine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """masks: logits float32 [F, k, 4h, 4w]; iou: predicted IoU [F, k]; objects: logits of presence [F]."""

    masks: Tensor
    iou: Tensor
    objects: Tensor


class Segmenter(nn.Module):
    """SAM 2 without memory, driven by embedded prompts.

    side: S, the pixels of a frame's side. width: C.
    """

    def __init__(self, sam: Any, *, frames_at_once: int = 8) -> None:
        super().__init__()
        self.sam = sam
        self.frames_at_once = frames_at_once
        encoder = sam.config.prompt_encoder_config
        self.side = int(encoder.image_size)
        self.width = int(encoder.hidden_size)

    @classmethod
    def load(cls, settings: SegmenterSettings, *, dtype: torch.dtype = torch.float32) -> Self:
        """The SAM 2 of a folder or hub name, its image encoder in `dtype`.

        Raises MissingExtra without transformers; ModelError where nothing can be loaded, or it is no SAM 2.
        """
        model_class, _ = sam2_classes()
        source = settings.model
        sam, found = loaded(
            source,
            lambda: model_class.from_pretrained(source, output_loading_info=True, use_safetensors=True),
            what="SAM 2",
        )
        if found["missing_keys"] or found["mismatched_keys"]:
            first = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))[0]
            raise ModelError(
                "these are not the weights of a SAM 2 model",
                where=settings.model,
                got=f"nothing that fits {first}",
                do="name a folder or hub name of SAM 2.1 in transformers' format, like facebook/sam2.1-hiera-small",
            )
        sam.vision_encoder.to(dtype)
        return cls(sam, frames_at_once=settings.frames_at_once)

    @classmethod
    def blank(cls, config: Path, *, frames_at_once: int = 8) -> Self:
        """The SAM 2 that the folder's `config.json` describes, its weights as they fall; the caller loads them."""
        model_class, config_class = sam2_classes()
        found = loaded(str(config), lambda: config_class.from_pretrained(config), what="SAM 2")
        return cls(model_class(found), frames_at_once=frames_at_once)

    def save_config(self, folder: Path) -> None:
        """Write the `config.json` that `blank` reads."""
        self.sam.config.save_pretrained(folder)

    def encode(self, frames_F3SS: Tensor) -> Features:
        """The features of normalised frames, float32 [F, 3, S, S].

        Raises ModelError for frames of another size.
        """
        if frames_F3SS.shape[-2:] != (self.side, self.side):
            raise ModelError(
                "frames of another size than the segmenter's",
                got="x".join(map(str, frames_F3SS.shape[-2:])),
                allowed=f"{self.side}x{self.side}",
            )
        chunks = [self._encode(chunk) for chunk in torch.split(frames_F3SS, self.frames_at_once)]
        image, fine_0, fine_1 = (torch.cat([chunk[part] for chunk in chunks]) for part in range(3))
        decoded = image + self.sam.no_memory_embedding.float().reshape(1, -1, 1, 1)
        return Features(image=image, decoded=decoded, fine=(fine_0, fine_1), place=chunks[0][3])

    def _encode(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoder, decoder = self.sam.vision_encoder, self.sam.mask_decoder
        weight = next(encoder.parameters())
        asked = any(parameter.requires_grad for parameter in encoder.parameters())
        with torch.set_grad_enabled(asked and torch.is_grad_enabled()):
            seen = encoder(frames.to(weight.dtype))
        fine_0, fine_1, image = seen.fpn_hidden_states
        # These two belong to the mask decoder, which is trained.
        fine_0, fine_1 = (
            nn.functional.conv2d(x, conv.weight.to(x.dtype), conv.bias.to(x.dtype)).float()
            for conv, x in ((decoder.conv_s0, fine_0), (decoder.conv_s1, fine_1))
        )
        # The encoder's own are of its type: in bfloat16 off by up to a sixth of the way to the next position.
        place = encoder.neck.position_encoding(image[:1].shape, image.device, torch.float32)[0]
        return image.float(), fine_0, fine_1, place

    def decode(self, features: Features, prompts_F1C: Tensor) -> Masks:
        """Eq. 9: masks and presence of what the prompts ask for; three masks in training, else the likeliest."""
        frames = len(prompts_F1C)
        place = self.sam.get_image_wide_positional_embeddings().float().expand(frames, -1, -1, -1)
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        with torch.autocast(prompts_F1C.device.type, enabled=False):
            masks, iou, _, objects = self.sam.mask_decoder(
                image_embeddings=features.decoded,
                image_positional_embeddings=place,
                sparse_prompt_embeddings=prompts_F1C.float().unsqueeze(1),
                dense_prompt_embeddings=dense.expand_as(features.decoded),
                multimask_output=True,
                high_resolution_features=list(features.fine),
            )
        masks, iou, objects = masks.squeeze(1), iou.squeeze(1), objects.reshape(frames)
        if not self.training:
            best = iou.argmax(dim=1, keepdim=True)
            iou = iou.gather(1, best)
            masks = masks.gather(1, best[..., None, None].expand(-1, -1, *masks.shape[-2:]))
        return Masks(masks=masks, iou=iou, objects=objects)


def sam2_classes() -> tuple[Any, Any]:
    """Sam2Model and Sam2Config of transformers; MissingExtra without transformers."""
    _torchvision.importable()
    try:
        from transformers import Sam2Config, Sam2Model
    except ModuleNotFoundError as error:
        raise MissingExtra.of("transformers", "train") from error
    return Sam2Model, Sam2Config
