"""Static-patch pruning, at evaluation only and only where asked for: places that show what the first frame showed are
left out before compression.

A visual token is a patch of 2 x 2 of the vision tower's. A place whose 1 - cosine to the first frame's token, on
average over the other frames, is below the threshold (0.01 in the released code) is left out of all of these; the first
frame stays. The released code compares what enters the tower, and saves its work too; here it is what comes out.

Shapes: M = t * h * w visual tokens of a clip, in the order time, row, column; D width; P = h * w places.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 0.01


def moving_tokens(x_MD: Tensor, grid: tuple[int, int, int], threshold: float = THRESHOLD) -> Tensor:
    """The places of the tokens that stay, int64 [M'], ascending. grid: (t, h, w), t * h * w = M."""
    t, h, w = grid
    with torch.no_grad():
        x_TPD = x_MD.detach().float().reshape(t, h * w, -1)
        change_TP = 1.0 - functional.cosine_similarity(x_TPD, x_TPD[:1], dim=-1)
        moving_TP = torch.ones(t, h * w, dtype=torch.bool, device=x_MD.device)
        if t > 1:
            moving_TP[1:] = change_TP[1:].mean(0) >= threshold
        return moving_TP.flatten().nonzero()[:, 0]
