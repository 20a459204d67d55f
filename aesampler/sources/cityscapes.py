"""Cityscapes: street scenes, 30 classes, fine or coarse, from the instance PNGs, the label PNGs or the polygons.

    instances   _instanceIds.png: below 1000 a label, of a thing then a GROUP of them; else label * 1000 + n
    labels      _labelIds.png: the label; groups and single things look alike
    polygons    _polygons.json: objects painted in order, a later one in front; `cargroup` is a group, `deleted` is none

Rules. A group says that its name is present and that its pixels belong to nobody; `polegroup` is one of poles. 0
(unlabelled) and 4 to 6 (static, dynamic, ground) are void; 1 to 3 (ego vehicle, rectification border, out of roi) are
known for what they are: ignored, and hiding nothing. `license plate` is never drawn. A rider is a person: it is present
as "person" too, its pixels ignored where that is listed. The labels of the test part are dummies, so there is no such
part.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec
import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field

from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category
from aesampler.sources import index_map
from aesampler.sources.index_map import IndexMap, Legend, Pair, Plane
from aesampler.sources.source import Kind, Survey
from aesampler.storage import Folder

CATEGORIES = {"flat": 7, "construction": 11, "object": 17, "nature": 21, "sky": 23, "human": 24, "vehicle": 26}
"""The first label of each of the owners' categories."""
PARTS = {"train": "train", "validation": "val"}
PICTURE = "_leftImg8bit.png"
LABELS = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground"),
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel"),
    *("pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky"),
    *("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
"""Ids 0 to 33; things begin at 24."""
FIRST_NAME, POLE, POLES, FIRST_THING = 7, 17, 18, 24
UNDRAWN = ("license plate", "deleted")
SHOWN = tuple(label for label in range(FIRST_NAME, len(LABELS)) if label != POLES)
PLACES = {label: place for place, label in enumerate(SHOWN)}
_LARGEST = 1 << 14
"""Pixels of a side, above which a size in a JSON file is not believed."""


class _Object(msgspec.Struct):
    label: str
    polygon: list[tuple[float, float]] = []
    deleted: int | bool = 0


class _Polygons(msgspec.Struct):
    imgHeight: int
    imgWidth: int
    objects: list[_Object]


class Cityscapes(IndexMap):
    """Options: annotations (gtFine or gtCoarse), form, and part for train_extra."""

    format: ClassVar[str] = "cityscapes"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "Cityscapes: street scenes, 26 names; instance PNGs, label PNGs or polygons"
    layout: ClassVar[str] = """\
ROOT/
  leftImg8bit/{train,val}/CITY/CITY_000000_000019_leftImg8bit.png
  gtFine/{train,val}/CITY/CITY_000000_000019_gtFine_instanceIds.png    or gtCoarse (annotations: gtCoarse)
                          CITY_000000_000019_gtFine_labelIds.png       form: labels
                          CITY_000000_000019_gtFine_polygons.json      form: polygons
"""

    annotations: Literal["gtFine", "gtCoarse"] = Field(default="gtFine", description="gtFine or gtCoarse")
    form: Literal["instances", "labels", "polygons"] = Field(
        default="instances", description="which files to read: instances, labels (cannot tell groups) or polygons"
    )
    part: str | None = Field(
        default=None,
        pattern=r"^[a-z_]+$",
        description="the folder of the part, say train_extra; default: train, or val",
    )

    def survey(self, root: Folder) -> Survey:
        """One record a picture of the part."""
        part = self.part or PARTS.get(self.subset)
        if part is None or part == "test":
            raise SourceError(
                "the labels of Cityscapes' test part are dummies",
                where=root.url,
                got=part or self.subset,
                allowed=", ".join(PARTS),
            )
        images, truth = f"leftImg8bit/{part}", f"{self.annotations}/{part}"
        ending = {"instances": "instanceIds.png", "labels": "labelIds.png", "polygons": "polygons.json"}[self.form]
        listing = {**root.list(images, depth=1), **root.list(truth, depth=1)}
        names = sorted(
            path[len(images) + 1 : -len(PICTURE)]
            for path in listing
            if path.startswith(f"{images}/") and path.endswith(PICTURE)
        )
        pairs = [
            Pair(
                name.rpartition("/")[2],
                f"cityscapes:{name.rpartition('/')[2]}",
                f"{images}/{name}{PICTURE}",
                f"{truth}/{name}_{self.annotations}_{ending}",
            )
            for name in names
        ]
        index_map.require(pairs, listing, f"{root.url}/{images}", f"{ending} in {truth}/CITY/", self.format)
        legend = _legend(self.form)
        return index_map.survey(
            root,
            pairs,
            categories=tuple(
                Category(
                    name=LABELS[label],
                    origin=str(label),
                    supercategory=[name for name, first in CATEGORIES.items() if first <= label][-1],
                )
                for label in SHOWN
            ),
            exhaustive=True,
            payload=lambda pair: index_map.payload_of(root, pair, legend, self._plane),
            listing=listing,
        )

    def _named_by(self) -> str:
        return "labels.py of Cityscapes"

    def _plane(self, root: Folder, path: str) -> Plane:
        if self.form == "polygons":
            return _painted(root.read(path), path)
        plane = index_map.read_plane(root, path)
        if self.form == "labels":
            return plane
        wide = plane.astype(np.int32)
        return np.where(wide < 1000, wide, wide // 1000 * 1000)


def _legend(form: str) -> Legend:
    """A single thing is label * 1000 in a plane, or its label where `form` cannot tell groups."""
    things = range(FIRST_THING, len(LABELS))
    single = 1 if form == "labels" else 1000
    groups = {POLES: PLACES[POLE]} | ({} if form == "labels" else {label: PLACES[label] for label in things})
    return Legend(
        names={label: PLACES[label] for label in SHOWN if label < FIRST_THING}
        | {label * single: PLACES[label] for label in things},
        groups=groups,
        void=frozenset({0, 4, 5, 6}),
        nameless=frozenset({1, 2, 3}),
        wider={PLACES[LABELS.index("rider")]: (PLACES[LABELS.index("person")],)},
    )


def _painted(data: bytes, path: str) -> Plane:
    """The plane that the polygons paint, as `json2instanceImg.py` does. Raises BadRecord where they cannot be."""
    try:
        body = msgspec.json.decode(data, type=_Polygons)
    except msgspec.DecodeError as error:
        raise BadRecord(f"not a JSON file of Cityscapes: {error}", where=path) from error
    if not (0 < body.imgHeight <= _LARGEST and 0 < body.imgWidth <= _LARGEST):
        raise BadRecord("an impossible size", where=path, got=f"{body.imgHeight} x {body.imgWidth}")
    canvas = Image.new("I", (body.imgWidth, body.imgHeight), 0)
    brush = ImageDraw.Draw(canvas)
    for thing in body.objects:
        if thing.label in UNDRAWN or thing.deleted:
            continue
        name = thing.label if thing.label in LABELS else thing.label.removesuffix("group")
        if name not in LABELS:
            raise BadRecord("a label that Cityscapes does not have", where=path, got=repr(thing.label))
        label = LABELS.index(name)
        value = label * 1000 if label >= FIRST_THING and name == thing.label else label
        if len(thing.polygon) < 3:
            raise BadRecord("a polygon of fewer than 3 points", where=path, got=f"{thing.label}: {thing.polygon}")
        if max(abs(number) for point in thing.polygon for number in point) > 4 * _LARGEST:
            raise BadRecord("a polygon lies far outside the picture", where=path, got=thing.label)
        brush.polygon(thing.polygon, fill=value)
    return np.array(canvas)
