"""The redraw string: its text is pinned, it reads back to the same scene, and what is not one is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesampler import masks
from aesampler.errors import CorpusError
from aesampler.scene import Scene

DOT = masks.encode(np.array([[True, False], [False, False]]))
NAME = st.text(min_size=1, max_size=6)
TRACK = st.tuples(st.sampled_from([None, DOT]), st.just(DOT))
NAMED = st.dictionaries(NAME, TRACK, max_size=4)


def test_the_text_is_pinned() -> None:
    scene = Scene(
        height=2,
        width=2,
        annotated=(True, False),
        segments={"dog": (DOT, None), "cat": (None, DOT)},
        ignored={"crowd": (DOT, DOT)},
        void=(None, DOT),
        present=frozenset({"elsewhere", "dog"}),
        absent=frozenset({"b", "a"}),
    )
    assert DOT == "013"
    rle = '{"size":[2,2],"counts":"013"}'
    assert scene.to_json() == (
        '{"version":1,"size":[2,2],"annotated":[true,false],'
        f'"segments":{{"cat":[null,{rle}],"dog":[{rle},null]}},"incomplete":{{}},"ignored":{{"crowd":[{rle},{rle}]}},'
        f'"void":[null,{rle}],"present":["elsewhere"],"absent":["a","b"],"exhaustive":false}}'
    )


@given(
    segments=NAMED,
    incomplete=NAMED,
    ignored=NAMED,
    void=TRACK,
    present=st.frozensets(NAME),
    absent=st.frozensets(NAME),
    exhaustive=st.booleans(),
)
def test_a_scene_reads_back(
    segments: dict[str, tuple[str | None, ...]],
    incomplete: dict[str, tuple[str | None, ...]],
    ignored: dict[str, tuple[str | None, ...]],
    void: tuple[str | None, ...],
    present: frozenset[str],
    absent: frozenset[str],
    exhaustive: bool,
) -> None:
    scene = Scene(
        height=2,
        width=2,
        annotated=(True, False),
        segments=segments,
        incomplete=incomplete,
        ignored=ignored,
        void=void,
        present=present,
        absent=absent,
        exhaustive=exhaustive,
    )
    text = scene.to_json()
    again = Scene.from_json(text)
    assert again.to_json() == text
    assert again.seen == scene.seen
    for name in present | absent | set(segments) | {"never"}:
        assert again.presence(name) == scene.presence(name)
    assert json.loads(text)["version"] == 1


def test_presence() -> None:
    scene = Scene(height=1, width=1, annotated=(True,), segments={"a": ("1",)}, absent=frozenset({"a", "b"}))
    assert [scene.presence(name) for name in "abc"] == ["present", "absent", "unknown"]
    whole = Scene(height=1, width=1, annotated=(True,), present=frozenset({"a"}), exhaustive=True)
    assert [whole.presence(name) for name in "ab"] == ["present", "absent"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', "no"])
def test_what_is_no_redraw_string_is_refused(text: str) -> None:
    with pytest.raises(CorpusError):
        Scene.from_json(text)


def test_another_version_is_refused() -> None:
    text = Scene(height=1, width=1, annotated=(True,)).to_json().replace('"version":1', '"version":9')
    with pytest.raises(CorpusError, match="unknown version of the redraw string; got 9; allowed: 1"):
        Scene.from_json(text)


def test_a_track_has_one_entry_a_frame() -> None:
    with pytest.raises(ValueError, match="'a' has 1 masks for 2 frames"):
        Scene(height=1, width=1, annotated=(True, True), segments={"a": ("1",)})
