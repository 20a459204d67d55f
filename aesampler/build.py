"""From a plan to a whole corpus: open OUT, map the shards, close.

- OUT/.build/plan.json is there while a build is unfinished. A later run of the same plan goes on; another plan is
  refused with what differs.
- Then the vocabularies, which workers draw from; then the shards, in any order, each done when its Parquet is there.
- README.md, croissant.json and, last of all, corpus.json; then .build/ is removed. Whoever sees corpus.json sees a
  whole corpus.
- What a build holds in memory grows with the number of shards, not of samples.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from aesampler import manifest
from aesampler.catalog import PARQUET
from aesampler.errors import CorpusError, ToleranceError
from aesampler.executors import Executor
from aesampler.manifest import HEAD, PLAN, SPLITS, CorpusHead, ShardReport, Totals
from aesampler.plan import Plan, Progress
from aesampler.report import card, croissant
from aesampler.storage import Folder
from aesampler.worker import Job, paths

STATE = ".build"
OURS = re.compile(
    rf"corpus\.json|README\.md|croissant\.json|({'|'.join(SPLITS)})/[a-z0-9-]+-\d{{6}}\.tar"
    rf"|manifest/({'|'.join(SPLITS)})/[a-z0-9-]+-\d{{6}}\.parquet|vocabulary/[a-z0-9-]+\.parquet|\.build/.*|\.[^/]*|.*/\.[^/]*"
)
"""Every path that a build writes, locks and temporaries included."""
ROOM = 1.1
"""Share of the listed picture bytes that a corpus takes at least, masks and manifest included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a build did. built: shards made now; kept: shards found done; head: the corpus as it is written."""

    head: CorpusHead
    built: int
    kept: int


def build_corpus(
    plan: Plan,
    out: Folder,
    executor: Executor,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Make the corpus of `plan` in `out`, or finish the one that was begun there.

    fresh: what an earlier build left in `out` is removed first. retry_failed: shards that hold failures are made again.
    Raises CorpusError (out holds something else, or another plan's shards; too little room), LockedError,
    ToleranceError, StorageError, WorkerError.
    """
    with out.lock():
        finished = _open(plan, out, fresh=fresh, retry_failed=retry_failed)
        if finished is not None:
            return Outcome(head=finished, built=0, kept=len(plan.tasks))
        for name, vocabulary in plan.vocabularies.items():
            if not out.exists(f"vocabulary/{name}.parquet"):
                out.commit(f"vocabulary/{name}.parquet", vocabulary.write)
        done = _done(plan, out)
        todo = [task for task in plan.tasks if paths(plan.recipe, task)[1] not in done]
        reports = dict(done)
        with executor:
            job = _job(plan, out, executor)
            executor.prepare(job)
            for report in _counted(executor.map(job, todo), plan, reports, progress):
                reports[manifest.parquet_path(report)] = report
        head = _close(plan, out, [reports[paths(plan.recipe, task)[1]] for task in plan.tasks])
        return Outcome(head=head, built=len(todo), kept=len(done))


def _job(plan: Plan, out: Folder, executor: Executor) -> Job:
    """The job of a plan; where workers are remote, the catalogs are put beside the corpus until it is whole."""
    catalogs = []
    for place, catalog in enumerate(plan.catalogs):
        if executor.remote:
            rel = f"{STATE}/catalog-{place:03d}"
            if not out.exists(f"{rel}/{PARQUET}"):
                with catalog.folder.open(PARQUET) as source:
                    out.commit(f"{rel}/{PARQUET}", partial(shutil.copyfileobj, source))
            catalogs.append(out / rel)
        else:
            catalogs.append(catalog.folder)
    return Job(
        recipe=plan.recipe,
        out=out,
        roots=tuple(plan.recipe.folder(entry.root) for entry in plan.recipe.sources),
        catalogs=tuple(catalogs),
        encodings=plan.encodings,
        transcoded=plan.transcoded,
    )


# -- opening OUT -------------------------------------------------------------------------------------------------------


def _open(plan: Plan, out: Folder, *, fresh: bool, retry_failed: bool) -> CorpusHead | None:
    """Make `out` ready for shards; the head of the corpus where it is whole already."""
    out.sweep_temporaries()
    present = out.list()
    if HEAD not in present and PLAN not in present:
        visible = [path for path in present if not path.startswith(".")]
        if visible:
            raise CorpusError(
                "the output folder holds something that is no corpus",
                where=out.url,
                got=visible[0],
                do="give --out an empty or a new folder",
            )
        _require_room(plan, out)
    elif fresh:
        _clear(out)
        present = {}
        _require_room(plan, out)
    if HEAD in present:
        _compare(json.loads(out.read(HEAD)), plan, out)
        if PLAN in present and not retry_failed:
            out.remove_tree(STATE)
        head = CorpusHead.read(out)
        if not (retry_failed and head.failures):
            return head
    mine = json.dumps(plan.identity(), indent=1, sort_keys=True).encode() + b"\n"
    out.put_if_absent(PLAN, mine)
    there = out.read(PLAN)  # read back: a store without conditional puts lets two builds both believe they were first
    if there != mine:
        _refuse(json.loads(there), plan.identity(), out)
    if retry_failed:
        out.remove(HEAD)
        for path, report in _done(plan, out).items():
            if report.failures:
                out.remove(path)
                if report.path:
                    out.remove(report.path)
    return None


