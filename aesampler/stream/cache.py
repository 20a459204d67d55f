"""Shards of an object store on the local disk: bounded, shared by the processes of a node, safe against crashes.

    <sha256>.rows    the samples that were asked for, each where it lies in the tar, the rest of the file a hole; before
                     them 8 bytes a sample: the CRC-32 of its block and whether it is there
    <sha256>.whole   a whole tar, or a manifest, whose sha256 is that of corpus.json
    <sha256>.part    one that is being fetched, locked by who fetches it: the others wait for it instead of fetching
    .lock            held while room is made, samples are put down and files get their names, some milliseconds; in it,
                     the most bytes that all of these may take: the files are looked at where that leaves no room

Files are named by the content that corpus.json promises, so mirrors share them and a corpus that was built anew never
meets an old shard. Ranges are the default: of N nodes each needs the N-th part of every shard, and whole shards would
bring the corpus to each of them. Whole shards are for one node, for many epochs, and for `verify`, which they imply.

Nothing that dies spoils anything. A whole file gets its name when it is on disk and its sum is right. A sample counts
when its mark is there, which is written after it, and its block has that CRC: 0.05 ms a sample, and no fsync, because
what a lost machine has half written fails it. What fails is forgotten and fetched again. Locks are flock's and fall
with their process.

Room is made before anything is put down, oldest use first, so the folder never holds more than `max_bytes` (blocks of
the disk, not lengths). Readers open, read and close: what was removed is gone at once. Uses are told by the time of the
file, moved at most every `TOUCH_S`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Literal, NamedTuple

from aesampler.errors import CorpusError, StorageError
from aesampler.manifest import ManifestEntry, ShardEntry
from aesampler.storage import Folder
from aesampler.stream.pool import raise_if_called_off

TOUCH_S = 10.0
"""How old the time of last use may be."""

LOOK_S = 0.05
"""Pause between two looks for room where all of it is being filled, or for a file that another is fetching."""

RUN_BYTES = 8 << 20
"""Most that one request asks for."""

SLACK = 32
"""Where room is made, this part of the whole is made at once, of files that are no larger."""

TRIES = 3
"""Fetchings of what arrives too short or with another sum, before that is an error."""

_PAGE = 4096
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MARK = struct.Struct("<II")  # CRC-32, 1 where the sample is there
_TOTAL = struct.Struct("<Q")


class Wanted(NamedTuple):
    """A sample of a shard: its number there, and where its block lies in the tar, in bytes."""

    row: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Cache:
    """Where shards of an object store are kept: a local folder of a node, for all its processes and corpora.

    max_bytes: what it may hold at any time. fetch: "ranges" keeps the samples that are needed, touching ones fetched by
    one request; "shards" keeps whole shards, whose sha256 is checked. Raises CorpusError where that is none.
    """

    folder: str | os.PathLike[str]
    max_bytes: int = 100_000_000_000
    fetch: Literal["ranges", "shards"] = "ranges"

    def __post_init__(self) -> None:
        path = os.fspath(self.folder)
        if not path or "://" in path:
            raise CorpusError("a cache is a folder of the local disk", where="cache.folder", got=repr(path))
        if self.fetch not in ("ranges", "shards"):
            raise CorpusError("a cache cannot be so", where="cache.fetch", got=self.fetch, allowed="ranges, shards")
        if self.max_bytes < 1:
            raise CorpusError("a cache holds something", where="cache.max_bytes", got=self.max_bytes, allowed="bytes")
        object.__setattr__(self, "folder", os.path.abspath(path))


class Shelf:
    """What a process does with a cache; threads may share it. whole: whether shards are fetched as a whole."""

    def __init__(self, cache: Cache, *, whole: bool) -> None:
        self.max_bytes = cache.max_bytes
        self.whole = whole
        self._folder = Path(cache.folder)
        self._touched: dict[str, float] = {}
        self._looked = False
        self._coming: set[tuple[str, int]] = set()
        self._landed = Condition()

    # Whole files

    def file(self, folder: Folder, entry: ShardEntry | ManifestEntry) -> bytes:
        """The bytes of a whole file, a manifest's. Raises as `keep` does."""
        while True:
            self.keep(folder, entry)
            with contextlib.suppress(FileNotFoundError):  # removed since to make room
                return self._path(entry, "whole").read_bytes()

    def keep(self, folder: Folder, entry: ShardEntry | ManifestEntry) -> None:
        """Have a whole file here, which one process fetches while the others wait.

        Raises FileNotFoundError where the store has no such file; CorpusError where its sha256 is not that of
        corpus.json; StorageError, also where the cache cannot hold it.
        """
        path = self._path(entry, "whole")
        if self._used(path):
            return
        with _trouble(), self._fetching(entry) as part:
            if path.exists():
                return
            with self._room(_pages(entry.bytes), spare=part):
                os.ftruncate(part, entry.bytes)
            for tries in range(TRIES):
                found = self._fetched(folder, entry, part)
                if found == entry.sha256:
                    break
                if tries == TRIES - 1:
                    raise CorpusError(
                        "a shard is not the one that was built",
                        where=f"{folder}/{entry.path}",
                        got=f"sha256 {found[:12]}...",
                        allowed=f"{entry.sha256[:12]}...",
                        do="fetch it again, or build the corpus again",
                    )
            os.fsync(part)
            with self._locked():  # or who makes room might list the part, find it gone, and count neither name
                os.rename(self._path(entry, "part"), path)

    @staticmethod
    def _fetched(folder: Folder, entry: ShardEntry | ManifestEntry, part: int) -> str:
        """Bring a file into `part`, and its sha256."""
        digest = hashlib.sha256()
        for start in range(0, entry.bytes, RUN_BYTES):
            raise_if_called_off()
            data = folder.read_range(entry.path, start, min(RUN_BYTES, entry.bytes - start))
            digest.update(data)
            _pwrite(part, data, start)
        return digest.hexdigest()

    @contextlib.contextmanager
    def _fetching(self, entry: ShardEntry | ManifestEntry) -> Iterator[int]:
        """The part of a file, ours alone: waited for, and gone at the end unless it was renamed."""
        path = self._path(entry, "part")
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            part = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                while not _locked_now(part):
                    raise_if_called_off()
                    time.sleep(LOOK_S)
                if not _is_named(part, path):  # who had it has renamed or removed it
                    continue
                try:
                    yield part
                finally:
                    if _is_named(part, path):
                        path.unlink()
                return
            finally:
                _let_go(part)

    # Samples

    def block(self, entry: ShardEntry, wanted: Wanted) -> bytes | None:
        """The block of a sample; None where it is not here."""
        path = self._path(entry, "whole")
        with _trouble(), contextlib.suppress(FileNotFoundError), _opened(path) as file:
            data = os.pread(file, wanted.size, wanted.offset)
            if len(data) == wanted.size:
                self._used(path)
                return data
        path = self._path(entry, "rows")
        with _trouble(), contextlib.suppress(FileNotFoundError), _opened(path) as file:
            mark = os.pread(file, _MARK.size, _MARK.size * wanted.row)
            if len(mark) == _MARK.size and _MARK.unpack(mark)[1] == 1:
                data = os.pread(file, wanted.size, _base(entry) + wanted.offset)
                if len(data) == wanted.size and zlib.crc32(data) == _MARK.unpack(mark)[0]:
                    self._used(path)
                    return data
        return None

    def has(self, entry: ShardEntry, row: int) -> bool:
        """Whether a sample is here, by its mark alone."""
        if self._path(entry, "whole").exists():
            return True
        with _trouble(), contextlib.suppress(FileNotFoundError), _opened(self._path(entry, "rows")) as file:
            mark = os.pread(file, _MARK.size, _MARK.size * row)
            return len(mark) == _MARK.size and _MARK.unpack(mark)[1] == 1
        return False

    def bring(self, folder: Folder, entry: ShardEntry, run: Sequence[Wanted]) -> None:
        """Fetch touching samples by one request and keep those that come whole.

        Raises FileNotFoundError where the store has no such shard, StorageError.
        """
        start, end = run[0].offset, run[-1].offset + run[-1].size
        data = memoryview(folder.read_range(entry.path, start, end - start))
        blocks = {each: data[each.offset - start : each.offset - start + each.size] for each in run}
        self._put(entry, {each: block for each, block in blocks.items() if len(block) == each.size})
        self.landed(entry, [each.row for each in run])

    def _put(self, entry: ShardEntry, blocks: dict[Wanted, memoryview]) -> None:
        path = self._path(entry, "rows")
        # A block may begin and end within a page; and a file with many holes has a page that tells of them.
        needed = _pages(sum(map(len, blocks.values()))) + 2 * _PAGE * len(blocks) + _base(entry) + _PAGE
        with _trouble(), self._room(needed, spare=path):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                for each, block in blocks.items():
                    _pwrite(file, block, _base(entry) + each.offset)
                    _pwrite(file, _MARK.pack(zlib.crc32(block), 1), _MARK.size * each.row)
            finally:
                os.close(file)

    def forget(self, entry: ShardEntry) -> None:
        """Remove all of a shard: what is here is not what was fetched."""
        with _trouble(), self._locked():
            for kind in ("whole", "rows"):
                self._path(entry, kind).unlink(missing_ok=True)

    # What is under way in this process

    def coming(self, entry: ShardEntry, rows: Sequence[int]) -> None:
        """Samples are going to be fetched: who needs one waits for it."""
        with self._landed:
            self._coming.update((entry.sha256, row) for row in rows)

    def landed(self, entry: ShardEntry, rows: Sequence[int]) -> None:
        """They were, or will not be."""
        with self._landed:
            self._coming.difference_update((entry.sha256, row) for row in rows)
            self._landed.notify_all()

    def wait(self, entry: ShardEntry, row: int) -> None:
        """Wait while a sample is under way."""
        with self._landed:
            self._landed.wait_for(lambda: (entry.sha256, row) not in self._coming)

    # Room

    def _path(self, entry: ShardEntry | ManifestEntry, kind: str) -> Path:
        if not _SHA256.fullmatch(entry.sha256):  # it becomes the name of a file
            raise CorpusError("corpus.json is damaged: this is no sha256", where=entry.path, got=entry.sha256[:80])
        return self._folder / f"{entry.sha256}.{kind}"

    def _used(self, path: Path) -> bool:
        """Tell that a file was used; whether there is one."""
        now = time.monotonic()
        if now - self._touched.get(path.name, float("-inf")) < TOUCH_S:
            return path.exists()
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        self._touched[path.name] = now
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            _let_go(lock)

    @contextlib.contextmanager
    def _room(self, needed: int, *, spare: Path | int) -> Iterator[None]:
        """Hold the lock, with room for `needed` bytes more. spare: the file that they are for, the last to go.

        What is being fetched stays: where it leaves no room, it is waited for. Raises StorageError where that would
        not help.
        """
        least = needed + _PAGE
        if least > self.max_bytes:
            raise StorageError(
                "the cache cannot hold even this", where="cache.max_bytes", got=self.max_bytes, allowed=f"{least} up"
            )
        while True:
            with self._locked() as lock:
                if self._reserved(lock, needed, spare):
                    yield
                    return
            raise_if_called_off()
            time.sleep(LOOK_S)

    def _reserved(self, lock: int, needed: int, spare: Path | int) -> bool:
        """Whether there is room for `needed` bytes more, which are counted as taken. The lock is held."""
        known = os.pread(lock, _TOTAL.size, 0) if self._looked else b""
        total = _TOTAL.unpack(known)[0] if len(known) == _TOTAL.size else None
        if total is None or total + needed > self.max_bytes:
            total = self._make_room(needed, spare)
            self._looked = True  # once at least: what the file says may be of before the machine went down
        fits = bool(total + needed <= self.max_bytes)
        _pwrite(lock, _TOTAL.pack(total + needed if fits else total), 0)
        return fits

    def _make_room(self, needed: int, spare: Path | int) -> int:
        """Look at all files, and remove what was used longest ago as far as that is needed, with some to spare, or the
        next look would come soon; the bytes that are left. The lock is held.
        """
        held: list[tuple[bool, int, Path, int]] = []
        total = _PAGE  # of the lock's own file
        for path in self._folder.iterdir():
            if path.suffix not in (".whole", ".rows", ".part") or _swept(path):
                continue
            with contextlib.suppress(FileNotFoundError):
                stat = path.stat()
                if path.suffix == ".part":  # its whole length from the beginning, though its blocks come by and by
                    ours = isinstance(spare, int) and os.path.samestat(stat, os.fstat(spare))
                    total += 0 if ours else _pages(stat.st_size)
                else:
                    total += stat.st_blocks * 512
                    held.append((path == spare, stat.st_mtime_ns, path, stat.st_blocks * 512))
        if total + needed <= self.max_bytes:
            return total
        slack = self.max_bytes // SLACK
        for is_spare, _, path, size in sorted(held):
            fits = total + needed <= self.max_bytes
            if fits and (is_spare or size > slack or total + needed <= self.max_bytes - slack):
                break
            path.unlink(missing_ok=True)
            self._touched.pop(path.name, None)
            total -= size
        return total


