"""Ray for a run of ours: aesampler's session, to which this package is sent too. It imports no torch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from aesampler.executors import node, session


def begin(address: str | None, workers: int | None) -> AbstractContextManager[bool]:
    """See `aesampler.executors.session.begin`."""
    return session.begin(address, workers, pack=_pack, instead="leave out --ray")


def _pack(folder: Path) -> list[Path]:
    return [*node.pack(folder), *node.copied("lavida", folder)]
