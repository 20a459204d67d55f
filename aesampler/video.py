"""Frames of a video: a file that FFmpeg can read (mp4, avi, mkv, webm ...), or a folder of pictures; and frames written
as mp4. The only importer of PyAV, and only when a file is opened.

Frames are counted in the order in which they are shown, from 0. A few frames out of many are found by the time stamps
of the packets, which are read without decoding, and a jump to the key frame before them: a clip of 8 frames, 4 apart,
out of 483 of 848 x 480 with a key frame every 250 takes 0.06 to 0.8 s, all of them 1.3 s. Where a file has no such
stamps, or the jump lands behind the frame, the file is decoded from its beginning. A rotation that a camera noted is
ignored, as EXIF is for pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
_NUMBER = re.compile(r"(\d+)")


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
    wanted = set(places)
    times = _times(path)
    found = {} if times is None else _jumped(path, wanted, times)
    if wanted - found.keys():
        found, count = {}, 0
        for place, frame in enumerate(frames(path)):
            count = place + 1
            if place in wanted:
                found[place] = frame
            if len(found) == len(wanted):
                break
        else:
            _refuse_beyond(places, count, path)
    return [found[place] for place in places]


def count(path: Path) -> int:
    """How many frames there are; of a file without time stamps, by decoding it."""
    if path.is_dir():
        return len(_pictures(path))
    times = _times(path)
    return len(times) if times is not None else sum(1 for _ in frames(path))


def write(sink: BinaryIO, pictures: Iterable[Pixels], fps: int) -> None:
    """Write pictures, uint8 [height, width, 3] of one size, as an H.264 mp4 that browsers play. sink: seekable.

    H.264 in 4:2:0 has even sides only: an odd one is lengthened by a copy of its last row or column. Raises ValueError
    where there is no picture, or one of another size.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtra.of("av", "video") from error
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


def _pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, numbers in their names by value: 2.jpg comes before 10.jpg."""
    found = [path for path in folder.iterdir() if path.suffix[1:].lower() in PICTURES]
    return sorted(found, key=lambda path: ([*_split(path.name)], path.name))


def _split(name: str) -> Iterator[tuple[int, str]]:
    for part in _NUMBER.split(name):
        yield (int(part), "") if part.isdecimal() else (-1, part)


def _decoded(picture: Path) -> Pixels:
    try:
        return image.decode(picture.read_bytes())
    except BadRecord as error:
        raise BadRecord(error.what, where=picture.name, got=error.got) from error


def _refuse_beyond(places: Sequence[int], count: int, path: Path) -> None:
    if any(place >= count for place in places):
        raise BadRecord(
            "a video is shorter than its annotation",
            where=path.name,
            got=f"{count} frames",
            allowed=f"more than {max(places)}",
        )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A file and its first video stream. What FFmpeg finds wrong with it inside becomes BadRecord; I/O errors pass."""
    try:
        import av
    except ImportError as error:
        raise MissingExtra.of("av", "video") from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadRecord("a file holds no video", where=path.name)
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise BadRecord(f"a video cannot be read ({error.strerror})", where=path.name) from error


def _rgb(frame: VideoFrame) -> Pixels:
    return np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)


def _times(path: Path) -> list[int] | None:
    """The time stamps of all frames, ascending; None where packets have none, or two the same."""
    with _opened(path) as (container, stream):
        stamps = [packet.pts for packet in container.demux(stream) if packet.size]
    known = sorted({stamp for stamp in stamps if stamp is not None})
    return known if known and len(known) == len(stamps) else None


def _jumped(path: Path, wanted: set[int], times: Sequence[int]) -> dict[int, Pixels]:
    """Those of the frames that are met from the key frame before the first of them on."""
    places = {time: place for place, time in enumerate(times)}
    inside = {place for place in wanted if place < len(times)}
    found: dict[int, Pixels] = {}
    if inside != wanted or not wanted:
        return found
    with _opened(path) as (container, stream):
        container.seek(times[min(inside)], stream=stream)
        for frame in container.decode(stream):
            place = places.get(frame.pts) if frame.pts is not None else None
            if place in inside:
                found[place] = _rgb(frame)
            if len(found) == len(inside) or (place is not None and place > max(inside)):
                break
    return found
