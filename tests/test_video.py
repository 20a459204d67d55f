from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import worlds_videos
from PIL import Image
from worlds_videos import number, numbered

from aesampler import video
from aesampler.errors import BadRecord, MissingExtra


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "libx264"), ("avi", "mpeg4"), ("mkv", "libx264")])
def test_frames_are_those_asked_for(tmp_path: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"clip.{ending}"
    worlds_videos.write_video(path, numbered(90), codec=codec, every=25)
    assert video.count(path) == 90
    every = list(video.frames(path))
    assert [number(frame) for frame in every] == list(range(90))
    for places in ([0], [89], [30, 34, 38], [70, 3, 3], list(range(20, 40)), []):
        found = video.chosen(path, places)
        assert [number(frame) for frame in found] == places
        assert all(np.array_equal(frame, every[place]) for frame, place in zip(found, places, strict=True))
    with pytest.raises(BadRecord, match=rf"clip.{ending}: a video is shorter than its annotation; got 90 frames"):
        video.chosen(path, [3, 90])


OPEN = "keyint=12:min-keyint=12:open-gop=1:bframes=3:b-adapt=0:scenecut=0"
STRIPES = "intra-refresh=1:keyint=12:bframes=0"


@pytest.mark.parametrize(("ending", "x264"), [("mp4", OPEN), ("avi", OPEN), ("mp4", STRIPES), ("mkv", STRIPES)])
def test_a_jump_that_does_not_lead_to_the_frame_is_seen(tmp_path: Path, ending: str, x264: str) -> None:
    """Key frames that are shown after others; stamps of the order of decoding; pictures refreshed by the stripe."""
    path = tmp_path / f"clip.{ending}"
    worlds_videos.write_video(path, numbered(60), x264=x264, both_ways=0 if x264 == STRIPES else 3)
    every = list(video.frames(path))
    assert [number(frame) for frame in every] == list(range(60))
    clips = [[place] for place in range(60)] + [list(range(first, first + 16, 4)) for first in range(0, 44, 3)]
    for places in clips:
        found = video.chosen(path, places)
        assert all(np.array_equal(frame, every[place]) for frame, place in zip(found, places, strict=True)), places


@pytest.mark.parametrize("at", [5, 12, 14])
def test_frames_that_were_cut_off_are_not_counted(tmp_path: Path, at: int) -> None:
    """A file that was cut without coding it anew holds what comes before the cut, and says not to show it."""
    import av

    worlds_videos.write_video(tmp_path / "whole.mp4", numbered(60))
    path = tmp_path / "cut.mp4"
    with av.open(str(tmp_path / "whole.mp4")) as whole, av.open(str(path), "w") as container:
        stream = whole.streams.video[0]
        copied = container.add_stream_from_template(stream)
        ticks = at * int(1 / stream.average_rate / stream.time_base)
        for packet in list(whole.demux(stream)):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - ticks, packet.dts - ticks, copied
                container.mux(packet)
    every = list(video.frames(path))
    assert [number(frame) for frame in every] == list(range(at, 60))
    assert video.count(path) == 60 - at
    for places in ([0], [59 - at], list(range(3, 19, 4))):
        assert [number(frame) for frame in video.chosen(path, places)] == [place + at for place in places]


def test_a_real_avi(real_data: Path) -> None:
    path = min((real_data / "Avenue").rglob("*.avi"))
    every = list(video.frames(path))
    found = video.chosen(path, [0, 17, 35])
    assert found[0].shape == (360, 640, 3)
    assert all(np.array_equal(frame, every[place]) for frame, place in zip(found, (0, 17, 35), strict=True))


def test_a_title_that_is_not_in_utf_8(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.avi"), "w") as file:
        file.metadata["title"] = "EEEE"
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), dtype=np.uint8), format="rgb24")))
        file.mux(stream.encode())
    written = (tmp_path / "a.avi").read_bytes()
    assert written.count(b"EEEE") == 1
    (tmp_path / "a.avi").write_bytes(written.replace(b"EEEE", "\u00e9t\u00e9!".encode("latin-1")))
    assert len(list(video.frames(tmp_path / "a.avi"))) == 3


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for place in (10, 2, 1):
        Image.fromarray(np.full((4, 6), place, dtype=np.uint8)).save(tmp_path / f"{place}.tif")
    (tmp_path / "notes.txt").write_text("x")
    assert video.count(tmp_path) == 3
    assert [int(frame[0, 0, 0]) for frame in video.frames(tmp_path)] == [1, 2, 10]
    assert [int(frame[0, 0, 0]) for frame in video.chosen(tmp_path, [2, 0])] == [10, 1]
    with pytest.raises(BadRecord, match=r"a video is shorter than its annotation; got 3 frames; allowed: more than 3"):
        video.chosen(tmp_path, [3])
    (tmp_path / "2.tif").write_bytes(b"")
    with pytest.raises(BadRecord, match=r"2.tif: an image cannot be read"):
        video.chosen(tmp_path, [1])


