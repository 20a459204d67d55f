"""Validation on the held-out split of the corpus: frame AUC, pixel AUC and IoU, by the length of the lists.

Users ask for one anomaly, while the paper's lists never hold one name alone; so the split is scored several times, with
lists drawn afresh (`resample`): of one name, of up to eight, and as the corpus has them. The draw is that of pass 0,
the same at each validation. The best checkpoint is chosen by the mean over these, and never on a test set.

    frame AUC   of the frame scores, all frames of a labelled sample together
    pixel AUC   of what the detector's pixel scores are made of, at the size of the logits, without ignored pixels
    iou         of the mask at logit 0 with the anomaly, mean over the frames that show one

A frame labelled 255 leaves all three, as does a sample that cannot be read, within `data.tolerance`. A metric that has
only one class to tell apart is None. Every process scores its share; pixel counts are merged and frame scores gathered,
so the figures do not depend on the number of processes.

Shapes: F frames, H x W pixels of the mask logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from aesampler.corpus import Corpus
from aesampler.errors import MetricError
from aesampler.sample import Sample
from aesampler.stream import Cache, mix
from lavida.data import Batch
from lavida.metrics import PixelAuc, frame_auc
from lavida.model.lavida import both
from lavida.training import loss
from lavida.training.feed import Collate, check_split, located
from lavida.training.parallel import World, resharded

METRICS = ("frame_auc", "pixel_auc", "iou")


class Lists(BaseModel):
    """How lists are drawn. resample: as of a stream. longest: a longer list is left out; null: none is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resample: bool | dict[str, Any] = True
    longest: int | None = Field(default=None, ge=1)


# `max_categories: 2` is the shortest cap that there is, so half of the anomalous lists have a second name.
BY_LENGTH = {
    "one": Lists(resample={"max_categories": 2, "genuine": "one", "irrelevant_count": [0, 1]}, longest=1),
    "eight": Lists(resample={"max_categories": 8}, longest=8),
    "cap": Lists(),
}


class ValidationSettings(BaseModel):
    """split: of all corpora of the run. every: steps between two validations. samples: so many of the split, null for
    all. per_process: samples of one forward pass. lists: name -> how lists are drawn. best: the metric by whose mean
    over the lists the best checkpoint is chosen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = "validation"
    every: int = Field(default=500, ge=1)
    samples: int | None = Field(default=None, ge=1)
    per_process: int = Field(default=2, ge=1)
    lists: dict[str, Lists] = Field(default=BY_LENGTH, min_length=1)
    best: str = Field(default="frame_auc", pattern="^(frame_auc|pixel_auc|iou)$")


class _Collated:
    """A batch, and which of its samples are there to give every process as many, or in place of an unreadable one."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, samples: list[Sample]) -> tuple[Batch, list[bool]]:
        return self.collate(samples, 0), [sample.duplicate for sample in samples]


