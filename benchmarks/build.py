"""Speed and memory of the whole build beside webdataset's ShardWriter, and of Ray beside one process.

The pictures and masks are the COCO sample's, repeated under new ids (AESAMPLER_REAL_DATA); they are read from a warm
cache. Every contestant is a process of its own, and they take turns. Counted is the rendering, catalogs aside: for us
from the recipe to the finished corpus, fsync, manifest and card included; for webdataset, given pycocotools' index,
from the first record to the last hash. Both pass pictures through, take the union of a name's masks, draw a list, write
jpg, mask.png, cls, and json with every segment, and hash the shards. Only ratios carry over to other machines.

    python benchmarks/build.py                 # some minutes
    python benchmarks/build.py --seconds 60    # the runs of Ray and inline that the targets speak of: half an hour
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TARGETS = {
    "inline / webdataset": ">= 2",
    "inline / webdataset, our encoders": ">= 1",
    "2 Ray workers / inline": ">= 1.5",
    "driver at 100,000 / at 1,000 samples, peak memory": "flat",
    "Ray worker above an interpreter, MB": "<= 200",
}
RATE = 1000
"""Samples a second that a world for `--seconds` is sized by."""


# -- worlds -----------------------------------------------------------------------------------------------------------


def repeated(root: Path, data: Path, images: int) -> None:
    """The COCO sample repeated up to `images` pictures, by links."""
    body = json.loads((data / "coco/annotations/instances_train2017.json").read_bytes())
    by_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in body["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    pictures, annotations = [], []
    (root / "train2017").mkdir(parents=True)
    for place in range(images):
        image = body["images"][place % len(body["images"])]
        name = f"{place + 1:012d}.jpg"
        (root / "train2017" / name).symlink_to(data / "coco/train2017" / image["file_name"])
        pictures.append(image | {"id": place + 1, "file_name": name})
        annotations += [
            annotation | {"image_id": place + 1, "id": 1000 * place + number}
            for number, annotation in enumerate(by_image.get(image["id"], []))
        ]
    _write(root, body | {"images": pictures, "annotations": annotations})


def tiny(root: Path, images: int) -> None:
    """`images` links to one picture of 16 x 16, with two rectangles of two names among 40 each."""
    from PIL import Image

    (root / "train2017").mkdir(parents=True)
    Image.new("RGB", (16, 16), (90, 120, 60)).save(root / "picture.jpg")
    pictures, annotations = [], []
    for place in range(images):
        name = f"{place + 1:012d}.jpg"
        (root / "train2017" / name).symlink_to(root / "picture.jpg")
        pictures.append({"id": place + 1, "file_name": name, "height": 16, "width": 16})
        for number in range(2):
            left = 2 + 6 * number
            corners = [left, 3, left + 5, 3, left + 5, 12, left, 12]
            where = {"id": 2 * place + number, "image_id": place + 1, "iscrowd": 0, "area": 45, "bbox": [left, 3, 5, 9]}
            annotations.append(where | {"category_id": 1 + (place + 7 * number) % 40, "segmentation": [corners]})
    categories = [{"id": number, "name": f"thing {number}"} for number in range(1, 41)]
    _write(root, {"images": pictures, "annotations": annotations, "categories": categories})


def _write(root: Path, body: dict[str, Any]) -> None:
    (root / "annotations").mkdir()
    (root / "annotations/instances_train2017.json").write_text(json.dumps(body), encoding="utf-8")


# -- contestants: each runs in a process of its own and returns its figures ------------------------------------------


def ours(root: Path, out: Path, executor: str, workers: int) -> dict[str, Any]:
    """`aesampler build`. seconds: of planning, rendering and closing; mapped: of the shards alone."""
    import aesampler
    from aesampler.plan import plan_corpus

    source = {"name": "coco", "format": "coco", "root": str(root)}
    recipe = aesampler.Recipe.of({"name": "benchmark", "seed": 1, "sources": [source], "shards": {"max_samples": 500}})
    plan_corpus(recipe)  # the catalog is made, or is there
    begin = time.perf_counter()
    plan = plan_corpus(recipe)
    maker, figures = _timed(executor, workers)
    outcome = aesampler.build_corpus(plan, aesampler.Folder.at(out), maker, progress=figures.progress)
    seconds = time.perf_counter() - begin - figures.started
    return {
        "samples": outcome.head.totals.samples,
        "seconds": seconds,
        "mapped": figures.mapped,
        "peak_mb": _peak_mb("self"),
        "worker_mb": figures.worker_mb,
        "bytes": sum(path.stat().st_size for path in out.rglob("*.tar")),
    }


class _Figures:
    """started: seconds until the executor was ready. mapped: seconds of the shards. worker_mb: the largest worker."""

    def __init__(self) -> None:
        self.started = self.mapped = 0.0
        self.worker_mb = 0.0

    def progress(self, what: str, done: int, total: int, size: int = 0) -> None:
        import psutil

        if done < total:
            return
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):
                    self.worker_mb = max(self.worker_mb, _peak_mb(str(process.pid)))


def _timed(name: str, workers: int) -> tuple[Any, _Figures]:
    """An executor, and the figures that it fills."""
    from aesampler.executors.inline import Inline

    kind: type[Any] = Inline
    arguments: dict[str, Any] = {}
    if name == "ray":
        from aesampler.executors.cluster import Cluster

        kind, arguments = Cluster, {"workers": workers}
    figures = _Figures()

    class Timed(kind):  # type: ignore[misc]
        def __enter__(self) -> Any:
            begin = time.perf_counter()
            entered = super().__enter__()
            figures.started = time.perf_counter() - begin
            return entered

        def map(self, job: Any, tasks: Any) -> Iterator[Any]:
            begin = time.perf_counter()
            yield from super().map(job, tasks)
            figures.mapped = time.perf_counter() - begin

        def __exit__(self, *error: Any) -> None:
            begin = time.perf_counter()
            super().__exit__(*error)
            figures.started += time.perf_counter() - begin

    return Timed(**arguments), figures


def webdataset_writer(
    root: Path, out: Path, encode: Callable[[Any], bytes], dump: Callable[[Any], bytes]
) -> dict[str, Any]:
    """The same job as one writes it with webdataset and pycocotools, one process."""
    import webdataset
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(root / "annotations/instances_train2017.json"))
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    out.mkdir(parents=True)
    chance = random.Random(1)
    begin = time.perf_counter()
    count = 0
    with webdataset.ShardWriter(str(out / "coco-%06d.tar"), maxcount=500, verbose=0) as sink:
        for image in coco.loadImgs(coco.getImgIds()):
            height, width = image["height"], image["width"]
            parts: dict[str, list[Any]] = {}
            crowds: dict[str, list[Any]] = {}
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                kind = crowds if annotation["iscrowd"] else parts
                kind.setdefault(names[annotation["category_id"]], []).append(coco.annToRLE(annotation))
            unions = {name: coco_mask.merge(rles) for name, rles in parts.items()}
            ignored = {name: coco_mask.merge(rles) for name, rles in crowds.items()}
            anomalous = bool(unions) and chance.random() < 0.5
            others = [name for name in names.values() if name not in parts and name not in crowds]
            listed = [*(unions if anomalous else ()), *chance.sample(others, chance.randint(1, 29))]
            chance.shuffle(listed)
            if anomalous:
                mask = coco_mask.decode(coco_mask.merge(list(unions.values()))).astype(bool)
            else:
                import numpy as np

                mask = np.zeros((height, width), dtype=bool)
            key = f"coco_{image['id']:012d}"
            meta = {
                "key": key,
                "source": "coco",
                "height": height,
                "width": width,
                "anomalous": anomalous,
                "categories": listed,
                "is_genuine": [name in unions for name in listed],
                "segments": {name: rle["counts"].decode() for name, rle in unions.items()},
                "ignored": {name: rle["counts"].decode() for name, rle in ignored.items()},
            }
            picture = (root / "train2017" / image["file_name"]).read_bytes()
            sample = {"__key__": key, "json": dump(meta), "cls": str(int(anomalous)).encode(), "jpg": picture}
            sink.write(sample | {"mask.png": encode(mask)})
            count += 1
    for shard in sorted(out.glob("*.tar")):
        with shard.open("rb") as file:
            hashlib.file_digest(file, "sha256").hexdigest()
    seconds = time.perf_counter() - begin
    return {
        "samples": count,
        "seconds": seconds,
        "peak_mb": _peak_mb("self"),
        "bytes": sum(path.stat().st_size for path in out.rglob("*.tar")),
    }


def _pillow(mask: Any) -> bytes:
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(mask.astype("uint8") * 255).save(sink, format="PNG")
    return sink.getvalue()


def _contestant(name: str, root: Path, out: Path) -> dict[str, Any]:
    if name == "inline":
        return ours(root, out, "inline", 1)
    if name.startswith("ray"):
        return ours(root, out, "ray", int(name[3:]))
    if name == "webdataset":
        return webdataset_writer(root, out, _pillow, lambda meta: json.dumps(meta).encode())
    if name == "webdataset, our encoders":
        import msgspec

        from aesampler import masks

        return webdataset_writer(root, out, masks.write_png, msgspec.json.encode)
    if name == "interpreter":
        return {"peak_mb": _peak_mb("self")}
    raise ValueError(name)


def _peak_mb(process: str) -> float:
    """The most resident memory that a process has had; a child process does not start with its parent's."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


