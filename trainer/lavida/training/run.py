"""Where a run stands, and where it goes on from: the part of a checkpoint that is neither weights nor moments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aesampler.errors import TrainingError
from lavida.training.config import TrainConfig
from lavida.training.feed import Feed


class Run:
    """Where a run stands: what goes into each checkpoint beside weights and moments. good: the last checkpoint."""

    def __init__(self, config: TrainConfig, frozen: str) -> None:
        self.config, self.frozen = config, frozen
        self.step = 0
        self.good: Path | None = None
        self.metrics: dict[str, float | None] = {}
        self.best: dict[str, float] | None = None
        self._validated_at = -1

    @property
    def has_metrics(self) -> bool:
        """Whether this very step was validated."""
        return self._validated_at == self.step

    def due(self, every: int) -> bool:
        """Whether what is done every so many steps, and at the end, is due after this step."""
        return self.step % every == 0 or self.step == self.config.steps

    def validated(self, metrics: dict[str, float | None], best: str) -> None:
        """Note the figures of this step; the first of equals stays the best."""
        self.metrics, self._validated_at = metrics, self.step
        value = metrics[best]
        if value is not None and (self.best is None or value > self.best["value"]):
            self.best = {"step": self.step, "value": value}

    def state(self, feed: Feed) -> dict[str, Any]:
        """What is needed to go on."""
        return {
            "identity": self.config.identity(),
            "model": self.config.model.model_dump(mode="json"),
            "frozen": self.frozen,
            "generators": {"seed": self.config.seed, "step": self.step},
            "stream": feed.state_dict(),
            "metrics": self.metrics,
            "best": self.best,
        }

    def restore(self, path: Path, state: Mapping[str, Any]) -> None:
        """Go on from a state. Raises TrainingError where it is of another run."""
        mine = json.loads(json.dumps(self.config.identity()))
        theirs = state["identity"]
        for key in sorted({*mine, *theirs}):
            if mine.get(key) != theirs.get(key):
                raise TrainingError(
                    f"the run in this folder has another {key}",
                    where=str(path.parents[1]),
                    got=json.dumps(mine.get(key)),
                    allowed=json.dumps(theirs.get(key)),
                    do="set it back, give another `out`, or begin anew with --fresh",
                )
        self.step, self.metrics, self.best = state["step"], state["metrics"], state["best"]
        self.good = path
