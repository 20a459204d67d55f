"""The multimodal language model (LAVIDA sec. 3-4): pictures and a list of names to one state, that of `<SEG>` (eq. 5).

    pixels -> vision tower (frozen) -> visual tokens [M, D] -> (static ones dropped) -> compressed [M', D] (eq. 3-4)
    prompt ids, of which M - M' placeholders are left out -> embeddings, the compressed tokens in their places
    -> language model (LoRA on q and v), each token at the position that it had in the whole sequence -> states
    -> state at <SEG>; cross-entropy of the answer, from the logits of its tokens alone

`transformers` holds the models. LoRA is put in place by peft, so every parameter keeps transformers' name, with
`lora_A.default` and `lora_B.default` beside the `base_layer` of q_proj and v_proj. Trained are LoRA, the embeddings and
the head; freezing is by requires_grad alone.

Memory: the logits of a sequence of 4,000 tokens and 152,064 names of tokens would take 2.4 GB in float32; those of the
answer's about 15 tokens take 9 MB.

Shapes: B samples, L tokens of the longest whole sequence, N of the longest compressed one, M visual tokens of a sample,
D width, A axes of a position.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from aesampler.errors import ModelError
from lavida.data import NO_TARGET
from lavida.model.compress import compress_tokens
from lavida.model.families import Visual, family_of
from lavida.model.mllm_tiny import TinyMllm, tiny_config, tiny_processor
from lavida.model.pretrained import (
    LoraSettings,
    add_seg,
    blank,
    drawn_from,
    grow,
    inject_lora,
    load_config,
    load_processor,
    load_weights,
)
from lavida.model.pruning import moving_tokens

if TYPE_CHECKING:
    from lavida.data import Batch

__all__ = ["LoraSettings", "Mllm", "MllmOutput", "MllmSettings"]

TINY = "tiny"


class MllmSettings(BaseModel):
    """Which MLLM, and how it is run.

    model: a folder, a hub name, or "tiny" (random weights, of the sizes in `tiny`). lora: None for none. ratio: share
    of the visual tokens that compression leaves. prune: threshold of static-patch pruning at evaluation (0.01 in the
    released code), None for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "Qwen/Qwen2-VL-7B-Instruct"
    lora: LoraSettings | None = LoraSettings()
    ratio: float = Field(default=0.5, gt=0, le=1)
    prune: float | None = Field(default=None, ge=0)
    tiny: TinyMllm = TinyMllm()


@dataclass(frozen=True, slots=True, kw_only=True)
class MllmOutput:
    """seg_BD: float32 [B, D], the last layer's state at `<SEG>`. text_loss_sum: float32 scalar, the cross-entropy of
    all tokens of all answers; text_tokens: how many, int64 scalar. lengths: int64 [B], tokens that the language model
    was given.
    """

    seg_BD: Tensor
    text_loss_sum: Tensor
    text_tokens: Tensor
    lengths: Tensor


