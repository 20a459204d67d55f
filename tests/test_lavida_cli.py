"""The command `lavida`: what it prints, where it writes, and how it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import vad_worlds
import worlds_videos

from aesampler.errors import CorpusError
from lavida import evaluate as judging
from lavida.cli import cli, run

COMMANDS = ("train", "evaluate", "ablate", "benchmarks", "detect", "serve")


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take half a second each, and are looked at elsewhere."""
    monkeypatch.setattr("lavida.evaluate.outcome._draw", lambda *asked: None)


def test_every_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(sorted(cli.commands)) == tuple(sorted(COMMANDS))
    for command in COMMANDS:
        assert run([command, "--help"]) == 0
        told = capsys.readouterr().out
        assert told.startswith(f"Usage: lavida {command} ")
        assert ("--json" in told) == (command != "serve")
        options = [option for option in cli.commands[command].params if isinstance(option, click.Option)]
        assert all(option.help for option in options), command
    assert run(["--version"]) == 0


def test_it_is_light() -> None:
    code = "import sys, lavida.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    heavy = {"torch", "ray", "matplotlib", "transformers", "av", "open_clip", "starlette", "uvicorn", "scipy", "h5py"}
    assert set(loaded.stdout.split()) & heavy == set()


def test_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "lavida", "fly"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "No such command 'fly'" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"), [("train --config lost.yaml", 2, "lost.yaml"), ("boom", 1, "broken")]
)
def test_one_of_several_processes_tells_its_error_and_ends(words: str, code: int, told: str) -> None:
    """And at once: what is registered for the end of Python, where NCCL would wait for the others, is not run."""
    lines = ["import atexit, sys, time", "from lavida import cli", "atexit.register(print, 'waited')"]
    lines += ["@cli.cli.command()", "def boom():", "    raise RuntimeError('broken')", "cli.main()"]
    command = [sys.executable, "-c", "\n".join(lines), *words.split()]
    environment = os.environ | {"WORLD_SIZE": "2", "RANK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr


def test_evaluate_as_text_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    arguments = ["evaluate", "--benchmark", "ped2", "--root", str(world.root), "--detector", "motion"]
    assert run(arguments) == 0
    told = capsys.readouterr()
    assert "ped2: 2 videos, 12 frames, 9 anomalous" in told.out
    assert "2 of the set's 12 videos: not to be compared with the published numbers" in told.out
    assert "evaluations/ped2-motion: evaluation.json, table.md, plots and scores" in told.out
    assert "ped2, motion: videos: 2 of 2" in told.err
    assert run([*arguments, "--json", "--bootstrap", "0"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert told.err == ""
    assert list(document)[:4] == ["benchmark", "detector", "metrics", "videos"]
    assert document["intervals"] == {}
    assert document == json.loads((tmp_path / "evaluations/ped2-motion/evaluation.json").read_text())
    assert run([*arguments, "--option", "pixels=false"]) == 2
    assert "made with other settings (options)" in capsys.readouterr().err
    assert run([*arguments, "--option", "pixels=false", "--fresh", "--json"]) == 0
    assert "pixel_auc" not in json.loads(capsys.readouterr().out)["metrics"]


def test_options_reach_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(settings: judging.Settings, out: Path, **how: Any) -> None:
        seen.append((settings, out, how["fresh"]))
        raise CorpusError("enough")

    monkeypatch.setattr(judging, "evaluate", spy)
    words = f"evaluate --benchmark folder --root {tmp_path} --detector anyanomaly --model M --device cpu --seed 3 "
    words += "--option segment=8 --option weights=[1,0,0] --benchmark-option unit=seconds --anomaly fire "
    words += "--no-reference --tune-on-test --bootstrap 7 --fresh --out x"
    assert run(words.split()) == 2
    ((settings, out, fresh),) = seen
    assert settings == judging.Settings(
        benchmark="folder",
        root=str(tmp_path),
        benchmark_options={"unit": "seconds"},
        detector="anyanomaly",
        options={"segment": 8, "weights": [1, 0, 0], "model": "M"},
        device="cpu",
        categories=("fire",),
        reference=False,
        tune_on_test=True,
        bootstrap=7,
        seed=3,
    )
    assert (out, fresh) == (Path("x"), True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("evaluate --benchmark ped3 --root . --detector motion", 2, "unknown benchmark 'ped3'; allowed: ped2, avenue"),
        ("evaluate --benchmark ped2 --root . --detector magic", 2, "unknown detector 'magic'; allowed: motion, clip"),
        ("evaluate --benchmark ped2 --root . --detector lavida", 2, "the detector lavida needs a trained model; give"),
        ("evaluate --benchmark ped2 --root nowhere --detector motion", 2, "'nowhere' does not exist"),
        ("evaluate --benchmark ped2 --root . --detector motion", 2, "no video: no folder Test/Test001 and so on"),
        ("evaluate --benchmark ped2 --root . --detector motion --workers 2", 2, "belong to --ray"),
        ("evaluate --benchmark ped2 --root . --detector motion --option pixels", 2, "'pixels' is not NAME=VALUE"),
        ("evaluate --benchmark ped2 --root . --detector motion --option pixels=[", 2, "the value of pixels is no YAML"),
        ("evaluate --benchmark ped2 --root . --detector motion --option pixel=1", 2, "did you mean pixels?"),
        ("detect lost.mp4 --anomaly x --out o --detector motion", 2, "lost.mp4: there is no such file or folder"),
        ("detect a.txt --anomaly x --out o", 2, "the detector lavida needs a trained model"),
        ("detect a.txt --anomaly x --out o --detector motion", 2, "a.txt: a video cannot be read"),
        ("detect a.txt --out o --detector motion", 2, "Missing option '--anomaly'"),
        ("detect http://127.0.0.1:1/x --anomaly x --out o --detector motion", 2, "it cannot be reached: Connection"),
        ("detect a.txt --anomaly x --out o --detector motion --threshold nan", 2, "nan is no number to compare with"),
        ("detect a.txt --anomaly x --out o --detector motion --seconds nan", 2, "nan is no number to compare with"),
        ("detect a.txt --anomaly x --out o --detector motion --option name=x", 2, "name is given by an option of its"),
        ("evaluate --benchmark ped2 --root . --detector motion --benchmark-option root=x", 2, "root is given by an"),
        ("detect a.txt --anomaly x --out o --detector motion --device cpu", 2, "a.txt: a video cannot be read"),
        ("detect a.txt --anomaly x --out o --detector clip --device cpu --option device=b", 2, "no such device: "),
        ("serve", 2, "the detector lavida needs a trained model"),
        ("ablate lost.yaml", 2, "lost.yaml: there is no such file"),
        ("benchmarks --check .", 2, "--check needs a NAME"),
        ("benchmarks c-shet", 2, "did you mean c-sht?"),
        ("train --config lost.yaml", 2, "lost.yaml"),
    ],
)
def test_what_is_refused_in_one_line(
    words: str,
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("no video")
    assert run(words.split()) == code
    told = capsys.readouterr()
    assert message in " ".join(told.err.split())
    assert "Traceback" not in told.err
    assert told.out == ""


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ablate", "lost.yaml", "--debug"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.splitlines()[-1] == "lavida: lost.yaml: there is no such file"


def test_benchmarks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmarks"]) == 0
    assert "C-ShT, customised detection on ShanghaiTech" in capsys.readouterr().out
    assert run(["benchmarks", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"ped2", "c-ave", "folder"}
    assert run(["benchmarks", "ped2"]) == 0
    told = capsys.readouterr().out
    assert "ROOT/Test/" in told
    assert "the whole set: 12 videos, 2,010 frames, 1,648 anomalous" in told
    assert "87.68" in told
    assert run(["benchmarks", "ped2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["expected"] == {"videos": 12, "frames": 2010, "anomalous": 1648}
    assert {row["method"] for row in document["published"]} >= {"LAVIDA", "TAO"}
    whole = vad_worlds.make("folder", tmp_path / "folder")
    assert run(["benchmarks", "folder", "--check", str(whole.root)]) == 0
    assert capsys.readouterr().out == "folder: all there\n"
    part = vad_worlds.make("ped2", tmp_path / "ped2")
    assert run(["benchmarks", "ped2", "--check", str(part.root)]) == 1
    assert capsys.readouterr().out == "2 videos of 12\nped2: 1 fault\n"
    assert run(["benchmarks", "ped2", "--check", str(part.root), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"benchmark": "ped2", "faults": ["2 videos of 12"]}
    for name in ("ped2", "folder"):
        assert run(["benchmarks", name, "--check", str(tmp_path / "lost")]) == 1


def test_detect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mp4", "b.mp4"):
        worlds_videos.write_video(tmp_path / "in" / name, worlds_videos.numbered(30), rate=10)
    out = tmp_path / "out"
    arguments = ["detect", str(tmp_path / "in"), "--anomaly", "x", "--detector", "motion", "--out", str(out)]
    assert run([*arguments, "--threshold", "0", "--no-overlay", "--peaks", "0"]) == 0
    told = capsys.readouterr()
    assert "a: 30 frames, 3.0 s, the video ended; 1 interval" in told.out
    assert "b: 30 of 30" in told.err
    assert sorted(path.name for path in (out / "b").iterdir()) == [
        "intervals.json",
        "scores.csv",
        "scores.parquet",
        "timeline.png",
    ]
    assert run([*arguments, "--seconds", "1", "--json", "--no-overlay", "--peaks", "0"]) == 0
    told = capsys.readouterr()
    first, second = json.loads(told.out)
    assert told.err == ""
    assert (first["video"], first["frames"], second["video"]) == ("a", 10, "b")
    assert Path(first["files"]["scores.csv"]).is_file()


def test_ablate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    world = vad_worlds.make("avenue", tmp_path / "avenue")
    grid = {"name": "chunks", "detector": "motion", "columns": [{"benchmark": "avenue"}, {"benchmark": "ped2"}]}
    grid["rows"] = [{"name": "two", "options": {"chunk": 2}}, {"name": "nine", "options": {"chunk": 9}}]
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    monkeypatch.chdir(tmp_path)
    assert run(["ablate", "grid.yaml", "--list"]) == 0
    assert "chunk 9" in capsys.readouterr().out
    assert run(["ablate", "grid.yaml", "--root", f"avenue={world.root}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    values = {row["name"]: row["cells"]["avenue"]["value"] for row in told["rows"]}
    assert values["two"] == values["nine"] == values["motion"]
    assert told["left_out"] == ["ped2"]
    assert (tmp_path / "ablations/chunks/nine/avenue/table.md").is_file()
    assert run(["ablate", "grid.yaml", "--root", f"avenue={world.root}"]) == 0
    assert "avenue here" in capsys.readouterr().out


def test_ablate_on_ray_trains_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lavida import ablate
    from lavida.evaluate import Inline
    from lavida.training import cluster

    seen: list[Any] = []

    def launch(config: Any, **how: Any) -> Any:
        seen.append((config, how))
        return SimpleNamespace(model=tmp_path / "model")

    def ablated(*given: Any, trainer: Any, **how: Any) -> Any:
        assert trainer is None or trainer("a run") == tmp_path / "model"
        raise CorpusError("enough")

    monkeypatch.setattr(cluster, "launch", launch)
    monkeypatch.setattr(ablate, "ablate", ablated)
    monkeypatch.setattr("lavida.cli._executor", lambda *asked: contextlib.nullcontext(Inline()))
    grid = {"name": "x", "detector": "motion", "columns": [{"benchmark": "avenue"}], "rows": [{"name": "one"}]}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    command = ["ablate", str(tmp_path / "grid.yaml"), "--root", "avenue=."]
    assert run(command) == 2
    assert seen == []
    assert run([*command, "--ray", "--workers", "4", "--address", "auto"]) == 2
    assert seen == [("a run", {"workers": 4, "address": "auto"})]


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from lavida import training

    seen: list[Any] = []

    def train(config: training.TrainConfig, *, resume: bool) -> Any:
        seen.append((config, resume))
        return SimpleNamespace(steps=60, model=tmp_path / "model", metrics={"auc": 0.75, "iou": None}, best=None)

    monkeypatch.setattr(training, "train", train)
    recipe = Path(__file__).resolve().parents[1] / "pipelines/train-tiny.yaml"
    arguments = ["train", "--config", str(recipe), "--set", "optimizer.lr=1e-4", "--out", str(tmp_path / "run")]
    assert run(arguments) == 0
    told = capsys.readouterr().out
    assert told == f"{tmp_path}/model: 60 steps\n  auc: 0.75\n  iou: -\n"
    config, resume = seen[0]
    assert (config.optimizer.lr, config.folder, resume) == (1e-4, tmp_path / "run", True)
    assert run([*arguments, "--fresh", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {"auc": 0.75, "iou": None}
    assert seen[1][1] is False
    monkeypatch.setenv("RANK", "1")
    assert run(arguments) == 0
    assert capsys.readouterr().out == ""
    assert run(["train", "--config", str(recipe), "--workers", "2"]) == 2


def test_train_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lavida.training import cluster

    seen: dict[str, Any] = {}

    def launch(config: Any, **how: Any) -> Any:
        seen.update(how)
        return SimpleNamespace(steps=1, model=tmp_path, metrics={}, best=None)

    monkeypatch.setattr(cluster, "launch", launch)
    recipe = Path(__file__).resolve().parents[1] / "pipelines/train-tiny.yaml"
    assert run(["train", "--config", str(recipe), "--ray", "--workers", "2", "--address", "auto"]) == 0
    assert seen == {"workers": 2, "address": "auto", "resume": True}
