"""Where shards are made.

    inline.py     in this process
    cluster.py    on Ray, whatever dies on the way
    session.py    a session of Ray: here, or on a cluster to which the code is sent (the trainer's too)
    survey.py     every node is asked what it sees, before anything is rendered
    node.py       what a node needs: this very code, and the same view of every folder

An executor only maps `worker.build_shard` over tasks; what a shard holds is not its affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from aesampler.manifest import ShardReport
from aesampler.plan import ShardTask
from aesampler.worker import Job


class Executor(AbstractContextManager["Executor"], Protocol):
    """Maps tasks to reports, in any order; used in a `with` block, which starts and stops what it needs."""

    remote: bool
    """Whether workers may run on other machines, so that all they read has to lie under a root or OUT."""

    def prepare(self, job: Job) -> None:
        """Check, before anything is rendered, that every worker sees every root and OUT. Raises StorageError naming the
        node and the path.
        """

    def map(self, job: Job, tasks: Sequence[ShardTask]) -> Iterator[ShardReport]:
        """The report of each task, as it comes. What may pass is tried again, what lasts is raised."""
        ...
