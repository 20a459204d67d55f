"""Ablations: grids of evaluations as one table, the bundled ones of both papers among them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vad_worlds

from aesampler.errors import AesamplerError, RecipeError
from lavida import detectors
from lavida.ablate import Grid, ablate, listed, load_grid
from lavida.detectors import Detector, Frame, Scored, Settings, find
from lavida.evaluate import outcome
from lavida.training import load_grid as load_trainings

BUNDLED = sorted(
    Path(str(file))
    for file in (resources.files("aesampler") / "pipelines").iterdir()
    if file.name.startswith("ablate-") and file.name.endswith(".yaml")
)


class SquareSettings(Settings):
    """model: read from its folder: the gain. floor: added."""

    model: str = ""
    sign: float = 1.0
    sigma: float = 0.0
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Square(Detector):
    """Sees the bright squares of vad_worlds, or the opposite; with a model, what that says."""

    name = "square"
    settings = SquareSettings
    uses_categories = False
    scanned = 0

    def __init__(self, options: SquareSettings | None = None) -> None:
        self.options: SquareSettings = options or SquareSettings()

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        type(self).scanned += 1
        sign = self.options.sign
        if self.options.model:
            sign = json.loads((Path(self.options.model) / "sign.json").read_text())
        for place, frame in enumerate(frames):
            seen = float(frame.max() > 180)
            parts = {"frame": 1 - seen, "position": 0.5, "temporal": seen}
            yield Scored(
                start=place,
                frame_scores=np.full(1, sign * seen, dtype=np.float32),
                parts={name: np.full(1, value, dtype=np.float32) for name, value in parts.items()},
            )


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(detectors.DETECTORS, "square", f"{__name__}:Square")
    monkeypatch.setattr(outcome, "_draw", lambda *asked: None)
    monkeypatch.setattr(Square, "scanned", 0)


def grid(**changes: Any) -> dict[str, Any]:
    return {
        "name": "squares",
        "title": "what a sign is worth",
        "detector": "square",
        "columns": [{"benchmark": "ped2", "metric": "pixel_auc"}, {"benchmark": "avenue"}, {"benchmark": "ubnormal"}],
        "rows": [
            {"name": "fused", "of": "right", "weights": [1, 0, 0]},
            {"name": "right", "published": {"source": ["AnyAnomaly table 5"], "method": "AnyAnomaly"}},
            {"name": "wrong", "options": {"sign": -1}},
        ],
    } | changes


def written(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


def test_a_table_of_rows_and_columns(tmp_path: Path) -> None:
    roots = {name: str(vad_worlds.make(name, tmp_path / name).root) for name in ("ped2", "avenue")}
    wanted = load_grid(written(tmp_path / "grid.yaml", grid()))
    done = ablate(wanted, roots, tmp_path / "out")
    assert done.left_out == ("ubnormal",)
    told = done.to_json()
    cells = {row["name"]: {name: cell["value"] for name, cell in row["cells"].items()} for row in told["rows"]}
    assert list(cells) == ["fused", "right", "wrong", "motion"]
    assert [cells[name]["avenue"] for name in ("fused", "right", "wrong")] == [0.0, 100.0, 0.0]
    assert [cells[name]["ped2"] for name in ("fused", "right", "wrong")] == [None] * 3  # it has no pixel scores
    assert cells["motion"]["ped2"] is not None
    assert told["rows"][1]["cells"]["avenue"]["published"] == 87.3
    assert told["rows"][1]["cells"]["ped2"]["published"] is None
    (table,) = done.tables()
    assert table.row_count == 4
    assert any("2 of the set's 12 videos" in line for line in done.remarks)
    assert (tmp_path / "out/right/avenue/evaluation.json").is_file()
    assert not (tmp_path / "out/fused").exists()
    assert Square.scanned == 8  # two rows of two videos, twice; what is fused anew asks nothing


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = {"avenue": str(vad_worlds.make("avenue", tmp_path / "avenue").root)}
    wanted = load_grid(written(tmp_path / "grid.yaml", grid()))
    whole = ablate(wanted, roots, tmp_path / "whole").to_json()
    scan = Square.scan

    def stopping(self: Square, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        if Square.scanned == 7:
            raise KeyboardInterrupt
        yield from scan(self, frames, categories)

    monkeypatch.setattr(Square, "scan", stopping)
    with pytest.raises(KeyboardInterrupt):
        ablate(wanted, roots, tmp_path / "parts")
    monkeypatch.setattr(Square, "scan", scan)
    assert ablate(wanted, roots, tmp_path / "parts").to_json() == whole
    assert Square.scanned == 8


def test_rows_are_trained_first(tmp_path: Path) -> None:
    trained: list[str] = []

    def trainer(config: Any) -> Path:
        folder = tmp_path / "models" / f"{config.projector}"
        trained.append(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sign.json").write_text("1" if config.projector == "good" else "-1")
        return folder

    class Config:
        def __init__(self, projector: str) -> None:
            self.projector = projector

    class Row:
        def __init__(self, name: str) -> None:
            self.name, self.config = f"kind={name}", Config(name)

    roots = {"avenue": str(vad_worlds.make("avenue", tmp_path / "avenue").root)}
    rows = [{"name": name, "train": f"kind={name}"} for name in ("good", "bad")]
    wanted = load_grid(written(tmp_path / "grid.yaml", grid(train="t.yaml", rows=rows)))
    assert wanted.train == str((tmp_path / "t.yaml").resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lavida.training.load_grid", lambda path: [Row("good"), Row("bad")])
        done = ablate(wanted, roots, tmp_path / "out", trainer=trainer)
        assert trained == ["good", "bad"]
        assert [done.cells[name, "avenue"].value for name in ("good", "bad")] == [100.0, 0.0]
        patch.setattr("lavida.training.load_grid", lambda path: [Row("good")])
        with pytest.raises(RecipeError, match=r"the training's grid has no such row; got kind=bad; allowed: kind=good"):
            ablate(wanted, roots, tmp_path / "out", trainer=trainer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": 1}, "grid.yaml: colour: unknown key"),
        ({"columns": [{"benchmark": "ped3"}]}, "grid.yaml: columns.0: unknown benchmark 'ped3'"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "rows have names of their own"),
        ({"rows": [{"name": "motion"}]}, "none is 'motion'"),
        ({"rows": [{"name": "a", "of": "b", "weights": [1, 0, 0]}]}, "'b', which is no row that is scored"),
        ({"rows": [{"name": "a"}, {"name": "b", "of": "a", "options": {"x": 1}}]}, "has weights and sigma only"),
        ({"rows": [{"name": "a", "weights": [1, 0, 0]}]}, "give weights and sigma as options"),
        ({"rows": [{"name": "a", "train": "x"}]}, "but the grid names no training"),
        ({"columns": [{"benchmark": "ped2"}] * 2}, "a benchmark is one column"),
        ({"rows": []}, "grid.yaml: rows: Tuple should have at least 1 item"),
    ],
)
def test_grids_that_are_none(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as told:
        load_grid(written(tmp_path / "grid.yaml", grid(**changes)))
    assert message in str(told.value)


def test_files_that_are_no_grids(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"lost.yaml: there is no such file"):
        load_grid(tmp_path / "lost.yaml")
    (tmp_path / "a.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match=r"a.yaml: this is no YAML"):
        load_grid(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(RecipeError, match=r"a grid is a mapping"):
        load_grid(tmp_path / "a.yaml")


def test_roots_that_fit_no_column(tmp_path: Path) -> None:
    wanted = Grid.model_validate(grid())
    with pytest.raises(AesamplerError, match=r"no benchmark has a root; allowed: ped2, avenue, ubnormal; give --root"):
        ablate(wanted, {}, tmp_path)
    with pytest.raises(AesamplerError, match=r"squares has no column of this name; got c-sht"):
        ablate(wanted, {"c-sht": "."}, tmp_path)


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_the_bundled_grids(path: Path) -> None:
    """Every row's options are the detector's, its training exists, and what it says is published is."""
    wanted = load_grid(path)
    assert f"ablate-{wanted.name}" == path.stem
    assert listed(wanted).row_count == len(wanted.rows)
    settings = find(wanted.detector).settings
    trainings = {row.name for row in load_trainings(wanted.train)} if wanted.train else set()
    theirs = [column.cells for column in listed(wanted).columns[3:]]
    for row, *numbers in zip(wanted.rows, *theirs, strict=True):
        assert row.train is None or row.train in trainings
        model = {"model": "x"} if row.train else {}
        settings.model_validate(wanted.options | row.options | model)
        assert (row.published is None) == ({*numbers} == {"-"})


def test_the_published_numbers_of_the_bundled_grids() -> None:
    named = {path.stem.removeprefix("ablate-"): load_grid(path) for path in BUNDLED}
    assert len(named) == 10

    def theirs(name: str) -> list[list[str]]:
        table = listed(named[name])
        return [list(column.cells) for column in table.columns[3:]]

    assert theirs("anyanomaly-contexts") == [
        ["78.01", "77.48", "81.85", "83.97", "85.72"],
        ["79.43", "78.28", "81.11", "88.79", "90.27"],
    ]
    assert theirs("lavida-list-cap")[0] == ["73.34", "80.13", "85.02", "76.41"]
    assert theirs("lavida-projector")[3] == ["77.09", "71.85", "87.68"]
    assert theirs("lavida-queries")[2] == ["50.14", "88.31", "90.30", "89.15"]
