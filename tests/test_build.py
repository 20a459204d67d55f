"""The build: the same bytes however it runs; what a resumed, changed or broken one does; nothing written is lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import worlds
from outputs import sha256s

from aesampler import Corpus, Folder, Inline, Recipe, build_corpus, plan_corpus
from aesampler.build import Outcome
from aesampler.errors import CorpusError, LockedError, SourceError, StorageError, ToleranceError
from aesampler.head import PLAN, CorpusHead
from aesampler.verify import verify

SOURCES = [
    {"name": "coco", "format": "coco", "root": "coco", "split": {"train": 0.7, "validation": 0.3}},
    {"name": "lvis", "format": "lvis", "root": "lvis"},
    {"name": "ade", "format": "ade20k", "root": "ade20k"},
    {"name": "davis", "format": "davis", "root": "davis"},
    {"name": "youtube-vos", "format": "youtube-vos", "root": "youtube-vos"},
]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Five tiny datasets of five formats."""
    worlds.coco(tmp_path / "coco", images=24)
    worlds.lvis(tmp_path / "lvis", images=8)
    worlds.ade20k(tmp_path / "ade20k", images=4)
    worlds.davis(tmp_path / "davis", sequences=3, frames=9)
    worlds.youtube_vos(tmp_path / "youtube-vos", videos=3, frames=9)
    return tmp_path


def recipe(base: Path, **keys: Any) -> Recipe:
    body = {"name": "tiny", "seed": 44, "sources": SOURCES, "shards": {"max_samples": 5}} | keys
    return Recipe.of(body, base=base)


def build(made: Recipe, out: Path, **options: Any) -> Outcome:
    return build_corpus(plan_corpus(made), Folder.at(out), Inline(), **options)


def coco_only(base: Path, **keys: Any) -> Recipe:
    return recipe(base, sources=[{"name": "coco", "format": "coco", "root": "coco"}], **keys)


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_the_same_bytes_elsewhere_and_in_another_order_of_files(world: Path) -> None:
    build(recipe(world), world / "one")
    first = sha256s(world / "one")
    build(recipe(world), world / "deep" / "two")
    assert sha256s(world / "deep" / "two") == first
    # The same files, written in another order, elsewhere, with a cold cache.
    moved = world / "moved"
    files = [file for source in SOURCES for file in (world / source["root"]).rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: file.name[::-1]):
        target = moved / file.relative_to(world)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    build(recipe(moved), moved / "out")
    assert sha256s(moved / "out") == first


def test_bytes_are_pinned(world: Path) -> None:
    """Draws and decoded masks are these on any machine; the bytes of the files are, for the pinned tools."""
    build(coco_only(world, exposure={"max_categories": 4}, shards={"max_samples": 12}), world / "out")
    rows = pq.read_table(world / "out/manifest/train/coco-000001.parquet").to_pylist()
    told = [f"{row['key'][-4:]} {row['masks_sha256'][:6]} {'+' if row['anomalous'] else '-'}" for row in rows]
    told = [f"{line} {', '.join(row['categories'])}" for line, row in zip(told, rows, strict=True)]
    assert told == PINNED_SAMPLES
    assert {path: digest[:12] for path, digest in sha256s(world / "out").items()} == PINNED_FILES


PINNED_SAMPLES = [
    "0722 9b90ef - cell phone, sports ball",
    "0164 9b90ef - bird",
    "0598 9b90ef - person, cup",
    "0319 100128 + cup, cell phone, car, sports ball",
    "0412 cbe753 + car, cell phone, bird",
    "0536 9b90ef - person",
    "0474 9b90ef - bird",
    "0629 9b90ef - sports ball, cup",
    "0257 9b90ef - car, cell phone",
    "0071 9b90ef - sports ball, car, cell phone",
    "0195 6f98ac + car, cat, sports ball, dog",
    "0102 79514d + cup, sports ball, car, person",
]
PINNED_FILES = {
    "README.md": "4a37beba6ad2",
    "corpus.json": "b27171b069b6",
    "croissant.json": "e7f967b46339",
    "manifest/train/coco-000000.parquet": "a52e334436c7",
    "manifest/train/coco-000001.parquet": "e90d5e1fea11",
    "train/coco-000000.tar": "901ffe510e91",
    "train/coco-000001.tar": "afd410b22587",
    "vocabulary/coco.parquet": "594116a4e583",
}


