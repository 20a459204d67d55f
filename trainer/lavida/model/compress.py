"""Token compression (LAVIDA eq. 3-4): of M visual tokens the M' densest stay, and each of the others goes into the
nearest of them. Training-free, in float32, without gradient.

Two tokens may be nearer to each other than float32 can tell from the products of long vectors. So products in float32
find a few candidates a token, and the distances to these are measured from the differences, in float64: what is kept
and what goes where is what a plain float64 program finds, and equal tokens are at a distance of exactly 0.

Memory: rows are taken a block at a time, so that what is held besides the tokens is about BLOCK_BYTES, whatever M.
Time: 2 M^2 D operations for the neighbours and 2 M M' D for the assignment; benchmarks/compress.py has it beside a
training step.

Ties: neighbours, densest tokens and nearest kept token each by the lowest index; a kept token always goes into itself.
Equal tokens (a camera that does not move) have a reach of 0: the sum is clamped at TINY, so that they are the densest.

Shapes: M tokens, N = M' kept ones, D width, K neighbours, C candidates, R rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from aesampler.errors import ModelError

NEIGHBOURS = 8
BLOCK_BYTES = 256 * 2**20
TINY = 1e-12
"""The smallest sum of reaches, and the density of equal tokens K / TINY."""
_SPARE = 8
"""Candidates beyond those wanted."""
_NEAR = 2.0**-19
"""Squared distances are compared in float32 up to this share of the squared lengths (16 units in the last place)."""


def kept_count(tokens: int, ratio: float) -> int:
    """M' of M tokens. Raises ModelError where the ratio is no share."""
    if not 0.0 < ratio <= 1.0:
        raise ModelError("a compression ratio is a share of the tokens", got=ratio, allowed="above 0, at most 1")
    return min(tokens, max(1, int(ratio * tokens)))


def compress_tokens(
    x_MD: Tensor, ratio: float, k: int = NEIGHBOURS, *, block_bytes: int = BLOCK_BYTES
) -> tuple[Tensor, Tensor]:
    """The compressed tokens, float32 [M', D], and the places in x of those they stand for, int64 [M'], ascending
    (eq. 3-4). M' = max(1, int(ratio * M)). Where M' = M the tokens themselves are given back.
    """
    m = len(x_MD)
    n = kept_count(m, ratio)
    if n == m:
        return x_MD, torch.arange(m, device=x_MD.device)
    with torch.no_grad(), torch.autocast(x_MD.device.type, enabled=False):
        x = x_MD.detach().float()
        density_M = densities(x, k, block_bytes=block_bytes)
        # A stable sort gives equal densities by their index.
        kept_N = torch.sort(density_M, descending=True, stable=True).indices[:n].sort().values
        nearest_M = _nearest(x, kept_N, block_bytes)
        return _pooled(x, kept_N, nearest_M, block_bytes), kept_N


def densities(x_MD: Tensor, k: int = NEIGHBOURS, *, block_bytes: int = BLOCK_BYTES) -> Tensor:
    """The density rho of every token, float64 [M] (eq. 3); K is at most M - 1, and one token alone has density 1."""
    m, d = x_MD.shape
    k = min(k, m - 1)
    if k < 1:
        return torch.ones(m, dtype=torch.float64, device=x_MD.device)
    wanted = min(k + _SPARE, m - 1)
    far_MK, near_MK = [], []
    for rows, square_RM, *_ in _squares(x_MD, x_MD, block_bytes):
        square_RM[torch.arange(len(rows), device=x_MD.device), rows] = torch.inf
        near_RC = square_RM.topk(wanted, largest=False, sorted=False).indices.sort(1).values
        far_RC = _measured(x_MD, rows, x_MD, near_RC)
        order = torch.sort(far_RC, dim=1, stable=True)
        far_MK.append(order.values[:, :k])
        near_MK.append(near_RC.gather(1, order.indices[:, :k]))
    distance_MK, neighbour_MK = torch.cat(far_MK) / d**0.5, torch.cat(near_MK)
    reach_MK = torch.maximum(distance_MK[:, -1][neighbour_MK], distance_MK)
    return k / reach_MK.sum(1).clamp_min(TINY)


