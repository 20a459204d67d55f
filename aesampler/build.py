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
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aesampler import manifest, shortcut
from aesampler.catalog import PARQUET, Catalog
from aesampler.errors import CorpusError, StorageError, ToleranceError, tolerated
from aesampler.executors import Executor
from aesampler.head import HEAD, PLAN, SPLITS, CorpusHead, Totals
from aesampler.manifest import ShardReport
from aesampler.plan import Plan, Progress
from aesampler.report import card, croissant
from aesampler.storage import Folder
from aesampler.worker import Job, paths

STATE = ".build"
OURS = re.compile(
    rf"corpus\.json|README\.md|croissant\.json|({'|'.join(SPLITS)})/[a-z0-9-]+-\d{{6}}\.tar"
    rf"|manifest/({'|'.join(SPLITS)})/[a-z0-9-]+-\d{{6}}\.parquet|vocabulary/[a-z0-9-]+\.parquet|\.build/.*"
)
"""Every path that a build writes, but for locks and temporaries, which no listing has."""
ROOM = 1.1
"""Share of the listed bytes of pictures that pass untouched which a corpus takes at least, masks included."""


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
    _tolerate_missing(plan)
    with out.lock(), contextlib.ExitStack() as stack:
        out.sweep_temporaries()
        finished = None if fresh else _finished(plan, out, retry_failed)
        if finished is not None:
            return Outcome(head=finished, built=0, kept=len(plan.tasks))
        stack.enter_context(executor)  # a cluster that does not answer is told before anything is written
        _begin(plan, out, fresh=fresh)
        try:
            return _built(plan, out, executor, progress, retry_failed)
        except (CorpusError, StorageError):
            # A store has no lock: a build of the same plan may have made the whole corpus, and tidied up, meanwhile.
            finished = None if out.is_local else _finished(plan, out, retry_failed)
            if finished is None:
                raise
            return Outcome(head=finished, built=0, kept=len(plan.tasks))


def _built(plan: Plan, out: Folder, executor: Executor, progress: Progress | None, retry_failed: bool) -> Outcome:
    """What is missing in `out`, made; then the end of the build."""
    for name, vocabulary in plan.vocabularies.items():
        if not out.exists(f"vocabulary/{name}.parquet"):
            out.commit(f"vocabulary/{name}.parquet", vocabulary.write)
    done = _done(plan, out, retry_failed)
    todo = [task for task in plan.tasks if paths(plan.recipe, task)[1] not in done]
    reports = dict(done)
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
            if not out.exists(f"{rel}/{PARQUET}") or Catalog.open(out / rel).digest != catalog.digest:
                with catalog.folder.open(PARQUET) as source:
                    out.commit(f"{rel}/{PARQUET}", partial(shutil.copyfileobj, source))
            catalogs.append(replace(catalog, folder=out / rel))
        else:
            catalogs.append(catalog)
    return Job(
        recipe=plan.recipe,
        plan_sha256=hashlib.sha256(_plan_text(plan)).hexdigest(),
        packages=tuple(plan.packages()),
        out=out,
        roots=tuple(plan.recipe.folder(entry.root) for entry in plan.recipe.sources),
        catalogs=tuple(catalogs),
        encodings=plan.encodings,
        transcoded=plan.transcoded,
        weights=tuple(plan.gaze(entry) for entry in plan.recipe.sources),
    )


# -- opening OUT -------------------------------------------------------------------------------------------------------


def _finished(plan: Plan, out: Folder, retry_failed: bool) -> CorpusHead | None:
    """The head of the corpus of this plan where `out` holds it whole; None where there is work. Writes nothing but the
    end of a build that was killed in its last step.

    Raises CorpusError where `out` holds something else.
    """
    if not out.exists(HEAD):
        return None
    head = CorpusHead.read(out)
    _refuse(_identity(json.loads(out.read(HEAD))), plan.identity(), out)
    present = out.list()
    tars = {entry.path: entry.bytes for _, _, part in head.parts() for entry in part.shards}
    rows = {entry.path: entry.bytes for _, _, part in head.parts() for entry in part.manifests}
    if (retry_failed and head.failures) or not (tars | rows).items() <= present.items():
        return None
    out.remove_tree(STATE)
    return head


