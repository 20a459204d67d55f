"""DAVIS 2016 and 2017: short videos in which a few objects are marked in every frame; a semantics file says what they
are.

    2017: palette PNG, value = object, 255 void        2016: grey PNG, 255 = the object, which is all the foreground

Which of the two a mask is shows in the mask: a grey PNG of 0 and 255 alone is binary, and its 255 is the sequence's
object 1; in a palette PNG 255 is void. DAVIS has no categories: `davis_semantics.json` ({"SEQ": {"1": "name"}}) names
each object, and is needed. Where it names several things in a sequence whose masks are binary, they cannot be told
apart: a SourceError. An object in a mask that it does not name is a bad record. Nothing is known absent: only some
objects are marked. The vocabulary is the whole semantics file, whatever sequences are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from aesampler.errors import BadRecord, SourceError
from aesampler.record import Category, Record
from aesampler.scene import Scene
from aesampler.sources import sequence
from aesampler.sources.sequence import Frames, Tracks
from aesampler.sources.source import Item, Kind, Source, Survey
from aesampler.storage import Folder

LISTS = {"train": "train", "validation": "val", "test": "test-dev"}
CORRECTED = {"chamaleon": "chameleon", "cellphone": "cell phone"}
"""Misspelt in the published semantics file."""

Semantics = Mapping[str, Mapping[str, str]]


class Davis(Source):
    """DAVIS 2016 or 2017."""

    format: ClassVar[str] = "davis"
    kind: ClassVar[Kind] = "clip"
    summary: ClassVar[str] = (
        "DAVIS 2016 (binary) and 2017 (palette): objects in short videos, named by a semantics file"
    )
    layout: ClassVar[str] = """\
ROOT/
  JPEGImages/480p/SEQ/%05d.jpg          or Full-Resolution (resolution: Full-Resolution)
  Annotations/480p/SEQ/%05d.png
  davis_semantics.json                  {"SEQ": {"1": "name of object 1", "2": ...}, ...}
  ImageSets/2017/train.txt, val.txt     optional: without ImageSets, all sequences; 2016: ImageSets/480p/train.txt
