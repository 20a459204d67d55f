"""The detectors but AnyAnomaly: what is checked of any, `motion`, `clip` and `lavida`; one that a third party installs.

`brightness_detector` is a package of a third party, installed by pip into a folder of its own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aesampler import video
from aesampler.errors import DetectorError, ModelError
from lavida import detectors
from lavida.benchmarks import open_benchmark
from lavida.detectors import Detector, Scored, find, load_detector
from lavida.detectors.clip import ClipSettings, ZeroShotClip
from lavida.detectors.detector import chunked, device_of
from lavida.detectors.lavida import Lavida, LavidaSettings
from lavida.detectors.memory import memory_told
from lavida.detectors.motion import Motion, MotionSettings
from lavida.metrics import PixelAuc, frame_auc
from lavida.model import LavidaModel, Scores

BRIGHTNESS = '''
"""How bright a frame is."""
import numpy as np
from lavida.detectors import Detector, Scored, Settings


class BrightnessSettings(Settings):
    """gain: factor."""

    gain: float = 1.0


class Brightness(Detector):
    """The mean of a frame."""

    name = "brightness"
    settings = BrightnessSettings
    uses_categories = False

    def scan(self, frames, categories):
        for place, frame in enumerate(frames):
            score = self.options.gain * frame.mean() / 255
            yield Scored(start=place, frame_scores=np.full(1, score, dtype=np.float32))
'''
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "brightness-detector"
version = "1.0"

[project.entry-points."lavida.detectors"]
brightness = "brightness_detector:Brightness"
motion = "brightness_detector:Brightness"
broken = "brightness_detector:Missing"
alien = "brightness_detector:np"

[tool.setuptools]
packages = ["brightness_detector"]
"""


def film(count: int, size: tuple[int, int] = (12, 16), seed: int = 0) -> list[np.ndarray]:
    drawn = np.random.default_rng(seed)
    return [drawn.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


class Said(Detector):
    """Says what it is told to, whatever it sees."""

    name = "said"
    uses_categories = False
    says: ClassVar[list[Scored]] = []
    reads: ClassVar[int | None] = None

    def scan(self, frames: Iterable[np.ndarray], categories: tuple[str, ...]) -> Iterator[Scored]:
        list(itertools.islice(frames, self.reads))
        yield from self.says


def said(*pieces: Scored, pixel: bool = False, reads: int | None = None) -> Said:
    made = Said()
    made.says, made.pixel, made.reads = list(pieces), pixel, reads  # type: ignore[misc]
    return made


def piece(start: int, count: int, **more: Any) -> Scored:
    return Scored(start=start, frame_scores=np.zeros(count, dtype=np.float32), **more)


# -- what is checked of any -------------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    assert detectors.names() == ("motion", "clip", "anyanomaly", "lavida")
    assert set(detectors.find("motion").settings.model_fields) == {"pixels", "chunk"}
    made = load_detector("motion", chunk="3", pixels="false")  # as the command line gives them
    assert (made.options.model_dump(), made.pixel) == ({"pixels": False, "chunk": 3}, False)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lavidaa", {}, "unknown detector 'lavidaa'; allowed: motion, clip, anyanomaly, lavida; did you mean lavida?"),
        ("zzz", {}, "entry points lavida.detectors"),
        (
            "motion",
            {"chunks": 2},
            "detector motion: unknown option 'chunks'; allowed: chunk, pixels; did you mean chunk?",
        ),
        ("motion", {"chunk": 1}, "detector motion, option chunk: input should be greater than or equal to 2; got 1"),
        ("lavida", {}, "detector lavida, option model: this option is needed"),
        (
            "lavida",
            {"model": "x", "coverage": "some"},
            "option coverage: input should be 'auto', 'offsets' or 'spread'",
        ),
        ("clip", {"template": "a photo"}, "option template: a template has {name} where the text goes; got 'a photo'"),
        (
            "anyanomaly",
            {"weights": "0,0,0"},
            "weights are three numbers from 0, one of them above 0; got [0.0, 0.0, 0.0]",
        ),
        ("anyanomaly", {"weights": "1,2"}, "option weights.2: a value is missing"),
        ("anyanomaly", {"windows": [50]}, "windows are sides that divide 240; got [50]"),
        ("anyanomaly", {"segment": 10}, "segment is a multiple of 4, or 1 with weights 1,0,0"),
        ("anyanomaly", {"preset": "ped2"}, "option preset: input should be 'untuned', 'avenue' or 'shanghaitech'"),
        ("anyanomaly", {"sigma": "inf"}, "option sigma: input should be a finite number; got 'inf'"),
    ],
)
def test_what_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(DetectorError) as caught:
        load_detector(name, **options)
    assert message in str(caught.value)


