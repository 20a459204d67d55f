"""Videos scored by Ray, on this machine's GPUs or on a cluster.

An actor a GPU (a CPU where there is none) opens the benchmark, loads the detector once, and scores one video after
another. It sends the saved form back, some kB, and this process writes it: nodes need to see the dataset and the
model, not OUT. The video of a lost worker is scored again, up to LOSSES times. Another worker takes its place where the
cluster still has room for one, else those that are left do its part; a node that joins later is used. What a detector
or a benchmark raises ends the run. In all cases everything that is done is kept.

Our code is sent to a cluster. A detector that an installed package adds must be installed on the nodes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any

from aesampler.errors import AesamplerError, StorageError, WorkerError
from aesampler.executors import session
from lavida.evaluate.scoring import Judge, Unit
from lavida.evaluate.settings import MODELS, Settings
from lavida.evaluate.store import Encoded, encode
from lavida.session import begin

# After session.py, which prepares this import.
# isort: split
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

LOSSES = 3
"""Workers that one video may lose."""
WAIT_S = 5.0
"""How long Ray is waited for at a time, so that Ctrl-C is heard and lost nodes are seen."""
REST_S = 30.0
"""How long no more workers are tried where those that work are joined by none that starts."""
BUSY_S = 30.0
"""How long nothing may work before it is said that all is waiting."""
PATHS = (*MODELS, "labels")
"""Options that may be a path. Workers on a cluster start in another folder than we."""


class Cluster:
    """See the module; used in a `with` block.

    workers: videos in hand at once, at most one a GPU, or a CPU where there is none, which is the default. address: of
    the cluster, see `aesampler.executors.session.begin`. told: is given a line where a cluster that others use makes
    all wait.
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, told: Callable[[str], None] | None = None
    ) -> None:
        self._workers = workers
        self._address = address
        self._told = told
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as opened:
            opened.enter_context(begin(self._address, self._workers))
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def map(self, settings: Settings, units: Sequence[Unit]) -> Generator[tuple[Unit, Encoded], None, None]:
        """The files of each unit, as they are done. Raises what scoring raises, WorkerError where workers are lost
        again and again, or none can start.
        """
        on_gpu = settings.device != "cpu" and session.offered("GPU") > 0
        return _Run(_absolute(settings), units, self._workers or len(units), on_gpu, self._told).files()


class _Worker:
    """An actor: a benchmark and a detector that are opened once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._judge: Judge | None = None

    def ready(self) -> None:
        """Answers once the worker has been placed and started."""

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
        if len(session.nodes()) > 1:
            error.where = f"node {socket.gethostname()}: {error.where}"
        return error


class _Run:
    """Units dealt to workers, one at a time each.

    A worker is given its first unit when it has started: one that the cluster has no room for never does.
    """

    def __init__(
        self,
        settings: Settings,
        units: Sequence[Unit],
        most: int,
        on_gpu: bool,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._sent = ray.put(settings)
        self._waiting = deque(units)
        self._most, self._resource, self._told = most, "GPU" if on_gpu else "CPU", told
        self._losses: Counter[Unit] = Counter()
        self._unstarted = 0  # workers lost before they had started, since the last that did
        self._rested = 0.0  # on the monotonic clock
        options = {"num_gpus": 1, "num_cpus": 0} if on_gpu else {"num_cpus": 1}
        self._kind: Any = ray.remote(max_restarts=0, max_task_retries=0, **options)(_Worker)  # type: ignore[call-overload]
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._flying: dict[Any, tuple[Unit, Any]] = {}

    def files(self) -> Generator[tuple[Unit, Encoded], None, None]:
        """What the workers send, as it comes."""
        worked = time.monotonic()
        try:
            while self._waiting or self._flying:
                self._staff()
                while self._waiting and self._idle:
                    unit, worker = self._waiting.popleft(), self._idle.pop()
                    self._flying[worker.score.remote(unit)] = unit, worker
                worked = self._worked(worked)
                ready, _ = ray.wait([*self._flying, *self._starting], timeout=WAIT_S)
                for ref in ready:
                    if ref in self._starting:
                        self._started(ref)
                        continue
                    unit, worker = self._flying.pop(ref)
                    files = self._settle(ref, unit, worker)
                    if files is not None:
                        yield unit, files
        finally:
            for worker in [*self._starting.values(), *self._idle, *(worker for _, worker in self._flying.values())]:
                ray.kill(worker)

    def _staff(self) -> None:
        """As many workers as there are units for and the cluster has room for now; no more are waited for."""
        room = session.offered(self._resource)
        wanted = min(self._most, room, len(self._waiting) + len(self._flying))
        working = len(self._idle) + len(self._flying)
        if working and time.monotonic() < self._rested:
            wanted = min(wanted, working + len(self._starting))
        while working + len(self._starting) < wanted:
            worker = self._kind.remote(self._sent)
            self._starting[worker.ready.remote()] = worker
        while self._starting and working + len(self._starting) > max(wanted, working):
            ray.kill(self._starting.popitem()[1])
        if not working and not self._starting:
            raise WorkerError(
                f"the cluster offers no {self._resource}, and no worker is left",
                do="join nodes to it; what is finished is kept, and the same command goes on",
            )

    def _worked(self, before: float) -> float:
        """When last something worked; from BUSY_S after that on, once, it is told that nothing does."""
        now = time.monotonic()
        if self._flying:
            return now
        if self._told is not None and now - before > BUSY_S:
            self._told(f"no worker has started for {BUSY_S:g} s, the cluster's {self._resource}s may be busy; waiting")
            self._told = None
        return before

    def _started(self, ref: Any) -> None:
        worker = self._starting.pop(ref)
        try:
            ray.get(ref)
        except (RayActorError, OutOfMemoryError) as error:
            self._unstarted += 1
            if self._unstarted >= LOSSES and (self._idle or self._flying):
                self._rested = time.monotonic() + REST_S
            elif self._unstarted >= LOSSES:
                raise WorkerError(
                    f"no worker starts: {session.line(error)}", do="look at the logs of the nodes"
                ) from error
        except RayError as error:
            raise WorkerError(f"Ray failed: {session.line(error)}") from error
        else:
            self._unstarted = 0
            self._idle.append(worker)

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
            raise WorkerError(f"Ray failed: {session.line(error)}", where=unit.video) from error
        self._idle.append(worker)
        if isinstance(found, AesamplerError):
            raise found
        return found

    def _lost(self, unit: Unit, error: RayError) -> None:
        self._losses[unit] += 1
        if self._losses[unit] >= LOSSES:
            raise WorkerError(
                f"workers were lost {LOSSES} times: {session.line(error)}",
                where=unit.video,
                do="look at the memory of the nodes, and at this video; what is finished is kept",
            ) from error
        self._waiting.appendleft(unit)


def _absolute(settings: Settings) -> Settings:
    """The settings with absolute paths, of options where there is such a file or folder."""
    changed: dict[str, Any] = {"root": os.path.abspath(settings.root)}
    for part in ("options", "benchmark_options"):
        given: dict[str, Any] = getattr(settings, part)
        found = {name: given[name] for name in PATHS if isinstance(given.get(name), str)}
        changed[part] = given | {name: os.path.abspath(path) for name, path in found.items() if os.path.exists(path)}
    return settings.model_copy(update=changed)
