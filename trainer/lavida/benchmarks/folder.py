"""A user's own set: a folder of videos and a CSV of the intervals in which something is anomalous.

    video,start,end,class            the class is optional
    gate/monday.mp4,120,260,bicycle
    gate/monday.mp4,900,1004,person falling
    gate/tuesday.mp4,,               a normal video; one that is not listed is normal too

A video is a file, or a folder of pictures, anywhere below the root; its name is its path below it, the ending may be
left out. start and end are frames counted from 0, or seconds (unit: seconds); the end is not included, so `120,260` is
140 frames. In seconds, frame k is at k / rate, where the file tells the rate, and `rate` that of folders of pictures.
An interval that runs past the end of its video ends with it; one that begins there is an error, and so is a video of
the CSV that is not on disk.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from aesampler import video
from aesampler.errors import BadRecord, SourceError
from lavida.benchmarks.benchmark import SLACK, Benchmark, Frames, Labels, Video, of_lengths, some
from lavida.benchmarks.intervals import Event, Span, labelled, parse_csv

ROUNDING = 1e-6
"""Frames that an interval in seconds may be off by: 1.2 s at 25 frames a second is frame 30, not 30.000000000000004."""


class FolderBenchmark(Benchmark):
    """A folder of videos and a CSV."""

    name: ClassVar[str] = "folder"
    title: ClassVar[str] = "A folder of videos and a CSV of intervals"
    homepage: ClassVar[str] = ""
    license: ClassVar[str] = "yours"
    citation: ClassVar[str] = ""
    layout: ClassVar[str] = """\
ROOT/
  intervals.csv                    video,start,end[,class]; or another file (option intervals)
  anything/monday.mp4 ...          files, or folders of pictures
"""
    protocol: ClassVar[str] = "all frames of all videos of the folder"
    own: ClassVar[bool] = True

    categories: tuple[str, ...] = Field(
        default=(), description="what to look for; default: the classes of the CSV, in its order"
    )
    intervals: str = Field(default="intervals.csv", description="the CSV, a path below the root or an absolute one")
    unit: Literal["frames", "seconds"] = Field(default="frames", description="what start and end count")
    rate: float = Field(default=video.FOLDER_RATE, gt=0, description="frames a second of folders of pictures")
    per_class: bool = Field(default=False, description="evaluate each class on its own, as C-ShT does")

    def model_post_init(self, _context: object) -> None:
        """The classes of the CSV stand for categories that are not given."""
        if not self.categories:
            self.__dict__["categories"] = self._kinds

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the CSV where each is evaluated on its own."""
        return self._kinds if self.per_class else ()

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """Every video below the root, sorted. Raises SourceError where the CSV names one that is not there."""
        self._refuse_other(category)
        absent = self._told.keys() - self._aliases.keys()
        if absent:
            raise SourceError(f"videos of {self.intervals} are not there: {some(absent)}", where=str(self.root))
        if not self._files:
            raise SourceError("no video", where=str(self.root), allowed=", ".join(sorted(video.VIDEOS)))
        return tuple(self._files)

    def video(self, name: str, category: str | None = None) -> Video:
        """One video; with a class, labels of its events alone."""
        self._refuse_other(category)
        if name not in self._files:
            raise self._unknown(name)
        path = self._files[name]
        events = [event for told, each in self._told.items() if self._aliases[told] == name for event in each]
        wanted = [event for event in events if category is None or event.category == category]
        return Video(
            name=name,
            frames=Frames(path, slack=0 if path.is_dir() else SLACK),
            truth=partial(self._truth, name, wanted),
            classes=tuple(dict.fromkeys(event.category for event in events if event.category)),
        )

    def faults(self) -> Iterator[str]:
        """Intervals that cannot be had of their videos."""
        return of_lengths(self.videos())

    def _truth(self, name: str, events: Sequence[Event], length: int) -> Labels:
        rate = 1.0
        if self.unit == "seconds" and any(event.start is not None for event in events):
            rate = _rate(self._files[name], self.rate)
        spans = [self._span(event, rate) for event in events if event.start is not None]
        for span in spans:
            if span.start >= length:
                raise SourceError(
                    "an interval begins after the end of its video",
                    where=f"{self.intervals}: {name}",
                    got=f"frame {span.start}",
                    allowed=f"{length} frames",
                )
        return labelled(length, spans)

    def _span(self, event: Event, rate: float) -> Span:
        start, end = float(event.start or 0), float(event.end or 0)
        if self.unit == "frames" and not (start.is_integer() and end.is_integer()):
            raise SourceError(
                "a frame is no whole number",
                where=self.intervals,
                got=f"{event.start},{event.end}",
                do="set the option unit to seconds, if that is what they are",
            )
        return Span(start=math.ceil(start * rate - ROUNDING), end=math.ceil(end * rate - ROUNDING))

    @cached_property
    def _told(self) -> dict[str, tuple[Event, ...]]:
        file = self.root / self.intervals
        try:
            return parse_csv(file.read_text(encoding="utf-8"), where=self.intervals)
        except FileNotFoundError as error:
            raise SourceError(f"no {self.intervals}", where=str(self.root)) from error
        except UnicodeDecodeError as error:
            raise SourceError("the table is not in UTF-8", where=str(file)) from error

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        every = (event.category for events in self._told.values() for event in events)
        return tuple(dict.fromkeys(kind for kind in every if kind))

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Path below the root -> file or folder of pictures, sorted."""
        found = video.found_in(self.root) if self.root.is_dir() else ()
        return {path.relative_to(self.root).as_posix(): path for path in found}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """What a video may be called -> its name: the path, or the path without the ending where that is one video."""
        short = {name: name if path.is_dir() else name.removesuffix(path.suffix) for name, path in self._files.items()}
        times = Counter(short.values())
        return {alias: name for name, alias in short.items() if times[alias] == 1} | {
            name: name for name in self._files
        }


def _rate(path: Path, of_folders: float) -> float:
    """Frames a second."""
    if path.is_dir():
        return of_folders
    with video.footage(path) as footage:
        if footage.rate <= 0:
            raise BadRecord("a video does not tell its rate", where=str(path), do="give intervals in frames")
        return footage.rate
