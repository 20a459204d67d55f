"""Work done in a process of its own: Ray leaves so much behind in a process that the next session suffers from it.

A Ray that is begun there is its own too. Asked for no address, Ray would join one that runs on the machine, or that
did: what was killed is still written down, and waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function`, of a module, gives in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_alone) as pool:
        return pool.submit(function, *arguments).result()


def _alone() -> None:
    os.environ["RAY_ADDRESS"] = "local"


def ray_rows(paths: list[str]) -> list[dict[str, Any]]:
    """The samples of tars as `ray.data.read_webdataset` decodes them."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    return list(ray.data.read_webdataset(paths).iter_rows())


def executed(program: str) -> dict[str, Any]:
    """The plain values that a program leaves."""
    scope: dict[str, Any] = {}
    exec(compile(program, "program", "exec"), scope)
    plain = (dict, list, int, str)
    return {name: value for name, value in scope.items() if isinstance(value, plain) and name[0] != "_"}
