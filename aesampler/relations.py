"""Which names of a vocabulary stand for one thing, or for things that do not exclude each other.

A picture of a `rider` shows a `person`, one of a `couch` shows a `sofa`, whatever the annotators were asked to write.
So each name of a vocabulary gets two sets of others, stored with it:

    near   the name may be said of what the other names: a synonym, another spelling or the plural; what it is a kind of
           (person of rider) or a kind of it; a part of it or its whole. Never listed where the other is present, even
           where a dataset counts it as absent: it means that no segment carries that label.
    kin    another thing that is often taken for it: car and truck. Listed where the record knows it absent, since there
           somebody told them apart (a good hard negative); else not.

Three sources of knowledge, all local: the names and aliases themselves; `relations.yaml`, a small table of our own; and
the noun files of WordNet where they are installed ($WNHOME/dict, /usr/share/wordnet: Debian's wordnet-base). What came
of them is in the corpus's vocabulary, whose sha256 is in corpus.json, beside WordNet's version among the tools.

Spelling: lower case, `_` and `-` as spaces, without "(sense)", `-merged`, `-other`, `-stuff`; last word in the
singular; spaces do not count ("hot dog", "hotdog"). Classes that are spelt alike stay different names, near each other:
ADE20K has two called "tree". Not so where the dataset gives both a sense, "bow (weapon)" and "bow (decorative
ribbons)", or the spelling has two senses (`mouse`, see the table).

1,203 names with WordNet take 0.3 s, 12,913 phrases 0.6 s.
"""

from __future__ import annotations

import itertools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import yaml

from aesampler.vocabulary import Name, Vocabulary

_SENSE = re.compile(r"\s*\(([^)]*)\)")
_ENDING = re.compile(r"(\s(merged|other|stuff))+$")
_PLURALS = (
    "men:man women:woman children:child people:person mice:mouse geese:goose feet:foot teeth:tooth oxen:ox buses:bus "
    "dice:die loaves:loaf knives:knife leaves:leaf shelves:shelf scarves:scarf calves:calf halves:half wolves:wolf "
    "lives:life wives:wife thieves:thief hooves:hoof"
)
_IRREGULAR = dict(pair.split(":") for pair in _PLURALS.split())
_SAME_IN_BOTH = re.compile(r"(ss|us|is|series|species|skis|pants|shorts|jeans|glasses|goggles|scissors|news|clothes)$")
DEBIAN = "/usr/share/wordnet"


# -- spelling ----------------------------------------------------------------------------------------------------------


def spelling(name: str) -> str:
    """What is compared of a name: names of one spelling are one word, written differently."""
    bare = _words(name)
    head, _, last = bare.rpartition(" ")
    return (head + singular(last)).replace(" ", "").replace("'", "")


def _words(name: str) -> str:
    text = _SENSE.sub("", unicodedata.normalize("NFKC", name).lower())
    return _ENDING.sub("", " ".join(re.sub(r"[_-]", " ", text).split()))


def singular(word: str) -> str:
    """The singular of an English noun, by its ending; a word that is none comes back as something else, but always as
    the same.
    """
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or _SAME_IN_BOTH.search(word):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if re.search(r"(ch|sh|ss|x|zz)es$", word):
        return word[:-2]
    return word[:-1]


def _sense(name: str) -> str:
    """The sense that a dataset gives in brackets; "" for none, or for a mere number."""
    found = _SENSE.search(name)
    return found[1].lower() if found and not found[1].strip().isdigit() else ""


# -- the table ---------------------------------------------------------------------------------------------------------

