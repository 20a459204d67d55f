"""SA-V: masklets of anything that can be outlined, in every fourth frame of 24 a second, of no category.

    train: ID.mp4; ID_manual.json, ID_auto.json: masklet[k][o] = run lengths of object o in frame 4 k of the video
    val, test: JPEGImages_24fps/ID/%05d.jpg; Annotations_6fps/ID/OBJECT/%05d.png, a binary mask of one object

A names file says what the objects are (names_file.py), by masklet_id of the manual masklets or of the automatic ones,
which have ids of their own; without one the set is refused. Objects that it does not have, or gives null, are void
where no named object lies over them. Frames between the marked ones are unknown and never sampled. Masks are ORed, for
objects overlap; one without a pixel is not there. Nothing is known absent.

A frame of a video is addressed as if the file were a folder, ID.mp4/00096.ppm, and decoded when it is sampled; a
video's clips in one pass (open_videos.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import msgspec
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Record
from aesampler.scene import Scene
from aesampler.sources import names_file, open_videos, sequence
from aesampler.sources.names_file import Named
from aesampler.sources.sequence import UNNAMED, Marks
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

STEP = 4
"""Frames of the video from one that is marked to the next."""
DECODED = ".ppm"
PARTS = {"validation": "val", "test": "test"}
IMAGES, ANNOTATIONS = "JPEGImages_24fps", "Annotations_6fps"


class _File(msgspec.Struct):
    video_height: float
    video_width: float
    video_frame_count: float
    masklet: list[list[msgspec.Raw]]
    masklet_id: list[int]


class _Run(msgspec.Struct):
    counts: str


class _Masklets(msgspec.Struct):
    """The payload of a record: of each object its place in the vocabulary (or UNNAMED), and its masks, one a frame."""

    places: list[int]
    masks: list[list[msgspec.Raw]]


class _Files(msgspec.Struct):
    """The payload of a record of val or test: the same, with the path of a mask, or none."""

    places: list[int]
    masks: list[list[str | None]]


class SaV(Source):
    """SA-V."""

    format: ClassVar[str] = "sa-v"
    kind: ClassVar[Kind] = "clip"
    packages: ClassVar[tuple[str, ...]] = ("av",)
    summary: ClassVar[str] = "SA-V: masklets in videos (mp4), every 4th frame; a names file says what they are"
    layout: ClassVar[str] = """\
ROOT/                                   in any folders below it
  sav_000/ID.mp4
  sav_000/ID_manual.json                masklets: auto reads ID_auto.json
or, for validation and test,
  JPEGImages_24fps/ID/%05d.jpg          here or in sav_val/, sav_test/
  Annotations_6fps/ID/%03d/%05d.png     binary, a folder for each object
  sav_val.txt, sav_test.txt             optional: without it, all videos
and
  names.json                            yours: {"ID": {"0": "dog", "1": null}}; any path below ROOT (names: FILE)
