"""What a benchmark must say: its videos, their ground truth and the protocol. A new set is one file with one class.

A video is a file or a folder of pictures, read frame by frame, as often as asked. Its labels are one a frame, its masks
(where the set has them) one a frame too, at the size at which the owners publish them: scores are brought to the masks.

No frame is left out: not the tail of a video, not a video that is shorter than a clip. Labels of another length than
their video, and a decoder that gives another number of frames than the file announces, are errors; video files may be
off by SLACK frames, as some of those that were cut out of longer ones are (their last frame is then repeated, or
what is too many left out), and intervals that run past the end of a video end with it, as in the owners' evaluations.

What is on disk is evaluated, all of it; what is missing of a set `check` tells, and `expected` says how much there is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from aesampler import video
from aesampler.errors import BadRecord, SourceError
from aesampler.image import Pixels

Labels = npt.NDArray[np.uint8]
"""[T]: 0 normal, 1 anomalous, 255 unknown."""
Mask = npt.NDArray[np.bool_]
Metric = Literal["frame_auc", "average_precision", "pixel_auc"]

SLACK = 2
"""Frames by which what a video file decodes to may differ from what it announces."""
SHOWN = 5
"""Names that a fault shows of many."""


class Frames(Iterable[Pixels]):
    """The frames of a video, uint8 [H, W, 3], one at a time; every iteration, and every call, begins anew.

    path: a file or a folder of pictures. slack: how many frames may be missing at the end, or too many. Iterating
    raises BadRecord where the frames cannot be read, or are not as many as `len` says.
    """

    def __init__(self, path: Path, *, slack: int = 0) -> None:
        self.path, self.slack = path, slack
        self._length: int | None = None

    def __call__(self) -> Iterator[Pixels]:
        """The frames, from the first on."""
        return iter(self)

    def __len__(self) -> int:
        if self._length is None:
            self._length = video.count(self.path)
        return self._length

    def __iter__(self) -> Iterator[Pixels]:
        frame, met = None, 0
        for frame in video.frames(self.path):
            met += 1
            if met <= len(self):
                yield frame
        if abs(met - len(self)) > self.slack or frame is None:
            raise BadRecord(
                "a video holds another number of frames than it announces",
                where=str(self.path),
                got=met,
                allowed=len(self),
            )
        for _ in range(met, len(self)):
            yield frame


class Masks(ABC, Iterable[Mask]):
    """The masks of a video, bool [H, W] a frame, read when asked for; every iteration, and every call, begins anew."""

    @abstractmethod
    def __len__(self) -> int:
        """How many frames there are."""

    @abstractmethod
    def read(self, place: int) -> Mask:
        """The mask of one frame."""

    def __call__(self) -> Iterator[Mask]:
        """The masks, from the first on."""
        return iter(self)

    def __iter__(self) -> Iterator[Mask]:
        return (self.read(place) for place in range(len(self)))

    @overload
    def __getitem__(self, place: int) -> Mask: ...
    @overload
    def __getitem__(self, place: slice) -> npt.NDArray[np.bool_]: ...
    def __getitem__(self, place: int | slice) -> npt.NDArray[np.bool_]:
        places = range(len(self))[place]
        return self.read(places) if isinstance(places, int) else np.stack([self.read(each) for each in places])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[np.generic]:
        return np.asarray(self[:], dtype=dtype)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height, width."""
        height, width = self.read(0).shape
        return len(self), height, width


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Video:
    """A video of a benchmark. Nothing is read until it is asked for; labels are read once.

    name: unique in the benchmark. frames: uint8 [H, W, 3] each. masks: bool [H, W] each, or None where the set has
    none. classes: the kinds of anomaly in it, where the set tells.
    """

    name: str
    frames: Frames
    truth: Callable[[int], Labels]
    masks: Masks | None = None
    classes: tuple[str, ...] = ()
    _kept: list[Labels] = field(default_factory=list, init=False, repr=False)

    @property
    def length(self) -> int:
        """T, the number of frames."""
        return len(self.frames)

    @property
    def labels(self) -> Labels:
        """Uint8 [T]: 0 normal, 1 anomalous. Raises SourceError where there are more or fewer than frames."""
        if not self._kept:
            told = np.asarray(self.truth(self.length))
            labels = told.ravel() if told.ndim == 2 and 1 in told.shape else told
            if labels.shape != (self.length,):
                raise SourceError(
                    "a video must have a label for each frame",
                    where=self.name,
                    got=f"{self.length} frames, labels {told.shape}",
                )
            if not np.isin(labels, (0, 1, 255)).all():
                raise SourceError("a frame's label is no label", where=self.name, allowed="0, 1, 255")
            self._kept.append(labels.astype(np.uint8))
        return self._kept[0]