def runs(wanted: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Samples in the order of their offsets, those that touch together, at most RUN_BYTES where they are several."""
    run: list[Wanted] = []
    for each in sorted(set(wanted), key=lambda each: each.offset):
        apart = run and each.offset != run[-1].offset + run[-1].size
        if run and (apart or each.offset + each.size - run[0].offset > RUN_BYTES):
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _base(entry: ShardEntry) -> int:
    """Where the tar begins in a file of rows."""
    return _pages(_MARK.size * entry.samples)


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _pwrite(file: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def _is_named(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _swept(path: Path) -> bool:
    """Remove a part that nobody is fetching: who was has died. Whether it was one."""
    if path.suffix != ".part":
        return False
    try:
        part = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not _locked_now(part):
            return False
        if _is_named(part, path):
            path.unlink()
        return True
    finally:
        _let_go(part)


def _locked_now(file: int) -> bool:
    """Lock a file, if nobody has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _let_go(file: int) -> None:
    """Unlock and close a file: closing alone leaves it locked while a process that was forked meanwhile has it open."""
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


@contextlib.contextmanager
def _trouble() -> Iterator[None]:
    """Errors of the disk as StorageErrors, but for an absent file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(
            f"the cache cannot be used: {error.strerror or error}",
            where=str(error.filename or "cache"),
            do="make room on that disk, give cache.max_bytes less, or another cache.folder",
        ) from error
