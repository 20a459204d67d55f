"""The feed: a corpus as global batches for this process, in an order that does not know how many processes there are.

A global batch of `size` samples is `size` neighbouring positions of the stream; process r of R takes the positions r,
r + R, ... of it, in micro-batches of at most `per_process`. An epoch is cut to whole global batches (`epoch_samples`, a
multiple of `size`): the stream would else drop what R processes cannot share, and epoch 1 would begin elsewhere with
another R. No sample is lost by that cut: each source goes on in the next epoch where it stood.

So the same state goes on at any number of processes that divides `size`. It is taken between global batches only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from aesampler.corpus import Corpus
from aesampler.errors import CorpusError, RecipeError
from aesampler.sample import Sample
from aesampler.stream import Cache, Stream, mix
from lavida.data import Batch
from lavida.training.parallel import World

Collate = Callable[[list[Sample], int], Batch]
"""Samples and the epoch to a batch; it must travel to the workers."""

EVERY_LENGTH = {"irrelevant_count": [0, 1_000_000]}
"""Our own default exposure: lists of one name, too, which is what users ask with; the paper's hold two or more."""


class CacheSettings(BaseModel):
    """See `aesampler.stream.Cache`. folder: on the node's own disk, relative to where the run is started."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str
    max_bytes: int = Field(default=100_000_000_000, ge=1)
    fetch: Literal["ranges", "shards"] = "ranges"


class FeedSettings(BaseModel):
    """What is streamed. corpora: folders or addresses, relative to the file. weights, resample, window, tolerance: see
    `aesampler.stream.Settings`; `weights: recipe` draws sources by the shares of the recipe, `resample: false` keeps
    the stored lists. epoch_samples: length of an epoch, cut to whole global batches; null: the corpora's. workers:
    processes that decode and collate. cache: where shards of an object store are kept; null: nowhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpora: tuple[str, ...] = Field(min_length=1)
    split: str = "train"
    weights: dict[str, float] | Literal["recipe"] | None = None
    epoch_samples: int | None = Field(default=None, ge=1)
    resample: bool | dict[str, Any] = EVERY_LENGTH
    window: int = Field(default=8, ge=1)
    tolerance: float = Field(default=0.0, ge=0.0, lt=1.0)
    workers: int = Field(default=0, ge=0)
    cache: CacheSettings | None = None

    @property
    def kept(self) -> Cache | None:
        """The cache as a stream takes it."""
        return Cache(**self.cache.model_dump()) if self.cache else None

    @field_validator("corpora", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class BatchSettings(BaseModel):
    """size: samples of an optimizer step, over all processes. per_process: most samples of one forward pass; the rest
    is accumulated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(default=32, ge=1)
    per_process: int = Field(default=2, ge=1)

    def micro(self, processes: int) -> int:
        """Samples of a forward pass: the largest number up to per_process that divides a process's share.

        Raises RecipeError where the size cannot be shared equally.
        """
        if self.size % processes:
            raise RecipeError(
                "a global batch must be shared equally",
                where="batch.size",
                got=f"{self.size} for {processes} processes",
                allowed=f"a multiple of {processes}",
            )
        share = self.size // processes
        return max(count for count in range(1, min(self.per_process, share) + 1) if share % count == 0)


class _Collated:
    """`collate` with the epoch of the samples: loaders fork their workers anew each epoch and so send it along."""

    def __init__(self, collate: Collate) -> None:
        self.collate, self.epoch = collate, 0

    def __call__(self, samples: list[Sample]) -> Batch:
        return self.collate(samples, self.epoch)


class Feed:
    """`next(feed)`: the micro-batches of the next global batch, for this process; epoch after epoch.

    waited: seconds spent in `next` so far. share: samples of a global batch for this process.
    """

    def __init__(
        self,
        settings: FeedSettings,
        batch: BatchSettings,
        collate: Collate,
        *,
        seed: int,
        world: World,
        base: Path = Path(),
    ) -> None:
        corpora = self.corpora = [Corpus.open(located(url, base)) for url in settings.corpora]
        self.settings = settings
        micro = batch.micro(world.size)
        self.share = batch.size // world.size
        self.accumulation = self.share // micro
        self.world = world
        self.waited = 0.0
        self.stream = stream(corpora, settings, batch.size, seed=seed, world=world)
        self._collated = _Collated(collate)
        if settings.workers:
            # The tokenizers' own threads do not survive a fork, and say so at length.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        options: dict[str, Any] = {"pin_memory": world.device.type == "cuda"}
        self._loader = self.stream.torch(micro, num_workers=settings.workers, collate=self._collated, **options)
        self._batches: Iterator[Batch] = iter(())

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        began = time.monotonic()
        batches = [self._next() for _ in range(self.accumulation)]
        self.waited += time.monotonic() - began
        return batches

    def _next(self) -> Batch:
        found = next(self._batches, None)
        if found is None:
            if not self.stream.left:
                self.stream.finish()
            self._collated.epoch = self.stream.epoch
            self._batches = iter(self._loader)
            found = next(self._batches)
        return found

    def lists(self) -> Iterator[tuple[int, list[str], int]]:
        """Of each source: the longest list that is drawn, the names it is drawn from, and the frames of a sample."""
        given = self.settings.resample
        for corpus in self.corpora:
            for source, part in corpus.head.splits[self.settings.split].items():
                stored = corpus.settings(self.settings.split, source).max_categories
                cap = given.get("max_categories", stored) if isinstance(given, dict) else stored
                yield int(cap), [entry.name for entry in corpus.vocabulary(source).names], part.frames

    def state_dict(self) -> dict[str, Any]:
        """The state of the stream, which is every process's."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of whatever number of processes."""
        self.stream.load_state_dict(state)
        self._batches = iter(())

    def faults(self) -> dict[str, float]:
        """Samples that this run could not take as asked, over all processes: replaced ones, which could not be read,
        and those that kept their stored exposure, since nothing may be drawn for them afresh.
        """
        counts = self.world.gather((len(self.stream.bad), self.stream.kept))
        return {"replaced": float(sum(bad for bad, _ in counts)), "not_redrawn": float(sum(kept for _, kept in counts))}

    def close(self) -> None:
        """End the workers."""
        self._batches = iter(())


def stream(corpora: Sequence[Corpus], settings: FeedSettings, size: int, *, seed: int, world: World) -> Stream:
    """The stream of the training split, of whole global batches. Raises CorpusError where a corpus lacks the split or
    holds less than one global batch.
    """
    for corpus in corpora:
        check_split(corpus, settings.split, "data.split")
    stored = sum(part.samples for corpus in corpora for part in corpus.head.splits[settings.split].values())
    asked = settings.epoch_samples or stored
    if asked < size:
        raise CorpusError(
            "an epoch is shorter than a global batch",
            where="batch.size",
            got=size,
            allowed=f"1 to {asked}",
            do="lower it, or set data.epoch_samples",
        )
    return mix(
        corpora,
        settings.split,
        seed=seed,
        rank=world.rank,
        world_size=world.size,
        weights=settings.weights,
        epoch_samples=asked // size * size,
        window=settings.window,
        resample=settings.resample,
        tolerance=settings.tolerance,
        cache=settings.kept,
    )


def check_split(corpus: Corpus, split: str, key: str) -> None:
    """Raises CorpusError where the corpus has no such split."""
    if split not in corpus.splits:
        raise CorpusError(
            f"the corpus has no {split} split, which {key} asks for",
            where=corpus.folder.url,
            got=", ".join(corpus.splits) or "no split",
            do="build it with `split: {train: 0.98, validation: 0.02}` in its sources, so that some are held out",
        )


def located(path: str, base: Path) -> str:
    """A path of the configuration: an address, or relative to the folder of its file."""
    return path if "://" in path else str(base / path)
