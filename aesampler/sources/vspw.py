"""VSPW: 124 classes of things and surroundings, marked in every pixel of every frame.

    mask PNG, value = class, 0 (others) and 255 void;  label_num_dic_final.json: {"wall": "1", ..., "others": "0"}

A class is known absent when no frame of the video has it, whichever frames are sampled, and no frame has more void,
which may hide any name, than `void_limit` (see index_map.py). No file lists the classes of a video, so the survey reads
every mask, when the video's record is asked for. Where one of them cannot be read (a video of the set holds files of 0
bytes), or a frame has none, nothing is known absent in that video, and clips with such a mask are bad records. A name
such as `ship_or_boat` is a list of synonyms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import sequence, synonyms
from aesampler.sources.index_map import VoidLimit, counts
from aesampler.sources.sequence import Marks, Videos
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}
TABLE = "label_num_dic_final.json"
NO_NAME = "others"


class Value(NamedTuple):
    """What a value of a mask stands for. group: several things in one, to be ignored."""

    number: int
    group: bool = False


class Classes(msgspec.Struct):
    """The payload of a record. masks: their paths, one a frame. classes: number -> place in the vocabulary, of those in
    the video. whole: whether every mask of the video was read. void: the share of void in the frame that has most.
    """

    masks: list[str]
    classes: dict[int, int]
    whole: bool
    void: float


class Vspw(Source):
    """VSPW, at its full size or 480p."""

    format: ClassVar[str] = "vspw"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = "VSPW: videos with all of their pixels marked, 124 classes"
    layout: ClassVar[str] = """\
ROOT/                                   the folder with the lists, or the one that holds VSPW/ or VSPW_480p/
  train.txt, val.txt, test.txt          videos, one a line
  label_num_dic_final.json              {"wall": "1", ...}
  data/VIDEO/origin/%08d.jpg
  data/VIDEO/mask/%08d.png              test has none