def test_nothing_tells_of_the_machine_or_the_hour(world: Path) -> None:
    build(recipe(world), world / "out")
    for file in (world / "out").rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert str(world).encode() not in data, file
            assert os.uname().nodename.encode() not in data or len(os.uname().nodename) < 4, file
    assert not [path for path in sha256s(world / "out") if path.startswith(".") or "/." in path]


def test_a_reader_draws_the_stored_labels_again(world: Path) -> None:
    """Law 1: at epoch 0 with the recipe's settings, from the redraw string and the vocabulary alone."""
    from aesampler import sample as samples

    made = recipe(world, exposure={"max_categories": 6, "frame_labels": "presence"})
    build(made, world / "out")
    corpus = Corpus.open(world / "out")
    again = 0
    for key in list(corpus.keys()):
        stored = corpus[key]
        entry = next(e for e in made.sources if e.name == stored.source)
        derived = samples.derive(
            stored.scene,
            corpus.vocabulary(stored.source),
            made.settings(entry),
            seed=made.seed,
            source=stored.source,
            key=key,
            epoch=0,
            frames=len(stored.frames),
        )
        assert derived is not None
        exposure, labels = derived
        assert (exposure.categories, exposure.is_genuine, exposure.presence) == (
            stored.categories,
            stored.is_genuine,
            stored.presence,
        )
        assert list(labels.frame_labels) == stored.frame_labels.tolist()
        again += 1
    assert again == len(corpus) > 40


# -- going on ---------------------------------------------------------------------------------------------------------


class StopAfter(Inline):
    """Fails for good after so many shards, as a machine does."""

    def __init__(self, shards: int) -> None:
        self.shards = shards

    def map(self, job: Any, tasks: Any) -> Any:
        yield from super().map(job, tasks[: self.shards])
        raise StorageError("the machine is gone")