def test_a_video_is_checked_frame_by_frame() -> None:
    motion = Motion()
    frame = film(1)[0]
    cases: list[tuple[list[Any], str]] = [
        ([], "a video has no frame; give one that has"),
        ([frame, frame.astype(float)], "frame 1: this is no frame; got float64 [12, 16, 3]; allowed: uint8"),
        ([frame[:, :, 0]], "frame 0: this is no frame; got uint8 [12, 16]"),
        (["x"], "frame 0: this is no frame; got str"),
        ([frame[:0]], "frame 0: a frame has no pixels; got [0, 16, 3]"),
        (
            [frame, frame[:8]],
            "frame 1: a video changes its size; got 16x8; allowed: 16x12, as frame 0 has; cut it there",
        ),
    ]
    for frames, message in cases:
        with pytest.raises(DetectorError) as caught:
            motion.score(frames, [])
        assert message in str(caught.value)


def test_categories_are_texts() -> None:
    lavida = Lavida(LavidaSettings(model="x"), model=Weighed())  # type: ignore[arg-type]
    cases: list[tuple[Any, str]] = [
        ("bicycle", "categories are a list of texts; got 'bicycle'; allowed: ['bicycle']"),
        (["bicycle", " "], "categories: a category is a text; got ' '"),
        ([3], "categories: a category is a text; got 3"),
        ([], "lavida: this detector needs to be told what is anomalous; give a category"),
    ]
    for categories, message in cases:
        with pytest.raises(DetectorError) as caught:
            lavida.score(film(3), categories)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: said(piece(0, 2), piece(3, 1)), "scores from frame 3 on where 2 comes next"),
        (lambda: said(piece(0, 3)), "a detector left out frames; got 1 frames without a score"),
        (lambda: said(piece(0, 3), reads=3), "a detector left out frames; got frames that were not read"),
        (lambda: said(piece(0, 5)), "scores up to frame 4 of 4 read"),
        (lambda: said(piece(0, 0)), "frame scores of float32 [0]"),
        (lambda: said(Scored(start=0, frame_scores=np.array([0, 1, np.nan, 2], dtype=np.float32))), "score of nan"),
        (lambda: said(Scored(start=0, frame_scores=np.zeros(4))), "frame scores of float64 [4]"),  # type: ignore[arg-type]
        (lambda: said(piece(0, 4), pixel=True), "no pixel scores where pixel is True"),
        (lambda: said(piece(0, 4, pixel_scores=np.zeros((4, 6, 8), np.float32))), "pixel scores where pixel is False"),
        (lambda: said(piece(0, 4, pixel_scores=np.zeros((4, 6, 8), np.float32)), pixel=True), "scores [4, 6, 8] for 4"),
        (lambda: said(piece(0, 4, pixel_scores=np.zeros((4, 12, 16))), pixel=True), "pixel scores of float64"),
        (lambda: said(piece(0, 4, parts={"frame": np.zeros(3, np.float32)})), "parts of [[3]] for 4 frames"),
    ],
)
def test_a_detector_that_does_not_keep_its_word(made: Any, message: str) -> None:
    with pytest.raises(DetectorError) as caught:
        made().score(film(4), [])
    assert message in str(caught.value).replace("said: ", "")


