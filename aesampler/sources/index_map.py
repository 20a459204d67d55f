"""Pictures with a map of numbers beside each: what index PNGs, panoptic PNGs, Cityscapes, Mapillary and VOC share.

A Legend says what the numbers mean. A value is a name's, a group's (the name is present, its pixels are nobody's and
ignored), void (pixels without a label, which may hide any name), nameless (a thing that is known and has no name to
show: its pixels are ignored and hide nothing) or background (none of the names). A value that a legend does not have is
a bad record. No file lists what a picture holds, so the survey reads each map when its record is asked for; one that
cannot be read is left to `scene`, which makes a bad record of it.

Absence. Where every pixel has a label, a name without a pixel is absent. Void takes that away: a picture of which void
is more than `void_limit` says nothing of the names it does not show: its scene is not exhaustive, they are unknown. The
limit is 0.0 unless the recipe raises it, because nothing in the files tells a name that is hidden from one that is not
there. In 100 pictures of COCO panoptic void is 9.8 % on average and 2.6 % in the median: 3 have none, 35 up to 1 %, 62
up to 5 %.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene, Track
from aesampler.sources.source import Item, Source, Survey
from aesampler.storage import Folder

Plane = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T")

NAME, GROUP, VOID, NAMELESS, BACKGROUND = range(5)
"""What a value is, see the module's docstring; as stored in a payload."""
_DIRECT = 1 << 16  # values below it are counted in a table, larger ones by sorting
PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")


class Pair(NamedTuple):
    """A picture and its map, as paths below the root."""

    id: str
    group: str
    frame: str
    map: str


class Payload(msgspec.Struct):
    """regions: (value, what it is, place in the vocabulary or -1), of the values in the map. known: every name that the
    picture does not show is absent, whatever the void.
    """

    map: str
    regions: list[tuple[int, int, int]] = []
    known: bool = False


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What the values of a map mean.

    names, groups: value -> place in the vocabulary. wider: place -> places of the names that say the same more widely
    (a rider is a person, a brick wall is a wall): its pixels are ignored where one of those is listed, and they are
    present.
    """

    names: Mapping[int, int]
    groups: Mapping[int, int] = field(default_factory=dict)
    void: frozenset[int] = frozenset()
    nameless: frozenset[int] = frozenset()
    background: frozenset[int] = frozenset()
    wider: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def regions(self, values: Iterable[int]) -> list[tuple[int, int, int]]:
        """Those of `values` that the legend has, as a payload holds them."""
        found = []
        for value in sorted(values):
            place = self.names.get(value, self.groups.get(value, -1))
            if place >= 0:
                found.append((value, NAME if value in self.names else GROUP, place))
                found += [(value, GROUP, wide) for wide in self.wider.get(place, ())]
            for kind, those in ((VOID, self.void), (NAMELESS, self.nameless), (BACKGROUND, self.background)):
                if value in those:
                    found.append((value, kind, -1))
        return found


VoidLimit = Annotated[
    float,
    Field(ge=0.0, le=1.0, description="share of void up to which a name that is not shown is called absent"),
]


class IndexMap(Source):
    """A source whose pictures have maps: the option and the scene that they share."""

    void_limit: VoidLimit = 0.0

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The names of the map; groups, and pixels without a label, are ignored."""
        return scene(
            record,
            self._plane(root, map_of(record)),
            names,
            size,
            exhaustive=self._is_exhaustive(),
            void_limit=self.void_limit,
            source=self._named_by(),
        )

    @abstractmethod
    def _named_by(self) -> str:
        """What names the values: the subject of the error about one that it does not name."""

    def _is_exhaustive(self) -> bool:
        """Whether every name was looked for in every picture."""
        return True

    def _plane(self, root: Folder, path: str) -> Plane:
        """The numbers of the map at `path`, [H, W]. Raises BadRecord where it is none."""
        return read_plane(root, path)


def read_plane(root: Folder, path: str) -> Plane:
    """The numbers of an index PNG, [H, W]. Raises BadRecord where it is coloured, or cannot be read."""
    try:
        plane: Plane = masks.read_index(root.read(path))
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
    if plane.ndim != 2:
        raise BadRecord("a coloured map: its indices are lost", where=path, do="keep grey or palette when converting")
    return plane


