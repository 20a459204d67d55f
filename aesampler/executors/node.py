"""What a machine needs before it may work for a build: this very code, and the same view of every folder.

`pack` puts the package, and those that add formats to it, into a folder to be sent to machines where nothing was
installed by hand. `View` is what the driver sees; `View.faults` is what a machine sees otherwise. Versions are compared
because the bytes of a corpus depend on them, pictures because an empty mount point looks like a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import itertools
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aesampler import sources
from aesampler.catalog import PARQUET
from aesampler.errors import AesamplerError, RecipeError
from aesampler.storage import Folder
from aesampler.worker import Job

PACKAGE = Path(__file__).resolve().parents[1]
"""Where this code lies."""
MOUNT = "mount it at the same path on every node (a network disk), or use an object store"
PICTURES = 3
"""Pictures of each source that a machine is asked for, with their sizes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that a machine sees otherwise than the driver. where: the path, or (not is_path) the tool."""

    where: str
    what: str
    do: str
    is_path: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the driver sees. pictures: files of some, (root, path below it, bytes). weights: files of CLIP's. probe: a
    file of OUT that holds `token`. versions: of the tools that bytes depend on. code: hash of the package's files.
    formats: those of the recipe.
    """

    roots: tuple[Folder, ...]
    pictures: tuple[tuple[Folder, str, int], ...]
    weights: tuple[str, ...]
    catalogs: tuple[Folder, ...]
    out: Folder
    probe: str
    token: bytes
    versions: tuple[tuple[str, str], ...]
    code: str
    formats: tuple[str, ...]

    @classmethod
    def of(cls, job: Job, probe: str, token: bytes) -> View:
        """The view of this machine, which has just put the file `probe` holding `token` into OUT."""
        pictures = []
        for root, catalog in zip(job.roots, job.catalogs, strict=True):
            for entry in catalog.rows(0, min(catalog.records, PICTURES)):
                pictures += [(root, *found) for found in _file(root, entry.record.frames[0])]
        return cls(
            roots=tuple(dict.fromkeys(job.roots)),
            pictures=tuple(dict.fromkeys(pictures)),
            catalogs=tuple(catalog.folder for catalog in job.catalogs),
            out=job.out,
            probe=probe,
            token=token,
            weights=tuple(dict.fromkeys(path for path in job.weights if path is not None and Path(path).is_file())),
            versions=tuple((name, version(name)) for name in (*job.packages, "processor")),
            code=code_sha256(),
            formats=tuple(dict.fromkeys(entry.format for entry in job.recipe.sources)),
        )

    def faults(self) -> Iterator[Fault]:
        """What this machine sees otherwise, one after the other."""
        yield from self._of_tools()
        for root in self.roots:
            yield from _asked(root.url, partial(_there, root, ""))
        for root, path, size in self.pictures:
            yield from _asked(f"{root.url}/{path}", partial(_sized, root, path, size))
        for path in self.weights:
            if not Path(path).is_file():
                yield Fault(where=path, what="is not there", do=MOUNT)
        yield from _asked(self.out.url, self._probed)
        for catalog in self.catalogs:
            yield from _asked(f"{catalog.url}/{PARQUET}", partial(_there, catalog, PARQUET))

    def answer(self, name: str) -> None:
        """Write a file of this machine's own beside the probe, holding the same token."""
        self.out.commit_bytes(f"{self.probe}-{name}", self.token)

    def _probed(self) -> str:
        there = self.out.exists(self.probe) and self.out.read(self.probe) == self.token
        return "" if there else _there(self.out, "") or "is another folder of that name"

    def _of_tools(self) -> Iterator[Fault]:
        do = "the bytes of a corpus depend on it: give every node the same"
        for name, wanted in self.versions:
            found = version(name)
            if wanted != found:
                yield Fault(where=name, what=f"is {found} there and {wanted} here", do=do, is_path=False)
        if code_sha256() != self.code:
            what = f"is other code there, in {PACKAGE}"
            yield Fault(where="aesampler", what=what, do=do, is_path=False)
        for name in self.formats:
            try:
                sources.load(name)
            except AesamplerError as error:
                do = "install what it needs on every node"
                yield Fault(where=f"format {name}", what=f"does not load: {error}", do=do, is_path=False)


def _file(root: Folder, frame: str) -> list[tuple[str, int]]:
    """The file that a frame is, or lies in (a video names itself as its folder), and its bytes; a frame of a format
    that keeps its pictures otherwise has none.
    """
    for path in (frame, frame.rpartition("/")[0]):
        with contextlib.suppress(FileNotFoundError):
            return [(path, root.size(path))]
    return []


def _asked(where: str, look: Callable[[], str]) -> Iterator[Fault]:
    """A fault if `look` says what is wrong, or cannot look."""
    try:
        found = look()
    except (AesamplerError, OSError) as error:
        found = f"cannot be read: {error}"
    if found:
        yield Fault(where=where, what=found, do=MOUNT)


def _there(folder: Folder, path: str) -> str:
    return "" if folder.exists(path) else "is not there"


def _sized(root: Folder, path: str, size: int) -> str:
    if not root.exists(path):
        return "is not there"
    found = root.size(path)
    return "" if found == size else f"has {found} bytes there and {size} here"


def version(tool: str) -> str:
    """The version of a package on this machine, or, of `processor`, its kind."""
    if tool == "processor":
        return platform.machine()
    try:
        return importlib.metadata.version(tool)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def code_sha256() -> str:
    """Hash of the package's Python files, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def pack(folder: Path) -> list[Path]:
    """Copy into `folder` what a machine has to import: the package and those that add formats, with the metadata by
    which they are found; the paths to send.
    """
    lines = []
    modules = {"aesampler"}
    for name in sources.names():
        if name in sources.FORMATS:
            continue
        with contextlib.suppress(RecipeError):  # it cannot be imported here either, so no recipe can name it
            reader = sources.load(name)
            lines.append(f"{name} = {reader.__module__}:{reader.__qualname__}")
            modules.add(reader.__module__.partition(".")[0])
    sent = list(itertools.chain.from_iterable(copied(module, folder) for module in sorted(modules)))
    own = version("aesampler")
    # The formats have a distribution of their own: one of the name aesampler may be installed there, and hide ours.
    added = "\n".join([f"[{sources.GROUP}]", *lines, ""])
    return [*sent, _metadata(folder, "aesampler", own, ""), _metadata(folder, "aesampler-formats", "1", added)]


def _metadata(folder: Path, name: str, version: str, points: str) -> Path:
    """The folder that pip would write for a distribution, with its entry points."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    return info


def copied(name: str, folder: Path) -> list[Path]:
    """Copy a package or a module into `folder`: Ray would send links as links, and recipes of a checkout are links."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        assert module.__file__ is not None
        return [Path(shutil.copy(module.__file__, folder))]
    for path in module.__path__:
        shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return [folder / name]
