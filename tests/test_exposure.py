"""The sampler's laws on 20,000 draws each, as the paper and the contract state them; exact draws pinned."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from aesampler import rng
from aesampler.exposure import (
    Exposure,
    ExposureSettings,
    HardSettings,
    draw,
    hard_negatives,
    irrelevant_law,
    list_lengths,
)
from aesampler.record import Category
from aesampler.scene import Scene
from aesampler.vocabulary import Vocabulary

DRAWS = 20_000
RLE = "0"  # the sampler never looks into a mask
NAMES = [f"name {i:02d}" for i in range(40)]
RECORDS = [[i, (i * i + 1) % 40, (3 * i + 7) % 40][: 1 + i % 3] for i in range(40)] + [[0], [0], [1, 2, 3, 4]]


def vocabulary(names: Sequence[str] = NAMES, records: Sequence[Sequence[int]] = RECORDS) -> Vocabulary:
    return Vocabulary.count([Category(name=n, origin=n) for n in names], [sorted(set(r)) for r in records])


def scene(*genuine: str, exhaustive: bool = True, **known: Any) -> Scene:
    return Scene(
        height=4, width=4, annotated=(True,), segments=dict.fromkeys(genuine, (RLE,)), exhaustive=exhaustive, **known
    )


def draws(view: Scene, names: Vocabulary, chosen: ExposureSettings, count: int = DRAWS) -> list[Exposure]:
    made = [draw(view, names, chosen, rng.generator(7, "test", i)) for i in range(count)]
    assert all(m is not None for m in made)
    return [m for m in made if m is not None]


def chi_square(observed: Counter[Any], expected: dict[Any, float]) -> float:
    """The p-value of `observed` under the law `expected` (normalised here); nothing outside its support may occur."""
    assert set(observed) <= {k for k, p in expected.items() if p > 0}
    keys = [k for k, p in expected.items() if p > 0]
    total, mass = sum(observed.values()), sum(expected.values())
    return float(stats.chisquare([observed[k] for k in keys], [total * expected[k] / mass for k in keys]).pvalue)


# -- equation 2: the coin and the list --------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_anomaly_rate(probability: float) -> None:
    made = draws(scene(*NAMES[:2]), vocabulary(), ExposureSettings(anomaly_probability=probability))
    anomalous = sum(m.anomalous for m in made)
    assert stats.binomtest(anomalous, DRAWS, probability).pvalue > 1e-3
    for exposure in made[:2000]:
        assert set(exposure.genuine) == (set(NAMES[:2]) if exposure.anomalous else set())
        assert len(set(exposure.categories)) == len(exposure.categories)
        assert not (set(exposure.categories) - set(exposure.genuine)) & set(NAMES[:2])


def test_without_a_mask_a_sample_is_normal() -> None:
    made = draws(scene(), vocabulary(), ExposureSettings(anomaly_probability=1.0), 500)
    assert not any(m.anomalous for m in made)
    assert all(len(m.categories) >= 1 for m in made)


def test_the_list_is_shuffled() -> None:
    made = draws(scene(NAMES[0]), vocabulary(), ExposureSettings(anomaly_probability=1.0, irrelevant_count=4))
    places = Counter(m.categories.index(NAMES[0]) for m in made)
    assert chi_square(places, dict.fromkeys(range(5), 1.0)) > 1e-3


# -- equation 1: N and the law of a name ------------------------------------------------------------------------------


@pytest.mark.parametrize(("genuine", "cap", "most"), [(0, 30, 30), (2, 30, 28), (3, 5, 2), (2, 60, 38)])
def test_law_of_n(genuine: int, cap: int, most: int) -> None:
    """Uniform on 1..min(cap - genuine, pool): 40 names, so the pool is 40 - genuine."""
    made = draws(scene(*NAMES[:genuine]), vocabulary(), ExposureSettings(max_categories=cap))
    counts = Counter(len(m.categories) - len(m.genuine) for m in made)
    assert chi_square(counts, dict.fromkeys(range(1, most + 1), 1.0)) > 1e-3
    assert max(len(m.categories) for m in made) <= cap


def test_genuine_names_that_reach_the_cap_are_cut_to_one_less() -> None:
    made = draws(scene(*NAMES[:6]), vocabulary(), ExposureSettings(max_categories=4, anomaly_probability=1.0))
    assert {len(m.categories) for m in made} == {4}
    assert {len(m.genuine) for m in made} == {3}
    kept = Counter(name for m in made for name in m.genuine)
    assert chi_square(kept, dict.fromkeys(NAMES[:6], 1.0)) > 1e-3
    assert all(set(m.categories) & set(NAMES[6:]) for m in made)


@pytest.mark.parametrize(
    ("count", "normal", "anomalous"),
    [(3, {3}, {3}), ((0, 2), {1, 2}, {0, 1, 2}), ((2, 4), {2, 3, 4}, {2, 3, 4}), (50, {29}, {29})],
)
def test_irrelevant_count(count: Any, normal: set[int], anomalous: set[int]) -> None:
    made = draws(scene(NAMES[0]), vocabulary(), ExposureSettings(irrelevant_count=count), 3000)
    assert {len(m.categories) for m in made if not m.anomalous} == normal
    assert {len(m.categories) - 1 for m in made if m.anomalous} == anomalous


def expected_law(mode: str, banned: set[str]) -> dict[str, float]:
    """The stated law of one draw, spelt out record by record."""
    law: dict[str, float] = dict.fromkeys(NAMES, 0.0)
    for record in RECORDS:
        names = sorted({NAMES[i] for i in record})
        for name in names:
            law[name] += {"samples": 1 / len(names), "categories": 0.0}[mode]
    if mode == "categories":
        law = dict.fromkeys(NAMES, 1.0)
    return {name: 0.0 if name in banned else weight for name, weight in law.items()}


@pytest.mark.parametrize("mode", ["samples", "categories"])
def test_law_of_the_pool(mode: Any) -> None:
    view = scene(NAMES[0], NAMES[1], present=frozenset({NAMES[2]}))
    chosen = ExposureSettings(irrelevant_from=mode, irrelevant_count=1)
    made = draws(view, vocabulary(), chosen)
    names = Counter(n for m in made for n in m.categories if n not in m.genuine)
    assert chi_square(names, expected_law(mode, set(NAMES[:3]))) > 1e-3


def test_samples_equals_rejection_from_other_records() -> None:
    """The paper's own procedure, run literally: a record, one of its names, rejected where it is present."""
    random = np.random.default_rng(5)
    rejected: Counter[str] = Counter()
    while rejected.total() < DRAWS:
        record = sorted(set(RECORDS[int(random.integers(len(RECORDS)))]))
        name = NAMES[record[int(random.integers(len(record)))]]
        if name not in NAMES[:2]:
            rejected[name] += 1
    chosen = ExposureSettings(irrelevant_count=1)
    made = Counter(
        n for m in draws(scene(*NAMES[:2]), vocabulary(), chosen) for n in m.categories if n not in m.genuine
    )
    names = sorted(set(rejected) | set(made))
    table = np.array([[rejected[n] for n in names], [made[n] for n in names]])
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_several_names_are_drawn_one_after_the_other_without_replacement() -> None:
    """Pairs, against the law of successive draws: p(a) p(b) / (1 - p(a))."""
    small = vocabulary(NAMES[:4], [[0], [0], [0], [1], [1], [2], [3]])
    weights = dict(zip(NAMES[:4], [3 / 7, 2 / 7, 1 / 7, 1 / 7], strict=True))
    pairs = {
        frozenset((a, b)): p * q / (1 - p) + q * p / (1 - q)
        for a, p in weights.items()
        for b, q in weights.items()
        if a < b
    }
    made = draws(scene(), small, ExposureSettings(irrelevant_count=2))
    assert chi_square(Counter(frozenset(m.categories) for m in made), pairs) > 1e-3


