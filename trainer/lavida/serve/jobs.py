"""Uploaded videos and what was found in them: one after another, in one thread, each in a folder that is removed.

A run's folder goes when the page asks for it (it does when it is closed or starts another), when there are more than
KEPT finished ones, and all of them when the server stops. A video that is taken away while it is worked on stops at
its next frame.
"""

from __future__ import annotations

import queue
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aesampler import video
from aesampler.errors import AesamplerError, BadRecord
from lavida.detect import Answer, Job, Seen, Source, answer
from lavida.detectors import Detector

FORMATS = ("mov", "avi", "matroska", "mpegts", "mpeg", "flv", "asf", "ogg")
"""FFmpeg's containers that are let in: files that hold a video themselves, no playlists that name other files."""
KEPT = 8
"""Finished runs whose files are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """upload_bytes: the largest video. waiting: videos that may wait for the one in work. seconds: of a video."""

    upload_bytes: int = 500_000_000
    waiting: int = 4
    seconds: float | None = None


class Full(AesamplerError):
    """Too many videos wait already."""


class _Gone(Exception):
    """The run was taken away."""


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One uploaded video. state: waiting, running, done or failed; frames: how many are done, of `total` if known."""

    key: str
    folder: Path
    source: Source
    anomalies: tuple[str, ...]
    state: str = "waiting"
    total: int = 0
    rate: float = 25.0
    error: str = ""
    answer: Answer | None = None
    times: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def to_json(self, since: int, ahead: int) -> dict[str, Any]:
        """What the page asks for again and again: the scores from `since` on, and the answer when it is there."""
        known = len(self.scores)
        told = {
            "state": self.state,
            "done": known,
            "total": self.total,
            "length": self.total / self.rate if self.total else 0,
            "ahead": ahead,
            "times": [round(time, 3) for time in self.times[since:known]],
            "scores": [float(f"{score:.5g}") for score in self.scores[since:known]],
            "error": self.error,
        }
        if self.answer is not None:
            told |= {"answer": self.answer.to_json(), "files": sorted(self.answer.files)}
        return told


class Runs:
    """All of them, and the thread that works on them. Used in a `with` block, which removes everything at its end."""

    def __init__(self, detector: Detector, limits: Limits, job: Callable[[tuple[str, ...]], Job] | None = None) -> None:
        self.detector, self.limits = detector, limits
        self._job = job or (lambda anomalies: Job(anomalies=anomalies, formats=FORMATS, seconds=limits.seconds))
        self._runs: dict[str, Run] = {}
        self._coming: set[Path] = set()  # the folders of uploads that are still on their way
        self._queue: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="lavida-serve", daemon=True)

    def __enter__(self) -> Runs:
        self.folder = Path(tempfile.mkdtemp(prefix="lavida-serve-"))
        self._thread.start()
        return self

    def __exit__(self, *ended: object) -> None:
        for key in list(self._runs):
            self.remove(key)
        self._queue.put(None)
        self._thread.join(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def room(self) -> Path:
        """A new folder for an upload, which `add` or `give_up` takes. Raises Full where too many wait or come in."""
        ahead = self.ahead(None)
        with self._lock:
            if ahead + len(self._coming) > self.limits.waiting:
                raise Full(
                    "too many videos are waiting",
                    got=ahead + len(self._coming),
                    do="try again when one of them is done",
                )
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            self._coming.add(folder)
        return folder

    def give_up(self, folder: Path) -> None:
        """Remove the folder of an upload that came to nothing."""
        with self._lock:
            self._coming.discard(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def add(self, folder: Path, path: Path, name: str, anomalies: tuple[str, ...]) -> Run:
        """Take an upload at `path` in its `folder`. Raises BadRecord, and removes it, where it is no video."""
        try:
            with video.footage(path, formats=FORMATS) as shown:
                if next(shown.frames, None) is None:
                    raise BadRecord("a video has no frame")
                rate, total = shown.rate, shown.length or 0
        except (AesamplerError, OSError) as error:
            self.give_up(folder)
            what = error.what if isinstance(error, AesamplerError) else error.strerror or str(error)
            raise BadRecord(
                f"this file is no video that can be read: {what}", where=name, do="give an mp4, avi, mkv, mov or webm"
            ) from error
        except BaseException:
            self.give_up(folder)
            raise
        run = Run(
            key=secrets.token_urlsafe(12),
            folder=folder,
            source=Source(name=Path(name).stem or "video", place=str(path)),
            anomalies=anomalies,
            total=total,
            rate=rate,
        )
        with self._lock:
            self._coming.discard(folder)
            self._runs[run.key] = run
        self._drop_old()
        self._queue.put(run)
        return run

    def get(self, key: str) -> Run | None:
        """The run of a key, where there is one."""
        return self._runs.get(key)

    def ahead(self, run: Run | None) -> int:
        """How many runs are waiting or in work before this one, or before a new one."""
        with self._lock:
            every = list(self._runs.values())
        before = every[: every.index(run)] if run in every else every
        return sum(each.state in ("waiting", "running") for each in before)

    def remove(self, key: str) -> None:
        """Take a run away; one that is in work stops at its next frame and then goes."""
        with self._lock:
            run = self._runs.pop(key, None)
        if run is None:
            return
        run.gone.set()
        if run.state != "running":
            shutil.rmtree(run.folder, ignore_errors=True)

    def _drop_old(self) -> None:
        with self._lock:
            ended = [key for key, run in self._runs.items() if run.state in ("done", "failed")]
        for key in ended[: max(0, len(ended) - KEPT)]:
            self.remove(key)

    def _work(self) -> None:
        while (run := self._queue.get()) is not None:
            if not run.gone.is_set():
                self._one(run)
            if run.gone.is_set():
                shutil.rmtree(run.folder, ignore_errors=True)

    def _one(self, run: Run) -> None:
        def watch(seen: Seen) -> None:
            if run.gone.is_set():
                raise _Gone
            run.times.append(seen.time_s)
            run.scores.append(seen.score)

        run.state = "running"
        try:
            run.answer = answer(run.source, self._job(run.anomalies), run.folder / "answer", self.detector, watch=watch)
            run.state = "done"
        except _Gone:
            run.state = "failed"
        except AesamplerError as error:
            run.error, run.state = str(error), "failed"
        except Exception as error:  # one video must not end the server; what it was is told to who sent it
            run.error, run.state = f"the detector failed: {type(error).__name__}: {error}", "failed"
