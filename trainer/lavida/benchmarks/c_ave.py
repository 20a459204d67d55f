"""C-Ave: customised detection on Avenue. 5 classes, 18 of the 21 videos, 12,394 frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from lavida.benchmarks import avenue
from lavida.benchmarks.c_vad import CustomisedBenchmark

GROUPS = {"action": ("throwing", "running", "dancing"), "appearance": ("too close", "bicycle")}


class CAve(CustomisedBenchmark):
    """C-Ave."""

    name: ClassVar[str] = "c-ave"
    title: ClassVar[str] = "C-Ave, customised detection on Avenue"
    homepage: ClassVar[str] = "https://github.com/SkiddieAhn/Paper-AnyAnomaly"
    license: ClassVar[str] = "labels: see the repository; videos: research use"
    citation: ClassVar[str] = (
        "Ahn et al., AnyAnomaly: Zero-Shot Customizable Video Anomaly Detection with LVLM, WACV 2026"
    )
    layout: ClassVar[str] = """\
ROOT/                                               Avenue's
  testing_videos/01.avi ...                         or frames in testing/frames/01/
  ground_truth/c-avenue.json                        {class: [video ...]}; or in ROOT, ROOT/c-vad/, or option labels
  ground_truth/c-avenue_labels/avenue_throwing_label.h5 ...
"""
    protocol: ClassVar[str] = (
        "for each of 5 classes, all frames of the 18 videos that are not of several; mean of the AUCs"
    )
    expected: ClassVar[Mapping[str, int]] = {"videos": 18, "frames": 12394}
    prefix: ClassVar[str] = "avenue"
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = GROUPS

    categories: tuple[str, ...] = tuple(name for group in GROUPS.values() for name in group)

    def found(self) -> Mapping[str, Path]:
        """Avenue's test videos."""
        return avenue.videos(self.root)
