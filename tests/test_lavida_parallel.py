"""DDP and FSDP2 against one process, going on after SIGKILL and on other numbers of processes: real processes, gloo.

The tiny model, of which 2 to 4 copies fit on any machine; each process takes some 10 s to import and build. The runs
are shared by the tests (module fixtures).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import corpora
import pytest
import torch
import training_runs
from torch import nn
from training_runs import keys, launch, losses

from aesampler import Corpus
from aesampler.errors import RecipeError
from lavida.model import LavidaModel
from lavida.training import checkpoint, load_model, loss, parallel
from lavida.training.loss import LossSettings
from lavida.training.optimizer import OptimizerSettings, build_optimizer
from lavida.training.parallel import ParallelSettings, World, joined, micro_step, seed, spread
from lavida.training.validation import Lists, Validation, ValidationSettings

STEPS = training_runs.TINY["steps"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    corpora.write(folder / "corpus", training_runs.PARTS)
    training_runs.write_config(folder)
    return folder


def run(folder: Path, out: str, *, processes: int, kill: int | None = None, **changes: Any) -> Path:
    done = launch(
        folder / "train.yaml",
        {"out": out} | {key.replace("__", "."): value for key, value in changes.items()},
        processes=processes,
        kill=kill,
    )
    assert (done.returncode == 0) == (kill is None), done.stderr
    return folder / out


VALIDATED = {"validation": {"every": STEPS, "per_process": 2}}


@pytest.fixture(scope="module")
def alone(folder: Path) -> Path:
    return run(folder, "alone", processes=1, **VALIDATED)


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    return run(folder, "two", processes=2, **VALIDATED)


@pytest.fixture(scope="module")
def killed(folder: Path) -> Path:
    """A run of two processes, killed after its fifth step; its last checkpoint is that of the fourth."""
    out = run(folder, "killed", processes=2, kill=5)
    assert [path.name for path in sorted((out / "checkpoints").glob("step-*"))] == ["step-00000002", "step-00000004"]
    return out


def close(one: Path, other: Path) -> None:
    """The same losses, gradients and weights, but for the last digits, which depend on who adds up what."""
    for mine, theirs in zip(losses(one), losses(other), strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4), mine["step"]
    mine, theirs = (_vector(path) for path in (one, other))
    start = _vector(one, "step-00000002")
    assert (mine - theirs).norm() < 0.01 * (mine - start).norm()


def _vector(out: Path, name: str = f"step-{STEPS:08d}") -> torch.Tensor:
    """All trained weights of a checkpoint, but for keys' biases: attention does not depend on them, so their gradient
    is rounding, of which Adam makes whole steps.
    """
    weights = load_model(out / "checkpoints" / name).named_parameters()
    return torch.cat(
        [weight.detach().flatten() for key, weight in weights if weight.requires_grad and not key.endswith(KEYS)]
    )


KEYS = ("key.bias", "k_proj.bias")


@pytest.mark.long
def test_two_processes_are_one(alone: Path, two: Path) -> None:
    close(alone, two)
    assert keys(alone, STEPS) == keys(two, STEPS)
    assert all(len(step) == 4 for step in keys(two, STEPS))


@pytest.mark.long
def test_four_processes_are_one(folder: Path, alone: Path) -> None:
    four = run(folder, "four", processes=4)
    close(alone, four)
    assert keys(alone, STEPS) == keys(four, STEPS)


@pytest.mark.long
def test_sharded_processes_are_one(folder: Path, alone: Path) -> None:
    """With activation checkpointing, too."""
    mode = {"mode": "fsdp", "activation_checkpointing": True}
    sharded = run(folder, "sharded", processes=2, parallel=mode, **VALIDATED)
    close(alone, sharded)
    files = sorted(path.name[:11] for path in (sharded / f"checkpoints/step-{STEPS:08d}").glob("*.safetensors"))
    assert files == ["shard-00001", "shard-00002"]


@pytest.mark.long
def test_a_killed_run_goes_on_exactly(folder: Path, two: Path, killed: Path) -> None:
    shutil.copytree(killed, folder / "again")
    out = run(folder, "again", processes=2)
    assert losses(out) == losses(two)  # to the last digit
    assert torch.equal(_vector(out), _vector(two))


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 4])
def test_another_number_of_processes_goes_on(folder: Path, alone: Path, killed: Path, processes: int) -> None:
    shutil.copytree(killed, folder / f"on-{processes}")
    out = run(folder, f"on-{processes}", processes=processes)
    assert keys(out, STEPS) == keys(alone, STEPS)
    close(alone, out)


@pytest.mark.long
def test_sharded_and_not_read_each_other(folder: Path, alone: Path, killed: Path) -> None:
    shutil.copytree(killed, folder / "changing")
    out = run(folder, "changing", processes=2, kill=6, parallel__mode="fsdp", checkpoint__every=1)
    shutil.rmtree(out / f"checkpoints/step-{STEPS:08d}")
    run(folder, "changing", processes=1)
    close(alone, out)


@pytest.mark.long
def test_validation_is_that_of_one_process(alone: Path, two: Path) -> None:
    found = []
    for out in (alone, two):
        (line,) = [line for line in (out / "metrics.jsonl").read_text().splitlines() if '"validation"' in line]
        found.append({name: value for name, value in json.loads(line).items() if name != "kind"})
    assert found[1] == pytest.approx(found[0], abs=2e-3)
    assert found[0]["cap/frames"] > 0


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process alone."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # else gloo asks for the address of the machine's name
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_tied_head_stays_tied(folder: Path, group: None) -> None:
    """Sharded, it is one parameter with the gradients of both of its uses, and one entry of the optimizer."""
    gradients = []
    samples = list(Corpus.open(folder / "corpus").stream("train", epoch_samples=2))
    for sharded in (False, True):
        model = LavidaModel.tiny(0, mllm={"lora": {"dropout": 0.0}}).train()
        model.mllm.get_output_embeddings().weight = model.mllm.get_input_embeddings().weight
        if sharded:
            parallel._sharded(model, World())
        head, embeddings = (
            part.weight for part in (model.mllm.get_output_embeddings(), model.mllm.get_input_embeddings())
        )
        assert head is embeddings
        optimizer = build_optimizer(model, OptimizerSettings(lr=0.1))
        assert sum(weight is head for group in optimizer.param_groups for weight in group["params"]) == 1
        batch = model.collator(training=True).samples_to_batch(samples)
        settings = LossSettings()
        with micro_step(model, last=True):
            loss.total(loss.terms(model(batch), batch, settings), loss.counts(batch), settings).backward()
        grad = model.mllm.get_input_embeddings().weight.grad
        gradients.append(grad.full_tensor() if sharded else grad)
        optimizer.step()
        assert model.mllm.get_output_embeddings().weight is model.mllm.get_input_embeddings().weight
    torch.testing.assert_close(gradients[1], gradients[0])


def test_validation_leaves_a_sharded_model_to_be_saved(folder: Path, group: None) -> None:
    """FSDP2 keeps the root's weights whole after a forward pass, and their moments would be missing."""
    samples = list(Corpus.open(folder / "corpus").stream("train", epoch_samples=2))
    model = LavidaModel.tiny(0).train()
    parallel._sharded(model, World())
    optimizer = build_optimizer(model, OptimizerSettings())
    batch, settings = model.collator(training=True).samples_to_batch(samples), LossSettings()
    with micro_step(model, last=True):
        loss.total(loss.terms(model(batch), batch, settings), loss.counts(batch), settings).backward()
    optimizer.step()
    whole = len(checkpoint._moments(model, optimizer))
    assert whole == 3 * len(model.trained_parameters())
    with torch.no_grad(), micro_step(model, last=True):
        model.eval()(batch)
    with pytest.raises(RuntimeError, match="the optimizer does not know"):
        checkpoint._moments(model, optimizer)
    scored = Validation(
        [str(folder / "corpus")],
        ValidationSettings(samples=2, lists={"cap": Lists()}),
        model.collator(training=False).samples_to_batch,
        seed=0,
    )
    with micro_step(model, last=True):
        assert scored(model)["cap/frames"]
    assert len(checkpoint._moments(model, optimizer)) == whole


