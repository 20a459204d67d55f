"""OVIS: tracks of 25 categories in crowded videos, every fifth frame; the form of YouTube-VIS, another layout.

Names are capitalised, and one is misspelt (`Vehical`): they are shown in lower case, and as `vehicle`. See
youtube_vis.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from aesampler.sources.youtube_vis import YouTubeVis


class Ovis(YouTubeVis):
    """OVIS."""

    format: ClassVar[str] = "ovis"
    summary: ClassVar[str] = "OVIS: tracks of 25 categories in videos full of occlusions, every 5th frame"
    layout: ClassVar[str] = """\
ROOT/
  train/VIDEO/img_%07d.jpg
  annotations_train.json                any JSON file at ROOT or one folder below that holds the tracks of these videos
"""
    folders: ClassVar[tuple[str, ...]] = ("{part}", "Images/{part}", "JPEGImages/{part}")
    family: ClassVar[str] = "ovis"
    corrected: ClassVar[Mapping[str, str]] = {"Vehical": "Vehicle"}
