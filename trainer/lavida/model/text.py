"""The listed names as vectors: CLIP's text encoder, frozen (LAVIDA eq. 6).

A name is read as it is written unless `prompt` says otherwise. CLIP gives vectors of length 1; they are scaled to unit
variance, which is what a Linear expects of its input (the released code takes the encoder's state before CLIP's own
projection, of that size too). A vocabulary is small and comes again and again: each name is encoded once.

Shapes: B lists, N names of the longest, T width of the vectors (512).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from lavida.clip import Clip

KEPT = 65_536
"""Names whose vectors are kept: 128 MiB at 512 numbers each."""


class TinyClip(BaseModel):
    """Sizes of a random CLIP of open_clip's classes: width of the joint space and of the text tower, its layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(default=32, ge=4, multiple_of=4)
    layers: int = Field(default=2, ge=1)


class TextSettings(BaseModel):
    """Which CLIP: an architecture of open_clip with `pretrained` (a tag, or a file of weights), a folder, a name on the
    hub, or `tiny`. prompt: what is read for a name, `{name}` in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "ViT-B-32"
    pretrained: str | None = "openai"
    prompt: str = "{name}"
    tiny: TinyClip = TinyClip()

    @field_validator("prompt")
    @classmethod
    def _has_a_place(cls, prompt: str) -> str:
        if prompt.count("{name}") != 1:
            raise ValueError("must hold {name} once")
        return prompt


class CategoryText(nn.Module):
    """Names to vectors. width: T."""

    def __init__(self, clip: Clip, prompt: str = "{name}") -> None:
        super().__init__()
        self.clip = clip
        self.prompt = prompt
        self.width = clip.width
        self._known: dict[str, Tensor] = {}
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def forward(self, lists: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """The vectors, float32 [B, N, T], zero where a list is shorter than N, and which are there, bool [B, N]."""
        names = list(dict.fromkeys(name for each in lists for name in each))
        found = dict(zip(names, self._vectors(names), strict=True))
        rows = [torch.stack([found[name] for name in each]) for each in lists]
        vectors_BNT = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        counts = torch.tensor([len(each) for each in lists], device=vectors_BNT.device)
        return vectors_BNT, torch.arange(vectors_BNT.shape[1], device=vectors_BNT.device) < counts[:, None]

    def tower(self) -> Iterator[nn.Parameter]:
        """The parameters that make the vectors; CLIP's temperature is none of them."""
        for name, parameter in self.clip.named_parameters():
            if not name.endswith(("logit_scale", "logit_bias")):
                yield parameter

    def _vectors(self, names: list[str]) -> Tensor:
        texts = [self.prompt.replace("{name}", name) for name in names]
        scale = math.sqrt(self.width)
        if any(parameter.requires_grad for parameter in self.clip.parameters()):
            self._known.clear()
            return self.clip.encode(texts) * scale
        unknown = [place for place, name in enumerate(names) if name not in self._known]
        if unknown:
            # One by one: the last digits of a vector depend on how many are computed with it, and a resumed run, which
            # meets the names in other company, must go on exactly.
            made = torch.cat([self.clip.text([texts[place]]) for place in unknown]).cpu() * scale
            if len(self._known) + len(unknown) > KEPT:
                self._known = {name: self._known[name] for name in names if name in self._known}
            self._known.update((names[place], vector) for place, vector in zip(unknown, made, strict=True))
        return torch.stack([self._known[name] for name in names]).to(self.clip.device)


def _forget(module: nn.Module, _: object) -> None:
    assert isinstance(module, CategoryText)
    module._known.clear()
