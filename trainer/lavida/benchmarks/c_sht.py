"""C-ShT: customised detection on ShanghaiTech. 11 classes, 96 of the 107 videos, 36,388 frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from lavida.benchmarks import shanghaitech
from lavida.benchmarks.c_vad import CustomisedBenchmark

GROUPS = {
    "action": ("skateboarding", "throwing", "running", "loitering", "jumping", "falling", "fighting"),
    "appearance": ("car", "hand truck", "bicycle", "motorcycle"),
}


class CSht(CustomisedBenchmark):
    """C-ShT."""

    name: ClassVar[str] = "c-sht"
    title: ClassVar[str] = "C-ShT, customised detection on ShanghaiTech"
    homepage: ClassVar[str] = "https://github.com/SkiddieAhn/Paper-AnyAnomaly"
    license: ClassVar[str] = "labels: see the repository; videos: BSD 2-Clause"
    citation: ClassVar[str] = (
        "Ahn et al., AnyAnomaly: Zero-Shot Customizable Video Anomaly Detection with LVLM, WACV 2026"
    )
    layout: ClassVar[str] = """\
ROOT/                                               ShanghaiTech's
  testing/frames/01_0014/000.jpg ...
  ground_truth/c-shtech.json                        {class: [video ...]}; or in ROOT, ROOT/c-vad/, or option labels
  ground_truth/c-shtech_labels/shtech_car_label.h5 ...
"""
    protocol: ClassVar[str] = (
        "for each of 11 classes, all frames of the 96 videos that are not of several; mean of the AUCs"
    )
    expected: ClassVar[Mapping[str, int]] = {"videos": 96, "frames": 36388}
    prefix: ClassVar[str] = "shtech"
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = GROUPS

    categories: tuple[str, ...] = tuple(name for group in GROUPS.values() for name in group)
    clip_step: int = 2

    def found(self) -> Mapping[str, Path]:
        """ShanghaiTech's test videos."""
        return shanghaitech.videos(self.root)
