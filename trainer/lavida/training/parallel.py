"""One process, DDP or FSDP2: who takes part, and how the model is spread over them.

Decided here, for the model of the paper (7.3 B frozen weights beside 1.15 B trained ones):

- The master copy of every trained weight is float32, frozen weights are as `model.dtype` says, and the model computes
  under autocast of its own: so neither DDP nor FSDP2 needs a mixed-precision policy, gradients are reduced in float32,
  and all modes are the same arithmetic.
- DDP (the default of several processes) holds all weights on every device and reduces the gradients of the trained
  ones: 15 GB of frozen bfloat16 + 18 GB (4 bytes each of weight and gradient, 8 of AdamW, times 1.15 B) for the 7B
  model, before activations. Every trained weight has a gradient in each step, of whatever samples (`loss.terms`), so
  nothing is searched for unused parameters. The last micro-step of an accumulation reduces.
- FSDP2 (`fully_shard`) is for what does not fit. A group is one decoder layer of the language model. Frozen and trained
  weights of a layer share its group: FSDP2 gathers both and reduces the gradients of those that have one; only the
  trained must be of one dtype. All other trained weights (embeddings, head, projector, mask decoder) are the root's
  group, which stays whole from forward to backward: a head tied to the embedding is in the same group as its twin, one
  parameter under two names, sharded once, while in groups of their own the tie would break. What is frozen outside the
  decoder layers (vision tower, SAM 2's image encoder, CLIP: 0.8 B, 1.7 GB) is not sharded: it runs as often as a batch
  has pictures, clips and chunks of frames, and processes that gather unequally often wait for each other for ever.
  Every micro-step reduces: keeping whole gradients is the memory that FSDP2 was asked to save.
- Activation checkpointing is non-reentrant (`Mllm.checkpointing`): the reentrant one wants an input with a gradient and
  runs DDP's hooks twice. Only the language model's blocks are checkpointed; a frozen tower keeps no activations anyway.
- Both wrappers average gradients over processes; the loss is a sum divided by global counts, so it is multiplied by
  their number before the backward pass.

torch's generators are seeded before each forward pass by (seed, step, micro-step, rank), so their state is a function
of the step and a resumed run draws the same dropout.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from aesampler import rng
from aesampler.errors import RecipeError
from lavida.model import LavidaModel

PATIENCE = timedelta(minutes=30)
"""How long a collective waits for a process that loads weights or validates."""
RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""Where torchrun and Slurm say how often they have started a process again."""


class ParallelSettings(BaseModel):
    """mode: of several processes; one process is alone in any mode. activation_checkpointing: blocks are computed again
    in the backward pass, a third more time for a small part of the memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["ddp", "fsdp"] = "ddp"
    activation_checkpointing: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The processes of a run, seen from one. device: where this one computes."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, on every one."""
        if self.size == 1:
            return tensor
        whole = tensor.detach().clone()
        dist.all_reduce(whole)
        return whole

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, on every one, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()


def several() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE") or 1) > 1


def begun_again() -> bool:
    """Whether torchrun or Slurm has started this process again, after a failure or in another allocation."""
    return any(int(os.environ.get(name) or 0) > 0 for name in RESTARTS)


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """The world of this process: that of a process group which exists already (Ray Train), else that which torchrun's
    environment tells of, made here and ended here, else this process alone. Raises RecipeError where a machine has
    fewer GPUs than torchrun has begun processes on it.

    A process that fails leaves its group as it is: NCCL would first wait for the others, which wait for this one in a
    collective, and the error be told to nobody.
    """
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if dist.is_initialized():
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
    elif several():
        _one_gpu_each(device)
        # gloo carries what is on the host (checkpoint plans, gathered objects), nccl what is on the device.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
        dist.destroy_process_group()
    else:
        yield World(device=device)


def _one_gpu_each(device: torch.device) -> None:
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type == "cuda" and here > (there := torch.cuda.device_count()):
        raise RecipeError(
            "this machine has fewer GPUs than processes",
            got=f"{here} processes",
            allowed=f"{there} GPUs",
            do=f"start torchrun with --nproc-per-node {there}",
        )


def seed(number: int, *parts: str | int) -> None:
    """Seed torch's generators, of the device too, by a key."""
    torch.manual_seed(rng.order(number, "torch", *parts))


def spread(model: LavidaModel, settings: ParallelSettings, world: World) -> nn.Module:
    """What is called in place of `model` to train it: with DDP a wrapper, else the model itself, sharded in place with
    FSDP2. Raises RecipeError where a trained weight cannot be sharded.
    """
    if world.size == 1:
        return model
    if settings.mode == "fsdp":
        return _sharded(model, world)
    devices = [world.device] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


def _sharded(model: LavidaModel, world: World) -> nn.Module:
    from transformers.modeling_layers import GradientCheckpointingLayer

    scalars = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.dim() == 0]
    if scalars:
        raise RecipeError(
            "a trained number of no dimension cannot be sharded",
            where="parallel.mode",
            got=", ".join(scalars),
            allowed="ddp",
        )
    mesh = init_device_mesh(world.device.type, (world.size,))
    for layer in model.mllm.language.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            fully_shard(layer, mesh=mesh)
    frozen = {weight for weight in model.parameters() if not weight.requires_grad and not isinstance(weight, DTensor)}
    fully_shard(model, mesh=mesh, ignored_params=frozen)
    return model


def resharded(model: nn.Module) -> None:
    """Take back what a forward pass leaves behind that no backward pass follows: FSDP2 keeps the root's weights whole
    for that one. Until then `named_parameters` gives these, of which the optimizer and its moments know nothing.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


@contextlib.contextmanager
def micro_step(runner: nn.Module, *, last: bool) -> Iterator[None]:
    """The context of one forward and backward pass: with DDP, only the last of a global batch reduces gradients."""
    with contextlib.ExitStack() as stack:
        if isinstance(runner, DistributedDataParallel) and not last:
            stack.enter_context(runner.no_sync())
        if isinstance(runner, FSDPModule):
            # What it warns of is a change in place of the model's output; the loss makes none.
            stack.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
        yield
