"""A corpus in other forms, for the tools that do not read tars, or want something beside them.

    dali     the index `<shard>.idx` of each tar that NVIDIA DALI reads beside it
    coco     pictures in folders and COCO JSON: pycocotools, torchvision, Datumaro, FiftyOne, CVAT
    video    each clip as an mp4 with its masks painted over it, to be looked at

To add a kind: one file with one function, and its line in KINDS,

    def export(corpus: Corpus, out: Folder, selection: Selection, progress: Progress | None) -> Exported: ...

and, where it cannot always be done, `check(corpus, selection)`, which refuses before anything is written.

The corpus is only read. An export is a function of the corpus and the selection: equal ones give equal bytes, but for
videos, of which no encoder promises that. Files appear whole or not at all; `export.json`, the first of them, says what
the folder is, so that the same command may be given again after a crash and no other one writes into it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
from typing import Any

import msgspec

from aesampler.corpus import Corpus
from aesampler.errors import CorpusError, RecipeError
from aesampler.export.selection import Exported, Selection
from aesampler.head import HEAD
from aesampler.plan import Progress
from aesampler.storage import Folder

__all__ = ["CLAIM", "KINDS", "Exported", "Selection", "export"]

KINDS: dict[str, str] = {
    "coco": "aesampler.export.coco:export",
    "dali": "aesampler.export.dali:export",
    "video": "aesampler.export.video:export",
}
"""Kind -> "module:function"."""

CLAIM = "export.json"
"""What a folder of an export is, at its top."""


def export(
    kind: str, corpus: Corpus, out: Folder, selection: Selection | None = None, progress: Progress | None = None
) -> Exported:
    """Write `corpus`, or a part of it, into the folder `out` as `kind`.

    Raises RecipeError where there is no such kind, or not of this selection; MissingExtra where it needs a package that
    is not installed; CorpusError where `out` lies in the corpus or holds something else, where the corpus has no such
    split or source, or where nothing is selected; LockedError.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        do = f"did you mean {near[0]}?" if near else ""
        raise RecipeError(f"unknown kind of export {kind!r}", allowed=", ".join(KINDS), do=do)
    selection = selection or Selection()
    selection.check(corpus)
    inside, outside = f"{out.url}/", f"{corpus.folder.url}/"
    if inside.startswith(outside) or outside.startswith(inside):
        raise CorpusError(
            "an export may not share a folder with a corpus, whose files are fixed",
            where=out.url,
            got=corpus.folder.url,
            do="give another OUT",
        )
    name, _, function = KINDS[kind].partition(":")
    module = importlib.import_module(name)
    if hasattr(module, "check"):
        module.check(corpus, selection)
    write = getattr(module, function)
    with out.lock():
        _claim(kind, corpus, out, selection)
        done: Exported = write(corpus, out, selection, progress)
    return done


def _claim(kind: str, corpus: Corpus, out: Folder, selection: Selection) -> None:
    told: dict[str, Any] = {
        "kind": kind,
        "corpus": corpus.head.name,
        "corpus_sha256": hashlib.sha256(corpus.folder.read(HEAD)).hexdigest(),
        "selection": msgspec.to_builtins(selection),
    }
    claim = msgspec.json.format(msgspec.json.encode(told), indent=2) + b"\n"
    try:
        there = out.read(CLAIM)
    except FileNotFoundError:
        if held := next(iter(out.list()), None):
            raise CorpusError(
                "the folder holds something else", where=out.url, got=held, do="give an empty or a new folder"
            ) from None
        out.commit_bytes(CLAIM, claim)
        return
    if there != claim:
        raise CorpusError(
            "the folder holds another export", where=f"{out}/{CLAIM}", do="give an empty or a new folder, or remove it"
        )
