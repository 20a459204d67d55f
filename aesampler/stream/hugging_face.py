"""A stream as a `datasets.IterableDataset`, resumable at any example; the only importer of datasets
here.

`state_dict` of the dataset holds the stream's own state, so going on from it costs nothing and works on another number
of ranks; `IterableDataset.from_generator` would decode again all that had been handed out. It is a leaf of the state,
as JSON, because datasets merges dictionaries by their keys.

The dataset has one shard: in a DataLoader worker 0 does all the work and the order stays that of the stream, whose
threads decode; `stream.torch()` is for several processes. `set_epoch(e)` goes to the e-th epoch after the stream's.
Rank and world size are those of the stream: `split_dataset_by_node` has nothing to split. The stream itself does not
move.

What is implemented is datasets' own interface for sources, which it does not promise to keep: hence `OLDEST`, and a
test of each property with the pinned version.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import datasets
import numpy as np
import numpy.typing as npt
from datasets import Features, Image, List, Value
from datasets.iterable_dataset import _BaseExamplesIterable
from PIL import Image as Pictures

from aesampler.errors import CorpusError, MissingExtra
from aesampler.sample import Sample

if TYPE_CHECKING:
    from aesampler.stream.stream import Stream

HuggingFace: TypeAlias = datasets.IterableDataset

OLDEST = (5, 2)
"""The oldest datasets that moves a source on by the epoch."""

FEATURES = Features(
    {
        "key": Value("string"),
        "source": Value("string"),
        "split": Value("string"),
        "origin": Value("string"),
        "origin_frames": List(Value("string")),
        "valid_frames": Value("int32"),
        "anomalous": Value("bool"),
        "categories": List(Value("string")),
        "is_genuine": List(Value("bool")),
        "presence": List(Value("string")),
        "frames": List(Image()),
        "masks": List(Image()),
        "ignored": List(Image()),
        "frame_labels": List(Value("uint8")),
        "duplicate": Value("bool"),
    }
)
"""A sample as an example: frames RGB, masks and ignored grey, 0 or 255, one picture a frame."""


def dataset(stream: Stream) -> HuggingFace:
    """The rest of the stream's epoch. Raises MissingExtra where datasets is too old."""
    if tuple(map(int, datasets.__version__.split(".")[:2])) < OLDEST:
        raise MissingExtra.of(f"datasets {'.'.join(map(str, OLDEST))} or later", "hf")
    return HuggingFace(
        _Examples(stream, 0), info=datasets.DatasetInfo(features=FEATURES), split=datasets.NamedSplit(stream.split)
    )


class _Examples(_BaseExamplesIterable):  # type: ignore[misc]
    """The examples of one epoch, `later` epochs after that of the stream."""

    def __init__(self, stream: Stream, later: int) -> None:
        super().__init__()
        self._stream, self._later = stream, later
        self._sleep_on_threads_shutdown = False

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict: dict[str, Any] = {"stream": "", "type": type(self).__name__}
        return self._state_dict

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        stream = copy.copy(self._stream)
        epoch = stream.epoch + self._later
        if self._later:
            stream.set_epoch(epoch)
        kept = self._state_dict
        if kept and kept["stream"]:
            stream.load_state_dict(json.loads(kept["stream"]))
        if stream.epoch != epoch:
            raise CorpusError(
                "the state is of another epoch",
                got=stream.epoch,
                allowed=epoch,
                do="call set_epoch, or make the dataset of a stream at the epoch of the run that is to be resumed",
            )
        for sample in stream:
            if kept:
                kept["stream"] = json.dumps(stream.state_dict())
            yield sample.key, example(sample)

    @property
    def is_typed(self) -> bool:
        """Whether examples are as FEATURES decode them."""
        return True

    @property
    def features(self) -> Features:
        """FEATURES."""
        return FEATURES

    @property
    def num_shards(self) -> int:
        """One."""
        return 1

    def shift_rngs(self, value: int) -> _Examples:
        """The examples of a later epoch: datasets calls it with its own number of the epoch."""
        return _Examples(self._stream, self._later + value)

    def shuffle_data_sources(self, generator: np.random.Generator) -> _Examples:
        """These: the order is the stream's."""
        return self

    def shard_data_sources(self, num_shards: int, index: int, contiguous: bool = True) -> _Examples:
        """These: there is one shard."""
        return self

    def reshard_data_sources(self) -> _Examples:
        """These."""
        return self


def example(sample: Sample) -> dict[str, Any]:
    """A sample as FEATURES have it, pictures as PIL images."""
    planes: dict[str, npt.NDArray[np.bool_]] = {"masks": sample.masks, "ignored": sample.ignored}
    plain = {name: getattr(sample, name) for name in FEATURES if name not in ("frames", "frame_labels", *planes)}
    return {
        **{name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()},
        "frames": [Pictures.fromarray(frame) for frame in sample.frames],
        **{name: [Pictures.fromarray(plane.astype(np.uint8) * 255) for plane in of] for name, of in planes.items()},
        "frame_labels": sample.frame_labels.tolist(),
    }
