"""A run: five builds and one loop. Every process calls `train` with the same config.

Called again after a crash, it goes on from the last checkpoint, on as many processes as there then are, and gives the
losses that it would have given: the order of samples (`feed.py`), the exposures, prompts and dropout (keyed), weights
and moments (`checkpoint.py`) depend on the step alone. Floating-point sums differ in the last digits where the number
of processes does, and on a GPU from run to run, since some of its kernels add in no fixed order.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.optim import AdamW

from aesampler.errors import TrainingError
from aesampler.progress import Reporter
from lavida.data.memory import ran_out
from lavida.model import LavidaModel
from lavida.training import checkpoint, parallel
from lavida.training.checkpoint import CONFIG, Checkpoints
from lavida.training.config import TrainConfig
from lavida.training.feed import Feed
from lavida.training.log import Meter, RunLog
from lavida.training.optimizer import build_optimizer
from lavida.training.parallel import World
from lavida.training.run import Run, held
from lavida.training.step import step
from lavida.training.validation import Validation

AfterStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run has come to. out: its folder; model: the folder of the best model, or the last where nothing was held
    out; metrics: of the last validation; best: its step and value.
    """

    steps: int
    out: Path
    model: Path
    metrics: dict[str, float | None]
    best: dict[str, float] | None


def train(
    config: TrainConfig, *, resume: bool = True, hold: bool = True, after_step: AfterStep | None = None
) -> Result:
    """Train until `config.steps`, going on from the last checkpoint in the run's folder, or (resume=False) anew; where
    torchrun or Slurm has started the run again, it goes on in any case.

    hold: the folder, against another run in it; False where the caller does. after_step: called by every process after
    each optimizer step, with the step (from 1) and its metrics. Raises RecipeError, CorpusError, ModelError for what is
    asked wrongly, or a folder that holds something else; LockedError where another run is in it; TrainingError for a
    loss that is no number, for too little memory.
    """
    with (
        parallel.joined() as world,
        held(config.folder, world) if hold else contextlib.nullcontext(),
        _memory_told(config),
        Reporter(quiet=not world.first) as progress,
    ):
        model, runner, frozen = build_model(config, world)
        optimizer = build_optimizer(model, config.optimizer)
        feed = build_feed(config, model, world)
        validation = build_validation(config, model, world)
        checkpoints = Checkpoints(config.folder, config.checkpoint, world)
        run = _begun(config, resume, checkpoints, model, optimizer, feed, frozen)
        log = RunLog(config.folder, config.log, step=run.step, writes=world.first)
        meter = Meter(config.batch.size, world.device)
        with contextlib.closing(log), contextlib.closing(feed):
            while run.step < config.steps:
                meter.start(feed.waited)
                metrics = step(config, run.step, next(feed), runner, optimizer, world, run.good)
                run.step += 1
                log.write(run.step, "train", metrics | meter.lap(feed.waited))
                progress("training", run.step, config.steps)
                if validation is not None and run.due(validation.settings.every):
                    run.validated(validation(model), validation.settings.best)
                    log.write(run.step, "validation", run.metrics)
                if run.due(config.checkpoint.every) or run.has_metrics:
                    run.good = checkpoints.save(run.step, model, optimizer, run.state(feed))
                    log.write(run.step, "data", feed.faults())
                if after_step is not None:
                    after_step(run.step, metrics)
        return _finished(run, checkpoints)


def build_model(config: TrainConfig, world: World) -> tuple[LavidaModel, nn.Module, str]:
    """The model, what is called in its place, and the digest of its frozen weights. New weights are drawn alike in all
    processes.
    """
    parallel.seed(config.seed, "new weights")
    model = LavidaModel.build(config.model, device=world.device)
    model.mllm.checkpointing(config.parallel.activation_checkpointing)
    model.train()
    frozen = checkpoint.frozen_digest(model)
    return model, parallel.spread(model, config.parallel, world), frozen


def build_feed(config: TrainConfig, model: LavidaModel, world: World) -> Feed:
    """The training split, as global batches. Raises ModelError where a list may not fit into the model's context."""
    collator = model.collator(training=True)
    feed = Feed(config.data, config.batch, collator.samples_to_batch, seed=config.seed, world=world, base=config.base)
    for cap, names, frames in feed.lists():
        collator.check_cap(cap, names, frames)
    return feed


def build_validation(config: TrainConfig, model: LavidaModel, world: World) -> Validation | None:
    """What scores the held-out split, if asked for."""
    if config.validation is None:
        return None
    return Validation(
        config.data.corpora,
        config.validation,
        model.collator(training=False).samples_to_batch,
        seed=config.seed,
        tolerance=config.data.tolerance,
        workers=config.data.workers,
        cache=config.data.kept,
        world=world,
        base=config.base,
    )


def _begun(
    config: TrainConfig,
    resume: bool,
    checkpoints: Checkpoints,
    model: LavidaModel,
    optimizer: AdamW,
    feed: Feed,
    frozen: str,
) -> Run:
    """The run at its beginning, or where its last checkpoint has it."""
    resume = resume or any(checkpoints.world.gather(parallel.begun_again()))  # on one node it may not be told
    if checkpoints.world.first:
        checkpoints.check(fresh=not resume)
    checkpoints.clean(fresh=not resume)
    run = Run(config, frozen)
    last = checkpoints.last()
    if last is not None:
        run.restore(last, checkpoint.read_state(last))
        checkpoint.check_frozen(last, checkpoint.read_state(last), frozen)
        feed.load_state_dict(checkpoints.load(last, model, optimizer)["stream"])
    if checkpoints.world.first:
        text = json.dumps(config.model_dump(mode="json"), indent=1)
        temporary = config.folder / f".{CONFIG}.tmp"
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, config.folder / CONFIG)
    return run


def _finished(run: Run, checkpoints: Checkpoints) -> Result:
    """Write the model of the best checkpoint, or the last."""
    folder = run.config.folder / "model"
    chosen = checkpoints.at(int(run.best["step"]) if run.best else run.step)
    if checkpoints.world.first:
        checkpoint.export(chosen, folder)
    checkpoints.world.barrier()
    return Result(steps=run.step, out=run.config.folder, model=folder, metrics=run.metrics, best=run.best)


@contextlib.contextmanager
def _memory_told(config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory into a line that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        inputs, mllm = config.model.inputs, config.model.mllm
        most = max(config.batch.per_process, config.validation.per_process if config.validation else 1)
        advice = [f"batch.per_process and validation.per_process ({most})"] if most > 1 else []
        advice += [f"model.mllm.ratio ({mllm.ratio:g})", f"model.inputs.train_tokens ({list(inputs.train_tokens)})"]
        do = "lower " + ", or ".join(advice)
        if not config.parallel.activation_checkpointing:
            do += "; or set parallel.activation_checkpointing: true"
        if config.parallel.mode != "fsdp":
            do += "; or, on several GPUs, parallel.mode: fsdp"
        raise TrainingError("out of memory", where=config.name, got=str(error)[:160], do=do) from error
