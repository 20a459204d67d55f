"""What a stream is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aesampler.errors import CorpusError
from aesampler.stream.cache import Cache
from aesampler.stream.decoding import Resample, Resize
from aesampler.stream.order import Last


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a stream is asked for.

    seed, epoch: key the order. rank, world_size: whose share. weights: share of each source (`SOURCE`, or
    `CORPUS/SOURCE` where several corpora have it; 0 leaves it out), or "recipe"; None: every sample once an epoch.
    epoch_samples: length of an epoch over all ranks. last: what becomes of a last step too short for all ranks.
    shuffle; window: shards that are shuffled together. resample: draw exposures afresh each epoch, by the recipe's
    settings (True), by these with some changed (a mapping), or by others. group_by: "kind" gives all ranks clips, or
    all images, in a step. resize: longest side, or (height, width), in pixels. threads: None: one a core, at most 8; 0:
    none. tolerance: share of an epoch's samples that may be unreadable. verify: check the sha256 of each shard before
    its first use. cache: where what comes from an object store is kept, a `Cache` or its folder.
    """

    seed: int = 0
    epoch: int = 0
    rank: int = 0
    world_size: int = 1
    weights: Mapping[str, float] | Literal["recipe"] | None = None
    epoch_samples: int | None = None
    last: Last = "drop"
    shuffle: bool = True
    window: int = 8
    resample: Resample = False
    group_by: Literal["kind"] | None = None
    resize: Resize = None
    threads: int | None = None
    tolerance: float = 0.0
    verify: bool = False
    cache: Cache | str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.cache is not None and not isinstance(self.cache, Cache):
            object.__setattr__(self, "cache", Cache(self.cache))
        sides = self.resize if isinstance(self.resize, tuple) else (1 if self.resize is None else self.resize,)
        allowed = {
            "world_size": (self.world_size >= 1, "1 or more"),
            "rank": (0 <= self.rank < self.world_size, f"0 to {self.world_size - 1}"),
            "epoch": (self.epoch >= 0, "0 or more"),
            "epoch_samples": (self.epoch_samples is None or self.epoch_samples >= 1, "None, or 1 or more"),
            "window": (self.window >= 1, "1 or more"),
            "last": (self.last in ("drop", "pad"), "drop, pad"),
            "group_by": (self.group_by in (None, "kind"), "None, kind"),
            "resize": (min(sides) >= 1, "pixels, 1 or more"),
            "threads": (self.threads is None or self.threads >= 0, "None, or 0 or more"),
            "tolerance": (0.0 <= self.tolerance < 1.0, "0 to 1"),
        }
        for name, (sound, which) in allowed.items():
            if not sound:
                raise CorpusError("a stream cannot be so", where=name, got=repr(getattr(self, name)), allowed=which)
