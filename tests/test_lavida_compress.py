"""Token compression against a plain float64 program (LAVIDA eq. 3-4)."""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch.utils._python_dispatch import TorchDispatchMode

from aesampler.errors import ModelError
from lavida.model.compress import TINY, compress_tokens, densities, kept_count

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def reference(x: np.ndarray, ratio: float, k: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 3 and 4 as they are written, in float64, a token at a time."""
    x = x.astype(np.float64)
    m, d = x.shape
    n, k = max(1, int(ratio * m)), min(k, m - 1)
    near = np.empty((m, k), dtype=int)
    far = np.empty((m, k))
    for i in range(m):
        distance = cdist(x[i : i + 1], x)[0] / math.sqrt(d)
        distance[i] = np.inf
        near[i] = np.argsort(distance, kind="stable")[:k]
        far[i] = distance[near[i]]
    rho = k / np.maximum(np.maximum(far[:, -1][near], far).sum(1), TINY)
    kept = np.sort(np.lexsort((np.arange(m), -rho))[:n])
    group = np.array([cdist(x[i : i + 1], x[kept])[0].argmin() for i in range(m)])
    group[kept] = np.arange(n)
    z = np.empty((n, d))
    for j, b in enumerate(kept):
        members = x[group == j]
        logits = -(members @ x[b]) / math.sqrt(d)
        weights = np.exp(logits - logits.max())
        z[j] = (weights / weights.sum()) @ members
    return z, kept


def assert_equal(x: torch.Tensor, ratio: float, k: int = 8, **options: Any) -> None:
    z, kept = compress_tokens(x, ratio, k, **options)
    expected, places = reference(x.numpy(), ratio, k)
    assert z.dtype == torch.float32
    assert kept.tolist() == places.tolist()
    # A mean of few numbers may cancel to nearly nothing: no float32 is right to 1e-5 of that.
    size = np.maximum(np.linalg.norm(expected, axis=1), 0.5 * np.linalg.norm(x.numpy(), axis=1).mean())
    assert (np.linalg.norm(z.numpy() - expected, axis=1) / size).max() < 1e-5


@pytest.mark.parametrize(("m", "d", "ratio"), [(2048, 64, 0.2), (1536, 896, 0.5), (300, 3584, 0.1), (1000, 16, 0.9)])
def test_it_equals_the_plain_program_in_chunks(m: int, d: int, ratio: float) -> None:
    generator = torch.Generator().manual_seed(m)
    x = torch.randn(m, d, generator=generator) + 3 * torch.randn(d, generator=generator)
    assert_equal(x, ratio, block_bytes=2**20)


@pytest.mark.long
def test_it_equals_the_plain_program_at_12288_tokens() -> None:
    x = torch.randn(12_288, 128, generator=torch.Generator().manual_seed(1))
    assert_equal(x, 0.2, block_bytes=2**26)


@settings(max_examples=80)
@given(
    m=st.integers(2, 40),
    d=st.integers(1, 6),
    ratio=st.floats(0.01, 0.99),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_it_equals_the_plain_program_at_any_size(m: int, d: int, ratio: float, k: int, seed: int) -> None:
    x = torch.randn(m, d, generator=torch.Generator().manual_seed(seed)) + 0.1
    kept, places = compress_tokens(x, ratio, k)[1].numpy(), reference(x.numpy(), ratio, k)[1]
    if kept.tolist() == places.tolist():
        assert_equal(x, ratio, k)
    else:  # two tokens that are each other's farthest have one density, up to the order in which it is summed
        rho = densities(x, min(k, m - 1)).numpy()
        assert np.allclose(np.sort(rho[kept]), np.sort(rho[places]), rtol=1e-9, atol=0)


@settings(max_examples=60)
@given(
    values=st.lists(st.tuples(*[st.integers(-2, 2)] * 2), min_size=2, max_size=60),
    ratio=st.floats(0.02, 0.98),
    k=st.integers(1, 9),
)
def test_ties_and_equal_tokens_go_by_the_lowest_index(values: list[tuple[int, int]], ratio: float, k: int) -> None:
    """On a grid nearly everything is tied, and every distance is exact."""
    x = torch.tensor(values, dtype=torch.float32)
    z, kept = compress_tokens(x, ratio, k)
    expected, places = reference(x.numpy(), ratio, k)
    # Densities of equal neighbourhoods may differ in the last place, by the order in which they are summed.
    if kept.tolist() == places.tolist():
        assert np.allclose(z.numpy(), expected, atol=1e-5)
    rho = densities(x, k).numpy()
    assert rho[kept].min() >= np.sort(rho)[::-1][len(kept) - 1] - 1e-9


def test_long_tokens_blur_no_others() -> None:
    """Sixteen long tokens that are alike are kept, among tight clusters of short ones."""
    numbers = torch.Generator().manual_seed(5)
    centres = torch.randn(32, 64, generator=numbers).repeat_interleave(32, 0)
    x = centres + 0.1 * torch.randn(1024, 64, generator=numbers)
    x[100:116] = 300 * torch.randn(64, generator=numbers) + 0.02 * torch.randn(16, 64, generator=numbers)
    kept = compress_tokens(x, 0.5)[1]
    assert {*range(100, 116)} & {*kept.tolist()}
    assert_equal(x, 0.5)


def test_a_small_case_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [10.0]])
    # K = 1: neighbours 1, 0, 1, 2; their distances 1, 1, 2, 7 are the K-distances too; reach 1, 1, 2, 7.
    assert densities(x, 1).tolist() == pytest.approx([1, 1, 1 / 2, 1 / 7])
    z, kept = compress_tokens(x, 0.5, 1)
    assert kept.tolist() == [0, 1]
    weights = [math.exp(-1), math.exp(-3), math.exp(-10)]  # of 1, 3 and 10 in the group of 1
    assert z[:, 0].tolist() == pytest.approx([0, (weights[0] + 3 * weights[1] + 10 * weights[2]) / sum(weights)])


def test_k_is_8_where_nothing_else_is_said() -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(compress_tokens(x, 0.3)[0], compress_tokens(x, 0.3, 8)[0])


def test_ratio_1_and_one_token_are_the_identity() -> None:
    x = torch.randn(7, 4, requires_grad=True)
    z, kept = compress_tokens(x, 1.0)
    assert z is x
    assert kept.tolist() == list(range(7))
    one = torch.randn(1, 4, dtype=torch.bfloat16)
    z, kept = compress_tokens(one, 0.1)
    assert z is one
    assert kept.tolist() == [0]


@pytest.mark.parametrize("m", range(2, 10))
def test_k_is_at_most_all_the_others(m: int) -> None:
    assert_equal(torch.randn(m, 3, generator=torch.Generator().manual_seed(m)), 0.5)


@pytest.mark.parametrize(("tokens", "ratio", "count"), [(1, 0.1, 1), (9, 0.1, 1), (10, 0.2, 2), (4096, 0.2, 819)])
def test_the_number_of_kept_tokens(tokens: int, ratio: float, count: int) -> None:
    assert kept_count(tokens, ratio) == count


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01, math.nan])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ModelError, match="a share of the tokens"):
        compress_tokens(torch.ones(4, 2), ratio)


def test_equal_tokens_keep_the_first_and_lose_nothing() -> None:
    x = torch.full((40, 8), 2.5)
    z, kept = compress_tokens(x, 0.2)
    assert kept.tolist() == list(range(8))
    assert torch.allclose(z, x[:8])
    assert torch.isfinite(densities(x)).all()


def test_a_static_camera() -> None:
    """Eight equal frames of 25 tokens, in the last of which one token moves: equal ones are the densest, the first of
    each kind stays, and one of them comes to stand for the moved one, too.
    """
    generator = torch.Generator().manual_seed(3)
    frame = torch.randn(25, 128, generator=generator)
    x = frame.repeat(8, 1)
    x[-1] = torch.randn(128, generator=generator)
    z, kept = compress_tokens(x, 0.125, 3)
    assert kept.tolist() == list(range(25))
    same = torch.nn.functional.cosine_similarity(z, frame, dim=1) > 0.9999
    assert same.sum() == 24
    assert torch.nn.functional.cosine_similarity(z[~same], x[-1:], dim=1).item() > 0.99


def test_tokens_of_zeros_are_no_fault() -> None:
    z, kept = compress_tokens(torch.zeros(12, 4), 0.5)
    assert kept.tolist() == list(range(6))
    assert torch.equal(z, torch.zeros(6, 4))


@pytest.mark.parametrize("seed", range(3))
def test_planted_outliers_survive_at_a_fifth(seed: int) -> None:
    """Looks repeated with noise, and six tokens each half of which is like nothing else: none of these is dense
    enough to stay, and each is what the kept token nearest to it becomes. (Of several in one group the least like the
    kept token wins: that is eq. 4. So each lies at a look of its own.)
    """
    generator = torch.Generator().manual_seed(seed)
    d, m = 256, 2048
    looks = torch.randn(8, d, generator=generator)
    x = looks[torch.arange(m) % 8] + 0.3 * torch.randn(m, d, generator=generator)
    planted = torch.randperm(m, generator=generator)[:6]
    x[planted] = 0.6 * looks[:6] + 0.8 * torch.randn(6, d, generator=generator)
    z, kept = compress_tokens(x, 0.2)
    assert len(z) == int(0.2 * m)
    assert not set(planted.tolist()) & set(kept.tolist())
    unit = torch.nn.functional.normalize
    assert (unit(x[planted]) @ unit(z).T).amax(1).min() > 0.95
    assert (unit(x[planted]) @ unit(x[kept]).T).amax(1).max() < 0.7  # the densest tokens alone would have lost them


def test_the_size_of_the_blocks_changes_nothing() -> None:
    x = torch.randn(700, 48, generator=torch.Generator().manual_seed(5))
    small, large = compress_tokens(x, 0.3, block_bytes=1), compress_tokens(x, 0.3)
    assert torch.equal(small[1], large[1])
    assert torch.allclose(small[0], large[0], rtol=1e-6, atol=1e-6)


def test_it_is_float32_without_gradient_under_autocast_too() -> None:
    x = torch.randn(200, 64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    z, kept = compress_tokens(x, 0.4)
    assert not z.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        again = compress_tokens(x, 0.4)
    assert torch.equal(z, again[0])
    assert torch.equal(kept, again[1])
    half = x.detach().bfloat16()
    assert torch.equal(compress_tokens(half, 0.4)[0], compress_tokens(half.float(), 0.4)[0])


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(each, torch.Tensor):
                self.bytes = max(self.bytes, each.numel() * each.element_size())
        return out


def test_memory_is_bounded() -> None:
    m, d, block = 4000, 32, 2**21
    x = torch.randn(m, d)
    with Largest() as largest:
        compress_tokens(x, 0.5, block_bytes=block)
    assert largest.bytes <= block  # all distances would be 64 MB


def test_the_benchmark_counts_and_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import compress

    sizes = {"hidden": 64, "layers": 3, "heads": 4, "kv_heads": 2, "mlp": 128, "context": 4096, "vision_width": 32}
    shape = compress.Shape(sizes=sizes, rows=0, pair=16, frames=4)
    whole, half = (compress.counted(shape, ratio, False) for ratio in (1.0, 0.5))
    assert whole["tokens"] - half["tokens"] == 2 * 16
    lying = whole["total"] - whole["activations"]
    assert half["total"] - half["activations"] == pytest.approx(lying)
    assert half["activations"] / whole["activations"] == pytest.approx(half["tokens"] / whole["tokens"], rel=1e-3)
    kept = [compress.kept_bytes(shape, layers, 50) for layers in (1, 3)]
    assert compress.kept_bytes(shape, 2, 50) == sum(kept) / 2
    assert compress.counted(shape, 1.0, True)["activations"] < whole["activations"]
    # On a CPU the memory is that of the process: what earlier tests let go of would count.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as alone:
        found = alone.submit(compress.measured, shape, "cpu", 0.5, checkpointing=True, steps=1).result(timeout=300)
    assert found["tokens"] == half["tokens"]
    assert 0 <= found["activations"] <= found["total"]