"""

    names: str | None = Field(default=None, description="the JSON file that names the masklets; needed")
    masklets: Literal["manual", "auto"] = Field(default="manual", description="whose ids the names file has")

    def survey(self, root: Folder) -> Survey:
        """One record a video that has names and masklets; its JSON is read when its record is asked for."""
        how = f"see: aesampler sources {self.format}"
        named = names_file.read(root, self.names, format="SA-V", object=f"masklet_id in ID_{self.masklets}.json")
        if self.subset != "train":
            return _in_folders(root, PARTS[self.subset], named, str(self.names), how)
        found = root.list()
        ending = f"_{self.masklets}.json"
        videos = {_stem(path): path for path in found if path.endswith(".mp4")}
        told = {_stem(path + "."): path for path in found if path.endswith(ending)}
        names = sorted(name for name in videos if name in named and name + ending in told)
        if not names:
            raise SourceError(
                f"no named video has both ID.mp4 and ID{ending}",
                where=root.url,
                got=f"{len(videos)} videos, {len(told)} such files, names of {len(named)} videos",
                do=how,
            )
        shown = names_file.categories(named)
        places = {category.name: place for place, category in enumerate(shown)}
        items = [Item(name, f"sa-v:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            return _record(root, items[index], videos[name], told[name + ending], named, places)

        skipped = {
            "videos without names": len(videos.keys() - named.keys()),
            f"videos without {self.masklets} masklets": sum(
                name + ending not in told for name in videos if name in named
            ),
        }
        listed = [path for name in names for path in (videos[name], told[name + ending])]
        return Survey(
            categories=shown,
            exhaustive=False,
            items=items,
            record=record,
            files=(str(self.names),),
            listing={path: found[path] for path in sorted(listed)},
            folders=tuple(sorted({path.rpartition("/")[0] for path in listed})),
            skipped={reason: count for reason, count in skipped.items() if count},
        )

    def pictures(self, root: Folder, record: Record, places: Sequence[int]) -> list[bytes]:
        """The frames, decoded, as PPM; those of val and test as they are."""
        if not record.frames[0].endswith(DECODED):
            return super().pictures(root, record, places)
        path = record.frames[0].rpartition("/")[0]
        numbers = [int(_stem(record.frames[place])) for place in places]
        try:
            decoded = open_videos.chosen(root, path, numbers)
        except BadRecord as error:
            raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
        return [b"P6 %d %d 255\n" % (frame.shape[1], frame.shape[0]) + frame.tobytes() for frame in decoded]

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The masklets' masks, by name; those without one are void."""
        if record.frames[0].endswith(DECODED):
            told = msgspec.json.decode(record.payload, type=_Masklets)
            texts = zip(told.places, told.masks, strict=True)
            tracks = [(own, partial(_read_text, track, size, record.id)) for own, track in texts]
        else:
            files = msgspec.json.decode(record.payload, type=_Files)
            paths = zip(files.places, files.masks, strict=True)
            tracks = [(own, partial(_read_file, root, track, size)) for own, track in paths]

        def marks(place: int) -> Marks:
            found: dict[int, list[str]] = {}
            for category, read in tracks:
                counts = read(place)
                if counts is not None:
                    found.setdefault(category, []).append(counts)
            shown = {category: masks.union(found[category], *size) for category in sorted(found)}
            void = shown.pop(UNNAMED, None)
            if void is not None and shown:
                void = masks.subtract(void, masks.union(list(shown.values()), *size), *size)
            return Marks(shown=shown, void=void if void is not None and void != masks.empty(*size) else None)

        return sequence.assembled(record, names, frames, size, marks)


def _read_text(track: Sequence[msgspec.Raw], size: tuple[int, int], who: str, place: int) -> str | None:
    return sequence.counts(track[place], size, who)


