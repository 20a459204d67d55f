"""Streaming a corpus: what is handed out, states; the oracle is `Corpus`, which reads the mask PNGs."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import signal
import subprocess
import sys
import tarfile
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import corpora
import numpy as np
import pytest
from PIL import Image

from aesampler import Corpus, Folder, image, shard
from aesampler.errors import BadRecord, CorpusError
from aesampler.sample import Sample
from aesampler.stream import Stream, decoding, mix

COCO = corpora.Part(source="coco", shards=(6, 1, 4, 9), failed=(7,), bare=4)
ADE = corpora.Part(source="ade", encoding="png", shards=(3, 2, 1), bare=0, failed=(3, 4), skipped=(5,))
DAVIS = corpora.Part(source="davis", kind="clip", frames=3, shards=(4, 3), bare=1, skipped=(2,))
HELD_OUT = corpora.Part(source="davis", split="validation", kind="clip", frames=3, shards=(4,), bare=1)
SIZES = {"coco": 19, "ade": 3, "davis": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return corpora.write(tmp_path_factory.mktemp("corpus") / "tiny", (ADE, COCO, DAVIS, HELD_OUT))


@pytest.fixture(scope="module")
def corpus(folder: Folder) -> Corpus:
    return Corpus.open(folder.url)


def same(one: Sample, other: Sample, *, but: Sequence[str] = ()) -> None:
    for field in fields(Sample):
        if field.name not in but:
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            if isinstance(mine, np.ndarray):
                assert mine.dtype == theirs.dtype
                assert np.array_equal(mine, theirs), f"{one.key}: {field.name}"
            else:
                assert mine == theirs, f"{one.key}: {field.name}"


def keys(stream: Stream) -> list[str]:
    """Those of the rest of the epoch, which is read."""
    return [sample.key for sample in stream]


def dealt(corpus: Corpus, world_size: int, **options: Any) -> list[str]:
    """The keys that the ranks get, in global order."""
    ranks = [keys(corpus.stream("train", rank=rank, world_size=world_size, **options)) for rank in range(world_size)]
    assert len({len(rank) for rank in ranks}) == 1
    return [key for step in zip(*ranks, strict=True) for key in step]


# -- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_an_epoch_is_every_sample_as_it_is_stored(corpus: Corpus, threads: int) -> None:
    found = list(corpus.stream("train", threads=threads))
    assert sorted(sample.key for sample in found) == sorted(corpus.keys("train"))
    assert [sample.key for sample in found] != list(corpus.keys("train"))
    for sample in found:
        same(sample, corpus[sample.key])
    assert [sample.key for sample in found] == list(corpus.stream("train").keys())


def test_files_undecoded(corpus: Corpus) -> None:
    stream = corpus.stream("train")
    found = list(itertools.islice(stream.members(), 11))
    assert [key for key, _ in found] == list(corpus.stream("train").keys())[:11]
    assert all(members == corpus.members(corpus.row(key)) for key, members in found)
    assert stream.consumed == 11
    assert keys(stream) == list(corpus.stream("train").keys())[11:]


def test_blocks_are_the_samples_as_they_lie_in_the_tars(corpus: Corpus) -> None:
    """One after another they are a tar, which a strict reader takes."""
    stream = corpus.stream("train")
    found = list(itertools.islice(stream.blocks(), 11))
    assert stream.consumed == 11
    assert [key for key, _ in found] == list(corpus.stream("train").keys())[:11]
    whole = b"".join([data for _, data in found] + [bytes(1024)])
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        assert list(dict.fromkeys(entry.name.partition(".")[0] for entry in tar)) == [key for key, _ in found]
    for key, data in found:
        assert shard.read_block(data) == (key, corpus.members(corpus.row(key)))
    assert keys(stream) == list(corpus.stream("train").keys())[11:]


def test_unshuffled_is_the_order_of_the_corpus(corpus: Corpus) -> None:
    assert keys(corpus.stream("train", shuffle=False)) == list(corpus.keys("train"))
    assert keys(corpus.stream("train", shuffle=False, epoch=3, window=1)) == list(corpus.keys("train"))


def test_epochs_follow_each_other(corpus: Corpus) -> None:
    stream = corpus.stream("train", epoch=2)
    two, three = keys(stream), keys(stream)
    assert stream.epoch == 4
    assert two != three
    assert keys(corpus.stream("train", epoch=3)) == three
    stream.set_epoch(2)
    assert keys(stream) == two
    assert keys(corpus.stream("train", epoch=2, seed=1)) != two


@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("last", ["drop", "pad"])
def test_ranks_share_the_order(corpus: Corpus, world_size: int, last: str) -> None:
    whole = keys(corpus.stream("train"))
    found = dealt(corpus, world_size, last=last, threads=world_size % 3)
    if last == "drop":
        assert found == whole[: len(whole) // world_size * world_size]
    else:
        assert found == whole + whole[: -len(whole) % world_size]
        marked = [
            sample.duplicate
            for rank in range(world_size)
            for sample in corpus.stream("train", rank=rank, world_size=world_size, last="pad")
        ]
        assert sum(marked) == -len(whole) % world_size
    assert len(corpus.stream("train", world_size=world_size, last=last)) == len(found) // world_size


def test_fewer_samples_than_ranks(corpus: Corpus) -> None:
    assert dealt(corpus, 40) == []
    padded = dealt(corpus, 40, last="pad")
    assert len(padded) == 40
    assert set(padded) == set(corpus.keys("train"))


def test_group_by_kind(corpus: Corpus) -> None:
    ranks = [list(corpus.stream("train", rank=rank, world_size=3, group_by="kind", last="pad")) for rank in range(3)]
    for step in zip(*ranks, strict=True):
        assert len({sample.frames.shape for sample in step}) == 1
    found = [sample.key for rank in ranks for sample in rank if not sample.duplicate]
    assert sorted(found) == sorted(corpus.keys("train"))


def test_smaller_pictures(corpus: Corpus, tmp_path: Path) -> None:
    for sample in corpus.stream("train", resize=16):
        whole = corpus[sample.key]
        assert sample.frames.shape == (len(whole.frames), 12, 16, 3)
        assert np.array_equal(sample.masks, whole.masks[:, 1::2, 1::2])
        assert np.array_equal(sample.ignored, whole.ignored[:, 1::2, 1::2])
        assert np.array_equal(sample.frame_labels, whole.frame_labels)
        smaller = np.asarray(Image.fromarray(whole.frames[0]).resize((16, 12), Image.Resampling.BOX))
        assert np.abs(smaller.astype(int) - sample.frames[0]).mean() < 25
    assert {sample.masks.shape[1:] for sample in corpus.stream("train", resize=(7, 50))} == {(7, 50)}
    for sample in corpus.stream("train", resize=32):
        same(sample, corpus[sample.key])


# -- weights ----------------------------------------------------------------------------------------------------------


def test_weights_and_cursors_over_epochs(corpus: Corpus) -> None:
    options = {"weights": {"coco": 0.5, "ade": 0.3, "davis": 0.2}, "epoch_samples": 10}
    counts: Counter[str] = Counter()
    for epoch in range(12):
        found = list(corpus.stream("train", epoch=epoch, **options))
        assert Counter(sample.source for sample in found) == {"coco": 5, "ade": 3, "davis": 2}
        counts.update(sample.key for sample in found)
        if epoch == 0:
            assert {key for key in counts if key.startswith("ade")} == set(corpus.keys("train", "ade"))
    assert {counts[key] for key in corpus.keys("train", "coco")} == {3, 4}  # 60 of 19
    assert {counts[key] for key in corpus.keys("train", "ade")} == {12}
    assert {counts[key] for key in corpus.keys("train", "davis")} == {4}
    assert len(corpus.stream("train", weights=options["weights"])) == 28
    some = keys(corpus.stream("train", weights={"coco": 1, "ade": 0, "davis": 0}))
    assert len(some) == 28
    assert all(key.startswith("coco") for key in some)
    assert len(keys(corpus.stream("train", epoch_samples=5))) == 5


def test_several_corpora(corpus: Corpus, tmp_path: Path) -> None:
    def renamed(name: str) -> Corpus:
        other = corpora.write(tmp_path / name, (corpora.Part(source="coco", shards=(3, 3)),))
        body = json.loads(other.read("corpus.json"))
        other.commit_bytes("corpus.json", json.dumps(body | {"name": name}).encode())
        return Corpus.open(other)

    other = renamed("second")
    stream = mix([corpus, other], "train", seed=5)
    assert len(stream) == 28 + 6
    assert sorted(keys(stream)) == sorted([*corpus.keys("train"), *other.keys("train")])
    weights = {"tiny/coco": 1, "second/coco": 3, "ade": 0, "davis": 0}
    assert len(list(mix([corpus, other], "train", weights=weights, epoch_samples=8))) == 8
    with pytest.raises(CorpusError, match="allowed: ade, tiny/coco, davis, second/coco"):
        mix([corpus, other], "train", weights={"coco": 1, "ade": 0, "davis": 0})
    with pytest.raises(CorpusError, match="need different names"):
        mix([corpus, corpus], "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"weights": {"coco": 1}},
            "weights name every source, and no other; 0 leaves one out; got coco; allowed: ade, c",
        ),
        ({"weights": {"coco": 1, "ade": -1, "davis": 1}}, "weights.ade: a weight is not a share; got -1.0"),
        ({"weights": {"coco": 0, "ade": 0, "davis": 0}}, "every weight is 0"),
        ({"weights": "recipe"}, "the recipe gives this source no weight; got ade"),
        ({"weights": "equal"}, "a mapping, or 'recipe'"),
        ({"rank": 2, "world_size": 2}, "rank: a stream cannot be so; got 2; allowed: 0 to 1"),
        ({"window": 0}, "window: a stream cannot be so"),
        ({"last": "keep"}, "last: a stream cannot be so; got 'keep'; allowed: drop, pad"),
        ({"resize": (0, 5)}, "resize: a stream cannot be so"),
        ({"resize": 0}, "resize: a stream cannot be so"),
        ({"resample": {"anomaly_probabilty": 1.0}}, "resample.anomaly_probabilty: Extra inputs"),
        ({"resample": {"similarity": {"model": "a", "pretrained": "b", "reject_above": 0.5}}}, "measured in the build"),
    ],
)
def test_what_a_stream_cannot_be(corpus: Corpus, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CorpusError) as caught:
        corpus.stream("train", **options)
    assert message in str(caught.value)
    with pytest.raises(CorpusError, match="no such split; got test; allowed: train, validation"):
        corpus.stream("test")


# -- states -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": {"coco": 0.5, "ade": 0.3, "davis": 0.2}, "epoch_samples": 61},
        {"group_by": "kind", "last": "pad"},
        {"shuffle": False},
    ],
)
def test_stopped_and_resumed_fifty_times(corpus: Corpus, options: dict[str, Any]) -> None:
    """At another world size, number of threads and step each time, through JSON, with samples still in flight."""
    random = np.random.default_rng(3)
    state: dict[str, Any] | None = None
    found: dict[int, list[str]] = {}
    for stop in range(50):
        world_size = int(random.integers(1, 5)) if stop < 49 else 1
        steps = int(random.integers(0, 5))
        states, ranks = [], []
        for rank in range(world_size):
            stream = corpus.stream(
                "train", rank=rank, world_size=world_size, threads=int(random.integers(0, 3)), **options
            )
            if state is not None:
                stream.load_state_dict(json.loads(json.dumps(state)))
            epoch = stream.epoch
            if world_size == 1:  # to the end of the epoch
                ranks.append(keys(stream))
            else:
                got = []
                for sample in itertools.islice(stream, min(steps, stream.left)):
                    if not sample.duplicate:
                        got.append(sample.key)
                ranks.append(got)
            states.append(stream.state_dict())
        assert all(each == states[0] for each in states)
        state = states[0]
        together = [key for step in itertools.zip_longest(*ranks) for key in step if key is not None]
        found.setdefault(epoch, []).extend(together)
    assert len(found) > 5
    assert found == {
        epoch: keys(corpus.stream("train", epoch=epoch, **options)) if "group_by" not in options else found[epoch]
        for epoch in found
    }
    if "group_by" in options:
        assert all(sorted(each) == sorted(corpus.keys("train")) for each in found.values())


def test_a_state_counts_what_was_handed_out(corpus: Corpus) -> None:
    stream = corpus.stream("train", world_size=2, rank=1, threads=4)
    assert stream.state_dict()["consumed"] == [0]
    for step, _ in enumerate(stream, start=1):
        state = stream.state_dict()
        assert state["consumed"] == [2 * step]
        assert len(json.dumps(state)) < 400
    assert stream.state_dict()["epoch"] == 1
    again = pickle.loads(pickle.dumps(stream))
    assert again.state_dict() == stream.state_dict()
    assert keys(again) == keys(stream)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"seed": 1}, "its seed differ; got 0; allowed: 1"),
        ({"weights": {"coco": 1, "ade": 1, "davis": 1}}, "its weights differ; got None"),
        ({"window": 9}, "its shuffle differ"),
        ({"shuffle": False}, "its shuffle differ"),
        ({"epoch_samples": 9}, "its epoch_samples differ"),
        ({"group_by": "kind"}, "its group_by differ"),
    ],
)
def test_states_of_other_streams_are_refused(corpus: Corpus, options: dict[str, Any], what: str) -> None:
    state = corpus.stream("train").state_dict()
    with pytest.raises(CorpusError) as caught:
        corpus.stream("train", **options).load_state_dict(state)
    assert what in str(caught.value)


def test_states_of_other_corpora_and_damaged_ones_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    stream = corpus.stream("train")
    state = stream.state_dict()
    other = Corpus.open(corpora.write(tmp_path / "other", (COCO, DAVIS)))
    with pytest.raises(CorpusError, match=r"its corpora differ; got .*; allowed: .*; give the corpora"):
        other.stream("train").load_state_dict(state)
    for broken in ({}, {"version": 2}, None):
        with pytest.raises(CorpusError, match="no state of a stream"):
            stream.load_state_dict(broken)  # type: ignore[arg-type]
    for change in ({"consumed": [999]}, {"consumed": [1, 2]}, {"epoch": "x"}, {"turn": [4, 0]}, {"epoch": -1}):
        with pytest.raises(CorpusError, match="damaged"):
            stream.load_state_dict(state | change)
    stream.load_state_dict(state)


CHILD = """
    import json, sys, time
    from aesampler import Corpus
    url, rank, world_size, state, epochs = sys.argv[1:]
    stream = Corpus.open(url).stream("train", rank=int(rank), world_size=int(world_size), last="pad", threads=2)
    if json.loads(state):
        stream.load_state_dict(json.loads(state))
    print("ready", flush=True)
    sys.stdin.readline()
    while stream.epoch < int(epochs):
        for sample in stream:
            print(json.dumps([sample.key, sample.duplicate, stream.state_dict()]), flush=True)
            sys.stdin.readline()
