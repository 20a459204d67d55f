"""How many of the drawn irrelevant names are in the picture after all, measured where the truth is known.

    python benchmarks/false_negatives.py [--draws 20] [--data FOLDER] [--coco ROOT --lvis ROOT] [--json]

The truth: COCO's instances, exhaustive over 80 names. The annotation that the sampler sees: a federated subset of it,
as LVIS is: of each picture's names 30% are hidden, and of the names that are not in it 10% are verified absent; one
picture in ten has no verified name. For 13 names the vocabulary has a synonym that no annotator used, so that relations
have something to do. Every picture is drawn from many times; a drawn name is a false negative where the truth has it in
the picture. The interval is Wilson's, at 95%, over drawn names.

    unlisted   whatever is not annotated (the paper)      strict   verified absent names only
    known      verified absent ones where there are any, else unlisted ones

The same with two real annotations of one picture: COCO's panoptic names, seen through its instances alone.

Two sources of one recipe (aesampler/sharing.py): each name of a picture is dealt to one of two halves, files in LVIS's
form with verified absent names as above; each half is drawn from alone, and with the other beside it. The real samples
of LVIS and COCO share no picture, so LVIS, alone and beside COCO, is measured where both are: --coco, --lvis.

128 pictures drawn from 10 times, names in the picture of names drawn, without -> with relations:

    unlisted   886 of 18,291, 4.8% (4.5-5.2) -> 593, 3.2% (3.0-3.5)
    known       92 of  7,166, 1.3% (1.1-1.6) ->  61, 0.9% (0.7-1.1)     only in pictures without a verified name
    strict       0 of  5,064, 0.0% (0.0-0.1) ->   0, with 140 of 1,280 samples skipped
    panoptic, 100 pictures: unlisted 1,157 of 13,477, 8.6% (8.1-9.1) -> 1,140; known and strict 0 (0.0-0.03)
    halves, with relations, alone -> beside the other, whose names are known by then:
      one    unlisted 637 of 18,757, 3.4% (3.2-3.7) -> 0 (0.0-0.02);  known 56 of 5,954, 0.9% (0.7-1.2) -> 0 (0.0-0.06)
      other  unlisted 495 of 18,604, 2.7% (2.4-2.9) -> 0 (0.0-0.02);  known 39 of 6,191, 0.6% (0.5-0.9) -> 0 (0.0-0.06)
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from aesampler import rng
from aesampler.audit import Rate
from aesampler.catalog import Catalog
from aesampler.exposure import ExposureSettings, draw
from aesampler.plan import scenes
from aesampler.relations import related
from aesampler.scene import Scene
from aesampler.sharing import shared
from aesampler.sources.coco import Coco
from aesampler.sources.lvis import Lvis
from aesampler.sources.source import Subset
from aesampler.storage import Folder
from aesampler.vocabulary import Name, Vocabulary

HIDDEN = 0.3
"""Share of a picture's names that the annotation does not list."""
VERIFIED = 0.1
"""Share of the names that are not in a picture which the annotation says so of."""
SYNONYMS = {"person": "individual", "car": "automobile", "couch": "sofa", "tv": "television", "cow": "cattle"}
SYNONYMS |= {"airplane": "aeroplane", "bicycle": "bike", "motorcycle": "motorbike", "cell phone": "mobile phone"}
SYNONYMS |= {"dining table": "table", "donut": "doughnut", "boat": "ship", "potted plant": "flowerpot"}
Absence = Literal["unlisted", "known", "strict"]
ABSENCES: tuple[Absence, ...] = ("unlisted", "known", "strict")
PICTURES = 2000
"""Of those that LVIS and COCO have in common, how many are drawn from."""


