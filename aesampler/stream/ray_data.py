"""A stream as a Ray dataset: with ray_train.py the only files of the stream that import ray.

The rest of the stream's epoch is cut into stretches of steps, one a read task; a task opens the corpora where it runs,
takes its stretch and gives blocks of at most `BLOCK_BYTES`. In the order of its blocks the dataset is in the order of
the stream, and Ray keeps it where it is told to:

    ray.data.DataContext.get_current().execution_options.preserve_order = True

Ray Data decodes on all machines of a cluster and moves pixels; a stream in each training process (`ray_train.py`)
moves none. It is for jobs over a corpus, and for trainers that want their data from Ray.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import ray.data
from ray.data.block import Block, BlockAccessor, BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from aesampler.sample import Sample

if TYPE_CHECKING:
    from aesampler.stream.stream import Stream

RayData: TypeAlias = ray.data.Dataset

BLOCK_BYTES = 32 << 20
"""Pixels of a block. Ray plans with blocks of at most 128 MB."""

COLUMNS = (
    *("key", "source", "split", "origin", "origin_frames", "valid_frames", "anomalous", "categories", "is_genuine"),
    *("presence", "frames", "masks", "ignored", "frame_labels", "duplicate"),
)
"""Fields of a Sample that are columns."""


def dataset(stream: Stream, **options: Any) -> RayData:
    """The rest of the stream's epoch; the stream does not move. options: those of `ray.data.read_datasource`."""
    made: RayData = ray.data.read_datasource(StreamDatasource(stream), **options)
    return made


class StreamDatasource(Datasource):
    """The rest of a stream's epoch, in stretches of steps."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stream = stream

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: the manifests know the sizes of the frames, and are not read for it."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """At most `parallelism` tasks; none is empty."""
        steps = self._stream.left
        bounds = sorted({steps * place // max(parallelism, 1) for place in range(max(parallelism, 1) + 1)})
        tasks = []
        for first, last in pairwise(bounds):
            count = last - first if per_task_row_limit is None else min(last - first, per_task_row_limit)
            about = BlockMetadata(num_rows=count, size_bytes=None, input_files=None, exec_stats=None)
            tasks.append(ReadTask(partial(blocks, self._stream, first, count), about))
        return tasks


def blocks(stream: Stream, first: int, count: int) -> Iterator[Block]:
    """Blocks of `count` samples of a stream's rest, from the one after `first` steps on."""
    stream = copy.copy(stream)
    stream.advance(first)
    held: list[Sample] = []
    weight = 0
    for sample in islice(stream, count):
        held.append(sample)
        weight += sample.frames.nbytes + sample.masks.nbytes + sample.ignored.nbytes
        if weight >= BLOCK_BYTES:
            yield _block(held)
            held, weight = [], 0
    if held:
        yield _block(held)


def _block(samples: list[Sample]) -> Block:
    return BlockAccessor.batch_to_block({name: _column([getattr(each, name) for each in samples]) for name in COLUMNS})


def _column(values: list[Any]) -> Any:
    """Arrays as Ray wants them: stacked where their shapes are the same, else an array of arrays."""
    if not isinstance(values[0], np.ndarray):
        return [list(value) if isinstance(value, tuple) else value for value in values]
    if len({value.shape for value in values}) == 1:
        return np.stack(values)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