@pytest.mark.parametrize("shards", [0, 1, 7])
def test_a_stopped_build_goes_on_to_the_same_bytes(world: Path, shards: int) -> None:
    build(recipe(world), world / "whole")
    out = world / "out"
    with pytest.raises(StorageError):
        build_corpus(plan_corpus(recipe(world)), Folder.at(out), StopAfter(shards))
    assert (out / PLAN).exists()
    with pytest.raises(CorpusError, match="not"):
        Corpus.open(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert len(before) == shards
    outcome = build(recipe(world), out)
    assert (outcome.kept, outcome.built) == (shards, len(plan_corpus(recipe(world)).tasks) - shards)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert sha256s(out) == sha256s(world / "whole")
    assert build(recipe(world), out).built == 0


@pytest.mark.parametrize(
    ("keys", "told"),
    [({"seed": 45}, "recipe.seed was 44, is 45"), ({"clips": {"frames": 4}}, "recipe.clips.frames was 8, is 4")],
)
@pytest.mark.parametrize("whole", [False, True])
def test_a_changed_recipe_is_refused(world: Path, keys: dict[str, Any], told: str, whole: bool) -> None:
    out = world / "out"
    if whole:
        build(recipe(world), out)
    else:
        with pytest.raises(StorageError):
            build_corpus(plan_corpus(recipe(world)), Folder.at(out), StopAfter(2))
    before = sha256s(out)
    with pytest.raises(CorpusError, match="built from something else") as caught:
        build(recipe(world, **keys), out)
    assert told in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert sha256s(out) == before
    build(recipe(world, **keys), out, fresh=True)
    build(recipe(world, **keys), world / "other")
    assert sha256s(out) == sha256s(world / "other")


def test_changed_inputs_are_refused(world: Path) -> None:
    build(recipe(world), world / "out")
    file = next((world / "coco").rglob("instances_*.json"))
    body = json.loads(file.read_text())
    body["annotations"].pop()
    file.write_text(json.dumps(body))
    with pytest.raises(CorpusError, match=r"inputs\.coco/train\+validation"):
        build(recipe(world), world / "out")


def test_a_program_builds_again_from_what_has_changed(world: Path) -> None:
    """What a process holds of an earlier build is not taken for this one's."""
    out = world / "out"
    build(coco_only(world), out)
    file = next((world / "coco").rglob("instances_*.json"))
    file.write_text(file.read_text().replace('"dog"', '"wolf"'))
    build(coco_only(world), out, fresh=True)
    names = {name for sample in Corpus.open(out) for name in sample.categories}
    assert "wolf" in names
    assert "dog" not in names
    assert verify(Corpus.open(out), deep=True).ok


class Overtaken(Inline):
    """Another build of the same plan runs to its end meanwhile, in a store, where nothing is locked."""

    def __init__(self, whole: Callable[[], Any]) -> None:
        self.whole = whole

    def map(self, job: Any, tasks: Any) -> Any:
        reports = super().map(job, tasks)
        yield next(reports)
        self.whole()
        yield from reports


@pytest.mark.parametrize("stored", [False, True])
def test_a_dataset_that_is_catalogued_anew_meanwhile_is_told(world: Path, bucket: str, stored: bool) -> None:
    """It grew, and somebody planned it: the rows of a shard are no longer where they were."""
    made = recipe(world, sources=[{"name": "davis", "format": "davis", "root": "davis"}], shards={"max_samples": 1})
    out = Folder.at(f"{bucket}/grown" if stored else world / "out")

    def grow() -> None:
        worlds.davis(world / "davis", sequences=5, frames=9)
        plan_corpus(made)

    with pytest.raises(SourceError, match=r"catalogued anew, and is another one, .*; give the command again"):
        build_corpus(plan_corpus(made), out, Overtaken(grow))
    with pytest.raises(CorpusError, match="was built from something else"):
        build_corpus(plan_corpus(made), out, Inline())
    outcome = build_corpus(plan_corpus(made), out, Inline(), fresh=True)
    assert len(set(Corpus.open(out).keys())) == outcome.head.totals.samples
    assert verify(Corpus.open(out), deep=True).ok


def test_two_builds_of_one_plan_race_harmlessly_in_a_store(world: Path, bucket: str) -> None:
    plan, out = plan_corpus(coco_only(world)), Folder.at(f"{bucket}/out")
    outcome = build_corpus(plan, out, Overtaken(lambda: build_corpus(plan, out, Inline())))
    assert outcome.head == CorpusHead.read(out)
    build(coco_only(world), world / "local")
    assert {path for path in out.list() if not path.startswith(".")} == set(sha256s(world / "local"))
    other = plan_corpus(coco_only(world, seed=45))
    with pytest.raises(CorpusError, match="another build has begun in this folder"):
        build_corpus(plan, Folder.at(f"{bucket}/b"), Overtaken(lambda: _begun(other, Folder.at(f"{bucket}/b"))))


def _begun(plan: Any, out: Folder) -> None:
    """A build of `plan` starts over in `out`, and is stopped."""
    with contextlib.suppress(StorageError):
        build_corpus(plan, out, StopAfter(1), fresh=True)


@pytest.mark.parametrize("damaged", ['{"format_version": 1, "rec', "[1, 2]"])
def test_a_damaged_head_is_told(world: Path, damaged: str) -> None:
    build(coco_only(world), world / "out")
    (world / "out/corpus.json").write_text(damaged)
    with pytest.raises(CorpusError, match=r"corpus\.json: not as the corpus format says"):
        build(coco_only(world), world / "out")
    build(coco_only(world), world / "out", fresh=True)


def test_a_fresh_start_leaves_the_files_of_others(world: Path) -> None:
    """A clone of a dataset repository holds rules of its own, which no build wrote."""
    (world / "out").mkdir()
    (world / "out/.gitattributes").write_text("*.tar filter=lfs\n")
    build(coco_only(world), world / "out")
    build(coco_only(world, seed=45), world / "out", fresh=True)
    assert (world / "out/.gitattributes").read_text() == "*.tar filter=lfs\n"


def test_a_folder_that_holds_something_else_is_left_alone(world: Path) -> None:
    out = world / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(CorpusError, match=r"holds something that is no corpus; got thesis\.txt"):
            build(recipe(world), out, fresh=fresh)
    assert sha256s(out).keys() == {"thesis.txt"}


def test_two_builds_at_once_are_refused(world: Path) -> None:
    out = Folder.at(world / "out")
    with out.lock(), pytest.raises(LockedError):
        build(recipe(world), world / "out")
    build(recipe(world), world / "out")


# -- bad records ------------------------------------------------------------------------------------------------------


def _replace(file: Path, data: bytes) -> None:
    """As programs do that copy a dataset: the folder changes, and the catalog is made anew."""
    file.unlink()
    file.write_bytes(data)


def _truncate(file: Path) -> None:
    _replace(file, file.read_bytes()[:-200])


def _garbage(file: Path) -> None:
    _replace(file, b"not a picture at all")


def _smaller(file: Path) -> None:
    from PIL import Image

    file.unlink()
    Image.new("RGB", (8, 8)).save(file)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [(Path.unlink, "lack a picture"), (_truncate, "ends too early"), (_garbage, ""), (_smaller, "size")],
)
def test_a_bad_picture_is_counted_and_named(world: Path, spoil: Callable[[Path], None], reason: str) -> None:
    victim = sorted((world / "coco").rglob("*.jpg"))[3]
    build(coco_only(world), world / "good")
    spoil(victim)
    out = world / "out"
    with pytest.raises(ToleranceError, match=r"1 of 24 samples") as caught:
        build(coco_only(world), out)
    assert reason in str(caught.value)
    assert victim.stem.lstrip("0") in str(caught.value)
    assert out.exists() == (spoil is not Path.unlink)  # what is missing is known before anything is written
    assert caught.value.exit_code == 3
    outcome = build(coco_only(world, tolerance={"bad_records": 0.1}), out)
    head = outcome.head
    assert (head.totals.samples, sum(head.failures.values())) == (23, 1)
    rows = [row for file in out.rglob("coco-*.parquet") for row in pq.read_table(file).to_pylist()]
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert victim.stem in failed["key"]
    assert failed["reason"]
    # The others are what they would have been: same bytes in every shard but the one that is a sample shorter.
    mine, whole = sha256s(out), sha256s(world / "good")
    differing = {path for path in mine if path.endswith(".tar") and mine[path] != whole[path]}
    assert len(differing) == 1


