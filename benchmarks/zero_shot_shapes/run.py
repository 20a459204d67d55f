"""One seed of the benchmark: pre-training, the paper's training, and the figures beside an untrained model."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from aesampler import Corpus
from benchmarks.zero_shot_shapes.pretrain import Frames, PretrainSettings, Teacher, pretrain, samples_of, start
from benchmarks.zero_shot_shapes.score import Figures, figures
from benchmarks.zero_shot_shapes.train import TrainSettings, train
from benchmarks.zero_shot_shapes.world import SIDE, made_clips
from lavida.model import LavidaModel

SIZES = {
    "segmenter": {
        "frames_at_once": 64,
        "tiny": {
            "side": SIDE,
            "width": 64,
            "channels": 32,
            "blocks": [1, 2, 2, 1],
            "heads": [2, 4, 4, 4],
            "windows": [6, 6, 6, 3],
            "whole": [2, 4],
        },
    },
    "text": {"tiny": {"width": 64, "layers": 1}},
    "projector": {
        "width": 128,
        "queries": 16,
        "blocks": 2,
        "heads": 4,
        "mlp": 256,
        "text_heads": 2,
        "vision_norm": True,
    },
    "mllm": {"ratio": 1.0},
    "inputs": {"train_tokens": [4, 4], "eval_tokens": [4, 4], "image_tokens": [4, 4]},
}
"""The model of the benchmark, laid over `ModelConfig.tiny`; 3.1 M of its 5 M numbers are CLIP's vocabulary. The MLLM
reads 4 visual tokens a picture, none left out by compression: there is nothing to compress.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long each stage is, and how many clips of each kind of target are scored."""

    pretraining: PretrainSettings = field(default_factory=PretrainSettings)
    training: TrainSettings = field(default_factory=TrainSettings)
    cases: int = 80


@dataclass(kw_only=True)
class Report:
    """The figures of one seed, by `seen` and `unseen`, then by `one` and `many`; each stage's seconds, wall and CPU."""

    seed: int
    trained: dict[str, dict[str, Figures]] = field(default_factory=dict)
    untrained: dict[str, dict[str, Figures]] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds to the seconds of a stage."""
        wall, cpu = time.monotonic(), _cpu()
        yield
        self.wall[stage] = self.wall.get(stage, 0.0) + time.monotonic() - wall
        self.cpu[stage] = self.cpu.get(stage, 0.0) + _cpu() - cpu


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def fresh(seed: int) -> LavidaModel:
    """The model before it has learned anything."""
    model = LavidaModel.tiny(seed, **SIZES)
    start(model, seed)
    return model


def run(corpus: Corpus, seed: int, plan: Plan, say: Callable[[str], None]) -> Report:
    """Train a model on `corpus` by `plan` and score it; `say` is told how it goes."""
    report = Report(seed=seed)
    test = {"seen": made_clips(True, plan.cases), "unseen": made_clips(False, plan.cases)}
    model = fresh(seed)
    with report.timed("untrained"):
        report.untrained = {kind: figures(model, clips) for kind, clips in test.items()}
    learn(model, corpus, seed, plan, report, say)
    with report.timed("scoring"):
        report.trained = {kind: figures(model, clips) for kind, clips in test.items()}
    return report


def learn(
    model: LavidaModel, corpus: Corpus, seed: int, plan: Plan, report: Report, say: Callable[[str], None]
) -> None:
    """Both stages."""

    def taught(step: int, terms: npt.NDArray[np.float64], _: Teacher) -> None:
        if step % 100 == 0:
            say(f"seed {seed}: pre-training {step}/{plan.pretraining.steps}: " + " ".join(f"{x:.2f}" for x in terms))

    def told(step: int, longest: int, auc: float) -> None:
        say(f"seed {seed}: training {step}/{plan.training.steps}: lists of up to {longest}: validation AUC {auc:.3f}")

    with report.timed("pre-training"):
        frames = Frames.of(samples_of(corpus, "train"))
        pretrain(model, frames, plan.pretraining, seed=seed, after=taught)
    del frames
    with report.timed("training"):
        train(model, corpus, plan.training, seed=seed, told=told)
