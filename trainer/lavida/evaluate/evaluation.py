"""An evaluation in one process: what is missing is scored and saved, then all that is saved is judged."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from aesampler.errors import CorpusError
from aesampler.storage import Folder
from lavida.benchmarks import Benchmark
from lavida.detectors import settings_of
from lavida.detectors.anyanomaly.fusion import fuse, smooth
from lavida.evaluate.outcome import Outcome, write
from lavida.evaluate.result import NAMES, Figures, Row, figures
from lavida.evaluate.scoring import Judge, Labels, Scores, Unit, VideoScores
from lavida.evaluate.settings import REFERENCE, Settings
from lavida.evaluate.store import Encoded, Store, encode
from lavida.evaluate.tuning import tune
from lavida.metrics import METRICS, Counts, PixelAuc

Progress = Callable[[str, int, int], None]


class Executor(Protocol):
    """Where units are scored."""

    def map(self, settings: Settings, units: Sequence[Unit]) -> Generator[tuple[Unit, Encoded], None, None]:
        """The files of each unit, as they are done, in any order."""


class Inline:
    """In this process, one after another."""

    def map(self, settings: Settings, units: Sequence[Unit]) -> Generator[tuple[Unit, Encoded], None, None]:
        """See Executor."""
        judge = Judge(settings)
        for unit in units:
            yield unit, encode(judge.score(unit))


def evaluate(
    settings: Settings,
    out: Path,
    *,
    fresh: bool = False,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Score what is not scored yet, and write the table of all.

    Raises CorpusError where `out` holds scores of other settings, SourceError where the data is not as the benchmark
    says, and whatever the detector raises.
    """
    place = Folder.at(out)
    with place.lock():
        told = [_figures(settings, place, fresh, executor or Inline(), progress)]
        if settings.reference and settings.detector != REFERENCE:
            told.append(_figures(settings.of_reference(), place, fresh, executor or Inline(), progress))
        return write(settings, Judge(settings), place, told)


def refused(
    settings: Settings, out: Path, *, weights: Sequence[float] | None = None, sigma: float | None = None
) -> Figures:
    """The figures of an evaluation in `out` if its parts had been fused with other weights, or smoothed otherwise.

    weights: of the views of AnyAnomaly; sigma: in frames; None: as they were. Nothing is scored. Raises CorpusError
    where `out` holds another evaluation, or scores that are not made of parts.
    """
    judge = Judge(settings)
    store = Store(Folder.at(out) / f"scores/{settings.detector}")
    store.open(settings.scoring())
    chosen: Any = settings_of(settings.detector, settings.options)
    width = getattr(chosen, "sigma", 0.0) if sigma is None else sigma
    shares = getattr(chosen, "chosen_weights", ()) if weights is None else weights

    def fused(done: VideoScores) -> VideoScores:
        if not done.parts:
            raise CorpusError("these scores are not made of parts", where=store.folder.url, do="take another detector")
        return replace(done, scores=smooth(fuse(done.parts, shares), width))

    return _judged(judge, store, judge.units(), fused)[0]


def _figures(
    settings: Settings, out: Folder, fresh: bool, executor: Executor, progress: Progress | None
) -> tuple[Figures, list[Row]]:
    judge = Judge(settings)
    settings_of(settings.detector, judge.options())  # what is wrong with them is said before anything is written
    units = judge.units()
    store = Store(out / f"scores/{settings.detector}")
    store.open(settings.scoring(), fresh=fresh)
    _fill(settings, store, units, executor, progress)
    return _judged(judge, store, units)


def _fill(
    settings: Settings, store: Store, units: Sequence[Unit], executor: Executor, progress: Progress | None
) -> None:
    missing = store.missing(units)
    done = len(units) - len(missing)
    if not missing:
        return
    with contextlib.closing(executor.map(settings, missing)) as found:  # while there is a Ray to end its workers
        for unit, files in found:
            store.put(unit, files)
            done += 1
            if progress is not None:
                progress(f"{settings.benchmark}, {settings.detector}: videos", done, len(units))


def _judged(
    judge: Judge, store: Store, units: Sequence[Unit], change: Callable[[VideoScores], VideoScores] | None = None
) -> tuple[Figures, list[Row]]:
    """The figures of what is stored, changed first where asked, and the rows that they are made of."""
    settings = judge.settings
    held = {unit: store.get(unit) for unit in units}
    if change is not None:
        held = {unit: change(done) for unit, done in held.items()}
    placed = [(unit, category) for category in judge.benchmark.classes or (None,) for unit in judge.of(category, units)]
    scores = [held[unit].scores for unit, _ in placed]
    labels = [_labels(judge.benchmark, unit, category, held[unit]) for unit, category in placed]
    tuned = None
    if settings.tune_on_test:
        parts = [held[unit].parts for unit, _ in placed]
        names = [category for _, category in placed]
        scores, tuned = tune(scores, parts, lambda found: _worth(found, labels, names, judge.benchmark.metric))
    rows = [
        Row(video=unit.video, category=category, scores=found, labels=known)
        for (unit, category), found, known in zip(placed, scores, labels, strict=True)
    ]
    told = figures(
        settings.detector,
        rows,
        classes=judge.benchmark.classes,
        pixels=_pixels(store, placed),
        resamples=settings.bootstrap,
        seed=settings.seed,
        notes=_summed(held.values()),
        tuned=tuned,
    )
    return told, rows


def _labels(benchmark: Benchmark, unit: Unit, category: str | None, held: VideoScores) -> Labels:
    """The labels of a unit in the protocol of a class: those that were saved with its scores, but of a user's own set
    those that its table says now.
    """
    if category == unit.category and not benchmark.own:
        return held.labels
    labels = benchmark.video(unit.video, category).labels
    if len(labels) != len(held.scores):
        raise CorpusError(
            "a video has another number of frames than when it was scored",
            where=unit.video,
            got=len(labels),
            allowed=len(held.scores),
            do="give another --out, or --fresh to start over",
        )
    return labels


def _worth(scores: Sequence[Scores], labels: Sequence[Labels], classes: Sequence[str | None], metric: str) -> float:
    """The benchmark's own metric of frame scores, the mean over classes where there are some."""
    values = []
    for name in dict.fromkeys(classes):
        mine = [place for place, each in enumerate(classes) if each == name]
        counts = Counts.of([scores[place] for place in mine], [labels[place] for place in mine])
        values.append(METRICS[NAMES.get(metric, "auc")](counts))
    return float(np.mean(values))


def _pixels(store: Store, placed: Sequence[tuple[Unit, str | None]]) -> dict[str | None, Iterator[PixelAuc]]:
    """The counted pixels of the videos of each class, or of all under None, read when they are gone through."""

    def of(category: str | None) -> Iterator[PixelAuc]:
        for unit, its in placed:
            counted = store.pixels(unit) if its == category else None
            if counted is not None:
                yield counted

    return {category: of(category) for category in dict.fromkeys(category for _, category in placed)}


def _summed(every: Iterable[VideoScores]) -> dict[str, int | str]:
    """The notes of all units: counts added up, remarks once."""
    told: dict[str, int | str] = {}
    for done in every:
        for name, value in done.notes.items():
            held = told.get(name, 0)
            told[name] = held + value if isinstance(value, int) and isinstance(held, int) else value
    return told