# -- what may not be drawn --------------------------------------------------------------------------------------------


def test_nothing_present_is_ever_irrelevant() -> None:
    view = Scene(
        height=4,
        width=4,
        annotated=(True, True),
        segments={NAMES[0]: (RLE, None)},
        incomplete={NAMES[1]: (None, RLE)},
        ignored={NAMES[2]: (RLE, RLE)},
        present=frozenset({NAMES[3], "of another group"}),
        absent=frozenset(NAMES[4:]),
    )
    for absence in ("known", "strict", "unlisted"):
        made = draws(view, vocabulary(), ExposureSettings(absence=absence, anomaly_probability=0.5))
        listed = {name for m in made for name in m.categories}
        assert not listed & set(NAMES[1:4])
        assert all(NAMES[0] not in m.categories for m in made if not m.anomalous)
        assert {m.genuine for m in made if m.anomalous} == {(NAMES[0],)}


def test_names_near_a_present_one_are_banned() -> None:
    near = vocabulary().with_near([frozenset({NAMES[5], NAMES[6]}) if i == 0 else frozenset() for i in range(40)])
    made = draws(scene(NAMES[0]), near, ExposureSettings())
    listed = {name for m in made for name in m.categories}
    assert not listed & {NAMES[5], NAMES[6]}
    assert NAMES[7] in listed


