"""SceneParsing-150 (ADEChallengeData2016): the pictures of ADE20K with its 150 most frequent classes in a grey index
PNG.

    1 to 150: the class, by its row of objectInfo150.txt;  0: unlabelled, or one of the other 2,900 classes, and becomes
    void

objectInfo150.txt is tab-separated, with a header and stray spaces. Some synonyms stand in two rows (ground, counter,
screen, pot, stool) and identify neither. No file lists which classes a picture has, so the survey reads each PNG, when
its record is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import synonyms
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
        pictures = root.list(images, depth=0)
        indices = root.list(annotations, depth=0)
        stems = sorted(_stem(path) for path in pictures if path.endswith(".jpg"))
        lacking = [stem for stem in stems if f"{annotations}/{stem}.png" not in indices]
        if not stems:
            raise SourceError("no picture (.jpg)", where=images, do=f"see: aesampler sources {self.format}")
        if lacking:
            raise SourceError(
                f"{len(lacking)} of {len(stems)} pictures have no PNG, the first {lacking[0]}",
                where=annotations,
                do=f"see: aesampler sources {self.format}",
            )
        places = {int(category.origin): place for place, category in enumerate(shown)}
        items = [Item(stem, f"ade20k:{stem}") for stem in stems]

        def record(index: int) -> Record:
            path = f"{annotations}/{stems[index]}.png"
            plane = _plane(root, path)
            numbers = [int(number) for number in np.flatnonzero(np.bincount(plane.ravel())) if number]
            return Record(
                id=items[index].id,
                group=items[index].group,
                frames=(f"{images}/{stems[index]}.jpg",),
                annotated=(True,),
                # A number that the table does not have is left to `scene`, which names it.
                masked=tuple(places[number] for number in numbers if number in places),
                payload=path.encode(),
            )

        return Survey(
            categories=shown,
            exhaustive=True,
            items=items,
            record=record,
            files=(base + TABLE,),
            listing={**pictures, **indices},
            folders=tuple(sorted({images, annotations})),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The classes of the index PNG: value n is the n-th name. Pixels of 0 are void."""
        path = record.payload.decode()
        plane, missing = _fit(_plane(root, path), size, path)
        numbers = [int(number) for number in np.flatnonzero(np.bincount(plane.ravel(order="K"))) if number]
        unnamed = [number for number in numbers if number > len(names)]
        if unnamed:
            raise BadRecord(
                f"classes that {TABLE} does not have", where=path, got=unnamed, allowed=f"0 to {len(names)}"
            )
        void = missing | (plane == 0)
        segments = {names[number - 1]: (masks.encode(plane == number),) for number in numbers}
        return Scene(
            height=size[0],
            width=size[1],
            annotated=(True,),
            segments={name: segments[name] for name in sorted(segments)},
            void=(masks.encode(void) if void.any() else None,),
            present=frozenset(names[place] for place in (*record.masked, *record.elsewhere)).difference(segments),
            exhaustive=True,
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


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


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


def _plane(root: Folder, path: str) -> npt.NDArray[np.uint8]:
    try:
        plane = masks.read_index(root.read(path))
    except BadRecord as error:
        raise BadRecord(error.what, where=path) from error
    if plane.ndim != 2 or plane.dtype != np.uint8:
        raise BadRecord("not an 8-bit index PNG", where=path)
    return plane.astype(np.uint8, copy=False)


def _fit(
    plane: npt.NDArray[np.uint8], size: tuple[int, int], path: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    try:
        fitted, missing = masks.fit(plane, *size)
    except BadRecord as error:
        raise BadRecord(error.what, where=path, got=error.got, allowed=error.allowed) from error
    return np.asfortranarray(fitted), missing
