from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import worlds
import worlds_videos

from aesampler import build_corpus, plan_corpus
from aesampler.corpus import Corpus
from aesampler.errors import BadRecord, SourceError
from aesampler.executors.inline import Inline
from aesampler.recipe import Recipe
from aesampler.sources.vspw import Vspw
from aesampler.storage import Folder

FIRST = "0_aQ-x_0"


@pytest.mark.parametrize("seed", range(4))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, seed: int) -> None:
    world = worlds_videos.vspw(tmp_path, seed=seed)
    reader = Vspw()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.vspw(tmp_path)
    worlds.assert_order_free(tmp_path, Vspw(), monkeypatch)


def test_absent_means_in_no_frame_of_the_video(tmp_path: Path) -> None:
    worlds_videos.vspw(tmp_path)
    reader, root = Vspw(void_limit=0.9), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    record = next(r for r in map(survey.record, range(3)) if r.id == FIRST)
    size = (worlds.HEIGHT, worlds.WIDTH)
    scene = reader.scene(root, record, names, [4], size)
    assert "person" not in scene.segments  # it left after the first frame
    assert scene.presence("person") == "present"
    assert scene.presence("train") == "absent"
    # Void, in whatever frame, may hide it.
    planes = [worlds.pixels(path) for path in (tmp_path / f"data/{FIRST}/mask").glob("*.png")]
    most = max(float(np.isin(plane, (0, 255)).mean()) for plane in planes)
    assert 0 < most < 0.9
    for limit, presence in ((0.0, "unknown"), (0.99 * most, "unknown"), (most, "absent")):
        assert Vspw(void_limit=limit).scene(root, record, names, [4], size).presence("train") == presence


def test_names_are_split_into_aliases(tmp_path: Path) -> None:
    worlds_videos.vspw(tmp_path)
    told = {entry.name: entry for entry in Vspw().survey(Folder.at(tmp_path)).categories}
    assert (told["ship"].origin, told["ship"].aliases) == ("55", ("boat",))
    assert (told["screen"].origin, told["screen"].aliases) == ("115", ("television",))
    assert "others" not in told


def test_the_real_frames_laid_out_as_vspw(real_data: Path, tmp_path: Path) -> None:
    clip = {"dog": 63, "car-shadow": 49}
    for video, number in clip.items():
        (tmp_path / f"data/{video}/mask").mkdir(parents=True)
        (tmp_path / f"data/{video}/origin").symlink_to(real_data / f"DAVIS/JPEGImages/480p/{video}")
        for path in sorted((real_data / f"DAVIS/Annotations/480p/{video}").glob("*.png"))[:6]:
            plane = np.where(worlds.pixels(path) == 255, number, 1)
            worlds.grey_png(tmp_path / f"data/{video}/mask/{path.name}", plane)
    (tmp_path / "train.txt").write_text("dog\ncar-shadow\n")
    worlds.write_json(tmp_path / "label_num_dic_final.json", {"wall": "1", "dog": "63", "car": "49", "others": "0"})
    reader, root = Vspw(), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    for place, name in ((0, "dog"), (1, "car")):
        record = survey.record(place)
        assert len(record.frames) == 6
        scene = reader.scene(root, record, names, range(6), (480, 854))
        files = sorted((real_data / f"DAVIS/Annotations/480p/{record.id}").glob("*.png"))[:6]
        masks = np.stack([worlds.pixels(file) == 255 for file in files])
        worlds.assert_track(scene.segments[name], masks, name)
        worlds.assert_track(scene.segments["wall"], ~masks, "wall")
        assert scene.void == (None,) * 6
        assert not scene.exhaustive  # the other frames have no mask


def test_an_empty_mask_makes_names_unknown(tmp_path: Path) -> None:
    worlds_videos.vspw(tmp_path)
    path = tmp_path / f"data/{FIRST}/mask/00000003.png"
    path.write_bytes(b"")
    reader, root = Vspw(), Folder.at(tmp_path)
    survey = reader.survey(root)
    names = [entry.name for entry in survey.categories]
    record = next(r for r in map(survey.record, range(3)) if r.id == FIRST)
    size = (worlds.HEIGHT, worlds.WIDTH)
    with pytest.raises(BadRecord, match=rf"data/{FIRST}/mask/00000003.png: an image cannot be read"):
        reader.scene(root, record, names, [2, 3], size)
    scene = reader.scene(root, record, names, [1, 2], size)
    assert scene.presence("train") == "unknown"
    assert scene.presence("person") == "present"


