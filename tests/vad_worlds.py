"""Tiny anomaly benchmarks in the layouts that the owners publish: a grey scene of 24 x 32, a bright square on the
anomalous frames of some of its videos.

`make(name, root)` writes the set `name` of `lavida.benchmarks` and says what its readers must find.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import h5py
import numpy as np
import numpy.typing as npt
import scipy.io
from PIL import Image

from aesampler import video

HEIGHT, WIDTH = 24, 32
Array = npt.NDArray[np.uint8]
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A made video. masks: bool [T, H, W]; a frame is anomalous where its mask has a pixel."""

    name: str
    masks: Bits

    @property
    def labels(self) -> Array:
        return np.asarray(self.masks.any(axis=(1, 2)), dtype=np.uint8)

    @property
    def frames(self) -> Array:
        """uint8 [T, H, W, 3]; every frame has a grey of its own, so that order shows."""
        grey = 40 + 2 * np.arange(len(self.masks))[:, None, None]
        return np.repeat(np.where(self.masks, 250, grey).astype(np.uint8)[..., None], 3, axis=3)


@dataclass(frozen=True, kw_only=True)
class World:
    """What a set holds. pixels: whether it has masks; classes: video -> its class; lossless: frames come back as made;
    faults: what `check` says, as the set is a small one.
    """

    name: str
    root: Path
    clips: dict[str, Clip]
    pixels: bool = False
    lossless: bool = False
    classes: dict[str, str] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


def clip(name: str, length: int, anomalous: Iterable[int] = ()) -> Clip:
    """A video with a square of 6 x 8 pixels on some frames, a little further right on each."""
    masks = np.zeros((length, HEIGHT, WIDTH), dtype=np.bool_)
    for frame in anomalous:
        left = 2 + frame % 16
        masks[frame, 8:14, left : left + 8] = True
    return Clip(name=name, masks=masks)


def make(name: str, root: Path) -> World:
    """Write the set; root need not be there."""
    root.mkdir(parents=True, exist_ok=True)
    return _MAKERS[name](root)


def write_pictures(folder: Path, frames: Iterable[Array], pattern: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / (pattern % number))


