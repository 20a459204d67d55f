"""UCF-Crime: long surveillance videos of 13 crimes and accidents, and normal ones; 290 of them for testing.

The owners' file tells the anomalous frames of every test video, normal ones included. A few videos lie in several of
the owners' archives (`Normal_Videos_event` repeats some of the others): then the one among the test videos is read.
Videos shorter than a clip, and the tail of a clip, are scored; LAVIDA's released evaluation leaves them out, which
concerns every video under 1,024 frames.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from aesampler.errors import SourceError
from lavida.benchmarks.benchmark import SLACK, Benchmark, Frames, Labels, Video, some
from lavida.benchmarks.intervals import Span, beyond, labelled, parse_ucf

CATEGORIES = (
    *("abuse", "arrest", "arson", "assault", "burglary", "explosion", "fighting", "road accidents", "robbery"),
    *("shooting", "shoplifting", "stealing", "vandalism"),
)
ANNOTATIONS = (
    "Temporal_Anomaly_Annotation_for_Testing_Videos.txt",
    "Temporal_Anomaly_Annotation.txt",
    "Temporal_Anomaly_Annotation_For_Testing_Videos/Txt_formate/Temporal_Anomaly_Annotation.txt",
)
TESTING = "Testing_Normal_Videos"


class UcfCrime(Benchmark):
    """UCF-Crime."""

    name: ClassVar[str] = "ucf-crime"
    title: ClassVar[str] = "UCF-Crime"
    homepage: ClassVar[str] = "https://www.crcv.ucf.edu/projects/real-world/"
    license: ClassVar[str] = "none stated; research use"
    citation: ClassVar[str] = "Sultani, Chen, Shah, Real-World Anomaly Detection in Surveillance Videos, CVPR 2018"
    layout: ClassVar[str] = """\
ROOT/
  Temporal_Anomaly_Annotation_for_Testing_Videos.txt   NAME CLASS START END START END
  Anomaly-Videos-Part-1/Abuse/Abuse028_x264.mp4 ...    any folders below ROOT
  Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4 ...
"""
    protocol: ClassVar[str] = "all frames of the 290 test videos, 140 of them anomalous"
    expected: ClassVar[Mapping[str, int]] = {"videos": 290}

    categories: tuple[str, ...] = CATEGORIES
    clip_step: int = 128

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """The test videos that are there, in the file's order."""
        self._refuse_other(category)
        files = self._files
        found = tuple(name for name in self._told if name in files)
        if not found:
            raise SourceError("no test video: no Abuse028_x264.mp4 and so on below", where=str(self.root))
        return found

    def video(self, name: str, category: str | None = None) -> Video:
        """A video, and its one class where it is anomalous."""
        self._refuse_other(category)
        told, files = self._told, self._files
        if name not in told or name not in files:
            raise self._unknown(name)
        kind, spans = told[name]
        return Video(
            name=name,
            frames=Frames(files[name], slack=SLACK),
            truth=partial(_truth, spans),
            classes=(words(kind),) if spans else (),
        )

    def faults(self) -> Iterator[str]:
        """Test videos that are missing or cannot be read, intervals behind the end."""
        absent = self._told.keys() - self._files.keys()
        if absent:
            yield f"{len(absent)} test videos are missing: {some(absent)}"
        for each in self.videos():
            yield from beyond(each.name, each.frames, self._told[each.name][1])

    @cached_property
    def _told(self) -> dict[str, tuple[str, tuple[Span, ...]]]:
        for place in ANNOTATIONS:
            file = self.root / place
            if file.is_file():
                return parse_ucf(file.read_text(encoding="utf-8"), where=file.name)
        raise SourceError(f"no {ANNOTATIONS[0]}", where=str(self.root))

    @cached_property
    def _files(self) -> dict[str, Path]:
        return mp4s(self.root)


def mp4s(root: Path) -> dict[str, Path]:
    """Name -> file of every mp4 below a folder; of several with one name, the one in a folder of test videos, else the
    first.
    """
    found: dict[str, Path] = {}
    every = (path for path in root.rglob("*") if path.suffix.lower() == ".mp4" and not path.name.startswith("."))
    for path in sorted(every, key=lambda path: (TESTING not in str(path.relative_to(root)), path)):
        found.setdefault(path.stem, path)
    return found


def words(kind: str) -> str:
    """A class as text: RoadAccidents is `road accidents`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind).lower()


def _truth(spans: tuple[Span, ...], length: int) -> Labels:
    return labelled(length, spans)
