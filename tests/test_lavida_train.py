"""Runs of the tiny model in this process: going on, what stops a run, what it leaves behind; the feed."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import corpora
import pytest
import torch
import training_runs
from training_runs import losses

from aesampler import Corpus
from aesampler.errors import AesamplerError, CorpusError, LockedError, ModelError, RecipeError, TrainingError
from aesampler.sample import Sample
from lavida.model import LavidaModel
from lavida.training import load_config, load_model, loss, run, train
from lavida.training.checkpoint import Checkpoints
from lavida.training.feed import BatchSettings, Feed, FeedSettings
from lavida.training.parallel import RESTARTS, World

FORKS = (
    # Python 3.12 warns of any fork beside threads.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning",
    "ignore:This DataLoader will create:UserWarning",
)


class Stopped(Exception):
    """What ends a run in the middle here."""


def stop_at(step: int) -> Any:
    def after(done: int, metrics: dict[str, float]) -> None:
        if done == step:
            raise Stopped

    return after


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    corpora.write(folder / "corpus", training_runs.PARTS)
    corpora.write(folder / "bare", (training_runs.CLIPS,))
    training_runs.write_config(folder, model={"mllm": {"model": "tiny"}})  # with dropout
    return folder


def config(folder: Path, **changes: Any) -> Any:
    return load_config(folder / "train.yaml", {key.replace("__", "."): value for key, value in changes.items()})


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(weights(one).items(), weights(other).items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.fixture(scope="module")
def straight(folder: Path) -> Any:
    """A run of six steps that is never stopped."""
    return train(config(folder, out="straight"))


def test_a_run_that_was_stopped_gives_the_same(folder: Path, straight: Any) -> None:
    settings = config(folder, out="stopped")
    with pytest.raises(Stopped):
        train(settings, after_step=stop_at(5))
    assert [line["step"] for line in losses(settings.folder)] == [1, 2, 3, 4, 5]
    result = train(settings)
    assert result.steps == straight.steps == 6
    assert losses(settings.folder) == losses(straight.out)  # step 5 was done twice, and is there once
    assert same(LavidaModel.from_pretrained(result.model), LavidaModel.from_pretrained(straight.model))


def test_a_run_that_is_done_is_not_done_again(folder: Path, straight: Any) -> None:
    before = losses(straight.out)
    assert train(config(folder, out="straight")) == straight
    assert losses(straight.out) == before


def test_what_a_run_leaves(folder: Path, straight: Any) -> None:
    out = folder / "straight"
    assert {path.name for path in out.iterdir()} == {"checkpoints", "config.json", "metrics.jsonl", "model"}
    assert [path.name for path in (out / "checkpoints").iterdir() if path.name.startswith(".")] == []
    assert same(load_model(out / "checkpoints/step-00000006").eval(), LavidaModel.from_pretrained(straight.model))
    state = json.loads((out / "checkpoints/step-00000006/state.json").read_text())
    assert (state["step"], state["generators"], state["stream"]["epoch"]) == (6, {"seed": 3, "step": 6}, 0)
    assert json.loads((out / "config.json").read_text())["steps"] == 6
    assert all(line["loss"] > 0 and line["gradient_norm"] > 0 for line in losses(out))


def test_the_loss_falls(straight: Any) -> None:
    found = [line["loss"] for line in losses(straight.out)]
    assert found[-1] < found[0]


def test_another_run_in_the_same_folder_is_refused(folder: Path, straight: Any) -> None:
    with pytest.raises(RecipeError, match=r"another optimizer.lr; got 0.5; allowed: 0.001; .* --fresh"):
        train(config(folder, out="straight", optimizer__lr=0.5))
    # How and where it runs may change.
    assert train(config(folder, out="straight", batch__per_process=4, checkpoint__keep=9)).steps == 6


def test_what_is_no_run_of_ours_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "metrics.jsonl", "model/model.safetensors", "checkpoints/step-00000007/mine"):
        path = tmp_path / name.replace("/", "-") / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        for resume in (True, False) if not name.startswith("checkpoints") else (False,):
            with pytest.raises(
                RecipeError, match=r"holds something that is no training run; got .*; give another `out`"
            ):
                train(config(folder, out=str(tmp_path / name.replace("/", "-"))), resume=resume)
        assert [each for each in path.parents[name.count("/")].rglob("*") if each.is_file()] == [path]
        assert path.read_text() == "mine"
    with pytest.raises(RecipeError, match=r"no training run; got corpus.json"):
        train(config(folder, out="corpus"))


def test_a_model_outlives_its_checkpoints(folder: Path) -> None:
    settings = config(folder, out="kept", steps=2)
    model = train(settings).model
    before = (model / "model.safetensors").read_bytes()
    shutil.rmtree(settings.folder / "checkpoints")
    with pytest.raises(RecipeError, match=r"has ended, and its checkpoints are gone; give another .* --fresh"):
        train(settings)
    assert (model / "model.safetensors").read_bytes() == before
    assert train(settings, resume=False).steps == 2


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_again(folder: Path) -> None:
    settings = config(folder, out="early", steps=2, checkpoint__every=2)
    with pytest.raises(Stopped):
        train(settings, after_step=stop_at(1))
    assert train(settings).steps == 2


def test_fresh_begins_anew(folder: Path) -> None:
    first = train(config(folder, out="fresh", steps=2))
    again = train(config(folder, out="fresh", steps=2, optimizer__lr=0.5), resume=False)
    lines = losses(again.out)
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[-1]["lr"] != 0.001
    assert first.model == again.model


@pytest.mark.parametrize("name", RESTARTS)
def test_fresh_is_for_the_first_start(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The launcher that starts a run again gives it the same options."""
    settings = config(folder, out=f"again-{name}", steps=4)
    monkeypatch.setenv(name, "0")
    with pytest.raises(Stopped):
        train(settings, resume=False, after_step=stop_at(3))
    monkeypatch.setenv(name, "1")
    steps: list[int] = []
    train(settings, resume=False, after_step=lambda step, metrics: steps.append(step))
    assert steps == [3, 4]


