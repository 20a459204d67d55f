"""Videos as folders of frames with an index PNG a frame: what DAVIS, YouTube-VOS and their kin share.

    IMAGES/SEQ/NAME.jpg, ANNOTATIONS/SEQ/NAME.png: pixel = object id, 0 background, 255 void

A frame is annotated where its PNG is there; all others are unknown, not empty. Frames are paired with masks by name, as
strings. A mask whose size differs from its frame's by a pixel or two is cut or extended at the right and the bottom
(`masks.fit`), and the pixels so added are void.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Record
from aesampler.scene import Scene, Track
from aesampler.storage import Folder

T = TypeVar("T")
Frames = Literal["annotated", "all"]
VOID = 255
UNNAMED = -1
NOTHING = frozenset({b"null", b"[]", b"{}"})
"""What stands for no segmentation."""
COLOUR_TYPE, PALETTE = 25, 3
"""Where the colour type stands in every PNG (8 bytes of signature, 8 of chunk head, 8 of size, 1 of depth), and a
palette's."""


class Tracks(msgspec.Struct):
    """The payload of a record: the masks' folder, and object id -> place in the vocabulary (UNNAMED: its pixels are
    void).

    foreground: the objects that 255 stands for in a grey mask of 0 and 255 alone (DAVIS 2016); empty where 255 is void
    always.
    """

    masks: str
    objects: dict[int, int]
    foreground: list[int] = []


class Marks(NamedTuple):
    """What is marked in one frame, in run-length counts. shown, ignored: place in the vocabulary -> a mask with a pixel
    or more. void: None where there is none.
    """

    shown: Mapping[int, str]
    ignored: Mapping[int, str] = MappingProxyType({})
    void: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Videos:
    """Two folders of videos. listing: every file in them. frames, marked: video -> name of a frame -> the path of its
    picture, of its mask.
    """

    images: str
    annotations: str
    listing: Mapping[str, int]
    frames: Mapping[str, Mapping[str, str]]
    marked: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, root: Folder, images: str, annotations: str, inside: tuple[str, str] = ("", "")) -> Videos:
        """The videos of two folders below root; inside: the folder in a video that holds its frames, and its masks."""
        listing = {
            path: size
            for folder, within in ((images, inside[0]), (annotations, inside[1]))
            for path, size in root.list(folder, depth=2 if within else 1).items()
        }
        return cls(
            images=images,
            annotations=annotations,
            listing=listing,
            frames=by_sequence(listing, images, ("jpg", "jpeg", "png"), inside[0]),
            marked=by_sequence(listing, annotations, ("png",), inside[1]),
        )

    def require_frames(self, names: Sequence[str], told: str, *, where: str, do: str) -> None:
        """Raise SourceError where a video that `told` names has no frames."""
        lacking = sorted(set(names) - self.frames.keys())
        if lacking:
            raise SourceError(
                f"{len(lacking)} of {len(names)} videos of {told} have no frames, the first {lacking[0]}",
                where=where,
                do=do,
            )


def folder_of(option: str | None, official: str) -> str:
    """The folder that an option names, or the official one, without "." and empty parts."""
    return str(PurePosixPath(option or official))


def read_json(root: Folder, path: str, form: type[T], *, do: str) -> T:
    """The JSON file at `path`. Raises SourceError where there is none, or where it is not of `form`."""
    try:
        return msgspec.json.decode(root.read(path), type=form)
    except FileNotFoundError as error:
        raise SourceError(f"no file {path}", where=root.url, do=do) from error
    except msgspec.DecodeError as error:
        raise SourceError(f"not the expected JSON: {error}", where=f"{root.url}/{path}", do=do) from error


def mapped(root: Folder, path: str) -> memoryview:
    """The file mapped into memory: what is decoded from it as msgspec.Raw is a window on it, and no copy."""
    with root.local_copy(path) as local, local.open("rb") as file:
        if not local.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_nothing(text: msgspec.Raw) -> bool:
    """Whether a segmentation says that there is none."""
    return memoryview(text).nbytes < 16 and bytes(text).strip() in NOTHING


def counts(segmentation: msgspec.Raw, size: tuple[int, int], who: str) -> str | None:
    """The counts of a segmentation in JSON; None where it is null or has no pixel."""
    told = msgspec.json.decode(segmentation)
    if not told:
        return None
    try:
        found = masks.from_coco(told, *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=who, got=error.got, allowed=error.allowed) from error
    return found if found != masks.empty(*size) else None


def by_sequence(
    listing: Mapping[str, int], folder: str, endings: Sequence[str], inside: str = ""
) -> dict[str, dict[str, str]]:
    """Files FOLDER/SEQ/NAME.ending of a listing, or FOLDER/SEQ/INSIDE/NAME.ending: SEQ -> NAME -> path, names in order
    of time (as strings). Hidden ones are none: archives made on a Mac carry a `._00001.jpg` beside a 00001.jpg.
    """
    found: dict[str, dict[str, str]] = defaultdict(dict)
    depth = len(PurePosixPath(folder).parts)
    top = f"{folder}/" if depth else ""
    tail = [inside] if inside else []
    for path in sorted(listing):
        parts = PurePosixPath(path).parts
        stem, _, ending = parts[-1].rpartition(".")
        if (
            len(parts) > depth + 1
            and list(parts[depth + 1 : -1]) == tail
            and path.startswith(top)
            and ending.lower() in endings
            and not stem.startswith(".")
        ):
            found[parts[depth]][stem] = path
    return dict(found)


