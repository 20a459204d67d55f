"""ShanghaiTech Campus: 107 videos of 13 cameras; bicycles, fights, running and more are anomalous. Marked by frame and
by pixel.

Frame labels are the owners' `test_frame_mask` (one array a video). Their `test_pixel_mask` is used for pixels where it
is there: [T, H, W], mapped from disk, never read whole. 40,791 frames, 17,326 of them anomalous.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from aesampler.errors import SourceError
from lavida.benchmarks.benchmark import (
    Benchmark,
    Frames,
    Labels,
    Mask,
    Masks,
    Video,
    entries,
    load_array,
    of_lengths,
    some,
)

CATEGORIES = (
    *(
        "bicycle",
        "fight",
        "throw",
        "pick",
        "hand truck",
        "run",
        "skate",
        "falling",
        "jumping",
        "motorcycle",
        "tricycle",
    ),
    *("cart", "waving stick", "hurdle", "vehicle", "play", "baby carriage", "truck"),
)


class ShanghaiTech(Benchmark):
    """ShanghaiTech Campus."""

    name: ClassVar[str] = "shanghaitech"
    title: ClassVar[str] = "ShanghaiTech Campus"
    homepage: ClassVar[str] = "https://svip-lab.github.io/dataset/campus_dataset.html"
    license: ClassVar[str] = "BSD 2-Clause"
    citation: ClassVar[str] = "Liu, Luo, Lian, Gao, Future Frame Prediction for Anomaly Detection, CVPR 2018"
    layout: ClassVar[str] = """\
ROOT/testing/
  frames/01_0014/000.jpg ...
  test_frame_mask/01_0014.npy           uint8 [T]
  test_pixel_mask/01_0014.npy           optional: uint8 [T, H, W]
"""
    protocol: ClassVar[str] = "all frames of the 107 test videos"
    expected: ClassVar[Mapping[str, int]] = {"videos": 107, "frames": 40791, "anomalous": 17326}
    pixel_masks: ClassVar[bool] = True

    categories: tuple[str, ...] = CATEGORIES
    clip_step: int = 2

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """01_0014 and so on, those with frames."""
        self._refuse_other(category)
        return tuple(self._found)

    def video(self, name: str, category: str | None = None) -> Video:
        """A video; its masks are None where the owners' pixel masks are not there."""
        self._refuse_other(category)
        if name not in self._found:
            raise self._unknown(name)
        labels = self.root / "testing" / "test_frame_mask" / f"{name}.npy"
        pixels = self.root / "testing" / "test_pixel_mask" / f"{name}.npy"
        masks = ArrayMasks(file=pixels) if pixels.is_file() else None
        return Video(name=name, frames=Frames(self._found[name]), truth=partial(_truth, labels), masks=masks)

    def faults(self) -> Iterator[str]:
        """Videos and labels without each other, or of other lengths."""
        names = set(self.names())
        labels = {path.stem for path in entries(self.root / "testing" / "test_frame_mask") if path.suffix == ".npy"}
        if labels - names:
            yield f"{len(labels - names)} videos have labels and no frames: {some(labels - names)}"
        for each in self.videos():
            yield from of_lengths([each])
            if each.masks is not None and len(each.masks) != each.length:
                yield f"{each.name}: {each.length} frames, {len(each.masks)} pixel masks"

    @cached_property
    def _found(self) -> dict[str, Path]:
        return videos(self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayMasks(Masks):
    """Masks in one .npy array [T, H, W]: 0 normal, else anomalous."""

    file: Path

    def __len__(self) -> int:
        return len(self._mapped())

    def __iter__(self) -> Iterator[Mask]:
        return (plane != 0 for plane in self._mapped())

    def read(self, place: int) -> Mask:
        """The mask of one frame. Raises SourceError where the file is no array of masks."""
        return np.asarray(self._mapped()[place] != 0)

    def _mapped(self) -> npt.NDArray[Any]:
        array = load_array(self.file, mapped=True)
        if array.ndim != 3:
            raise SourceError("pixel masks must be [T, H, W]", where=str(self.file), got=array.shape)
        return array


def videos(root: Path) -> dict[str, Path]:
    """Name -> folder of frames, in order. Raises SourceError where there is none."""
    found = {path.name: path for path in entries(root / "testing" / "frames") if path.is_dir()}
    if not found:
        raise SourceError("no video: no folder testing/frames/01_0014 and so on", where=str(root))
    return found


def _truth(file: Path, length: int) -> Labels:
    return load_array(file)
