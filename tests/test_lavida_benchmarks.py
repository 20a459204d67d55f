"""The readers of the benchmarks: made sets of every layout, what is wrong with them, and the owners' real labels."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import vad_worlds
from hypothesis import given
from hypothesis import strategies as st
from vad_worlds import World

from aesampler import video
from aesampler.errors import AesamplerError, BadRecord, RecipeError, SourceError
from lavida.benchmarks import NAMES, Benchmark, check, find, open_benchmark
from lavida.benchmarks.intervals import Span, labelled, parse_csv, parse_tracks, parse_ucf, parse_xd
from lavida.benchmarks.ped2 import parse_frames
from lavida.metrics import PixelAuc, frame_auc


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    root = tmp_path_factory.mktemp("worlds")
    return {name: vad_worlds.make(name, root / name) for name in NAMES}


@pytest.fixture(params=NAMES)
def world(request: pytest.FixtureRequest, worlds: dict[str, World]) -> World:
    return worlds[request.param]


def opened(world: World) -> Benchmark:
    return open_benchmark(world.name, world.root)


# -- what every reader says ------------------------------------------------------------------------------------------


def test_every_video_comes_with_its_frames_and_labels(world: World) -> None:
    benchmark = opened(world)
    assert sorted(benchmark.names()) == sorted(world.clips)
    for each in benchmark.videos():
        made = world.clips[each.name]
        assert each.length == len(made.masks) == len(each.frames)
        assert each.labels.dtype == np.uint8
        assert each.labels.tolist() == made.labels.tolist()
        frames = list(each.frames())
        assert all(frame.dtype == np.uint8 and frame.shape == (24, 32, 3) for frame in frames)
        if world.lossless:
            assert np.array_equal(frames, made.frames)
        else:
            assert np.abs(np.mean(np.array(frames, float) - made.frames, axis=(1, 2, 3))).max() < 3
        assert np.array_equal(list(each.frames), frames)  # again from the beginning


def test_masks_are_read_one_by_one_and_whole(world: World) -> None:
    for each in opened(world).videos():
        if not world.pixels:
            assert each.masks is None
            continue
        made = world.clips[each.name].masks
        assert each.masks is not None
        assert each.masks.shape == made.shape
        assert len(each.masks) == len(made)
        assert all(mask.dtype == np.bool_ for mask in each.masks)
        assert np.array_equal(list(each.masks()), made)
        assert np.array_equal(np.asarray(each.masks), made)
        assert np.array_equal(each.masks[-1], made[-1])
        assert np.array_equal(each.masks[1:3], made[1:3])
        with pytest.raises(IndexError):
            each.masks[len(made)]


def test_a_perfect_an_inverted_and_a_constant_detector(world: World) -> None:
    benchmark = opened(world)
    for category in (None, *benchmark.classes):
        labels = [each.labels for each in benchmark.videos(category)]
        perfect = [told.astype(np.float32) for told in labels]
        assert frame_auc(perfect, labels) == 1.0
        assert frame_auc([1 - told for told in perfect], labels) == 0.0
        assert frame_auc([0 * told for told in perfect], labels) == 0.5
    assert benchmark.pixel_masks is world.pixels
    if world.pixels:
        totals = PixelAuc(), PixelAuc(), PixelAuc()
        for each in benchmark.videos():
            for mask in each.masks or ():
                for total, scores in zip(totals, (mask * 0.9, 0.9 - mask * 0.9, mask * 0.0), strict=True):
                    total.update(scores.astype(np.float16), mask)
        assert [total.value() for total in totals] == [1.0, 0.0, 0.5]


def test_check_tells_what_is_missing_of_a_whole_set_and_nothing_else(world: World) -> None:
    assert tuple(check(world.name, world.root)) == world.faults


def test_classes_of_videos(world: World) -> None:
    benchmark = opened(world)
    for name, kind in world.classes.items():
        assert benchmark.video(name).classes == (kind,)


def test_videos_travel_to_other_processes(world: World) -> None:
    each = next(opened(world).videos())
    copy = pickle.loads(pickle.dumps(each))
    assert copy.labels.tolist() == each.labels.tolist()
    assert np.array_equal(next(copy.frames()), next(each.frames()))
    assert (copy.masks is None) == (each.masks is None)


def test_an_empty_folder_is_one_line_not_an_error(world: World, tmp_path: Path) -> None:
    (line,) = check(world.name, tmp_path)
    assert str(tmp_path) in line
    (line,) = check(world.name, tmp_path / "nowhere")
    assert "nowhere" in line


def test_a_video_that_is_not_there_is_refused(world: World) -> None:
    benchmark = opened(world)
    for name in ("nothing", "", "../x", "Test001_gt", "0"):
        with pytest.raises(SourceError, match="no video of this name"):
            benchmark.video(name)
    with pytest.raises(SourceError, match="not evaluated for a class"):
        benchmark.names("zebra")


def test_every_benchmark_says_what_it_is(world: World) -> None:
    kind = find(world.name)
    assert kind.name == world.name
    for text in (kind.title, kind.license, kind.layout, kind.protocol):
        assert text.strip()
        assert text.isascii()
    assert "ROOT" in kind.layout
    if world.name != "folder":
        assert kind.homepage.startswith("http")
        assert kind.citation
        assert kind.expected["videos"] > 10


def test_the_protocols() -> None:
    def told(name: str) -> tuple[int, str, int]:
        benchmark = open_benchmark(name, "nowhere")
        return benchmark.clip_step, benchmark.metric, len(benchmark.categories)

    assert {name: told(name) for name in NAMES if name != "folder"} == {
        "ped2": (1, "pixel_auc", 5),
        "avenue": (1, "frame_auc", 5),
        "shanghaitech": (2, "frame_auc", 18),
        "ubnormal": (4, "frame_auc", 20),
        "ubnormal-abnormal": (4, "frame_auc", 20),
        "ucf-crime": (128, "frame_auc", 13),
        "xd-violence": (128, "average_precision", 6),
        "c-sht": (2, "frame_auc", 11),
        "c-ave": (1, "frame_auc", 5),
    }


def test_options_are_checked() -> None:
    benchmark = open_benchmark("ped2", "x", categories=["dog"], clip_step=3, metric="frame_auc")
    assert (benchmark.categories, benchmark.clip_step, benchmark.metric) == (("dog",), 3, "frame_auc")
    with pytest.raises(RecipeError, match=r"ped2: clip_steps: unknown option.*clip_step, metric"):
        open_benchmark("ped2", "x", clip_steps=3)
    with pytest.raises(RecipeError, match=r"ped2: clip_step: .*greater than or equal to 1"):
        open_benchmark("ped2", "x", clip_step=0)
    with pytest.raises(RecipeError, match=r"unknown benchmark 'ped3'.*did you mean ped2"):
        open_benchmark("ped3", "x")


# -- what is wrong with a set ----------------------------------------------------------------------------------------


@pytest.fixture
def broken(request: pytest.FixtureRequest, worlds: dict[str, World], tmp_path: Path) -> World:
    """A copy of the set named by the test's parameter, to be broken."""
    whole = worlds[request.param]
    shutil.copytree(whole.root, tmp_path / "set")
    return World(name=whole.name, root=tmp_path / "set", clips=whole.clips)


