"""CUHK Avenue: 21 videos of a university path; running, throwing, wrong directions and abandoned things are anomalous.

The owners' masks are MATLAB files with one cell a frame (`volLabel`, 1 x T); a frame is anomalous if its mask has a
pixel. SciPy reads such a file whole (300 MB for the longest video), and what is kept of it is one bit a pixel, of the
video in hand alone. Video 8 is `08.avi` and `8_label.mat`.

Papers count 3,867 anomalous frames, by a list of frame labels that goes round as `frame_labels_avenue.npy`, all videos
one after the other. It is not what the masks say: in video 08 a running child is marked in all 36 frames, and in the
list from frame 20 to 29 (video 20 agrees; the other masks we have not seen). The masks are the owners' word and what is
read; the option frame_labels names the list, to compare with papers.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from aesampler.errors import MissingExtra, SourceError
from lavida.benchmarks.benchmark import (
    Benchmark,
    Frames,
    Labels,
    Mask,
    Masks,
    Video,
    entries,
    first_folder,
    load_array,
    of_lengths,
)

CATEGORIES = ("throwing", "running", "dancing", "too close", "bicycle")
"""AnyAnomaly's; the paper of LAVIDA does not evaluate Avenue."""
LABELS = ("testing_label_mask", "ground_truth_demo/testing_label_mask")
LENGTHS = (1439, 1211, 923, 947, 1007, 1283, 605, 36, 1175, 841, 472, 1271, 549, 507, 1001, 740, 426, 294, 248, 273, 76)
"""Frames of videos 01 to 21."""
VIDEOS = ("testing_videos", "Avenue Dataset/testing_videos", "testing/frames")


class Avenue(Benchmark):
    """CUHK Avenue."""

    name: ClassVar[str] = "avenue"
    title: ClassVar[str] = "CUHK Avenue"
    homepage: ClassVar[str] = "http://www.cse.cuhk.edu.hk/leojia/projects/detectabnormal/dataset.html"
    license: ClassVar[str] = "none stated; research use"
    citation: ClassVar[str] = "Lu, Shi, Jia, Abnormal Event Detection at 150 FPS in MATLAB, ICCV 2013"
    layout: ClassVar[str] = """\
ROOT/testing_videos/01.avi ... 21.avi             or frames in ROOT/testing/frames/01/
ROOT/testing_label_mask/1_label.mat ...           or below ROOT/ground_truth_demo/
"""
    protocol: ClassVar[str] = "all frames of the 21 test videos, labelled by the masks (option frame_labels: by a list)"
    expected: ClassVar[Mapping[str, int]] = {"videos": 21, "frames": 15324}
    pixel_masks: ClassVar[bool] = True

    categories: tuple[str, ...] = CATEGORIES
    frame_labels: str | None = Field(
        default=None, description="the list of frame labels of all videos (.npy) to go by; default: by the masks"
    )

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """01 ... 21, those that are there."""
        self._refuse_other(category)
        return tuple(self._found)

    def video(self, name: str, category: str | None = None) -> Video:
        """A video and its masks. Raises SourceError where it has no label file."""
        self._refuse_other(category)
        if name not in self._found:
            raise self._unknown(name)
        folder = first_folder(self.root, LABELS)
        file = (folder or self.root / LABELS[0]) / f"{int(name)}_label.mat"
        truth = partial(_truth, file)
        if self.frame_labels is not None:
            truth = partial(_listed, self.root / self.frame_labels, int(name))
        return Video(name=name, frames=Frames(self._found[name]), truth=truth, masks=VolumeMasks(file=file))

    def faults(self) -> Iterator[str]:
        """Videos without labels, or with too few."""
        return of_lengths(self.videos())

    @cached_property
    def _found(self) -> dict[str, Path]:
        return videos(self.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMasks(Masks):
    """The masks of a `volLabel` file."""

    file: Path

    def __len__(self) -> int:
        return len(_volume(self.file)[0])

    def read(self, place: int) -> Mask:
        """The mask of one frame. Raises SourceError where the file is missing or another."""
        packed, shape = _volume(self.file)
        return np.asarray(np.unpackbits(packed[place], count=shape[0] * shape[1]).reshape(shape), dtype=np.bool_)


def videos(root: Path) -> dict[str, Path]:
    """Name -> file or folder of frames, in order. Raises SourceError where there is none."""
    found = {
        path.stem: path
        for path in entries(first_folder(root, VIDEOS))
        if path.stem.isdecimal() and (path.is_dir() or path.suffix.lower() == ".avi")
    }
    if not found:
        raise SourceError("no video: no testing_videos/01.avi and so on", where=str(root))
    return found


def _listed(file: Path, number: int, length: int) -> Labels:
    every = load_array(file).ravel()
    if every.size != sum(LENGTHS) or not 0 < number <= len(LENGTHS):
        raise SourceError(
            "a list of frame labels is not of the 21 videos", where=str(file), got=every.size, allowed=sum(LENGTHS)
        )
    first = sum(LENGTHS[: number - 1])
    return every[first : first + LENGTHS[number - 1]]


def _truth(file: Path, length: int) -> Labels:
    return np.asarray(_volume(file)[0].any(axis=1), dtype=np.uint8)


@functools.lru_cache(maxsize=1)
def _volume(file: Path) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """The bits of every mask [T, bytes], and the size of a mask."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise MissingExtra.of("scipy", "train") from error
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise SourceError("a video has no labels", where=str(file)) from error
    try:
        cells = loadmat(io.BytesIO(data), variable_names=["volLabel"]).get("volLabel")
    except (
        *(MatReadError, OSError, ValueError, TypeError, LookupError, OverflowError, NotImplementedError),
        *(zlib.error, struct.error),  # whatever a broken file makes SciPy's parser raise
    ) as error:
        raise SourceError(f"a file of labels cannot be read ({error})", where=str(file)) from error
    masks = [np.asarray(mask) for mask in cells.ravel()] if cells is not None and cells.dtype == object else []
    if not masks or masks[0].ndim != 2 or any(mask.shape != masks[0].shape for mask in masks):
        raise SourceError("a file of labels holds no volLabel of masks of one size", where=str(file))
    return np.stack([np.packbits(mask != 0) for mask in masks]), masks[0].shape