def test_a_folder_is_of_one_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(folder, out="one", steps=2)
    monkeypatch.setattr(run, "LET_GO_S", 0.0)

    def another(step: int, metrics: Any) -> None:
        with pytest.raises(LockedError, match=r"one: another training is writing into this folder; wait for it"):
            train(settings)

    train(settings, after_step=another)
    assert {path.name for path in settings.folder.iterdir()} == {"checkpoints", "config.json", "metrics.jsonl", "model"}

    def lockless(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", lockless)
    with run.held(settings.folder, World()):
        pass


@pytest.mark.parametrize("name", ["per_process", "checkpointing"])
def test_how_a_batch_is_cut_changes_nothing(folder: Path, name: str) -> None:
    changes = {"steps": 2, "model__mllm__lora__dropout": 0.0, "out": f"cut-{name}"}
    whole = train(config(folder, **changes, batch__per_process=4), resume=False)
    expected = losses(whole.out)
    if name == "per_process":
        found = train(config(folder, **changes, batch__per_process=1), resume=False)
    else:
        found = train(config(folder, **changes, parallel__activation_checkpointing=True), resume=False)
    for one, other in zip(expected, losses(found.out), strict=True):
        assert other == pytest.approx(one, rel=2e-4)


def test_bfloat16_trains(folder: Path) -> None:
    result = train(config(folder, out="bf16", steps=2, model__dtype="bfloat16"))
    model = load_model(result.out / "checkpoints/step-00000002")
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in model.parameters() if not p.requires_grad}


