"""SceneParsing-150 (ADEChallengeData2016): the pictures of ADE20K with its 150 most frequent classes in a grey index
PNG.

    1 to 150: the class, by its row of objectInfo150.txt;  0: unlabelled, or one of the other 2,900 classes, and becomes
    void

objectInfo150.txt is tab-separated, with a header and stray spaces. Some synonyms stand in two rows (ground, counter,
screen, pot, stool) and identify neither. Every class was looked for in every picture, so void hides nothing, and there
is no `void_limit`. A record's payload is where its map lies: what the values mean is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import ClassVar

import msgspec
import numpy as np
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import index_map, synonyms
from aesampler.sources.index_map import Legend, Pair, Payload, Plane
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

SPLITS = {"train": "training", "validation": "validation"}
TABLE = "objectInfo150.txt"


class Ade20k150(Source):
    """SceneParsing-150."""

    format: ClassVar[str] = "ade20k-150"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "SceneParsing-150: dense scenes, 150 classes of ADE20K"
    layout: ClassVar[str] = """\
ROOT/                                   the folder that holds ADEChallengeData2016, or that folder itself
  ADEChallengeData2016/
    objectInfo150.txt                   Idx, Ratio, Train, Val, Name; tabs
    images/training/ADE_train_%08d.jpg  validation/ADE_val_%08d.jpg alike
    annotations/training/ADE_train_%08d.png
"""

    images: str | None = Field(
        default=None, description="the folder of the pictures; default: images/training, or validation"
    )
    annotations: str | None = Field(
        default=None, description="the folder of the PNGs; default: annotations/training, or validation"
    )

    def survey(self, root: Folder) -> Survey:
        """Every picture of the subset. The PNG of a picture is read when its record is asked for."""
        base, images, annotations = self._folders(root)
        shown = _table(root, base + TABLE)
        legend = _legend(len(shown))
        listing = {**root.list(images, depth=0), **root.list(annotations, depth=0)}
        stems = sorted(
            index_map.stem(path).rpartition("/")[2]
            for path in listing
            if path.startswith(f"{images}/") and path.endswith(".jpg")
        )
        pairs = [Pair(stem, f"ade20k:{stem}", f"{images}/{stem}.jpg", f"{annotations}/{stem}.png") for stem in stems]
        index_map.require(pairs, listing, images, "PNG", self.format)

        def record(index: int) -> Record:
            pair = pairs[index]
            made = index_map.record(pair, index_map.payload_of(root, pair, legend, _plane))
            return replace(made, payload=pair.map.encode())

        return Survey(
            categories=shown,
            exhaustive=True,
            items=[Item(pair.id, pair.group) for pair in pairs],
            record=record,
            files=(base + TABLE,),
            listing=listing,
            folders=tuple(sorted({images, annotations})),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The classes of the index PNG: value n is the n-th name. Pixels of 0 are void, and hide nothing."""
        path = record.payload.decode()
        plane = _plane(root, path)
        if plane.size and int(plane.max()) > len(names):
            unnamed = [number for number in index_map.counts(plane) if number > len(names)]
            raise BadRecord(
                f"classes that {TABLE} does not have", where=path, got=unnamed, allowed=f"0 to {len(names)}"
            )
        told = Payload(path, _legend(len(names)).regions(range(len(names) + 1)), known=True)
        return index_map.scene(
            replace(record, payload=msgspec.json.encode(told)),
            plane,
            names,
            size,
            exhaustive=True,
            void_limit=0.0,
            source=TABLE,
        )

    def _folders(self, root: Folder) -> tuple[str, str, str]:
        """(what stands before the table's name, the folder of the pictures, that of the PNGs)."""
        if self.subset not in SPLITS:
            raise SourceError(
                "SceneParsing-150 has no annotated test pictures",
                where=root.url,
                got=self.subset,
                allowed=", ".join(SPLITS),
            )
        for base in ("ADEChallengeData2016/", ""):
            if root.exists(base + TABLE):
                split = SPLITS[self.subset]
                images = str(PurePosixPath(self.images or f"{base}images/{split}"))
                return base, images, str(PurePosixPath(self.annotations or f"{base}annotations/{split}"))
        raise SourceError(
            f"no file ADEChallengeData2016/{TABLE}", where=root.url, do=f"see: aesampler sources {self.format}"
        )


def _legend(classes: int) -> Legend:
    """Of classes numbered from 1."""
    return Legend(names={place + 1: place for place in range(classes)}, void=frozenset({0}))


def _table(root: Folder, path: str) -> tuple[Category, ...]:
    """The classes of objectInfo150.txt, numbered 1, 2, 3 ... without a gap."""
    rows = [line.split("\t") for line in root.read(path).decode("utf-8").splitlines()[1:] if line.strip()]
    try:
        classes = {int(row[0]): row[4].strip() for row in rows}
    except (IndexError, ValueError) as error:
        raise SourceError(
            "not a table of Idx, Ratio, Train, Val, Name in tab-separated columns",
            where=path,
            do="take it from the archive",
        ) from error
    if sorted(classes) != list(range(1, len(rows) + 1)) or not all(classes.values()):
        raise SourceError("classes are not numbered 1, 2, 3 ... with a name each", where=path)
    return synonyms.categories(classes)


def _plane(root: Folder, path: str) -> Plane:
    try:
        plane: Plane = masks.read_index(root.read(path))
    except BadRecord as error:
        raise BadRecord(error.what, where=path) from error
    if plane.ndim != 2 or plane.dtype != np.uint8:
        raise BadRecord("not an 8-bit index PNG", where=path)
    return plane
