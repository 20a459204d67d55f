from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aesampler.record import Category
from aesampler.sources import synonyms


def test_a_shared_synonym_identifies_neither() -> None:
    found = synonyms.categories(
        {14: "earth, ground", 46: "counter", 95: "land, ground, soil", 100: "buffet, counter, sideboard"}
    )
    assert found == (
        Category(name="earth", origin="14"),
        Category(name="counter", origin="46"),
        Category(name="land", origin="95", aliases=("soil",)),
        Category(name="buffet", origin="100", aliases=("sideboard",)),
    )


def test_two_classes_that_start_with_one_word_stay_two() -> None:
    found = synonyms.categories({2855: "tree", 2856: "tree, tree diagram", 9: "tree, tree diagram "})
    assert [entry.name for entry in found] == ["tree, tree diagram", "tree", "tree, tree diagram (2856)"]
    assert [entry.origin for entry in found] == ["9", "2855", "2856"]


def test_stray_spaces_doubles_and_case() -> None:
    found = synonyms.categories({1: " crt  screen , CRT screen,, tube", 2: "Tube"})
    assert found == (
        Category(name="crt screen", origin="1", aliases=("CRT screen",)),
        Category(name="Tube", origin="2"),
    )


words = st.lists(st.sampled_from(["tree", "Tree", "pole", "pot", "stool", "tree (1)"]), min_size=1, max_size=4).map(
    ", ".join
)


@given(st.dictionaries(st.integers(1, 9), words))
def test_names_are_unique_and_aliases_nobody_elses(classes: dict[int, str]) -> None:
    found = synonyms.categories(classes)
    assert [int(entry.origin) for entry in found] == sorted(classes)
    assert len({entry.name for entry in found}) == len(found)
    for entry in found:
        for other in found:
            if other is not entry:
                theirs = {word.strip().casefold() for word in classes[int(other.origin)].split(",")}
                assert not theirs.intersection(alias.casefold() for alias in entry.aliases)
