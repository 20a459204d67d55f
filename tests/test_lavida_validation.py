"""Validation: its figures against scikit-learn on what a stand-in model says, lists by length, shares of processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import corpora
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from aesampler import Corpus
from aesampler.errors import CorpusError
from aesampler.manifest import SampleRow
from aesampler.sample import Sample
from lavida.data import Batch
from lavida.training.parallel import World
from lavida.training.validation import BY_LENGTH, Lists, Tally, Validation, ValidationSettings

IMAGES = corpora.Part(source="coco", split="validation", shards=(20, 11), bare=6)
CLIPS = corpora.Part(source="davis", split="validation", kind="clip", frames=3, shards=(9,), bare=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("validation")
    corpora.write(folder / "corpus", (IMAGES, CLIPS))
    corpora.write(folder / "bare", (dataclasses.replace(IMAGES, split="train"),))
    return folder


def collate(samples: list[Sample], epoch: int) -> Batch:
    """Targets at the size of the pictures, which the stand-in models take for their own."""
    assert epoch == 0
    frames = [len(sample.frames) for sample in samples]
    nothing = torch.zeros(len(samples), 1, dtype=torch.int64)
    return Batch(
        keys=tuple(sample.key for sample in samples),
        categories=tuple(sample.categories for sample in samples),
        frames=torch.from_numpy(np.concatenate([sample.frames for sample in samples])).float(),
        owner=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(frames)),
        valid_frames=torch.cat([torch.arange(len(sample.frames)) < sample.valid_frames for sample in samples]),
        input_ids=nothing,
        attention_mask=nothing,
        labels=nothing,
        seg_position=nothing[:, 0],
        vision={},
        masks=torch.from_numpy(np.concatenate([sample.masks for sample in samples])),
        ignored=torch.from_numpy(np.concatenate([sample.ignored for sample in samples])),
        frame_labels=torch.from_numpy(np.concatenate([sample.frame_labels for sample in samples])),
        anomalous=torch.tensor([sample.anomalous for sample in samples]),
    )


class Guess(nn.Module):
    """Scores that are a function of the pixels alone, so that they can be computed again."""

    def forward(self, batch: Batch) -> Any:
        assert not self.training
        pixels = batch.frames.mean(-1) / 255
        return SimpleNamespace(
            object_logits=torch.sin(1000 * pixels.mean((1, 2))),
            mask_logits=(pixels - 0.5)[:, None] * 4,
            iou_scores=torch.zeros(len(pixels), 1),
        )


class Oracle(nn.Module):
    """Knows the targets; wrong about what must not count."""

    def forward(self, batch: Batch) -> Any:
        assert batch.frame_labels is not None
        assert batch.masks is not None
        labels = torch.where(batch.frame_labels == 255, torch.rand(len(batch.frame_labels)) > 0.5, batch.frame_labels)
        return SimpleNamespace(
            object_logits=labels.float() * 8 - 4,
            mask_logits=((batch.masks | batch.ignored).float() * 8 - 4)[:, None],
            iou_scores=None,
        )


def validation(folder: Path, world: World | None = None, **changes: Any) -> Validation:
    return Validation(["corpus"], ValidationSettings(**changes), collate, seed=5, world=world, base=folder)


STORED = {"lists": {"cap": Lists(resample=False)}}


def test_the_figures_are_scikit_learns(folder: Path) -> None:
    found = validation(folder, **STORED)(Guess())
    scores, labels, heat, inside, overlaps = [], [], [], [], []
    for sample in Corpus.open(folder / "corpus"):
        output = Guess().eval()(collate([sample], 0))
        for frame, label in enumerate(sample.frame_labels):
            if label == 255:
                continue
            scores.append(output.object_logits[frame])
            labels.append(label)
            seen = ~sample.ignored[frame]
            probability, mask = output.mask_logits[frame, 0].sigmoid().numpy(), sample.masks[frame]
            heat.append((probability * output.object_logits[frame].sigmoid().numpy())[seen])
            inside.append(mask[seen])
            if (mask & seen).any():
                drawn = (probability > 0.5) & seen
                overlaps.append((drawn & mask).sum() / (drawn | (mask & seen)).sum())
    assert len(set(labels)) == 2
    assert found["cap/frames"] == len(labels)
    assert found["frame_auc"] == found["cap/frame_auc"] == pytest.approx(roc_auc_score(labels, torch.stack(scores)))
    expected = roc_auc_score(np.concatenate(inside), np.concatenate(heat))
    assert found["pixel_auc"] == pytest.approx(expected, abs=1e-4)
    assert found["iou"] == pytest.approx(np.mean(overlaps))


def test_what_does_not_count_does_not(folder: Path) -> None:
    torch.manual_seed(0)
    found = validation(folder)(Oracle())
    assert {name: value for name, value in found.items() if "frames" not in name} == {
        f"{lists}{metric}": 1.0
        for lists in ("one/", "eight/", "cap/", "")
        for metric in ("frame_auc", "pixel_auc", "iou")
    }


def test_what_cannot_be_read_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Within the tolerance of the data; what stands in for it counts once."""
    written = corpora.write(tmp_path / "corpus", (IMAGES, CLIPS))
    (lost, *_) = [sample for sample in Corpus.open(written) if sample.key.startswith("coco")]

    def spoilt(row: SampleRow, members: dict[str, bytes]) -> tuple[SampleRow, dict[str, bytes]]:
        return row, {name: b"no picture" if name.endswith("jpg") else data for name, data in members.items()} if (
            row.key == lost.key
        ) else members

    corpora.rewrite(written, spoilt)
    with pytest.raises(CorpusError, match=lost.key):
        validation(tmp_path, **STORED)(Guess())
    tolerant = Validation(["corpus"], ValidationSettings(**STORED), collate, seed=5, tolerance=0.1, base=tmp_path)
    labelled = int((lost.frame_labels != 255).sum())
    assert labelled > 0
    whole = validation(folder, **STORED)(Guess())["cap/frames"]
    assert whole is not None
    assert tolerant(Guess())["cap/frames"] == whole - labelled


