"""XD-Violence: films, sports and street videos of six kinds of violence; 800 of them for testing, scored by average
precision.

The owners' `annotations.txt` lists the anomalous videos alone: every other one is normal, which its name says too
(`label_A`). The owners' own ground truth ends at a multiple of 16 frames; here every frame counts. LAVIDA's released
evaluation scores this set by AUC, because it compares a name with a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from aesampler.errors import SourceError
from lavida.benchmarks.benchmark import SLACK, Benchmark, Frames, Labels, Metric, Video, entries, some
from lavida.benchmarks.intervals import Span, beyond, labelled, parse_xd
from lavida.benchmarks.ucf_crime import mp4s

CATEGORIES = ("fighting", "shooting", "riot", "abuse", "car accident", "explosion")
CODES = dict(zip(("B1", "B2", "B4", "B5", "B6", "G"), CATEGORIES, strict=True))
"""What a name's label stands for; A is normal. Up to three stand in a name: label_B1-B2-0."""
FOLDERS = ("videos", "Videos", "test_videos", "test/videos", "TestClips/Videos")
NORMAL = "A"


class XdViolence(Benchmark):
    """XD-Violence."""

    name: ClassVar[str] = "xd-violence"
    title: ClassVar[str] = "XD-Violence"
    homepage: ClassVar[str] = "https://roc-ng.github.io/XD-Violence/"
    license: ClassVar[str] = "none stated; research use"
    citation: ClassVar[str] = "Wu et al., Not only Look, but also Listen, ECCV 2020"
    layout: ClassVar[str] = """\
ROOT/
  annotations.txt                          NAME START END [START END ...]; anomalous videos alone
  videos/NAME.mp4 ...                      the 800 test videos and no others; or in test_videos/, TestClips/Videos/
"""
    protocol: ClassVar[str] = "all frames of the 800 test videos, 500 of them anomalous; average precision"
    expected: ClassVar[Mapping[str, int]] = {"videos": 800}

    categories: tuple[str, ...] = CATEGORIES
    clip_step: int = 128
    metric: Metric = "average_precision"

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """Every test video that is there, annotated or not, sorted."""
        self._refuse_other(category)
        return tuple(sorted(self._files))

    def video(self, name: str, category: str | None = None) -> Video:
        """A video, and the kinds of violence in it."""
        self._refuse_other(category)
        files = self._files
        if name not in files:
            raise self._unknown(name)
        return Video(
            name=name,
            frames=Frames(files[name], slack=SLACK),
            truth=partial(_truth, self._told.get(name, ())),
            classes=tuple(CODES[code] for code in codes(name) if code in CODES),
        )

    def faults(self) -> Iterator[str]:
        """Annotated videos that are missing, names that contradict the annotations, videos that cannot be read,
        intervals behind the end.
        """
        files, told = self._files, self._told
        if told.keys() - files.keys():
            absent = told.keys() - files.keys()
            yield f"{len(absent)} annotated videos are missing: {some(absent)}"
        odd = {name for name in files if name not in told and codes(name) not in ((), (NORMAL,))}
        if odd:
            yield f"{len(odd)} videos are not annotated, and their names call them violent: {some(odd)}"
        for each in self.videos():
            yield from beyond(each.name, each.frames, told.get(each.name, ()))

    @cached_property
    def _told(self) -> dict[str, tuple[Span, ...]]:
        file = self.root / "annotations.txt"
        if not file.is_file():
            raise SourceError("no annotations.txt", where=str(self.root))
        return parse_xd(file.read_text(encoding="utf-8"), where=file.name)

    @cached_property
    def _files(self) -> dict[str, Path]:
        for place in FOLDERS:
            found = mp4s(self.root / place)
            if found:
                return found
        # Not the folders below: the training videos may lie there, and none of them is annotated.
        beside = {path.stem: path for path in entries(self.root) if path.suffix.lower() == ".mp4"}
        if beside:
            return beside
        raise SourceError("no test video: no mp4 in videos/", where=str(self.root))


def codes(name: str) -> tuple[str, ...]:
    """The labels in a video's name, without the zeros that fill them up: of `..._label_B1-B2-0` B1 and B2."""
    told = re.search(r"_label_([A-Z0-9-]+)$", name)
    return tuple(code for code in told[1].split("-") if code != "0") if told else ()


def _truth(spans: tuple[Span, ...], length: int) -> Labels:
    return labelled(length, spans)