"""


@pytest.mark.long
def test_killed_processes_lose_and_repeat_nothing(folder: Folder, corpus: Corpus) -> None:
    """Each trial is a world of processes in lockstep, killed without warning at some step."""
    random = np.random.default_rng(1)
    state: dict[str, Any] = {}
    found: dict[int, list[str]] = {}
    for _ in range(6):
        world_size = int(random.integers(1, 4))
        ranks = [
            subprocess.Popen(
                [
                    *(sys.executable, "-c", textwrap.dedent(CHILD), folder.url, str(rank), str(world_size)),
                    *(json.dumps(state), "9"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world_size)
        ]
        try:
            for child in ranks:
                assert child.stdout is not None
                assert child.stdout.readline() == "ready\n"
            for _ in range(int(random.integers(1, 12))):
                step = []
                for child in ranks:
                    assert child.stdin is not None
                    assert child.stdout is not None
                    child.stdin.write("\n")
                    child.stdin.flush()
                    step.append(json.loads(child.stdout.readline()))
                assert all(each[2] == step[0][2] for each in step)
                state = step[0][2]
                found.setdefault(state["epoch"], []).extend(key for key, duplicate, _ in step if not duplicate)
        finally:
            for child in ranks:
                child.send_signal(signal.SIGKILL)
                child.communicate()
    stream = corpus.stream("train", last="pad")
    stream.load_state_dict(state)
    found[stream.epoch] += keys(stream)
    assert found == {epoch: keys(corpus.stream("train", epoch=epoch)) for epoch in found}


# -- decoders ---------------------------------------------------------------------------------------------------------


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, "JPEG", **options)
    return sink.getvalue()


def assert_as_pillow(data: bytes) -> None:
    decoded = decoding._decoded(data)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, image.decode(data))


def test_the_fast_decoder_gives_pillows_pixels() -> None:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (9, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((131, 77), Image.Resampling.BICUBIC)
    for options in ({}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}):
        assert_as_pillow(jpeg(picture, **options))
        assert_as_pillow(jpeg(picture.convert("L"), **{"quality": 80} | options))
        assert_as_pillow(jpeg(picture.convert("CMYK"), **options))
    whole = jpeg(picture)
    assert_as_pillow(whole[:-2] + b"\0\0\0\0\xff\xd9")
    for broken in (whole[: len(whole) // 2], whole[:100], b"\xff\xd8"):
        with pytest.raises(BadRecord, match="an image cannot be read"):
            decoding._decoded(broken)


def test_the_fast_decoder_gives_pillows_pixels_of_real_pictures(real_data: Path) -> None:
    pictures = [*sorted((real_data / "coco").rglob("*.jpg"))[:40], *sorted((real_data / "DAVIS").rglob("*.jpg"))[:5]]
    assert pictures
    for path in pictures:
        assert_as_pillow(path.read_bytes())


def test_without_the_fast_decoder(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = {sample.key: sample for sample in corpus.stream("train")}
    monkeypatch.setattr(decoding, "simplejpeg", None)
    for sample in corpus.stream("train"):
        same(sample, fast[sample.key])


@pytest.mark.parametrize(
    ("height", "width", "size", "decoded"),
    [
        (427, 640, (214, 320), (214, 320)),
        (427, 640, (215, 320), (427, 640)),
        (480, 640, (60, 80), (60, 80)),
        (480, 640, (61, 80), (120, 160)),
        (9, 7, (1, 1), (3, 2)),
        (480, 640, (960, 1280), (480, 640)),
    ],
)
def test_no_more_of_a_jpeg_is_decoded_than_is_needed(
    height: int, width: int, size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    data = jpeg(Image.new("RGB", (width, height), (10, 200, 30)))
    assert image.load(data, at_least=size).size == decoded[::-1]
    assert image.decode(data, size).shape == (*size, 3)


def test_the_weights_of_the_recipe(tmp_path: Path) -> None:
    folder = corpora.write(tmp_path / "tiny", (ADE, COCO, HELD_OUT))
    body = json.loads(folder.read("corpus.json"))
    for entry, weight in zip(body["recipe"]["sources"], (0.25, 0.75, 9.0), strict=True):
        entry["weight"] = weight
    folder.commit_bytes("corpus.json", json.dumps(body).encode())
    found = Corpus.open(folder).stream("train", weights="recipe", epoch_samples=8)
    assert Counter(sample.source for sample in found) == {"ade": 2, "coco": 6}
    assert found.state_dict()["stream"]["weights"] == [0.25, 0.75]


def test_one_iterator_at_a_time_moves_the_state(corpus: Corpus) -> None:
    stream = corpus.stream("train")
    state = stream.state_dict()
    first, second = iter(stream), iter(stream)
    next(first)
    next(second)
    with pytest.raises(CorpusError, match=r"^<Stream of .*: this iterator is of before: .*; use one iterator"):
        next(first)
    assert stream.consumed == 2
    batches = iter(stream.torch(2))
    next(batches)
    with pytest.raises(CorpusError, match="of before"):
        next(second)
    stream.load_state_dict(state)
    with pytest.raises(CorpusError, match="of before"):
        next(batches)
    assert stream.state_dict() == state


def test_steps_that_others_have_read_are_gone_past(corpus: Corpus) -> None:
    whole = keys(corpus.stream("train"))
    stream = corpus.stream("train")
    before = iter(stream)
    next(before)
    stream.advance(4)
    with pytest.raises(CorpusError, match="of before"):
        next(before)
    assert stream.consumed == 5
    assert keys(stream) == whole[5:]
    for steps in (-1, len(whole) + 1):
        with pytest.raises(ValueError, match=f"between 0 and {len(whole)}, got {steps}"):
            stream.advance(steps)
