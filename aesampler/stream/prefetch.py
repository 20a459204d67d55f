"""What a stream will need from an object store, brought into the cache before it does.

The picks of a rank are a function, so they can be walked ahead. They are taken by the chunk: while one is handed out,
the samples of the next are fetched, shard by shard, those that touch in the tar by one request. A chunk grows fourfold
from `FIRST` samples, so that the first come soon, to what the rank takes from one window of shards, when all that it
will ever want of a shard is known at once: a single rank then reads whole shards by requests of 8 MB. All processes of
a node together (torchrun and Ray say in LOCAL_WORLD_SIZE how many there are) fetch at most half the cache ahead.

What fails here is left for the reader, which meets it in the order of the samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice

from aesampler.errors import AesamplerError
from aesampler.manifest import ShardEntry
from aesampler.stream.cache import Shelf
from aesampler.stream.order import Pick
from aesampler.stream.pool import CalledOff, Pool
from aesampler.stream.reading import Reader

FIRST = 32
"""Samples of the first chunk."""


class Prefetch:
    """Fetches ahead of picks. numbers: the part of each walk of each mixture. most: samples of a chunk; fetchers:
    shards that are fetched from at once. pool: its threads; who waits for what is called off there goes on.
    """

    def __init__(
        self, reader: Reader, shelf: Shelf, numbers: Sequence[Sequence[int]], most: int, fetchers: int
    ) -> None:
        self._reader, self._shelf, self._numbers, self._most = reader, shelf, numbers, max(1, most)
        self.pool = Pool(fetchers, "prefetch")

    def ahead(self, found: Iterator[Pick]) -> Iterator[Pick]:
        """The same picks, each given when the chunk after its own is on the way."""
        size = min(FIRST, self._most)
        ready = self._send(found, size)
        while ready:
            size = min(4 * size, self._most)
            following = self._send(found, size)
            yield from ready
            ready = following

    def _send(self, found: Iterator[Pick], size: int) -> list[Pick]:
        """The next chunk, on its way."""
        chunk = list(islice(found, size))
        shards: dict[tuple[int, int], list[int]] = {}
        for pick in chunk:
            part = self._numbers[pick.group][pick.place.walk]
            shards.setdefault((part, pick.place.shard), []).append(pick.place.row)
        for (part, number), rows in shards.items():
            entry = self._reader.entry(part, number)
            self._shelf.coming(entry, rows)
            try:
                fetching = self.pool.submit(self._fetch, part, number, rows)
                fetching.add_done_callback(partial(self._ended, entry, rows))
            except BaseException:
                self._shelf.landed(entry, rows)
                raise
        return chunk

    def _fetch(self, part: int, number: int, rows: list[int]) -> None:
        with contextlib.suppress(AesamplerError, OSError, CalledOff):
            self._reader.prefetch(part, number, rows)

    def _ended(self, entry: ShardEntry, rows: list[int], _: Future[None]) -> None:
        """A fetching came to an end, or was called off before it began: nobody need wait for it."""
        self._shelf.landed(entry, rows)
