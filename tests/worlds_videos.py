"""Tiny video datasets in their official layouts, in addition to those of worlds.py, whose rules hold here too."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import worlds
from PIL import Image
from worlds import HEIGHT, WIDTH, Mask, World

VSPW_TABLE = {
    "wall": "1",
    "door": "3",
    "others": "0",
    "ship_or_boat": "55",
    "person": "61",
    "Playground_slide": "7",
    "screen_or_television": "115",
    "train": "124",
}
VSPW_SHOWN = {
    1: "wall",
    3: "door",
    7: "playground slide",
    55: "ship",
    61: "person",
    115: "screen",
    124: "train",
}


def deep_png(path: Path, plane: npt.NDArray[Any]) -> None:
    """A 16-bit grey PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plane.astype(np.uint16)).save(path)


def write_video(
    path: Path,
    frames: Iterator[npt.NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    rate: int = 24,
    every: int = 12,
    fast: bool = False,
    x264: str = "",
    both_ways: int = 2,
) -> None:
    """A video file of uint8 [H, W, 3] frames, a key frame `every` so many frames, between two at most `both_ways`
    frames that are coded both ways. x264: more settings of that encoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    first = next(frames)
    options = ({"preset": "ultrafast"} if fast else {}) | ({"x264-params": x264} if x264 else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = first.shape[0], first.shape[1], "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = every, both_ways
        for frame in itertools.chain([first], frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def numbered(count: int, size: tuple[int, int] = (48, 64)) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames that say which they are: grey, brighter with time, the place in bits along the upper edge."""
    for place in range(count):
        frame = np.full((*size, 3), 40 + place % 100, dtype=np.uint8)
        for bit in range(8):
            frame[:8, 6 * bit : 6 * bit + 6] = 255 if place >> bit & 1 else 0
        yield frame


def number(frame: npt.NDArray[np.uint8]) -> int:
    """The place (modulo 256) that a frame of `numbered` says."""
    return sum(1 << bit for bit in range(8) if frame[2:6, 6 * bit + 2 : 6 * bit + 4].mean() > 128)


def shape(place: int, time: int, seed: int) -> Mask:
    """The mask of object `place` at `time`: it moves to the right; every third leaves the picture after a frame."""
    return worlds._moving(place, time, seed)


def _tracks(stack: npt.NDArray[Any], owners: Mapping[int, str]) -> dict[str, Mask]:
    """Name -> bool [T, H, W] of the values that it owns; names without a pixel are left out."""
    named = {name: np.isin(stack, [v for v, other in owners.items() if other == name]) for name in owners.values()}
    return {name: named[name] for name in sorted(named) if named[name].any()}


def vspw(root: Path, videos: int = 3, frames: int = 5, seed: int = 0, subset: str = "train") -> World:
    """VSPW: grey masks, two bands of wall and door, a moving ship, a person that leaves after the first frame, 0 below,
    255 in a corner. "playground slide" and "train" never occur.
    """
    part = {"train": "train", "validation": "val"}[subset]
    listed, truth, void, present = {}, {}, {}, {}
    for place in range(videos):
        video = f"{place}_{chr(97 + place)}Q-x_0"
        paths, planes = [], []
        for time in range(frames):
            plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            plane[:12] = 1
            if place % 2 == 0:
                plane[12:20] = 3
            plane[shape(place % 2, time, seed + place)] = 55
            plane[shape(2, time, seed + place)] = 61
            plane[35:, 50:] = 255
            path = f"data/{video}/origin/{time:08d}.jpg"
            worlds.jpeg(root / path, [plane == value for value in VSPW_SHOWN], seed)
            worlds.grey_png(root / f"data/{video}/mask/{time:08d}.png", plane)
            paths.append(path)
            planes.append(plane)
        stack = np.stack(planes)
        listed[video] = tuple(paths)
        truth[video] = _tracks(stack, VSPW_SHOWN)
        void[video] = np.isin(stack, (0, 255))
        present[video] = frozenset(truth[video])
    (root / f"{part}.txt").write_text("\n".join(listed) + "\n")
    worlds.write_json(root / "label_num_dic_final.json", VSPW_TABLE)
    return World(
        root=root,
        format="vspw",
        options={"void_limit": 1.0},
        names=tuple(sorted(VSPW_SHOWN.values())),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"vspw:{key}" for key in listed},
        kind="clip",
    )


