"""Counts and weights against a record-by-record count, and the Parquet that readers draw from."""

import io
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesampler.errors import CorpusError, SourceError
from aesampler.record import Category
from aesampler.vocabulary import Vocabulary

CATEGORIES = [Category(name=f"n{i}", origin=str(i), aliases=(f"alias {i}",)) for i in range(6)]
RECORDS = st.lists(st.sets(st.integers(0, 5), max_size=4).map(sorted), max_size=30)


@given(RECORDS)
def test_weights_are_the_law_of_a_record_then_a_name(records: list[list[int]]) -> None:
    names = Vocabulary.count(CATEGORIES, records)
    for place, entry in enumerate(names.names):
        assert entry.count == sum(place in record for record in records)
        law = sum((Fraction(1, len(record)) for record in records if place in record), Fraction(0))
        assert entry.weight == pytest.approx(float(law), rel=1e-12)
    again = Vocabulary.count(CATEGORIES, list(reversed(records)))
    assert again == names  # not even the last bit depends on the order


@given(RECORDS, RECORDS)
def test_two_entries_of_a_source_count_as_one(one: list[list[int]], other: list[list[int]]) -> None:
    merged = Vocabulary.count(CATEGORIES, one).merged(Vocabulary.count(CATEGORIES, other))
    whole = Vocabulary.count(CATEGORIES, one + other)
    assert [n.count for n in merged.names] == [n.count for n in whole.names]
    assert np.allclose(merged.weights("samples"), whole.weights("samples"))


def test_parquet_reads_back_and_is_plain() -> None:
    names = Vocabulary.count(CATEGORIES, [[0, 1], [1]]).with_near([frozenset({"n1"})] + [frozenset()] * 5)
    first, second = io.BytesIO(), io.BytesIO()
    names.write(first)
    names.write(second)
    assert first.getvalue() == second.getvalue()
    assert Vocabulary.read(io.BytesIO(first.getvalue())) == names
    table = pq.read_table(io.BytesIO(first.getvalue()))
    columns = "name aliases count weight near kin alike supercategory synset"
    assert table.column_names == columns.split()
    assert table["weight"].to_pylist() == [0.5, 1.5, 0, 0, 0, 0]
    assert names.near(["n0", "unheard of"]) == {"n1"}


def test_equal_names_are_refused() -> None:
    with pytest.raises(SourceError, match="two categories are called 'x'"):
        Vocabulary.count([Category(name="x", origin="1"), Category(name="x", origin="2")], [])


def test_another_table_is_refused() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"name": ["a"]}), sink)
    with pytest.raises(CorpusError, match="not a vocabulary that this version reads; got name;"):
        Vocabulary.read(io.BytesIO(sink.getvalue()))


def test_what_is_no_vocabulary_is_refused() -> None:
    with pytest.raises(CorpusError, match="not a vocabulary"):
        Vocabulary.read(io.BytesIO(b"no Parquet"))