def faults(world: World) -> str:
    return "\n".join(check(world.name, world.root))


@pytest.mark.parametrize("broken", ["ped2"], indirect=True)
def test_ped2_without_a_mask(broken: World) -> None:
    (broken.root / "Test/Test002_gt/004.bmp").unlink()
    assert "Test002_gt: a video must have a mask for each frame; got 5 frames, 4 masks" in faults(broken)
    with pytest.raises(SourceError, match="mask for each frame"):
        _ = opened(broken).video("Test002").labels


@pytest.mark.parametrize("broken", ["ped2"], indirect=True)
def test_ped2_below_the_archives_folder(broken: World, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    broken.root.rename(tmp_path / "archive" / "UCSDped2")
    assert open_benchmark("ped2", tmp_path / "archive").names() == ("Test001", "Test002")


def test_ped2_believes_the_owners_list_of_frames(tmp_path: Path) -> None:
    world = vad_worlds.ped2(tmp_path, told=True)
    assert [each.labels.tolist() for each in opened(world).videos()] == [[0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 0]]
    list_ = tmp_path / "Test/UCSDped2.m"
    list_.write_text("TestVideoFile{end+1}.gt_frame = [4:7];")
    assert "ends before a video; got Test002" in faults(world)
    list_.write_text("TestVideoFile{end+1}.gt_frame = [7:4];")
    assert "a range of frames is none; got 7:4" in faults(world)


@pytest.mark.parametrize("broken", ["avenue"], indirect=True)
def test_avenue_labels_that_are_missing_short_or_no_matlab(broken: World) -> None:
    labels = broken.root / "testing_label_mask"
    vad_worlds.write_volume(labels / "1_label.mat", broken.clips["01"].masks[:-1])
    (labels / "12_label.mat").unlink()
    told = faults(broken)
    assert "01: a video must have a label for each frame; got 6 frames, labels (5,)" in told
    assert "12_label.mat: a video has no labels" in told
    (labels / "12_label.mat").write_bytes(b"no MATLAB file at all")
    assert "cannot be read" in faults(broken)
    vad_worlds.write_volume(labels / "12_label.mat", broken.clips["12"].masks)
    whole = (labels / "12_label.mat").read_bytes()
    for end in range(0, len(whole), 97):
        (labels / "12_label.mat").write_bytes(whole[:end])
        assert "12_label.mat: a file of labels" in faults(broken)

    scipy.io.savemat(labels / "12_label.mat", {"volLabel": np.zeros((4, 24, 32), np.uint8)})
    assert "holds no volLabel of masks of one size" in faults(broken)


@pytest.mark.parametrize("broken", ["avenue"], indirect=True)
def test_avenue_by_a_list_of_frame_labels(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavida.benchmarks.avenue.LENGTHS", (6, *[1] * 10, 4))
    np.save(broken.root / "list.npy", np.arange(20)[None] % 2)
    benchmark = open_benchmark("avenue", broken.root, frame_labels="list.npy")
    assert [each.labels.tolist() for each in benchmark.videos()] == [[0, 1, 0, 1, 0, 1], [0, 1, 0, 1]]
    np.save(broken.root / "list.npy", np.zeros(19))
    with pytest.raises(SourceError, match="not of the 21 videos; got 19; allowed: 20"):
        _ = benchmark.video("01").labels


@pytest.mark.parametrize("broken", ["avenue"], indirect=True)
def test_avenue_as_other_copies_lay_it_out(broken: World) -> None:
    (broken.root / "ground_truth_demo").mkdir()
    (broken.root / "testing_label_mask").rename(broken.root / "ground_truth_demo/testing_label_mask")
    shutil.rmtree(broken.root / "testing_videos")
    for name, made in broken.clips.items():
        vad_worlds.write_pictures(broken.root / "testing/frames" / name, made.frames, "%04d.jpg")
    assert faults(broken) == "2 videos of 21"


@pytest.mark.parametrize("broken", ["shanghaitech"], indirect=True)
def test_shanghaitech_faults(broken: World) -> None:
    testing = broken.root / "testing"
    np.save(testing / "test_frame_mask/01_0014.npy", np.zeros(8, np.uint8))
    np.save(testing / "test_frame_mask/03_0031.npy", np.full(5, 2, np.uint8))
    (testing / "test_frame_mask/05_0017.npy").rename(testing / "test_frame_mask/05_0018.npy")
    np.save(testing / "test_pixel_mask/05_0017.npy", np.zeros((3, 24, 32), np.uint8))
    told = faults(broken).splitlines()
    assert told[1:] == [
        "1 videos have labels and no frames: 05_0018",
        "01_0014: a video must have a label for each frame; got 9 frames, labels (8,)",
        "03_0031: a frame's label is no label; allowed: 0, 1, 255",
        f"{testing}/test_frame_mask/05_0017.npy: a video has no labels",
        "05_0017: 4 frames, 3 pixel masks",
    ]


@pytest.mark.parametrize("broken", ["shanghaitech"], indirect=True)
def test_labels_are_never_unpickled(broken: World) -> None:
    np.save(broken.root / "testing/test_frame_mask/01_0014.npy", np.array([{"a": 1}], object), allow_pickle=True)
    assert "cannot be read" in faults(broken)


@pytest.mark.parametrize("broken", ["shanghaitech"], indirect=True)
def test_without_pixel_masks_there_are_none(broken: World) -> None:
    shutil.rmtree(broken.root / "testing/test_pixel_mask")
    assert all(each.masks is None for each in opened(broken).videos())


@pytest.mark.parametrize("broken", ["ubnormal"], indirect=True)
def test_ubnormal_faults(broken: World) -> None:
    annotations = broken.root / "Scene1/abnormal_scene_1_scenario_2_annotations"
    (annotations / "abnormal_scene_1_scenario_2_0004_gt.png").unlink()
    masks = opened(broken).video("abnormal_scene_1_scenario_2").masks
    assert masks is not None
    with pytest.raises(SourceError, match="no annotation picture"):
        list(masks)
    tracks = annotations / "abnormal_scene_1_scenario_2_tracks.txt"
    tracks.write_text("1,3\n")
    assert "abnormal_scene_1_scenario_2_tracks.txt:1: a line is no annotation" in faults(broken)
    tracks.unlink()
    shutil.rmtree(broken.root / "Scene2")
    told = faults(broken)
    assert "1 listed videos are missing: abnormal_scene_2_scenario_1_fog" in told
    assert "a video has no annotations" in told
    (broken.root / "scripts/normal_test_video_names.txt").unlink()
    assert "no normal_test_video_names.txt" in faults(broken)


@pytest.mark.parametrize("broken", ["ubnormal"], indirect=True)
def test_ubnormal_tracks_are_of_numbers_with_points_too_and_end_with_the_video(broken: World) -> None:
    folder = broken.root / "Scene2/abnormal_scene_2_scenario_1_fog_annotations"
    (folder / "abnormal_scene_2_scenario_1_fog_tracks.txt").write_text("1.000e+00,2.0,90.0\n2,0,0\n")
    each = opened(broken).video("abnormal_scene_2_scenario_1_fog")
    assert each.labels.tolist() == [1, 0, 1, 1]
    assert each.masks is not None
    assert each.masks[0].sum() == 9  # the corner that track 2 holds
    assert each.masks[1].sum() == 0
    assert each.masks[2].sum() == 48


@pytest.mark.parametrize("broken", ["ucf-crime", "xd-violence"], indirect=True)
def test_missing_and_surplus_videos(broken: World) -> None:
    gone = next(path for path in broken.root.rglob("*.mp4") if "Arson011" in path.name or "label_B2" in path.name)
    gone.unlink()
    told = faults(broken)
    assert "1 test videos are missing: Arson011_x264" in told or "1 annotated videos are missing: A.Film" in told
    if broken.name == "xd-violence":
        (broken.root / "annotations.txt").write_text("v=abc__#1_label_A 1 2\n")
        assert "1 videos are not annotated, and their names call them violent: v=abc__#1_label_B1-G-0" in faults(broken)


@pytest.mark.parametrize(
    ("broken", "short", "line"),
    [
        ("ucf-crime", "Arson011_x264", "an interval begins at frame 8, and the video has 5 frames"),
        ("xd-violence", "v=abc__#1_label_B1-G-0", "an interval begins at frame 5, and the video has 5 frames"),
    ],
    indirect=["broken"],
)
def test_intervals_behind_the_end_and_videos_that_cannot_be_read(broken: World, short: str, line: str) -> None:
    files = {path.stem: path for path in broken.root.rglob("*.mp4") if "event" not in str(path)}
    other = next(name for name in broken.clips if name != short)
    vad_worlds.write_mp4(files[short], broken.clips[short].frames[:5])
    files[other].write_bytes(b"no video")
    told = faults(broken)
    assert f"{short}: {line}" in told
    assert f"{other}.mp4: a video cannot be read" in told


@pytest.mark.parametrize("broken", ["xd-violence"], indirect=True)
def test_training_videos_of_xd_are_not_taken_for_normal_ones(broken: World) -> None:
    (broken.root / "videos").rename(broken.root / "1-1004")
    assert "no test video: no mp4 in videos/" in faults(broken)
    for path in (broken.root / "1-1004").iterdir():
        path.rename(broken.root / path.name)
    assert faults(broken) == "3 videos of 800"


@pytest.mark.parametrize("broken", ["xd-violence"], indirect=True)
def test_xd_names_hold_several_labels(broken: World) -> None:
    assert opened(broken).video("v=abc__#1_label_B1-G-0").classes == ("fighting", "explosion")
    assert opened(broken).video("v=abc__#1_label_A").classes == ()


@pytest.mark.parametrize("broken", ["c-sht"], indirect=True)
def test_customised_evaluation_of_a_class(broken: World) -> None:
    benchmark = opened(broken)
    assert set(benchmark.classes) == {kind for each in benchmark.videos() for kind in each.classes}
    assert len(benchmark.names()) == 12
    for category in benchmark.classes:
        assert benchmark.names(category) == benchmark.names()
        for each in benchmark.videos(category):
            made = broken.clips[each.name].labels
            assert each.labels.tolist() == (made if each.classes == (category,) else 0 * made).tolist()
    (broken.root / "ground_truth/c-shtech_labels/shtech_car_label.h5").unlink()
    assert faults(broken).splitlines()[1:] == [
        f"{broken.root}/ground_truth/c-shtech_labels/shtech_car_label.h5: a class has no labels"
    ]


@pytest.mark.parametrize("broken", ["c-ave"], indirect=True)
def test_customised_faults(broken: World) -> None:
    with h5py.File(broken.root / "c-avenue_labels/avenue_dancing_label.h5", "a") as file:
        del file["02"]
    (broken.root / "c-avenue_labels/avenue_running_label.h5").write_bytes(b"no HDF5")
    (broken.root / "c-avenue-multiple.json").write_text(json.dumps({"a-b": ["05"]}))
    told = faults(broken)
    assert "05" not in opened(broken).names()
    assert "avenue_dancing_label.h5: a video has no labels; got 02" in told
    assert "a file of labels cannot be read" in told
    assert "videos of several classes are listed for one: 05" in told
    kinds = broken.root / "c-avenue.json"
    kinds.write_text(json.dumps({"a": ["01"], "b": ["01"]}))
    assert "a video is listed for two classes; got 01" in faults(broken)
    for text in ("[1]", '{"a": "01"}', "{"):
        kinds.write_text(text)
        assert "list of classes" in faults(broken)


@pytest.mark.parametrize("broken", ["avenue"], indirect=True)
def test_a_video_that_ends_early_is_an_error(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    each = opened(broken).video("01")
    monkeypatch.setattr(video, "count", lambda path: 7)
    with pytest.raises(BadRecord, match=r"another number of frames than it announces; got 6; allowed: 7"):
        list(each.frames())


@pytest.mark.parametrize("broken", ["xd-violence"], indirect=True)
def test_a_video_file_may_be_two_frames_off(broken: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "v=abc__#1_label_A"
    whole = list(opened(broken).video(name).frames())
    assert len(whole) == 4
    for announced in (2, 3, 5, 6):
        monkeypatch.setattr(video, "count", lambda path, announced=announced: announced)
        each = opened(broken).video(name)
        frames = list(each.frames())
        assert len(frames) == len(each.labels) == announced
        assert np.array_equal(frames[:4], whole[:announced])
        assert all(np.array_equal(frame, whole[-1]) for frame in frames[4:])
    monkeypatch.setattr(video, "count", lambda path: 7)
    with pytest.raises(BadRecord, match="another number of frames"):
        list(opened(broken).video(name).frames())


@pytest.mark.parametrize("broken", ["shanghaitech"], indirect=True)
def test_frames_are_read_when_they_are_asked_for(broken: World) -> None:
    (broken.root / "testing/frames/01_0014/004.jpg").write_bytes(b"no picture")
    frames = opened(broken).video("01_0014").frames()
    for _ in range(4):
        next(frames)
    with pytest.raises(BadRecord, match=r"004.jpg"):
        next(frames)


# -- a user's folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["folder"], indirect=True)
def test_a_folders_classes(broken: World) -> None:
    benchmark = opened(broken)
    assert benchmark.categories == ("bicycle", "person falling")
    assert benchmark.classes == ()
    assert benchmark.video("gate/monday.mp4").classes == ("bicycle", "person falling")
    single = open_benchmark("folder", broken.root, per_class=True)
    assert single.classes == ("bicycle", "person falling")
    assert single.video("gate/monday.mp4", "person falling").labels.tolist() == [0] * 7 + [1, 0, 0]
    assert open_benchmark("folder", broken.root, categories=["cat"]).categories == ("cat",)


@pytest.mark.parametrize("broken", ["folder"], indirect=True)
def test_a_folders_intervals_in_seconds(broken: World) -> None:
    (broken.root / "intervals.csv").write_text("\ufeffvideo,start,end\ngate/monday,0.08,0.16\ngate/pictures,1.2,9\n")
    benchmark = open_benchmark("folder", broken.root, unit="seconds", rate=2.0)
    assert benchmark.video("gate/monday.mp4").labels.tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]  # 25 frames a second
    assert benchmark.video("gate/pictures").labels.tolist() == [0, 0, 0, 1]  # frame 3 is at 1.5 s
    assert benchmark.categories == ()
    assert benchmark.check() == []
    with pytest.raises(SourceError, match="a frame is no whole number"):
        _ = opened(broken).video("gate/monday.mp4").labels


@pytest.mark.parametrize("broken", ["folder"], indirect=True)
@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("video,start,end\nmonday,1,2\n", "videos of intervals.csv are not there: monday"),
        ("video,start,end\ntuesday,6,7\n", "an interval begins after the end of its video; got frame 6"),
        ("video,start,end\ntuesday,3,3\n", "intervals.csv:2: an interval is none; got 3,3"),
        ("video,start,end\ntuesday,3,\n", "an interval is none; got 3,"),
        ("video,start,end\ntuesday,nan,inf\n", "an interval is none"),
        ("video,start,end\ntuesday,1,2,bicycle\n", "intervals.csv:2: a line of the table is none"),
        ("video,start,end\n,1,2\n", "intervals.csv:2: a line of the table is none"),
        ("name,start,end\ntuesday,1,2\n", "the table has another header; got name,start,end"),
        ("", "the table has another header"),
    ],
)
def test_a_folders_table_must_make_sense(broken: World, table: str, fault: str) -> None:
    (broken.root / "intervals.csv").write_text(table)
    assert fault in faults(broken)


@pytest.mark.parametrize("broken", ["folder"], indirect=True)
def test_a_video_may_be_called_without_its_ending_where_that_is_one(broken: World) -> None:
    shutil.copy(broken.root / "wednesday.mp4", broken.root / "wednesday.avi")
    (broken.root / "intervals.csv").write_text("video,start,end\nwednesday,1,2\n")
    assert "are not there: wednesday" in faults(broken)
    (broken.root / "intervals.csv").write_bytes(b"video,start,end\n\xff,1,2\n")
    assert "not in UTF-8" in faults(broken)


# -- the files of intervals ------------------------------------------------------------------------------------------

NAMED = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map(lambda name: name + "_x264")
SPANS = st.lists(
    st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)).map(lambda p: Span(start=p[0], end=p[0] + p[1])), max_size=5
)


