"""Tiny datasets of pictures with maps and of referring phrases, in their official layouts: see worlds.py."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from worlds import (
    HEIGHT,
    WIDTH,
    Mask,
    World,
    diamond,
    ellipse,
    grey_png,
    jpeg,
    palette_png,
    polygon,
    rectangle,
    string_rle,
    write_json,
)

from aesampler.sources.coco_stuff import LABELS, UNUSED

Plane = npt.NDArray[Any]


def png16(path: Path, plane: Plane) -> None:
    """A 16-bit grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane.astype(np.uint16)).save(path)


def drawn(values: Sequence[int], place: int, seed: int, ground: int) -> Plane:
    """A map: `ground`, and one shape for each of `values`, a later one in front."""
    rng = np.random.default_rng([seed, place, 7])
    plane = np.full((HEIGHT, WIDTH), ground, dtype=np.int64)
    for number, value in enumerate(values):
        row, column = int(rng.integers(6, 34)), 4 + (number * 13 + int(rng.integers(0, 8))) % 48
        shapes = (
            rectangle(row - 5, column - 6, row + 5, column + 6),
            ellipse(row, column, 12, 17),
            diamond(row, column, 7),
        )
        plane[shapes[number % 3]] = value
    return plane


def masks_of(plane: Plane, names: Mapping[int, str]) -> dict[str, Mask]:
    """Name -> [1, H, W] of the pixels that have one of its values; names without a pixel are not there."""
    found = {name: np.isin(plane, [v for v, n in names.items() if n == name])[None] for name in set(names.values())}
    return {name: mask for name, mask in found.items() if mask.any()}


INDEX_NAMES = {1: "road", 2: "traffic light", 7: "car", 300: "tree"}


def index_png(root: Path, images: int = 5, seed: int = 0, form: str = "yaml") -> World:
    """Pictures in subfolders, one a PNG; maps of 8 bits, 16 bits and a palette; 255 void in every second; the third map
    a row short. "tree" is index 300 and lies in the 16-bit maps alone.
    """
    frames, truth, void, present = {}, {}, {}, {}
    for place in range(images):
        name = f"{'a' if place % 2 else 'b/c'}/{place}"
        values = [1, 2, 255] if place % 2 else [7, 1, 300 if place % 4 == 0 else 2]
        plane = drawn(values, place, seed, 0)
        ending = "png" if place == 1 else "jpg"
        jpeg(root / f"images/{name}.{ending}", [plane == value for value in values], seed)
        stored = plane[:-1] if place == 2 else plane
        writer = png16 if plane.max() > 255 else palette_png if place == 3 else grey_png
        writer(root / f"masks/{name}.png", stored)
        if place == 2:
            plane[-1] = 255
        frames[name] = (f"images/{name}.{ending}",)
        truth[name] = masks_of(plane, INDEX_NAMES)
        void[name] = (plane == 255)[None]
        present[name] = frozenset(truth[name])
    file = {"yaml": "names.yaml", "json": "names.json", "text": "names.txt"}[form]
    text = {
        "yaml": "".join(f"{number}: {name}\n" for number, name in INDEX_NAMES.items()),
        "json": json.dumps({str(number): name for number, name in INDEX_NAMES.items()}),
        "text": "".join(f"{number}:\t{name} \r\n" for number, name in INDEX_NAMES.items()),
    }[form]
    (root / file).write_text(text)
    return World(
        root=root,
        format="index-png",
        options={} if form == "yaml" else {"names": file},
        names=tuple(sorted(INDEX_NAMES.values())),
        frames=frames,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"image:{paths[0]}" for key, paths in frames.items()},
    )


PANOPTIC = {
    1: ("person", "person", 1),
    3: ("car", "vehicle", 1),
    112: ("door-stuff", "furniture-stuff", 0),
    171: ("wall-brick", "wall", 0),
    184: ("tree-merged", "plant", 0),
    187: ("sky-other-merged", "sky", 0),
    199: ("wall-other-merged", "wall", 0),
}
PANOPTIC_SHOWN = {1: "person", 3: "car", 112: "door", 171: "wall brick", 184: "tree", 187: "sky", 199: "wall"}


