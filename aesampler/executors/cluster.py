"""Shards made by Ray, on this machine or on a cluster.

One task is one shard: it carries a range of catalog rows and returns a ShardReport, so messages are small whatever a
shard weighs. At most `workers` tasks are in flight. Ray itself retries nothing, because what happened decides what is
done about it:

- a record with a fault of content is a row of the manifest, see `worker.py`: nothing is raised;
- reading, writing or memory failed: tried again, ATTEMPTS times in all, with a pause that doubles; then StorageError;
- a node was lost: its shards are made elsewhere, and nothing is held against them;
- a worker was lost: its shard is made again in careful mode, where each key is told to a small actor before its record
  is touched (about 1 ms a sample). A record at which two careful workers are lost is named: WorkerError.

Where Ray runs, `session.py` decides. On a cluster each node shows that it sees every root and OUT before anything is
rendered; see `survey.py`.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any

from aesampler.errors import AesamplerError, RecipeError, StorageError, WorkerError
from aesampler.executors import node, session
from aesampler.executors.node import Fault, View
from aesampler.executors.survey import fault, survey
from aesampler.manifest import ShardReport
from aesampler.plan import ShardTask
from aesampler.worker import Job, build_shard, paths

# After session.py, which prepares this import.
# isort: split
import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)

ATTEMPTS = 4
"""Tries of a shard whose reading or writing fails."""
PAUSE_S = 1.0
"""The first pause between two tries; it doubles."""
SAME_RECORD = 2
"""Careful workers lost at one record before it is named."""
LOSSES = 20
"""Workers and nodes that one shard may lose, for whatever reason."""
LAND_S = 10.0
"""How long tasks that are called off may take to end by themselves, and again once Ray has to end them."""
LISTEN_EVERY_S = 1.0
"""How often a worker asks, between two samples, whether the build was called off."""
COUNT_EVERY_S = 5.0
"""How often the CPUs of a cluster, which may grow and shrink, are counted."""


class Cluster:
    """See the module.

    workers: shards in flight at once; default: one a CPU. address: of the cluster, see `session.begin`. told: called
    with a line where the work has to wait.
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, *, told: Callable[[str], None] | None = None
    ) -> None:
        self._workers, self._address, self._told = workers, address, told
        self._closing = contextlib.ExitStack()
        self._view: View | None = None
        self.remote = False

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as opened:
            spool = opened.enter_context(tempfile.TemporaryDirectory(prefix="aesampler-", ignore_cleanup_errors=True))
            begun = session.begin(
                self._address,
                self._workers,
                pack=node.pack,
                instead="use --executor inline",
                # A lost worker leaves nothing behind; and Arrow's own allocator keeps 10 MB more in each.
                environment={"TMPDIR": spool, "ARROW_DEFAULT_MEMORY_POOL": "system"},
            )
            self.remote = opened.enter_context(begun)
            if session.offered("CPU") < 1:
                raise RecipeError("the cluster offers no CPU", where=self._address or "Ray", do="join nodes to it")
            self._closing = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()
        self._view = None

    def prepare(self, job: Job) -> None:
        """On a cluster: have every node that may work show that it sees what this machine sees. Raises StorageError
        naming the node and the path, WorkerError naming the node and the tool.
        """
        if not self.remote:
            return
        token = secrets.token_hex(16)
        probe = f".build/probe-{token[:8]}"
        job.out.commit_bytes(probe, token.encode())
        self._closing.callback(job.out.remove, probe)  # it stays until the end, for nodes that join later
        self._view = View.of(job, probe, token.encode())
        survey(self._view)

    def map(self, job: Job, tasks: Sequence[ShardTask]) -> Iterator[ShardReport]:
        """The reports, as they come. Raises what `build_shard` raises, StorageError where trouble lasts, WorkerError
        naming a record that its workers do not survive.
        """
        return _Run(job, tasks, self._view, self._workers, self._told).reports()


