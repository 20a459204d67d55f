"""One shard: its manifest, its tar read through, and again by the offsets of the rows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any, BinaryIO

from aesampler import manifest, shard
from aesampler.corpus import Corpus
from aesampler.errors import CorpusError
from aesampler.manifest import ManifestEntry, SampleRow, ShardEntry, ShardReport
from aesampler.verify import samples
from aesampler.verify.findings import Findings, differs
from aesampler.verify.samples import Bench


def rows_of(
    corpus: Corpus, entry: ManifestEntry, tars: dict[str, ShardEntry], reports: list[ShardReport], findings: Findings
) -> list[SampleRow]:
    """The rows of a manifest that are samples; its report goes to `reports`."""
    try:
        data = corpus.folder.read(entry.path)
    except FileNotFoundError:
        findings.look("manifests", entry.path, "missing")
        return []
    try:
        report = ShardReport.of_parquet(data, entry.path)
        rows = manifest.read_rows(io.BytesIO(data), entry.path)
    except CorpusError as error:
        findings.look("manifests", entry.path, error.what)
        return []
    reports.append(report)
    tar = tars.get(report.path)
    stated = ShardEntry(path=report.path, samples=report.samples, bytes=report.bytes, sha256=report.sha256)
    findings.look(
        "manifests",
        entry.path,
        differs("sha256", report.manifest.sha256, entry.sha256) if report.manifest != entry else None,
        "its rows are of another split or source"
        if any((r.split, r.source) != (report.split, report.source) for r in rows)
        else None,
        f"corpus.json does not know its tar {report.path}" if report.path and tar is None else None,
        "it says something else of its tar than corpus.json" if tar is not None and tar != stated else None,
    )
    return [row for row in rows if row.status == "ok"]


def look_through(bench: Bench, tar: ShardEntry, rows: Sequence[SampleRow]) -> None:
    """Look at a tar and at each of its samples. rows: those of its manifest."""
    findings, folder = bench.findings, bench.corpus.folder
    count, broken = 0, None
    try:
        file = folder.open(tar.path)
    except FileNotFoundError:
        findings.look("tars", tar.path, "missing")
        return
    with file:
        hashed = _Hashed(file)
        through = io.BufferedReader(hashed, 1 << 20)
        try:
            for count, (block, members) in enumerate(shard.iter_blocks(through), start=1):
                if count <= len(rows):
                    _placed(bench, tar, rows[count - 1], count - 1, block, members)
                    samples.look_at(bench, rows[count - 1], members)
        except CorpusError as error:
            broken = f"not a tar of samples after {count} of them: {error}"
        while through.read(1 << 20):
            pass
    findings.look(
        "tars",
        tar.path,
        broken,
        None if hashed.bytes == tar.bytes else differs("its size", hashed.bytes, tar.bytes),
        None if hashed.digest.hexdigest() == tar.sha256 else differs("sha256", hashed.digest.hexdigest(), tar.sha256),
        None if broken or count == tar.samples else differs("the number of its samples", count, tar.samples),
        None if len(rows) == tar.samples else differs("the number of its rows", len(rows), tar.samples),
    )


def _placed(
    bench: Bench, tar: ShardEntry, row: SampleRow, place: int, block: shard.Block, members: dict[str, bytes]
) -> None:
    """Whether the block that comes at `place` is that of `row`, and is what reading by offset gives."""
    stated = (row.key, row.shard, row.index, row.offset, row.size)
    got = (block.key, tar.path, place, block.offset, block.size)
    wrong = None if stated == got else differs("its place (key, shard, index, offset, size)", got, stated)
    if wrong is None:
        try:
            same = bench.corpus.members(row) == members
            wrong = None if same else "reading by offset gives other members"
        except CorpusError as error:
            wrong = f"reading by offset fails: {error}"
    bench.findings.look("offsets", f"{tar.path}: {row.key}", wrong)


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read through."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.bytes, self.digest = file, 0, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = self.file.read(len(into))
        into[: len(data)] = data
        self.bytes += len(data)
        self.digest.update(data)
        return len(data)