def coco_panoptic(root: Path, images: int = 6, seed: int = 0, subset: str = "train", inside: bool = True) -> World:
    """COCO panoptic 2017: large ids, two segments of one name, crowds, a brick wall that is a wall too, void in every
    second picture, a segment of the JSON that has no pixel. inside: whether the PNGs lie in annotations/.
    """
    part = {"train": "train2017", "validation": "val2017"}[subset]
    folder = root / ("annotations" if inside else ".") / f"panoptic_{part}"
    frames, truth, ignored, void, present, pictures, told = {}, {}, {}, {}, {}, [], []
    for place in range(images):
        number = 139 + 17 * place
        name = f"{number:012d}"
        kinds = [[187, 184, 1, 1], [171, 3, 1, 199], [184, 112, 3, 171]][place % 3]
        ids = [1 + 256 * place + 70_001 * (n + 1) for n in range(len(kinds))]
        plane = drawn(ids[1:], place, seed, 0 if place % 2 else ids[0])
        crowd = place % 3 == 1
        info = [
            {"id": one, "category_id": kind, "iscrowd": int(crowd and kind == 1), "area": int((plane == one).sum())}
            for one, kind in zip(ids, kinds, strict=True)
        ]
        if place % 2:
            info[0]["area"] = 0  # in the JSON, not in the picture
        pixels = np.stack([plane % 256, plane // 256 % 256, plane // 65536], axis=-1).astype(np.uint8)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        jpeg(root / part / f"{name}.jpg", [plane == one for one in ids], seed)
        pictures.append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        told.append({"image_id": number, "file_name": f"{name}.png", "segments_info": info})
        shown = {one: PANOPTIC_SHOWN[kind] for one, kind in zip(ids, kinds, strict=True)}
        mob = {one: name for one, name in shown.items() if crowd and name == "person"}
        brick = {one: "wall" for one, name in shown.items() if name == "wall brick"}
        frames[name] = (f"{part}/{name}.jpg",)
        truth[name] = masks_of(plane, {one: name for one, name in shown.items() if one not in mob})
        ignored[name] = masks_of(plane, mob | brick)
        void[name] = (plane == 0)[None]
        present[name] = frozenset(shown.values()) | frozenset(brick.values())
    categories = [
        {"id": number, "name": name, "supercategory": above, "isthing": thing}
        for number, (name, above, thing) in PANOPTIC.items()
    ]
    body = {"info": {}, "licenses": [], "images": pictures[::-1], "annotations": told, "categories": categories}
    write_json(root / f"annotations/panoptic_{part}.json", body)
    return World(
        root=root,
        format="coco-panoptic",
        names=tuple(sorted(PANOPTIC_SHOWN.values())),
        frames=frames,
        truth=truth,
        ignored=ignored,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"coco:{int(key)}" for key in frames},
    )


VOC_NAMES = dict(
    enumerate(
        (
            *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table"),
            *("dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
        ),
        start=1,
    )
)


def voc(root: Path, images: int = 4, seed: int = 0, subset: str = "train", boxes: bool = True) -> World:
    """VOC 2012: palette maps with a border of 255 around every object, a list that is shorter than the folder. boxes:
    XML files; the second picture's names a difficult bottle that has no pixel, and a person's parts.
    """
    base = root / "VOCdevkit/VOC2012"
    frames, truth, void, present = {}, {}, {}, {}
    for place in range(images + 1):
        name = f"2007_{place:06d}"
        values = [15, 11 + place % 3, 20] if place % 2 else [8]
        plane = drawn(values, place, seed, 0)
        edge = np.zeros_like(plane, dtype=bool)
        edge[1:] |= plane[1:] != plane[:-1]
        edge[:, 1:] |= plane[:, 1:] != plane[:, :-1]
        plane[edge] = 255
        jpeg(base / f"JPEGImages/{name}.jpg", [plane == value for value in values], seed)
        palette_png(base / f"SegmentationClass/{name}.png", plane)
        grey_png(base / f"SegmentationClassAug/{name}.png", np.where(plane == 255, 0, plane))
        official = {shown: n for n, shown in VOC_NAMES.items()}
        seen = masks_of(plane, VOC_NAMES)
        extra = ["bottle"] if place == 1 and boxes else []
        if boxes:
            raw = {"dining table": "diningtable", "potted plant": "pottedplant", "tv monitor": "tvmonitor"}
            things = "".join(
                f"<object><name>{raw.get(n, n)}</name><part><name>head</name></part></object>" for n in [*seen, *extra]
            )
            xml = base / f"Annotations/{name}.xml"
            xml.parent.mkdir(parents=True, exist_ok=True)
            xml.write_text(f"<annotation><filename>{name}.jpg</filename>{things}</annotation>")
        if place == images:
            continue  # not in the list
        assert set(official) >= set(seen)
        frames[name] = (f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg",)
        truth[name] = seen
        void[name] = (plane == 255)[None]
        present[name] = frozenset([*seen, *extra])
    lists = base / "ImageSets/Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{ {'train': 'train', 'validation': 'val'}[subset] }.txt").write_text("\n".join(frames) + "\n")
    return World(
        root=root,
        format="voc",
        names=tuple(sorted(VOC_NAMES.values())),
        frames=frames,
        truth=truth,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"voc:{key}" for key in frames},
    )


STUFF = {
    1: "person",
    95: "bridge",
    112: "door",
    169: "tree",
    171: "wall brick",
    173: "wall",
}
STUFF_KINDS = ([1, 169, 112], [171, 95, 173], [171, 1], [95])


def coco_stuff(
    root: Path, images: int = 4, seed: int = 0, subset: str = "train", form: str = "stuffthingmaps"
) -> World:
    """COCO-Stuff in one of its three forms: unlabelled pixels in every second picture, a brick wall that is a wall too.

    Its first form knows things, the others call them 183. json: the third picture has an annotation without a mask.
    """
    part = {"train": "train2017", "validation": "val2017"}[subset]
    names = {
        number: re.sub("-(other|stuff)$", "", label).replace("-", " ")
        for number, label in enumerate(LABELS, start=1)
        if number not in UNUSED and (form == "stuffthingmaps" or number > 91)
    }
    assert all(names[number] == name for number, name in STUFF.items() if number in names)
    frames, truth, ignored, void, present, pictures, annotations = {}, {}, {}, {}, {}, [], []
    for place in range(images):
        number = 9 + 7 * place
        name = f"{number:012d}"
        kinds = STUFF_KINDS[place % len(STUFF_KINDS)]
        plane = drawn(kinds, place, seed, 0 if place % 2 else 169)
        if form != "stuffthingmaps":
            plane[plane == 1] = 183
        jpeg(root / part / f"{name}.jpg", [plane == kind for kind in kinds], seed)
        if form == "stuffthingmaps":
            grey_png(root / f"stuffthingmaps/{part}/{name}.png", np.where(plane == 0, 255, plane - 1))
        elif form == "pixelmaps":
            grey_png(root / f"annotations/stuff_{part}_pixelmaps/{name}.png", plane)
        pictures.append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        for kind in np.unique(plane[plane > 0]):
            entry = {"id": len(annotations), "image_id": number, "category_id": int(kind), "iscrowd": 0}
            annotations.append({**entry, "segmentation": string_rle(plane == kind)})
        frames[name] = (f"{part}/{name}.jpg",)
        truth[name] = masks_of(plane, names)
        ignored[name] = masks_of(plane, {171: "wall"})
        void[name] = (plane == 0)[None]
        present[name] = frozenset(truth[name]) | frozenset(ignored[name])
    if form == "json":
        entry = {"id": len(annotations), "image_id": 9, "category_id": 95, "iscrowd": 0, "segmentation": []}
        annotations.append(entry)
        present[f"{9:012d}"] |= {"bridge"}
        categories = [{"id": 183, "name": "other"}, *({"id": n, "name": LABELS[n - 1]} for n in names)]
        body = {"images": pictures, "annotations": annotations[::-1], "categories": categories}
        write_json(root / f"annotations/stuff_{part}.json", body)
    else:
        jpeg(root / part / f"{999:012d}.jpg", [], seed)  # has no map
    return World(
        root=root,
        format="coco-stuff",
        options={"form": form},
        names=tuple(sorted(names.values())),
        frames=frames,
        truth=truth,
        ignored=ignored,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"coco:{int(key)}" for key in frames},
    )


