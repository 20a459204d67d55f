"""Evaluation: what is scored and saved, what is made of it, and that a stopped run goes on as if it had not been.

`oracle` and its kin are detectors of this file, known by name while a test runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import vad_worlds
from PIL import Image
from sklearn import metrics as sklearn_metrics

from aesampler.errors import (
    AesamplerError,
    CorpusError,
    DetectorError,
    RecipeError,
    SourceError,
    StorageError,
    WorkerError,
)
from aesampler.storage import Folder
from lavida import detectors
from lavida.detectors import Detector, Frame, Scored, Settings
from lavida.evaluate import Inline, Outcome, Unit, evaluate, outcome, refused
from lavida.evaluate import Settings as Evaluation
from lavida.evaluate.result import Row, figures
from lavida.evaluate.scoring import VideoScores, score_video
from lavida.evaluate.settings import fingerprint
from lavida.evaluate.store import Store, encode
from lavida.evaluate.tuning import tune
from lavida.metrics import PixelAuc

BENCHMARKS = ("ped2", "avenue", "shanghaitech", "ubnormal", "ucf-crime", "xd-violence", "folder")
WITH_TEXT = ("car",)


class OracleSettings(Settings):
    """sign: 1, or -1 for the opposite; 0 for a constant. stop_at: frame of all videos at which the run is stopped."""

    sign: float = 1.0
    stop_at: int | None = None
    flag: str = ""


class Oracle(Detector):
    """Sees the bright squares of vad_worlds."""

    name = "oracle"
    settings = OracleSettings
    uses_categories = False
    pixel = True

    def __init__(self, options: OracleSettings | None = None) -> None:
        self.options: OracleSettings = options or OracleSettings()
        self.seen = 0

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        for place, frame in enumerate(frames):
            if self.seen == self.options.stop_at:
                raise KeyboardInterrupt
            if self.options.flag and not os.path.exists(self.options.flag):
                with contextlib.suppress(OSError):
                    Path(self.options.flag).touch()
                os._exit(1)
            self.seen += 1
            plane = (self.options.sign * (frame[..., 0] > 180)).astype(np.float32)
            score = np.array([plane[np.abs(plane).argmax() // plane.shape[1], np.abs(plane).argmax() % plane.shape[1]]])
            yield Scored(start=place, frame_scores=score.astype(np.float32), pixel_scores=plane[None])

    def notes(self) -> dict[str, int | str]:
        return {"frames seen": self.seen, "about": "an oracle"}


class Reader(Detector):
    """Writes down what it is told to look for."""

    name = "reader"
    told: list[tuple[str, ...]] = []  # noqa: RUF012

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        self.told.append(categories)
        for place, frame in enumerate(frames):
            yield Scored(start=place, frame_scores=np.full(1, frame.mean(), dtype=np.float32))


class Views(Detector):
    """Scores that are made of parts, of which only `temporal` sees the square."""

    name = "views"
    uses_categories = False

    def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
        for place, frame in enumerate(frames):
            seen = float(frame.max() > 180)
            parts = {"frame": 1 - seen, "position": 0.5, "temporal": seen}
            score = np.mean(list(parts.values()))
            yield Scored(
                start=place,
                frame_scores=np.full(1, score, dtype=np.float32),
                parts={name: np.full(1, value, dtype=np.float32) for name, value in parts.items()},
                details=({"frame": place, "seen": seen},),
            )


@pytest.fixture
def drawn() -> None:
    """Asked for by a test that looks at plots: the others save the time that it takes to draw them."""


@pytest.fixture(autouse=True)
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames and request.node.get_closest_marker("long") is None:
        monkeypatch.setattr(outcome, "_draw", lambda *asked: None)
    for name, kind in (("oracle", "Oracle"), ("reader", "Reader"), ("views", "Views")):
        monkeypatch.setitem(detectors.DETECTORS, name, f"{__name__}:{kind}")
    Reader.told.clear()


def asked(world: vad_worlds.World, detector: str = "oracle", **changes: Any) -> Evaluation:
    return Evaluation(benchmark=world.name, root=str(world.root), detector=detector, bootstrap=20, **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.parametrize(("sign", "value"), [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_perfect_inverted_and_constant(tmp_path: Path, name: str, sign: int, value: float) -> None:
    world = vad_worlds.make(name, tmp_path / "set")
    result = evaluate(asked(world, options={"sign": sign}, reference=False), tmp_path / "out")
    told = result.told[0]
    assert told.metrics["frame_auc"] == value
    assert result.frames == sum(len(clip.labels) for clip in world.clips.values())
    assert result.positives == sum(int(clip.labels.sum()) for clip in world.clips.values())
    if world.pixels and world.lossless:
        assert told.metrics["pixel_auc"] == value
    elif world.pixels:  # lossy pictures blur the square's border
        assert told.metrics["pixel_auc"] == pytest.approx(value, abs=0.05)
    else:
        assert "pixel_auc" not in told.metrics
    if sign == 1:
        assert told.metrics["average_precision"] == 1.0
        assert told.metrics["equal_error_rate"] == 0.0
        assert told.intervals["frame_auc"] == (1.0, 1.0)


def test_figures_are_those_of_scikit_learn(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    result = evaluate(asked(world, "motion"), tmp_path / "out")
    scores, labels, planes, masks = [], [], [], []
    for clip in world.clips.values():
        grey = clip.frames[..., 0].astype(np.float32)
        apart = np.abs(np.diff(grey, axis=0)) / 255
        apart = np.concatenate([apart[:1], apart])
        scores.append(apart.mean(axis=(1, 2), dtype=np.float64).astype(np.float32))
        planes.append(apart.astype(np.float16))
        labels.append(clip.labels)
        masks.append(clip.masks)
    told = result.told[0].metrics
    every, truth = np.concatenate(scores), np.concatenate(labels)
    assert told["frame_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth, every), abs=1e-12)
    assert told["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(truth, every), abs=1e-12)
    pixels = sklearn_metrics.roc_auc_score(np.concatenate(masks).ravel(), np.concatenate(planes).ravel())
    assert told["pixel_auc"] == pytest.approx(pixels, abs=1e-12)
    first = sklearn_metrics.roc_auc_score(labels[0], scores[0])
    assert told["macro_auc"] == pytest.approx(first, abs=1e-12)  # the other video is anomalous throughout
    assert [row["frame_auc"] for row in result.told[0].videos] == [pytest.approx(first), None]


def test_the_json_is_as_the_contract_says(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    result = evaluate(asked(world), tmp_path / "out")
    told = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert told == json.loads(json.dumps(result.to_json()))
    assert (told["benchmark"], told["detector"]) == ("ped2", "oracle")
    assert set(told["metrics"]) == {"frame_auc", "average_precision", "equal_error_rate", "macro_auc", "pixel_auc"}
    assert [row["name"] for row in told["videos"]] == ["Test001", "Test002"]
    assert told["videos"][0] == {
        "name": "Test001",
        "frames": 7,
        "positives": 4,
        "frame_auc": 1.0,
        "mean_score": pytest.approx(4 / 7),
        "max_score": 1.0,
    }
    assert told["reference"]["detector"] == "motion"
    assert set(told["reference"]["metrics"]) == set(told["metrics"])
    assert told["tuned_on_test"] is False
    assert told["options"] == {}
    assert told["whole_set"] is False
    assert told["notes"] == {"about": "an oracle", "frames seen": 12}
    assert {row["value"] for row in told["published"] if row["method"] == "LAVIDA"} == {87.68}
    assert str(tmp_path) not in (tmp_path / "out/evaluation.json").read_text()


@pytest.mark.usefixtures("drawn")
def test_the_table_stands_beside_motion_and_the_papers(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    result = evaluate(asked(world), tmp_path / "out")
    text = (tmp_path / "out/table.md").read_text()
    assert "| oracle | 100.00 [100.0, 100.0] |" in text
    assert "| motion | " in text
    assert "| LAVIDA | Zero-Shot | UCSD Ped2 | pixel AUC | 87.68 | LAVIDA table 2 |" in text
    assert "2 of the set's 12 videos: not to be compared with the published numbers" in text
    assert [table.row_count for table in result.tables()] == [2, 7]
    for picture in ("curves", "pixel_auc", "frame_auc", "scores"):
        with Image.open(tmp_path / f"out/plots/{picture}.png") as shown:
            assert min(shown.size) > 100
            assert np.asarray(shown.convert("L")).std() > 5


def test_customised_sets_are_judged_class_by_class(tmp_path: Path) -> None:
    world = vad_worlds.make("c-ave", tmp_path / "set")
    result = evaluate(asked(world, "reader"), tmp_path / "out")
    classes = ("throwing", "running", "dancing", "too close", "bicycle")
    assert Reader.told == [(name,) for name in classes for _ in world.clips]
    told, motion = result.told
    assert tuple(told.classes) == classes
    for name in classes:
        scores, labels = [], []
        for clip in world.clips.values():
            table = pq.read_table(tmp_path / f"out/scores/reader/{name}/{clip.name}.parquet")
            scores.append(table["score"].to_numpy())
            wanted = clip.labels if world.classes[clip.name] == name else np.zeros_like(clip.labels)
            assert table["label"].to_pylist() == wanted.tolist()
            labels.append(wanted)
        auc = sklearn_metrics.roc_auc_score(np.concatenate(labels), np.concatenate(scores))
        assert told.classes[name]["frame_auc"] == pytest.approx(auc, abs=1e-12)
    assert told.metrics["frame_auc"] == pytest.approx(np.mean([told.classes[name]["frame_auc"] for name in classes]))
    assert len(told.videos) == 25
    assert sorted(path.name for path in (tmp_path / "out/scores/motion").glob("*.parquet")) == [
        f"{name}.parquet" for name in world.clips
    ]  # it does not read: scored once for all classes
    assert set(motion.classes) == set(classes)
    text = (tmp_path / "out/table.md").read_text()
    assert "| class | reader | motion | AnyAnomaly baseline | AnyAnomaly +KSM |" in text
    assert "| too close | " in text


def test_one_class_only_is_said_not_made_up(tmp_path: Path) -> None:
    vad_worlds.write_mp4(tmp_path / "set/a.mp4", vad_worlds.clip("a", 5).frames)
    (tmp_path / "set/intervals.csv").write_text("video,start,end\n")
    settings = Evaluation(benchmark="folder", root=str(tmp_path / "set"), detector="oracle", reference=False)
    result = evaluate(settings, tmp_path / "out")
    assert result.told[0].metrics == {
        "frame_auc": None,
        "average_precision": None,
        "equal_error_rate": None,
        "macro_auc": None,
    }
    assert "an AUC needs positives and negatives; got 0 positives, 5 negatives" in "\n".join(result.remarks)
    assert "| oracle | - | - | - | - |" in (tmp_path / "out/table.md").read_text()


def test_a_corrected_table_of_intervals_counts_at_once(tmp_path: Path) -> None:
    vad_worlds.write_mp4(tmp_path / "set/a.mp4", vad_worlds.clip("a", 8).frames)
    table = tmp_path / "set/intervals.csv"
    settings = Evaluation(benchmark="folder", root=str(tmp_path / "set"), detector="reader", reference=False)
    settings = settings.model_copy(update={"categories": ("x",)})
    found = []
    for line in ("a,0,2", "a,4,8"):
        table.write_text(f"video,start,end\n{line}\n")
        found.append(evaluate(settings, tmp_path / "out").positives)
    assert found == [2, 4]
    assert len(Reader.told) == 1  # nothing is scored again
    vad_worlds.write_mp4(tmp_path / "set/a.mp4", vad_worlds.clip("a", 9).frames)
    with pytest.raises(CorpusError, match=r"a.mp4: a video has another number of frames .*; got 9; allowed: 8"):
        evaluate(settings, tmp_path / "out")


def test_texts_have_no_say_where_classes_are_asked_one_by_one(tmp_path: Path) -> None:
    world = vad_worlds.make("c-ave", tmp_path / "set")
    with pytest.raises(RecipeError, match=r"class by class.*; got a red car; .*; leave out --anomaly"):
        evaluate(asked(world, "reader", categories=("a red car",)), tmp_path / "out")
    assert not Reader.told


def test_texts_and_options_reach_the_detector(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    evaluate(asked(world, "reader", categories=("a red car",), reference=False), tmp_path / "a")
    assert Reader.told == [("a red car",)] * 2
    evaluate(asked(world, "reader", benchmark_options={"categories": ["x", "y"]}, reference=False), tmp_path / "b")
    assert Reader.told[2:] == [("x", "y")] * 2
    with pytest.raises(DetectorError, match="unknown option 'sine'"):
        evaluate(asked(world, options={"sine": 1}), tmp_path / "c")


def test_a_detector_sees_one_window_of_a_video_at_a_time() -> None:
    made = 0

    def frames() -> Iterator[Frame]:
        nonlocal made
        for _ in range(300):
            made += 1
            yield np.full((240, 320, 3), made % 200, dtype=np.uint8)

    video = SimpleNamespace(name="v", frames=frames, labels=np.zeros(300, dtype=np.uint8), masks=None)
    detector = detectors.load_detector("motion", pixels=True)
    tracemalloc.start()
    done = score_video(detector, video, ())  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(done.scores) == made == 300
    assert peak < 24e6  # a piece of 8 frames with its maps; the video has 69 MB


def test_frames_and_labels_must_be_as_many() -> None:
    frames = [np.zeros((4, 4, 3), dtype=np.uint8)] * 3
    video = SimpleNamespace(name="v", frames=lambda: iter(frames), labels=np.zeros(2, dtype=np.uint8), masks=None)
    with pytest.raises(SourceError, match="v: a video has another number of frames than labels; got 3; allowed: 2"):
        score_video(detectors.load_detector("motion"), video, ())  # type: ignore[arg-type]


def test_pixel_scores_are_brought_to_the_masks() -> None:
    class Half(Detector):
        name, uses_categories, pixel = "half", False, True

        def scan(self, frames: Iterable[Frame], categories: tuple[str, ...]) -> Iterator[Scored]:
            for place, frame in enumerate(frames):
                plane = (frame[..., 0] > 100).astype(np.float16)
                yield Scored(start=place, frame_scores=np.ones(1, dtype=np.float32), pixel_scores=plane[None])

    small = np.zeros((6, 8, 3), dtype=np.uint8)
    small[:, 4:] = 200
    mask = np.zeros((24, 32), dtype=np.bool_)
    mask[:, 16:] = True
    video = SimpleNamespace(
        name="v", frames=lambda: iter([small]), labels=np.ones(1, dtype=np.uint8), masks=lambda: iter([mask])
    )
    done = score_video(Half(), video, ())  # type: ignore[arg-type]
    assert done.pixels is not None
    assert done.pixels.counts().totals == (24 * 16, 24 * 16)
    assert done.pixels.value() > 0.99


# -- stopped and started -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [0, 3, 7, 11])
def test_a_stopped_run_goes_on_to_the_same_table(tmp_path: Path, stop_at: int) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    evaluate(asked(world), tmp_path / "whole")

    class Stopping(Inline):
        """Stops at a frame; the option is not part of what the scores depend on."""

        def map(self, settings: Evaluation, units: Any) -> Generator[Any, None, None]:
            return super().map(settings.model_copy(update={"options": {"stop_at": stop_at}}), units)

    with pytest.raises(KeyboardInterrupt):
        evaluate(asked(world), tmp_path / "parts", executor=Stopping())
    kept = list((tmp_path / "parts/scores/oracle").glob("Test00?.parquet"))
    assert len(kept) == (1 if stop_at >= 7 else 0)
    before = {path: path.stat().st_mtime_ns for path in kept}
    evaluate(asked(world), tmp_path / "parts")
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    evaluate(asked(world), tmp_path / "parts")
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_what_is_saved_by_halves_is_not_there(tmp_path: Path) -> None:
    """The pixels come before the frames, whose file is the done-mark."""
    world = vad_worlds.make("ped2", tmp_path / "set")
    evaluate(asked(world), tmp_path / "whole")
    evaluate(asked(world), tmp_path / "torn")
    (tmp_path / "torn/scores/oracle/Test002.parquet").unlink()
    (tmp_path / "torn/scores/oracle/.aesampler-tmp-12-3").write_bytes(b"half")
    store = Store(Folder.at(tmp_path / "torn/scores/oracle"))
    assert store.missing([Unit(video="Test001"), Unit(video="Test002")]) == [Unit(video="Test002")]
    evaluate(asked(world), tmp_path / "torn")
    assert files(tmp_path / "torn") == files(tmp_path / "whole")
    assert (
        list(
            encode(
                VideoScores(scores=np.ones(1, dtype=np.float32), labels=np.ones(1, dtype=np.uint8), pixels=PixelAuc())
            )
        )[-1]
        == ".parquet"
    )


def test_other_settings_are_refused(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    evaluate(asked(world), tmp_path / "out")
    with pytest.raises(CorpusError, match=r"made with other settings \(options\); got .*-1.*; give another --out"):
        evaluate(asked(world, options={"sign": -1}), tmp_path / "out")
    with pytest.raises(CorpusError, match=r"other settings \(categories\)"):
        evaluate(asked(world, categories=("x",)), tmp_path / "out")
    result = evaluate(asked(world, options={"sign": -1}), tmp_path / "out", fresh=True)
    assert result.told[0].metrics["frame_auc"] == 0.0
    moved = tmp_path / "elsewhere"
    world.root.rename(moved)
    again = evaluate(
        asked(world, options={"sign": -1}).model_copy(update={"root": str(moved), "seed": 5}), tmp_path / "out"
    )
    assert again.told[0].metrics["frame_auc"] == 0.0


def test_a_model_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * (3 << 20) + (b"y" if name == "c" else b"x"))
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
    settings = Evaluation(benchmark="ped2", root=".", detector="lavida", options={"model": str(tmp_path / "a")})
    assert settings.scoring()["options"] == {"model": {"folder": fingerprint(tmp_path / "a")}}
    assert str(tmp_path) not in json.dumps(settings.scoring())
    weights = [tmp_path / name / "model.safetensors" for name in ("a", "b", "c")]
    assert fingerprint(weights[0]) == fingerprint(weights[1]) != fingerprint(weights[2])
    options = {"clip": str(tmp_path / "a"), "clip_pretrained": str(weights[0]), "model": "org/name"}
    assert settings.model_copy(update={"options": options}).scoring()["options"] == {
        "clip": {"folder": fingerprint(tmp_path / "a")},
        "clip_pretrained": {"file": fingerprint(weights[0])},
        "model": "org/name",
    }


def test_units_have_files_of_their_own() -> None:
    units = [
        Unit(video="a/b"),
        Unit(video="a", category="b"),
        Unit(video="a%2Fb"),
        Unit(video="b", category="a"),
        Unit(video=".."),
    ]
    stems = [unit.stem for unit in units]
    assert len(set(stems)) == 5
    assert stems[:2] == ["a%2Fb", "b/a"]
    assert Unit(video="../../etc").stem == "..%2F..%2Fetc"


@pytest.mark.long
def test_killed_at_any_video(tmp_path: Path) -> None:
    """A process that gets SIGKILL, again and again, until it is through."""
    clips = [vad_worlds.clip(f"01_{number:04d}", 40, range(number % 30, 34)) for number in range(1, 41)]
    world = vad_worlds.shanghaitech(tmp_path / "set", clips)
    command = [sys.executable, "-m", "lavida", "evaluate", "--benchmark", world.name, "--root", str(world.root)]
    command += ["--detector", "motion", "--bootstrap", "10", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True, timeout=300)
    out = tmp_path / "parts"
    kills = 0
    for _ in range(5):
        wanted = len(list(out.glob("scores/motion/*.parquet")))
        with subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
            while running.poll() is None and len(list(out.glob("scores/motion/*.parquet"))) == wanted:
                time.sleep(0.01)
            if running.poll() is not None:
                break
            running.send_signal(signal.SIGKILL)
            kills += 1
    assert kills >= 2
    subprocess.run([*command, str(out)], check=True, capture_output=True, timeout=300)
    assert files(tmp_path / "whole") == {name: data for name, data in files(out).items() if ".aesampler" not in name}


# -- tuned on the test set ---------------------------------------------------------------------------------------------


def test_nothing_is_tuned_unless_asked_and_then_it_is_said(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    plain = evaluate(asked(world, "views", reference=False), tmp_path / "out")
    assert plain.told[0].metrics["frame_auc"] == 0.5
    assert "tuned" not in (tmp_path / "out/table.md").read_text().lower()
    assert (tmp_path / "out/scores/views/Test001.details.jsonl").read_text().count("\n") == 7
    tuned = evaluate(asked(world, "views", reference=False, tune_on_test=True), tmp_path / "out")
    assert tuned.told[0].metrics["frame_auc"] == 1.0
    chosen = {"sigma": 0.0, "weights": {"frame": 0.4, "position": 0.1, "temporal": 0.5}}
    told = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert set(told["tuned_on_test"]) == set(chosen)
    assert told["tuned_on_test"]["weights"]["temporal"] > told["tuned_on_test"]["weights"]["frame"]
    text = (tmp_path / "out/table.md").read_text()
    assert "| views (tuned on test) | 100.00" in text
    assert "TUNED ON THE TEST LABELS, an upper bound: views with" in text
    assert evaluate(asked(world, "views", reference=False), tmp_path / "out").told[0].metrics["frame_auc"] == 0.5


def test_smoothing_is_tuned_where_a_score_has_no_parts() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0], 60)
    noisy = [(labels + rng.normal(0, 1.5, 180)).astype(np.float32) for _ in range(2)]

    def worth(found: list[Any]) -> float:
        return float(np.mean([sklearn_metrics.roc_auc_score(labels, each) for each in found]))

    smoothed, chosen = tune(noisy, [{}, {}], worth)
    assert set(chosen) == {"sigma"}
    assert chosen["sigma"] > 0
    assert worth(smoothed) > worth(noisy) + 0.05


def test_the_same_answers_are_fused_anew(tmp_path: Path) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    settings = asked(world, "views", reference=False)
    evaluate(settings, tmp_path / "out")
    before = files(tmp_path / "out")
    assert refused(settings, tmp_path / "out", weights=(1, 0, 0)).metrics["frame_auc"] == 0.0
    assert refused(settings, tmp_path / "out", weights=(0, 0, 1)).metrics["frame_auc"] == 1.0
    assert files(tmp_path / "out") == before
    evaluate(asked(world, reference=False), tmp_path / "other")
    with pytest.raises(CorpusError, match="these scores are not made of parts"):
        refused(asked(world, reference=False), tmp_path / "other", weights=(0, 0, 1))


def test_an_interval_comes_from_whole_videos() -> None:
    rows = [
        Row(
            video=str(place),
            scores=np.array([0.1, 0.9]),
            labels=np.array([0, 1] if place % 2 else [1, 0], dtype=np.uint8),
        )
        for place in range(10)
    ]
    told = figures("x", rows, resamples=200)
    low, high = told.intervals["frame_auc"]
    assert told.metrics["frame_auc"] == 0.5
    assert 0.0 < low < 0.3 < 0.7 < high < 1.0
    assert figures("x", rows, resamples=200).intervals == told.intervals
    assert figures("x", rows[:1], resamples=200).intervals == {}


# -- Ray ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Ray with two workers, which know the oracle as an installed package would name it."""
    from lavida.evaluate.cluster import Cluster

    plugin = tmp_path_factory.mktemp("plugin")
    info = plugin / "oracle_detector-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: oracle-detector\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[lavida.detectors]\noracle = {__name__}:Oracle\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{Path(__file__).parent}{os.pathsep}{plugin}")
        with Cluster(workers=2) as cluster:
            yield cluster


