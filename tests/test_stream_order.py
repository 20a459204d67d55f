"""The order of a stream: every epoch exactly what it should hold, for every world size, from every resume point."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesampler.stream.order import BLOCK, RUN, Mixture, Pick, Place, Progress, Schedule, Walk, picks, shares

UNEVEN = ([5, 3, 9, 1, 4], [2], [0, 7, 0, 1], [30, 30])


def mixture(
    sources: Sequence[Sequence[int]],
    counts: Sequence[int] | None = None,
    *,
    seed: int = 3,
    window: int = 2,
    shuffle: bool = True,
    mixed: bool = True,
    label: str = "",
) -> Mixture:
    walks = [
        Walk(f"{label}{place}", sizes, seed=seed, window=window, shuffle=shuffle) for place, sizes in enumerate(sources)
    ]
    counts = [walk.size for walk in walks] if counts is None else counts
    return Mixture(walks, counts, label=label, seed=seed, shuffle=shuffle, mixed=mixed)


def epoch_of(mixed: Mixture, epoch: int = 0) -> list[Place]:
    return mixed.locate(epoch, np.arange(mixed.size))


def everything(sources: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    return [
        (source, shard, row)
        for source, sizes in enumerate(sources)
        for shard, size in enumerate(sizes)
        for row in range(size)
    ]


def samples(places: Sequence[Place]) -> list[tuple[int, int, int]]:
    return [(place.walk, place.shard, place.row) for place in places]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_without_weights_an_epoch_is_every_sample_once(shuffle: bool, window: int, epoch: int) -> None:
    places = epoch_of(mixture(UNEVEN, window=window, shuffle=shuffle), epoch)
    assert sorted(samples(places)) == everything(UNEVEN)
    assert {place.number for place in places} == {epoch}


def test_unshuffled_is_as_stored() -> None:
    assert samples(epoch_of(mixture(UNEVEN, shuffle=False, mixed=False), 4)) == everything(UNEVEN)
    (walk,) = mixture([[3, 0, 2]], shuffle=False).walks
    assert [rows.tolist() for rows in walk.locate(np.arange(4, 8))] == [
        [0, 1, 1, 1],
        [2, 0, 0, 0],
        [1, 0, 1, 2],
    ]


def test_orders_differ_by_seed_epoch_and_label_and_by_nothing_else() -> None:
    first = samples(epoch_of(mixture(UNEVEN)))
    assert samples(epoch_of(mixture(UNEVEN))) == first
    others = [mixture(UNEVEN, seed=4), mixture(UNEVEN, label="other"), mixture(UNEVEN, window=3)]
    assert all(samples(epoch_of(other)) != first for other in others)
    assert samples(epoch_of(mixture(UNEVEN), 1)) != first


def test_the_order_is_pinned() -> None:
    """It is part of what a state means: a later version that changes it must refuse the states of this one."""
    places = epoch_of(mixture([[2, 3], [4]], seed=44), 1)
    assert samples(places) == PINNED


PINNED = [(0, 1, 0), (0, 0, 0), (0, 0, 1), (1, 0, 2), (1, 0, 3), (1, 0, 0), (1, 0, 1), (0, 1, 1), (0, 1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    sources=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), min_size=1, max_size=5),
    window=st.integers(1, 4),
    epoch=st.integers(0, 50),
    data=st.data(),
)
def test_any_positions_are_those_of_the_whole(
    sources: list[list[int]], window: int, epoch: int, data: st.DataObject
) -> None:
    counts = [data.draw(st.integers(1, 3 * sum(sizes))) for sizes in sources]
    whole = epoch_of(mixture(sources, counts, window=window), epoch)
    chosen = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=20))
    fresh = mixture(sources, counts, window=window)
    assert fresh.locate(epoch, np.array(chosen, dtype=np.int64)) == [whole[position] for position in chosen]


# -- weights ----------------------------------------------------------------------------------------------------------


def test_largest_remainder() -> None:
    assert shares([1, 1, 1], 10) == [4, 3, 3]
    assert shares([0.5, 0.3, 0.2], 10) == [5, 3, 2]
    assert shares([0.1, 0.2, 0.7], 1) == [0, 0, 1]
    assert shares([5, 0, 7], 12) == [5, 0, 7]
    assert shares([1e-9, 1.0], 5) == [0, 5]


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=8).filter(any), st.integers(1, 10**6))
def test_shares_are_within_one_of_the_quota(weights: list[float], total: int) -> None:
    dealt = shares(weights, total)
    assert sum(dealt) == total
    whole = sum(map(Fraction, weights))
    assert all(abs(count - Fraction(weight) * total / whole) < 1 for count, weight in zip(dealt, weights, strict=True))


def test_each_source_walks_its_own_passes_over_the_epochs() -> None:
    counts = [13, 5, 40]
    mixed = mixture([[5, 3, 9], [2], [30, 30]], counts)
    walked: dict[int, list[Place]] = {0: [], 1: [], 2: []}
    for epoch in range(12):
        places = epoch_of(mixed, epoch)
        assert Counter(place.walk for place in places) == dict(enumerate(counts))
        for place in places:
            walked[place.walk].append(place)
    for source, size in enumerate([17, 2, 60]):
        by_pass = Counter(place.number for place in walked[source])
        full, rest = divmod(12 * counts[source], size)
        assert by_pass == dict.fromkeys(range(full), size) | ({full: rest} if rest else {})
        for number in range(full):
            found = {(place.shard, place.row) for place in walked[source] if place.number == number}
            assert len(found) == size, "a pass holds each sample once"


def test_sources_are_interleaved_evenly() -> None:
    counts = [4000, 1000, 250, 1]
    places = epoch_of(mixture([[4000], [1000], [250], [1]], counts))
    total = sum(counts)
    for end in range(BLOCK, total, BLOCK):  # at the end of each block the shares are those of the whole
        seen = Counter(place.walk for place in places[:end])
        assert all(abs(seen[source] - end * count / total) <= 1.5 for source, count in enumerate(counts))


def test_equal_sources_do_not_fall_to_fixed_ranks() -> None:
    places = epoch_of(mixture([[1000], [1000]]))
    assert 350 < sum(place.walk == 0 for place in places[::2]) < 650
    unmixed = epoch_of(mixture([[1000], [1000]], shuffle=False))
    assert [place.walk for place in unmixed[:6]] == [0, 1, 0, 1, 0, 1]


# -- ranks ------------------------------------------------------------------------------------------------------------


def run(
    groups: Sequence[Mixture], world_size: int, start: Progress, last: str = "drop", epoch: int = 0, steps: int = 10**9
) -> tuple[list[list[Pick]], Progress]:
    """The picks of every rank, at most `steps` of them, and where that leaves the epoch."""
    schedule = Schedule([group.size for group in groups], world_size=world_size, last=last)  # type: ignore[arg-type]
    ranks = [
        list(itertools.islice(picks(groups, schedule, epoch=epoch, rank=rank, start=start, chunk=7 + rank), steps))
        for rank in range(world_size)
    ]
    assert {len(found) for found in ranks} == {min(steps, schedule.steps(start))}
    assert all(len({pick.after for pick in step}) == 1 for step in zip(*ranks, strict=True)), "ranks disagree"
    return ranks, ranks[0][-1].after if ranks[0] else start


@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("sources", [UNEVEN, ([3],), ([1, 1],), ([40, 2], [1])])
@pytest.mark.parametrize("weighted", [False, True])
def test_ranks_share_an_epoch(world_size: int, sources: Sequence[Sequence[int]], weighted: bool) -> None:
    counts = [3 + 4 * place for place in range(len(sources))] if weighted else None
    mixed = mixture(sources, counts)
    whole = samples(epoch_of(mixed))
    for first in {0, 1, len(whole) // 2, len(whole) - 1, len(whole)}:
        ranks, end = run([mixed], world_size, Progress((first,)))
        together = [pick for step in zip(*ranks, strict=True) for pick in step]
        steps = (len(whole) - first) // world_size
        assert samples([pick.place for pick in together]) == whole[first : first + steps * world_size]
        assert end.consumed == (first + steps * world_size,)
        assert not any(pick.duplicate for pick in together)
        ranks, end = run([mixed], world_size, Progress((first,)), last="pad")
        together = [pick for step in zip(*ranks, strict=True) for pick in step]
        assert samples([pick.place for pick in together if not pick.duplicate]) == whole[first:]
        assert len(together) == -(-(len(whole) - first) // world_size) * world_size
        assert end.consumed == (len(whole),)
        padding = [pick for pick in together if pick.duplicate]
        assert padding == together[len(together) - len(padding) :]
        assert all(samples([pick.place])[0] in whole for pick in padding)


@pytest.mark.parametrize("weighted", [False, True])
def test_stopped_and_resumed_at_other_world_sizes_fifty_times(weighted: bool) -> None:
    mixed = mixture(([50, 3, 90, 1, 40], [20], [0, 70, 0, 1], [300, 300]), [700, 20, 33, 800] if weighted else None)
    random = np.random.default_rng(7)
    for epoch in range(3):
        whole = samples(epoch_of(mixed, epoch))
        at, handed_out = Progress((0,)), []
        for _ in range(50):
            world_size = int(random.integers(1, 9))
            ranks, at = run([mixed], world_size, at, epoch=epoch, steps=int(random.integers(0, 6)))
            handed_out += [pick.place for step in zip(*ranks, strict=True) for pick in step]
        ranks, at = run([mixed], 1, at, epoch=epoch)
        handed_out += [pick.place for pick in ranks[0]]
        assert samples(handed_out) == whole


# -- groups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("last", ["drop", "pad"])
def test_groups_never_mix_in_a_step(world_size: int, last: str) -> None:
    groups = [mixture([[150, 90], [60]], label="clip"), mixture([[500, 301]], label="image")]
    ranks, end = run(groups, world_size, Progress((0, 0)), last)
    for step in zip(*ranks, strict=True):
        assert len({pick.group for pick in step}) == 1
    for number, group in enumerate(groups):
        found = [pick for step in zip(*ranks, strict=True) for pick in step if pick.group == number]
        kept = samples([pick.place for pick in found if not pick.duplicate])
        lost = group.size % world_size if last == "drop" else 0
        assert kept == samples(epoch_of(group))[: group.size - lost]
        assert end.consumed[number] == group.size - lost
    turns = [pick.group for pick in ranks[0]]
    lengths = [len(list(run)) for _, run in itertools.groupby(turns)]
    assert all(length % RUN == 0 for length in lengths[:-2])
    assert len(lengths) > 600 // (world_size * RUN) // 2, "both come in turns"


def test_groups_resume_at_other_world_sizes() -> None:
    groups = [mixture([[150, 90], [60]], label="clip"), mixture([[500, 301]], label="image")]
    random = np.random.default_rng(11)
    at, handed_out = Progress((0, 0)), []
    for _ in range(50):
        ranks, at = run(groups, int(random.integers(1, 9)), at, steps=int(random.integers(0, 6)))
        handed_out += [pick for step in zip(*ranks, strict=True) for pick in step]
    ranks, at = run(groups, 1, at)
    handed_out += ranks[0]
    for number, group in enumerate(groups):
        assert samples([pick.place for pick in handed_out if pick.group == number]) == samples(epoch_of(group))


# -- quality and size -------------------------------------------------------------------------------------------------


def test_shuffling_is_good_and_local() -> None:
    """The figures of the module's docstring, on a smaller corpus."""
    mixed = mixture([[100] * 1000], window=8)
    places = epoch_of(mixed)
    stored = np.array([place.shard * 100 + place.row for place in places])
    assert abs(np.corrcoef(stored, np.arange(stored.size))[0, 1]) < 0.15
    steps = np.abs(np.diff(stored)) / stored.size
    assert 0.2 < np.median(steps) < 0.4
    assert abs(np.mean([a.shard == b.shard for a, b in itertools.pairwise(places)]) - 1 / 8) < 0.02
    for first in range(0, stored.size, 800):  # no more than a window of shards is in use
        assert len({place.shard for place in places[first : first + 800]}) == 8


def test_a_billion_samples_take_the_memory_of_their_shards() -> None:
    sizes = [10_000] * 100_000
    tracemalloc.start()
    mixed = mixture([sizes, [1000] * 50], window=8)
    schedule = Schedule([mixed.size], world_size=64, last="drop")
    start = Progress((700_000_001,))
    found = list(itertools.islice(picks([mixed], schedule, epoch=3, rank=5, start=start), 100))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({pick.place for pick in found}) == 100
    assert peak < 30e6