def vipseg(root: Path, videos: int = 3, frames: int = 4, seed: int = 0, edition: str = "full") -> World:
    """VIPSeg: 16-bit masks. Wall is stuff (1), two persons are told apart (6101, 6102), a group of persons (61) stands
    beside them in the even videos; the odd ones have only the group. edition "720p" lies in a folder of its own, its
    lists and table beside it.
    """
    base, pictures = ("", "imgs") if edition == "full" else ("VIPSeg_720P/", "images")
    listed, truth, ignored, void, present = {}, {}, {}, {}, {}
    for place in range(videos):
        video = f"{1000 + place}_vV-{place}"
        paths, planes = [], []
        for time in range(frames):
            plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint16)
            plane[:10] = 1
            plane[30:, :8] = 61
            if place % 2 == 0:
                plane[shape(0, time, seed + place)] = 6101
                plane[shape(1, time, seed + place)] = 6102
                plane[shape(2, time, seed + place)] = 11500
            path = f"{base}{pictures}/{video}/{time:08d}.jpg"
            worlds.jpeg(root / path, [plane == value for value in (1, 61, 6101, 6102, 11500)], seed)
            deep_png(root / f"{base}panomasks/{video}/{time:08d}.png", plane)
            paths.append(path)
            planes.append(plane)
        stack = np.stack(planes)
        listed[video] = tuple(paths)
        truth[video] = _tracks(stack, {1: "wall", 6101: "person", 6102: "person", 11500: "screen"})
        ignored[video] = {"person": stack == 61}
        void[video] = stack == 0
        present[video] = frozenset(truth[video]) | {"person"}
    (root / "train.txt").write_text("\n".join(listed) + "\n")
    worlds.write_json(root / "label_num_dic_final.json", VSPW_TABLE)
    return World(
        root=root,
        format="vipseg",
        options={"void_limit": 1.0},
        names=tuple(sorted(VSPW_SHOWN.values())),
        frames=listed,
        truth=truth,
        ignored=ignored,
        void=void,
        present=present,
        exhaustive=True,
        groups={key: f"vspw:{key}" for key in listed},
        kind="clip",
    )


VIS_NAMES = {
    2019: {1: "person", 2: "giant_panda", 4: "sedan", 5: "ape", 6: "hand", 9: "eagle"},
    2021: {1: "airplane", 2: "bear", 5: "car", 9: "giant_panda", 20: "monkey", 26: "person"},
}
VIS_VIDEOS: dict[int, tuple[tuple[str, ...], ...]] = {
    2019: (("sedan", "person", "person"), ("giant_panda", "hand"), (), ("ape", "eagle", "ape")),
    2021: (("car", "person", "person"), ("giant_panda", "bear"), (), ("monkey", "airplane", "monkey")),
}
OVIS_NAMES = {1: "Person", 3: "Vehical", 5: "Giant_panda", 8: "Poultry"}
OVIS_VIDEOS: tuple[tuple[str, ...], ...] = (("Vehical", "Person", "Person"), ("Giant_panda", "Poultry"), ())


