"""Tiny datasets in every official layout, with the exact masks they hold: what the tests build from and compare with.

A function writes one dataset below `root` and returns its World: the masks, drawn with numpy before any file was
written, and what the files tell of names. Everything is keyed by (seed, place), so equal arguments give equal bytes.
Pictures are a few dozen pixels wide; masks are rectangles, ellipses and diamonds. Rectangles are written as polygons
where a format wants them: with whole corners COCO's rasteriser gives them back exactly.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from aesampler.sources.source import Source, Survey
from aesampler.storage import Folder

Mask = npt.NDArray[np.bool_]
Tracks = dict[str, dict[str, Mask]]

HEIGHT, WIDTH = 40, 56


@dataclass(frozen=True, kw_only=True)
class World:
    """What a tiny dataset holds. Masks are bool [T, H, W] over the record's frames (T = 1 for an image).

    format, options: the recipe's keys that read it at root. names: the vocabulary, sorted. frames: record id -> paths
    below root, those sampled by default. truth: record id -> name -> masks that may be exposed; names without a pixel
    are not there. ignored: crowd masks, likewise. incomplete: names only partly marked, with their masks. void: record
    id -> pixels without a label (present only where there are any). present: every name that is present in the record,
    marked or not. absent: names known absent one by one. exhaustive: all other names are absent.
    """

    root: Path
    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...]
    frames: Mapping[str, tuple[str, ...]]
    truth: Tracks
    ignored: Tracks = field(default_factory=dict)
    incomplete: Tracks = field(default_factory=dict)
    void: Mapping[str, Mask] = field(default_factory=dict)
    present: Mapping[str, frozenset[str]]
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    exhaustive: bool
    groups: Mapping[str, str]
    kind: str = "image"

    @property
    def ids(self) -> tuple[str, ...]:
        """Record ids, sorted."""
        return tuple(sorted(self.frames))


def rectangle(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Mask:
    """Rows top..bottom-1 and columns left..right-1, cut at the border."""
    mask = np.zeros(size, dtype=bool)
    mask[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return mask


def ellipse(row: float, column: float, height: float, width: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Mask:
    """Pixels within half `height` and half `width` of (row, column)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows - row) / (height / 2)) ** 2 + ((columns - column) / (width / 2)) ** 2 <= 1.0


def diamond(row: float, column: float, radius: float, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Mask:
    """Pixels within `radius` city blocks of (row, column)."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.abs(rows - row) + np.abs(columns - column) <= radius


def jpeg(path: Path, masks: Sequence[Mask], seed: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """A picture of noise in which each mask has a colour of its own."""
    rng = np.random.default_rng([seed, *path.name.encode()])
    pixels = rng.integers(90, 130, (*size, 3), dtype=np.uint8)
    for place, mask in enumerate(masks):
        pixels[mask] = np.array(
            [(37 * place + 60) % 256, (91 * place + 140) % 256, (153 * place + 20) % 256], dtype=np.uint8
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def grey_png(path: Path, plane: npt.NDArray[Any]) -> None:
    """An 8-bit grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane.astype(np.uint8)).save(path)