# -- the comparison ---------------------------------------------------------------------------------------------------


class Bench:
    """A folder of worlds and outputs, and what was measured in it."""

    def __init__(self, room: Path, repeats: int) -> None:
        self.room, self.repeats = room, repeats
        self.runs: dict[str, list[dict[str, Any]]] = {}

    def run(self, name: str, world: str) -> dict[str, Any]:
        """One contestant, once, in a process of its own."""
        out = self.room / "out"
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            "--contestant",
            name,
            str(self.room / world),
            str(out),
        ]
        environment = os.environ | {"AESAMPLER_CACHE": str(self.room / "cache")}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        shutil.rmtree(out, ignore_errors=True)
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.runs.setdefault(f"{name} on {world}", []).append(figures)
        rate = f"{figures['samples'] / figures['seconds']:8,.0f} samples/s" if "samples" in figures else ""
        print(f"  {name:26} {world:14} {rate} {figures['peak_mb']:7,.0f} MB", file=sys.stderr, flush=True)
        return figures

    def race(self, names: list[str], world: str) -> None:
        """Contestants in turn, `repeats` times, after one round that is not counted: it warms the cache."""
        for name in names:
            self.run(name, world)
        for name in names:
            self.runs[f"{name} on {world}"].clear()
        for _ in range(self.repeats):
            for name in names:
                self.run(name, world)

    def median(self, name: str, world: str, figure: Callable[[dict[str, Any]], float]) -> float:
        """The median of a figure over the runs that count."""
        return statistics.median(figure(run) for run in self.runs[f"{name} on {world}"])


