"""What a run says of itself: OUT/metrics.jsonl, a line a step and a line a validation, and the same in TensorBoard.

A resumed run goes on in both: lines past the checkpoint that it goes on from are taken out first, so that each step is
there once. Times and memory are those of the first process; losses are of all.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from aesampler.errors import MissingExtra

METRICS = "metrics.jsonl"


class LogSettings(BaseModel):
    """tensorboard: whether to write OUT/tensorboard, too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tensorboard: bool = True


class RunLog:
    """The log of a run that goes on after `step`. writes: False in all processes but the first, which are silent."""

    def __init__(self, out: Path, settings: LogSettings, *, step: int, writes: bool) -> None:
        self._file, self._board = None, None
        if not writes:
            return
        path = out / METRICS
        _cut(path, step)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        if settings.tensorboard:
            self._board = _board(out / "tensorboard", step)

    def write(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        """One line; kind: `train` or `validation`. A metric of None has no value."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, "kind": kind, **metrics}) + "\n")
        if self._board is not None:
            for name, value in metrics.items():
                if value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close both."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class Meter:
    """Times a step: samples a second, the share of the time that was spent waiting for data, memory."""

    def __init__(self, samples: int, device: torch.device) -> None:
        self._samples, self._device = samples, device
        self.start(0.0)

    def start(self, waited: float) -> None:
        """A step begins. waited: seconds waited for data since the beginning of the run."""
        self._began, self._waited = time.monotonic(), waited

    def lap(self, waited: float) -> dict[str, float]:
        """The figures of the step."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {
            "seconds": seconds,
            "samples_per_second": self._samples / seconds,
            "waiting_share": min((waited - self._waited) / seconds, 1.0),
            "memory_gb": memory(self._device) / 1e9,
        }


def memory(device: torch.device) -> int:
    """The most bytes that this process has had: of the device's memory, or of the host's where that computes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cut(path: Path, step: int) -> None:
    """Keep the whole lines up to `step`."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the run was killed while it wrote the line
            continue
        if entry["step"] <= step:
            kept.append(line + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra.of("tensorboard", "train") from error
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