def test_a_loss_that_is_no_number_stops_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(folder, out="nan", batch__per_process=1)
    terms, seen = loss.terms, []

    def broken(output: Any, batch: Any, weights: Any) -> torch.Tensor:
        seen.append(batch.keys)
        return terms(output, batch, weights) * (float("nan") if len(seen) == 14 else 1.0)

    monkeypatch.setattr(loss, "terms", broken)
    with pytest.raises(TrainingError) as raised:
        train(settings)
    monkeypatch.undo()
    said = str(raised.value)
    (bad,) = seen[13]
    assert said.startswith(f"samples {bad}: loss, focal, dice")
    assert "not a finite number at step 4" in said
    last = settings.folder / "checkpoints/step-00000002"
    assert f"{last} has the last good weights" in said
    assert raised.value.exit_code == 3
    assert Checkpoints(settings.folder, settings.checkpoint, World()).last() == last
    assert all(weight.isfinite().all() for weight in load_model(last).parameters())
    assert [line["step"] for line in losses(settings.folder)] == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"),
    ],
)
def test_too_little_memory_says_what_to_lower(folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(LavidaModel, "forward", full)
    with pytest.raises(TrainingError) as raised:
        train(config(folder, out="full"))
    assert str(raised.value) == (
        f"tiny: out of memory; got {error}; lower batch.per_process and validation.per_process (2), or "
        "model.mllm.ratio (0.5), or model.inputs.train_tokens ([4, 8]); or set "
        "parallel.activation_checkpointing: true; or, on several GPUs, parallel.mode: fsdp"
    )


def test_another_runtime_error_is_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(LavidaModel, "forward", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        train(config(folder, out="bug"))


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        (
            {"data__corpora": "bare", "validation": {}},
            CorpusError,
            "has no validation split, which validation.split asks",
        ),
        ({"data__split": "test"}, CorpusError, "has no test split, which data.split asks for; got train, validation"),
        ({"data__corpora": "nowhere"}, CorpusError, "no such folder"),
        ({"batch__size": 400}, CorpusError, "an epoch is shorter than a global batch; got 400; allowed: 1 to 30"),
        ({"data__weights": {"coco": 1.0}}, CorpusError, "weights name every source"),
        ({"data__resample": {"max_categorie": 3}}, CorpusError, "resample"),
    ],
)
def test_what_cannot_be_streamed(folder: Path, changes: Any, kind: type[AesamplerError], said: str) -> None:
    with pytest.raises(kind) as raised:
        train(config(folder, out="wrong", **changes))
    assert said in str(raised.value)
    assert not (folder / "wrong/checkpoints").exists()


