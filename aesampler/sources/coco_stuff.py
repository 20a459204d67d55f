"""COCO-Stuff: 91 kinds of stuff on COCO's pictures, in the three forms in which it is published; `form` names which.

    stuffthingmaps   (a)  {train,val}2017/%012d.png: 8 bits, value = category id - 1, 255 unlabelled; 80 things too
    pixelmaps        (b)  stuff_SPLIT_pixelmaps/%012d.png: value = category id, 0 unlabelled, 183 all that is not stuff
    json             (c)  stuff_SPLIT.json: run lengths, ids 92 to 182; 183 `other`, all that is not stuff; no overlap

(a) and (b) look alike and differ by one, so the form is never guessed. Names are those of labels.txt; the 11 ids that
COCO never used (street sign, hat, ... hair brush) are none. Unlabelled pixels, in (c) those of no annotation, are void:
see index_map.py for what that does to absence. `other` is no name, and its pixels are labelled: they hide nothing.
Names are shown without their endings (`door-stuff` is "door"); the `-other` names are rests, so a wall of brick is
present as "wall" too, its pixels ignored. Whether (a) paints crowds as their class is not known: what it paints is
exposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import msgspec
from pydantic import Field

from aesampler import masks
from aesampler.errors import SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import index_map, instances, instances_json
from aesampler.sources.index_map import IndexMap, Legend, Pair
from aesampler.sources.source import Item, Kind, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "val"}
UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
OTHER = 183
# fmt: off
LABELS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "street sign", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "hat", "backpack", "umbrella", "shoe", "eye glasses", "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "plate", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana",
    "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "mirror", "dining table", "window", "desk", "toilet", "door", "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "blender", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "hair brush", "banner", "blanket", "branch",
    "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet", "ceiling-other", "ceiling-tile",
    "cloth", "clothes", "clouds", "counter", "cupboard", "curtain", "desk-stuff", "dirt", "door-stuff", "fence",
    "floor-marble", "floor-other", "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit",
    "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light", "mat", "metal",
    "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper", "pavement", "pillow", "plant-other", "plastic",
    "platform", "playingfield", "railing", "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea",
    "shelf", "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw", "structural-other", "table",
    "tent", "textile-other", "towel", "tree", "vegetable", "wall-brick", "wall-concrete", "wall-other", "wall-panel",
    "wall-stone", "wall-tile", "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood",
)
# fmt: on
"""Ids 1 to 182, as labels.txt has them; things end at 91."""
THINGS = 91


class CocoStuff(IndexMap):
    """Options: form; images; maps (the folder of PNGs) or annotations (the JSON), all below root."""

    format: ClassVar[str] = "coco-stuff"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "COCO-Stuff: 91 kinds of stuff, with 80 things in the form stuffthingmaps"
    layout: ClassVar[str] = """\
ROOT/
  {train,val}2017/000000000009.jpg
  stuffthingmaps/{train,val}2017/000000000009.png             form: stuffthingmaps (value = id - 1)
  annotations/stuff_{train,val}2017_pixelmaps/...009.png      form: pixelmaps (value = id); also straight below ROOT
  annotations/stuff_{train,val}2017.json                      form: json
