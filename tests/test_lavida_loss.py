"""Equation 10: each term against its formula in numpy, what must not count perturbed, parts of a batch added up."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lavida.data.batch import Batch
from lavida.training import loss
from lavida.training.loss import LossSettings

F, K, SIDE = 6, 3, 8
LABELS = [1, 0, 255, 1, 1, 0]
VALID = [True, True, True, True, True, True]
Floats = npt.NDArray[np.float64]


def batch(seed: int = 0, labels: list[int] = LABELS, valid: list[bool] = VALID) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    frames = len(labels)
    masks = torch.zeros(frames, SIDE, SIDE, dtype=torch.bool)
    for frame in range(frames):
        if labels[frame] != 0:
            masks[frame, 1 + frame % 3 : 5, 2 : 4 + frame % 4] = True
    ignored = (torch.rand(frames, SIDE, SIDE, generator=generator) < 0.2) & ~masks
    answers = torch.full((2, 7), -100)
    answers[0, 4:] = 5
    answers[1, 5:] = 5
    return Batch(
        keys=("a", "b"),
        categories=(("dog",), ("cat", "car")),
        frames=torch.zeros(frames, 3, 4, 4),
        owner=torch.arange(frames) * 2 // frames,
        valid_frames=torch.tensor(valid),
        input_ids=torch.zeros(2, 7, dtype=torch.int64),
        attention_mask=torch.ones(2, 7, dtype=torch.int64),
        labels=answers,
        seg_position=torch.tensor([6, 6]),
        vision={},
        masks=masks,
        ignored=ignored,
        frame_labels=torch.tensor(labels, dtype=torch.uint8),
        anomalous=torch.tensor([True, True]),
    )


def output(seed: int = 1, frames: int = F, text: float = 3.5) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return SimpleNamespace(
        text_loss_sum=torch.tensor(text),
        text_tokens=torch.tensor(5),
        object_logits=torch.randn(frames, generator=generator).requires_grad_(),
        mask_logits=(3 * torch.randn(frames, K, SIDE, SIDE, generator=generator)).requires_grad_(),
        iou_scores=torch.rand(frames, K, generator=generator).requires_grad_(),
        lengths=torch.tensor([7, 7]),
    )


def by_hand(found: Any, given: Batch, settings: LossSettings) -> dict[str, float]:
    """The sums by the formulas, pixel by pixel, in float64."""
    sums = dict.fromkeys(loss.TERMS, 0.0)
    sums["text"] = float(found.text_loss_sum)
    for frame, label in enumerate(given.frame_labels.tolist()):  # type: ignore[union-attr]
        if label == 255 or not given.valid_frames[frame]:
            continue
        chance = 1 / (1 + np.exp(-float(found.object_logits[frame].detach())))
        sums["object"] -= np.log(chance if label == 1 else 1 - chance)
        seen = ~given.ignored[frame].numpy()  # type: ignore[index]
        mask = given.masks[frame].numpy() & seen  # type: ignore[index]
        if label != 1 or not mask.any():
            continue
        each = [one_mask(found.mask_logits[frame, k].detach().double().numpy(), mask, seen, settings) for k in range(K)]
        focal, dice, iou = (np.array(values) for values in zip(*each, strict=True))
        best = int(np.argmin(settings.focal * focal + settings.dice * dice))
        sums["focal"] += focal[best]
        sums["dice"] += dice[best]
        sums["iou"] += np.abs(found.iou_scores[frame].detach().double().numpy() - iou).mean()
    return sums


def one_mask(
    logits: Floats, mask: npt.NDArray[np.bool_], seen: npt.NDArray[np.bool_], settings: LossSettings
) -> tuple[float, float, float]:
    focal, overlap, drawn = 0.0, 0.0, 0.0
    both = either = 0
    for row, column in zip(*np.nonzero(seen), strict=True):
        p, inside = 1 / (1 + np.exp(-logits[row, column])), bool(mask[row, column])
        right, alpha = (p, settings.alpha) if inside else (1 - p, 1 - settings.alpha)
        focal -= alpha * (1 - right) ** settings.gamma * np.log(right)
        overlap += p * inside
        drawn += p
        both += inside and logits[row, column] > 0
        either += inside or logits[row, column] > 0
    return focal / seen.sum(), 1 - (2 * overlap + 1) / (drawn + mask.sum() + 1), both / max(either, 1)


@pytest.mark.parametrize("seed", range(3))
def test_each_term_is_its_formula(seed: int) -> None:
    given, found = batch(seed), output(seed + 10)
    expected = by_hand(found, given, LossSettings())
    sums = loss.terms(found, given, LossSettings()).detach()
    for name, value in zip(loss.TERMS, sums.tolist(), strict=True):
        assert value == pytest.approx(expected[name], rel=1e-5), name
    counts = loss.counts(given)
    assert counts.tolist() == [5, 5]
    whole = (20 * expected["focal"] + 2 * expected["dice"] + expected["iou"] + 2 * expected["object"]) / 5
    assert float(loss.total(sums, counts, LossSettings())) == pytest.approx(whole + expected["text"] / 5, rel=1e-5)


def test_a_case_small_enough_for_a_pencil() -> None:
    given = replace(
        batch(labels=[1], valid=[True]),
        masks=torch.tensor([[[True, False]]]),
        ignored=torch.zeros(1, 1, 2, dtype=torch.bool),
        owner=torch.zeros(1, dtype=torch.int64),
    )
    # Probabilities of 1/2 everywhere: BCE is log 2, (1 - p_t)^2 is 1/4.
    found = SimpleNamespace(
        text_loss_sum=torch.tensor(1.0),
        object_logits=torch.zeros(1),
        mask_logits=torch.zeros(1, 1, 1, 2),
        iou_scores=torch.tensor([[0.25]]),
    )
    focal = (0.25 + 0.75) / 2 * 0.25 * np.log(2)
    dice = 1 - (2 * 0.5 + 1) / (1.0 + 1 + 1)
    sums = loss.terms(found, given, LossSettings())  # type: ignore[arg-type]
    assert sums.tolist() == pytest.approx([focal, dice, 0.25, np.log(2), 1.0], rel=1e-6)


def test_the_least_of_focal_and_dice_is_the_best_mask() -> None:
    given, found = batch(labels=[1]), output(frames=1)
    good = torch.where(given.masks[0], 6.0, -6.0)  # type: ignore[index]
    logits = torch.stack([-good, good, -good])[None].requires_grad_()
    found = SimpleNamespace(**{**vars(found), "mask_logits": logits})
    given = replace(given, valid_frames=torch.tensor([True]))
    sums = loss.terms(found, given, LossSettings())
    sums[:2].sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1].abs().sum() > 0
    assert logits.grad[0, [0, 2]].abs().sum() == 0
    assert found.iou_scores.grad.abs().sum() == 0
    sums = loss.terms(found, given, LossSettings())
    sums[2].backward()
    assert (found.iou_scores.grad != 0).all()  # all K are supervised


@pytest.mark.parametrize("what", ["ignored pixels", "unknown frames", "padding"])
def test_what_does_not_count_leaves_no_trace(what: str) -> None:
    valid = [True, True, True, True, False, True] if what == "padding" else VALID
    given, found = batch(valid=valid), output()
    before = loss.terms(found, given, LossSettings())
    (grads := torch.autograd.grad(before.sum(), [found.mask_logits, found.object_logits, found.iou_scores]))
    changed = output()
    masks, labels = given.masks.clone(), given.frame_labels.clone()  # type: ignore[union-attr]
    with torch.no_grad():
        if what == "ignored pixels":
            hidden = given.ignored[:, None].expand(F, K, SIDE, SIDE)  # type: ignore[index]
            changed.mask_logits[hidden] = torch.inf
            masks |= given.ignored  # type: ignore[arg-type]
            assert (grads[0][hidden] == 0).all()
        else:
            place = 2 if what == "unknown frames" else 4
            changed.mask_logits[place] = torch.nan
            changed.object_logits[place] = torch.nan
            changed.iou_scores[place] = torch.nan
            masks[place] = ~masks[place]
            assert all((grad[place] == 0).all() for grad in grads)
    given = replace(given, masks=masks, frame_labels=labels)
    after = loss.terms(changed, given, LossSettings())
    assert after.tolist() == before.tolist()
    again = torch.autograd.grad(after.sum(), [changed.mask_logits, changed.object_logits, changed.iou_scores])
    assert all(torch.equal(one, other) for one, other in zip(grads, again, strict=True))
    assert loss.counts(given).tolist() == [4 if what == "padding" else 5, 5]


def test_what_counts_leaves_one() -> None:
    given = batch()
    before = loss.terms(output(), given, LossSettings())
    for place in (0, 1, 3):
        changed = output()
        with torch.no_grad():
            changed.object_logits[place] += 1.0
        assert loss.terms(changed, given, LossSettings())[3] != before[3]


def test_a_normal_frame_has_no_mask_term() -> None:
    given, found = batch(labels=[0, 0]), output(frames=2)
    given = replace(given, valid_frames=torch.tensor([True, True]))
    sums = loss.terms(found, given, LossSettings())
    assert sums[:3].tolist() == [0.0, 0.0, 0.0]
    sums.sum().backward()
    # The graph is whole all the same: a process without an anomaly gives its zeros to the others' sum.
    assert found.mask_logits.grad is not None
    assert found.mask_logits.grad.abs().sum() == 0


def test_an_anomalous_frame_with_no_visible_mask_has_an_object_term_only() -> None:
    given, found = batch(labels=[1]), output(frames=1)
    given = replace(given, valid_frames=torch.tensor([True]), ignored=torch.ones(1, SIDE, SIDE, dtype=torch.bool))
    assert (loss.terms(found, given, LossSettings()) > 0).tolist() == [False, False, False, True, True]


def test_parts_add_up_to_the_whole() -> None:
    first, second = batch(3, [1, 255, 0]), batch(4, [0, 1, 1])
    first, second = (replace(part, valid_frames=torch.ones(3, dtype=torch.bool)) for part in (first, second))
    found, other = output(5, 3, 2.0), output(6, 3, 4.0)
    names = ("masks", "ignored", "frame_labels", "valid_frames", "labels")
    whole = replace(first, **{name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names})
    both = SimpleNamespace(
        text_loss_sum=found.text_loss_sum + other.text_loss_sum,
        **{
            name: torch.cat([getattr(found, name), getattr(other, name)])
            for name in ("object_logits", "mask_logits", "iou_scores")
        },
    )
    settings = LossSettings()
    assert torch.equal(loss.counts(whole), loss.counts(first) + loss.counts(second))
    sums = loss.terms(found, first, settings) + loss.terms(other, second, settings)
    torch.testing.assert_close(sums, loss.terms(both, whole, settings))  # type: ignore[arg-type]


def test_nothing_to_count_is_no_division_by_zero() -> None:
    given = replace(batch(labels=[255]), valid_frames=torch.tensor([True]), labels=torch.full((1, 4), -100))
    assert loss.counts(given).tolist() == [0, 0]
    found = output(frames=1, text=0.0)
    total = loss.total(loss.terms(found, given, LossSettings()), loss.counts(given), LossSettings())
    assert total.item() == 0.0


def test_a_batch_for_scoring_has_no_loss() -> None:
    given = replace(batch(), masks=None)
    with pytest.raises(ValueError, match="made for scoring"):
        loss.terms(output(), given, LossSettings())