CITY_LABELS = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
    *("bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
# Label, and whether it is a group; a later one is painted over the earlier ones.
CITY_SCENES = (
    (("road", False), ("ego vehicle", False), ("car", False), ("car", False), ("static", False)),
    (("sky", False), ("car", True), ("person", False), ("rider", False), ("polegroup", False), ("pole", False)),
    (("building", False), ("rider", False), ("bicycle", True), ("license plate", False)),
)


def cityscapes(
    root: Path, images: int = 3, seed: int = 0, subset: str = "train", form: str = "instances", truth: str = "gtFine"
) -> World:
    """Cityscapes: all three files of each picture. Groups of cars and poles, riders without a person, an ego vehicle,
    static things, a license plate and a `deleted` object that are not drawn.
    """
    part = {"train": "train", "validation": "val"}[subset]
    frames, kept, ignored, void, present = {}, {}, {}, {}, {}
    for place in range(images):
        city = ("aachen", "ulm")[place % 2]
        key = f"{city}_{place:06d}_000019"
        instances = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        objects: list[dict[str, Any]] = []
        rng = np.random.default_rng([seed, place, 8])
        for number, (label, group) in enumerate(CITY_SCENES[place % len(CITY_SCENES)]):
            top, left = (0, 0) if number == 0 else (int(v) for v in rng.integers(0, (25, 40)))
            bottom, right = (HEIGHT, WIDTH) if number == 0 else (top + 12, left + 13)
            # A polygon of Cityscapes holds its last row and column, as Pillow draws it.
            corners = [[left, top], [right - 1, top], [right - 1, bottom - 1], [left, bottom - 1]]
            objects.append({"label": label + ("group" if group else ""), "polygon": corners})
            if label != "license plate":
                found = CITY_LABELS.index(label)
                instances[rectangle(top, left, bottom, right)] = found if found < 24 or group else found * 1000 + number
        objects.insert(1, {"label": "car", "polygon": [[0, 0], [55, 0], [55, 39], [0, 39]], "deleted": 1})
        labels = np.where(instances < 1000, instances, instances // 1000)
        stem = root / f"{truth}/{part}/{city}/{key}_{truth}"
        png16(Path(f"{stem}_instanceIds.png"), instances)
        grey_png(Path(f"{stem}_labelIds.png"), labels)
        write_json(Path(f"{stem}_polygons.json"), {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects})
        path = f"leftImg8bit/{part}/{city}/{key}_leftImg8bit.png"
        jpeg(root / path, [labels == number for number in range(34)], seed)
        names = {n: name for n, name in enumerate(CITY_LABELS) if n > 6 and name != "polegroup"}
        single = labels if form == "labels" else np.where((instances >= 24) & (instances < 1000), 0, labels)
        groups = masks_of(np.where(labels == single, 0, labels), names)
        for name, value in (("pole", 18), ("person", 25)):
            if (labels == value).any():
                groups[name] = groups.get(name, np.zeros((1, HEIGHT, WIDTH), dtype=bool)) | (labels == value)
        frames[key] = (path,)
        kept[key] = masks_of(single, names)
        ignored[key] = groups
        void[key] = (labels < 7)[None]
        present[key] = frozenset(kept[key]) | frozenset(groups)
    return World(
        root=root,
        format="cityscapes",
        options={"form": form, "annotations": truth},
        names=tuple(sorted(set(CITY_LABELS[7:]) - {"polegroup"})),
        frames=frames,
        truth=kept,
        ignored=ignored,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"cityscapes:{key}" for key in frames},
    )


VISTAS: Mapping[str, tuple[tuple[str, str | None, str], ...]] = {
    # Full name, readable, and what is shown: a name, "= NAME" a group of it, "void", or "" for known and nameless.
    "2.0": (
        ("animal--bird", "Bird", "bird"),
        ("construction--barrier--ambiguous", "Ambiguous Barrier", "void"),
        ("construction--barrier--other-barrier", "Barrier", ""),
        ("human--person--individual", "Person", "person"),
        ("human--person--person-group", "Person Group", "= person"),
        ("human--rider--bicyclist", "Bicyclist", "bicyclist"),
        ("human--rider--other-rider", "Other Rider", ""),
        ("marking--discrete--symbol--bicycle", "Lane Marking - Symbol (Bicycle)", ""),
        ("marking--discrete--crosswalk-zebra", None, "marking, discrete, crosswalk zebra"),
        ("marking-only--discrete--crosswalk-zebra", None, "marking only, discrete, crosswalk zebra"),
        ("object--sign--back", None, "back (sign)"),
        ("object--traffic-sign--back", None, "back (traffic sign)"),
        ("object--support--pole", "Pole", "pole"),
        ("object--support--pole-group", "Pole Group", "= pole"),
        ("object--vehicle--bicycle", "Bicycle", "bicycle"),
        ("object--vehicle--vehicle-group", "Vehicle Group", "void"),
        ("void--ego-vehicle", "Ego Vehicle", ""),
        ("void--unlabeled", "Unlabeled", "void"),
    ),
    "1.2": (
        ("human--person", "Person", "person"),
        ("human--rider--motorcyclist", "Motorcyclist", "motorcyclist"),
        ("object--traffic-sign--front", "Traffic Sign (Front)", "traffic sign (front)"),
        ("nature--sky", "Sky", "sky"),
        ("void--unlabeled", "Unlabeled", "void"),
    ),
}


def mapillary(root: Path, images: int = 5, seed: int = 0, subset: str = "train", version: str = "2.0") -> World:
    """Mapillary Vistas: names that repeat, groups, riders, what is never shown, unlabelled as the last index."""
    part = {"train": "training", "validation": "validation"}[subset]
    labels = VISTAS[version]
    shown = {index: told for index, (_, _, told) in enumerate(labels)}
    names = {index: told for index, told in shown.items() if told and told != "void" and told[0] != "="}
    frames, truth, ignored, void, present = {}, {}, {}, {}, {}
    for place in range(images):
        key = f"k{place}_-{'AbC'[place % 3]}"
        size = len(labels)
        values = [(4 * place + step) % (size - 1) for step in range(4)]
        plane = drawn(values, place, seed, size - 1 if place % 2 else values[0])
        jpeg(root / f"{part}/images/{key}.jpg", [plane == value for value in values], seed)
        grey_png(root / f"{part}/v{version}/labels/{key}.png", plane)
        groups = {index: told[2:] for index, told in shown.items() if told[:1] == "="}
        groups |= {index: "person" for index, (full, _, _) in enumerate(labels) if "rider--" in full}
        frames[key] = (f"{part}/images/{key}.jpg",)
        truth[key] = masks_of(plane, names)
        ignored[key] = masks_of(plane, groups)
        void[key] = np.isin(plane, [index for index, told in shown.items() if told in ("", "void")])[None]
        present[key] = frozenset(truth[key]) | frozenset(ignored[key])
    entries = [
        {"name": full, "color": [1, 2, 3], "instances": True, "evaluate": True}
        | ({"readable": readable} if readable else {})
        for full, readable, _ in labels
    ]
    write_json(root / f"config_v{version}.json", {"labels": entries, "version": float(version)})
    return World(
        root=root,
        format="mapillary",
        options={"version": version},
        names=tuple(sorted(names.values())),
        frames=frames,
        truth=truth,
        ignored=ignored,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"mapillary:{key}" for key in frames},
    )