@given(st.dictionaries(NAMED, SPANS.filter(lambda spans: len(spans) > 0)))
def test_xd_files_are_read_as_they_are_written(told: dict[str, list[Span]]) -> None:
    lines = [f"{name} " + " ".join(f"{span.start} {span.end}" for span in spans) for name, spans in told.items()]
    assert parse_xd("\n".join(lines), "x") == {name: tuple(spans) for name, spans in told.items()}


@given(st.dictionaries(NAMED, st.tuples(st.sampled_from(["Arson", "Normal"]), SPANS.map(lambda spans: spans[:2]))))
def test_ucf_files_are_read_as_they_are_written(told: dict[str, tuple[str, list[Span]]]) -> None:
    lines = []
    for name, (kind, spans) in told.items():
        numbers = [number for span in spans for number in (span.start + 1, span.end)]
        lines.append(f"{name}.mp4  {kind}  " + "  ".join(map(str, [*numbers, -1, -1, -1, -1][:4])) + "  ")
    assert parse_ucf("\n".join(lines), "x") == {name: (kind, tuple(spans)) for name, (kind, spans) in told.items()}


@given(st.dictionaries(st.integers(0, 40), SPANS.filter(lambda spans: len(spans) > 0)))
def test_tracks_are_read_as_they_are_written(told: dict[int, list[Span]]) -> None:
    lines = [f"{track},{span.start},{span.end - 1}" for track, spans in told.items() for span in spans]
    assert parse_tracks("\n".join(lines), "x") == {track: tuple(spans) for track, spans in told.items()}


