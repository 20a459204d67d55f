"""What `lavida train --ray` decides by itself; with real Ray it runs in test_lavida_launch.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import ray.train
from ray.exceptions import RayTaskError
from ray.train import ControllerError, WorkerGroupError
from training_runs import write_config

from aesampler.errors import CorpusError, RecipeError, StorageError, TrainingError, WorkerError
from lavida.training import cluster, load_config
from lavida.training.config import TrainConfig


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """A run whose global batch is 4."""
    return load_config(write_config(tmp_path))


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 2.0}], None, (2, False)),
        ([{"CPU": 2.0}, {"CPU": 1.0}], None, (2, False)),  # 3 would share no batch of 4
        ([{"CPU": 64.0}], None, (4, False)),
        ([{"CPU": 64.0}], 3, (2, False)),
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}], None, (2, True)),
        ([{"CPU": 8.0, "GPU": 8.0}, {"CPU": 8.0}], None, (4, True)),
    ],
)
def test_as_many_workers_as_share_a_batch(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch, nodes: Any, workers: int | None, expected: tuple[int, bool]
) -> None:
    dead = {"Alive": False, "NodeID": "dead", "Resources": {"CPU": 100.0, "GPU": 100.0}}
    silent = {"Alive": True, "NodeID": "silent", "Resources": {"CPU": 100.0, "GPU": 100.0}}
    alive = [{"Alive": True, "NodeID": str(place), "Resources": resources} for place, resources in enumerate(nodes)]
    monkeypatch.setattr(cluster.session, "nodes", lambda: [dead, silent, *alive])
    assert cluster._processes(config, workers, frozenset({"silent"})) == expected


def test_a_cluster_without_anything(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cluster.session, "nodes", lambda: [{"Alive": True, "NodeID": "a", "Resources": {"memory": 1e9}}]
    )
    with pytest.raises(WorkerError, match="tiny: the cluster offers no CPU and no GPU; join nodes to it"):
        cluster._processes(config, None)


def test_our_error_is_found_in_what_ray_makes_of_it() -> None:
    wrong = TrainingError("loss is not a finite number at step 3", where="samples a, b")
    passing = StorageError("the store does not answer")
    task = RayTaskError("_work", "a traceback", wrong)
    assert cluster._ours(WorkerGroupError("two failed", {0: RuntimeError("a peer left"), 1: wrong})) is wrong
    assert cluster._ours(WorkerGroupError("two failed", {0: passing, 1: wrong})) is wrong
    assert cluster._ours(ControllerError(task)) is wrong
    assert cluster._ours(WorkerGroupError("one failed", {0: passing})) is passing
    assert cluster._ours(WorkerGroupError("one died", {0: RuntimeError("died")})) is None
    assert cluster._ours(task.as_instanceof_cause()) is wrong


def steps(config: TrainConfig, *numbers: int) -> None:
    for number in numbers:
        (config.folder / f"checkpoints/step-{number:08d}").mkdir(parents=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "SETTLE_S", 0.0)
    monkeypatch.setattr(cluster.session, "nodes", lambda: [{"Alive": True, "NodeID": "a", "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(cluster.session, "answering", frozenset)


@pytest.mark.usefixtures("quick")
def test_accidents_are_outlived_and_faults_are_not(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that die are followed by others while there is progress, or three times without."""
    died = WorkerGroupError("a node died", {1: RuntimeError("the actor died")})
    plan: list[Any] = []

    def group(config: TrainConfig, count: int, on_gpu: bool) -> Any:
        event = plan.pop(0)
        if isinstance(event, int):
            steps(config, event)
            raise died
        if isinstance(event, BaseException):
            raise event
        return event

    monkeypatch.setattr(cluster, "_group", group)
    plan[:] = [died, died, 2, died, 4, 6, died, "done"]
    assert cluster._to_the_end(config, None) == "done"  # type: ignore[comparison-overlap]
    plan[:] = [died, died, died, "never"]
    with pytest.raises(WorkerError, match=r"tiny: workers were lost 3 times at step 6: .*; look at the memory"):
        cluster._to_the_end(config, None)
    assert plan == ["never"]
    told: list[frozenset[str]] = []
    processes = cluster._processes
    monkeypatch.setattr(cluster, "_processes", lambda *given: (told.append(given[2]), processes(*given))[1])
    monkeypatch.setattr(cluster.session, "answering", lambda nodes: frozenset())
    plan[:] = [8, "done"]
    assert cluster._to_the_end(config, None) == "done"  # type: ignore[comparison-overlap]
    here = {"Alive": True, "NodeID": "b", "Resources": {"CPU": 2.0}}
    monkeypatch.setattr(cluster.session, "nodes", lambda: [here, here | {"NodeID": "a"}])
    monkeypatch.setattr(cluster.session, "answering", lambda nodes: frozenset({"b"}))
    plan[:] = [10, "done"]
    assert cluster._to_the_end(config, None) == "done"  # type: ignore[comparison-overlap]
    assert told == [frozenset(), frozenset(), frozenset(), {"a"}], "of none that answers none is taken to be lost"
    for wrong in (CorpusError("no such split"), TrainingError("out of memory")):
        plan[:] = [WorkerGroupError("failed", {0: wrong}), "never"]
        with pytest.raises(type(wrong)) as caught:
            cluster._to_the_end(config, None)
        assert caught.value is wrong
    passing = WorkerGroupError("failed", {0: StorageError("the store does not answer")})
    plan[:] = [passing, 12, passing, passing, "never"]
    with pytest.raises(StorageError, match="the store does not answer"):
        cluster._to_the_end(config, None)
    assert issubclass(type(died), ray.train.TrainingFailedError)


def test_what_a_node_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.probe").write_text("token", encoding="utf-8")
    (tmp_path / "corpus.json").write_text("{}", encoding="utf-8")
    probe, there, ask = str(tmp_path / "out/.probe"), str(tmp_path / "corpus.json"), cluster._asker()
    assert ask(probe, "token", [there], cluster.PACKAGES) == ([], "")
    assert ask(probe, "token", [there], ["torch", "no_such_package"]) == (["no_such_package"], "")
    assert ask(probe, "another", [there], ()) == ([], str(tmp_path / "out"))
    assert ask(str(tmp_path / "none/.probe"), "token", [there], ()) == ([], str(tmp_path / "none"))
    assert ask(probe, "token", [there, "/none/corpus.json"], ()) == ([], "/none/corpus.json")


def test_no_cluster_answers(config: TrainConfig) -> None:
    with pytest.raises(RecipeError, match=r"127\.0\.0\.1:9: no Ray cluster answers: .*; give the address of its head"):
        cluster.launch(config, address="127.0.0.1:9")


def test_progress_is_read_where_the_workers_write_it(config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config.folder.mkdir()
    line = json.dumps({"step": config.steps, "kind": "train", "loss": 1.0})
    (config.folder / "metrics.jsonl").write_text(f"{line}\n", encoding="utf-8")
    with cluster._told(config):
        pass  # it looks once more at the end
    assert capsys.readouterr().err.count("training: 6 of 6") == 1
