"""The share of a stream that a worker of Ray Train takes: rank and world size come from its context.

After a restart with other workers the same state goes on: it does not know ranks. See `loader.py` for the batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ray.train

from aesampler.errors import CorpusError

if TYPE_CHECKING:
    from aesampler.stream.stream import Stream


def share(stream: Stream) -> Stream:
    """The stream at the same place, for this worker. Raises CorpusError outside of a worker of Ray Train."""
    try:
        context = ray.train.get_context()
        rank, world_size = context.get_world_rank(), context.get_world_size()
    except (RuntimeError, AttributeError) as error:
        raise CorpusError(
            "there is no rank here: this is no worker of Ray Train",
            where="stream.ray_train",
            do="call it in the function that a TorchTrainer runs",
        ) from error
    if rank is None or world_size is None:
        raise CorpusError("there is no rank here: this is no worker of Ray Train", where="stream.ray_train")
    return stream.ranked(rank, world_size)