def test_workers_find_what_a_relative_path_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they start."""
    from lavida.evaluate import cluster

    dealt: list[tuple[Evaluation, int, bool]] = []

    class Run:
        def __init__(self, settings: Evaluation, units: Any, most: int, on_gpu: bool, told: Any) -> None:
            dealt.append((settings, most, on_gpu))

        def files(self) -> Iterator[Any]:
            return iter(())

    there = {"CPU": 4.0, "GPU": 2.0}
    monkeypatch.setattr(cluster, "_Run", Run)
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: there)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    settings = Evaluation(
        benchmark="c-sht",
        root="set",
        detector="lavida",
        options={"model": "model", "coverage": "model"},
        benchmark_options={"labels": "lost"},
    )
    units = [Unit(video=str(place)) for place in range(9)]
    cluster.Cluster(workers=3).map(settings, units)
    cluster.Cluster().map(settings, units[:1])
    cluster.Cluster(workers=3).map(settings.model_copy(update={"device": "cpu"}), units)
    assert [(count, on_gpu) for _, count, on_gpu in dealt] == [(3, True), (1, True), (3, False)]
    sent = dealt[0][0]
    assert (sent.root, sent.options) == (str(tmp_path / "set"), {"model": str(tmp_path / "model"), "coverage": "model"})
    assert sent.benchmark_options == {"labels": "lost"}


def test_workers_are_ended_before_their_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what they send cannot be written: left to the collector they would be ended by a Ray that is begun anew."""
    ended: list[str] = []

    class Sending(Inline):
        def map(self, settings: Evaluation, units: Any) -> Generator[Any, None, None]:
            try:
                yield from super().map(settings, units)
            finally:
                ended.append("workers")

    def full(self: Store, unit: Unit, files: Any) -> None:
        raise StorageError("no space left", where="scores")

    monkeypatch.setattr(Store, "put", full)
    with pytest.raises(StorageError, match="no space left") as caught:
        evaluate(asked(vad_worlds.make("ped2", tmp_path / "set")), tmp_path / "out", executor=Sending())
    assert ended == ["workers"], caught  # which keeps the frame, and what it refers to


