"""A video as segments of N consecutive frames, N = 24 [P]; the tail is a shorter one, padded by its last frame, and
nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lavida.detectors.detector import Frame, chunked


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segment:
    """start: the place of its first frame in the video. frames: N, of which the first `length` are the video's own and
    the others repeat the last of them.
    """

    start: int
    length: int
    frames: tuple[Frame, ...]

    @property
    def stop(self) -> int:
        """The place after its last own frame."""
        return self.start + self.length

    def place(self, index: int) -> int:
        """The place in the video of frames[index]; padding stands for the last own frame."""
        return self.start + min(index, self.length - 1)


def segments(frames: Iterable[Frame], size: int) -> Iterator[Segment]:
    """The segments of a video, in order; one is held at a time."""
    start = 0
    for own in chunked(frames, size):
        padded = (*own, *[own[-1]] * (size - len(own)))
        yield Segment(start=start, length=len(own), frames=padded)
        start += len(own)
