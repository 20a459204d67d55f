"""What a detector must say: scores of frames as they come. A new detector is one class with one method, `scan`.

A detector is asked through `score_stream`, which hands `scan` frames that are checked (uint8 [H, W, 3], one size a
video) and checks what comes back: every frame has exactly one score, in order, none is dropped at the tail, none is
NaN. `score` is the same stream, collected. Between two videos a detector keeps nothing but its counts.

    class Brightness(Detector):
        name = "brightness"
        uses_categories = False

        def scan(self, frames, categories):
            for place, frame in enumerate(frames):
                yield Scored(start=place, frame_scores=np.full(1, frame.mean() / 255, dtype=np.float32))

Its options are a subclass of `Settings`, named by the class attribute `settings`; `load_detector` checks them and hands
them to the constructor. Shapes: T frames of a video, n of one piece of it, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from aesampler.errors import DetectorError
from lavida.detectors.memory import memory_told

Frame = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""
Scores = npt.NDArray[np.float32]
PixelScores = npt.NDArray[np.float16 | np.float32]
T = TypeVar("T")


class Settings(BaseModel):
    """The options of a detector; none here. A detector's own are fields of a subclass, with defaults where it can."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The scores of n consecutive frames.

    start: the place of the first of them in the video, from 0. frame_scores: float32 [n], higher is more anomalous.
    pixel_scores: float16 or float32 [n, H, W] of the frame's own size, or None. parts: what frame_scores were made of,
    float32 [n] each, NaN where unknown (AnyAnomaly: the scores of its questions before fusion and smoothing).
    details: JSON-able rows for inspection (AnyAnomaly: questions and answers), which may speak of other frames.
    """

    start: int
    frame_scores: Scores
    pixel_scores: PixelScores | None = None
    parts: Mapping[str, Scores] | None = None
    details: tuple[Mapping[str, object], ...] = ()

    @property
    def stop(self) -> int:
        """The place after the last frame."""
        return self.start + len(self.frame_scores)


class Detector(ABC):
    """Video and category texts in, frame scores (and pixel scores) out; see the module.

    name: as `load_detector` knows it. settings: the class of its options. uses_categories: whether the texts matter.
    pixel: whether it gives pixel scores. threshold: the score from which a frame counts as anomalous where nothing
    else is said; None where scores have no natural scale.
    """

    name: ClassVar[str]
    settings: ClassVar[type[Settings]] = Settings
    uses_categories: bool = True
    pixel: bool = False
    threshold: float | None = None

    def __init__(self, options: Settings | None = None) -> None:
        self.options = options if options is not None else self.settings()

    @abstractmethod
    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        """The scores of one video, in order, in bounded memory. frames: at least one, checked as they are read."""

    def notes(self) -> dict[str, int | str]:
        """What a reader of the result must know: where options were tuned, and counts (as of answers without a number)
        since this detector was made. Numbers of several processes may be added.
        """
        return {}

    def score_stream(self, frames: Iterable[Frame], categories: Sequence[str]) -> Iterator[Scored]:
        """Score a video as its frames come. frames: uint8 [H, W, 3] each, all of one size. categories: what is
        anomalous, in words.

        Raises DetectorError for a frame that is none, a video that changes its size or has no frame, no categories
        where the detector reads them, too little memory, and for scores that are not one a frame.
        """
        names = _categories(categories, required=self.uses_categories, name=self.name)
        source = _Frames(frames)
        place = 0
        with memory_told(self.name, getattr(self, "options", None)):
            for scored in self.scan(source, names):
                _check(scored, place, source, self)
                place = scored.stop
                yield scored
        if source.count == 0:
            raise DetectorError("a video has no frame", do="give one that has")
        if place != source.count or not source.ended:
            left = f"{source.count - place} frames without a score" if source.ended else "frames that were not read"
            raise DetectorError("a detector left out frames", where=self.name, got=left, do="that is a bug in it")

    def score(self, frames: Iterable[Frame], categories: Sequence[str]) -> tuple[Scores, PixelScores | None]:
        """`score_stream`, collected: frame scores float32 [T], pixel scores [T, H, W] or None."""
        pieces: list[Scores] = []
        maps: list[PixelScores] = []
        for scored in self.score_stream(frames, categories):
            pieces.append(scored.frame_scores)
            if scored.pixel_scores is not None:
                maps.append(scored.pixel_scores)
        return np.concatenate(pieces), np.concatenate(maps) if maps else None


def chunked(things: Iterable[T], size: int) -> Iterator[list[T]]:
    """Frames, or what else there is, in lists of `size`, the last one shorter where they do not divide."""
    source = iter(things)
    while chunk := list(islice(source, size)):
        yield chunk


def device_of(name: str) -> str:
    """The torch device meant by an option: "auto" is CUDA where there is one. Raises DetectorError for one that is not
    there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise DetectorError(f"no such device: {reason}", got=name, allowed="auto, cpu, cuda, cuda:1 ...") from error
    return name


