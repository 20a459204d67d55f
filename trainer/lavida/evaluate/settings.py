"""What an evaluation is asked for, and which part of it makes the scores.

Scores depend on the benchmark, the detector, its model and their options: `Settings.scoring` says these as JSON, and a
folder of scores belongs to one such answer. Where the data lies, on what it ran, and how the table is made of the
scores (bootstrap, tuning) may differ from run to run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

SAMPLE_BYTES = 1 << 20
"""Bytes at either end of a file that stand for it: a checkpoint may weigh 16 GB."""
MODELS = ("model", "clip", "pretrained", "clip_pretrained")
"""Options of detectors that may be the path of a model."""
REFERENCE = "motion"
"""The detector whose result stands beside every other."""


class Settings(BaseModel):
    """One evaluation.

    benchmark, root, benchmark_options: the videos. detector, options: what scores them; `model` among the options is a
    folder or a name. categories: texts in place of the benchmark's own. device: for detectors that have one. reference:
    score `motion` too. tune_on_test: choose smoothing and fusion on the test labels. bootstrap: draws of the
    confidence intervals, by `seed`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    benchmark: str
    root: str
    benchmark_options: dict[str, Any] = Field(default_factory=dict)
    detector: str
    options: dict[str, Any] = Field(default_factory=dict)
    categories: tuple[str, ...] | None = None
    device: str | None = None
    reference: bool = True
    tune_on_test: bool = False
    bootstrap: int = Field(1000, ge=0)
    seed: int = 0

    def scoring(self) -> dict[str, Any]:
        """What the scores depend on, as JSON; a model in a local folder or file is known by its content, not its
        place.
        """
        options = dict(self.options)
        for name in MODELS:
            place = options.get(name)
            if isinstance(place, str) and Path(place).exists():
                options[name] = {"folder" if Path(place).is_dir() else "file": fingerprint(Path(place))}
        return {
            "benchmark": self.benchmark,
            "benchmark_options": self.benchmark_options,
            "detector": self.detector,
            "options": options,
            "categories": None if self.categories is None else list(self.categories),
        }

    def of_reference(self) -> Settings:
        """The same evaluation with `motion`."""
        return self.model_copy(
            update={"detector": REFERENCE, "options": {}, "categories": None, "device": None, "tune_on_test": False}
        )


def fingerprint(folder: Path) -> str:
    """16 hex digits of the names, sizes and ends of a folder's files; of a file, of its size and ends."""
    digest = hashlib.sha256()
    for path in [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE_BYTES))
            if size > SAMPLE_BYTES:
                file.seek(max(SAMPLE_BYTES, size - SAMPLE_BYTES))
                digest.update(file.read())
    return digest.hexdigest()[:16]
