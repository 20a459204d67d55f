"""The files in which owners tell the anomalous stretches of videos, each with its own way to count.

    UCF-Crime    NAME CLASS START END START END    1-based, both ends included; -1 -1: none; at most two
    XD-Violence  NAME START END [START END ...]    0-based, the end not included; any number
    UBnormal     TRACK,START,END                   0-based, both ends included; a line a track
    folder       video,start,end[,class]           CSV with a header; frames from 0 or seconds, the end not included

A `Span` is of frames from 0, its end not included. All parsers name the line that is wrong.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from aesampler.errors import BadRecord, SourceError
from lavida.benchmarks.benchmark import Frames, Labels


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """Frames from `start` up to `end`, which is not one of them."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of a folder's CSV. start, end: frames or seconds, the end not included; None where the video is normal."""

    start: float | None
    end: float | None
    category: str


def labelled(length: int, spans: Iterable[Span]) -> Labels:
    """Labels [length]: 1 inside of any span. What runs past the end is cut off."""
    labels = np.zeros(length, dtype=np.uint8)
    for span in spans:
        labels[span.start : span.end] = 1
    return labels


def beyond(name: str, frames: Frames, spans: Iterable[Span]) -> Iterator[str]:
    """A line where a span begins after the end of its video, which then is another cut or rate than the annotated one;
    or where the video cannot be read.
    """
    try:
        late = [span.start for span in spans if span.start >= len(frames)]
    except BadRecord as error:
        yield str(error)
        return
    if late:
        yield f"{name}: an interval begins at frame {late[0]}, and the video has {len(frames)} frames"


def parse_ucf(text: str, where: str) -> dict[str, tuple[str, tuple[Span, ...]]]:
    """Video (without .mp4) -> class, spans, in the file's order.

    The owners' evaluation takes START:END in MATLAB, START at least 1: frame START is the one that we count START - 1.
    Raises SourceError for a line that is none, a reversed interval, a video told twice.
    """
    found: dict[str, tuple[str, tuple[Span, ...]]] = {}
    for line, words in _lines(text):
        if len(words) != 6 or not _are_whole(words[2:]):
            raise _wrong(where, line, words, "NAME CLASS START END START END")
        name = words[0].removesuffix(".mp4")
        if name in found:
            raise SourceError("a video is told twice", where=f"{where}:{line}", got=name)
        numbers = [int(word) for word in words[2:]]
        pairs = [pair for pair in zip(numbers[::2], numbers[1::2], strict=True) if pair != (-1, -1)]
        if any(start < 0 or end < max(start, 1) for start, end in pairs):
            raise _wrong(where, line, words, "0 <= START <= END, or -1 -1")
        found[name] = words[1], tuple(Span(start=max(start, 1) - 1, end=end) for start, end in pairs)
    return found


def parse_xd(text: str, where: str) -> dict[str, tuple[Span, ...]]:
    """Video (without .mp4) -> spans, in the file's order. The owners' evaluation takes frames [START:END] in Python.

    Raises SourceError for a line that is none, a reversed interval, a video told twice.
    """
    found: dict[str, tuple[Span, ...]] = {}
    for line, words in _lines(text):
        if len(words) < 3 or len(words) % 2 == 0 or not _are_whole(words[1:]):
            raise _wrong(where, line, words, "NAME START END [START END ...]")
        name = words[0].removesuffix(".mp4")
        if name in found:
            raise SourceError("a video is told twice", where=f"{where}:{line}", got=name)
        numbers = [int(word) for word in words[1:]]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if any(start < 0 or end < start for start, end in pairs):
            raise _wrong(where, line, words, "0 <= START <= END")
        found[name] = tuple(Span(start=start, end=end) for start, end in pairs)
    return found


def parse_tracks(text: str, where: str) -> dict[int, tuple[Span, ...]]:
    """Track -> the frames in which it is anomalous: a line `TRACK,START,END` each, numbers written as 1 or 1.0."""
    found: dict[int, tuple[Span, ...]] = {}
    for line, words in _lines(text.replace(",", " ")):
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != 3 or not all(number.is_integer() and number >= 0 for number in numbers):
            raise _wrong(where, line, words, "TRACK,START,END")
        track, start, end = (int(number) for number in numbers)
        if end < start:
            raise _wrong(where, line, words, "START <= END")
        found[track] = (*found.get(track, ()), Span(start=start, end=end + 1))
    return found


def parse_csv(text: str, where: str) -> dict[str, tuple[Event, ...]]:
    """Video -> its events, in the file's order; a line without start and end names a normal video.

    Raises SourceError for a header without video, start and end, a number that is none, a reversed interval.
    """
    rows = csv.DictReader(text.removeprefix("\ufeff").splitlines(), skipinitialspace=True, restkey="")
    header = [(name or "").strip() for name in rows.fieldnames or ()]
    if not {"video", "start", "end"} <= set(header) <= {"video", "start", "end", "class"}:
        raise SourceError(
            "the table has another header", where=where, got=",".join(header), allowed="video,start,end or ...,class"
        )
    rows.fieldnames = header
    found: dict[str, tuple[Event, ...]] = {}
    for row in rows:
        if "" in row or not (row["video"] or "").strip():
            raise SourceError("a line of the table is none", where=f"{where}:{rows.line_num}", allowed=",".join(header))
        told = [(row[key] or "").strip() for key in ("start", "end")]
        name = str(row["video"]).strip()
        category = (row.get("class") or "").strip()
        found[name] = (*found.get(name, ()), _event(told[0], told[1], category, f"{where}:{rows.line_num}"))
    return found


def _event(start: str, end: str, category: str, where: str) -> Event:
    if not start and not end:
        return Event(start=None, end=None, category=category)
    try:
        first, last = float(start), float(end)
    except ValueError:
        first, last = math.nan, math.nan
    if not (0 <= first < last < math.inf):
        raise SourceError("an interval is none", where=where, got=f"{start},{end}", allowed="0 <= start < end")
    return Event(start=first, end=last, category=category)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line that is not empty."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.split()


def _are_whole(words: list[str]) -> bool:
    return all(word.removeprefix("-").isdecimal() and word.isascii() for word in words)


def _wrong(where: str, line: int, words: list[str], allowed: str) -> SourceError:
    return SourceError(
        "a line is no annotation", where=f"{where}:{line}", got=repr(" ".join(words)[:80]), allowed=allowed
    )
