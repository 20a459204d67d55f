from __future__ import annotations

from pathlib import Path

import pytest
import worlds
import worlds_videos

from aesampler.errors import SourceError
from aesampler.sources.vipseg import THINGS, Vipseg
from aesampler.storage import Folder


@pytest.mark.parametrize("edition", ["full", "720p"])
@pytest.mark.parametrize("seed", range(3))
def test_a_world_is_read_to_the_pixel(tmp_path: Path, edition: str, seed: int) -> None:
    world = worlds_videos.vipseg(tmp_path, seed=seed, edition=edition)
    reader = Vipseg()
    worlds.assert_read(world, reader.survey(Folder.at(tmp_path)), reader)


def test_the_order_of_the_listing_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds_videos.vipseg(tmp_path)
    worlds.assert_order_free(tmp_path, Vipseg(), monkeypatch)


def test_values_as_the_set_writes_them() -> None:
    reader = Vipseg()
    assert len(THINGS) == 58
    assert reader.value(1) == (1, False)  # a wall
    assert reader.value(61) == (61, True)  # persons that were not told apart
    assert reader.value(6100) == (61, False)
    assert reader.value(12417) == (124, False)
    assert reader.value(124) == (124, True)
    assert reader.value(300) == (3, False)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no folder imgs or images; see: aesampler sources vipseg"):
        Vipseg().survey(Folder.at(tmp_path))
