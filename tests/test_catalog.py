from __future__ import annotations

import collections
import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import worlds
from conftest import S3
from hypothesis import given, settings
from hypothesis import strategies as st

import aesampler.catalog
from aesampler import rng, sources
from aesampler.catalog import HEAD, PARQUET, ROW_GROUP, Catalog, default_cache
from aesampler.errors import CorpusError, RecipeError, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import instances
from aesampler.sources.coco import Coco
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder
from aesampler.vocabulary import Vocabulary

NAMES = ("ant", "bee", "cat", "dog", "eel")


class Given(Source):
    """A source whose survey is what the test says; `watched`: file -> content hash is not read, only listed."""

    format: ClassVar[str] = "given"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "tests"
    layout: ClassVar[str] = ""

    option: int = 0
    told: ClassVar[list[Record]] = []
    calls: ClassVar[list[str]] = []

    def survey(self, root: Folder) -> Survey:
        self.calls.append("survey")
        listing = root.list("frames") | root.list("masks")
        return Survey(
            categories=tuple(Category(name=name, origin=name.upper(), aliases=(f"the {name}",)) for name in NAMES),
            exhaustive=False,
            items=[Item(id=record.id, group=record.group) for record in self.told],
            record=lambda place: self.told[place],
            files=("list.txt",) if root.exists("list.txt") else (),
            listing=listing,
            folders=("frames", "masks"),
            skipped={"too dark": 2},
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        raise AssertionError("the catalog asks for no scene")


def record(id: str, group: str = "", **changes: Any) -> Record:
    frames = changes.pop("frames", (f"frames/{id}.jpg",))
    return Record(
        id=id,
        group=group or f"group {id}",
        frames=frames,
        annotated=changes.pop("annotated", (True,) * len(frames)),
        **changes,
    )


@pytest.fixture
def told() -> Iterator[list[Record]]:
    """What the `Given` source tells; emptied afterwards."""
    Given.told.clear()
    Given.calls.clear()
    yield Given.told
    Given.told.clear()


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    """A folder with two frames, a mask and a file that is read whole."""
    for name, size in (("frames/a.jpg", 5), ("frames/b.jpg", 7), ("masks/deep/a.png", 3), ("list.txt", 1)):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_bytes(b"x" * size)
    return Folder.at(tmp_path / "root")


@pytest.fixture
def kept(tmp_path: Path) -> Folder:
    return Folder.at(tmp_path / "kept")


def test_rows_give_back_every_field(root: Folder, kept: Folder, told: list[Record]) -> None:
    full = record(
        "a",
        frames=("frames/a.jpg", "frames/b.jpg", "frames/gone.jpg"),
        annotated=(True, False, True),
        height=3,
        width=2**31 - 1,
        masked=(0, 4),
        ignored=(1,),
        incomplete=(2,),
        absent=(3,),
        payload=b"\x00\xff",
    )
    told += [full, record("\u00e9/b", elsewhere=(4,))]
    catalog = Catalog.of(Given(), root, cache=kept)
    assert {entry.record.id: entry for entry in catalog.rows()} == {
        "a": aesampler.catalog.Entry(record=full, frame_bytes=(5, 7, -1)),
        "\u00e9/b": aesampler.catalog.Entry(record=told[1], frame_bytes=(-1,)),
    }
    assert catalog.categories[1] == Category(name="bee", origin="BEE", aliases=("the bee",))
    assert (catalog.exhaustive, catalog.records, catalog.skipped) == (False, 2, {"too dark": 2})


def test_rows_lie_in_hash_order(root: Folder, kept: Folder, told: list[Record]) -> None:
    told += [record(f"r{i}", group=f"g{i // 3}") for i in range(3000)]
    catalog = Catalog.of(Given(), root, cache=kept)
    found = [entry.record for entry in catalog.rows()]
    keys = [(rng.order("catalog", r.group, r.id), r.id) for r in found]
    assert keys == sorted(keys)
    assert sorted(r.id for r in found) == sorted(r.id for r in told)
    assert [r.id for r in found[:5]] == ["r1969", "r1371", "r774", "r1253", "r1775"]
    assert [entry.record for entry in catalog.rows(511, 1025)] == found[511:1025]
    assert list(catalog.rows(7, 7)) == []
    with pytest.raises(IndexError):
        list(catalog.rows(0, 3001))
    columns = [row for batch in catalog.columns(["group", "id"]) for row in batch.to_pylist()]
    assert columns == [{"id": r.id, "group": r.group} for r in found]


def test_only_the_row_groups_that_are_touched_are_read(
    root: Folder, kept: Folder, told: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    told += [record(f"r{i}") for i in range(4 * ROW_GROUP + 1)]
    catalog = Catalog.of(Given(), root, cache=kept)
    parquet = pq.ParquetFile(catalog.folder.path / PARQUET)
    sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    assert sizes == [ROW_GROUP] * 4 + [1]
    read: list[int] = []
    plain = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, i, *rest, **options: read.append(i) or plain(self, i, *rest, **options),
    )
    assert len(list(catalog.rows(ROW_GROUP - 1, 2 * ROW_GROUP + 1))) == ROW_GROUP + 2
    assert read == [0, 1, 2]


def test_a_catalog_is_opened_by_its_parquet_alone(root: Folder, kept: Folder, told: list[Record]) -> None:
    told += [record("a", masked=(1,)), record("b")]
    catalog = Catalog.of(Given(), root, cache=kept)
    assert pickle.loads(pickle.dumps(catalog)) == catalog
    elsewhere = kept / "elsewhere"
    elsewhere.commit_bytes(PARQUET, catalog.folder.read(PARQUET))
    opened = Catalog.open(elsewhere)
    assert list(opened.rows()) == list(catalog.rows())
    assert (opened.categories, opened.exhaustive, opened.skipped) == (catalog.categories, False, {"too dark": 2})
    assert opened.fingerprint == {}


def test_what_is_no_catalog_is_refused(kept: Folder, root: Folder, told: list[Record]) -> None:
    kept.commit_bytes(f"a/{PARQUET}", b"PAR1 not")
    with pytest.raises(CorpusError, match="not a catalog"):
        Catalog.open(kept / "a")
    kept.commit(f"b/{PARQUET}", lambda sink: Vocabulary(()).write(sink))
    with pytest.raises(CorpusError, match="not a catalog"):
        Catalog.open(kept / "b")


def test_the_fingerprint(root: Folder, kept: Folder, told: list[Record]) -> None:
    """Pinned: what is read whole, what is listed, and the Parquet, all without place or time."""
    told += [record("a", masked=(0,)), record("b", frames=("frames/b.jpg",))]
    catalog = Catalog.of(Given(), root, cache=kept)
    assert catalog.fingerprint == {
        "files": {"list.txt": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"},
        "listing": "769b37aa0b727bbc1ee2b1158265602f7c49e63fa74035441a26843bd251518b",
        "catalog": catalog.fingerprint["catalog"],
    }
    moved = root.path.parent / "moved"
    shutil.copytree(root.path, moved)
    told.reverse()
    again = Catalog.of(Given(), Folder.at(moved), cache=kept)
    assert again.folder != catalog.folder
    assert again.fingerprint == catalog.fingerprint
    assert again.folder.read(PARQUET) == catalog.folder.read(PARQUET)


def change_nothing(root: Path) -> None:
    pass


def rewrite_the_list(root: Path) -> None:
    (root / "list.txt").write_bytes(b"yy")


def add_a_frame(root: Path) -> None:
    (root / "frames/c.jpg").touch()


def remove_a_frame(root: Path) -> None:
    (root / "frames/b.jpg").unlink()


def repaint_a_mask(root: Path) -> None:
    mask = root / "masks/deep/a.png"
    mask.write_bytes(b"y" * 3)
    os.utime(mask, ns=(2, 2))


def add_a_mask_below(root: Path) -> None:
    (root / "masks/deep/b.png").touch()


def add_a_folder_of_masks(root: Path) -> None:
    (root / "masks/new").mkdir()


@pytest.mark.parametrize(
    ("change", "made"),
    [
        (change_nothing, 1),
        (rewrite_the_list, 2),
        (add_a_frame, 2),
        (remove_a_frame, 2),
        (repaint_a_mask, 2),
        (add_a_mask_below, 2),
        (add_a_folder_of_masks, 2),
    ],
)
def test_it_is_made_again_only_where_something_changed(
    root: Folder, kept: Folder, told: list[Record], change: Any, made: int
) -> None:
    told += [record("a"), record("b")]
    for path in root.path.rglob("*"):
        os.utime(path, ns=(1, 1))  # a disk's clock has ticks
    first = Catalog.of(Given(), root, cache=kept)
    change(root.path)
    second = Catalog.of(Given(), root, cache=kept)
    assert len(Given.calls) == made
    assert second.folder == first.folder
    third = Catalog.of(Given(), root, cache=kept)
    assert third == second
    assert len(Given.calls) == made


def test_an_empty_picture_that_is_filled_is_seen(root: Folder, kept: Folder, told: list[Record]) -> None:
    """In its place, which its folder says nothing of."""
    told += [record("a"), record("b")]
    picture = root.path / "frames/a.jpg"
    picture.write_bytes(b"")
    for path in root.path.rglob("*"):
        os.utime(path, ns=(1, 1))
    assert sorted(entry.frame_bytes for entry in Catalog.of(Given(), root, cache=kept).rows()) == [(0,), (7,)]
    picture.write_bytes(b"there")
    assert sorted(entry.frame_bytes for entry in Catalog.of(Given(), root, cache=kept).rows()) == [(5,), (7,)]
    Catalog.of(Given(), root, cache=kept)
    assert len(Given.calls) == 2


@pytest.mark.parametrize(
    "change", [rewrite_the_list, add_a_frame, lambda root: (root / "masks/deep/a.png").write_bytes(b"yyy")]
)
def test_what_changes_while_it_is_surveyed_is_refused(
    root: Folder, kept: Folder, told: list[Record], monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    told += [record("a"), record("b")]
    plain = Given.survey

    def disturbed(self: Given, root: Folder) -> Survey:
        survey = plain(self, root)
        time.sleep(0.02)  # a disk's clock has ticks
        change(root.path)
        return survey

    with monkeypatch.context() as patch:
        patch.setattr(Given, "survey", disturbed)
        with pytest.raises(SourceError, match="the dataset changed while it was read; run again when it is at rest"):
            Catalog.of(Given(), root, cache=kept)
    time.sleep(0.02)
    Catalog.of(Given(), root, cache=kept)


def test_who_reads_a_catalog_is_told_that_another_took_its_place(
    root: Folder, kept: Folder, told: list[Record]
) -> None:
    told += [record("a"), record("b")]
    first = Catalog.of(Given(), root, cache=kept)
    same = Catalog.of(Given(), root, cache=kept, refresh=True)
    assert [entry.record.id for entry in first.rows()] == [entry.record.id for entry in same.rows()]
    told += [record("c")]
    Catalog.of(Given(), root, cache=kept, refresh=True)
    for read in (lambda: list(first.rows()), first.vocabulary, lambda: first.revised("x", lambda rows: rows)):
        with pytest.raises(SourceError, match=r"catalogued anew, and is another one, .*; give the command again"):
            read()


def test_entries_are_apart_by_option_and_root(root: Folder, kept: Folder, told: list[Record]) -> None:
    told += [record("a")]
    plain = Catalog.of(Given(), root, cache=kept)
    other = Catalog.of(Given(option=1), root, cache=kept)
    assert plain.folder != other.folder
    assert len(Given.calls) == 2
    Catalog.of(Given(), root, cache=kept, refresh=True)
    assert len(Given.calls) == 3


@pytest.mark.parametrize("damage", ["head", "parquet", "half"])
def test_a_damaged_entry_is_made_again(root: Folder, kept: Folder, told: list[Record], damage: str) -> None:
    told += [record("a")]
    catalog = Catalog.of(Given(), root, cache=kept)
    if damage == "half":
        catalog.folder.commit_bytes(PARQUET, catalog.folder.read(PARQUET)[:-9])
    elif damage == "head":
        catalog.folder.commit_bytes(HEAD, b"{")
    else:
        catalog.folder.remove(PARQUET)
    assert Catalog.of(Given(), root, cache=kept) == catalog
    assert len(Given.calls) == 2


def test_a_killed_making_leaves_no_entry(root: Folder, kept: Folder, told: list[Record]) -> None:
    told += [record("a"), record("b")]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Catalog.of(Given(), root, cache=kept, progress=stop)
    assert kept.list() == {}
    seen: list[tuple[int, int]] = []
    Catalog.of(Given(), root, cache=kept, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 2)]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "no record"),
        ([record("a"), record("b"), record("a", group="other")], "two record ids are alike; got 'a'"),
    ],
)
def test_what_is_refused(root: Folder, kept: Folder, told: list[Record], records: list[Record], message: str) -> None:
    told += records
    with pytest.raises(SourceError, match=message):
        Catalog.of(Given(), root, cache=kept)
    assert kept.list() == {}


