"""The catalog of a train2017-scale instances JSON against `pycocotools.coco.COCO(path)`: time and peak memory.

    python benchmarks/catalog.py [--scale 1.0] [--repeat 3] [--data FOLDER]

The file is made of the real sample's annotations (AESAMPLER_REAL_DATA), repeated with fresh ids and dealt to random
pictures, beside as many picture files of one byte. Each measurement is a process of its own, in the order A B A B, and
the median is shown; imports are not counted in the time (among them that of pandas, which pyarrow makes at its first
array where pandas is installed), but are in the memory. Peak memory is VmHWM: mapped pages count.
CPU seconds are shown too: on a machine that others use as well, they are what can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURES, ANNOTATIONS = 118_287, 860_001

MEASURE = """
import os, sys, time
root, cache = sys.argv[1:]
{imports}
begin, cpu = time.perf_counter(), time.process_time()
{work}
seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("measured", seconds, cpu, peak * 1024)
"""
IMPORTS = """
import pyarrow
pyarrow.array([0])
from aesampler.catalog import Catalog
from aesampler.sources.coco import Coco
from aesampler.storage import Folder
"""
OURS = "Catalog.of(Coco(), Folder.at(root), cache=Folder.at(cache), refresh={refresh})"
CANDIDATES = {
    "pycocotools.COCO": MEASURE.format(
        imports="from pycocotools.coco import COCO", work="COCO(root + '/annotations/instances_train2017.json')"
    ),
    "catalog, cold": MEASURE.format(imports=IMPORTS, work=OURS.format(refresh=True)),
    "catalog, cached": MEASURE.format(imports=IMPORTS, work=OURS.format(refresh=False)),
    "catalog, vocabulary": MEASURE.format(imports=IMPORTS, work=OURS.format(refresh=False) + ".vocabulary()"),
}


def write(data: Path, root: Path, scale: float) -> Path:
    """A dataset of COCO's layout at `root`, `scale` times as large as train2017."""
    sample = json.loads((data / "coco/annotations/instances_train2017.json").read_text())
    pictures, annotations = round(PICTURES * scale), round(ANNOTATIONS * scale)
    deal = random.Random(0)
    parts = []
    for entry in sample["annotations"]:
        own = {key: value for key, value in entry.items() if key not in ("id", "image_id")}
        parts.append(json.dumps(own, separators=(",", ":"))[:-1])
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    path = root / "annotations/instances_train2017.json"
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for place in range(pictures):
            image = {**sample["images"][place % len(sample["images"])], "id": place + 1}
            image["file_name"] = f"{place + 1:012d}.jpg"
            file.write((", " if place else "") + json.dumps(image))
            (root / "train2017" / image["file_name"]).write_bytes(b"x")
        file.write('], "annotations": [')
        for place in range(annotations):
            part = parts[place % len(parts)]
            file.write(f'{", " if place else ""}{part},"image_id":{deal.randrange(pictures) + 1},"id":{place + 1}}}')
        file.write(f'], "categories": {json.dumps(sample["categories"])}}}')
    return path


def measured(code: str, root: Path, cache: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and bytes of one run, in a process of its own."""
    command = [sys.executable, "-c", code, str(root), str(cache)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _, seconds, cpu, peak = next(line for line in out.splitlines() if line.startswith("measured")).split()
    return float(seconds), float(cpu), float(peak)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--scale", type=float, default=1.0, help="of train2017")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--data", type=Path, default=os.environ.get("AESAMPLER_REAL_DATA"))
    given = arguments.parse_args()
    if given.data is None:
        arguments.error("AESAMPLER_REAL_DATA, or --data, must name the folder of the real samples")
    with tempfile.TemporaryDirectory(prefix="aesampler-benchmark-") as folder:
        root, cache = Path(folder) / "coco", Path(folder) / "cache"
        path = write(given.data, root, given.scale)
        print(f"{round(ANNOTATIONS * given.scale):,} annotations, {path.stat().st_size / 1e6:.0f} MB of JSON")
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CANDIDATES}
        for _ in range(given.repeat):
            for name, code in CANDIDATES.items():
                runs[name].append(measured(code, root, cache))
        rows = {
            name: [statistics.median(column) for column in zip(*found, strict=True)] for name, found in runs.items()
        }
        base = rows["pycocotools.COCO"]
        print(f"{'':20}{'seconds':>9}{'faster':>9}{'CPU s':>9}{'less':>9}{'peak MB':>9}{'of its':>8}")
        for name, (seconds, cpu, peak) in rows.items():
            print(
                f"{name:20}{seconds:9.3f}{base[0] / seconds:8.1f}x{cpu:9.3f}{base[1] / cpu:8.1f}x"
                f"{peak / 1e6:9.0f}{peak / base[2]:8.2f}"
            )


if __name__ == "__main__":
    main()