# -- in a worker -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What a task returns: the report, or the error, which Ray would wrap; neither where the build was called off.
    passing: the error is worth another try.
    """

    report: ShardReport | None = None
    error: AesamplerError | None = None
    passing: bool = False


@lru_cache(maxsize=4)
def _faults(view: View) -> tuple[Fault, ...]:
    """Looked for once a process: its node may have joined after the others were asked."""
    return tuple(view.faults())


class _CalledOff(Exception):
    """The build was called off: its workers drop what they have in hand."""


def _work(task: ShardTask, job: Job, view: View | None, called_off: str, place: int, watcher: Any) -> _Reply:
    """One shard, in a worker."""
    here = session.here()
    heard = time.monotonic()

    def note(key: str) -> None:
        nonlocal heard
        if watcher is not None:
            ray.get(watcher.note.remote(place, here, key))
        if time.monotonic() - heard >= LISTEN_EVERY_S:
            if job.out.exists(called_off):
                raise _CalledOff
            heard = time.monotonic()

    try:
        if view is not None and (faults := _faults(view)):
            return _Reply(error=fault(f"node {socket.gethostname()} ({here[:8]})", faults))
        return _Reply(report=build_shard(task, job, note))
    except _CalledOff:
        return _Reply()
    except MemoryError:
        return _Reply(error=_out_of_memory(), passing=True)
    except (OSError, StorageError) as trouble:
        return _Reply(error=StorageError.of(trouble), passing=True)
    except AesamplerError as error:
        return _Reply(error=error)


def _out_of_memory() -> StorageError:
    return StorageError("a worker ran out of memory", do="what is finished is kept: run again with fewer --workers")


class _Watcher:
    """Remembers which record each careful worker was about to touch, and on which node."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[str, str]] = {}

    def note(self, place: int, node_id: str, key: str) -> None:
        """The worker of shard number `place` is about to touch `key`."""
        self._last[place] = (node_id, key)

    def last(self, place: int) -> tuple[str, str] | None:
        """The last word of shard number `place`, given once."""
        return self._last.pop(place, None)


