"""What docs/clients.md shows is true: its programs run on the demo's corpus, its commands parse. Those of Energon,
mlcroissant and DALI are run by test_clients_peers.py, in an environment of their own, and compiled here.
"""

from __future__ import annotations

import gc
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apart import apart, executed

from aesampler import Corpus
from aesampler.cli import cli, run

CLIENTS = (Path(__file__).resolve().parents[1] / "docs/clients.md").read_text(encoding="utf-8")

leaves_files_open = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"),
]


def blocks(title: str, language: str = "python") -> list[str]:
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", CLIENTS, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def commands(name: str) -> list[list[str]]:
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", CLIENTS, flags=re.MULTILINE | re.DOTALL))
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{name} ")]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    assert run(["demo", "--out", str(folder / "aesampler-demo")]) == 0
    return folder


@pytest.fixture
def collected() -> Iterator[None]:
    yield
    gc.collect()


def execute(title: str) -> dict[str, Any]:
    (text,) = blocks(title)
    scope: dict[str, Any] = {}
    exec(compile(text, f"docs/clients.md, {title}", "exec"), scope)
    return scope


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize(
    "title",
    [
        pytest.param("webdataset", marks=leaves_files_open),
        pytest.param("datasets", marks=leaves_files_open),
        "PyTorch with plain tarfile",
        "Tools that read COCO JSON",
        pytest.param("Ray Data", marks=pytest.mark.long),
        pytest.param("A stream as a tar", marks=leaves_files_open),
        "A stream in datasets",
        pytest.param("A stream in Ray Data", marks=pytest.mark.long),
        pytest.param("A stream in Ray Train", marks=pytest.mark.long),
    ],
)
def test_a_program_runs(title: str, demo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To its end, and the last sample that it came to is of the demo."""
    monkeypatch.chdir(demo)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no file of a token in the home folder
    if title == "Tools that read COCO JSON":
        assert run(["export", "coco", "aesampler-demo/corpus", "aesampler-demo/coco"]) == 0
    scope = apart(executed, *blocks(title)) if "Ray" in title else execute(title)
    keys = set(Corpus.open("aesampler-demo/corpus").keys("train"))
    found = scope.get("sample") or scope.get("image") or scope.get("body")
    assert (found.get("__key__") or found["key"]) in keys


def test_the_plain_reader_gives_every_sample(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    scope = execute("PyTorch with plain tarfile")
    corpus = Corpus.open("aesampler-demo/corpus")
    shares = [list(scope["Shapes"](scope["shards"], rank, 2)) for rank in range(2)]
    found = {body["key"]: (picture, mask, body) for share in shares for picture, mask, body in share}
    assert len(found) == sum(map(len, shares))
    assert found.keys() == set(corpus.keys("train", "shapes"))
    for key, (picture, mask, body) in found.items():
        sample = corpus[key]
        assert (picture.numpy() == sample.frames[0]).all()
        assert (mask.numpy() == sample.masks[0]).all()
        assert body["categories"] == list(sample.categories)


@pytest.mark.parametrize("arguments", commands("aesampler"), ids=" ".join)
def test_a_command_is_one(arguments: list[str]) -> None:
    name, *rest = arguments
    cli.commands[name].make_context(name, rest)


def test_the_rest_compiles() -> None:
    for title in ("NVIDIA DALI", "Megatron-Energon", "mlcroissant"):
        for text in blocks(title):
            compile(text, title, "exec")
    assert len(commands("aesampler")) == 3
    assert len(commands("energon")) == 1
