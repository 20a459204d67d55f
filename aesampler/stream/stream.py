"""The Stream: the samples in order, made ahead by threads, and the state."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from aesampler.errors import BadRecord, CorpusError, MissingExtra, ToleranceError, tolerated
from aesampler.machine import cpus
from aesampler.sample import Sample
from aesampler.stream import origins
from aesampler.stream.cache import Cache
from aesampler.stream.decoding import Redraw, decode
from aesampler.stream.order import Mixture, Pick, Place, Progress, Schedule, Walk, picks, shares
from aesampler.stream.origins import Readable
from aesampler.stream.pool import Pool
from aesampler.stream.prefetch import Prefetch
from aesampler.stream.reading import Reader
from aesampler.stream.settings import Settings

if TYPE_CHECKING:
    from aesampler.stream.hugging_face import HuggingFace
    from aesampler.stream.loader import Loader
    from aesampler.stream.ray_data import RayData

STATE_VERSION = 1

AHEAD = 4
"""Samples in flight for each thread."""

FETCHERS = 16
"""Threads for an object store, each of whose answers takes a round trip."""

Thing = TypeVar("Thing")
Members = tuple[str, dict[str, bytes]]


class Stream:
    """The samples of a split for one rank: `for sample in stream` gives the rest of an epoch, and then stands at the
    beginning of the next. `state_dict()` after any sample says where; it is the same on every rank. One iterator moves
    it at a time: an older one raises CorpusError.

    kept: samples whose exposure could not be drawn afresh and is the stored one. bad: place -> fault, of samples (or
    whole shards) that were replaced. Raises CorpusError where the corpora have no such split or source.
    """

    def __init__(self, corpora: Sequence[Readable], split: str, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.split = split
        self.corpora = tuple(corpora)
        self.kept = 0
        self.bad: dict[str, str] = {}
        self._lock = Lock()
        self._walk = 0
        self._replaced_here: set[tuple[int, int]] = set()
        self._origins = origins.find(self.corpora, split)
        self._weights = origins.weigh(self._origins, split, self.settings.weights)
        self._mixtures, self._numbers = self._mixed()
        sizes = [mixture.size for mixture in self._mixtures]
        self._schedule = Schedule(sizes, world_size=self.settings.world_size, last=self.settings.last)
        self._identity = self._identified()
        self._redraws = self._redrawn()
        window = self.settings.window if self.settings.shuffle else 1
        self._reader = Reader(
            [origin.part(split) for origin in self._origins],
            recent=2 * (window + 1) * len(self._origins),
            verify=self.settings.verify,
            cache=self.settings.cache if isinstance(self.settings.cache, Cache) else None,
        )
        self._epoch = self.settings.epoch
        self._at = self._schedule.start()

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.corpora, self.split, self.settings, self.state_dict())

    def __repr__(self) -> str:
        sources = ", ".join(origin.label for origin in self._origins)
        return f"<Stream of {sources}: {self.split}, epoch {self.epoch}, {self.left:,} of {len(self):,} steps left>"

    @property
    def epoch(self) -> int:
        """The epoch that the next sample is of, or whose end has been reached but not passed."""
        return self._epoch

    @property
    def consumed(self) -> int:
        """Samples of this epoch that were handed out, on all ranks together."""
        return sum(self._at.consumed)

    def __len__(self) -> int:
        """Steps of a whole epoch, which are as many for every rank."""
        return self._schedule.steps(self._schedule.start())

    @property
    def left(self) -> int:
        """Steps of this epoch that are still to come."""
        return self._schedule.steps(self._at)

    def __iter__(self) -> Iterator[Sample]:
        return self._handed_out(self._sample, self._threads(min(cpus(), 8)))

    def members(self) -> Iterator[Members]:
        """The rest of the epoch undecoded: the key and the files (by extension) of each sample."""
        return self._handed_out(self._members, self._threads(0))

    def blocks(self) -> Iterator[tuple[str, bytes]]:
        """The rest of the epoch as it lies in the tars: the key and the bytes of each sample, of whose headers only the
        first is checked. One after another, and 1,024 zeros at the end, they are a tar.
        """
        return self._handed_out(self._block, self._threads(0))

    def keys(self) -> Iterator[str]:
        """The keys of the rest of the epoch for this rank, in order; nothing is handed out."""
        for pick in self._picks():
            yield self._reader.key(self._numbers[pick.group][pick.place.walk], pick.place.shard, pick.place.row)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream stands, JSON-able: the epoch, what was handed out of it, and of what stream this is."""
        at = self._at
        return {
            "version": STATE_VERSION,
            "epoch": self._epoch,
            "consumed": [*at.consumed],
            "turn": [at.turn, at.left],
            "stream": self._identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, of whatever rank and world size. Raises CorpusError where it is of another stream."""
        if not isinstance(state, Mapping) or state.get("version") != STATE_VERSION:
            raise CorpusError("this is no state of a stream", got=str(state)[:60], allowed=f"version {STATE_VERSION}")
        theirs = state.get("stream")
        theirs = theirs if isinstance(theirs, Mapping) else {}
        for name, mine in self._identity.items():
            if theirs.get(name) != mine:
                raise CorpusError(
                    f"the state is of another stream: its {name} differ",
                    got=_short(theirs.get(name)),
                    allowed=_short(mine),
                    do="give the corpora and settings of the run that is to be resumed, or begin anew",
                )
        try:
            epoch, consumed = int(state["epoch"]), tuple(map(int, state["consumed"]))
            turn, left = map(int, state["turn"])
        except (KeyError, TypeError, ValueError) as error:
            raise CorpusError("the state of a stream is damaged", got=str(state)[:60]) from error
        sizes = self._schedule.sizes
        sound = len(consumed) == len(sizes) and all(0 <= n <= size for n, size in zip(consumed, sizes, strict=True))
        if not sound or epoch < 0 or not 0 <= turn < len(sizes):
            raise CorpusError("the state of a stream is damaged", got=consumed, allowed=f"at most {sizes}")
        self.begin()
        self._epoch, self._at = epoch, Progress(consumed, turn, left)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.begin()
        self._epoch, self._at = epoch, self._schedule.start()
        self._replaced_here.clear()

    def torch(
        self,
        batch_size: int | None = None,
        *,
        num_workers: int = 0,
        collate: Callable[[list[Sample]], Any] | None = None,
        **options: Any,
    ) -> Loader:
        """Batches by worker processes of torch's DataLoader, in the order of this stream: see `loader.Loader`."""
        from aesampler.stream.loader import Loader

        return Loader(self, batch_size, num_workers=num_workers, collate=collate, options=options)

    def ranked(self, rank: int, world_size: int) -> Stream:
        """This stream at the same place, for one of other ranks."""
        settings = replace(self.settings, rank=rank, world_size=world_size)
        return _restored(self.corpora, self.split, settings, self.state_dict())

    def ray_train(
        self,
        batch_size: int | None = None,
        *,
        num_workers: int = 0,
        collate: Callable[[list[Sample]], Any] | None = None,
        **options: Any,
    ) -> Loader:
        """`torch`, for this worker of Ray Train, which knows its rank and world size: see `ray_train.py`.

        Raises CorpusError outside of a worker of Ray Train.
        """
        from aesampler.stream import ray_train

        return ray_train.share(self).torch(batch_size, num_workers=num_workers, collate=collate, **options)

    def ray_data(self, **options: Any) -> RayData:
        """The rest of the epoch as a Ray dataset, read in parallel: see `ray_data.py`. options: those of
        `ray.data.read_datasource`.
        """
        from aesampler.stream import ray_data

        return ray_data.dataset(self, **options)

    def hugging_face(self) -> HuggingFace:
        """The rest of the epoch as a `datasets.IterableDataset` with features and state: see `hugging_face.py`. Raises
        MissingExtra.
        """
        try:
            from aesampler.stream import hugging_face
        except ImportError as error:
            raise MissingExtra.of("datasets", "hf") from error
        return hugging_face.dataset(self)

    def share(self, worker: int, workers: int, batch_size: int) -> Iterator[Sample]:
        """The samples of every `workers`-th batch of the rest of the epoch, from the `worker`-th on; nothing is counted
        as handed out. One of several workers decodes without threads, and fetches with few.
        """
        mine = (pick for step, pick in enumerate(self._picks()) if step // batch_size % workers == worker)
        threads = self._threads(0)
        if workers > 1:
            threads = 0 if self._is_local else min(threads, -(-FETCHERS // workers))
        return (sample for _, sample in self._made(mine, self._sample, threads, workers))

    def begin(self) -> int:
        """A number for whoever hands out from here on: iterators of before have come to their end."""
        self._walk += 1
        return self._walk

    def require(self, walk: int) -> None:
        """Raise CorpusError where the stream has begun anew since that number: two who hand out would each count what
        the other has not.
        """
        if walk != self._walk:
            raise CorpusError(
                "this iterator is of before: its stream was begun anew, or sent elsewhere",
                where=repr(self),
                do="use one iterator of a stream at a time; another stream is free to make",
            )

    def count(self, walk: int, steps: int) -> None:
        """Count steps as handed out, by who has that number. Raises as `require` does."""
        self.require(walk)
        self._at = self._schedule.ahead(self._at, steps)

    def advance(self, steps: int) -> None:
        """Go past some steps of the rest of the epoch, which others have read. Raises ValueError where it has fewer."""
        self.count(self.begin(), steps)

    def finish(self) -> None:
        """Go to the beginning of the next epoch."""
        self.set_epoch(self._epoch + 1)

    # What is streamed

    def _mixed(self) -> tuple[list[Mixture], list[list[int]]]:
        """One mixture, or one a kind; and the places of its sources in `_origins`."""
        asked = self.settings
        weights = self._weights
        sizes = [origin.head.samples for origin in self._origins]
        counts = shares(weights or sizes, asked.epoch_samples or sum(sizes))
        kinds = [origin.head.kind if asked.group_by == "kind" else "" for origin in self._origins]
        mixtures, numbers = [], []
        for kind in sorted({kind for kind, count in zip(kinds, counts, strict=True) if count}):
            chosen = [place for place, count in enumerate(counts) if kinds[place] == kind and count]
            walks = [
                Walk(
                    f"{self._origins[place].label}/{self.split}",
                    [entry.samples for entry in self._origins[place].head.shards],
                    seed=asked.seed,
                    window=asked.window,
                    shuffle=asked.shuffle,
                )
                for place in chosen
            ]
            mixtures.append(
                Mixture(
                    walks,
                    [counts[place] for place in chosen],
                    label=kind,
                    seed=asked.seed,
                    shuffle=asked.shuffle,
                    mixed=asked.shuffle or weights is not None,
                )
            )
            numbers.append(chosen)
        return mixtures, numbers

    def _identified(self) -> dict[str, Any]:
        """All that the order depends on."""
        asked = self.settings
        return {
            "corpora": {corpus.head.name: origins.digest(corpus.head, self.split) for corpus in self.corpora},
            "split": self.split,
            "seed": asked.seed,
            "weights": self._weights,
            "epoch_samples": asked.epoch_samples,
            "shuffle": [asked.shuffle, asked.window if asked.shuffle else 0],
            "group_by": asked.group_by,
        }

    def _redrawn(self) -> list[Redraw | None]:
        given = self.settings.resample
        if given is False:
            return [None] * len(self._origins)
        return [
            Redraw.of(
                origin.corpus.vocabulary(origin.source),
                origin.corpus.settings(self.split, origin.source),
                given,
                origin.corpus.head.seed,
            )
            for origin in self._origins
        ]

    # Samples

    def _picks(self) -> Iterator[Pick]:
        return picks(self._mixtures, self._schedule, epoch=self._epoch, rank=self.settings.rank, start=self._at)

    def _threads(self, local: int) -> int:
        if self.settings.threads is not None:
            return self.settings.threads
        return local if self._is_local else FETCHERS

    @property
    def _is_local(self) -> bool:
        return all(origin.corpus.folder.is_local for origin in self._origins)

    def _sample(self, group: int, place: Place) -> Sample:
        number = self._numbers[group][place.walk]
        key, members = self._reader.members(number, place.shard, place.row)
        try:
            found, kept = decode(
                key, members, resize=self.settings.resize, redraw=self._redraws[number], number=place.number
            )
        except (BadRecord, CorpusError) as error:
            raise self._reader.located(error, number, place.shard, place.row) from error
        if kept:
            with self._lock:
                self.kept += 1
        return found

    def _members(self, group: int, place: Place) -> Members:
        return self._reader.members(self._numbers[group][place.walk], place.shard, place.row)

    def _block(self, group: int, place: Place) -> tuple[str, bytes]:
        return self._reader.block(self._numbers[group][place.walk], place.shard, place.row)

    def _handed_out(self, make: Callable[[int, Place], Thing], threads: int) -> Iterator[Thing]:
        """The rest of the epoch; the state moves with each thing that is handed out."""
        walk = self.begin()
        for pick, thing in self._made(self._picks(), make, threads):
            self.require(walk)
            self._at = pick.after
            yield thing
        self.require(walk)
        self.finish()

    def _made(
        self, found: Iterator[Pick], make: Callable[[int, Place], Thing], threads: int, workers: int = 1
    ) -> Iterator[tuple[Pick, Thing]]:
        prefetch = self._prefetch(workers)
        pool = Pool(threads, "stream") if threads else None
        try:
            ahead = _ahead(found if prefetch is None else prefetch.ahead(found), make, pool, AHEAD * threads)
            yield from self._called(ahead, make)
        finally:
            pools = ([] if prefetch is None else [prefetch.pool]) + ([] if pool is None else [pool])
            for each in pools:
                each.call_off()
            for each in pools:  # only now: they wait for one another
                each.join()

    def _called(
        self, found: Iterator[tuple[Pick, Callable[[], Thing]]], make: Callable[[int, Place], Thing]
    ) -> Iterator[tuple[Pick, Thing]]:
        for pick, call in found:
            duplicate = pick.duplicate
            try:
                thing = call()
            except CorpusError as error:
                thing, duplicate = self._replaced(pick, make, error), True
            if duplicate and isinstance(thing, Sample):
                thing = replace(thing, duplicate=True)
            yield pick, thing

    def _prefetch(self, workers: int) -> Prefetch | None:
        """What fetches into the cache, where there is one, for one of so many worker processes of this rank."""
        heads = [origin.head for origin in self._origins]
        shards = [entry.bytes for head in heads for entry in head.shards]
        if self._reader.shelf is None or not shards:
            return None
        window = self.settings.window if self.settings.shuffle else 1
        of_window = window * len(heads) * sum(shards) / len(shards) / self.settings.world_size
        of_cache = self._reader.shelf.max_bytes / 4 / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        each = sum(shards) / sum(head.samples for head in heads)
        most = int(min(of_window, of_cache) / workers / each)
        return Prefetch(self._reader, self._reader.shelf, self._numbers, most, -(-FETCHERS // 2 // workers))

    def _replaced(self, pick: Pick, make: Callable[[int, Place], Thing], error: CorpusError) -> Thing:
        """The next sample of the epoch that can be used, in place of one that cannot."""
        mixture = self._mixtures[pick.group]
        most = tolerated(self.settings.tolerance, sum(self._schedule.sizes))
        for position in range(pick.position + 1, pick.position + 1 + mixture.size):
            self.bad[error.where] = error.what
            self._replaced_here.add((pick.group, (position - 1) % mixture.size))
            if len(self._replaced_here) > most:
                if not self.settings.tolerance:
                    raise error
                raise ToleranceError(
                    "more samples cannot be used than are tolerated",
                    got=len(self._replaced_here),
                    allowed=most,
                    where=str(error),
                ) from error
            (place,) = mixture.locate(self._epoch, np.array([position % mixture.size]))
            try:
                return make(pick.group, place)
            except CorpusError as another:
                error = another
        raise error


def mix(corpora: Sequence[Readable], split: str, **options: Any) -> Stream:
    """Several corpora, whose names differ, as one stream; options: `Settings`."""
    return Stream(corpora, split, Settings(**options))


def _restored(corpora: Sequence[Readable], split: str, settings: Settings, state: Mapping[str, Any]) -> Stream:
    stream = Stream(corpora, split, settings)
    stream.load_state_dict(state)
    return stream


def _ahead(
    found: Iterator[Pick], make: Callable[[int, Place], Thing], pool: Pool | None, most: int
) -> Iterator[tuple[Pick, Callable[[], Thing]]]:
    """Each pick with a call that gives its thing, made ahead by the pool's threads, at most so many."""
    if pool is None:
        for pick in found:
            yield pick, partial(make, pick.group, pick.place)
        return
    waiting: deque[tuple[Pick, Future[Thing]]] = deque()
    for pick in found:
        waiting.append((pick, pool.submit(make, pick.group, pick.place)))
        if len(waiting) >= most:
            ready, future = waiting.popleft()
            yield ready, future.result
    while waiting:
        ready, future = waiting.popleft()
        yield ready, future.result


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
