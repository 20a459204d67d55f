"""The key frames of a segment: the representative one, and four that stand for its course in time.

Four ways, for the paper's ablation; `similarity` [N] is CLIP's, between the N frames and the text:

    clip-then-group  i* = argmax; the four are j * N/4 + (i* mod N/4), j = 0..3: equally far apart, i* among them [P]
    group-then-clip  the most similar of each quarter; the representative is the best of them, which is i*
    top-4            the four most similar, in the order of time; the representative is i*
    random           four distinct frames in the order of time, one of them the representative

In the paper's example N = 8 and i* = 4: 4 mod 2 = 0, so the four are 0, 2, 4, 6. Its Table 3 (C-ShT / C-Ave): random
83.3 / 84.4, top-4 84.0 / 83.1, group-then-clip 84.7 / 87.2, clip-then-group 85.7 / 90.3. Of equal similarities the
earlier frame wins [O].
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Selection = Literal["clip-then-group", "group-then-clip", "top-4", "random"]
GROUPS = 4


class KeyFrames(NamedTuple):
    """Indices into a segment. four: ascending, the cells of the grid in the order of reading."""

    representative: int
    four: tuple[int, int, int, int]


def by_similarity(similarity: npt.NDArray[np.floating], selection: Selection = "clip-then-group") -> KeyFrames:
    """Choose by CLIP. similarity: [N], N a multiple of 4. Raises ValueError for another N, or for "random"."""
    count = len(similarity)
    if count % GROUPS or not count:
        raise ValueError(f"a segment has a multiple of {GROUPS} frames, not {count}")
    group = count // GROUPS
    best = int(np.argmax(similarity))
    if selection == "clip-then-group":
        return _chosen(best, [place * group + best % group for place in range(GROUPS)])
    if selection == "group-then-clip":
        inside = np.argmax(similarity.reshape(GROUPS, group), axis=1)
        return _chosen(best, [place * group + int(index) for place, index in enumerate(inside)])
    if selection == "top-4":
        return _chosen(best, np.argsort(-similarity, kind="stable")[:GROUPS].tolist())
    raise ValueError(f"no selection by similarity: {selection!r}")


def at_random(count: int, generator: np.random.Generator) -> KeyFrames:
    """Choose four distinct ones of `count` frames, and one of the four as the representative."""
    if count < GROUPS:
        raise ValueError(f"a segment has at least {GROUPS} frames, not {count}")
    four = np.argsort(generator.random(count), kind="stable")[:GROUPS].tolist()
    return _chosen(four[0], four)


def _chosen(representative: int, four: list[int]) -> KeyFrames:
    first, second, third, fourth = sorted(four)
    return KeyFrames(representative, (first, second, third, fourth))
