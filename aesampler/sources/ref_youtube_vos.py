"""Ref-YouTube-VOS: the videos of YouTube-VOS with phrases for their objects ("a person in red, on the left").

    meta_expressions/train/meta_expressions.json: {"videos": {V: {"expressions": {"0": {"exp": ..., "obj_id": "1"}}}}}

The phrases are the names, in lower case with single spaces, as ReferFormer reads them. A phrase that is said of several
objects of a video is the union of their masks, as is a name of several instances elsewhere. Objects that no phrase is
said of are background. The phrases of all objects of a video are present in it; any other may be true of it too, so
nothing is known absent. An object of a phrase that is in no mask of the video makes its clips bad records: where the
sampled frames do not show it, the video's other masks are looked into until one does. Only the training part says which
object a phrase means. The phrases of valid are also told of the 305 videos of test, which are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import sequence
from aesampler.sources.sequence import VOID, Frames, Marks, Videos
from aesampler.sources.source import Item, Kind, Source, Subset, Survey
from aesampler.storage import Folder

PARTS = {"train": ("train",), "validation": ("valid", "val"), "test": ("test",)}
FILE = "meta_expressions.json"


class Phrase(NamedTuple):
    """What is said of one object (its id in the masks) of a video."""

    text: str
    number: int


class Told(NamedTuple):
    """Phrases by video, the files that tell them, and the folders of frames and masks."""

    phrases: Mapping[str, Sequence[Phrase]]
    files: tuple[str, ...]
    images: str
    annotations: str


class _Expression(msgspec.Struct):
    exp: str
    obj_id: str | int | None = None


class _Video(msgspec.Struct):
    expressions: dict[str, _Expression]


class _File(msgspec.Struct):
    videos: dict[str, _Video]


class _Said(msgspec.Struct):
    """The payload of a record: the masks' folder, and object id -> places of its phrases."""

    masks: str
    objects: dict[int, list[int]]


