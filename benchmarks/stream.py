"""Speed and memory of reading a corpus beside other loaders and bare reading: the same samples, shuffled, one run.

The corpus is the COCO sample (AESAMPLER_REAL_DATA) repeated under new ids and built by us; it is read shuffled, from a
warm cache unless that is said. webdataset, Hugging Face datasets, Ray Data and Megatron-Energon read our tars; litdata
and MosaicML Streaming read files of their own, written of the same members and not counted. The last three live in
.venv-peers (`make peers`) and are left out without it. Each is read as its manual has it, shuffled, without workers and
with two where that is a setting. Every contestant is a process of its own, and they take turns; medians count. Raw: the
files of each sample, undecoded. `pread` reads each sample's block by its offset, and neither checks a header nor takes
the block apart; `whole` is that by our stream, in its order, with its state and the first header checked. Decoded: RGB,
mask and JSON as arrays and objects; ours gives the ignored pixels, too. Only ratios carry over to other machines; on
one that has other work the ratios by time of processor are the truer ones, and those of threads say little; of Ray they
miss its workers.

    python benchmarks/stream.py                # about 10 minutes
    python benchmarks/stream.py --only litdata --only ours --images 100 --repeats 1
    python benchmarks/stream.py --order        # the order alone, of a million and of a billion samples
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from _stream_peers import PEERS, prepare
from build import _peak_mb, repeated  # benchmarks/build.py

TARGETS = {
    "raw: ours, whole / pread": ">= 0.7",
    "raw: ours / pread": ">= 0.7",
    "raw: ours / best peer": ">= 1",
    "decoded: ours, no thread / bare Pillow": ">= 1.3",
    "decoded: ours, 2 threads / bare Pillow": ">= 2",
    "decoded: ours, 2 threads / best peer": ">= 2",
    "raw: ours, a state at every step, share of the time": "< 0.01",
    "decoded: ours, 2 threads, a state at every step, share of the time": "< 0.01",
    "memory of ours, 2 threads, above an interpreter, MB": "<= 150",
}
EPOCHS = 5
"""Of the raw contestants that take no time."""
COLD = ", from the disk"
"""Of a contestant that finds nothing in the cache."""
_states: list[float] = []
"""Seconds of each state that was taken: a share too small to be seen in the difference of two races."""


def blocks(corpus: Any) -> list[tuple[str, int, int]]:
    """(tar, offset, size) of every sample, shuffled."""
    found = [(f"{corpus.folder.path}/{row.shard}", row.offset, row.size) for row in corpus.rows()]
    random.Random(1).shuffle(found)
    return found


def pread(root: Path, epochs: int = 1) -> Iterator[object]:
    import aesampler

    wanted = blocks(aesampler.Corpus.open(root))
    handles = {path: os.open(path, os.O_RDONLY) for path in {path for path, *_ in wanted}}
    yield None  # what comes before is not counted
    for path, offset, size in wanted * epochs:
        yield os.pread(handles[path], size, offset)


def bare_pillow(root: Path) -> Iterator[object]:
    import numpy as np
    from PIL import Image

    from aesampler.shard import read_block

    for data in pread(root):
        if not isinstance(data, bytes):
            yield None
            continue
        _, members = read_block(data)
        picture = np.asarray(Image.open(io.BytesIO(members["jpg"])).convert("RGB"))
        mask = np.asarray(Image.open(io.BytesIO(members["mask.png"]))) > 0
        yield picture, mask, json.loads(members["json"])


def ours(
    root: Path, *, form: str = "", threads: int = 0, states: bool = False, epochs: int = 0, **options: Any
) -> Iterator[object]:
    """form: "members" of each sample, the whole "blocks", or "" for decoded samples."""
    import aesampler

    stream = aesampler.Corpus.open(root).stream("train", threads=threads, **options)
    next(stream.keys())  # the first manifest, and what is imported to read it
    clock = min(timeit.repeat(time.perf_counter, number=1000)) / 1000  # of a state that is timed, one call is not its
    yield None
    for _ in range(epochs or (EPOCHS if form else 1)):
        for sample in getattr(stream, form)() if form else stream:
            if states:
                begin = time.perf_counter()
                stream.state_dict()
                _states.append(time.perf_counter() - begin - clock)
            yield sample


def webdataset(root: Path, *, raw: bool = False, workers: int = 0) -> Iterator[object]:
    import webdataset as wds

    tars = sorted(str(path) for path in root.glob("train/*.tar"))
    made = wds.WebDataset(tars, shardshuffle=len(tars), seed=1, workersplitter=wds.split_by_worker).shuffle(1000)
    if not raw:
        made = made.decode("rgb8")
    if workers:
        made = wds.WebLoader(made, batch_size=None, num_workers=workers)
    yield None
    yield from made


def datasets(root: Path, *, raw: bool = False) -> Iterator[object]:
    import datasets as hf
    import numpy as np

    hf.disable_progress_bars()
    made = hf.load_dataset("webdataset", data_files=str(root / "train/*.tar"), split="train", streaming=True)
    if raw:
        made = made.cast_column("jpg", hf.Image(decode=False)).cast_column("mask.png", hf.Image(decode=False))
    made = made.shuffle(seed=1, buffer_size=1000)
    yield None
    for sample in made:
        yield sample if raw else (np.asarray(sample["jpg"].convert("RGB")), np.asarray(sample["mask.png"]) > 0, sample)


def ray_data(root: Path) -> Iterator[object]:
    import numpy as np
    import ray
    from PIL import Image

    def decoded(sample: dict[str, Any]) -> dict[str, Any]:  # its own decoder fails on a grey picture among others
        picture = np.asarray(Image.open(io.BytesIO(sample["jpg"])).convert("RGB"))
        mask = np.asarray(Image.open(io.BytesIO(sample["mask.png"]))) > 0
        return {**sample, "jpg": picture, "mask.png": mask, "json": json.loads(sample["json"])}

    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    ray.data.DataContext.get_current().enable_progress_bars = False
    tars = sorted(str(path) for path in root.glob("train/*.tar"))
    made = iter(ray.data.read_webdataset(tars, decoder=decoded, shuffle="files").iter_rows())
    first = next(made)  # Ray's start, and that of its workers, is not counted
    yield None
    yield first
    yield from made


OURS = ("ours", "pread", "bare Pillow")
"""What is no peer."""

PEERS_PYTHON = Path(__file__).resolve().parents[1] / ".venv-peers/bin/python"

CONTESTANTS: dict[str, Callable[[Path], Iterator[object]]] = {
    "raw: pread": lambda root: pread(root, EPOCHS),
    "raw: ours, whole": lambda root: ours(root, form="blocks"),
    "raw: ours": lambda root: ours(root, form="members"),
    f"raw: pread{COLD}": pread,
    f"raw: ours, whole{COLD}": lambda root: ours(root, form="blocks", epochs=1),
    f"raw: ours{COLD}": lambda root: ours(root, form="members", epochs=1),
    "raw: ours, a state at every step": lambda root: ours(root, form="members", states=True),
    "raw: webdataset": lambda root: webdataset(root, raw=True),
    "raw: datasets": lambda root: datasets(root, raw=True),
    "decoded: bare Pillow": bare_pillow,
    "decoded: ours, no thread": ours,
    "decoded: ours, 1 thread": lambda root: ours(root, threads=1),
    "decoded: ours, 2 threads": lambda root: ours(root, threads=2),
    "decoded: ours, 2 threads, a state at every step": lambda root: ours(root, threads=2, states=True),
    "decoded: ours, 2 threads, half size": lambda root: ours(root, threads=2, resize=320),
    "decoded: ours, 2 threads, drawn afresh": lambda root: ours(root, threads=2, resample=True, epoch=1),
    "decoded: webdataset": webdataset,
    "decoded: webdataset, 2 workers": lambda root: webdataset(root, workers=2),
    "decoded: datasets": datasets,
    "decoded: ray_data": ray_data,
    **{f"raw: {name}": partial(read, raw=True) for name, read in PEERS.items()},
    **{f"decoded: {name}": read for name, read in PEERS.items()},
    **{f"decoded: {name}, 2 workers": partial(read, workers=2) for name, read in PEERS.items()},
}


def peer(name: str) -> str:
    """The peer of .venv-peers that a contestant is, or ""."""
    who = name.partition(": ")[2].partition(",")[0]
    return who if who in PEERS else ""


def run(name: str, root: Path) -> dict[str, float]:
    """One contestant in this process: samples, seconds from its first step on, peak memory."""
    source = CONTESTANTS[name](root)
    next(source)
    # What was read before by others, who may have taken much memory, is in the cache for all or for none.
    for path in sorted(each for each in (root.parent / (peer(name) or root.name)).rglob("*") if each.is_file()):
        if COLD in name:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            path.read_bytes()
    begin, began = time.perf_counter(), _cpu()
    count = sum(1 for _ in source)
    seconds, cpu = time.perf_counter() - begin, _cpu() - began
    return {"samples": count, "seconds": seconds, "cpu": cpu, "peak_mb": _peak_mb("self"), "states": sum(_states)}


def _cpu() -> float:
    """Seconds of processor that this process and the workers that have ended have used."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def race(names: list[str], root: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """All contestants in turn; the first round warms the cache and is not counted."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn, name in itertools.product(range(repeats + 1), names):
        figures = json.loads(alone(root, peer(name), "--contestant", name, str(root)).splitlines()[-1])
        rate, cpu = figures["samples"] / figures["seconds"], figures["cpu"] / figures["samples"] * 1e6
        print(f"  {name:50} {rate:9,.0f} samples/s {cpu:7,.0f} us of processor", file=sys.stderr, flush=True)
        if turn:
            runs[name].append(figures)
    return runs


