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
        pa.field("kin", pa.list_(pa.string()), nullable=False),
        pa.field("alike", pa.list_(pa.string()), nullable=False),
        pa.field("supercategory", pa.string(), nullable=False),
        pa.field("synset", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """One row of a vocabulary.

    count: records in which the name has a mask that may be exposed. weight: the chance, times the number of records,
    that "another record uniformly, then one of its names uniformly" gives it: the sum over its records of 1 / names in
    that record. near: names that may be said of the same thing, or are too similar to be told apart. kin: names often
    taken for it (see `aesampler.relations`). alike: the names most similar to it that are not too similar, where hard
    negatives are drawn by similarity. supercategory, synset: see `Category`.
    """

    name: str
    aliases: tuple[str, ...] = ()
    count: int = 0
    weight: float = 0.0
    near: frozenset[str] = frozenset()
    kin: frozenset[str] = frozenset()
    alike: frozenset[str] = frozenset()
    supercategory: str = ""
    synset: str = ""

    @classmethod
    def of(cls, category: Category, count: int, weight: float) -> Name:
        """The row of a category."""
        return cls(
            name=category.name,
            aliases=category.aliases,
            count=count,
            weight=weight,
            supercategory=category.supercategory,
            synset=category.synset,
        )


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
        by_size: dict[int, npt.NDArray[np.int64]] = {}
        for indices in records:
            if len(indices):
                where = np.asarray(indices)
                by_size.setdefault(len(indices), np.zeros(len(categories), dtype=np.int64))[where] += 1
        return cls.of_counts(categories, by_size)

    @classmethod
    def of_counts(cls, categories: Sequence[Category], by_size: Mapping[int, npt.NDArray[np.int64]]) -> Vocabulary:
        """The vocabulary of whole numbers, from which the weights come alike in whatever order records were counted.

        by_size: names in a record -> in how many such records each name is, int64 [categories].
        """
        weights = np.zeros(len(categories))
        for size in sorted(by_size):
            weights += by_size[size] / size
        counts = sum(by_size.values(), np.zeros(len(categories), dtype=np.int64))
        return cls(
            tuple(
                Name.of(category, count=int(counts[i]), weight=float(weights[i]))
                for i, category in enumerate(categories)
            )
        )

    @cached_property
    def _pools(self) -> dict[str, npt.NDArray[np.float64]]:
        return {
            "samples": np.array([entry.weight for entry in self.names]),
            "balanced": self._fillers(),
            "categories": np.ones(len(self.names)),
        }

    def weights(self, irrelevant_from: IrrelevantFrom) -> npt.NDArray[np.float64]:
        """The law of one draw before anything is rejected: float64 [names], not normalised; 0 where a name is never
        drawn.

        samples: another record, then one of its names (LAVIDA eq. 1). balanced: of the names that stand for no genuine
        one, see `aesampler.exposure`. categories: uniform over the names.
        """
        return self._pools[irrelevant_from]

    def odds(self, one: bool) -> npt.NDArray[np.float64]:
        """How often a name is genuine in a record, to how often it is not: float64 [names]; 0 where it never is.

        one: where one name of a record is genuine, uniformly, else all. A share above 0.95 counts as 0.95.
        """
        return self._odds[one]

    @cached_property
    def _odds(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        count = np.array([float(entry.count) for entry in self.names])
        weight = np.array([entry.weight for entry in self.names])
        records = max(float(weight.sum()), 1.0)
        every, one = (np.minimum(part / records, 0.95) for part in (count, weight))
        return every / (1 - every), one / (1 - one)

    def _fillers(self) -> npt.NDArray[np.float64]:
        odds = self.odds(one=False)
        drawn = odds > 0
        law = np.zeros(len(odds))
        if drawn.any():
            law[drawn] = 1 / (odds[drawn] + odds[drawn].mean())
        return law

    def merged(self, other: Vocabulary) -> Vocabulary:
        """Both together, as for two entries of one source: counts and weights add up, new names come last. Relations
        are those of the whole, so they are found afterwards.
        """
        found = {entry.name: entry for entry in self.names}
        for two in other.names:
            one = found.get(two.name, Name(name=two.name))
            found[two.name] = Name(
                name=one.name,
                aliases=tuple(dict.fromkeys(one.aliases + two.aliases)),
                count=one.count + two.count,
                weight=one.weight + two.weight,
                supercategory=one.supercategory or two.supercategory,
                synset=one.synset or two.synset,
            )
        return Vocabulary(tuple(found.values()))

    def with_near(self, near: Sequence[frozenset[str]]) -> Vocabulary:
        """The same names, the i-th with near[i] added to its near names."""
        return self._with("near", near)

    def with_kin(self, kin: Sequence[frozenset[str]]) -> Vocabulary:
        """The same names, the i-th with kin[i] added to its kin."""
        return self._with("kin", kin)

    def with_alike(self, alike: Sequence[frozenset[str]]) -> Vocabulary:
        """The same names, the i-th with alike[i] added to those like it."""
        return self._with("alike", alike)

    def _with(self, field: str, sets: Sequence[frozenset[str]]) -> Vocabulary:
        pairs = zip(self.names, sets, strict=True)
        return Vocabulary(tuple(replace(entry, **{field: getattr(entry, field) | added}) for entry, added in pairs))

    def near(self, names: Iterable[str]) -> frozenset[str]:
        """Names near any of `names`."""
        return self._union("near", names)

    def kin(self, names: Iterable[str]) -> frozenset[str]:
        """Names that are kin of any of `names`."""
        return self._union("kin", names)

    def alike(self, names: Iterable[str]) -> frozenset[str]:
        """Names that are like any of `names`."""
        return self._union("alike", names)

    def siblings(self, names: Iterable[str]) -> frozenset[str]:
        """Names that share a supercategory with any of `names`, and these."""
        places = [self.index[name] for name in names if name in self.index]
        wanted = {self.names[place].supercategory for place in places} - {""}
        return frozenset(name for group in wanted for name in self._supercategories[group])

    @cached_property
    def _supercategories(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for entry in self.names:
            found.setdefault(entry.supercategory, []).append(entry.name)
        return found

    def _union(self, field: str, names: Iterable[str]) -> frozenset[str]:
        places = (self.index.get(name) for name in names)
        return frozenset().union(*(getattr(self.names[place], field) for place in places if place is not None))

    def write(self, sink: BinaryIO) -> None:
        """As Parquet, one row a name; equal vocabularies give equal bytes."""
        rows = [
            {
                "name": n.name,
                "aliases": list(n.aliases),
                "count": n.count,
                "weight": n.weight,
                "near": sorted(n.near),
                "kin": sorted(n.kin),
                "alike": sorted(n.alike),
                "supercategory": n.supercategory,
                "synset": n.synset,
            }
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
            table = pq.ParquetFile(source).read()
        except (pa.ArrowInvalid, ValueError) as error:
            raise CorpusError(f"not a vocabulary: {error}", where=where) from error
        if table.schema.names != SCHEMA.names:
            raise CorpusError(
                "not a vocabulary that this version reads",
                where=where,
                got=", ".join(table.schema.names),
                allowed=", ".join(SCHEMA.names),
                do="read it with the aesampler that wrote it",
            )
        return cls(
            tuple(
                Name(
                    name=r["name"],
                    aliases=tuple(r["aliases"]),
                    count=r["count"],
                    weight=r["weight"],
                    near=frozenset(r["near"]),
                    kin=frozenset(r["kin"]),
                    alike=frozenset(r["alike"]),
                    supercategory=r["supercategory"],
                    synset=r["synset"],
                )
                for r in table.to_pylist()
            )
        )