class RefYouTubeVos(Source):
    """Ref-YouTube-VOS, or phrases for other videos in its form."""

    format: ClassVar[str] = "ref-youtube-vos"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = "Ref-YouTube-VOS: phrases for the objects of YouTube-VOS, every 5th frame"
    layout: ClassVar[str] = """\
ROOT/
  meta_expressions/train/meta_expressions.json
  train/JPEGImages/VIDEO/%05d.jpg
  train/Annotations/VIDEO/%05d.png      as YouTube-VOS has them
"""
    family: ClassVar[str] = "youtube-vos"
    """Whose videos they are: the first part of `group`."""

    expressions: str | None = Field(
        default=None, description="the JSON file of phrases; default: meta_expressions/train/meta_expressions.json"
    )
    images: str | None = Field(default=None, description="the folder of videos of frames; default: train/JPEGImages")
    annotations: str | None = Field(
        default=None, description="the folder of videos of masks; default: train/Annotations"
    )
    frames: Frames = Field(default="annotated", description="sample only frames with a mask (annotated), or all")

    def survey(self, root: Folder) -> Survey:
        """One record a video that phrases are told of and that has masks."""
        how = f"see: aesampler sources {self.format}"
        told = self._told(root, how)
        found = Videos.of(root, told.images, told.annotations)
        where = f"{root.url}/{told.images}"
        found.require_frames(sorted(told.phrases), told.files[0], where=where, do=how)
        names = sorted(name for name in told.phrases if name in found.marked)
        if not names:
            raise SourceError("no video has a mask", where=f"{root.url}/{told.annotations}", do=how)
        texts = sorted({phrase.text for name in told.phrases for phrase in told.phrases[name]})
        places = {text: place for place, text in enumerate(texts)}
        items = [Item(name, f"{self.family}:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            return self._record(items[index], told.phrases[name], places, found)

        skipped = {"videos without a mask": len(told.phrases) - len(names)}
        return Survey(
            categories=tuple(Category(name=text, origin=text) for text in texts),
            exhaustive=False,
            items=items,
            record=record,
            files=told.files,
            listing=found.listing,
            folders=(told.images, told.annotations),
            skipped={reason: count for reason, count in skipped.items() if count},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The masks of the phrases; 255 is void. Raises BadRecord where an object is in no mask of the video."""
        said = msgspec.json.decode(record.payload, type=_Said)
        seen: set[int] = set()

        def marks(place: int) -> Marks:
            path = _mask(said, record.frames[place])
            plane = _objects(root, path)
            try:
                plane, void = masks.fit(plane, *size)
            except BadRecord as error:
                raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
            plane = np.asfortranarray(plane)
            shown: dict[int, list[str]] = {}
            for number in _numbers(plane).intersection(said.objects):
                seen.add(number)
                counts = masks.encode(plane == number)
                for phrase in said.objects[number]:
                    shown.setdefault(phrase, []).append(counts)
            void = void | (plane == VOID)
            return Marks(
                shown={phrase: masks.union(shown[phrase], *size) for phrase in sorted(shown)},
                void=masks.encode(void) if void.any() else None,
            )

        made = sequence.assembled(record, names, frames, size, marks)
        self._refuse_lost(root, record, said, said.objects.keys() - seen, set(frames))
        return made

    def _told(self, root: Folder, how: str) -> Told:
        """What is said of the part's videos, and where they are."""
        part = PARTS[self.subset][0]
        path = self.expressions or official(root, self.subset)
        videos = dict(sequence.read_json(root, path, _File, do=how).videos)
        files = [path]
        if self.subset == "validation" and self.expressions is None:
            test = official(root, "test")
            if root.exists(test):
                files.append(test)
                for name in sequence.read_json(root, test, _File, do=how).videos:
                    videos.pop(name, None)
        return Told(
            phrases=_phrases(videos, f"{root.url}/{path}"),
            files=tuple(files),
            images=sequence.folder_of(self.images, f"{part}/JPEGImages"),
            annotations=sequence.folder_of(self.annotations, f"{part}/Annotations"),
        )

    def _record(self, item: Item, phrases: Sequence[Phrase], places: Mapping[str, int], found: Videos) -> Record:
        objects: dict[int, set[int]] = {}
        for phrase in phrases:
            objects.setdefault(phrase.number, set()).add(places[phrase.text])
        marked = found.marked[item.id]
        frames = found.frames[item.id]
        names = sorted(marked if self.frames == "annotated" else marked.keys() | frames.keys())
        said = _Said(
            masks=f"{found.annotations}/{item.id}",
            objects={number: sorted(objects[number]) for number in sorted(objects)},
        )
        return Record(
            id=item.id,
            group=item.group,
            frames=tuple(frames.get(name, f"{found.images}/{item.id}/{name}.jpg") for name in names),
            annotated=tuple(name in marked for name in names),
            masked=tuple(sorted(set().union(*objects.values()))),
            payload=msgspec.json.encode(said),
        )

    def _refuse_lost(self, root: Folder, record: Record, said: _Said, lost: set[int], read: set[int]) -> None:
        for place, frame in enumerate(record.frames):
            if not lost:
                return
            if record.annotated[place] and place not in read:
                lost = lost - _numbers(_objects(root, _mask(said, frame)))
        if lost:
            raise BadRecord(
                "a phrase is said of an object that is in no mask of the video",
                where=f"{said.masks} ({record.id})",
                got=sorted(lost),
            )


def phrase(text: str, number: int) -> Phrase:
    """A phrase as it is shown: lower case, single spaces."""
    return Phrase(" ".join(text.lower().split()), number)


def official(root: Folder, subset: Subset) -> str:
    """Where the phrases of a part lie, or would."""
    paths = [f"meta_expressions/{part}/{FILE}" for part in PARTS[subset]]
    return next((path for path in paths if root.exists(path)), paths[0])


def _phrases(videos: Mapping[str, _Video], where: str) -> dict[str, list[Phrase]]:
    """Video -> phrases. Raises SourceError where they do not say of which object, or do not say anything."""
    every = [(name, told) for name, video in sorted(videos.items()) for told in video.expressions.values()]
    loose = [(name, told) for name, told in every if told.obj_id is None]
    if loose or not every:
        raise SourceError(
            f"{len(loose)} of {len(every)} phrases of {len(videos)} videos name no object",
            where=where,
            do="only the training part names objects: deal train and validation from it by shares",
        )
    found: dict[str, list[Phrase]] = {}
    for name, told in every:
        if not str(told.obj_id).isdecimal() or not told.exp.strip():
            raise SourceError(
                f"a phrase of video {name} is empty, or its object is no number",
                where=where,
                got=f"{told.exp!r} of {told.obj_id!r}",
            )
        found.setdefault(name, []).append(phrase(told.exp, int(told.obj_id or 0)))
    return found


def _mask(said: _Said, frame: str) -> str:
    return f"{said.masks}/{frame.rpartition('/')[2].rpartition('.')[0]}.png"


def _objects(root: Folder, path: str) -> npt.NDArray[np.generic]:
    try:
        return sequence.read_objects(root.read(path))[0]
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error


def _numbers(plane: npt.NDArray[np.generic]) -> set[int]:
    return {int(number) for number in np.unique(plane)}
