"""Any dataset of pictures with an index PNG each, and a file that names the indices.

    images/A/B.jpg, masks/A/B.png: pixel = index;  names.yaml: {1: road, 2: car}

The file of names is YAML or JSON, a mapping of index -> name or a list whose places are the indices; or text, a line an
index: `7: traffic light`, `7 <tab> traffic light`, or a name alone, whose index is its line, counted from 0. An index
of `void` or `background` is no name, even where the file has one for it; without these options 255 is void and 0 is
background where they have no name. Any other index that is not named is a bad record. `exhaustive: true` promises that
every name was looked for in every picture; without it nothing is known absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import yaml
from pydantic import Field

from aesampler.errors import UNREADABLE, SourceError
from aesampler.record import Category
from aesampler.sources import index_map, instances
from aesampler.sources.index_map import IndexMap, Legend, Pair
from aesampler.sources.source import Kind, Survey
from aesampler.storage import Folder

_LINE = re.compile(r"(\d+)\s*(?::|\t|\s)\s*(\S.*)")


class IndexPng(IndexMap):
    """Options: where pictures, maps and names lie, and what the indices without a name mean."""

    format: ClassVar[str] = "index-png"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "any folder of pictures with an index PNG each, and a file that names the indices"
    layout: ClassVar[str] = """\
ROOT/
  images/A/B.jpg            pictures, in subfolders or not; images: another folder
  masks/A/B.png             pixel = index, grey or palette, 8 or 16 bits; masks: another folder
  names.yaml                {1: road, 2: car}; names: another file, YAML, JSON or text
"""

    images: str = Field(default="images", description="the folder of the pictures")
    masks: str = Field(default="masks", description="the folder of the index PNGs, with the same subfolders")
    suffix: str = Field(default="", description="what stands between a picture's name and .png in its mask's name")
    names: str = Field(default="names.yaml", description="the file of names: .yaml, .json, else text")
    void: list[int] | None = Field(
        default=None, description="indices of pixels without a label, which may hide any name; default: 255 if unnamed"
    )
    background: list[int] | None = Field(
        default=None, description="indices of pixels that are none of the names; default: 0 if unnamed"
    )
    exhaustive: bool = Field(default=False, description="whether every name was looked for in every picture")
    only: str | None = Field(
        default=None, description="a text file of the pictures to take, one a line, without ending; default: all"
    )

    def survey(self, root: Folder) -> Survey:
        """One record a picture that has a mask; `only` names only such."""
        images, maps = _folder(self.images), _folder(self.masks)
        told = read_names(root, self.names)
        shown, legend = meanings(told, self.void, self.background)
        listing = {**root.list(images), **root.list(maps)}
        found = index_map.pictures(root.list(images), images)
        if images == maps:
            found = {name: path for name, path in found.items() if not path.endswith(f"{self.suffix}.png")}
        below = f"{maps}/" if maps else ""
        stems = sorted(found) if self.only is None else _lines(root, self.only)
        absent = [name for name in stems if name not in found]
        if absent:
            raise SourceError(
                f"{len(absent)} of {len(stems)} pictures of {self.only} are not there, the first {absent[0]}",
                where=f"{root.url}/{images}",
            )
        pairs = [
            Pair(name, instances.group(found[name]), found[name], f"{below}{name}{self.suffix}.png") for name in stems
        ]
        index_map.require(pairs, listing, f"{root.url}/{images}", f"PNG in {maps}/", self.format)
        return index_map.survey(
            root,
            pairs,
            categories=shown,
            exhaustive=self.exhaustive,
            payload=lambda pair: index_map.payload_of(root, pair, legend, index_map.read_plane),
            listing=listing,
            files=(self.names, *([self.only] if self.only else [])),
        )

    def _named_by(self) -> str:
        return self.names

    def _is_exhaustive(self) -> bool:
        return self.exhaustive


def read_names(root: Folder, path: str) -> dict[int, str]:
    """Index -> name, as the file says. Raises SourceError where it does not."""
    where = f"{root.url}/{path}"
    try:
        text = root.read(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SourceError(
            f"no file {path}", where=root.url, do='write {1: "name", 2: ...} there, or set names: FILE'
        ) from error
    except UnicodeDecodeError as error:
        raise SourceError("the file of names is not UTF-8", where=where) from error
    try:
        if path.lower().endswith(".json"):
            body: object = json.loads(text)
        elif path.lower().endswith((".yaml", ".yml")):
            body = yaml.safe_load(text)
        else:
            body = _text(text, where)
    except UNREADABLE as error:
        raise SourceError(f"not readable: {error}", where=where) from error
    told = list(body.items()) if isinstance(body, dict) else body
    if not isinstance(told, list) or not told:
        raise SourceError("it is no mapping of index to name, and no list of names", where=where)
    names: dict[int, str] = {}
    for place, entry in enumerate(told):
        key, name = entry if isinstance(entry, tuple) else (place, entry)
        if not str(key).isdecimal() or not isinstance(name, str) or not name.strip():
            raise SourceError("not an index and a name", where=where, got=f"{key!r}: {name!r}")
        if int(key) in names:
            raise SourceError("an index is named twice", where=where, got=int(key))
        names[int(key)] = " ".join(name.split())
    return names


def meanings(
    told: Mapping[int, str], void: Sequence[int] | None, background: Sequence[int] | None
) -> tuple[tuple[Category, ...], Legend]:
    """The vocabulary and the legend of named indices; void, background: as the options say."""
    hidden = {255} - told.keys() if void is None else {*void}
    ground = {0} - told.keys() if background is None else {*background}
    shown = tuple(
        Category(name=name, origin=str(number))
        for number, name in sorted(told.items())
        if number not in hidden | ground
    )
    names = {int(category.origin): place for place, category in enumerate(shown)}
    return shown, Legend(names=names, void=frozenset(hidden), background=frozenset(ground - hidden))


def _text(text: str, where: str) -> list[tuple[str, str]] | list[str]:
    """An index and a name a line, or a name a line, the first of index 0; lines that begin with # say nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = [_LINE.fullmatch(line) for line in lines]
    numbered = [(match[1], match[2]) for match in found if match is not None]
    if numbered and len(numbered) < len(lines):
        raise SourceError(
            "some lines are an index and a name, and others are not",
            where=where,
            got=repr(lines[found.index(None)]),
            do="give every name its index, or write the names as YAML",
        )
    return numbered or lines


def _lines(root: Folder, path: str) -> list[str]:
    try:
        text = root.read(path).decode()
    except FileNotFoundError as error:
        raise SourceError(f"no file {path}", where=root.url, do="set only to a text file, below root") from error
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def _folder(path: str) -> str:
    return instances.confined(path.rstrip("/"), "the folder") if path.strip("./") else ""
