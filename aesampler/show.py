"""Looking at a corpus in figures and words: its summary, one sample, and why each name is on its list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table

from aesampler.corpus import Corpus
from aesampler.exposure import irrelevant_law
from aesampler.head import CategoryCount, CorpusHead, Rejections, Shortcut
from aesampler.sample import Sample

TOP = 12
"""Names in the summary."""
MOST = 6
"""Names told of a rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A source in a split. frames: without padding; each: frames a sample, with it. bytes: of its tars."""

    source: str
    split: str
    kind: str
    each: int
    samples: int
    anomalous: int
    frames: int
    shards: int
    failed: int
    skipped: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A corpus in figures; prints as a table (rich) and turns into JSON."""

    name: str
    folder: str
    samples: int
    anomalous: int
    parts: tuple[Part, ...]
    top: tuple[CategoryCount, ...]
    skipped: dict[str, int]
    failures: dict[str, int]
    rejections: dict[str, Rejections]
    shortcut: dict[str, Shortcut]

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able mapping."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        return told

    def __rich__(self) -> RenderableType:
        title = f"{self.name}: {self.samples:,} samples, {_share(self.anomalous, self.samples)} anomalous"
        table = Table(title=title, title_justify="left")
        for column in ("source", "split", "holds"):
            table.add_column(column)
        for column in ("samples", "anomalous", "frames", "shards", "failed", "skipped", "MB"):
            table.add_column(column, justify="right")
        for part in self.parts:
            counts = (part.samples, part.anomalous, part.frames, part.shards, part.failed, part.skipped)
            holds = f"clips of {part.each}" if part.kind == "clip" else "pictures"
            table.add_row(part.source, part.split, holds, *(f"{n:,}" for n in counts), f"{part.bytes / 1e6:,.1f}")
        names = Table("name", title="exposed most often", title_justify="left")
        names.add_column("exposed", justify="right")
        names.add_column("listed", justify="right")
        for entry in self.top:
            names.add_row(entry.name, f"{entry.genuine:,}", f"{entry.listed:,}")
        lost = [*self.skipped.items(), *self.failures.items()]
        rules = Table("rule", title="kept off the lists", title_justify="left")
        rules.add_column("times", justify="right")
        rules.add_column("most often")
        for rule, found in self.rejections.items():
            most = list(found.top.items())[:MOST]
            rules.add_row(rule, f"{found.total:,}", ", ".join(f"{name} {count:,}" for name, count in most))
        return Group(
            table,
            names,
            *([rules] if self.rejections else []),
            *(f"{source}: {found.line}" for source, found in self.shortcut.items()),
            *(f"left out: {count:,} x {reason}" for reason, count in lost),
        )

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, no_color=True)
        with console.capture() as text:
            console.print(self)
        return text.get()


def summary(corpus: Corpus) -> Summary:
    """The figures of a corpus, from corpus.json alone."""
    head = corpus.head
    return Summary(
        name=head.name,
        folder=corpus.folder.url,
        samples=head.totals.samples,
        anomalous=head.totals.anomalous,
        parts=tuple(_parts(head)),
        top=tuple(head.totals.categories[:TOP]),
        skipped=head.skipped,
        failures=head.failures,
        rejections=head.rejections,
        shortcut=head.shortcut,
    )


def _parts(head: CorpusHead) -> Iterator[Part]:
    for split, source, part in head.parts():
        yield Part(
            source=source,
            split=split,
            kind=part.kind,
            each=part.frames,
            samples=part.samples,
            anomalous=part.anomalous,
            frames=part.valid_frames,
            shards=len(part.shards),
            failed=part.failed,
            skipped=part.skipped,
            bytes=part.bytes,
        )


def _share(count: int, whole: int) -> str:
    return f"{count / whole:.1%}" if whole else "0%"


def describe(sample: Sample) -> dict[str, Any]:
    """A sample without its pixels, as a JSON-able mapping."""
    frames, height, width = sample.masks.shape
    return {
        "key": sample.key,
        "source": sample.source,
        "split": sample.split,
        "origin": sample.origin,
        "origin_frames": list(sample.origin_frames),
        "frames": frames,
        "valid_frames": sample.valid_frames,
        "height": height,
        "width": width,
        "anomalous": sample.anomalous,
        "categories": [
            {"name": name, "genuine": genuine, "presence": known}
            for name, genuine, known in zip(sample.categories, sample.is_genuine, sample.presence, strict=True)
        ],
        "frame_labels": sample.frame_labels.tolist(),
        "anomaly_area": [round(float(plane.mean()), 6) for plane in sample.masks],
        "ignored_area": [round(float(plane.mean()), 6) for plane in sample.ignored],
    }


def reasons(corpus: Corpus, sample: Sample) -> list[dict[str, Any]]:
    """Why each name is on the list of `sample`, JSON-able: name, genuine, presence, and `why` in words."""
    scene = sample.scene
    settings, vocabulary = corpus.settings(sample.split, sample.source), corpus.vocabulary(sample.source)
    law = irrelevant_law(scene, vocabulary, settings)
    marks = {
        "absent": "known absent, as every name that is not annotated is"
        if scene.exhaustive
        else "known absent: looked for and not found",
        "unknown": "not annotated, so whether it is there is unknown",
        "present": "present",
    }
    told = []
    for name, genuine, known in zip(sample.categories, sample.is_genuine, sample.presence, strict=True):
        if genuine:
            frames = [place for place, counts in enumerate(scene.segments[name]) if counts is not None]
            why = f"genuine: visible in {_ranges(frames)} of {_plural(len(scene.annotated))}"
        else:
            place = vocabulary.index.get(name)
            chance = law[place] / law.sum() if place is not None and law.sum() else 0.0
            why = f"irrelevant: {marks[known]}; one draw in {1 / chance:,.0f} takes it" if chance else marks[known]
            why += f" ({settings.irrelevant_from})"
        told.append({"name": name, "genuine": genuine, "presence": known, "why": why})
    return told


def _plural(frames: int) -> str:
    return f"{frames} frames" if frames > 1 else "1 frame"


def _ranges(places: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "frames 0-2, 5"."""
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    told = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{'frame' if len(places) == 1 else 'frames'} {told}"
