"""The names of a source: how often each occurs, which may stand in for which, and the weights that irrelevant names are
drawn by.

Counted over every record of the source, before splits and limits: a sample's draw does not change when a recipe takes
more or fewer records. Stored as `vocabulary/<source>.parquet`, one row a name: all that a reader needs, with the
`redraw` string, to draw again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from aesampler.errors import CorpusError, SourceError
from aesampler.record import Category

IrrelevantFrom = Literal["samples", "categories", "balanced"]

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("aliases", pa.list_(pa.string()), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("near", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """One row of a vocabulary.

    count: records in which the name has a mask that may be exposed. weight: the chance, times the number of records,
    that "another record uniformly, then one of its names uniformly" gives it: the sum over its records of 1 / names in
    that record. near: names too similar to be told apart.
    """

    name: str
    aliases: tuple[str, ...] = ()
    count: int = 0
    weight: float = 0.0
    near: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Vocabulary:
    """The names of one source, in the source's own order. Raises SourceError where two names are equal."""

    names: tuple[Name, ...]
    index: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, int] = {}
        for place, entry in enumerate(self.names):
            if index.setdefault(entry.name, place) != place:
                raise SourceError(f"two categories are called {entry.name!r}", do="names of one source must differ")
        object.__setattr__(self, "index", index)

    @classmethod
    def count(cls, categories: Sequence[Category], records: Iterable[Sequence[int]]) -> Vocabulary:
        """Count `records`, each the indices (into `categories`) of the names with a mask in one record."""
        counts = np.zeros(len(categories), dtype=np.int64)
        # Counted by (name, names in the record), in whole numbers, so that the weights do not depend on the order of
        # the records.
        by_size: dict[int, npt.NDArray[np.int64]] = {}
        for indices in records:
            if len(indices):
                where = np.asarray(indices)
                counts[where] += 1
                by_size.setdefault(len(indices), np.zeros(len(categories), dtype=np.int64))[where] += 1
        weights = np.zeros(len(categories))
        for size in sorted(by_size):
            weights += by_size[size] / size
        return cls(
            tuple(
                Name(name=category.name, aliases=category.aliases, count=int(counts[i]), weight=float(weights[i]))
                for i, category in enumerate(categories)
            )
        )

    @cached_property
    def _pools(self) -> dict[str, npt.NDArray[np.float64]]:
        return {
            "samples": np.array([entry.weight for entry in self.names]),
            "balanced": np.array([float(entry.count) for entry in self.names]),
            "categories": np.ones(len(self.names)),
        }

    def weights(self, irrelevant_from: IrrelevantFrom) -> npt.NDArray[np.float64]:
        """The law of one draw before anything is rejected: float64 [names], not normalised; 0 where a name is never
        drawn.

        samples: another record, then one of its names (LAVIDA eq. 1). balanced: as often as a name is genuine.
        categories: uniform over the names.
        """
        return self._pools[irrelevant_from]

    def merged(self, other: Vocabulary) -> Vocabulary:
        """Both together, as for two entries of one source: counts and weights add up, new names come last."""
        mine = {entry.name: entry for entry in self.names}
        theirs = {entry.name: entry for entry in other.names}
        nothing = Name(name="")
        return Vocabulary(
            tuple(
                Name(
                    name=name,
                    aliases=tuple(dict.fromkeys(mine.get(name, nothing).aliases + theirs.get(name, nothing).aliases)),
                    count=mine.get(name, nothing).count + theirs.get(name, nothing).count,
                    weight=mine.get(name, nothing).weight + theirs.get(name, nothing).weight,
                )
                for name in mine | theirs
            )
        )

    def with_near(self, near: Sequence[frozenset[str]]) -> Vocabulary:
        """The same names, the i-th with near[i] as the names too similar to it."""
        return Vocabulary(tuple(replace(entry, near=close) for entry, close in zip(self.names, near, strict=True)))

    def near(self, names: Iterable[str]) -> frozenset[str]:
        """Names too similar to any of `names`; without them."""
        close: set[str] = set()
        for name in names:
            place = self.index.get(name)
            if place is not None:
                close |= self.names[place].near
        return frozenset(close)

    def write(self, sink: BinaryIO) -> None:
        """As Parquet, one row a name; equal vocabularies give equal bytes."""
        rows = [
            {"name": n.name, "aliases": list(n.aliases), "count": n.count, "weight": n.weight, "near": sorted(n.near)}
            for n in self.names
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), sink, compression="zstd")

    def sha256(self) -> str:
        """Hash of the bytes that `write` makes."""
        sink = io.BytesIO()
        self.write(sink)
        return hashlib.sha256(sink.getvalue()).hexdigest()

    @classmethod
    def read(cls, source: BinaryIO, where: str = "vocabulary") -> Vocabulary:
        """The vocabulary of a Parquet file. Raises CorpusError where the file is none."""
        try:
            table = pq.read_table(source, schema=SCHEMA)
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise CorpusError(f"not a vocabulary: {error}", where=where) from error
        return cls(
            tuple(
                Name(
                    name=r["name"],
                    aliases=tuple(r["aliases"]),
                    count=r["count"],
                    weight=r["weight"],
                    near=frozenset(r["near"]),
                )
                for r in table.to_pylist()
            )
        )
