"""The sentences around a list of categories, and the draw of them.

Five for the user, five for the answer, our own wording. Every answer ends in `<SEG>` and says nothing of the label: it
is in the input in training and in evaluation alike (teacher forcing), so it may not tell what is to be found. They
speak of "the view", which fits a picture as well as a clip. The draw is keyed by (seed, epoch, source, key): it is the
same on any rank, in any worker, after any crash. Evaluation takes the first of each.
"""

from __future__ import annotations

from collections.abc import Sequence

from aesampler import rng
from aesampler.errors import ModelError

SEG = "<SEG>"
"""The token whose state asks the segmenter for the anomaly."""

USER = (
    "These are views of one camera. Some of the following would be out of place here: {names}. Mark what is.",
    "Watch the scene for anything of this list: {names}. Outline whatever of it appears.",
    "The following count as anomalies: {names}. Where in the view is one of them?",
    "Anything named here should raise an alarm: {names}. Segment it in every picture that shows it.",
    "Check the view against this list of unusual things: {names}. Give the region they cover.",
)
ANSWER = (
    f"The region that was asked for is {SEG}",
    f"What the list names is marked by {SEG}",
    f"Checked against the list, the view gives {SEG}",
    f"Here is the outline: {SEG}",
    f"My answer, picture by picture, is {SEG}",
)

FIRST = (USER[0], ANSWER[0])


def joined(names: Sequence[str], special: Sequence[str] = ()) -> str:
    """The list as the prompts have it, comma-separated.

    special: tokens of the tokenizer that stand for more than their letters. Raises ModelError where the list is empty,
    or a name holds one of them: it would put a picture or an answer into the prompt.
    """
    if not names:
        raise ModelError("a prompt needs a name to look for", got="an empty list", allowed="1 name or more")
    for name in names:
        if held := [token for token in special if token in name]:
            raise ModelError(f"a category holds the special token {held[0]}", got=repr(name), do="rename the category")
    return ", ".join(names)


def drawn(seed: int, epoch: int, source: str, key: str) -> tuple[str, str]:
    """The user's and the answer's sentence for a sample in an epoch."""
    generator = rng.generator(seed, "prompt", epoch, source, key)
    return USER[int(generator.random() * len(USER))], ANSWER[int(generator.random() * len(ANSWER))]