def test_a_picture_that_changed_in_its_place_is_told(world: Path) -> None:
    """Its folder does not change then, so the catalog stands: `--fresh` reads the dataset again."""
    victim = sorted((world / "coco").rglob("*.jpg"))[3]
    whole = victim.read_bytes()
    build(coco_only(world), world / "good")
    with victim.open("r+b") as file:
        file.truncate(len(whole) - 200)
    with pytest.raises(SourceError, match=rf"{victim.name}: the picture has changed since .* with --fresh"):
        build(coco_only(world), world / "out")
    made = coco_only(world, tolerance={"bad_records": 0.1})
    outcome = build_corpus(plan_corpus(made, refresh=True), Folder.at(world / "out"), Inline(), fresh=True)
    assert sum(outcome.head.failures.values()) == 1


def test_failed_records_can_be_tried_again(world: Path) -> None:
    """A picture spoilt without a change of its size, as by a bad cable, and mended later."""
    victim = sorted((world / "coco").rglob("*.jpg"))[3]
    good = victim.read_bytes()
    build(coco_only(world), world / "good")
    victim.write_bytes(b"\0" * len(good))
    made = coco_only(world, tolerance={"bad_records": 0.1})
    out = world / "out"
    assert build(made, out).head.totals.failed == 1
    assert build(made, out).built == 0
    assert build(made, out, retry_failed=True).built == 1  # still bad
    victim.write_bytes(good)
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    outcome = build(coco_only(world), out, retry_failed=True)
    assert (outcome.built, outcome.kept, outcome.head.failures) == (1, 4, {})
    assert sum(path.stat().st_mtime_ns != stamp for path, stamp in stamps.items()) == 1
    assert sha256s(out) == sha256s(world / "good")


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 5000)])
@pytest.mark.parametrize("whole", [True, False])
def test_a_shard_that_was_lost_is_made_again(world: Path, harm: Callable[[Path], None], whole: bool) -> None:
    """Of a finished corpus and of an unfinished one."""
    build(coco_only(world), world / "good")
    out = world / "out"
    if whole:
        build(coco_only(world), out)
    else:
        with pytest.raises(StorageError):
            build_corpus(plan_corpus(coco_only(world)), Folder.at(out), StopAfter(2))
    harm(sorted(out.rglob("*.tar"))[0])
    outcome = build(coco_only(world), out)
    assert (outcome.built, outcome.kept) == ((1, 4) if whole else (4, 1))
    assert sha256s(out) == sha256s(world / "good")
    assert build(coco_only(world), out).built == 0


