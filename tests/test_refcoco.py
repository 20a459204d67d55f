from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import worlds
import worlds_images
from hypothesis import given
from hypothesis import strategies as st

from aesampler.errors import BadRecord, SourceError
from aesampler.scene import Scene
from aesampler.sources.refcoco import RefCoco, read_pickle
from aesampler.sources.source import Survey
from aesampler.storage import Folder

FAMILY = (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "google"), ("refclef", "berkeley"), ("grefcoco", "unc"))


def read(root: Path, **options: object) -> tuple[Survey, dict[str, Scene]]:
    """The survey of a root, and every scene by record id."""
    reader, folder = RefCoco(**options), Folder.at(root)
    survey = reader.survey(folder)
    names = [entry.name for entry in survey.categories]
    scenes = {}
    for place in range(len(survey.items)):
        record = survey.record(place)
        scenes[record.id] = reader.scene(folder, record, names, [0], worlds.size_of(root / record.frames[0]))
    return survey, scenes


def references(root: Path, change: Any) -> None:
    """Write the pickle of `root` again, its references changed by `change`."""
    path = root / "refcoco/refs(unc).p"
    told = pickle.loads(path.read_bytes())
    change(told)
    path.write_bytes(pickle.dumps(told, protocol=2))


@pytest.mark.parametrize(("dataset", "by"), FAMILY)
@pytest.mark.parametrize("subset", ["train", "validation", "test"])
def test_a_world_is_read_to_the_pixel(tmp_path: Path, dataset: str, by: str, subset: str) -> None:
    world = worlds_images.refcoco(tmp_path, dataset=dataset, by=by, subset=subset)
    reader = RefCoco(**world.options, part="testA" if subset == "test" else None, subset=subset)
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_images.refcoco(tmp_path)
    worlds.assert_order_free(tmp_path, RefCoco(), monkeypatch)


def test_phrases_of_other_pictures_are_unknown_and_those_without_a_target_absent(tmp_path: Path) -> None:
    worlds_images.refcoco(tmp_path, dataset="grefcoco")
    scene = read(tmp_path, dataset="grefcoco")[1]["COCO_train2014_000000000100"]
    told = ("thing 0 of 0", "thing 1 of 0", "both in 0", "thing 0 of 1", "a unicorn for 1", "a unicorn for 0")
    assert [scene.presence(name) for name in told] == ["present", "present", "present", "unknown", "unknown", "absent"]


def test_a_phrase_of_another_split_of_the_picture_is_present(tmp_path: Path) -> None:
    """`google` has pictures in train and in val."""
    worlds_images.refcoco(tmp_path)

    def say(told: list[dict[str, Any]]) -> None:
        told[2]["sentences"].append({"sent": "thing 0 of 1"})  # of picture 0, split val; picture 1 has it in train

    references(tmp_path, say)
    scene = read(tmp_path)[1]["COCO_train2014_000000000100"]
    assert scene.presence("thing 0 of 1") == "present"
    assert "thing 0 of 1" not in scene.segments


@pytest.mark.parametrize(
    ("part", "splits"),
    [
        ("train", {"train"}),
        ("val", {"val"}),
        ("test", {"test", "testA", "testB", "testAB", "testC"}),
        ("testA", {"testA", "testAB"}),
        ("testB", {"testB", "testAB"}),
        ("testC", {"testC"}),
    ],
)
def test_splits(tmp_path: Path, part: str, splits: set[str]) -> None:
    worlds_images.refcoco(tmp_path, images=3)

    def deal(told: list[dict[str, Any]]) -> None:
        names = ("train", "val", "test", "testA", "testB", "testAB", "testC")
        for reference, split in zip(told, names, strict=False):
            reference |= {"split": split, "sentences": [{"sent": split}]}
        del told[len(names) :]

    references(tmp_path, deal)
    survey, _ = read(tmp_path, part=part)
    assert {entry.name for entry in survey.categories} == {split.lower() for split in splits}


