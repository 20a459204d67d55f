"""Is a corpus what it says? Every file, every offset, every member and every label, looked at one shard at a time.

What is wrong is collected, not raised: a check that finds something goes on. Reading trouble that may pass (network) is
raised. Memory: the rows of one shard, 16 bytes a sample for keys and groups, and at most `SHOWN` problems a check.
The tars are read once through, and once again by offset. `deep` also decodes every picture and draws every exposure
again, from the stored segments, the vocabulary and the recipe, with the code that built the corpus.

    findings.py   the checks, and what they found
    whole.py      the head, the card, the vocabularies; `verify`
    shards.py     manifests and tars
    samples.py    members, pictures, masks, labels; draws
    keys.py       keys and groups
"""

from __future__ import annotations

from aesampler.verify.findings import CHECKS, SHOWN, Check, Problem, Verdict
from aesampler.verify.whole import verify

__all__ = ["CHECKS", "SHOWN", "Check", "Problem", "Verdict", "verify"]