"""

    resolution: Literal["480p", "Full-Resolution"] = Field(default="480p", description="which of the published sizes")
    images: str | None = Field(default=None, description="the folder of sequences of frames; default: JPEGImages/480p")
    annotations: str | None = Field(
        default=None, description="the folder of sequences of masks; default: Annotations/480p"
    )
    semantics: str = Field(default="davis_semantics.json", description="the JSON file that names the objects")
    year: Literal[2016, 2017] | None = Field(
        default=None, description="whose ImageSets to take; default: 2017's, else 2016's, else all sequences"
    )
    sequences: str | None = Field(default=None, description="a text file of the sequences to take instead, one a line")
    frames: Frames = Field(default="annotated", description="sample only frames with a mask (annotated), or all")

    def survey(self, root: Folder) -> Survey:
        """One record a sequence."""
        images = sequence.folder_of(self.images, f"JPEGImages/{self.resolution}")
        annotations = sequence.folder_of(self.annotations, f"Annotations/{self.resolution}")
        listing = {**root.list(images, depth=1), **root.list(annotations, depth=1)}
        frames = sequence.by_sequence(listing, images, ("jpg", "jpeg", "png"))
        marked = sequence.by_sequence(listing, annotations, ("png",))
        for folder, found in ((images, frames), (annotations, marked)):
            if not found:
                raise SourceError(
                    f"no sequence in {folder}/", where=root.url, do=f"see: aesampler sources {self.format}"
                )
        told = sequence.read_json(root, self.semantics, dict[str, dict[str, str]], do=_HOW)
        chosen, lists = self._chosen(root)
        names = sorted(frames) if chosen is None else chosen
        for kind, found in (("frames", frames), ("mask", marked)):
            lacking = [name for name in names if name not in found]
            if lacking:
                raise SourceError(
                    f"{len(lacking)} of {len(names)} sequences have no {kind}, the first {lacking[0]}",
                    where=f"{root.url}/{images if kind == 'frames' else annotations}",
                )
        shown = _categories(told)
        places = {category.origin: place for place, category in enumerate(shown)}
        tracks = [self._tracks(root, name, told, places, f"{annotations}/{name}") for name in names]
        several = [name for name, track in zip(names, tracks, strict=True) if not track.foreground]
        mixed = [name for name in several if _is_binary(root, marked[name][min(marked[name])])]
        if mixed:
            told_of = ", ".join(f"{name} ({' and '.join(sorted({*told[name].values()}))})" for name in mixed[:10])
            raise SourceError(
                f"{len(mixed)} of {len(names)} sequences have several things by name, and masks of one foreground "
                "(DAVIS 2016)",
                where=f"{root.url}/{self.semantics}",
                got=told_of + (", ..." if len(mixed) > 10 else ""),
                do="name one thing for each, in a file of your own (semantics: FILE), or take the Annotations of 2017",
            )
        items = [Item(name, f"davis:{name}") for name in names]

        def record(index: int) -> Record:
            name = names[index]
            return sequence.record(
                name, f"davis:{name}", images, frames[name], marked[name], self.frames, tracks[index]
            )

        return Survey(
            categories=shown,
            exhaustive=False,
            items=items,
            record=record,
            files=(self.semantics, *lists),
            listing=listing,
            folders=(images, annotations),
        )

    def scene(
        self, root: Folder, record: Record, names: Sequence[str], frames: Sequence[int], size: tuple[int, int]
    ) -> Scene:
        """The objects' masks, by name; 255 of a palette mask is void."""
        return sequence.scene(root, record, names, frames, size, source=self.semantics)

    def _chosen(self, root: Folder) -> tuple[list[str] | None, tuple[str, ...]]:
        """The sequences to read (None: all of them) and the files that list them."""
        if self.sequences is not None:
            return _listed(root, self.sequences), (self.sequences,)
        name = LISTS[self.subset]
        candidates = {2017: f"ImageSets/2017/{name}.txt", 2016: f"ImageSets/{self._sized}/{name}.txt"}
        if self.year is not None:
            return _listed(root, candidates[self.year]), (candidates[self.year],)
        if not root.exists("ImageSets"):
            return None, ()
        for path in candidates.values():
            if root.exists(path):
                return _listed(root, path), (path,)
        raise SourceError(
            f"ImageSets has no list of the {self.subset} sequences",
            where=root.url,
            allowed=" or ".join(candidates.values()),
            do="name one with sequences: FILE",
        )

    @property
    def _sized(self) -> str:
        # 2016 calls its full resolution by the lines it has.
        return "480p" if self.resolution == "480p" else "1080p"

    def _tracks(
        self,
        root: Folder,
        name: str,
        told: Semantics,
        places: Mapping[str, int],
        folder: str,
    ) -> Tracks:
        where = f"{root.url}/{self.semantics}"
        if not told.get(name):
            raise SourceError(f"no objects are named for sequence {name}", where=where, do=_HOW)
        try:
            objects = {int(number): places[thing] for number, thing in told[name].items()}
        except ValueError as error:
            raise SourceError(f"object ids of {name} are not numbers", where=where, got=list(told[name])) from error
        one = len(set(objects.values())) == 1
        return Tracks(masks=folder, objects=objects, foreground=[min(objects)] if one else [])


_HOW = (
    'write {"SEQ": {"1": "name of object 1", "2": ...}, ...} there; published as davis_semantics.json with DAVIS 2017'
)


def _categories(told: Semantics) -> tuple[Category, ...]:
    """The names of a semantics file in the order of the alphabet, misspelt ones corrected."""
    raw = sorted({name for objects in told.values() for name in objects.values()})
    return tuple(
        Category(
            name=CORRECTED.get(name, name).replace("_", " "),
            origin=name,
            aliases=(name,) if name in CORRECTED else (),
        )
        for name in raw
    )


def _is_binary(root: Folder, path: str) -> bool:
    try:
        return sequence.read_objects(root.read(path))[1]
    except BadRecord:
        return False  # the frame's own failure, told when it is sampled


def _listed(root: Folder, path: str) -> list[str]:
    """The sequences of a list: one a line (2017), or pairs of a frame and its mask (2016)."""
    try:
        text = root.read(path).decode()
    except FileNotFoundError as error:
        raise SourceError(f"no file {path}", where=root.url, do="see: aesampler sources davis") from error
    first = [line.split()[0] for line in text.splitlines() if line.strip()]
    names = list(dict.fromkeys(word.strip("/").split("/")[-2] if "/" in word.strip("/") else word for word in first))
    if not names:
        raise SourceError("the list names no sequence", where=f"{root.url}/{path}")
    return names
