"""Customised detection on the videos of an older set (AnyAnomaly): one evaluation for each class of anomaly, in which
that class alone is anomalous.

A JSON names the videos of each class; videos of several classes have a JSON of their own and are left out of every
evaluation. Five of ShanghaiTech's videos are in neither: they are anomalous there, of none of these classes, and are
normal ones here. Each class has an HDF5 file with an array [T] for every video that is not left out: 1 on the frames of
the event in the class's videos, 0 in all others. A detector is told one class, by its name (`hand_truck` is shown as
`hand truck`), over all these videos; the result is the AUC of each class and their plain mean.

The owners spell two of the classes of several anomalies otherwise in the JSON than in the names of the HDF5 files
(running-skateboarding, run-skateboarding; throwing_too-close, throwing-too_close); those are never read, so it does not
matter here. The classes are two groups in the paper's tables: what is done, and what is there.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from aesampler.errors import MissingExtra, SourceError
from lavida.benchmarks.benchmark import Benchmark, Frames, Labels, Video, of_lengths, some

PLACES = ("", "ground_truth", "c-vad", "labels")
"""Where below the root the JSON and the folder of HDF5 files may lie."""


class CustomisedBenchmark(Benchmark):
    """Classes, their videos and labels; where the frames are a set says itself."""

    prefix: ClassVar[str]
    """How the files begin: shtech in c-shtech.json and c-shtech_labels/shtech_car_label.h5."""
    groups: ClassVar[Mapping[str, tuple[str, ...]]]
    """Group -> its classes, as in the paper's tables."""

    labels: Path | None = Field(default=None, description="the folder of the JSON and the HDF5 files")

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in the order of the paper's tables."""
        return tuple(name for group in self.groups.values() for name in group)

    @abstractmethod
    def found(self) -> Mapping[str, Path]:
        """Video -> file or folder of frames, of the set that the videos are from."""

    def names(self, category: str | None = None) -> tuple[str, ...]:
        """The videos that are not of several classes; for every class the same ones."""
        self._refuse_other(category)
        names = tuple(sorted(self._found.keys() - self._several))
        if not self._kinds.keys() & set(names):
            raise SourceError("none of the videos of the classes is there", where=str(self.root))
        return names

    def video(self, name: str, category: str | None = None) -> Video:
        """One video; its labels are those of the class, or without one of whichever class it is of."""
        self._refuse_other(category)
        there = self._found
        if name in self._several or name not in there:
            raise self._unknown(name)
        kind = self._kinds.get(name)
        told = (category or kind or self.classes[0]).replace(" ", "_")
        file = self._folder / f"c-{self.prefix}_labels" / f"{self.prefix}_{told}_label.h5"
        return Video(
            name=name,
            frames=Frames(there[name]),
            truth=partial(_truth, file, name),
            classes=() if kind is None else (kind,),
        )

    def faults(self) -> Iterator[str]:
        """Videos that are missing, other classes than the paper's, videos in two lists, labels of another length."""
        there = self._found
        absent = self._kinds.keys() - there.keys()
        if absent:
            yield f"{len(absent)} videos of the classes are missing: {some(absent)}"
        other = set(self.classes) ^ set(self._kinds.values())
        if other:
            yield f"the classes in the JSON are others than the paper's: {some(other)}"
        both = self._several & self._kinds.keys()
        if both:
            yield f"videos of several classes are listed for one: {some(both)}"
        # A file that is missing is told once, not once a video.
        yield from dict.fromkeys(line for category in self.classes for line in of_lengths(self.videos(category)))

    @cached_property
    def _found(self) -> Mapping[str, Path]:
        return self.found()

    @cached_property
    def _folder(self) -> Path:
        folders = [self.labels] if self.labels is not None else [self.root / place for place in PLACES]
        for folder in folders:
            if (folder / f"c-{self.prefix}.json").is_file():
                return folder
        raise SourceError(
            f"no c-{self.prefix}.json",
            where=", ".join(str(folder) for folder in folders),
            do="put AnyAnomaly's labels into ROOT/ground_truth or name their folder by the option labels",
        )

    @cached_property
    def _kinds(self) -> dict[str, str]:
        """Video -> its class."""
        file = self._folder / f"c-{self.prefix}.json"
        told = _read(file)
        kinds: dict[str, str] = {}
        for kind, names in told.items():
            for name in names:
                if name in kinds:
                    raise SourceError("a video is listed for two classes", where=file.name, got=name)
                kinds[name] = kind.replace("_", " ")
        return kinds

    @cached_property
    def _several(self) -> frozenset[str]:
        """The videos of several classes."""
        lists = _read(self._folder / f"c-{self.prefix}-multiple.json")
        return frozenset(name for names in lists.values() for name in names)


def _read(file: Path) -> Mapping[str, Sequence[str]]:
    """Class -> videos."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError("a list of classes is missing", where=str(file)) from error
    except ValueError as error:
        raise SourceError(f"a list of classes is no JSON ({error})", where=str(file)) from error
    lists = told.values() if isinstance(told, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise SourceError("a list of classes must be an object of lists of videos", where=str(file))
    return told  # type: ignore[no-any-return]


def _truth(file: Path, name: str, length: int) -> Labels:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra.of("h5py", "train") from error
    if not file.is_file():
        raise SourceError("a class has no labels", where=str(file))
    try:
        with h5py.File(file, "r") as labels:
            if name not in labels:
                raise SourceError("a video has no labels", where=str(file), got=name)
            return np.asarray(labels[name])
    except OSError as error:
        raise SourceError(f"a file of labels cannot be read ({error})", where=str(file)) from error