def test_classes_that_the_table_does_not_have(tmp_path: Path) -> None:
    worlds_videos.vspw(tmp_path)
    path = tmp_path / f"data/{FIRST}/mask/00000001.png"
    plane = worlds.pixels(path)
    plane[0] = 254
    worlds.grey_png(path, plane)
    reader, root = Vspw(), Folder.at(tmp_path)
    survey = reader.survey(root)
    record = survey.record(0)
    with pytest.raises(
        BadRecord, match=r"00000001.png: classes that label_num_dic_final.json does not have; got \[254\]"
    ):
        reader.scene(root, record, [entry.name for entry in survey.categories], [1], (worlds.HEIGHT, worlds.WIDTH))


def test_a_picture_of_no_bytes_is_a_bad_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AESAMPLER_CACHE", str(tmp_path / "cache"))
    worlds_videos.vspw(tmp_path / "set", frames=4)
    (tmp_path / f"set/data/{FIRST}/origin/00000001.jpg").write_bytes(b"")
    recipe = Recipe.model_validate(
        {
            "name": "vspw",
            "out": str(tmp_path / "out"),
            "sources": [{"name": "vspw", "format": "vspw", "root": str(tmp_path / "set"), "void_limit": 1.0}],
            "clips": {"frames": 2, "every": 2},
            "exposure": {"absence": "strict", "irrelevant_from": "categories"},
            "tolerance": {"bad_records": 0.5},
        }
    )
    plan = plan_corpus(recipe)
    assert (plan.samples, plan.sources[0].missing) == (6, 1)  # known before anything is built
    build_corpus(plan, Folder.at(tmp_path / "out"), Inline())
    corpus = Corpus.open(str(tmp_path / "out"))
    assert len(corpus) == 5
    names = {name for sample in map(corpus.__getitem__, range(5)) for name in sample.categories}
    assert names <= set(worlds_videos.VSPW_SHOWN.values())


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder data; see: aesampler sources vspw"):
        Vspw().survey(Folder.at(tmp_path))
    worlds_videos.vspw(tmp_path)
    with pytest.raises(SourceError, match=r"no file test.txt; see: aesampler sources vspw"):
        Vspw(subset="test").survey(Folder.at(tmp_path))
    (tmp_path / "test.txt").write_text("9_z\n")
    with pytest.raises(SourceError, match=r"data: 1 of 1 videos of test.txt have no frames, the first 9_z"):
        Vspw(subset="test").survey(Folder.at(tmp_path))
    worlds.jpeg(tmp_path / "data/9_z/origin/00000000.jpg", [], 0)
    with pytest.raises(SourceError, match=r"no video of test.txt has a mask; vspw publishes no masks of its test"):
        Vspw(subset="test").survey(Folder.at(tmp_path))
    (tmp_path / "test.txt").write_text(f"9_z\n{FIRST}\n")
    assert Vspw(subset="test").survey(Folder.at(tmp_path)).skipped == {"videos without a mask": 1}
    (tmp_path / "test.txt").write_text("\n")
    with pytest.raises(SourceError, match=r"test.txt: the list names no video"):
        Vspw(videos="test.txt").survey(Folder.at(tmp_path))
    for body, message in (
        ({"wall": "one"}, "numbers of classes are no numbers"),
        ({"wall": "1", "door": 1}, "two classes have one number"),
    ):
        worlds.write_json(tmp_path / "label_num_dic_final.json", body)
        with pytest.raises(SourceError, match=message):
            Vspw().survey(Folder.at(tmp_path))
    (tmp_path / "label_num_dic_final.json").unlink()
    with pytest.raises(SourceError, match=r"no file label_num_dic_final.json"):
        Vspw().survey(Folder.at(tmp_path))
