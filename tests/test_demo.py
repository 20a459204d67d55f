"""The demo world: masks against plain geometry and pycocotools, bytes against pinned hashes; the bundled recipes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aesampler.demo import NAMES, Size, World, write_world
from aesampler.demo.paint import backdrop, paint
from aesampler.demo.shapes import COLOURS, SHAPES, parts
from aesampler.demo.world import Pose, Thing, clip, picture
from aesampler.errors import CorpusError, RecipeError
from aesampler.recipe import Recipe

# pycocotools' decode meets a change of numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = Size(96, 128)
PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures and 24 videos of 6 frames, at half the usual size."""
    made = tmp_path_factory.mktemp("demo") / "world"
    write_world(made, images=30, videos=24, frames=6, size=SIZE, seed=3)
    return made


# -- an oracle of the shapes: corners by sine and cosine, points inside by ray casting ---------------------------------


def _corners(shape: str) -> list[tuple[float, float]]:
    if shape == "square":
        return [(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)]
    if shape == "triangle":
        return [(1.14 * math.sin(k * math.tau / 3), -1.14 * math.cos(k * math.tau / 3)) for k in range(3)]
    if shape == "star":
        radii = (1.0, 0.45) * 5
        return [(r * math.sin(k * math.tau / 10), -r * math.cos(k * math.tau / 10)) for k, r in enumerate(radii)]
    a = 0.36
    quarter = [(a, -1.0), (a, -a), (1.0, -a), (1.0, a), (a, a), (a, 1.0)]
    return quarter + [(-x, -y) for x, y in quarter]


def _covers(thing: Thing, pose: Pose, height: int, width: int) -> np.ndarray:
    """Whether each pixel's centre lies in the shape: bool [height, width]."""
    shape = thing.name.split()[1]
    y, x = np.mgrid[:height, :width] + 0.5
    if shape in ("circle", "ring"):
        distance = np.hypot(x - pose.x, y - pose.y) / pose.radius
        return (distance <= 1.0) & (distance >= 0.44) if shape == "ring" else distance <= 1.0
    angle = 2.0 * math.atan(pose.tilt)
    turned = [
        (
            pose.x + pose.radius * (u * math.cos(angle) - v * math.sin(angle)),
            pose.y + pose.radius * (u * math.sin(angle) + v * math.cos(angle)),
        )
        for u, v in _corners(shape)
    ]
    inside = np.zeros((height, width), dtype=bool)
    for (x0, y0), (x1, y1) in pairwise([*turned, turned[0]]):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def _redrawn(things: list[Thing], size: Size) -> np.ndarray:
    """The index plane: in the order of painting, later things over earlier ones."""
    plane = np.zeros(size, dtype=np.uint8)
    for number, thing in enumerate(things, 1):
        for pose in thing.poses:
            plane[_covers(thing, pose, *size)] = number
    return plane


def _index_of_picture(coco: object, image_id: int, things: list[Thing]) -> np.ndarray:
    """The index plane that the annotations of a picture say, by pycocotools; they must not overlap."""
    plane = np.zeros(SIZE, dtype=np.uint8)
    left = list(enumerate(things, 1))
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image_id])):  # type: ignore[attr-defined]
        mask = coco.annToMask(annotation).astype(bool)  # type: ignore[attr-defined]
        name = coco.cats[annotation["category_id"]]["name"]  # type: ignore[attr-defined]
        while left[0][1].name != name or bool(left[0][1].crowd) != bool(annotation["iscrowd"]):
            left.pop(0)  # things that others hide wholly have no annotation
        assert not plane[mask].any()
        plane[mask] = left.pop(0)[0]
        assert annotation["area"] == mask.sum() > 0
        y, x = np.nonzero(mask)
        assert annotation["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
    return plane


@pytest.fixture(scope="module")
def coco(folder: Path) -> object:
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "coco/annotations/instances_train2017.json"))


