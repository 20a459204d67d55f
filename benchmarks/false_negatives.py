"""How many of the drawn irrelevant names are in the picture after all, measured where the truth is known.

    python benchmarks/false_negatives.py [--draws 20] [--data FOLDER] [--json]

The truth: COCO's instances, exhaustive over 80 names. The annotation that the sampler sees: a federated subset of it,
as LVIS is: of each picture's names 30% are hidden, and of the names that are not in it 10% are verified absent; one
picture in ten has no verified name. For 13 names the vocabulary has a synonym that no annotator used, so that relations
have something to do. Every picture is drawn from many times; a drawn name is a false negative where the truth has it in
the picture. The interval is Wilson's, at 95%, over drawn names.

    unlisted   whatever is not annotated (the paper)      strict   verified absent names only
    known      verified absent ones where there are any, else unlisted ones

The same with two real annotations of one picture: COCO's panoptic names, seen through its instances alone. (Of LVIS and
COCO, the real sample has no picture in common.)

128 pictures drawn from 10 times, names in the picture of names drawn, without -> with relations:

    unlisted   886 of 18,291, 4.8% (4.5-5.2) -> 593, 3.2% (3.0-3.5)
    known       92 of  7,166, 1.3% (1.1-1.6) ->  61, 0.9% (0.7-1.1)     only in pictures without a verified name
    strict       0 of  5,064, 0.0% (0.0-0.1) ->   0, with 140 of 1,280 samples skipped
    panoptic, 100 pictures: unlisted 1,157 of 13,477, 8.6% (8.1-9.1) -> 1,140; known and strict 0 (0.0-0.03)
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
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
from aesampler.sources.coco import Coco
from aesampler.storage import Folder
from aesampler.vocabulary import Name, Vocabulary

HIDDEN = 0.3
"""Share of a picture's names that the annotation does not list."""
VERIFIED = 0.1
"""Share of the names that are not in a picture which the annotation says so of."""
SYNONYMS = {"person": "individual", "car": "automobile", "couch": "sofa", "tv": "television", "cow": "cattle"}
SYNONYMS |= {"airplane": "aeroplane", "bicycle": "bike", "motorcycle": "motorbike", "cell phone": "mobile phone"}
SYNONYMS |= {"dining table": "table", "donut": "doughnut", "boat": "ship", "potted plant": "flowerpot"}
ABSENCES: tuple[Literal["unlisted", "known", "strict"], ...] = ("unlisted", "known", "strict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A picture: what the annotation tells of it, and what is in it."""

    id: str
    scene: Scene
    truth: frozenset[str]


def federated(data: Path, seed: int = 0) -> tuple[Vocabulary, list[Seen]]:
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


def panoptic(data: Path) -> tuple[Vocabulary, list[Seen]]:
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


def measured(
    vocabulary: Vocabulary, pictures: Sequence[Seen], absence: Literal["unlisted", "known", "strict"], draws: int
) -> tuple[Rate, int]:
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
    for case, (vocabulary, pictures) in cases.items():
        for relations, names in (("without", vocabulary), ("with", related(vocabulary))):
            for absence in ABSENCES:
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
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    if given.data is None:
        arguments.error("AESAMPLER_REAL_DATA, or --data, must name the folder of the real samples")
    rows = list(table(given.data, given.draws))
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("pictures", "relations", "absence", "drawn", "in_picture", "share", "skipped")
    print(f"{'annotation':28}" + "".join(f"{name:>11}" for name in columns) + "   95%")
    for row in rows:
        low, high = row["interval"]
        cells = "".join(f"{row[name]:>11}" for name in columns)
        print(f"{row['annotation']:28}{cells}   {low:.4f}-{high:.4f}")


if __name__ == "__main__":
    main()