def test_lists_are_as_long_as_they_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: dict[int | None, set[int]] = {}
    add = Tally.add

    def noted(self: Tally, output: Any, batch: Batch, chosen: list[bool]) -> None:
        found = lengths.setdefault(id(self), set())
        found |= {len(names) for names, keep in zip(batch.categories, chosen, strict=True) if keep}
        add(self, output, batch, chosen)

    monkeypatch.setattr(Tally, "add", noted)
    checked = validation(folder)
    kept = [checked._scored(Guess().eval(), lists) for lists in BY_LENGTH.values()]
    one, eight, cap = (lengths[id(tally)] for tally in kept)
    assert one == {1}
    assert max(eight) <= 8
    assert max(cap) <= 6  # the corpus's cap
    assert len(eight) > 2


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_of_processes_make_the_whole(folder: Path, processes: int) -> None:
    whole = validation(folder)(Guess())
    for name, lists in BY_LENGTH.items():
        shares = [
            validation(folder, World(rank=rank, size=processes))._scored(Guess().eval(), lists).state()
            for rank in range(processes)
        ]
        for metric, value in Tally.metrics(shares).items():
            assert whole[f"{name}/{metric}"] == pytest.approx(value, abs=1e-6)


def test_the_same_at_each_validation(folder: Path) -> None:
    checked = validation(folder, samples=10)
    model = Guess().train()
    first = checked(model)
    assert model.training
    assert checked(model) == first
    assert first["cap/frames"] is not None
    assert 0 < first["cap/frames"] <= 10 * 3


def test_one_class_only_has_no_auc(folder: Path) -> None:
    checked = validation(folder, lists={"normal": Lists(resample={"anomaly_probability": 0.0})})
    found = checked(Guess())
    assert found["frame_auc"] is None
    assert found["pixel_auc"] is None
    assert found["iou"] is None


def test_nothing_held_out_is_an_error_before_anything_runs(folder: Path) -> None:
    with pytest.raises(CorpusError) as raised:
        Validation(["bare"], ValidationSettings(), collate, seed=0, base=folder)
    assert str(raised.value) == (
        f"{(folder / 'bare')}: the corpus has no validation split, which validation.split asks for; got train; build "
        "it with `split: {train: 0.98, validation: 0.02}` in its sources, so that some are held out"
    )
