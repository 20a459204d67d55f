"""What an evaluation leaves: evaluation.json, table.md and plots, our figures next to the published ones.

Published numbers are only set beside ours where benchmark and metric are the same. They are other people's results on
the whole set: an evaluation of a part of it (a sample of the videos) says how many videos and frames it is of.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from rich.table import Table

from aesampler.storage import Folder
from lavida import plots
from lavida.benchmarks import Published, published
from lavida.evaluate.result import SHORT, Figures, Row
from lavida.evaluate.scoring import Judge
from lavida.evaluate.settings import Settings
from lavida.metrics import Counts

PUBLISHED = "published"
SHOWN = 8
"""Videos in the picture of scores over time."""
RESULTS = ("LAVIDA table 1", "LAVIDA table 2", "AnyAnomaly table 1", "AnyAnomaly table 2", "AnyAnomaly table 5")
"""The tables of results; the others are ablations, which `lavida ablate` prints beside its own."""

Cells = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An evaluation, done.

    told: the detector's figures, then the reference's. published: what the papers say. videos: how many there were, of
    `whole` in the set where that is known. frames, positives: of a customised set over all its classes. options: those
    that the detector had, but its model and device.
    """

    settings: Settings
    protocol: str
    metric: str
    told: tuple[Figures, ...]
    published: tuple[Published, ...]
    videos: int
    whole: int | None
    frames: int
    positives: int
    categories: tuple[str, ...]
    options: dict[str, Any]

    @property
    def remarks(self) -> list[str]:
        """What a reader must know before quoting a figure."""
        lines = []
        if self.whole is not None and self.videos != self.whole:
            lines.append(
                f"{self.videos} of the set's {self.whole} videos: not to be compared with the published numbers"
            )
        for figures in self.told:
            if figures.tuned is not None:
                lines.append(
                    f"TUNED ON THE TEST LABELS, an upper bound: {figures.detector} with {json.dumps(figures.tuned)}"
                )
            lines += [f"{figures.detector}: no {name}: {why}" for name, why in figures.undefined.items()]
            lines += [f"{figures.detector}: {name}: {value}" for name, value in figures.notes.items() if value]
        return lines

    def to_json(self) -> dict[str, Any]:
        """As a JSON object: what `--json` prints and evaluation.json holds."""
        ours = self.told[0]
        told = {
            "benchmark": self.settings.benchmark,
            "detector": ours.detector,
            "metrics": ours.metrics,
            "videos": ours.videos,
            "protocol": self.protocol,
            "metric": self.metric,
            "whole_set": self.whole is None or self.videos == self.whole,
            "frames": self.frames,
            "positives": self.positives,
            "categories": list(self.categories),
            "options": self.options,
            "scoring": self.settings.scoring(),
        }
        told |= {name: value for name, value in ours.to_json().items() if name not in told}
        if len(self.told) > 1:
            told["reference"] = self.told[1].to_json() | {"videos": self.told[1].videos}
        told["published"] = [
            {
                "source": row.source,
                "method": row.method,
                "setting": row.setting,
                "dataset": row.dataset,
                "metric": row.metric,
                "value": row.value,
            }
            for row in self.published
        ]
        return told

    @property
    def title(self) -> str:
        """The benchmark and how much of it there was."""
        return (
            f"{self.settings.benchmark}: {self.videos:,} videos, {self.frames:,} frames, {self.positives:,} anomalous"
        )

    def sections(self) -> Iterator[tuple[str, Cells]]:
        """Every table as (title, rows), the first row its head."""
        names = [name for name in SHORT if any(name in figures.metrics for figures in self.told)]
        head = ("detector", *(SHORT[name] for name in names))
        yield (
            self.title,
            [head, *((_called(figures), *(_percent(figures, name) for name in names)) for figures in self.told)],
        )
        if self.told[0].classes:
            yield "frame AUC of each class", self._classes()
        rows = [row for row in self.published if row.category in ("", "overall average")]
        if rows:
            cells: Cells = [("published", "setting", "dataset", "metric", "value", "source")]
            cells += [
                (row.method, row.setting, row.dataset, row.metric, f"{row.value:.2f}", row.source) for row in rows
            ]
            yield PUBLISHED, cells

    def _classes(self) -> Cells:
        """A row a class: ours, the reference's, and what the papers say of it."""
        theirs = {(row.method, row.category): row.value for row in self.published if row.category}
        methods = list(dict.fromkeys(method for method, _ in theirs))
        rows: Cells = [("class", *(_called(figures) for figures in self.told), *methods)]
        for name in self.told[0].classes:
            ours = (_value(figures.classes.get(name, {}).get("frame_auc")) for figures in self.told)
            rows.append((name, *ours, *(_published(theirs.get((method, name))) for method in methods)))
        return rows

    def tables(self) -> list[Table]:
        """The same for the terminal."""
        made = []
        for title, rows in self.sections():
            table = Table(title=title, title_justify="left")
            for place, name in enumerate(rows[0]):
                table.add_column(name, justify="left" if place == 0 or title == PUBLISHED else "right")
            for row in rows[1:]:
                table.add_row(*row)
            made.append(table)
        return made

    def markdown(self) -> str:
        """The same as table.md."""
        lines = [f"# {_called(self.told[0])} on {self.settings.benchmark}", "", self.protocol, ""]
        for title, rows in self.sections():
            lines += [f"## {title}", "", "| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
            lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows[1:]]
            lines.append("")
        lines += ["In percent; in brackets 95% intervals from whole videos drawn again.", ""]
        lines += [f"- {line}" for line in self.remarks]
        return "\n".join(lines).rstrip() + "\n"


