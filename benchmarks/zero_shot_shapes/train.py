"""The paper's training on the corpus: its loss (eq. 10) on what it trains, nothing else.

Two liberties, neither in the loss. A picture comes with several lists, drawn as the stream draws them, and is seen by
the frozen image encoder once. And lists grow: they hold one or two names at first, and up to the next of `longest` as
soon as the validation split says that the present ones are understood (frame AUC of `ready`) or that no more is to be
had (`patience` validations); grown by the clock, long lists spoil short ones.

After pre-training this stage is short: 50 steps of 32 lists reach .93 on the validation split. From the same
pre-training, 2e-4 is the better learning rate: 5e-4 gave .906 and .898 for lists of one (seen, unseen) where 2e-4 gave
.928 and .923.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aesampler import Corpus, masks
from aesampler.exposure import ExposureSettings
from aesampler.sample import Sample, derive
from lavida.data import Batch, Collator
from lavida.metrics import frame_auc
from lavida.model import LavidaModel
from lavida.model.config import PAPER
from lavida.training import loss
from lavida.training.optimizer import OptimizerSettings, build_optimizer, clipped, rate, set_rate

WEIGHTS = {"shapes": 0.9, "shapes-clips": 0.1}
"""Shares of pictures and clips; a clip is eight frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """steps of `pictures` samples, each under `lists` lists. longest: longest list, growing. See the module."""

    steps: int = 200
    pictures: int = 8
    lists: int = 4
    lr: float = 2e-4
    warmup: int = 50
    longest: tuple[int, ...] = (2, 8)
    ready: float = 0.9
    patience: int = 1
    every: int = 50


def drawn(longest: int) -> dict[str, Any]:
    """The exposure settings of lists of one to `longest` names, of which one is shown by anomalous samples."""
    return {"max_categories": max(longest, 2), "irrelevant_count": (0, max(longest - 1, 1))}


class Lister:
    """Draws further lists for a sample, by the settings of its corpus with lists of up to `longest` names."""

    def __init__(self, corpus: Corpus, split: str, longest: int) -> None:
        self.seed = corpus.head.seed
        self.longest = longest
        self.vocabulary = {source: corpus.vocabulary(source) for source in corpus.sources}
        self.settings = {
            source: ExposureSettings.model_validate(corpus.settings(split, source).model_dump() | drawn(longest))
            for source in corpus.sources
        }

    def __call__(self, sample: Sample, number: int) -> Sample:
        """The sample under list `number`; numbers are keys, none depends on another."""
        found = None
        while found is None or len(found[0].categories) > self.longest:
            found = derive(
                sample.scene,
                self.vocabulary[sample.source],
                self.settings[sample.source],
                seed=self.seed,
                source=sample.source,
                key=sample.key,
                epoch=number,
                frames=len(sample.frames),
            )
            assert found is not None, "every sample of this world has names that it does not show"
            number += 1_000_003
        exposure, labels = found
        size = sample.frames.shape[1:3]
        return replace(
            sample,
            anomalous=exposure.anomalous,
            categories=exposure.categories,
            is_genuine=exposure.is_genuine,
            presence=exposure.presence,
            masks=np.stack([masks.decode(counts, *size) for counts in labels.masks]),
            ignored=np.stack([masks.decode(counts, *size) for counts in labels.ignored]),
            frame_labels=np.asarray(labels.frame_labels, dtype=np.uint8),
        )


def endless(corpus: Corpus, seed: int, longest: int) -> Iterator[Sample]:
    """The stream of the training split, epoch after epoch."""
    stream = corpus.stream("train", seed=seed, weights=WEIGHTS, resample=drawn(longest), threads=0)
    while True:
        yield from stream