@given(st.text() | st.text(st.sampled_from("ab 019-\n,.:[]{}=TestVideoFile+gt_frame\t;")))
def test_whatever_a_file_holds_the_answer_is_intervals_or_one_line(text: str) -> None:
    for parse in (parse_ucf, parse_xd, parse_tracks, parse_csv, parse_frames):
        for each in (text, "video,start,end,class\n" + text, "TestVideoFile{end+1}.gt_frame = [" + text + "]"):
            try:
                parse(each, "here")
            except AesamplerError as error:
                told = str(error)
                assert "here" in told and "\n" not in told  # noqa: PT018


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80))))
def test_labels_are_one_inside_of_any_span(length: int, pairs: list[tuple[int, int]]) -> None:
    labels = labelled(length, [Span(start=start, end=end) for start, end in pairs])
    assert labels.tolist() == [int(any(start <= k < end for start, end in pairs)) for k in range(length)]


def test_how_each_owner_counts() -> None:
    assert parse_ucf("A_x264.mp4 Arson 0 5 -1 -1\n", "u")["A_x264"][1] == (Span(start=0, end=5),)
    assert parse_ucf("A_x264 Arson 1 5 7 7\n", "u")["A_x264"][1] == (Span(start=0, end=5), Span(start=6, end=7))
    assert parse_xd("A.mp4 0 5\n", "x")["A"] == (Span(start=0, end=5),)
    assert parse_tracks("7,0,5\n", "t")[7] == (Span(start=0, end=6),)
    for text in ("A Arson 5 4 -1 -1", "A Arson 5 -1 -1 -1", "A Arson 1 2 3", "A Arson 1 2 3 x"):
        with pytest.raises(SourceError, match=r"u:1: a line is no annotation"):
            parse_ucf(text, "u")
    for text in ("A 5 4", "A 5", "A", "A 1 2 3", "A -1 3"):
        with pytest.raises(SourceError, match=r"x:2: a line is no annotation"):
            parse_xd("\n" + text, "x")
    with pytest.raises(SourceError, match="u:2: a video is told twice; got A"):
        parse_ucf("A.mp4 Arson 1 2 -1 -1\nA Arson 1 2 -1 -1", "u")
    with pytest.raises(SourceError, match="x:2: a video is told twice; got A"):
        parse_xd("A 1 2\nA 4 5", "x")