def test_files_that_are_no_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(BadRecord, match=r"clip.mp4: a video cannot be read"):
        video.chosen(path, [0])
    with pytest.raises(FileNotFoundError):
        video.count(tmp_path / "lost.mp4")
    worlds_videos.write_video(path, numbered(30))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadRecord, match=r"clip.mp4: a video cannot be read"):
        list(video.frames(path))


def test_footage_is_a_video_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    worlds_videos.write_video(path, numbered(30), rate=15)
    with video.footage(path) as shown:
        assert (shown.rate, shown.length, shown.live) == (15.0, 30, False)
        seen = [(time, number(frame)) for time, frame in shown.frames]
    assert seen == [(pytest.approx(place / 15), place) for place in range(30)]
    (tmp_path / "frames").mkdir()
    for place in range(3):
        Image.fromarray(np.full((4, 6, 3), place, dtype=np.uint8)).save(tmp_path / "frames" / f"{place}.png")
    with video.footage(str(tmp_path / "frames")) as shown:
        assert (shown.rate, shown.length) == (25.0, 3)
        assert [(time, int(frame[0, 0, 0])) for time, frame in shown.frames] == [(0.0, 0), (0.04, 1), (0.08, 2)]


@pytest.mark.parametrize("turned", [90, -90, 180])
def test_footage_is_upright(tmp_path: Path, turned: int) -> None:
    """As a telephone writes it: the frames as its sensor lies, and how it was held. Datasets are read as they are."""
    import av

    path = tmp_path / "clip.mp4"
    stored = np.zeros((48, 64, 3), dtype=np.uint8)
    stored[:24, :32] = 255  # one corner
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.set_display_rotation(turned)
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        file.mux(stream.encode())
    expected = {90: stored[:, ::-1].transpose(1, 0, 2), -90: stored[::-1].transpose(1, 0, 2), 180: stored[::-1, ::-1]}
    with video.footage(path) as shown:
        seen = [frame for _, frame in shown.frames]
    assert len(seen) == 3
    assert seen[0].shape == expected[turned].shape
    assert np.abs(seen[0].astype(int) - expected[turned].astype(int)).mean() < 3
    assert next(video.frames(path)).shape == (48, 64, 3)


def test_footage_lets_in_the_formats_that_it_is_told(tmp_path: Path) -> None:
    """A stranger's file may be a playlist that names files of this machine."""
    worlds_videos.write_video(tmp_path / "clip.mp4", numbered(10))
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:9", "#EXTINF:1,", f"{tmp_path}/clip.mp4", "#EXT-X-ENDLIST"]
    (tmp_path / "list.mp4").write_text("\n".join(lines))
    with video.footage(tmp_path / "clip.mp4", formats=("mov", "avi")) as shown:
        assert len(list(shown.frames)) == 10
    with pytest.raises(BadRecord, match=r"list.mp4: a video"), video.footage(tmp_path / "list.mp4", formats=("mov",)):
        pass
    with pytest.raises(BadRecord), video.footage(tmp_path / "clip.mp4", formats=("avi",)):
        pass


@pytest.mark.parametrize(
    ("source", "address"),
    [("rtsp://10.0.0.1/1", True), ("HTTP://host/a.mp4", True), ("file:///etc/passwd", False), ("a.mp4", False)],
)
def test_addresses(source: str, address: bool) -> None:
    assert video.is_address(source) is address


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"this needs the package av, .*pip install 'aesampler\[video\]'"):
        video.count(tmp_path / "clip.mp4")