def record(pair: Pair, payload: Payload, also: Iterable[int] = (), size: tuple[int, int] = (0, 0)) -> Record:
    """The record of a picture. also: places of names that are known to be present from elsewhere."""
    masked, ignored = ({place for _, kind, place in payload.regions if kind == wanted} for wanted in (NAME, GROUP))
    return Record(
        id=pair.id,
        group=pair.group,
        frames=(pair.frame,),
        annotated=(True,),
        height=size[0],
        width=size[1],
        masked=tuple(sorted(masked)),
        ignored=tuple(sorted(ignored)),
        elsewhere=tuple(sorted({*also} - masked - ignored)),
        payload=msgspec.json.encode(payload),
    )


def survey(
    root: Folder,
    pairs: Sequence[Pair],
    *,
    categories: tuple[Category, ...],
    exhaustive: bool,
    payload: Callable[[Pair], Payload],
    listing: Mapping[str, int],
    files: tuple[str, ...] = (),
    besides: Iterable[str] = (),
    also: Callable[[Pair], Iterable[int]] = lambda pair: (),
    size: Callable[[Pair], tuple[int, int]] = lambda pair: (0, 0),
    skipped: Mapping[str, int] | None = None,
) -> Survey:
    """The survey of `pairs`, whose payloads are made when their records are asked for.

    listing: of all folders that were looked into, cut to the pairs' files and those of `besides`. also: the places of
    names that are known to be present. size: as the annotations say, (0, 0) where they do not.
    """

    def found(index: int) -> Record:
        return record(pairs[index], payload(pairs[index]), also(pairs[index]), size(pairs[index]))

    kept = {path for pair in pairs for path in (pair.frame, pair.map)}.union(besides)
    return Survey(
        categories=categories,
        exhaustive=exhaustive,
        items=[Item(pair.id, pair.group) for pair in pairs],
        record=found,
        files=files,
        listing={path: size for path, size in listing.items() if path in kept},
        folders=tuple(sorted({path.rpartition("/")[0] for path in kept})),
        skipped=skipped or {},
    )


def payload_of(
    root: Folder, pair: Pair, legend: Legend, read: Callable[[Folder, str], Plane], *, known: bool = False
) -> Payload:
    """The payload of a picture, by reading its map; without regions where it cannot be read."""
    try:
        values = counts(read(root, pair.map))
    except BadRecord:
        return Payload(pair.map)
    return Payload(pair.map, legend.regions(values), known)


def scene(
    record: Record,
    plane: Plane,
    names: Sequence[str],
    size: tuple[int, int],
    *,
    exhaustive: bool,
    void_limit: float,
    source: str,
) -> Scene:
    """The scene of a picture from its map. source: what names the values. Raises BadRecord where the map is of another
    size, or holds a value that has no meaning.
    """
    payload = msgspec.json.decode(record.payload, type=Payload)
    try:
        plane, missing = masks.fit(plane, *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=payload.map, got=error.got, allowed=error.allowed) from error
    plane = np.asfortranarray(plane)
    values = counts(plane[~missing] if missing.any() else plane)
    odd = sorted(values.keys() - {value for value, _, _ in payload.regions})
    if odd:
        raise BadRecord(f"values that {source} does not name", where=payload.map, got=odd[:10])
    by_kind: dict[int, dict[int, list[int]]] = {kind: {} for kind in range(5)}
    for value, kind, place in payload.regions:
        if value in values:
            by_kind[kind].setdefault(place, []).append(value)

    def mask(those: Sequence[int]) -> Mask:
        shown: Mask = plane == those[0] if len(those) == 1 else np.isin(plane, those)
        return shown & ~missing if missing.any() else shown

    def tracks(kind: int) -> dict[str, Track]:
        found = {names[place]: those for place, those in by_kind[kind].items()}
        return {name: (masks.encode(mask(found[name])),) for name in sorted(found)}

    hidden = by_kind[VOID].get(-1, [])
    unlabelled = [*hidden, *by_kind[NAMELESS].get(-1, [])]
    void = missing | mask(unlabelled) if unlabelled else missing
    share = (sum(values[value] for value in hidden) + int(missing.sum())) / max(plane.size, 1)
    segments, ignored = tracks(NAME), tracks(GROUP)
    known = {names[place] for place in (*record.masked, *record.ignored, *record.elsewhere)}
    return Scene(
        height=size[0],
        width=size[1],
        annotated=(True,),
        segments=segments,
        ignored=ignored,
        void=(masks.encode(void) if void.any() else None,),
        present=frozenset(known.difference(segments, ignored)),
        absent=frozenset(names[place] for place in record.absent),
        exhaustive=payload.known or (exhaustive and share <= void_limit),
    )


