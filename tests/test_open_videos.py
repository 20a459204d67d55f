"""Videos kept open give the frames that are in the file, in any order and to any thread, and are closed."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import worlds
import worlds_videos
from conftest import S3

from aesampler import build_corpus, plan_corpus, video
from aesampler.errors import BadRecord
from aesampler.executors.inline import Inline
from aesampler.recipe import Recipe
from aesampler.sources import open_videos
from aesampler.storage import Folder

SIZE = (worlds.HEIGHT, worlds.WIDTH)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that are opened by `video.opened`, in order; in the end none of them is still open."""
    names: list[str] = []
    still = []
    real = video.opened

    @contextmanager
    def told(path: Path) -> Iterator[video.Video]:
        names.append(path.name)
        still.append(path)
        try:
            with real(path) as file:
                yield file
        finally:
            still.remove(path)

    monkeypatch.setattr(video, "opened", told)
    yield names
    assert not still


def files(root: Path, count: int = 1, length: int = 60, every: int = 25, codec: str = "libx264") -> list[str]:
    names = [f"{place}.{'mp4' if codec == 'libx264' else 'avi'}" for place in range(count)]
    for name in names:
        worlds_videos.write_video(root / name, worlds_videos.numbered(length), codec=codec, every=every)
    return names


def shown(root: Path, name: str, places: list[int]) -> list[int]:
    return [worlds_videos.number(frame) for frame in open_videos.chosen(Folder.at(root), name, places)]


@pytest.mark.parametrize(("codec", "every"), [("libx264", 1), ("libx264", 7), ("libx264", 250), ("mpeg4", 12)])
def test_frames_are_those_asked_for_in_any_order(tmp_path: Path, opened: list[str], codec: str, every: int) -> None:
    (name,) = files(tmp_path, every=every, codec=codec)
    whole = list(video.frames(tmp_path / name))
    draw = random.Random(every)
    orders = [[4 * k for k in range(start, start + 4)] for start in (0, 4, 6, 8, 3, 0)]
    orders += [draw.choices(range(60), k=draw.randint(0, 5)) for _ in range(40)] + [[59], [59, 58], [0]]
    with open_videos.kept():
        for places in orders:
            found = open_videos.chosen(Folder.at(tmp_path), name, places)
            assert all(np.array_equal(frame, whole[place]) for frame, place in zip(found, places, strict=True))
            assert len(found) == len(places)
    assert opened == [name]
    assert shown(tmp_path, name, [3]) == [3]
    assert opened == [name, name]


def test_clips_in_order_are_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame is made a picture once, and the file is sought once, though clips overlap."""
    (name,) = files(tmp_path, every=250)
    made, sought = [], []
    rgb, passed = video._rgb, video.Video._passed
    monkeypatch.setattr(video, "_rgb", lambda frame: made.append(frame.pts) or rgb(frame))

    def told(self: Any, places: Any) -> Any:
        sought.append(self._at)
        return passed(self, places)

    monkeypatch.setattr(video.Video, "_passed", told)
    with open_videos.kept():
        for start in range(0, 52, 4):
            assert shown(tmp_path, name, [start, start + 4, start + 8]) == [start, start + 4, start + 8]
    assert len(made) == len(set(made)) == 15
    assert sought == [None, *range(8, 56, 4)]


def test_two_stay_open(tmp_path: Path, opened: list[str]) -> None:
    names = files(tmp_path, 3, length=12)
    with open_videos.kept():
        for place in (0, 1, 0, 1, 2, 1, 2, 0, 2):
            assert shown(tmp_path, names[place], [1, 9]) == [1, 9]
    assert opened == [names[place] for place in (0, 1, 2, 0)]


def test_threads_wait_for_each_other(tmp_path: Path, opened: list[str]) -> None:
    names = files(tmp_path, 4)
    draw = random.Random(7)
    asked = [(draw.choice(names), draw.choices(range(60), k=3)) for _ in range(150)]
    with open_videos.kept(), ThreadPoolExecutor(8) as pool:
        made = [pool.submit(copy_context().run, shown, tmp_path, name, places) for name, places in asked]
        assert [future.result() for future in made] == [places for _, places in asked]
    assert len(opened) < len(asked)


def test_a_file_that_changed_or_is_broken_is_opened_anew(tmp_path: Path, opened: list[str]) -> None:
    (name,) = files(tmp_path, length=12)
    with open_videos.kept():
        assert shown(tmp_path, name, [2]) == [2]
        with pytest.raises(BadRecord, match="a video is shorter than its annotation; got 12 frames"):
            shown(tmp_path, name, [0, 12])
        assert shown(tmp_path, name, [3]) == [3]
        files(tmp_path, length=30)
        assert shown(tmp_path, name, [29]) == [29]
        (tmp_path / name).write_bytes(b"no video at all")
        with pytest.raises(BadRecord, match="a video cannot be read"):
            shown(tmp_path, name, [0])
        with pytest.raises(FileNotFoundError):
            shown(tmp_path, "lost.mp4", [0])
    assert opened.count(name) == 4


def test_a_fork_opens_its_own(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = files(tmp_path)
    with open_videos.kept():
        assert shown(tmp_path, name, [8]) == [8]
        own = os.getpid()
        with monkeypatch.context() as forked:
            forked.setattr(os, "getpid", lambda: own + 1)
            assert shown(tmp_path, name, [50, 3]) == [50, 3]
        assert opened == [name, name]
        assert shown(tmp_path, name, [12]) == [12]
    assert opened == [name, name]


def test_a_build_fetches_each_video_once(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AESAMPLER_CACHE", str(tmp_path / "cache"))
    bucket = s3.bucket()
    worlds_videos.sa_v(s3.disk / bucket.removeprefix("s3://"), frames=41)
    copied = []
    real = Folder.local_copy

    def told(self: Folder, path: str) -> Any:
        if path.endswith(".mp4"):
            copied.append(path)
        return real(self, path)

    monkeypatch.setattr(Folder, "local_copy", told)
    body = {
        "name": "far",
        "seed": 1,
        "sources": [{"name": "sa-v", "format": "sa-v", "root": bucket, "names": "names.json"}],
        "clips": {"frames": 2, "every": 1},
        "tolerance": {"bad_records": 0.6},
    }
    plan = plan_corpus(Recipe.of(body, base=tmp_path))
    copied.clear()
    build_corpus(plan, Folder.at(tmp_path / "out"), Inline())
    assert sorted(copied) == sorted(set(copied))
    assert copied
