"""ADE20K, the full 2021 release: dense scenes in about 3,700 classes, each picture with a JSON file and a
class-and-instance PNG.

    class = R // 10 * 256 + G of `_seg.png` = name_ndx of the JSON;  0 is unlabelled (2 to 12 % of a picture) and
    becomes void

Absence. A class that a picture does not have is known absent where no more of it than `void_limit` is unlabelled: what
lies there may be anything (see index_map.py).

Rules. The PNG decides where a class is; the JSON names it. A class that the JSON names and the PNG does not show
(wholly hidden) is present without a mask. A class in the PNG that the picture's own JSON does not name is a bad record.
Classes are told apart by name_ndx, never by name: two of them start with "tree". Names come from the JSON files of both
the training and the validation folder, so that both show a class by the same name.

Parts (`parts: true`) come from `_parts_1.png`, `_parts_2.png`, ... in the same encoding, and are ORed by class with
each other and with the objects. Only some pictures have their parts marked, so with parts nothing is known absent.
Without parts, a class that the picture has only as a part ("door" of a car) and other pictures have as an object is
present, without a mask.

The instance folders NAME/ are not read and not listed: 27,000 of them, and classes need no instances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Record
from aesampler.scene import Scene
from aesampler.sources import synonyms
from aesampler.sources.index_map import VoidLimit
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

SPLITS = {"train": "training", "validation": "validation"}
BASES = ("ADE20K_2021_17_01/images/ADE", "images/ADE")
READERS = 8
"""Threads that read the JSON files: enough to hide an object store's latency, harmless on a disk."""

Classes = npt.NDArray[np.int32]


class _Parts(msgspec.Struct):
    part_level: int


class _Object(msgspec.Struct):
    name: str
    name_ndx: int
    parts: _Parts


class _Annotation(msgspec.Struct):
    imsize: list[int]
    # Lists of one element are written as the element.
    object: list[_Object] | _Object


class _File(msgspec.Struct):
    annotation: _Annotation


class _Facts(msgspec.Struct, frozen=True):
    """What is kept of one JSON file: its size in pixels and its classes, objects and parts apart."""

    height: int
    width: int
    objects: tuple[int, ...]
    parts: tuple[int, ...]


class _Payload(msgspec.Struct):
    """classes: (name_ndx, place in the vocabulary, or -1 where it is no category). levels: of the parts PNGs to
    read.
    """

    classes: list[tuple[int, int]]
    levels: list[int]


