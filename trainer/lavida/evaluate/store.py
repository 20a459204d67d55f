"""The scores of a run on disk: a unit is there whole or not at all, so a stopped run goes on where it was.

    OUT/scores/DETECTOR/scoring.json              what the scores depend on (`Settings.scoring`)
    OUT/scores/DETECTOR/VIDEO.parquet             frame, score, label, part.NAME: the done-mark, written last
    OUT/scores/DETECTOR/VIDEO.pixels.parquet      score, positives, negatives: the pixels, counted (`PixelAuc.state`)
    OUT/scores/DETECTOR/VIDEO.details.jsonl       what the detector tells of itself

Of a class the files lie in a folder CLASS. The table is made from these files alone, in the benchmark's order: it is
the same however often the run was stopped, and wherever the videos were scored. Only the labels of a user's own set are
read anew, from its table of intervals, which may have been corrected.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from aesampler.errors import CorpusError
from aesampler.storage import Folder
from lavida.evaluate.scoring import Unit, VideoScores, to_json
from lavida.metrics import PixelAuc

SCORES, PIXELS, DETAILS = ".parquet", ".pixels.parquet", ".details.jsonl"
_PART = "part."
_FORMAT = 1

Encoded = dict[str, bytes]
"""A unit's files: ending -> content, the done-mark last."""


class Store:
    """The scores of one detector on one benchmark. folder: OUT/scores/DETECTOR."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def open(self, scoring: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Begin, or go on. Raises CorpusError where the folder holds scores that were made otherwise."""
        if fresh:
            self.folder.remove_tree("")
        wanted = {"format": _FORMAT, **scoring}
        if not self.folder.put_if_absent("scoring.json", (json.dumps(wanted, indent=2) + "\n").encode()):
            held = json.loads(self.folder.read("scoring.json"))
            differ = sorted(key for key in wanted.keys() | held.keys() if wanted.get(key) != held.get(key))
            if differ:
                first = differ[0]
                raise CorpusError(
                    f"this folder holds scores that were made with other settings ({', '.join(differ)})",
                    where=self.folder.url,
                    got=f"{first} {to_json(wanted.get(first))}",
                    allowed=to_json(held.get(first)),
                    do="give another --out, or --fresh to start over",
                )
        self.folder.sweep_temporaries()

    def missing(self, units: Iterable[Unit]) -> list[Unit]:
        """The units that are not there yet."""
        there = self.folder.list().keys()
        return [unit for unit in units if unit.stem + SCORES not in there]

    def put(self, unit: Unit, files: Encoded) -> None:
        """Save a unit."""
        for ending, content in files.items():
            self.folder.commit_bytes(unit.stem + ending, content)

    def get(self, unit: Unit) -> VideoScores:
        """A unit as it was saved, without pixels and details."""
        table = pq.read_table(io.BytesIO(self.folder.read(unit.stem + SCORES)))
        notes = json.loads((table.schema.metadata or {}).get(b"notes", b"{}"))
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        parts = {name.removeprefix(_PART): values for name, values in columns.items() if name.startswith(_PART)}
        return VideoScores(scores=columns["score"], labels=columns["label"], parts=parts, notes=notes)

    def pixels(self, unit: Unit) -> PixelAuc | None:
        """The counted pixels of a unit; None where there are none."""
        try:
            content = self.folder.read(unit.stem + PIXELS)
        except FileNotFoundError:
            return None
        table = pq.read_table(io.BytesIO(content))
        state = {name: table.column(name).to_numpy() for name in ("scores", "positives", "negatives")}
        moved = json.loads(table.schema.metadata[b"moved"])
        return PixelAuc.from_state(state | {"moved": np.asarray(moved, dtype=np.int64)})


def encode(done: VideoScores) -> Encoded:
    """The files of a unit."""
    files: Encoded = {}
    if done.pixels is not None:
        state = done.pixels.state()
        moved = json.dumps(state.pop("moved").tolist())
        files[PIXELS] = _parquet(state, {"moved": moved})
    if done.details:
        files[DETAILS] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in done.details).encode()
    columns: dict[str, Any] = {
        "frame": np.arange(len(done.scores), dtype=np.int32),
        "score": done.scores,
        "label": done.labels,
    }
    columns |= {_PART + name: part for name, part in done.parts.items()}
    files[SCORES] = _parquet(columns, {"notes": to_json(dict(done.notes))})
    return files


def _parquet(columns: Mapping[str, Any], told: Mapping[str, str]) -> bytes:
    sink = io.BytesIO()
    table = pa.table(dict(columns)).replace_schema_metadata(dict(told))
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
