"""MOSE: objects in crowded videos, marked in every frame, of no category.

    palette PNG, value = object, 0 unmarked, 255 void

A names file says what the objects are (names_file.py); without one the set is refused. An object in a mask that the
file does not have is a bad record. Nothing is known absent. Of valid only the first frame is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from aesampler.errors import SourceError
from aesampler.record import Record
from aesampler.scene import Scene
from aesampler.sources import names_file, sequence
from aesampler.sources.sequence import UNNAMED, Frames, Tracks, Videos
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "valid", "test": "test"}


class Mose(Source):
    """MOSE v1 or v2."""

    format: ClassVar[str] = "mose"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = "MOSE: objects in crowded videos, every frame; a names file says what they are"
    layout: ClassVar[str] = """\
ROOT/
  train/JPEGImages/VIDEO/%05d.jpg
  train/Annotations/VIDEO/%05d.png
  names.json                            yours: {"VIDEO": {"1": "dog", "2": null}}; any path below ROOT (names: FILE)
"""

    names: str | None = Field(default=None, description="the JSON file that names the objects; needed")
    images: str | None = Field(default=None, description="the folder of videos of frames; default: train/JPEGImages")
    annotations: str | None = Field(
        default=None, description="the folder of videos of masks; default: train/Annotations"
    )
    frames: Frames = Field(default="annotated", description="sample only frames with a mask (annotated), or all")

    def survey(self, root: Folder) -> Survey:
        """One record a video that has masks and names."""
        how = f"see: aesampler sources {self.format}"
        named = names_file.read(root, self.names, format="MOSE", object="the values of its masks")
        part = PARTS[self.subset]
        found = Videos.of(
            root,
            sequence.folder_of(self.images, f"{part}/JPEGImages"),
            sequence.folder_of(self.annotations, f"{part}/Annotations"),
        )
        if not found.marked:
            raise SourceError("no video has a mask", where=f"{root.url}/{found.annotations}", do=how)
        names = sorted(video for video in found.marked if video in named)
        if not names:
            raise SourceError(
                f"none of the videos of {self.names} has a mask",
                where=f"{root.url}/{found.annotations}",
                got=f"{len(found.marked)} videos, the first {min(found.marked)}",
            )
        found.require_frames(names, str(self.names), where=f"{root.url}/{found.images}", do=how)
        shown = names_file.categories(named)
        places = {category.name: place for place, category in enumerate(shown)}
        items = [Item(name, f"mose:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            objects = {number: UNNAMED if told is None else places[told] for number, told in named[name].items()}
            tracks = Tracks(masks=f"{found.annotations}/{name}", objects=objects)
            return sequence.record(
                name, items[index].group, found.images, found.frames[name], found.marked[name], self.frames, tracks
            )

        skipped = len(found.marked) - len(names)
        return Survey(
            categories=shown,
            exhaustive=False,
            items=items,
            record=record,
            files=(str(self.names),),
            listing=found.listing,
            folders=(found.images, found.annotations),
            skipped={"videos without names": skipped} if skipped else {},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The objects' masks, by name; those without one are void."""
        return sequence.scene(root, record, names, frames, size, source=self.names or "")