class Ade20k(Source):
    """ADE20K 2021, with or without the parts of objects."""

    format: ClassVar[str] = "ade20k"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "ADE20K full 2021 release: dense scenes, ~3,700 classes, parts optional"
    layout: ClassVar[str] = """\
ROOT/                                   the folder that holds ADE20K_2021_17_01, or that folder itself
  ADE20K_2021_17_01/images/ADE/
    training/GROUP/SCENE/               validation/ alike
      NAME.jpg
      NAME.json                         names, part levels
      NAME_seg.png                      class = R // 10 * 256 + G
      NAME_parts_1.png ...              with parts: true
"""

    parts: bool = Field(default=False, description="whether the classes of object parts are categories too")
    void_limit: VoidLimit = 0.0

    def survey(self, root: Folder) -> Survey:
        """Every picture of the subset; the vocabulary is read from the JSON files of both subsets."""
        own, folders = self._folders(root)
        listing: dict[str, int] = {}
        for folder in folders:
            listing |= root.list(folder, depth=2)
        pictures = sorted(
            path[: -len(".jpg")] for path in listing if path.endswith(".jpg") and path.startswith(f"{own}/")
        )
        if not pictures:
            raise SourceError("no picture in GROUP/SCENE/", where=own, do=f"see: aesampler sources {self.format}")
        for suffix in (".json", "_seg.png"):
            lacking = [stem for stem in pictures if stem + suffix not in listing]
            if lacking:
                raise SourceError(
                    f"{len(lacking)} of {len(pictures)} pictures have no {suffix} file, the first {lacking[0]}.jpg",
                    where=own,
                    do=f"see: aesampler sources {self.format}",
                )
        files = tuple(path for path in listing if path.endswith(".json"))
        names: dict[int, str] = {}
        facts: dict[str, _Facts] = {}
        drawn: set[int] = set()
        with ThreadPoolExecutor(READERS) as readers:
            for path, body in zip(files, readers.map(lambda file: _read(root, file), files), strict=True):
                told = _facts(body, names)
                drawn.update(told.objects, told.parts if self.parts else ())
                if path.startswith(f"{own}/"):
                    facts[path[: -len(".json")]] = told
        shown = tuple(entry for entry in synonyms.categories(names) if int(entry.origin) in drawn)
        places = {int(entry.origin): place for place, entry in enumerate(shown)}
        kept = {
            path: size for path, size in listing.items() if path.startswith(f"{own}/") and not path.endswith(".json")
        }
        items = _items(pictures)

        def record(index: int) -> Record:
            stem = pictures[index]
            levels = [level for level in range(1, 10) if f"{stem}_parts_{level}.png" in kept] if self.parts else []
            return _record(items[index], stem, facts[stem], places, levels, parts=self.parts)

        return Survey(
            categories=shown,
            exhaustive=not self.parts,
            items=items,
            record=record,
            files=files,
            listing=kept,
            # A local folder says only what lies directly in it; a store's is listed again, and the tops hold all.
            folders=_parents(listing, folders) if root.is_local else folders,
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The classes of `_seg.png`, and of the parts PNGs where they count; unlabelled pixels are void."""
        payload = msgspec.json.decode(record.payload, type=_Payload)
        places = dict(payload.classes)
        stem = record.frames[0].rpartition(".")[0]
        found: dict[str, list[str]] = {}
        plane, void = _classes(root, f"{stem}_seg.png", size)
        void |= plane == 0
        known = not self.parts and float(void.mean()) <= self.void_limit
        for number, mask in _each(plane, places, f"{stem}_seg.png"):
            if places[number] < 0:
                void |= mask
            else:
                found.setdefault(names[places[number]], []).append(masks.encode(mask))
        for level in payload.levels:
            plane, _ = _classes(root, f"{stem}_parts_{level}.png", size)
            for number, mask in _each(plane, places, f"{stem}_parts_{level}.png"):
                found.setdefault(names[places[number]], []).append(masks.encode(mask))
        marked = frozenset(names[place] for place in (*record.masked, *record.elsewhere))
        return Scene(
            height=size[0],
            width=size[1],
            annotated=(True,),
            segments={name: (masks.union(found[name], *size),) for name in sorted(found)},
            void=(masks.encode(void) if void.any() else None,),
            present=marked.difference(found),
            exhaustive=known,
        )

    def _folders(self, root: Folder) -> tuple[str, tuple[str, ...]]:
        """The subset's folder, and all folders whose JSON files give the vocabulary."""
        if self.subset not in SPLITS:
            raise SourceError(
                "ADE20K has no annotated test pictures", where=root.url, got=self.subset, allowed=", ".join(SPLITS)
            )
        for base in BASES:
            own = f"{base}/{SPLITS[self.subset]}"
            if root.exists(own):
                return own, tuple(f"{base}/{split}" for split in SPLITS.values() if root.exists(f"{base}/{split}"))
        raise SourceError(
            f"no folder {BASES[0]}/{SPLITS[self.subset]}", where=root.url, do=f"see: aesampler sources {self.format}"
        )


def _read(root: Folder, path: str) -> _Annotation:
    data = root.read(path)
    try:
        try:
            return msgspec.json.decode(data, type=_File).annotation
        except UnicodeDecodeError:
            # Some of the files are latin-1.
            return msgspec.json.decode(data.decode("latin-1").encode(), type=_File).annotation
    except msgspec.DecodeError as error:
        raise SourceError(f"not a JSON file of ADE20K: {error}", where=path) from error


def _facts(body: _Annotation, names: dict[int, str]) -> _Facts:
    """What is kept of `body`; its class names go to `names` (of different spellings of one class, the first in the
    alphabet stays).
    """
    entries = body.object if isinstance(body.object, list) else [body.object]
    for entry in entries:
        names[entry.name_ndx] = min(entry.name, names.get(entry.name_ndx, entry.name))
    objects = {entry.name_ndx for entry in entries if entry.parts.part_level == 0}
    parts = {entry.name_ndx for entry in entries if entry.parts.part_level > 0}
    height, width = body.imsize[:2] if len(body.imsize) >= 2 else (0, 0)
    return _Facts(height, width, tuple(sorted(objects)), tuple(sorted(parts)))


def _items(stems: Sequence[str]) -> list[Item]:
    """Ids are file names; GROUP/SCENE/NAME for pictures of which two share a name."""
    names = [stem.rpartition("/")[2] for stem in stems]
    count = Counter(names)
    ids = [
        name if count[name] == 1 else "/".join(stem.split("/")[-3:]) for stem, name in zip(stems, names, strict=True)
    ]
    return [Item(name, f"ade20k:{name}") for name in ids]


def _record(
    item: Item, stem: str, facts: _Facts, places: Mapping[int, int], levels: list[int], *, parts: bool
) -> Record:
    named = sorted({*facts.objects, *facts.parts})
    masked = {*facts.objects, *facts.parts} if parts else set(facts.objects)
    return Record(
        id=item.id,
        group=item.group,
        frames=(f"{stem}.jpg",),
        annotated=(True,),
        height=facts.height,
        width=facts.width,
        masked=tuple(sorted(places[number] for number in masked)),
        elsewhere=tuple(sorted(places[number] for number in set(facts.parts) - masked if number in places)),
        payload=msgspec.json.encode(_Payload([(number, places.get(number, -1)) for number in named], levels)),
    )


def _parents(listing: Mapping[str, int], tops: Sequence[str]) -> tuple[str, ...]:
    """Every folder that was looked into."""
    found = {str(PurePosixPath(path).parent) for path in listing}
    found |= {str(PurePosixPath(folder).parent) for folder in found}
    return tuple(sorted(found.union(tops)))


def _classes(root: Folder, path: str, size: tuple[int, int]) -> tuple[Classes, npt.NDArray[np.bool_]]:
    """Class of each pixel, int32 [H, W] in column order, and the pixels that the PNG lacks, bool [H, W]."""
    try:
        pixels: npt.NDArray[Any] = masks.read_index(root.read(path))
        if pixels.ndim != 3:
            raise BadRecord("not an RGB picture")
        classes = pixels[..., 0].astype(np.int32) // 10 * 256 + pixels[..., 1]
        plane, missing = masks.fit(classes, *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
    return np.asfortranarray(plane), np.asfortranarray(missing)


def _each(plane: Classes, places: Mapping[int, int], where: str) -> list[tuple[int, npt.NDArray[np.bool_]]]:
    present = [int(number) for number in np.flatnonzero(np.bincount(plane.ravel(order="K"))) if number]
    unnamed = [number for number in present if number not in places]
    if unnamed:
        raise BadRecord("classes that the picture's JSON file does not name", where=where, got=unnamed)
    return [(number, plane == number) for number in present]