# -- the owners' real labels -----------------------------------------------------------------------------------------


@pytest.fixture
def labels(real_data: Path) -> Path:
    return real_data / "vad-labels"


def test_real_ped2(real_data: Path, labels: Path) -> None:
    told = np.load(labels / "frame_labels_ped2.npy").ravel()
    assert (len(told), int(told.sum())) == (2010, 1648)
    ranges = ["61:180", "95:180", "1:146", "31:180", "1:129", "1:159", "46:180", "1:180", "1:120", "1:150"]
    ranges += ["1:180", "88:180"]
    lengths = (180, 180, 150, 180, 150, 180, 180, 180, 120, 150, 180, 180)
    text = "TestVideoFile = {};\n" + "".join(f"TestVideoFile{{end+1}}.gt_frame = [{part}];\n" for part in ranges)
    parts = [labelled(length, spans) for length, spans in zip(lengths, parse_frames(text, "m"), strict=True)]
    assert np.array_equal(np.concatenate(parts), told)
    benchmark = open_benchmark("ped2", real_data / "UCSDped2")
    assert benchmark.check() == ["4 videos of 12"]
    for each in benchmark.videos():
        assert np.array_equal(each.labels, parts[int(each.name[-3:]) - 1])
        assert each.masks is not None
        assert each.masks.shape == (each.length, 240, 360)
        assert next(each.frames()).shape == (240, 360, 3)


