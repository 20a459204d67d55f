"""Exports, read back by what they are made for: pycocotools, DALI's index rules, a video decoder."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import corpora
import numpy as np
import outputs
import pytest
import worlds
from PIL import Image
from pycocotools.coco import COCO

from aesampler import Corpus, Folder, Inline, Recipe, build_corpus, plan_corpus, video
from aesampler.cli import run
from aesampler.errors import AesamplerError, CorpusError, RecipeError
from aesampler.export import KINDS, Exported, Selection, export
from aesampler.pictures import LABELS, veil

SECOND = corpora.Part(source="lvis", shards=(3,), encoding="png")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Pictures of two sources in train, clips with padding in validation, and what failed or was skipped."""
    parts = (*corpora.PARTS, SECOND)
    return Corpus.open(corpora.write(tmp_path_factory.mktemp("corpus") / "tiny", parts))


# -- dali --------------------------------------------------------------------------------------------------------------


def by_tarfile(path: Path) -> str:
    """DALI's `wds2idx` again, by the rules of its documentation and another reader of tars."""
    samples: dict[str, list[str]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            samples.setdefault(key, []).append(f"{extension} {member.offset_data} {member.size} {member.name}")
    return "".join(f"{line}\n" for line in [f"v1.2 {len(samples)}", *(" ".join(each) for each in samples.values())])


def test_a_dali_index_is_that_of_its_tar(corpus: Corpus, tmp_path: Path) -> None:
    done = export("dali", corpus, Folder.at(tmp_path / "out"))
    tars = sorted(corpus.folder.path.rglob("*.tar"))
    assert done == Exported(samples=len(corpus), files=len(tars))
    assert len(tars) == 4
    for tar in tars:
        place = tar.relative_to(corpus.folder.path).with_suffix(".idx")
        assert (tmp_path / "out" / place).read_text() == by_tarfile(tar)


def test_a_dali_index_gives_every_member(corpus: Corpus, tmp_path: Path) -> None:
    """As DALI reads: words by white space, offsets that are multiples of 512, no look at the tar's headers."""
    export("dali", corpus, Folder.at(tmp_path / "out"))
    found: dict[str, dict[str, bytes]] = {}
    for index in sorted((tmp_path / "out").rglob("*.idx")):
        data = (corpus.folder.path / index.relative_to(tmp_path / "out").with_suffix(".tar")).read_bytes()
        head, *lines = index.read_text().splitlines()
        assert head.split() == ["v1.2", str(len(lines))]
        for line in lines:
            words = line.split()
            for extension, offset, size, name in zip(*(words[start::4] for start in range(4)), strict=True):
                assert int(offset) % 512 == 0
                assert name.partition(".")[2] == extension
                found.setdefault(name.partition(".")[0], {})[extension] = data[int(offset) : int(offset) + int(size)]
    assert found == {row.key: corpus.members(row) for row in corpus.rows()}


def test_an_index_is_of_whole_shards(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="an index is of whole shards"):
        export("dali", corpus, Folder.at(tmp_path / "out"), Selection(limit=2))
    done = export("dali", corpus, Folder.at(tmp_path / "clips"), Selection(source="davis"))
    assert done == Exported(samples=3, files=1)


# -- coco --------------------------------------------------------------------------------------------------------------


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def masks_of(coco: COCO, image: int, crowd: int) -> list[Any]:
    return [coco.annToMask(a).astype(bool) for a in coco.loadAnns(coco.getAnnIds(imgIds=[image], iscrowd=bool(crowd)))]


def check(coco: COCO, pictures: Path, corpus: Corpus, keys: set[str]) -> None:
    """Every frame of every sample, compared with our own reader's."""
    assert {image["key"] for image in coco.dataset["images"]} == keys
    frames: dict[str, int] = {}
    for number, image in enumerate(coco.dataset["images"], start=1):
        assert image["id"] == number
        key = image["key"]
        sample, place = corpus[key], image.get("frame_id", 0)
        assert place == frames.get(key, 0)
        frames[key] = place + 1
        assert (image["source"], image["split"], image["origin"]) == (sample.source, sample.split, sample.origin)
        assert image["categories"] == list(sample.categories)
        assert image["is_genuine"] == list(sample.is_genuine)
        assert image["presence"] == list(sample.presence)
        assert image["anomalous"] == sample.anomalous
        assert image["frame_label"] == sample.frame_labels[place]
        assert image["origin_frame"] == sample.origin_frames[place]
        assert (image["height"], image["width"]) == sample.masks.shape[1:]
        with Image.open(pictures / image["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture.convert("RGB")), sample.frames[place])
        whole = np.ones(sample.masks.shape[1:], bool)
        annotated = sample.scene.annotated[place]
        for crowd, plane in enumerate([sample.masks[place], sample.ignored[place] if annotated else whole]):
            expected = [plane] if plane.any() else []
            assert np.array_equal(masks_of(coco, number, crowd), expected)
    assert frames == {key: corpus[key].valid_frames for key in keys}
    for number, annotation in enumerate(coco.dataset["annotations"], start=1):
        assert annotation["id"] == number
        plane = coco.annToMask(annotation).astype(bool)
        assert annotation["area"] == plane.sum()
        left, top, width, height = annotation["bbox"]
        assert plane[top : top + height, left : left + width].sum() == plane.sum()
        assert plane[top].any()
        assert plane[:, left + width - 1].any()


def test_coco_holds_what_our_reader_gives(corpus: Corpus, tmp_path: Path) -> None:
    done = export("coco", corpus, Folder.at(tmp_path))
    train, validation = load(tmp_path / "annotations/instances_train.json"), None
    check(train, tmp_path / "images/train", corpus, set(corpus.keys("train")))
    assert train.dataset["categories"] == [{"id": 1, "name": "anomaly", "supercategory": "anomaly"}]
    assert train.dataset["videos"] == []
    validation = load(tmp_path / "annotations/instances_validation.json")
    check(validation, tmp_path / "images/validation", corpus, set(corpus.keys("validation")))
    names = {video["id"]: video["name"] for video in validation.dataset["videos"]}
    assert list(names) == [1, 2, 3]
    assert all(names[image["video_id"]] == image["key"] for image in validation.dataset["images"])
    assert done.samples == len(corpus)
    assert done.files == len(list(tmp_path.rglob("*.*"))) - 1
    for coco in (train, validation):
        assert {annotation["iscrowd"] for annotation in coco.dataset["annotations"]} == {0, 1}


def test_pictures_are_the_bytes_of_the_shard(corpus: Corpus, tmp_path: Path) -> None:
    export("coco", corpus, Folder.at(tmp_path))
    for row in corpus.rows():
        members = corpus.members(row)
        for extension in (name for name in members if name.endswith(("jpg", "png")) and not name.endswith("mask.png")):
            frame, _, ending = extension.rpartition(".")
            name = f"{row.key}/{frame}.{ending}" if frame else f"{row.key}.{ending}"
            file = tmp_path / "images" / row.split / name
            if frame and int(frame) >= row.valid_frames:
                assert not file.exists()
            else:
                assert file.read_bytes() == members[extension]


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Clips of which some frames are not annotated."""
    base = tmp_path_factory.mktemp("sparse")
    made = worlds.youtube_vos(base / "vos", videos=2, frames=5)
    for file in sorted(made.root.rglob("Annotations/*/*.png"))[1::2]:
        file.unlink()
    source = {"name": "vos", "format": "youtube-vos", "root": "vos", "frames": "all"}
    exposure = {"absence": "unlisted"}
    recipe = Recipe.of(
        {
            "name": "sparse",
            "sources": [source],
            "clips": {"frames": 4, "every": 4},
            "exposure": exposure,
        },
        base=base,
    )
    build_corpus(plan_corpus(recipe), Folder.at(base / "corpus"), Inline())
    return Corpus.open(base / "corpus")


def test_what_nobody_annotated_is_ignored_as_a_whole(sparse: Corpus, tmp_path: Path) -> None:
    """Our reader says 255 of such a frame; COCO has no such word, and an empty picture would be a statement."""
    export("coco", sparse, Folder.at(tmp_path))
    coco = load(tmp_path / "annotations/instances_train.json")
    assert {flag for sample in sparse for flag in sample.scene.annotated} == {True, False}
    check(coco, tmp_path / "images/train", sparse, set(sparse.keys()))
    unknown = [image for image in coco.dataset["images"] if image["frame_label"] == 255]
    assert unknown
    for image in unknown:
        (plane,) = masks_of(coco, image["id"], 1)
        assert plane.all()
        assert not masks_of(coco, image["id"], 0)


# -- video -------------------------------------------------------------------------------------------------------------


def frames_of(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 8
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_clips_become_videos(sparse: Corpus, tmp_path: Path) -> None:
    """What is decoded is what was painted, as near as H.264 keeps it, whose colours have half the resolution."""
    done = export("video", sparse, Folder.at(tmp_path))
    assert done == Exported(samples=len(sparse), files=len(sparse))
    seen = set()
    for sample in sparse:
        shown = frames_of(tmp_path / "train" / f"{sample.key}.mp4")
        assert len(shown) == sample.valid_frames
        height, width = sample.masks.shape[1:]
        for place, frame in enumerate(shown):
            assert frame.shape == (height + 8 + height % 2, width + width % 2, 3)
            mask, ignored = sample.masks[place], sample.ignored[place]
            colour, cover = veil(mask, ignored, (width, height))
            expected = (1 - cover) * sample.frames[place] + cover * colour
            assert np.abs(frame[:height, :width] - expected).mean() < 12
            label = int(sample.frame_labels[place])
            assert np.abs(frame[height + 2 : height + 6, :width].mean(axis=(0, 1)) - LABELS[label][1]).max() < 12
            seen.add(label)
    assert seen >= {1, 255}


def test_padding_is_left_out_and_pictures_make_no_videos(corpus: Corpus, tmp_path: Path) -> None:
    done = export("video", corpus, Folder.at(tmp_path / "out"), Selection(limit=3))
    assert done.files == 3
    padded = [row for row in corpus.rows(source="davis") if row.valid_frames < row.frames]
    for row in corpus.rows(source="davis"):
        assert len(frames_of(tmp_path / "out" / row.split / f"{row.key}.mp4")) == row.valid_frames
    assert not padded or min(row.valid_frames for row in padded) == 2
    with pytest.raises(CorpusError, match="no clips are selected"):
        export("video", corpus, Folder.at(tmp_path / "none"), Selection(split="train"))


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (33, 20)])
def test_a_written_video_is_read_back(size: tuple[int, int], tmp_path: Path) -> None:
    rows, columns = np.indices(size)
    frames = [np.stack([rows * 4 + step, columns * 4, rows + columns], axis=-1).astype(np.uint8) for step in range(7)]
    with (tmp_path / "a.mp4").open("wb") as sink:
        video.write(sink, frames, 8)
    shown = frames_of(tmp_path / "a.mp4")
    assert len(shown) == 7
    for frame, kept in zip(frames, shown, strict=True):
        assert kept.shape == (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
        assert np.abs(kept[: size[0], : size[1]] - frame).mean() < 8


def test_a_video_needs_frames_of_one_size(tmp_path: Path) -> None:
    frames = [np.zeros((16, 16, 3), np.uint8), np.zeros((18, 16, 3), np.uint8)]
    for wrong, told in ((frames, "of one size"), ([], "needs a picture")):
        with (tmp_path / "x.mp4").open("wb") as sink, pytest.raises(ValueError, match=told):
            video.write(sink, wrong, 8)


# -- all of them -------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """Path -> sha256; of a video, of nothing: the bytes are the encoder's affair."""
    return {path: "" if path.endswith(".mp4") else sha for path, sha in outputs.sha256s(folder).items()}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_same_again(kind: str, corpus: Corpus, tmp_path: Path) -> None:
    """In another folder, and over an export that was stopped."""
    before = outputs.sha256s(corpus.folder.path)
    for name in ("a", "b"):
        export(kind, corpus, Folder.at(tmp_path / name))
    made = contents(tmp_path / "a")
    assert made == contents(tmp_path / "b")
    last = sorted((tmp_path / "b").rglob("*.*"))[-1]
    last.unlink()
    export(kind, corpus, Folder.at(tmp_path / "b"))
    assert contents(tmp_path / "b") == made
    assert outputs.sha256s(corpus.folder.path) == before


def test_a_limit_takes_the_first_of_each_source(corpus: Corpus, tmp_path: Path) -> None:
    done = export("coco", corpus, Folder.at(tmp_path), Selection(limit=2, split="train"))
    body = json.loads((tmp_path / "annotations/instances_train.json").read_text())
    first = [key for source in ("coco", "lvis") for key in list(corpus.keys("train", source))[:2]]
    assert [image["key"] for image in body["images"]] == first
    assert done == Exported(samples=4, files=5)
    assert not (tmp_path / "annotations/instances_validation.json").exists()


def refused(corpus: Corpus, out: Path, kind: str = "dali", **selection: Any) -> AesamplerError:
    with pytest.raises(AesamplerError) as caught:
        export(kind, corpus, Folder.at(out), Selection(**selection))
    return caught.value


def test_what_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    assert "holds something else; got thesis.tex" in str(refused(corpus, tmp_path / "mine"))
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    export("dali", corpus, Folder.at(tmp_path / "out"))
    assert "holds another export" in str(refused(corpus, tmp_path / "out", "coco"))
    assert "holds another export" in str(refused(corpus, tmp_path / "out", split="train"))
    root = corpus.folder.path
    for place in (root, root / "idx", root.parent):
        assert "may not share a folder with a corpus" in str(refused(corpus, place))
    assert "did you mean coco?" in str(refused(corpus, tmp_path / "x", "cocoo"))
    assert "no such split; got test" in str(refused(corpus, tmp_path / "x", split="test"))
    assert "no such source; got ade" in str(refused(corpus, tmp_path / "x", source="ade"))
    assert "nothing is selected" in str(refused(corpus, tmp_path / "x", split="train", source="davis"))
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_done_leaves_no_folder(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "an index is of whole shards; got limit 3" in str(refused(corpus, tmp_path / "out", limit=3))
    assert "no clips are selected" in str(refused(corpus, tmp_path / "out", "video", split="train"))
    monkeypatch.setitem(sys.modules, "av", None)
    assert "needs the package av" in str(refused(corpus, tmp_path / "out", "video"))
    assert run(["export", "video", str(corpus.folder.path), str(tmp_path / "out")]) != 0
    assert "pip install 'aesampler[video]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_a_failed_file(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(sample: Any) -> Iterator[Any]:
        yield np.zeros((16, 16, 3), np.uint8)
        raise OSError("the disk went away")

    monkeypatch.setattr("aesampler.export.video.painted", broken)
    with pytest.raises(AesamplerError, match="disk went away"):
        export("video", corpus, Folder.at(tmp_path / "out"))
    assert list(outputs.sha256s(tmp_path / "out")) == ["export.json"]


def test_the_command(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(corpus.folder.path)
    assert run(["export", "coco", root, str(tmp_path / "a"), "--split", "train", "--limit", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"kind": "coco", "out": str(tmp_path / "a"), "samples": 2, "files": 3}
    assert run(["export", "dali", root, str(tmp_path / "b")]) == 0
    assert f"{tmp_path}/b: {len(corpus)} samples in 4 files" in capsys.readouterr().out
    assert run(["export", "tfrecord", root, str(tmp_path / "c")]) == 2
    assert "allowed: coco, dali, video" in capsys.readouterr().err
    assert run(["export", "--help"]) == 0
    assert "--limit" in capsys.readouterr().out


def test_an_object_store(corpus: Corpus, bucket: str, tmp_path: Path) -> None:
    """Out of a bucket and into one."""
    there = Folder.at(f"{bucket}/corpus")
    for path in corpus.folder.list():
        there.commit_bytes(path, corpus.folder.read(path))
    for kind in KINDS:
        export(kind, corpus, Folder.at(tmp_path / kind))
        export(kind, Corpus.open(there), out := Folder.at(f"{bucket}/out/{kind}"))
        for path in out.list():
            Folder.at(tmp_path / "back" / kind).commit_bytes(path, out.read(path))
        assert contents(tmp_path / "back" / kind) == contents(tmp_path / kind)