"""
    bases: ClassVar[tuple[str, ...]] = ("", "VSPW/", "VSPW_480p/")
    images: ClassVar[tuple[str, ...]] = ("data",)
    annotations: ClassVar[str] = "data"
    inside: ClassVar[tuple[str, str]] = ("origin", "mask")
    """In a video's folder, those of frames and of masks."""
    void: ClassVar[tuple[int, ...]] = (0, 255)

    videos: str | None = Field(default=None, description="the list of videos; default: train.txt, val.txt")
    void_limit: VoidLimit = 0.0

    def value(self, number: int) -> Value:
        """What the value `number` of a mask stands for."""
        return Value(number)

    def survey(self, root: Folder) -> Survey:
        """One record a video of the list that has frames and masks."""
        how = f"see: aesampler sources {self.format}"
        base, images = self._base(root, how)
        table, lists = self._file(root, base, TABLE), self.videos or self._file(root, base, LISTS[self.subset])
        shown = _table(root, table)
        listed = _listed(root, lists, how)
        found = Videos.of(root, base + images, base + self.annotations, self.inside)
        found.require_frames(listed, lists, where=f"{root.url}/{found.images}", do=how)
        names = [name for name in listed if name in found.marked]
        if not names:
            raise SourceError(
                f"no video of {lists} has a mask",
                where=f"{root.url}/{found.annotations}",
                do=f"{self.format} publishes no masks of its test videos; {how}",
            )
        places = {int(category.origin): place for place, category in enumerate(shown)}
        items = [Item(name, f"vspw:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            return self._record(root, items[index], found.frames[name], found.marked[name], places)

        skipped = len(listed) - len(names)
        return Survey(
            categories=shown,
            exhaustive=True,
            items=items,
            record=record,
            files=(table, lists),
            listing=found.listing,
            folders=tuple(sorted({found.images, found.annotations})),
            skipped={"videos without a mask": skipped} if skipped else {},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The classes' masks; void is what has no class."""
        told = msgspec.json.decode(record.payload, type=Classes)
        return sequence.assembled(
            record,
            names,
            frames,
            size,
            lambda place: self._marks(root, told.masks[place], told.classes, size),
            exhaustive=told.whole and told.void <= self.void_limit,
        )

    def _base(self, root: Folder, how: str) -> tuple[str, str]:
        """What stands before the folders, and the folder of frames."""
        for base in self.bases:
            for images in self.images:
                if root.exists(base + images):
                    return base, images
        raise SourceError(f"no folder {' or '.join(self.images)}", where=root.url, do=how)

    def _file(self, root: Folder, base: str, name: str) -> str:
        # The smaller editions are made by a script, beside which the lists and the table stay.
        return base + name if root.exists(base + name) else name

    def _record(
        self,
        root: Folder,
        item: Item,
        frames: Mapping[str, str],
        marked: Mapping[str, str],
        places: Mapping[int, int],
    ) -> Record:
        values: set[int] = set()
        whole, void = frames.keys() <= marked.keys(), 0.0
        for path in marked.values():
            try:
                found = counts(_plane(root, path))
            except BadRecord:
                whole = False  # `scene` names it, for the clips that it lies in
                continue
            values.update(found)
            void = max(void, sum(found.get(value, 0) for value in self.void) / max(sum(found.values()), 1))
        kinds = {self.value(value) for value in values.difference(self.void)}
        # A number that the table does not have is left to `scene` too.
        classes = {kind.number: places[kind.number] for kind in sorted(kinds) if kind.number in places}
        ordered = sorted(marked)
        folder = next(iter(frames.values())).rpartition("/")[0]
        return Record(
            id=item.id,
            group=item.group,
            frames=tuple(frames.get(name, f"{folder}/{name}.jpg") for name in ordered),
            annotated=(True,) * len(ordered),
            masked=_told(kinds, places, group=False),
            ignored=_told(kinds, places, group=True),
            payload=msgspec.json.encode(
                Classes(masks=[marked[name] for name in ordered], classes=classes, whole=whole, void=void)
            ),
        )

    def _marks(self, root: Folder, path: str, classes: Mapping[int, int], size: tuple[int, int]) -> Marks:
        plane = _plane(root, path)
        try:
            plane, void = masks.fit(plane, *size)
        except BadRecord as error:
            raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
        plane = np.asfortranarray(plane)
        values = [value for value in counts(plane) if value not in self.void]
        kinds = {value: self.value(value) for value in values}
        unknown = [value for value in values if kinds[value].number not in classes]
        if unknown:
            raise BadRecord(f"classes that {TABLE} does not have", where=path, got=unknown)
        marks: dict[Value, sequence.Mask] = {}
        for value, kind in kinds.items():
            mask = plane == value
            marks[kind] = marks[kind] | mask if kind in marks else mask
        void = void | np.isin(plane, self.void)
        return Marks(
            shown={classes[kind.number]: masks.encode(mask) for kind, mask in marks.items() if not kind.group},
            ignored={classes[kind.number]: masks.encode(mask) for kind, mask in marks.items() if kind.group},
            void=masks.encode(void) if void.any() else None,
        )


def _told(kinds: set[Value], places: Mapping[int, int], *, group: bool) -> tuple[int, ...]:
    return tuple(sorted({places[kind.number] for kind in kinds if kind.group == group and kind.number in places}))


def _plane(root: Folder, path: str) -> npt.NDArray[Any]:
    try:
        return sequence.read_objects(root.read(path))[0]
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error


def _table(root: Folder, path: str) -> tuple[Category, ...]:
    """The classes of label_num_dic_final.json, in the order of their numbers, without `others` and 0."""
    told = sequence.read_json(root, path, dict[str, int | str], do="take it from the archive")
    where = f"{root.url}/{path}"
    try:
        numbers = {name: int(number) for name, number in told.items() if name != NO_NAME and int(number)}
    except ValueError as error:
        raise SourceError("numbers of classes are no numbers", where=where, do="take it from the archive") from error
    if len(set(numbers.values())) != len(numbers):
        raise SourceError("two classes have one number", where=where, do="take it from the archive")
    return synonyms.categories(
        {number: name.replace("_or_", ", ").replace("_", " ").lower() for name, number in numbers.items()}
    )


def _listed(root: Folder, path: str, how: str) -> list[str]:
    try:
        names = list(dict.fromkeys(root.read(path).decode().split()))
    except FileNotFoundError as error:
        raise SourceError(f"no file {path}", where=root.url, do=how) from error
    if not names:
        raise SourceError("the list names no video", where=f"{root.url}/{path}")
    return names