def _nearest(x_MD: Tensor, kept_N: Tensor, block_bytes: int) -> Tensor:
    """The place in kept_N that each token goes into, int64 [M]."""
    n = len(kept_N)
    b_ND = x_MD[kept_N]
    wanted = min(_SPARE, n)
    backwards_N = torch.arange(n, 0, -1, device=x_MD.device, dtype=torch.float32)
    found = []
    for rows, square_RN, slack_R1, slack_N in _squares(x_MD, b_ND, block_bytes):
        # Among those that float32 cannot tell from the nearest: the lowest places, which equal tokens may fill all, and
        # what float32 takes for the nearest.
        most_R1 = (square_RN + slack_N).amin(1, keepdim=True) + 2 * slack_R1
        within_RN = square_RN - slack_N <= most_R1
        lowest_RC = torch.where(within_RN, backwards_N, -1.0).topk(wanted).indices
        nearest_RC = square_RN.topk(wanted, largest=False, sorted=False).indices
        near_RC = torch.cat([lowest_RC, nearest_RC], dim=1).sort(1).values
        far_RC = _measured(x_MD, rows, b_ND, near_RC)
        far_RC.masked_fill_(~within_RN.gather(1, near_RC), torch.inf)
        first_R1 = torch.sort(far_RC, dim=1, stable=True).indices[:, :1]
        found.append(near_RC.gather(1, first_R1)[:, 0])
    nearest_M = torch.cat(found)
    nearest_M[kept_N] = torch.arange(n, device=x_MD.device)
    return nearest_M


def _pooled(x_MD: Tensor, kept_N: Tensor, nearest_M: Tensor, block_bytes: int) -> Tensor:
    """z, float32 [N, D] (eq. 4): of each group a mean, in which what is least like its centre weighs most."""
    n, (m, d) = len(kept_N), x_MD.shape
    step = max(1, block_bytes // (24 * d))
    logits_M = torch.cat(
        [
            -(x_MD[start : start + step].double() * x_MD[kept_N[nearest_M[start : start + step]]].double()).sum(1)
            for start in range(0, m, step)
        ]
    )
    logits_M = logits_M / d**0.5
    largest_N = torch.full((n,), -torch.inf, dtype=torch.float64, device=x_MD.device)
    largest_N = largest_N.scatter_reduce(0, nearest_M, logits_M, "amax")
    weight_M = (logits_M - largest_N[nearest_M]).exp()
    total_N = torch.zeros_like(largest_N).index_add_(0, nearest_M, weight_M)
    weight_M1 = (weight_M / total_N[nearest_M]).float()[:, None]
    z_ND = torch.zeros(n, d, device=x_MD.device)
    for start in range(0, m, step):
        part = slice(start, start + step)
        z_ND.index_add_(0, nearest_M[part], x_MD[part] * weight_M1[part])
    return z_ND


def _squares(x_MD: Tensor, b_ND: Tensor, block_bytes: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Blocks of rows of x, the squared distances to every b in float32 [R, N], and how far off these may be: the sum of
    a row's share [R, 1] and a column's [N], so that one long token blurs no others.

    Both are moved by the mean first: what all tokens have in common would cost digits.
    """
    mean_D = x_MD.mean(0)
    b_ND = b_ND - mean_D
    length_N = b_ND.square().sum(1)
    step = max(1, block_bytes // (16 * len(b_ND) + 8 * (_SPARE + NEIGHBOURS + 1) * x_MD.shape[1]))
    for start in range(0, len(x_MD), step):
        x_RD = x_MD[start : start + step] - mean_D
        length_R1 = x_RD.square().sum(1, keepdim=True)
        square_RN = torch.addmm(length_N, x_RD, b_ND.T, alpha=-2).add_(length_R1)
        rows = torch.arange(start, start + len(x_RD), device=x_MD.device)
        yield rows, square_RN, _NEAR * length_R1, _NEAR * length_N


def _measured(x_MD: Tensor, rows: Tensor, b_ND: Tensor, near_RC: Tensor) -> Tensor:
    """Distances from x[rows] to b[near], float64 [R, C], from their differences."""
    columns = [(x_MD[rows].double() - b_ND[near_R].double()).square().sum(1).sqrt() for near_R in near_RC.unbind(1)]
    return torch.stack(columns, dim=1)
