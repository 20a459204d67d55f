"""MeViS: phrases about how things move, each of one or several objects, in videos marked in every frame.

    train/meta_expressions.json: {"videos": {V: {"frames": [...], "expressions": {"0": {"exp", "obj_id", "anno_id"}}}}}
    train/mask_dict.json: {"ANNO": [run lengths or null, one a frame of the video, in order of time]}

The phrases are the names, as for Ref-YouTube-VOS. The masks of a phrase's objects are ORed (the published loader adds
them). Objects without a phrase are background. The phrases of a video are present in it; any other may be true of it
too, so nothing is known absent, but for a phrase that is told with an empty list of objects. A phrase whose objects are
null in all frames is present, without a mask. `valid` is published without masks; the validation part is valid_u.

mask_dict.json is mapped and split by object, and no run length is looked at before its clip is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import sequence
from aesampler.sources.ref_youtube_vos import phrase
from aesampler.sources.sequence import Marks
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "valid_u", "test": "valid"}
PHRASES, MASKS = "meta_expressions.json", "mask_dict.json"


class _Expression(msgspec.Struct):
    exp: str
    anno_id: list[str | int] | str | int | None = None


class _Video(msgspec.Struct):
    expressions: dict[str, _Expression]
    frames: list[str] = []


class _File(msgspec.Struct):
    videos: dict[str, _Video]


class _Said(msgspec.Struct):
    """The payload of a record: the tracks of its objects, and the places of the phrases that each is spoken of by."""

    tracks: list[msgspec.Raw]
    phrases: list[list[int]]


class Mevis(Source):
    """MeViS."""

    format: ClassVar[str] = "mevis"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = "MeViS: phrases about motion, of one object or several, every frame"
    layout: ClassVar[str] = """\
ROOT/
  train/                                valid_u alike; valid has no masks
    meta_expressions.json
    mask_dict.json
    JPEGImages/VIDEO/%05d.jpg
"""

    part: str | None = Field(default=None, description="the folder of the part; default: train, valid_u")

    def survey(self, root: Folder) -> Survey:
        """One record a video of meta_expressions.json."""
        how = f"see: aesampler sources {self.format}"
        part = sequence.folder_of(self.part, PARTS[self.subset])
        path, where = f"{part}/{PHRASES}", f"{root.url}/{part}/{PHRASES}"
        videos = sequence.read_json(root, path, _File, do=how).videos
        said = {name: _objects(videos[name], f"{where}: video {name}") for name in sorted(videos)}
        tracks = _tracks(root, f"{part}/{MASKS}", how)
        lost = sorted({anno for told in said.values() for ids in told.values() for anno in ids} - tracks.keys())
        if lost:
            raise SourceError(
                f"{len(lost)} objects of phrases have no masks",
                where=f"{root.url}/{part}/{MASKS}",
                got=f"{lost[0]}, the first",
                do="the file is cut or of another release: take the official one",
            )
        images = f"{part}/JPEGImages"
        listing = root.list(images, depth=1)
        frames = sequence.by_sequence(listing, images, ("jpg", "jpeg", "png"))
        lacking = sorted(said.keys() - frames.keys())
        if lacking:
            raise SourceError(
                f"{len(lacking)} of {len(said)} videos of {path} have no frames, the first {lacking[0]}",
                where=f"{root.url}/{images}",
                do=how,
            )
        texts = sorted({text for told in said.values() for text in told})
        places = {text: place for place, text in enumerate(texts)}
        names = list(said)
        items = [Item(name, f"mevis:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            ordered = sorted({_stem(frame) for frame in videos[name].frames} or frames[name])
            files = tuple(frames[name].get(frame, f"{images}/{name}/{frame}.jpg") for frame in ordered)
            return _record(items[index], files, said[name], places, tracks)

        return Survey(
            categories=tuple(Category(name=text, origin=text) for text in texts),
            exhaustive=False,
            items=items,
            record=record,
            files=(path, f"{part}/{MASKS}"),
            listing=listing,
            folders=(images,),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The masks of the phrases. Raises BadRecord where an object has not one mask, or null, a frame."""
        said = msgspec.json.decode(record.payload, type=_Said)
        tracks = [msgspec.json.decode(track, type=list[msgspec.Raw]) for track in said.tracks]
        for track in tracks:
            if len(track) != len(record.frames):
                raise BadRecord(
                    "an object has not one mask, or null, a frame",
                    where=record.id,
                    got=len(track),
                    allowed=len(record.frames),
                )

        def marks(place: int) -> Marks:
            shown: dict[int, list[str]] = {}
            for track, phrases in zip(tracks, said.phrases, strict=True):
                counts = sequence.counts(track[place], size, record.id)
                for spoken in phrases if counts is not None else ():
                    shown.setdefault(spoken, []).append(counts or "")
            return Marks(shown={spoken: masks.union(shown[spoken], *size) for spoken in sorted(shown)})

        return sequence.assembled(record, names, frames, size, marks)


def _objects(video: _Video, where: str) -> dict[str, tuple[str, ...]]:
    """Phrase -> the ids, in mask_dict.json, of the objects that it is said of."""
    found: dict[str, dict[str, None]] = {}
    for told in video.expressions.values():
        text = phrase(told.exp, 0).text
        if told.anno_id is None or not text:
            raise SourceError(
                "a phrase is empty, or names no object",
                where=where,
                got=repr(told.exp),
                do="valid is published without objects: take train, or valid_u as the validation part",
            )
        ids = told.anno_id if isinstance(told.anno_id, list) else [told.anno_id]
        found.setdefault(text, {}).update(dict.fromkeys(map(str, ids)))
    return {text: tuple(ids) for text, ids in found.items()}


def _tracks(root: Folder, path: str, how: str) -> dict[str, msgspec.Raw]:
    """Object -> the text of its list of masks."""
    try:
        return msgspec.json.decode(sequence.mapped(root, path), type=dict[str, msgspec.Raw])
    except FileNotFoundError as error:
        raise SourceError(
            f"no file {path}", where=root.url, do=f"valid is published without it: take train, or valid_u; {how}"
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"not the expected JSON: {error}", where=f"{root.url}/{path}", do=how) from error


def _record(
    item: Item,
    frames: tuple[str, ...],
    said: Mapping[str, Sequence[str]],
    places: Mapping[str, int],
    tracks: Mapping[str, msgspec.Raw],
) -> Record:
    own = list(dict.fromkeys(anno for ids in said.values() for anno in ids))
    try:
        seen = {
            anno
            for anno in own
            if not all(map(sequence.is_nothing, msgspec.json.decode(tracks[anno], type=list[msgspec.Raw])))
        }
    except msgspec.DecodeError as error:
        raise SourceError(f"an object's masks are no list: {error}", where=f"{MASKS}: video {item.id}") from error
    masked = {places[text] for text, ids in said.items() if seen.intersection(ids)}
    absent = {places[text] for text, ids in said.items() if not ids}
    spoken = {anno: sorted(places[text] for text, ids in said.items() if anno in ids) for anno in own}
    return Record(
        id=item.id,
        group=item.group,
        frames=frames,
        annotated=(True,) * len(frames),
        masked=tuple(sorted(masked)),
        absent=tuple(sorted(absent)),
        elsewhere=tuple(sorted({places[text] for text in said} - masked - absent)),
        payload=msgspec.json.encode(_Said([tracks[anno] for anno in own], [spoken[anno] for anno in own])),
    )


def _stem(frame: str) -> str:
    """A frame's name, with an ending or without."""
    return frame.rpartition("/")[2].removesuffix(".jpg")