def _begin(plan: Plan, out: Folder, *, fresh: bool) -> None:
    """Make `out` ready for shards: its own plan in .build/, nothing of another one."""
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
        _require_room(plan, out)
    mine = _plan_text(plan)
    out.put_if_absent(PLAN, mine)
    there = out.read(PLAN)  # read back: a store without conditional puts lets two builds both believe they were first
    if there != mine:
        _refuse(json.loads(there), plan.identity(), out)


def _plan_text(plan: Plan) -> bytes:
    return json.dumps(plan.identity(), indent=1, sort_keys=True).encode() + b"\n"


def _identity(head: Mapping[str, Any]) -> dict[str, Any]:
    """The identity (`Plan.identity`) of the build that wrote a corpus.json."""
    recipe = {key: value for key, value in head.get("recipe", {}).items() if key != "tolerance"}
    return {
        "format_version": head.get("format_version"),
        "recipe": recipe,
        "inputs": head.get("inputs"),
        "tools": head.get("tools"),
    }


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
    need = int(ROOM * sum(source.bytes for source in plan.sources if not source.transcoded))
    if free is not None and free < need:
        raise CorpusError(
            "not enough room for the corpus",
            where=out.url,
            got=f"{free / 1e9:.1f} GB free",
            allowed=f"{need / 1e9:.1f} GB or more",
            do="free some, or give another --out",
        )


def _done(plan: Plan, out: Folder, retry_failed: bool) -> dict[str, ShardReport]:
    """The finished shards of a plan, by the path of their Parquet. Those whose tar is gone, or was cut, are removed, to
    be made again; with `retry_failed` those that hold failed records too.
    """
    present = out.list()
    done: dict[str, ShardReport] = {}
    again: dict[str, ShardReport] = {}
    for path in (paths(plan.recipe, task)[1] for task in plan.tasks):
        if path in present:
            report = ShardReport.read(out, path)
            whole = not report.path or present.get(report.path) == report.bytes
            (done if whole and not (retry_failed and report.failures) else again)[path] = report
    if HEAD in present and len(done) < len(plan.tasks):
        out.remove(HEAD)  # not whole any more
    for path, report in again.items():
        out.remove(path)
        if report.path:
            out.remove(report.path)
    return done


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


def _tolerate_missing(plan: Plan) -> None:
    """Refuse, before anything is written, a plan that more pictures are missing for than the recipe tolerates."""
    lacking = [source for source in plan.sources if source.missing]
    missing = sum(source.missing for source in lacking)
    allowed = tolerated(plan.recipe.tolerance.bad_records, plan.samples)
    if missing > allowed:
        first = lacking[0]
        raise ToleranceError(
            f"{missing} of {plan.samples} samples lack a picture on disk, or have an empty one, "
            f"the first {first.first_missing}",
            where=f"{first.source}/{first.split}",
            allowed=f"{allowed} (tolerance.bad_records: {plan.recipe.tolerance.bad_records:g})",
            do="fetch the pictures, or raise the tolerance; nothing was written",
        )


def _tolerate(totals: Totals, plan: Plan) -> None:
    allowed = tolerated(plan.recipe.tolerance.bad_records, plan.samples)
    if totals.failed > allowed:
        reasons = ", ".join(
            f"{count} x {reason} (first {key})" for reason, (count, key) in totals.failures_with_example().items()
        )
        raise ToleranceError(
            f"{totals.failed} of {plan.samples} samples failed",
            got=reasons,
            allowed=f"{allowed} (tolerance.bad_records: {plan.recipe.tolerance.bad_records:g})",
            do="raise tolerance.bad_records and run again: finished shards are kept; or mend the dataset and start "
            "over with --fresh",
        )


def _close(plan: Plan, out: Folder, reports: list[ShardReport]) -> CorpusHead:
    """Write the card, Croissant and, last, corpus.json; then forget the plan."""
    head = CorpusHead.of(
        recipe=plan.recipe.document(),
        recipe_sha256=plan.recipe.sha256(),
        tools=plan.tools(),
        inputs=plan.inputs(),
        reports=reports,
        shortcut=shortcut.of_reports(out, reports),
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
    out.sweep_temporaries()  # a worker that outlived a killed driver may have left one since
    out.commit_bytes(HEAD, head.to_json())
    out.remove_tree(STATE)
    return head
