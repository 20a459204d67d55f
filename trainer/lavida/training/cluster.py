"""A training run on Ray Train: on the cluster that built the corpus, or on this machine's GPUs.

    lavida train --config T.yaml --ray [--address auto] [--workers 16]

A worker is a process of `train`, one a GPU (a CPU where there is none). Ray's part is to start them, to join them in a
process group, and to see that one has died; all else is in OUT, which every node sees: `train` goes on from the last
checkpoint there, on any number of processes, with the same global batches.

When a worker or a node dies the others are ended, the devices that are left are counted, and as many workers as divide
the global batch are started again. So a run needs nobody to replace a node, and ends with the same number of steps;
Ray's own way of going on waits for the lost node, or takes a number of workers that shares no batch. The price is the
start of a group, some 30 s, beside the steps since the last checkpoint. A node that comes back is used from the next
start on. STALLED failures without a new checkpoint in between end the run, and so does, at once, what is no accident:
a wrong setting, a damaged corpus, a loss that is no number, too little memory.

Our code is sent to a cluster; the packages that it needs are the nodes' own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aesampler.errors import AesamplerError, StorageError, WorkerError
from aesampler.executors import session
from aesampler.progress import Reporter
from lavida.session import begin
from lavida.training.checkpoint import Checkpoints, read_state
from lavida.training.config import TrainConfig
from lavida.training.feed import located
from lavida.training.log import METRICS
from lavida.training.parallel import PATIENCE, World, begun_again
from lavida.training.run import held
from lavida.training.train import Result, train

# Seconds in which workers that were counted must start, before they are counted anew; and workers stay in the folder
# that paths of weights are relative to.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "120")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray
import ray.train
from ray.exceptions import RayError, RayTaskError
from ray.train.torch import TorchConfig, TorchTrainer

STALLED = 3
"""Failures without a new checkpoint in between."""
SETTLE_S = 5.0
"""How long a failure may take until the nodes are asked which of them are left."""
ANSWER_S = 180.0
"""How long a node may take to say what it sees; it unpacks our code first."""
LOOK_EVERY_S = 2.0
"""How often the progress is looked for."""
PACKAGES = ("aesampler", "lavida", "torch", "transformers", "peft", "open_clip", "safetensors")
"""What a node must have, or be sent."""
MOUNT = "mount it at the same path on every node (a network disk)"


def launch(
    config: TrainConfig, *, workers: int | None = None, address: str | None = None, resume: bool = True
) -> Result:
    """Train on Ray to the end, whatever dies on the way.

    workers: most processes; default: one a GPU, or a CPU where there is none. address: of the head, HOST:PORT, or
    `auto`; default: RAY_ADDRESS, or else Ray is started here. Raises what `train` raises; StorageError where a node
    does not see the run's folder or a corpus; LockedError where another run is in the folder; WorkerError where workers
    die again and again.
    """
    config = config.model_copy(update={"base": config.base.resolve()})
    config.folder.mkdir(parents=True, exist_ok=True)
    # Both once, here: a worker may die with its node and leave a lock behind; one that starts again must go on.
    with held(config.folder, World()), begin(address, workers), _told(config):
        checkpoints = Checkpoints(config.folder, config.checkpoint, World())
        fresh = not resume and not begun_again()
        checkpoints.check(fresh=fresh)
        if fresh:
            checkpoints.clean(fresh=True)
        _check_seen(config)
        return _to_the_end(config, workers)


def _to_the_end(config: TrainConfig, workers: int | None) -> Result:
    """Groups of workers, one after the other, until one has ended."""
    failures, before = 0, _last_step(config)
    lost: frozenset[str] = frozenset()
    while True:
        count, on_gpu = _processes(config, workers, lost)
        try:
            return _group(config, count, on_gpu)
        except (RayError, ray.train.TrainingFailedError) as error:
            ours = _ours(error)
            if ours is not None and not isinstance(ours, StorageError):
                raise ours from error
            step = _last_step(config)
            failures = failures + 1 if step == before else 1
            before = step
            if failures >= STALLED:
                raise ours or WorkerError(
                    f"workers were lost {failures} times at step {step}: {session.line(error)}",
                    where=config.name,
                    do="look at the memory and the logs of the nodes; the same command goes on from the checkpoint",
                ) from error
            time.sleep(SETTLE_S)
            there = frozenset(str(entry["NodeID"]) for entry in session.nodes() if entry["Alive"])
            found = session.answering(sorted(there))
            lost = there - found if found else frozenset()  # which Ray itself sees after half a minute


def _group(config: TrainConfig, count: int, on_gpu: bool) -> Result:
    """One group of workers, to its end. Raises what Ray Train makes of a failure."""
    room = config.folder / ".ray"
    shutil.rmtree(room, ignore_errors=True)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"config": config},
        # gloo carries what is on the host, nccl what is on the device: as in parallel.joined.
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout_s=int(PATIENCE.total_seconds())
        ),
        scaling_config=ray.train.ScalingConfig(num_workers=count, use_gpu=on_gpu, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(
            name="train",
            storage_path=str(room),
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=0),  # type: ignore[call-arg]
        ),
    )
    try:
        trainer.fit()
    finally:
        shutil.rmtree(room, ignore_errors=True)
    last = Checkpoints(config.folder, config.checkpoint, World()).at(config.steps)
    state = read_state(last)
    model = config.folder / "model"
    return Result(steps=state["step"], out=config.folder, model=model, metrics=state["metrics"], best=state["best"])


def _work(given: Mapping[str, Any]) -> None:
    """A worker: a process of the run. What it comes to lies in OUT."""
    train(given["config"], hold=False)


def _processes(config: TrainConfig, workers: int | None, lost: frozenset[str] = frozenset()) -> tuple[int, bool]:
    """How many workers there is room for and that share a global batch, and whether they are to have a GPU each. lost:
    nodes that Ray may still count.

    Raises WorkerError where there is room for none.
    """
    alive = [entry["Resources"] for entry in session.nodes() if entry["Alive"] and entry["NodeID"] not in lost]
    gpus = sum(int(resources.get("GPU", 0)) for resources in alive)
    room = gpus or sum(int(resources.get("CPU", 0)) for resources in alive)
    most = min(room, workers or room, config.batch.size)
    if most < 1:
        raise WorkerError("the cluster offers no CPU and no GPU", where=config.name, do="join nodes to it")
    return max(count for count in range(1, most + 1) if config.batch.size % count == 0), gpus > 0


def _last_step(config: TrainConfig) -> int:
    last = Checkpoints(config.folder, config.checkpoint, World()).last()
    return int(last.name.removeprefix("step-")) if last is not None else 0


def _ours(error: BaseException) -> AesamplerError | None:
    """The error of ours that a failure of Ray Train comes from: the first that may not pass, else one that may."""
    found: list[AesamplerError] = []
    seen: set[int] = set()
    open_: list[Any] = [error]
    while open_:
        each = open_.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, AesamplerError) and not isinstance(each, RayTaskError):  # which is of its cause's class
            found.append(each)
        failures = getattr(each, "worker_failures", None) or {}
        open_ += [each.__cause__, getattr(each, "cause", None), getattr(each, "controller_failure", None)]
        open_ += [getattr(each, "_base_exc", None), *failures.values()]
    return min(found, key=lambda each: isinstance(each, StorageError), default=None)


@contextlib.contextmanager
def _told(config: TrainConfig) -> Iterator[None]:
    """Show the progress that the workers write into OUT."""
    ended = threading.Event()

    def watch() -> None:
        step, last = 0, False
        with Reporter() as progress:
            while not last:
                last = ended.wait(LOOK_EVERY_S)  # the steps of the last seconds are told too
                with contextlib.suppress(OSError, ValueError, IndexError, KeyError):  # not there yet, or half a line
                    with (config.folder / METRICS).open("rb") as file:
                        file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
                        entry = json.loads(file.read().splitlines()[-1])
                    if entry["step"] != step:
                        step = entry["step"]
                        progress("training", step, config.steps)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


# -- what the nodes see -----------------------------------------------------------------------------------------------


def _check_seen(config: TrainConfig) -> None:
    """Raise StorageError, naming node and path, where one does not see OUT and the corpora as this machine does, and
    WorkerError where it lacks a package.
    """
    token = secrets.token_hex(16)
    probe = config.folder / f".probe-{token[:8]}"
    probe.write_text(token, encoding="utf-8")
    heads = [located(url, config.base) for url in config.data.corpora]
    local = [str(Path(url) / "corpus.json") for url in heads if "://" not in url]
    try:
        asked = ray.remote(num_cpus=0, max_retries=0)(_asker())
        refs = {
            asked.options(scheduling_strategy=session.on(entry["NodeID"])).remote(
                str(probe), token, local, PACKAGES
            ): session.called(entry)
            for entry in session.nodes()
            if entry["Alive"]
        }
        for ref, name in refs.items():
            try:
                missing, unseen = ray.get(ref, timeout=ANSWER_S)
            except RayError as error:
                raise WorkerError(f"no worker starts: {session.line(error)}", where=name) from error
            if missing:
                do = "install what lavida needs on every node"
                raise WorkerError(f"a package is missing: {', '.join(missing)}", where=name, do=do)
            if unseen:
                raise StorageError(f"does not see {unseen} as it is here", where=name, do=MOUNT)
    finally:
        probe.unlink(missing_ok=True)


def _asker() -> Callable[[str, str, list[str], Sequence[str]], tuple[list[str], str]]:
    """A function that travels as itself: where it arrives it needs not even the packages that it looks for."""

    def unseen(probe: str, token: str, paths: list[str], packages: Sequence[str]) -> tuple[list[str], str]:
        """Packages that are not there; the first path that is not there, or is another, or ""."""
        import importlib.util
        from pathlib import Path

        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        path = Path(probe)
        if not path.exists() or path.read_text(encoding="utf-8") != token:
            return missing, str(path.parent)
        return missing, next((each for each in paths if not Path(each).exists()), "")

    return unseen
