"""Metrics against scikit-learn and against counting all pairs; pixels against the sorted whole."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

from aesampler.errors import MetricError
from lavida.metrics import (
    METRICS,
    Counts,
    PixelAuc,
    average_precision,
    bootstrap,
    bootstrap_mean,
    equal_error_rate,
    frame_auc,
    macro,
    per_class_auc,
    pixel_auc,
)

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def drawn(seed: int, size: int = 500, digits: int = 2) -> tuple[Array, Labels]:
    """Scores with ties that say a little about the labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(size) < rng.uniform(0.1, 0.9)).astype(np.int64)
    labels[:2] = 0, 1
    return np.round(rng.normal(labels, 1.5), digits), labels


@st.composite
def scored(draw: st.DrawFn) -> tuple[Array, Labels]:
    """Scores, often equal, of both classes."""
    size = draw(st.integers(2, 40))
    some = st.sampled_from([-np.inf, -1.0, -1e-300, -0.0, 0.0, 1e-30, 0.5, np.nextafter(0.5, 1), 1.0, 1e9])
    scores = draw(hnp.arrays(np.float64, size, elements=some | st.floats(allow_nan=False, width=64)))
    labels = draw(hnp.arrays(np.int64, size, elements=st.integers(0, 1)))
    labels[:2] = 0, 1
    return scores, labels


def ranked(scores: Array) -> Array:
    """The same order and ties without the infinities that scikit-learn refuses."""
    return np.unique(scores, return_inverse=True)[1].astype(float)


# -- frames ----------------------------------------------------------------------------------------------------------


@given(scored())
def test_frames_equal_scikit_learn(pair: tuple[Array, Labels]) -> None:
    scores, labels = pair
    assert frame_auc(scores, labels) == pytest.approx(roc_auc_score(labels, ranked(scores)), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, ranked(scores)), abs=1e-12
    )
    assert equal_error_rate(scores, labels) == pytest.approx(crossing(ranked(scores), labels), abs=1e-9)


def crossing(scores: Array, labels: Labels) -> float:
    """The equal error rate by a root of scikit-learn's curve."""
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    # Along the curve, not over its false positive rates, which have steps.
    along = np.arange(len(false))
    at = brentq(lambda t: np.interp(t, along, false) + np.interp(t, along, true) - 1, 0, len(false) - 1, xtol=1e-13)
    return float(np.interp(at, along, false))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("digits", [0, 1, 6])
def test_frames_equal_scikit_learn_on_many(seed: int, digits: int) -> None:
    scores, labels = drawn(seed, 5000, digits)
    assert frame_auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert equal_error_rate(scores, labels) == pytest.approx(crossing(scores, labels), abs=1e-9)


@given(scored())
def test_an_auc_counts_all_pairs(pair: tuple[Array, Labels]) -> None:
    scores, labels = pair
    pairs = list(itertools.product(scores[labels == 1], scores[labels == 0]))
    assert frame_auc(scores, labels) == sum((up > down) + (up == down) / 2 for up, down in pairs) / len(pairs)


