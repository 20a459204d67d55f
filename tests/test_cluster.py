"""Ray: the same bytes as inline, whatever is lost on the way; what is named when a node or a record is to blame.

Real Ray throughout: a session of its own, a cluster of nodes on this machine, a node with other mounts.
`strange_formats` is a package of a third party, with a format in which one record misbehaves.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import worlds
import yaml
from outputs import sha256s
from ray.cluster_utils import Cluster as Nodes

from aesampler import Folder, Inline, Recipe, build_corpus, plan_corpus
from aesampler.build import Outcome
from aesampler.errors import RecipeError, StorageError
from aesampler.executors import Executor, cluster, node, session
from aesampler.executors.cluster import Cluster
from aesampler.executors.node import View
from aesampler.worker import Job

AESAMPLER = Path(sys.executable).with_name("aesampler")
STRANGE = '''
"""COCO with one record that misbehaves."""
import os
import signal
import time
from pathlib import Path

from aesampler.sources.coco import Coco


class Strange(Coco):
    """fate of the record `victim`: kill, trouble, bug; only while the file `marker` is missing, where one is named."""

    format = "strange"
    victim: str = ""
    fate: str = ""
    marker: str = ""
    pause: float = 0.0

    def scene(self, root, record, names, frames, size):
        time.sleep(self.pause)
        if record.id == self.victim and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            if self.fate == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(5, "Input/output error", "a disk") if self.fate == "trouble" else ZeroDivisionError("a bug")
        return super().scene(root, record, names, frames, size)
'''


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the metadata that pip would write."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "strange_formats").mkdir()
    (folder / "strange_formats/__init__.py").write_text(STRANGE, encoding="utf-8")
    info = folder / "strange_formats-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-formats\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[aesampler.sources]\nstrange = strange_formats:Strange\n", encoding="utf-8")
    return folder


@pytest.fixture
def strange(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, importable in this process alone."""
    monkeypatch.setattr(sys, "path", [str(package), *sys.path])


