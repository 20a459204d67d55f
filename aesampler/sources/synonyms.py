"""What to call a class whose name is a list of synonyms ("car, auto, automobile"), as ADE20K and its kin have them.

A synonym that two classes share identifies neither, so it is neither shown nor an alias: "ground" is earth's and
land's, "counter" is a counter and a buffet. The shown name is the first synonym that is the class's alone; a class
without one is shown by its whole name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from aesampler.record import Category


def categories(classes: Mapping[int, str]) -> tuple[Category, ...]:
    """The categories of `classes` (the dataset's id -> comma-separated synonyms), in ascending order of id.

    Names are unique: where two classes have the same whole name, the one with the larger id carries its id in brackets.
    """
    synonyms = {number: _split(classes[number]) for number in sorted(classes)}
    owners = Counter(
        word.casefold() for words in synonyms.values() for word in {w.casefold(): w for w in words}.values()
    )
    taken: set[str] = set()
    found = []
    for number, words in synonyms.items():
        own = [word for word in words if owners[word.casefold()] == 1]
        name = own[0] if own else ", ".join(words)
        if name in taken:
            name = f"{name} ({number})"
        taken.add(name)
        found.append(Category(name=name, origin=str(number), aliases=tuple(own[1:])))
    return tuple(found)


def _split(name: str) -> list[str]:
    words = [" ".join(word.split()) for word in name.split(",")]
    return list(dict.fromkeys(word for word in words if word))
