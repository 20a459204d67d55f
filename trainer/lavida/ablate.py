"""`lavida ablate`: a grid of evaluations, of trainings too where it asks, as one table beside the published one.

    name: anyanomaly-contexts
    title: what the contexts are worth (AnyAnomaly, tables 1 and 2)
    detector: anyanomaly
    options: {}                                     # of every row; --option lies below them
    columns:
      - {benchmark: c-sht, metric: frame_auc}       # evaluated where --root c-sht=DIR says where it lies
    rows:
      - name: proposed
        options: {weights: [1, 1, 1]}
        published: {source: [AnyAnomaly table 1], method: AnyAnomaly proposed, category: overall average}
      - name: +KSM
        of: proposed                                # the same answers, fused anew: no question is asked again
        weights: [1, 0, 0]

`train: FILE` names an ablation of `lavida train` (a base and its grid), and a row's `train: ROW` the row of it whose
model is judged; it is trained first, or where it was trained, taken. Cells are evaluations in OUT/ROW/BENCHMARK and go
on where they were stopped; below the rows stands `motion`, which knows only that something moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from rich.table import Table

from aesampler.errors import UNREADABLE, RecipeError
from lavida.benchmarks import NAMES, published
from lavida.benchmarks.benchmark import Metric
from lavida.evaluate import Executor, Settings, evaluate, refused
from lavida.evaluate.settings import REFERENCE

_OTHER = re.compile(r"[^A-Za-z0-9._+=-]+")

Trainer = Callable[[Any], Path]
"""A training's settings to the folder of its model."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Strict):
    """A benchmark, the metric that is shown, and its options."""

    benchmark: str
    metric: Metric | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> Column:
        if self.benchmark not in NAMES:
            raise ValueError(f"unknown benchmark {self.benchmark!r}; allowed: {', '.join(NAMES)}")
        return self


class Chosen(_Strict):
    """Which published numbers are a row's: those that agree in all that is given. category: "" is the whole set."""

    source: tuple[str, ...] = ()
    method: str | None = None
    setting: str | None = None
    category: str = ""


class Line(_Strict):
    """A row: options of the detector, a model that is trained for it, or the answers of another row fused anew."""

    name: str
    detector: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    train: str | None = None
    of: str | None = None
    weights: tuple[float, float, float] | None = None
    sigma: float | None = Field(None, ge=0)
    published: Chosen | None = None

    @property
    def folder(self) -> str:
        """The row's folder."""
        return _OTHER.sub("-", self.name).strip("-.") or "row"