def test_a_node_lost_while_its_workers_start_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as others work."""
    from ray.exceptions import RayActorError

    from lavida.evaluate import cluster

    def lost(ref: Any) -> None:
        raise RayActorError()

    monkeypatch.setattr(cluster.ray, "put", lambda thing: thing)
    monkeypatch.setattr(cluster.ray, "get", lost)
    run = cluster._Run(Evaluation(benchmark="ped2", root="set", detector="motion"), [], 9, False)
    run._idle.append("works")
    for place in range(8):
        run._starting[place] = "starts"
        run._started(place)
    run._idle.clear()
    run._starting[8] = "starts"
    with pytest.raises(WorkerError, match="no worker starts"):
        run._started(8)


@pytest.mark.long
def test_ray_gives_the_same_files(tmp_path: Path, two: Any, capfd: pytest.CaptureFixture[str]) -> None:
    world = vad_worlds.make("shanghaitech", tmp_path / "set")
    settings = asked(world, "motion")
    evaluate(settings, tmp_path / "here")
    evaluate(settings, tmp_path / "there", executor=two)
    assert files(tmp_path / "there") == files(tmp_path / "here")
    with pytest.raises(DetectorError, match="unknown option 'sine'"):
        evaluate(asked(world, "motion", options={"sine": 1}), tmp_path / "wrong", executor=two)
    (world.root / "testing/frames/01_0014/003.jpg").write_bytes(b"no picture")
    with pytest.raises(AesamplerError, match=r"003.jpg: an image cannot be read"):
        evaluate(asked(world, "motion", options={"chunk": 4}), tmp_path / "broken", executor=two)
    assert capfd.readouterr().out == ""


@pytest.mark.long
def test_ray_replaces_a_lost_worker(tmp_path: Path, two: Any) -> None:
    world = vad_worlds.make("ped2", tmp_path / "set")
    flag = tmp_path / "flag"
    result = evaluate(asked(world, options={"flag": str(flag)}, reference=False), tmp_path / "out", executor=two)
    assert flag.exists()
    assert result.told[0].metrics["frame_auc"] == 1.0
    bad = asked(world, options={"flag": str(tmp_path / "no/such/folder/flag")}, reference=False)
    with pytest.raises(WorkerError, match=r"workers were lost 3 times"):
        evaluate(bad, tmp_path / "lost", executor=two)


@pytest.mark.long
def test_ray_without_room_goes_on_with_what_is_left(tmp_path: Path, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node is lost for good: nothing waits for a worker that can never start. And a cluster whose CPUs are all in
    use is waited for, which is said.
    """
    import ray

    from lavida.evaluate import cluster

    world = vad_worlds.make("ped2", tmp_path / "set")
    flag = tmp_path / "flag"
    monkeypatch.setattr(cluster, "WAIT_S", 0.5)
    rooms = {"before": 2, "after": 1}
    monkeypatch.setattr(
        cluster.session,
        "offered",
        lambda resource: 0 if resource == "GPU" else rooms["after" if flag.exists() else "before"],
    )
    lost = asked(world, options={"flag": str(flag)}, reference=False)
    assert evaluate(lost, tmp_path / "out", executor=two).told[0].metrics["frame_auc"] == 1.0
    flag.unlink()
    rooms |= {"before": 1, "after": 0}
    with pytest.raises(WorkerError, match=r"the cluster offers no CPU, and no worker is left; join nodes to it"):
        evaluate(lost, tmp_path / "none", executor=two)
    monkeypatch.undo()
    monkeypatch.setattr(cluster, "BUSY_S", 1.0)
    monkeypatch.setattr(cluster, "WAIT_S", 0.5)

    @ray.remote(num_cpus=2)
    class Greedy:
        def held(self) -> None:
            pass

    other = Greedy.remote()
    ray.get(other.held.remote())
    told: list[str] = []

    def heard(line: str) -> None:
        told.append(line)
        ray.kill(other)

    run = cluster._Run(
        asked(world, "motion", reference=False), [Unit(video=each) for each in world.clips], 2, False, heard
    )
    assert {unit.video for unit, _ in run.files()} == set(world.clips)
    assert told == ["no worker has started for 1 s, the cluster's CPUs may be busy; waiting"]


