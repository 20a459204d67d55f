"""A session of Ray for one piece of work; import this before ray, which reads its environment as it is imported.

A program's own session is used as it is, and left. Without an address Ray is started here for the work alone, bound to
the loopback: 4 to 8 s, and 200 MB a worker, of which 125 are Ray's. With one, or inside a cluster (RAY_ADDRESS, as
`ray job submit` sets it), the session joins that cluster and the code is sent along.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Ray prints what happens to workers on stdout, where programs read our JSON: it drops the lines that match this. The
# last one silences a warning about GPUs.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import OutOfMemoryError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from aesampler.errors import RecipeError, WorkerError
from aesampler.machine import cpus

JOIN_S = 10.0
"""How long the head of a cluster may take to accept a connection."""
PING_S = 30.0
"""How long a node may take to show that it is still there."""
STORE_BYTES = 100 << 20
"""Shared memory of a Ray started here: near the least it accepts, since messages are small."""
SOCKET_ROOM = 24
"""Longest folder for a session's files: the path of a socket may have 107 bytes, of which 83 are Ray's and ours."""


@contextlib.contextmanager
def begin(
    address: str | None,
    workers: int | None,
    *,
    pack: Callable[[Path], Sequence[Path]],
    instead: str,
    environment: Mapping[str, str] | None = None,
) -> Iterator[bool]:
    """A session for the `with` block; gives whether its workers may run on other machines.

    address: of the head (`10.0.0.1:6379`), or `auto` for the cluster that this machine is part of; default:
    RAY_ADDRESS, or else, as with `local`, Ray is started here. workers: CPUs of a Ray started here; default: the
    machine's. pack: copies the code into a folder, and names what is to be sent. instead: what to do where Ray does not
    start. environment: of the workers of a Ray started here. Raises RecipeError where no cluster answers, WorkerError
    where Ray does not start.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with contextlib.ExitStack() as opened:
        local = not ray.is_initialized() and address == "local"
        if local:
            _start(opened, workers or cpus(), instead, environment or {})
        elif not ray.is_initialized():
            _join(opened, address, pack)
        yield not local


def nodes() -> list[dict[str, Any]]:
    """What Ray knows of every node that is or was in the cluster."""
    return list(ray.nodes())  # type: ignore[no-untyped-call]


def called(entry: Mapping[str, Any]) -> str:
    """How messages call a node."""
    return f"node {entry['NodeManagerAddress']} ({entry['NodeName']}, {entry['NodeID'][:8]})"


def alive(node_id: str) -> bool:
    """Whether Ray takes a node to be there, which may be half a minute late: see `answering`."""
    return any(entry["Alive"] for entry in nodes() if entry["NodeID"] == node_id)


def answering(node_ids: Sequence[str]) -> frozenset[str]:
    """Of some nodes, those that can still work: they are given PING_S to answer."""
    ping = ray.remote(num_cpus=0, max_retries=0)(_pong)
    asked = {ping.options(scheduling_strategy=on(node_id)).remote(): node_id for node_id in node_ids}
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=PING_S) if asked else ([], [])
    found = set()
    for ref in ready:
        try:
            ray.get(ref)
        except OutOfMemoryError:
            pass  # it is there, and has other troubles
        except RayError:
            continue
        found.add(asked[ref])
    return frozenset(found)


def _pong() -> None:
    """Proof of life."""


def here() -> str:
    """The node that this process runs on."""
    return str(ray.get_runtime_context().get_node_id())


def on(node_id: str) -> NodeAffinitySchedulingStrategy:
    """For a task that is to run on this node and no other."""
    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def offered(resource: str) -> int:
    """How many of a resource, "CPU" or "GPU", the cluster has."""
    return int(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def line(error: BaseException) -> str:
    """What an error of Ray's says first: its traces are long."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _start(opened: contextlib.ExitStack, workers: int, instead: str, environment: Mapping[str, str]) -> None:
    """Ray on this machine alone, until `opened` closes."""
    room = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="aesampler-", dir=room if len(room) <= SOCKET_ROOM else "/tmp")
    opened.callback(shutil.rmtree, folder, ignore_errors=True)
    # Without this Ray writes a file with a token into the home folder.
    opened.enter_context(_environment({"RAY_AUTH_MODE": "disabled", **environment}))
    settings = {"num_cpus": workers, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    try:
        _init(opened, address="local", _temp_dir=folder, _node_ip_address="127.0.0.1", **settings)
    except (RuntimeError, OSError, ValueError, RayError) as error:
        raise WorkerError(f"Ray does not start here: {line(error)}", do=f"mend it, or {instead}") from error


def _join(opened: contextlib.ExitStack, address: str, pack: Callable[[Path], Sequence[Path]]) -> None:
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
    code: dict[str, Any] = {"py_modules": [str(path) for path in pack(folder)]}
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
        raise RecipeError(f"the Ray cluster cannot be joined: {line(error)}", where=address) from error


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
