"""The page of `lavida serve`: what it answers, what it refuses, what it leaves; and, long, in a real Chromium."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
import worlds_videos
from PIL import Image

from aesampler import video
from aesampler.errors import StorageError
from lavida import serve
from lavida.detectors import Detector, Frame, Scored
from lavida.serve import Limits, Runs
from lavida.serve.app import application, page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_S = 60.0


class Slow(Detector):
    """Scores by the grey of the frame; `gate` holds it back."""

    name = "slow"
    threshold = 0.5

    def __init__(self, pixel: bool = False) -> None:
        self.pixel = pixel
        self.gate = threading.Event()
        self.gate.set()
        self.told: tuple[str, ...] = ()

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        self.told = categories
        for place, frame in enumerate(frames):
            self.gate.wait(WAIT_S)
            score = np.full(1, float(8 <= place % 24 < 14), dtype=np.float32)
            planes = np.zeros((1, *frame.shape[:2]), dtype=np.float16)
            planes[:, 10:40, 10:40] = score[0]
            yield Scored(start=place, frame_scores=score, pixel_scores=planes if self.pixel else None)


class Served:
    """A server in a thread of this process."""

    def __init__(self, detector: Detector, limits: Limits) -> None:
        self.runs = Runs(detector, limits)
        config = uvicorn.Config(
            application(self.runs, serve.LOCAL),
            host="127.0.0.1",
            port=0,
            log_level="error",
            timeout_graceful_shutdown=2,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> Served:
        self.thread.start()
        until = time.monotonic() + WAIT_S
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.02)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *ended: object) -> None:
        self.server.should_exit = True
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.request(
            method, path, body=body, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def told(self, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any]]:
        status, _, content = self.ask(method, path, body)
        return status, json.loads(content)

    def done(self, key: str) -> dict[str, Any]:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            _, state = self.told("GET", f"/jobs/{key}")
            if state["state"] in ("done", "failed"):
                return state
            time.sleep(0.05)
        raise AssertionError("it did not end")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "gate 7.mp4"
    worlds_videos.write_video(path, worlds_videos.numbered(48, (96, 128)), rate=24)
    return path


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(Slow(pixel=True), Limits(upload_bytes=200_000, waiting=1)) as running:
        yield running


# -- what it answers ---------------------------------------------------------------------------------------------------


def test_a_video_in_a_timeline_out(served: Served, clip: Path) -> None:
    status, told = served.told("POST", "/jobs?anomaly=a%20bicycle&anomaly=smoke&name=gate%207.mp4", clip.read_bytes())
    assert status == 201
    state = served.done(told["id"])
    assert state["state"] == "done"
    assert served.runs.detector.told == ("a bicycle", "smoke")  # type: ignore[attr-defined]
    assert state["answer"]["video"] == "gate 7"
    assert [(found["start_frame"], found["stop_frame"]) for found in state["answer"]["intervals"]] == [
        (8, 14),
        (32, 38),
    ]
    assert (state["done"], state["total"], len(state["scores"])) == (48, 48, 48)
    assert state["times"][24] == 1.0
    _, later = served.told("GET", f"/jobs/{told['id']}?since=40")
    assert later["scores"] == state["scores"][40:]
    for name in state["files"]:
        assert served.ask("GET", f"/jobs/{told['id']}/{name}")[0] == 200
    status, headers, part = served.ask("GET", f"/jobs/{told['id']}/overlay.mp4", Range="bytes=0-99")
    assert (status, len(part), headers["content-type"]) == (206, 100, "video/mp4")
    assert served.ask("GET", f"/jobs/{told['id']}/..%2Fupload")[0] == 404
    assert served.ask("GET", f"/jobs/{told['id']}/upload")[0] == 404


def test_what_is_taken_away_is_gone(served: Served, clip: Path) -> None:
    _, told = served.told("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
    served.done(told["id"])
    assert list(served.runs.folder.iterdir())
    assert served.ask("DELETE", f"/jobs/{told['id']}")[0] == 204
    assert list(served.runs.folder.iterdir()) == []
    assert served.told("GET", f"/jobs/{told['id']}") == (404, {"error": "this run is gone; send the video again"})
    assert served.ask("DELETE", f"/jobs/{told['id']}")[0] == 204


def test_a_video_in_work_stops_when_it_is_taken_away(served: Served, clip: Path) -> None:
    detector: Any = served.runs.detector
    detector.gate.clear()
    _, first = served.told("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
    _, second = served.told("POST", "/jobs?anomaly=y&name=b.mp4", clip.read_bytes())
    _, state = served.told("GET", f"/jobs/{second['id']}")
    assert (state["state"], state["ahead"]) == ("waiting", 1)
    status, told = served.told("POST", "/jobs?anomaly=z&name=c.mp4", clip.read_bytes())
    assert (status, told["error"]) == (
        503,
        "too many videos are waiting; got 2; try again when one of them is done",
    )
    served.ask("DELETE", f"/jobs/{first['id']}")
    detector.gate.set()
    assert served.done(second["id"])["state"] == "done"
    assert len(list(served.runs.folder.iterdir())) == 1


def test_a_page_that_is_closed_before_it_hears_of_its_run(
    served: Served, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could ever ask for that run, or take it away."""
    closed, add, added = threading.Event(), served.runs.add, []

    def slowly(*given: Any) -> Any:
        closed.wait(WAIT_S)
        until = time.monotonic() + WAIT_S
        while served.server.server_state.connections and time.monotonic() < until:
            time.sleep(0.01)
        added.append(add(*given))
        return added[-1]

    monkeypatch.setattr(served.runs, "add", slowly)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WAIT_S)
    connection.request("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
    connection.close()
    closed.set()
    until = time.monotonic() + WAIT_S
    while not (added and added[0].gone.is_set()) and time.monotonic() < until:
        time.sleep(0.01)
    assert added[0].gone.is_set()
    while list(served.runs.folder.iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not list(served.runs.folder.iterdir())


def test_nothing_is_left_when_it_stops(clip: Path) -> None:
    with Served(Slow(), Limits()) as running:
        _, told = running.told("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
        running.done(told["id"])
        folder = running.runs.folder
        assert folder.is_dir()
    assert not folder.exists()


def test_few_finished_runs_are_kept(served: Served, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavida.serve.jobs.KEPT", 2)
    keys = []
    for _ in range(4):
        _, told = served.told("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
        served.done(told["id"])
        keys.append(told["id"])
    assert [served.ask("GET", f"/jobs/{key}")[0] for key in keys] == [404, 200, 200, 200]


# -- what it refuses ---------------------------------------------------------------------------------------------------


def test_what_is_no_video(served: Served, clip: Path, tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "a.mp4", worlds_videos.numbered(9))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{tmp_path}/a.mp4\n#EXT-X-ENDLIST\n"
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    for name, body in (
        ("notes.txt", b"Dear diary"),
        ("list.m3u8", playlist.encode()),
        ("cut.mp4", clip.read_bytes()[:900]),
        ("a.png", (tmp_path / "a.png").read_bytes()),
    ):
        status, told = served.told("POST", f"/jobs?anomaly=x&name={name}", body)
        assert status == 422, name
        assert re.fullmatch(rf"{name}: this file is no video that can be read: .*; give an mp4, avi.*", told["error"])
    status, told = served.told("POST", "/jobs?anomaly=x&name=..%2F..%2Fa.mp4", b"")
    assert (status, told["error"]) == (422, "a.mp4: the file is empty")
    assert list(served.runs.folder.iterdir()) == []


def test_what_is_too_large(served: Served) -> None:
    status, told = served.told("POST", "/jobs?anomaly=x&name=a.mp4", b"x" * 200_001)
    assert status == 413
    assert told["error"] == (
        "a.mp4: the video is larger than 0 MB; cut it, or start lavida serve with a higher --max-mb"
    )
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WAIT_S)
    connection.request("POST", "/jobs?anomaly=x", body=iter([b"x" * 150_000, b"x" * 60_000]), encode_chunked=True)
    assert connection.getresponse().status == 413  # a body that does not say its size
    connection.close()
    assert list(served.runs.folder.iterdir()) == []


def test_uploads_on_their_way_wait_too(served: Served, clip: Path) -> None:
    rooms = [served.runs.room() for _ in range(2)]  # one in work, one that waits
    status, told = served.told("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
    assert (status, told["error"]) == (503, "too many videos are waiting; got 2; try again when one of them is done")
    for room in rooms:
        served.runs.give_up(room)
    for _ in range(3):  # what was refused takes no place
        assert served.told("POST", "/jobs?anomaly=x&name=a.mp4", b"no video")[0] == 422
        assert served.told("POST", "/jobs?anomaly=x&name=a.mp4", b"")[0] == 422
    _, told = served.told("POST", "/jobs?anomaly=x&name=a.mp4", clip.read_bytes())
    assert served.done(told["id"])["state"] == "done"


def test_what_is_not_said_or_too_much(served: Served, clip: Path) -> None:
    assert served.told("POST", "/jobs?name=a.mp4&anomaly=%20", clip.read_bytes()) == (
        422,
        {"error": "no anomaly was named; say in words what is looked for"},
    )
    status, _ = served.told("POST", "/jobs?" + "&".join(f"anomaly={n}" for n in range(31)), clip.read_bytes())
    assert status == 422
    assert served.told("POST", f"/jobs?anomaly={'x' * 201}", clip.read_bytes())[0] == 422
    _, told = served.told("POST", "/jobs?anomaly=x", clip.read_bytes())
    assert served.told("GET", f"/jobs/{told['id']}?since=-1")[0] == 422
    served.done(told["id"])


def test_a_detector_that_fails_is_told(served: Served, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Slow, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        next(iter(frames))
        raise RuntimeError("a bug")
        yield

    monkeypatch.setattr(Slow, "scan", broken)
    _, told = served.told("POST", "/jobs?anomaly=x", clip.read_bytes())
    state = served.done(told["id"])
    assert (state["state"], state["error"]) == ("failed", "the detector failed: RuntimeError: a bug")
    monkeypatch.undo()
    _, told = served.told("POST", "/jobs?anomaly=x", clip.read_bytes())
    assert served.done(told["id"])["state"] == "done"


def test_other_sites_are_refused(served: Served, clip: Path) -> None:
    status, _, content = served.ask("POST", "/jobs?anomaly=x", clip.read_bytes(), Origin="http://evil.example")
    assert (status, json.loads(content)) == (403, {"error": "this request comes from another site"})
    assert served.ask("GET", "/", Host="evil.example")[0] == 400
    own = f"127.0.0.1:{served.port}"
    assert served.ask("GET", "/", Host=own, Origin=f"http://{own}")[0] == 200
    assert list(served.runs.folder.iterdir()) == []


def test_the_page_is_one_file_that_asks_for_nothing_else(served: Served) -> None:
    status, headers, content = served.ask("GET", "/")
    text = content.decode()
    assert status == 200
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert re.findall(r"(?:src|href)=\"(?!#|data:,)[^\"]+", text) == []
    assert "http://" not in re.sub(r"http://www.w3.org/2000/svg", "", text)
    assert text.isascii()
    odd = Slow()
    odd.name = "<script>alert(1)</script>"  # type: ignore[misc]
    assert "<script>alert" not in page(Runs(odd, Limits()))[0]


# -- as a command ------------------------------------------------------------------------------------------------------


def test_a_taken_port_is_said() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StorageError, match=rf"127.0.0.1:{port}: it cannot listen there: .*; give another --port"):
            serve.serve(Slow(), Limits(), port=port, told=print)


class Command:
    """`lavida serve` as a process of its own."""

    def __init__(self, *options: str, temporary: Path) -> None:
        command = [sys.executable, "-m", "lavida", "serve", "--detector", "motion", "--port", "0", *options]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stderr is not None
        found = re.search(r"open (http://127\.0\.0\.1:\d+/) in a browser", self.process.stderr.readline())
        assert found is not None
        self.url = found[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(WAIT_S)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        self.process.stderr.close()
        return code


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    running = Command("--max-mb", "5", temporary=temporary)
    yield running
    assert running.stop() == 0
    assert list(temporary.iterdir()) == []


class Opened:
    """The page, with what it complained of and asked for."""

    def __init__(self, browser: Browser, url: str, size: tuple[int, int] = (1366, 900), **options: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page: Page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)


@pytest.mark.long
def test_in_a_browser(browser: Browser, command: Command, real_data: Path, tmp_path: Path) -> None:
    """A real video in, a timeline out; then what is no video, and what is too large."""
    told = Opened(browser, command.url)
    page = told.page
    page.screenshot(path=tmp_path / "first.png", full_page=True)
    page.get_by_role("button", name="Find").click()
    assert page.locator("#alert").inner_text() == "Choose a video first."

    page.set_input_files("#file", real_data / "Avenue/testing_videos/20.avi")
    assert page.locator("#chosen").inner_text() == "20.avi"
    page.locator("#word").fill("throwing papers, running")
    page.locator("#word").press("Enter")
    page.get_by_role("button", name="a bicycle", exact=True).click()
    assert page.locator("#chips span").all_inner_texts() == ["throwing papers", "running", "a bicycle"]
    page.get_by_role("button", name="Remove running").click()
    assert page.locator("#chips span").all_inner_texts() == ["throwing papers", "a bicycle"]

    page.get_by_role("button", name="Find").click()
    _true(page, "/frames of 273/.test(document.getElementById('status').value)")
    assert page.locator("#line").get_attribute("d")  # it is drawn while it comes
    page.locator("#done").wait_for(timeout=120_000)
    assert page.locator("#status").inner_text() == "273 frames, 10.9 s"
    assert page.locator("#line").get_attribute("d").count("L") == 272  # type: ignore[union-attr]
    shown = page.locator("#intervals button").all_inner_texts()
    assert page.locator("#spans rect").count() == len(shown) == 2
    assert re.match(r"3\.6 s \u2013 4\.4 s", shown[0])
    _true(page, "document.getElementById('overlay').readyState >= 2")
    assert page.evaluate("document.getElementById('overlay').duration") == pytest.approx(10.92, abs=0.01)
    page.locator("#intervals button").first.click()
    _true(page, "Math.abs(document.getElementById('overlay').currentTime - 3.64) < .01")
    _true(page, "Math.abs(document.getElementById('now').getAttribute('x1') - 333) < 2")
    box = page.locator("#chart").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 50)
    _true(page, "Math.abs(document.getElementById('overlay').currentTime - 5.46) < .05")
    with page.expect_download() as download:
        page.get_by_role("link", name="overlay.mp4").click()
    assert video.count(Path(download.value.path())) == 273
    page.screenshot(path=tmp_path / "done.png", full_page=True)
    assert told.complaints == []
    assert {url.split("/")[2] for url in told.requests} == {command.url.split("/")[2]}

    (tmp_path / "notes.mp4").write_bytes(b"Dear diary, " * 100)
    page.set_input_files("#file", tmp_path / "notes.mp4")
    page.get_by_role("button", name="Find").click()
    page.locator("#alert").wait_for()
    assert page.locator("#alert").inner_text().startswith("notes.mp4: this file is no video that can be read")
    assert page.get_by_role("button", name="Find").is_enabled()

    (tmp_path / "huge.mp4").write_bytes(b"\0" * 6_000_000)
    page.set_input_files("#file", tmp_path / "huge.mp4")
    said = page.locator("#alert").inner_text()
    assert said.startswith("huge.mp4 is too large: it has 6.0 MB, and this page takes 5.0 MB at most")
    page.get_by_role("button", name="Find").click()
    assert page.locator("#alert").inner_text() == "Choose a video first."
    page.close()


@pytest.mark.long
def test_a_run_can_be_stopped_and_the_page_closed(browser: Browser, command: Command, tmp_path: Path) -> None:
    worlds_videos.write_video(tmp_path / "long.mp4", worlds_videos.numbered(3000, (96, 128)), fast=True)
    told = Opened(browser, command.url)
    page = told.page
    page.set_input_files("#file", tmp_path / "long.mp4")
    page.get_by_role("button", name="Find").click()
    _true(page, "/frames of 3,000/.test(document.getElementById('status').value)")
    page.get_by_role("button", name="Stop").click()
    assert page.locator("#alert").inner_text() == "Stopped."
    assert page.get_by_role("button", name="Find").is_enabled()
    folder = next((tmp_path / "temporary").glob("lavida-serve-*"))
    _until(lambda: not list(folder.iterdir()))
    page.get_by_role("button", name="Find").click()
    _true(page, "/frames of 3,000/.test(document.getElementById('status').value)")
    page.goto("about:blank")
    _until(lambda: not list(folder.iterdir()))
    page.close()


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1366, 900), (390, 844)], ids=["wide", "narrow"])
def test_it_fits_the_screen(browser: Browser, clip: Path, tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    with Served(Slow(pixel=True), Limits()) as running:
        told = Opened(browser, running.url, size, color_scheme=scheme)
        page = told.page
        page.set_input_files("#file", clip)
        page.locator("#word").fill("<b>a very long description of something that does not end</b> " * 3)
        page.get_by_role("button", name="Find").click()
        page.locator("#done").wait_for(timeout=60_000)
        _true(page, "document.getElementById('overlay').readyState >= 2")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        picture = tmp_path / f"{size[0]}-{scheme}.png"
        page.screenshot(path=picture, full_page=True)
        with Image.open(picture) as shot:
            paper = np.median(np.asarray(shot.convert("L")))
        assert (paper < 60) if scheme == "dark" else (paper > 200)
        small = page.evaluate(
            "[...document.querySelectorAll('button, input[type=text]')].filter(e => e.offsetParent)"
            ".map(e => [e.id || e.className, e.getBoundingClientRect().height]).filter(([, h]) => h < 24)"
        )
        assert small == []
        assert told.complaints == []
        page.close()


def _true(page: Page, expression: str) -> None:
    """Wait for it from here: playwright's own waiting evaluates strings in the page, whose policy forbids that."""
    _until(lambda: page.evaluate(expression))


def _until(true: Any) -> None:
    end = time.monotonic() + WAIT_S
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    assert true()
