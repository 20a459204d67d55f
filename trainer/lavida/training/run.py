"""Where a run stands, and where it goes on from: the part of a checkpoint that is neither weights nor moments. And the
hold of a run on its folder.
"""

from __future__ import annotations

import contextlib
import errno
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aesampler.errors import AesamplerError, LockedError, RecipeError, StorageError
from aesampler.storage import Folder
from lavida.training.config import TrainConfig
from lavida.training.feed import Feed
from lavida.training.parallel import World

LET_GO_S = 20.0
"""How long a folder may still be held by what a killed run has left: its decoding processes need some seconds to see
that it is gone.
"""
LOCKLESS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What a file system says that has no locks (Lustre, where it is mounted without them)."""


@contextlib.contextmanager
def held(folder: Path, world: World) -> Iterator[None]:
    """The run's folder, held by the first process while the run lasts. Raises LockedError, in all processes, where
    another run holds it.
    """
    with contextlib.ExitStack() as stack:
        fault: AesamplerError | None = None
        if world.first:
            try:
                _hold(folder, stack)
            except AesamplerError as error:
                fault = error
        for told in world.gather(fault):
            if told is not None:
                raise told
        yield


def _hold(folder: Path, stack: contextlib.ExitStack) -> None:
    began = time.monotonic()
    while True:
        try:
            stack.enter_context(Folder.at(folder).lock())
            return
        except LockedError as error:
            if time.monotonic() - began > LET_GO_S:
                do = "wait for it, or give another `out`"
                raise LockedError("another training is writing into this folder", where=str(folder), do=do) from error
            time.sleep(0.5)
        except StorageError as error:
            if getattr(error.__cause__, "errno", None) not in LOCKLESS:
                raise
            return


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
        """Go on from a state. Raises RecipeError where it is of another run."""
        mine = json.loads(json.dumps(self.config.identity()))
        theirs = state["identity"]
        for key in sorted({*mine, *theirs}):
            if mine.get(key) != theirs.get(key):
                raise RecipeError(
                    f"the run in this folder has another {key}",
                    where=str(path.parents[1]),
                    got=json.dumps(mine.get(key)),
                    allowed=json.dumps(theirs.get(key)),
                    do="set it back, give another `out`, or begin anew with --fresh",
                )
        self.step, self.metrics, self.best = state["step"], state["metrics"], state["best"]
        self.good = path