@pytest.mark.parametrize(
    ("absence", "absent", "marks"),
    [
        ("known", {NAMES[5], NAMES[6]}, {NAMES[5]: "absent", NAMES[6]: "absent"}),
        ("known", set(), dict.fromkeys(NAMES[1:], "unknown")),
        ("known", {"never in a record"}, dict.fromkeys(NAMES[1:], "unknown")),
        ("strict", {NAMES[5]}, {NAMES[5]: "absent"}),
        ("unlisted", {NAMES[5]}, dict.fromkeys(NAMES[1:], "unknown") | {NAMES[5]: "absent"}),
    ],
)
def test_absence(absence: Any, absent: set[str], marks: dict[str, str]) -> None:
    view = scene(NAMES[0], exhaustive=False, absent=frozenset(absent))
    made = draws(view, vocabulary(), ExposureSettings(absence=absence), 4000)
    told = {n: p for m in made for n, p in zip(m.categories, m.presence, strict=True)}
    assert told.pop(NAMES[0]) == "present"
    assert told == marks


def test_strict_skips_a_record_without_a_known_absence() -> None:
    chosen = ExposureSettings(absence="strict")
    assert draw(scene(NAMES[0], exhaustive=False), vocabulary(), chosen, rng.generator(0)) is None
    assert draw(scene(*NAMES), vocabulary(), ExposureSettings(), rng.generator(0)) is None


def test_exhaustive_sources_mark_what_they_do_not_list_absent() -> None:
    made = draws(scene(NAMES[0]), vocabulary(), ExposureSettings(absence="strict"), 200)
    assert {p for m in made for n, p in zip(m.categories, m.presence, strict=True) if n != NAMES[0]} == {"absent"}


# -- genuine ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("genuine", "counts"), [("all", {5}), ("one", {1}), ((2, 3), {2, 3}), ((2, 9), {2, 3, 4, 5}), ((7, 9), {5})]
)
def test_genuine(genuine: Any, counts: set[int]) -> None:
    made = draws(scene(*NAMES[:5]), vocabulary(), ExposureSettings(genuine=genuine, anomaly_probability=1.0), 4000)
    assert {len(m.genuine) for m in made} == counts
    exposed = Counter(name for m in made for name in m.genuine)
    assert chi_square(exposed, dict.fromkeys(NAMES[:5], 1.0)) > 1e-3 or genuine == "all"


def test_a_name_left_out_of_genuine_is_never_listed() -> None:
    made = draws(scene(*NAMES[:5]), vocabulary(), ExposureSettings(genuine="one"), 4000)
    assert all(len(set(m.categories) & set(NAMES[:5])) == int(m.anomalous) for m in made)


# -- as a pure function -----------------------------------------------------------------------------------------------


def test_draws_are_pinned() -> None:
    exposure = draw(scene(*NAMES[:2]), vocabulary(), ExposureSettings(max_categories=6), rng.generator(44, "pin", 5))
    assert exposure == Exposure(
        anomalous=True,
        categories=("name 07", "name 24", "name 01", "name 32", "name 09", "name 00"),
        is_genuine=(False, False, True, False, False, True),
        presence=("absent", "absent", "present", "absent", "absent", "present"),
    )