def test_chunks_hold_everything_in_order() -> None:
    assert list(chunked(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunked(range(6), 3)) == [[0, 1, 2], [3, 4, 5]]
    assert list(chunked([], 3)) == []


def test_devices() -> None:
    assert device_of("cpu") == "cpu"
    assert device_of("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(DetectorError, match=f"got {name}; allowed: auto, cpu, cuda"):
            device_of(name)


# -- a package of a third party ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the package."""
    source = tmp_path_factory.mktemp("source")
    (source / "brightness_detector").mkdir()
    (source / "brightness_detector/__init__.py").write_text(BRIGHTNESS, encoding="utf-8")
    (source / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(site), str(source)], check=True, cwd=source, timeout=300
    )
    return site


def test_an_installed_package_adds_a_detector(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    assert detectors.names() == ("motion", "clip", "anyanomaly", "lavida", "alien", "brightness", "broken")
    made = load_detector("brightness", gain=2)
    frames = film(5)
    scores, pixels = made.score(frames, ["anything"])
    np.testing.assert_allclose(scores, [2 * frame.mean() / 255 for frame in frames], rtol=1e-6)
    assert pixels is None
    assert isinstance(load_detector("motion"), Motion)  # none can take the place of one of ours
    with pytest.raises(DetectorError, match="unknown option 'gian'; allowed: gain; did you mean gain"):
        load_detector("brightness", gian=2)
    with pytest.raises(DetectorError, match=r"brightness_detector:Missing: the detector 'broken' cannot be imported"):
        load_detector("broken")
    with pytest.raises(DetectorError, match="the detector 'alien' is not a Detector"):
        load_detector("alien")


def test_it_is_found_in_a_process_of_its_own_that_imports_no_torch(site: Path) -> None:
    code = (
        "import sys\nfrom lavida.detectors import load_detector, find\n"
        "made = load_detector('brightness')\nload_detector('motion')\n"
        "for name in ('anyanomaly', 'lavida', 'clip'): find(name)\n"
        "print(type(made).__module__, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    assert told.stdout.split() == ["brightness_detector", "False", "False"]


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "detector motion: out of memory; lower --option chunk (8)"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            "detector motion: out of memory; got [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate "
            "memory; lower --option chunk (8)",
        ),
    ],
)
def test_too_little_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("lavida.detectors.motion.difference", full)
    with pytest.raises(DetectorError) as raised:
        Motion().score(film(3), [])
    assert str(raised.value) == said
    error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        Motion().score(film(3), [])


def test_what_does_not_fit_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    tried = "got CUDA out of memory. Tried to allocate 2 GiB"
    with pytest.raises(DetectorError) as raised, memory_told("anyanomaly", find("anyanomaly").settings()):
        full()
    assert str(raised.value) == (
        f"detector anyanomaly: out of memory; {tried}; lower --option questions (8), --option batch (4), or take a "
        "smaller --model, or take a smaller --option clip, or give --device cpu"
    )
    monkeypatch.setattr("lavida.detectors.clip.load", full)
    with pytest.raises(DetectorError) as raised:
        load_detector("clip", batch=1)
    assert str(raised.value) == (f"detector clip: out of memory; {tried}; take a smaller --model, or give --device cpu")


# -- motion -----------------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 12), chunk=st.integers(2, 6), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_motion_is_the_difference_to_the_frame_before(count: int, chunk: int, seed: int) -> None:
    frames = film(count, (3, 4), seed)
    scores, pixels = Motion(MotionSettings(chunk=chunk)).score(iter(frames), [])
    whole = np.stack(frames).astype(float)
    expected = np.abs(np.diff(whole, axis=0)).mean(axis=3) / 255
    expected = np.concatenate([expected[:1], expected]) if count > 1 else np.zeros((1, 3, 4))
    assert pixels is not None
    np.testing.assert_allclose(pixels, expected, atol=5e-4)  # float16
    np.testing.assert_allclose(scores, expected.mean(axis=(1, 2)), rtol=1e-5)


