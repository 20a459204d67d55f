"""kill -9 at random instants: run again, a build ends in the bytes of one left alone, and nothing else is there.

The real command, in processes of its own. The instants are drawn from fixed seeds, over the second half of the time
that a build takes (the first is spent importing); what a process is doing then is up to the machine.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import worlds
import yaml
from outputs import sha256s

from aesampler import disk

AESAMPLER = Path(sys.executable).with_name("aesampler")
KILLS = 20


class World:
    """Tiny datasets, a recipe of them, and its builds."""

    def __init__(self, root: Path, room: str) -> None:
        self.root, self.cache, self.room = root, root / "cache", room
        worlds.coco(root / "coco", images=60)
        worlds.youtube_vos(root / "youtube-vos", videos=3, frames=9)
        self.write()

    def write(self, **keys: Any) -> None:
        """The recipe, with `keys` changed."""
        split = {"train": 0.6, "validation": 0.4}
        sources = [
            {"name": "coco", "format": "coco", "root": "coco"},
            {"name": "youtube-vos", "format": "youtube-vos", "root": "youtube-vos", "split": split},
        ]
        body = {"name": "tiny", "seed": 1, "sources": sources, "shards": {"max_samples": 2}} | keys
        (self.root / "recipe.yaml").write_text(yaml.safe_dump(body), encoding="utf-8")

    def start(self, out: str, *options: str, executor: str = "inline") -> subprocess.Popen[str]:
        """A build, begun."""
        command = [AESAMPLER, "build", "--config", "recipe.yaml", "--out", out, "--executor", executor, *options]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=os.environ | {"AESAMPLER_CACHE": str(self.cache), "TMPDIR": self.room},
            start_new_session=True,
            # A test run in the background ignores interrupts, and its children would.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, out: str, *options: str, executor: str = "inline") -> float:
        """A build, to its end; the seconds that it took."""
        begin = time.monotonic()
        process = self.start(out, *options, executor=executor)
        told = process.communicate()
        assert process.returncode == 0, told
        return time.monotonic() - begin

    def kill(self, out: str, after: float, *options: str, executor: str = "inline") -> bool:
        """A build, killed `after` seconds after it has locked OUT; False where it was done before."""
        process = self.start(out, *options, executor=executor)
        while process.poll() is None and not holds_lock(process.pid):
            time.sleep(0.005)
        try:
            told = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                stream.close()
            return True
        assert process.returncode == 0, told
        return False

    def midway(self, out: str, shards: int, *options: str, executor: str) -> subprocess.Popen[str]:
        """A build that has just finished so many shards, those of earlier ones included."""
        process = self.start(out, *options, executor=executor)
        while len(list((self.root / out / "manifest").rglob("*.parquet"))) < shards:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        return process

    def files(self, out: str) -> dict[str, str]:
        """Every file of a corpus by its hash, hidden ones too, and every empty folder."""
        folder = self.root / out
        below = [path for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())]
        return sha256s(folder) | {f"{path.relative_to(folder)}/": "" for path in below}


def holds_lock(pid: int) -> bool:
    """Whether a process has the lock file of an OUT open."""
    with contextlib.suppress(psutil.Error):
        return any(file.path.endswith(disk.LOCK) for file in psutil.Process(pid).open_files())
    return False


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With room for temporary files, under a name short enough for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="aes-", dir="/tmp", ignore_cleanup_errors=True) as room:
        yield World(tmp_path, room)


def instants(seed: int, took: float) -> Iterator[float]:
    """Seconds after which to kill, without end: of a whole run half goes by before the work begins."""
    random = np.random.default_rng(seed)
    while True:
        yield float(random.uniform(0.0, 0.45 * took))


@pytest.mark.long
def test_a_build_killed_twenty_times_ends_in_the_same_bytes(world: World) -> None:
    world.run("warm")
    took = world.run("undisturbed")
    expected = world.files("undisturbed")
    assert world.files("warm") == expected
    delays, killed, halfway = instants(1, took), 0, 0
    for attempt in itertools.count():
        out = f"out{attempt}"
        # Killed up to four times in a row, so that kills meet what earlier kills have left.
        for _ in range(4):
            if not world.kill(out, next(delays)):
                break
            killed += 1
            left = sha256s(world.root / out)
            halfway += bool(left) and "corpus.json" not in left
            finished = {path: sha for path, sha in left.items() if path in expected}
            assert finished.items() <= expected.items(), "a file under its own name is whole at any instant"
        world.run(out)
        assert world.files(out) == expected
        if killed >= KILLS:
            break
        shutil.rmtree(world.root / out)
    assert halfway >= KILLS // 4, "most kills missed the work"


@pytest.mark.long
def test_a_retry_that_is_killed_mends_as_much(world: World) -> None:
    """Pictures that could not be read are whole again: `--retry-failed` makes the corpus that they should have made."""
    pictures = sorted((world.root / "coco").rglob("*.jpg"))[::9]
    whole = [picture.read_bytes() for picture in pictures]
    world.write(tolerance={"bad_records": 0.5})
    took = world.run("good")
    for picture, data in zip(pictures, whole, strict=True):
        picture.write_bytes(bytes(len(data)))  # as large as before, as a disk's error leaves it
    world.run("bad")
    for picture, data in zip(pictures, whole, strict=True):
        picture.write_bytes(data)
    expected = world.files("good")
    assert world.files("bad") != expected
    delays, killed = instants(2, took), 0
    for attempt in range(3):
        out = f"out{attempt}"
        shutil.copytree(world.root / "bad", world.root / out)
        for _ in range(3):
            killed += world.kill(out, next(delays), "--retry-failed")
        world.run(out, "--retry-failed")
        assert world.files(out) == expected
    assert killed >= 2


@pytest.mark.long
def test_a_fresh_start_that_is_killed_starts_as_fresh(world: World) -> None:
    world.run("old")
    old = world.files("old")
    world.write(seed=2)
    took = world.run("new")
    expected = world.files("new")
    assert expected != old
    delays, killed = instants(3, took), 0
    for attempt in range(2):
        out = f"out{attempt}"
        shutil.copytree(world.root / "old", world.root / out)
        for _ in range(3):
            killed += world.kill(out, next(delays), "--fresh")
        # Without --fresh what is there is refused or finished, never mixed.
        process = world.start(out)
        _, told = process.communicate()
        assert process.returncode == 0 or (process.returncode == 2 and "was built from something else" in told), told
        if process.returncode:
            world.run(out, "--fresh")
        assert world.files(out) == expected
    assert killed >= 2


@pytest.mark.long
def test_a_killed_driver_leaves_workers_that_do_no_harm(world: World) -> None:
    """The next build begins at once, while workers of the killed one may still be about."""
    world.run("undisturbed")
    expected = world.files("undisturbed")
    for shards in (3, 12, 21):
        process = world.midway("out", shards, "--workers", "2", executor="ray")
        process.kill()
        process.communicate()
    world.run("out")
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if other.environ().get("AESAMPLER_CACHE") == str(world.cache):
                other.wait(timeout=30)  # Ray's processes end by themselves when their driver does
    assert world.files("out") == expected


@pytest.mark.long
@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_ctrl_c_stops_cleanly(world: World, executor: str) -> None:
    world.run("undisturbed")
    process = world.midway("out", 2, executor=executor)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    told, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert (told, said.splitlines()[-1]) == ("", "stopped; what is finished is kept")
    assert "Traceback" not in said
    assert not [path for path in sha256s(world.root / "out") if path.rpartition("/")[2].startswith(".")]
    world.run("out")
    assert world.files("out") == world.files("undisturbed")
