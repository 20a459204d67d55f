"""Streams in other loaders: the order of the plain stream, its samples, its states.

Ray runs in processes of its own, see apart.py.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pytest
from apart import apart
from test_stream import COCO, DAVIS

from aesampler import Corpus, Folder
from aesampler.errors import CorpusError, MissingExtra
from aesampler.sample import Sample

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return corpora.write(tmp_path_factory.mktemp("corpus") / "tiny", (COCO, DAVIS))


@pytest.fixture(scope="module")
def corpus(folder: Folder) -> Corpus:
    return Corpus.open(folder)


PLAIN = (
    *("key", "source", "split", "origin", "origin_frames", "valid_frames", "anomalous", "categories", "is_genuine"),
    *("presence", "duplicate"),
)


def plain(value: Any) -> Any:
    """Lists for whatever holds several."""
    return list(value) if isinstance(value, tuple | list | np.ndarray) else value


def told(sample: Sample, row: dict[str, Any], frames: Sequence[Any], masks: Sequence[Any]) -> None:
    """A row of another loader is the sample."""
    assert set(row) == {*PLAIN, "frames", "masks", "ignored", "frame_labels"}
    for name in PLAIN:
        assert plain(row[name]) == plain(getattr(sample, name)), name
    assert list(row["frame_labels"]) == sample.frame_labels.tolist()
    assert np.array_equal(np.stack([np.asarray(frame) for frame in frames]), sample.frames)
    assert np.array_equal(np.stack([np.asarray(mask) for mask in masks]) > 0, sample.masks)


# -- Hugging Face -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"rank": 1, "world_size": 2, "last": "pad"}, {"resample": True, "epoch": 2}])
def test_hugging_face_gives_the_stream(corpus: Corpus, options: dict[str, Any]) -> None:
    stream = corpus.stream("train", **options)
    made = stream.hugging_face()
    assert isinstance(made, datasets.IterableDataset)
    rows = list(made)
    samples = list(corpus.stream("train", **options))
    assert len(rows) == len(samples)
    for sample, row in zip(samples, rows, strict=True):
        told(sample, row, row["frames"], row["masks"])
        assert np.array_equal(np.stack([np.asarray(plane) for plane in row["ignored"]]) == 255, sample.ignored)
    assert stream.consumed == 0, "the stream itself does not move"


def test_its_features_are_true(corpus: Corpus) -> None:
    """What features say of a decoded example is what comes: encoding and decoding by them changes nothing."""
    made = corpus.stream("train").hugging_face()
    assert made.split == "train"
    for row in islice(made, 5):
        again = made.features.decode_example(made.features.encode_example(row))
        assert {name: again[name] for name in PLAIN} == {name: row[name] for name in PLAIN}
        assert again["frame_labels"] == row["frame_labels"]
        assert [np.asarray(mask).tolist() for mask in again["masks"]] == [
            np.asarray(mask).tolist() for mask in row["masks"]
        ]
    batch = next(made.with_format("numpy").iter(batch_size=3))
    for sample, frames in zip(corpus.stream("train"), batch["frames"], strict=False):
        assert np.array_equal(np.stack(frames), sample.frames)
    mapped = made.map(lambda row: {"name": row["categories"][0]}, remove_columns=["frames", "masks", "ignored"])
    assert next(iter(mapped))["name"] == next(iter(made))["categories"][0]


@pytest.mark.parametrize("taken", [0, 1, 7, 24, 25])
def test_it_goes_on_from_a_state(corpus: Corpus, taken: int) -> None:
    whole = [sample.key for sample in corpus.stream("train", epoch=1)]
    assert len(whole) == 25
    first = corpus.stream("train").hugging_face()
    first.set_epoch(1)
    begun = [row["key"] for row in islice(first, taken)]
    state = json.loads(json.dumps(first.state_dict()))
    again = corpus.stream("train").hugging_face()
    again.set_epoch(1)
    again.load_state_dict(state)
    assert begun + [row["key"] for row in again] == whole
    again.set_epoch(2)
    assert [row["key"] for row in again] == [sample.key for sample in corpus.stream("train", epoch=2)]


def test_a_state_at_another_number_of_ranks(corpus: Corpus) -> None:
    whole = [sample.key for sample in corpus.stream("train")]
    made = corpus.stream("train", rank=0, world_size=2).hugging_face()
    list(islice(made, 4))
    ranks = []
    for rank in range(3):
        again = corpus.stream("train", rank=rank, world_size=3, last="pad").hugging_face()
        again.load_state_dict(made.state_dict())
        ranks.append([row["key"] for row in again if not row["duplicate"]])
    assert sorted(key for rank in ranks for key in rank) == sorted(whole[8:])
    assert [keys[0] for keys in ranks] == whole[8:11]


def test_a_state_of_another_stream_is_refused(corpus: Corpus) -> None:
    made = corpus.stream("train").hugging_face()
    list(islice(made, 3))
    state = made.state_dict()
    other = corpus.stream("train", seed=1).hugging_face()
    other.load_state_dict(state)
    with pytest.raises(CorpusError, match="the state is of another stream: its seed differ"):
        list(other)
    later = corpus.stream("train", epoch=1).hugging_face()
    later.load_state_dict(state)
    with pytest.raises(CorpusError, match="the state is of another epoch; got 0; allowed: 1"):
        list(later)


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_in_a_data_loader(corpus: Corpus, workers: int) -> None:
    from torch.utils.data import DataLoader

    made = corpus.stream("train").hugging_face().select_columns(["key", "categories"])
    loader: Any = DataLoader(made, batch_size=4, num_workers=workers, collate_fn=lambda rows: rows)
    keys = [row["key"] for rows in loader for row in rows]
    assert keys == [sample.key for sample in corpus.stream("train")]
    assert [row["key"] for row in pickle.loads(pickle.dumps(made))] == keys


def test_an_old_version_is_refused(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "__version__", "4.9.0")
    with pytest.raises(MissingExtra, match=r"datasets 5\.2 or later.*pip install 'aesampler\[hf\]'"):
        corpus.stream("train").hugging_face()


# -- Ray --------------------------------------------------------------------------------------------------------------


CASES: tuple[tuple[int, dict[str, Any], int], ...] = (
    (3, {}, 0),
    (40, {"resample": True, "epoch": 1}, 4),
    (1, {"group_by": "kind"}, 5),
)
"""Blocks that are asked for, options of the stream, steps that it has gone."""


def by_ray_data(url: str) -> list[list[dict[str, Any]]]:
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    found = []
    for blocks, options, steps in CASES:
        stream = Corpus.open(url).stream("train", **options)
        stream.advance(steps)
        found.append(list(stream.ray_data(override_num_blocks=blocks).iter_rows()))
        assert stream.consumed == steps
    return found


@pytest.mark.long
def test_ray_data_gives_the_stream(corpus: Corpus) -> None:
    for (_, options, steps), rows in zip(CASES, apart(by_ray_data, corpus.folder.url), strict=True):
        samples = list(corpus.stream("train", **options))[steps:]
        assert len(rows) == len(samples)
        for sample, row in zip(samples, rows, strict=True):
            told(sample, row, row["frames"], row["masks"])
            assert row["masks"].dtype == np.bool_


def by_ray_train(url: str, out: str) -> None:
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    def each_worker(config: dict[str, Any]) -> None:  # in here, it travels as itself
        """An epoch of batches, left and taken up again; what was seen goes to a file a rank."""
        import ray.train

        seen = []
        loader = Corpus.open(config["url"]).stream("train", last="pad").ray_train(3)
        for batch in islice(loader, 2):
            seen += [None if sample.duplicate else sample.key for sample in batch]
        again = Corpus.open(config["url"]).stream("train", last="pad")
        again.load_state_dict(loader.state_dict())
        for batch in again.ray_train(2, collate=lambda samples: samples):
            seen += [None if sample.duplicate else sample.key for sample in batch]
        rank = ray.train.get_context().get_world_rank()
        Path(config["out"], f"{rank}.json").write_text(json.dumps(seen), encoding="utf-8")

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    TorchTrainer(
        each_worker,
        train_loop_config={"url": url, "out": out},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(name="bridge", storage_path=out),
    ).fit()


@pytest.mark.long
def test_workers_of_ray_train_share_the_stream(corpus: Corpus, tmp_path: Path) -> None:
    apart(by_ray_train, corpus.folder.url, str(tmp_path))
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    found = [key for step in zip(*ranks, strict=True) for key in step if key]
    assert found == [sample.key for sample in corpus.stream("train")]


def test_outside_of_a_worker_there_is_no_rank(corpus: Corpus) -> None:
    with pytest.raises(CorpusError, match=r"stream.ray_train: there is no rank here: this is no worker of Ray Train"):
        corpus.stream("train").ray_train()
