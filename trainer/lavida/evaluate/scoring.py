"""One video through one detector: its frame scores beside its labels, its pixels counted, in memory of one window.

A unit is what is scored and saved at once: a video, or for customised detection (C-ShT, C-Ave) a video and the class
whose name the detector is told. A detector that does not read texts scores such a video once, for all classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image

from aesampler.errors import RecipeError, SourceError
from lavida.benchmarks import Benchmark, Video, open_benchmark
from lavida.detectors import Detector, find, load_detector
from lavida.metrics import PixelAuc

if TYPE_CHECKING:
    from lavida.evaluate.settings import Settings

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unit:
    """A video, and the class that is looked for where there is one."""

    video: str
    category: str | None = None

    @property
    def stem(self) -> str:
        """The unit's file name without its ending: no two units share one, whatever characters their names hold."""
        video = quote(self.video, safe=" ")
        return video if self.category is None else f"{quote(self.category, safe=' ')}/{video}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoScores:
    """What is known of a unit when it is done.

    scores: float32 [T]; labels: uint8 [T]; parts: name -> float32 [T]; pixels: of all its frames, or None; notes: what
    the detector counted; details: JSON-able rows.
    """

    scores: Scores
    labels: Labels
    parts: Mapping[str, Scores] = field(default_factory=dict)
    pixels: PixelAuc | None = None
    notes: Mapping[str, int | str] = field(default_factory=dict)
    details: tuple[Mapping[str, object], ...] = ()


class Judge:
    """A benchmark and a detector, opened once and used for one unit after another."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.benchmark: Benchmark = open_benchmark(settings.benchmark, settings.root, **settings.benchmark_options)
        if settings.categories is not None and self.benchmark.classes:
            raise RecipeError(
                "this benchmark is evaluated class by class, each by its own name",
                where=settings.benchmark,
                got=", ".join(settings.categories),
                allowed=", ".join(self.benchmark.classes),
                do="leave out --anomaly",
            )
        self._detector: Detector | None = None

    @property
    def detector(self) -> Detector:
        """The detector, loaded at its first use."""
        if self._detector is None:
            self._detector = load_detector(self.settings.detector, **self.options())
        return self._detector

    def options(self) -> dict[str, Any]:
        """The detector's options: those given, then what the benchmark says, where the detector takes it."""
        known = find(self.settings.detector).settings.model_fields
        given: dict[str, Any] = {"clip_step": self.benchmark.clip_step, "pixels": self.benchmark.pixel_masks}
        if self.settings.device is not None:
            given["device"] = self.settings.device
        return {name: value for name, value in given.items() if name in known} | self.settings.options

    def units(self) -> list[Unit]:
        """All that is to be scored, in the benchmark's order."""
        videos = self.benchmark.names()
        if not self.benchmark.classes:
            return [Unit(video=video) for video in videos]
        if not find(self.settings.detector).uses_categories:
            return [Unit(video=video) for video in videos]
        return [
            Unit(video=video, category=category)
            for category in self.benchmark.classes
            for video in self.benchmark.names(category)
        ]

    def of(self, category: str | None, units: Sequence[Unit]) -> list[Unit]:
        """Those of the units that the evaluation of a class takes; all of them where there are no classes."""
        if category is None:
            return list(units)
        taken = set(self.benchmark.names(category))
        return [unit for unit in units if unit.category == category or (unit.category is None and unit.video in taken)]

    def categories(self, unit: Unit) -> tuple[str, ...]:
        """What the detector is told to look for."""
        if unit.category is not None:
            return (unit.category,)
        return self.settings.categories if self.settings.categories is not None else tuple(self.benchmark.categories)

    def score(self, unit: Unit) -> VideoScores:
        """Score a unit. Raises SourceError where the video has another number of frames than labels."""
        return score_video(self.detector, self.benchmark.video(unit.video, unit.category), self.categories(unit))


def score_video(detector: Detector, video: Video, categories: tuple[str, ...]) -> VideoScores:
    """Score a video in one pass over its frames."""
    before = dict(detector.notes())
    pixels = PixelAuc() if detector.pixel and video.masks is not None else None
    truth = iter(video.masks()) if pixels is not None and video.masks is not None else iter(())
    scores: list[Scores] = []
    parts: dict[str, list[Scores]] = {}
    details: list[Mapping[str, object]] = []
    for piece in detector.score_stream(video.frames(), categories):
        scores.append(piece.frame_scores)
        details += piece.details
        for name, part in (piece.parts or {}).items():
            parts.setdefault(name, []).append(part)
        if pixels is not None and piece.pixel_scores is not None:
            _count(pixels, piece.pixel_scores, truth, video)
    labels = np.asarray(video.labels, dtype=np.uint8)
    joined = np.concatenate(scores)
    if len(joined) != len(labels):
        raise SourceError(
            "a video has another number of frames than labels", where=video.name, got=len(joined), allowed=len(labels)
        )
    return VideoScores(
        scores=joined,
        labels=labels,
        parts={name: np.concatenate(pieces) for name, pieces in parts.items()},
        pixels=pixels,
        notes=_since(before, detector.notes()),
        details=tuple(details),
    )


def _count(pixels: PixelAuc, maps: npt.NDArray[Any], truth: Iterator[npt.NDArray[np.bool_]], video: Video) -> None:
    for plane in maps:
        mask = next(truth, None)
        if mask is None:
            raise SourceError("a video has more frames than masks", where=video.name)
        pixels.update(_resized(plane, mask.shape), mask)


def _resized(plane: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Pixel scores at the size of the ground truth: scores are brought to the masks, never the masks to the scores."""
    if plane.shape == shape:
        return plane
    image = Image.fromarray(plane.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _since(before: Mapping[str, int | str], after: Mapping[str, int | str]) -> dict[str, int | str]:
    """What a detector's notes gained: its counts go on over videos."""
    told: dict[str, int | str] = {}
    for name, value in after.items():
        earlier = before.get(name, 0)
        told[name] = value - earlier if isinstance(value, int) and isinstance(earlier, int) else value
    return told


def to_json(value: object) -> str:
    """One line of JSON with sorted keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
