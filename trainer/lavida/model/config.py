"""What a LAVIDA model is made of: the `model:` block of a training run, and `config.json` of a saved model.

Each part's settings stand beside its class; here they are put together. The defaults are the paper's. The same block
describes the tiny random model of a test: its parts are named `tiny`, and have their sizes beside them.

Precision. Whatever is trained is float32 in memory: at a learning rate of 1e-5 most updates are smaller than half the
spacing of bfloat16's numbers and would be lost. What is frozen and large (the MLLM, SAM's image encoder) is held in
`dtype`, and the MLLM computes under autocast to it. The projector, the mask decoder and CLIP compute in float32: they
are less than a hundredth of the arithmetic, and their scores are ranked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from lavida.data import DataSettings
from lavida.model.mllm import MllmSettings
from lavida.model.projector import ProjectorSettings
from lavida.model.segmenter import SegmenterSettings
from lavida.model.text import TextSettings

Part = Literal[
    "lora",
    "lm_head",
    "embeddings",
    "projector",
    "prompt_encoder",
    "mask_decoder",
    "mllm",
    "vision_encoder",
    "text_encoder",
]
PAPER: tuple[Part, ...] = ("lora", "lm_head", "embeddings", "projector", "prompt_encoder", "mask_decoder")
"""What the paper trains. The other parts are for those who pre-train them."""

_TINY: Mapping[str, Any] = {
    "mllm": {"model": "tiny"},
    "segmenter": {"model": "tiny"},
    "text": {"model": "tiny", "pretrained": None},
    "projector": {"width": 64, "queries": 4, "blocks": 2, "heads": 4, "mlp": 128, "text_heads": 4},
    "dtype": "float32",
    "inputs": {"train_tokens": [4, 16], "eval_tokens": [4, 16], "image_tokens": [4, 16]},
}


class ModelConfig(BaseModel):
    """The parts of a model.

    inputs: budgets of visual tokens and the key of the prompts, since a model is scored as it was trained. dtype: of
    what is frozen and large. seed: draws what has no weights yet. trained: the parts that have a gradient.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mllm: MllmSettings = MllmSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    text: TextSettings = TextSettings()
    projector: ProjectorSettings = ProjectorSettings()
    inputs: DataSettings = DataSettings()
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = Field(default=0, ge=0)
    trained: tuple[Part, ...] = PAPER

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as torch has it."""
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    @classmethod
    def tiny(cls, **changes: Any) -> ModelConfig:
        """The smallest model of the same classes, random; `changes` are fields, mappings among them laid over the tiny
        ones.
        """
        return cls.model_validate(_laid_over(_TINY, changes))


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        held = merged.get(key)
        merged[key] = _laid_over(held, value) if isinstance(held, Mapping) and isinstance(value, Mapping) else value
    return merged
