"""What this machine offers to the process."""

from __future__ import annotations

import os


def cpus() -> int:
    """CPUs that this process may use: those it is bound to, where the system tells, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