@pytest.fixture
def strange_everywhere(strange: None, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, importable in child processes too, as an installed one is."""
    monkeypatch.setenv("PYTHONPATH", str(package))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Images and clips."""
    worlds.coco(tmp_path / "coco", images=24)
    worlds.youtube_vos(tmp_path / "youtube-vos", videos=3, frames=9)
    return tmp_path


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """A cluster of two nodes on this machine, a CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        made = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


def recipe(base: Path, *, coco: dict[str, Any] | None = None, **keys: Any) -> Recipe:
    sources: list[dict[str, Any]] = [{"name": "coco", "format": "coco", "root": "coco"} | (coco or {})]
    if coco is None:
        split = {"train": 0.6, "validation": 0.4}
        sources.append({"name": "youtube-vos", "format": "youtube-vos", "root": "youtube-vos", "split": split})
    body = {"name": "tiny", "seed": 7, "sources": sources, "shards": {"max_samples": 4}} | keys
    return Recipe.of(body, base=base)


def build(made: Recipe, out: Path | str, executor: Executor, **options: Any) -> Outcome:
    return build_corpus(plan_corpus(made), Folder.at(out), executor, **options)


def victim(made: Recipe) -> str:
    """The id of a record in the middle of the second shard."""
    plan = plan_corpus(made)
    return next(plan.catalogs[0].rows(plan.tasks[1].first + 1)).record.id


# -- what a node needs ------------------------------------------------------------------------------------------------


@pytest.fixture
def view(world: Path) -> View:
    plan = plan_corpus(recipe(world))
    out = Folder.at(world / "out")
    out.commit_bytes(".build/probe", b"token")
    job = Job(
        recipe=plan.recipe,
        plan_sha256="",
        packages=tuple(plan.packages()),
        out=out,
        roots=tuple(plan.recipe.folder(entry.root) for entry in plan.recipe.sources),
        catalogs=plan.catalogs,
        encodings=plan.encodings,
        transcoded=plan.transcoded,
        weights=(None,) * len(plan.recipe.sources),
    )
    return View.of(job, ".build/probe", b"token")


def test_a_machine_that_sees_all_has_no_fault(view: View) -> None:
    assert list(view.faults()) == []
    assert len(view.pictures) == 2 * node.PICTURES


def test_a_frame_is_asked_for_where_it_lies(tmp_path: Path) -> None:
    """In a file of its own, in a video, or in the rows of a dataset."""
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(b"1234")
    (tmp_path / "b.jpg").write_bytes(b"12")
    root = Folder.at(tmp_path)
    assert node._file(root, "b.jpg") == [("b.jpg", 2)]
    assert node._file(root, "clips/a.mp4/00004.ppm") == [("clips/a.mp4", 4)]
    assert node._file(root, "clips/00000001.jpg") == []


def test_each_fault_names_its_path(view: View, world: Path) -> None:
    def faults(seen: View) -> list[tuple[str, str]]:
        return [(fault.where, fault.what) for fault in seen.faults()]

    elsewhere = Folder.at(world / "elsewhere")
    assert faults(replace(view, roots=(elsewhere,))) == [(str(world / "elsewhere"), "is not there")]
    root, path, size = view.pictures[0]
    wrong = ((root, path, size + 1), (root, "train2017/none.jpg", 3))
    assert faults(replace(view, pictures=wrong)) == [
        (f"{root.url}/{path}", f"has {size} bytes there and {size + 1} here"),
        (f"{root.url}/train2017/none.jpg", "is not there"),
    ]
    assert faults(replace(view, token=b"other")) == [(str(world / "out"), "is another folder of that name")]
    assert faults(replace(view, out=elsewhere)) == [(str(world / "elsewhere"), "is not there")]
    assert faults(replace(view, weights=("no/weights.pt",))) == [("no/weights.pt", "is not there")]
    assert faults(replace(view, catalogs=(elsewhere,))) == [(str(world / "elsewhere/catalog.parquet"), "is not there")]
    found = list(replace(view, versions=(("aesampler", "9"), *view.versions[1:]), code="other").faults())
    assert [(fault.where, fault.is_path) for fault in found] == [("aesampler", False), ("aesampler", False)]
    assert found[0].what == f"is {importlib.metadata.version('aesampler')} there and 9 here"
    found = list(replace(view, formats=("coco", "strange")).faults())
    assert [fault.where for fault in found] == ["format strange"]
    assert "unknown format 'strange'" in found[0].what


@pytest.mark.usefixtures("strange")
def test_what_is_packed_runs_by_itself(tmp_path: Path) -> None:
    sent = node.pack(tmp_path)
    names = sorted(path.name.partition("-")[0] for path in sent)
    assert names == ["aesampler", "aesampler", "aesampler_formats", "strange_formats"]
    assert not list(tmp_path.rglob("__pycache__"))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import aesampler; from aesampler import sources; from aesampler.executors import node\n"
        "print(aesampler.__path__[0], sources.load('strange').__module__, node.code_sha256())"
    )
    told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(tmp_path / "aesampler"), "strange_formats", node.code_sha256()]


def test_an_address_at_which_no_one_answers() -> None:
    with (
        pytest.raises(RecipeError, match=r"^127\.0\.0\.1:1: no Ray cluster answers: .*refused; give the address"),
        Cluster(address="127.0.0.1:1"),
    ):
        pass
    assert not ray.is_initialized()


# -- Ray on this machine ----------------------------------------------------------------------------------------------


@pytest.mark.long
def test_one_and_two_workers_give_the_bytes_of_inline(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tempfile.mkdtemp(prefix="aes-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", room)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = set(psutil.Process().children(recursive=True))  # earlier tests may have left a tracker of resources
    build(recipe(world), world / "inline", Inline())
    expected = sha256s(world / "inline")
    assert len(expected) > 15
    for workers in (1, 2):
        executor = Cluster(workers=workers)
        done = build(recipe(world), world / f"ray{workers}", executor)
        assert done.built == len(plan_corpus(recipe(world)).tasks)
        assert sha256s(world / f"ray{workers}") == expected
        assert not executor.remote
        assert not ray.is_initialized()
    # A Ray of our own leaves no process and no file behind.
    assert set(psutil.Process().children(recursive=True)) <= before
    os.rmdir(room)
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.long
@pytest.mark.usefixtures("strange_everywhere")
def test_the_record_that_ends_its_workers_is_named(world: Path) -> None:
    coco = {"format": "strange", "fate": "kill"}
    fatal = victim(recipe(world, coco={"format": "strange"}))
    body = recipe(world, coco=coco | {"victim": fatal}).document()
    for entry in body["sources"]:
        entry["root"] = str(world / "coco")
    (world / "strange.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    command = [AESAMPLER, "build", "--config", "strange.yaml", "--out", "out", "--workers", "2", "--json"]
    ended = subprocess.run(command, cwd=world, capture_output=True, text=True)
    assert ended.returncode == 3
    assert ended.stdout == ""  # not a word of Ray's, here or below
    assert [line for line in ended.stderr.splitlines() if not line.startswith(("catalog", "samples"))] == [
        f"aesampler: coco_{fatal}: this record ends every worker that touches it; got lost workers in "
        "train/coco-000001.tar; look at its picture and masks, or take it out of the dataset; what is finished is kept"
    ]
    # What the others had finished is kept, and nothing half done.
    left = sha256s(world / "out")
    assert ".build/plan.json" in left
    assert "manifest/train/coco-000000.parquet" in left
    assert not [path for path in left if "000001" in path]


@pytest.mark.long
@pytest.mark.usefixtures("strange_everywhere")
def test_what_passes_is_tried_again_and_what_lasts_is_raised_as_itself(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "PAUSE_S", 0.01)
    marker = world / "marker"
    ours = {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", object_store_memory=session.STORE_BYTES, **ours)
    try:
        for fate in ("kill", "trouble"):
            chosen = {"format": "strange", "fate": fate, "marker": str(marker)}
            coco = chosen | {"victim": victim(recipe(world, coco=chosen))}
            marker.touch()
            build(recipe(world, coco=coco), world / f"{fate}-inline", Inline())
            marker.unlink()
            build(recipe(world, coco=coco), world / f"{fate}-ray", Cluster())
            assert marker.exists(), "the record never misbehaved"
            assert sha256s(world / f"{fate}-ray") == sha256s(world / f"{fate}-inline")
        lasting = recipe(world, coco=coco | {"marker": ""})
        with pytest.raises(StorageError, match=r"^a disk: .*Input/output error"):
            build(lasting, world / "trouble-lasts", Cluster())
        with pytest.raises(ZeroDivisionError, match=r"^a bug$"):
            build(recipe(world, coco=coco | {"marker": "", "fate": "bug"}), world / "bug", Cluster())
        assert ray.is_initialized(), "a program's own session is left as it is"
    finally:
        ray.shutdown()


@pytest.mark.long
@pytest.mark.usefixtures("strange_everywhere")
def test_workers_that_are_called_off_end_by_themselves(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not asked to end them: that may end the driver, see `cluster.py`."""

    def stop(*counts: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster.ray, "cancel", lambda ref, **options: pytest.fail("asked to cancel"))
    made = recipe(world, coco={"format": "strange", "pause": 0.4}, shards={"max_samples": 8})
    with pytest.raises(KeyboardInterrupt):
        build(made, world / "out", Cluster(workers=2), progress=stop)
    assert {path for path in sha256s(world / "out") if path.endswith("parquet")} < {
        f"manifest/train/coco-00000{index}.parquet" for index in range(3)
    } | {"vocabulary/coco.parquet"}
    assert {path for path in sha256s(world / "out") if "/." in f"/{path}"} == {".build/plan.json"}
    assert build(made, world / "out", Inline()).kept >= 1


@pytest.mark.long
def test_auto_without_a_cluster_says_what_to_do(world: Path) -> None:
    body = recipe(world).document()
    for entry in body["sources"]:
        entry["root"] = str(world / entry["root"])
    (world / "tiny.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")
    command = [AESAMPLER, "build", "--config", "tiny.yaml", "--out", "out", "--address", "auto"]
    (world / "ray").mkdir()
    environment = os.environ | {"RAY_TMPDIR": str(world / "ray")}
    environment.pop("RAY_ADDRESS", None)
    ended = subprocess.run(command, cwd=world, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines()[-1].startswith(
        "aesampler: --address auto: no Ray cluster runs on this machine; start one with `ray start --head`"
    )
    assert "Traceback" not in ended.stderr


# -- Ray on several nodes ---------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.usefixtures("strange")
def test_a_node_lost_midway_changes_no_byte(world: Path, nodes: Nodes) -> None:
    slow = recipe(world, coco={"format": "strange", "pause": 0.15}, shards={"max_samples": 2})
    build(slow, world / "inline", Inline())
    third = nodes.add_node(num_cpus=1)
    lost = []

    def lose(what: str, done: int, total: int, size: int = 0) -> None:
        if what == "samples" and done >= 6 and not lost:
            lost.append(done)
            nodes.remove_node(third, allow_graceful=False)

    executor = Cluster(address=nodes.address)
    build(slow, world / "out", executor, progress=lose)
    assert lost
    assert lost[0] < 24
    assert executor.remote
    assert sha256s(world / "out") == sha256s(world / "inline")
    assert not ray.is_initialized()


@pytest.mark.long
@pytest.mark.usefixtures("strange")
def test_without_a_node_left_to_work_the_build_waits_and_says_so(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head has no CPU; the only other node is lost, and another joins."""
    monkeypatch.setattr(cluster, "COUNT_EVERY_S", 0.5)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    slow = recipe(world, coco={"format": "strange", "pause": 0.15}, shards={"max_samples": 2})
    build(slow, world / "inline", Inline())
    few = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    told: list[str] = []
    lost: list[int] = []
    try:
        only = few.add_node(num_cpus=1)

        def lose(what: str, done: int, total: int, size: int = 0) -> None:
            if what == "samples" and done >= 6 and not lost:
                lost.append(done)
                few.remove_node(only, allow_graceful=False)

        def tell(line: str) -> None:
            told.append(line)
            if "no CPU left" in line:
                few.add_node(num_cpus=1)

        build(slow, world / "out", Cluster(address=few.address, told=tell), progress=lose)
    finally:
        few.shutdown()
    assert told == ["the cluster has no CPU left; waiting for a node to join", "a node joined"]
    assert lost[0] < 24
    assert sha256s(world / "out") == sha256s(world / "inline")


@pytest.mark.long
@pytest.mark.usefixtures("strange")
def test_the_code_is_sent_along(nodes: Nodes) -> None:
    with Cluster(address=nodes.address):

        @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
        def look() -> tuple[str, str, str]:
            import importlib.metadata

            import aesampler
            from aesampler import sources

            time.sleep(0.5)
            version = importlib.metadata.version("aesampler")
            return aesampler.__path__[0], sources.load("strange").__module__, version

        told = ray.get([look.remote() for _ in range(2)])
    for path, module, version in told:
        assert "py_modules" in path
        assert module == "strange_formats"
        assert version == importlib.metadata.version("aesampler")


@pytest.mark.long
@pytest.mark.parametrize("hidden", ["coco", "coco/train2017", "out"])
def test_the_node_that_does_not_see_a_path_is_named(world: Path, nodes: Nodes, hidden: str) -> None:
    """A node with a mount namespace of its own, in which an empty disk lies over the folder."""
    (world / "out").mkdir()
    unshare = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this needs unshare --mount")
    start = [AESAMPLER.with_name("ray"), "start", f"--address={nodes.address}", "--num-cpus=1", "--block"]
    start += ["--node-name=blind", "--object-store-memory=100000000"]
    script = 'mount -t tmpfs none "$0" && exec "$@"'
    known = {entry["NodeID"] for entry in ray_nodes(nodes)}
    blind = subprocess.Popen(
        [*unshare, "sh", "-c", script, str(world / hidden), *map(str, start)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while {entry["NodeID"] for entry in ray_nodes(nodes)} <= known:
            assert blind.poll() is None, "the node did not start"
            assert time.monotonic() < deadline, "the node did not join"
            time.sleep(0.2)
        with pytest.raises(StorageError) as caught:
            build(recipe(world), world / "out", Cluster(address=nodes.address))
    finally:
        for process in [*psutil.Process(blind.pid).children(recursive=True), psutil.Process(blind.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself where the one before was its parent
                process.kill()
        blind.wait()
    told = str(caught.value)
    assert told.startswith("node ")
    assert "(blind, " in told
    assert f"does not see {world / hidden}" in told
    assert "mount it at the same path" in told
    assert not [path for path in sha256s(world / "out") if path.endswith(".tar")], "nothing was rendered"
    assert not [path for path in sha256s(world / "out") if "probe" in path]


def ray_nodes(nodes: Nodes) -> list[dict[str, Any]]:
    return [entry for entry in nodes.global_state.node_table() if entry["Alive"]]


@pytest.mark.long
def test_a_corpus_in_an_object_store_has_the_bytes_of_a_local_one(world: Path, s3: Any, bucket: str) -> None:
    build(recipe(world), world / "local", Inline())
    expected = sha256s(world / "local")
    disk = s3.disk / bucket.removeprefix("s3://")
    build(recipe(world), f"{bucket}/inline", Inline())
    assert sha256s(disk / "inline") == expected
    build(recipe(world), f"{bucket}/ray", Cluster(workers=2))
    assert sha256s(disk / "ray") == expected


@pytest.mark.long
def test_roots_and_out_in_an_object_store_on_several_nodes(
    world: Path, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = s3.disk / bucket.removeprefix("s3://")
    shutil.copytree(world / "coco", disk / "coco")
    made = recipe(world, coco={"root": f"{bucket}/coco"})
    build(made, world / "local", Inline())
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with_keys = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        with_keys.add_node(num_cpus=1)
        build(made, f"{bucket}/out", Cluster(address=with_keys.address))
    finally:
        with_keys.shutdown()
    assert sha256s(disk / "out") == sha256s(world / "local")
