"""Static-patch pruning: which visual tokens stay."""

from __future__ import annotations

import math

import pytest
import torch

from lavida.model.pruning import moving_tokens


def clip(t: int, h: int, w: int, d: int = 6, seed: int = 0) -> torch.Tensor:
    """A camera that does not move: [t, h, w, d], every frame the same."""
    return torch.randn(h, w, d, generator=torch.Generator().manual_seed(seed)).repeat(t, 1, 1, 1)


def test_of_a_still_clip_the_first_frame_stays() -> None:
    x = clip(5, 4, 6)
    assert moving_tokens(x.flatten(0, 2), (5, 4, 6)).tolist() == list(range(24))


def test_a_place_that_changes_stays_in_all_frames() -> None:
    """As in the released code: a place goes from all later frames, or from none."""
    x = clip(3, 3, 5)
    x[2, 1, 3] = -x[2, 1, 3]
    kept = moving_tokens(x.flatten(0, 2), (3, 3, 5)).tolist()
    assert kept == [*range(15), 15 + 8, 30 + 8]


def test_a_picture_stays_whole() -> None:
    assert moving_tokens(clip(1, 2, 3).flatten(0, 2), (1, 2, 3)).tolist() == list(range(6))


@pytest.mark.parametrize(("change", "stays"), [(0.0399, False), (0.0401, True)])
def test_the_mean_over_the_later_frames_is_compared(change: float, stays: bool) -> None:
    """In one frame of four a token is turned so that 1 - cosine is `change`: the mean is a quarter of it."""
    x = torch.zeros(5, 1, 2, 2)
    x[..., 0] = 1
    angle = math.acos(1 - change)
    x[3, 0, 1] = torch.tensor([math.cos(angle), math.sin(angle)])
    kept = moving_tokens(x.flatten(0, 2), (5, 1, 2), 0.01).tolist()
    assert kept == ([0, 1, 3, 5, 7, 9] if stays else [0, 1])


def test_length_is_not_change_and_a_lower_threshold_keeps_more() -> None:
    x = clip(2, 4, 4)
    x[1] *= 3
    assert len(moving_tokens(x.flatten(0, 2), (2, 4, 4))) == 16
    x[1] += 0.05 * torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(1))
    counts = [len(moving_tokens(x.flatten(0, 2), (2, 4, 4), threshold)) for threshold in (1.0, 1e-4, 0.0)]
    assert counts == sorted(counts)
    assert counts[-1] == 32
