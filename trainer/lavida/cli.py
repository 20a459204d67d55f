"""The command line: `lavida COMMAND --help`. It parses, calls one function of the package, and prints; nothing is
decided here.

Exit codes: 0 done, 1 the thing checked is bad, 2 the user's input is wrong, 3 the run failed (storage, workers, a
camera). Errors are one line on stderr; a traceback only with --debug. What programs read goes to stdout with --json.
Each command imports what it needs when it runs: `lavida --help` loads neither torch nor ray nor matplotlib.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.console import Console
from rich.table import Table

from aesampler import command
from aesampler.command import debug_option, filled, json_option, together
from aesampler.errors import UNREADABLE, AesamplerError, DetectorError
from aesampler.progress import Reporter

if TYPE_CHECKING:
    from lavida.ablate import Trainer
    from lavida.detectors import Detector
    from lavida.evaluate import Executor

FAILED = 3
"""The exit code of work that was done in part."""


def main() -> None:
    """Run the command line and exit."""
    several = int(os.environ.get("WORLD_SIZE") or 1) > 1
    try:
        code = run(sys.argv[1:])
    except Exception:
        if not several:
            raise
        traceback.print_exc()
        code = 1
    if code and several:
        # Of several processes, one that fails ends here and now, its error told: Python's own end would let NCCL wait
        # for the others, which wait for this one.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    return command.run("lavida", cli, arguments)


_TAKEN = frozenset({"name", "root"})
"""What no NAME=VALUE may be called: which detector or benchmark is meant, and where its data lies."""


def _finite(context: click.Context, parameter: click.Parameter, given: float | None) -> float | None:
    """A number that is one: click lets "nan" and "inf" through its ranges."""
    if given is not None and not math.isfinite(given):
        raise click.BadParameter(f"{given} is no number to compare with", context, parameter)
    return given


def _pairs(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE options as a mapping; a value is read as YAML: 3, 0.5, true, [1, 2], text."""
    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE", context, parameter)
        if name.strip() in _TAKEN:
            raise click.BadParameter(f"{name.strip()} is given by an option of its own", context, parameter)
        try:
            found[name.strip()] = yaml.safe_load(value)
        except UNREADABLE as error:
            raise click.BadParameter(f"the value of {name} is no YAML: {value!r}", context, parameter) from error
    return found


model_option = click.option(
    "--model", help="The detector's model: a folder made by `lavida train`, or what the detector's own says."
)
device_option = click.option(
    "--device", help="Where the model runs: cuda, cuda:1, cpu; default: a GPU where there is one."
)
detector_options = click.option(
    "--option",
    "options",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="An option of the detector; repeatable.",
)
ray_options = together(
    click.option(
        "--ray", "on_ray", is_flag=True, help="Spread the work over Ray workers, one a GPU where there are any."
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        help="Ray: how many work at once; at most, and by default, one a GPU, or a CPU.",
    ),
    click.option(
        "--address", help="Ray: the cluster to join, `auto` for this machine's; default: Ray is started here."
    ),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="aesampler", prog_name="lavida")
def cli() -> None:
    """Train LAVIDA on pseudo-anomaly corpora, judge detectors on real anomalies, find anomalies in your own videos."""


