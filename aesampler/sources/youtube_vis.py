"""YouTube-VIS 2019 and 2021: tracks of 40 categories in videos, marked in every fifth frame; also any set in its form.

    {"videos": [{id, width, height, file_names}], "categories": [{id, name}],
     "annotations": [{video_id, category_id, iscrowd, segmentations: [run lengths or null, one a file name]}]}

The file's name differs from release to release, so it is found by what it holds: videos whose frames are on disk, and
tracks. 2019 and 2021 have other ids and other names, all told by the file itself. Only the training part has tracks.
Every track of the categories was marked, so a category without a track in the video is absent; for a set of which that
is not known (LV-VIS) there is `exhaustive: false`. A track of nulls is present, without a mask. Masks of one category
are ORed; a crowd's are ignored.

Run lengths are not looked at before their clip is built: the file (some 500 MB) is mapped, and a record copies its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import msgspec
from pydantic import Field

from aesampler import masks
from aesampler.errors import SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import instances, sequence
from aesampler.sources.instances_json import Named
from aesampler.sources.sequence import Marks
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "valid", "test": "test"}
ENOUGH = 20
"""JSON files that are looked into, at most."""


class _Video(msgspec.Struct):
    id: int
    file_names: list[str]
    height: int = 0
    width: int = 0


class _Track(msgspec.Struct, gc=False):
    video_id: int
    category_id: int
    segmentations: list[msgspec.Raw] | None = None
    iscrowd: int | bool = 0


class _File(msgspec.Struct):
    videos: list[_Video]
    categories: list[Named]
    annotations: list[_Track] | None = None


class _Marked(msgspec.Struct):
    """One track in the payload of a record: its place in the vocabulary, and a segmentation or null for each frame."""

    category: int
    crowd: bool
    segmentations: list[msgspec.Raw]


class _Found(NamedTuple):
    path: str
    images: str
    told: _File


class YouTubeVis(Source):
    """YouTube-VIS 2019 or 2021."""

    format: ClassVar[str] = "youtube-vis"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = "YouTube-VIS 2019 and 2021: tracks of 40 categories in videos, every 5th frame"
    layout: ClassVar[str] = """\
ROOT/
  train/JPEGImages/VIDEO/%05d.jpg
  train.json                            or train/instances.json, annotations/instances_train_sub.json: any JSON file
                                        at ROOT or one folder below that holds the tracks of these videos
"""
    folders: ClassVar[tuple[str, ...]] = ("{part}/JPEGImages", "JPEGImages")
    """Where the folders of frames may lie."""
    family: ClassVar[str] = "youtube-vos"
    """Whose videos they are: the first part of `group`."""
    corrected: ClassVar[Mapping[str, str]] = {}
    """Misspelt in the published file."""

    images: str | None = Field(
        default=None, description="the folder of videos of frames; default: train/JPEGImages, else JPEGImages"
    )
    annotations: str | None = Field(
        default=None, description="the JSON file; default: the one that holds tracks of these videos"
    )
    exhaustive: bool = Field(default=True, description="whether every category was looked for in every video")

    def survey(self, root: Folder) -> Survey:
        """One record a video of the file, with tracks or without."""
        path, images, told = self._found(root)
        where = f"{root.url}/{path}"
        shown = self._categories(told.categories, where)
        places = {entry.id: place for place, entry in enumerate(told.categories)}
        videos = {video.id: video for video in told.videos}
        if len(videos) < len(told.videos) or not all(video.file_names for video in told.videos):
            raise SourceError("two videos have one id, or one has no frames", where=where)
        tracks: dict[int, list[_Track]] = {}
        for track in told.annotations or ():
            if track.video_id not in videos or track.category_id not in places:
                raise SourceError(
                    "a track of an unknown video or category",
                    where=where,
                    got=f"video {track.video_id}, category {track.category_id}",
                    do="the file is cut or mixed: take the official one",
                )
            tracks.setdefault(track.video_id, []).append(track)
        frames = {video.id: _paths(video, images, where) for video in told.videos}
        names = {video.id: _name(frames[video.id], images, where) for video in told.videos}
        items = [Item(names[video.id], f"{self.family}:{names[video.id]}") for video in told.videos]

        def record(index: int) -> Record:
            video = told.videos[index]
            own = tracks.get(video.id, [])
            return _record(items[index], video, frames[video.id], own, places, where)

        return Survey(
            categories=shown,
            exhaustive=self.exhaustive,
            items=items,
            record=record,
            files=(path,),
            listing=root.list(images, depth=1),
            folders=(images,),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The tracks' masks in these frames, by category."""
        tracks = msgspec.json.decode(record.payload, type=list[_Marked])

        def marks(place: int) -> Marks:
            found: dict[bool, dict[int, list[str]]] = {False: {}, True: {}}
            for track in tracks:
                counts = sequence.counts(track.segmentations[place], size, f"{record.id}: {names[track.category]}")
                if counts is not None:
                    found[track.crowd].setdefault(track.category, []).append(counts)
            shown, ignored = (
                {category: masks.union(counts, *size) for category, counts in found[crowd].items()}
                for crowd in (False, True)
            )
            return Marks(shown=shown, ignored=ignored)

        return sequence.assembled(record, names, frames, size, marks, exhaustive=self.exhaustive)

    def _categories(self, entries: Sequence[Named], where: str) -> tuple[Category, ...]:
        """The names of the file in its order: lower case, underscores as spaces, misspelt ones corrected."""
        shown = [self.corrected.get(entry.name, entry.name).replace("_", " ").lower() for entry in entries]
        if not entries or len(set(shown)) < len(shown) or len({entry.id for entry in entries}) < len(shown):
            raise SourceError("no category, or two of one name or id", where=where, got=[e.name for e in entries][:50])
        return tuple(
            Category(name=name, origin=str(entry.id), aliases=(entry.name,) if entry.name in self.corrected else ())
            for name, entry in zip(shown, entries, strict=True)
        )

    def _found(self, root: Folder) -> _Found:
        """The file with the tracks of this part, and the folder of its frames."""
        how = f"see: aesampler sources {self.format}"
        part = PARTS[self.subset]
        folders = [self.images] if self.images else [folder.format(part=part) for folder in self.folders]
        paths = [self.annotations] if self.annotations else _candidates(root, part)
        if not paths:
            raise SourceError("no JSON file", where=root.url, do=how)
        bare: list[str] = []
        for path in paths:
            told = _read(root, path, strict=self.annotations is not None)
            first = told.videos[0].file_names[:1] if told and told.videos else []
            images = next(
                (
                    sequence.folder_of(folder, "")
                    for folder in folders
                    if first and root.exists(f"{folder}/{instances.confined(first[0], path)}")
                ),
                None,
            )
            if told is None or images is None:
                continue
            if told.annotations:
                return _Found(path, images, told)
            bare.append(path)
        if bare:
            raise SourceError(
                "no track of these videos: the owners publish those of the training part only",
                where=f"{root.url}/{bare[0]}",
                do="deal train and validation from the training part by shares",
            )
        raise SourceError(
            f"no file that describes videos of {' or '.join(folders)}",
            where=root.url,
            got=", ".join(paths),
            do=how,
        )


