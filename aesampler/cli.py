"""The command line: `aesampler COMMAND --help`. It parses, calls one function of the package, and prints; nothing is
decided here.

Exit codes: 0 done, 1 the thing checked is bad, 2 the user's input is wrong, 3 the run failed (above its tolerance,
storage, workers). Errors are one line on stderr; a traceback only with --debug. What programs read goes to stdout with
--json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import pyarrow.compute as pc
import yaml
from rich.console import Console, Group
from rich.protocol import rich_cast
from rich.table import Table
from rich.text import Text

from aesampler import command, sources
from aesampler.build import build_corpus
from aesampler.command import debug_option, filled, json_option, together
from aesampler.corpus import Corpus
from aesampler.errors import UNREADABLE, AesamplerError, RecipeError
from aesampler.executors import Executor
from aesampler.plan import Plan, audited, catalog_of, plan_corpus
from aesampler.progress import Reporter
from aesampler.recipe import Recipe, expand, starter
from aesampler.storage import Folder


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    return command.run("aesampler", cli, arguments)


config_option = click.option(
    "--config", "config", required=True, type=click.Path(dir_okay=False), help="The recipe, a YAML file."
)


FRAME_MS = 200
"""How long an animated clip shows each frame."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="aesampler", prog_name="aesampler")
def cli() -> None:
    """Turn segmentation datasets into pseudo-anomaly corpora for video anomaly detection."""


# -- making ------------------------------------------------------------------------------------------------------------


@cli.command()
@together(config_option, json_option, debug_option)
@click.option("--out", help="Where the corpus goes: a folder or s3://...; overrides the recipe's `out`.")
@click.option(
    "--executor",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="Ray workers, or this process alone.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Ray: shards in flight at once; default: one a CPU.")
