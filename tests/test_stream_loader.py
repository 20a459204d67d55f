"""torch's DataLoader over a stream: the order of the stream at any number of workers, states at any batch."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import corpora
import pytest
from test_stream import COCO, DAVIS, same
from test_stream_faults import tampered

from aesampler import Corpus
from aesampler.sample import Sample

pytestmark = pytest.mark.filterwarnings(
    # Python 3.12 warns of any fork beside threads.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpora.write(tmp_path_factory.mktemp("corpus") / "tiny", (COCO, DAVIS)))


def names(batch: list[Sample]) -> list[str]:
    return [sample.key for sample in batch]


@pytest.mark.parametrize("workers", range(5))
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_the_order_is_that_of_the_stream(corpus: Corpus, workers: int, batch_size: int | None) -> None:
    options: dict[str, Any] = {"rank": 1, "world_size": 2, "epoch": 1}
    expected = [sample.key for sample in corpus.stream("train", **options)]
    stream = corpus.stream("train", **options)
    loader = stream.torch(batch_size, num_workers=workers)
    found = list(loader)
    assert len(loader) == len(found)
    if batch_size is None:
        for sample in found:
            same(sample, corpus[sample.key])
        found = [[sample] for sample in found]
    assert [key for batch in found for key in names(batch)] == expected
    assert {len(batch) for batch in found[:-1]} == {batch_size or 1}
    assert stream.epoch == 2


def test_resumed_at_other_numbers_of_workers_and_ranks(corpus: Corpus) -> None:
    whole = {epoch: [sample.key for sample in corpus.stream("train", epoch=epoch, last="pad")] for epoch in range(2)}
    state: dict[str, Any] | None = None
    found: list[str] = []
    for world_size, workers, batches in [(2, 2, 2), (3, 0, 1), (1, 1, 2), (2, 3, 10)]:
        ranks, states = [], []
        for rank in range(world_size):
            stream = corpus.stream("train", rank=rank, world_size=world_size, last="pad")
            loader = stream.torch(2, num_workers=workers, collate=lambda batch: batch)
            if state:
                loader.load_state_dict(json.loads(json.dumps(state)))
            got = [sample for batch in islice(loader, batches) for sample in batch]
            ranks.append([None if sample.duplicate else sample.key for sample in got])
            states.append(loader.state_dict())
        assert all(each == states[0] for each in states)
        state = states[0]
        found += [key for step in zip(*ranks, strict=True) for key in step if key]
    assert found == whole[0]
    assert state is not None
    assert state["epoch"] == 1


def test_collated_in_the_workers(corpus: Corpus) -> None:
    loader = corpus.stream("train", weights={"coco": 1, "davis": 0}, epoch_samples=8).torch(
        4, num_workers=1, collate=names
    )
    assert [len(batch) for batch in loader] == [4, 4]
    with pytest.raises(ValueError, match="1 sample or more"):
        corpus.stream("train").torch(0)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_workers_replaced_is_told(tmp_path: Path, workers: int) -> None:
    """`bad` and `kept` of the stream count what was handed out, whoever decoded it."""
    folder = corpora.write(tmp_path / "tiny", (COCO,))
    options: dict[str, Any] = {"tolerance": 0.2, "resample": {"absence": "strict"}, "epoch": 1}
    whole = [sample.key for sample in Corpus.open(folder).stream("train", **options)]
    for key in (whole[3], whole[9]):
        tampered(folder, key, "jpg", lambda data: data[:100])
    plain = Corpus.open(folder).stream("train", threads=0, **options)
    expected = [sample.key for sample in plain]
    assert len(plain.bad) == 2
    assert plain.kept > 0
    stream = Corpus.open(folder).stream("train", threads=0, **options)
    met = []
    found = []
    for batch in stream.torch(2, num_workers=workers):
        found += names(batch)
        met.append(len(stream.bad))
    assert found == expected
    assert met == [sum(len(found[: 2 * step + 2]) > place for place in (3, 9)) for step in range(len(met))]
    assert (stream.bad, stream.kept) == (plain.bad, plain.kept)
