"""What the other sources of a recipe say of the same picture or video.

COCO, LVIS, refCOCO and COCO-Stuff annotate the same photographs, and each knows what the others do not: LVIS says
nothing of most names of a picture in which COCO has marked them. So where a recipe mixes sources, a name that one of
them finds in a group, and every name near it (see `aesampler.relations`), is `elsewhere` in the records that the others
have of that group: never irrelevant there, whatever `absence` says. Of an absence nothing is passed on.

All of a source counts, whatever its `limit` and its splits: a sample's draw does not change when a recipe takes more or
fewer records. A recipe whose sources share no group is left as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from aesampler.catalog import SCHEMA, Catalog
from aesampler.relations import Relations, WordNet
from aesampler.storage import Folder
from aesampler.vocabulary import Name

PRESENT = ("masked", "ignored", "incomplete", "elsewhere")
"""The columns of a catalog that name what is present in a record."""

Named = Mapping[str, frozenset[int]]
"""Group -> places in a source's categories."""


def shared(catalogs: Sequence[Catalog], wordnet: WordNet | None, *, cache: Folder | None = None) -> list[Catalog]:
    """Each catalog, with what the others know of its groups; one that shares none, or none but with itself, as it is.

    Of several sources, the groups of all are held in memory.
    """
    if len({catalog.folder for catalog in catalogs}) < 2:
        return list(catalogs)
    groups = [_groups(catalog) for catalog in catalogs]
    found = []
    for place, own in enumerate(catalogs):
        extra: dict[str, set[int]] = {}
        for other_place, other in enumerate(catalogs):
            if other.folder == own.folder:
                continue
            common = groups[place].filter(pc.is_in(groups[place], value_set=groups[other_place]))
            if len(common):
                _add(extra, _present(other, common), _meant(own, other, wordnet))
        told = {group: frozenset(names) for group, names in extra.items() if names}
        found.append(own.revised(_digest(told), partial(_revised, told=told), cache=cache) if told else own)
    return found


def _groups(catalog: Catalog) -> pa.Array:
    chunks = [batch["group"] for batch in catalog.columns(["group"])]
    return pc.unique(pa.chunked_array(chunks, pa.string()))


def _present(catalog: Catalog, groups: pa.Array) -> dict[str, set[int]]:
    """What `catalog` finds in `groups`."""
    found: dict[str, set[int]] = {}
    for batch in catalog.columns(["group", *PRESENT]):
        table = pa.Table.from_batches([batch]).filter(pc.is_in(batch["group"], value_set=groups))
        columns = [table[name].to_pylist() for name in PRESENT]
        for group, *names in zip(table["group"].to_pylist(), *columns, strict=True):
            found.setdefault(group, set()).update(*names)
    return found


def _meant(own: Catalog, other: Catalog, wordnet: WordNet | None) -> list[frozenset[int]]:
    """For each category of `other`, the places of those of `own` that are the same, or near."""
    names = [Name.of(category, count=0, weight=0.0) for catalog in (own, other) for category in catalog.categories]
    places = {category.name: place for place, category in enumerate(own.categories)}
    near = Relations.of(names, wordnet).near[len(own.categories) :]
    return [
        frozenset(places[name] for name in {category.name, *close} if name in places)
        for category, close in zip(other.categories, near, strict=True)
    ]


def _add(extra: dict[str, set[int]], present: Mapping[str, set[int]], meant: Sequence[frozenset[int]]) -> None:
    for group, names in present.items():
        extra.setdefault(group, set()).update(*(meant[name] for name in names))


def _digest(told: Named) -> str:
    digest = hashlib.sha256()
    for group in sorted(told):
        digest.update(f"{group}\0{sorted(told[group])}\n".encode())
    return digest.hexdigest()


def _revised(rows: pa.Table, told: Named) -> pa.Table:
    """Rows of a catalog with what is `told` of their groups."""
    groups = rows["group"].to_pylist()
    if not any(group in told for group in groups):
        return rows
    columns = {name: rows[name].to_pylist() for name in (*PRESENT, "absent")}
    for place, group in enumerate(groups):
        marked = {name for kind in PRESENT[:-1] for name in columns[kind][place]}
        more = told.get(group, frozenset()) - marked
        columns["elsewhere"][place] = sorted(more.union(columns["elsewhere"][place]))
        columns["absent"][place] = sorted(set(columns["absent"][place]) - more)
    for name in ("elsewhere", "absent"):
        column = pa.array(columns[name], SCHEMA.field(name).type)
        rows = rows.set_column(rows.column_names.index(name), SCHEMA.field(name), column)
    return rows