def forward(model: LavidaModel, collator: Collator, samples: Sequence[Sample], lists: int) -> tuple[Any, Batch]:
    """Output and batch of samples of which each `lists` in a row have the same frames; these are encoded once."""
    batch = collator.samples_to_batch(list(samples), collator.epoch)
    frames = [len(sample.frames) for sample in samples]
    firsts = [place for place in range(len(samples)) if place % lists == 0]
    starts = np.cumsum([0, *frames])
    rows = [np.arange(starts[place], starts[place + 1]) for place in firsts]
    unique = np.cumsum([0, *(len(each) for each in rows)])
    order = [unique[place // lists] + np.arange(frames[place]) for place in range(len(samples))]
    features = model.encode_frames(batch.frames[_index(rows)])
    return model(batch, features.repeat(_index(order))), batch


def _index(parts: Sequence[Any]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))


@torch.no_grad()
def validate(model: LavidaModel, corpus: Corpus, longest: int, lists: int = 2, most: int = 300) -> float:
    """Frame AUC on the validation split under lists of at most `longest` names, the same at each call."""
    model.eval()
    lister, collator = Lister(corpus, "validation", longest), model.collator(training=False)
    samples = list(corpus.stream("validation", shuffle=False, threads=0))[:most]
    scores, labels = [], []
    for start in range(0, len(samples), 8):
        chunk = [lister(sample, number) for sample in samples[start : start + 8] for number in range(lists)]
        output, batch = forward(model, collator, chunk, lists)
        assert batch.frame_labels is not None
        scores.append(output.object_logits.numpy())
        labels.append(batch.frame_labels.numpy())
    model.train()
    return float(frame_auc(np.concatenate(scores), np.concatenate(labels)))


class Growth:
    """How long lists are: the present length, and when the next is due."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.stage, self.best, self.waited = 0, 0.0, 0

    @property
    def longest(self) -> int:
        """Names that a list holds at most."""
        return self.settings.longest[self.stage]

    def told(self, auc: float) -> bool:
        """Whether lists grow now, after a validation at the present length."""
        self.waited = 0 if auc > self.best + 0.005 else self.waited + 1
        self.best = max(self.best, auc)
        due = auc >= self.settings.ready or self.waited >= self.settings.patience
        if not due or self.stage + 1 == len(self.settings.longest):
            return False
        self.stage, self.best, self.waited = self.stage + 1, 0.0, 0
        return True


def train(
    model: LavidaModel,
    corpus: Corpus,
    settings: TrainSettings,
    *,
    seed: int,
    after: Callable[[int, Tensor, int], None] | None = None,
    told: Callable[[int, int, float], None] | None = None,
) -> None:
    """Train what the paper trains; after(step, terms a frame, longest) and told(step, longest, validation AUC)."""
    model.train_only(PAPER)
    model.train()
    optimizing = OptimizerSettings(lr=settings.lr, warmup=settings.warmup)
    optimizer = build_optimizer(model, optimizing)
    weighing, growth = loss.LossSettings(), Growth(settings)
    collator = model.collator(training=True)
    lister, stream = Lister(corpus, "train", growth.longest), endless(corpus, seed, growth.longest)
    torch.manual_seed(seed)
    for step in range(settings.steps):
        set_rate(optimizer, rate(step, settings.steps, optimizing))
        pictures = [next(stream) for _ in range(settings.pictures)]
        first = (1 + step) * settings.lists
        samples = [lister(sample, first + number) for sample in pictures for number in range(settings.lists)]
        output, batch = forward(model, collator.at(step), samples, settings.lists)
        sums, counts = loss.terms(output, batch, weighing), loss.counts(batch)
        optimizer.zero_grad()
        loss.total(sums, counts, weighing).backward()
        clipped(model.trained_parameters().values(), optimizing.clip)
        optimizer.step()
        if after is not None:
            after(step + 1, loss.per_count(sums.detach(), counts), growth.longest)
        if (step + 1) % settings.every == 0 and step + 1 < settings.steps:
            auc = validate(model, corpus, growth.longest)
            if told is not None:
                told(step + 1, growth.longest, auc)
            if growth.told(auc):
                lister, stream = Lister(corpus, "train", growth.longest), endless(corpus, seed, growth.longest)