def youtube_vis(root: Path, videos: int = 4, frames: int = 4, seed: int = 0, year: int = 2019) -> World:
    """YouTube-VIS: run lengths as lists in 2019's file (train.json), as strings in 2021's (train/instances.json). The
    third object leaves, its segmentations are null then; the second video has a crowd, and a track that is null
    throughout; the third video no track. 2021's file has no iscrowd. valid.json has videos alone.
    """
    return _vis(
        root,
        [f"{0xA1B2C3D4E5 + 0x111 * place:010x}" for place in range(videos)],
        frames,
        seed,
        names=VIS_NAMES[year],
        objects=VIS_VIDEOS[year],
        pictures="train/JPEGImages",
        frame="{:05d}.jpg",
        path="train.json" if year == 2019 else "train/instances.json",
        strings=year == 2021,
        crowd=year == 2019,
        format="youtube-vis",
        group="youtube-vos",
    )


def ovis(root: Path, videos: int = 3, frames: int = 4, seed: int = 0) -> World:
    """OVIS: train/VIDEO/img_%07d.jpg, run lengths as strings, capitalised names."""
    return _vis(
        root,
        [f"{0x2FB1A:x}{place}" for place in range(videos)],
        frames,
        seed,
        names=OVIS_NAMES,
        objects=OVIS_VIDEOS,
        pictures="train",
        frame="img_{:07d}.jpg",
        path="annotations_train.json",
        strings=True,
        crowd=True,
        format="ovis",
        group="ovis",
    )


def vis_shown(name: str) -> str:
    """A category of YouTube-VIS and OVIS as it is shown."""
    return name.replace("Vehical", "vehicle").replace("_", " ").lower()


def _vis(
    root: Path,
    videos: Sequence[str],
    frames: int,
    seed: int,
    *,
    names: Mapping[int, str],
    objects: Sequence[Sequence[str]],
    pictures: str,
    frame: str,
    path: str,
    strings: bool,
    crowd: bool,
    format: str,
    group: str,
) -> World:
    ids = {name: number for number, name in names.items()}
    told, annotations = [], []
    listed, truth, ignored, present = {}, {}, {}, {}
    for place, video in enumerate(videos):
        own = objects[place % len(objects)]
        files = [f"{video}/{frame.format(5 * time)}" for time in range(frames)]
        entry = {"id": 7 + place, "width": WIDTH, "height": HEIGHT, "length": frames, "file_names": files}
        told.append({**entry, "license": 1, "coco_url": "", "flickr_url": ""})
        tracks = [
            (name, False, np.stack([shape(number, time, seed + place) for time in range(frames)]))
            for number, name in enumerate(own)
        ]
        if place % len(objects) == 1:
            mob = np.stack([worlds.rectangle(20, 0, 40, 12 + time) for time in range(frames)])
            tracks += [(own[0], crowd, mob), (names[1], False, np.zeros_like(mob))]
        for name, is_crowd, track in tracks:
            encode = worlds.string_rle if strings else worlds.list_rle
            annotation: dict[str, Any] = {
                "id": 1 + len(annotations),
                "video_id": 7 + place,
                "category_id": ids[name],
                "segmentations": [encode(mask) if mask.any() else None for mask in track],
                "bboxes": [[0, 0, 9, 9] if mask.any() else None for mask in track],
                "areas": [int(mask.sum()) if mask.any() else None for mask in track],
            }
            annotations.append({**annotation, "iscrowd": int(is_crowd)} if crowd else annotation)
        listed[video] = tuple(f"{pictures}/{file}" for file in files)
        for time, file in enumerate(listed[video]):
            worlds.jpeg(root / file, [track[time] for _, _, track in tracks], seed)
        for kept, kind in ((truth, False), (ignored, True)):
            kept[video] = {
                vis_shown(name): np.any([mask for other, c, mask in tracks if (other, c) == (name, kind)], axis=0)
                for name, c, track in tracks
                if c == kind and track.any()
            }
        present[video] = frozenset(vis_shown(name) for name, _, _ in tracks)
    categories = [{"supercategory": "object", "id": number, "name": name} for number, name in names.items()]
    body = {"info": {}, "licenses": [], "videos": told, "categories": categories}
    order = np.random.default_rng([seed, 3]).permutation(len(annotations))
    worlds.write_json(root / path, {**body, "annotations": [annotations[i] for i in order]})
    worlds.write_json(root / "valid.json", {**body, "annotations": None})
    worlds.write_json(root / "other.json", {"videos": {"a": 1}})
    return World(
        root=root,
        format=format,
        names=tuple(sorted(map(vis_shown, names.values()))),
        frames=listed,
        truth=truth,
        ignored=ignored,
        present=present,
        exhaustive=True,
        groups={key: f"{group}:{key}" for key in listed},
        kind="clip",
    )


