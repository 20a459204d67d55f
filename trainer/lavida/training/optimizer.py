"""AdamW over what is trained, and its learning rate as a function of the step.

Two groups: weight decay for the matrices, none for vectors (norms, biases), learnable queries and tokens, and
embeddings. A row of an embedding that no sample names gets no gradient, and decay alone would wear it away.

The rate rises for `warmup` steps from lr / warmup to lr, then falls in a line to 0 at the last step. It is computed of
the step, so there is no scheduler whose state could be lost. Steps are optimizer steps, not micro-steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW

LEARNABLE = ("queries", "query", "token", "tokens")
"""How the names of parameters end that are not the matrix of a map but what it is applied to."""


class OptimizerSettings(BaseModel):
    """lr: highest learning rate. warmup: steps. betas, eps, weight_decay: AdamW's. clip: largest norm of the gradient
    over all trained parameters, null for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(default=1e-5, gt=0.0)
    warmup: int = Field(default=100, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.01, ge=0.0)
    clip: float | None = Field(default=1.0, gt=0.0)


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> AdamW:
    """AdamW over the parameters of `model` that require a gradient; a tied one is there once."""
    plain = undecayed(model)
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name not in plain].append(parameter)
    return AdamW(
        [
            {"params": groups[True], "weight_decay": settings.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
    )


def undecayed(model: nn.Module) -> set[str]:
    """Names of the parameters without weight decay: of one dimension or none, of embeddings, and queries and tokens,
    which stand in a module as parameters of their own.
    """
    embeddings = {p for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() < 2 or parameter in embeddings or name.endswith(LEARNABLE)
    }


def rate(step: int, steps: int, settings: OptimizerSettings) -> float:
    """The learning rate of step 0 to steps - 1."""
    rising = (step + 1) / max(settings.warmup, 1)
    falling = (steps - step) / max(steps - settings.warmup, 1)
    return settings.lr * min(rising, falling, 1.0)


def set_rate(optimizer: AdamW, lr: float) -> None:
    """Give all groups one learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def clipped(parameters: Iterable[nn.Parameter], most: float | None) -> float:
    """The norm of the gradient over all processes; where it is above `most` the gradient is scaled down to it."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, most if most is not None else float("inf"))
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
