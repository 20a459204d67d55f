"""`lavida detect`: videos of every kind in; scores, intervals, pictures and an overlay out; cameras that break off."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import worlds_videos
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aesampler import video
from aesampler.errors import BadRecord, DetectorError, SourceError
from lavida.cli import run
from lavida.detect import Job, Source, Threshold, answer, detect, find_intervals, find_sources
from lavida.detect.overlay import Painter, shrunk
from lavida.detect.peaks import BUCKETS, Peaks, Seen
from lavida.detectors import Detector, Frame, Scored, load_detector

RED = (222, 38, 72)


class Script(Detector):
    """Scores frames by a list, and masks the right half of those above a half."""

    name = "script"
    threshold = 0.5

    def __init__(self, scores: Sequence[float], *, pixel: bool = False, lag: int = 1) -> None:
        self.scores, self.pixel, self.lag = scores, pixel, lag

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        held: list[Frame] = []
        start = 0
        for frame in frames:
            held.append(frame)
            if len(held) == self.lag:
                yield self._scored(start, held)
                start, held = start + len(held), []
        if held:
            yield self._scored(start, held)

    def _scored(self, start: int, frames: list[Frame]) -> Scored:
        scores = np.array([self.scores[place % len(self.scores)] for place in range(start, start + len(frames))])
        planes = np.zeros((len(frames), *frames[0].shape[:2]), dtype=np.float16)
        planes[scores > 0.5, :, frames[0].shape[1] // 2 :] = 1
        return Scored(
            start=start,
            frame_scores=scores.astype(np.float32),
            pixel_scores=planes if self.pixel else None,
            parts={"frame": scores.astype(np.float32)},
            details=({"asked of": start},),
        )


def scores_of(folder: Path) -> list[float]:
    return list(pq.read_table(folder / "scores.parquet")["score"].to_pylist())


# -- the answer --------------------------------------------------------------------------------------------------------


def test_everything_of_a_video(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "gate.mp4", worlds_videos.numbered(50), rate=25)
    wanted = [0.1] * 20 + [0.9] * 10 + [0.2] * 20
    shown: list[tuple[str, int, int]] = []
    (tmp_path / "out").mkdir()
    (tmp_path / "out/details.jsonl").write_text("of an earlier run")
    (told,) = detect(
        [str(tmp_path / "gate.mp4")],
        Job(anomalies=("bicycle", "person falling")),
        tmp_path / "out",
        Script(wanted, pixel=True, lag=8),
        lambda *what: shown.append(what),
    )
    lines = (tmp_path / "out/scores.csv").read_text().splitlines()
    assert lines[0] == "frame,seconds,score"
    assert lines[1] == "0,0.000,0.1"
    assert lines[21] == "20,0.800,0.9"
    assert len(lines) == 51
    table = pq.read_table(tmp_path / "out/scores.parquet")
    assert table.column_names == ["frame", "seconds", "score", "part.frame"]
    assert table["score"].to_pylist() == pytest.approx(wanted)
    assert table["seconds"].to_pylist() == pytest.approx(np.arange(50) / 25)
    found = json.loads((tmp_path / "out/intervals.json").read_text())
    assert found == json.loads(json.dumps(told.to_json()))
    assert found == {
        "video": "gate",
        "detector": "script",
        "anomalies": ["bicycle", "person falling"],
        "frames": 50,
        "seconds": 2.0,
        "rate": 25.0,
        "ended": "the video ended",
        "threshold": {"high": 0.5, "low": 0.4, "rule": "the detector's own (script)"},
        "intervals": [
            {
                "start_frame": 20,
                "stop_frame": 30,
                "start_s": 0.8,
                "stop_s": 1.2,
                "peak_frame": 20,
                "peak_s": 0.8,
                "peak_score": pytest.approx(0.9),
                "mean_score": pytest.approx(0.9),
            }
        ],
        "notes": {},
    }
    assert (tmp_path / "out/details.jsonl").read_text().splitlines()[:2] == ['{"asked of": 0}', '{"asked of": 8}']
    with Image.open(tmp_path / "out/timeline.png") as picture:
        assert picture.size[0] > 1000
        assert picture.size[1] > 330  # the frames at the peaks are below
    assert shown[-1] == ("gate", 50, 50)
    assert all(done <= total for _, done, total in shown)
    assert set(told.files) == {
        *("scores.csv", "scores.parquet", "intervals.json", "timeline.png", "overlay.mp4", "details.jsonl")
    }


def test_the_overlay_shows_mask_border_and_score(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(30, (120, 160)), rate=10)
    detect([str(tmp_path / "a.mp4")], Job(anomalies=("x",)), tmp_path, Script([0.0] * 20 + [1.0] * 10, pixel=True))
    frames = list(video.frames(tmp_path / "overlay.mp4"))
    assert len(frames) == 30
    assert frames[0].shape == (156, 160, 3)  # the picture, and the scores below it
    calm, loud = frames[5][:120].astype(int), frames[25][:120].astype(int)
    assert np.ptp(calm[40:80, 20:140], axis=2).max() < 24  # grey as it was
    right = loud[40:80, 100:140].mean(axis=(0, 1))
    assert right[0] > right[1] + 50  # the mask is red
    assert np.ptp(loud[40:80, 30:60], axis=2).max() < 24  # where there is none, not
    assert loud[0, 10:150].mean(axis=0) == pytest.approx(RED, abs=45)  # the border
    assert np.ptp(calm[0, 60:150], axis=1).max() < 24
    with video.footage(tmp_path / "overlay.mp4") as shown:
        assert shown.rate == 10


def test_a_folder_of_pictures_and_a_real_avi(tmp_path: Path, real_data: Path) -> None:
    given = [str(real_data / "UCSDped2/Test/Test004"), str(real_data / "Avenue/testing_videos/08.avi")]
    told = detect(given, Job(anomalies=("bicycle",)), tmp_path, load_detector("motion"))
    assert [(each.name, each.frames, each.rate) for each in told] == [("Test004", 180, 25.0), ("08", 36, 25.0)]
    assert len(scores_of(tmp_path / "Test004")) == 180
    assert video.count(tmp_path / "08/overlay.mp4") == 36
    assert told[0].threshold.rule.startswith("median + 3 robust standard deviations")


def test_no_overlay_no_peaks_and_a_part_of_a_video(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(50), rate=25)
    job = Job(anomalies=("x",), overlay=False, peaks=0, seconds=0.6, threshold=0.05)
    told = answer(Source(name="a", place=str(tmp_path / "a.mp4")), job, tmp_path / "out", Script([0.1], lag=4))
    assert (told.frames, told.ended, told.threshold.rule) == (15, "stopped after 0.6 s", "given")
    assert [(each.start_frame, each.stop_frame) for each in told.intervals] == [(0, 15)]
    assert not (tmp_path / "out/overlay.mp4").exists()


def test_what_an_earlier_run_left_is_no_answer(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(9), rate=25)
    source = Source(name="a", place=str(tmp_path / "a.mp4"))
    first = answer(source, Job(anomalies=("x",)), tmp_path / "out", Script([0.1]))
    assert {"overlay.mp4", "intervals.json"} <= set(first.files)
    again = answer(source, Job(anomalies=("x",), overlay=False), tmp_path / "out", Script([0.1]))
    assert "overlay.mp4" not in again.files
    assert not (tmp_path / "out/overlay.mp4").exists()

    def ends(seen: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        answer(source, Job(anomalies=("x",)), tmp_path / "out", Script([0.1]), watch=ends)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"scores.csv", "details.jsonl"}
    (tmp_path / "out/intervals.json").write_text("{}")
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(BadRecord):  # what cannot be opened takes nothing away
        answer(Source(name="b", place=str(tmp_path / "b.mp4")), Job(anomalies=("x",)), tmp_path / "out", Script([0.1]))
    assert (tmp_path / "out/intervals.json").exists()


def test_a_video_is_never_held_whole(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(400, (240, 320)), fast=True)
    worlds_videos.write_video(tmp_path / "short.mp4", worlds_videos.numbered(3))
    job = Job(anomalies=("x",), overlay=False, peaks=0)
    short = Source(name="short", place=str(tmp_path / "short.mp4"))
    answer(short, job, tmp_path / "short", Script([0.1]))  # what is imported for the first time counts too
    tracemalloc.start()
    told = answer(Source(name="a", place=str(tmp_path / "a.mp4")), job, tmp_path / "out", Script([0.1, 0.2], lag=8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert told.frames == 400
    assert peak < 30e6  # of which thumbnails are 15 MB; the video has 92 MB


def test_names_that_matplotlib_would_take_for_formulas(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "$x_1$.mp4", worlds_videos.numbered(5))
    job = Job(anomalies=("a $\\frac{1}$ bill",), overlay=False)
    (told,) = detect([str(tmp_path / "$x_1$.mp4")], job, tmp_path / "out", Script([0.3]))
    assert told.name == "x_1"


@pytest.mark.parametrize("words", ["\u81ea\u8ee2\u8eca \U0001f6b2", "word " * 2000, "a\nb"])
def test_words_of_any_kind_have_a_picture(tmp_path: Path, words: str) -> None:
    """The font has no such letters, and the picture no such width; warnings are errors."""
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(5))
    (told,) = detect([str(tmp_path / "a.mp4")], Job(anomalies=(words,)), tmp_path / "out", Script([0.3]))
    with Image.open(told.files["timeline.png"]) as picture:
        assert picture.size[0] == 1210
    assert json.loads(told.files["intervals.json"].read_text())["anomalies"] == [words]


def test_a_file_that_was_cut_says_so(tmp_path: Path) -> None:
    """The index stands at the end of an avi, the number of frames at its beginning."""
    worlds_videos.write_video(tmp_path / "a.avi", worlds_videos.numbered(90, (144, 192)), codec="mpeg4")
    whole = (tmp_path / "a.avi").read_bytes()
    (told,) = detect([str(tmp_path / "a.avi")], Job(anomalies=("x",)), tmp_path / "whole", load_detector("motion"))
    assert told.ended == "the video ended"
    assert told.notes == {"anomalies": "motion does not look at the words: its scores are the same for any"}
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    (told,) = detect([str(tmp_path / "a.avi")], Job(anomalies=("x",)), tmp_path / "cut", load_detector("motion"))
    assert 0 < told.frames < 60
    assert told.ended == f"the video ended after {told.frames} of the 90 frames that it says it has"


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(BadRecord, match=r"a.mp4: a video cannot be read"):
        detect([str(tmp_path / "a.mp4")], Job(anomalies=("x",)), tmp_path / "out", Script([0.3]))
    worlds_videos.write_video(tmp_path / "b.mp4", worlds_videos.numbered(3))
    reading = Script([0.3])
    reading.uses_categories = True
    with pytest.raises(DetectorError, match="needs to be told what is anomalous"):
        detect([str(tmp_path / "b.mp4")], Job(anomalies=()), tmp_path / "out", reading)


def test_one_bad_video_of_several_does_not_end_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"no video")
    worlds_videos.write_video(tmp_path / "in/b.mp4", worlds_videos.numbered(3))
    command = ["detect", str(tmp_path / "in"), "--anomaly", "x", "--detector", "motion", "--out", str(tmp_path / "out")]
    assert run(command) == 3
    told = capsys.readouterr()
    assert "lavida: a: " in told.err
    assert "a video cannot be read" in told.err
    assert told.out.splitlines()[-1] == "1 video without an answer: a"
    assert (tmp_path / "out/b/scores.csv").exists()
    with pytest.raises(BadRecord):
        detect([str(tmp_path / "in")], Job(anomalies=("x",)), tmp_path / "again", Script([0.3]))


def test_what_cannot_be_reached_or_read_does_not_end_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worlds_videos.write_video(tmp_path / "b.mp4", worlds_videos.numbered(3))
    (tmp_path / "frames/1.png").mkdir(parents=True)  # a picture that is a folder
    (tmp_path / "frames/2.png").touch()
    given = ["http://me:secret@127.0.0.1:1/x", str(tmp_path / "frames"), str(tmp_path / "b.mp4")]
    command = ["detect", *given, "--anomaly", "x", "--detector", "motion", "--out", str(tmp_path / "out")]
    assert run(command) == 3
    told = capsys.readouterr()
    assert "lavida: 127.0.0.1-x: it cannot be reached: Connection refused" in told.err
    assert "lavida: frames: reading it failed: Is a directory" in told.err
    assert "secret" not in told.err + told.out
    assert told.out.splitlines()[-1] == "2 videos without an answer: 127.0.0.1-x, frames"
    assert (tmp_path / "out/b/intervals.json").exists()


# -- what was given ----------------------------------------------------------------------------------------------------


def test_a_directory_of_videos(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.AVI", "deep/er/c.mkv", "notes.txt", ".hidden.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "deep/frames").mkdir()
    (tmp_path / "deep/frames/1.png").touch()
    (tmp_path / "deep/frames/x.mp4").touch()
    found = find_sources([str(tmp_path), str(tmp_path / "b.mp4"), str(tmp_path / "notes.txt")])
    assert [each.name for each in found] == ["a", "b", "c", "frames", "b-2", "notes"]
    assert found[3].place == str(tmp_path / "deep/frames")
    (tmp_path / "b-2.mp4").touch()
    twice = find_sources([str(tmp_path / "b.mp4"), str(tmp_path / "b.mp4"), str(tmp_path / "b-2.mp4")])
    assert [each.name for each in twice] == ["b", "b-2", "b-2-2"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"empty: a folder holds no video and no pictures; .*mp4"):
        find_sources([str(tmp_path / "empty")])
    with pytest.raises(SourceError, match=r"lost.mp4: there is no such file or folder"):
        find_sources([str(tmp_path / "lost.mp4")])


def test_a_directory_of_videos_and_pictures_is_not_clear(tmp_path: Path) -> None:
    """Two thumbnails are no video."""
    worlds_videos.write_video(tmp_path / "mixed/cam.mp4", worlds_videos.numbered(3))
    Image.new("RGB", (8, 8)).save(tmp_path / "mixed/thumb.jpg")
    with pytest.raises(SourceError, match=r"holds pictures and videos: .*; got cam.mp4 beside pictures; name the"):
        find_sources([str(tmp_path / "mixed")])


def test_answers_are_no_videos(tmp_path: Path) -> None:
    """Asked again about the same directory, with the answers in it."""
    for name in ("a.mp4", "b.mp4"):
        worlds_videos.write_video(tmp_path / name, worlds_videos.numbered(5))
    out = tmp_path / "answers"
    for _ in range(2):
        told = detect([str(tmp_path)], Job(anomalies=("x",)), out, Script([0.3]))
        assert [each.name for each in told] == ["a", "b"]
        assert (out / "a/overlay.mp4").exists()
    (out / "link.mp4").symlink_to(tmp_path / "a.mp4")
    found = find_sources([str(tmp_path / "a.mp4"), str(out), str(out / "a"), str(out / "a/overlay.mp4")], out)
    assert [each.name for each in found] == ["a", "overlay"]  # one that is named itself is meant
    with pytest.raises(SourceError, match=r"answers: no video lies outside of the folder of the answers; give another"):
        find_sources([str(out)], out)
    before = (out / "a/overlay.mp4").read_bytes()
    with pytest.raises(SourceError, match=r"overlay: the answer would be written over the video; give another --out"):
        detect([str(out / "a/overlay.mp4")], Job(anomalies=("x",)), out / "a", Script([0.3]))
    assert (out / "a/overlay.mp4").read_bytes() == before


def test_addresses_show_no_password() -> None:
    (found,) = find_sources(["rtsp://admin:secret@10.0.0.7:554/stream/1"])
    assert found == Source(name="10.0.0.7-stream-1", place="rtsp://admin:secret@10.0.0.7:554/stream/1")
    with pytest.raises(SourceError, match=r"ftp://: this address is of a kind that is not read; allowed: http://"):
        find_sources(["ftp://host/a.mp4"])


# -- intervals ---------------------------------------------------------------------------------------------------------


def spans(scores: Sequence[float], high: float = 0.5, gap: float = 0.0, shortest: float = 0.0) -> list[tuple[int, int]]:
    values = np.asarray(scores, dtype=np.float32)
    times = np.arange(len(values)) / 10
    found = find_intervals(values, times, Threshold.given(high, "x"), gap_s=gap, min_s=shortest)
    return [(each.start_frame, each.stop_frame) for each in found]


def test_intervals_by_hand() -> None:
    assert spans([0, 1, 1, 0, 1]) == [(1, 3), (4, 5)]
    assert spans([0, 0.45, 1, 0.45, 0.41, 0.39, 0]) == [(1, 5)]  # what begins at .5 keeps to .4
    assert spans([0.45] * 5) == []
    assert spans([-0.9, -0.5, -0.45, -0.6], high=-0.5) == [(1, 3)]
    assert spans([0, 1, 0, 0, 1, 0], gap=0.2) == [(1, 5)]
    assert spans([0, 1, 0, 0, 1, 0], gap=0.19) == [(1, 2), (4, 5)]
    assert spans([0, 1, 0, 1, 1, 1], shortest=0.3) == [(3, 6)]
    assert spans([0, 1, 0, 1, 0, 1], gap=0.1, shortest=0.5) == [(1, 6)]  # joined first
    assert spans([1] * 4) == [(0, 4)]
    assert spans([1]) == [(0, 1)]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_intervals_are_apart_long_and_hold_a_peak(scores: list[float], gap: float, shortest: float) -> None:
    values = np.asarray(scores, dtype=np.float32)
    times = np.arange(len(values)) / 10
    threshold = Threshold.given(0.5, "x")
    found = find_intervals(values, times, threshold, gap_s=gap, min_s=shortest)
    for each in found:
        assert each.peak_score == values[each.start_frame : each.stop_frame].max() >= np.float32(0.5)
        assert values[each.start_frame] >= np.float32(threshold.low)
        assert values[each.stop_frame - 1] >= np.float32(threshold.low)
    for before, after in itertools.pairwise(found):
        assert after.start_s - before.stop_s > gap
    if gap == shortest == 0:
        inside = {place for each in found for place in range(each.start_frame, each.stop_frame)}
        assert {place for place, value in enumerate(values) if value >= np.float32(0.5)} <= inside


def test_the_robust_threshold() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(10, 2, 5000).astype(np.float32)
    scores[100:110] += 100  # does not move it
    threshold = Threshold.robust(scores)
    assert threshold.high == pytest.approx(16, abs=0.3)
    assert threshold.low == pytest.approx(14.8, abs=0.3)
    flat = Threshold.robust(np.array([2, 2, 2, 2, 5], dtype=np.float32))
    assert 2 < flat.low == flat.high < 2.001
    times = np.arange(4) / 10
    assert find_intervals(np.full(4, 2, dtype=np.float32), times, flat, gap_s=0, min_s=0) == []


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_peaks_of_an_endless_video_are_few_and_the_highest() -> None:
    kept = Peaks()
    rng = np.random.default_rng(0)
    scores = rng.random(20_000)
    scores[[300, 9000, 17_000]] = (3.0, 5.0, 4.0)
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    for place, score in enumerate(scores):
        kept.add(Seen(place=place, time_s=place / 25, score=float(score), picture=picture, mask=None))
    assert len(kept._best) <= BUCKETS
    assert [time for time, _ in kept.best(3)] == [300 / 25, 9000 / 25, 17_000 / 25]
    assert kept.best(0) == []
    assert Peaks().best(3) == []


def test_small_copies() -> None:
    big = np.zeros((1080, 1920, 3), dtype=np.uint8)
    assert shrunk(big).shape == (540, 960, 3)
    small = np.zeros((10, 20, 3), dtype=np.uint8)
    assert shrunk(small) is small


def test_scores_without_a_scale_are_drawn_on_their_own() -> None:
    painter = Painter(rate=5, threshold=None, scaled=False)
    picture = np.full((100, 100, 3), 90, dtype=np.uint8)
    for score in (0.0, 0.001, 0.002):
        drawn = painter.paint(picture, 1.0, score, np.zeros((50, 50), dtype=np.float32))
        assert np.array_equal(drawn[:100], picture)  # no mask, no border
    assert drawn.shape == (136, 100, 3)
    red = (drawn[100:].astype(int)[..., 0] - drawn[100:].astype(int)[..., 1]) > 100
    assert red[:, 99].any()


# -- cameras -----------------------------------------------------------------------------------------------------------


class Camera(http.server.BaseHTTPRequestHandler):
    """Sends a picture 20 times a second as cameras do, `server.frames` of them, then breaks off, goes on sending, or
    (`server.silent`) says nothing more.
    """

    def log_message(self, *told: Any) -> None:
        pass

    def do_GET(self) -> None:
        server: Any = self.server
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for place in range(server.frames):
            data = server.pictures[place % len(server.pictures)]
            try:
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(data))
                self.wfile.write(data + b"\r\n")
                self.wfile.flush()
            except OSError:
                return
            if server.stop.wait(0.005):
                return
        if server.silent:
            server.stop.wait(30)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Any]:
    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.stop, server.frames, server.silent = threading.Event(), 60, False
    server.pictures = []
    for place in range(8):
        path = tmp_path / "picture.jpg"
        Image.fromarray(np.full((48, 64, 3), 20 + 25 * place, dtype=np.uint8)).save(path)
        server.pictures.append(path.read_bytes())
    server.url = f"http://127.0.0.1:{server.server_port}/live.mjpg"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_camera_that_breaks_off_has_an_answer(tmp_path: Path, camera: Any) -> None:
    (told,) = detect([camera.url], Job(anomalies=("x",)), tmp_path / "out", Script([0.1, 0.9], lag=4))
    assert 55 <= told.frames <= 60
    assert told.name == "127.0.0.1-live.mjpg"
    assert len(scores_of(tmp_path / "out")) == told.frames
    assert video.count(tmp_path / "out/overlay.mp4") == told.frames


def test_a_camera_that_falls_silent_has_an_answer(tmp_path: Path, camera: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "ANSWERS_S", 3.0)
    camera.silent = True
    (told,) = detect([camera.url], Job(anomalies=("x",), overlay=False), tmp_path / "out", Script([0.1, 0.9], lag=4))
    assert 55 <= told.frames <= 60
    assert told.ended == "the stream broke off: a camera was silent for 3 s"
    assert len(scores_of(tmp_path / "out")) == told.frames
    camera.frames = 0
    with pytest.raises(BadRecord, match=r"live.mjpg: a camera was silent for 3 s"):
        detect([camera.url], Job(anomalies=("x",)), tmp_path / "out", Script([0.1]))


def test_a_camera_that_changes_its_size_goes_on(tmp_path: Path, camera: Any) -> None:
    path = tmp_path / "picture.jpg"
    Image.fromarray(np.full((96, 128, 3), 200, dtype=np.uint8)).save(path)
    camera.pictures = camera.pictures[:1] * 20 + [path.read_bytes()] * 40
    seen: list[Seen] = []
    told = answer(
        Source(name="cam", place=camera.url), Job(anomalies=("x",)), tmp_path / "out", Script([0.1]), watch=seen.append
    )
    assert told.frames >= 55
    assert {each.picture.shape for each in seen} == {(48, 64, 3)}
    assert seen[-1].picture.mean() == pytest.approx(200, abs=3)
    assert told.notes == {"resized": f"from {seen[20].time_s:.1f} s on: 128x96 came, where 64x48 began"}
    assert video.count(tmp_path / "out/overlay.mp4") == told.frames


def test_a_camera_is_watched_so_many_seconds(tmp_path: Path, camera: Any) -> None:
    camera.frames = 10**9
    (told,) = detect([camera.url], Job(anomalies=("x",), seconds=1, overlay=False), tmp_path / "out", Script([0.1]))
    assert told.ended == "stopped after 1 s"
    assert told.seconds == pytest.approx(1, abs=0.1)


def test_ctrl_c_ends_a_camera_and_gives_the_answer(tmp_path: Path, camera: Any) -> None:
    camera.frames = 10**9
    before = signal.getsignal(signal.SIGINT)

    def watch(seen: Seen) -> None:
        if seen.place == 40:
            os.kill(os.getpid(), signal.SIGINT)

    told = answer(
        Source(name="cam", place=camera.url), Job(anomalies=("x",)), tmp_path / "out", Script([0.1]), watch=watch
    )
    assert told.ended == "stopped by hand"
    assert 41 <= told.frames < 60
    assert signal.getsignal(signal.SIGINT) is before
    lines = (tmp_path / "out/scores.csv").read_text().splitlines()
    assert len(lines) == told.frames + 1


def test_a_file_over_http(tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(20), rate=10)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        with video.footage(f"{url}/a.mp4") as shown:
            assert (shown.live, shown.rate) == (True, 10)
            assert [worlds_videos.number(frame) for _, frame in shown.frames] == list(range(20))
        with pytest.raises(BadRecord, match=r"404 Not Found"), video.footage(f"{url}/lost.mp4"):
            pass
        server.shutdown()
        thread.join()
    with pytest.raises(SourceError, match="cam: it cannot be reached: Connection refused"):
        answer(Source(name="cam", place=f"{url}/a.mp4"), Job(anomalies=("x",)), tmp_path / "out", Script([0.1]))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *told: Any) -> None:
        pass


@pytest.mark.long
def test_the_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A saved model is loaded where nothing else has been imported before; its masks are drawn."""
    from lavida.model import LavidaModel

    LavidaModel.tiny(0).save_pretrained(tmp_path / "model")
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(20), rate=10)
    command = [sys.executable, "-m", "lavida", "detect", str(tmp_path / "a.mp4"), "--anomaly", "a bicycle", "--json"]
    command += ["--model", str(tmp_path / "model"), "--device", "cpu", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    (told,) = json.loads(done.stdout)
    assert (told["detector"], told["frames"], told["threshold"]["high"]) == ("lavida", 20, 0.5)
    assert video.count(tmp_path / "out/overlay.mp4") == 20
