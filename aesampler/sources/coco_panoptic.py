"""COCO panoptic: every pixel of a picture in one segment, of 80 things and 53 kinds of stuff.

    panoptic_SPLIT.json: annotations[] = {image_id, file_name, segments_info [{id, category_id, iscrowd}]}
    panoptic_SPLIT/%012d.png, RGB: id of the segment = R + 256 G + 65536 B, 0 void; segments do not overlap

Rules. A crowd says that its name is present and that its pixels belong to nobody. A segment of the JSON without a pixel
is present without a mask; a pixel whose id the JSON does not have makes a bad record. Void (9.8 % of a picture on
average, up to 97 %) may hide any name: see `void_limit` and index_map.py. Names are shown without their endings
(`sky-other-merged` is "sky"); the `-other` names are rests, so a wall of brick is present as "wall" too, its pixels
ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
import numpy as np
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category
from aesampler.sources import index_map, instances, instances_json, sequence
from aesampler.sources.index_map import GROUP, NAME, VOID, IndexMap, Pair, Payload, Plane
from aesampler.sources.source import Kind, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "val"}


class _Segment(msgspec.Struct):
    id: int
    category_id: int
    iscrowd: int | bool = 0


class _Annotation(msgspec.Struct):
    image_id: int
    file_name: str
    segments_info: list[_Segment]


class _Named(msgspec.Struct):
    id: int
    name: str
    supercategory: str = ""


class _File(msgspec.Struct):
    images: list[instances_json.Picture]
    annotations: list[_Annotation]
    categories: list[_Named]


class CocoPanoptic(IndexMap):
    """Options: images, annotations (the JSON) and maps (the folder of PNGs), all below root."""

    format: ClassVar[str] = "coco-panoptic"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "COCO panoptic: 80 things and 53 kinds of stuff, every pixel of a picture"
    layout: ClassVar[str] = """\
ROOT/
  annotations/panoptic_{train,val}2017.json
  annotations/panoptic_{train,val}2017/000000000009.png    from the zip within the zip; also straight below ROOT
  {train,val}2017/000000000009.jpg
"""

    images: str | None = Field(default=None, description="the folder of the pictures; default: train2017, or val2017")
    annotations: str | None = Field(
        default=None, description="the JSON; default: annotations/panoptic_train2017.json, or val2017"
    )
    maps: str | None = Field(default=None, description="the folder of the PNGs; default: what the JSON is called")

    def survey(self, root: Folder) -> Survey:
        """One record an annotation; pictures without one are left out and counted."""
        part = PARTS.get(self.subset)
        if part is None and not (self.annotations and self.images):
            raise SourceError(
                "COCO publishes no masks of its test pictures",
                where=root.url,
                do="take train or validation, or set annotations and images",
            )
        path = self.annotations or f"annotations/panoptic_{part}2017.json"
        images = _folder(self.images or f"{part}2017")
        maps = self._maps(root, path)
        body = sequence.read_json(root, path, _File, do=f"see: aesampler sources {self.format}")
        where = f"{root.url}/{path}"
        shown = _categories(body.categories)
        places = _unique({entry.id: place for place, entry in enumerate(body.categories)}, body.categories, where)
        wider = index_map.widest(
            [entry.name for entry in body.categories], [entry.supercategory for entry in body.categories]
        )
        known = _unique({picture.id: picture for picture in body.images}, body.images, where)
        pairs, payloads, sizes = [], {}, {}
        for told in body.annotations:
            picture = known.get(told.image_id)
            if picture is None:
                raise SourceError("an annotation names an unknown picture", where=where, got=told.image_id)
            frame = f"{images}/{instances.confined(picture.file_name, where)}"
            pair = Pair(
                index_map.stem(picture.file_name),
                instances.group(frame),
                frame,
                f"{maps}/{instances.confined(told.file_name, where)}",
            )
            pairs.append(pair)
            payloads[pair.id] = Payload(pair.map, _regions(told, places, wider, where))
            sizes[pair.id] = (picture.height, picture.width)
        listing = {**root.list(images), **root.list(maps)}
        index_map.require(pairs, listing, where, f"PNG in {maps}/", self.format)
        if not any(pair.frame in listing for pair in pairs):
            raise SourceError(
                f"none of the pictures lies in {images}/", where=where, got=f"no file {pairs[0].frame}", do="set images"
            )
        left = len(body.images) - len({told.image_id for told in body.annotations})
        return index_map.survey(
            root,
            pairs,
            categories=shown,
            exhaustive=True,
            payload=lambda pair: payloads[pair.id],
            size=lambda pair: sizes[pair.id],
            listing=listing,
            files=(path,),
            skipped={"pictures without an annotation": left} if left else {},
        )

    def _named_by(self) -> str:
        return "segments_info"

    def _plane(self, root: Folder, path: str) -> Plane:
        """Segment id of each pixel, int32 [H, W]."""
        try:
            pixels: Plane = masks.read_index(root.read(path))
            if pixels.ndim != 3:
                raise BadRecord("not an RGB picture")
        except BadRecord as error:
            raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
        wide = pixels.astype(np.int32)
        return wide[..., 0] + 256 * wide[..., 1] + 65536 * wide[..., 2]

    def _maps(self, root: Folder, path: str) -> str:
        if self.maps is not None:
            return _folder(self.maps)
        beside = index_map.stem(path)
        ways = [beside, beside.rpartition("/")[2]]
        return next((way for way in ways if root.exists(way)), ways[0])


def _regions(
    told: _Annotation, places: dict[int, int], wider: dict[int, tuple[int, ...]], where: str
) -> list[tuple[int, int, int]]:
    found = [(0, VOID, -1)]
    for segment in told.segments_info:
        place = places.get(segment.category_id)
        if place is None:
            raise SourceError(
                "a segment names an unknown category", where=f"{where}: {told.file_name}", got=segment.category_id
            )
        found.append((segment.id, GROUP if segment.iscrowd else NAME, place))
        found += [(segment.id, GROUP, wide) for wide in wider.get(place, ())]
    return found


def _categories(entries: Sequence[_Named]) -> tuple[Category, ...]:
    shown = index_map.shown([entry.name for entry in entries])
    return tuple(
        Category(
            name=name,
            origin=str(entry.id),
            aliases=(entry.name,) if name != entry.name else (),
            supercategory=entry.supercategory,
        )
        for name, entry in zip(shown, entries, strict=True)
    )


def _unique(found: dict[int, index_map.T], entries: Sequence[object], where: str) -> dict[int, index_map.T]:
    if len(found) != len(entries):
        raise SourceError("two of its pictures, or categories, have one id", where=where)
    return found


def _folder(path: str) -> str:
    return instances.confined(path.rstrip("/"), "a folder of the recipe")
