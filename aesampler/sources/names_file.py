"""The file in which a user names the objects of a set that has no categories (MOSE, SA-V).

    {"VIDEO": {"1": "dog", "2": "red car", "3": null}, ...}

Videos that it does not have are left out, and counted. null is an object that nobody named: its pixels may be of any
name, so they are void. Names are shown as they are written.
"""

from __future__ import annotations

from collections.abc import Mapping

from aesampler.errors import SourceError
from aesampler.record import Category
from aesampler.sources import sequence
from aesampler.storage import Folder

Named = Mapping[str, Mapping[int, str | None]]
"""Video -> object id -> its name, or None."""


def read(root: Folder, path: str | None, *, format: str, object: str) -> Named:
    """The names file at `path` below root. object: what its ids are, for the message.

    Raises SourceError where none is given: the set has no names to draw from.
    """
    how = f'write {{"VIDEO": {{"1": "dog", "2": null}}}} (the names of {object}; null: no name) and set names: FILE'
    if path is None:
        raise SourceError(f"{format} says where objects are, not what they are", where=root.url, do=how)
    told = sequence.read_json(root, path, dict[str, dict[str, str | None]], do=how)
    where = f"{root.url}/{path}"
    found: dict[str, dict[int, str | None]] = {}
    for video, objects in sorted(told.items()):
        odd = [
            number for number, name in objects.items() if not number.isdecimal() or not (name is None or name.strip())
        ]
        if odd:
            raise SourceError(
                f"objects of video {video} with an id that is no number, or an empty name", where=where, got=odd
            )
        found[video] = {
            int(number): None if name is None else " ".join(name.split()) for number, name in objects.items()
        }
    if not any(name for objects in found.values() for name in objects.values()):
        raise SourceError("the file names no object", where=where, do=how)
    return found


def categories(named: Named) -> tuple[Category, ...]:
    """Every name of the file, in the order of the alphabet."""
    names = {name for objects in named.values() for name in objects.values() if name is not None}
    return tuple(Category(name=name, origin=name) for name in sorted(names))