# -- training ----------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--config", required=True, type=click.Path(dir_okay=False), help="The training's YAML file.")
@click.option(
    "--out", callback=filled, type=click.Path(file_okay=False), help="Where the model goes; overrides the file's `out`."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another value for a setting of the file, as in --set optimizer.lr=1e-4; repeatable.",
)
@click.option(
    "--fresh",
    is_flag=True,
    help="Start over, not from the last checkpoint; started again by torchrun or Slurm, the run goes on.",
)
@together(ray_options, json_option, debug_option)
def train(
    config: str,
    out: str | None,
    changes: tuple[str, ...],
    fresh: bool,
    on_ray: bool,
    workers: int | None,
    address: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a model from a YAML file, or go on from its last checkpoint."""
    from lavida import training

    _refuse_without_ray(on_ray, workers, address)
    wanted = training.load_config(
        config,
        dict(training.assignment(change) for change in changes) | ({"out": str(Path(out).resolve())} if out else {}),
    )
    if on_ray:
        from lavida.training import cluster

        result = cluster.launch(wanted, workers=workers, address=address, resume=not fresh)
    else:
        result = training.train(wanted, resume=not fresh)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun starts, the first one tells
    if as_json:
        _print_json({"model": str(result.model), "steps": result.steps, "metrics": result.metrics, "best": result.best})
        return
    click.echo(f"{result.model}: {result.steps:,} steps")
    for name, value in sorted(result.metrics.items()):
        click.echo(f"  {name}: {'-' if value is None else f'{value:.4g}'}")


# -- judging -----------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--benchmark", required=True, help="Which one; `lavida benchmarks` lists them.")
@click.option("--root", required=True, type=click.Path(exists=True, file_okay=False), help="The folder of its data.")
@click.option("--detector", required=True, help="lavida, anyanomaly, clip, motion, or one that a package brings.")
@together(model_option, detector_options, device_option)
@click.option(
    "--benchmark-option",
    "benchmark_options",
    multiple=True,
    callback=_pairs,
    metavar="NAME=VALUE",
    help="An option of the benchmark; repeatable.",
)
@click.option("--anomaly", "categories", multiple=True, help="A text in place of the benchmark's list; repeatable.")
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    help="Where scores, table and plots go; default: evaluations/BENCHMARK-DETECTOR.",
)
@click.option("--no-reference", is_flag=True, help="Do not score `motion` beside it.")
@click.option(
    "--tune-on-test", is_flag=True, help="Choose smoothing and fusion on the test labels; the output says that it did."
)
@click.option(
    "--bootstrap",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Draws of the confidence intervals; 0: none.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of those draws.")
@click.option("--fresh", is_flag=True, help="Start over: remove the scores that OUT holds.")
@together(ray_options, json_option, debug_option)
def evaluate(
    benchmark: str,
    root: str,
    detector: str,
    model: str | None,
    options: dict[str, Any],
    device: str | None,
    benchmark_options: dict[str, Any],
    categories: tuple[str, ...],
    out: str | None,
    no_reference: bool,
    tune_on_test: bool,
    bootstrap: int,
    seed: int,
    fresh: bool,
    on_ray: bool,
    workers: int | None,
    address: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Judge a detector on a benchmark; what OUT holds is kept, so a stopped run goes on."""
    from lavida import evaluate as judging

    settings = judging.Settings(
        benchmark=benchmark,
        root=root,
        benchmark_options=benchmark_options,
        detector=detector,
        options=_detector_options(detector, model, options),
        device=device,
        categories=categories or None,
        reference=not no_reference,
        tune_on_test=tune_on_test,
        bootstrap=bootstrap,
        seed=seed,
    )
    # Sets of people's own all have one name, and videos of any.
    place = f"{benchmark}-{Path(root).resolve().name}" if benchmark == "folder" else benchmark
    target = Path(out or f"evaluations/{place}-{detector}")
    with _executor(on_ray, workers, address) as executor, Reporter(quiet=as_json) as progress:
        outcome = judging.evaluate(settings, target, fresh=fresh, executor=executor, progress=progress)
    if as_json:
        _print_json(outcome.to_json())
        return
    for shown in outcome.tables():
        _print(shown)
    for line in outcome.remarks:
        click.echo(line)
    click.echo(f"{target}: evaluation.json, table.md, plots and scores")


@cli.command()
@click.argument("grid", type=click.Path(dir_okay=False))
@click.option(
    "--root",
    "roots",
    multiple=True,
    callback=_pairs,
    metavar="BENCHMARK=DIR",
    help="Where a benchmark's data lies; those without are left out. Repeatable.",
)
@click.option(
    "--out", callback=filled, type=click.Path(file_okay=False), help="Where everything goes; default: ablations/NAME."
)
@together(model_option, detector_options, device_option)
@click.option("--list", "listing", is_flag=True, help="Show the rows and columns; run nothing.")
@together(ray_options, json_option, debug_option)
def ablate(
    grid: str,
    roots: dict[str, Any],
    out: str | None,
    model: str | None,
    options: dict[str, Any],
    device: str | None,
    listing: bool,
    on_ray: bool,
    workers: int | None,
    address: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Run the GRID (YAML) of evaluations, and trainings where it asks, and print its table beside the published one."""
    from lavida import ablate as ablation

    wanted = ablation.load_grid(Path(grid))
    if listing:
        _print_json(wanted.to_json()) if as_json else _print(ablation.listed(wanted))
        return
    given = options | ({"model": model} if model is not None else {})
    with _executor(on_ray, workers, address) as executor, Reporter(quiet=as_json) as progress:
        outcome = ablation.ablate(
            wanted,
            {name: str(place) for name, place in roots.items()},
            Path(out or f"ablations/{wanted.name}"),
            options=given,
            device=device,
            executor=executor,
            progress=progress,
            trainer=_trainer(workers, address) if on_ray else None,
        )
    if as_json:
        _print_json(outcome.to_json())
        return
    for shown in outcome.tables():
        _print(shown)
    for line in outcome.remarks:
        click.echo(line)


@cli.command(name="benchmarks")
@click.argument("name", required=False)
@click.option("--check", "root", help="Look at the data at ROOT and say what is missing. Exit code 1 if something is.")
@click.option(
    "--option", "options", multiple=True, callback=_pairs, metavar="NAME=VALUE", help="An option of it; repeatable."
)
@together(json_option, debug_option)
def benchmarks_(name: str | None, root: str | None, options: dict[str, Any], as_json: bool, debug: bool) -> int:
    """The benchmarks; with NAME its layout, protocol and published numbers."""
    from lavida import benchmarks

    if name is None:
        if root is not None:
            raise click.UsageError("--check needs a NAME")
        found = {each: benchmarks.find(each) for each in benchmarks.NAMES}
        if as_json:
            _print_json({each: {"title": kind.title, "protocol": kind.protocol} for each, kind in found.items()})
            return 0
        table = Table("benchmark", "set", "protocol")
        for each, kind in found.items():
            table.add_row(each, kind.title, kind.protocol)
        _print(table)
        return 0
    if root is not None:
        faults = benchmarks.check(name, root, **options)
        if as_json:
            _print_json({"benchmark": name, "faults": faults})
        else:
            for fault in faults:
                click.echo(fault)
            click.echo(f"{name}: {_counted(len(faults), 'fault') if faults else 'all there'}")
        return 1 if faults else 0
    kind = benchmarks.find(name)
    rows = benchmarks.published(name)
    if as_json:
        told = ("title", "homepage", "license", "citation", "layout", "protocol")
        _print_json(
            {"benchmark": name}
            | {field: getattr(kind, field) for field in told}
            | {"options": sorted(set(kind.model_fields) - {"root"}), "expected": dict(kind.expected)}
            | {"published": [dataclasses.asdict(row) for row in rows]}
        )
        return 0
    click.echo(f"{kind.title}\n{kind.homepage}\n{kind.citation}\nlicense: {kind.license}\n")
    click.echo(f"layout:\n{kind.layout.rstrip()}\n\nprotocol: {kind.protocol}")
    click.echo("options: " + ", ".join(sorted(set(kind.model_fields) - {"root"})))
    if kind.expected:
        click.echo("the whole set: " + ", ".join(f"{count:,} {what}" for what, count in kind.expected.items()))
    if rows:
        table = Table("published", "setting", "dataset", "metric", "value", "source")
        for row in rows:
            table.add_row(row.method, row.setting, row.dataset, row.metric, f"{row.value:.2f}", row.source)
        _print(table)
    return 0


# -- a user's own videos -----------------------------------------------------------------------------------------------


@cli.command()
@click.argument("videos", nargs=-1, required=True)
@click.option("--anomaly", "anomalies", multiple=True, required=True, help="What is looked for, in words; repeatable.")
@click.option(
    "--out", required=True, callback=filled, type=click.Path(file_okay=False), help="The folder of the answers."
)
@click.option("--detector", default="lavida", show_default=True, help="lavida, anyanomaly, clip, motion, or another.")
@together(model_option, detector_options, device_option)
@click.option(
    "--threshold",
    type=float,
    callback=_finite,
    help="The score from which something is an anomaly; default: the detector's.",
)
@click.option(
    "--gap",
    "gap_s",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=0.5,
    show_default=True,
    help="Seconds that do not part.",
)
@click.option(
    "--shortest",
    "min_s",
    type=click.FloatRange(min=0),
    callback=_finite,
    default=0.2,
    show_default=True,
    help="Seconds of an interval, at least.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    help="Look no longer; Ctrl-C ends a camera too.",
)
@click.option("--no-overlay", is_flag=True, help="Write no overlay.mp4.")
@click.option(
    "--peaks", type=click.IntRange(0, 12), default=6, show_default=True, help="Frames in the timeline picture."
)
@together(json_option, debug_option)
def detect(
    videos: tuple[str, ...],
    anomalies: tuple[str, ...],
    out: str,
    detector: str,
    model: str | None,
    options: dict[str, Any],
    device: str | None,
    threshold: float | None,
    gap_s: float,
    min_s: float,
    seconds: float | None,
    no_overlay: bool,
    peaks: int,
    as_json: bool,
    debug: bool,
) -> int:
    """Find anomalies in VIDEOS: files, folders of frames, addresses of cameras (rtsp, http) or directories of these."""
    from lavida import detect as detecting

    job = detecting.Job(
        anomalies=anomalies,
        threshold=threshold,
        gap_s=gap_s,
        min_s=min_s,
        seconds=seconds,
        overlay=not no_overlay,
        peaks=peaks,
    )
    detecting.find_sources(videos, Path(out))  # what is not there is said before a model is loaded
    judge = _detector(detector, model, device, options)
    faults: list[str] = []

    def failed(name: str, error: AesamplerError) -> None:
        faults.append(name)
        click.echo(f"lavida: {error}" if error.where == name else f"lavida: {name}: {error}", err=True)

    with Reporter(quiet=as_json) as progress:
        answers = detecting.detect(videos, job, Path(out), judge, progress, failed)
    if as_json:
        _print_json(
            [told.to_json() | {"files": {name: str(path) for name, path in told.files.items()}} for told in answers]
        )
        return FAILED if faults else 0
    for told in answers:
        intervals = _counted(len(told.intervals), "interval")
        click.echo(f"{told.name}: {told.frames:,} frames, {told.seconds:.1f} s, {told.ended}; {intervals}")
        for found in told.intervals:
            click.echo(f"  {found.start_s:8.1f} - {found.stop_s:.1f} s, up to {found.peak_score:.3g}")
        for name, value in told.notes.items():
            click.echo(f"  {name}: {value}")
    click.echo(f"{out}: scores, intervals, timeline{'' if no_overlay else ' and overlay'}")
    if faults:
        click.echo(f"{_counted(len(faults), 'video')} without an answer: {', '.join(faults)}")
    return FAILED if faults else 0


@cli.command()
@click.option("--detector", default="lavida", show_default=True, help="lavida, anyanomaly, clip, motion, or another.")
@together(model_option, detector_options, device_option)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where it listens; 0.0.0.0 lets the network in.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free one.")
@click.option("--max-mb", type=click.IntRange(min=1), default=500, show_default=True, help="The largest video, in MB.")
@debug_option
def serve(
    detector: str,
    model: str | None,
    options: dict[str, Any],
    device: str | None,
    host: str,
    port: int,
    max_mb: int,
    debug: bool,
) -> None:
    """A page where a person drops a video, types anomalies, and sees the timeline and the overlay."""
    from lavida import serve as page

    judge = _detector(detector, model, device, options)
    page.serve(
        judge,
        page.Limits(upload_bytes=max_mb * 1_000_000),
        host=host,
        port=port,
        told=lambda line: click.echo(line, err=True),
    )


# -- between the words and the package ---------------------------------------------------------------------------------


def _detector_options(name: str, model: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """The detector's options with its model. Raises DetectorError where `lavida` has none."""
    given = options | ({"model": model} if model is not None else {})
    if name == "lavida" and not given.get("model"):
        raise DetectorError(
            "the detector lavida needs a trained model",
            do="give --model DIR (made by `lavida train`), or a --detector without training: anyanomaly, clip, motion",
        )
    return given


def _detector(name: str, model: str | None, device: str | None, options: dict[str, Any]) -> Detector:
    from lavida.detectors import find, load_detector

    given = _detector_options(name, model, options)
    if device is not None and "device" in find(name).settings.model_fields:
        given = {"device": device} | given
    return load_detector(name, **given)


def _refuse_without_ray(on_ray: bool, workers: int | None, address: str | None) -> None:
    if not on_ray and (workers is not None or address is not None):
        raise click.UsageError("--workers and --address belong to --ray")


def _executor(on_ray: bool, workers: int | None, address: str | None) -> contextlib.AbstractContextManager[Executor]:
    _refuse_without_ray(on_ray, workers, address)
    if not on_ray:
        from lavida.evaluate import Inline

        return contextlib.nullcontext(Inline())
    from lavida.evaluate.cluster import Cluster  # ray is imported for those who ask for it only

    return Cluster(workers=workers, address=address, told=lambda line: click.echo(f"lavida: {line}", err=True))


def _trainer(workers: int | None, address: str | None) -> Trainer:
    """Trains on Ray, in the session that scores too."""

    def train(config: Any) -> Path:
        from lavida.training import cluster

        return cluster.launch(config, workers=workers, address=address).model

    return train


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _print(shown: Table) -> None:
    """Print a table on stdout, at the terminal's width, or wide where there is none."""
    console = Console() if sys.stdout.isatty() else Console(width=200, no_color=True)
    console.print(shown)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