def test_real_avenue(real_data: Path, labels: Path) -> None:
    told = np.load(labels / "frame_labels_avenue.npy").ravel()
    assert (len(told), int(told.sum())) == (15324, 3867)
    lengths: dict[str, int] = {}
    for file in (labels / "c-vad/c-avenue_labels").iterdir():
        with h5py.File(file) as group:
            lengths |= {name: len(group[name]) for name in group}
    from lavida.benchmarks.avenue import LENGTHS

    assert tuple(lengths[name] for name in sorted(lengths)) == LENGTHS
    assert sum(LENGTHS) == 15324
    benchmark = open_benchmark("avenue", real_data / "Avenue")
    assert benchmark.check() == ["2 videos of 21"]
    assert benchmark.names() == ("08", "20")
    by_list = open_benchmark("avenue", real_data / "Avenue", frame_labels=str(labels / "frame_labels_avenue.npy"))
    assert by_list.check() == ["2 videos of 21"]
    for each in benchmark.videos():
        listed = by_list.video(each.name).labels
        start = sum(LENGTHS[: int(each.name) - 1])
        assert np.array_equal(listed, told[start : start + each.length])
        assert sum(1 for _ in each.frames()) == each.length == lengths[each.name]
        assert each.masks is not None
        assert each.masks.shape[1:] == next(each.frames()).shape[:2] == (360, 640)
        if each.name == "20":
            assert np.array_equal(each.labels, listed)
        else:  # the masks and the list that papers go by disagree
            assert each.labels.all()
            assert np.flatnonzero(listed).tolist() == list(range(20, 30))


