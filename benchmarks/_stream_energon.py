"""Megatron-Energon for stream.py: a file of its own, because its workers send instances of a class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    Sample,
    SampleDecoder,
    WorkerConfig,
    basic_sample_keys,
    edataclass,
    get_loader,
    get_train_dataset,
    stateless,
)


@edataclass
class Files(Sample):  # type: ignore[misc]
    """The members of a sample by extension, bytes or decoded."""

    files: dict[str, Any]


@stateless
def cook(sample: dict[str, Any]) -> Files:
    return Files(**basic_sample_keys(sample), files=sample)


class Decoded(DefaultTaskEncoder):  # type: ignore[misc]
    """Pictures as uint8 [H, W, 3]."""

    decoder = SampleDecoder(image_decode="rgb8")
    cookers = [Cooker(cook)]  # noqa: RUF012 (as its manual has it)


class Raw(DefaultTaskEncoder):  # type: ignore[misc]
    """Everything as bytes."""

    decoder = None
    cookers = [Cooker(cook)]  # noqa: RUF012


def loader(path: str, *, raw: bool, workers: int) -> Iterable[object]:
    """One shuffled epoch of a prepared folder."""
    made = get_train_dataset(
        path,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        batch_size=None,
        shuffle_buffer_size=1000,
        max_samples_per_sequence=100,
        task_encoder=Raw() if raw else Decoded(),
        repeat=False,
    )
    found: Iterable[object] = get_loader(made)
    return found
