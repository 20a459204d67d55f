"""Threads that make things ahead of whoever takes them, and that stop when nobody will.

An iterator can be given up in the middle: by `break`, by an error, by the end of the process, or by the collector,
which closes what nothing refers to in whatever thread it happens to run. So stopping has two parts. `call_off` waits
for nothing: what has not begun is dropped, and what is under way ends at its next look at `called_off()`. `join` waits
for the threads, but only in the thread that made the pool: in another one it might wait for itself, or for a thread
that waits for what this one holds. A process that ends calls off what it left, or it would first make all of it; one
that was forked leaves alone what it has only inherited.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

_here = threading.local()


class CalledOff(Exception):
    """What this thread was to make nobody will have."""


class Pool(ThreadPoolExecutor):
    """Threads of one iterator; see the module."""

    def __init__(self, threads: int, name: str) -> None:
        self._ended = threading.Event()
        super().__init__(threads, thread_name_prefix=name, initializer=_enter, initargs=(self._ended,))
        self._maker = os.getpid(), threading.get_ident()
        _POOLS.add(self)

    def call_off(self) -> None:
        """Begin nothing more, and have what is under way end soon."""
        if self._maker[0] == os.getpid():
            self._ended.set()
            self.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for what was under way, where that is safe."""
        if self._maker == (os.getpid(), threading.get_ident()):
            self.shutdown()


def called_off() -> bool:
    """Whether this is a thread of a pool that was called off."""
    ended: threading.Event | None = getattr(_here, "ended", None)
    return ended is not None and ended.is_set()


def raise_if_called_off() -> None:
    """Raise CalledOff where `called_off`."""
    if called_off():
        raise CalledOff


def _enter(ended: threading.Event) -> None:
    _here.ended = ended


_POOLS: WeakSet[Pool] = WeakSet()


def _end() -> None:
    for pool in list(_POOLS):
        pool.call_off()


# atexit comes too late: Python has by then waited for the threads of every executor, which empty their queues first.
_at_end: Callable[[Callable[[], None]], None] | None = getattr(threading, "_register_atexit", None)
if _at_end is not None:
    _at_end(_end)