def test_the_log_is_in_tensorboard_too(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    changes = {"steps": 2, "out": "board", "log__tensorboard": True}
    changes["validation"] = {"every": 2, "lists": {"cap": {}, "one": {"resample": {"irrelevant_count": [0, 1]}}}}
    result = train(config(folder, **changes))
    board = EventAccumulator(str(result.out / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (result.out / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "train", "validation", "data"]
    for line in lines[1:3]:
        for name, value in line.items():
            if name not in ("step", "kind") and value is not None:
                event = board.Scalars(f"{line['kind']}/{name}")[-1]
                assert (event.step, event.value) == (2, pytest.approx(value, rel=1e-6)), name
    assert set(training_runs.TIMES) < set(lines[0])
    assert 0 <= lines[0]["waiting_share"] <= 1
    assert result.metrics == {name: value for name, value in lines[2].items() if name not in ("step", "kind")}
    assert result.best == {"step": 2, "value": result.metrics["frame_auc"]}
    assert lines[3] == {"step": 2, "kind": "data", "replaced": 0.0, "not_redrawn": 0.0}


def test_the_best_checkpoint_becomes_the_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lavida.training import validation

    values = iter([0.5, 0.9, 0.7])
    monkeypatch.setattr(validation.Validation, "__call__", lambda *_: {"frame_auc": next(values)})
    changes = {"out": "best", "validation": {"every": 2}, "checkpoint": {"every": 6, "keep": 1}}
    result = train(config(folder, **changes))
    assert result.best == {"step": 4, "value": 0.9}
    assert result.metrics == {"frame_auc": 0.7}
    kept = sorted(path.name for path in (result.out / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000006"]
    best = load_model(result.out / "checkpoints/step-00000004").eval()
    assert same(best, LavidaModel.from_pretrained(result.model))


# The feed


def collate(samples: list[Sample], epoch: int) -> Any:
    return SimpleNamespace(keys=tuple(sample.key for sample in samples), epoch=epoch)


def feed(folder: Path, rank: int = 0, ranks: int = 1, size: int = 4, **changes: Any) -> Feed:
    settings = FeedSettings(corpora=("corpus",), **changes)
    batch = BatchSettings(size=size, per_process=2)
    return Feed(settings, batch, collate, seed=1, world=World(rank=rank, size=ranks), base=folder)


def drawn(feeds: Sequence[Feed], steps: int) -> list[set[tuple[int, str]]]:
    """The samples of each global batch, with their epochs."""
    return [
        {(batch.epoch, key) for feed in feeds for batch in next(feed) for key in batch.keys}  # type: ignore[attr-defined]
        for _ in range(steps)
    ]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings(*FORKS)
def test_global_batches_do_not_know_the_number_of_processes(folder: Path, workers: int) -> None:
    expected = drawn([feed(folder)], 20)
    for ranks in (2, 4):
        feeds = [feed(folder, rank, ranks, workers=workers) for rank in range(ranks)]
        assert drawn(feeds, 10) == expected[:10]
        states = [json.loads(json.dumps(each.state_dict())) for each in feeds]
        assert all(state == states[0] for state in states)
        for fewer in (1, 2, 4):
            others = [feed(folder, rank, fewer) for rank in range(fewer)]
            for other in others:
                other.load_state_dict(states[0])
            assert drawn(others, 10) == expected[10:]
        for each in feeds:
            each.close()


def test_an_epoch_is_of_whole_global_batches(folder: Path) -> None:
    # 30 samples make 7 batches of 4; each source goes on in the next epoch with what this one left out.
    batches = drawn([feed(folder)], 15)
    assert all(len(batch) == 4 and len({epoch for epoch, _ in batch}) == 1 for batch in batches)
    assert [min(epoch for epoch, _ in batch) for batch in batches] == [0] * 7 + [1] * 7 + [2]
    first = {key for batch in batches[:7] for _, key in batch}
    second = {key for batch in batches[7:14] for _, key in batch}
    assert len(first) == 28
    assert first | second == set(Corpus.open(folder / "corpus").keys("train"))


def test_a_share_is_cut_into_equal_micro_batches(folder: Path) -> None:
    cut = {(size, ranks): feed(folder, 0, ranks, size=size) for size, ranks in [(12, 1), (12, 2), (12, 4), (3, 1)]}
    assert {key: (each.share, each.accumulation) for key, each in cut.items()} == {
        (12, 1): (12, 6),
        (12, 2): (6, 3),
        (12, 4): (3, 3),
        (3, 1): (3, 3),
    }
    with pytest.raises(RecipeError, match=r"batch.size: .*got 4 for 3 processes; allowed: a multiple of 3"):
        BatchSettings(size=4).micro(3)


def test_time_spent_waiting_is_counted(folder: Path) -> None:
    each = feed(folder)
    next(each)
    assert 0 < each.waited < 60


@pytest.mark.filterwarnings(*FORKS)
def test_an_error_in_a_worker_is_one_line(folder: Path) -> None:
    def broken(samples: list[Sample], epoch: int) -> Any:
        raise ModelError("the prompt is too long", where=samples[0].key)

    settings = FeedSettings(corpora=("corpus",), workers=1)
    each = Feed(settings, BatchSettings(size=2), broken, seed=1, world=World(), base=folder)
    with pytest.raises(ModelError) as raised:
        next(each)
    assert raised.value.what == "the prompt is too long"


def test_a_cap_that_the_context_cannot_hold_is_refused_before_the_first_step(folder: Path) -> None:
    short = {"tiny": {"context": 64}, "model": "tiny"}
    with pytest.raises(
        ModelError, match=r"cap of the exposure: lists may be longer .* 5 names, up to .*; lower the cap"
    ):
        train(config(folder, out=str(folder / "short"), model__mllm=short, data__resample={"max_categories": 5}))
    assert not list((folder / "short/checkpoints").glob("step-*"))


def test_the_lists_that_are_drawn_are_told(folder: Path) -> None:
    settings = FeedSettings(corpora=("corpus",), resample={"max_categories": 9})
    stored = FeedSettings(corpora=("corpus",), resample=False)
    caps = []
    for each in (settings, stored):
        made = Feed(each, BatchSettings(size=2), lambda samples, epoch: None, seed=1, world=World(), base=folder)
        caps.append({(cap, frames) for cap, _, frames in made.lists()})
        for _, names, _ in made.lists():
            assert names
    assert caps == [{(9, 1), (9, 3)}, {(6, 1), (6, 3)}]
