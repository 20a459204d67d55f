"""The layers of aesampler: who may import whom, and where the heavy packages may be named."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "aesampler"

# A module imports only what stands before it; a package is one layer.
ORDER = (
    *("errors", "rng", "storage", "image", "png", "masks", "video", "record", "scene", "vocabulary", "sources"),
    *("catalog", "relations", "audit", "exposure", "_torchvision", "similarity", "sample", "shard", "manifest"),
    *("shortcut", "stream", "corpus", "recipe", "plan", "worker", "executors", "show", "report", "export", "build"),
    *("verify", "demo", "progress", "cli", "__main__"),
)

# Package -> the only files that may import it.
CONFINED = {
    "ray": ("executors/cluster.py",),
    "open_clip": ("similarity.py",),
    "torch": ("similarity.py", "_torchvision.py", "stream/loader.py"),
    "av": ("video.py",),
}


def modules() -> dict[str, ast.Module]:
    """Path below aesampler/ -> its syntax tree."""
    paths = sorted(ROOT.rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def layer(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def imports(path: str, tree: ast.Module) -> list[tuple[str, int]]:
    """(absolute dotted name, line) of every import in a file, at whatever depth, under `if TYPE_CHECKING` too."""
    here = ["aesampler", *path.removesuffix(".py").split("/")]
    package = here[:-1]  # of a module as of an __init__
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            # `from aesampler import storage` names a module in the list, `from aesampler.storage import Folder` ahead.
            names = [f"{name}.{alias.name}" for alias in node.names] if name == "aesampler" else [name]
            found += [(each, node.lineno) for each in names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [(str(name.value), node.lineno) for name in node.args[:1] if isinstance(name, ast.Constant)]
    return found


def faults(files: dict[str, ast.Module]) -> list[str]:
    """One line for each breach of the layers or of the confinement."""
    lines = []
    for path, tree in files.items():
        if path != "__init__.py" and layer(path) not in ORDER:
            lines.append(f"{path}: not in the order of layers; give it a place in tests/test_layers.py")
            continue
        for name, line in imports(path, tree):
            first, _, rest = name.partition(".")
            if first in CONFINED and path not in CONFINED[first]:
                lines.append(f"{path}:{line}: imports {first}, which only {' and '.join(CONFINED[first])} may")
            if first != "aesampler" or path == "__init__.py":
                continue
            target = rest.split(".")[0]
            if target not in ORDER:
                lines.append(f"{path}:{line}: imports {name}, which is no layer")
            elif target != layer(path) and ORDER.index(target) > ORDER.index(layer(path)):
                lines.append(f"{path}:{line}: imports {target}, which stands after {layer(path)}")
    return lines


def test_the_layers_hold() -> None:
    files = modules()
    assert len(files) > 5, f"no modules found under {ROOT}"
    assert faults(files) == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("masks.py", "from aesampler.sample import render", "imports sample, which stands after masks"),
        ("masks.py", "def f():\n    from aesampler import build", "masks.py:2: imports build"),
        ("masks.py", "from .cli import main", "imports cli"),
        ("masks.py", "import aesampler.cli", "imports cli"),
        ("sources/coco.py", "from .. import recipe", "imports recipe"),
        ("sources/coco.py", "from ..recipe import Recipe", "imports recipe"),
        ("executors/inline.py", "import ray.util", "only executors/cluster.py may"),
        ("__init__.py", "import torch", "only similarity.py and _torchvision.py and stream/loader.py may"),
        (
            "masks.py",
            "import importlib\nimportlib.import_module('torch')",
            "only similarity.py and _torchvision.py and stream/loader.py may",
        ),
        ("utils.py", "", "not in the order of layers"),
        ("masks.py", "import aesampler", "is no layer"),
    ],
)
def test_breaches_are_seen(path: str, source: str, fault: str) -> None:
    found = faults({path: ast.parse(source)})
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
    assert faults({path: ast.parse(source)}) == []


def test_importing_aesampler_is_light() -> None:
    code = "import sys, aesampler; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT.parent)
    assert set(loaded.stdout.split()) & {"torch", "ray", "open_clip", "av", "lavida"} == set()