def test_names_of_one_group_are_told_to_all_its_records(root: Folder, kept: Folder, told: list[Record]) -> None:
    told += [
        record("a", group="g", masked=(0,), absent=(3,)),
        record("b", group="g", masked=(1,), ignored=(2,), elsewhere=(4,)),
        record("c", group="g", incomplete=(3,)),
        record("d", masked=(0,)),
    ]
    found = {entry.record.id: entry.record for entry in Catalog.of(Given(), root, cache=kept).rows()}
    assert {id: r.elsewhere for id, r in found.items()} == {"a": (1, 2, 4), "b": (0, 3, 4), "c": (0, 1, 2, 4), "d": ()}
    assert found["d"] == told[3]


@settings(max_examples=40)
@given(
    records=st.lists(st.lists(st.integers(0, 4), unique=True).map(sorted), min_size=1, max_size=40),
    batch=st.sampled_from([1, 16]),
)
def test_the_vocabulary_is_that_of_the_plain_count(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[int]], batch: int
) -> None:
    Given.told[:] = [record(f"r{i}", masked=tuple(masked)) for i, masked in enumerate(records)]
    root = Folder.at(tmp_path_factory.mktemp("root"))
    catalog = Catalog.of(Given(), root, cache=Folder.at(tmp_path_factory.mktemp("kept")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aesampler.catalog, "ROW_GROUP", batch / 16)
        patch.setattr(Catalog, "columns", slowly(Catalog.columns, batch))
        assert catalog.vocabulary() == Vocabulary.count(catalog.categories, records)
    Given.told.clear()


def slowly(plain: Any, size: int) -> Any:
    """`Catalog.columns` in slices of `size` rows, which begin inside a list's buffer."""

    def columns(self: Catalog, names: Sequence[str]) -> Iterator[Any]:
        with self.folder.open(PARQUET) as file:
            table = pq.read_table(file, columns=list(names)).combine_chunks()
        for first in range(0, table.num_rows, size):
            yield from table.slice(first, size).to_batches()

    return columns


def test_threads_do_not_show(root: Folder, kept: Folder, told: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    told += [record(f"r{i}", masked=(i % 5,)) for i in range(700)]
    found = set()
    for threads in (1, 2, 8):
        monkeypatch.setattr(aesampler.catalog, "_threads", lambda threads=threads: threads)
        found.add(Catalog.of(Given(), root, cache=kept, refresh=True).fingerprint["catalog"])
    assert len(found) == 1


def test_a_batch_makes_the_rows_that_records_make(
    tmp_path: Path, kept: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds.coco(tmp_path / "coco", images=30)
    root = Folder.at(tmp_path / "coco")
    fast = pq.read_table(Catalog.of(Coco(), root, cache=kept).folder.path / PARQUET)
    plain = Coco.survey

    def slow(self: Coco, root: Folder) -> Survey:
        survey = plain(self, root)
        object.__setattr__(survey, "batch", None)
        return survey

    monkeypatch.setattr(Coco, "survey", slow)
    assert pq.read_table(Catalog.of(Coco(), root, cache=kept, refresh=True).folder.path / PARQUET) == fast


def test_real_coco(real_data: Path, kept: Folder) -> None:
    catalog = Catalog.of(Coco(), Folder.at(real_data / "coco"), cache=kept)
    assert (catalog.records, len(catalog.categories), catalog.exhaustive) == (128, 80, True)
    body = json.loads((real_data / "coco/annotations/instances_train2017.json").read_text())
    wanted = collections.Counter()
    for image in body["images"]:
        wanted.update(
            {e["category_id"] for e in body["annotations"] if e["image_id"] == image["id"] and not e["iscrowd"]}
        )
    told = {int(c.origin): n.count for c, n in zip(catalog.categories, catalog.vocabulary().names, strict=True)}
    assert {id: count for id, count in told.items() if count} == wanted
    assert sum(size for entry in catalog.rows() for size in entry.frame_bytes) == sum(
        os.stat(path).st_size for path in (real_data / "coco/train2017").iterdir()
    )


def test_a_catalog_of_a_store_is_the_same_and_stays_fresh(tmp_path: Path, kept: Folder, s3: S3) -> None:
    bucket = s3.bucket()
    disk = s3.disk / bucket.removeprefix("s3://")
    worlds.coco(tmp_path / "coco")
    shutil.copytree(tmp_path / "coco", disk / "coco")
    local = Catalog.of(Coco(), Folder.at(tmp_path / "coco"), cache=kept)
    remote = Catalog.of(Coco(), Folder.at(f"{bucket}/coco"), cache=Folder.at(f"{bucket}/kept"))
    assert remote.fingerprint == local.fingerprint
    forms = set()
    for there, here in zip(remote.rows(), local.rows(), strict=True):
        # A local file is referred to; of one in a store the texts are held.
        forms.add((there.record.payload[:1], here.record.payload[:1]))
        assert dataclasses.replace(there.record, payload=b"") == dataclasses.replace(here.record, payload=b"")
        told = [list(instances.marks(Folder.at(tmp_path / "coco"), entry.record.payload)) for entry in (there, here)]
        assert told[0] == told[1]
    assert forms == {(b"[", b"@"), (b"", b"")}
    stamp = remote.folder.stat_token(HEAD)
    Catalog.of(Coco(), Folder.at(f"{bucket}/coco"), cache=Folder.at(f"{bucket}/kept"))
    assert remote.folder.stat_token(HEAD) == stamp
    Folder.at(f"{bucket}/coco").commit_bytes("train2017/000000000009.jpg", b"shorter")
    changed = Catalog.of(Coco(), Folder.at(f"{bucket}/coco"), cache=Folder.at(f"{bucket}/kept"))
    assert changed.fingerprint["listing"] != local.fingerprint["listing"]


def test_the_cache_lies_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AESAMPLER_CACHE", str(tmp_path))
    assert default_cache() == Folder.at(tmp_path)
    monkeypatch.delenv("AESAMPLER_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == Folder.at(tmp_path / ".cache/aesampler")


def test_formats_are_named_and_loaded() -> None:
    assert sources.names()[:6] == ("coco", "lvis", "ade20k", "ade20k-150", "davis", "youtube-vos")
    for name in sources.FORMATS:
        assert sources.load(name).format == name
    with pytest.raises(RecipeError, match=r"unknown format 'cocoo'; allowed: coco, lvis, .*; did you mean coco\?"):
        sources.load("cocoo")
    with pytest.raises(RecipeError, match="see `aesampler sources`"):
        sources.load("xyz")


def test_packages_add_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    points = [
        EntryPoint("given", "test_catalog:Given", "aesampler.sources"),
        EntryPoint("coco", "test_catalog:Given", "aesampler.sources"),
        EntryPoint("broken", "no_such_package:Given", "aesampler.sources"),
        EntryPoint("number", "test_catalog:NAMES", "aesampler.sources"),
    ]
    monkeypatch.setattr(sources, "entry_points", lambda group: points if group == "aesampler.sources" else [])
    assert sources.names()[len(sources.FORMATS) :] == ("broken", "given", "number")
    assert sources.load("given").__name__ == "Given"
    assert sources.load("coco") is Coco
    with pytest.raises(RecipeError, match="'broken' cannot be imported: No module named"):
        sources.load("broken")
    with pytest.raises(RecipeError, match="'number' is not a Source"):
        sources.load("number")


MAKE = """
import sys
from aesampler.catalog import Catalog
from aesampler.sources import instances
from aesampler.sources.coco import Coco
from aesampler.storage import Folder
Catalog.of(Coco(), Folder.at(sys.argv[1]), cache=Folder.at(sys.argv[2]))
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.long
def test_memory_grows_by_the_small_fields_only(tmp_path: Path) -> None:
    """Ten times the annotations, of 1 KB of polygon each, take far less than their text."""
    peaks = []
    for count in (40_000, 400_000):
        root = tmp_path / str(count)
        (root / "train2017").mkdir(parents=True)
        (root / "annotations").mkdir()
        (root / "train2017/0.jpg").touch()
        text = json.dumps([np.arange(1000.0, 1125.0).tolist()])
        with (root / "annotations/instances_train2017.json").open("w") as file:
            images = [{"id": i, "file_name": f"{i}.jpg", "height": 8, "width": 8} for i in range(count // 8)]
            file.write(f'{{"images": {json.dumps(images)}, "categories": [{{"id": 1, "name": "a"}}], "annotations": [')
            for i in range(count):
                comma = ", " if i else ""
                file.write(
                    f'{comma}{{"id": {i}, "image_id": {i % len(images)}, "category_id": 1, "segmentation": {text}}}'
                )
            file.write("]}")
        command = [sys.executable, "-c", MAKE, str(root), str(tmp_path / "kept")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        peaks.append(int(done.stdout) * 1024)
    size = (tmp_path / "400000/annotations/instances_train2017.json").stat().st_size
    assert size > 300 << 20
    assert peaks[1] - peaks[0] < size // 2