Case = tuple[Vocabulary, list["Seen"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A picture: what the annotation tells of it, and what is in it."""

    id: str
    scene: Scene
    truth: frozenset[str]


def federated(data: Path, seed: int = 0) -> Case:
    """COCO with synonyms, seen through a seeded federated annotation; the vocabulary without relations."""
    catalog = Catalog.of(Coco(), Folder.at(data / "coco"))
    counted = catalog.vocabulary()
    names = [
        Name(name=name, count=entry.count, weight=entry.weight / 2 if entry.name in SYNONYMS else entry.weight)
        for entry in counted.names
        for name in (entry.name, *([SYNONYMS[entry.name]] if entry.name in SYNONYMS else []))
    ]
    pictures = []
    for identity, _, scene in scenes(catalog):
        random = rng.generator(seed, "federated", identity)
        truth = set(scene.seen) | {SYNONYMS[name] for name in scene.seen & SYNONYMS.keys()}
        chance = {entry.name: random.random() for entry in names}
        told = {name for name in scene.segments if chance[name] >= HIDDEN}
        absent = {entry.name for entry in names if entry.name not in truth and chance[entry.name] < VERIFIED}
        view = Scene(
            height=1,
            width=1,
            annotated=(True,),
            segments=dict.fromkeys(sorted(told), ("",)),
            absent=frozenset(absent),
        )
        # A picture in ten has no verified name at all, as most of LVIS's have but few.
        if random.random() < 0.1:
            view = Scene(height=1, width=1, annotated=(True,), segments=view.segments)
        pictures.append(Seen(id=identity, scene=view, truth=frozenset(truth)))
    return Vocabulary(tuple(names)), pictures


def panoptic(data: Path) -> Case:
    """Pictures with both annotations, over COCO's panoptic vocabulary. The instances say what is there and what is not
    of the 80 things, and nothing of the 53 kinds of stuff; the truth is what either annotation has.
    """
    from aesampler.sources.coco_panoptic import CocoPanoptic

    whole = Catalog.of(CocoPanoptic(), Folder.at(data / "coco"))
    parts = {group: scene for _, group, scene in scenes(Catalog.of(Coco(), Folder.at(data / "coco")))}
    things = {category.name for category in Catalog.of(Coco(), Folder.at(data / "coco")).categories}
    pictures = []
    for identity, group, scene in scenes(whole):
        if group in parts:
            told = parts[group]
            view = Scene(
                height=1,
                width=1,
                annotated=(True,),
                segments=told.segments,
                ignored=told.ignored,
                absent=frozenset(things - told.seen),
            )
            pictures.append(Seen(id=identity, scene=view, truth=scene.seen | told.seen))
    return whole.vocabulary(), pictures


def halves(data: Path, seed: int = 0) -> dict[str, Case]:
    """COCO's annotation in two sources: each half alone, and with the other in one recipe."""
    with tempfile.TemporaryDirectory() as place:
        roots = [Folder.at(_half(data / "coco", Path(place) / str(half), half, seed)) for half in (0, 1)]
        cache = Folder.at(Path(place) / "cache")
        alone = [Catalog.of(Lvis(), root, cache=cache) for root in roots]
        both = shared(alone, None, cache=cache)
        truth = {group: scene.seen for _, group, scene in scenes(Catalog.of(Coco(), Folder.at(data / "coco")))}
        named = {
            "one half": alone[0],
            "other half": alone[1],
            "one, other beside": both[0],
            "other, one beside": both[1],
        }
        return {case: _case(catalog, truth) for case, catalog in named.items()}


def _half(coco: Path, root: Path, half: int, seed: int) -> Path:
    """A root in LVIS's layout, with the names that are dealt to `half`."""
    body = json.loads((coco / "annotations/instances_train2017.json").read_text())
    numbers = [entry["id"] for entry in body["categories"]]
    truth: dict[int, set[int]] = {picture["id"]: set() for picture in body["images"]}
    for entry in body["annotations"]:
        truth[entry["image_id"]].add(entry["category_id"])
    dealt = {}
    for picture in body["images"]:
        random = rng.generator(seed, "halves", picture["id"])
        dealt[picture["id"]] = {number for number in numbers if int(random.integers(2)) == half}
        own = rng.generator(seed, "verified", picture["id"], half)
        verified = [number for number in numbers if number not in truth[picture["id"]] and own.random() < VERIFIED]
        picture["neg_category_ids"] = [] if own.random() < 0.1 else verified
        picture["not_exhaustive_category_ids"] = []
        picture["coco_url"] = f"train2017/{picture['file_name']}"
    body["annotations"] = [entry for entry in body["annotations"] if entry["category_id"] in dealt[entry["image_id"]]]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/lvis_v1_train.json").write_text(json.dumps(body))
    (root / "train2017").symlink_to((coco / "train2017").resolve())
    return root


def two_sets(coco: Path, lvis: Path, subset: Subset = "train") -> dict[str, Case]:
    """LVIS's pictures that COCO has too, LVIS alone and with COCO in one recipe. The truth is what either has, as far
    as a name of COCO is one of LVIS's, or an alias.
    """
    alone = [Catalog.of(Lvis(subset=subset), Folder.at(lvis)), Catalog.of(Coco(subset=subset), Folder.at(coco))]
    spelt = {word: entry.name for entry in alone[0].categories for word in (*entry.aliases, entry.name)}
    present = {group: scene.seen for _, group, scene in scenes(alone[1])}
    truth = {group: frozenset(spelt[name] for name in seen if name in spelt) for group, seen in present.items()}
    both = shared(alone, None)[0]
    return {"LVIS": _case(alone[0], truth), "LVIS, COCO beside": _case(both, truth)}


def _case(catalog: Catalog, truth: Mapping[str, frozenset[str]]) -> Case:
    """The pictures of `catalog` whose group `truth` has; what the catalog itself finds is true as well."""
    found = (
        Seen(id=identity, scene=scene, truth=truth[group] | scene.segments.keys())
        for identity, group, scene in scenes(catalog)
        if group in truth
    )
    return catalog.vocabulary(), list(itertools.islice(found, PICTURES))


def measured(vocabulary: Vocabulary, pictures: Sequence[Seen], absence: Absence, draws: int) -> tuple[Rate, int]:
    """Drawn irrelevant names, and how many of them are in the picture; and the samples skipped by rule."""
    settings = ExposureSettings(absence=absence)
    count = wrong = skipped = 0
    for picture in pictures:
        for epoch in range(draws):
            made = draw(picture.scene, vocabulary, settings, rng.generator(0, "false", picture.id, epoch))
            if made is None:
                skipped += 1
                continue
            drawn = [name for name, real in zip(made.categories, made.is_genuine, strict=True) if not real]
            count += len(drawn)
            wrong += sum(name in picture.truth for name in drawn)
    return Rate(what=absence, count=count, anomalous=wrong), skipped


def table(data: Path, draws: int) -> Iterator[dict[str, Any]]:
    """A row a case: the annotation, the rule, with or without relations, drawn names, those in the picture."""
    cases = {"federated COCO": federated(data), "instances, panoptic truth": panoptic(data)}
    for case, found in cases.items():
        for relations in ("without", "with"):
            yield from rows(case, found, relations, ABSENCES, draws)
    yield from beside(halves(data), draws)


def beside(cases: Mapping[str, Case], draws: int) -> Iterator[dict[str, Any]]:
    """The rows of sources alone and beside another, with relations."""
    for case, found in cases.items():
        yield from rows(case, found, "with", ("unlisted", "known"), draws)


def rows(case: str, found: Case, relations: str, absences: Sequence[Absence], draws: int) -> Iterator[dict[str, Any]]:
    """A row for each of `absences`."""
    vocabulary, pictures = found
    names = related(vocabulary) if relations == "with" else vocabulary
    for absence in absences:
        rate, skipped = measured(names, pictures, absence, draws)
        yield {
            "annotation": case,
            "pictures": len(pictures),
            "absence": absence,
            "relations": relations,
            "drawn": rate.count,
            "in_picture": rate.anomalous,
            "share": round(rate.share, 5),
            "interval": [round(edge, 5) for edge in rate.interval],
            "skipped": skipped,
        }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=20, help="of each picture")
    arguments.add_argument("--data", type=Path, default=os.environ.get("AESAMPLER_REAL_DATA"))
    arguments.add_argument("--coco", type=Path, help="a root of COCO, to be drawn from together with --lvis")
    arguments.add_argument("--lvis", type=Path, help="a root of LVIS")
    arguments.add_argument("--subset", choices=["train", "validation"], default="train", help="of --coco and --lvis")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    if given.data is None:
        arguments.error("AESAMPLER_REAL_DATA, or --data, must name the folder of the real samples")
    if (given.coco is None) != (given.lvis is None):
        arguments.error("--coco and --lvis go together")
    pairs = two_sets(given.coco, given.lvis, given.subset) if given.coco is not None else {}
    if not all(pictures for _, pictures in pairs.values()):
        arguments.error("--coco and --lvis have no picture in common")
    found = [*table(given.data, given.draws), *beside(pairs, given.draws)]
    if given.json:
        print(json.dumps(found, indent=2))
        return
    columns = ("pictures", "relations", "absence", "drawn", "in_picture", "share", "skipped")
    print(f"{'annotation':28}" + "".join(f"{name:>11}" for name in columns) + "   95%")
    for row in found:
        low, high = row["interval"]
        cells = "".join(f"{row[name]:>11}" for name in columns)
        print(f"{row['annotation']:28}{cells}   {low:.4f}-{high:.4f}")


if __name__ == "__main__":
    main()