PHRASES: tuple[tuple[tuple[str, int], ...], ...] = (
    (("A  Person on the left", 1), ("the dog", 2), ("a brown dog running", 2), ("an animal", 2)),
    (("a person", 1), ("a person", 2), ("the one in red ", 2), ("a dog that leaves", 3)),
    (("a person on the left", 1), ("a surfboard held by nobody", 2)),
)
"""Of three videos, who is spoken of by which phrase. The third video has a third object without a phrase; in the
second, one phrase is said of two objects."""


def said(text: str) -> str:
    """A phrase as it is shown."""
    return " ".join(text.lower().split())


def ref_youtube_vos(root: Path, videos: int = 3, frames: int = 4, seed: int = 0, subset: str = "train") -> World:
    """Ref-YouTube-VOS: palette masks of every 5th frame, the third object leaves after the first. The file of valid
    names no object and has a video of test too.
    """
    part = {"train": "train", "validation": "valid"}[subset]
    names = [f"{0x00F1E2D3C4 + 0x1111 * place:010x}" for place in range(videos)]
    world = _said(root, names, frames, seed, part=part, step=5, format="ref-youtube-vos", group="youtube-vos")
    bare = {"aa00": {"expressions": {"0": {"exp": "a cat"}}, "frames": ["00000"]}}
    if part == "train":
        worlds.write_json(
            root / "meta_expressions/valid/meta_expressions.json", {"videos": {**bare, "bb11": bare["aa00"]}}
        )
    worlds.write_json(root / "meta_expressions/test/meta_expressions.json", {"videos": bare})
    return world


def ref_davis(root: Path, videos: int = 3, frames: int = 4, seed: int = 0, texts: bool = False) -> World:
    """Ref-DAVIS17 in the form of Ref-YouTube-VOS, or, with texts, as published: four text files, one of them in
    latin-1, misspelt sequences, a sequence that no list has.
    """
    names = ["classic-car", "dogs-scale", "motorbike"][:videos]
    if not texts:
        return _said(root, names, frames, seed, part="train", step=1, format="ref-davis", group="davis")
    world = _said(
        root,
        names,
        frames,
        seed,
        part="DAVIS",
        step=1,
        format="ref-davis",
        group="davis",
        folders=("JPEGImages/480p", "Annotations_unsupervised/480p"),
    )
    spelt = {"classic-car": "clasic-car", "dogs-scale": "dog-scale", "motorbike": "motor-bike"}
    files: list[list[str]] = [[], [], [], ['zebra 1 "a zebra"']]
    for place, name in enumerate(names):
        for number, (text, owner) in enumerate(PHRASES[place % len(PHRASES)]):
            files[number % 4].append(f'{spelt[name]} {owner} "{text}"')
    for number, lines in enumerate(files):
        name = f"Davis17_annot{1 + number // 2}{'_full_video' if number % 2 else ''}.txt"
        (root / "davis_text_annotations").mkdir(exist_ok=True)
        body = "\n".join([*lines, ""])
        (root / "davis_text_annotations" / name).write_bytes(body.encode())
    path = root / "davis_text_annotations/Davis17_annot2.txt"
    path.write_bytes(path.read_bytes() + 'zebra 2 "caf\u00e9"\n'.encode("latin-1"))
    (root / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (root / "DAVIS/ImageSets/2017/train.txt").write_text("\n".join(names) + "\n")
    (root / "meta_expressions/DAVIS/meta_expressions.json").unlink()
    return world


def _said(
    root: Path,
    videos: Sequence[str],
    frames: int,
    seed: int,
    *,
    part: str,
    step: int,
    format: str,
    group: str,
    folders: tuple[str, str] = ("JPEGImages", "Annotations"),
) -> World:
    listed, truth, void, present, told = {}, {}, {}, {}, {}
    for place, video in enumerate(videos):
        phrases = PHRASES[place % len(PHRASES)]
        paths, stack = [], []
        for time in range(frames):
            plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for number in range(3):
                plane[shape(number, time, seed + place)] = number + 1
            plane[0, :5] = 255 if time == 1 else 0
            path = f"{part}/{folders[0]}/{video}/{step * time:05d}.jpg"
            worlds.jpeg(root / path, [plane == number for number in range(1, 4)], seed)
            worlds.palette_png(root / part / folders[1] / video / f"{step * time:05d}.png", plane)
            paths.append(path)
            stack.append(plane)
        planes = np.stack(stack)
        tracks = {
            name: np.isin(planes, [owner for text, owner in phrases if said(text) == name])
            for name in {said(text) for text, _ in phrases}
        }
        expressions = {str(i): {"exp": text, "obj_id": str(owner)} for i, (text, owner) in enumerate(phrases)}
        told[video] = {"expressions": expressions, "frames": [Path(path).stem for path in paths]}
        listed[video] = tuple(paths)
        truth[video] = {name: track for name, track in tracks.items() if track.any()}
        void[video] = planes == 255
        present[video] = frozenset(tracks)
    worlds.write_json(root / f"meta_expressions/{part}/meta_expressions.json", {"videos": told})
    return World(
        root=root,
        format=format,
        names=tuple(sorted(set().union(*present.values()))),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"{group}:{key}" for key in listed},
        kind="clip",
    )