def alone(root: Path, of: str, *arguments: str) -> str:
    """What this file prints in a process of its own, by the interpreter of the peer `of`."""
    python = str(PEERS_PYTHON) if of else sys.executable
    environment = os.environ | {"HF_HOME": str(root.parent / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [python, str(Path(__file__).resolve()), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def contestants(only: list[str]) -> list[str]:
    """Those whose names hold one of `only`, or all; without .venv-peers none of its."""
    names = [name for name in CONTESTANTS if not only or any(text in name for text in only)]
    if not PEERS_PYTHON.exists():
        print(f"without .venv-peers (`make peers`) there is no {', no '.join(PEERS)}", file=sys.stderr)
        names = [name for name in names if not peer(name)]
    return names


def compare(room: Path, data: Path, images: int, repeats: int, only: list[str]) -> list[tuple[str, float]]:
    """Every figure of the table."""
    import aesampler

    repeated(room / "coco", data, images)
    source = {"name": "coco", "format": "coco", "root": str(room / "coco")}
    shards = {"max_samples": max(1, min(500, images // 4))}  # two workers want two shards
    recipe = aesampler.Recipe.of({"name": "benchmark", "seed": 1, "sources": [source], "shards": shards})
    aesampler.build_corpus(aesampler.plan_corpus(recipe), aesampler.Folder.at(room / "corpus"), aesampler.Inline())
    names = contestants(only)
    for name in sorted({peer(name) for name in names} - {""}):
        alone(room / "corpus", name, "--prepare", name, str(room / "corpus"))
    runs = race(names, room / "corpus", repeats)
    rate = {
        name: statistics.median(each["samples"] / each["seconds"] for each in found) for name, found in runs.items()
    }
    cpu = {name: statistics.median(each["cpu"] / each["samples"] for each in found) for name, found in runs.items()}
    peak = {name: statistics.median(each["peak_mb"] for each in found) for name, found in runs.items()}
    ratios = {
        "raw: ours, whole / pread": ratio(rate, "raw: ours, whole", ["raw: pread"]),
        f"raw: ours, whole / pread{COLD}": ratio(rate, f"raw: ours, whole{COLD}", [f"raw: pread{COLD}"]),
        "raw: ours / pread": ratio(rate, "raw: ours", ["raw: pread"]),
        f"raw: ours / pread{COLD}": ratio(rate, f"raw: ours{COLD}", [f"raw: pread{COLD}"]),
        "raw: ours / best peer": ratio(rate, "raw: ours", others(rate, "raw")),
        "by processor: raw: ours / pread": ratio(cpu, "raw: pread", ["raw: ours"]),
        "by processor: decoded: ours, no thread / bare Pillow": ratio(
            cpu, "decoded: bare Pillow", ["decoded: ours, no thread"]
        ),
        "decoded: ours, no thread / bare Pillow": ratio(rate, "decoded: ours, no thread", ["decoded: bare Pillow"]),
        "decoded: ours, 2 threads / bare Pillow": ratio(rate, "decoded: ours, 2 threads", ["decoded: bare Pillow"]),
        "decoded: ours, 2 threads / best peer": ratio(rate, "decoded: ours, 2 threads", others(rate, "decoded")),
        **{
            f"{kind}: ours / {name}": ratio(rate, mine, [each for each in others(rate, kind) if name in each])
            for kind, mine in (("raw", "raw: ours"), ("decoded", "decoded: ours, 2 threads"))
            for name in ("webdataset", "datasets", "ray_data", *PEERS)
        },
    }
    for mine in ("raw: ours", "decoded: ours, 2 threads"):
        if figures := runs.get(f"{mine}, a state at every step"):
            share = statistics.median(each["states"] / each["seconds"] for each in figures)
            ratios[f"{mine}, a state at every step, share of the time"] = share
    if "decoded: ours, 2 threads" in peak and "raw: pread" in peak:
        above = peak["decoded: ours, 2 threads"] - peak["raw: pread"]
        ratios["memory of ours, 2 threads, above an interpreter, MB"] = above
    return [
        *((f"{name}, samples/s", value) for name, value in rate.items()),
        *((f"{name}, us of processor", value * 1e6) for name, value in cpu.items()),
        *((f"{name}, peak MB", value) for name, value in peak.items()),
        *((name, value) for name, value in ratios.items() if value is not None),
    ]


def others(rate: dict[str, float], kind: str) -> list[str]:
    """The peers that raced, "raw" or "decoded"."""
    return [name for name in rate if name.startswith(f"{kind}: ") and not any(own in name for own in OURS)]


def ratio(figures: dict[str, float], mine: str, theirs: list[str]) -> float | None:
    """A figure over the best of others; None where one of them did not race."""
    best = max((figures[name] for name in theirs if name in figures), default=None)
    return figures[mine] / best if best and mine in figures else None


def order_alone() -> list[tuple[str, float]]:
    """The arithmetic: from nothing to the first sample in the middle of an epoch, and then a rank's walk."""
    from aesampler.stream.order import Mixture, Schedule, Walk, picks

    rows = []
    for shards, size in ((1000, 1000), (100_000, 10_000)):
        for ranks in (1, 64):
            begin = time.perf_counter()
            walk = Walk("order", [size] * shards, seed=1, window=8, shuffle=True)
            mixture = Mixture([walk], [walk.size], label="", seed=1, shuffle=True, mixed=True)
            schedule = Schedule([mixture.size], world_size=ranks, last="drop")
            start = schedule.start()._replace(consumed=(mixture.size // 2 // ranks * ranks,))
            found = picks([mixture], schedule, epoch=0, rank=0, start=start)
            next(found)
            first = time.perf_counter() - begin
            begin = time.perf_counter()
            count = sum(1 for _ in itertools.islice(found, 100_000))
            each = (time.perf_counter() - begin) / count
            rows.append((f"{shards * size:,} samples, {ranks} ranks: to the first, ms", first * 1e3))
            rows.append((f"{shards * size:,} samples, {ranks} ranks: each, us", each * 1e6))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="pictures of the corpus (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, of which the median counts (%(default)s)")
    parser.add_argument("--order", action="store_true", help="measure the order alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="contestants whose names hold it")
    parser.add_argument("--prepare", nargs=2, metavar=("NAME", "ROOT"), help=argparse.SUPPRESS)
    parser.add_argument("--contestant", nargs=2, metavar=("NAME", "ROOT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        print(json.dumps(run(given.contestant[0], Path(given.contestant[1]))))
        return
    if given.prepare:
        prepare(given.prepare[0], Path(given.prepare[1]))
        return
    if given.order:
        rows = order_alone()
    else:
        data = os.environ.get("AESAMPLER_REAL_DATA")
        if not data:
            parser.error("AESAMPLER_REAL_DATA must name the folder of the real datasets")
        with tempfile.TemporaryDirectory(prefix="aesampler-bench-") as room:
            rows = compare(Path(room), Path(data).resolve(), given.images, given.repeats, given.only)
    if given.json:
        print(json.dumps(dict(rows), indent=2))
        return
    for name, value in rows:
        print(f"{name:70} {value:10,.3f}   {'target ' + TARGETS[name] if name in TARGETS else ''}")


if __name__ == "__main__":
    main()
