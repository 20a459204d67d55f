"""Batches of a stream from worker processes: torch's DataLoader, in the stream's order and with its state.

DataLoader takes batches from its workers in turn, so worker w of W makes the batches w, w + W, ... of the rank: the
order is that without workers. The state is that of the stream in the main process, which counts batches as they are
handed out; what workers have prefetched is nobody's yet. A batch brings along what its worker has had to replace since
its last one, so that `stream.bad` and `stream.kept` are those of all workers.

Threads of the stream itself are faster (`aesampler.stream`); worker processes are for a costly `collate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aesampler.errors import AesamplerError
from aesampler.sample import Sample

if TYPE_CHECKING:
    from aesampler.stream.stream import Stream


class Loader:
    """`for batch in loader`: the rest of an epoch, like its stream; `state_dict`, `load_state_dict` at any batch.

    A batch is `collate` of a list of at most `batch_size` samples, the last one of an epoch shorter; without
    batch_size it is one sample. options: DataLoader's. Every rank has as many batches, of equal sizes. `stream.bad` and
    `stream.kept` count what the workers met on the way to the batches that were handed out.
    """

    def __init__(
        self,
        stream: Stream,
        batch_size: int | None,
        *,
        num_workers: int,
        collate: Callable[[list[Sample]], Any] | None,
        options: dict[str, Any],
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"a batch has 1 sample or more, got {batch_size}")
        self.stream = stream
        self.dataset = Batches(stream, batch_size, collate)
        self._workers, self._options = num_workers, options

    def __len__(self) -> int:
        return -(-len(self.stream) // (self.dataset.batch_size or 1))

    def __iter__(self) -> Iterator[Any]:
        stream, size = self.stream, self.dataset.batch_size or 1
        walk = stream.begin()
        # Workers begin anew each epoch: they are made of the stream as it stands.
        batches = DataLoader(self.dataset, batch_size=None, num_workers=self._workers, **self._options)
        for found in batches:
            if self._workers:
                batch, bad, kept = found
                if isinstance(batch, AesamplerError):
                    raise batch
                stream.bad.update(bad)
                stream.kept += kept
            else:
                batch = found
            stream.count(walk, min(size, stream.left))
            yield batch
        stream.require(walk)
        stream.finish()

    def state_dict(self) -> dict[str, Any]:
        """The state of the stream: what was handed out."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.stream.load_state_dict(state)


class Batches(IterableDataset[Any]):
    """One worker's share of the batches of the rest of an epoch, for DataLoader with batch_size=None."""

    def __init__(self, stream: Stream, batch_size: int | None, collate: Callable[[list[Sample]], Any] | None) -> None:
        self.stream, self.batch_size, self.collate = stream, batch_size, collate

    def __iter__(self) -> Iterator[Any]:
        """Batches; of a worker each with its share of `stream.bad` and `stream.kept` that is new, and an error of ours
        as the last one: DataLoader would raise it with the worker's traceback as its text.
        """
        worker = get_worker_info()
        if worker is None:
            yield from self._batches(self.stream, 0, 1)
            return
        stream = copy(self.stream)  # of a fork, whatever a thread of the parent had in hand would never be done
        try:
            for batch in self._batches(stream, worker.id, worker.num_workers):
                bad, kept = stream.bad, stream.kept
                stream.bad, stream.kept = {}, 0
                yield batch, bad, kept
        except AesamplerError as error:
            yield error, {}, 0

    def _batches(self, stream: Stream, number: int, workers: int) -> Iterator[Any]:
        samples = stream.share(number, workers, self.batch_size or 1)
        if self.batch_size is None:
            yield from samples
            return
        while batch := list(islice(samples, self.batch_size)):
            yield batch if self.collate is None else self.collate(batch)
