"""Videos that stay open while a shard is made: the clips of one follow each other there, and are decoded in one pass.

    with kept(): chosen(root, "a.mp4", [0, 4, 8]); chosen(root, "a.mp4", [12, 16, 20])     # opened once

Outside of `kept` each call opens the file, and closes it. Inside, the two that were used last stay open until the block
ends, in this process alone: a fork opens its own. Frames may be asked for in any order and from any thread; threads
that want the same video wait for each other, and those that run for a block are started in a copy of its context. Of an
object store a video is fetched once for all its clips.

CPU seconds to cut a 300-frame mp4 of 848 x 480 into clips of 8 frames, 4 apart, opened for each clip -> kept:

    key frame every      250           48            12
    10 clips in a row    0.93 -> 0.29  0.39 -> 0.21  0.38 -> 0.23
    17, each half anew   1.68 -> 0.21  0.86 -> 0.19  0.68 -> 0.20        (a whole decoding: 0.3)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock

from aesampler import video
from aesampler.image import Pixels
from aesampler.storage import Folder

IDLE = 2
"""Videos that stay open while nobody reads them."""


@contextmanager
def kept() -> Iterator[None]:
    """Keep videos open from call to call of `chosen`, in the `with` block."""
    shelf = _Shelf()
    token = _SHELF.set(shelf)
    try:
        yield
    finally:
        _SHELF.reset(token)
        shelf.close()


def chosen(root: Folder, path: str, places: Sequence[int]) -> list[Pixels]:
    """The frames of the video at `path` that `places` counts, uint8 [height, width, 3], not to be written into. Raises
    BadRecord as `video.chosen`.
    """
    shelf = _SHELF.get()
    if shelf is not None and shelf.process == os.getpid():
        return shelf.chosen(root, path, places)
    with root.local_copy(path) as local:
        return video.chosen(local, places)


@dataclass(slots=True, kw_only=True, eq=False)
class _Slot:
    """A place for one open video. users: calls that have, or wait for, its lock."""

    users: int = 0
    lock: Lock = field(default_factory=Lock)
    stack: ExitStack = field(default_factory=ExitStack)
    file: video.Video | None = None

    def chosen(self, root: Folder, path: str, places: Sequence[int]) -> list[Pixels]:
        try:
            if self.file is None:
                self.file = self.stack.enter_context(video.opened(self.stack.enter_context(root.local_copy(path))))
            return self.file.chosen(places)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.file = None
        self.stack.close()


class _Shelf:
    def __init__(self) -> None:
        self.process = os.getpid()
        self._idle = IDLE
        self._lock = Lock()
        self._slots: dict[tuple[str, str, str], _Slot] = {}  # the one used last comes last

    def chosen(self, root: Folder, path: str, places: Sequence[int]) -> list[Pixels]:
        with self._taken((root.url, path, root.stat_token(path))) as slot, slot.lock:
            return slot.chosen(root, path, places)

    def close(self) -> None:
        """Close what is idle now, and the rest as soon as it is."""
        self._idle = 0
        self._tidy()

    @contextmanager
    def _taken(self, key: tuple[str, str, str]) -> Iterator[_Slot]:
        with self._lock:
            slot = self._slots.pop(key, None) or _Slot()
            self._slots[key] = slot
            slot.users += 1
        try:
            yield slot
        finally:
            with self._lock:
                slot.users -= 1
            self._tidy()

    def _tidy(self) -> None:
        with self._lock:
            idle = [key for key, slot in self._slots.items() if not slot.users]
            closing = [self._slots.pop(key) for key in idle[: max(len(idle) - self._idle, 0)]]
        for slot in closing:
            slot.close()


_SHELF: ContextVar[_Shelf | None] = ContextVar("open_videos", default=None)