def _read_file(root: Folder, track: Sequence[str | None], size: tuple[int, int], place: int) -> str | None:
    path = track[place]
    if path is None:
        return None
    try:
        plane, _ = masks.fit(sequence.read_objects(root.read(path))[0], *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
    return masks.encode(plane != 0) if plane.any() else None


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _record(root: Folder, item: Item, path: str, annotation: str, named: Named, places: Mapping[str, int]) -> Record:
    told = sequence.read_json(root, annotation, _File, do="take it from the archive again")
    objects, where = named[item.id], f"{root.url}/{annotation}"
    count = int(told.video_frame_count)
    if len(told.masklet) != -(-count // STEP) or any(len(row) != len(told.masklet_id) for row in told.masklet):
        raise SourceError(
            "the masklets do not have one mask for each object and every fourth frame",
            where=where,
            got=f"{len(told.masklet)} for {count} frames",
        )
    lost = sorted(objects.keys() - set(told.masklet_id))
    if lost:
        raise SourceError(
            "masklets are named that the file does not have", where=where, got=lost, allowed=told.masklet_id
        )
    size = int(told.video_height), int(told.video_width)
    names = [objects.get(number) for number in told.masklet_id]
    own = [UNNAMED if name is None else places[name] for name in names]
    tracks = [[row[column] for row in told.masklet] for column in range(len(names))]
    seen = {place for place, track in zip(own, tracks, strict=True) if any(_has_pixels(text, size) for text in track)}
    return Record(
        id=item.id,
        group=item.group,
        frames=tuple(f"{path}/{STEP * k:05d}{DECODED}" for k in range(len(told.masklet))),
        annotated=(True,) * len(told.masklet),
        height=size[0],
        width=size[1],
        masked=tuple(sorted(seen - {UNNAMED})),
        elsewhere=tuple(sorted(set(own) - seen - {UNNAMED})),
        payload=msgspec.json.encode(_Masklets(own, tracks)),
    )


def _has_pixels(text: msgspec.Raw, size: tuple[int, int]) -> bool:
    return msgspec.json.decode(text, type=_Run).counts != masks.empty(*size)


def _in_folders(root: Folder, part: str, named: Named, names_file_path: str, how: str) -> Survey:
    """The survey of val or test."""
    base = next((base for base in (f"sav_{part}/", "") if root.exists(f"{base}{IMAGES}")), None)
    if base is None:
        raise SourceError(f"no folder sav_{part}/{IMAGES}", where=root.url, do=how)
    images, annotations, chosen = f"{base}{IMAGES}", f"{base}{ANNOTATIONS}", f"{base}sav_{part}.txt"
    listing = {**root.list(images, depth=1), **root.list(annotations, depth=2)}
    frames = sequence.by_sequence(listing, images, ("jpg", "jpeg", "png"))
    marked: dict[str, dict[int, dict[str, str]]] = {}
    for path in sorted(listing):
        parts = path.removeprefix(f"{annotations}/").split("/")
        if path.startswith(f"{annotations}/") and len(parts) == 3 and parts[1].isdecimal() and path.endswith(".png"):
            marked.setdefault(parts[0], {}).setdefault(int(parts[1]), {})[_stem(path)] = path
    lists = (chosen,) if root.exists(chosen) else ()
    listed = set(root.read(chosen).decode().split()) if lists else marked.keys()
    there = sorted(listed & marked.keys() & frames.keys())
    names = [name for name in there if name in named]
    if not names:
        raise SourceError(
            "no named video has both frames and masks",
            where=f"{root.url}/{base}",
            got=f"{len(there)} such videos, names of {len(named)} videos",
            do=how,
        )
    shown = names_file.categories(named)
    places = {category.name: place for place, category in enumerate(shown)}
    items = [Item(name, f"sa-v:{name}") for name in names]

    def record(index: int) -> Record:
        name = names[index]
        objects, own = marked[name], named[name]
        lost = sorted(own.keys() - objects.keys())
        if lost:
            raise SourceError(
                "objects are named that have no masks", where=f"{root.url}/{annotations}/{name}", got=lost
            )
        stems = sorted(set().union(*objects.values()))
        told = [own.get(number) for number in sorted(objects)]
        files = _Files(
            places=[UNNAMED if text is None else places[text] for text in told],
            masks=[[objects[number].get(stem) for stem in stems] for number in sorted(objects)],
        )
        return Record(
            id=name,
            group=items[index].group,
            frames=tuple(frames[name].get(stem, f"{images}/{name}/{stem}.jpg") for stem in stems),
            annotated=(True,) * len(stems),
            masked=tuple(sorted({places[text] for text in told if text is not None})),
            payload=msgspec.json.encode(files),
        )

    skipped = len(there) - len(names)
    return Survey(
        categories=shown,
        exhaustive=False,
        items=items,
        record=record,
        files=(names_file_path, *lists),
        listing=listing,
        folders=(images, annotations),
        skipped={"videos without names": skipped} if skipped else {},
    )
