"""What an MLLM is made of before it is one: configs, processors and weights of a folder or the hub, the token `<SEG>`,
LoRA. Whatever transformers and its hub client have to say of a wrong name becomes one line.

Weights are read from safetensors alone, and code of a model's own is never run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from aesampler import _torchvision
from aesampler.errors import MissingExtra, ModelError
from lavida.data import SEG

Thing = TypeVar("Thing")


class LoraSettings(BaseModel):
    """Low-rank changes of the language model's projections (the paper's values). dropout: of their input."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(default=8, ge=1)
    alpha: int = Field(default=16, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "v_proj")


def inject_lora(language: nn.Module, lora: LoraSettings) -> None:
    """Put LoRA into the projections that the settings name. Raises ModelError where there is none of the name."""
    _torchvision.importable()
    try:
        import peft
    except ImportError as error:
        raise MissingExtra.of("peft", "train") from error
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets), bias="none"
    )
    try:
        peft.inject_adapter_in_model(config, language)
    except ValueError as error:
        raise ModelError("LoRA finds no such projection", where="lora.targets", got=", ".join(lora.targets)) from error


def load_config(source: str) -> Any:
    """The transformers config of a folder or a hub name. Raises ModelError, as all `load_...` do."""
    return loaded(source, lambda: _transformers().AutoConfig.from_pretrained(source))


def load_processor(source: str) -> Any:
    """The transformers processor of a folder or a hub name."""
    return loaded(source, lambda: _transformers().AutoProcessor.from_pretrained(source))


def load_weights(source: str, dtype: torch.dtype) -> Any:
    """The transformers model of a folder or a hub name, every weight of it found."""
    model, report = loaded(
        source,
        lambda: _transformers().AutoModelForImageTextToText.from_pretrained(
            source, dtype=dtype, use_safetensors=True, output_loading_info=True
        ),
    )
    if lacking := [*sorted(report["missing_keys"]), *(key for key, *_ in report["mismatched_keys"])]:
        got = f"{len(lacking)}, {lacking[0]} first"
        raise ModelError("weights are missing or do not fit", where=source, got=got)
    return model


def blank(config: Any, dtype: torch.dtype) -> Any:
    """The transformers model of a config, its weights drawn."""
    return _transformers().AutoModelForImageTextToText.from_config(config, dtype=dtype)


def add_seg(tokenizer: Any) -> bool:
    """Give the tokenizer `<SEG>`; whether it had none."""
    return bool(tokenizer.add_tokens([SEG], special_tokens=True))


def grow(model: Any, tokenizer: Any) -> None:
    """Give `<SEG>` a row in the embeddings and in the head, the mean of all others.

    Qwen2-VL-7B has 152,064 rows for 151,657 tokens: there the row exists, and was never trained.
    """
    seg = int(tokenizer.convert_tokens_to_ids(SEG))
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[seg] = layer.weight[:seg].float().mean(0).to(layer.weight.dtype)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """A context in which torch draws from `seed` on the CPU, and after which it goes on as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _transformers() -> Any:
    _torchvision.importable()
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra.of("transformers", "train") from error
    return transformers


def loaded(source: str, load: Callable[[], Thing], what: str = "MLLM") -> Thing:
    """What `load` gives, by transformers, of `what`. Raises ModelError for all that it and its hub client say."""
    from safetensors import SafetensorError

    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"the folder holds no {what}", where=source, got="no config.json")
    if not folder.is_dir() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise ModelError("no such folder, and no name of the hub", where=source)
    client = logging.getLogger("huggingface_hub")
    level = client.level
    try:
        client.setLevel(logging.ERROR)  # each of its five attempts would be told of
        return load()
    except (OSError, ValueError, RuntimeError, LookupError, AttributeError, ImportError, SafetensorError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"the {what} cannot be loaded",
            where=source,
            got=said[0][:200],
            do="name a folder that holds it whole, its weights as safetensors, or a hub name that can be reached",
        ) from None
    finally:
        client.setLevel(level)
