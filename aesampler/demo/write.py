"""The demo world as two datasets on disk, in the official layouts, so that the ordinary sources read them.

FOLDER/coco: annotations/instances_train2017.json, train2017/%012d.jpg. Masks are compressed RLE, for polygons would not
be exact; crowds are RLE as lists. FOLDER/youtube-vos/train: meta.json, JPEGImages/V/%05d.jpg, Annotations/V/%05d.png.
Masks are palette PNGs, a number an object. FOLDER/world.json: what the world was made from, and the counts.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from aesampler import image, masks
from aesampler.demo.paint import Pixels, backdrop, paint
from aesampler.demo.shapes import NAMES, parts
from aesampler.demo.world import Size, clip, picture
from aesampler.errors import CorpusError, RecipeError

VERSION = 1
SIZE = Size(192, 256)
JPEG_QUALITY = 92
FIRST_ID = 900_000_001  # COCO's own end at 581,929: no picture of this world is taken for one of COCO's
FRAME_STEP = 5  # YouTube-VOS marks every 5th frame, and its train set holds those only
LICENSE = "CC0-1.0"


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What was written. size: height and width in pixels. frames: of all videos.

    objects: annotations of the pictures and objects of the videos.
    """

    version: int
    seed: int
    size: tuple[int, int]
    names: tuple[str, ...]
    images: int
    videos: int
    frames: int
    objects: int


def write_world(
    folder: Path,
    *,
    images: int = 240,
    videos: int = 24,
    frames: int = 24,
    size: Size = SIZE,
    seed: int = 44,
    names: Sequence[str] = NAMES,
) -> World:
    """Write the world into `folder`, which must be new or empty; the same world already there is left as it is.

    frames: of each video. names: only these occur and are listed as categories, with the ids that they have among all
    48. More pictures or videos change nothing of the first ones. Raises RecipeError for numbers or names that make no
    world, CorpusError where the folder holds something else.
    """
    _check(images, videos, frames, size, names)
    listed = tuple(name for name in NAMES if name in set(names))
    asked = World(
        version=VERSION,
        seed=seed,
        size=(size.height, size.width),
        names=listed,
        images=images,
        videos=videos,
        frames=videos * frames,
        objects=0,
    )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return _same(folder, asked)
    return _write(folder, asked, frames)


def _check(images: int, videos: int, frames: int, size: Size, names: Sequence[str]) -> None:
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise RecipeError(
            "not a name of the demo world", got=", ".join(unknown[:5]), allowed=f"look and shape, as in {NAMES[0]!r}"
        )
    if len(set(names)) < 2:
        raise RecipeError("a world needs two names, or nothing could be irrelevant", got=len(set(names)))
    if images < 0 or videos < 0 or images + videos == 0 or frames < 1:
        raise RecipeError("a world needs pictures or videos", got=f"images {images}, videos {videos}, frames {frames}")
    if min(size) < 32 or max(size) > 4096:
        raise RecipeError(
            "pictures of this size cannot be drawn", got=f"{size.height} x {size.width}", allowed="32 to 4096 pixels"
        )


def _write(folder: Path, asked: World, frames: int) -> World:
    part = folder.with_name(f".{folder.name}.partial")
    if part.exists():  # of a run that was cut off
        shutil.rmtree(part)
    part.mkdir(parents=True)
    objects = _write_coco(part / "coco", asked) + _write_youtube(part / "youtube-vos", asked, frames)
    world = msgspec.structs.replace(asked, objects=objects)
    (part / "world.json").write_bytes(msgspec.json.encode(world))
    part.rename(folder)
    return world


def _same(folder: Path, asked: World) -> World:
    try:
        there = msgspec.json.decode((folder / "world.json").read_bytes(), type=World)
    except (OSError, msgspec.DecodeError):
        there = None
    if there is None or msgspec.structs.replace(there, objects=0) != asked:
        raise CorpusError(
            "the folder holds something else than this world", where=str(folder), do="remove it or name another folder"
        )
    return there