class Malicious:
    """What a pickle calls when it is loaded: `os.system` and its kin."""

    def __init__(self, call: Any, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("how", ["system", "eval", "mkdir"])
def test_a_pickle_that_carries_code_does_not_run_it(tmp_path: Path, protocol: int, how: str) -> None:
    worlds_images.refcoco(tmp_path)
    mark = tmp_path / "owned"
    code = {
        "system": Malicious(os.system, f"touch {mark}"),
        "eval": Malicious(eval, f"open({str(mark)!r}, 'w').close()"),
        "mkdir": Malicious(os.mkdir, str(mark)),
    }[how]
    path = tmp_path / "refcoco/refs(unc).p"
    good = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps([*good, code], protocol=protocol))
    with pytest.raises(SourceError, match=r"refs\(unc\).p: not a list of phrases: it asks for .*plain types only"):
        read(tmp_path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())  # the file is what it claims to be: the ordinary unpickler runs it
    assert mark.exists()


def test_extension_codes_and_outside_objects_are_refused() -> None:
    for data in (b"\x80\x02\x82\x01.", b"Pname\n."):
        with pytest.raises(ValueError, match=r".+"):
            read_pickle(data)


@given(st.binary(max_size=80))
def test_broken_pickles_are_value_errors(data: bytes) -> None:
    try:
        read_pickle(data)
    except ValueError:
        return


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain, st.sampled_from([0, 1, 2, 3, 4, 5]))
def test_plain_pickles_are_read(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol=protocol)) == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told[0].update(image_id=7), "a reference names an unknown picture; got 7"),
        (lambda told: told[0].update(ann_id=7), "an annotation that its picture does not have; got 7"),
        (lambda told: told[0].update(ann_id=101000), "an annotation that its picture does not have; got 101000"),
        (lambda told: told[0].pop("split"), "not a list of phrases: .*split"),
        (lambda told: told[:] and told.clear(), "no phrase of the part train"),
    ],
)
def test_wrong_references(tmp_path: Path, change: Any, message: str) -> None:
    worlds_images.refcoco(tmp_path)
    references(tmp_path, change)
    with pytest.raises(SourceError, match=message):
        read(tmp_path)


def test_objects_without_a_phrase_are_counted(tmp_path: Path) -> None:
    worlds_images.refcoco(tmp_path)
    references(tmp_path, lambda told: told[0].update(sentences=[{"sent": "  "}]))
    assert read(tmp_path)[0].skipped == {"objects without a phrase": 1}


def test_wrong_layouts(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file refcoco/refs\(unc\).p; see: aesampler sources refcoco"):
        read(tmp_path)
    worlds_images.refcoco(tmp_path)
    with pytest.raises(SourceError, match=r"no file refcoco/refs\(google\).p"):
        read(tmp_path, by="google")
    with pytest.raises(SourceError, match=r"no file refcocog/refs\(umd\).p"):
        read(tmp_path, dataset="refcocog")
    with pytest.raises(SourceError, match="none of the pictures that the annotations name"):
        read(tmp_path, images="photos")
    body = tmp_path / "refcoco/instances.json"
    told = json.loads(body.read_text())
    told["images"][0]["file_name"] = "../../../etc/passwd"
    worlds.write_json(body, told)
    with pytest.raises(SourceError, match=r"a path leaves its folder, or is none; got '../../../etc/passwd'"):
        read(tmp_path)
    body.unlink()
    with pytest.raises(SourceError, match=r"no file refcoco/instances.json"):
        read(tmp_path)


def test_impossible_masks_are_bad_records(tmp_path: Path) -> None:
    worlds_images.refcoco(tmp_path)
    body = tmp_path / "refcoco/instances.json"
    told = json.loads(body.read_text())
    told["annotations"][0]["segmentation"] = [[1, 1, 5, 5]]
    worlds.write_json(body, told)
    with pytest.raises(BadRecord, match="COCO_train2014_000000000100: a polygon is not a list of x, y"):
        read(tmp_path)
