"""Mapillary Vistas 1.2 and 2.0: street scenes from all over the world, 66 and 124 labels.

    config_v2.0.json: labels[i] = {name "object--vehicle--car", readable "Car"};  labels/KEY.png: 8 bits, value = i

Rules. A label is known by its full name, because leaves repeat (text, dashed, crosswalk-zebra); it is shown by
`readable`, or its last part, and where two would be alike by more of the full name. Never shown: `ambiguous` and
`void--*`, which are void and may hide any name; `other*`, the bicycle painted on the road, the ego vehicle and the car
mount, which are known not to be one of the names: ignored, and hiding nothing. A `*-group` says that the single thing
beside it (person, pole) is present and that its pixels belong to nobody; a group of no single label (vehicles) is void.
Unlabelled is the last index, not 255. A rider is a person: it is present as such too, its pixels ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from aesampler.errors import SourceError
from aesampler.record import Category
from aesampler.sources import index_map
from aesampler.sources.index_map import IndexMap, Legend, Pair
from aesampler.sources.source import Kind, Survey
from aesampler.storage import Folder

PARTS = {"train": "training", "validation": "validation"}
KNOWN_VOID = ("void--ego-vehicle", "void--car-mount")
PERSONS = ("human--person--individual", "human--person")
"""What version 2.0, and 1.2, call a person."""


class Mapillary(IndexMap):
    """Option: version."""

    format: ClassVar[str] = "mapillary"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "Mapillary Vistas 1.2 or 2.0: street scenes of 66 or 124 labels"
    layout: ClassVar[str] = """\
ROOT/
  config_v2.0.json                          or config_v1.2.json (version: 1.2)
  {training,validation}/images/KEY.jpg
  {training,validation}/v2.0/labels/KEY.png
"""

    version: Literal["2.0", "1.2"] = Field(default="2.0", description="of the labels: 2.0 or 1.2")

    @field_validator("version", mode="before")
    @classmethod
    def _yaml_numbers(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value

    def survey(self, root: Folder) -> Survey:
        """One record a picture of the part."""
        if self.subset not in PARTS:
            raise SourceError(
                "Mapillary publishes no labels of its test pictures",
                where=root.url,
                got=self.subset,
                allowed=", ".join(PARTS),
            )
        part, config = PARTS[self.subset], f"config_v{self.version}.json"
        categories, legend = self._labels(root, config)
        images, maps = f"{part}/images", f"{part}/v{self.version}/labels"
        listing = {**root.list(images, depth=0), **root.list(maps, depth=0)}
        pairs = [
            Pair(key, f"mapillary:{key}", path, f"{maps}/{key}.png")
            for key, path in index_map.pictures(root.list(images, depth=0), images).items()
        ]
        index_map.require(pairs, listing, f"{root.url}/{images}", f"PNG in {maps}/", self.format)
        return index_map.survey(
            root,
            pairs,
            categories=categories,
            exhaustive=True,
            payload=lambda pair: index_map.payload_of(root, pair, legend, index_map.read_plane),
            listing=listing,
            files=(config,),
        )

    def _named_by(self) -> str:
        return f"config_v{self.version}.json"

    def _labels(self, root: Folder, config: str) -> tuple[tuple[Category, ...], Legend]:
        entries = index_map.read_table(root, config, see=self.format).get("labels")
        where = f"{root.url}/{config}"
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
        ):
            raise SourceError("no list `labels` of objects with a name", where=where, do="take it from the archive")
        full = [str(entry["name"]) for entry in entries]
        twice = [name for name, count in Counter(full).items() if count > 1]
        if twice:
            raise SourceError("two labels have one name", where=where, got=twice[0])
        named = [index for index, name in enumerate(full) if _is_shown(name)]
        readable = [str(entries[index].get("readable") or "") for index in named]
        shown = _shown([full[index] for index in named], readable)
        categories = tuple(
            Category(name=name, origin=full[index], supercategory=full[index].rpartition("--")[0])
            for name, index in zip(shown, named, strict=True)
        )
        return categories, _legend(full, named)


def _is_shown(name: str) -> bool:
    leaf = name.rpartition("--")[2]
    return not (
        name.startswith("void--")
        or leaf == "ambiguous"
        or leaf.startswith("other")
        or leaf.endswith("-group")
        or (name.startswith("marking") and leaf == "bicycle")
    )


def _legend(full: Sequence[str], named: Sequence[int]) -> Legend:
    places = {full[index]: place for place, index in enumerate(named)}
    person = next((places[name] for name in PERSONS if name in places), None)
    groups: dict[int, int] = {}
    void: set[int] = set()
    nameless: set[int] = set()
    for index, name in enumerate(full):
        above, _, leaf = name.rpartition("--")
        if name in places:
            continue
        if leaf.endswith("-group"):
            single = (f"{above}--{leaf.removesuffix('-group')}", f"{above}--individual")
            place = next((places[other] for other in single if other in places), None)
            if place is None:
                void.add(index)
            else:
                groups[index] = place
        elif (name.startswith("void--") and name not in KNOWN_VOID) or leaf == "ambiguous":
            void.add(index)
        else:
            nameless.add(index)
            if above == "human--rider" and person is not None:
                groups[index] = person
    riders = [place for name, place in places.items() if name.startswith("human--rider--")]
    return Legend(
        names={index: place for place, index in enumerate(named)},
        groups=groups,
        void=frozenset(void),
        nameless=frozenset(nameless),
        wider={} if person is None else dict.fromkeys(riders, (person,)),
    )


def _shown(full: Sequence[str], readable: Sequence[str]) -> list[str]:
    """A name for each label, all different: `readable`, else the last part; then with what stands before it."""
    plain = [
        " ".join(re.sub(r"\s-\s|-", " ", text or name.rpartition("--")[2]).lower().split())
        for name, text in zip(full, readable, strict=True)
    ]
    longer = [f"{word} ({_words(name.split('--')[-2:-1])})" for word, name in zip(plain, full, strict=True)]
    whole = [_words(name.split("--")) for name in full]
    for better in (longer, whole):
        count = Counter(plain)
        plain = [word if count[word] == 1 else other for word, other in zip(plain, better, strict=True)]
    return plain


def _words(parts: Sequence[str]) -> str:
    return ", ".join(part.replace("-", " ") for part in parts)
