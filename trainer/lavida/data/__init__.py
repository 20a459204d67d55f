"""Samples of a stream, or clips of a video, to batches.

prompts.py    the sentences around a list of categories, drawn by (seed, epoch, key)
chat.py       a conversation to tokens: the MLLM's own chat template, the answer apart
vision.py     frames to the MLLM's pixels, within a budget of visual tokens
targets.py    frames and masks at the segmenter's two sizes
batch.py      Batch
collate.py    Collator: all of it together
memory.py     what too large a batch ends in
"""

from __future__ import annotations

from lavida.data.batch import NO_TARGET, Batch
from lavida.data.collate import Collator, DataSettings
from lavida.data.prompts import SEG

__all__ = ["NO_TARGET", "SEG", "Batch", "Collator", "DataSettings"]