MEVIS_PHRASES: tuple[tuple[tuple[str, tuple[int, ...]], ...], ...] = (
    (("The two that move  right", (0, 1)), ("the one that leaves", (2,)), ("moving slowly", (0,))),
    (("the two that move right", (0, 1, 2)), ("seen by nobody", (3,))),
    (("moving slowly", (1,)), ("flying away", ())),
)
"""Of three videos, which of its objects a phrase is said of. Object 3 is null in every frame."""


def mevis(root: Path, videos: int = 3, frames: int = 4, seed: int = 0, subset: str = "train") -> World:
    """MeViS: run lengths as strings, every frame; the third object leaves after the first frame; objects overlap. The
    last video has one frame. `valid` has phrases without objects, and no masks.
    """
    part = {"train": "train", "validation": "valid_u"}[subset]
    listed, truth, present, absent, told = {}, {}, {}, {}, {}
    masks: dict[str, list[Any]] = {}
    for place in range(videos):
        video = f"{0xAB12CD34 + place:012x}"
        count = 1 if place == videos - 1 else frames
        tracks = [np.stack([shape(number, t, seed + place) for t in range(count)]) for number in range(3)]
        tracks.append(np.zeros_like(tracks[0]))
        for number, track in enumerate(tracks):
            masks[str(10 * place + number)] = [worlds.string_rle(mask) if mask.any() else None for mask in track]
        phrases = MEVIS_PHRASES[place % len(MEVIS_PHRASES)]
        expressions = {
            str(i): {"exp": text, "obj_id": list(owners), "anno_id": [10 * place + owner for owner in owners]}
            for i, (text, owners) in enumerate(phrases)
        }
        paths = tuple(f"{part}/JPEGImages/{video}/{time:05d}.jpg" for time in range(count))
        for time, path in enumerate(paths):
            worlds.jpeg(root / path, [track[time] for track in tracks], seed)
        told[video] = {"expressions": expressions, "vid_id": place, "frames": [Path(path).stem for path in paths]}
        named = {said(text): np.any([tracks[owner] for owner in owners], axis=0) for text, owners in phrases if owners}
        listed[video] = paths
        truth[video] = {name: track for name, track in named.items() if track.any()}
        present[video] = frozenset(named)
        absent[video] = frozenset(said(text) for text, owners in phrases if not owners)
    worlds.write_json(root / part / "meta_expressions.json", {"videos": told})
    worlds.write_json(root / part / "mask_dict.json", masks)
    bare = {"ff": {"expressions": {"0": {"exp": "a cat"}}, "frames": ["00000"]}}
    worlds.write_json(root / "valid/meta_expressions.json", {"videos": bare})
    return World(
        root=root,
        format="mevis",
        names=tuple(sorted(set().union(*present.values(), *absent.values()))),
        frames=listed,
        truth=truth,
        present=present,
        absent=absent,
        exhaustive=False,
        groups={key: f"mevis:{key}" for key in listed},
        kind="clip",
    )