class Grid(_Strict):
    """A whole ablation; see the module."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str = ""
    detector: str
    options: dict[str, Any] = Field(default_factory=dict)
    train: str | None = None
    columns: tuple[Column, ...] = Field(min_length=1)
    rows: tuple[Line, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Grid:
        names = [row.name for row in self.rows]
        folders = [row.folder for row in self.rows]
        if len(set(names)) < len(names) or len(set(folders)) < len(folders) or REFERENCE in folders:
            raise ValueError(f"rows have names of their own, and none is {REFERENCE!r}")
        benchmarks = [column.benchmark for column in self.columns]
        if len(set(benchmarks)) < len(benchmarks):
            raise ValueError("a benchmark is one column: give a grid for each of its metrics")
        scored = [row.name for row in self.rows if row.of is None]
        for row in self.rows:
            if row.of is not None and row.of not in scored:
                raise ValueError(f"row {row.name!r} is `of` {row.of!r}, which is no row that is scored")
            if row.of is not None and (row.options or row.train or row.detector):
                raise ValueError(f"row {row.name!r} takes the answers of {row.of!r}: it has weights and sigma only")
            if row.of is None and (row.weights is not None or row.sigma is not None):
                raise ValueError(f"row {row.name!r} is `of` no other: give weights and sigma as options")
            if row.train is not None and self.train is None:
                raise ValueError(f"row {row.name!r} is trained, but the grid names no training")
        return self

    def to_json(self) -> dict[str, Any]:
        """The grid as a JSON object."""
        return self.model_dump(mode="json", exclude_defaults=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure in percent and the published one; None where there is none."""

    value: float | None
    published: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A grid, done. cells: (row, benchmark) -> cell; left_out: benchmarks without a root."""

    grid: Grid
    cells: dict[tuple[str, str], Cell]
    left_out: tuple[str, ...]
    remarks: list[str]

    @property
    def columns(self) -> list[Column]:
        """The columns that were evaluated."""
        return [column for column in self.grid.columns if column.benchmark not in self.left_out]

    @property
    def names(self) -> list[str]:
        """The rows, the reference last."""
        return [*(row.name for row in self.grid.rows), REFERENCE]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.grid.name,
            "title": self.grid.title,
            "columns": [column.model_dump(mode="json") for column in self.columns],
            "rows": [
                {
                    "name": name,
                    "cells": {
                        column.benchmark: {
                            "value": self.cells[name, column.benchmark].value,
                            "published": self.cells[name, column.benchmark].published,
                        }
                        for column in self.columns
                    },
                }
                for name in self.names
            ],
            "left_out": list(self.left_out),
            "remarks": self.remarks,
        }

    def tables(self) -> Iterator[Table]:
        """For the terminal: ours, and in brackets the published number."""
        table = Table(title=self.grid.title or self.grid.name, title_justify="left")
        table.add_column("row")
        for column in self.columns:
            table.add_column(f"{column.benchmark} here", justify="right")
            table.add_column("published", justify="right")
        for name in self.names:
            cells = [self.cells[name, column.benchmark] for column in self.columns]
            texts = [_shown(value) for cell in cells for value in (cell.value, cell.published)]
            table.add_row(name, *texts)
        yield table


def load_grid(path: Path) -> Grid:
    """Read a grid. Raises RecipeError for a file that is none."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError("there is no such file", where=str(path)) from error
    except UNREADABLE as error:
        raise RecipeError(f"this is no YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if not isinstance(document, dict):
        raise RecipeError("a grid is a mapping with name, detector, columns and rows", where=str(path))
    try:
        grid = Grid.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        what = "unknown key" if first["type"] == "extra_forbidden" else str(first["msg"]).removeprefix("Value error, ")
        raise RecipeError(what, where=f"{path}: {place}" if place else str(path)) from error
    if grid.train is not None:
        return grid.model_copy(update={"train": str((path.parent / grid.train).resolve())})
    return grid


def listed(grid: Grid) -> Table:
    """The rows and columns of a grid, before it is run."""
    table = Table(title=grid.title or grid.name, title_justify="left")
    for name in ("row", "detector", "what it changes", *(column.benchmark for column in grid.columns)):
        table.add_column(name)
    for row in grid.rows:
        changed = {**row.options, **({"trained with": row.train} if row.train else {})}
        if row.of is not None:
            changed |= {"the answers of": row.of, "weights": list(row.weights or ()), "sigma": row.sigma}
        text = ", ".join(f"{name} {value}" for name, value in changed.items() if value is not None)
        theirs = [_shown(_published(row, column)) for column in grid.columns]
        table.add_row(row.name, row.detector or grid.detector, text, *theirs)
    return table


def ablate(
    grid: Grid,
    roots: Mapping[str, str],
    out: Path,
    *,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    executor: Executor | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    trainer: Trainer | None = None,
) -> Ablation:
    """Run what is not done yet, and give the table. roots: benchmark -> folder. options: below those of the grid.
    trainer: default: in this process.

    Raises RecipeError where no column has a root or a root is of no column, and whatever training and evaluation raise.
    """
    unknown = sorted(roots.keys() - {column.benchmark for column in grid.columns})
    columns = [column for column in grid.columns if column.benchmark in roots]
    if unknown or not columns:
        raise RecipeError(
            f"{grid.name} has no column of this name" if unknown else "no benchmark has a root",
            got=", ".join(unknown) or None,
            allowed=", ".join(column.benchmark for column in grid.columns),
            do="give --root BENCHMARK=DIR",
        )
    run = _Run(grid, roots, out, dict(options or {}), device, executor, progress)
    models = run.train(trainer)
    ordered = sorted(grid.rows, key=lambda row: row.of is not None)  # what others take the answers of comes first
    cells = {
        (row.name, column.benchmark): Cell(
            value=run.value(row, column, models.get(row.of or row.name)), published=_published(row, column)
        )
        for column in columns
        for row in ordered
    }
    cells |= {(REFERENCE, column.benchmark): Cell(value=run.reference(column), published=None) for column in columns}
    left_out = tuple(column.benchmark for column in grid.columns if column.benchmark not in roots)
    return Ablation(grid=grid, cells=cells, left_out=left_out, remarks=list(dict.fromkeys(run.remarks)))


class _Run:
    """One run of a grid."""

    def __init__(
        self,
        grid: Grid,
        roots: Mapping[str, str],
        out: Path,
        options: dict[str, Any],
        device: str | None,
        executor: Executor | None,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._grid, self._roots, self._out, self._options = grid, roots, out, options
        self._device, self._executor, self._progress = device, executor, progress
        self.remarks: list[str] = []

    def train(self, trainer: Trainer | None) -> dict[str, Path]:
        """Row -> its model, of the rows that are trained."""
        wanted = {row.name: row.train for row in self._grid.rows if row.train is not None}
        if not wanted:
            return {}
        from lavida.training import load_grid as trainings
        from lavida.training import train

        assert self._grid.train is not None
        there = {row.name: row.config for row in trainings(self._grid.train)}
        lost = sorted(set(wanted.values()) - there.keys())
        if lost:
            raise RecipeError(
                "the training's grid has no such row",
                where=self._grid.train,
                got=", ".join(lost),
                allowed=", ".join(there),
            )
        trained = trainer or (lambda config: train(config).model)
        return {name: trained(there[row]) for name, row in wanted.items()}

    def value(self, row: Line, column: Column, model: Path | None) -> float | None:
        """The figure of a cell, in percent. model: trained for the row, or the one whose answers it takes."""
        if row.of is not None:
            source = next(other for other in self._grid.rows if other.name == row.of)
            settings = self._settings(source, column, model)
            figures = refused(settings, self._place(source.folder, column), weights=row.weights, sigma=row.sigma)
            return _percent(figures.metrics, column, settings)
        settings = self._settings(row, column, model)
        return self._evaluated(settings, row.folder, column)

    def reference(self, column: Column) -> float | None:
        """What `motion` gets."""
        return self._evaluated(self._settings(self._grid.rows[0], column, None).of_reference(), REFERENCE, column)

    def _evaluated(self, settings: Settings, folder: str, column: Column) -> float | None:
        outcome = evaluate(settings, self._place(folder, column), executor=self._executor, progress=self._progress)
        self.remarks += [f"{column.benchmark}: {line}" for line in outcome.remarks]
        return _percent(outcome.told[0].metrics, column, settings)

    def _settings(self, row: Line, column: Column, model: Path | None) -> Settings:
        given = {} if model is None else {"model": str(model)}
        return Settings(
            benchmark=column.benchmark,
            root=self._roots[column.benchmark],
            benchmark_options=column.options,
            detector=row.detector or self._grid.detector,
            options=self._options | self._grid.options | row.options | given,
            device=self._device,
            reference=False,
            bootstrap=0,
        )

    def _place(self, folder: str, column: Column) -> Path:
        return self._out / folder / column.benchmark


def _percent(metrics: Mapping[str, float | None], column: Column, settings: Settings) -> float | None:
    from lavida.benchmarks import open_benchmark

    name = column.metric or open_benchmark(settings.benchmark, settings.root, **settings.benchmark_options).metric
    value = metrics.get(name)
    return None if value is None else 100 * value


def _published(row: Line, column: Column) -> float | None:
    """The published number of a cell; the first where several agree."""
    wanted = row.published
    if wanted is None:
        return None
    found: Sequence[float] = [
        told.value
        for told in published(column.benchmark, tables=wanted.source or None)
        if told.key is not None
        and (column.metric is None or told.key == column.metric)
        and told.category == wanted.category
        and (wanted.method is None or told.method == wanted.method)
        and (wanted.setting is None or told.setting == wanted.setting)
    ]
    return found[0] if found else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
