"""Shards made by Ray, on this machine or on a cluster; the only file that imports ray.

One task is one shard: it carries a range of catalog rows and returns a ShardReport, so messages are small whatever a
shard weighs. At most `workers` tasks are in flight. Ray itself retries nothing, because what happened decides what is
done about it:

- a record with a fault of content is a row of the manifest, see `worker.py`: nothing is raised;
- reading, writing or memory failed: tried again, ATTEMPTS times in all, with a pause that doubles; then StorageError;
- a node was lost: its shards are made elsewhere, and nothing is held against them;
- a worker was lost: its shard is made again in careful mode, where each key is told to a small actor before its record
  is touched (about 1 ms a sample). A record at which two careful workers are lost is named: WorkerError.

Without an address Ray is started here for the build alone, bound to the loopback: 4 to 8 s, and 200 MB a worker, of
which 125 are Ray's. With one, or inside a cluster (RAY_ADDRESS, as `ray job submit` sets it), the code is sent along,
and each node shows that it sees every root and OUT before anything is rendered; see `node.py`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

# Ray prints what happens to workers on stdout, where programs read our JSON: it drops the lines that match this, if it
# is set before ray is imported. The last one silences a warning about GPUs.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aesampler.errors import AesamplerError, RecipeError, StorageError, WorkerError
from aesampler.executors import node
from aesampler.executors.node import Fault, View
from aesampler.machine import cpus
from aesampler.manifest import ShardReport
from aesampler.plan import ShardTask
from aesampler.worker import Job, build_shard, paths

ATTEMPTS = 4
"""Tries of a shard whose reading or writing fails."""
PAUSE_S = 1.0
"""The first pause between two tries; it doubles."""
SAME_RECORD = 2
"""Careful workers lost at one record before it is named."""
LOSSES = 20
"""Workers and nodes that one shard may lose, for whatever reason."""
NODE_ANSWERS_S = 180.0
"""How long a node may take to answer; before the first answer it unpacks the code and imports it."""
PING_S = 30.0
"""How long a node may take to show that it is still there."""
JOIN_S = 10.0
"""How long the head of a cluster may take to accept a connection."""
LAND_S = 10.0
"""How long tasks that are called off may take to end by themselves, and again once Ray has to end them."""
LISTEN_EVERY_S = 1.0
"""How often a worker asks, between two samples, whether the build was called off."""
COUNT_EVERY_S = 5.0
"""How often the CPUs of a cluster, which may grow and shrink, are counted."""
STORE_BYTES = 100 << 20
"""Shared memory of a Ray started here: near the least it accepts, since messages are small."""
SOCKET_ROOM = 24
"""Longest folder for a session's files: the path of a socket may have 107 bytes, of which 83 are Ray's and ours."""


class Cluster:
    """See the module.

    workers: shards in flight at once; default: one a CPU. address: of the head (`10.0.0.1:6379`), or `auto` for the
    cluster that this machine is part of; default: RAY_ADDRESS, or else, as with `local`, Ray is started here.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self._workers = workers
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._closing = contextlib.ExitStack()
        self._view: View | None = None
        self.remote = False

    def __enter__(self) -> Cluster:
        with contextlib.ExitStack() as opened:
            self.remote = True
            if ray.is_initialized():
                pass  # a program's own session: used as it is, and left
            elif self._address == "local":
                _start(opened, self._workers or cpus())
                self.remote = False
            else:
                _join(opened, self._address)
            if _cpus() < 1:
                raise RecipeError("the cluster offers no CPU", where=self._address, do="join nodes to it")
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
        nodes = [entry for entry in _nodes() if entry["Alive"] and entry["Resources"].get("CPU", 0) >= 1]
        _ask(nodes, _importer(), None, _import_error)
        try:
            _ask(nodes, _look, self._view, _view_error)
            for entry in nodes:
                _require_answer(entry, self._view)
        finally:
            for entry in nodes:
                job.out.remove(_answer(entry, self._view))

    def map(self, job: Job, tasks: Sequence[ShardTask]) -> Iterator[ShardReport]:
        """The reports, as they come. Raises what `build_shard` raises, StorageError where trouble lasts, WorkerError
        naming a record that its workers do not survive.
        """
        return _Run(job, tasks, self._view, self._workers).reports()


