"""A corpus on disk or in an object store, read by place or by key.

What `Corpus.open` holds is `corpus.json`; the rows of a shard are read when a sample of it is asked for, and the last
few are kept. `corpus[17]` needs no index: the counts in `corpus.json` say which shard it is. `corpus["key"]` builds one
the first time, 16 bytes a sample: sorted 64-bit hashes of the keys, each with its place. A hash that two keys share
costs one row more to look at, never a wrong sample.

The order of samples is that of the shards: train, validation, test; in a split the sources by name, in a source the
shards by number, in a shard as in the tar.
"""

from __future__ import annotations

import bisect
import difflib
import heapq
import io
import itertools
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from aesampler import manifest, rng, shard
from aesampler.errors import CorpusError
from aesampler.exposure import ExposureSettings
from aesampler.head import HEAD, PLAN, CorpusHead, SourceHead
from aesampler.manifest import ManifestEntry, SampleRow
from aesampler.sample import Sample
from aesampler.storage import Folder
from aesampler.stream import Settings, Stream
from aesampler.vocabulary import Vocabulary

OPEN_MANIFESTS = 8
"""Manifests whose rows are kept at hand, some 2 MB each at 1,000 samples a shard."""


class Corpus:
    """A whole corpus, opened for reading: `len`, `corpus[17]`, `corpus["key"]`, `rows()`, `keys()`,
    `vocabulary(source)`, `stream(split)`.

    Threads may share one; it may be pickled, and then holds its address and head only.
    """

    def __init__(self, folder: Folder, head: CorpusHead) -> None:
        self.folder = folder
        self.head = head
        self._manifests = [
            (split, source, entry, held) for split, source, part in head.parts() for entry, held in _held(part)
        ]
        self._ends = list(itertools.accumulate(held for *_, held in self._manifests))
        self._recent: OrderedDict[str, tuple[SampleRow, ...]] = OrderedDict()
        self._index: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None
        self._vocabularies: dict[str, Vocabulary] = {}

    @classmethod
    def open(cls, url: str | os.PathLike[str] | Folder) -> Corpus:
        """The corpus at a path or URL. Raises CorpusError: no such folder, no corpus, a build that has not ended."""
        folder = url if isinstance(url, Folder) else Folder.at(url)
        try:
            return cls(folder, CorpusHead.read(folder))
        except FileNotFoundError:
            raise _missing(folder) from None

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.folder, self.head)

    def __repr__(self) -> str:
        return f"<Corpus {self.head.name}: {len(self):,} samples in {self.folder}>"

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that hold something: of train, validation, test, in this order."""
        return tuple(self.head.splits)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources, sorted."""
        return self.head.sources

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(row) for row in self.rows())

    def __getitem__(self, which: int | str) -> Sample:
        """The sample at a place, or of a key. Raises IndexError; CorpusError where no sample has the key."""
        return self.sample(self.row(which))

    def row(self, which: int | str) -> SampleRow:
        """The manifest's row of the sample at a place, or of a key. Raises as `corpus[which]` does."""
        if isinstance(which, str):
            return self._found(which)
        place = which + len(self) if which < 0 else which
        if not 0 <= place < len(self):
            raise IndexError(f"sample {which} of a corpus of {len(self)}")
        number = bisect.bisect_right(self._ends, place)
        *_, entry, held = self._manifests[number]
        rows = self._rows(entry)
        if len(rows) != held:
            where = f"{self.folder}/{entry.path}"
            raise CorpusError("the manifest contradicts corpus.json", where=where, got=len(rows), allowed=held)
        return rows[place - self._ends[number] + held]

    def members(self, row: SampleRow) -> dict[str, bytes]:
        """The files of a sample, by extension, read by its offset. Raises CorpusError where the tar holds something
        else.
        """
        where = f"{self.folder}/{row.shard} at {row.offset}"
        do = "see `aesampler verify`; the recipe's build makes a shard that was lost again"
        try:
            key, members = shard.read_block(self.folder.read_range(row.shard, row.offset, row.size))
        except FileNotFoundError as error:
            raise CorpusError("a shard is gone", where=f"{self.folder}/{row.shard}", do=do) from error
        except CorpusError as error:
            raise CorpusError(f"sample {row.key} cannot be used: {error.what}", where=where, do=do) from error
        if key != row.key:
            raise CorpusError("the tar holds another sample here", where=where, got=key, allowed=row.key)
        return members

    def sample(self, row: SampleRow) -> Sample:
        """The sample of a row."""
        return Sample.decode(row.key, self.members(row))

    def keys(self, split: str | None = None, source: str | None = None) -> Iterator[str]:
        """The keys of the samples, in order."""
        for _, table in self.tables(["key", "status"], split, source):
            yield from _ok(table).column("key").to_pylist()

    def rows(
        self, split: str | None = None, source: str | None = None, status: manifest.Status | None = "ok"
    ) -> Iterator[SampleRow]:
        """The manifest's rows, one shard at a time; status None gives what failed and was skipped too."""
        for _, table in self.tables(None, split, source):
            yield from (row for row in manifest.rows_of(table) if status is None or row.status == status)

    def tables(
        self, columns: Sequence[str] | None = None, split: str | None = None, source: str | None = None
    ) -> Iterator[tuple[ManifestEntry, pa.Table]]:
        """Each manifest's rows as an Arrow table, all columns or those named: the fast way through many rows."""
        self._check(split, source)
        for of_split, of_source, entry, _ in self._manifests:
            if split in (None, of_split) and source in (None, of_source):
                yield entry, self._table(entry, columns)

    def pick(self, seed: int, count: int, anomalous: bool) -> list[str]:
        """`count` keys of anomalous, or of normal, samples: a draw keyed by `seed`, without replacement."""

        def hashes() -> Iterator[tuple[int, str]]:
            for _, table in self.tables(["key", "status", "anomalous"]):
                wanted = _ok(table)
                flags = wanted.column("anomalous").to_pylist()
                for key, flag in zip(wanted.column("key").to_pylist(), flags, strict=True):
                    if flag == anomalous:
                        yield rng.order(seed, "look", key), key

        return [key for _, key in heapq.nsmallest(count, hashes())]

    def vocabulary(self, source: str) -> Vocabulary:
        """The names of a source, as the build drew from them."""
        self._check(None, source)
        if source not in self._vocabularies:
            path = f"vocabulary/{source}.parquet"
            where = f"{self.folder}/{path}"
            try:
                data = self.folder.read(path)
            except FileNotFoundError as error:
                raise CorpusError("the vocabulary is gone", where=where) from error
            try:
                self._vocabularies[source] = Vocabulary.read(io.BytesIO(data), where)
            except OSError as error:  # what pyarrow makes of broken pages
                raise CorpusError(f"not a vocabulary: {error}", where=where) from error
        return self._vocabularies[source]

    def settings(self, split: str, source: str) -> ExposureSettings:
        """The exposure settings that the samples of a source in a split were drawn with."""
        recipe = self.head.recipe
        for entry in recipe["sources"]:
            if entry["name"] == source and (entry["split"] == split or split in entry["split"]):
                return ExposureSettings.model_validate(recipe["exposure"] | entry["exposure"])
        raise CorpusError(
            "the stored recipe has no such source", where=f"{self.folder}/{HEAD}", got=f"{source}/{split}"
        )

    def stream(self, split: str, **options: Any) -> Stream:
        """The samples of a split in a keyed order, for one rank of several: see `stream.Settings` for the options.

        Raises CorpusError where an option, the split or a source of `weights` is none.
        """
        return Stream([self], split, Settings(**options))

    def _check(self, split: str | None, source: str | None) -> None:
        if split is not None and split not in self.splits:
            raise CorpusError("no such split", where=self.folder.url, got=split, allowed=", ".join(self.splits))
        if source is not None and source not in self.sources:
            raise CorpusError("no such source", where=self.folder.url, got=source, allowed=", ".join(self.sources))

    def _table(self, entry: ManifestEntry, columns: Sequence[str] | None) -> pa.Table:
        where = f"{self.folder}/{entry.path}"
        try:
            data = self.folder.read(entry.path)
        except FileNotFoundError as error:
            raise CorpusError("the manifest of a shard is gone", where=where, do="see `aesampler verify`") from error
        return manifest.read_table(io.BytesIO(data), columns, where)

    def _rows(self, entry: ManifestEntry) -> tuple[SampleRow, ...]:
        """The samples of one manifest, in shard order."""
        rows = self._recent.pop(entry.path, None)
        if rows is None:
            rows = tuple(row for row in manifest.rows_of(self._table(entry, None)) if row.status == "ok")
        self._recent[entry.path] = rows
        while len(self._recent) > OPEN_MANIFESTS:
            self._recent.popitem(last=False)
        return rows

    def _found(self, key: str) -> SampleRow:
        if self._index is None:
            hashes = np.fromiter((rng.order("key", known) for known in self.keys()), dtype=np.int64, count=len(self))
            places = np.argsort(hashes, kind="stable")
            self._index = hashes[places], places
        hashes, places = self._index
        wanted = rng.order("key", key)
        first, last = np.searchsorted(hashes, [wanted, wanted + 1])
        for place in places[first:last]:
            row = self.row(int(place))
            if row.key == key:
                return row
        close = difflib.get_close_matches(key, itertools.islice(self.keys(), 2000), n=1)
        raise CorpusError(
            "no sample has this key",
            where=self.folder.url,
            got=key,
            do=f"did you mean {close[0]}?" if close else "keys are in the manifest, manifest/SPLIT/*.parquet",
        )


def _held(part: SourceHead) -> Iterator[tuple[ManifestEntry, int]]:
    """Each manifest of a source with the number of samples in its shard."""
    samples = {_stem(entry.path): entry.samples for entry in part.shards}
    for entry in part.manifests:
        yield entry, samples.get(_stem(entry.path), 0)


def _stem(path: str) -> str:
    return path.removeprefix("manifest/").rpartition(".")[0]


def _ok(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table.column("status"), "ok"))


def _missing(folder: Folder) -> CorpusError:
    if folder.exists(PLAN):
        return CorpusError(
            "the build of this corpus has not ended",
            where=folder.url,
            do="run the same `aesampler build` again: it goes on where it stopped",
        )
    if not folder.exists():
        return CorpusError("no such folder", where=folder.url, do="give the folder of a corpus")
    return CorpusError(
        f"this is no corpus: it has no {HEAD}", where=folder.url, do="give the folder that `aesampler build` wrote"
    )
