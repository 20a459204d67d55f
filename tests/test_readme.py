"""What the README shows is true: its recipe is read, its commands parse, its Python runs on the demo's corpus."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesampler.cli import cli, run
from aesampler.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("aesampler ")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    assert run(["demo", "--out", str(folder / "aesampler-demo")]) == 0
    return folder


def test_the_recipe_is_a_recipe() -> None:
    (text,) = blocks("yaml")
    recipe = Recipe.parse(text)
    assert [entry.name for entry in recipe.sources] == ["coco", "davis"]
    written = set(re.findall(r"^(\w+):", text, flags=re.MULTILINE))
    assert written == set(Recipe.model_fields) - {"base", "allow_shared_groups"}
    exposure = set(re.findall(r"^  (\w+):", text.split("exposure:   ")[1].split("clips:")[0], flags=re.MULTILINE))
    assert exposure == set(type(recipe.exposure).model_fields) - {"similarity"}


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_a_command_is_one(arguments: list[str]) -> None:
    name, *rest = arguments
    command = cli.commands[name]
    command.make_context(name, rest)


def test_the_python_runs(demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(demo)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    first, _ = blocks("python")
    scope: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), scope)
    assert "sample" in scope


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_the_clients_run(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    _, second = blocks("python")
    scope: dict[str, object] = {}
    exec(compile(second, "README.md", "exec"), scope)
    assert next(iter(scope["shapes"]))["json"]["categories"]  # type: ignore[call-overload]


def test_the_picture_is_what_the_demo_makes(demo: Path) -> None:
    """Pixel for pixel but for the last bit of a JPEG decoder."""
    with Image.open(demo / "aesampler-demo/look.png") as made, Image.open(ROOT / "docs/look.png") as shown:
        difference = np.abs(np.asarray(made, dtype=int) - np.asarray(shown, dtype=int))
    assert difference.mean() < 0.5


def test_every_path_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://arxiv.org/") or (ROOT / target).exists(), target
    for name in ("pipelines", "manifests", "tests", "benchmarks", "docs"):
        assert os.path.isdir(ROOT / name)
