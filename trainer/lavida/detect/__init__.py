"""`lavida detect`: a user's own videos and texts in; scores, intervals, pictures and an overlay out.

    sources.py     what was given -> videos: files, folders of pictures, cameras
    answer.py      one video -> its folder, in one pass, as the frames come
    intervals.py   scores -> intervals of time (hysteresis)
    peaks.py       the frames that score highest
    overlay.py     the frames with masks and scores drawn in

A video's folder:

    scores.csv       frame, seconds, score, written as the frames are scored
    scores.parquet   the same, with the parts of the score where the detector has them
    intervals.json   where something begins and ends, the threshold and its rule
    timeline.png     the scores over time with the frames at the peaks
    overlay.mp4      the video with masks (of pixel detectors) and scores
    details.jsonl    what the detector says of itself (AnyAnomaly: questions and answers)

Memory holds the frames that a detector has in hand (a window), a few dozen thumbnails, and 12 bytes a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from aesampler.errors import AesamplerError, BadRecord, DetectorError, SourceError
from lavida.detect.answer import Answer, Job, answer
from lavida.detect.intervals import Interval, Threshold, find_intervals
from lavida.detect.peaks import Seen
from lavida.detect.sources import Source, find_sources
from lavida.detectors import Detector

__all__ = [
    "Answer",
    "Interval",
    "Job",
    "Seen",
    "Source",
    "Threshold",
    "answer",
    "detect",
    "find_intervals",
    "find_sources",
]


def detect(
    given: Sequence[str],
    job: Job,
    out: Path,
    detector: Detector,
    progress: Callable[[str, int, int], None] | None = None,
    failed: Callable[[str, AesamplerError], None] | None = None,
) -> list[Answer]:
    """Score every video in `given`; the answer of the only one lies in `out`, of several in a folder each. What lies in
    `out` already is no video (see `find_sources`).

    failed: told the name of one of several that cannot be reached, read or scored, and why; the others go on. Raises
    SourceError where there is no video; SourceError, BadRecord, DetectorError for the only one, or where nobody is to
    be told; StorageError and OSError where nothing can be written.
    """
    sources = find_sources(given, out)
    if len(sources) == 1:
        return [answer(sources[0], job, out, detector, progress)]
    told = []
    for source in sources:
        try:
            told.append(answer(source, job, out / source.name, detector, progress))
        except (BadRecord, DetectorError, SourceError) as error:
            if failed is None:
                raise
            failed(source.name, error)
    return told
