"""Names that do not exclude each other: by spelling, by the table, by WordNet; what a draw does with them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import worlds
from hypothesis import given
from hypothesis import strategies as st

from aesampler import rng
from aesampler.exposure import RULES, ExposureSettings, draw, irrelevant_law, rejections
from aesampler.plan import plan_corpus
from aesampler.recipe import Recipe
from aesampler.relations import Relations, WordNet, related, singular, spelling, table
from aesampler.scene import Scene
from aesampler.vocabulary import Name, Vocabulary

RLE = "0"


def relations(*names: str | Name, wordnet: WordNet | None = None) -> tuple[set[str], set[str]]:
    """The near and the kin pairs of names, each "a ~ b" with a before b."""
    entries = [Name(name=name) if isinstance(name, str) else name for name in names]
    found = Relations.of(entries, wordnet)
    sets = []
    for each in (found.near, found.kin):
        pairs = {(entry.name, other) for entry, others in zip(entries, each, strict=True) for other in others}
        assert pairs == {(b, a) for a, b in pairs}
        assert not any(a == b for a, b in pairs)
        sets.append({f"{a} ~ {b}" for a, b in pairs if a < b})
    return sets[0], sets[1]


# -- spelling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tv", "TV"),
        ("dining table", "diningtable"),
        ("fire_hydrant", "fire-hydrant"),
        ("tree-merged", "tree"),
        ("food-other-merged", "foods"),
        ("wall-other", "wall-stuff"),
        ("bow_(weapon)", "bow"),
        ("knives", "knife"),
        ("berries", "berry"),
        ("boxes", "box"),
        ("buses", "bus"),
        ("people", "person"),
        ("teddy bear", "teddy bears"),
        ("caf\u00e9 table", "cafe\u0301 table"),
    ],
)
def test_one_spelling(one: str, other: str) -> None:
    assert spelling(one) == spelling(other)


@pytest.mark.parametrize(("one", "other"), [("bus", "bu"), ("grass", "gras"), ("car", "cart"), ("skis", "sky")])
def test_two_spellings(one: str, other: str) -> None:
    assert spelling(one) != spelling(other)


@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_any_text_has_a_spelling(text: str) -> None:
    assert spelling(text) == spelling(text.upper().lower())
    assert singular(text) is not None


def test_classes_of_one_spelling_stay_two_and_are_near() -> None:
    assert relations("tree", "tree (4)", "wall-stone", "wall-merged")[0] >= {"tree ~ tree (4)"}


def test_two_senses_are_not_one_name() -> None:
    assert relations("bow (weapon)", "bow (decorative ribbons)", "mouse (animal)", "mouse") == (set(), set())
    assert relations("cap (headwear)", "cap (container lid)") == (set(), set())
    assert relations("cap (headwear)", "cap")[0] == {"cap ~ cap (headwear)"}


def test_no_row_rests_on_a_word_of_two_senses() -> None:
    assert not table().places.keys() & table().two_senses


def test_aliases_are_names() -> None:
    assert relations(Name(name="settle", aliases=("bench",)), "benches")[0] == {"benches ~ settle"}


# -- the table ---------------------------------------------------------------------------------------------------------


def test_rows() -> None:
    near, kin = relations("person", "rider", "man", "car", "truck", "vehicle", "couch", "Sofas", "dog", "cow", "animal")
    assert near == {
        "person ~ rider",
        "man ~ person",
        "car ~ vehicle",
        "truck ~ vehicle",
        "Sofas ~ couch",
        "animal ~ dog",
        "animal ~ cow",
    }
    assert kin == {"car ~ truck", "man ~ rider"}


def test_coco_s_names_are_all_told_apart(real_data: Path) -> None:
    """So a corpus of COCO is drawn as it was before there were relations."""
    import json

    body = json.loads((real_data / "coco/annotations/instances_train2017.json").read_text())
    near, _ = relations(*(category["name"] for category in body["categories"]))
    assert near == set()


# -- the draw ----------------------------------------------------------------------------------------------------------

STREET = related(
    Vocabulary(
        tuple(Name(name=name, count=1, weight=1.0) for name in ("person", "rider", "car", "truck", "sky", "dog"))
    )
)


def view(*genuine: str, exhaustive: bool = False, absent: frozenset[str] = frozenset()) -> Scene:
    return Scene(
        height=2,
        width=2,
        annotated=(True,),
        segments=dict.fromkeys(genuine, (RLE,)),
        exhaustive=exhaustive,
        absent=absent,
    )


@pytest.mark.parametrize("absence", ["known", "strict", "unlisted"])
@pytest.mark.parametrize("one", ["person", "rider"])
def test_a_rider_is_a_person(one: str, absence: str) -> None:
    """Neither distracts the other, though a dataset that marks every pixel counts the other as absent."""
    for scene in (view(one, exhaustive=True), view(one, absent=frozenset(STREET.index) - {one})):
        law = irrelevant_law(scene, STREET, ExposureSettings(absence=absence))  # type: ignore[arg-type]
        drawable = {name for name, place in STREET.index.items() if law[place]}
        assert drawable == {"car", "truck", "sky", "dog"}


def test_kin_is_drawn_where_it_is_known_absent_and_only_there() -> None:
    """A car for a truck: a good negative where somebody looked for both, noise where nobody did."""
    chosen = ExposureSettings()
    place = STREET.index["truck"]
    assert irrelevant_law(view("car", exhaustive=True), STREET, chosen)[place] > 0
    assert irrelevant_law(view("car", absent=frozenset({"truck"})), STREET, chosen)[place] > 0
    assert irrelevant_law(view("car"), STREET, chosen)[place] == 0
    assert irrelevant_law(view("car"), STREET, ExposureSettings(absence="unlisted"))[place] == 0


def test_each_rejection_has_its_rule() -> None:
    scene = Scene(
        height=2,
        width=2,
        annotated=(True,),
        segments={"car": (RLE,), "person": (RLE,)},
        present=frozenset({"sky"}),
        absent=frozenset({"dog"}),
    )
    why = rejections(scene, STREET, ExposureSettings())
    told = {name: RULES[why[place] - 1] if why[place] else "" for name, place in STREET.index.items()}
    assert told == {
        "person": "present",
        "rider": "near",
        "car": "present",
        "truck": "kin",
        "sky": "elsewhere",
        "dog": "",
    }
    alone = rejections(view("dog", absent=frozenset({"sky"})), STREET, ExposureSettings(absence="strict"))
    assert [RULES[code - 1] if code else "" for code in alone] == ["unknown"] * 4 + ["", "present"]
    assert draw(view("dog"), STREET, ExposureSettings(absence="strict"), rng.generator(1)) is None


# -- WordNet -----------------------------------------------------------------------------------------------------------


def tiny(folder: Path) -> WordNet:
    """Seven senses in WordNet's own form: offsets are bytes of the file."""
    # word(s), kinds of, parts, by the number of the sense
    senses = [
        (["entity"], [], []),
        (["vehicle"], [0], []),
        (["car", "motorcar"], [1], [4]),
        (["taxi", "cab"], [2], []),
        (["wheel"], [0], []),
        (["mouse"], [0], []),
        (["mouse", "computer_mouse"], [0], []),
    ]
    lines = [""] * len(senses)
    offsets = [0] * len(senses)
    head = "  1 This file is part of WordNet 9.9 as a test.  \n"
    for _ in range(2):  # offsets have 8 digits, so the second pass has them right
        at = len(head)
        for place, (words, above, parts) in enumerate(senses):
            pointers = [("@", other) for other in above] + [("%p", other) for other in parts]
            told = " ".join(f"{symbol} {offsets[other]:08d} n 0000" for symbol, other in pointers)
            spelt = " ".join(f"{word} 0" for word in words)
            lines[place] = f"{offsets[place]:08d} 06 n {len(words):02x} {spelt} {len(pointers):03d} {told} | gloss  \n"
            offsets[place] = at
            at += len(lines[place])
    for place, offset in enumerate(offsets):
        lines[place] = f"{offset:08d}" + lines[place][8:]
    (folder / "dict").mkdir(parents=True)
    (folder / "dict/data.noun").write_text(head + "".join(lines))
    index: dict[str, list[int]] = {}
    for offset, (words, _, _) in zip(offsets, senses, strict=True):
        for word in words:
            index.setdefault(word, []).append(offset)
    (folder / "dict/index.noun").write_text(
        "  1 licence\n"
        + "".join(
            f"{word} n {len(found)} 2 @ %p {len(found)} 0 {' '.join(f'{at:08d}' for at in found)}  \n"
            for word, found in sorted(index.items())
        )
    )
    return WordNet(folder / "dict")