@click.option(
    "--address", help="Ray: the cluster to join, `auto` for the one this machine is in; default: Ray is started here."
)
@click.option("--fresh", is_flag=True, help="Start over: remove what an earlier build left in OUT.")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Make again the shards that hold failed records: for a disk that did not give what it has. A dataset that was "
    "mended is another input, see --fresh.",
)
def build(
    config: str,
    out: str | None,
    executor: str,
    workers: int | None,
    address: str | None,
    fresh: bool,
    retry_failed: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Build the corpus of a recipe, or finish the build that was begun in OUT."""
    recipe = Recipe.load(config)
    target = _target(recipe, out, config)
    with Reporter() as progress:
        plan = plan_corpus(recipe, progress=progress, refresh=fresh)
        _warn(plan)
        with _begun_afresh() if fresh else contextlib.nullcontext():
            outcome = build_corpus(
                plan,
                target,
                _executor(executor, workers, address),
                fresh=fresh,
                retry_failed=retry_failed,
                progress=progress,
            )
    if as_json:
        _print_json(
            {
                "corpus": target.url,
                "built_shards": outcome.built,
                "kept_shards": outcome.kept,
                "totals": outcome.head.totals_json(),
            }
        )
        return
    totals = outcome.head.totals
    click.echo(
        f"{target.url}: {totals.samples:,} samples ({totals.anomalous:,} anomalous), "
        f"{outcome.built} shards made, {outcome.kept} kept"
        f"{_lost(outcome.head.failures, 'failed')}{_lost(outcome.head.skipped, 'skipped')}"
    )
    click.echo(f"look at it: aesampler show {target.url} --grid 16 --out look.png")


@contextlib.contextmanager
def _begun_afresh() -> Iterator[None]:
    """Where the build stops: say how to go on, since the same command would start over."""
    try:
        yield
    except (AesamplerError, KeyboardInterrupt) as error:
        if not isinstance(error, AesamplerError) or error.exit_code == 3:
            click.echo("to go on from here, leave out --fresh", err=True)
        raise


def _target(recipe: Recipe, out: str | None, config: str) -> Folder:
    if out is not None:
        return Folder.at(expand(out))
    if recipe.out is None:
        raise RecipeError(
            "neither the recipe's `out` nor --out says where the corpus goes", where=config, do="add --out FOLDER"
        )
    return recipe.folder(recipe.out)


def _executor(name: str, workers: int | None, address: str | None) -> Executor:
    if name == "inline":
        if workers not in (None, 1) or address is not None:
            raise click.UsageError("--workers and --address belong to --executor ray")
        from aesampler.executors.inline import Inline

        return Inline()
    from aesampler.executors.cluster import Cluster  # ray is imported for those who ask for it only

    return Cluster(workers=workers, address=address, told=lambda line: click.echo(f"aesampler: {line}", err=True))


def _warn(plan: Plan) -> None:
    for source in plan.sources:
        if source.missing:
            click.echo(
                f"{source.source}/{source.split}: {source.missing:,} of {source.samples:,} samples lack a picture",
                err=True,
            )


def _lost(reasons: Any, verb: str) -> str:
    return "".join(f"; {verb}: {count:,} x {reason}" for reason, count in sorted(reasons.items()))


@cli.command()
@together(config_option, json_option, debug_option)
def plan(config: str, as_json: bool, debug: bool) -> None:
    """What a build would do: counts, bytes, shards, list lengths. Writes nothing but the catalog's cache."""
    with Reporter(quiet=as_json) as progress:
        planned = plan_corpus(Recipe.load(config), progress=progress)
        shortcut = audited(planned)
    if as_json:
        _print_json(
            {
                "name": planned.recipe.name,
                "samples": planned.samples,
                "bytes": planned.bytes,
                "shards": len(planned.tasks),
                "sources": [dataclasses.asdict(source) for source in planned.sources],
                "shortcut": {source: msgspec.to_builtins(found) for source, found in shortcut.items()},
            }
        )
        return
    table = Table(
        title=f"{planned.recipe.name}: {planned.samples:,} samples in {len(planned.tasks):,} shards, "
        f"{planned.bytes / 1e9:,.2f} GB of pictures"
    )
    for column in (
        "source",
        "split",
        "kind",
        "records",
        "samples",
        "frames",
        "GB",
        "shards",
        "names",
        "list",
        "pictures",
        "missing",
    ):
        table.add_column(column, justify="left" if column in ("source", "split", "kind", "pictures") else "right")
    for s in planned.sources:
        pictures = f"{s.encoding}, {'encoded anew' if s.transcoded else 'untouched'}"
        lengths = f"{s.lengths[0]}-{s.lengths[1]}"
        cells = (s.records, s.samples, s.frames)
        table.add_row(
            s.source,
            s.split,
            s.kind,
            *(f"{n:,}" for n in cells),
            f"{s.bytes / 1e9:,.2f}",
            str(s.shards),
            str(s.names),
            lengths,
            pictures,
            str(s.missing or ""),
        )
    _print(table)
    for source, found in shortcut.items():
        click.echo(f"{source}: {found.line}")
    _warn(planned)


# -- looking -----------------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("corpus")
@together(json_option, debug_option)
@click.option(
    "--deep",
    is_flag=True,
    help="Decode every picture, and derive every label again from the stored segments and the recipe.",
)
def verify(corpus: str, deep: bool, as_json: bool, debug: bool) -> int:
    """Check a corpus: files, hashes, offsets, members, keys, labels. Exit code 1 where something is wrong."""
    from aesampler.verify import verify as check

    with Reporter(quiet=as_json) as progress:
        verdict = check(Corpus.open(expand(corpus)), deep=deep, progress=progress)
    if as_json:
        _print_json(verdict.to_json())
    else:
        for problem in verdict.problems:
            click.echo(str(problem))
        click.echo(verdict.line)
    return 1 if verdict.problems else 0


@cli.command()
@click.argument("corpus")
@together(json_option, debug_option)
@click.option("--key", help="One sample, by its key; with --out as an overlay picture.")
@click.option("--grid", type=click.IntRange(1, 400), help="A contact sheet of so many samples.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    help="The PNG to write, default KEY.png or grid.png; with --key a .webp plays a clip's frames.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which samples the grid takes.")
def show(
    corpus: str, key: str | None, grid: int | None, out: str | None, seed: int, as_json: bool, debug: bool
) -> None:
    """Look at a corpus: a summary, one sample with its masks and names, or a contact sheet."""
    from aesampler import pictures
    from aesampler import show as figures

    opened = Corpus.open(expand(corpus))
    if key is not None and grid is not None:
        raise click.UsageError("--key shows one sample, --grid many: give one of them")
    if key is None and grid is None:
        if out is not None:
            raise click.UsageError("--out is for a picture: give --grid N or --key KEY too")
        summary = figures.summary(opened)
        if as_json:
            _print_json(summary.to_json())
        else:
            _print(summary)
        return
    target = _own_place(out or f"{key or 'grid'}.png", opened, (".png",) if key is None else (".png", ".webp"))
    if key is not None:
        sample = opened[key]
        moving = target.suffix.lower() == ".webp"
        frames = pictures.animation(sample) if moving else [pictures.overlay(sample)]
        told: dict[str, Any] = figures.describe(sample) | {"categories": figures.reasons(opened, sample)}
    else:
        assert grid is not None
        frames, moving = [pictures.contact_sheet(opened, grid, seed)], False
        told = {"corpus": opened.folder.url, "samples": min(grid, len(opened))}
    target.parent.mkdir(parents=True, exist_ok=True)
    if moving:
        frames[0].save(target, format="WEBP", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0)
    else:
        frames[0].save(target, format="PNG")
    if as_json:
        _print_json(told | {"picture": str(target)})
    else:
        for entry in told.get("categories", ()):
            click.echo(f"{entry['name']}: {entry['why']}")
        click.echo(f"{target}: {frames[0].width} x {frames[0].height}")


@cli.command()
@click.argument("kind")
@click.argument("corpus")
@click.argument("out")
@together(json_option, debug_option)
@click.option("--split", help="Of this split alone.")
@click.option("--source", help="Of this source alone.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many samples of each source in each split.")
def export(
    kind: str,
    corpus: str,
    out: str,
    split: str | None,
    source: str | None,
    limit: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Write CORPUS in another form into OUT: coco (pictures and COCO JSON), dali (an index of each tar), video (clips
    as mp4 with their masks).
    """
    from aesampler import export as exports

    target = Folder.at(expand(out))
    selection = exports.Selection(split=split, source=source, limit=limit)
    with Reporter(quiet=as_json) as progress:
        done = exports.export(kind, Corpus.open(expand(corpus)), target, selection, progress)
    if as_json:
        _print_json({"kind": kind, "out": target.url, "samples": done.samples, "files": done.files})
    else:
        click.echo(f"{target.url}: {done.samples:,} samples in {done.files:,} files")


@cli.command()
@click.argument("corpus")
@together(json_option, debug_option)
@click.option("--out", type=click.Path(dir_okay=False), help="The page to write; default: NAME-report.html.")
@click.option(
    "--samples", type=click.IntRange(0, 400), default=48, show_default=True, help="Samples in the page's gallery."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which samples the gallery takes.")
def report(corpus: str, out: str | None, samples: int, seed: int, as_json: bool, debug: bool) -> None:
    """Write one HTML page of figures, plots and samples, which needs no network."""
    from aesampler.report.page import report as page

    opened = Corpus.open(expand(corpus))
    target = _own_place(out or f"{opened.head.name}-report.html", opened, (".html", ".htm"))
    text = page(opened, samples=samples, seed=seed).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text)
    if as_json:
        _print_json({"corpus": opened.folder.url, "page": str(target), "bytes": len(text)})
    else:
        click.echo(f"{target}: {len(text) / 1e6:.1f} MB; open it in a browser")


# -- datasets ----------------------------------------------------------------------------------------------------------


@cli.command(name="sources")
@click.argument("format", required=False)
@click.option(
    "--check",
    "root",
    callback=filled,
    help="Look at a dataset of this format at ROOT and say what is there, or what is missing.",
)
@click.option(
    "--subset",
    type=click.Choice(["train", "validation", "test"]),
    default="train",
    show_default=True,
    help="With --check: the official part.",
)
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="With --check: an option of the format.")
@together(json_option, debug_option)
def sources_(
    format: str | None, root: str | None, subset: str, options: tuple[str, ...], as_json: bool, debug: bool
) -> None:
    """The dataset formats that can be read; with FORMAT its layout and options."""
    if format is None:
        if root is not None:
            raise click.UsageError("--check needs a FORMAT")
        found = {name: sources.load(name) for name in sources.names()}
        if as_json:
            _print_json({name: {"kind": reader.kind, "summary": reader.summary} for name, reader in found.items()})
            return
        table = Table("format", "kind", "what it reads")
        for name, reader in found.items():
            table.add_row(name, reader.kind, reader.summary)
        _print(table)
        return
    reader = sources.load(format)
    if root is not None:
        entry = {"name": "dataset", "format": format, "root": root, "split": subset} | dict(map(_option, options))
        recipe = Recipe.of({"name": "check", "sources": [entry]}, where=f"sources {format}")
        with Reporter(quiet=as_json) as progress:
            catalog = catalog_of(recipe, recipe.sources[0], progress=progress)
        sizes = (batch["frame_bytes"].flatten() for batch in catalog.columns(["frame_bytes"]))
        missing = sum(pc.sum(pc.less_equal(found, 0)).as_py() or 0 for found in sizes)
        told = {
            "format": format,
            "records": catalog.records,
            "names": len(catalog.categories),
            "missing_pictures": missing,
            "skipped": dict(catalog.skipped),
        }
        if as_json:
            _print_json(told)
        else:
            click.echo(
                f"{format}: {catalog.records:,} records, {len(catalog.categories):,} names, "
                f"{missing:,} pictures not on disk, or empty{_lost(catalog.skipped, 'left out')}"
            )
        return
    described = {name: field.description or "" for name, field in reader.model_fields.items()}
    if as_json:
        _print_json(
            {
                "format": format,
                "kind": reader.kind,
                "summary": reader.summary,
                "layout": reader.layout,
                "options": described,
            }
        )
        return
    click.echo(
        f"{format}: {reader.summary}\n\nlayout at ROOT:\n{reader.layout.rstrip()}\n\n"
        "options, beside name, format, root, split, weight, limit, exposure:"
    )
    for name, text in described.items():
        click.echo(f"  {name}: {text}")


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as YAML would have it."""
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--option {text}: write NAME=VALUE")
    try:
        return name, yaml.safe_load(value)
    except UNREADABLE as error:
        raise click.UsageError(f"--option {text}: the value is no YAML: {' '.join(str(error).split())}") from error


@cli.command()
@click.argument("format")
@click.option("--out", type=click.Path(dir_okay=False), help="The recipe to write; default: FORMAT.yaml.")
@debug_option
def init(format: str, out: str | None, debug: bool) -> None:
    """Write a recipe for a dataset format, to be changed by hand; or another of the bundled files: lavida-paper (the
    paper's mix), train-tiny and other trainings.
    """
    text = starter(format)
    target = Path(out or f"{format}.yaml")
    with contextlib.suppress(FileNotFoundError):
        if target.stat():
            raise RecipeError("the file is there already", where=str(target), do="give --out another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    is_source = format in sources.names()
    click.echo(f"{target}: {f'set its root, then: aesampler plan --config {target}' if is_source else 'see its head'}")


@cli.command()
@click.option("--out", default="aesampler-demo", show_default=True, callback=filled, help="The folder to make.")
@debug_option
def demo(out: str, debug: bool) -> None:
    """Draw a small world, write it as COCO and YouTube-VOS, build a corpus from it, and show it: under a minute."""
    from aesampler.demo.tour import tour

    with Reporter() as progress:
        program = "aesampler" if shutil.which("aesampler") else sys.argv[0]
        for line in tour(Path(out), progress, program):
            click.echo(line)


def _own_place(out: str, corpus: Corpus, endings: Sequence[str]) -> Path:
    """Where what is made of a corpus goes. Raises UsageError for a place in the corpus itself, and for a name of what
    is something else, as of a recipe.
    """
    target = Path(out)
    if target.suffix.lower() not in endings:
        raise click.UsageError(f"--out {target}: the name must end in {' or '.join(endings)}")
    if corpus.folder.is_local and target.resolve().is_relative_to(Path(corpus.folder.path).resolve()):
        raise click.UsageError(f"--out {target} lies in the corpus, which holds its own files only: give another place")
    return target


def _print(shown: Any) -> None:
    """Print a rich table, text, or several on stdout. A table that is too wide for the terminal becomes lines, where it
    would leave out letters.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed by who called
    console = Console() if terminal else Console(width=160, no_color=True)
    shown = rich_cast(shown)
    for part in shown.renderables if isinstance(shown, Group) else [shown]:
        if isinstance(part, Table) and Console(width=1000).measure(part).maximum > console.width:
            for line in _lines(part):
                console.print(Text(line))
        else:
            console.print(Text(part) if isinstance(part, str) else part)


def _lines(table: Table) -> Iterator[str]:
    """A table without a frame: a line a row, each cell after the head of its column."""
    yield from [str(table.title)] if table.title else []
    heads = [str(column.header) for column in table.columns]
    for row in zip(*(column.cells for column in table.columns), strict=True):
        first, *rest = (str(cell) for cell in row)
        yield ", ".join([first, *(f"{head} {cell}" for head, cell in zip(heads[1:], rest, strict=True) if cell)])


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
