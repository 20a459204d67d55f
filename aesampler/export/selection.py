"""Which samples an export takes, and what it tells when it is done."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from aesampler.corpus import Corpus
from aesampler.errors import CorpusError
from aesampler.head import SourceHead
from aesampler.manifest import SampleRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written: samples of the corpus, and files beside `export.json`."""

    samples: int
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A part of a corpus. split, source: None takes all. limit: at most so many samples of each source in each split:
    its first ones, which are a fair draw because shards are in hash order.
    """

    split: str | None = None
    source: str | None = None
    limit: int | None = None

    def check(self, corpus: Corpus) -> None:
        """Raises CorpusError where the corpus has no such split or source, or not the one in the other."""
        for kind, wanted, there in (("split", self.split, corpus.splits), ("source", self.source, corpus.sources)):
            if wanted is not None and wanted not in there:
                raise CorpusError(
                    f"no such {kind}", where=corpus.folder.url, got=wanted, allowed=", ".join(there) or "none"
                )
        if self.limit is not None and self.limit < 1:
            raise CorpusError("a limit is at least 1", got=self.limit)
        if not any(head.samples for _, _, head in self.parts(corpus)):
            raise CorpusError("nothing is selected", where=corpus.folder.url, got=f"{self.source} in {self.split}")

    def parts(
        self, corpus: Corpus, kind: Literal["image", "clip"] | None = None
    ) -> Iterator[tuple[str, str, SourceHead]]:
        """(split, source, its head), in the order of the corpus; `kind` of sample, None for both."""
        for split, source, head in corpus.head.parts():
            if self.split in (None, split) and self.source in (None, source) and kind in (None, head.kind):
                yield split, source, head

    def rows(self, corpus: Corpus, split: str, source: str) -> Iterator[SampleRow]:
        """The samples of one part."""
        return itertools.islice(corpus.rows(split, source), self.limit)

    def count(self, corpus: Corpus, kind: Literal["image", "clip"] | None = None) -> int:
        """How many samples are selected."""
        sizes = (head.samples for _, _, head in self.parts(corpus, kind))
        return sum(size if self.limit is None else min(size, self.limit) for size in sizes)
