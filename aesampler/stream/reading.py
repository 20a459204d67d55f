"""The bytes of samples: the rows of the shards in use, and each sample's block by its offset.

Held of a shard in use are its keys, offsets and sizes, some 100 bytes a sample, and on a local disk the open file; of
the others, three numbers. What an object store holds goes by a local cache where one is given (`cache.py`). A read is
checked as far as it can be: its length, every tar header byte for byte (of a block that is not taken apart, the first),
the key against the manifest; with `verify` the sha256 of a whole shard too, the first time that a process uses it.
"""

from __future__ import annotations

import hashlib
import io
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

import pyarrow.compute as pc

from aesampler import manifest, shard
from aesampler.errors import CorpusError, StorageError
from aesampler.manifest import ManifestEntry, ShardEntry
from aesampler.storage import Folder
from aesampler.stream.cache import Cache, Shelf, Wanted, runs
from aesampler.stream.pool import CalledOff, raise_if_called_off

TRIES = 3
"""Readings of a block that an object store gives too short, before that is an error."""

_CHUNK = 8 << 20
_HANDLES = 256  # files held open: a process may have 1,024 of all kinds

Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A source of a split of a corpus: where its shards lie. shards, manifests: parallel, those with a sample."""

    folder: Folder
    split: str
    source: str
    shards: tuple[ShardEntry, ...]
    manifests: tuple[ManifestEntry, ...]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class _Rows:
    """The samples of one shard: key, offset and size (int64) of each; the tar's descriptor, closed with this, or None.

    Views of memory, because of an array in numpy each number costs several times as much.
    """

    keys: list[str]
    offsets: memoryview
    sizes: memoryview
    handle: int | None


class Reader:
    """The blocks of some parts; threads may share it. recent: shards whose rows are held."""

    def __init__(self, parts: Sequence[Part], *, recent: int, verify: bool, cache: Cache | None = None) -> None:
        self._parts = tuple(parts)
        self._recent, self._verify = recent, verify
        remote = not all(part.folder.is_local for part in parts)
        self.shelf = None
        if cache is not None and remote:
            self.shelf = Shelf(cache, whole=verify or cache.fetch == "shards")
        self._rows: OrderedDict[tuple[int, int], Future[_Rows] | _Rows] = OrderedDict()
        self._lock = Lock()

    def members(self, part: int, number: int, row: int) -> tuple[str, dict[str, bytes]]:
        """The key and the files (by extension) of a sample. Raises CorpusError where the shard does not hold it."""
        return self._taken(shard.read_block, part, number, row)

    def block(self, part: int, number: int, row: int) -> tuple[str, bytes]:
        """The key and the bytes in the tar of a sample. Raises CorpusError where the shard does not hold it."""
        return self._taken(_whole, part, number, row)

    def _taken(self, take: Callable[[bytes], tuple[str, Taken]], part: int, number: int, row: int) -> tuple[str, Taken]:
        """What `take` makes of a sample's block, with the key that it finds."""
        rows, here = self._shard(part, number), self._parts[part]
        key, offset, size = rows.keys[row], rows.offsets[row], rows.sizes[row]
        shelf = None if here.folder.is_local else self.shelf
        if shelf is not None:
            entry = here.shards[number]
            data = self._kept(shelf, here.folder, entry, Wanted(row, offset, size))
            try:
                return _checked(take, data, key, size)
            except CorpusError:  # a disk that forgets: what the store has is asked for again
                shelf.forget(entry)
        try:
            return _checked(take, self._block(rows, here, number, offset, size), key, size)
        except CorpusError as error:
            raise self.located(error, part, number, row) from error

    @staticmethod
    def _block(rows: _Rows, here: Part, number: int, offset: int, size: int) -> bytes:
        """The bytes of a sample; fewer only where the file ends before."""
        if rows.handle is not None:
            try:
                data = os.pread(rows.handle, size, offset)
                while len(data) < size and (more := os.pread(rows.handle, size - len(data), offset + len(data))):
                    data += more  # one call gives 2 GB at most
                return data
            except OSError as error:
                where = f"{here.folder}/{here.shards[number].path}"
                raise StorageError(f"cannot be read: {error.strerror}", where=where) from error
        path = here.shards[number].path
        data = b""
        for _ in range(1 if here.folder.is_local else TRIES):
            try:
                data = here.folder.read_range(path, offset, size)
            except FileNotFoundError as error:
                raise _gone(here.folder, path) from error
            if len(data) == size:
                break
        return data

    @staticmethod
    def _kept(shelf: Shelf, folder: Folder, entry: ShardEntry, wanted: Wanted) -> bytes:
        """The bytes of a sample from the cache, into which they are brought; fewer where the file ends before."""
        try:
            for _ in range(TRIES):
                if shelf.whole:
                    shelf.keep(folder, entry)
                data = shelf.block(entry, wanted)
                if data is None and not shelf.whole:
                    shelf.wait(entry, wanted.row)
                    data = shelf.block(entry, wanted)  # it may have come before it could be waited for
                if data is None and not shelf.whole:
                    raise_if_called_off()
                    shelf.bring(folder, entry, [wanted])
                    data = shelf.block(entry, wanted)
                if data is not None:
                    return data
        except FileNotFoundError as error:
            raise _gone(folder, entry.path) from error
        return b""

    def prefetch(self, part: int, number: int, rows: Sequence[int]) -> None:
        """Have samples of a shard in the cache, but for those that are there. Raises what reading them would, and
        CalledOff.
        """
        here, shelf = self._parts[part], self.shelf
        if shelf is None or here.folder.is_local:
            return
        entry, held = here.shards[number], self._shard(part, number)
        if shelf.whole:
            shelf.keep(here.folder, entry)
            return
        absent = [row for row in rows if not shelf.has(entry, row)]
        for run in runs([Wanted(row, held.offsets[row], held.sizes[row]) for row in absent]):
            raise_if_called_off()
            shelf.bring(here.folder, entry, run)

    def entry(self, part: int, number: int) -> ShardEntry:
        """What corpus.json says of a shard."""
        return self._parts[part].shards[number]

    def key(self, part: int, number: int, row: int) -> str:
        """The key of a sample."""
        return self._shard(part, number).keys[row]

    def located(self, error: Exception, part: int, number: int, row: int) -> CorpusError:
        """An error of one sample, with the sample's name and place."""
        rows = self._shard(part, number)
        where = f"{self._parts[part].folder}/{self._parts[part].shards[number].path} at {rows.offsets[row]}"
        what, got, allowed = getattr(error, "what", str(error)), getattr(error, "got", None), None
        return CorpusError(
            f"sample {rows.keys[row]} cannot be used: {what}",
            where=where,
            got=got,
            allowed=getattr(error, "allowed", allowed),
            do="see `aesampler verify --deep`",
        )

    def _shard(self, part: int, number: int) -> _Rows:
        """The rows of a shard, read by the first thread that asks; the others wait for it."""
        while True:
            with self._lock:
                held = self._rows.get((part, number))
                if held is not None:
                    self._rows.move_to_end((part, number))
            if isinstance(held, _Rows):
                return held
            try:
                return self._begun(part, number) if held is None else held.result()
            except CalledOff:  # who read it gave up, which is nothing to us
                raise_if_called_off()

    def _begun(self, part: int, number: int) -> _Rows:
        """The rows of a shard that nobody had begun to read; the first who comes here does."""
        mine: Future[_Rows] = Future()
        try:
            with self._lock:
                held = self._rows.setdefault((part, number), mine)
                while len(self._rows) > self._recent:
                    self._rows.popitem(last=False)
            if held is mine:
                mine.set_result(self._read(part, number))
                with self._lock:
                    if self._rows.get((part, number)) is mine:
                        self._rows[part, number] = mine.result()
        except BaseException as error:  # an interrupt too: nobody may wait for what nobody reads
            with self._lock:
                if self._rows.get((part, number)) is mine:
                    del self._rows[part, number]
            if not mine.done():
                mine.set_exception(error)
            raise
        return held if isinstance(held, _Rows) else held.result()

    def _read(self, part: int, number: int) -> _Rows:
        here, entry = self._parts[part], self._parts[part].manifests[number]
        where = f"{here.folder}/{entry.path}"
        try:
            shelf = None if here.folder.is_local else self.shelf
            data = here.folder.read(entry.path) if shelf is None else shelf.file(here.folder, entry)
        except FileNotFoundError as error:
            raise CorpusError("the manifest of a shard is gone", where=where, do="see `aesampler verify`") from error
        table = manifest.read_table(io.BytesIO(data), ["key", "status", "offset", "size"], where)
        table = table.filter(pc.equal(table.column("status"), "ok")).combine_chunks()
        if table.num_rows != here.shards[number].samples:
            raise CorpusError(
                "the manifest contradicts corpus.json",
                where=where,
                got=f"{table.num_rows} samples",
                allowed=here.shards[number].samples,
            )
        if self._verify and shelf is None:  # the cache takes no other
            self._verified(here.folder, here.shards[number])
        key, _, offset, size = (column.chunk(0) for column in table.columns)
        handle = None
        if here.folder.is_local and self._recent <= _HANDLES:
            try:
                handle = os.open((here.folder / here.shards[number].path).path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise _gone(here.folder, here.shards[number].path) from error
            except OSError as error:
                raise StorageError.of(error) from error
        rows = _Rows(key.to_pylist(), memoryview(offset.to_numpy()), memoryview(size.to_numpy()), handle)
        if handle is not None:
            weakref.finalize(rows, os.close, handle)
        return rows

    @staticmethod
    def _verified(folder: Folder, entry: ShardEntry) -> None:
        digest = hashlib.sha256()
        try:
            with folder.open(entry.path) as file:
                while data := file.read(_CHUNK):
                    digest.update(data)
        except FileNotFoundError as error:
            raise _gone(folder, entry.path) from error
        if digest.hexdigest() != entry.sha256:
            raise CorpusError(
                "a shard is not the one that was built",
                where=f"{folder}/{entry.path}",
                got=f"sha256 {digest.hexdigest()[:12]}...",
                allowed=f"{entry.sha256[:12]}...",
                do="fetch it again, or build the corpus again",
            )


def _checked(take: Callable[[bytes], tuple[str, Taken]], data: bytes, key: str, size: int) -> tuple[str, Taken]:
    """What `take` makes of a block. Raises CorpusError where it is not that of the sample."""
    if len(data) < size:
        raise CorpusError("the shard ends too early", got=f"{len(data)} bytes", allowed=size)
    found, thing = take(data)
    if found != key:
        raise CorpusError("the tar holds another sample here", got=found, allowed=key)
    return key, thing


def _whole(data: bytes) -> tuple[str, bytes]:
    return shard.block_key(data), data


def _gone(folder: Folder, path: str) -> CorpusError:
    return CorpusError("a shard is gone", where=f"{folder}/{path}", do="see `aesampler verify`")
