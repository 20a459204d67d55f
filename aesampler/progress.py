"""How long work shows itself: a bar with ETA and rates on a terminal, a plain line now and then elsewhere. Always on
stderr, so stdout stays for programs.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

EVERY_S = 10.0
"""Pause between two plain lines."""


class Reporter:
    """A callable `(what, done, total, size)`: `done` of `total` things are done, `size` bytes of them written. Used in
    a `with` block.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._started: dict[str, tuple[float, int, int]] = {}
        self._tasks: dict[str, object] = {}
        self._told = 0.0
        console = Console(stderr=True)
        self._bars = (
            Bars(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[rate]}"),
                console=console,
            )
            if console.is_terminal and not quiet
            else None
        )

    def __enter__(self) -> Reporter:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, what: str, done: int, total: int, size: int = 0) -> None:
        """Show that `done` of `total` is done."""
        if self.quiet:
            return
        now = time.monotonic()
        start, first, first_size = self._started.setdefault(what, (now, done, size))
        rate = _rate(done - first, size - first_size, now - start)
        if self._bars is not None:
            if what not in self._tasks:
                self._tasks[what] = self._bars.add_task(what, total=total, rate="")
            self._bars.update(self._tasks[what], completed=done, total=total, rate=rate)  # type: ignore[arg-type]
        elif done >= total or now - self._told >= EVERY_S:
            self._told = now
            left = (now - start) * (total - done) / (done - first) if done > first else 0.0
            eta = f", ETA {left:.0f} s" if done < total and left else ""
            print(f"{what}: {done:,} of {total:,}{eta}{', ' + rate if rate else ''}", file=sys.stderr, flush=True)  # noqa: T201


def _rate(done: int, size: int, seconds: float) -> str:
    if seconds <= 0 or done <= 0:
        return ""
    text = f"{done / seconds:,.0f}/s"
    return text + (f", {size / seconds / 1e6:,.1f} MB/s" if size else "")