def write_mp4(path: Path, frames: Sequence[Array] | Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as sink:
        video.write(sink, frames, fps=25)


def write_avi(path: Path, frames: Iterable[Array]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def ped2(root: Path, *, told: bool = False) -> World:
    """Two videos of grey .tif, with the hidden files of a Mac's archive; told: with the owners' list of frames."""
    clips = [clip("Test001", 7, range(3, 7)), clip("Test002", 5, range(5))]
    test = root / "Test"
    for each in clips:
        write_pictures(test / each.name, each.frames[..., 0], "%03d.tif")
        write_pictures(test / f"{each.name}_gt", each.masks.astype(np.uint8) * 255, "%03d.bmp")
        (test / each.name / "._001.tif").write_bytes(b"\0" * 8)
        (test / f"{each.name}_gt" / "._001.bmp").write_bytes(b"\0" * 8)
    (test / ".DS_Store").write_bytes(b"\0")
    if told:
        lines = [
            "TestVideoFile = {};",
            *(f"TestVideoFile{{end+1}}.gt_frame = {told};" for told in ("[4:7]", "[1:2, 4]")),
        ]
        (test / "UCSDped2.m").write_text("\n".join(lines) + "\n")
    return _world("ped2", root, clips, pixels=True, lossless=True, faults=("2 videos of 12",))


def avenue(root: Path) -> World:
    """Two videos, avi, and their volLabel files."""
    clips = [clip("01", 6, [2, 3]), clip("12", 4)]
    for each in clips:
        write_avi(root / "testing_videos" / f"{each.name}.avi", each.frames)
        write_volume(root / "testing_label_mask" / f"{int(each.name)}_label.mat", each.masks)
    return _world("avenue", root, clips, pixels=True, faults=("2 videos of 21",))


def write_volume(path: Path, masks: Bits) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.empty((1, len(masks)), dtype=object)
    for place, mask in enumerate(masks):
        cells[0, place] = mask.astype(np.uint8)
    scipy.io.savemat(path, {"volLabel": cells})


def shanghaitech(root: Path, clips: Sequence[Clip] | None = None) -> World:
    """Three videos of jpg, frame and pixel masks."""
    clips = clips or [clip("01_0014", 9, range(2, 6)), clip("03_0031", 5, [4]), clip("05_0017", 4)]
    for each in clips:
        write_pictures(root / "testing" / "frames" / each.name, each.frames, "%03d.jpg")
        for kind, array in (("frame", each.labels), ("pixel", each.masks.astype(np.uint8))):
            folder = root / "testing" / f"test_{kind}_mask"
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{each.name}.npy", array)
    return _world("shanghaitech", root, clips, pixels=True, faults=(f"{len(clips)} videos of 107",))


def ubnormal(root: Path) -> World:
    """Two abnormal videos and a normal one. Track 1 is anomalous at times, 2 never; both are drawn in every frame."""
    clips = [
        clip("abnormal_scene_1_scenario_2", 8, [3, 4, 5, 7]),
        clip("abnormal_scene_2_scenario_1_fog", 4, range(4)),
        clip("normal_scene_1_scenario_3", 5),
    ]
    for each in clips:
        scene = root / f"Scene{each.name.split('_')[2]}"
        write_mp4(scene / f"{each.name}.mp4", each.frames)
        if each.name.startswith("abnormal"):
            _write_tracks(scene / f"{each.name}_annotations", each)
    names = [each.name for each in clips]
    (root / "scripts").mkdir()
    for kind in ("abnormal", "normal"):
        listed = [name for name in names if name.startswith(kind)]
        (root / "scripts" / f"{kind}_test_video_names.txt").write_text("\n".join(listed))
    return _world("ubnormal", root, clips, pixels=True, faults=("3 videos of 211",))


def _write_tracks(folder: Path, each: Clip) -> None:
    folder.mkdir()
    runs = np.flatnonzero(np.diff(np.concatenate([[0], each.labels, [0]]).astype(int))).reshape(-1, 2)
    lines = [f"1,{start},{end - 1}" for start, end in runs]
    (folder / f"{each.name}_tracks.txt").write_text("\n".join(lines) + "\n")
    for place, mask in enumerate(each.masks):
        plane = mask.astype(np.uint8)
        plane[:3, :3] = 2
        if not mask.any():
            plane[20:, 20:] = 1  # the object is there and does nothing wrong
        Image.fromarray(plane).save(folder / f"{each.name}_{place:04d}_gt.png")


def ubnormal_abnormal(root: Path) -> World:
    """The same files, read by the other protocol."""
    whole = ubnormal(root)
    clips = [each for name, each in whole.clips.items() if name.startswith("abnormal")]
    return _world("ubnormal-abnormal", root, clips, pixels=True, faults=("2 videos of 158",))


def ucf_crime(root: Path) -> World:
    """Two anomalous videos, one of them told past its end, and a normal one that lies in two archives."""
    clips = [
        clip("Arson011_x264", 12, [1, 2, 3, 8, 9]),
        clip("RoadAccidents001_x264", 6, [4, 5]),
        clip("Normal_Videos_003_x264", 5),
    ]
    lines = ["Arson011_x264.mp4  Arson  2  4  9  10  ", "RoadAccidents001_x264.mp4  RoadAccidents  5  90  -1  -1  "]
    lines.append("Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  ")
    (root / "Temporal_Anomaly_Annotation_for_Testing_Videos.txt").write_text("\n".join(lines) + "\n")
    write_mp4(root / "Anomaly-Videos-Part-1/Arson/Arson011_x264.mp4", clips[0].frames)
    write_mp4(root / "Anomaly-Videos-Part-3/RoadAccidents/RoadAccidents001_x264.mp4", clips[1].frames)
    write_mp4(root / "Testing_Normal_Videos_Anomaly/Normal_Videos_003_x264.mp4", clips[2].frames)
    write_mp4(root / "Normal_Videos_event/Normal_Videos_003_x264.mp4", clips[2].frames[:2])
    write_mp4(root / "Anomaly-Videos-Part-1/Arson/Arson001_x264.mp4", clips[0].frames[:3])  # a training video
    classes = {"Arson011_x264": "arson", "RoadAccidents001_x264": "road accidents"}
    return _world("ucf-crime", root, clips, classes=classes, faults=("3 videos of 290",))


def xd_violence(root: Path) -> World:
    """Two annotated videos and one that is not listed, which is normal."""
    clips = [
        clip("A.Film.2002__#01-24-10_01-25-10_label_B2-0-0", 9, [1, 2, 6]),
        clip("v=abc__#1_label_A", 4),
        clip("v=abc__#1_label_B1-G-0", 6, [5]),
    ]
    (root / "annotations.txt").write_text(f"{clips[2].name} 5 70\n{clips[0].name} 1 3 6 7")
    for each in clips:
        write_mp4(root / "videos" / f"{each.name}.mp4", each.frames)
    return _world("xd-violence", root, clips, classes={clips[0].name: "shooting"}, faults=("3 videos of 800",))


def c_sht(root: Path) -> World:
    """All eleven classes, one of them in two videos; a video of two classes is left out."""
    kinds = (
        *("bicycle", "hand truck", "bicycle", "car", "skateboarding", "throwing", "running", "loitering", "jumping"),
        *("falling", "fighting", "motorcycle"),
    )
    clips = [clip(f"01_{number:04d}", 4 + number % 3, range(number % 4, 4)) for number in range(1, len(kinds) + 1)]
    several = clip("08_0058", 4, [1])
    shanghaitech(root, [*clips, several])
    classes = dict(zip((each.name for each in clips), kinds, strict=True))
    _write_classes(root / "ground_truth", "shtech", clips, classes, {"running-bicycle": [several.name]})
    return _world("c-sht", root, clips, classes=classes, faults=("12 videos of 96",))


def c_ave(root: Path) -> World:
    """All five classes, frames of avi files."""
    clips = [clip(f"{number:02d}", 3 + number, [number % 3]) for number in range(1, 6)]
    for each in clips:
        write_avi(root / "testing_videos" / f"{each.name}.avi", each.frames)
    kinds = ("throwing", "running", "dancing", "too close", "bicycle")
    classes = dict(zip((each.name for each in clips), kinds, strict=True))
    _write_classes(root, "avenue", clips, classes, {})
    return _world("c-ave", root, clips, classes=classes, faults=("5 videos of 18",))


def _write_classes(
    folder: Path, prefix: str, clips: Sequence[Clip], classes: dict[str, str], several: dict[str, list[str]]
) -> None:
    files = folder / f"c-{prefix}_labels"
    files.mkdir(parents=True)
    (folder / f"c-{prefix}-multiple.json").write_text(json.dumps(several))
    kinds = {kind.replace(" ", "_"): [name for name in classes if classes[name] == kind] for kind in classes.values()}
    (folder / f"c-{prefix}.json").write_text(json.dumps(kinds))
    for kind, names in kinds.items():
        with h5py.File(files / f"{prefix}_{kind}_label.h5", "w") as file:
            for each in clips:
                file[each.name] = each.labels * np.uint8(each.name in names)


def folder(root: Path) -> World:
    """A user's folder: an mp4 in a subfolder, an avi, a folder of pictures that the CSV does not list."""
    clips = [
        clip("gate/monday.mp4", 10, [2, 3, 7]),
        clip("gate/pictures", 4),
        clip("tuesday.avi", 6, [4, 5]),
        clip("wednesday.mp4", 3),
    ]
    write_mp4(root / clips[0].name, clips[0].frames)
    write_pictures(root / clips[1].name, clips[1].frames, "%d.png")
    write_avi(root / clips[2].name, clips[2].frames)
    write_mp4(root / clips[3].name, clips[3].frames)
    lines = ["video,start,end,class", "gate/monday.mp4,2,4,bicycle", "gate/monday.mp4, 7, 8, person falling"]
    lines += ["tuesday,4,99,bicycle", "wednesday.mp4,,,"]
    (root / "intervals.csv").write_text("\n".join(lines) + "\n")
    return _world("folder", root, clips, classes={"tuesday.avi": "bicycle"})


def _world(name: str, root: Path, clips: Iterable[Clip], **told: object) -> World:
    return World(name=name, root=root, clips={each.name: each for each in clips}, **told)  # type: ignore[arg-type]


_MAKERS = {
    "ped2": ped2,
    "avenue": avenue,
    "shanghaitech": shanghaitech,
    "ubnormal": ubnormal,
    "ubnormal-abnormal": ubnormal_abnormal,
    "ucf-crime": ucf_crime,
    "xd-violence": xd_violence,
    "c-sht": c_sht,
    "c-ave": c_ave,
    "folder": folder,
}