def test_wordnet_kinds_and_parts(tmp_path: Path) -> None:
    wordnet = tiny(tmp_path)
    assert wordnet.version == "9.9"
    near, kin = relations("cabs", "motorcar", "vehicle", "wheels", "entity", "lamp", wordnet=wordnet)
    assert near == {
        "cabs ~ motorcar",
        "cabs ~ vehicle",
        "motorcar ~ vehicle",
        "cabs ~ wheels",
        "motorcar ~ wheels",
        "cabs ~ entity",
        "entity ~ motorcar",
        "entity ~ vehicle",
        "entity ~ wheels",
    }
    assert kin == set()


def test_wordnet_senses(tmp_path: Path) -> None:
    wordnet = tiny(tmp_path)
    animal, device = Name(name="mouse", synset="mouse.n.01"), Name(name="pointer", synset="mouse.n.02")
    assert relations(animal, device, "computer mouse", wordnet=wordnet)[0] == {"computer mouse ~ pointer"}
    # A bare "mouse" says not which, and an alias does.
    assert relations("mouse", "computer mouse", "entity", wordnet=wordnet)[0] == {"computer mouse ~ entity"}
    told = Name(name="mouse", aliases=("computer mouse",))
    assert relations(told, "entity", wordnet=wordnet)[0] == {"entity ~ mouse"}
    assert relations(Name(name="x", synset="mouse.n.07"), "entity", wordnet=wordnet)[0] == set()