def test_a_split_without_a_sample_cannot_be_streamed(world: Path) -> None:
    made = recipe(world, sources=[SOURCES[0]], tolerance={"bad_records": 0.9})
    build(made, world / "whole")
    corpus = Corpus.open(world / "whole")
    for sample in corpus.stream("validation"):
        _garbage(world / "coco" / sample.origin)
    build(made, world / "out")
    corpus = Corpus.open(world / "out")
    assert len(list(corpus.stream("train"))) == len(corpus) > 0
    with pytest.raises(CorpusError, match="the split holds no sample; got validation"):
        corpus.stream("validation")


def test_a_shard_without_a_sample_is_left_out(world: Path) -> None:
    made = coco_only(world, shards={"max_samples": 1}, tolerance={"bad_records": 0.5})
    _garbage(sorted((world / "coco").rglob("*.jpg"))[0])
    outcome = build(made, world / "out")
    shards = outcome.head.splits["train"]["coco"].shards
    assert len(shards) == 23
    assert len(list((world / "out").rglob("*.tar"))) == 23
    assert len(list((world / "out").rglob("coco-*.parquet"))) == 24


def test_a_full_disk_is_told_and_loses_nothing(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world / "whole"
    build(coco_only(world), whole)
    commit, calls = Folder.commit, []

    def full(self: Folder, rel: str, write: Any) -> None:
        calls.append(rel)
        if rel.endswith("000002.tar"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), rel)
        commit(self, rel, write)

    monkeypatch.setattr("aesampler.executors.inline.PAUSE_S", 0.0)
    monkeypatch.setattr(Folder, "commit", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        build(coco_only(world), world / "out")
    assert caught.value.exit_code == 3
    monkeypatch.setattr(Folder, "commit", commit)
    assert build(coco_only(world), world / "out").kept == 2
    assert sha256s(world / "out") == sha256s(whole)


def test_too_little_room_is_told_before_anything_is_written(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folder, "free_bytes", lambda self: 10)
    with pytest.raises(CorpusError, match="not enough room"):
        build(coco_only(world), world / "out")
    assert not list((world / "out").rglob("*.*"))
    build(coco_only(world, images={"max_side": 16}), world / "out")  # how much that takes is not known before


def test_strict_absence_skips_by_rule(world: Path) -> None:
    made = recipe(
        world,
        sources=[SOURCES[1]],
        exposure={"absence": "strict", "irrelevant_from": "categories"},
    )
    outcome = build(made, world / "out")
    rows = [row for file in (world / "out").rglob("lvis-*.parquet") for row in pq.read_table(file).to_pylist()]
    marks = {mark for row in rows for mark in row["presence"]}
    assert marks <= {"present", "absent"}
    assert sum(row["status"] == "skipped" for row in rows) == sum(outcome.head.skipped.values())


def test_resized_pictures_and_masks_fit(world: Path) -> None:
    made = recipe(world, images={"max_side": 32, "jpeg_quality": 90})
    build(made, world / "out")
    corpus = Corpus.open(world / "out")
    for key in list(corpus.keys()):
        sample = corpus[key]
        assert max(sample.frames.shape[1:3]) == 32
        assert sample.frames.shape[:3] == sample.masks.shape == sample.ignored.shape
