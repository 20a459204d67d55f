"""What every source yields: a Record, an image or a whole video with what is annotated in it, and no pixels.

A record knows the names of its categories and where its files are; the masks stay in the format's own form (`payload`,
or files) until `Source.scene` turns those of the sampled frames into run-length masks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One name of a source's vocabulary.

    name: unique within the source, as it is shown in lists ("cell phone"). origin: the source's own id of it. aliases:
    other names of the same thing. supercategory: the source's own group of names ("vehicle"). synset: the sense in
    WordNet 3.0, "mouse.n.04". Both "" where the source does not say.
    """

    name: str
    origin: str
    aliases: tuple[str, ...] = ()
    supercategory: str = ""
    synset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One image, or one whole video, of a source.

    id: the source's own id, unique within it. group: identity of the picture or video across sets ("coco:139"); one
    group never falls in two splits. frames: paths below the source's root, in order of time; one for an image.
    annotated: whether each frame's objects are marked. height, width: as annotated, in pixels; 0 where the annotation
    does not say. masked, ignored, incomplete, absent: indices into the source's categories. masked: has a mask
    somewhere that may be exposed. ignored: present, but only as regions to leave out (crowds). incomplete: present and
    only partly marked, so never exposed. absent: known absent, for sources that list absences one by one (an exhaustive
    source lists none: all others are absent). elsewhere: present in the same group though not marked in this record.
    payload: the record's annotation in the format's own form, for `Source.scene` alone.
    """

    id: str
    group: str
    frames: tuple[str, ...]
    annotated: tuple[bool, ...]
    height: int = 0
    width: int = 0
    masked: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()
    incomplete: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    elsewhere: tuple[int, ...] = ()
    payload: bytes = b""

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.annotated):
            raise ValueError(f"record {self.id}: {len(self.frames)} frames, {len(self.annotated)} marks")
