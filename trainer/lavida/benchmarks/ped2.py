"""UCSD Ped2: 12 videos of a walkway; whatever is no pedestrian is anomalous. Marked by pixel.

Labels are those of `Test/UCSDped2.m` where it is there (1-based, both ends included), else a frame is anomalous if its
mask has a pixel; on the real videos both are the same. Masks have the size of the frames, 240 x 360: LAVIDA's released
evaluation brings them to 158 x 238, the size of Ped1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from aesampler import image
from aesampler.errors import SourceError
from lavida.benchmarks.benchmark import Benchmark, Frames, Labels, Mask, Masks, Metric, Video, entries, of_lengths
from lavida.benchmarks.intervals import Span, labelled

PICTURES = frozenset({".bmp", ".jpg", ".png", ".tif", ".tiff"})
_VIDEO = re.compile(r"Test\d{3}")
_TOLD = re.compile(r"TestVideoFile\s*\{\s*end\s*\+\s*1\s*\}\s*\.\s*gt_frame\s*=\s*\[([^\]]*)\]")


class Ped2(Benchmark):
    """UCSD Ped2."""

    name: ClassVar[str] = "ped2"
    title: ClassVar[str] = "UCSD Pedestrian 2 (v1p2)"
    homepage: ClassVar[str] = "http://www.svcl.ucsd.edu/projects/anomaly/dataset.htm"
    license: ClassVar[str] = "none stated; research use"
    citation: ClassVar[str] = "Mahadevan et al., Anomaly Detection in Crowded Scenes, CVPR 2010"
    layout: ClassVar[str] = """\
ROOT/Test/                              or ROOT/UCSDped2/Test/
  Test001/001.tif ...                   .tif upstream; .jpg and .png are read too
  Test001_gt/001.bmp ...                a mask for each frame: 0, 255
  UCSDped2.m                            optional: the anomalous frames of each video
"""
    protocol: ClassVar[str] = "all frames of the 12 test videos; pixels at the masks' own size"
    expected: ClassVar[Mapping[str, int]] = {"videos": 12, "frames": 2010, "anomalous": 1648}
    pixel_masks: ClassVar[bool] = True

    categories: tuple[str, ...] = ("car", "cart", "wheelchair", "skate", "bicycle")
    metric: Metric = "pixel_auc"

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """Test001 ... Test012, those that are there."""
        self._refuse_other(category)
        found = tuple(path.name for path in entries(self._test()) if path.is_dir() and _VIDEO.fullmatch(path.name))
        if not found:
            raise SourceError("no video: no folder Test/Test001 and so on", where=str(self.root))
        return found

    def video(self, name: str, category: str | None = None) -> Video:
        """A video and its masks. Raises SourceError where a frame has no mask."""
        self._refuse_other(category)
        folder = self._test() / name
        if not _VIDEO.fullmatch(name) or not folder.is_dir():
            raise self._unknown(name)
        masks = PictureMasks(files=_pictures(self._test() / f"{name}_gt"))
        return Video(name=name, frames=Frames(folder), truth=partial(self._truth, name, masks), masks=masks)

    def faults(self) -> Iterator[str]:
        """Videos without masks or with too few."""
        return of_lengths(self.videos())

    def _test(self) -> Path:
        inside = self.root / "UCSDped2" / "Test"
        return inside if inside.is_dir() else self.root / "Test"

    def _truth(self, name: str, masks: PictureMasks, length: int) -> Labels:
        if len(masks) != length:
            raise SourceError(
                "a video must have a mask for each frame",
                where=f"{name}_gt",
                got=f"{length} frames, {len(masks)} masks",
            )
        file = self._test() / "UCSDped2.m"
        if not file.is_file():
            return np.array([mask.any() for mask in masks], dtype=np.uint8)
        told = parse_frames(file.read_text(encoding="latin-1"), where=file.name)
        number = int(name.removeprefix("Test"))
        if not 0 < number <= len(told):
            raise SourceError("the list of anomalous frames ends before a video", where=file.name, got=name)
        return labelled(length, told[number - 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureMasks(Masks):
    """Masks that are one picture a frame: a pixel is anomalous where it is bright (128 and above of 255)."""

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, place: int) -> Mask:
        """The mask of one frame. Raises BadRecord where the picture cannot be read."""
        return np.asarray(image.load(self.files[place].read_bytes()).convert("L")) >= 128


def parse_frames(text: str, where: str) -> list[tuple[Span, ...]]:
    """The anomalous frames of each video in a MATLAB list: lines `TestVideoFile{end+1}.gt_frame = [61:180, 190];`."""
    return [tuple(_spans(told[1], where)) for told in _TOLD.finditer(text)]


def _spans(told: str, where: str) -> Iterator[Span]:
    for part in told.replace(",", " ").split():
        ends = part.split(":")
        if len(ends) > 2 or not all(end.isdecimal() for end in ends) or not 0 < int(ends[0]) <= int(ends[-1]):
            raise SourceError("a range of frames is none", where=where, got=part, allowed="FIRST:LAST, from 1")
        yield Span(start=int(ends[0]) - 1, end=int(ends[-1]))


def _pictures(folder: Path) -> tuple[Path, ...]:
    """The pictures of a folder, by the number in their names (001.bmp, frame001.bmp)."""
    files: Sequence[Path] = [path for path in entries(folder) if path.suffix.lower() in PICTURES]
    return tuple(sorted(files, key=lambda path: (int("0" + re.sub(r"\D", "", path.stem)), path.name)))