"""

    form: Literal["stuffthingmaps", "pixelmaps", "json"] = Field(
        default="stuffthingmaps", description="stuffthingmaps, pixelmaps or json: they look alike and are not"
    )
    images: str | None = Field(default=None, description="the folder of the pictures; default: train2017, or val2017")
    maps: str | None = Field(default=None, description="the folder of the PNGs")
    annotations: str | None = Field(default=None, description="the JSON, of form json")

    def survey(self, root: Folder) -> Survey:
        """One record a picture that has a map, or that the JSON lists; pictures without a map are left out, counted."""
        part = PARTS.get(self.subset)
        if part is None and not (self.images and (self.maps or self.annotations)):
            raise SourceError(
                "COCO-Stuff publishes no masks of its test pictures",
                where=root.url,
                do="take train or validation, or set images, and maps or annotations",
            )
        images = _folder(self.images or f"{part}2017")
        if self.form == "json":
            return self._survey_json(root, images, self.annotations or f"annotations/stuff_{part}2017.json")
        maps = self._maps(root, part)
        ids = _ids(self.form)
        categories = _categories([LABELS[number - 1] for number in ids], ids)
        shift = 1 if self.form == "stuffthingmaps" else 0
        legend = Legend(
            names={number - shift: place for place, number in enumerate(ids)},
            void=frozenset({255} if shift else {0}),
            background=frozenset(() if shift else {OTHER}),
            wider=index_map.widest([LABELS[number - 1] for number in ids]),
        )
        listing = {**root.list(images, depth=0), **root.list(maps, depth=0)}
        every = [
            Pair(name, instances.group(path), path, f"{maps}/{name}.png")
            for name, path in index_map.pictures(root.list(images, depth=0), images).items()
        ]
        pairs = [pair for pair in every if pair.map in listing]
        if not pairs:
            index_map.require(every, listing, f"{root.url}/{images}", f"PNG in {maps}/", self.format)
        left = len(every) - len(pairs)
        return index_map.survey(
            root,
            pairs,
            categories=categories,
            exhaustive=True,
            payload=lambda pair: index_map.payload_of(root, pair, legend, index_map.read_plane),
            listing=listing,
            skipped={f"pictures without a PNG in {maps}": left} if left else {},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The names of the map, or of the annotations; unlabelled pixels are void."""
        if self.form == "json":
            return self._scene_json(root, record, names, size)
        return super().scene(root, record, names, frames, size)

    def _named_by(self) -> str:
        return f"labels.txt, in the form {self.form},"

    def _maps(self, root: Folder, part: str | None) -> str:
        if self.maps is not None:
            return _folder(self.maps)
        ways = {
            "stuffthingmaps": (f"stuffthingmaps/{part}2017", f"annotations/{part}2017"),
            "pixelmaps": (f"annotations/stuff_{part}2017_pixelmaps", f"stuff_{part}2017_pixelmaps"),
        }[self.form]
        return next((way for way in ways if root.exists(way)), ways[0])

    def _survey_json(self, root: Folder, images: str, path: str) -> Survey:
        found = instances.read(root, path, instances_json.Picture, hold=True)
        # `other` last: a name is then at the same place in the file and in the vocabulary.
        order = sorted(range(len(found.categories)), key=lambda place: found.categories[place].id == OTHER)
        named = [found.categories[place] for place in order if found.categories[place].id != OTHER]
        places = {old: new for new, old in enumerate(order)}
        wider = index_map.widest([entry.name for entry in named])
        paths = [instances.confined(picture.file_name, found.where) for picture in found.pictures]
        frames = [f"{images}/{path}" for path in paths]
        items = [
            Item(name, instances.group(frame))
            for name, frame in zip(instances.ids(paths, found.where), frames, strict=True)
        ]

        listing = instances.listed(root, images, paths, found.where)
        heads = found.heads(items, frames, listing)

        def record(place: int) -> Record:
            made = found.record(place, heads)
            entries = msgspec.json.decode(made.payload or b"[]", type=list[tuple[int, int, msgspec.Raw]])
            wide = {index: wider.get(places[index], ()) for index, _, _ in entries}
            masked, elsewhere = (
                tuple(sorted(places[index] for index in those if places[index] < len(named)))
                for those in (made.masked, made.elsewhere)
            )
            broad = {above for index in made.masked for above in wider.get(places[index], ())}
            return replace(
                made,
                masked=masked,
                ignored=tuple(sorted(broad)),
                elsewhere=tuple(sorted({*elsewhere} - {*masked} - broad)),
                payload=msgspec.json.encode([(places[index], wide[index], text) for index, _, text in entries]),
            )

        return Survey(
            categories=_categories([entry.name for entry in named], [entry.id for entry in named]),
            exhaustive=True,
            items=items,
            record=record,
            files=(path,),
            listing=listing,
            folders=(images,),
        )

    def _scene_json(self, root: Folder, record: Record, names: Sequence[str], size: tuple[int, int]) -> Scene:
        entries = msgspec.json.decode(record.payload, type=list[tuple[int, list[int], msgspec.Raw]])
        text = msgspec.json.encode([(index, 0, segment) for index, _, segment in entries])
        found = instances.scene(root, replace(record, payload=text), [*names, "other"], size, exhaustive=True)
        every = [counts for (counts,) in found.segments.values() if counts]
        covered = masks.union(every, *size)
        void = size[0] * size[1] - masks.area(covered, *size)
        whole = masks.subtract(_full(size), covered, *size) if void else None
        segments = {name: track for name, track in found.segments.items() if name != "other"}
        broad: dict[str, list[str]] = {}
        for index, above, _ in entries:
            for place in above:
                if counts := segments.get(names[index], (None,))[0]:
                    broad.setdefault(names[place], []).append(counts)
        ignored = {name: (masks.union(parts, *size),) for name, parts in sorted(broad.items())}
        return replace(
            found,
            segments=segments,
            ignored=ignored,
            void=(whole,),
            present=found.seen.difference(segments, ignored, {"other"}),
            exhaustive=void / (size[0] * size[1]) <= self.void_limit,
        )


def _ids(form: str) -> list[int]:
    first = 1 if form == "stuffthingmaps" else THINGS + 1
    return [number for number in range(first, len(LABELS) + 1) if number not in UNUSED]


def _categories(names: Sequence[str], ids: Sequence[int]) -> tuple[Category, ...]:
    return tuple(
        Category(name=shown, origin=str(number), aliases=(name,) if shown != name else ())
        for shown, name, number in zip(index_map.shown(names), names, ids, strict=True)
    )


def _folder(path: str) -> str:
    return instances.confined(path.rstrip("/"), "a folder of the recipe")


def _full(size: tuple[int, int]) -> str:
    return masks.from_coco({"size": list(size), "counts": [0, size[0] * size[1]]}, *size)
