"""Training runs in processes of their own, as torchrun starts them: what the tests of `lavida.training` share.

    python training_runs.py CONFIG OUT CHANGES [KILL]

trains, leaves the keys of each step's samples in OUT/keys-RANK.jsonl, and kills itself with SIGKILL once KILL steps are
done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import corpora

CLIPS = corpora.Part(source="davis", kind="clip", frames=3, shards=(8, 6), bare=2)
IMAGES = corpora.Part(source="coco", shards=(9, 7), bare=3)
HELD_OUT = corpora.Part(source="coco", split="validation", shards=(9,), bare=3)
PARTS = (CLIPS, IMAGES, HELD_OUT)

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": {"corpora": "corpus"},
    "batch": {"size": 4, "per_process": 2},
    "steps": 6,
    "model": {
        "mllm": {"model": "tiny", "lora": {"dropout": 0.0}},
        "segmenter": {"model": "tiny"},
        "text": {"model": "tiny", "pretrained": None},
        "projector": {"width": 64, "queries": 4, "blocks": 2, "heads": 4, "mlp": 128, "text_heads": 4},
        "inputs": {"train_tokens": [4, 8], "eval_tokens": [4, 8], "image_tokens": [4, 8]},
        "dtype": "float32",
    },
    "optimizer": {"lr": 1e-3, "warmup": 2},
    "parallel": {"activation_checkpointing": False},
    "checkpoint": {"every": 2, "keep": 3},
    "validation": None,
    "log": {"tensorboard": False},
}
"""The smallest run of the tiny model, on a corpus of tests/corpora.py."""

TIMES = ("seconds", "samples_per_second", "waiting_share", "memory_gb")


def write_config(folder: Path, name: str = "train.yaml", **changes: Any) -> Path:
    """TINY with some blocks changed, as a file; its corpus lies beside it."""
    document = {**TINY, "out": "run"}
    for key, value in changes.items():
        document[key] = {**document[key], **value} if isinstance(document.get(key), dict) and value else value
    path = folder / name
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    return path


def launch(
    config: Path, changes: Mapping[str, Any], *, processes: int, kill: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Train with so many processes on this machine, as torchrun does it; one process needs no launcher."""
    arguments = [__file__, str(config), json.dumps(changes), *([str(kill)] if kill is not None else [])]
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--standalone", "--local-addr", "127.0.0.1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=500)


def losses(out: Path) -> list[dict[str, float]]:
    """The figures of each training step, without times and memory."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name not in ("kind", *TIMES)}
        for line in lines
        if line["kind"] == "train"
    ]


def keys(out: Path, steps: int) -> list[set[str]]:
    """The samples of each step, of all processes; a step that was done twice counts the last time."""
    found: list[set[str]] = [set() for _ in range(steps)]
    last: dict[tuple[str, int], list[str]] = {}
    for path in sorted(out.glob("keys-*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            last[path.name, entry["step"]] = entry["keys"]
    for (_, step), names in last.items():
        found[step - 1] |= set(names)
    return found


def main() -> None:
    from lavida.training import feed, load_config, train

    path, changes, *kill = sys.argv[1:]
    config = load_config(path, json.loads(changes))
    config.folder.mkdir(parents=True, exist_ok=True)
    rank = os.environ.get("RANK", "0")
    drawn: list[list[str]] = []
    ask = feed.Feed.__next__

    def noted(self: feed.Feed) -> Any:
        batches = ask(self)
        drawn.append([key for batch in batches for key in batch.keys])
        return batches

    feed.Feed.__next__ = noted  # type: ignore[method-assign]
    size = os.environ.get("WORLD_SIZE", "1")
    with (config.folder / f"keys-{size}-{rank}.jsonl").open("a", encoding="utf-8", buffering=1) as file:

        def after(step: int, metrics: dict[str, float]) -> None:
            file.write(json.dumps({"step": step, "keys": drawn[-1]}) + "\n")
            if kill and step == int(kill[0]):
                os.kill(os.getpid(), signal.SIGKILL)

        train(config, after_step=after)


if __name__ == "__main__":
    main()