def _rate(run: dict[str, Any]) -> float:
    return float(run["samples"] / run["seconds"])


def _mapped_rate(run: dict[str, Any]) -> float:
    return float(run["samples"] / run["mapped"])


def compare(room: Path, data: Path, *, images: int, repeats: int, seconds: float, large: int) -> dict[str, Any]:
    """Every figure of the table."""
    bench = Bench(room, repeats)
    repeated(room / "coco", data, images)
    bench.race(["inline", "webdataset", "webdataset, our encoders"], "coco")
    many = max(int(seconds * RATE), 2000)
    repeated(room / "coco-long", data, many)
    bench.race(["inline", "ray2"], "coco-long")
    tiny(room / "tiny-1000", 1000)
    tiny(room / "tiny-large", large)
    for world in ("tiny-1000", "tiny-large"):
        bench.run("ray2", world)  # makes the catalog, whose memory is another matter: benchmarks/catalog.py
        bench.runs[f"ray2 on {world}"].clear()
        bench.run("ray2", world)
    bench.run("interpreter", "coco")

    def peak(name: str, world: str) -> float:
        return bench.median(name, world, lambda run: float(run["peak_mb"]))

    interpreter = peak("interpreter", "coco")
    worker = bench.median("ray2", "coco-long", lambda run: float(run["worker_mb"]))
    rates = {name: bench.median(name, "coco", _rate) for name in ("inline", "webdataset", "webdataset, our encoders")}
    long = {name: bench.median(name, "coco-long", _mapped_rate) for name in ("inline", "ray2")}
    return {
        "images": images,
        "repeats": repeats,
        "rows": [
            ("inline, samples/s", rates["inline"], ""),
            ("webdataset, samples/s", rates["webdataset"], ""),
            ("webdataset, our encoders, samples/s", rates["webdataset, our encoders"], ""),
            *_ratios("inline / webdataset", rates["inline"] / rates["webdataset"]),
            *_ratios("inline / webdataset, our encoders", rates["inline"] / rates["webdataset, our encoders"]),
            (f"inline on {many:,} images, seconds", many / long["inline"], ""),
            (f"2 Ray workers on {many:,} images, seconds", many / long["ray2"], ""),
            *_ratios("2 Ray workers / inline", long["ray2"] / long["inline"]),
            ("driver at 1,000 samples, MB", peak("ray2", "tiny-1000"), ""),
            (f"driver at {large:,} samples, MB", peak("ray2", "tiny-large"), ""),
            *_ratios(
                "driver at 100,000 / at 1,000 samples, peak memory",
                peak("ray2", "tiny-large") / peak("ray2", "tiny-1000"),
            ),
            ("inline, peak MB", peak("inline", "coco-long"), ""),
            ("webdataset, peak MB", peak("webdataset", "coco"), ""),
            *_ratios("Ray worker above an interpreter, MB", worker - interpreter),
        ],
    }


def _ratios(name: str, value: float) -> list[tuple[str, float, str]]:
    return [(name, value, TARGETS[name])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000, help="pictures of the race with webdataset (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, of which the median counts (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="length of the inline run beside Ray (%(default)s)")
    parser.add_argument("--large", type=int, default=100_000, help="samples of the memory test (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--contestant", nargs=3, metavar=("NAME", "ROOT", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        name, root, out = given.contestant
        print(json.dumps(_contestant(name, Path(root), Path(out))))
        return
    data = os.environ.get("AESAMPLER_REAL_DATA")
    if not data:
        parser.error("AESAMPLER_REAL_DATA must name the folder of the real datasets")
    with tempfile.TemporaryDirectory(prefix="aesampler-bench-") as room:
        table = compare(
            Path(room),
            Path(data).resolve(),
            images=given.images,
            repeats=given.repeats,
            seconds=given.seconds,
            large=given.large,
        )
    if given.json:
        print(json.dumps(table, indent=2))
        return
    for name, value, target in table["rows"]:
        print(f"{name:52} {value:10,.2f}   {'target ' + target if target else ''}")


if __name__ == "__main__":
    main()