def _candidates(root: Folder, part: str) -> list[str]:
    """The JSON files at the root and one folder below; those that carry the part's name first."""
    found = [path for path in root.list("", depth=1) if path.lower().endswith(".json")]
    return sorted(found, key=lambda path: (part not in path, path))[:ENOUGH]


def _read(root: Folder, path: str, *, strict: bool) -> _File | None:
    """The file, its segmentations as windows on the mapped file; None where it is of another form and not `strict`."""
    try:
        return msgspec.json.decode(sequence.mapped(root, path), type=_File)
    except FileNotFoundError:
        error: Exception = FileNotFoundError("no such file")
    except (msgspec.DecodeError, UnicodeDecodeError) as broken:
        error = broken
    if strict:
        raise SourceError(
            f"not a file of videos, categories and annotations: {error}",
            where=f"{root.url}/{path}",
            do="set annotations to the file, below root",
        ) from error
    return None


def _paths(video: _Video, images: str, where: str) -> tuple[str, ...]:
    return tuple(f"{images}/{instances.confined(name, where)}" for name in video.file_names)


def _name(frames: Sequence[str], images: str, where: str) -> str:
    """The folder of a video's frames, its name."""
    folders = {frame.rpartition("/")[0].removeprefix(f"{images}/") for frame in frames}
    if len(folders) != 1 or images in folders:
        raise SourceError("a video's frames do not lie in one folder of its own", where=where, got=sorted(folders)[:3])
    return folders.pop()


def _record(
    item: Item,
    video: _Video,
    frames: tuple[str, ...],
    tracks: Sequence[_Track],
    places: Mapping[int, int],
    where: str,
) -> Record:
    marked: list[_Marked] = []
    named: dict[str, set[int]] = {"masked": set(), "ignored": set(), "elsewhere": set()}
    for track in tracks:
        place = places[track.category_id]
        segmentations = track.segmentations or []
        if segmentations and len(segmentations) != len(frames):
            raise SourceError(
                "a track has not one segmentation a frame",
                where=f"{where}: video {video.id}",
                got=len(segmentations),
                allowed=len(frames),
            )
        if all(sequence.is_nothing(text) for text in segmentations):
            named["elsewhere"].add(place)
            continue
        named["ignored" if track.iscrowd else "masked"].add(place)
        marked.append(_Marked(place, bool(track.iscrowd), segmentations))
    return Record(
        id=item.id,
        group=item.group,
        frames=frames,
        annotated=(True,) * len(frames),
        height=video.height,
        width=video.width,
        masked=tuple(sorted(named["masked"])),
        ignored=tuple(sorted(named["ignored"])),
        elsewhere=tuple(sorted(named["elsewhere"] - named["masked"] - named["ignored"])),
        payload=msgspec.json.encode(marked),
    )