class _Frames:
    """The frames of a video, checked one by one. count: how many were read; shape: of all of them; ended: whether the
    video did.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames = frames
        self.count = 0
        self.shape: tuple[int, ...] = ()
        self.ended = False

    def __iter__(self) -> Iterator[Frame]:
        if self.count:
            raise DetectorError("the frames of a stream are read once")
        for frame in self._frames:
            where = f"frame {self.count}"
            if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                raise DetectorError(
                    "this is no frame",
                    where=where,
                    got=f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__,
                    allowed="uint8 [height, width, 3]",
                )
            if not frame.size:
                raise DetectorError("a frame has no pixels", where=where, got=list(frame.shape))
            self.shape = self.shape or frame.shape
            if frame.shape != self.shape:
                raise DetectorError(
                    "a video changes its size",
                    where=where,
                    got=f"{frame.shape[1]}x{frame.shape[0]}",
                    allowed=f"{self.shape[1]}x{self.shape[0]}, as frame 0 has",
                    do="cut it there, or scale its frames to one size",
                )
            self.count += 1
            yield frame
        self.ended = True


def _categories(categories: Sequence[str], *, required: bool, name: str) -> tuple[str, ...]:
    if isinstance(categories, str):
        raise DetectorError("categories are a list of texts", got=repr(categories), allowed=f"[{categories!r}]")
    names = tuple(categories)
    for each in names:
        if not isinstance(each, str) or not each.strip():
            raise DetectorError("a category is a text", where="categories", got=repr(each))
    if required and not names:
        raise DetectorError("this detector needs to be told what is anomalous", where=name, do="give a category")
    return names


def _check(scored: Scored, place: int, source: _Frames, detector: Detector) -> None:
    """That a piece goes on at `place`, ends with the frames read, and is of the promised types and shapes."""
    scores, pixels, count = scored.frame_scores, scored.pixel_scores, len(scored.frame_scores)
    wrong = None
    if scored.start != place:
        wrong = f"scores from frame {scored.start} on where {place} comes next"
    elif scores.dtype != np.float32 or scores.ndim != 1 or count == 0:
        wrong = f"frame scores of {scores.dtype} {list(scores.shape)}"
    elif scored.stop > source.count:
        wrong = f"scores up to frame {scored.stop - 1} of {source.count} read"
    elif not np.isfinite(scores).all():
        wrong = f"a frame score of {scores[~np.isfinite(scores)][0]}"
    elif (pixels is not None) != detector.pixel:
        wrong = f"{'pixel scores' if detector.pixel is False else 'no pixel scores'} where pixel is {detector.pixel}"
    elif pixels is not None and pixels.shape != (count, *source.shape[:2]):
        wrong = f"pixel scores {list(pixels.shape)} for {count} frames of {list(source.shape[:2])}"
    elif pixels is not None and pixels.dtype not in (np.float16, np.float32):
        wrong = f"pixel scores of {pixels.dtype}"
    elif scored.parts is not None and any(part.shape != scores.shape for part in scored.parts.values()):
        wrong = f"parts of {[list(part.shape) for part in scored.parts.values()]} for {count} frames"
    if wrong is not None:
        raise DetectorError(
            "a detector does not keep its word", where=detector.name, got=wrong, do="that is a bug in it"
        )
