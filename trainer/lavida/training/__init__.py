"""Training: the same code on one process, on 8 GPUs and on a cluster.

    config.py        the YAML: settings put together, changed from outside, ablations
    feed.py          corpus -> global batches, whatever the number of processes
    loss.py          LAVIDA eq. 10, as sums and counts
    optimizer.py     AdamW, its groups, its rate
    parallel.py      who takes part; DDP and FSDP2
    checkpoint.py    sharded, atomic, resumable anywhere
    validation.py    the held-out split, by the length of the lists
    log.py           JSON lines, TensorBoard
    step.py          one optimizer step on a global batch
    run.py           where a run stands
    train.py         five builds and one loop
    cluster.py       the same on Ray

A caller needs `load_config` and `train`; `load_grid` gives the runs of an ablation, `load_model` a checkpoint's model.
"""

from __future__ import annotations

from lavida.training.checkpoint import load_model
from lavida.training.config import Row, TrainConfig, assignment, load_config, load_grid
from lavida.training.train import Result, train

__all__ = ["Result", "Row", "TrainConfig", "assignment", "load_config", "load_grid", "load_model", "train"]