class Mllm(nn.Module):
    """An MLLM of transformers with `<SEG>`, LoRA and token compression.

    model: transformers' (`...ForConditionalGeneration`); processor: its processor.
    """

    def __init__(self, model: Any, processor: Any, *, where: str = "") -> None:
        super().__init__()
        self.model = model
        self.processor = processor
        self._family = family_of(model.config, where)
        self._placeholders = (int(processor.image_token_id), int(processor.video_token_id))

    @classmethod
    def build(cls, settings: MllmSettings, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Mllm:
        """The MLLM that the settings name. seed: draws LoRA, and the weights of a tiny one."""
        if settings.model == TINY:
            return cls.tiny(settings.tiny, lora=settings.lora, seed=seed, dtype=dtype)
        return cls.from_pretrained(settings.model, lora=settings.lora, seed=seed, dtype=dtype)

    @classmethod
    def tiny(
        cls,
        tiny: TinyMllm | None = None,
        *,
        lora: LoraSettings | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Mllm:
        """A small one with random weights, of the sizes in `tiny`."""
        tiny = tiny or TinyMllm()
        processor = tiny_processor(tiny)
        add_seg(processor.tokenizer)
        with drawn_from(seed):
            model = blank(tiny_config(tiny, processor), dtype)
        return cls(model, processor)._prepared(lora, seed)

    @classmethod
    def from_pretrained(
        cls, source: str, *, lora: LoraSettings | None = None, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> Mllm:
        """The weights of a folder or a hub name. Raises ModelError where there are none, or of no supported family."""
        config = load_config(source)
        family_of(config, source)
        processor = load_processor(source)
        model = load_weights(source, dtype)
        if add_seg(processor.tokenizer):
            grow(model, processor.tokenizer)
        return cls(model, processor, where=source)._prepared(lora, seed)

    @classmethod
    def from_skeleton(
        cls, folder: Path | str, *, lora: LoraSettings | None = None, dtype: torch.dtype = torch.float32
    ) -> Mllm:
        """The modules that `save_skeleton` described, with no meaningful weights: a state dict is to follow."""
        source = str(folder)
        model = blank(load_config(source), dtype)
        return cls(model, load_processor(source), where=source)._prepared(lora, 0)

    def save_skeleton(self, folder: Path | str) -> None:
        """Write the config and the processor, without weights and without LoRA."""
        self.model.config.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    @property
    def hidden_size(self) -> int:
        """Width of the state at `<SEG>`."""
        return int(self.model.config.get_text_config().hidden_size)

    @property
    def context(self) -> int:
        """Positions that the language model was made for."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def language(self) -> nn.Module:
        """The language model without its head."""
        found: nn.Module = self.model.model.language_model
        return found

    @property
    def vision(self) -> nn.Module:
        """The vision tower."""
        inner = self.model.model
        found: nn.Module = inner.visual if hasattr(inner, "visual") else inner.vision_tower
        return found

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of tokens."""
        found: nn.Module = self.model.get_input_embeddings()
        return found

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        found: nn.Module = self.model.get_output_embeddings()
        return found

    def checkpointing(self, on: bool) -> None:
        """Compute the language model's activations again in the backward pass (non-reentrant), or keep them."""
        language: Any = self.language
        # transformers 5.23 gave the two methods new names.
        name = "activation" if hasattr(language, "activation_checkpointing_enable") else "gradient"
        if on:
            getattr(language, f"{name}_checkpointing_enable")({"use_reentrant": False})
            language.disable_input_require_grads()  # which only reentrant checkpointing needs
        else:
            getattr(language, f"{name}_checkpointing_disable")()

    def forward(self, batch: Batch, *, ratio: float = 1.0, prune: float | None = None) -> MllmOutput:
        """The state at `<SEG>` and the loss of the answer. ratio: share of visual tokens that compression leaves.

        prune: threshold of static-patch pruning. With a ratio of 1 and no pruning, visual tokens carry their gradient.
        """
        is_visual_BL = self._is_visual(batch.input_ids)
        is_video = (batch.input_ids == self._placeholders[1]).any(1).tolist()
        visuals = self._family.visuals(self.model, batch.vision, is_video)
        embedded, places = [], []
        for row, visual in enumerate(visuals):
            tokens, kept = _reduced(visual, ratio, prune)
            visual_L = is_visual_BL[row].nonzero()[:, 0]
            if len(visual_L) != len(visual.tokens) + len(visual.end):
                raise ModelError(
                    "visual tokens and their placeholders differ in number",
                    where=batch.keys[row],
                    got=f"{len(visual.tokens) + len(visual.end)} tokens",
                    allowed=f"{len(visual_L)}, as the batch says",
                )
            stays_L = batch.attention_mask[row].bool() & ~is_visual_BL[row]
            stays_L[visual_L[kept]] = True
            stays_L[visual_L[len(visual.tokens) :]] = True
            embedded.append(torch.cat([tokens, visual.end.to(tokens.dtype)]))
            places.append(stays_L.nonzero()[:, 0])
        lengths = torch.tensor([len(place) for place in places], device=batch.input_ids.device)
        places_BN = nn.utils.rnn.pad_sequence(places, batch_first=True)
        real_BN = torch.arange(places_BN.shape[1], device=lengths.device) < lengths[:, None]
        positions_ABL = self._family.positions(self.model, batch.vision, batch.input_ids, batch.attention_mask)
        states_BND = self._states(batch, torch.cat(embedded), positions_ABL, places_BN, real_BN)
        labels_BN = batch.labels.gather(1, places_BN).masked_fill(~real_BN, NO_TARGET)
        seg_B = ((places_BN == batch.seg_position[:, None]) & real_BN).int().argmax(1)
        loss, count = self._text_loss(states_BND, labels_BN)
        return MllmOutput(
            seg_BD=states_BND[torch.arange(len(seg_B), device=seg_B.device), seg_B].float(),
            text_loss_sum=loss,
            text_tokens=count,
            lengths=lengths,
        )

    def _states(
        self, batch: Batch, visual_KD: Tensor, positions_ABL: Tensor, places_BN: Tensor, real_BN: Tensor
    ) -> Tensor:
        """The last layer's states [B, N, D]. visual_KD: all visual tokens that stay, in the order of the batch."""
        ids_BN = batch.input_ids.gather(1, places_BN)
        embeddings_BND = self.get_input_embeddings()(ids_BN)
        is_visual_BN1 = (self._is_visual(ids_BN) & real_BN)[..., None]
        embeddings_BND = embeddings_BND.masked_scatter(is_visual_BN1, visual_KD.to(embeddings_BND.dtype))
        positions_ABN = positions_ABL.gather(2, places_BN.expand(len(positions_ABL), -1, -1))
        work: torch.dtype = self.language.norm.weight.dtype  # type: ignore[union-attr, assignment]
        states: Tensor = self.language(
            inputs_embeds=embeddings_BND.to(work),
            # Without a mask, transformers takes a gap in 1-D positions for the border of packed sequences.
            attention_mask=real_BN.long(),
            position_ids=positions_ABN if len(positions_ABN) == 3 else positions_ABN[0],
            use_cache=False,
        ).last_hidden_state
        if states.shape[:2] != ids_BN.shape:
            raise RuntimeError(f"the language model used {states.shape[1]} tokens of {ids_BN.shape[1]}")
        return states

    def _text_loss(self, states_BND: Tensor, labels_BN: Tensor) -> tuple[Tensor, Tensor]:
        """The summed cross-entropy of the labels, each from the state before it, and their number."""
        rows, places = (labels_BN[:, 1:] != NO_TARGET).nonzero(as_tuple=True)
        head = self.get_output_embeddings()
        # Autocast would copy the whole head, 1.1 GB in bfloat16, for a dozen rows.
        with torch.autocast(states_BND.device.type, enabled=False):
            before = states_BND[rows, places].to(head.weight.dtype)  # type: ignore[arg-type]
            logits = head(before).float()
        loss = functional.cross_entropy(logits, labels_BN[rows, places + 1], reduction="sum")
        return loss, torch.tensor(len(rows), device=loss.device)

    def _is_visual(self, ids: Tensor) -> Tensor:
        return (ids == self._placeholders[0]) | (ids == self._placeholders[1])

    def _prepared(self, lora: LoraSettings | None, seed: int) -> Mllm:
        """LoRA in its place, and requires_grad on what the paper trains."""
        if lora is not None:
            with drawn_from(seed):
                inject_lora(self.language, lora)
        self.requires_grad_(False)
        for name, parameter in self.language.named_parameters():
            parameter.requires_grad_("lora_" in name)
        self.get_input_embeddings().requires_grad_(True)
        self.get_output_embeddings().requires_grad_(True)
        return self


def _reduced(visual: Visual, ratio: float, prune: float | None) -> tuple[Tensor, Tensor]:
    """The tokens that stay for a sample's visual tokens, and their places among them."""
    if prune is None:
        return compress_tokens(visual.tokens, ratio)
    moving = moving_tokens(visual.tokens, visual.grid, prune)
    tokens, kept = compress_tokens(visual.tokens[moving], ratio)
    return tokens, moving[kept]
