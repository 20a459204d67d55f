"""UBnormal: videos of 29 virtual scenes, anomalies marked by pixel. Two protocols, by name.

    ubnormal            all 211 test videos, 92,640 frames: the owners'
    ubnormal-abnormal   the 158 of them that hold an anomaly: what LAVIDA's released evaluation scores

Which videos are the test set is told by two lists of the owners' repository (scripts/), which are not part of the
download: put them into the root. A track is an object, anomalous from one frame to another, both included, from 0; the
annotation pictures hold the number of the object at each pixel, and objects that are not anomalous at the time as well,
so a pixel is anomalous where its number is that of a track that is anomalous in this frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from aesampler import masks as codec
from aesampler.errors import SourceError
from lavida.benchmarks.benchmark import SLACK, Benchmark, Frames, Labels, Mask, Masks, Video, of_lengths, some
from lavida.benchmarks.intervals import Span, labelled, parse_tracks

CATEGORIES = (
    *(
        "running",
        "jumping",
        "falling",
        "fighting",
        "sleeping",
        "crawling",
        "having a seizure",
        "laying down",
        "dancing",
    ),
    *("stealing", "rotating 360 degrees", "shuffling", "injured", "drunk", "stumbling walk", "car accident", "fire"),
    *("smoke", "jaywalking", "driving outside lane"),
)
LISTS = ("abnormal_test_video_names.txt", "normal_test_video_names.txt")


class UBnormal(Benchmark):
    """UBnormal, the owners' protocol."""

    name: ClassVar[str] = "ubnormal"
    title: ClassVar[str] = "UBnormal"
    homepage: ClassVar[str] = "https://github.com/lilygeorgescu/UBnormal"
    license: ClassVar[str] = "CC BY-NC-ND 4.0"
    citation: ClassVar[str] = (
        "Acsintoae et al., UBnormal: New Benchmark for Supervised Open-Set Video Anomaly Detection, CVPR 2022"
    )
    layout: ClassVar[str] = """\
ROOT/
  Scene1/abnormal_scene_1_scenario_1.mp4
  Scene1/abnormal_scene_1_scenario_1_annotations/
    abnormal_scene_1_scenario_1_tracks.txt             TRACK,START,END
    abnormal_scene_1_scenario_1_0000_gt.png ...        the track at each pixel
  Scene1/normal_scene_1_scenario_3.mp4
  abnormal_test_video_names.txt                        from the owners' repository; or in ROOT/scripts/
  normal_test_video_names.txt
"""
    protocol: ClassVar[str] = "all frames of the 211 test videos, 158 of which hold an anomaly"
    expected: ClassVar[Mapping[str, int]] = {"videos": 211, "frames": 92640}
    pixel_masks: ClassVar[bool] = True
    lists: ClassVar[tuple[str, ...]] = LISTS

    categories: tuple[str, ...] = CATEGORIES
    clip_step: int = 4

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """The test videos that are there, in the order of the owners' lists."""
        self._refuse_other(category)
        found = tuple(name for name in self._listed if self._file(name).is_file())
        if not found:
            raise SourceError(
                "no test video: no Scene1/abnormal_scene_1_scenario_1.mp4 and so on", where=str(self.root)
            )
        return found

    def video(self, name: str, category: str | None = None) -> Video:
        """A video; its masks are None where its annotation pictures are not there."""
        self._refuse_other(category)
        file = self._file(name)
        if name not in self._listed or not file.is_file():
            raise self._unknown(name)
        frames, tracks = Frames(file, slack=SLACK), None
        if name.startswith("abnormal"):
            tracks = file.with_name(f"{name}_annotations") / f"{name}_tracks.txt"
        masks = TrackMasks(name=name, frames=frames, tracks=tracks)
        return Video(
            name=name, frames=frames, truth=partial(_truth, tracks), masks=masks if masks.are_there() else None
        )

    def faults(self) -> Iterator[str]:
        """Listed videos that are missing, and abnormal ones without annotations."""
        absent = [name for name in self._listed if not self._file(name).is_file()]
        if absent:
            yield f"{len(absent)} listed videos are missing: {some(absent)}"
        yield from of_lengths(self.videos())
        bare = [each.name for each in self.videos() if each.masks is None]
        if bare:
            yield f"{len(bare)} videos have no annotation pictures: {some(bare)}"

    @cached_property
    def _listed(self) -> tuple[str, ...]:
        names: list[str] = []
        for each in self.lists:
            files = [folder / each for folder in (self.root, self.root / "scripts") if (folder / each).is_file()]
            if not files:
                raise SourceError(
                    f"no {each}", where=str(self.root), do="it lies in scripts/ of the owners' repository: put it here"
                )
            names += [line.strip() for line in files[0].read_text(encoding="utf-8").splitlines() if line.strip()]
        return tuple(dict.fromkeys(names))

    def _file(self, name: str) -> Path:
        scene = name.split("_")[2] if name.count("_") >= 2 else ""
        return self.root / f"Scene{scene}" / f"{name}.mp4"


class UBnormalAbnormal(UBnormal):
    """UBnormal, abnormal test videos only."""

    name: ClassVar[str] = "ubnormal-abnormal"
    title: ClassVar[str] = "UBnormal, abnormal videos only"
    protocol: ClassVar[str] = "all frames of the 158 abnormal test videos, as LAVIDA's released evaluation"
    expected: ClassVar[Mapping[str, int]] = {"videos": 158}
    lists: ClassVar[tuple[str, ...]] = LISTS[:1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackMasks(Masks):
    """The pixels of the tracks that are anomalous in each frame. tracks: their file; None for a normal video."""

    name: str
    frames: Frames
    tracks: Path | None

    def __len__(self) -> int:
        return len(self.frames)

    def are_there(self) -> bool:
        """Whether the video is normal or has annotation pictures."""
        return self.tracks is None or any(self.tracks.parent.glob("*_gt.png"))

    def __iter__(self) -> Iterator[Mask]:
        told, empty = _tracks(self.tracks), None
        for place in range(len(self)):
            ids = _anomalous(told, place)
            empty = self._empty() if empty is None and not ids else empty
            yield self._drawn(place, ids) if ids or empty is None else empty.copy()

    def read(self, place: int) -> Mask:
        """The mask of one frame. Raises SourceError where an anomalous frame has no annotation picture."""
        ids = _anomalous(_tracks(self.tracks), place)
        return self._drawn(place, ids) if ids else self._empty()

    def _drawn(self, place: int, ids: list[int]) -> Mask:
        assert self.tracks is not None
        file = self.tracks.with_name(f"{self.name}_{place:04d}_gt.png")
        if not file.is_file():
            raise SourceError("an anomalous frame has no annotation picture", where=str(file))
        plane = codec.read_index(file.read_bytes())
        return np.isin(plane[..., 0] if plane.ndim == 3 else plane, ids)

    def _empty(self) -> Mask:
        """A mask without a pixel; pictures are made for anomalous frames, so the size is that of the video."""
        return np.zeros(next(iter(self.frames)).shape[:2], dtype=np.bool_)


def _tracks(file: Path | None) -> Mapping[int, tuple[Span, ...]]:
    if file is None:
        return {}
    if not file.is_file():
        raise SourceError("a video has no annotations", where=str(file))
    return parse_tracks(file.read_text(encoding="utf-8"), where=file.name)


def _anomalous(tracks: Mapping[int, tuple[Span, ...]], place: int) -> list[int]:
    return [track for track, spans in tracks.items() if any(span.start <= place < span.end for span in spans)]


def _truth(file: Path | None, length: int) -> Labels:
    return labelled(length, (span for spans in _tracks(file).values() for span in spans))
