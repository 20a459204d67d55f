"""Training that dies: killed again and again, each time with other numbers of processes, and on Ray with a node lost.
Real processes, real SIGKILL, real Ray; a run that nothing happened to is the oracle. See test_lavida_parallel.py, too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import corpora
import pytest
from training_runs import PARTS, TINY, keys, launch, losses, write_config

pytestmark = pytest.mark.long

STEPS = TINY["steps"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and beside it the configuration of a run on it."""
    room = tmp_path_factory.mktemp("launch")
    corpora.write(room / "corpus", PARTS)
    write_config(room)
    return room


def ran(folder: Path, out: str, *, processes: int, kill: int | None = None, **changes: Any) -> Path:
    """A run, to its end or to the step that it is killed at; its folder."""
    done = launch(folder / "train.yaml", {"out": out, **changes}, processes=processes, kill=kill)
    assert (done.returncode == 0) == (kill is None), done.stdout[-2000:] + done.stderr[-4000:]
    return folder / out


@pytest.fixture(scope="module")
def straight(folder: Path) -> Path:
    """One process, never stopped."""
    return ran(folder, "straight", processes=1)


def close(one: list[dict[str, float]], other: list[dict[str, float]], rel: float) -> None:
    """The same steps and figures, but for sums of floats in another order."""
    assert [line["step"] for line in one] == [line["step"] for line in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            assert value == (value if value == theirs[name] else pytest.approx(theirs[name], rel=rel)), name


def test_killed_with_2_processes_and_then_with_1_it_ends_with_4(folder: Path, straight: Path) -> None:
    """Killed between checkpoints: what is left half done is done again; each global batch holds the same samples,
    whoever takes them, and the losses are those of one process.
    """
    out = ran(folder, "changing", processes=2, kill=3)
    ran(folder, "changing", processes=1, kill=5)
    ran(folder, "changing", processes=4)
    assert keys(out, STEPS) == keys(straight, STEPS)
    close(losses(out), losses(straight), rel=2e-3)


RAY = """
import json, os, sys, threading, time
from pathlib import Path

from ray.cluster_utils import Cluster

from aesampler.errors import CorpusError

config, out = Path(sys.argv[1]), sys.argv[2]

if __name__ == "__main__":
    os.environ["RAY_AUTH_MODE"] = "disabled"
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    lost = nodes.add_node(num_cpus=1)

    from lavida.training import cluster, load_config, train

    def slowly(given):  # so that the node is lost in the middle of it
        train(given["config"], hold=False, after_step=lambda step, metrics: time.sleep(0.7))

    cluster._work = slowly
    wanted = load_config(config, {"out": out})
    log = wanted.folder / "metrics.jsonl"
    told = {}

    def kill():
        while not log.exists() or log.read_text().count("\\n") < 3:
            time.sleep(0.05)
        nodes.remove_node(lost, allow_graceful=False)
        told["killed at"] = json.loads(log.read_text().splitlines()[-1])["step"]

    counted = []
    ask = cluster._processes
    def processes(*given):
        counted.append(ask(*given)[0])
        return ask(*given)
    cluster._processes = processes
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    result = cluster.launch(wanted, address=nodes.address)
    killer.join()
    told["groups"] = list(counted)
    try:
        cluster.launch(load_config(config, {"out": out + "-wrong", "data.split": "test"}), address=nodes.address)
    except CorpusError as error:
        told["fault"] = str(error)
    print(json.dumps({**told, "steps": result.steps, "model": result.model.exists()}))
    nodes.shutdown()
"""


def test_a_node_lost_on_ray(folder: Path, straight: Path, tmp_path: Path) -> None:
    """Two nodes, one killed while it trains: the run ends by itself on the other, with the same steps and losses. What
    is wrong with a run is told as it is without Ray.
    """
    (tmp_path / "program.py").write_text(RAY, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "program.py"), str(folder / "train.yaml"), "on-ray"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1100, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["groups"] == [2, 1], "the lost node is not waited for"
    assert "the corpus has no test split, which data.split asks for; got train, validation" in told["fault"]
    assert 2 <= told["killed at"] < STEPS
    assert (told["steps"], told["model"]) == (STEPS, True)
    close(losses(folder / "on-ray"), losses(straight), rel=2e-3)
    assert not [path for path in (folder / "on-ray").iterdir() if path.name.startswith(".")]