MOSE_VIDEOS: tuple[tuple[str | None, ...], ...] = (("dog", "dog", None), ("red car", "person", "person"))


def mose(root: Path, videos: int = 3, frames: int = 4, seed: int = 0) -> World:
    """MOSE: palette masks of every frame, three objects of which the third leaves; the names file gives one object no
    name, has a video that is not there, and lacks the last one, which is left out.
    """
    listed, truth, void, present, told = {}, {}, {}, {}, {}
    for place in range(videos):
        video = f"{0xBEEF00 + place:08x}"
        objects = MOSE_VIDEOS[place % len(MOSE_VIDEOS)]
        paths, stack = [], []
        for time in range(frames):
            plane = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
            for number in range(3):
                plane[shape(number, time, seed + place)] = number + 1
            path = f"train/JPEGImages/{video}/{time:05d}.jpg"
            worlds.jpeg(root / path, [plane == value for value in (1, 2, 3)], seed)
            worlds.palette_png(root / f"train/Annotations/{video}/{time:05d}.png", plane)
            paths.append(path)
            stack.append(plane)
        if place == videos - 1:
            continue
        planes = np.stack(stack)
        told[video] = {str(number + 1): name for number, name in enumerate(objects)}
        listed[video] = tuple(paths)
        truth[video] = _tracks(planes, {number + 1: name for number, name in enumerate(objects) if name})
        void[video] = np.isin(planes, [number + 1 for number, name in enumerate(objects) if name is None])
        present[video] = frozenset(name for name in objects if name)
    worlds.write_json(root / "names.json", {**told, "elsewhere": {"1": "cat"}})
    return World(
        root=root,
        format="mose",
        options={"names": "names.json"},
        names=tuple(sorted({*set().union(*present.values()), "cat"})),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"mose:{key}" for key in listed},
        kind="clip",
    )