# -- the session -------------------------------------------------------------------------------------------------------


def _start(opened: contextlib.ExitStack, workers: int) -> None:
    """Ray on this machine alone, until `opened` closes."""
    room = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="aesampler-", dir=room if len(room) <= SOCKET_ROOM else "/tmp")
    opened.callback(shutil.rmtree, folder, ignore_errors=True)
    spool = tempfile.mkdtemp(prefix="aesampler-")  # of workers, so that a lost one leaves nothing behind
    opened.callback(shutil.rmtree, spool, ignore_errors=True)
    # Arrow's own allocator keeps 10 MB more in each worker.
    theirs = {"TMPDIR": spool, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    opened.enter_context(_environment({"RAY_AUTH_MODE": "disabled"} | theirs))
    settings = {"num_cpus": workers, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        _init(opened, address="local", _temp_dir=folder, _node_ip_address="127.0.0.1", **settings)
    except (RuntimeError, OSError, ValueError, RayError) as error:
        raise WorkerError(f"Ray does not start here: {_line(error)}", do="mend it, or use --executor inline") from error


def _join(opened: contextlib.ExitStack, address: str) -> None:
    """A session on the cluster at `address`, to which the code is sent, until `opened` closes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=JOIN_S).close()
        except OSError as error:  # Ray would try for two minutes, and then end the process
            raise RecipeError(
                f"no Ray cluster answers: {error}", where=address, do="give the address of its head, HOST:PORT"
            ) from error
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="aesampler-")))
    code: dict[str, Any] = {"py_modules": [str(path) for path in node.pack(folder)]}
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        # Without a working_dir (`ray job submit` has its own) workers first look into a folder called as our current
        # one, and may find other code there.
        (folder / "empty").mkdir()
        code["working_dir"] = str(folder / "empty")
    try:
        _init(opened, address=address, runtime_env=code)
    except ConnectionError as error:
        raise RecipeError(
            "no Ray cluster runs on this machine",
            where=f"--address {address}",
            do="start one with `ray start --head` and join nodes to it; without --address this machine alone is used",
        ) from error
    except (RuntimeError, OSError, ValueError, RayError) as error:
        raise RecipeError(f"the Ray cluster cannot be joined: {_line(error)}", where=address) from error


def _init(opened: contextlib.ExitStack, **settings: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        opened.callback(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # Ray puts its own
    opened.callback(ray.shutdown)
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# -- the nodes ---------------------------------------------------------------------------------------------------------


def _ask(
    nodes: Sequence[Mapping[str, Any]],
    question: Callable[[View | None], Any],
    view: View | None,
    explain: Callable[[str, Any], AesamplerError],
) -> None:
    """Ask all nodes at once; raise what the first answer that is not empty means. A node lost meanwhile is left out."""
    asked = ray.remote(num_cpus=0, max_retries=0)(question)
    refs = {asked.options(scheduling_strategy=_on(entry["NodeID"])).remote(view): entry for entry in nodes}
    _, silent = ray.wait(list(refs), num_returns=len(refs), timeout=NODE_ANSWERS_S)
    for ref, entry in refs.items():
        if ref in silent:
            raise WorkerError(
                f"no answer within {NODE_ANSWERS_S:.0f} s",
                where=_name(entry),
                do="mend it, or take it out of the cluster",
            )
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            if _alive(entry["NodeID"]):
                raise WorkerError(f"no worker starts: {_line(error)}", where=_name(entry)) from error
            continue
        if answer:
            raise explain(_name(entry), answer)


def _importer() -> Callable[[View | None], str]:
    """A function that travels as itself: it finds out whether this module can be imported where it arrives."""

    def imports(view: View | None) -> str:
        try:
            import aesampler.executors.cluster  # noqa: F401
        except ImportError as error:
            return str(error)
        return ""

    return imports


def _import_error(name: str, answer: str) -> AesamplerError:
    return WorkerError(f"a package is missing: {answer}", where=name, do="install what aesampler needs on every node")


def _look(view: View | None) -> tuple[Fault, ...]:
    """What this node sees otherwise; one that sees all writes its answer into OUT."""
    assert view is not None
    faults = tuple(view.faults())
    if not faults:
        try:
            view.answer(_here())
        except (AesamplerError, OSError) as error:
            return (Fault(where=view.out.url, what=f"cannot be written: {error}", do=node.MOUNT),)
    return faults


def _view_error(name: str, faults: tuple[Fault, ...]) -> AesamplerError:
    """The first of a node's faults, as an error of its kind."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if first.is_path:
        return StorageError(f"does not see {first.where}: it {first.what}{more}", where=name, do=first.do)
    return WorkerError(f"{first.where} {first.what}{more}", where=name, do=first.do)


def _answer(entry: Mapping[str, Any], view: View) -> str:
    """Where a node writes its answer, below OUT."""
    return f"{view.probe}-{entry['NodeID']}"


def _require_answer(entry: Mapping[str, Any], view: View) -> None:
    """Raise StorageError where a node's answer is not in OUT: what it sees there is another folder."""
    if not view.out.exists(_answer(entry, view)) and _alive(entry["NodeID"]):
        what = "is another folder there: what that node writes is not here"
        raise _view_error(_name(entry), (Fault(where=view.out.url, what=what, do=node.MOUNT),))


def _name(entry: Mapping[str, Any]) -> str:
    """How messages call a node."""
    return f"node {entry['NodeManagerAddress']} ({entry['NodeName']}, {entry['NodeID'][:8]})"


def _on(node_id: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _here() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _nodes() -> list[dict[str, Any]]:
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def _cpus() -> int:
    return int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]


def _alive(node_id: str) -> bool:
    return any(entry["Alive"] for entry in _nodes() if entry["NodeID"] == node_id)


def _pong() -> bool:
    return True


def _answers(node_id: str) -> bool:
    """Whether a node can still work: Ray's own list may be half a minute late."""
    ping = ray.remote(num_cpus=0, max_retries=0)(_pong).options(scheduling_strategy=_on(node_id)).remote()
    try:
        return bool(ray.get(ping, timeout=PING_S))
    except (RayError, TimeoutError):
        return False


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
    here = _here()
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
            return _Reply(error=_view_error(f"node {socket.gethostname()} ({here[:8]})", faults))
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

    def __init__(self, job: Job, tasks: Sequence[ShardTask], view: View | None, workers: int | None) -> None:
        self._job, self._workers = job, workers
        self._called_off = f".build/called-off-{secrets.token_hex(4)}"
        self._sent = (ray.put(job), ray.put(view), self._called_off)
        self._waiting = deque(_Attempt(place=place, task=task) for place, task in enumerate(tasks))
        self._paused: list[_Attempt] = []
        self._flying: dict[Any, _Attempt] = {}
        self._spare = 0 if view is None else 1  # a task that waits makes an autoscaler add nodes
        self._cpus, self._counted = 1, float("-inf")
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
        if self._workers is None and now - self._counted >= COUNT_EVERY_S:
            self._cpus, self._counted = max(1, _cpus()) + self._spare, now
        self._waiting.extendleft(attempt for attempt in self._paused if attempt.since <= now)
        self._paused = [attempt for attempt in self._paused if attempt.since > now]
        while self._waiting and len(self._flying) < (self._workers or self._cpus):
            attempt = self._waiting.popleft()
            watcher = self._watch() if attempt.careful else None
            self._flying[self._work.remote(attempt.task, *self._sent, attempt.place, watcher)] = attempt

    def _watch(self) -> Any:
        """The watcher, which lives on this node: it is lost only with the build."""
        if self._watcher is None:
            self._watcher = ray.remote(num_cpus=0)(_Watcher).options(scheduling_strategy=_on(_here())).remote()
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
            raise WorkerError(f"Ray failed: {_line(error)}", where=self._shard(attempt)) from error
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
        last = ray.get(self._watch().last.remote(attempt.place))
        return last[1] if last is not None and _answers(last[0]) else None

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
