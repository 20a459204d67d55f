"""What a format must say: its records (`survey`), and the masks of sampled frames (`scene`). A new format is one file
with one class of this kind.

`survey` runs once a dataset, in one process, and its answer is cached as the catalog. `scene` runs in workers, once a
sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.storage import Folder

Kind = Literal["image", "clip"]
Subset = Literal["train", "validation", "test"]


class Item(NamedTuple):
    """A record's identity: all that is held in memory of every record at once."""

    id: str
    group: str


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a source found at a root.

    categories: the vocabulary, in the source's own order; records refer to it by index. exhaustive: whether a name that
    is not annotated is known absent. items: one a record, in any order; ids are unique (the source raises SourceError
    where they are not). record: the whole record of items[i], made when asked for, from any thread. files: files read
    whole, below the root. listing: path -> bytes of every frame and mask file that the folders hold; a frame that is
    not in it is missing. folders: the folders that were listed, with the depth, so that a later look can tell whether
    they changed. batch: the records of several items at once, as Arrow columns named as Record's fields, and
    `frame_bytes`, the listed bytes of each frame, -1 for a missing one; for sources of so many small records that
    making each of them in Python is what takes the time, and without mask files. It must say what `record` says.
    """

    categories: tuple[Category, ...]
    exhaustive: bool
    items: Sequence[Item]
    record: Callable[[int], Record]
    files: tuple[str, ...]
    listing: Mapping[str, int]
    folders: tuple[str, ...]
    batch: Callable[[Sequence[int]], Mapping[str, pa.Array]] | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)  # records left out by a stated rule -> how many

    def frame_bytes(self, frames: Sequence[str]) -> list[int]:
        """The listed bytes of each frame of a record, -1 where one is not there. A frame inside a video file
        (ID.mp4/00096) has its share of the file, but for an empty one a byte at least.
        """
        listing = self.listing
        folders = [frame.rpartition("/")[0] for frame in frames]
        held = {folder: listing[folder] for folder in set(folders) if folder in listing}
        shares = {folder: max(size // folders.count(folder), min(size, 1)) for folder, size in held.items()}
        return [listing.get(frame, shares.get(folder, -1)) for frame, folder in zip(frames, folders, strict=True)]


class Source(BaseModel, ABC):
    """A format and its options: the keys of a recipe's source entry that only this format knows.

    subset: the official part to read where no paths are given; the entry's split, or train where the recipe deals the
    splits itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: ClassVar[str]
    kind: ClassVar[Kind]
    summary: ClassVar[str]
    """One line for `aesampler sources`."""
    layout: ClassVar[str]
    """The official folder layout, as a small tree, for `aesampler sources FORMAT` and `aesampler init FORMAT`."""

    packages: ClassVar[tuple[str, ...]] = ()
    """Packages besides the project's own that the pictures' bytes depend on; their versions are recorded."""

    subset: Subset = "train"

    @abstractmethod
    def survey(self, root: Folder) -> Survey:
        """What is at `root`. Raises SourceError: what is missing or contradicts itself, where, and what to do."""

    def pictures(self, root: Folder, record: Record, places: Sequence[int]) -> list[bytes]:
        """The picture files of `record` at `places` (in record.frames), one each.

        A format whose frames lie in a video file addresses them as if that file were a folder (ID.mp4/00096.ppm), lists
        the file in the survey's listing, and decodes them here.
        """
        return [root.read(record.frames[place]) for place in places]

    @abstractmethod
    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The masks of `record` in `frames` (places in record.frames), whose pictures are all of `size` (height,
        width).

        names: the vocabulary that the record's indices refer to. Raises BadRecord on a lasting fault of content, and
        lets errors of reading pass.
        """