# -- in the driver -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """Where one shard stands. place: its number in the run. troubles: tries that failed. losses: workers and nodes
    lost. ends: key -> careful workers lost at it. since: not to be tried before, on the monotonic clock.
    """

    place: int
    task: ShardTask
    troubles: int = 0
    losses: int = 0
    careful: bool = False
    ends: Counter[str] = field(default_factory=Counter)
    since: float = 0.0


class _Run:
    """One mapping of tasks to reports."""

    def __init__(
        self,
        job: Job,
        tasks: Sequence[ShardTask],
        view: View | None,
        workers: int | None,
        told: Callable[[str], None] | None,
    ) -> None:
        self._job, self._workers, self._told = job, workers, told
        self._called_off = f".build/called-off-{secrets.token_hex(4)}"
        self._sent = (ray.put(job), ray.put(view), self._called_off)
        self._waiting = deque(_Attempt(place=place, task=task) for place, task in enumerate(tasks))
        self._paused: list[_Attempt] = []
        self._flying: dict[Any, _Attempt] = {}
        self._spare = 0 if view is None else 1  # a task that waits makes an autoscaler add nodes
        self._cpus, self._counted, self._stranded = 1, float("-inf"), False
        self._work: Any = ray.remote(
            num_cpus=1, max_retries=0, scheduling_strategy="DEFAULT" if view is None else "SPREAD"
        )(_work)
        self._watcher: Any = None

    def reports(self) -> Iterator[ShardReport]:
        """The reports, as they come."""
        try:
            while self._waiting or self._paused or self._flying:
                self._submit()
                if not self._flying:
                    time.sleep(max(0.0, min(attempt.since for attempt in self._paused) - time.monotonic()))
                    continue
                ready, _ = ray.wait(list(self._flying), timeout=COUNT_EVERY_S)
                settled = [self._settle(ref, self._flying.pop(ref)) for ref in ready]
                self._submit()
                yield from (report for report in settled if report is not None)
        finally:
            self._land()
            self._job.out.sweep_temporaries()  # what lost workers had in hand; no other writes into OUT now

    def _submit(self) -> None:
        """Put tasks in flight, as many as there is room for."""
        now = time.monotonic()
        if now - self._counted >= COUNT_EVERY_S:
            cpus, self._counted = session.offered("CPU"), now
            self._cpus = max(1, cpus) + self._spare
            self._strand(not cpus)
        self._waiting.extendleft(attempt for attempt in self._paused if attempt.since <= now)
        self._paused = [attempt for attempt in self._paused if attempt.since > now]
        while self._waiting and len(self._flying) < (self._workers or self._cpus):
            attempt = self._waiting.popleft()
            watcher = self._watch() if attempt.careful else None
            self._flying[self._work.remote(attempt.task, *self._sent, attempt.place, watcher)] = attempt

    def _strand(self, stranded: bool) -> None:
        """Tell, once each time, that nobody is left to work: one may come, and an autoscaler may bring one."""
        if stranded != self._stranded and self._told is not None:
            self._told("the cluster has no CPU left; waiting for a node to join" if stranded else "a node joined")
        self._stranded = stranded

    def _watch(self) -> Any:
        """The watcher, which lives on this node: it is lost only with the build."""
        if self._watcher is None:
            placed = ray.remote(num_cpus=0)(_Watcher).options(scheduling_strategy=session.on(session.here()))
            self._watcher = placed.remote()
        return self._watcher

    def _settle(self, ref: Any, attempt: _Attempt) -> ShardReport | None:
        """The report of a task that ended; None if it is to be tried again."""
        try:
            reply: _Reply = ray.get(ref)
        except OutOfMemoryError:
            self._again(attempt, _out_of_memory())
        except WorkerCrashedError:
            self._lost(attempt, self._end(attempt))
        except (NodeDiedError, ObjectLostError, TaskUnschedulableError):
            self._lost(attempt, None)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise WorkerError(f"Ray failed: {session.line(error)}", where=self._shard(attempt)) from error
        else:
            if reply.error is None:
                return reply.report
            if not reply.passing:
                raise reply.error
            self._again(attempt, reply.error)
        return None

    def _again(self, attempt: _Attempt, error: AesamplerError) -> None:
        """Try a shard again after a pause. Raises `error` where that was the last time."""
        attempt.troubles += 1
        if attempt.troubles >= ATTEMPTS:
            raise error
        attempt.since = time.monotonic() + PAUSE_S * 2 ** (attempt.troubles - 1)
        self._paused.append(attempt)

    def _end(self, attempt: _Attempt) -> str | None:
        """The record at which a worker was lost, where it is known and not the node's fault; careful from now on."""
        if not attempt.careful:
            attempt.careful = True
            return None
        try:
            last = ray.get(self._watch().last.remote(attempt.place), timeout=session.PING_S)
        except (RayError, TimeoutError):  # the watcher was lost too, and is made anew
            self._watcher = None
            return None
        return last[1] if last is not None and session.answering([last[0]]) else None

    def _lost(self, attempt: _Attempt, key: str | None) -> None:
        """Make a shard anew whose worker or node was lost, at `key`. Raises WorkerError where that comes too often."""
        attempt.losses += 1
        if key is not None:
            attempt.ends[key] += 1
            if attempt.ends[key] >= SAME_RECORD:
                raise WorkerError(
                    "this record ends every worker that touches it",
                    where=key,
                    got=f"lost workers in {self._shard(attempt)}",
                    do="look at its picture and masks, or take it out of the dataset; what is finished is kept",
                )
        if attempt.losses >= LOSSES:
            raise WorkerError(
                f"workers were lost {attempt.losses} times",
                where=self._shard(attempt),
                do="look at the memory and the logs of the nodes; what is finished is kept",
            )
        self._waiting.appendleft(attempt)

    def _shard(self, attempt: _Attempt) -> str:
        return paths(self._job.recipe, attempt.task)[0]

    def _land(self) -> None:
        """Call off what is in flight, and wait until it has ended: OUT is not ours any more when this returns.

        Workers hear of it from OUT and end by themselves. Ray is asked to end only those that do not: asked in the
        instant in which a task ends anyway, it ends this process (seen in 2.60: "Tried to complete task that was not
        pending").
        """
        if not self._flying:
            return
        patience = LAND_S
        try:
            self._job.out.commit_bytes(self._called_off, b"")
        except StorageError:  # nobody hears of it
            patience = 0.0
        try:
            _, stuck = ray.wait(list(self._flying), num_returns=len(self._flying), timeout=patience)
            for ref in stuck:
                ray.cancel(ref, force=True)
            if stuck:
                ray.wait(stuck, num_returns=len(stuck), timeout=LAND_S)
        finally:
            self._job.out.remove(self._called_off)
        self._flying.clear()
