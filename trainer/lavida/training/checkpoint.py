"""Checkpoints: OUT/checkpoints/step-00000500, written by all processes together, read by any other number of them.

    shard-*.safetensors   the trained weights and AdamW's moments, by torch.distributed.checkpoint: each process writes
                          its share (with DDP, whose processes hold the same, each a part of it), in files of some
                          FILE_BYTES: the writer holds one of them twice, on the host, before it is on the disk
    state.json            step, state of the stream, seed of the generators, best step so far, the model's config

Only trained weights are kept; the frozen ones stay where the config says, and a digest of some of their numbers tells
others apart. The storage is safetensors: torch's own format for this keeps its index as a pickle, which nothing here
opens. torch's generators are keyed by the step (`parallel.seed`), so the seed and the step are their state.

A checkpoint is written under a temporary name and renamed once everything lies on the disk, so what has its name is
whole. Killed before that, a run leaves a temporary folder, which the next one removes. The last `keep` are kept, and
the best one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.optim import AdamW

from aesampler.errors import RecipeError, StorageError, TrainingError
from lavida.model import LavidaModel
from lavida.model.config import ModelConfig
from lavida.training.log import METRICS
from lavida.training.parallel import World

VERSION = 1
STATE = "state.json"
CONFIG = "config.json"
"""The run's own, in its folder."""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
PROBES = 16
"""Numbers of each frozen tensor that its digest looks at."""
FILE_BYTES = 2 << 30
"""A file of a checkpoint, but for a larger tensor, which has one of its own."""


class CheckpointSettings(BaseModel):
    """every: steps between two checkpoints; the last step and each validated one have one too. keep: how many of the
    last, beside the best.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1)


class Checkpoints:
    """The checkpoints of a run's folder, as one process of `world` sees them; the methods that write are called by all
    processes.
    """

    def __init__(self, out: Path, settings: CheckpointSettings, world: World) -> None:
        self.folder = out / "checkpoints"
        self.settings, self.world = settings, world

    def check(self, *, fresh: bool) -> None:
        """Raises RecipeError where the run's folder holds what a run that begins in it would replace, and that is not
        a run's; and where it holds what has come out of a run, unless `fresh`.
        """
        out = self.folder.parent
        if not fresh and self.last() is not None:
            return  # which says itself what run it is of
        ours = _is_run(out / CONFIG)
        made = (CONFIG, METRICS, "tensorboard", "model", *(f"checkpoints/{path.name}" for path in self.all()))
        taken = next((name for name in ("corpus.json", *(() if ours else made)) if (out / name).exists()), None)
        if taken is not None:
            raise RecipeError(
                "the run's folder holds something that is no training run",
                where=str(out),
                got=taken,
                do="give another `out`",
            )
        if not fresh and (out / "model").exists():
            raise RecipeError(
                "the run in this folder has ended, and its checkpoints are gone",
                where=str(out),
                do="give another `out`, or begin anew with --fresh, which replaces its model",
            )

    def clean(self, *, fresh: bool) -> None:
        """Make the folder, without what a killed run left half written; fresh: without any checkpoint. Raises
        TrainingError where another process does not see it.
        """
        if self.world.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in self.folder.iterdir():
                if path.is_dir() and (path.name.startswith(".step-") or (fresh and _step(path) is not None)):
                    shutil.rmtree(path)
        self.world.barrier()
        blind = [rank for rank, seen in enumerate(self.world.gather(self.folder.is_dir())) if not seen]
        if blind:
            raise TrainingError(
                "the run's folder is not seen by every process",
                where=str(self.folder),
                got=f"missing for {', '.join(map(str, blind))}",
                do="let `out` lie on a file system that all nodes share",
            )

    def all(self) -> list[Path]:
        """The whole ones, oldest first."""
        found = [path for path in self.folder.glob("step-*") if _step(path) is not None]
        return sorted(found, key=lambda path: _step(path) or 0)

    def last(self) -> Path | None:
        """The newest, None where there is none."""
        return next(reversed(self.all()), None)

    def at(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step:08d}"

    def save(self, step: int, model: nn.Module, optimizer: AdamW, state: Mapping[str, Any]) -> Path:
        """Write one. state: JSON-able, equal in all processes; `best`, where it holds one, names a step to keep."""
        final, temporary = self.at(step), self.folder / f".step-{step:08d}.tmp"
        if self.world.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.world.barrier()
        tensors = {**_weights(model), **_moments(model, optimizer)}
        storage = HuggingFaceStorageWriter(str(temporary), _files(tensors), save_distributed=True)
        with _told(temporary), _alone():
            state_dict_saver.save(tensors, storage_writer=storage, no_dist=self.world.size == 1)
        self.world.barrier()
        fault: StorageError | None = None
        if self.world.first:
            document = {"version": VERSION, "step": step, **state}
            try:
                with _told(temporary):
                    _write(temporary / STATE, json.dumps(document, indent=1))
                    shutil.rmtree(final, ignore_errors=True)
                    temporary.rename(final)
                    _sync(self.folder)
                    self._prune(document)
            except StorageError as error:
                fault = error
        # The others would wait at a barrier for one that has failed.
        for told in self.world.gather(fault):
            if told is not None:
                raise told
        return final

    def load(self, path: Path, model: nn.Module, optimizer: AdamW) -> dict[str, Any]:
        """Put the weights and moments of a checkpoint in place; its state. Raises TrainingError where it is damaged or
        of another model.
        """
        state = read_state(path)
        weights = _weights(model)
        held = _held(path)
        check_names(path, weights, held)
        moments = _no_moments(model, held)
        _read(
            path,
            {**weights, **{f"optimizer.{kind}.{name}": value for (kind, name), value in moments.items()}},
            self.world,
        )
        for name, parameter in trained(model):
            found = {kind: moments[kind, name] for kind in MOMENTS if (kind, name) in moments}
            if found:
                optimizer.state[parameter] = {**found, "step": found["step"].reshape(())}
        return state

    def _prune(self, state: Mapping[str, Any]) -> None:
        best = (state.get("best") or {}).get("step")
        for path in self.all()[: -self.settings.keep]:
            if _step(path) != best:
                shutil.rmtree(path)


def read_state(path: Path) -> dict[str, Any]:
    """The state.json of a checkpoint. Raises TrainingError."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            "this is no checkpoint", where=str(path), got=str(error), allowed=f"a folder with {STATE}"
        ) from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise TrainingError("the checkpoint is of another version", where=str(path), allowed=f"version {VERSION}")
    return state