def test_curves_equal_scikit_learn() -> None:
    scores, labels = drawn(3)
    false, true, thresholds = Counts.of(scores, labels).roc()
    expected = roc_curve(labels, scores, drop_intermediate=False)
    for ours, theirs in zip((false, true, thresholds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)
    precision, recall, thresholds = Counts.of(scores, labels).precision_recall()
    theirs = precision_recall_curve(labels, scores)
    np.testing.assert_allclose(precision[::-1], theirs[0][:-1], atol=1e-12)
    np.testing.assert_allclose(recall[::-1], theirs[1][:-1], atol=1e-12)
    np.testing.assert_allclose(thresholds[::-1], theirs[2], atol=1e-12)


def test_perfect_inverted_and_constant_are_exact() -> None:
    labels = np.arange(1001) % 3 == 0
    for scores, auc, eer in ((labels, 1.0, 0.0), (~labels, 0.0, 1.0), (np.zeros(1001), 0.5, 0.5)):
        assert frame_auc(scores, labels) == auc
        assert equal_error_rate(scores, labels) == eer
    assert average_precision(labels, labels) == 1.0
    assert average_precision(np.zeros(1001), labels) == 334 / 1001


def test_unknown_labels_are_left_out() -> None:
    scores, labels = drawn(1)
    more = np.concatenate([scores, [99.0, -99.0]]), np.concatenate([labels, [255, 255]]).astype(np.uint8)
    for metric in (frame_auc, average_precision, equal_error_rate):
        assert metric(*more) == metric(scores, labels)


def test_videos_are_taken_as_one() -> None:
    parts = [drawn(seed, size) for seed, size in ((1, 70), (2, 3), (3, 200))]
    together = [np.concatenate(each) for each in zip(*parts, strict=True)]
    scores, labels = zip(*parts, strict=True)
    for metric in (frame_auc, average_precision, equal_error_rate):
        assert metric(scores, list(labels)) == metric(*together)
    merged = Counts.merged(Counts.of(*part) for part in parts)
    assert {name: metric(merged) for name, metric in METRICS.items()} == {
        "auc": frame_auc(*together),
        "average_precision": average_precision(*together),
        "equal_error_rate": equal_error_rate(*together),
    }


@pytest.mark.parametrize("metric", [frame_auc, average_precision, equal_error_rate])
@pytest.mark.parametrize(
    ("scores", "labels", "fault"),
    [
        ([0.1, 0.2], [1, 1], "2 positives, 0 negatives"),
        ([0.1, 0.2], [0, 255], "0 positives, 1 negatives"),
        ([], [], "0 positives, 0 negatives"),
        ([0.1, np.nan], [0, 1], "a score is NaN; got 1 of 1"),
        ([0.1, 0.2], [0, 2], "a label is no label; got 2; allowed: 0, 1, 255"),
        ([0.1, 0.2], [0, -1], "a label is no label"),
        ([0.1, 0.2], [0], "2 scores, 1 labels"),
        ([[0.1], [0.2, 0.3]], [[0], [1]], "3 scores, 2 labels"),
    ],
)
def test_what_has_no_value_is_refused(
    metric: Callable[[object, object], float], scores: object, labels: object, fault: str
) -> None:
    with pytest.raises(MetricError, match=fault.replace("(", r"\(")):
        metric(scores, labels)


def test_a_nan_under_an_unknown_label_does_not_matter() -> None:
    assert frame_auc([0.1, 0.9, np.nan], [0, 1, 255]) == 1.0


def test_scores_of_any_type() -> None:
    labels = np.array([0, 1, 0, 1], bool)
    for kind in (np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_):
        assert frame_auc(np.array([0, 1, 1, 1]).astype(kind), labels) == 0.75
    assert frame_auc([-0.0, 0.0], [0, 1]) == 0.5


def test_classes_and_macro() -> None:
    a, b, one = drawn(4), drawn(5), (np.arange(3.0), np.zeros(3, np.int64))
    told = per_class_auc({"car": a[0], "running": [b[0], one[0]]}, {"car": a[1], "running": [b[1], one[1]]})
    assert told["car"] == frame_auc(*a)
    assert told["running"] == frame_auc([b[0], one[0]], [b[1], one[1]])
    with pytest.raises(MetricError, match="other classes; got car, dog"):
        per_class_auc({"car": a[0]}, {"dog": a[1]})
    mean = macro([Counts.of(*each) for each in (a, one, b)])
    assert mean.value == pytest.approx((frame_auc(*a) + frame_auc(*b)) / 2, abs=1e-15)
    assert (mean.videos, mean.left_out) == (2, 1)
    with pytest.raises(MetricError, match="both classes; got 1 videos"):
        macro([Counts.of(*one)])


# -- confidence ------------------------------------------------------------------------------------------------------


def test_a_bootstrap_draws_whole_videos() -> None:
    videos = [drawn(seed, 60) for seed in range(12)]
    counts = [Counts.of(*each) for each in videos]
    interval = bootstrap(counts, resamples=300, seed=7)
    assert interval == bootstrap(counts, resamples=300, seed=7)
    assert interval != bootstrap(counts, resamples=300, seed=8)
    assert interval.low < frame_auc(*zip(*videos, strict=True)) < interval.high
    assert (interval.level, interval.resamples) == (0.95, 300)
    # The same draws, counted by concatenating the videos.
    from aesampler import rng

    draws = (rng.generator(7, "bootstrap").random((300, 12)) * 12).astype(int)
    for name, metric in METRICS.items():
        function = {"auc": frame_auc, "average_precision": average_precision, "equal_error_rate": equal_error_rate}[
            name
        ]
        values = [function([videos[k][0] for k in draw], [videos[k][1] for k in draw]) for draw in draws]
        told = bootstrap(counts, metric, resamples=300, seed=7, level=0.9)
        assert (told.low, told.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.95])), abs=1e-12)