@pytest.fixture
def counted(labels: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Video -> frames, as label files of their own say; stands in for counting the pictures, which are not here."""
    lengths = {path.stem: len(np.load(path)) for path in (labels / "shanghaitech").iterdir()}
    lengths |= json.loads((labels / "ubnormal_test_lengths.json").read_text())
    for file in (labels / "c-vad/c-avenue_labels").glob("m_*.h5"):
        with h5py.File(file) as group:
            lengths |= {name: len(group[name]) for name in group}
    with h5py.File(labels / "c-vad/c-avenue_labels/avenue_bicycle_label.h5") as group:
        lengths |= {name: len(group[name]) for name in group}
    monkeypatch.setattr(video, "count", lambda path: lengths[path.stem])
    return lengths


def test_real_shanghaitech(labels: Path, tmp_path: Path, counted: dict[str, int]) -> None:
    (tmp_path / "testing").mkdir()
    os.symlink(labels / "shanghaitech", tmp_path / "testing/test_frame_mask")
    for path in (labels / "shanghaitech").iterdir():
        (tmp_path / "testing/frames" / path.stem).mkdir(parents=True)
    benchmark = open_benchmark("shanghaitech", tmp_path)
    assert benchmark.check() == []
    told = np.concatenate([each.labels for each in benchmark.videos()])
    assert (len(benchmark.names()), len(told), int(told.sum())) == (107, 40791, 17326)
    assert benchmark.expected == {"videos": 107, "frames": 40791, "anomalous": 17326}
    assert np.array_equal(told, np.load(labels / "frame_labels_shanghai.npy"))


def test_real_ubnormal_lists(tmp_path: Path, counted: dict[str, int]) -> None:
    names = [name for name in counted if "scene" in name]
    for kind in ("abnormal", "normal"):
        listed = [name for name in names if name.startswith(kind)]
        (tmp_path / f"{kind}_test_video_names.txt").write_text("\n".join(listed) + "\n")
    for name in names:
        file = tmp_path / f"Scene{name.split('_')[2]}" / f"{name}.mp4"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    benchmark = open_benchmark("ubnormal", tmp_path)
    assert (len(benchmark.names()), sum(each.length for each in benchmark.videos())) == (211, 92640)
    assert benchmark.expected == {"videos": 211, "frames": 92640}
    abnormal = open_benchmark("ubnormal-abnormal", tmp_path)
    assert len(abnormal.names()) == abnormal.expected["videos"] == 158
    assert all(not each.labels.any() for each in benchmark.videos() if each.name.startswith("normal"))


def test_real_ucf_crime(labels: Path) -> None:
    told = parse_ucf((labels / "ucf_crime_temporal.txt").read_text(), "ucf")
    assert len(told) == 290
    assert sum(bool(spans) for _, spans in told.values()) == 140
    assert sum(kind == "Normal" for kind, _ in told.values()) == 150
    from lavida.benchmarks.ucf_crime import CATEGORIES, words

    assert {words(kind) for kind, spans in told.values() if spans} == set(CATEGORIES)
    assert told["Arson011_x264"] == ("Arson", (Span(start=149, end=420), Span(start=679, end=1267)))


def test_real_xd_violence(labels: Path) -> None:
    from lavida.benchmarks.xd_violence import CODES, codes

    told = parse_xd((labels / "xd_violence_annotations.txt").read_text(), "xd")
    assert (len(told), sum(len(spans) for spans in told.values())) == (500, 1238)
    assert {code for name in told for code in codes(name)} == set(CODES)
    assert told["City.of.God.2002__#01-24-10_01-25-10_label_B2-0-0"] == (Span(start=340, end=1090),)


# Positives, and how many videos they are in, as the notes on AnyAnomaly count them.
C_SHT = {
    "bicycle": (5105, 33),
    "car": (1451, 7),
    "falling": (468, 4),
    "fighting": (815, 6),
    "hand truck": (293, 1),
    "jumping": (535, 5),
    "loitering": (324, 2),
    "motorcycle": (1331, 6),
    "running": (1711, 16),
    "skateboarding": (1370, 8),
    "throwing": (369, 3),
}
C_AVE = {"bicycle": (99, 1), "dancing": (623, 2), "running": (487, 6), "throwing": (1036, 6), "too close": (673, 3)}


def test_real_c_sht(labels: Path, tmp_path: Path, counted: dict[str, int]) -> None:
    for path in (labels / "shanghaitech").iterdir():
        (tmp_path / "testing/frames" / path.stem).mkdir(parents=True)
    _check_classes(open_benchmark("c-sht", tmp_path, labels=labels / "c-vad"), C_SHT, 96, 36388)


def test_real_c_ave(labels: Path, tmp_path: Path, counted: dict[str, int]) -> None:
    for number in range(1, 22):
        (tmp_path / "testing/frames" / f"{number:02d}").mkdir(parents=True)
    _check_classes(open_benchmark("c-ave", tmp_path, labels=labels / "c-vad"), C_AVE, 18, 12394)


def _check_classes(benchmark: Benchmark, classes: dict[str, tuple[int, int]], videos: int, frames: int) -> None:
    assert benchmark.check() == []
    assert benchmark.expected == {"videos": videos, "frames": frames}
    assert set(benchmark.classes) == set(classes)
    assert set(benchmark.categories) == set(classes)
    found = {}
    for category in benchmark.classes:
        told = [each.labels for each in benchmark.videos(category)]
        assert (len(told), sum(map(len, told))) == (videos, frames)
        found[category] = (sum(int(part.sum()) for part in told), sum(bool(part.any()) for part in told))
    assert found == classes
    whole = sum(int(each.labels.sum()) for each in benchmark.videos())
    assert whole == sum(positives for positives, _ in classes.values())


@pytest.mark.parametrize(("name", "folder"), [("ped2", "UCSDped2"), ("avenue", "Avenue")])
def test_detectors_made_from_the_real_ground_truth(real_data: Path, name: str, folder: str) -> None:
    labels, totals = [], (PixelAuc(), PixelAuc(), PixelAuc())
    for each in open_benchmark(name, real_data / folder).videos():
        labels.append(each.labels)
        for mask in each.masks or ():
            plane = mask.astype(np.float16)
            for total, scores in zip(totals, (plane, 1 - plane, 0 * plane), strict=True):
                total.update(scores, mask)
    assert [total.value() for total in totals] == [1.0, 0.0, 0.5]
    assert frame_auc(labels, labels) == 1.0
    assert frame_auc([1 - told for told in labels], labels) == 0.0
    assert frame_auc([0 * told for told in labels], labels) == 0.5
