"""AdamW's groups, the learning rate at each step, the clipped norm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lavida.training.optimizer import OptimizerSettings, build_optimizer, clipped, rate, set_rate, undecayed


class Stand(nn.Module):
    """One of everything that a model has; the head is tied to the embedding, the tower frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.inner = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.queries = nn.Parameter(torch.zeros(3, 4))
        self.mask_tokens = nn.Embedding(2, 4)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.tower = nn.Linear(4, 4).requires_grad_(False)


def test_norms_biases_queries_and_embeddings_do_not_decay() -> None:
    model = Stand()
    optimizer = build_optimizer(model, OptimizerSettings(weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert decayed["params"] == [model.inner.weight]
    names = {name for name, parameter in model.named_parameters() if any(parameter is p for p in plain["params"])}
    assert names == {
        "embed.weight", "inner.bias", "norm.weight", "norm.bias", "queries", "mask_tokens.weight", "scale",
    }  # fmt: skip
    assert "tower.weight" not in undecayed(model)
    assert all(parameter.requires_grad for group in optimizer.param_groups for parameter in group["params"])


def test_a_row_without_a_gradient_keeps_its_value() -> None:
    model = Stand()
    before = model.embed.weight.detach().clone()
    optimizer = build_optimizer(model, OptimizerSettings(lr=0.1, weight_decay=0.5))
    model.embed(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert torch.equal(model.embed.weight[[0, 2, 3, 4]], before[[0, 2, 3, 4]])
    assert not torch.equal(model.embed.weight[1], before[1])


def test_the_rate_rises_and_falls() -> None:
    settings = OptimizerSettings(lr=1.0, warmup=4)
    rates = [rate(step, 12, settings) for step in range(12)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[5:] == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert [rate(step, 2, OptimizerSettings(lr=1.0, warmup=0)) for step in range(2)] == [1.0, 0.5]
    # A run shorter than its warm-up never reaches the full rate.
    assert max(rate(step, 3, settings) for step in range(3)) < 1.0
    optimizer = build_optimizer(Stand(), settings)
    set_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_the_paper_warms_up_for_a_hundred_steps() -> None:
    settings = OptimizerSettings()
    assert rate(0, 8000, settings) == pytest.approx(1e-7)
    assert rate(99, 8000, settings) == pytest.approx(1e-5)
    assert rate(7999, 8000, settings) == pytest.approx(1e-5 / 7900)


def test_the_norm_is_clipped() -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(3))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clipped(weights, 1.0) == pytest.approx(5.0)
    assert [grad.tolist() for w in weights if (grad := w.grad) is not None] == [
        pytest.approx([0.6, 0.0], rel=1e-5),
        pytest.approx([0.8], rel=1e-5),
    ]
    assert clipped(weights, None) == pytest.approx(1.0, rel=1e-5)