def refcoco(
    root: Path, images: int = 4, seed: int = 0, dataset: str = "refcoco", by: str | None = None, subset: str = "train"
) -> World:
    """The refCOCO family: three objects a picture, of which the third belongs to another split; several sentences an
    object; "the same thing" said of two; Python 2's latin-1 texts. refclef: masks are lists of run lengths, the second
    object of the second picture has none. grefcoco: phrases of several objects, phrases without a target.
    """
    by = by or {"refcocog": "umd"}.get(dataset, "unc")
    mine = {"train": "train", "validation": "val", "test": "testA"}[subset]
    coco = dataset != "refclef"
    folder = "images/mscoco/images/train2014" if coco else "images/saiapr_tc-12"
    frames, truth, present, absent, groups = {}, {}, {}, {}, {}
    pictures: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    references: list[dict[str, Any]] = []
    for place in range(images):
        number = 100 + place
        name = f"COCO_train2014_{number:012d}" if coco else f"{place:02d}/images/{number}"
        pictures.append({"id": number, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH})
        rng = np.random.default_rng([seed, place, 9])
        shapes = [rectangle(top := int(rng.integers(0, 20)), 18 * k, top + 14, 18 * k + 16) for k in range(3)]
        jpeg(root / folder / f"{name}.jpg", shapes, seed)
        found: dict[str, Mask] = {}
        for k, mask in enumerate(shapes):
            bare = not coco and place == 1 and k == 1
            segmentation: Any = polygon(mask) if coco else [] if bare else [string_rle(mask)]
            key = 1000 * number + k
            annotations.append({"id": key, "image_id": number, "category_id": 1, "segmentation": segmentation})
            said = [f"Thing  {k} of {place}", f"thing {k} at the caf\u00e9", "The same thing"][: 3 if k < 2 else 2]
            references.append(
                {
                    "ref_id": len(references),
                    "ann_id": [key] if dataset == "grefcoco" else key,
                    "category_id": 1,
                    "image_id": number,
                    "file_name": f"{name}_{key}.jpg",
                    "split": mine if k < 2 else "testAB" if mine == "val" else "val",
                    "sent_ids": [1],
                    "sentences": [
                        # As Python 3 sees the bytes of Python 2, with latin-1.
                        {"sent_id": 1, "sent": text.encode().decode("latin-1"), "raw": text, "tokens": text.split()}
                        for text in said
                    ],
                }
            )
            if k < 2:
                for text in said:
                    shown = " ".join(text.lower().split())
                    found[shown] = found.get(shown, np.zeros_like(mask)) | (np.zeros_like(mask) if bare else mask)
        if dataset == "grefcoco":
            extra = {"category_id": 1, "image_id": number, "split": mine, "file_name": "x.jpg"}
            both = {**extra, "ann_id": [1000 * number, 1000 * number + 2], "sentences": [{"sent": f"both in {place}"}]}
            none = {**extra, "ann_id": [-1], "sentences": [{"sent": f"a unicorn for {place}"}]}
            references += [both, {**none, "no_target": True} if place % 2 else {**none, "ann_id": -1}]
            found[f"both in {place}"] = shapes[0] | shapes[2]
            absent[name] = frozenset({f"a unicorn for {place}"})
        frames[name] = (f"{folder}/{name}.jpg",)
        truth[name] = {text: mask[None] for text, mask in found.items() if mask.any()}
        present[name] = frozenset(found)
        groups[name] = f"coco:{number}" if coco else f"saiapr:{name}.jpg"
    body = {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    write_json(root / dataset / "instances.json", body)
    if dataset == "grefcoco":
        for reference in references:
            for sentence in reference["sentences"]:
                sentence["sent"] = sentence.get("raw", sentence["sent"])
        write_json(root / dataset / f"grefs({by}).json", references)
    else:
        (root / dataset / f"refs({by}).p").write_bytes(pickle.dumps(references, protocol=2))
    return World(
        root=root,
        format="refcoco",
        options={"dataset": dataset, "by": by},
        names=tuple(sorted({name for found in (*present.values(), *absent.values()) for name in found})),
        frames=frames,
        truth=truth,
        present=present,
        absent=absent,
        exhaustive=False,
        groups=groups,
    )


HF_NAMES = ("", "road", "traffic light", "car")


def hugging_face(root: Path, images: int = 5, seed: int = 0, form: str = "parquet", part: str = "train") -> World:
    """A dataset that `datasets` wrote, as Parquet (two files of the part, one of another), a saved Dataset or a saved
    DatasetDict: JPEG and PNG pictures in turn, grey and palette maps, 255 void, an id column.
    """
    import datasets

    datasets.disable_progress_bars()
    frames, truth, void, present, rows = {}, {}, {}, {}, []
    for place in range(images):
        plane = drawn([1, 3] if place % 2 else [2, 255, 1], place, seed, 0)
        ending = "png" if place % 2 else "jpg"
        files = root.parent / f"{root.name}-files"
        jpeg(files / f"{place}.{ending}", [plane == value for value in (1, 2, 3)], seed)
        (palette_png if place % 3 == 1 else grey_png)(files / f"{place}_mask.png", plane)
        key = f"scene/{place}"
        cells = {"image": files / f"{place}.{ending}", "mask": files / f"{place}_mask.png"}
        rows.append({"key": key, **{n: {"bytes": f.read_bytes(), "path": None} for n, f in cells.items()}})
        frames[key] = (f"{part}/{place:08d}.{ending}",)
        truth[key] = masks_of(plane, {place: name for place, name in enumerate(HF_NAMES) if name})
        void[key] = (plane == 255)[None]
        present[key] = frozenset(truth[key])
    features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image(), "key": datasets.Value("string")})
    table = datasets.Dataset.from_list(rows, features=features)
    if form == "parquet":
        (root / "data").mkdir(parents=True)
        for number, those in enumerate((range(3), range(3, images))):
            table.select(those).to_parquet(root / f"data/{part}-{number:05d}-of-00002.parquet")
        table.select([0]).to_parquet(root / "data/extra-test.parquet")
    elif form == "dataset":
        table.save_to_disk(root)
    else:
        datasets.DatasetDict({part: table, "other": table.select([0])}).save_to_disk(root)
    (root / "names.json").write_text(json.dumps({str(n): name for n, name in enumerate(HF_NAMES) if n}))
    sizes = ",".join(str(len(row["image"]["bytes"])) for row in rows)
    return World(
        root=root,
        format="hf",
        options={"id": "key", "names": "names.json"},
        names=tuple(sorted(HF_NAMES[1:])),
        frames=frames,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"hf:{hashlib.sha256(sizes.encode()).hexdigest()[:10]}:{part}:{key}" for key in frames},
    )


BUILDERS: Mapping[str, Callable[..., World]] = {
    "index-png": index_png,
    "coco-panoptic": coco_panoptic,
    "coco-stuff": coco_stuff,
    "cityscapes": cityscapes,
    "mapillary": mapillary,
    "voc": voc,
    "refcoco": refcoco,
    "hf": hugging_face,
}
"""Format -> the function that writes its world, as worlds.BUILDERS."""
