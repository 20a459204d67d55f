"""The score in an answer: its first number, clamped to 0..1, or none at all.

"1.", ".5", "0.8/1", "**Score**: 0.7" and "1e-1" are numbers as they stand. "80%" is 0.8, "0,8" is 0.8, and a hyphen
after a letter or digit is no sign. What a thinking model wrote before "</think>" is not its answer.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"((?:(?<!\w)[-+])?(?:[0-9]+(?:[.,][0-9]+|\.)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(\s?%)?")


def score(answer: str) -> float | None:
    """The first number of an answer, clamped to 0..1; None where it has none, which is never a 0."""
    found = _NUMBER.search(answer.rpartition("</think>")[2])
    if found is None:
        return None
    value = float(found[1].replace(",", ".")) / (100 if found[2] else 1)
    return min(max(value, 0.0), 1.0)
