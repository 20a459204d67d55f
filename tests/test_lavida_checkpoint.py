"""Checkpoints: what they hold, that they are whole or not there, which are kept, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.optim import AdamW

from aesampler.errors import StorageError, TrainingError
from lavida.training import checkpoint
from lavida.training.checkpoint import Checkpoints, CheckpointSettings
from lavida.training.optimizer import OptimizerSettings, build_optimizer
from lavida.training.parallel import World


class Stand(nn.Module):
    """A trained map with a tied twin, a weight that no gradient reaches, and a frozen tower."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner = nn.Linear(4, 4)
        self.twin = nn.Linear(4, 4, bias=False)
        self.twin.weight = self.inner.weight
        self.unused = nn.Parameter(torch.rand(3))
        torch.manual_seed(0)
        self.tower = nn.Linear(4, 4).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twin(self.inner(self.tower(x))).square().sum()


def stand(seed: int = 0) -> tuple[Stand, AdamW]:
    model = Stand(seed)
    return model, build_optimizer(model, OptimizerSettings(lr=0.1))


def stepped(model: Stand, optimizer: AdamW, steps: int = 1) -> list[float]:
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4))
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def here(tmp_path: Path, **settings: Any) -> Checkpoints:
    made = Checkpoints(tmp_path, CheckpointSettings(**settings), World())
    made.clean(fresh=False)
    return made


def test_a_run_goes_on_exactly(tmp_path: Path) -> None:
    model, optimizer = stand()
    stepped(model, optimizer, 3)
    checkpoints = here(tmp_path)
    path = checkpoints.save(3, model, optimizer, {"note": "x"})
    after = stepped(model, optimizer, 4)
    again, other = stand(seed=1)
    stepped(again, other)  # whatever was there before is gone
    state = checkpoints.load(path, again, other)
    assert (state["step"], state["note"]) == (3, "x")
    assert stepped(again, other, 4) == after
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_of_many_files_is_read_as_that_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = stand()
    stepped(model, optimizer, 3)
    paths = []
    for size in (checkpoint.FILE_BYTES, 100):
        monkeypatch.setattr(checkpoint, "FILE_BYTES", size)
        paths.append(here(tmp_path / str(size)).save(3, model, optimizer, {}))
    files = [sorted(path.glob("*.safetensors")) for path in paths]
    assert [len(found) for found in files] == [1, 3]
    for file in files[1]:
        with safe_open(file, "pt") as opened:
            sizes = [opened.get_tensor(name).nbytes for name in opened.keys()]  # noqa: SIM118
        assert len(sizes) == 1 or sum(sizes) <= 100
    after = stepped(model, optimizer, 4)
    for path in paths:
        again, other = stand(seed=1)
        stepped(again, other)
        here(path.parents[1]).load(path, again, other)
        assert stepped(again, other, 4) == after


def test_only_trained_weights_are_written(tmp_path: Path) -> None:
    model, optimizer = stand()
    stepped(model, optimizer)
    path = here(tmp_path).save(1, model, optimizer, {})
    (file,) = path.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        names = set(opened.keys())
    weights = {"model.inner.weight", "model.inner.bias", "model.unused"}
    moments = {f"optimizer.{kind}.inner.{part}" for kind in checkpoint.MOMENTS for part in ("weight", "bias")}
    assert names == weights | moments
    assert {entry.name for entry in path.iterdir()} == {file.name, "state.json"}


def test_the_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    model, optimizer = stand()
    checkpoints = here(tmp_path, keep=2)
    assert checkpoints.last() is None
    for step in range(1, 6):
        checkpoints.save(step, model, optimizer, {"best": {"step": min(step, 2), "value": 0.5}})
    assert [path.name for path in checkpoints.all()] == ["step-00000002", "step-00000004", "step-00000005"]
    assert checkpoints.last() == checkpoints.at(5)


def test_what_is_half_written_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = stand()
    checkpoints = here(tmp_path)
    checkpoints.save(1, model, optimizer, {})

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(2, model, optimizer, {})
    assert [path.name for path in checkpoints.folder.iterdir() if path.name.startswith(".")] == [".step-00000002.tmp"]
    assert checkpoints.last() == checkpoints.at(1)
    checkpoints.clean(fresh=False)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
    checkpoints.clean(fresh=True)
    assert not list(checkpoints.folder.iterdir())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    model, optimizer = stand()
    checkpoints = here(tmp_path)
    path = checkpoints.save(1, model, optimizer, {})
    wide = Stand()
    wide.unused = nn.Parameter(torch.zeros(5))
    with pytest.raises(TrainingError, match=r"another model: 1 trained weights differ; got \(3,\); allowed: \(5,\)"):
        checkpoints.load(path, wide, build_optimizer(wide, OptimizerSettings()))
    (file,) = path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"cannot be read.*remove it, and the run goes on"):
        checkpoints.load(path, model, optimizer)
    (path / "state.json").write_text("{}")
    with pytest.raises(TrainingError, match="another version"):
        checkpoint.read_state(path)
    (path / "state.json").write_text("{")
    with pytest.raises(TrainingError, match="no checkpoint"):
        checkpoint.read_state(path)


def test_a_peer_that_is_lost_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is being read: a whole one must not be called damaged, and a group that begins anew goes on."""

    def load(*given: Any, **named: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(checkpoint.state_dict_loader, "load", load)
    with pytest.raises(RuntimeError, match="closed by peer"):
        checkpoint._read(tmp_path, {}, World(rank=0, size=2))
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint._read(tmp_path, {}, World())


def test_frozen_weights_are_told_apart(tmp_path: Path) -> None:
    model = Stand()
    digest = checkpoint.frozen_digest(model)
    assert digest == checkpoint.frozen_digest(Stand(seed=5))  # trained weights are not looked at
    with torch.no_grad():
        model.tower.weight[0, 0] += 1
    other = checkpoint.frozen_digest(model)
    assert other != digest
    checkpoint.check_frozen(tmp_path, {"frozen": digest}, digest)
    with pytest.raises(TrainingError, match="frozen weights are not those"):
        checkpoint.check_frozen(tmp_path, {"frozen": digest}, other)


def test_nothing_is_pickled(tmp_path: Path) -> None:
    model, optimizer = stand()
    path = here(tmp_path).save(1, model, optimizer, {"a": [1, None]})
    assert {entry.suffix for entry in path.iterdir()} == {".safetensors", ".json"}
    assert json.loads((path / "state.json").read_text()) == {"version": 1, "step": 1, "a": [1, None]}


def test_a_full_disk_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = stand()
    checkpoints = here(tmp_path)
    checkpoints.save(1, model, optimizer, {})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.filesystem.FileSystemWriter._write_data", full)
    with pytest.raises(StorageError, match=r"writing the checkpoint failed: .*No space left"):
        checkpoints.save(2, model, optimizer, {})
    assert checkpoints.last() == checkpoints.at(1)
