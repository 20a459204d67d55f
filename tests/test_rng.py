"""Keyed randomness: equal keys, equal streams; values pinned, so that no change of code or numpy goes unseen."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aesampler import rng

PARTS = st.lists(st.one_of(st.text(max_size=8), st.integers(-(2**70), 2**70)), max_size=4)


def test_values_are_pinned() -> None:
    assert rng.generator(44, "exposure", "coco", "coco_1", 0).random(3).tolist() == [
        0.16263490573957817,
        0.7116954425400377,
        0.889964446909713,
    ]
    assert rng.order("catalog", "coco:139", "139") == 1222469242791829740
    assert rng.share("split", "coco:139") == 0.2513109942525936


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4))
def test_many_orders_at_once_are_those_one_by_one(pairs: list[tuple[str, str]]) -> None:
    assert rng.orders("catalog", pairs).tolist() == [rng.order("catalog", *pair) for pair in pairs]


def test_another_process_draws_the_same() -> None:
    code = "from aesampler import rng; print(rng.generator(1, 'a', 2).random(), rng.order('x', 3))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert told.stdout.split() == [str(rng.generator(1, "a", 2).random()), str(rng.order("x", 3))]


@given(PARTS, PARTS)
def test_different_parts_give_different_streams(one: list[str | int], other: list[str | int]) -> None:
    same = [(type(p), p) for p in one] == [(type(p), p) for p in other]
    assert (rng.order(*one) == rng.order(*other)) == same
    assert (rng.generator(0, *one).random() == rng.generator(0, *other).random()) == same


def test_seed_and_index_never_add_up_to_one_key() -> None:
    draws = {rng.generator(seed, "x", index).random() for seed in range(30) for index in range(30)}
    assert len(draws) == 900


@pytest.mark.parametrize("seed", [0, 1])
def test_shares_are_uniform_and_independent_of_the_order(seed: int) -> None:
    shares = np.array([rng.share("split", seed, f"g{i}") for i in range(5000)])
    assert stats.kstest(shares, "uniform").pvalue > 1e-3
    order = np.array([rng.order("catalog", seed, f"g{i}") for i in range(5000)])
    assert abs(np.corrcoef(shares, order)[0, 1]) < 0.05