def test_a_bootstrap_leaves_out_draws_of_one_class() -> None:
    normal, anomalous = Counts.of(np.arange(4.0), np.zeros(4)), Counts.of(np.arange(4.0) + 2, np.ones(4))
    told = bootstrap([normal, anomalous], resamples=200)
    assert 60 < told.resamples < 140
    assert told.low == told.high == pytest.approx(Counts.merged([normal, anomalous]).auc())
    with pytest.raises(MetricError, match="no draw"):
        bootstrap([normal, normal])
    for videos, level in (([normal], 0.95), ([normal, anomalous], 1.0)):
        with pytest.raises(MetricError, match="two videos"):
            bootstrap(videos, level=level)


def test_a_bootstrap_of_one_class_is_that_of_its_videos() -> None:
    counts = [Counts.of(*drawn(seed, 60)) for seed in range(12)]
    named = {f"{place:02d}": each for place, each in enumerate(counts)}
    assert bootstrap_mean([named], resamples=100, seed=3) == bootstrap(counts, resamples=100, seed=3)


def test_a_bootstrap_of_classes_draws_their_videos_together() -> None:
    """Against the same draws, each class by concatenating what was drawn of its videos."""
    from aesampler import rng

    videos = {f"{place:02d}": drawn(place, 40) for place in range(9)}
    judged = [list(videos)[:6], list(videos)[3:], list(videos)[:2]]
    classes = [{name: Counts.of(*videos[name]) for name in names} for names in judged]
    told = bootstrap_mean(classes, resamples=80, seed=5)
    means = []
    for draw in (rng.generator(5, "bootstrap").random((80, 9)) * 9).astype(int):
        found = []
        for names in judged:
            own = [name for place in draw if (name := f"{place:02d}") in names]
            labels = np.concatenate([videos[name][1] for name in own]) if own else np.zeros(0)
            if 0 < labels.sum() < len(labels):
                found.append(frame_auc(np.concatenate([videos[name][0] for name in own]), labels))
        if found:
            means.append(np.mean(found))
    assert told.resamples == len(means)
    assert (told.low, told.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    with pytest.raises(MetricError, match="two videos"):
        bootstrap_mean([{"a": classes[0]["00"]}])
    with pytest.raises(MetricError, match="no draw"):
        bootstrap_mean([{name: Counts.of(np.arange(3.0), np.zeros(3)) for name in "ab"}])


# -- pixels ----------------------------------------------------------------------------------------------------------

CROWDS: dict[str, Callable[[np.random.Generator, npt.NDArray[np.bool_]], Array]] = {
    "uniform": lambda rng, mask: rng.random(mask.shape) ** (1 - 0.3 * mask),
    "near 0": lambda rng, mask: rng.random(mask.shape) ** 40 * 1e-12 * (1 + mask),
    "denormal": lambda rng, mask: rng.random(mask.shape) * 1e-310 * (1 + 0.2 * mask),
    "near 1": lambda rng, mask: 1 - rng.random(mask.shape) * 1e-11 * (1 - 0.2 * mask),
    "logits": lambda rng, mask: rng.normal(-8 + mask, 3, mask.shape),
    "mostly 0": lambda rng, mask: np.maximum(rng.normal(-0.5 + mask, 1, mask.shape), 0),
}


def crowd(name: str, frames: int, seed: int = 0) -> tuple[Array, npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    masks = rng.random((frames, 60, 80)) < 0.03
    return CROWDS[name](rng, masks), masks


@pytest.mark.parametrize("name", CROWDS)
def test_pixels_equal_scikit_learn(name: str) -> None:
    scores, masks = crowd(name, 30)
    exact = roc_auc_score(masks.ravel(), ranked(scores.ravel()))
    assert pixel_auc(scores, masks) == pytest.approx(exact, abs=1e-12)
    coarse = PixelAuc(parts=1 << 12, chunk=1 << 14)
    for plane, mask in zip(scores, masks, strict=True):
        coarse.update(plane, mask)
    assert 0 < coarse.error_bound < 1e-2
    assert abs(coarse.value() - exact) <= coarse.error_bound
    assert abs(coarse.value() - exact) < 5e-4
    kept = coarse.counts().scores.size
    assert kept < scores.size / 2
    assert coarse.counts().totals == (int(masks.sum()), int((~masks).sum()))


@pytest.mark.parametrize("order", ["sorted", "reversed", "by class", "drifting"])
def test_the_bound_holds_whatever_the_order(order: str) -> None:
    scores, masks = crowd("logits", 25, seed=3)
    flat, told = scores.ravel(), masks.ravel()
    places = {
        "sorted": np.argsort(flat),
        "reversed": np.argsort(flat)[::-1],
        "by class": np.argsort(told, kind="stable"),
        "drifting": np.argsort(flat + np.random.default_rng(1).normal(0, 2, flat.size)),
    }[order]
    total = PixelAuc(parts=500, chunk=2000)
    for part in np.array_split(places, 90):
        total.update(flat[part], told[part])
    levels = 1 + np.ceil(np.log2(flat.size / 2000))
    assert abs(total.value() - roc_auc_score(told, flat)) <= total.error_bound <= 2 * levels / 500


def test_float16_scores_are_always_exact() -> None:
    scores, masks = crowd("near 0", 40, seed=2)
    small = (scores * 1e9).astype(np.float16)
    total = PixelAuc(chunk=1000)
    for plane, mask in zip(small, masks, strict=True):
        total.update(plane, mask)
    assert total.error_bound == 0.0
    assert total.value() == pytest.approx(roc_auc_score(masks.ravel(), small.ravel().astype(float)), abs=1e-12)


def test_the_default_promises_a_ten_thousandth() -> None:
    from lavida.metrics import CHUNK, PARTS

    assert 2 * (1 + np.log2(40791 * 480 * 856 / CHUNK)) / PARTS < 1e-4  # ShanghaiTech
    assert 2 * (1 + np.log2(1e13 / CHUNK)) / PARTS < 1e-4


def test_pixels_perfect_inverted_constant() -> None:
    masks = np.random.default_rng(0).random((9, 20, 30)) < 0.1
    for scores, auc in ((masks * 0.7, 1.0), (masks * -0.7, 0.0), (masks * 0.0, 0.5)):
        assert pixel_auc(list(scores.astype(np.float32)), list(masks)) == auc
    huge = Counts(scores=np.arange(2.0), positives=np.array([0, 10**10]), negatives=np.array([10**11, 0]))
    assert huge.auc() == 1.0  # 2 P N is beyond 64 bits


def test_parts_are_merged_and_sent() -> None:
    scores, masks = crowd("uniform", 24, seed=5)
    whole, halves = PixelAuc(), [PixelAuc(), PixelAuc(chunk=1000)]
    for place, (plane, mask) in enumerate(zip(scores, masks, strict=True)):
        whole.update(plane, mask)
        halves[place % 2].update(plane, mask)
    before = halves[1].value()
    halves[0].merge(halves[1])
    assert halves[1].value() == before
    assert halves[0].value() == whole.value()
    again = PixelAuc.from_state(whole.state())
    assert again.value() == whole.value()
    again.merge(PixelAuc.from_state(PixelAuc().state()))
    again.update(scores[0], masks[0])
    whole.update(scores[0], masks[0])
    assert again.value() == whole.value()
    state = whole.state()
    assert {name: array.dtype.name for name, array in state.items()} == {
        "scores": "float64",
        "positives": "int64",
        "negatives": "int64",
        "moved": "int64",
    }


def test_merged_parts_keep_their_bound() -> None:
    scores, masks = crowd("near 1", 32, seed=6)
    total = PixelAuc(parts=2000, chunk=8000)
    for plane, mask in zip(np.split(scores, 8), np.split(masks, 8), strict=True):
        part = PixelAuc(parts=2000, chunk=8000)
        part.update(plane, mask)
        total.merge(PixelAuc.from_state(part.state(), parts=2000, chunk=8000))
    exact = roc_auc_score(masks.ravel(), ranked(scores.ravel()))
    assert 0 < abs(total.value() - exact) <= total.error_bound < 1e-2


def test_a_confidence_interval_of_pixels() -> None:
    states = []
    for seed in range(6):
        scores, masks = crowd("uniform", 3, seed)
        part = PixelAuc()
        part.update(scores, masks)
        states.append(part.counts())
    interval = bootstrap(states, resamples=50)
    assert interval.low < Counts.merged(states).auc() < interval.high


def test_ignored_pixels_are_left_out() -> None:
    scores, masks = crowd("logits", 6)
    ignored = np.random.default_rng(1).random(masks.shape) < 0.4
    exact = roc_auc_score(masks[~ignored], scores[~ignored])
    assert pixel_auc(scores, masks, ignored) == pytest.approx(exact, abs=1e-12)
    scores[ignored] = np.nan
    assert pixel_auc(scores, masks, list(ignored)) == pytest.approx(exact, abs=1e-12)


def test_pixels_that_cannot_be_counted_are_refused() -> None:
    total = PixelAuc()
    plane, mask = np.zeros((4, 6)), np.zeros((4, 6), bool)
    with pytest.raises(MetricError, match=r"of one size; got scores \(4, 6\), masks \(6, 4\); resize the scores"):
        total.update(plane, mask.T)
    with pytest.raises(MetricError, match=r"ignored \(1, 6\)"):
        total.update(plane, mask, mask[:1])
    with pytest.raises(MetricError, match="a mask holds another value; got 255"):
        total.update(plane, mask + np.uint8(255))
    with pytest.raises(MetricError, match="a score is NaN; got 24 of 24"):
        total.update(plane * np.nan, mask)
    total.update(plane, mask)
    with pytest.raises(MetricError, match="0 positives, 24 negatives"):
        total.value()
    with pytest.raises(MetricError, match="a mask for each map"):
        pixel_auc([plane, plane], [mask])
    with pytest.raises(MetricError, match="0 positives, 0 negatives"):
        PixelAuc().value()


def test_memory_does_not_grow_with_the_number_of_pixels() -> None:
    rng = np.random.default_rng(0)
    total = PixelAuc(parts=1 << 10, chunk=1 << 13)

    def peak(frames: int) -> int:
        tracemalloc.start()
        for _ in range(frames):
            mask = rng.random((60, 80)) < 0.1
            total.update(rng.normal(mask, 1.0), mask)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    first = peak(64)
    assert peak(1024) < 2 * first + (1 << 19)


@settings(max_examples=50)
@given(scored(), st.integers(1, 6), st.integers(1, 9))
def test_pixels_in_any_pieces(pair: tuple[Array, Labels], parts: int, chunk: int) -> None:
    scores, labels = pair
    total = PixelAuc(parts=parts, chunk=chunk)
    for score, label in zip(scores, labels, strict=True):
        total.update([score], [label])
    assert abs(total.value() - frame_auc(scores, labels)) <= total.error_bound + 1e-12


def test_metrics_are_numpy_only() -> None:
    code = "import sys, lavida.metrics; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300)
    assert not set(loaded.stdout.split()) & {"torch", "sklearn", "scipy", "pandas", "matplotlib"}