LOST = """
import os, sys
from pathlib import Path

if __name__ == "__main__":
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray.cluster_utils

    nodes = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost = [nodes.add_node(num_cpus=1)]

    from lavida.evaluate import Settings, evaluate
    from lavida.evaluate.cluster import Cluster

    def told(what, done, total):
        if done == 2:
            nodes.remove_node(lost.pop(), allow_graceful=False)

    settings = Settings(benchmark="c-sht", root=sys.argv[1], detector="motion", bootstrap=0)
    with Cluster(address=nodes.address) as executor:
        outcome = evaluate(settings, Path(sys.argv[2]), executor=executor, progress=told)
    print(len(lost), outcome.told[0].metrics["frame_auc"])
    nodes.shutdown()
"""


@pytest.mark.long
def test_a_node_lost_for_good(tmp_path: Path) -> None:
    """Two nodes, one killed while videos are scored: the other one scores what is left."""
    world = vad_worlds.make("c-sht", tmp_path / "set")
    here = evaluate(asked(world, "motion", reference=False), tmp_path / "here").told[0].metrics["frame_auc"]
    (tmp_path / "program.py").write_text(LOST, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "program.py"), str(world.root), str(tmp_path / "there")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    assert done.stdout.splitlines()[-1] == f"0 {here}"


