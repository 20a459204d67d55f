"""The rows of a shard, its report, and corpus.json: exact forms, and the refusal of anything else."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import random
import zlib
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aesampler import manifest
from aesampler.errors import CorpusError
from aesampler.head import SPLITS, TOP_CATEGORIES, CorpusHead, Totals
from aesampler.manifest import SampleRow, ShardHead, ShardReport

ROW = SampleRow(
    key="coco_000000000139",
    source="coco",
    split="train",
    group="coco:139",
    shard="train/coco-000000.tar",
    index=0,
    offset=0,
    size=4096,
    kind="image",
    frames=1,
    valid_frames=1,
    height=4,
    width=8,
    anomalous=True,
    categories=("cat", "dog"),
    is_genuine=(True, False),
    presence=("present", "absent"),
    frame_labels=(1,),
    anomaly_area=(0.25,),
    ignored_area=(0.0,),
    origin="train2017/000000000139.jpg",
    origin_frames=("000000000139",),
    masks_sha256="0" * 64,
)
NORMAL = replace(
    ROW,
    key="coco_2",
    index=1,
    offset=4096,
    anomalous=False,
    categories=("dog",),
    is_genuine=(False,),
    presence=("absent",),
)
FAILED = SampleRow(
    key="coco_3",
    status="failed",
    reason="the picture is truncated",
    source="coco",
    split="train",
    group="coco:3",
    kind="image",
)
SKIPPED = replace(FAILED, key="coco_4", status="skipped", reason="no irrelevant name may be drawn")
HEAD = ShardHead(encoding="jpg", path="train/coco-000000.tar", samples=2, bytes=10240, sha256="a" * 64)
PATH = "manifest/train/coco-000000.parquet"


def parquet(rows: list[SampleRow], head: ShardHead = HEAD) -> bytes:
    sink = io.BytesIO()
    manifest.write(rows, sink, head)
    return sink.getvalue()


def report(**changes: Any) -> ShardReport:
    made = ShardReport.of([ROW, NORMAL, FAILED, SKIPPED], HEAD, source="coco", split="train", index=0)
    return replace(made, **changes)


def head(reports: list[ShardReport]) -> CorpusHead:
    recipe = {
        "name": "tiny",
        "about": {"license": "CC-BY-4.0"},
        "seed": 44,
        "sources": [{"name": "coco", "weight": 0.1}],
    }
    return CorpusHead.of(
        recipe=recipe,
        recipe_sha256="b" * 64,
        tools={"numpy": "2.4.6", "aesampler": "0.1.0"},
        inputs={"coco/train": "c" * 64},
        reports=reports,
    )


def test_the_columns_are_those_of_the_contract() -> None:
    assert " ".join(manifest.SCHEMA.names) == (
        "key status reason source split group shard index offset size kind frames valid_frames height width anomalous "
        "categories is_genuine presence frame_labels anomaly_area ignored_area origin origin_frames masks_sha256"
    )
    assert not any(column.nullable for column in manifest.SCHEMA)
    assert tuple(SampleRow.__dataclass_fields__) == tuple(manifest.SCHEMA.names)


def test_any_parquet_reader_sees_the_rows_and_the_tar() -> None:
    data = parquet([ROW, FAILED])
    table = pq.read_table(io.BytesIO(data))
    assert table.to_pylist()[0] == {
        name: list(value) if isinstance(value := getattr(ROW, name), tuple) else value for name in manifest.SCHEMA.names
    }
    stored = json.loads(pq.read_metadata(io.BytesIO(data)).metadata[b"aesampler.shard"])
    assert stored == {
        "encoding": "jpg",
        "path": "train/coco-000000.tar",
        "samples": 2,
        "bytes": 10240,
        "sha256": "a" * 64,
        "rejections": {},
        "format_version": 1,
    }
    assert b"null" not in json.dumps(table.to_pylist()).encode()


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
shares = st.floats(0, 1, width=32)


@st.composite
def sample_rows(draw: st.DrawFn) -> SampleRow:
    frames, names = draw(st.integers(1, 3)), draw(st.lists(text, max_size=3))

    def each(values: st.SearchStrategy[Any], count: int) -> tuple[Any, ...]:
        return tuple(draw(st.lists(values, min_size=count, max_size=count)))

    return replace(
        ROW,
        key=draw(text),
        offset=draw(st.integers(-1, 2**50)),
        anomalous=draw(st.booleans()),
        categories=tuple(names),
        is_genuine=each(st.booleans(), len(names)),
        presence=each(st.sampled_from(["present", "absent", "unknown"]), len(names)),
        frame_labels=each(st.sampled_from([0, 1, 255]), frames),
        anomaly_area=each(shares, frames),
        ignored_area=each(shares, frames),
        origin_frames=each(text, frames),
    )


@given(st.lists(sample_rows(), max_size=4))
@settings(max_examples=40)
def test_rows_come_back_and_equal_rows_give_equal_bytes(rows: list[SampleRow]) -> None:
    data = parquet(rows)
    assert manifest.read_rows(io.BytesIO(data)) == rows
    assert manifest.read_head(io.BytesIO(data)) == HEAD
    assert parquet(list(rows)) == data


def test_areas_are_kept_as_float32() -> None:
    (row,) = manifest.read_rows(io.BytesIO(parquet([replace(ROW, anomaly_area=(0.1,))])))
    assert row.anomaly_area == (float(np.float32(0.1)),)


def test_named_columns_are_read_alone() -> None:
    table = manifest.read_table(io.BytesIO(parquet([ROW, FAILED])), ["status", "key"])
    assert table.to_pydict() == {"status": ["ok", "failed"], "key": [ROW.key, FAILED.key]}


def test_what_is_no_manifest_is_refused() -> None:
    other = io.BytesIO()
    pq.write_table(pa.table({"key": ["a"]}), other)
    for data in (b"", b"PAR1", b"not a Parquet" * 9, other.getvalue(), parquet([ROW])[:-9]):
        with pytest.raises(CorpusError):
            manifest.read_head(io.BytesIO(data), "x.parquet")
        with pytest.raises(CorpusError):
            manifest.read_rows(io.BytesIO(data), "x.parquet")


def test_a_report_is_the_same_at_once_and_on_resume() -> None:
    rows = [ROW, NORMAL, FAILED, replace(FAILED, key="coco_5"), SKIPPED]
    made = ShardReport.of(rows, HEAD, source="coco", split="train", index=0)
    data = parquet(rows)
    assert ShardReport.of_parquet(data, PATH) == made
    assert made.manifest.sha256 == hashlib.sha256(data).hexdigest()
    assert (made.samples, made.anomalous, made.valid_frames, made.rejected, made.manifest.rows) == (2, 1, 2, 3, 5)
    assert (made.path, made.bytes, made.kind, made.encoding, made.frames) == (HEAD.path, 10240, "image", "jpg", 1)
    assert made.failures == {"the picture is truncated": 2}
    assert made.examples == {"the picture is truncated": ("coco_3", "coco_5")}
    assert made.skipped == {"no irrelevant name may be drawn": 1}
    assert made.names == {"cat": (1, 1), "dog": (2, 0)}
    assert manifest.parquet_path(made) == PATH
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_report_stays_small() -> None:
    names = [f"category number {place}" for place in range(1200)]
    rows = [replace(ROW, key=f"k{place}", categories=tuple(names[place : place + 2])) for place in range(1000)]
    small = ShardReport.of(rows, msgspec.structs.replace(HEAD, samples=1000), source="coco", split="train", index=0)
    assert len(pickle.dumps(small)) < 20_000
    failing = [replace(FAILED, key=f"k{place}") for place in range(1000)]
    none = ShardReport.of(failing, ShardHead(encoding="jpg"), source="coco", split="train", index=0)
    assert len(none.examples["the picture is truncated"]) == manifest.EXAMPLES
    assert len(pickle.dumps(none)) < 2_000


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        ([ROW], PATH),
        ([], PATH),
        ([ROW, NORMAL], "train/coco-000000.parquet"),
        ([ROW, NORMAL], "manifest/train/coco.parquet"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(rows: list[SampleRow], path: str) -> None:
    with pytest.raises(CorpusError):
        ShardReport.of_parquet(parquet(rows), path)


def test_totals_do_not_depend_on_the_order() -> None:
    reports = [
        report(index=place, failures={"a": place + 1, "b": 1}, examples={"a": ("j",), "b": (f"k{place}",)})
        for place in range(5)
    ]
    sums = []
    for seed in range(4):
        random.Random(seed).shuffle(reports)
        totals = Totals()
        for each in reports:
            totals.add(each)
        sums.append(totals)
    assert all(each == sums[0] for each in sums)
    assert (sums[0].samples, sums[0].anomalous, sums[0].failed, sums[0].rejected) == (10, 5, 20, 25)
    assert sums[0].failures_with_example() == {"a": (15, "j"), "b": (5, "k0")}


HEAD_TEXT = """{
  "format_version": 1,
  "name": "tiny",
  "about": {
    "license": "CC-BY-4.0"
  },
  "seed": 44,
  "recipe": {
    "name": "tiny",
    "about": {
      "license": "CC-BY-4.0"
    },
    "seed": 44,
    "sources": [
      {
        "name": "coco",
        "weight": 0.1
      }
    ]
  },
  "recipe_sha256": "BBBB",
  "tools": {
    "aesampler": "0.1.0",
    "numpy": "2.4.6"
  },
  "inputs": {
    "coco/train": "CCCC"
  },
  "splits": {
    "train": {
      "coco": {
        "kind": "image",
        "encoding": "jpg",
        "frames": 1,
        "samples": 2,
        "anomalous": 1,
        "valid_frames": 2,
        "failed": 1,
        "skipped": 1,
        "shards": [
          {
            "path": "train/coco-000000.tar",
            "samples": 2,
            "bytes": 10240,
            "sha256": "AAAA"
          }
        ],
        "manifests": [
          {
            "path": "manifest/train/coco-000000.parquet",
            "rows": 4,
            "bytes": SIZE,
            "sha256": "MMMM"
          }
        ]
      }
    }
  },
  "totals": {
    "samples": 2,
    "anomalous": 1,
    "frames": 2,
    "bytes": 10240,
    "failed": 1,
    "skipped": 1,
    "categories": [
      {
        "name": "cat",
        "listed": 1,
        "genuine": 1
      },
      {
        "name": "dog",
        "listed": 2,
        "genuine": 0
      }
    ]
  },
  "skipped": {
    "no irrelevant name may be drawn": 1
  },
  "failures": {
    "the picture is truncated": 1
  },
  "rejections": {},
  "shortcut": {}
}
"""


def test_corpus_json_to_the_letter() -> None:
    made = report()
    expected = HEAD_TEXT.replace("SIZE", str(made.manifest.bytes)).replace("MMMM", made.manifest.sha256)
    for letter in "abc":
        expected = expected.replace(letter.upper() * 4, letter * 64)
    assert head([made]).to_json().decode() == expected
    assert CorpusHead.of_json(expected.encode()) == head([made])
    assert CorpusHead.of_json(expected.encode()).to_json().decode() == expected


def test_corpus_json_does_not_depend_on_the_order_of_reports() -> None:
    reports = [report(split=split, source=name, index=place) for split in SPLITS for name in "ba" for place in range(3)]
    made = head(reports)
    random.Random(1).shuffle(reports)
    assert head(reports) == made
    assert list(made.splits) == ["train", "validation", "test"]
    assert list(made.splits["train"]) == ["a", "b"]
    assert made.sources == ("a", "b")
    assert made.totals.samples == 36


def test_a_shard_without_samples_is_recorded_and_has_no_tar() -> None:
    empty = ShardReport.of([FAILED], ShardHead(encoding="jpg"), source="coco", split="train", index=1)
    part = head([report(), empty]).splits["train"]["coco"]
    assert [entry.path for entry in part.shards] == ["train/coco-000000.tar"]
    assert [entry.rows for entry in part.manifests] == [4, 1]
    assert (part.failed, part.frames) == (2, 1)


def test_one_source_holds_one_kind_of_sample() -> None:
    for other in ({"kind": "clip"}, {"encoding": "png"}, {"frames": 8}):
        with pytest.raises(CorpusError, match="different kinds of sample"):
            head([report(), report(index=1, **other)])


def test_the_names_exposed_most_come_first_and_are_fifty() -> None:
    names = {f"n{place:03d}": (place, place // 10) for place in range(90)}
    packed = zlib.compress(msgspec.json.encode(names))
    top = head([report(packed_names=packed)]).totals.categories
    assert len(top) == TOP_CATEGORIES
    assert [entry.name for entry in top[:3]] == ["n089", "n088", "n087"]
    assert [(entry.listed, entry.genuine) for entry in top[:1]] == [(89, 8)]


def test_another_version_and_what_is_no_head_are_refused() -> None:
    body = json.loads(head([report()]).to_json())
    with pytest.raises(CorpusError, match="unknown version of the corpus format; got 2"):
        CorpusHead.of_json(json.dumps(body | {"format_version": 2, "new": True}).encode())
    for bad in (b"", b"{}", b"[1]", b"\xff\xfe", json.dumps(body | {"seed": "44"}).encode()):
        with pytest.raises(CorpusError, match=r"corpus\.json"):
            CorpusHead.of_json(bad)
    with pytest.raises(CorpusError, match="unknown field"):
        CorpusHead.of_json(json.dumps(body | {"host": "here"}).encode())
