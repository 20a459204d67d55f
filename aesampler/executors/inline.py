"""Shards made one after the other in this process: for small corpora, for debugging, and as the reference that every
other executor must equal.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from aesampler.errors import StorageError
from aesampler.manifest import ShardReport
from aesampler.plan import ShardTask
from aesampler.worker import Job, build_shard

ATTEMPTS = 3
"""Tries of a shard whose reading or writing fails; the pause between them doubles."""
PAUSE_S = 0.5


class Inline:
    """See the module. Errors of reading are tried again; then StorageError stops the build, which can go on later."""

    remote = False

    def __enter__(self) -> Inline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def prepare(self, job: Job) -> None:
        """Nothing to check: this process has read the roots and written OUT already."""

    def map(self, job: Job, tasks: Sequence[ShardTask]) -> Iterator[ShardReport]:
        """The reports, in the order of the tasks."""
        for task in tasks:
            yield _patiently(task, job)


def _patiently(task: ShardTask, job: Job) -> ShardReport:
    for attempt in range(ATTEMPTS):
        try:
            return build_shard(task, job)
        except (OSError, StorageError) as error:
            if attempt == ATTEMPTS - 1:
                raise StorageError.of(error) from error
            time.sleep(PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")
