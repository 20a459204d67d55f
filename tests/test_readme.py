"""What the README shows is true: its recipe is read, its commands parse, its Python runs on the demo's corpus."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesampler import Corpus
from aesampler.cli import cli, run
from aesampler.recipe import Recipe
from lavida.cli import cli as lavida

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def session(word: str) -> str:
    """The first Python block that holds `word`."""
    return next(block for block in blocks("python") if word in block)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{program} ")]


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


@pytest.mark.parametrize("arguments", commands("aesampler"), ids=" ".join)
def test_a_command_is_one(arguments: list[str]) -> None:
    name, *rest = arguments
    command = cli.commands[name]
    command.make_context(name, rest)


@pytest.mark.parametrize("arguments", commands("lavida"), ids=" ".join)
def test_a_command_of_the_trainer_is_one(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *rest = arguments
    for place in ("data/UCSDped2", "runs/train-tiny/model"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    (tmp_path / "street.mp4").touch()
    monkeypatch.chdir(tmp_path)
    lavida.commands[name].make_context(name, rest)


def test_the_python_runs(demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(demo)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    first = session("Corpus.open")
    scope: dict[str, object] = {}
    exec(compile(first, "README.md", "exec"), scope)
    assert "sample" in scope


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_the_clients_run(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    second = session("import datasets")
    scope: dict[str, object] = {}
    exec(compile(second, "README.md", "exec"), scope)
    assert next(iter(scope["shapes"]))["json"]["categories"]  # type: ignore[call-overload]


def test_a_package_of_a_third_party_brings_its_format(tmp_path: Path) -> None:
    """The README's own package, installed by pip into a folder, seen by a new process."""
    package, site, data = tmp_path / "package", tmp_path / "site", tmp_path / "data"
    package.mkdir()
    (package / "my_formats.py").write_text(session("class Pairs"))
    (toml,) = blocks("toml")
    (package / "pyproject.toml").write_text(toml)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(site), str(package)], check=True, timeout=300)
    for name, shade in (("dog", 60), ("cat", 200)):
        (data / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (16, 12), (shade, number, 0)).save(data / name / f"{number}.jpg")
            mask = Image.new("L", (16, 12))
            mask.paste(255, (number, 2, number + 4, 8))
            mask.save(data / name / f"{number}.png")
    (tmp_path / "r.yaml").write_text(
        f"name: mine\nsources: [{{name: mine, format: pairs, root: {data}, split: train}}]\n"
    )
    environment = os.environ | {"PYTHONPATH": str(site)}

    def aesampler(*arguments: str) -> str:
        command = [sys.executable, "-m", "aesampler", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300
        ).stdout

    assert "a folder a name, a mask beside each picture" in aesampler("sources")
    aesampler("build", "--config", "r.yaml", "--out", "out", "--executor", "inline")
    aesampler("verify", "out", "--deep")
    corpus = Corpus.open(tmp_path / "out")
    assert len(corpus) == 10
    assert {name for row in corpus.rows() for name in row.categories} == {"cat", "dog"}
    for row in corpus.rows():
        number = int(row.origin.split("/")[1][0])
        expected = np.zeros((12, 16), dtype=bool)
        expected[2:8, number : number + 4] = row.anomalous
        assert (corpus[row.key].masks[0] == expected).all()


def test_the_picture_is_what_the_demo_makes(demo: Path) -> None:
    """Pixel for pixel but for the last bit of a JPEG decoder."""
    with Image.open(demo / "aesampler-demo/look.png") as made, Image.open(ROOT / "docs/look.png") as shown:
        difference = np.abs(np.asarray(made, dtype=int) - np.asarray(shown, dtype=int))
    assert difference.mean() < 0.5


def test_every_path_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        path, _, heading = target.partition("#")
        assert target.startswith("https://arxiv.org/") or (ROOT / path).exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in titles}, target
    for name in ("pipelines", "manifests", "tests", "benchmarks", "docs"):
        assert os.path.isdir(ROOT / name)
