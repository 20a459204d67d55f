"""Folders, local or in an object store: the one place that knows the difference.

A `Folder` is an address. Reading takes a path below it; writing is `commit`: a file appears whole or not at all. Local
files go through plain system calls, everything else through fsspec (`s3://` by s3fs). An absent file is a
FileNotFoundError, always and at once; trouble that may pass (network, full disk, rights) is a StorageError, after a few
tries where it is remote.

Links inside a folder are followed in reading, because people assemble datasets from links; what is written or removed
never leaves the folder through one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from aesampler import disk, stores
from aesampler.errors import MissingExtra, SourceError, StorageError

T = TypeVar("T")

BACKOFF: tuple[float, ...] = (0.5, 2.0)
"""Seconds between the tries of a remote operation; the client of the store makes tries of its own within each."""

_LASTING = (FileExistsError, PermissionError, NotImplementedError, ValueError, TypeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder, local or remote: equal by address, picklable, and nothing is opened until it is used.

    Paths given to its methods are relative, with "/"; one that is absolute or climbs out is a SourceError. "" is the
    folder itself.
    """

    url: str
    """An absolute local path, or `protocol://...` without a slash at the end."""

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> Folder:
        """The folder at a local path (made absolute) or at a URL (`s3://bucket/prefix`; any that fsspec knows)."""
        text = os.fspath(url)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        protocol, separator, rest = text.partition("://")
        if not separator:
            if not text or "\0" in text:
                raise SourceError("this is not the path of a folder", got=repr(text))
            return cls(url=os.path.abspath(text))
        import fsspec

        if protocol not in fsspec.available_protocols():
            raise SourceError(
                f"no storage is known by {protocol}://", where=text, allowed="a local path, s3://, gs://, https://, ..."
            )
        if not rest.strip("/"):
            raise SourceError("the address names no bucket or folder", where=text)
        return cls(url=f"{protocol}://{rest.rstrip('/')}")

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of the file system."""
        return "://" not in self.url

    @property
    def path(self) -> Path:
        """The folder as a local path; only a local folder has one."""
        if not self.is_local:
            raise ValueError(f"{self.url} is not a local folder")
        return Path(self.url)

    def __truediv__(self, rel: str) -> Folder:
        return Folder(url=self._at(rel))

    def __str__(self) -> str:
        return self.url

    # Reading

    def read(self, rel: str) -> bytes:
        """The bytes of a whole file."""
        if self.is_local:
            with disk.reading(self._at(rel)) as where, open(where, "rb", buffering=0) as file:
                return file.readall()
        return self._remote(rel, stores.cat)

    def read_range(self, rel: str, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on: fewer only where the file ends before."""
        if offset < 0 or size < 0:
            raise ValueError(f"offset and size must not be negative: {offset}, {size}")
        if self.is_local:
            with disk.reading(self._at(rel)) as where, open(where, "rb", buffering=0) as file:
                file.seek(offset)
                return _read_fully(file, size)
        if size == 0:
            return b""
        return self._remote(rel, lambda store, where: stores.cat_range(store, where, offset, size))

    def open(self, rel: str) -> BinaryIO:
        """The file, open for reading from its start, seekable."""
        if self.is_local:
            with disk.reading(self._at(rel)) as where:
                return open(where, "rb")
        return cast(
            BinaryIO,
            self._remote(
                rel, lambda store, where: store.open(where, "rb", block_size=stores.BLOCK, cache_type="readahead")
            ),
        )

    @contextlib.contextmanager
    def local_copy(self, rel: str) -> Iterator[Path]:
        """The file as a local path, for what maps it into memory: itself, or a download that lasts for the `with`."""
        if self.is_local:
            if not os.path.isfile(self._at(rel)):
                raise disk.absent(self._at(rel))
            yield Path(self._at(rel))
            return
        with tempfile.TemporaryDirectory(prefix="aesampler-") as folder:
            copy = os.path.join(folder, os.path.basename(rel))
            with disk.writing(self._at(rel), "could not be brought to the local disk"):
                self._remote(rel, lambda store, where: store.get_file(where, copy))
            yield Path(copy)

    def exists(self, rel: str = "") -> bool:
        """Whether there is a file or folder. A store has a folder where it has an object below it."""
        if self.is_local:
            with disk.reading(self._at(rel)) as where:
                return os.path.exists(where)
        try:
            self._info(rel)
        except FileNotFoundError:
            return False
        return True

    def size(self, rel: str) -> int:
        """Bytes of a file."""
        if self.is_local:
            with disk.reading(self._at(rel)) as where:
                if os.path.isdir(where):
                    raise disk.absent(where)
                return os.stat(where).st_size
        info = self._info(rel)
        if info["type"] != "file":
            raise disk.absent(self._at(rel))
        return int(info["size"])

    def list(self, rel: str = "", *, depth: int | None = None) -> dict[str, int]:
        """Every file below `rel`: path relative to THIS folder -> bytes, sorted by path; {} if there is no such folder.

        depth: how many levels of folders below `rel` to enter; 0 is the files of `rel` alone, None all. Files that a
        commit or a lock has in hand are not there yet and are left out.
        """
        prefix = _confined(rel, self.url)
        if self.is_local:
            found = {}
            with contextlib.suppress(FileNotFoundError), disk.reading(self._at(rel)) as where:
                found = dict(disk.walk(where, prefix + "/" if prefix else "", depth, frozenset()))
        else:
            found = self._remote(rel, lambda store, where: stores.find(store, where, prefix, depth))
        return {path: found[path] for path in sorted(found)}

    def stat_token(self, rel: str) -> str:
        """A cheap sign of whether a file, or the set of names directly in a folder, has changed; "" if it is missing.

        For caches on one machine only: it holds times, which no output may.
        """
        if self.is_local:
            try:
                with disk.reading(self._at(rel)) as where:
                    stat = os.stat(where)
                    return f"{stat.st_mtime_ns}" if os.path.isdir(where) else f"{stat.st_size}:{stat.st_mtime_ns}"
            except FileNotFoundError:
                return ""
        try:
            info = self._info(rel)
            if info["type"] == "file":
                tag = str(info.get("ETag") or info.get("etag") or "").strip('"')
                time_of = next(
                    (info[key] for key in ("LastModified", "mtime", "updated", "created") if info.get(key)), ""
                )
                return tag or f"{info.get('size')}:{time_of}"
            # A folder of a store has no time: its names stand for it.
            names = self._remote(rel, lambda store, where: store.ls(where, detail=False))
        except FileNotFoundError:
            return ""
        return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:32]

    # Writing

    def commit(self, rel: str, write: Callable[[BinaryIO], None]) -> None:
        """Make the file at `rel` out of what `write` writes: whole or not at all, replacing what was there.

        Local: a temporary name in the same folder, fsync, rename, fsync of the folder. Store: a local temporary file,
        then one upload, which the store shows only when it is complete. On any error nothing appears at `rel` and
        nothing temporary is left.
        """
        if not self.is_local:
            with disk.writing(self._at(rel)), tempfile.NamedTemporaryFile(prefix="aesampler-") as spool:
                write(cast(BinaryIO, spool))
                spool.flush()
                self._upload(rel, lambda store, where: store.put_file(spool.name, where))
            return
        target = self._place(rel)
        with disk.writing(target), disk.temporary(target) as (temporary, file):
            write(file)
            disk.sync(file)
            os.rename(temporary, target)
            disk.sync_folder(os.path.dirname(target))

    def commit_bytes(self, rel: str, data: bytes) -> None:
        """`commit` of bytes at hand."""
        if self.is_local:
            self.commit(rel, lambda file: _write_all(file, data))
            return
        with disk.writing(self._at(rel)):
            self._upload(rel, lambda store, where: store.pipe_file(where, data))

    def put_if_absent(self, rel: str, data: bytes) -> bool:
        """Make the file at `rel` unless there is one; True if this call made it. What is there is never touched.

        Local disks and stores that honour `If-None-Match: *` (S3 does) decide between callers that race. Some servers
        ignore the condition (`rclone serve s3` does): there a look beforehand stands in for it, and of two callers
        within the same instant the later one wins while both may be told True. So who relies on the content reads it
        again afterwards. A caller whose upload succeeded but whose answer was lost may be told False.
        """
        if not self.is_local:
            if self.exists(rel):
                return False
            try:
                with disk.writing(self._at(rel)):
                    self._upload(rel, lambda store, where: store.pipe_file(where, data, mode="create"))
            except FileExistsError:
                return False
            return True
        target = self._place(rel)
        with disk.writing(target):
            if os.path.lexists(target):
                return False
            with disk.temporary(target) as (temporary, file):
                _write_all(file, data)
                disk.sync(file)
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                disk.sync_folder(os.path.dirname(target))
            return True

    def remove(self, rel: str) -> None:
        """Remove a file; a missing one is fine."""
        if not self.is_local:
            with contextlib.suppress(FileNotFoundError):
                self._remote(rel, lambda store, where: store.rm_file(where))
            return
        disk.unlink(self._inside(rel))

    def remove_tree(self, rel: str) -> None:
        """Remove a folder and all below it, or a file; a missing one is fine. Links are removed, not followed."""
        if not self.is_local:
            base = _confined(rel, self.url)
            names = [name.removeprefix(base).lstrip("/") for name in self.list(rel)]
            with ThreadPoolExecutor(max_workers=8) as threads:
                for _ in threads.map((self / rel).remove, names):
                    pass
            if base:
                self.remove(rel)
            return
        where = self._inside(rel)
        if os.path.isdir(where) and not os.path.islink(where):
            with contextlib.suppress(FileNotFoundError), disk.writing(where, "cannot be removed"):
                shutil.rmtree(where)
        else:
            disk.unlink(where)

    def free_bytes(self) -> int | None:
        """Bytes that are free where the folder lies, or will lie; None for an object store."""
        if not self.is_local:
            return None
        place = self.path
        while not place.exists():
            place = place.parent
        return shutil.disk_usage(place).free

    def sweep_temporaries(self) -> None:
        """Remove what killed commits left anywhere below a local folder; the caller holds its lock."""
        if self.is_local:
            for folder, _, names in os.walk(self.url):
                for name in names:
                    if disk.TEMPORARY.fullmatch(name):
                        disk.unlink(os.path.join(folder, name))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold a local folder, made if it is missing, for one build at a time; LockedError if it is held.

        A store has no locks: there this does nothing. The lock falls with its process, however that ends, and leaves no
        file; what a killed process left is removed by the next holder.
        """
        if not self.is_local:
            yield
            return
        made = not os.path.isdir(self.url)
        with disk.writing(self.url, "cannot be locked"):
            held = disk.acquire(self.url)
        try:
            yield
        finally:
            # Removed while held: whoever opened it meanwhile sees that the name is no more its file's, and opens again.
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.url, disk.LOCK))
            os.close(held)
            if made:
                with contextlib.suppress(OSError):
                    os.rmdir(self.url)  # only if nothing was put there

    # Addresses

    def _at(self, rel: str) -> str:
        inner = _confined(rel, self.url)
        if not inner:
            return self.url
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{inner}"

    def _inside(self, rel: str) -> str:
        """The local path of `rel`, whose folder, links resolved, is checked to lie within this one."""
        where = self._at(rel)
        parent, root = os.path.realpath(os.path.dirname(where)), os.path.realpath(self.url)
        if where != self.url and os.path.commonpath([parent, root]) != root:
            what = "a link leads out of the folder; paths are confined to their root"
            raise SourceError(what, where=where, got=parent)
        return where

    def _place(self, rel: str) -> str:
        """The local path of a file to be written, its folder made and on disk."""
        if not _confined(rel, self.url):
            raise SourceError("a file needs a name", where=self.url)
        where = self._inside(rel)
        with disk.writing(where):
            disk.make_folders(os.path.dirname(where))
        return where

    # The store

    def _remote(self, rel: str, do: Callable[[Any, str], T]) -> T:
        """`do(store, address)`, tried again where the trouble may pass."""
        where = self._at(rel)
        for pause in (*BACKOFF, None):
            try:
                return do(stores.connect(self.url), where)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise disk.absent(where) from error
            except Exception as error:
                if stores.refused(error):
                    raise FileExistsError(errno.EEXIST, "the file exists", where) from error
                if isinstance(error, StorageError | MissingExtra | FileExistsError) or not stores.is_trouble(error):
                    raise
                if pause is None or isinstance(error, _LASTING) or "Credentials" in type(error).__name__:
                    raise StorageError(
                        f"the store does not answer as it should: {type(error).__name__}: {error}",
                        where=where,
                        do="check the address, the credentials and the network, then run again",
                    ) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _upload(self, rel: str, do: Callable[[Any, str], object]) -> None:
        if not _confined(rel, self.url):
            raise SourceError("a file needs a name", where=self.url)
        try:
            self._remote(rel, do)
        except FileNotFoundError as error:
            raise StorageError("the bucket does not exist", where=self._at(rel), do="make it first") from error

    def _info(self, rel: str) -> dict[str, Any]:
        return cast(dict[str, Any], self._remote(rel, lambda store, where: store.info(where)))


def _confined(rel: str, root: str) -> str:
    """`rel` without empty and "." parts. Raises SourceError where it would leave `root`."""
    parts = [part for part in rel.split("/") if part not in ("", ".")]
    if rel.startswith("/") or ".." in parts or "\0" in rel or "://" in rel:
        what = "paths are confined to their root: give one relative to it, without '..'"
        raise SourceError(what, where=root, got=repr(rel))
    return "/".join(parts)


def _read_fully(file: Any, size: int) -> bytes:
    data: bytes = file.read(size)
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)