@dataclass(slots=True)
class Tally:
    """What one process has seen of one kind of lists. scores (logits: a metric asks for their order alone), labels: one
    array a batch.
    """

    scores: list[np.ndarray[Any, Any]] = field(default_factory=list)
    labels: list[np.ndarray[Any, Any]] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    pixels: PixelAuc = field(default_factory=PixelAuc)

    def add(self, output: Any, batch: Batch, chosen: Sequence[bool]) -> None:
        """Count the frames of the samples that are chosen."""
        labels_F, masks_FHW, seen_FHW = loss.targets(batch)
        kept_F = loss.counted(batch) & torch.tensor(chosen, device=labels_F.device)[batch.owner]
        objects_F = output.object_logits[kept_F].float()
        logits_FHW = output.mask_logits[kept_F, 0].float()
        masks_FHW, seen_FHW = masks_FHW[kept_F], seen_FHW[kept_F]
        self.scores.append(objects_F.cpu().numpy())
        self.labels.append(labels_F[kept_F].cpu().numpy())
        shown_F = masks_FHW.flatten(1).any(1)
        overlaps = loss.overlap(logits_FHW[shown_F, None], masks_FHW[shown_F], seen_FHW[shown_F])
        self.overlaps += overlaps[:, 0].tolist()
        shown_FHW = both(objects_F[:, None, None], logits_FHW)
        self.pixels.update(shown_FHW.cpu().numpy(), masks_FHW.cpu().numpy(), (~seen_FHW).cpu().numpy())

    def state(self) -> dict[str, Any]:
        """All of it, to be sent to the other processes."""
        return {
            "scores": np.concatenate([np.zeros(0, np.float32), *self.scores]),
            "labels": np.concatenate([np.zeros(0, np.uint8), *self.labels]),
            "overlaps": self.overlaps,
            "pixels": self.pixels.state(),
        }

    @staticmethod
    def metrics(states: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
        """The three metrics of the states of all processes."""
        pixels = PixelAuc()
        for state in states:
            pixels.merge(PixelAuc.from_state(state["pixels"]))
        scores, labels = (np.concatenate([state[name] for state in states]) for name in ("scores", "labels"))
        overlaps = [value for state in states for value in state["overlaps"]]
        return {
            "frame_auc": _defined(lambda: frame_auc(scores, labels)),
            "pixel_auc": _defined(pixels.value),
            "iou": float(np.sort(overlaps).mean()) if overlaps else None,
            "frames": float(labels.size),
        }


class Validation:
    """Scores a model: `validation(model)` gives `one/frame_auc` ... of each kind of lists, and `frame_auc` ..., the
    means over them. tolerance: share of the samples that may be unreadable; they are left out. Raises CorpusError where
    a corpus holds nothing out.
    """

    def __init__(
        self,
        corpora: Sequence[str],
        settings: ValidationSettings,
        collate: Collate,
        *,
        seed: int,
        tolerance: float = 0.0,
        workers: int = 0,
        cache: Cache | None = None,
        world: World | None = None,
        base: Path = Path(),
    ) -> None:
        self.settings, self.workers, self.world = settings, workers, world or World()
        self._cache, self._tolerance = cache, tolerance
        self._collate, self._seed = collate, seed
        self._corpora = [Corpus.open(located(url, base)) for url in corpora]
        for corpus in self._corpora:
            check_split(corpus, settings.split, "validation.split")

    def __call__(self, model: nn.Module) -> dict[str, float | None]:
        """The metrics of `model`, which all processes call together and which is left in the mode that it was in."""
        was_training = model.training
        model.eval()
        found: dict[str, float | None] = {}
        with torch.no_grad():
            for name, lists in self.settings.lists.items():
                states = self.world.gather(self._scored(model, lists).state())
                found |= {f"{name}/{metric}": value for metric, value in Tally.metrics(states).items()}
        model.train(was_training)
        resharded(model)
        for metric in METRICS:
            values = [value for name in self.settings.lists if (value := found[f"{name}/{metric}"]) is not None]
            found[metric] = sum(values) / len(values) if values else None
        return found

    def _scored(self, model: nn.Module, lists: Lists) -> Tally:
        stream = mix(
            self._corpora,
            self.settings.split,
            seed=self._seed,
            rank=self.world.rank,
            world_size=self.world.size,
            epoch_samples=self._samples(),
            last="pad",
            resample=lists.resample,
            tolerance=self._tolerance,
            cache=self._cache,
        )
        loader = stream.torch(self.settings.per_process, num_workers=self.workers, collate=_Collated(self._collate))
        tally, longest = Tally(), lists.longest or 10**9
        for batch, duplicates in loader:
            chosen = [
                len(names) <= longest and not duplicate
                for names, duplicate in zip(batch.categories, duplicates, strict=True)
            ]
            held = batch.to(self.world.device)
            tally.add(model(held), held, chosen)
        return tally

    def _samples(self) -> int | None:
        stored = sum(
            part.samples for corpus in self._corpora for part in corpus.head.splits[self.settings.split].values()
        )
        return min(self.settings.samples, stored) if self.settings.samples else None


def _defined(metric: Callable[[], float]) -> float | None:
    try:
        return metric()
    except MetricError:
        return None