def record(
    sequence: str,
    group: str,
    images: str,
    frames: Mapping[str, str],
    marked: Iterable[str],
    which: Frames,
    tracks: Tracks,
) -> Record:
    """The record of one video. frames: name -> path of those on disk; marked: names of the frames with a mask.

    A marked frame that is not on disk stays in the record: it is missing, and the build says so.
    """
    annotated = set(marked)
    names = sorted(annotated if which == "annotated" else annotated | frames.keys())
    return Record(
        id=sequence,
        group=group,
        frames=tuple(frames.get(name, f"{images}/{sequence}/{name}.jpg") for name in names),
        annotated=tuple(name in annotated for name in names),
        masked=tuple(sorted({place for place in tracks.objects.values() if place != UNNAMED})),
        payload=msgspec.json.encode(tracks),
    )


def scene(
    root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int], *, source: str
) -> Scene:
    """The masks of the sampled frames; objects of one name are ORed. source: the file that names the objects.

    Present without a mask: the names of the video that none of the sampled frames shows.
    """
    tracks = msgspec.json.decode(record.payload, type=Tracks)

    def marks(place: int) -> Marks:
        path = f"{tracks.masks}/{record.frames[place].rpartition('/')[2].rpartition('.')[0]}.png"
        shown, void = _marked(root, path, tracks, size, source)
        return Marks(
            shown={category: masks.encode(mask) for category, mask in shown.items()},
            void=masks.encode(void) if void.any() else None,
        )

    return assembled(record, names, frames, size, marks)


def assembled(
    record: Record,
    names: Sequence[str],
    frames: Sequence[int],
    size: tuple[int, int],
    marks: Callable[[int], Marks],
    *,
    exhaustive: bool = False,
) -> Scene:
    """The scene of the sampled frames; `marks` gives those of one annotated place in record.frames.

    Present without a mask: the names of the video that none of the sampled frames shows.
    """
    segments: dict[str, list[str | None]] = {}
    ignored: dict[str, list[str | None]] = {}
    voids: list[str | None] = [None] * len(frames)
    for time, place in enumerate(frames):
        if not record.annotated[place]:
            continue
        found = marks(place)
        for kept, told in ((segments, found.shown), (ignored, found.ignored)):
            for category, counts in told.items():
                kept.setdefault(names[category], [None] * len(frames))[time] = counts
        voids[time] = found.void
    seen = (*record.masked, *record.ignored, *record.incomplete, *record.elsewhere)
    return Scene(
        height=size[0],
        width=size[1],
        annotated=tuple(record.annotated[place] for place in frames),
        segments=_ordered(segments),
        ignored=_ordered(ignored),
        void=tuple(voids),
        present=frozenset(names[place] for place in seen).difference(segments, ignored),
        absent=frozenset(names[place] for place in record.absent),
        exhaustive=exhaustive,
    )


def _ordered(tracks: Mapping[str, Sequence[str | None]]) -> dict[str, Track]:
    return {name: tuple(tracks[name]) for name in sorted(tracks)}


Mask = npt.NDArray[np.bool_]


def _marked(
    root: Folder, path: str, tracks: Tracks, size: tuple[int, int], source: str
) -> tuple[dict[int, Mask], Mask]:
    """Place in the vocabulary -> bool [H, W] with a pixel or more, and void, bool [H, W], of one mask file."""
    try:
        plane, binary = read_objects(root.read(path))
        plane, void = masks.fit(plane, *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
    plane = np.asfortranarray(plane)
    objects = dict(tracks.objects)
    if binary and tracks.foreground:
        objects = {VOID: tracks.objects[tracks.foreground[0]]}
    ids = [int(number) for number in np.unique(plane) if number and not (number == VOID and VOID not in objects)]
    unknown = [number for number in ids if number not in objects]
    if unknown:
        raise BadRecord(f"objects that {source} does not name", where=path, got=unknown, allowed=sorted(objects))
    if VOID not in objects:
        void = void | (plane == VOID)
    shown: dict[int, Mask] = {}
    for number in ids:
        mask, place = plane == number, objects[number]
        if place == UNNAMED:
            void = void | mask
        else:
            shown[place] = shown[place] | mask if place in shown else mask
    return shown, void


def read_objects(data: bytes) -> tuple[npt.NDArray[Any], bool]:
    """The object ids of a mask, [H, W], and whether it is binary: a grey picture (not a palette) of 0 and 255 alone.

    Some of DAVIS 2016's masks are RGB with three equal channels; a coloured one has lost its ids and is a bad record.
    """
    plane: npt.NDArray[Any] = masks.read_index(data)
    if plane.ndim == 3:
        if not (plane == plane[..., :1]).all():
            raise BadRecord("a coloured mask: its object ids are lost", do="keep the palette when converting masks")
        plane = plane[..., 0]
    return plane, data[COLOUR_TYPE] != PALETTE and bool(np.isin(plane, (0, VOID)).all())
