"""The whole corpus, a shard at a time: the head, the card, the vocabularies, and what shards.py and keys.py find."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence

from aesampler import shortcut
from aesampler.corpus import Corpus
from aesampler.errors import CorpusError
from aesampler.exposure import ExposureSettings
from aesampler.head import CARD, CROISSANT, HEAD, CorpusHead
from aesampler.manifest import ShardReport
from aesampler.report.card import data_card
from aesampler.report.croissant import croissant
from aesampler.verify import keys, shards
from aesampler.verify.findings import CHECKS, Check, Findings, Problem, Verdict
from aesampler.verify.samples import Bench

NEAR_AUC = 0.005

Progress = Callable[[str, int, int, int], object]
"""Told (what, done, total, bytes)."""


def verify(corpus: Corpus, deep: bool = False, progress: Progress | None = None) -> Verdict:
    """Look at all of `corpus`; `deep` see the module. Raises StorageError and OSError where it cannot be read."""
    findings = Findings()
    files = corpus.folder.list()
    reports: list[ShardReport] = []
    seen = keys.Seen()
    done = size = 0
    for split, source, part in corpus.head.parts():
        _vocabulary(corpus, source, findings)
        settings = _settings(corpus, split, source, findings)
        bench = Bench(corpus=corpus, source=source, part=part, settings=settings, deep=deep, findings=findings)
        tars = {entry.path: entry for entry in part.shards}
        for entry in part.manifests:
            rows = shards.rows_of(corpus, entry, tars, reports, findings)
            tar = tars.get(entry.path.removeprefix("manifest/").removesuffix(".parquet") + ".tar")
            seen.add(split, rows)
            keys.look_at_form(entry.path, rows, findings)
            if tar is not None:
                shards.look_through(bench, tar, rows)
                done, size = done + tar.samples, size + tar.bytes
                if progress is not None:
                    progress("samples", done, len(corpus), size)
    _head(corpus.head, reports, findings)
    _shortcut(corpus, reports, findings)
    keys.look_for_twins(corpus, seen, findings)
    keys.look_at_groups(corpus, seen, findings)
    _card(corpus, findings)
    foreign = sorted(files.keys() - _expected(corpus.head))
    return Verdict(
        corpus=corpus.folder.url,
        deep=deep,
        samples=len(corpus),
        checks=tuple(
            Check(name=name, about=about, looked=findings.looked[name], found=findings.found[name])
            for name, about in CHECKS.items()
        ),
        problems=tuple(findings.problems),
        warnings=tuple(Problem(check="files", where=path, what="does not belong to the corpus") for path in foreign),
    )


def _expected(head: CorpusHead) -> set[str]:
    paths = {HEAD, CARD, CROISSANT, *(f"vocabulary/{source}.parquet" for source in head.sources)}
    for _, _, part in head.parts():
        paths.update(entry.path for entry in part.shards)
        paths.update(entry.path for entry in part.manifests)
    return paths


def _head(head: CorpusHead, reports: Sequence[ShardReport], findings: Findings) -> None:
    recipe_sha256 = hashlib.sha256(json.dumps(head.recipe, sort_keys=True).encode()).hexdigest()
    try:
        again = CorpusHead.of(
            recipe=head.recipe,
            recipe_sha256=recipe_sha256,
            tools=head.tools,
            inputs=head.inputs,
            reports=reports,
            shortcut=head.shortcut,
        )
    except (CorpusError, KeyError, ValueError) as error:
        findings.look("head", HEAD, f"the manifests do not make a corpus: {error}")
        return
    parts = CorpusHead.__struct_fields__
    wrong = [name for name in parts if getattr(head, name) != getattr(again, name)]
    findings.look("head", HEAD, f"not the sum of the manifests: {', '.join(wrong)}" if wrong else None)


def _shortcut(corpus: Corpus, reports: Sequence[ShardReport], findings: Findings) -> None:
    """Whether the lists give away what corpus.json says; the last digits of an AUC may be another machine's."""
    if not corpus.head.shortcut:
        return
    again = shortcut.of_reports(corpus.folder, reports)
    for source, stated in corpus.head.shortcut.items():
        got = again.get(source)
        near = got is not None and abs((got.auc or 0.0) - (stated.auc or 0.0)) < NEAR_AUC
        same = got is not None and (got.samples, got.lengths) == (stated.samples, stated.lengths)
        findings.look("head", HEAD, None if near and same else f"shortcut of {source} is not that of the manifests")


def _card(corpus: Corpus, findings: Findings) -> None:
    """Another version of aesampler may word its card differently: then the files only have to be there."""
    same_tool = corpus.head.tools.get("aesampler") == importlib.metadata.version("aesampler")
    makers: dict[str, Callable[[], str]] = {
        CARD: lambda: data_card(corpus.head),
        CROISSANT: lambda: croissant(corpus.head, corpus.folder),
    }
    for path, make in makers.items():
        try:
            stored = corpus.folder.read(path)
            same = not same_tool or stored == make().encode()
        except FileNotFoundError as error:
            findings.look("card", path, f"missing: {error.filename or path}")
            continue
        findings.look("card", path, None if same else "not what corpus.json and the files beside it give")


def _settings(corpus: Corpus, split: str, source: str, findings: Findings) -> ExposureSettings | None:
    try:
        return corpus.settings(split, source)
    except (CorpusError, KeyError, TypeError, ValueError) as error:
        findings.look("head", HEAD, f"the recipe says nothing sound of {source}, {split}: {error}")
        return None


def _vocabulary(corpus: Corpus, source: str, findings: Findings) -> None:
    try:
        corpus.vocabulary(source)
        wrong = None
    except CorpusError as error:
        wrong = str(error.what)
    findings.look("vocabulary", f"vocabulary/{source}.parquet", wrong)