def _is_run(config: Path) -> bool:
    """Whether a file is the config.json of a run."""
    try:
        found = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"steps", "out", "data", "model"} <= found.keys()


def load_model(path: Path, device: str | torch.device = "cpu") -> LavidaModel:
    """The model of a checkpoint: built by its config, with the trained weights put in. Raises TrainingError where the
    frozen weights are not those that it was trained with.
    """
    state = read_state(path)
    model = LavidaModel.build(ModelConfig.model_validate(state["model"]), device=device)
    check_frozen(path, state, frozen_digest(model))
    weights = _weights(model)
    check_names(path, weights, _held(path))
    _read(path, weights, World())
    return model


def export(path: Path, folder: Path) -> None:
    """Write the model of a checkpoint into `folder`, as `LavidaModel.from_pretrained` reads it."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    load_model(path).save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def check_frozen(path: Path, state: Mapping[str, Any], digest: str) -> None:
    """Raises TrainingError where frozen weights of this digest are others than the checkpoint's."""
    if state.get("frozen") != digest:
        raise TrainingError(
            "the frozen weights are not those that the checkpoint was trained with",
            where=str(path),
            do="let the model's config name the same weights, or begin anew",
        )


def frozen_digest(model: nn.Module) -> str:
    """What the frozen weights are, in 16 hex digits: of each its name, shape and some numbers. Before it is sharded."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            flat = parameter.detach().flatten()
            places = torch.arange(0, flat.numel(), max(flat.numel() // PROBES, 1), device=flat.device)
            digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}\n".encode())
            digest.update(flat[places].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_names(path: Path, weights: Mapping[str, Tensor], held: Mapping[str, tuple[int, ...]]) -> None:
    """Raises TrainingError where a checkpoint does not hold exactly these weights."""
    asked = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    there = {name: shape for name, shape in held.items() if name.startswith("model.")}
    wrong = sorted(name for name in asked.keys() | there.keys() if asked.get(name) != there.get(name))
    if wrong:
        name = wrong[0]
        raise TrainingError(
            f"the checkpoint is of another model: {len(wrong)} trained weights differ",
            where=f"{path}: {name.removeprefix('model.')}",
            got=there.get(name, "none"),
            allowed=asked.get(name, "none"),
        )


def trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that require a gradient, by name; a tied one once."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"model.{name}": parameter.detach() for name, parameter in trained(model)}


def _moments(model: nn.Module, optimizer: AdamW) -> dict[str, Tensor]:
    moments = {}
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in trained(model):
        if id(parameter) not in known:
            raise RuntimeError(f"the optimizer does not know {name}: its moments would be lost")
        for kind, value in optimizer.state.get(parameter, {}).items():
            # The storage slices what it reads, and a number of no dimension has no slice.
            moments[f"optimizer.{kind}.{name}"] = value.reshape(1) if kind == "step" else value
    return moments


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Name -> the number of its file, from 1."""
    numbers, number, held = {}, 1, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if held and held + size > FILE_BYTES:
            number, held = number + 1, 0
        numbers[name] = number
        held += size
    return numbers


def _no_moments(model: nn.Module, held: Mapping[str, tuple[int, ...]]) -> dict[tuple[str, str], Tensor]:
    """Room for the moments that a checkpoint holds: (kind, parameter) -> zeros."""
    return {
        (kind, name): torch.zeros(1) if kind == "step" else torch.zeros_like(parameter.detach())
        for name, parameter in trained(model)
        for kind in MOMENTS
        if f"optimizer.{kind}.{name}" in held
    }


def _held(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a checkpoint. Raises TrainingError where its files are damaged."""
    try:
        found = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    except Exception as error:  # safetensors raises an Exception of its own that is no subclass
        raise _damaged(path, error) from error
    return {name: tuple(entry.size) for name, entry in found.items()}  # type: ignore[union-attr]


def _read(path: Path, tensors: dict[str, Tensor], world: World) -> None:
    try:
        with _alone():
            state_dict_loader.load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=world.size == 1)
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        if world.size > 1 and isinstance(error, RuntimeError):
            raise  # a peer was lost, which says nothing of the checkpoint: what is wrong with it is the latter
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> TrainingError:
    return TrainingError(
        f"the checkpoint cannot be read: {_last_line(error)}",
        where=str(path),
        do="remove it, and the run goes on from the one before",
    )


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1][:200] if lines else type(error).__name__


@contextlib.contextmanager
def _told(where: Path) -> Iterator[None]:
    """What goes wrong in writing, as a line for people."""
    try:
        yield
    except (CheckpointException, OSError) as error:
        raise StorageError(
            f"writing the checkpoint failed: {_last_line(error)}",
            where=str(where),
            do="the checkpoints before it are whole: mend the cause and run the same command again",
        ) from error


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Without the remark that one process without a group saves alone, as it is meant to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized", UserWarning)
        yield


def _step(path: Path) -> int | None:
    match = re.fullmatch(r"step-(\d{8})", path.name)
    return int(match[1]) if match else None


def _write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