def test_pictures_hold_what_geometry_says(folder: Path, coco: object) -> None:
    for place in range(30):
        things = picture(3, place, NAMES, SIZE)
        expected = _redrawn(things, SIZE)
        np.testing.assert_array_equal(_index_of_picture(coco, 900_000_001 + place, things), expected)


@pytest.mark.parametrize("frames", [6, 1])
def test_clips_hold_what_geometry_says(folder: Path, tmp_path: Path, frames: int) -> None:
    if frames == 1:  # things that are yet to enter are never seen, and have no number
        folder = tmp_path / "world"
        write_world(folder, images=0, videos=24, frames=1, size=SIZE, seed=3)
        assert not (folder / "coco").exists()
    root = folder / "youtube-vos/train"
    meta = json.loads((root / "meta.json").read_text())["videos"]
    assert sorted(meta) == sorted(path.name for path in (root / "JPEGImages").iterdir())
    never = 0
    for place in range(24):
        video, ways = f"demo{place:06d}", clip(3, place, NAMES, SIZE)
        planes = [_redrawn([way.at(frame / 5) for way in ways], SIZE) for frame in range(frames)]
        ever = sorted(set(np.unique(np.stack(planes))) - {0})
        never += len(ways) - len(ever)
        objects = meta[video]["objects"]
        assert [objects[str(k)]["category"] for k in range(1, len(ever) + 1)] == [ways[i - 1].name for i in ever]
        assert len(objects) == len(ever)
        for frame, plane in enumerate(planes):
            label = f"{5 * frame:05d}"
            with Image.open(root / "Annotations" / video / f"{label}.png") as stored:
                assert stored.mode == "P"
                index = np.asarray(stored)
            assert index.max() <= len(ever)
            for number, thing in enumerate(ever, 1):
                np.testing.assert_array_equal(index == number, plane == thing)
                assert (label in objects[str(number)]["frames"]) == bool((plane == thing).any())
            assert (root / "JPEGImages" / video / f"{label}.jpg").is_file()
    assert (never > 5) == (frames == 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_a_distance_near_its_edge(shape: str) -> None:
    """One step inwards or outwards of h changes it by h: what the smooth edges rely on."""
    y, x = np.mgrid[-1.3:1.3:261j, -1.3:1.3:261j]
    distance = SHAPES[shape](x, y)
    near = np.abs(distance) < 0.05
    slope = np.hypot(*np.gradient(distance, 0.01))[near]
    assert np.median(slope) == pytest.approx(1.0, abs=0.01)
    assert slope.max() < 1.1


def test_colours_are_seen_where_the_masks_are(folder: Path, coco: object) -> None:
    """In the JPEGs as they are stored, the mean colour of a thing is nearest to the colour that its name says."""
    tried = 0
    for annotation in coco.anns.values():  # type: ignore[attr-defined]
        look = parts(coco.cats[annotation["category_id"]]["name"])[0]  # type: ignore[attr-defined]
        if annotation["area"] < 60:
            continue
        mask = coco.annToMask(annotation).astype(bool)  # type: ignore[attr-defined]
        with Image.open(folder / f"coco/train2017/{annotation['image_id']:012d}.jpg") as stored:
            assert stored.size == (SIZE.width, SIZE.height)
            colour = np.asarray(stored)[mask].mean(axis=0)
        if look in COLOURS:
            apart = {
                name: np.abs(colour / colour.max() - np.array(rgb) / max(rgb)).sum() for name, rgb in COLOURS.items()
            }
            assert min(apart, key=apart.__getitem__) == look
            tried += 1
        else:
            assert np.ptp(colour) < 25  # black and white: no colour at all
    assert tried > 20


def test_the_same_world_from_the_same_seed(folder: Path, tmp_path: Path) -> None:
    """Masks, pictures and JSON before encoding, pinned: they must be the same on every machine."""
    files = ["coco/annotations/instances_train2017.json", "youtube-vos/train/meta.json", "world.json"]
    digest = hashlib.sha256()
    for file in files:
        digest.update((folder / file).read_bytes())
    for path in sorted((folder / "youtube-vos/train/Annotations").rglob("*.png")):
        with Image.open(path) as stored:
            digest.update(np.asarray(stored).tobytes())
    assert digest.hexdigest() == "94c68cea5bddaf80641b0b3d856c356cf8f323bca1fba2d95f18159b1cdcd971"
    pixels = hashlib.sha256()
    for place in range(8):
        pixels.update(paint(backdrop(3, "picture", place, SIZE), picture(3, place, NAMES, SIZE))[0].tobytes())
    assert pixels.hexdigest() == "d9e443b6c415be695e6dfd06657fd39ce36301f82b07981cc217df02e9b62bd2"
    write_world(tmp_path / "again", images=30, videos=24, frames=6, size=SIZE, seed=3)
    every = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert every == sorted(
        path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()
    )
    assert all((folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in every)


def test_fewer_pictures_are_the_first_ones(folder: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "small", images=4, videos=0, size=SIZE, seed=3)
    for path in (tmp_path / "small/coco/train2017").iterdir():
        assert path.read_bytes() == (folder / "coco/train2017" / path.name).read_bytes()
    assert not (tmp_path / "small/youtube-vos").exists()
    assert picture(4, 0, NAMES, SIZE) != picture(3, 0, NAMES, SIZE)


def test_every_name_occurs(folder: Path, coco: object) -> None:
    assert len(NAMES) == len(set(NAMES)) == 48
    shown = {coco.cats[a["category_id"]]["name"] for a in coco.anns.values()}  # type: ignore[attr-defined]
    assert shown == set(NAMES)
    meta = json.loads((folder / "youtube-vos/train/meta.json").read_text())["videos"]
    in_clips = {thing["category"] for video in meta.values() for thing in video["objects"].values()}
    assert len(in_clips) >= 44  # a thing that is always hidden is no object


def test_what_the_world_promises_of_its_contents() -> None:
    """2 to 5 things, several of one name, overlaps, crowds; in clips some enter, some leave, some hide others."""
    pictures = [picture(44, place, NAMES, Size(192, 256)) for place in range(240)]
    counts = [sum(not thing.crowd for thing in things) for things in pictures]
    assert set(counts) == {2, 3, 4, 5}
    assert sum(any(thing.crowd for thing in things) for things in pictures) in range(12, 40)
    assert sum(len({thing.name for thing in things}) < len(things) for things in pictures) > 60
    clips = [clip(44, place, NAMES, SIZE) for place in range(24)]
    seen = [[_redrawn([way.at(t)], SIZE).any() for t in (0.0, 0.5, 1.0)] for ways in clips for way in ways]
    assert sum(not first and middle for first, middle, _ in seen) > 5
    assert sum(middle and not last for _, middle, last in seen) > 5
    planes = [paint(np.zeros((*SIZE, 3)), [way.at(0.6) for way in ways])[1] for ways in clips]
    alone = [sum(int(_redrawn([way.at(0.6)], SIZE).any()) for way in ways) for ways in clips]
    assert sum(len(np.unique(plane)) - 1 < count for plane, count in zip(planes, alone, strict=True)) < 6
    hidden = [
        sum(int((_redrawn([way.at(0.6)], SIZE) > 0).sum()) for way in ways) > (plane > 0).sum()
        for ways, plane in zip(clips, planes, strict=True)
    ]
    assert sum(hidden) > 5


def test_names_held_out(tmp_path: Path) -> None:
    kept = tuple(name for name in NAMES if name not in ("red circle", "striped star"))
    world = write_world(tmp_path / "world", images=12, videos=4, frames=2, size=SIZE, names=kept[::-1])
    assert world.names == kept
    document = json.loads((tmp_path / "world/coco/annotations/instances_train2017.json").read_text())
    ids = {category["id"]: category["name"] for category in document["categories"]}
    assert ids == {NAMES.index(name) + 1: name for name in kept}
    assert {annotation["category_id"] for annotation in document["annotations"]} <= set(ids)
    assert "red circle" not in (tmp_path / "world/youtube-vos/train/meta.json").read_text()


def test_a_world_that_is_there_is_left_alone(folder: Path, tmp_path: Path) -> None:
    stamp = (folder / "world.json").stat().st_mtime_ns
    world = write_world(folder, images=30, videos=24, frames=6, size=SIZE, seed=3)
    assert (folder / "world.json").stat().st_mtime_ns == stamp
    assert isinstance(world, World)
    document = json.loads((folder / "coco/annotations/instances_train2017.json").read_text())
    meta = json.loads((folder / "youtube-vos/train/meta.json").read_text())["videos"]
    assert world.objects == len(document["annotations"]) + sum(len(video["objects"]) for video in meta.values())
    assert (world.images, world.videos, world.frames) == (30, 24, 144)
    with pytest.raises(CorpusError, match="something else"):
        write_world(folder, images=31, videos=24, frames=6, size=SIZE, seed=3)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/mine.txt").write_text("keep")
    with pytest.raises(CorpusError, match="remove it or name another folder"):
        write_world(tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_world_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / ".world.partial/coco").mkdir(parents=True)
    (tmp_path / ".world.partial/coco/rest.jpg").write_bytes(b"half")
    (tmp_path / "world").mkdir()  # empty: as good as none
    write_world(tmp_path / "world", images=1, videos=1, frames=1, size=SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]
    assert not list((tmp_path / "world").rglob("rest.jpg"))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"names": ("red circle", "pink circle")}, "not a name of the demo world; got pink circle"),
        ({"names": ("red circle",)}, "two names"),
        ({"images": 0, "videos": 0}, "needs pictures or videos"),
        ({"images": -1}, "needs pictures or videos"),
        ({"frames": 0}, "needs pictures or videos"),
        ({"size": Size(16, 256)}, "got 16 x 256"),
    ],
)
def test_what_makes_no_world(tmp_path: Path, asked: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        write_world(tmp_path / "world", **asked)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "splits"),
    [
        ("demo", {"shapes": ("train", "validation"), "shapes-clips": ("train", "validation")}),
        ("coco", {"coco": ("train", "validation")}),
        ("lvis", {"lvis": ("train", "validation")}),
        ("ade20k", {"ade20k": ("train", "validation")}),
        ("ade20k-150", {"ade20k-150": ("train", "validation")}),
        ("davis", {"davis": ("train", "validation")}),
        ("youtube-vos", {"youtube-vos": ("train", "validation")}),
    ],
)
def test_bundled_recipes_load(file: str, splits: dict[str, tuple[str, ...]]) -> None:
    recipe = Recipe.load(PIPELINES / f"{file}.yaml")
    assert recipe.name == file
    assert {entry.name: tuple(entry.shares) for entry in recipe.sources} == splits
    assert recipe.about.license
    assert recipe.about.date
    assert recipe.about.description
    genuine = {recipe.settings(entry).genuine for entry in recipe.sources}
    # The paper's rule, but in the demo: there an anomaly is seen among ordinary things.
    assert genuine == {(1, 2) if file == "demo" else "one" if file.startswith("ade20k") else "all"}
    assert recipe.clips.model_dump() == {"frames": 8, "stride": 1, "every": 8}


def test_the_ordinary_sources_read_the_world(folder: Path) -> None:
    from aesampler.sources import load
    from aesampler.storage import Folder

    survey = load("coco").model_validate({}).survey(Folder.at(str(folder / "coco")))
    assert len(survey.items) == 30
    assert {category.name for category in survey.categories} == set(NAMES)
    assert any(survey.record(place).ignored for place in range(30))
    clips = load("youtube-vos").model_validate({}).survey(Folder.at(str(folder / "youtube-vos")))
    assert len(clips.items) == 24
    assert len(clips.record(0).frames) == 6
