"""A Scene: all that is known of the sampled frames of one record, and the JSON string (`redraw`) that stores it in the
corpus.

The exposure is drawn from a scene and nothing else of the record. The build makes scenes from sources; a reader makes
the same scene from the stored string, so it can draw again, with other settings or for another epoch, by the same code.
No pixels but run-length masks.

The string, version 1, is one JSON object:

    {"version": 1,
     "size": [height, width],
     "annotated": [true, ...],                   whether each valid frame is marked; one entry each below
     "segments": {name: [rle or null, ...]},     masks that may be exposed, the union of a name's instances; null: none
     "incomplete": {name: [rle or null, ...]},   present and only partly marked: masks kept, never exposed
     "ignored": {name: [rle or null, ...]},      regions of a name to leave out (crowds, groups)
     "void": [rle or null, ...],                 pixels without a label, which may hide any name
     "present": [name, ...],                     present in the record or its group, without a mask in these frames
     "absent": [name, ...],                      known absent, one by one
     "exhaustive": false}                        true: every name of the vocabulary not above is known absent

Version 2 is the same with one more member, and is written only where there is something in it:

     "shown": [name, ...]                        a CLIP image tower takes the frames to show it (`similarity`)

rle is COCO's compressed run-length form, {"size": [height, width], "counts": "..."}. Names are in sorted order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from aesampler.errors import CorpusError

REDRAW_VERSIONS = (1, 2)

Presence = Literal["present", "absent", "unknown"]
Track = tuple[str | None, ...]
"""Per valid frame, the compressed RLE counts of a mask [height, width], or None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is known of the valid frames of one sample; fields as in the module's docstring.

    height, width: pixels. annotated: one bool a valid frame. segments, incomplete, ignored: name -> Track without
    all-None tracks. void: Track.
    """

    height: int
    width: int
    annotated: tuple[bool, ...]
    segments: Mapping[str, Track] = field(default_factory=dict)
    incomplete: Mapping[str, Track] = field(default_factory=dict)
    ignored: Mapping[str, Track] = field(default_factory=dict)
    void: Track = ()
    present: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    exhaustive: bool = False
    shown: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.void:
            object.__setattr__(self, "void", (None,) * len(self.annotated))
        for name, track in [
            *self.segments.items(),
            *self.incomplete.items(),
            *self.ignored.items(),
            ("void", self.void),
        ]:
            if len(track) != len(self.annotated):
                raise ValueError(f"{name!r} has {len(track)} masks for {len(self.annotated)} frames")

    @property
    def seen(self) -> frozenset[str]:
        """Every name that is present, marked or not: none of them may be drawn as irrelevant."""
        return self.present.union(self.segments, self.incomplete, self.ignored)

    def presence(self, name: str) -> Presence:
        """What is known of `name` in the whole record: present, absent or unknown."""
        if name in self.present or name in self.segments or name in self.incomplete or name in self.ignored:
            return "present"
        return "absent" if self.exhaustive or name in self.absent else "unknown"

    def to_json(self) -> str:
        """The `redraw` string: compact, keys in a fixed order, names sorted, UTF-8; equal scenes give equal strings."""
        body = {
            "version": REDRAW_VERSIONS[bool(self.shown)],
            "size": [self.height, self.width],
            "annotated": list(self.annotated),
            "segments": self._tracks(self.segments),
            "incomplete": self._tracks(self.incomplete),
            "ignored": self._tracks(self.ignored),
            "void": self._track(self.void),
            "present": sorted(self.present.difference(self.segments, self.incomplete, self.ignored)),
            "absent": sorted(self.absent),
            "exhaustive": self.exhaustive,
            **({"shown": sorted(self.shown)} if self.shown else {}),
        }
        return msgspec.json.encode(body).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Scene:
        """The scene of a `redraw` string. Raises CorpusError where the string is none, or of a version that this code
        does not know.
        """
        try:
            stored = msgspec.json.decode(text, type=_Stored)
        except msgspec.ValidationError as error:
            raise CorpusError(f"not a redraw string: {error}") from error
        except msgspec.DecodeError as error:
            raise CorpusError(f"not JSON: {error}", where="redraw") from error
        if stored.version not in REDRAW_VERSIONS:
            raise CorpusError(
                "unknown version of the redraw string",
                got=stored.version,
                allowed=" or ".join(map(str, REDRAW_VERSIONS)),
                do="read it with the aesampler that wrote it",
            )
        return cls(
            height=stored.size[0],
            width=stored.size[1],
            annotated=tuple(stored.annotated),
            segments={name: _counts(track) for name, track in stored.segments.items()},
            incomplete={name: _counts(track) for name, track in stored.incomplete.items()},
            ignored={name: _counts(track) for name, track in stored.ignored.items()},
            void=_counts(stored.void),
            present=frozenset(stored.present),
            absent=frozenset(stored.absent),
            exhaustive=stored.exhaustive,
            shown=frozenset(stored.shown),
        )

    def _track(self, track: Track) -> list[object]:
        size = [self.height, self.width]
        return [None if counts is None else {"size": size, "counts": counts} for counts in track]

    def _tracks(self, tracks: Mapping[str, Track]) -> dict[str, list[object]]:
        return {name: self._track(tracks[name]) for name in sorted(tracks)}


class _Rle(msgspec.Struct):
    size: tuple[int, int]
    counts: str


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    size: tuple[int, int]
    annotated: list[bool]
    segments: dict[str, list[_Rle | None]]
    incomplete: dict[str, list[_Rle | None]]
    ignored: dict[str, list[_Rle | None]]
    void: list[_Rle | None]
    present: list[str]
    absent: list[str]
    exhaustive: bool
    shown: list[str] = []


def _counts(track: list[_Rle | None]) -> Track:
    return tuple(None if rle is None else rle.counts for rle in track)