def palette_png(path: Path, plane: npt.NDArray[Any]) -> None:
    """An 8-bit palette PNG with DAVIS's first colours; its values are indices, its colours mean nothing."""
    picture = Image.fromarray(plane.astype(np.uint8))
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128] + [90] * (250 * 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_json(path: Path, data: object, encoding: str = "utf-8") -> None:
    """JSON as the datasets ship it: not escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(data, ensure_ascii=False).encode(encoding))


def polygon(mask: Mask) -> list[list[int]]:
    """The polygon of a rectangle. COCO rasterises whole corners to exactly its rows and columns."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return [[left, top, right, top, right, bottom, left, bottom]]


def list_rle(mask: Mask) -> dict[str, Any]:
    """Uncompressed RLE, as COCO's crowds have it: runs of 0 and 1 by columns, as a list."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def string_rle(mask: Mask) -> dict[str, Any]:
    """Compressed RLE, its counts a string."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def _either(*masks: Mask) -> Mask:
    union = np.zeros_like(masks[0])
    for mask in masks:
        union |= mask
    return union


def _group(entries: Sequence[tuple[str, Mask]]) -> dict[str, Mask]:
    """Instances by name -> [1, H, W] unions, without empty ones."""
    names = sorted({name for name, _ in entries})
    unions = {name: _either(*[mask for other, mask in entries if other == name])[None] for name in names}
    return {name: mask for name, mask in unions.items() if mask.any()}


COCO_NAMES = {
    1: "person",
    3: "car",
    16: "bird",
    17: "cat",
    18: "dog",
    37: "sports ball",
    47: "cup",
    77: "cell phone",
    90: "toothbrush",
}


def coco(root: Path, images: int = 6, seed: int = 0, subset: str = "train") -> World:
    """COCO 2017 instances: images in turn have polygons, overlapping instances with string RLE, crowds, two names on
    one pixel, nothing at all.

    Of every six images: 0 dog (two polygons of one instance) and cat; 1 two overlapping birds and a cell phone (RLE); 2
    a crowd of persons only; 3 a person and a crowd of persons that overlap, and a car; 4 a cup within a sports ball; 5
    no annotation. "toothbrush" never occurs.
    """
    folder = {"train": "train2017", "validation": "val2017"}[subset]
    rng = np.random.default_rng([seed, 1])
    ids = {name: number for number, name in COCO_NAMES.items()}
    pictures, annotations = [], []
    frames, truth, ignored, present = {}, {}, {}, {}
    for place in range(images):
        number = 9 + 31 * place
        dy, dx = (int(v) for v in rng.integers(0, 6, 2))
        kind = place % 6
        crowd: list[tuple[str, Mask, Any]] = []
        plain: list[tuple[str, Mask, Any]] = []
        if kind == 0:
            left, right = rectangle(3 + dy, 2 + dx, 17 + dy, 11 + dx), rectangle(5 + dy, 20 + dx, 14 + dy, 30 + dx)
            plain.append(("dog", left | right, polygon(left) + polygon(right)))
            cat = rectangle(22, 36, 22 + 5 + dy, 50)
            plain.append(("cat", cat, polygon(cat)))
        elif kind == 1:
            for mask in (ellipse(14 + dy, 18 + dx, 13, 21), ellipse(18 + dy, 26 + dx, 15, 17)):
                plain.append(("bird", mask, string_rle(mask)))
            phone = diamond(30, 46, 4 + dx)
            plain.append(("cell phone", phone, list_rle(phone)))
        elif kind == 2:
            mob = rectangle(10 + dy, 0, 31, 25 + dx)
            crowd.append(("person", mob, list_rle(mob)))
        elif kind == 3:
            one, mob = rectangle(4, 4, 30 + dy, 14), ellipse(20, 20 + dx, 20, 30)
            car = rectangle(30, 30, 39, 52)
            plain += [("person", one, polygon(one)), ("car", car, polygon(car))]
            crowd.append(("person", mob, list_rle(mob)))
        elif kind == 4:
            ball, cup = ellipse(20, 28, 26 + dy, 26 + dx), rectangle(16, 22 + dx, 24, 30 + dx)
            plain += [("sports ball", ball, string_rle(ball)), ("cup", cup, polygon(cup))]
        name = f"{number:012d}.jpg"
        pictures.append(
            {
                "id": number,
                "file_name": name,
                "height": HEIGHT,
                "width": WIDTH,
                "license": 1,
                "coco_url": f"{folder}/{name}",
            }
        )
        jpeg(root / folder / name, [mask for _, mask, _ in plain + crowd], seed)
        for is_crowd, entries in ((0, plain), (1, crowd)):
            for category, mask, segmentation in entries:
                rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
                annotations.append(
                    {
                        "id": 1000 + len(annotations),
                        "image_id": number,
                        "category_id": ids[category],
                        "segmentation": segmentation,
                        "area": float(mask.sum()),
                        "bbox": box,
                        "iscrowd": is_crowd,
                    }
                )
        key = f"{number:012d}"
        frames[key] = (f"{folder}/{name}",)
        truth[key] = _group([(category, mask) for category, mask, _ in plain])
        ignored[key] = _group([(category, mask) for category, mask, _ in crowd])
        present[key] = frozenset(truth[key]) | frozenset(ignored[key])
    # The published file lists its annotations in no useful order.
    annotations = [annotations[i] for i in np.random.default_rng([seed, 2]).permutation(len(annotations))]
    categories = [{"id": number, "name": name, "supercategory": "thing"} for number, name in COCO_NAMES.items()]
    body = {"info": {}, "licenses": [], "images": pictures, "annotations": annotations, "categories": categories}
    write_json(root / "annotations" / f"instances_{folder}.json", body)
    return World(
        root=root,
        format="coco",
        names=tuple(sorted(COCO_NAMES.values())),
        frames=frames,
        truth=truth,
        ignored=ignored,
        present=present,
        exhaustive=True,
        groups={key: f"coco:{int(key)}" for key in frames},
    )


LVIS_NAMES = {2: "apple", 5: "bottle", 11: "kite", 12: "lamp", 23: "person", 30: "spoon", 31: "zebra"}


def lvis(root: Path, images: int = 6, seed: int = 0, version: str = "v1", subset: str = "train") -> World:
    """LVIS v0.5 or v1 on COCO 2017 pictures: federated, so each image lists what is known absent and what is partly
    marked.

    Of every three images: 0 apple and bottle, kite and zebra absent; 1 lamp twice, overlapping, and persons partly
    marked, apple absent; 2 spoon alone, nothing known absent. v0.5 names files COCO_val2014_... in its JSON; v1 has
    only coco_url, and of its validation pictures the second lies in train2017.
    """
    part = {"train": "train", "validation": "val"}[subset]
    rng = np.random.default_rng([seed, 3])
    ids = {name: number for number, name in LVIS_NAMES.items()}
    pictures, annotations = [], []
    frames, truth, incomplete, present, absent = {}, {}, {}, {}, {}
    for place in range(images):
        number = 50 + 17 * place
        folder = "train2017" if version == "v1" and place == 1 else f"{part}2017"
        name = f"{number:012d}.jpg"
        dy, dx = (int(v) for v in rng.integers(0, 6, 2))
        first, second = rectangle(2 + dy, 3, 16 + dy, 20 + dx), rectangle(20, 8 + dx, 36, 30 + dx)
        overlap, third = rectangle(10 + dy, 12, 25, 40), rectangle(4, 42, 20, 50 + dx)
        negative: list[str] = []
        partly: list[str] = []
        entries: list[tuple[str, Mask, list[list[int]]]] = []
        if place % 3 == 0:
            entries = [("apple", first | third, polygon(first) + polygon(third)), ("bottle", second, polygon(second))]
            negative = ["kite", "zebra"]
        elif place % 3 == 1:
            entries = [
                ("lamp", first, polygon(first)),
                ("lamp", overlap, polygon(overlap)),
                ("person", third, polygon(third)),
            ]
            negative, partly = ["apple"], ["person"]
        else:
            entries = [("spoon", second, polygon(second))]
        picture: dict[str, Any] = {
            "id": number,
            "height": HEIGHT,
            "width": WIDTH,
            "neg_category_ids": [ids[n] for n in negative],
        }
        picture["not_exhaustive_category_ids"] = [ids[n] for n in partly]
        if version == "v1":
            picture["coco_url"] = f"http://images.cocodataset.org/{folder}/{name}"
        else:
            picture["file_name"] = f"COCO_{part}2014_{name}"
        pictures.append(picture)
        jpeg(root / folder / name, [mask for _, mask, _ in entries], seed)
        for category, mask, corners in entries:
            annotation = {
                "id": 1 + len(annotations),
                "image_id": number,
                "category_id": ids[category],
                "segmentation": corners,
            }
            annotations.append({**annotation, "area": float(mask.sum()), "bbox": [0, 0, WIDTH, HEIGHT]})
        key = f"{number:012d}"
        frames[key] = (f"{folder}/{name}",)
        truth[key] = _group([(c, m) for c, m, _ in entries if c not in partly])
        incomplete[key] = _group([(c, m) for c, m, _ in entries if c in partly])
        present[key] = frozenset(truth[key]) | frozenset(incomplete[key])
        absent[key] = frozenset(negative)
    synsets = {"synset": "n.01", "synonyms": [], "def": "", "frequency": "c", "image_count": 1, "instance_count": 1}
    categories = [
        {"id": number, "name": name, **synsets, "synset": f"{name}.n.01", "synonyms": [name]}
        for number, name in LVIS_NAMES.items()
    ]
    body = {"info": {}, "licenses": [], "images": pictures, "annotations": annotations, "categories": categories}
    write_json(root / "annotations" / f"lvis_{version}_{part}.json", body)
    return World(
        root=root,
        format="lvis",
        names=tuple(sorted(LVIS_NAMES.values())),
        frames=frames,
        truth=truth,
        incomplete=incomplete,
        present=present,
        absent=absent,
        exhaustive=False,
        groups={key: f"coco:{int(key)}" for key in frames},
    )


ADE_CLASSES = {
    64: "ashcan, trash can, garbage can",
    312: "building, edifice",
    774: "door",
    1279: "caf\u00e9 front, coffee-house front",  # the latin-1 one
    2420: "sky",
    2855: "tree",
    2856: "tree, tree diagram",
    3035: "wheel",
    3050: "window",
    401: "car, auto, automobile",
}
ADE_SHOWN = {
    64: "ashcan",
    312: "building",
    774: "door",
    1279: "caf\u00e9 front",
    2420: "sky",
    2855: "tree",
    2856: "tree diagram",
    3035: "wheel",
    3050: "window",
    401: "car",
}


def _ade_rgb(classes: npt.NDArray[Any], instances: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Red holds class // 256 in tens, green class % 256, blue one value an instance."""
    return np.stack([classes // 256 * 10, classes % 256, instances], axis=-1).astype(np.uint8)


def ade20k(root: Path, images: int = 4, seed: int = 0, parts: bool = False, subset: str = "train") -> World:
    """ADE20K 2021: `_seg.png`, two levels of parts, instance PNGs and JSON; `parts` only says which names the World
    counts.

    Of every two images: 0 a building with window (part) and window's own door (part of a part), a car with wheels
    (parts), sky, a band without label; an ashcan wholly hidden behind the building (in the JSON, not in the picture). 1
    a tree, a tree diagram, a latin-1 name, and a window that is an object.
    """
    split = {"train": "training", "validation": "validation"}[subset]
    rng = np.random.default_rng([seed, 4])
    frames, truth, void, present = {}, {}, {}, {}
    used: set[str] = set()
    for place in range(images):
        name = f"ADE_{subset[:5]}_{place + 1:08d}"
        scene = ("urban", "street") if place % 2 == 0 else ("nature_landscape", "park")
        folder = root / "ADE20K_2021_17_01" / "images" / "ADE" / split / scene[0] / scene[1]
        dy, dx = (int(v) for v in rng.integers(0, 5, 2))
        objects: list[tuple[int, int, Mask]] = []  # class, part level, pixels; a later one is in front
        if place % 2 == 0:
            building = rectangle(4, 4 + dx, 34, 28 + dx)
            objects += [
                (2420, 0, rectangle(0, 0, 24, WIDTH)),
                (64, 0, rectangle(10, 8 + dx, 14, 12 + dx)),
                (312, 0, building),
            ]
            objects += [
                (3050, 1, rectangle(8 + dy, 8 + dx, 16 + dy, 16 + dx)),
                (774, 2, rectangle(10 + dy, 10 + dx, 14 + dy, 13 + dx)),
            ]
            car = rectangle(28, 20, 38, 44 + dx)
            objects += [(401, 0, car), (3035, 1, ellipse(36, 25, 5, 5) & car), (3035, 1, ellipse(36, 38, 5, 5) & car)]
        else:
            objects += [
                (1279, 0, rectangle(0, 0, 20, 30)),
                (2855, 0, ellipse(20, 30 + dx, 30, 20)),
                (2856, 0, diamond(30, 10 + dx, 8)),
            ]
            objects += [(3050, 0, rectangle(2, 44, 12 + dy, 54))]
        _write_ade(folder, name, objects, seed, encoding="latin-1" if place % 2 else "utf-8", split=split, scene=scene)
        levels = _ade_levels(objects)
        key = name
        frames[key] = (str((folder / f"{name}.jpg").relative_to(root)),)
        counted = levels if parts else levels[:1]
        truth[key] = _group([(ADE_SHOWN[int(c)], level == c) for level in counted for c in np.unique(level) if c])
        void[key] = (levels[0] == 0)[None]
        present[key] = frozenset(ADE_SHOWN[number] for number, _, _ in objects)
        used |= {ADE_SHOWN[number] for number, level, _ in objects if parts or level == 0}
    names = tuple(sorted(used))
    present = {key: found.intersection(names) for key, found in present.items()}
    return World(
        root=root,
        format="ade20k",
        options={"parts": True} if parts else {},
        names=names,
        frames=frames,
        truth=truth,
        void=void,
        present=present,
        exhaustive=not parts,
        groups={key: f"ade20k:{key}" for key in frames},
    )


def _ade_levels(objects: Sequence[tuple[int, int, Mask]]) -> list[npt.NDArray[np.int32]]:
    levels = [np.zeros((HEIGHT, WIDTH), dtype=np.int32) for _ in range(1 + max(level for _, level, _ in objects))]
    for number, level, mask in objects:
        levels[level][mask] = number
    return levels


def _write_ade(
    folder: Path,
    name: str,
    objects: Sequence[tuple[int, int, Mask]],
    seed: int,
    *,
    encoding: str,
    split: str,
    scene: tuple[str, str],
) -> None:
    levels = _ade_levels(objects)
    owners = [np.full((HEIGHT, WIDTH), -1) for _ in levels]
    for place, (_, level, mask) in enumerate(objects):
        owners[level][mask] = place
    jpeg(folder / f"{name}.jpg", [mask for _, _, mask in objects], seed)
    described = []
    for place, (number, level, mask) in enumerate(objects):
        amodal = np.where(mask, 128, 0)
        amodal[owners[level] == place] = 255
        grey_png(folder / name / f"instance_{place:03d}_{name}.png", amodal)
        described.append(
            {
                "id": place,
                "name": ADE_CLASSES[number],
                "name_ndx": number,
                "hypernym": [],
                "raw_name": ADE_CLASSES[number].split(",")[0],
                "attributes": [] if place % 2 else "wooden",  # a list of one is written as its element
                "depth_ordering_rank": place + 1,
                "occluded": ["no", "yes", []][place % 3],
                "crop": "0",
                "parts": {"hasparts": [] if level else 3, "ispartof": [] if level == 0 else 2, "part_level": level},
                "instance_mask": f"{name}/instance_{place:03d}_{name}.png",
                "polygon": {"x": [1, 2, 3], "y": [1, 2, 3]},
                "saved_date": "01-Jan-2005 00:00:00",
            }
        )
    for level, classes in enumerate(levels):
        blue = np.where(owners[level] < 0, 0, 255 - 9 * owners[level])
        Image.fromarray(_ade_rgb(classes, blue)).save(
            folder / (f"{name}_seg.png" if level == 0 else f"{name}_parts_{level}.png")
        )
    body = {
        "filename": f"{name}.jpg",
        "folder": f"ADE20K_2021_17_01/images/ADE/{split}/{scene[0]}/{scene[1]}",
        "imsize": [HEIGHT, WIDTH, 3],
        "source": {"folder": "static", "filename": "x.jpg", "origin": ""},
        "scene": ["outdoor", *scene],
        "object": described,
    }
    write_json(folder / f"{name}.json", {"annotation": body}, encoding)


ADE150_TABLE = (
    "Idx\tRatio\tTrain\tVal\tName\n"
    "1\t0.1576\t11664\t1172\twall\n"
    "2 \t0.1072\t6046\t612\tbuilding, edifice\n"
    "3\t0.0878\t8265\t796\tsky \n"
    "4\t0.0154\t1804\t190\tearth, ground\n"
    "5\t0.0006\t182\t12\tland, ground, soil\n"
    "6\t0.0018\t367\t36\tcounter\n"
    "7\t0.0006\t100\t13\tbuffet, counter, sideboard\n"
    "8\t0.0005\t1193\t139\tpot, flowerpot\n"
    "9\t0.0014\t364\t41\ttoilet, can, pot\n"
)
ADE150_SHOWN = {
    1: "wall",
    2: "building",
    3: "sky",
    4: "earth",
    5: "land",
    6: "counter",
    7: "buffet",
    8: "flowerpot",
    9: "toilet",
}


def ade20k_150(root: Path, images: int = 4, seed: int = 0, subset: str = "train") -> World:
    """SceneParsing: grey index PNG, 0 unlabelled or another class; a table with stray spaces and synonyms shared by two
    classes. The last class never occurs."""
    split, short = {"train": ("training", "train"), "validation": ("validation", "val")}[subset]
    base = root / "ADEChallengeData2016"
    base.mkdir(parents=True, exist_ok=True)
    (base / "objectInfo150.txt").write_bytes(ADE150_TABLE.encode())
    rng = np.random.default_rng([seed, 5])
    frames, truth, void, present = {}, {}, {}, {}
    for place in range(images):
        name = f"ADE_{short}_{place + 1:08d}"
        plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        plane[: 10 + int(rng.integers(0, 6))] = 3
        plane[25:] = 1 + place % 2
        plane[ellipse(22, 20 + int(rng.integers(0, 9)), 20, 24)] = 4 + place % 3
        plane[diamond(30, 45, 3 + int(rng.integers(0, 5)))] = 7 + place % 2
        jpeg(base / "images" / split / f"{name}.jpg", [plane == value for value in range(1, 10)], seed)
        grey_png(base / "annotations" / split / f"{name}.png", plane)
        frames[name] = (f"ADEChallengeData2016/images/{split}/{name}.jpg",)
        truth[name] = _group([(ADE150_SHOWN[int(value)], plane == value) for value in np.unique(plane) if value])
        void[name] = (plane == 0)[None]
        present[name] = frozenset(truth[name])
    return World(
        root=root,
        format="ade20k-150",
        names=tuple(sorted(ADE150_SHOWN.values())),
        frames=frames,
        truth=truth,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"ade20k:{key}" for key in frames},
    )


def _moving(place: int, time: int, seed: int) -> Mask:
    """The mask of object `place` at `time`: it moves to the right, and every third object leaves the picture."""
    rng = np.random.default_rng([seed, place, 6])
    row, column = (int(v) for v in rng.integers(8, 30, 2))
    speed = 30 if place % 3 == 2 else 3
    return (ellipse, rectangle_at, diamond_at)[place % 3](row, column + speed * time, 12, 14)


def rectangle_at(row: int, column: int, height: int, width: int) -> Mask:
    """A rectangle around (row, column)."""
    return rectangle(row - height // 2, column - width // 2, row + height // 2, column + width // 2)


def diamond_at(row: int, column: int, height: int, width: int) -> Mask:
    """A diamond around (row, column)."""
    return diamond(row, column, min(height, width) / 2)


DAVIS_SEQUENCES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bike-walk", ("bicycle", "person")),
    ("camel", ("camel",)),
    ("duo", ("person", "person", "cellphone")),
    ("zoo", ("chamaleon",)),
)
DAVIS_SHOWN = {"chamaleon": "chameleon", "cellphone": "cell phone"}


def davis(root: Path, sequences: int = 3, frames: int = 5, seed: int = 0, year: int = 2017) -> World:
    """DAVIS at 480p with its ImageSets. 2017: palette, 255 void in the second frame, the last frame's mask one column
    short. 2016: grey 0/255, one object.

    `cell phone` leaves the picture after the first frame; a name of the semantics file whose sequence is not listed
    still belongs to the vocabulary.
    """
    known = []
    for place in range(sequences):
        name, objects = DAVIS_SEQUENCES[place % len(DAVIS_SEQUENCES)]
        again = place // len(DAVIS_SEQUENCES)
        known.append((f"{name}-{again}" if again else name, objects))
    listed, truth, void, present, lines = {}, {}, {}, {}, []
    for place, (sequence, every) in enumerate(known):
        objects = every if year == 2017 else every[:1]
        paths, planes = [], []
        for time in range(frames):
            plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for number in range(len(objects)):
                plane[_moving(number, time, seed + place)] = number + 1
            if year == 2017 and time == 1:
                plane[rectangle(0, 0, 3, WIDTH)] = 255
            path = f"JPEGImages/480p/{sequence}/{time:05d}.jpg"
            jpeg(root / path, [plane == number for number in range(1, 4)], seed)
            mask = root / f"Annotations/480p/{sequence}/{time:05d}.png"
            if year == 2017:
                short = time == frames - 1 and place == 0
                palette_png(mask, plane[:, :-1] if short else plane)
                if short:
                    plane[:, -1] = 255
            else:
                grey_png(mask, plane * 255)
            paths.append(path)
            planes.append(plane)
            lines.append(f"/{path} /{mask.relative_to(root)}")
        video = np.stack(planes)
        tracks = {
            name: np.isin(video, [i + 1 for i, o in enumerate(objects) if DAVIS_SHOWN.get(o, o) == name])
            for name in sorted({DAVIS_SHOWN.get(other, other) for other in objects})
        }
        listed[sequence] = tuple(paths)
        truth[sequence] = {name: masks for name, masks in tracks.items() if masks.any()}
        void[sequence] = video == 255
        present[sequence] = frozenset(tracks)
    semantics = {
        name: {str(i + 1): o for i, o in enumerate(objects if year == 2017 else objects[:1])} for name, objects in known
    }
    write_json(root / "davis_semantics.json", {**semantics, "elsewhere": {"1": "swan"}})
    sets = root / ("ImageSets/2017" if year == 2017 else "ImageSets/480p")
    sets.mkdir(parents=True, exist_ok=True)
    (sets / "train.txt").write_text("\n".join([name for name, _ in known] if year == 2017 else lines) + "\n")
    names = {DAVIS_SHOWN.get(o, o) for objects in semantics.values() for o in objects.values()} | {"swan"}
    return World(
        root=root,
        format="davis",
        names=tuple(sorted(names)),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"davis:{key}" for key in listed},
        kind="clip",
    )


VOS_VIDEOS: tuple[tuple[str, ...], ...] = (
    ("dog", "person"),
    ("person", "person", "others"),
    ("surfboard", "dog", "zebra"),
    ("giant_panda",),
)


def youtube_vos(root: Path, videos: int = 3, frames: int = 5, seed: int = 0, subset: str = "train") -> World:
    """YouTube-VOS: palette masks of every 5th frame, `others` is no name, meta.json claims frames in which the third
    object is not seen any more."""
    part = {"train": "train", "validation": "valid", "test": "test"}[subset]
    listed, truth, void, present, meta = {}, {}, {}, {}, {}
    for place in range(videos):
        video = f"{0x0F1E2D3C4B + 0x1111111 * place:010x}"
        objects = VOS_VIDEOS[place % len(VOS_VIDEOS)]
        paths, planes = [], []
        for time in range(frames):
            plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for number in range(len(objects)):
                plane[_moving(number, time, seed + 50 + place)] = number + 1
            path = f"{part}/JPEGImages/{video}/{5 * time:05d}.jpg"
            jpeg(root / path, [plane == number for number in range(1, 4)], seed)
            palette_png(root / part / "Annotations" / video / f"{5 * time:05d}.png", plane)
            paths.append(path)
            planes.append(plane)
        stack = np.stack(planes)
        shown = {o: o.replace("_", " ") for o in objects if o != "others"}
        tracks = {
            n: np.isin(stack, [i + 1 for i, other in enumerate(objects) if shown.get(other) == n])
            for n in sorted(set(shown.values()))
        }
        claimed = [f"{5 * time:05d}" for time in range(frames)]
        meta[video] = {"objects": {str(i + 1): {"category": name, "frames": claimed} for i, name in enumerate(objects)}}
        listed[video] = tuple(paths)
        truth[video] = {name: masks for name, masks in tracks.items() if masks.any()}
        void[video] = np.isin(stack, [i + 1 for i, other in enumerate(objects) if other == "others"])
        present[video] = frozenset(tracks)
    write_json(root / part / "meta.json", {"videos": meta})
    return World(
        root=root,
        format="youtube-vos",
        names=tuple(sorted(set().union(*present.values()))),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"youtube-vos:{key}" for key in listed},
        kind="clip",
    )


BUILDERS: Mapping[str, Callable[..., World]] = {
    "coco": coco,
    "lvis": lvis,
    "ade20k": ade20k,
    "ade20k-150": ade20k_150,
    "davis": davis,
    "youtube-vos": youtube_vos,
}
"""Format -> the function that writes its world: `BUILDERS["davis"](tmp_path)`."""


def pixels(path: Path) -> npt.NDArray[Any]:
    """What a picture file stores, by Pillow: grey values, palette indices, or RGB."""
    with Image.open(path) as picture:
        return np.array(picture)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of a picture file, by Pillow."""
    with Image.open(path) as picture:
        return picture.height, picture.width


def decoded(counts: str, height: int, width: int) -> Mask:
    """The mask of compressed RLE counts, read digit by digit as COCO's maskApi.c describes them."""
    runs: list[int] = []
    value = place = 0
    for character in counts:
        digit = ord(character) - 48
        value |= (digit & 31) << (5 * place)
        place += 1
        if not digit & 32:
            if digit & 16:
                value -= 1 << (5 * place)
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = place = 0
    assert sum(runs) == height * width
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def png_bytes(plane: npt.NDArray[Any]) -> bytes:
    """A grey or RGB array as PNG bytes."""
    sink = io.BytesIO()
    Image.fromarray(plane).save(sink, format="PNG")
    return sink.getvalue()


def assert_read(world: World, survey: Survey, reader: Source, root: Folder | None = None) -> None:
    """Fail unless `survey` and `reader` tell of the world just what it says of itself.

    Compared are names, records, every pixel of every mask, and presence. root: where the files are read; default:
    world.root.
    """
    root = root or Folder.at(world.root)
    names = [category.name for category in survey.categories]
    assert sorted(names) == list(world.names)
    assert {item.id: item.group for item in survey.items} == dict(world.groups)
    assert survey.exhaustive == world.exhaustive
    for place, item in enumerate(survey.items):
        record = survey.record(place)
        assert (record.id, record.group, record.frames) == (item.id, item.group, world.frames[item.id])
        frames = range(len(record.frames))
        ((height, width),) = {size_of(world.root / path) for path in record.frames}
        assert (record.height, record.width) in {(0, 0), (height, width)}
        scene = reader.scene(root, record, names, list(frames), (height, width))
        assert (scene.height, scene.width, scene.annotated) == (height, width, record.annotated)
        for told, kept in (
            (scene.segments, world.truth),
            (scene.ignored, world.ignored),
            (scene.incomplete, world.incomplete),
        ):
            expected = kept.get(item.id, {})
            assert set(told) == set(expected), item.id
            for name, track in told.items():
                assert_track(track, expected[name], f"{item.id}: {name}")
        void = world.void.get(item.id, np.zeros((len(record.frames), height, width), dtype=bool))
        assert_track(scene.void, void, f"{item.id}: void")
        assert scene.seen == world.present[item.id], item.id
        assert scene.absent == world.absent.get(item.id, frozenset()), item.id
        marked = {names[i] for i in (*record.masked, *record.ignored, *record.incomplete, *record.elsewhere)}
        assert marked == world.present[item.id], item.id


def assert_track(track: Sequence[str | None], masks: Mask, what: str) -> None:
    """Fail unless the counts of `track` are exactly `masks`; an empty mask is None."""
    assert len(track) == len(masks), what
    for time, (counts, mask) in enumerate(zip(track, masks, strict=True)):
        assert (counts is None) == (not mask.any()), f"{what}, frame {time}"
        if counts is not None:
            found = decoded(counts, *mask.shape)
            assert np.array_equal(found, mask), f"{what}, frame {time}: {int((found != mask).sum())} pixels differ"


def assert_order_free(root: Path, reader: Source, monkeypatch: Any) -> None:
    """Fail if the survey of `root` depends on the order in which a folder's files are listed."""
    folder = Folder.at(root)
    before = reader.survey(folder)
    plain = Folder.list

    def reverse(self: Folder, rel: str = "", *, depth: int | None = None) -> dict[str, int]:
        return dict(reversed(plain(self, rel, depth=depth).items()))

    monkeypatch.setattr(Folder, "list", reverse)
    after = reader.survey(folder)
    assert after.categories == before.categories
    told = [
        sorted((survey.record(place) for place in range(len(survey.items))), key=lambda r: r.id)
        for survey in (before, after)
    ]
    assert told[0] == told[1]
    assert sorted(after.folders) == sorted(before.folders)
    assert sorted(after.files) == sorted(before.files)
    assert dict(after.listing) == dict(before.listing)
