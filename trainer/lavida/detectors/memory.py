"""Running out of memory, as a line that says which options of the detector to lower."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from pydantic import BaseModel

from aesampler.errors import DetectorError

AT_ONCE = ("questions", "batch", "chunk")
"""Options of detectors that say how much is done at once, and change no score."""
SMALLER = (("model", "take a smaller --model"), ("clip", "take a smaller --option clip"))
"""Options that name models, and what to do about them."""


@contextlib.contextmanager
def memory_told(name: str, options: BaseModel | None, *, loading: bool = False) -> Iterator[None]:
    """Turn running out of memory into a DetectorError. loading: the model is not there yet, so how much is done at once
    does not matter.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _ran_out(error):
            raise
        raise DetectorError(
            "out of memory", where=f"detector {name}", got=str(error)[:160] or None, do=_advice(error, options, loading)
        ) from error


def _ran_out(error: MemoryError | RuntimeError) -> bool:
    if isinstance(error, MemoryError):
        return True
    if "torch" not in sys.modules:  # whose errors the others are; detectors without it stay without it
        return False
    from lavida.data.memory import ran_out

    return ran_out(error)


def _advice(error: Exception, options: BaseModel | None, loading: bool) -> str:
    given = {} if options is None else {name: getattr(options, name) for name in type(options).model_fields}
    sizes = [] if loading else [name for name in AT_ONCE if isinstance(given.get(name), int) and given[name] > 1]
    advice = ["lower " + ", ".join(f"--option {name} ({given[name]})" for name in sizes)] if sizes else []
    advice += [do for name, do in SMALLER if given.get(name)]
    on_host = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
    if not on_host and given.get("device", "cpu") != "cpu":
        advice.append("give --device cpu")
    return ", or ".join(advice) or "give it smaller frames"
