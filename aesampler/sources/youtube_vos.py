"""YouTube-VOS: objects of 65 categories in thousands of videos, marked in every fifth frame.

    palette PNG, value = object, 0 unmarked;  meta.json: videos[V].objects["1"] = {category, frames}

Rules. Where an object is seen, the PNG decides: the frames of meta.json are a claim, and some are wrong. An object of
category `others` is a thing without a name: its pixels are void. An object in a mask that meta.json does not have is a
bad record. Frames between the marked ones (in the `*_all_frames` archives) are unknown; `frames: all` samples them too.
Nothing is known absent: only some objects are marked. Only the training part names categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from pydantic import Field

from aesampler.errors import SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import sequence
from aesampler.sources.sequence import UNNAMED, Frames, Tracks, Videos
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "valid", "test": "test"}
META = "meta.json"
NO_NAME = "others"


class _Object(msgspec.Struct):
    category: str | None = None


class _Video(msgspec.Struct):
    objects: dict[str, _Object]


class _Meta(msgspec.Struct):
    videos: dict[str, _Video]


class YouTubeVos(Source):
    """YouTube-VOS 2018 or 2019."""

    format: ClassVar[str] = "youtube-vos"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = "YouTube-VOS: objects of 65 categories in videos, every 5th frame marked"
    layout: ClassVar[str] = """\
ROOT/                                   the folder that holds train/, or train/ itself
  train/
    meta.json                           categories of the objects of each video
    JPEGImages/VIDEO/%05d.jpg
    Annotations/VIDEO/%05d.png
"""

    images: str | None = Field(
        default=None,
        description="the folder of videos of frames, say train_all_frames/JPEGImages; default: train/JPEGImages",
    )
    annotations: str | None = Field(
        default=None, description="the folder of videos of masks; default: train/Annotations"
    )
    meta: str | None = Field(default=None, description="the JSON file of categories; default: train/meta.json")
    frames: Frames = Field(default="annotated", description="sample only frames with a mask (annotated), or all")

    def survey(self, root: Folder) -> Survey:
        """One record a video of meta.json; videos on disk that it does not have are skipped and counted."""
        base = self._base(root)
        meta = self.meta or f"{base}{META}"
        images = sequence.folder_of(self.images, f"{base}JPEGImages")
        annotations = sequence.folder_of(self.annotations, f"{base}Annotations")
        videos = sequence.read_json(root, meta, _Meta, do=f"see: aesampler sources {self.format}").videos
        _refuse_nameless(videos, f"{root.url}/{meta}")
        found = Videos.of(root, images, annotations)
        found.require_frames(
            sorted(videos), meta, where=f"{root.url}/{images}", do=f"see: aesampler sources {self.format}"
        )
        names = sorted(video for video in videos if video in found.marked)
        if not names:
            raise SourceError(
                "no video has a mask", where=f"{root.url}/{annotations}", do=f"see: aesampler sources {self.format}"
            )
        shown = _categories(videos)
        places = {category.origin: place for place, category in enumerate(shown)}
        items = [Item(name, f"youtube-vos:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            objects = {int(i): places.get(told.category or "", UNNAMED) for i, told in videos[name].objects.items()}
            tracks = Tracks(masks=f"{annotations}/{name}", objects=objects)
            group = items[index].group
            return sequence.record(name, group, images, found.frames[name], found.marked[name], self.frames, tracks)

        skipped = {
            "videos that meta.json does not have": len(found.frames.keys() - videos.keys()),
            "videos without a mask": len(videos) - len(names),
        }
        return Survey(
            categories=shown,
            exhaustive=False,
            items=items,
            record=record,
            files=(meta,),
            listing=found.listing,
            folders=(images, annotations),
            skipped={reason: count for reason, count in skipped.items() if count},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The objects' masks, by category; `others` is void."""
        return sequence.scene(root, record, names, frames, size, source=META)

    def _base(self, root: Folder) -> str:
        """What stands before meta.json, JPEGImages and Annotations."""
        part = PARTS[self.subset]
        for base in (f"{part}/", ""):
            if root.exists(f"{base}{META}") or root.exists(f"{base}JPEGImages"):
                return base
        if self.meta and self.images and self.annotations:
            return ""
        raise SourceError(f"no file {part}/{META}", where=root.url, do=f"see: aesampler sources {self.format}")


def _refuse_nameless(videos: Mapping[str, _Video], where: str) -> None:
    """Raise SourceError where objects have no category, or an id that is no number."""
    nameless = [(v, i) for v, video in sorted(videos.items()) for i, told in video.objects.items() if not told.category]
    total = sum(len(video.objects) for video in videos.values())
    if nameless:
        first, number = nameless[0]
        raise SourceError(
            f"{len(nameless)} of {total} objects have no category, the first object {number} of video {first}",
            where=where,
            do="only the training part of YouTube-VOS names categories: deal train and validation from it by shares",
        )
    for name, video in sorted(videos.items()):
        odd = [number for number in video.objects if not number.isdecimal()]
        if odd:
            raise SourceError(f"object ids of video {name} are not numbers", where=where, got=odd)


def _categories(videos: Mapping[str, _Video]) -> tuple[Category, ...]:
    """The names of a meta.json in the order of the alphabet, without `others`."""
    raw = {told.category for video in videos.values() for told in video.objects.values()}
    return tuple(
        Category(name=name.replace("_", " "), origin=name)
        for name in sorted(name for name in raw if name and name != NO_NAME)
    )
