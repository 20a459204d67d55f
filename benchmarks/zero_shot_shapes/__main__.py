"""Does LAVIDA learn what a listed name looks like, for names it has never seen? Without any downloaded weight.

    OMP_NUM_THREADS=2 python -m benchmarks.zero_shot_shapes [--seeds 0 1 2] [--folder DIR] [--json FILE]

The world and its made VAD clips (world.py) are frozen by a hash. A tiny LAVIDA of the ordinary classes is pre-trained
on the corpus, in place of CLIP, SAM 2 and the MLLM's own pre-training (pretrain.py), trained as the paper trains it
(train.py), and scored (score.py), next to itself untrained, to a motion baseline and to wrong names. The last lines are
the worst of the seeds and the targets.

What it reached is in trainer/README.md. A seed takes half an hour of one core, nearly all of it pre-training; with a
quarter of its steps every frame AUC is above its target already, but pixel AUC on unseen combinations is not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.zero_shot_shapes import world
from benchmarks.zero_shot_shapes.run import Plan, Report, run

TARGETS = {
    ("seen", "one", "frame_auc"): 0.90,
    ("unseen", "one", "frame_auc"): 0.85,
    ("seen", "many", "frame_auc"): 0.80,
    ("unseen", "many", "frame_auc"): 0.75,
    ("seen", "one", "pixel_auc"): 0.93,
    ("unseen", "one", "pixel_auc"): 0.93,
    ("seen", "one", "swap"): 0.85,
    ("unseen", "one", "swap"): 0.85,
}
AT_MOST = 0.60
COLUMNS = ("frame_auc", "pixel_auc", "iou", "swap", "wrong_names", "motion")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--folder", type=Path, help="where the corpus is made, or lies already")
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    if (found := world.fingerprint()) != world.FROZEN:
        print(f"this is another world than the frozen one: {found}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        began = time.monotonic()
        corpus = world.training_corpus(given.folder or Path(temporary))
        print(f"corpus: {len(corpus):,} samples, {time.monotonic() - began:.0f} s", flush=True)
        reports = []
        for seed in given.seeds:
            reports.append(run(corpus, seed, Plan(), lambda line: print(line, flush=True)))
            show(reports[-1])
            if given.json:
                given.json.write_text(json.dumps([dataclasses.asdict(each) for each in reports], indent=1))
    return worst(reports)


def show(report: Report) -> None:
    """The figures of one seed."""
    print(f"\nseed {report.seed}" + " " * 17 + "".join(f"{name:>12}" for name in COLUMNS))
    for title, part in (("trained", report.trained), ("untrained", report.untrained)):
        for target, kinds in part.items():
            for kind, figures in kinds.items():
                values = [getattr(figures, name) for name in COLUMNS]
                shown = "".join(" " * 12 if value is None else f"{value:12.3f}" for value in values)
                print(f"{title:10}{target:8}{kind:6}{shown}")
    for stage, wall in report.wall.items():
        print(f"  {stage}: {wall:.0f} s, {report.cpu[stage]:.0f} s of CPU")
    sys.stdout.flush()


def worst(reports: list[Report]) -> int:
    """Print the worst seed's figures beside the targets; 1 where one is missed."""
    print("\nworst of the seeds" + " " * 14 + "     reached   target")
    missed = 0
    for (target, kind, name), least in TARGETS.items():
        value = min(getattr(report.trained[target][kind], name) for report in reports)
        missed += value < least
        print(f"{target:8}{kind:6}{name:18}{value:12.3f} >= {least:.2f}{'' if value >= least else '   missed'}")
    for title, values in (
        ("motion", [f.motion for f in _all(reports, "trained")]),
        ("wrong names", [f.wrong_names for f in _all(reports, "trained")]),
        ("untrained", [f.frame_auc for f in _all(reports, "untrained")]),
    ):
        missed += max(values) > AT_MOST
        print(f"{title:32}{max(values):12.3f} <= {AT_MOST:.2f}{'' if max(values) <= AT_MOST else '   missed'}")
    return int(missed > 0)


def _all(reports: list[Report], part: str) -> list:
    return [f for report in reports for kinds in getattr(report, part).values() for f in kinds.values()]


if __name__ == "__main__":
    sys.exit(main())
