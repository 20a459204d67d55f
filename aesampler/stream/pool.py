"""Threads that make things ahead of whoever takes them, and that stop when nobody will.

An iterator can be given up in the middle: by `break`, by an error, by the end of the process, or by the collector,
which closes what nothing refers to in whatever thread it happens to run. So stopping has two parts. `call_off` waits
for nothing: what has not begun is dropped, and what is under way ends where it next asks whether it is wanted. `join`
waits for the threads, but only in the thread that made the pool, and not without end: the collector may have come while
this thread held what they wait for. A process that ends calls off what it left, or it would first make all of it; one
that was forked leaves alone what it has only inherited.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakSet

JOIN_S = 5.0
"""How long what was under way is waited for: a request to a store, mostly."""

_here = threading.local()


class CalledOff(Exception):
    """What this thread was to make nobody will have."""


class Pool(ThreadPoolExecutor):
    """Threads of one iterator; see the module."""

    def __init__(self, threads: int, name: str) -> None:
        self._ended = threading.Event()
        super().__init__(threads, thread_name_prefix=name, initializer=_enter, initargs=(self._ended,))
        self._process, self._maker = os.getpid(), threading.current_thread()
        _POOLS.add(self)

    def call_off(self) -> None:
        """Begin nothing more, and have what is under way end soon."""
        if self._process == os.getpid():
            self._ended.set()
            self.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait for the threads of a pool that was called off, where that is safe, and JOIN_S at most."""
        if self._process == os.getpid() and self._maker is threading.current_thread():
            end = time.monotonic() + JOIN_S
            for thread in tuple(self._threads):
                thread.join(max(0.0, end - time.monotonic()))


def raise_if_called_off() -> None:
    """Raise CalledOff where this is a thread of a pool that was called off."""
    ended: threading.Event | None = getattr(_here, "ended", None)
    if ended is not None and ended.is_set():
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
