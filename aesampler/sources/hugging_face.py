"""Any dataset of Hugging Face `datasets` with an image column and a column of index maps.

    root: a folder that `save_to_disk` wrote, or Parquet files;   or hub: OWNER/NAME, and root is where it is kept

Rules. A map is an image whose pixels are indices (grey or palette); names, void and background are those of index-png.
The rows are read through Arrow, so pictures keep their bytes; a cell that holds a path and no bytes is a bad record.
`datasets` makes Arrow files of Parquet ones, in its own cache (HF_HOME). A dataset of the hub is read at a named
`revision` only: another one would be another dataset under the same name. No code of a dataset is run.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from aesampler import masks
from aesampler.errors import BadRecord, MissingExtra, SourceError
from aesampler.record import Record
from aesampler.sources import index_map, index_png
from aesampler.sources.index_map import IndexMap, Pair, Plane
from aesampler.sources.source import Kind, Survey
from aesampler.storage import Folder

PARTS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
BATCH = 256
_MAGIC = {b"\xff\xd8": "jpg", b"\x89P": "png"}


class HuggingFace(IndexMap):
    """Options: the dataset (hub, config, revision, or what lies at root), its columns, and what the indices mean."""

    format: ClassVar[str] = "hf"
    kind: ClassVar[Kind] = "image"
    summary: ClassVar[str] = "any Hugging Face dataset with an image column and a column of index maps"
    layout: ClassVar[str] = """\
ROOT/                                  one of
  dataset_dict.json, train/...         what DatasetDict.save_to_disk wrote
  dataset_info.json, state.json, ...   what Dataset.save_to_disk wrote
  data/train-00000-of-00001.parquet    Parquet files; those whose names say the part, where any does
  (empty)                              with hub: OWNER/NAME, revision: COMMIT: kept here
  names.yaml                           {1: road, 2: car}; or names: ["", road, car]
"""

    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$", description="a dataset of the hub, OWNER/NAME")
    revision: str | None = Field(default=None, description="its commit or tag; needed with hub")
    config: str | None = Field(default=None, description="its configuration, where it has several")
    part: str | None = Field(default=None, description="which of its splits; default: train, validation or test")
    image: str = Field(default="image", description="the column of pictures")
    mask: str = Field(default="mask", description="the column of index maps")
    id: str | None = Field(default=None, description="a column of ids; default: the number of the row")
    group: str | None = Field(
        default=None,
        description="a column that says which pictures belong together; values with a colon, as coco:139, are those of "
        "other sources too",
    )
    names: str | list[str] = Field(
        default="names.yaml",
        description="a file of names below root, see index-png; or a list, whose places are indices",
    )
    void: list[int] | None = Field(
        default=None, description="indices of pixels without a label, which may hide any name; default: 255 if unnamed"
    )
    background: list[int] | None = Field(
        default=None, description="indices of pixels that are none of the names; default: 0 if unnamed"
    )
    exhaustive: bool = Field(default=False, description="whether every name was looked for in every picture")

    def survey(self, root: Folder) -> Survey:
        """One record a row. All pictures' sizes in bytes are read, and each map when its record is asked for."""
        listed = isinstance(self.names, list)
        told = (
            {place: name for place, name in enumerate(self.names) if name.strip()}
            if isinstance(self.names, list)
            else index_png.read_names(root, self.names)
        )
        shown, legend = index_png.meanings(told, self.void, self.background)
        _open.cache_clear()  # what lies at root may have changed since
        table = self._table(root)
        self._check_columns(table.features, root)
        pairs, listing = [], {}
        part = self.part or self.subset
        rows = list(self._rows(table))
        # Two local datasets have the same numbers of rows, and other pictures.
        sizes = ",".join(str(size) for _, _, size, _ in rows)
        here = self.hub or hashlib.sha256(sizes.encode()).hexdigest()[:10]
        for row, (key, group, size, ending) in enumerate(rows):
            key = f"{row:08d}" if key is None else key
            frame = f"{part}/{row:08d}.{ending}"
            listing[frame] = size
            if not group:
                group = f"hf:{here}:{part}:{key}"
            elif ":" not in group:
                group = f"hf:{self.hub or 'local'}:group:{group}"  # of all parts
            pairs.append(Pair(key, group, frame, f"{part}/{row:08d}"))
        if not pairs:
            raise SourceError("the dataset has no rows", where=root.url, got=f"part {part}")
        made = index_map.survey(
            root,
            pairs,
            categories=shown,
            exhaustive=self.exhaustive,
            payload=lambda pair: index_map.payload_of(root, pair, legend, self._plane),
            listing=listing,
            files=(*([] if listed else [str(self.names)]), *([] if self.hub else _files(root, part))),
        )
        return replace(made, folders=())

    def pictures(self, root: Folder, record: Record, places: Sequence[int]) -> list[bytes]:
        """The bytes of the row's picture, as they are stored."""
        return [self._cell(root, self.image, record.frames[place]) for place in places]

    def _named_by(self) -> str:
        return self.names if isinstance(self.names, str) else "names"

    def _is_exhaustive(self) -> bool:
        return self.exhaustive

    def _plane(self, root: Folder, path: str) -> Plane:
        data = self._cell(root, self.mask, path)
        try:
            plane: Plane = masks.read_index(data)
        except BadRecord as error:
            raise BadRecord(error.what, where=f"{self.mask} of {path}", got=error.got) from error
        if plane.ndim != 2:
            raise BadRecord("a coloured map: its indices are lost", where=f"{self.mask} of {path}")
        return plane

    def _cell(self, root: Folder, column: str, path: str) -> bytes:
        """The bytes of a column in the row that `path` (PART/ROW) names."""
        row = int(path.rpartition("/")[2].partition(".")[0])
        found = self._table(root).with_format("arrow")[row].column(column)[0].as_py()
        data = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(data, bytes):
            raise BadRecord("a row holds no bytes of an image", where=f"{column} of {path}")
        return data

    def _rows(self, table: Any) -> Iterator[tuple[str | None, str | None, int, str]]:
        """(id, group, bytes of the picture, its usual ending) of each row."""
        columns = [self.image, *(name for name in (self.id, self.group) if name)]
        for batch in table.select_columns(list(dict.fromkeys(columns))).with_format("arrow").iter(batch_size=BATCH):
            data = batch.column(self.image)
            data = pc.struct_field(data, "bytes") if pa.types.is_struct(data.type) else data
            sizes, heads = pc.binary_length(data).to_pylist(), pc.binary_slice(data, 0, 2).to_pylist()
            keys, groups = (
                [None if value is None else str(value) for value in batch.column(name).to_pylist()]
                if name
                else [None] * len(sizes)
                for name in (self.id, self.group)
            )
            for key, group, size, head in zip(keys, groups, sizes, heads, strict=True):
                # Without bytes the picture is missing, and the build says so.
                yield key, group, -1 if size is None else size, _MAGIC.get(head or b"", "image")

    def _check_columns(self, features: Any, root: Folder) -> None:
        for option in ("image", "mask", "id", "group"):
            column = getattr(self, option)
            if column is not None and column not in features:
                raise SourceError(
                    f"no column {column!r}", where=root.url, got=", ".join(features), do=f"name it with {option}"
                )

    def _table(self, root: Folder) -> Any:
        if self.hub is not None and self.revision is None:
            raise SourceError(
                "a dataset of the hub changes: its revision is needed", where=self.hub, do="set revision: COMMIT"
            )
        return _open(root, self.hub, self.config, self.revision, self.part or self.subset)


