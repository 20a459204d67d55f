"""A corpus as a stream of samples: in an exact order, on any number of ranks, resumable at any step.

    order.py      position -> (source, pass, shard, row); ranks, steps, groups      arithmetic, nothing is read
    reading.py    the blocks of samples, by offset, checked
    cache.py      shards of an object store on the local disk: bounded, shared
    pool.py       threads that stop when nobody wants what they make
    prefetch.py   what will be needed, fetched into the cache
    decoding.py   pixels, masks from run lengths, fresh exposures
    settings.py   what a stream is asked for
    origins.py    the sources that it is made of, with their weights
    stream.py     the Stream: samples in order, threads, state
    loader.py     batches from worker processes of torch's DataLoader               the only importer of torch
    hugging_face.py, ray_data.py, ray_train.py                                      bridges to other loaders

Threads decode ahead, not processes: the decoders release Python's lock, and moving a sample of 0.9 MB between processes
costs what its decoding on a second core saves (no loader of this field got faster by 2 processes on 2 cores; 2 threads
are 1.7 times as fast as one).

A rank takes the positions r, r + R, ... of the epoch. What is counted is what was handed out, over all ranks: rank 0's
state after its i-th sample is every rank's, and any number of ranks can go on from it. With `last="drop"` the fewer
than R samples at the end are left out; with "pad" ranks without one repeat a sample of the epoch's beginning, marked
`duplicate`. So all ranks always have equally many steps.

A sample that cannot be read is an error, or, within `tolerance`, replaced by the next one of the epoch that can,
marked `duplicate` and named in `bad`: leaving it out would leave the other ranks waiting.
"""

from __future__ import annotations

from aesampler.stream.cache import Cache
from aesampler.stream.origins import Readable
from aesampler.stream.settings import Settings
from aesampler.stream.stream import Stream, mix

__all__ = ["Cache", "Readable", "Settings", "Stream", "mix"]