def test_a_process_alone_is_a_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined() as world:
        assert (world.rank, world.size, world.first) == (0, 1, True)
        assert world.gather("x") == ["x"]
        tensor = torch.ones(3)
        assert world.sum(tensor) is tensor
        world.barrier()
    assert not torch.distributed.is_initialized()


def test_a_process_that_fails_does_not_wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's end of a group would, and they wait for this one in a collective: the error was never shown."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    for name, value in {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "0")  # any that is free
    monkeypatch.setattr(parallel, "several", lambda: True)
    with pytest.raises(RuntimeError, match="broken"), joined():
        raise RuntimeError("broken")
    assert torch.distributed.is_initialized()
    torch.distributed.destroy_process_group()
    with joined():
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    with (
        pytest.raises(RecipeError, match=r"fewer GPUs than processes.*4 processes.*2 GPUs.*--nproc-per-node 2"),
        joined(),
    ):
        pass
    assert not torch.distributed.is_initialized()


def test_one_process_needs_no_wrapper() -> None:
    model = nn.Linear(2, 2)
    assert spread(model, ParallelSettings(mode="fsdp"), World()) is model  # type: ignore[arg-type]
    with micro_step(model, last=False):
        assert model.training


def test_a_trained_scalar_cannot_be_sharded() -> None:
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(RecipeError, match=r"parallel.mode: .*got scale; allowed: ddp"):
        spread(model, ParallelSettings(mode="fsdp"), World(size=2))  # type: ignore[arg-type]


def test_generators_are_keyed() -> None:
    seed(1, "step", 5, 0, 0)
    first = torch.rand(3)
    torch.rand(100)
    seed(1, "step", 5, 0, 0)
    assert torch.equal(first, torch.rand(3))
    for other in [(1, "step", 5, 0, 1), (1, "step", 5, 1, 0), (1, "step", 6, 0, 0), (2, "step", 5, 0, 0)]:
        seed(*other)
        assert not torch.equal(first, torch.rand(3))
