"""LVIS v0.5 and v1: a large vocabulary over COCO's pictures, annotated by name, not exhaustively.

Three lists stand for one picture: the names that are annotated; `neg_category_ids`, looked for and absent;
`not_exhaustive_category_ids`, present but not all marked, so never exposed. Of every other name nothing is known. There
are no crowds.

Where a picture lies: v1 says only `coco_url`, whose last two parts are folder and file (some pictures of v1 val lie in
train2017); v0.5 says `file_name`, "COCO_val2014_000000011813.jpg", which in COCO 2017 is `val2017/000000011813.jpg`.
So, for each picture, the first of these that is on disk: the last two parts of `coco_url`; its 12 digits below val2017,
below train2017, and below `images` itself; `file_name` as it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from aesampler.errors import SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import instances, instances_json
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

PARTS = {"train": "train", "validation": "val"}
_DIGITS = re.compile(r"(\d{12}\.\w+)$")
_SENSE = re.compile(r"_\(([^)]*)\)")


class Picture(instances_json.Picture, gc=False):
    """One of `images`, with the two lists of names that only LVIS has."""

    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: list[int] = msgspec.field(default_factory=list)
    not_exhaustive_category_ids: list[int] = msgspec.field(default_factory=list)


class Lvis(Source):
    """Options: images, the folder that holds train2017 and val2017; annotations, the JSON. With neither given, ROOT and
    the official v1 file, else v0.5.
    """

    format: ClassVar[str] = "lvis"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "LVIS v0.5 and v1: 1,200 names on COCO's pictures; absent names are listed one by one"
    layout: ClassVar[str] = """\
ROOT/
  annotations/lvis_v1_{train,val}.json     or lvis_v0.5_{train,val}.json; also straight below ROOT
  train2017/000000391895.jpg
  val2017/000000011813.jpg
"""

    images: str | None = None
    annotations: str | None = None

    def survey(self, root: Folder) -> Survey:
        """See `Source.survey`. Raises SourceError also where none of the pictures is there, or a list of names holds an
        unknown id.
        """
        annotations = self.annotations or self._official(root)
        found = instances.read(root, annotations, Picture)
        base = instances.confined(self.images.rstrip("/"), "images") if self.images and self.images.strip("./") else ""
        ways = [_ways(picture, base, f"{found.where}: image {picture.id}") for picture in found.pictures]
        folders = sorted({way.rpartition("/")[0] for picture in ways for way in picture})
        there: dict[str, int] = {}
        for folder in folders:
            there.update(root.list(folder, depth=0))
        frames = [next((way for way in picture if way in there), picture[0]) for picture in ways]
        listing = {frame: there[frame] for frame in frames if frame in there}
        if not listing:
            raise SourceError(
                "none of the pictures that the annotations name is there",
                where=found.where,
                got=f"no {ways[0][0]} below {root.url}",
                do="set images to the folder that holds train2017 and val2017",
            )
        stems = instances.ids([frame.removeprefix(base + "/") for frame in frames], found.where)
        # A picture is named by its number alone: the folder is COCO's, and differs between the years.
        short = [stem.rpartition("/")[2] for stem in stems]
        names = short if len(set(short)) == len(short) else stems
        items = [Item(id=name, group=instances.group(frame)) for name, frame in zip(names, frames, strict=True)]
        heads = found.heads(items, frames, listing)
        return Survey(
            categories=categories(found.categories, found.where),
            exhaustive=False,
            items=items,
            record=lambda place: found.record(place, heads),
            batch=lambda places: found.batch(places, heads),
            files=(annotations,),
            listing=listing,
            folders=tuple(folder for folder in folders if folder or any("/" not in frame for frame in listing)),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """See `Source.scene`."""
        return instances.scene(root, record, names, size, exhaustive=False)

    def _official(self, root: Folder) -> str:
        part = PARTS.get(self.subset)
        if part is None:
            raise SourceError(
                "LVIS publishes no masks of its test pictures",
                where=root.url,
                do="take train or validation, or set annotations",
            )
        ways = [f"{folder}lvis_{version}_{part}.json" for version in ("v1", "v0.5") for folder in ("annotations/", "")]
        return next((path for path in ways if root.exists(path)), ways[0])


def categories(entries: Sequence[instances_json.Named], where: str = "LVIS") -> tuple[Category, ...]:
    """The vocabulary as shown: "bow_(weapon)" is "bow", or "bow (weapon)" where another name would be "bow" too.

    An alias that would stand for two categories stands for none. Raises SourceError where two names are alike with
    their senses.
    """
    spelt = [_spellings(entry) for entry in entries]
    bare = [_clean(_SENSE.sub("", words[0])) for words in spelt]
    count = Counter(bare)
    shown = [
        name if count[name] == 1 else _clean(_SENSE.sub(r" (\1)", words[0]))
        for name, words in zip(bare, spelt, strict=True)
    ]
    for name, number in Counter(shown).items():
        if number > 1:
            raise SourceError(
                "two categories have one name", where=where, got=repr(name), do="names of one source must differ"
            )
    others = [dict.fromkeys(_clean(_SENSE.sub("", word)) for word in words) for words in spelt]
    owners = Counter(alias for name, own in zip(shown, others, strict=True) for alias in own if alias != name)
    taken = {*bare, *shown}
    return tuple(
        Category(
            name=name,
            origin=str(entry.id),
            aliases=tuple(alias for alias in own if owners[alias] == 1 and alias not in taken),
            synset=entry.synset or "",
        )
        for name, own, entry in zip(shown, others, entries, strict=True)
    )


def _spellings(entry: instances_json.Named) -> list[str]:
    """The name of a category, then its other names.

    v0.5 calls persons of every age "baby", v1 "person". One name of each version holds two:
    "monitor_(computer_equipment) computer_monitor".
    """
    words = [entry.name, *entry.synonyms]
    if entry.name == "baby" and "person" in words:
        words.insert(0, "person")
    return [part for word in words for part in (word.split(" ") if _SENSE.search(word) else [word])]


def _clean(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _ways(picture: Picture, base: str, where: str) -> list[str]:
    """Where the picture may lie, below the root, best first."""
    ways = ["/".join(picture.coco_url.split("/")[-2:])] if picture.coco_url else []
    found = _DIGITS.search(picture.coco_url or picture.file_name)
    if found:
        ways += [f"val2017/{found[1]}", f"train2017/{found[1]}", found[1]]
    ways += [picture.file_name] if picture.file_name else []
    if not ways:
        raise SourceError("a picture has neither file_name nor coco_url", where=where)
    return list(
        dict.fromkeys(f"{base}/{way}" if base else way for way in (instances.confined(way, where) for way in ways))
    )
