"""Frames and masks at the segmenter's sizes.

Frames are resized plainly (the aspect is given up, as SAM 2 does) to the side S, bilinear with antialiasing, and
normalised with ImageNet's mean and deviation.

Masks are brought to S / 4, where SAM 2's mask logits are, by area: a pixel is anomalous where at least half of it is,
and where no pixel of an anomaly is half covered (a bag at the far end of a street), the most covered ones are, so that
a frame labelled 1 has a mask. A pixel is ignored where more than half of it is, the anomaly apart. Nearest neighbour
would drop most things of a pixel or two altogether and shift the edges of the others. Shares of area are exact at every
pair of sizes, also where the mask is smaller than S / 4.

Shapes: T frames, H x W their size, S the segmenter's side, S4 = S / 4.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_Shares = npt.NDArray[np.float32]
_ROUNDING = 1e-4
"""What a share of area in float32 may be off by."""


def pictures(frames: npt.NDArray[np.uint8], side: int) -> Tensor:
    """The segmenter's frames, float32 [T, 3, S, S], of uint8 [T, H, W, 3]."""
    if frames.shape[1:3] != (side, side):
        bilinear = Image.Resampling.BILINEAR
        frames = np.stack([np.asarray(Image.fromarray(frame).resize((side, side), bilinear)) for frame in frames])
    scaled = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).float().div_(255.0)
    return scaled.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


def masks(planes: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.bool_]:
    """Anomalies, bool [T, S4, S4], of masks bool [T, H, W]."""
    share = covered(planes, side // 4)
    most = share.max(axis=(1, 2), keepdims=True)
    found: npt.NDArray[np.bool_] = (share >= np.minimum(0.5, most) * (1 - _ROUNDING)) & (share > 0)
    return found


def ignored(planes: npt.NDArray[np.bool_], anomalies: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.bool_]:
    """Ignored pixels, bool [T, S4, S4], of bool [T, H, W]. anomalies: what `masks` made, which are never ignored."""
    found: npt.NDArray[np.bool_] = (covered(planes, side // 4) > 0.5 + _ROUNDING) & ~anomalies
    return found


def covered(planes: npt.NDArray[np.bool_], side: int) -> _Shares:
    """The share of each new pixel's area that is set, float32 [T, side, side]."""
    rows, columns = _overlap(planes.shape[1], side), _overlap(planes.shape[2], side)
    found = np.zeros((len(planes), side, side), dtype=np.float32)
    for share, plane in zip(found, planes, strict=True):
        if plane.any():
            share[:] = rows @ plane.astype(np.float32) @ columns.T
    return found


@lru_cache(maxsize=64)
def _overlap(old: int, new: int) -> _Shares:
    """How much of each new pixel (rows) lies on each old one (columns), rows adding up to 1: float32 [new, old]."""
    edges = np.arange(new + 1) * (old / new)
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(old)[None]
    both: npt.NDArray[np.float64] = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0.0, None)
    return (both * (new / old)).astype(np.float32)
