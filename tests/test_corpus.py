"""Reading a corpus back, by place and by key, from disk and from an object store; the oracle is tarfile and Pillow."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import corpora
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from aesampler import rng
from aesampler.corpus import Corpus
from aesampler.errors import CorpusError
from aesampler.sample import Sample
from aesampler.storage import Folder

PNG = corpora.Part(source="ade", encoding="png", shards=(3, 2, 1), bare=0, failed=(3, 4), skipped=(5,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return corpora.write(tmp_path_factory.mktemp("corpus") / "tiny", (*corpora.PARTS, PNG))


@pytest.fixture
def corpus(folder: Folder) -> Corpus:
    return Corpus.open(folder.url)


def tars(root: Path) -> dict[str, dict[str, bytes]]:
    """Key -> extension -> bytes, of all tars, by tarfile."""
    found: dict[str, dict[str, bytes]] = {}
    for path in [*sorted(root.glob("train/*.tar")), *sorted(root.glob("validation/*.tar"))]:
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                file = tar.extractfile(member)
                assert file is not None
                found.setdefault(key, {})[extension] = file.read()
    return found


def same(sample: Sample, members: dict[str, bytes]) -> bool:
    body = json.loads(members["json"])
    prefixes = [""] if "mask.png" in members else [f"{place:03d}." for place in range(len(sample.frames))]
    for place, prefix in enumerate(prefixes):
        ext = "png" if sample.source == "ade" else "jpg"
        picture = np.asarray(Image.open(io.BytesIO(members[prefix + ext])).convert("RGB"))
        mask = np.asarray(Image.open(io.BytesIO(members[f"{prefix}mask.png"])))
        assert np.array_equal(sample.frames[place], picture)
        assert np.array_equal(sample.masks[place], mask == 255)
        assert np.array_equal(sample.ignored[place], coco_mask.decode(body["ignored"][place]).astype(bool))
    assert sample.frame_labels.tolist() == body["frame_labels"]
    assert sample.anomalous == body["anomalous"] == bool(int(members["cls"]))
    assert (sample.key, sample.source, sample.split) == (body["key"], body["source"], body["split"])
    return list(sample.categories) == body["categories"]


def test_every_sample_by_place_and_by_key(corpus: Corpus, folder: Folder) -> None:
    stored = tars(folder.path)
    assert len(corpus) == len(stored) == 15
    assert list(corpus.keys()) == list(stored)
    for place, (key, members) in enumerate(stored.items()):
        assert corpus[place].key == corpus[key].key == key
        assert same(corpus[place], members)
        assert corpus.members(corpus.row(key)) == members
    assert [sample.key for sample in corpus] == list(stored)
    assert corpus[-1].key == list(stored)[-1]


def test_places_beyond_the_end(corpus: Corpus) -> None:
    for place in (15, -16, 10**9):
        with pytest.raises(IndexError, match=f"sample {place} of a corpus of 15"):
            corpus[place]


def test_an_unknown_key_is_one_clear_line(corpus: Corpus) -> None:
    with pytest.raises(
        CorpusError, match=r"no sample has this key; got coco_train_00007; did you mean coco_train_0+\d\?"
    ):
        corpus["coco_train_00007"]
    with pytest.raises(CorpusError, match="keys are in the manifest"):
        corpus["?"]
    with pytest.raises(CorpusError, match="no sample has this key"):
        corpus["coco_train_000007"]  # it failed: its row has no sample


def test_keys_with_one_hash_are_told_apart(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rng, "order", lambda *parts: 7)
    for key in list(corpus.keys()):
        assert corpus[key].key == key


def test_rows_splits_and_sources(corpus: Corpus) -> None:
    assert corpus.splits == ("train", "validation")
    assert corpus.sources == ("ade", "coco", "davis")
    assert [row.key for row in corpus.rows("validation")] == [f"davis_validation_00000{place}" for place in (0, 1, 3)]
    assert [row.index for row in corpus.rows("train", "coco")] == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert sum(1 for _ in corpus.rows(source="coco", status=None)) == 10
    (failed,) = corpus.rows(source="coco", status="failed")
    assert (failed.key, failed.reason, failed.shard) == ("coco_train_000007", "the picture is truncated", "")
    assert list(corpus.keys("train", "ade")) == ["ade_train_000000", "ade_train_000001", "ade_train_000002"]
    with pytest.raises(CorpusError, match="no such split; got val; allowed: train, validation"):
        next(corpus.rows("val"))
    with pytest.raises(CorpusError, match="no such source; got coc; allowed: ade, coco, davis"):
        next(corpus.keys(source="coc"))


def test_vocabulary_and_settings(corpus: Corpus) -> None:
    assert tuple(name.name for name in corpus.vocabulary("coco").names) == corpora.NAMES
    assert corpus.vocabulary("coco") is corpus.vocabulary("coco")
    assert corpus.settings("train", "coco").anomaly_probability == 0.8
    with pytest.raises(CorpusError, match="the stored recipe has no such source; got coco/test"):
        corpus.settings("test", "coco")


def test_a_source_dealt_by_shares_and_with_its_own_settings(folder: Folder) -> None:
    whole = Corpus.open(folder)
    entry = {"name": "coco", "split": {"train": 0.9, "validation": 0.1}, "exposure": {"genuine": [1, 2]}}
    head = whole.head.of_json(whole.head.to_json())
    head.recipe["sources"] = [entry]
    dealt = Corpus(folder, head)
    assert dealt.settings("validation", "coco").genuine == (1, 2)
    with pytest.raises(CorpusError):
        dealt.settings("test", "coco")


def test_a_pick_is_keyed_and_of_one_kind(corpus: Corpus) -> None:
    flags = {row.key: row.anomalous for row in corpus.rows()}
    for wanted in (True, False):
        every = corpus.pick(0, 99, wanted)
        assert sorted(every) == sorted(key for key, flag in flags.items() if flag == wanted)
        assert corpus.pick(0, 2, wanted) == every[:2]
    assert corpus.pick(1, 99, False) != corpus.pick(0, 99, False)


def test_a_corpus_travels_to_other_processes_and_threads(corpus: Corpus) -> None:
    corpus["coco_train_000001"]
    data = pickle.dumps(corpus)
    assert len(data) < 10_000
    assert pickle.loads(data)["coco_train_000001"].key == "coco_train_000001"
    with ThreadPoolExecutor(4) as threads:
        keys = [sample.key for sample in threads.map(lambda place: corpus[place % 15], range(120))]
    assert keys == list(corpus.keys()) * 8


def test_only_the_last_manifests_are_kept(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aesampler.corpus.OPEN_MANIFESTS", 1)
    for place in range(len(corpus)):
        corpus.row(place)
        assert len(corpus._recent) == 1


def test_what_is_no_corpus(tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        Corpus.open(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CorpusError, match=r"this is no corpus: it has no corpus\.json"):
        Corpus.open(tmp_path)
    (tmp_path / ".build").mkdir()
    (tmp_path / ".build/plan.json").write_text("{}")
    with pytest.raises(CorpusError, match="has not ended; run the same `aesampler build` again"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text('{"format_version": 9}')
    with pytest.raises(CorpusError, match="unknown version of the corpus format; got 9; allowed: 1"):
        Corpus.open(tmp_path)


def test_what_is_gone_or_moved_is_named(tmp_path: Path) -> None:
    folder = corpora.write(tmp_path / "tiny", (corpora.IMAGES,))
    corpus = Corpus.open(folder)
    row = corpus.row(1)
    with pytest.raises(CorpusError, match="the tar holds another sample here"):
        corpus.sample(replace(row, offset=0, size=corpus.row(0).size))
    folder.remove("manifest/train/coco-000000.parquet")
    folder.remove("vocabulary/coco.parquet")
    with pytest.raises(CorpusError, match=r"the manifest of a shard is gone; see `aesampler verify`"):
        Corpus.open(folder)[0]
    with pytest.raises(CorpusError, match="the vocabulary is gone"):
        corpus.vocabulary("coco")
    data = folder.read("manifest/train/coco-000001.parquet")
    folder.commit_bytes("manifest/train/coco-000000.parquet", data)
    with pytest.raises(CorpusError, match=r"the manifest contradicts corpus\.json; got 3; allowed: 6"):
        Corpus.open(folder)[0]


def test_from_an_object_store(folder: Folder, bucket: str) -> None:
    there = Folder.at(bucket) / "tiny"
    for path in folder.list():
        there.commit_bytes(path, folder.read(path))
    here, remote = Corpus.open(folder), Corpus.open(f"{bucket}/tiny")
    for which in (0, -1, "coco_train_000008"):
        assert np.array_equal(remote[which].frames, here[which].frames)
        assert remote.row(which) == here.row(which)
    assert list(remote.keys()) == list(here.keys())
    with pytest.raises(CorpusError, match="no such folder"):
        Corpus.open(f"{bucket}/none")
