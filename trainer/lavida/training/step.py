"""One optimizer step on a global batch: counts first, then the micro-steps, then the check that all is a number.

The counts of the whole global batch (labelled frames, answer tokens) come from its targets, before anything is computed
forward: so each micro-step's share of the loss is exact, and its graph can go before the next is built. Sums and counts
are reduced over the processes, the gradients by DDP or FSDP2. Nothing is changed before loss and gradient are known to
be finite, so that weights and moments stay those of the last good step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from aesampler.errors import TrainingError
from lavida.data import Batch
from lavida.training import loss, parallel
from lavida.training.config import TrainConfig
from lavida.training.optimizer import clipped, rate, set_rate
from lavida.training.parallel import World


def step(
    config: TrainConfig,
    number: int,
    batches: list[Batch],
    runner: nn.Module,
    optimizer: AdamW,
    world: World,
    good: Path | None,
) -> dict[str, float]:
    """One optimizer step, the `number`-th from 0, on the micro-batches of a global batch; its metrics, of all of it.

    good: the last checkpoint. Raises TrainingError where the loss or the gradient is no number.
    """
    counts_2 = world.sum(torch.stack([loss.counts(batch) for batch in batches]).sum(0).to(world.device))
    sums = [_backward(config, number, place, batches, runner, counts_2, world) for place in range(len(batches))]
    sums_5 = world.sum(torch.stack(sums).sum(0))
    norm = clipped((p for p in runner.parameters() if p.requires_grad), config.optimizer.clip)
    metrics = _metrics(sums_5, counts_2, config) | {"gradient_norm": norm}
    if not all(map(math.isfinite, metrics.values())):
        raise _no_number(number, metrics, batches, sums, world, good)
    metrics["lr"] = rate(number, config.steps, config.optimizer)
    set_rate(optimizer, metrics["lr"])
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return metrics


def _backward(
    config: TrainConfig,
    number: int,
    place: int,
    batches: list[Batch],
    runner: nn.Module,
    counts_2: Tensor,
    world: World,
) -> Tensor:
    """Add the gradient of one micro-step; the sums of its terms."""
    batch = batches[place].to(world.device)
    parallel.seed(config.seed, "step", number, place, world.rank)
    with parallel.micro_step(runner, last=place == len(batches) - 1):
        sums_5 = loss.terms(runner(batch), batch, config.loss)
        # Both wrappers take the mean over the processes of what is a share of one sum.
        (loss.total(sums_5, counts_2, config.loss) * world.size).backward()  # type: ignore[no-untyped-call]
    return sums_5.detach()


def _metrics(sums_5: Tensor, counts_2: Tensor, config: TrainConfig) -> dict[str, float]:
    total = float(loss.total(sums_5, counts_2, config.loss))
    return {"loss": total, **dict(zip(loss.TERMS, loss.per_count(sums_5, counts_2).tolist(), strict=True))}


def _no_number(
    number: int,
    metrics: Mapping[str, float],
    batches: list[Batch],
    sums: list[Tensor],
    world: World,
    good: Path | None,
) -> TrainingError:
    """The error that names the samples whose loss is no number, or all of the step where only the gradient is none."""
    keys = [key for batch, each in zip(batches, sums, strict=True) if not each.isfinite().all() for key in batch.keys]
    named = [key for part in world.gather(keys) for key in part]
    every = [key for part in world.gather([key for batch in batches for key in batch.keys]) for key in part]
    wrong = ", ".join(name for name, value in metrics.items() if not math.isfinite(value))
    return TrainingError(
        f"{wrong} is not a finite number at step {number + 1}",
        where=f"samples {', '.join(named or every)}",
        do=f"{good or 'the beginning'} has the last good weights; look at the samples, or lower optimizer.lr",
    )
