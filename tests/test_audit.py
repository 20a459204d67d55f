"""The shortcut audit, beside scikit-learn and on lists whose shortcut is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from aesampler import rng
from aesampler.audit import FOLDS, Audit, Rate, _Features, audit, fit, roc_auc

NAMES = [f"name {place}" for place in range(30)]


def lists(n: int, seed: int, shortcut: float) -> tuple[list[list[str]], list[bool]]:
    """Half anomalous; `shortcut`: the share of anomalous lists that hold "person"."""
    random = np.random.default_rng(seed)
    label = random.random(n) < 0.5
    drawn = [[NAMES[i] for i in random.choice(30, size=random.integers(1, 9), replace=False)] for _ in range(n)]
    for names, flag in zip(drawn, label, strict=True):
        if flag and random.random() < shortcut:
            names.append("person")
    return drawn, label.tolist()


def matrix(samples: list[list[str]]) -> np.ndarray:
    """The features as a dense matrix, made independently: sorted names, then sorted lengths."""
    names, sizes = sorted({name for listed in samples for name in listed}), sorted({len(listed) for listed in samples})
    return np.array(
        [[*(name in listed for name in names), *(len(listed) == size for size in sizes)] for listed in samples]
    )


@pytest.mark.parametrize("shortcut", [0.0, 0.3, 1.0])
def test_the_classifier_is_that_of_scikit_learn(shortcut: float) -> None:
    samples, label = lists(800, 1, shortcut)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(matrix(samples), label)
    features = _Features.of(samples)
    ours = fit(features, np.array(label), np.zeros(features.columns))
    again = fit(features, np.array(label), np.random.default_rng(0).normal(size=features.columns))
    assert np.abs(again - ours).max() < 1e-3
    assert np.allclose(ours[:-1], theirs.coef_[0], atol=2e-3)
    assert np.allclose(_Features.of(samples) @ ours, theirs.decision_function(matrix(samples)), atol=2e-3)


@pytest.mark.parametrize("shortcut", [0.0, 0.2, 0.8])
def test_the_auc_is_that_of_scikit_learn_fold_by_fold(shortcut: float) -> None:
    samples, label = lists(1200, 2, shortcut)
    groups = [f"video {place // 3}" for place in range(len(samples))]
    x, y = matrix(samples), np.array(label)
    fold = np.array([rng.order("audit", group) % FOLDS for group in groups])
    right = pairs = 0.0
    for part in range(FOLDS):
        test = fold == part
        model = LogisticRegression(C=1.0, tol=1e-10, max_iter=5000).fit(x[~test], y[~test])
        weight = y[test].sum() * (~y[test]).sum()
        right += weight * roc_auc_score(y[test], model.decision_function(x[test]))
        pairs += weight
    assert audit(samples, label, groups).auc == pytest.approx(right / pairs, abs=2e-3)


def test_a_shortcut_is_found_and_none_is_not_invented() -> None:
    clean, leaking = audit(*lists(4000, 3, 0.0)), audit(*lists(4000, 3, 0.5))
    assert clean.auc is not None
    assert abs(clean.auc - 0.5) < 3 * clean.error < 0.06
    assert leaking.auc is not None
    assert leaking.auc > 0.7
    assert leaking.names[0].what == "person"
    assert leaking.names[0].share == 1.0
    longer = [(["a"] * 0 + NAMES[: 1 + 4 * flag], bool(flag)) for flag in (0, 1) for _ in range(50)]
    told = audit([names for names, _ in longer], [flag for _, flag in longer])
    assert told.auc == 1.0
    assert [(rate.what, rate.count, rate.share) for rate in told.lengths] == [("1", 50, 0.0), ("5", 50, 1.0)]


def test_two_clips_of_a_video_are_on_one_side() -> None:
    """Each video has a name and a label of its own: nothing is to be learnt from other videos."""
    random = np.random.default_rng(0)
    label = np.repeat(random.random(300) < 0.5, 4).tolist()
    samples = [[f"only in {place // 4}"] for place in range(1200)]
    groups = [str(place // 4) for place in range(1200)]
    alone, together = audit(samples, label), audit(samples, label, groups)
    assert alone.auc is not None
    assert together.auc is not None
    assert alone.auc > 0.95
    assert abs(together.auc - 0.5) < 0.05


@pytest.mark.parametrize(
    ("samples", "label"), [([], []), ([["a"]], [True]), ([["a"]] * 9, [False] * 9), ([[]], [False])]
)
def test_where_it_has_no_meaning(samples: list[list[str]], label: list[bool]) -> None:
    told = audit(samples, label)
    assert isinstance(told, Audit)
    assert told.auc is None
    assert told.samples == len(samples)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
@settings(max_examples=60)
def test_roc_auc(pairs: list[tuple[int, bool]]) -> None:
    scores, label = np.array([float(s) for s, _ in pairs]), np.array([flag for _, flag in pairs])
    if label.all() or not label.any():
        return
    assert roc_auc(scores, label) == pytest.approx(roc_auc_score(label, scores))


@given(st.integers(0, 60), st.integers(0, 60))
def test_an_interval_holds_its_rate(anomalous: int, normal: int) -> None:
    rate = Rate(what="cat", count=anomalous + normal, anomalous=anomalous)
    low, high = rate.interval
    assert 0 <= low <= rate.share + 1e-12
    assert rate.share - 1e-12 <= high <= 1