def _write_coco(folder: Path, world: World) -> int:
    """Returns the number of annotations."""
    if not world.images:
        return 0
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    size, pictures, annotations = Size(*world.size), [], list[dict[str, Any]]()
    category = {name: number for number, name in enumerate(NAMES, 1)}
    for place in range(world.images):
        things = picture(world.seed, place, world.names, size)
        pixels, index = paint(backdrop(world.seed, "picture", place, size), things)
        file = f"{FIRST_ID + place:012d}.jpg"
        (folder / "train2017" / file).write_bytes(image.encode_jpeg(pixels, JPEG_QUALITY))
        pictures.append(
            {"id": FIRST_ID + place, "file_name": file, "height": size.height, "width": size.width, "license": 1}
        )
        for number in _numbers(index):
            thing = things[number - 1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": FIRST_ID + place,
                    "category_id": category[thing.name],
                    "iscrowd": int(thing.crowd),
                    **_region(index == number, as_list=thing.crowd),
                }
            )
    document = {
        "info": {"description": "aesampler demo world", "version": str(VERSION)},
        "licenses": [{"id": 1, "name": LICENSE}],
        "images": pictures,
        "annotations": annotations,
        "categories": [{"id": category[name], "name": name, "supercategory": parts(name)[1]} for name in world.names],
    }
    (folder / "annotations" / "instances_train2017.json").write_bytes(msgspec.json.encode(document))
    return len(annotations)


def _region(mask: npt.NDArray[np.bool_], *, as_list: bool) -> dict[str, Any]:
    """Segmentation, area and bounding box [x, y, width, height] of a mask that is not empty."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return {
        "segmentation": {"size": [height, width], "counts": _runs(mask) if as_list else masks.encode(mask)},
        "area": int(np.count_nonzero(mask)),
        "bbox": [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)],
    }


def _runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed form, which its crowds have: runs down the columns, outside and inside in turn."""
    flat = mask.ravel(order="F")
    turns = np.flatnonzero(np.diff(flat, prepend=False))
    return [int(length) for length in np.diff(turns, prepend=0, append=flat.size)]


def _write_youtube(folder: Path, world: World, frames: int) -> int:
    """Returns the number of objects of all videos."""
    if not world.videos:
        return 0
    meta = {}
    for place in range(world.videos):
        video = f"demo{place:06d}"
        meta[video] = {"objects": _write_video(folder / "train", video, world, place, frames)}
    (folder / "train" / "meta.json").write_bytes(msgspec.json.encode({"videos": meta}))
    return sum(len(video["objects"]) for video in meta.values())


def _write_video(folder: Path, video: str, world: World, place: int, frames: int) -> dict[str, dict[str, Any]]:
    """The frames and masks of one video; returns its objects, numbered from 1, without those that are never seen."""
    (folder / "JPEGImages" / video).mkdir(parents=True)
    (folder / "Annotations" / video).mkdir(parents=True)
    size = Size(*world.size)
    ways = clip(world.seed, place, world.names, size)
    ground = backdrop(world.seed, "clip", place, size)
    labels = [f"{frame * FRAME_STEP:05d}" for frame in range(frames)]
    planes = []
    for frame, label in enumerate(labels):
        pixels, index = paint(ground, [way.at(frame / max(frames - 1, 1)) for way in ways])
        (folder / "JPEGImages" / video / f"{label}.jpg").write_bytes(image.encode_jpeg(pixels, JPEG_QUALITY))
        planes.append(index)
    seen = [_numbers(index) for index in planes]
    ever = sorted(set().union(*seen))
    renumbered = np.zeros(len(ways) + 1, dtype=np.uint8)
    renumbered[ever] = np.arange(1, len(ever) + 1)
    for label, index in zip(labels, planes, strict=True):
        (folder / "Annotations" / video / f"{label}.png").write_bytes(_palette_png(renumbered[index]))
    return {
        str(renumbered[number]): {
            "category": ways[number - 1].name,
            "frames": [label for label, numbers in zip(labels, seen, strict=True) if number in numbers],
        }
        for number in ever
    }


def _numbers(index: Pixels) -> list[int]:
    """The things that an index plane shows."""
    return [int(number) for number in np.flatnonzero(np.bincount(index.ravel())) if number]


def _palette_png(index: Pixels) -> bytes:
    """A palette PNG whose indices are the object numbers, in the usual VOC colours."""
    picture = Image.fromarray(index)
    picture.putpalette(_PALETTE)
    sink = io.BytesIO()
    picture.save(sink, format="PNG")
    return sink.getvalue()


def _voc_colour(number: int) -> list[int]:
    """Bits 0, 1, 2 of the number, then 3, 4, 5, are the highest bits of red, green and blue."""
    return [sum((number >> (3 * depth + channel) & 1) << (7 - depth) for depth in range(3)) for channel in range(3)]


_PALETTE = [value for number in range(256) for value in _voc_colour(number)]
