"""VIPSeg: the classes of VSPW with things told apart, in 3,536 of its videos.

    16-bit PNG: 0 void;  below 125 a class: stuff, or things that were not told apart;  else class * 100 + instance

Things that were not told apart are a group: present, their pixels ignored. Instances of a class are ORed. Read else as
VSPW is, see there; a video has one identity in both sets.
"""

from __future__ import annotations

from typing import ClassVar

from aesampler.sources.vspw import Value, Vspw

SPLIT = 125
"""Values from here on are class * 100 + instance."""
THINGS = frozenset(
    {3, 5, 9, 11, 42, 44, 45, 73, 75, 123, 124}.union(
        *(range(47, 54), range(55, 58), range(61, 67), range(77, 81), range(83, 94)),
        *(range(96, 99), range(100, 104), range(107, 111), range(115, 120)),
    )
)
"""The 58 classes that have instances, by panoVIPSeg_categories.json (whose ids are one lower)."""


class Vipseg(Vspw):
    """VIPSeg, at its full size or 720p."""

    format: ClassVar[str] = "vipseg"
    summary: ClassVar[str] = "VIPSeg: videos with all of their pixels marked, 124 classes, groups ignored"
    layout: ClassVar[str] = """\
ROOT/                                   the folder with the lists, or the one that holds VIPSeg/ or VIPSeg_720P/
  train.txt, val.txt, test.txt          videos, one a line
  label_num_dic_final.json              {"wall": "1", ...}
  imgs/VIDEO/%08d.jpg                   images/ in VIPSeg_720P
  panomasks/VIDEO/%08d.png              not panomasksRGB
"""
    bases: ClassVar[tuple[str, ...]] = ("", "VIPSeg/", "VIPSeg_720P/")
    images: ClassVar[tuple[str, ...]] = ("imgs", "images")
    annotations: ClassVar[str] = "panomasks"
    inside: ClassVar[tuple[str, str]] = ("", "")
    void: ClassVar[tuple[int, ...]] = (0,)

    def value(self, number: int) -> Value:
        """The class of a value, and whether it is a group."""
        return Value(number // 100) if number >= SPLIT else Value(number, number in THINGS)