def map_of(record: Record) -> str:
    """Where the map of a record lies."""
    return msgspec.json.decode(record.payload, type=Payload).map


def counts(plane: Plane) -> dict[int, int]:
    """Value -> how many pixels have it."""
    if not plane.size:
        return {}
    if int(plane.min()) >= 0 and int(plane.max()) < _DIRECT:
        table = np.bincount(plane.ravel(order="K"))
        return {int(value): int(table[value]) for value in np.flatnonzero(table)}
    values, pixels = np.unique(plane, return_counts=True)
    return {int(value): int(number) for value, number in zip(values, pixels, strict=True)}


def stem(path: str) -> str:
    """A path without its ending."""
    head, _, tail = path.rpartition(".")
    return head if head and "/" not in tail else path


def pictures(listing: Mapping[str, int], folder: str) -> dict[str, str]:
    """Path below `folder`, without ending -> path, of the pictures of a listing, but hidden ones. Raises SourceError
    where two differ in their endings alone.
    """
    found: dict[str, str] = {}
    begin = f"{folder}/" if folder else ""
    for path in sorted(listing):
        hidden = path.rpartition("/")[2].startswith(".")
        if path.startswith(begin) and path.rpartition(".")[2].lower() in PICTURES and not hidden:
            if stem(path)[len(begin) :] in found:
                raise SourceError("two pictures have one name", where=path, do="remove one of them")
            found[stem(path)[len(begin) :]] = path
    return found


def require(pairs: Sequence[Pair], listing: Mapping[str, int], where: str, what: str, see: str) -> None:
    """Raise SourceError where there is no picture, or one without its map. what: "PNG in gtFine"; see: the format."""
    if not pairs:
        raise SourceError("no picture", where=where, do=f"see: aesampler sources {see}")
    lacking = [pair for pair in pairs if pair.map not in listing]
    if lacking:
        raise SourceError(
            f"{len(lacking)} of {len(pairs)} pictures have no {what}, the first {lacking[0].id}",
            where=where,
            got=f"no file {lacking[0].map}",
            do=f"see: aesampler sources {see}",
        )


def read_table(root: Folder, path: str, *, see: str) -> dict[str, Any]:
    """A JSON object. Raises SourceError where the file is not there, or is none."""
    try:
        body = json.loads(root.read(path))
    except FileNotFoundError as error:
        raise SourceError(f"no file {path}", where=root.url, do=f"see: aesampler sources {see}") from error
    except ValueError as error:
        raise SourceError(f"not JSON: {error}", where=f"{root.url}/{path}") from error
    if not isinstance(body, dict):
        raise SourceError("not a JSON object", where=f"{root.url}/{path}")
    return body


def widest(names: Sequence[str], supercategories: Sequence[str] = ()) -> dict[int, tuple[int, ...]]:
    """Place -> places of COCO's rest names that hold it: `wall-other-merged` is all walls that have no name of their
    own, so a `wall-brick` is a wall. By spelling, and by `supercategory` where the file says it.
    """
    rests = {
        name.removesuffix("-merged").removesuffix("-other"): place
        for place, name in enumerate(names)
        if name.removesuffix("-merged").endswith("-other")
    }
    kin = supercategories or [""] * len(names)
    found: dict[int, tuple[int, ...]] = {}
    for place, (name, above) in enumerate(zip(names, kin, strict=True)):
        wide = {
            other
            for word, other in rests.items()
            if other != place and (name.startswith(f"{word}-") or above.removesuffix("-stuff") == word)
        }
        if wide:
            found[place] = tuple(sorted(wide))
    return found


def shown(names: Sequence[str]) -> list[str]:
    """COCO's stuff names as people say them: `mirror-stuff` is "mirror", `sky-other-merged` "sky", `floor-wood` "floor
    wood"; where two would be alike, both keep their endings.
    """
    short = [
        name.removesuffix("-merged").removesuffix("-other").removesuffix("-stuff").replace("-", " ") for name in names
    ]
    return [word if short.count(word) == 1 else name.replace("-", " ") for word, name in zip(short, names, strict=True)]