class Benchmark(BaseModel, ABC):
    """A set, its protocol and its options.

    root: the folder of the set. categories: what a detector that reads texts is told to look for. clip_step: the
    distance, in frames, of the frames of one clip, for detectors that look at clips (LAVIDA section 4); every frame is
    scored all the same. metric: the one that papers report on this set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    name: ClassVar[str]
    title: ClassVar[str]
    homepage: ClassVar[str]
    license: ClassVar[str]
    citation: ClassVar[str]
    layout: ClassVar[str]
    """The owners' folder layout, as a small tree."""
    protocol: ClassVar[str]
    """What is evaluated, and how the owners' own evaluation reads their files."""
    expected: ClassVar[Mapping[str, int]] = {}
    """What the whole set holds: videos, and where it is known frames and anomalous frames."""
    pixel_masks: ClassVar[bool] = False
    """Whether the set has masks."""
    own: ClassVar[bool] = False
    """Whether the ground truth is the user's own, who may correct it between two evaluations."""

    root: Path
    categories: tuple[str, ...]
    clip_step: int = Field(default=1, ge=1)
    metric: Metric = "frame_auc"

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that are evaluated one by one, each with its own name as the only text (C-ShT, C-Ave); of the
        other sets none.
        """
        return ()

    @abstractmethod
    def names(self, category: str | None = None) -> tuple[str, ...]:
        """The videos that are there, in order; of a class, those that its evaluation takes. Raises SourceError where
        the root holds nothing of the set.
        """

    @abstractmethod
    def video(self, name: str, category: str | None = None) -> Video:
        """One video; with a class, labels of that class alone."""

    @abstractmethod
    def faults(self) -> Iterator[str]:
        """What is missing or contradicts itself, beside the number of videos; one line each."""

    def videos(self, category: str | None = None) -> Iterator[Video]:
        """Every video of `names`, in order."""
        return (self.video(name, category) for name in self.names(category))

    def check(self) -> list[str]:
        """What is missing or misplaced under the root, one line each; nothing where the set is whole. Frames are
        counted, not decoded.
        """
        if not self.root.is_dir():
            return [f"there is no folder {self.root}"]
        try:
            names = self.names()
        except (SourceError, BadRecord) as error:
            return [str(error)]
        whole = self.expected.get("videos")
        counted = [f"{len(names)} videos of {whole}"] if whole is not None and len(names) != whole else []
        return counted + list(self.faults())

    def _refuse_other(self, category: str | None) -> None:
        if category is not None and category not in self.classes:
            raise SourceError(
                f"{self.name} is not evaluated for a class of this name",
                got=category,
                allowed=", ".join(self.classes) or "none",
            )

    def _unknown(self, name: str) -> SourceError:
        return SourceError(f"{self.name} has no video of this name", where=str(self.root), got=name)


def of_lengths(videos: Iterable[Video]) -> Iterator[str]:
    """A line for each video whose labels cannot be had or are not as many as its frames."""
    for each in videos:
        try:
            _ = each.labels
        except (SourceError, BadRecord) as error:
            yield str(error)


def some(names: Iterable[str]) -> str:
    """A few of many names."""
    every = sorted(names)
    return ", ".join(every[:SHOWN]) + (f" and {len(every) - SHOWN} more" if len(every) > SHOWN else "")


def first_folder(root: Path, places: Sequence[str]) -> Path | None:
    """The first of some folders below the root that is there."""
    return next((root / place for place in places if (root / place).is_dir()), None)


def entries(folder: Path | None) -> list[Path]:
    """What a folder holds, sorted, without the hidden files that archives made on a Mac carry (`._001.tif`)."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def load_array(file: Path, *, mapped: bool = False) -> npt.NDArray[Any]:
    """A .npy array. Raises SourceError where it is missing or cannot be read; nothing is unpickled."""
    try:
        return np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError as error:
        raise SourceError("a video has no labels", where=str(file)) from error
    except (ValueError, EOFError) as error:
        raise SourceError(f"a file of labels cannot be read ({error})", where=str(file)) from error
