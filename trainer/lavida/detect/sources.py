"""What the user gave, as videos: a file, a folder of pictures, the address of a camera, or a directory that holds some
of these. What an earlier run has answered is none of them, wherever its folder lies.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from aesampler import video
from aesampler.errors import SourceError

_OTHER = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One video. name: fit for a folder, unlike that of any other in the run; place: a path or an address."""

    name: str
    place: str


def find_sources(given: Sequence[str], out: Path | None = None) -> list[Source]:
    """The videos of all that was given, in that order, a directory's sorted.

    out: where the answers go: a folder that is this one or lies below it, and the files there, are left out, but for
    a file that is named itself. Raises SourceError where there is no video, or none is left.
    """
    answers = None if out is None else out.resolve()
    places = [place for each in given for place in _expand(each, answers)]
    if given and not places:
        raise SourceError("no video lies outside of the folder of the answers", where=str(out), do="give another --out")
    taken: set[str] = set()
    found = []
    for place in places:
        name = _name(place)
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        free = next(each for each in itertools.chain([name], numbered) if each not in taken)
        taken.add(free)
        found.append(Source(name=free, place=place))
    return found


def _expand(given: str, answers: Path | None) -> Iterable[str]:
    if video.is_address(given):
        return [given]
    if "://" in given:
        raise SourceError(
            "this address is of a kind that is not read",
            where=given.partition("://")[0] + "://",
            allowed=", ".join(f"{scheme}://" for scheme in video.SCHEMES),
        )
    path = Path(given)
    if not path.exists():
        raise SourceError("there is no such file or folder", where=given, do="give a video, a folder or an address")
    if not path.is_dir():
        return [given]
    if _inside(path, answers):
        return []
    found = list(video.found_in(path))
    if video.holds_pictures(path):
        beside = [place.name for place in found if place.parent == path and place.is_file()]
        if beside:
            raise SourceError(
                "a folder holds pictures and videos: it is not clear which are meant",
                where=given,
                got=f"{beside[0]} beside pictures",
                do="name the videos themselves; pictures that are the frames of one go into a folder of their own",
            )
        return [given]
    if not found:
        endings = ", ".join(sorted(video.VIDEOS))
        raise SourceError("a folder holds no video and no pictures", where=given, allowed=f"files ending in {endings}")
    return [str(place) for place in found if not _inside(place, answers)]


def _inside(path: Path, answers: Path | None) -> bool:
    return answers is not None and path.resolve().is_relative_to(answers)


def _name(place: str) -> str:
    """A name for a folder; of an address its host and path, without the password that may stand in it."""
    if video.is_address(place):
        parts = urlsplit(place)
        text = f"{parts.hostname or ''}{parts.path}"
    else:
        path = Path(place).resolve()
        text = path.name if path.is_dir() else path.stem
    return _OTHER.sub("-", text).strip("-.") or "video"