# -- the real thing ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Outcome]:
    out = tmp_path_factory.mktemp("real")

    def run(benchmark: str, root: str) -> Outcome:
        settings = Evaluation(benchmark=benchmark, root=str(real_data / root), detector="motion", bootstrap=50)
        return evaluate(settings, out / benchmark)

    return run


def test_real_ped2(real: Callable[[str, str], Outcome], real_data: Path) -> None:
    result = real("ped2", "UCSDped2")
    assert (result.videos, result.frames, result.positives) == (4, 660, 483)
    scores, labels = [], []
    for folder in sorted((real_data / "UCSDped2/Test").glob("Test???")):
        grey = np.stack(
            [np.asarray(Image.open(path).convert("RGB"), np.float64).mean(2) for path in sorted(folder.iterdir())]
        )
        apart = np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2))
        scores.append(np.concatenate([apart[:1], apart]))
        masks = sorted(Path(f"{folder}_gt").iterdir())
        labels.append([np.asarray(Image.open(path)).max() > 0 for path in masks])
    auc = sklearn_metrics.roc_auc_score(np.concatenate(labels), np.concatenate(scores))
    assert result.told[0].metrics["frame_auc"] == pytest.approx(auc, abs=2e-3)
    assert result.told[0].metrics["frame_auc"] == pytest.approx(0.6190, abs=1e-4)
    assert result.told[0].metrics["pixel_auc"] == pytest.approx(0.9044, abs=1e-4)


