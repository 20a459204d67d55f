"""What the model is asked: a prompt in parts, at four levels of detail (the paper's Table S1).

    Task            rate how clearly the text can be seen, 0 to 1
    Context         for the temporal question only: the picture is a grid in time
    Consideration   rate it high even if it is not central         (levels `consideration`, `both`)
    Output          a number with one decimal; after a short reason (levels `reasoning`, `both`), or alone

Table S1 on C-ShT / C-Ave: simple 79.3 / 74.0, reasoning 79.8 / 82.1, both 85.7 / 90.3. The wording is ours. The first
number of an answer is its score, so the reason is asked for without digits.
"""

from __future__ import annotations

from typing import Literal

View = Literal["frame", "position", "temporal"]
Level = Literal["simple", "reasoning", "consideration", "both"]

TASK = (
    'Task: rate from 0 to 1 how clearly "{text}" can be seen in this image. '
    "0 means that it is not there at all, 1 that it is there without doubt; "
    "in between, the rating grows with how much of it can be seen."
)
CONTEXT = (
    "Context: the image is a grid of two rows and two columns that shows one place at four moments. "
    "They follow each other row by row: upper left, upper right, lower left, lower right."
)
CONSIDERATION = (
    'Consideration: what counts is whether "{text}" is there, not whether it is the main subject. '
    "Give a high rating, such as 1.0, even if it is small, at the edge or in the background."
)
REASONED = (
    "Output: the reason in one short sentence without digits, then the rating as a number from 0 to 1 with one decimal."
)
PLAIN = "Output: the rating alone, as a number from 0 to 1 with one decimal, without any other word."


def prompt(text: str, view: View, level: Level = "both") -> str:
    """The question about one view of a segment, one part a line."""
    parts = [TASK]
    if view == "temporal":
        parts.append(CONTEXT)
    if level in ("consideration", "both"):
        parts.append(CONSIDERATION)
    parts.append(REASONED if level in ("reasoning", "both") else PLAIN)
    return "\n".join(part.replace("{text}", text) for part in parts)
