"""Static-patch pruning, at evaluation only and only where asked for: visual tokens that show what the first frame
showed are left out before compression.

A frame's tokens are taken in patches of 2 x 2. A patch whose mean of 1 - cosine (each token against the first frame's
at its place) is below the threshold, 0.01 in the released code, is dropped whole. The first frame stays. A grid of odd
sides has patches of 2 and 1 at its edge.

Shapes: M = t * h * w visual tokens of a clip, in the order time, row, column; D width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 0.01
PATCH = 2


def moving_tokens(x_MD: Tensor, grid: tuple[int, int, int], threshold: float = THRESHOLD) -> Tensor:
    """The places of the tokens that stay, int64 [M'], ascending. grid: (t, h, w), t * h * w = M."""
    t, h, w = grid
    with torch.no_grad():
        x_THWD = x_MD.detach().float().reshape(t, h, w, -1)
        change_THW = 1.0 - functional.cosine_similarity(x_THWD, x_THWD[:1], dim=-1)
        means = functional.avg_pool2d(change_THW[:, None], PATCH, ceil_mode=True, count_include_pad=False)
        moving_THW = means[:, 0].repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, :h, :w] >= threshold
        moving_THW[0] = True
        return moving_THW.flatten().nonzero()[:, 0]