def test_real_avenue(real: Callable[[str, str], Outcome]) -> None:
    result = real("avenue", "Avenue")
    assert (result.videos, result.frames, result.positives) == (2, 309, 190)
    assert result.told[0].metrics["frame_auc"] == pytest.approx(0.6049, abs=1e-4)
    assert result.told[0].metrics["pixel_auc"] == pytest.approx(0.8213, abs=1e-4)


@pytest.mark.long
def test_real_videos_and_tiny_models(real_data: Path, tmp_path: Path) -> None:
    """From file to AUC with models of the real kind, random and tiny."""
    from test_lavida_anyanomaly import saved

    from lavida.clip import Clip
    from lavida.model import LavidaModel

    LavidaModel.tiny(0).save_pretrained(tmp_path / "lavida")
    for benchmark, root, pixels in (("ped2", "UCSDped2", 57_024_000), ("avenue", "Avenue", 71_193_600)):
        settings = Evaluation(
            benchmark=benchmark,
            root=str(real_data / root),
            detector="lavida",
            options={"model": str(tmp_path / "lavida")},
            device="cpu",
            bootstrap=20,
            categories=("bicycle", "cart"),
        )
        result = evaluate(settings, tmp_path / benchmark)
        told, motion = result.told
        assert all(value is not None and 0 <= value <= 1 for value in told.metrics.values())
        assert set(told.metrics) == set(motion.metrics) >= {"frame_auc", "pixel_auc"}
        store = Store(Folder.at(tmp_path / benchmark / "scores/lavida"))
        merged = PixelAuc()
        for row in told.videos:
            counted = store.pixels(Unit(video=row["name"]))
            assert counted is not None
            merged.merge(counted)
        assert sum(merged.counts().totals) == pixels
        assert merged.error_bound == 0.0
    saved(tmp_path / "lvlm", "qwen2-vl")
    Clip.tiny(2).save(tmp_path / "clip")
    options = {"model": str(tmp_path / "lvlm"), "clip": str(tmp_path / "clip"), "clip_pretrained": None}
    options |= {"max_new_tokens": 6, "questions": 12, "windows": [120]}
    settings = Evaluation(
        benchmark="avenue", root=str(real_data / "Avenue"), detector="anyanomaly", options=options, device="cpu",
        categories=("bicycle",), bootstrap=20, reference=False,
    )  # fmt: skip
    result = evaluate(settings, tmp_path / "anyanomaly")
    assert result.told[0].metrics["frame_auc"] is not None
    assert result.told[0].notes["questions"] == 3 * (2 + 12)
    rows = (tmp_path / "anyanomaly/scores/anyanomaly/08.details.jsonl").read_text().splitlines()
    assert len(rows) == 6
    tuned = evaluate(settings.model_copy(update={"tune_on_test": True}), tmp_path / "anyanomaly")
    assert tuned.told[0].tuned is not None
    assert (tuned.told[0].metrics["frame_auc"] or 0) >= (result.told[0].metrics["frame_auc"] or 0)