def test_the_order_of_a_scene_does_not_matter() -> None:
    one = scene(NAMES[1], NAMES[0], NAMES[2])
    other = scene(NAMES[2], NAMES[1], NAMES[0])
    for i in range(200):
        key = (3, "order", i)
        chosen = ExposureSettings(genuine="one")
        assert draw(one, vocabulary(), chosen, rng.generator(*key)) == draw(
            other, vocabulary(), chosen, rng.generator(*key)
        )


@settings(max_examples=200)
@given(
    genuine=st.integers(0, 12),
    cap=st.integers(2, 45),
    count=st.one_of(st.just("uniform"), st.integers(1, 60), st.tuples(st.integers(0, 9), st.integers(9, 60))),
    kind=st.one_of(st.sampled_from(["all", "one"]), st.tuples(st.integers(1, 4), st.integers(4, 9))),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 2**32),
)
def test_every_list_keeps_its_promises(
    genuine: int, cap: int, count: Any, kind: Any, probability: float, seed: int
) -> None:
    chosen = ExposureSettings(max_categories=cap, irrelevant_count=count, genuine=kind, anomaly_probability=probability)
    names = vocabulary()
    made = draw(scene(*NAMES[:genuine]), names, chosen, rng.generator(seed))
    assert made is not None
    shortest, longest = list_lengths(genuine, 40 - genuine, chosen)
    assert 1 <= shortest <= len(made.categories) <= longest <= cap
    assert len(made.categories) == len(made.is_genuine) == len(made.presence) == len(set(made.categories))
    assert made.anomalous == bool(made.genuine)
    assert set(made.genuine) <= set(NAMES[:genuine])
    assert not (set(made.categories) - set(made.genuine)) & set(NAMES[:genuine])
    assert irrelevant_law(scene(*NAMES[:genuine]), names, chosen)[:genuine].sum() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"anomaly_probability": 1.5},
        {"max_categories": 1},
        {"irrelevant_count": 0},
        {"irrelevant_count": [3, 2]},
        {"irrelevant_count": [0, 0]},
        {"genuine": [0, 2]},
        {"genuine": "some"},
        {"irrelevant_from": "elsewhere"},
        {"absence": "perhaps"},
        {"anomaly_probability": "0.5"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExposureSettings.model_validate(wrong)


# -- hard negatives ---------------------------------------------------------------------------------------------------

GROUPS = ["vehicle"] * 5 + ["animal"] * 5 + [""] * 30


def grouped() -> Vocabulary:
    categories = [Category(name=n, origin=n, supercategory=g) for n, g in zip(NAMES, GROUPS, strict=True)]
    return Vocabulary.count(categories, [sorted(set(r)) for r in RECORDS] + [[i] for i in range(10)])


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_irrelevant_names_is_hard(share: float) -> None:
    """The chosen share of 2 from the 4 other vehicles; none of the others is kept from being drawn as before."""
    chosen = ExposureSettings(irrelevant_count=2, hard={"share": share, "by": "supercategory"})  # type: ignore[arg-type]
    made = draws(scene(NAMES[0]), grouped(), chosen, 4000)
    hard = [sum(n in NAMES[1:5] for n in m.categories) for m in made]
    assert all(len(m.categories) - len(m.genuine) == 2 for m in made)
    plain = draws(scene(NAMES[0]), grouped(), ExposureSettings(irrelevant_count=2), 4000)
    by_chance = np.mean([sum(n in NAMES[1:5] for n in m.categories) for m in plain])
    if share == 1.0:
        assert set(hard) == {2}
    else:
        assert np.mean(hard) == pytest.approx(2 * share + (2 - 2 * share) / 2 * by_chance, abs=0.12)
    # Hardness does not tell the label.
    sides = [[h for h, m in zip(hard, made, strict=True) if m.anomalous is flag] for flag in (True, False)]
    assert np.mean(sides[0]) == pytest.approx(np.mean(sides[1]), abs=0.08)


def test_hard_negatives_are_known_absent() -> None:
    chosen = ExposureSettings(absence="unlisted", hard={"share": 1.0})  # type: ignore[arg-type]
    view = scene(NAMES[0], exhaustive=False, absent=frozenset({NAMES[1], NAMES[7]}))
    assert hard_negatives(view, grouped(), chosen.hard, [NAMES[0]]) == {NAMES[1]}  # type: ignore[arg-type]
    assert all(NAMES[1] in m.categories for m in draws(view, grouped(), chosen, 300))
    # With fewer of them than the share asks for, the others fill up; with none, nothing changes but the coin of N.
    assert draw(scene(NAMES[20]), grouped(), chosen, rng.generator(3)) is not None
    assert draw(scene(), grouped(), chosen, rng.generator(3)) is not None


def test_kin_and_alike_are_hard() -> None:
    alike = [frozenset({NAMES[30]}) if i == 0 else frozenset() for i in range(40)]
    names = grouped().with_alike(alike).with_kin([frozenset({NAMES[31]}) if i == 0 else frozenset() for i in range(40)])
    by_kin = hard_negatives(scene(NAMES[0]), names, HardSettings(share=1.0), [NAMES[0]])
    assert by_kin == {*NAMES[1:5], NAMES[31]}
    by_text = HardSettings(share=1.0, by="similarity")
    assert hard_negatives(scene(NAMES[0]), names, by_text, [NAMES[0]]) == {NAMES[30]}


def test_hard_by_similarity_needs_a_model() -> None:
    with pytest.raises(ValidationError, match="needs the model"):
        ExposureSettings(hard=HardSettings(share=0.5, by="similarity"))


# -- balanced ---------------------------------------------------------------------------------------------------------


def test_a_balanced_normal_sample_is_as_long_as_an_anomalous_one() -> None:
    for count, genuine in ((3, "all"), ("uniform", "all"), (2, "one")):
        chosen = ExposureSettings(irrelevant_from="balanced", irrelevant_count=count, genuine=genuine)  # type: ignore[arg-type]
        made = draws(scene(*NAMES[:3]), vocabulary(), chosen, 6000)
        sides = [Counter(len(m.categories) for m in made if m.anomalous is flag) for flag in (True, False)]
        assert set(sides[0]) == set(sides[1])
        table = np.array([[side[size] for size in sorted(sides[0])] for side in sides])
        assert table.shape[1] == 1 or stats.chi2_contingency(table).pvalue > 1e-3


def test_stand_ins_come_as_often_as_they_are_genuine() -> None:
    """Ten pictures, "person" in four of them: of the samples that list it as genuine's stead or as genuine, half are
    anomalous.
    """
    records = [[0, 1], [0, 2], [0, 3], [0, 4], [5], [6], [7], [8], [9], [1]]
    names = vocabulary(NAMES[:10], records)
    chosen = ExposureSettings(irrelevant_from="balanced", irrelevant_count=(0, 1), genuine="one")
    listed: Counter[bool] = Counter()
    for i in range(DRAWS // 4):
        made = draw(scene(*(NAMES[place] for place in records[i % 10])), names, chosen, rng.generator(5, "twin", i))
        assert made is not None
        if NAMES[0] in made.categories:
            listed[made.anomalous] += 1
    assert abs(listed[True] / listed.total() - 0.5) < 0.1


@settings(max_examples=100)
@given(
    st.integers(0, 12), st.integers(2, 45), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2**32)
)
def test_balanced_lists_keep_their_promises(genuine: int, cap: int, low: int, probability: float, seed: int) -> None:
    chosen = ExposureSettings(
        irrelevant_from="balanced", max_categories=cap, irrelevant_count=(low, 9), anomaly_probability=probability
    )
    made = draw(scene(*NAMES[:genuine]), vocabulary(), chosen, rng.generator(seed))
    assert made is not None
    shortest, longest = list_lengths(genuine, 40 - genuine, chosen)
    assert 1 <= shortest <= len(made.categories) <= longest <= cap
    assert len(set(made.categories)) == len(made.categories)
    assert not (set(made.categories) - set(made.genuine)) & set(NAMES[:genuine])