def sa_v(root: Path, videos: int = 2, frames: int = 10, seed: int = 0, names: bool = True) -> World:
    """SA-V: mp4 and JSON side by side, masklets of every fourth frame as strings, all-zero where an object is not seen;
    objects 0 and 1 overlap and have one name, 2 leaves, 3 is never seen, 4 has no name. Another video has no names.
    """
    marked = range(0, frames, 4)
    listed, truth, void, present, told = {}, {}, {}, {}, {}
    for place in range(videos + 1):
        video, folder = f"sav_{place + 1:06d}", f"sav_{place:03d}"
        write_video(root / folder / f"{video}.mp4", numbered(frames, (HEIGHT, WIDTH)))
        tracks = [np.stack([shape(number, time // 4, seed + place) for time in marked]) for number in (0, 3, 2)]
        tracks += [np.zeros_like(tracks[0]), np.stack([worlds.rectangle(20, 0, 40, WIDTH) for _ in marked])]
        body = {
            "video_id": video,
            "video_frame_count": float(frames),
            "video_height": float(HEIGHT),
            "video_width": float(WIDTH),
            "masklet": [[worlds.string_rle(track[k]) for track in tracks] for k in range(len(marked))],
            "masklet_id": list(range(5)),
            "masklet_num": 5,
        }
        worlds.write_json(root / folder / f"{video}_manual.json", body)
        if place == videos:
            continue
        pet = ("dog", "zebra")[place % 2]
        owners = {0: pet, 1: pet, 2: "bird", 3: "kite"}
        told[video] = {str(number): name for number, name in owners.items()} | ({"4": None} if place % 2 else {})
        named = {pet: tracks[0] | tracks[1], "bird": tracks[2]}
        listed[video] = tuple(f"{folder}/{video}.mp4/{time:05d}.ppm" for time in marked)
        truth[video] = {name: track for name, track in named.items() if track.any()}
        void[video] = tracks[4] & ~np.any(list(named.values()), axis=0)
        present[video] = frozenset(owners.values())
    if names:
        worlds.write_json(root / "names.json", told)
    return World(
        root=root,
        format="sa-v",
        options={"names": "names.json"},
        names=("bird", "dog", "kite", "zebra"),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"sa-v:{key}" for key in listed},
        kind="clip",
    )


def sa_v_val(root: Path, videos: int = 3, frames: int = 9, seed: int = 0) -> World:
    """SA-V's val: every frame a JPEG, every fourth marked by one binary PNG an object; object 2 has no mask in the
    first marked frame, object 1 no name. The last video is not in the list, the one before it has no names.
    """
    marked = range(0, frames, 4)
    listed, truth, void, present, told = {}, {}, {}, {}, {}
    for place in range(videos + 1):
        video = f"sav_{50000 + place:06d}"
        tracks = [np.stack([shape(number, time // 4, seed + place) for time in marked]) for number in (0, 1, 2)]
        for time in range(frames):
            worlds.jpeg(root / f"sav_val/JPEGImages_24fps/{video}/{time:05d}.jpg", [], seed)
        for number, track in enumerate(tracks):
            for k, time in enumerate(marked):
                if (number, k) == (2, 0):
                    continue
                path = root / f"sav_val/Annotations_6fps/{video}/{number:03d}/{time:05d}.png"
                worlds.palette_png(path, track[k]) if place % 2 else worlds.grey_png(path, track[k] * 255)
        tracks[2][0] = False
        if place < videos - 1:
            told[video] = {"0": f"pet {place}", "1": None, "2": "bird"}
            listed[video] = tuple(f"sav_val/JPEGImages_24fps/{video}/{time:05d}.jpg" for time in marked)
            named = {f"pet {place}": tracks[0], "bird": tracks[2]}
            truth[video] = {name: track for name, track in named.items() if track.any()}
            void[video] = tracks[1] & ~tracks[0] & ~tracks[2]
            present[video] = frozenset(named)
    ids = [f"sav_{50000 + place:06d}" for place in range(videos)]
    (root / "sav_val/sav_val.txt").write_text("\n".join(ids) + "\n")
    worlds.write_json(root / "names.json", told)
    return World(
        root=root,
        format="sa-v",
        options={"names": "names.json", "split": "validation"},
        names=tuple(sorted(set().union(*present.values()))),
        frames=listed,
        truth=truth,
        void=void,
        present=present,
        exhaustive=False,
        groups={key: f"sa-v:{key}" for key in listed},
        kind="clip",
    )


BUILDERS: Mapping[str, Callable[..., World]] = {
    "vspw": vspw,
    "vipseg": vipseg,
    "youtube-vis": youtube_vis,
    "ovis": ovis,
    "ref-youtube-vos": ref_youtube_vos,
    "ref-davis": ref_davis,
    "mevis": mevis,
    "mose": mose,
    "sa-v": sa_v,
}
"""Format -> the function that writes its world."""


def planes(folder: Path, names: Sequence[str]) -> npt.NDArray[Any]:
    """The raw masks NAME.png of a folder, [T, H, W], by Pillow."""
    return np.stack([worlds.pixels(folder / f"{name}.png") for name in names])
