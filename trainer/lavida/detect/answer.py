"""One video to its folder of answers, in one pass over the frames.

The frames go to the detector as they are read; a small copy of each waits until its score comes, then it is drawn into
the overlay and forgotten. So a camera can be watched for days. Its stream ends with Ctrl-C, after `seconds`, or when it
breaks off; what was scored until then is the answer, and the answer says how it ended. Detectors take frames of one
size: where it changes on the way (a camera that was set anew), the frames are brought to that of the first.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import signal
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from aesampler import video
from aesampler.errors import AesamplerError, SourceError
from aesampler.storage import Folder
from aesampler.video import Footage
from lavida import plots
from lavida.detect import overlay
from lavida.detect.intervals import Interval, Threshold, find_intervals
from lavida.detect.peaks import Peaks, Pixels, Seen
from lavida.detect.sources import Source
from lavida.detectors import Detector, Scored

FILES = ("scores.csv", "scores.parquet", "intervals.json", "timeline.png", "overlay.mp4", "details.jsonl")
"""What a video's folder may hold."""
COMPLETE = 0.9
"""Share of the frames that a file says it has, below which it is told that it was cut: the number may be rough."""
EVERY = 5
"""Frames between two words of progress."""


class Job(BaseModel):
    """What is looked for, and what is written.

    anomalies: texts. threshold: of a frame's score; None: the detector's own, or the robust rule. gap_s, min_s: see
    intervals. seconds: how much of a video is looked at. overlay: whether the mp4 is made. peaks: frames shown in the
    timeline. formats: FFmpeg's containers that are let in, for files of strangers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    anomalies: tuple[str, ...]
    threshold: float | None = Field(None, allow_inf_nan=False)
    gap_s: float = Field(0.5, ge=0, allow_inf_nan=False)
    min_s: float = Field(0.2, ge=0, allow_inf_nan=False)
    seconds: float | None = Field(None, gt=0, allow_inf_nan=False)
    overlay: bool = True
    peaks: int = Field(6, ge=0, le=12)
    formats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was found in one video. files: name -> path."""

    name: str
    frames: int
    seconds: float
    rate: float
    detector: str
    anomalies: tuple[str, ...]
    threshold: Threshold
    intervals: tuple[Interval, ...]
    notes: dict[str, int | str]
    ended: str
    files: dict[str, Path] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What intervals.json holds."""
        return {
            "video": self.name,
            "detector": self.detector,
            "anomalies": list(self.anomalies),
            "frames": self.frames,
            "seconds": round(self.seconds, 6),
            "rate": round(self.rate, 6),
            "ended": self.ended,
            "threshold": {"high": self.threshold.high, "low": self.threshold.low, "rule": self.threshold.rule},
            "intervals": [interval.to_json() for interval in self.intervals],
            "notes": self.notes,
        }


def answer(
    source: Source,
    job: Job,
    folder: Path,
    detector: Detector,
    progress: Callable[[str, int, int], None] | None = None,
    watch: Callable[[Seen], None] | None = None,
) -> Answer:
    """Score one video and write its folder; see the package. watch: is shown every frame; what it raises ends the work.

    Raises SourceError where the video cannot be reached or read, or its answer would be written over it; BadRecord
    where it is none; DetectorError where it has no frame, or memory runs out.
    """
    if Path(source.place).resolve() in [folder.resolve() / name for name in FILES]:
        raise SourceError("the answer would be written over the video", where=source.name, do="give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            shown = stack.enter_context(video.footage(source.place, formats=job.formats))
        except OSError as error:
            raise SourceError(f"it cannot be reached: {_reason(error)}", where=source.name) from error
        for name in FILES:  # what an earlier run left is no answer to this one
            (folder / name).unlink(missing_ok=True)
        table = stack.enter_context((folder / "scores.csv").open("w", encoding="utf-8", newline=""))
        details = stack.enter_context(_Details(folder / "details.jsonl"))
        stopped = stack.enter_context(_until_interrupted() if shown.live else contextlib.nullcontext(threading.Event()))
        run = _Run(source.name, shown, job, detector, table, details, stopped)
        frames = _told(run.seen(), source.name, shown, progress, watch)
        _through(frames, run, folder, job.overlay)
    return run.finish(source, folder)


def _told(
    frames: Iterator[Seen],
    name: str,
    shown: Footage,
    progress: Callable[[str, int, int], None] | None,
    watch: Callable[[Seen], None] | None,
) -> Iterator[Seen]:
    done = 0
    for seen in frames:
        done = seen.place + 1
        if watch is not None:
            watch(seen)
        if progress is not None and done % EVERY == 0:
            progress(name, done, max(done + 1, shown.length or 0))
        yield seen
    if progress is not None:
        progress(name, done, done)


def _through(frames: Iterator[Seen], run: _Run, folder: Path, drawn: bool) -> None:
    """Go through the frames, drawing each into the overlay where one is wanted."""
    first = next(frames, None)
    if first is None:
        return
    if not drawn:
        deque(frames, maxlen=0)
        return
    pictures = (run.paint(seen) for seen in _chained(first, frames))
    rate = Fraction(run.rate).limit_denominator(1001)
    Folder.at(folder).commit("overlay.mp4", lambda sink: video.write(sink, pictures, rate))


def _chained(first: Seen, rest: Iterator[Seen]) -> Iterator[Seen]:
    yield first
    yield from rest


class _Run:
    """One pass over a video: what has been read and not yet scored, and what is kept of what has."""

    def __init__(
        self,
        name: str,
        shown: Footage,
        job: Job,
        detector: Detector,
        table: TextIO,
        details: _Details,
        stopped: threading.Event,
    ) -> None:
        self.rate = shown.rate
        self._name, self._shown, self._job, self._detector = name, shown, job, detector
        self._details, self._stopped = details, stopped
        self._waiting: deque[tuple[float, Pixels]] = deque()
        self._times, self._scores = array("d"), array("f")
        self._parts: dict[str, array[float]] = {}
        self._peaks = Peaks()
        self._file = table
        self._table = csv.writer(table, lineterminator="\n")
        self._table.writerow(("frame", "seconds", "score"))
        high = job.threshold if job.threshold is not None else detector.threshold
        self._painter = overlay.Painter(shown.rate, high, detector.threshold is not None)
        self._shape: tuple[int, ...] = ()
        self._resized = ""
        self.ended = "the video ended"

    def seen(self) -> Iterator[Seen]:
        """The frames with their scores, as they come."""
        for piece in self._detector.score_stream(self._frames(), self._job.anomalies):
            yield from self._of(piece)
            self._file.flush()

    def _frames(self) -> Iterator[Pixels]:
        """The frames for the detector. A live stream that ends, however it ends, is a video that ends."""
        stop = self._job.seconds
        frames = self._shown.frames
        while True:
            try:
                time, frame = next(frames)
            except StopIteration:
                read, whole = len(self._times) + len(self._waiting), self._shown.whole
                if whole is not None and read < COMPLETE * whole:
                    self.ended = f"the video ended after {read} of the {whole} frames that it says it has"
                return
            except (OSError, AesamplerError) as error:
                if self._shown.live and (self._waiting or self._times):
                    self.ended = f"the stream broke off: {_reason(error)}"
                    return
                if isinstance(error, AesamplerError):
                    raise
                raise SourceError(f"reading it failed: {_reason(error)}", where=self._name) from error
            if stop is not None and time >= stop:
                self.ended = f"stopped after {stop:g} s"
                return
            if self._stopped.is_set():
                self.ended = "stopped by hand"
                return
            frame = self._of_one_size(frame, time)
            self._waiting.append((time, overlay.shrunk(frame)))
            yield frame

    def _of_one_size(self, frame: Pixels, time: float) -> Pixels:
        """The frame at the size of the first one."""
        self._shape = self._shape or frame.shape
        if frame.shape == self._shape:
            return frame
        (height, width), (rows, columns) = self._shape[:2], frame.shape[:2]
        self._resized = self._resized or f"from {time:.1f} s on: {columns}x{rows} came, where {width}x{height} began"
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))

    def _of(self, piece: Scored) -> Iterator[Seen]:
        self._details.write(piece.details)
        for name, part in (piece.parts or {}).items():
            self._parts.setdefault(name, array("f")).extend(part.tolist())
        for place, score in enumerate(piece.frame_scores.tolist()):
            time, picture = self._waiting.popleft()
            mask = None if piece.pixel_scores is None else piece.pixel_scores[place]
            seen = Seen(place=len(self._times), time_s=time, score=score, picture=picture, mask=mask)
            self._times.append(time)
            self._scores.append(score)
            self._table.writerow((seen.place, f"{time:.3f}", f"{score:.6g}"))
            self._peaks.add(seen)
            yield seen

    def paint(self, seen: Seen) -> Pixels:
        """The frame of the overlay."""
        return self._painter.paint(seen.picture, seen.time_s, seen.score, seen.mask)

    def finish(self, source: Source, folder: Path) -> Answer:
        """Write what needs the whole video."""
        scores = np.asarray(self._scores, dtype=np.float32)
        times = np.asarray(self._times, dtype=np.float64)
        threshold = self._threshold(scores)
        found = find_intervals(scores, times, threshold, gap_s=self._job.gap_s, min_s=self._job.min_s)
        told = Answer(
            name=source.name,
            frames=len(scores),
            seconds=float(times[-1]) + 1 / self.rate,
            rate=self.rate,
            detector=self._detector.name,
            anomalies=self._job.anomalies,
            threshold=threshold,
            intervals=tuple(found),
            notes=self._notes(),
            ended=self.ended,
        )
        self._write(told, scores, times, Folder.at(folder))
        told.files.update({name: folder / name for name in FILES if (folder / name).exists()})
        return told

    def _notes(self) -> dict[str, int | str]:
        notes = dict(self._detector.notes())
        if self._resized:
            notes["resized"] = self._resized
        if not self._detector.uses_categories:
            notes["anomalies"] = f"{self._detector.name} does not look at the words: its scores are the same for any"
        return notes

    def _threshold(self, scores: npt.NDArray[np.float32]) -> Threshold:
        if self._job.threshold is not None:
            return Threshold.given(self._job.threshold, "given")
        if self._detector.threshold is not None:
            return Threshold.given(self._detector.threshold, f"the detector's own ({self._detector.name})")
        return Threshold.robust(scores)

    def _write(
        self, told: Answer, scores: npt.NDArray[np.float32], times: npt.NDArray[np.float64], out: Folder
    ) -> None:
        columns = {"frame": np.arange(len(scores), dtype=np.int32), "seconds": times, "score": scores}
        columns |= {f"part.{name}": np.asarray(part, dtype=np.float32) for name, part in self._parts.items()}
        table = pa.table(columns)
        out.commit("scores.parquet", lambda sink: pq.write_table(table, sink))
        picture = io.BytesIO()
        plots.timeline(
            picture,
            times,
            scores,
            spans=[(found.start_s, found.stop_s) for found in told.intervals],
            threshold=told.threshold.high,
            peaks=self._peaks.best(self._job.peaks),
            title=f"{told.name}: {', '.join(told.anomalies) if self._detector.uses_categories else told.detector}",
        )
        out.commit_bytes("timeline.png", picture.getvalue())
        # The last: who sees it sees the others.
        out.commit_bytes("intervals.json", (json.dumps(told.to_json(), indent=2, ensure_ascii=False) + "\n").encode())


def _reason(error: OSError | AesamplerError) -> str:
    """What went wrong, without the place: the address of a camera may hold its password."""
    return error.what if isinstance(error, AesamplerError) else error.strerror or str(error)


class _Details:
    """A file of JSON lines that appears with its first line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> _Details:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append rows."""
        for row in rows:
            if self._file is None:
                self._file = self._path.open("w", encoding="utf-8")
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def _until_interrupted() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, which then interrupts nothing; the second one does."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = signal.getsignal(signal.SIGINT)

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