_NEAR = {("same", "same"), ("same", "kinds"), ("same", "includes")}
_KIN = {("same", "alike"), ("kinds", "alike"), ("kinds", "kinds"), ("alike", "alike"), ("includes", "alike")}
_ROLES = ("same", "kinds", "includes", "alike")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`relations.yaml`: spelling -> (row, role) of each row that holds it; and the spellings of two senses."""

    places: Mapping[str, tuple[tuple[int, str], ...]]
    two_senses: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Table:
        """The table of YAML text. Raises ValueError where a row has an unknown role."""
        body = yaml.safe_load(text)
        places: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for number, row in enumerate(body["rows"]):
            if not row.keys() <= set(_ROLES):
                raise ValueError(f"row {number}: {sorted(row)}, where {_ROLES} are allowed")
            for role in _ROLES:
                for word in row.get(role, ()):
                    places[spelling(word)].append((number, role))
        return cls(
            places={word: tuple(found) for word, found in places.items()},
            two_senses=frozenset(spelling(word) for word in body["two_senses"]),
        )


@cache
def table() -> Table:
    """The table that travels with the package."""
    return Table.parse((resources.files("aesampler") / "relations.yaml").read_text(encoding="utf-8"))


# -- WordNet -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Synset:
    """One sense: the words for it, and the offsets of what it is a kind of and of its parts."""

    words: tuple[str, ...]
    kinds_of: tuple[int, ...]
    parts: tuple[int, ...]


@dataclass(slots=True)
class WordNet:
    """The noun files of WordNet in `folder` (wndb(5WN)), of which only what is asked for is parsed.

    version: as the file's own header says, "3.0".
    """

    folder: Path
    _data: bytes = field(init=False, repr=False)
    _senses: dict[str, tuple[int, ...]] = field(init=False, repr=False, default_factory=dict)
    _synsets: dict[int, Synset] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._data = (self.folder / "data.noun").read_bytes()

    @classmethod
    def installed(cls) -> WordNet | None:
        """WordNet below $WNHOME, else where Debian has it; None where neither holds it. WNHOME="" turns it off."""
        home = os.environ.get("WNHOME")
        folder = Path(DEBIAN) if home is None else Path(home) / "dict"
        if home == "" or not all((folder / name).is_file() for name in ("index.noun", "data.noun")):
            return None
        return cls(folder)

    @property
    def version(self) -> str:
        """The version that the licence text at the head of the file names; "unknown" where it names none."""
        found = re.search(rb"WordNet (\d+\.\d+)", self._data[:4096])
        return found[1].decode() if found else "unknown"

    def look_up(self, words: Iterable[str]) -> None:
        """Read the senses of `words`, in one pass over the index."""
        wanted = {word.replace(" ", "_").encode() for word in words}
        with (self.folder / "index.noun").open("rb") as file:
            for line in file:
                lemma = line.partition(b" ")[0]
                if lemma in wanted:
                    fields = line.split()
                    # lemma, n, senses, p pointers, the pointers, senses again, tagged senses, one offset a sense
                    offsets = fields[6 + int(fields[3]) :]
                    self._senses[lemma.decode().replace("_", " ")] = tuple(int(offset) for offset in offsets)

    def senses(self, word: str) -> tuple[int, ...]:
        """The senses of a word that was looked up, the most frequent first."""
        return self._senses.get(word, ())

    def synset(self, offset: int) -> Synset:
        """The sense at `offset`."""
        if offset not in self._synsets:
            fields = self._data[offset : self._data.index(b"\n", offset)].partition(b" | ")[0].decode().split()
            words, pointers = int(fields[3], 16), 5 + 2 * int(fields[3], 16)
            found = [
                fields[place : place + 4] for place in range(pointers, pointers + 4 * int(fields[pointers - 1]), 4)
            ]
            self._synsets[offset] = Synset(
                words=tuple(word.lower().replace("_", " ") for word in fields[4 : 4 + 2 * words : 2]),
                kinds_of=tuple(int(at) for symbol, at, kind, _ in found if kind == "n" and symbol in ("@", "@i")),
                parts=tuple(int(at) for symbol, at, kind, _ in found if kind == "n" and symbol == "%p"),
            )
        return self._synsets[offset]

    def above(self, offset: int) -> set[int]:
        """What the sense is a kind of, itself included."""
        found: set[int] = set()
        waiting = [offset]
        while waiting:
            at = waiting.pop()
            if at not in found:
                found.add(at)
                waiting += self.synset(at).kinds_of
        return found

    def parts(self, offset: int) -> set[int]:
        """The parts of the sense and of what it is a kind of, and the parts of those."""
        found: set[int] = set()
        waiting = [part for at in self.above(offset) for part in self.synset(at).parts]
        while waiting:
            at = waiting.pop()
            if at not in found:
                found.add(at)
                waiting += self.synset(at).parts
        return found


# -- relations ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Relations:
    """near, kin: for each name of a vocabulary, in its order, the others; both are symmetric and share no pair."""

    near: tuple[frozenset[str], ...]
    kin: tuple[frozenset[str], ...]

    @classmethod
    def of(cls, names: Sequence[Name], wordnet: WordNet | None = None) -> Relations:
        """The relations of `names`, without WordNet where none is given; see the module."""
        spelt = [_spellings(entry) for entry in names]
        near = {*_by_spelling(names, spelt)}
        kin: set[tuple[int, int]] = set()
        for one, other, close in _by_table(spelt):
            (near if close else kin).add((one, other))
        if wordnet is not None:
            near.update(_by_wordnet(names, wordnet))
        return cls(near=_sets(names, near), kin=_sets(names, kin - near - {(b, a) for a, b in near}))


def related(vocabulary: Vocabulary, wordnet: WordNet | None = None) -> Vocabulary:
    """`vocabulary` with the relations of its names, beside those that it has."""
    found = Relations.of(vocabulary.names, wordnet)
    return vocabulary.with_near(found.near).with_kin(found.kin)


def _sets(names: Sequence[Name], pairs: Iterable[tuple[int, int]]) -> tuple[frozenset[str], ...]:
    found: list[set[str]] = [set() for _ in names]
    for one, other in pairs:
        if one != other:
            found[one].add(names[other].name)
            found[other].add(names[one].name)
    return tuple(map(frozenset, found))


def _spellings(entry: Name) -> tuple[str, ...]:
    return tuple(dict.fromkeys(spelling(word) for word in (entry.name, *entry.aliases)))


def _by_spelling(names: Sequence[Name], spelt: Sequence[Sequence[str]]) -> Iterator[tuple[int, int]]:
    """Pairs that share a spelling."""
    owners: dict[str, list[int]] = defaultdict(list)
    for place, words in enumerate(spelt):
        for word in words:
            if word not in table().two_senses:
                owners[word].append(place)
    senses = [_sense(entry.name) for entry in names]
    for places in owners.values():
        for one, other in itertools.combinations(places, 2):
            told_apart = senses[one] and senses[other] and senses[one] != senses[other]
            if not (told_apart and spelt[one][0] == spelt[other][0]):
                yield one, other


def _by_table(spelt: Sequence[Sequence[str]]) -> Iterator[tuple[int, int, bool]]:
    """Pairs that lie in one row, and whether they are near, else kin."""
    rows: dict[int, dict[str, set[int]]] = defaultdict(lambda: {role: set() for role in _ROLES})
    for place, words in enumerate(spelt):
        for word in words:
            for number, role in table().places.get(word, ()):
                rows[number][role].add(place)
    for row in rows.values():
        for one, other in itertools.combinations_with_replacement(_ROLES, 2):
            if (one, other) in _NEAR | _KIN:
                for pair in itertools.product(row[one], row[other]):
                    yield *pair, (one, other) in _NEAR


def _by_wordnet(names: Sequence[Name], wordnet: WordNet) -> Iterator[tuple[int, int]]:
    """Pairs of which one is the other's sense, kind or part."""
    wordnet.look_up(word for entry in names for word in _lemmas(entry))
    places: dict[int, list[int]] = defaultdict(list)
    meant: dict[int, int] = {}
    for place, entry in enumerate(names):
        sense = _meant(entry, wordnet)
        if sense is not None:
            meant[place] = sense
            places[sense].append(place)
    for place, sense in meant.items():
        for at in wordnet.above(sense) | wordnet.parts(sense):
            for other in places.get(at, ()):
                yield place, other


