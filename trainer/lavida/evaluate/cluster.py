"""Videos scored by Ray, on this machine's GPUs or on a cluster; beside training/cluster.py the only importer of ray.

An actor a GPU (a CPU where there is none) opens the benchmark, loads the detector once, and scores one video after
another. It sends the saved form back, some kB, and this process writes it: nodes need to see the dataset and the
model, not OUT. A lost worker or node is replaced and its video scored again, up to LOSSES times; what a detector or a
benchmark raises ends the run. In both cases everything that is done is kept.

The session, on this machine alone or on a cluster to which our code is sent, is training's. A detector that an
installed package adds must be installed on the nodes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

# Ray prints what happens to workers on stdout, where programs read our JSON: it drops the lines that match this, if it
# is set before ray is imported. The last one silences a warning about GPUs.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from aesampler.errors import AesamplerError, StorageError, WorkerError
from lavida.evaluate.scoring import Judge, Unit
from lavida.evaluate.settings import MODELS, Settings
from lavida.evaluate.store import Encoded, encode

LOSSES = 3
"""Workers that one video may lose."""
WAIT_S = 5.0
"""How long Ray is waited for at a time, so that Ctrl-C is heard."""
PATHS = (*MODELS, "labels")
"""Options that may be a path. Workers on a cluster start in another folder than we."""


class Cluster:
    """See the module; used in a `with` block.

    workers: videos in hand at once, at most one a GPU, or a CPU where there is none, which is the default. address:
    see lavida.training.cluster.session.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self._workers = workers
        self._address = address
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as opened:
            from lavida.training.cluster import session  # it imports torch, which a worker may not need

            opened.enter_context(session(self._address, self._workers))
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def map(self, settings: Settings, units: Sequence[Unit]) -> Iterator[tuple[Unit, Encoded]]:
        """The files of each unit, as they are done. Raises what scoring raises, WorkerError where workers are lost
        again and again.
        """
        there = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus, cpus = int(there.get("GPU", 0)), max(1, int(there.get("CPU", 1)))
        on_gpu = gpus > 0 and settings.device != "cpu"
        room = gpus if on_gpu else cpus  # a worker above that would never start, and its video never end
        count = min(len(units), room, self._workers or room)
        return _Run(_absolute(settings), units, count, on_gpu).files()


class _Worker:
    """An actor: a benchmark and a detector that are opened once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._judge: Judge | None = None

    def score(self, unit: Unit) -> Encoded | AesamplerError:
        """The files of a unit; an error of ours is a value, since Ray would wrap what is raised."""
        try:
            self._judge = self._judge or Judge(self._settings)
            return encode(self._judge.score(unit))
        except AesamplerError as error:
            return self._here(error)
        except OSError as error:
            return self._here(StorageError.of(error))

    def _here(self, error: AesamplerError) -> AesamplerError:
        """The error, with the node that met it where there are several: it may see another disk than we do."""
        if len(ray.nodes()) > 1:  # type: ignore[no-untyped-call]
            error.where = f"node {socket.gethostname()}: {error.where}"
        return error


class _Run:
    """Units dealt to workers, one at a time each."""

    def __init__(self, settings: Settings, units: Sequence[Unit], count: int, on_gpu: bool) -> None:
        self._sent = ray.put(settings)
        self._waiting = deque(units)
        self._losses: Counter[Unit] = Counter()
        options = {"num_gpus": 1, "num_cpus": 0} if on_gpu else {"num_cpus": 1}
        self._kind: Any = ray.remote(max_restarts=0, max_task_retries=0, **options)(_Worker)  # type: ignore[call-overload]
        self._idle: list[Any] = [self._kind.remote(self._sent) for _ in range(count)]
        self._flying: dict[Any, tuple[Unit, Any]] = {}

    def files(self) -> Iterator[tuple[Unit, Encoded]]:
        """What the workers send, as it comes."""
        try:
            while self._waiting or self._flying:
                while self._waiting and self._idle:
                    unit, worker = self._waiting.popleft(), self._idle.pop()
                    self._flying[worker.score.remote(unit)] = unit, worker
                ready, _ = ray.wait(list(self._flying), timeout=WAIT_S)
                for ref in ready:
                    unit, worker = self._flying.pop(ref)
                    files = self._settle(ref, unit, worker)
                    if files is not None:
                        yield unit, files
        finally:
            for worker in [*self._idle, *(worker for _, worker in self._flying.values())]:
                ray.kill(worker)

    def _settle(self, ref: Any, unit: Unit, worker: Any) -> Encoded | None:
        """The files of a unit; None where its worker was lost and it waits again."""
        try:
            found: Encoded | AesamplerError = ray.get(ref)
        except (RayActorError, OutOfMemoryError) as error:
            self._lost(unit, error)
            return None
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise WorkerError(f"Ray failed: {_line(error)}", where=unit.video) from error
        self._idle.append(worker)
        if isinstance(found, AesamplerError):
            raise found
        return found

    def _lost(self, unit: Unit, error: RayError) -> None:
        self._losses[unit] += 1
        if self._losses[unit] >= LOSSES:
            raise WorkerError(
                f"workers were lost {LOSSES} times: {_line(error)}",
                where=unit.video,
                do="look at the memory of the nodes, and at this video; what is finished is kept",
            ) from error
        self._waiting.appendleft(unit)
        self._idle.append(self._kind.remote(self._sent))


def _absolute(settings: Settings) -> Settings:
    """The settings with absolute paths, of options where there is such a file or folder."""
    changed: dict[str, Any] = {"root": os.path.abspath(settings.root)}
    for part in ("options", "benchmark_options"):
        given: dict[str, Any] = getattr(settings, part)
        found = {name: given[name] for name in PATHS if isinstance(given.get(name), str)}
        changed[part] = given | {name: os.path.abspath(path) for name, path in found.items() if os.path.exists(path)}
    return settings.model_copy(update=changed)


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