def _files(root: Folder, part: str) -> tuple[str, ...]:
    """The files of a local dataset, below root. Raises SourceError where there is none of the part."""
    if not root.is_local:
        raise SourceError("a dataset of `datasets` must lie in a local folder", where=root.url, do="copy it")
    every = tuple(root.list(""))
    if "dataset_dict.json" in every or "state.json" in every:
        saved = f"{part}/" if "dataset_dict.json" in every else ""
        return tuple(path for path in every if path.startswith(saved) and path.endswith((".arrow", ".json")))
    found = tuple(path for path in every if path.endswith(".parquet"))
    if not found:
        raise SourceError(
            "neither a saved dataset (dataset_dict.json, state.json) nor a Parquet file",
            where=root.url,
            do="see: aesampler sources hf",
        )
    words = {word for spellings in PARTS.values() for word in spellings} | {part}
    told = {path: _words(path) & words for path in found}
    if any(told.values()):
        found = tuple(path for path in found if told[path] & {part, *PARTS.get(part, ())})
    if not found:
        raise SourceError(
            f"no Parquet file of the part {part}", where=root.url, got=", ".join(told), do="name another with part"
        )
    return found


def _words(path: str) -> set[str]:
    return {word for part in path.lower().split("/") for word in part.replace(".", "-").replace("_", "-").split("-")}


@lru_cache(maxsize=4)
def _open(root: Folder, hub: str | None, config: str | None, revision: str | None, part: str) -> Any:
    """The `datasets.Dataset`. Raises MissingExtra, or SourceError where there is none."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra.of("datasets", "hf") from error
    try:
        with _quiet(datasets):
            if hub is not None:
                return datasets.load_dataset(hub, config, split=part, revision=revision, cache_dir=root.path)
            files = _files(root, part)
            if files and files[0].endswith(".parquet"):
                return datasets.Dataset.from_parquet([str(root.path / path) for path in files])
            folder = root.path / part if (root.path / "dataset_dict.json").exists() else root.path
            return datasets.load_from_disk(str(folder))
    except (ValueError, FileNotFoundError, IndexError) as error:
        raise SourceError(
            f"`datasets` cannot open it: {error}",
            where=hub or root.url,
            got=f"part {part}",
            do="name another with part",
        ) from error


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Without the progress bars of `datasets`: standard error is the command's own."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