def test_where_wordnet_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WordNet.installed() is None  # the tests turn it off
    monkeypatch.setenv("WNHOME", str(tmp_path))
    assert WordNet.installed() is None
    tiny(tmp_path)
    found = WordNet.installed()
    assert found is not None
    assert found.version == "9.9"


def test_a_plan_says_that_wordnet_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worlds.coco(tmp_path / "coco")
    recipe = Recipe.of({"name": "x", "sources": [{"name": "coco", "format": "coco", "root": "coco"}]}, base=tmp_path)
    assert "wordnet" not in plan_corpus(recipe).tools()
    tiny(tmp_path)
    monkeypatch.setenv("WNHOME", str(tmp_path))
    assert plan_corpus(recipe).tools()["wordnet"] == "9.9"


@pytest.mark.long
def test_the_real_wordnet(tmp_path: Path, real_data: Path) -> None:
    """Debian's files, fetched by its own client where this machine may; LVIS's senses against them."""
    from aesampler.sources import instances, lvis
    from aesampler.storage import Folder

    download = ["timeout", "300", "apt-get", "download", "wordnet-base"]
    package = subprocess.run(download, cwd=tmp_path, capture_output=True, check=False)
    files = list(tmp_path.glob("*.deb"))
    if package.returncode or not files or os.name != "posix":
        pytest.skip("wordnet-base cannot be fetched here")
    subprocess.run(["dpkg", "-x", str(files[0]), str(tmp_path / "x")], check=True)
    wordnet = WordNet(tmp_path / "x/usr/share/wordnet")
    assert wordnet.version == "3.0"
    near, _ = relations("rider", "person", "couch", "sofa", "car", "wheel", "dog", "cat", "truck", wordnet=wordnet)
    assert near >= {"car ~ wheel", "couch ~ sofa", "person ~ rider"}
    assert not near & {"cat ~ dog", "car ~ truck", "dog ~ person"}
    found = instances.read(Folder.at(real_data / "lvis"), "annotations/lvis_v0.5_val.json", lvis.Picture)
    names = [Name.of(category, count=1, weight=1.0) for category in lvis.categories(found.categories, found.where)]
    made = Relations.of(names, wordnet)
    by_name = {name.name: near for name, near in zip(names, made.near, strict=True)}
    assert sum(map(len, made.near)) / len(names) < 20
    assert "animal" not in by_name or "dog" in by_name["animal"]
    assert "computer keyboard" not in by_name["dog"]
