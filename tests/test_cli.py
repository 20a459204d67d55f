"""The command line as a person types it: what it prints, its exit codes, and one line for every error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import corpora
import pytest
import worlds
import worlds_videos
from PIL import Image

from aesampler.cli import run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    worlds.coco(tmp_path / "coco", images=12)
    file = tmp_path / "r.yaml"
    file.write_text("name: tiny\nout: corpus\nseed: 1\nsources: [{name: coco, format: coco, root: coco}]\n")
    return file


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return corpora.write(tmp_path / "tiny", (corpora.Part(source="coco", shards=(4,)),)).path


def test_from_recipe_to_picture(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--config", str(config), "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["samples"], planned["sources"][0]["kind"]) == (12, "image")
    assert not (tmp_path / "corpus").exists()

    assert run(["build", "--config", str(config), "--executor", "inline", "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert (built["built_shards"], built["totals"]["samples"]) == (1, 12)
    assert run(["build", "--config", str(config), "--executor", "inline"]) == 0
    assert "0 shards made, 1 kept" in capsys.readouterr().out

    corpus = str(tmp_path / "corpus")
    assert run(["verify", corpus, "--deep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []

    assert run(["show", corpus, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert run(["show", corpus]) == 0
    assert "coco" in capsys.readouterr().out
    key = (
        json.loads((tmp_path / "corpus" / "corpus.json").read_text())
        and "coco_" + worlds.coco(tmp_path / "again", images=12).ids[0]
    )
    assert run(["show", corpus, "--key", key, "--out", str(tmp_path / "one.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == key
    assert run(["show", corpus, "--grid", "4", "--out", str(tmp_path / "grid.png")]) == 0
    for name in ("one.png", "grid.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 100


def test_verify_tells_what_is_bad_by_exit_code_1(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["build", "--config", str(config), "--executor", "inline"])
    corpus = config.parent / "corpus"
    tar = next(corpus.rglob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    capsys.readouterr()
    assert run(["verify", str(corpus)]) == 1
    assert "train/coco-000000.tar" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["coco", "lvis", "ade20k", "ade20k-150", "davis", "youtube-vos"])
def test_sources_and_init(format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sources"]) == 0
    assert format in capsys.readouterr().out
    assert run(["sources", format]) == 0
    told = capsys.readouterr().out
    assert "layout" in told
    assert "subset" in told
    made = getattr(worlds, format.replace("-", "_"))(tmp_path / "data")
    assert run(["sources", format, "--check", str(made.root), "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert (checked["records"], checked["missing_pictures"]) == (len(made.ids), 0)
    target = tmp_path / "mine.yaml"
    assert run(["init", format, "--out", str(target)]) == 0
    assert f"format: {format}" in target.read_text()
    assert run(["init", format, "--out", str(target)]) == 2
    assert "there already" in capsys.readouterr().err


def test_a_format_that_needs_an_option_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worlds_videos.mose(tmp_path)
    check = ["sources", "mose", "--check", str(tmp_path), "--json"]
    assert run(check) == 2
    assert "names" in capsys.readouterr().err
    assert run([*check, "--option", "names=names.json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_pictures"] == 0
    assert run([*check, "--option", "nmes=names.json"]) == 2
    assert "did you mean 'names'" in capsys.readouterr().err
    assert run([*check, "--option", "names"]) == 2
    assert "write NAME=VALUE" in capsys.readouterr().err


def test_the_way_of_a_newcomer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """init, build, verify, show in one folder, as the README has them: nothing is written outside of it."""
    made = worlds.coco(tmp_path / "data", images=12)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COCO_ROOT", str(made.root))
    for arguments in (
        ["init", "coco"],
        ["build", "--config", "coco.yaml", "--executor", "inline"],
        ["verify", "corpora/coco", "--deep"],
        ["show", "corpora/coco", "--grid", "4", "--out", "look.png"],
        ["init", "train-tiny"],
        ["init", "lavida-paper"],
    ):
        assert run(arguments) == 0, capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"data", "work"}
    assert "corpora: aesampler-demo/corpus" in Path("train-tiny.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["build", "--config", "none.yaml"], "none.yaml: no such recipe"),
        (["plan", "--config", "none.yaml"], "none.yaml: no such recipe"),
        (["show", "nowhere"], "nowhere"),
        (["verify", "nowhere"], "nowhere"),
        (["sources", "cocoo"], "did you mean coco"),
        (["init", "cocoo"], "did you mean coco"),
        (["sources", "coco", "--check", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert error.startswith("aesampler: ")


def test_a_wrong_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build"]) == 2
    assert run(["buidl"]) == 2
    assert run(["build", "--executor", "inline", "--workers", "3", "--config", "x"]) == 2
    capsys.readouterr()


def test_a_bad_record_above_the_tolerance_is_exit_code_3(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    next((config.parent / "coco").rglob("*.jpg")).write_bytes(b"no picture")
    assert run(["build", "--config", str(config), "--executor", "inline"]) == 3
    error = capsys.readouterr().err
    assert "1 of 12 samples failed" in error


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aesampler", "plan", "--config", str(tmp_path / "none.yaml"), "--debug"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert told.returncode != 0
    assert "Traceback" in told.stderr


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    commands = ["build", "plan", "verify", "show", "export", "sources", "init", "demo"]
    told = capsys.readouterr().out
    for command in commands:
        assert f"  {command} " in told
        assert run([command, "--help"]) == 0
        assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize(
    "place", ["{corpus}/corpus.json", "{corpus}/x.png", "recipe.yaml", "sheet.jpg", "sheet", "moving.webp"]
)
def test_pictures_take_the_place_of_nothing_else(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    target = tmp_path / place.format(corpus=tiny)
    if not target.exists():
        target.write_text("mine")
    before = target.read_bytes()
    assert run(["show", str(tiny), "--grid", "2", "--out", str(target)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert target.read_bytes() == before
    if target.read_text() == "mine":
        target.unlink()


def test_mistakes_are_one_line(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = {
        ("show", str(tiny), "--out", "a.png"): "give --grid N or --key KEY too",
        ("show",): "Missing argument 'CORPUS'; see aesampler show --help",
        ("show", str(tiny), "--gird", "2"): "Did you mean '--grid'?",
        ("sources", "coco", "--check", ""): "it is empty",
        ("demo", "--out", ""): "it is empty",
        ("sources", "coco", "--check", "x", "--option", "limit=2026-02-30"): "day",
    }
    for arguments, said in told.items():
        assert run(list(arguments)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("aesampler: ")
        assert said in line


def test_a_table_that_does_not_fit_becomes_lines(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    told = {}
    for width in ("100", "40"):
        monkeypatch.setenv("COLUMNS", width)
        assert run(["show", str(tiny)]) == 0
        told[width] = capsys.readouterr().out
    assert "\u2026" not in told["40"]
    assert "coco, split train, holds pictures, samples 4" in " ".join(told["40"].split())
    assert "coco, split train" not in told["100"]
