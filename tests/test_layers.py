"""The layers of aesampler and of lavida: who may import whom, and where the heavy packages may be named."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class House:
    """A package and its rules.

    order: its layers; a module imports only what stands before it, and a package within is one layer. confined:
    package -> the only files, or folders (ending in /), that may import it. borrows: another house -> its layers that
    may be imported.
    """

    name: str
    root: Path
    order: tuple[str, ...]
    confined: dict[str, tuple[str, ...]]
    borrows: dict[str, tuple[str, ...]]

    def modules(self) -> dict[str, ast.Module]:
        """Path below the root -> its syntax tree."""
        paths = sorted(self.root.rglob("*.py"))
        return {path.relative_to(self.root).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}

    def faults(self, files: dict[str, ast.Module]) -> list[str]:
        """One line for each breach of the layers or of the confinement."""
        return [line for path, tree in files.items() for line in self._faults(path, tree)]

    def _faults(self, path: str, tree: ast.Module) -> list[str]:
        if path != "__init__.py" and _layer(path) not in self.order:
            return [f"{path}: not in the order of layers; give it a place in tests/test_layers.py"]
        lines = []
        for name, line in imports(self.name, path, tree):
            first, _, rest = name.partition(".")
            allowed = self.confined.get(first)
            if allowed is not None and not any(path == each or path.startswith(each) for each in allowed):
                lines.append(f"{path}:{line}: imports {first}, which only {' and '.join(allowed)} may")
            if first == self.name and path != "__init__.py":
                lines += self._ahead(path, line, rest.split(".")[0])
            if first in HOUSES and first != self.name and rest.split(".")[0] not in self.borrows.get(first, ()):
                lines.append(f"{path}:{line}: imports {name}, which {self.name} does not borrow")
        return lines

    def _ahead(self, path: str, line: int, target: str) -> list[str]:
        if target not in self.order:
            return [f"{path}:{line}: imports {target or self.name}, which is no layer"]
        if target != _layer(path) and self.order.index(target) > self.order.index(_layer(path)):
            return [f"{path}:{line}: imports {target}, which stands after {_layer(path)}"]
        return []


AESAMPLER = House(
    name="aesampler",
    root=CHECKOUT / "aesampler",
    order=(
        *("errors", "machine", "rng", "disk", "stores", "storage", "image", "png", "masks", "video", "record", "scene"),
        *("vocabulary", "sources", "catalog", "relations", "sharing", "audit", "exposure", "_torchvision"),
        *("similarity", "sample", "shard", "manifest", "head", "shortcut", "stream", "corpus", "recipe", "plan"),
        *(
            "worker",
            "executors",
            "show",
            "pictures",
            "report",
            "export",
            "build",
            "verify",
            "demo",
            "progress",
            "command",
            "cli",
        ),
        "__main__",
    ),
    confined={
        "ray": (
            *("executors/session.py", "executors/survey.py", "executors/cluster.py"),
            *("stream/ray_data.py", "stream/ray_train.py"),
        ),
        "datasets": ("sources/hugging_face.py", "stream/hugging_face.py"),
        "open_clip": ("similarity.py",),
        "torch": ("similarity.py", "_torchvision.py", "stream/loader.py"),
        "av": ("video.py",),
    },
    borrows={},
)

LAVIDA = House(
    name="lavida",
    root=CHECKOUT / "trainer" / "lavida",
    order=(
        *("session", "clip", "data", "model", "metrics", "training", "detectors", "benchmarks", "plots"),
        *("evaluate", "detect", "ablate", "serve", "cli", "__main__"),
    ),
    confined={
        "ray": ("training/cluster.py", "evaluate/cluster.py"),
        "open_clip": ("clip.py",),
        "torch": ("clip.py", "data/", "model/", "training/", "detectors/"),
        "av": (),
        "matplotlib": ("plots.py",),
    },
    borrows={
        "aesampler": (
            *("errors", "machine", "rng", "storage", "image", "masks", "video", "scene", "exposure", "_torchvision"),
            *("sample", "manifest", "stream", "corpus", "executors", "progress", "command"),
        )
    },
)

HOUSES = {house.name: house for house in (AESAMPLER, LAVIDA)}


def _layer(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imports(house: str, path: str, tree: ast.Module) -> list[tuple[str, int]]:
    """(absolute dotted name, line) of every import in a file, at whatever depth, under `if TYPE_CHECKING` too."""
    here = [house, *path.removesuffix(".py").split("/")]
    package = here[:-1]  # of a module as of an __init__
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from aesampler import storage` names a module in the list, `from aesampler.storage import Folder` ahead.
            names = [f"{name}.{alias.name}" for alias in node.names] if name in HOUSES else [name]
            found += [(each, node.lineno) for each in names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [(str(name.value), node.lineno) for name in node.args[:1] if isinstance(name, ast.Constant)]
    return found


@pytest.mark.parametrize("house", HOUSES.values(), ids=HOUSES)
def test_the_layers_hold(house: House) -> None:
    files = house.modules()
    assert len(files) > 5, f"no modules found under {house.root}"
    assert house.faults(files) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("masks.py", "from aesampler.sample import render", "imports sample, which stands after masks"),
        ("masks.py", "def f():\n    from aesampler import build", "masks.py:2: imports build"),
        ("masks.py", "from .cli import main", "imports cli"),
        ("masks.py", "import aesampler.cli", "imports cli"),
        ("sources/coco.py", "from .. import recipe", "imports recipe"),
        ("sources/coco.py", "from ..recipe import Recipe", "imports recipe"),
        ("executors/inline.py", "import ray.util", "only executors/session.py"),
        ("__init__.py", "import torch", "only similarity.py and _torchvision.py and stream/loader.py"),
        ("masks.py", "import importlib\nimportlib.import_module('torch')", "imports torch, which only similarity.py"),
        ("utils.py", "", "not in the order of layers"),
        ("masks.py", "import aesampler", "is no layer"),
        ("cli.py", "from lavida.model import LavidaModel", "which aesampler does not borrow"),
    ],
)
def test_breaches_are_seen(path: str, source: str, fault: str) -> None:
    found = AESAMPLER.faults({path: ast.parse(source)})
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("data/batch.py", "from lavida.model import LavidaModel", "imports model, which stands after data"),
        ("cli.py", "import torch", "imports torch, which only clip.py"),
        ("metrics.py", "from aesampler.build import build_corpus", "which lavida does not borrow"),
        ("metrics.py", "import aesampler", "which lavida does not borrow"),
    ],
)
def test_breaches_of_the_trainer_are_seen(path: str, source: str, fault: str) -> None:
    found = LAVIDA.faults({path: ast.parse(source)})
    assert len(found) == 1
    assert fault in found[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "sources/coco.py",
            "from aesampler.sources.source import Source\nfrom .source import Survey\nfrom . import lvis",
        ),
        ("cli.py", "from aesampler.errors import SourceError\nfrom aesampler import build"),
        ("executors/cluster.py", "import ray"),
        ("__init__.py", "from aesampler.cli import main"),
    ],
)
def test_sound_imports_pass(path: str, source: str) -> None:
    assert AESAMPLER.faults({path: ast.parse(source)}) == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("aesampler", {"torch", "ray", "open_clip", "av", "lavida"}),
        ("lavida", {"torch", "ray", "open_clip", "av", "matplotlib", "transformers"}),
        ("lavida.cli", {"torch", "ray", "open_clip", "av", "matplotlib", "transformers", "starlette"}),
    ],
)
def test_importing_is_light(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=CHECKOUT, timeout=300
    )
    assert set(loaded.stdout.split()) & absent == set()