def test_motion_without_pixel_scores_gives_the_same_frame_scores() -> None:
    frames = film(9)
    scores, pixels = Motion(MotionSettings(pixels=False)).score(frames, [])
    assert pixels is None
    np.testing.assert_array_equal(scores, Motion().score(frames, [])[0])


def test_motion_holds_few_frames_of_a_long_video() -> None:
    tracemalloc.start()
    try:
        frames = (np.full((120, 160, 3), place % 256, dtype=np.uint8) for place in range(2000))
        count = sum(len(each.frame_scores) for each in Motion().score_stream(frames, []))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 2000
    assert peak < 8e6  # the video is 115 MB


# -- clip -------------------------------------------------------------------------------------------------------------


class Colours:
    """A CLIP that knows three colours by name, and sees a picture's mean colour; counts what it is shown."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def text(self, names: Sequence[str]) -> torch.Tensor:
        rows = [[float(colour in name) for colour in ("red", "green", "blue")] for name in names]
        return torch.nn.functional.normalize(torch.tensor(rows) + 1e-3, dim=-1)

    def images(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
        self.seen.append(len(pictures))
        rows = torch.tensor(np.stack([picture.mean(axis=(0, 1)) for picture in pictures]), dtype=torch.float32)
        return torch.nn.functional.normalize(rows + 1e-3, dim=-1)


def plain(*colour: int) -> np.ndarray:
    return np.full((6, 8, 3), colour, dtype=np.uint8)


def test_clip_tells_an_anomaly_from_a_normal_scene() -> None:
    clip = Colours()
    made = ZeroShotClip(ClipSettings(batch=2, normal="a green scene"), clip=clip)
    frames = [plain(255, 0, 0), plain(0, 255, 0), plain(0, 0, 255), plain(128, 128, 0), plain(0, 255, 0)]
    scores, pixels = made.score(frames, ["red", "blue"])
    np.testing.assert_allclose(scores, [1, 0, 1, 0.5, 0], atol=1e-3)
    assert (pixels, made.threshold, clip.seen) == (None, 0.5, [2, 2, 1])
    cosine = ZeroShotClip(ClipSettings(rule="cosine", normal="a green scene"), clip=clip)
    np.testing.assert_allclose(cosine.score(frames, ["red", "blue"])[0], [1, 0, 1, 0.707, 0], atol=3e-3)
    assert cosine.threshold is None


def test_clip_softmax_is_that_of_the_logits() -> None:
    drawn = np.random.default_rng(4)
    text, image = (
        torch.nn.functional.normalize(torch.tensor(drawn.normal(size=(n, 5))).float(), dim=1) for n in (4, 7)
    )

    class Fixed(Colours):
        def text(self, names: Sequence[str]) -> torch.Tensor:
            assert list(names) == ["usual", "see a", "see b", "see c"]
            return text

        def images(self, pictures: Sequence[np.ndarray]) -> torch.Tensor:
            return image

    made = ZeroShotClip(ClipSettings(normal="usual", template="see {name}"), clip=Fixed())
    scores, _ = made.score(film(7), ["a", "b", "c"])
    np.testing.assert_allclose(scores, 1 - (100 * image @ text.T).softmax(dim=1)[:, 0], atol=1e-5)


def test_clip_runs_with_a_real_model_from_a_folder(tmp_path: Path) -> None:
    from lavida.clip import Clip

    Clip.tiny(3).save(tmp_path / "clip")
    made = load_detector("clip", model=str(tmp_path / "clip"), pretrained=None, batch=4, device="cpu")
    frames = film(6, (40, 30))
    scores, _ = made.score(frames, ["bicycle", "a person running"])
    assert scores.shape == (6,)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(made.score(frames[2:3], ["bicycle", "a person running"])[0], scores[2:3], atol=1e-5)
    with pytest.raises(ModelError, match="no such CLIP model"):
        load_detector("clip", model="ViT-B-33")


# -- lavida: what is looked at ----------------------------------------------------------------------------------------


class Weighed:
    """Stands for LavidaModel: a frame's score is its first pixel's red / 255, its mask is that score everywhere. Keeps
    the windows it is given.
    """

    def __init__(self) -> None:
        self.windows: list[list[int]] = []
        self.batches: list[int] = []

    def collator(self, training: bool) -> str:
        assert not training
        return "collator"

    def score(self, clips: Any, categories: Any, *, pixels: bool, collator: str) -> list[Scores]:
        assert collator == "collator"
        assert len(categories) == len(clips)
        self.batches.append(len(clips))
        self.windows += [clip[:, 0, 0, 0].tolist() for clip in clips]
        found = []
        for clip in clips:
            frames = (clip[:, 0, 0, 0] / 255).astype(np.float32)
            maps = np.broadcast_to(frames[:, None, None], clip.shape[:3])
            found.append(Scores(frames=frames, pixels=maps if pixels else None))
        return found


def numbered(count: int) -> Iterator[np.ndarray]:
    for place in range(count):
        yield np.full((4, 6, 3), place, dtype=np.uint8)


def looked(count: int, **options: Any) -> tuple[np.ndarray, Any, Weighed, Lavida]:
    model = Weighed()
    made = Lavida(LavidaSettings(model="x", **options), model=model)  # type: ignore[arg-type]
    scores, pixels = made.score(numbered(count), ["a"])
    return scores, pixels, model, made


def test_windows_of_eight_consecutive_frames_and_a_short_tail() -> None:
    scores, pixels, model, made = looked(19, batch=2)
    assert model.windows == [[*range(8)], [*range(8, 16)], [16, 17, 18]]
    assert model.batches == [2, 1]
    np.testing.assert_allclose(scores, np.arange(19) / 255, rtol=1e-6)
    assert (pixels.shape, pixels.dtype) == ((19, 4, 6), np.float32)
    np.testing.assert_allclose(pixels[:, 1, 2], scores, atol=1e-4)
    assert made.notes() == {}


def test_windows_with_a_step_cover_all_offsets() -> None:
    scores, _, model, _ = looked(27, clip_step=3, batch=2)
    assert model.windows[:3] == [[*range(0, 24, 3)], [*range(1, 24, 3)], [*range(2, 24, 3)]]
    assert model.windows[3:] == [[24], [25], [26]]
    assert max(model.batches) == 2
    np.testing.assert_allclose(scores, np.arange(27) / 255, rtol=1e-6)


@given(
    count=st.integers(1, 60),
    clip_step=st.integers(1, 9),
    batch=st.integers(1, 5),
    frames=st.integers(1, 8),
    coverage=st.sampled_from(["auto", "offsets", "spread"]),
)
@settings(max_examples=80)
def test_every_frame_gets_a_score_and_none_is_looked_at_twice(count: int, clip_step: int, **options: Any) -> None:
    scores, pixels, model, made = looked(count, clip_step=clip_step, **options)
    seen = sorted(itertools.chain(*model.windows))
    assert all(np.diff(window).tolist() == [clip_step] * (len(window) - 1) for window in model.windows[:-1])
    if made.options.spreads:
        expected = [min(first + clip_step // 2, count - 1) for first in range(0, count, clip_step)]
        assert seen == expected
        nearest = np.repeat(expected, clip_step)[:count]
        np.testing.assert_allclose(scores, nearest / 255, rtol=1e-6)
        assert made.notes() == {
            "coverage": f"one frame of every {clip_step} was looked at, its scores are those of all"
        }
    else:
        assert seen == [*range(count)]
        np.testing.assert_allclose(scores, np.arange(count) / 255, rtol=1e-6)
    np.testing.assert_allclose(pixels[:, 0, 0], scores, atol=1e-3)


def test_a_step_of_128_holds_few_frames() -> None:
    tracemalloc.start()
    try:
        model = Weighed()
        made = Lavida(LavidaSettings(model="x", clip_step=128, batch=1, pixels=False), model=model)  # type: ignore[arg-type]
        frames = (np.full((60, 80, 3), place % 256, dtype=np.uint8) for place in range(5000))
        count = sum(len(each.frame_scores) for each in made.score_stream(frames, ["a"]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (count, len(model.windows)) == (5000, 5)
    assert peak < 4e6  # 8 frames are 0.1 MB, the video 72 MB


# -- lavida: the real model, tiny -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lavida") / "model"
    LavidaModel.tiny(0).save_pretrained(path)
    return path


def test_a_trained_folder_scores_a_video(folder: Path) -> None:
    made = load_detector("lavida", model=str(folder), batch=2, device="cpu")
    frames = film(19, (48, 64))
    names = ["bicycle", "person falling"]
    scores, pixels = made.score(iter(frames), names)
    assert pixels is not None
    assert (scores.shape, pixels.shape, pixels.dtype) == ((19,), (19, 48, 64), np.float32)
    direct = LavidaModel.from_pretrained(folder).score([np.stack(frames[8:16])], [names])[0]
    np.testing.assert_allclose(scores[8:16], direct.frames, atol=1e-5)
    np.testing.assert_allclose(pixels[8:16], direct.pixels, atol=1e-3)
    quick = load_detector("lavida", model=str(folder), clip_step=9, pixels=False, device="cpu")
    scores, pixels = quick.score(iter(frames), names)
    assert (len(scores), pixels) == (19, None)
    assert [len(set(run.tolist())) for run in np.split(scores, [9, 18])] == [1, 1, 1]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path / "none")):
        load_detector("lavida", model=str(tmp_path / "none"), device="cpu")


# -- real videos ------------------------------------------------------------------------------------------------------


def ped2(real_data: Path) -> list[Path]:
    found = sorted(path for path in (real_data / "UCSDped2/Test").iterdir() if not path.name.endswith("_gt"))
    assert [path.name for path in found] == ["Test001", "Test004", "Test009", "Test012"]
    return found


def test_real_videos_through_motion(real_data: Path) -> None:
    motion = Motion(MotionSettings(pixels=False))
    lengths = []
    for path in ped2(real_data):
        scores, _ = motion.score(video.frames(path), [])
        assert scores.min() > 0
        lengths.append(len(scores))
    assert lengths == [180, 180, 120, 180]
    avenue = sorted((real_data / "Avenue/testing_videos").glob("*.avi"))
    assert len(avenue) == 2
    scores, pixels = Motion().score(video.frames(avenue[0]), [])
    assert pixels is not None
    assert (scores.shape, pixels.shape) == ((36,), (36, 360, 640))


def test_real_videos_through_a_tiny_lavida(real_data: Path, folder: Path) -> None:
    made = load_detector("lavida", model=str(folder), device="cpu")
    avenue = sorted((real_data / "Avenue/testing_videos").glob("*.avi"))[0]
    for path, shape in ((ped2(real_data)[0], (240, 360)), (avenue, (360, 640))):
        scores, pixels = made.score(itertools.islice(video.frames(path), 10), ["bicycle", "cart"])
        assert pixels is not None
        assert (scores.shape, pixels.shape) == ((10,), (10, *shape))
        assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.long
@pytest.mark.parametrize(("name", "root", "frames"), [("ped2", "UCSDped2", 660), ("avenue", "Avenue", 309)])
def test_real_sets_from_file_to_auc(name: str, root: str, frames: int, real_data: Path, folder: Path) -> None:
    benchmark = open_benchmark(name, real_data / root)
    for made in (Motion(), load_detector("lavida", model=str(folder), device="cpu", clip_step=benchmark.clip_step)):
        scores, labels, pixels = [], [], PixelAuc()
        for each in benchmark.videos():
            assert each.masks is not None
            masks = each.masks()
            for found in made.score_stream(each.frames(), benchmark.categories):
                assert found.pixel_scores is not None
                scores.append(found.frame_scores)
                pixels.update(found.pixel_scores, np.stack([*itertools.islice(masks, len(found.frame_scores))]))
            labels.append(each.labels)
        assert sum(map(len, labels)) == frames
        assert 0 < frame_auc(np.concatenate(scores), np.concatenate(labels)) < 1
        assert 0 < pixels.value() < 1