def _called(figures: Figures) -> str:
    return figures.detector + (" (tuned on test)" if figures.tuned is not None else "")


def _value(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _published(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(figures: Figures, name: str) -> str:
    text = _value(figures.metrics.get(name))
    ends = figures.intervals.get(name)
    return text if ends is None else f"{text} [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def write(settings: Settings, judge: Judge, out: Folder, judged: Sequence[tuple[Figures, list[Row]]]) -> Outcome:
    """Write plots, table.md and evaluation.json, in this order, below `out`."""
    benchmark = judge.benchmark
    rows = judged[0][1]
    whole = Counts.merged([row.counts for row in rows]).totals
    outcome = Outcome(
        settings=settings,
        protocol=benchmark.protocol,
        metric=benchmark.metric,
        told=tuple(figures for figures, _ in judged),
        published=published(benchmark.name, tables=RESULTS),
        videos=len({row.video for row in rows}),
        whole=benchmark.expected.get("videos"),
        frames=sum(len(row.labels) for row in rows),
        positives=whole[0],
        categories=settings.categories or tuple(benchmark.categories),
        options={name: value for name, value in judge.options().items() if name not in ("model", "device")},
    )
    _plots(outcome, out, judged)
    out.commit_bytes("table.md", outcome.markdown().encode())
    text = json.dumps(outcome.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    out.commit_bytes("evaluation.json", (text + "\n").encode())
    return outcome


def _plots(outcome: Outcome, out: Folder, judged: Sequence[tuple[Figures, list[Row]]]) -> None:
    name = outcome.settings.benchmark
    counted = {_called(figures): figures.counts for figures, _ in judged if figures.counts is not None}
    known = {label: counts for label, counts in counted.items() if all(counts.totals)}
    if known:
        _draw(out, "curves", partial(plots.curves, counts=known, title=name))
    for metric, axis in SHORT.items():
        bars = _bars(outcome, metric)
        if len(bars) > 1:
            _draw(out, metric, partial(plots.comparison, bars=bars, title=f"{name}: {axis}", axis=f"{axis}, %"))
    title = f"{name}: scores, each from its lowest to its highest"
    _draw(out, "scores", partial(plots.tracks, videos=_tracks(judged), title=title))


def _draw(out: Folder, name: str, picture: Callable[[BinaryIO], None]) -> None:
    sink = io.BytesIO()
    picture(sink)
    out.commit_bytes(f"plots/{name}.png", sink.getvalue())


def _bars(outcome: Outcome, metric: str) -> list[plots.Bar]:
    """Our figures and the published ones of one metric; of equal name and setting the first."""
    bars = []
    for place, figures in enumerate(outcome.told):
        value = figures.metrics.get(metric)
        if value is not None:
            low, high = figures.intervals.get(metric, (None, None))
            tone = "ours" if place == 0 else "reference"
            bars.append(
                plots.Bar(
                    name=f"{_called(figures)} (here)",
                    value=100 * value,
                    tone=tone,
                    low=low and 100 * low,
                    high=high and 100 * high,
                )
            )
    if bars:
        same = [row for row in outcome.published if row.key == metric and row.category in ("", "overall average")]
        named = {f"{row.method}, {row.setting}": row for row in reversed(same)}
        bars += [plots.Bar(name=name, value=row.value, tone="published") for name, row in named.items()]
    return bars


def _tracks(judged: Sequence[tuple[Figures, list[Row]]]) -> list[plots.Track]:
    """Some videos evenly taken, those with anomalies first; of a customised set each in one class."""
    rows = {(row.video, row.category): row for row in judged[0][1]}
    mixed = [key for key, row in rows.items() if np.any(row.labels == 1)] or list(rows)
    chosen = [mixed[place] for place in np.unique(np.linspace(0, len(mixed) - 1, SHOWN).round().astype(int))]
    others = {(figures.detector, row.video, row.category): row.scores for figures, every in judged for row in every}
    return [
        plots.Track(
            name=video if category is None else f"{video}\n{category}",
            scores={
                f.detector: others[f.detector, video, category]
                for f, _ in judged
                if (f.detector, video, category) in others
            },
            labels=rows[video, category].labels,
        )
        for video, category in chosen
    ]