def _compare(head: Mapping[str, Any], plan: Plan, out: Folder) -> None:
    """Refuse a whole corpus in `out` that is another plan's."""
    recipe = {key: value for key, value in head.get("recipe", {}).items() if key != "tolerance"}
    stored = {
        "format_version": head.get("format_version"),
        "recipe": recipe,
        "inputs": head.get("inputs"),
        "tools": head.get("tools"),
    }
    if stored != plan.identity():
        _refuse(stored, plan.identity(), out)


def _refuse(stored: Mapping[str, Any], wanted: Mapping[str, Any], out: Folder) -> None:
    differences = list(_differences(stored, wanted))
    if not differences:
        return
    shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
    raise CorpusError(
        f"this folder was built from something else: {shown}",
        where=out.url,
        do="go back to what it was built from, give another --out, or start over with --fresh",
    )


def _differences(stored: Any, wanted: Any, where: str = "") -> Iterator[str]:
    """Each leaf that differs, as `path: then -> now`."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        for key in sorted({*stored, *wanted}):
            yield from _differences(stored.get(key), wanted.get(key), f"{where}.{key}" if where else key)
    elif isinstance(stored, list) and isinstance(wanted, list) and len(stored) == len(wanted):
        for place, (one, other) in enumerate(zip(stored, wanted, strict=True)):
            yield from _differences(one, other, f"{where}.{place}")
    elif stored != wanted:
        yield f"{where} was {_short(stored)}, is {_short(wanted)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _clear(out: Folder) -> None:
    """Remove what a build wrote, the plan last: a kill in between leaves a folder that is still known as an unfinished
    build.
    """
    out.put_if_absent(PLAN, b"{}\n")
    ours = [path for path in out.list() if OURS.fullmatch(path) and path != PLAN]
    for path in sorted(ours, key=lambda path: (path != HEAD, path)):
        out.remove(path)
    out.remove_tree(STATE)


def _require_room(plan: Plan, out: Folder) -> None:
    free = out.free_bytes()
    need = int(plan.bytes * ROOM) if plan.recipe.images.max_side is None else 0
    if free is not None and free < need:
        raise CorpusError(
            "not enough room for the corpus",
            where=out.url,
            got=f"{free / 1e9:.1f} GB free",
            allowed=f"{need / 1e9:.1f} GB or more",
            do="free some, or give another --out",
        )


def _done(plan: Plan, out: Folder) -> dict[str, ShardReport]:
    """The finished shards of a plan, by the path of their Parquet."""
    present = out.list("manifest")
    wanted = {paths(plan.recipe, task)[1] for task in plan.tasks}
    return {path: ShardReport.read(out, path) for path in present if path in wanted}


# -- counting and closing ----------------------------------------------------------------------------------------------


def _counted(
    reports: Iterator[ShardReport], plan: Plan, done: Mapping[str, ShardReport], progress: Progress | None
) -> Iterator[ShardReport]:
    """The reports as they come, each checked against the tolerance."""
    totals = Totals()
    for report in done.values():
        totals.add(report)
    _tolerate(totals, plan)
    ready, size = totals.samples + totals.rejected, 0
    with contextlib.closing(reports):  # type: ignore[type-var]
        for report in reports:
            totals.add(report)
            _tolerate(totals, plan)
            ready += report.samples + report.rejected
            size += report.bytes
            if progress is not None:
                progress("samples", ready, plan.samples, size)
            yield report


def _tolerate(totals: Totals, plan: Plan) -> None:
    allowed = plan.recipe.tolerance.bad_records * plan.samples
    if totals.failed > allowed:
        reasons = ", ".join(
            f"{count} x {reason} (first {key})" for reason, (count, key) in totals.failures_with_example().items()
        )
        raise ToleranceError(
            f"{totals.failed} of {plan.samples} samples failed",
            got=reasons,
            allowed=f"{allowed:g} (tolerance.bad_records: {plan.recipe.tolerance.bad_records:g})",
            do="mend or remove them, or raise the tolerance; finished shards are kept, run the same command again",
        )


def _close(plan: Plan, out: Folder, reports: list[ShardReport]) -> CorpusHead:
    """Write the card, Croissant and, last, corpus.json; then forget the plan."""
    head = CorpusHead.of(
        recipe=plan.recipe.document(),
        recipe_sha256=plan.recipe.sha256(),
        tools=plan.identity()["tools"],
        inputs=plan.inputs(),
        reports=reports,
    )
    if not head.totals.samples:
        raise CorpusError(
            "no sample came out of the whole build",
            where=out.url,
            got=str(head.skipped | head.failures),
            do="see `aesampler plan`",
        )
    out.commit_bytes("README.md", card.data_card(head).encode())
    out.commit_bytes("croissant.json", croissant.croissant(head, out).encode())
    out.commit_bytes(HEAD, head.to_json())
    out.remove_tree(STATE)
    return head
