"""The benchmarks of video anomaly detection, one file a set: its videos, its ground truth, its protocol.

    benchmark = open_benchmark("ped2", "data/UCSDped2")
    for video in benchmark.videos():
        for frame in video.frames(): ...      # uint8 [H, W, 3], one at a time, as often as asked
        video.labels                          # uint8 [T]: 0 normal, 1 anomalous
        video.masks                           # bool [H, W] a frame, lazily; None where the set has none

To add a set: write one file with one class (`shanghaitech.py` is a short model) and add its line to BENCHMARKS. A set
of your own needs no code: see `folder.py`.
"""

from __future__ import annotations

import difflib
import importlib
import os

from pydantic import ValidationError

from aesampler.errors import AesamplerError, RecipeError
from lavida.benchmarks.benchmark import Benchmark, Frames, Masks, Video
from lavida.benchmarks.published import Published, published

__all__ = [
    "BENCHMARKS",
    "NAMES",
    "Benchmark",
    "Frames",
    "Masks",
    "Published",
    "Video",
    "check",
    "find",
    "open_benchmark",
    "published",
]

BENCHMARKS: dict[str, str] = {
    "ped2": "lavida.benchmarks.ped2:Ped2",
    "avenue": "lavida.benchmarks.avenue:Avenue",
    "shanghaitech": "lavida.benchmarks.shanghaitech:ShanghaiTech",
    "ubnormal": "lavida.benchmarks.ubnormal:UBnormal",
    "ubnormal-abnormal": "lavida.benchmarks.ubnormal:UBnormalAbnormal",
    "ucf-crime": "lavida.benchmarks.ucf_crime:UcfCrime",
    "xd-violence": "lavida.benchmarks.xd_violence:XdViolence",
    "c-sht": "lavida.benchmarks.c_sht:CSht",
    "c-ave": "lavida.benchmarks.c_ave:CAve",
    "folder": "lavida.benchmarks.folder:FolderBenchmark",
}
"""Name -> "module:Class"."""

NAMES = tuple(BENCHMARKS)


def find(name: str) -> type[Benchmark]:
    """The class of a benchmark. Raises RecipeError where there is none of this name."""
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise RecipeError(
            f"unknown benchmark {name!r}",
            allowed=", ".join(NAMES),
            do=f"did you mean {near[0]}?" if near else "see `lavida benchmarks`",
        )
    module, _, attribute = BENCHMARKS[name].partition(":")
    kind: type[Benchmark] = getattr(importlib.import_module(module), attribute)
    return kind


def open_benchmark(name: str, root: str | os.PathLike[str], **options: object) -> Benchmark:
    """A benchmark whose files lie at `root`. options: see the fields of its class (categories, clip_step, metric, ...).

    Raises RecipeError for an unknown name or option, SourceError where a user's table of intervals cannot be read; what
    is wrong with the files of a published set is told when they are read, or by `check`.
    """
    kind = find(name)
    try:
        return kind.model_validate({"root": os.fspath(root), **options})
    except ValidationError as error:
        first = error.errors()[0]
        what = "unknown option" if first["type"] == "extra_forbidden" else str(first["msg"]).lower()
        raise RecipeError(
            what,
            where=f"{name}: {'.'.join(str(part) for part in first['loc'])}",
            got=repr(first["input"])[:80],
            allowed=", ".join(kind.model_fields) if first["type"] == "extra_forbidden" else None,
        ) from error


def check(name: str, root: str | os.PathLike[str], **options: object) -> list[str]:
    """What is missing or misplaced of a benchmark's files, one line each; nothing where the set is whole."""
    try:
        return open_benchmark(name, root, **options).check()
    except RecipeError:
        raise
    except AesamplerError as error:
        return [str(error)]
