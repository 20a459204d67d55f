"""`lavida evaluate`: a detector judged on a benchmark.

    settings.py   what is asked for, and which part of it makes the scores
    scoring.py    one video through one detector, in bounded memory
    store.py      its scores on disk, whole or not at all: a stopped run goes on
    evaluation.py all of it, in one process
    cluster.py    the same on several GPUs or nodes, by Ray
    tuning.py     what is chosen on the test labels, only where asked
    result.py     saved scores -> metrics with confidence intervals
    outcome.py    metrics -> evaluation.json, table.md, plots, next to the published numbers

`motion` (frame difference) is scored beside every other detector: what knowing only that something moves is worth on
this benchmark. The table is made from the saved scores alone, whatever has been scored when and where.
"""

from lavida.evaluate.evaluation import Executor, Inline, evaluate, refused
from lavida.evaluate.outcome import Outcome
from lavida.evaluate.result import Figures
from lavida.evaluate.scoring import Unit
from lavida.evaluate.settings import Settings

__all__ = ["Executor", "Figures", "Inline", "Outcome", "Settings", "Unit", "evaluate", "refused"]
