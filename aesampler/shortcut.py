"""The shortcut audit of a plan's draws and of a corpus's rows: see `aesampler.audit` for what it measures.

One audit a source, of at most `LIMIT` samples: the first ones in shard order. Rows lie in keyed-hash order, so the
first are a fair sample, the same on every machine. 10,000 samples take about half a second.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence

from aesampler import manifest
from aesampler.audit import audit
from aesampler.head import SPLITS, LengthRate, NameRate, Shortcut
from aesampler.manifest import ShardReport
from aesampler.storage import Folder

LIMIT = 10_000
"""Samples of a source that are looked at."""
TOP = 20
"""Names that are told of a source: those whose rate is least likely to be chance."""
DIGITS = 4
"""Of an AUC: what is equal on all machines."""


def measured(lists: Sequence[Sequence[str]], anomalous: Sequence[bool], groups: Sequence[str]) -> Shortcut:
    """The audit of samples, as a corpus stores it."""
    found = audit(lists, anomalous, groups)
    return Shortcut(
        samples=found.samples,
        anomalous=sum(anomalous),
        auc=None if found.auc is None else round(found.auc, DIGITS),
        error=round(found.error, DIGITS),
        names=[NameRate(name=rate.what, listed=rate.count, anomalous=rate.anomalous) for rate in found.names[:TOP]],
        lengths=[
            LengthRate(length=int(rate.what), samples=rate.count, anomalous=rate.anomalous) for rate in found.lengths
        ],
    )


def stored(folder: Folder, manifests: Iterable[tuple[str, str]]) -> dict[str, Shortcut]:
    """The audit of each source of the corpus in `folder`. manifests: (source, path of its Parquet), in shard order."""
    rows: dict[str, tuple[list[list[str]], list[bool], list[str]]] = {}
    for source, path in manifests:
        lists, anomalous, groups = rows.setdefault(source, ([], [], []))
        room = LIMIT - len(lists)
        if room > 0:
            columns = ["status", "categories", "anomalous", "group"]
            table = manifest.read_table(io.BytesIO(folder.read(path)), columns, path)
            made = [row for row in table.to_pylist() if row["status"] == "ok"][:room]
            lists += [list(map(sys.intern, row["categories"])) for row in made]  # a name is held once
            anomalous += [row["anomalous"] for row in made]
            groups += [row["group"] for row in made]
    return {source: measured(*columns) for source, columns in sorted(rows.items()) if columns[0]}


def of_reports(folder: Folder, reports: Iterable[ShardReport]) -> dict[str, Shortcut]:
    """The audit of the corpus whose shards are `reports`, in any order."""
    ordered = sorted(reports, key=lambda report: (SPLITS.index(report.split), report.source, report.index))
    return stored(folder, [(report.source, report.manifest.path) for report in ordered])