def _lemmas(entry: Name) -> list[str]:
    """The words to look an entry up by: its synset's, its name, its aliases; as written, and in the singular."""
    found = [entry.synset.rpartition(".n.")[0].replace("_", " ").lower()] if entry.synset else []
    for name in (entry.name, *entry.aliases):
        words = _words(name)
        head, space, last = words.rpartition(" ")
        found += [words, head + space + singular(last)]
    return list(dict.fromkeys(found))


def _meant(entry: Name, wordnet: WordNet) -> int | None:
    """The sense of an entry: that of its synset; else the one with most of its spellings among its words, and of
    several such the most frequent one; None for a word of two senses that nothing tells apart.
    """
    lemma, _, number = entry.synset.rpartition(".n.")
    if lemma and number.isdigit():
        senses = wordnet.senses(lemma.replace("_", " ").lower())
        return senses[int(number) - 1] if int(number) <= len(senses) else None
    words = _lemmas(entry)
    candidates = list(dict.fromkeys(sense for word in words for sense in wordnet.senses(word)))
    if not candidates:
        return None
    shared = [len({*wordnet.synset(sense).words} & {*words}) for sense in candidates]
    if max(shared) < 2 and spelling(entry.name) in table().two_senses:
        return None
    return candidates[shared.index(max(shared))]
