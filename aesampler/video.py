"""Frames of a video: a file that FFmpeg can read (mp4, avi, mkv, webm ...), a folder of pictures, or the address of a
camera; and frames written as mp4. The only importer of PyAV, and only when a file is opened.

Frames are counted in the order in which they are shown, from 0. A few frames out of many are found by the time stamps
of the packets, which are read without decoding, and a jump to the key frame before them: a clip of 8 frames, 4 apart,
out of 483 of 848 x 480 with a key frame every 250 takes 0.06 to 0.8 s, all of them 1.3 s. Where a file has no such
stamps, or the jump does not lead from a key frame straight to the frame, the file is decoded from its beginning: avi
has no times of showing, and where pictures are refreshed by the stripe a jump shows half of one. A rotation that a
camera noted is ignored, as EXIF is for pictures: annotations are of the frames as they are stored. Only `footage`, for
those who look, turns them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from aesampler import image
from aesampler.errors import BadRecord, MissingExtra
from aesampler.image import Pixels

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

PICTURES = frozenset({"jpg", "jpeg", "png", "tif", "tiff", "bmp", "webp"})
"""Endings of a folder's files that are frames."""
VIDEOS = frozenset({"avi", "flv", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "ts", "webm", "wmv"})
"""Endings of a folder's files that are videos; a file that is named itself may have any."""
SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "udp")
"""How the address of a camera may begin."""
FOLDER_RATE = 25.0
"""Frames a second of what does not say its own: a folder of pictures, a raw stream."""
ANSWERS_S = 15.0
"""How long a camera may be silent."""
_NUMBER = re.compile(r"(\d+)")
_SECRET = re.compile(r"//[^/]*@")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# What a stream may lead to: its playlists may name other addresses, but no file of this machine.
_REMOTE = {"protocol_whitelist": "http,https,tcp,tls,crypto,data,httpproxy,rtp,rtsp,rtsps,srtp,rtmp,udp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Footage:
    """A video as it comes: `frames` is gone through once, in memory of one frame.

    rate: frames a second. length: how many frames, as the source says beforehand, for progress; None where it does not.
    whole: how many a whole file has, where its head says so and all are to be shown (avi), to notice one that was cut.
    live: the frames come from an address, and may never end. frames: (seconds since the first, uint8 [height, width,
    3]), upright where the camera noted how it was held; their size may change. Going through them raises BadRecord
    where the video is damaged or a camera falls silent, OSError where reading fails.
    """

    rate: float
    length: int | None
    live: bool
    frames: Iterator[tuple[float, Pixels]]
    whole: int | None = None


def is_address(source: str) -> bool:
    """Whether `source` is the address of a stream, not a path."""
    found = _ADDRESS.match(source)
    return found is not None and found[1].lower() in SCHEMES


@contextmanager
def footage(source: str | Path, *, formats: Sequence[str] = ()) -> Iterator[Footage]:
    """A file, a folder of pictures or an address (http, rtsp ...), open for the `with` block.

    formats: FFmpeg's names of the containers that are let in (`mov`, `matroska`), for files of strangers: FFmpeg would
    open playlists too, which name other files. Raises BadRecord where the source is no video, OSError where it cannot
    be reached. A picture of a live stream that arrives broken is left out.
    """
    if is_address(str(source)):
        with _opened(str(source), _REMOTE | {"rtsp_transport": "tcp"}) as (container, stream):
            yield _footage(container, stream, _public(str(source)), live=True)
        return
    path = Path(source)
    if path.is_dir():
        pictures = _pictures(path)
        shown = ((place / FOLDER_RATE, _decoded(picture)) for place, picture in enumerate(pictures))
        yield Footage(rate=FOLDER_RATE, length=len(pictures), live=False, frames=shown)
        return
    allowed = {"format_whitelist": ",".join(formats)} if formats else {}
    with _opened(path, allowed | {"protocol_whitelist": "file"}) as (container, stream):
        yield _footage(container, stream, path.name, live=False)


def frames(path: Path) -> Iterator[Pixels]:
    """Every frame, uint8 [height, width, 3], in order. Raises BadRecord where the file is no video, or ends badly."""
    if path.is_dir():
        for picture in _pictures(path):
            yield _decoded(picture)
        return
    with _opened(path) as (container, stream):
        for frame in container.decode(stream):
            yield _rgb(frame)


def chosen(path: Path, places: Sequence[int]) -> list[Pixels]:
    """The frames at `places`, in the order asked for. Raises BadRecord also where the video is shorter."""
    if path.is_dir():
        pictures = _pictures(path)
        _refuse_beyond(places, len(pictures), path)
        return [_decoded(pictures[place]) for place in places]
    with opened(path) as file:
        return file.chosen(places)


@contextmanager
def opened(path: Path) -> Iterator[Video]:
    """A file from which frames are taken again and again, open for the `with` block."""
    with _opened(path) as (container, stream):
        yield Video(container, stream, path)


class Video:
    """An open file. Frames that are asked for in ascending order are all found in one pass over it.

    One thread at a time. The frames last given are kept, for a clip that overlaps the one before it: do not write into
    them.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, path: Path) -> None:
        self._container, self._stream, self._path = container, stream, path
        stream.codec_context.thread_count = 1  # a process that forks while a file is open would lose FFmpeg's threads
        self._times, self._keys = _packets(container, stream)
        if container.format.name == "avi" and stream.codec_context.has_b_frames:
            self._times, self._keys = [], []  # its stamps are of the order of decoding
        self._places = {time: place for place, time in enumerate(self._times)}
        self._given: dict[int, Pixels] = {}
        self._ahead: Iterator[VideoFrame] = iter(())
        self._at: int | None = None  # the frame decoded last; None: nowhere to go on from

    def chosen(self, places: Sequence[int]) -> list[Pixels]:
        """The frames at `places`, in the order asked for. Raises BadRecord also where the video is shorter."""
        with _understood(self._path.name):
            found = {place: self._given[place] for place in places if place in self._given}
            lacking = sorted({*places} - found.keys())
            if lacking and lacking[-1] < len(self._times):
                found |= self._passed(lacking)
        if found.keys() != {*places}:
            found = self._from_the_start({*places})
        self._given = found
        return [found[place] for place in places]

    def _passed(self, ascending: Sequence[int]) -> dict[int, Pixels]:
        """Those of the frames that are met on the way, from where the last one was or from a key frame before them."""
        found: dict[int, Pixels] = {}
        for place in ascending:
            key = max((key for key in self._keys if key <= place), default=0)
            at, self._at = self._at, None
            if at is None or not key - 1 <= at < place:
                self._container.seek(self._times[place], stream=self._stream)
                self._ahead, at = self._container.decode(self._stream), None
            for frame in self._ahead:
                shown = self._places.get(frame.pts) if frame.pts is not None else None
                if shown is None or (shown != at + 1 if at is not None else shown not in self._keys):
                    return found
                at = shown
                if at >= place:
                    break
            if at != place:
                return found
            self._at = place
            found[place] = _rgb(frame)
        return found

    def _from_the_start(self, wanted: set[int]) -> dict[int, Pixels]:
        found, count = {}, 0
        for place, frame in enumerate(frames(self._path)):
            count = place + 1
            if place in wanted:
                found[place] = frame
            if len(found) == len(wanted):
                return found
        _refuse_beyond(wanted, count, self._path)
        return found


def count(path: Path) -> int:
    """How many frames there are; of a file without time stamps, by decoding it."""
    if path.is_dir():
        return len(_pictures(path))
    with _opened(path) as (container, stream):
        times, _ = _packets(container, stream)
    return len(times) or sum(1 for _ in frames(path))


def require() -> None:
    """Raise MissingExtra where PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise MissingExtra.of("av", "video") from error


def write(sink: BinaryIO, pictures: Iterable[Pixels], fps: int | Fraction) -> None:
    """Write pictures, uint8 [height, width, 3] of one size, as an H.264 mp4 that browsers play. sink: seekable.

    H.264 in 4:2:0 has even sides only: an odd one is lengthened by a copy of its last row or column. Raises ValueError
    where there is no picture, or one of another size.
    """
    require()
    import av

    stream = None
    # bitexact leaves out FFmpeg's version. A fixed quantizer: x264's own choice of one (crf) was seen to differ between
    # two runs on the same pictures.
    with av.open(sink, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        for picture in pictures:
            even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
            if stream is None:
                stream = container.add_stream("libx264", rate=fps, options={"qp": "20", "threads": "1"})
                stream.height, stream.width, stream.pix_fmt = even.shape[0], even.shape[1], "yuv420p"
            elif (stream.height, stream.width) != even.shape[:2]:
                allowed = f"{stream.height} x {stream.width}"
                raise ValueError(f"the pictures of a video are of one size: {allowed}; got one of {picture.shape}")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        if stream is None:
            raise ValueError("a video needs a picture")
        container.mux(stream.encode())


def found_in(folder: Path) -> Iterator[Path]:
    """The videos below a folder, sorted: files, and folders of pictures, which are not entered; hidden ones are not
    seen.
    """
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if holds_pictures(path):
                yield path
            else:
                yield from found_in(path)
        elif path.suffix[1:].lower() in VIDEOS:
            yield path


def holds_pictures(folder: Path) -> bool:
    """Whether pictures, the frames of a video, lie straight in a folder."""
    return any(path.suffix[1:].lower() in PICTURES for path in folder.iterdir() if path.is_file())


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, numbers in their names by value: 2.jpg comes before 10.jpg. Hidden files are none of
    them: archives made on a Mac carry a `._001.tif` beside a 001.tif (UCSD Ped).
    """
    every = (path for path in folder.iterdir() if not path.name.startswith("."))
    found = [path for path in every if path.suffix[1:].lower() in PICTURES]
    return sorted(found, key=lambda path: ([*_split(path.name)], path.name))


def _split(name: str) -> Iterator[tuple[int, str]]:
    for part in _NUMBER.split(name):
        yield (int(part), "") if part.isdecimal() else (-1, part)


def _decoded(picture: Path) -> Pixels:
    try:
        return image.decode(picture.read_bytes())
    except BadRecord as error:
        raise BadRecord(error.what, where=picture.name, got=error.got) from error


def _refuse_beyond(places: Collection[int], count: int, path: Path) -> None:
    if any(place >= count for place in places):
        raise BadRecord(
            "a video is shorter than its annotation",
            where=path.name,
            got=f"{count} frames",
            allowed=f"more than {max(places)}",
        )


@contextmanager
def _opened(path: Path | str, options: Mapping[str, str] | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file or an address, and its first video stream. What FFmpeg finds wrong with it inside becomes BadRecord; I/O
    errors pass.
    """
    require()
    import av

    where = _public(path) if isinstance(path, str) else path.name
    patience = ANSWERS_S if isinstance(path, str) else None
    # Titles and the like are not read here, and are not always in UTF-8.
    with (
        _understood(where),
        av.open(str(path), options=dict(options or {}), metadata_errors="replace", timeout=patience) as container,
    ):
        if not container.streams.video:
            raise BadRecord("a file holds no video", where=where)
        yield container, container.streams.video[0]


def _public(address: str) -> str:
    """An address without the name and password that may stand in it."""
    return _SECRET.sub("//", address, count=1)


@contextmanager
def _understood(where: str) -> Iterator[None]:
    """What FFmpeg finds wrong becomes BadRecord, `where` its place; I/O errors pass."""
    from av.error import ExitError, FFmpegError

    try:
        yield
    except ExitError as error:  # what PyAV's `timeout` ends in
        raise BadRecord(f"a camera was silent for {ANSWERS_S:g} s", where=where) from error
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise BadRecord(f"a video cannot be read ({error.strerror})", where=where) from error


def _footage(container: InputContainer, stream: VideoStream, where: str, live: bool) -> Footage:
    rate = float(stream.average_rate or stream.guessed_rate or FOLDER_RATE)
    shown = _timed(_unbroken(container, stream) if live else container.decode(stream), rate, where)
    stated = None if live else stream.frames or None
    return Footage(
        rate=rate, length=stated, live=live, frames=shown, whole=stated if container.format.name == "avi" else None
    )


def _timed(shown: Iterable[VideoFrame], rate: float, where: str) -> Iterator[tuple[float, Pixels]]:
    first = None
    with _understood(where):  # here, since who goes through the frames is to know their errors
        for place, frame in enumerate(shown):
            time = place / rate if frame.time is None else float(frame.time)
            first = time if first is None else first
            yield time - first, _upright(frame)


def _unbroken(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames of a stream that lost packets on its way, without those that cannot be decoded."""
    from av.error import InvalidDataError

    for packet in container.demux(stream):
        try:
            whole = packet.decode()
        except InvalidDataError:
            continue
        yield from whole


def _rgb(frame: VideoFrame) -> Pixels:
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _upright(frame: VideoFrame) -> Pixels:
    """The pixels, turned as the camera noted that it was held, by quarters of a circle."""
    return np.ascontiguousarray(np.rot90(_rgb(frame), round(frame.rotation / 90)))


def _packets(container: InputContainer, stream: VideoStream) -> tuple[list[int], list[int]]:
    """The time stamps of all frames, ascending, and the places of key frames; both empty where packets have no stamps,
    or two the same. Nothing is decoded. What a file says is not to be shown, as where it was cut, is no frame.
    """
    packets = [
        (packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size and not packet.is_discard
    ]
    keys = {stamp for stamp, is_key in packets if stamp is not None and is_key}
    times = sorted({stamp for stamp, _ in packets if stamp is not None})
    if len(times) != len(packets):
        return [], []
    return times, [place for place, time in enumerate(times) if time in keys]
