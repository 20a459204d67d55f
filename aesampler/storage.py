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
import fcntl
import hashlib
import importlib.util
import io
import itertools
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from aesampler.errors import CorpusError, LockedError, MissingExtra, SourceError, StorageError

T = TypeVar("T")

BACKOFF: tuple[float, ...] = (0.5, 2.0)
"""Seconds between the tries of a remote operation; the client of the store makes tries of its own within each."""

_TEMPORARY = re.compile(r"\.aesampler-tmp-\d+-\d+")
_LOCK = ".aesampler-lock"
_BLOCK = 8 << 20  # bytes read ahead from a store: s3fs asks for 50 MB at a time otherwise, in each worker
_HANDED = 8 << 20  # bytes that are handed to a local disk at once
_LASTING = (FileExistsError, PermissionError, NotImplementedError, ValueError, TypeError)
_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3"}
_counter = itertools.count()
_held: dict[int, Any] = {}  # every store that this process or its parent has used, by identity: see _store


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
            with _reading(self._at(rel)) as where, open(where, "rb", buffering=0) as file:
                return file.readall()
        return self._remote(rel, _cat)

    def read_range(self, rel: str, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on: fewer only where the file ends before."""
        if offset < 0 or size < 0:
            raise ValueError(f"offset and size must not be negative: {offset}, {size}")
        if self.is_local:
            with _reading(self._at(rel)) as where, open(where, "rb", buffering=0) as file:
                file.seek(offset)
                return _read_fully(file, size)
        if size == 0:
            return b""
        return self._remote(rel, lambda store, where: _cat_range(store, where, offset, size))

    def open(self, rel: str) -> BinaryIO:
        """The file, open for reading from its start, seekable."""
        if self.is_local:
            with _reading(self._at(rel)) as where:
                return open(where, "rb")
        return cast(
            BinaryIO,
            self._remote(rel, lambda store, where: store.open(where, "rb", block_size=_BLOCK, cache_type="readahead")),
        )

    @contextlib.contextmanager
    def local_copy(self, rel: str) -> Iterator[Path]:
        """The file as a local path, for what maps it into memory: itself, or a download that lasts for the `with`."""
        if self.is_local:
            if not os.path.isfile(self._at(rel)):
                raise _absent(self._at(rel))
            yield Path(self._at(rel))
            return
        with tempfile.TemporaryDirectory(prefix="aesampler-") as folder:
            copy = os.path.join(folder, os.path.basename(rel))
            with _writing(self._at(rel), "could not be brought to the local disk"):
                self._remote(rel, lambda store, where: store.get_file(where, copy))
            yield Path(copy)

    def exists(self, rel: str = "") -> bool:
        """Whether there is a file or folder. A store has a folder where it has an object below it."""
        if self.is_local:
            with _reading(self._at(rel)) as where:
                return os.path.exists(where)
        try:
            self._info(rel)
        except FileNotFoundError:
            return False
        return True

    def size(self, rel: str) -> int:
        """Bytes of a file."""
        if self.is_local:
            with _reading(self._at(rel)) as where:
                if os.path.isdir(where):
                    raise _absent(where)
                return os.stat(where).st_size
        info = self._info(rel)
        if info["type"] != "file":
            raise _absent(self._at(rel))
        return int(info["size"])

    def list(self, rel: str = "", *, depth: int | None = None) -> dict[str, int]:
        """Every file below `rel`: path relative to THIS folder -> bytes, sorted by path; {} if there is no such folder.

        depth: how many levels of folders below `rel` to enter; 0 is the files of `rel` alone, None all. Files that a
        commit or a lock has in hand are not there yet and are left out.
        """
        prefix = _confined(rel, self.url)
        if self.is_local:
            found = {}
            with contextlib.suppress(FileNotFoundError), _reading(self._at(rel)) as where:
                found = dict(_walk(where, prefix + "/" if prefix else "", depth, frozenset()))
        else:
            found = self._remote(rel, lambda store, where: _find(store, where, prefix, depth))
        return {path: found[path] for path in sorted(found)}

    def stat_token(self, rel: str) -> str:
        """A cheap sign of whether a file, or the set of names directly in a folder, has changed; "" if it is missing.

        For caches on one machine only: it holds times, which no output may.
        """
        if self.is_local:
            try:
                with _reading(self._at(rel)) as where:
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
            with _writing(self._at(rel)), tempfile.NamedTemporaryFile(prefix="aesampler-") as spool:
                write(cast(BinaryIO, spool))
                spool.flush()
                self._upload(rel, lambda store, where: store.put_file(spool.name, where))
            return
        target = self._place(rel)
        with _writing(target), _temporary(target) as (temporary, file):
            write(file)
            _sync(file)
            os.rename(temporary, target)
            _sync_folder(os.path.dirname(target))

    def commit_bytes(self, rel: str, data: bytes) -> None:
        """`commit` of bytes at hand."""
        if self.is_local:
            self.commit(rel, lambda file: _write_all(file, data))
            return
        with _writing(self._at(rel)):
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
                with _writing(self._at(rel)):
                    self._upload(rel, lambda store, where: store.pipe_file(where, data, mode="create"))
            except FileExistsError:
                return False
            return True
        target = self._place(rel)
        with _writing(target):
            if os.path.lexists(target):
                return False
            with _temporary(target) as (temporary, file):
                _write_all(file, data)
                _sync(file)
                try:
                    os.link(temporary, target)
                except FileExistsError:
                    return False
                _sync_folder(os.path.dirname(target))
            return True

    def remove(self, rel: str) -> None:
        """Remove a file; a missing one is fine."""
        if not self.is_local:
            with contextlib.suppress(FileNotFoundError):
                self._remote(rel, lambda store, where: store.rm_file(where))
            return
        _unlink(self._inside(rel))

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
            with contextlib.suppress(FileNotFoundError), _writing(where, "cannot be removed"):
                shutil.rmtree(where)
        else:
            _unlink(where)

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
                    if _TEMPORARY.fullmatch(name):
                        _unlink(os.path.join(folder, name))

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
        with _writing(self.url, "cannot be locked"):
            held = _acquire(self.url)
        try:
            yield
        finally:
            # Removed while held: whoever opened it meanwhile sees that the name is no more its file's, and opens again.
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.url, _LOCK))
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
        with _writing(where):
            _make_folders(os.path.dirname(where))
        return where

    # The store

    def _remote(self, rel: str, do: Callable[[Any, str], T]) -> T:
        """`do(store, address)`, tried again where the trouble may pass."""
        where = self._at(rel)
        for pause in (*BACKOFF, None):
            try:
                return do(_store(self.url), where)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise _absent(where) from error
            except Exception as error:
                if _refused(error):
                    raise FileExistsError(errno.EEXIST, "the file exists", where) from error
                if isinstance(error, StorageError | MissingExtra | FileExistsError) or not _is_trouble(error):
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


def _absent(where: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, "no such file", where)


@contextlib.contextmanager
def _reading(where: str) -> Iterator[str]:
    """Local reading: what is not a file is absent, whatever else goes wrong may pass."""
    try:
        yield where
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise _absent(where) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _absent(where) from error
        raise StorageError(f"cannot be read: {error.strerror or error}", where=where) from error


@contextlib.contextmanager
def _writing(where: str, what: str = "could not be written") -> Iterator[None]:
    """Turn errors of the disk into StorageErrors, but for an absent file, which the caller was reading meanwhile."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        do = "make room, then run again: nothing already written is lost" if full else ""
        raise StorageError(f"{what}: {error.strerror or error}", where=error.filename or where, do=do) from error


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


def _unlink(where: str) -> None:
    if os.path.lexists(where):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), _writing(where, "cannot be removed"):
            os.unlink(where)


class _Handed(io.FileIO):
    """A file that hands its bytes to the disk as they come, so that its fsync finds little left to wait for: that was a
    fifteenth of a build.
    """

    _given = _written = 0

    def write(self, data: Any) -> int:
        written = super().write(data)
        self._written += written
        if self._written - self._given >= _HANDED and hasattr(os, "posix_fadvise"):
            # Linux starts to write what is asked to leave memory, and keeps it there until it is written.
            os.posix_fadvise(self.fileno(), self._given, self._written - self._given, os.POSIX_FADV_DONTNEED)
            self._given = self._written
        return written


@contextlib.contextmanager
def _temporary(target: str) -> Iterator[tuple[str, BinaryIO]]:
    """A new file beside `target`, open for writing, that is gone at the end unless it was renamed."""
    folder = os.path.dirname(target)
    while True:
        # Processes of several hosts may share the folder and a process id: the exclusive open settles who has the name.
        name = os.path.join(folder, f".aesampler-tmp-{os.getpid()}-{next(_counter)}")
        try:
            handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            break
        except FileExistsError:
            continue
    try:
        with io.BufferedWriter(_Handed(handle, "wb")) as file:
            yield name, file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that keeps no such promise
            raise
    finally:
        os.close(handle)


def _make_folders(folder: str) -> None:
    """`os.makedirs` whose new names are on disk when it returns."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folders(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        _sync_folder(parent)


def _walk(where: str, prefix: str, depth: int | None, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """(path, bytes) of the files below `where`. Linked folders are entered, but none that is being walked already."""
    try:
        stat = os.stat(where)
        if (stat.st_dev, stat.st_ino) in above:
            return
        entries = _entries(where)
    except (FileNotFoundError, NotADirectoryError):
        return
    below: list[str] = []
    for name, size in entries:
        if size is None:
            below.append(name)
        elif not (name.startswith(".") and (name == _LOCK or _TEMPORARY.fullmatch(name))):
            yield prefix + name, size
    if depth is None or depth > 0:
        above |= {(stat.st_dev, stat.st_ino)}
        for name in below:
            yield from _walk(f"{where}/{name}", f"{prefix}{name}/", None if depth is None else depth - 1, above)


def _entries(where: str) -> list[tuple[str, int | None]]:
    """(name, bytes) of the files straight in a folder, (name, None) of the folders; links are followed."""
    from pyarrow.fs import FileSelector, FileType, LocalFileSystem

    kinds = (FileType.File, FileType.Directory)  # a link to nothing is neither
    try:
        # A hundred thousand files take half a second, in which the interpreter is free for other threads.
        found = LocalFileSystem().get_file_info(FileSelector(where))
        return [(info.base_name, info.size) for info in found if info.type in kinds]
    except UnicodeDecodeError:  # the name of a file is in another encoding
        return list(_scanned(where))


def _scanned(where: str) -> Iterator[tuple[str, int | None]]:
    with os.scandir(where) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # removed since
                if entry.is_dir():
                    yield entry.name, None
                elif entry.is_file():
                    yield entry.name, entry.stat().st_size


def _acquire(folder: str) -> int:
    """A descriptor of the lock file in `folder`, locked, and still the file of that name."""
    name = os.path.join(folder, _LOCK)
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            if not isinstance(error, NotADirectoryError) and (os.path.isdir(folder) or not os.path.lexists(folder)):
                continue  # a holder that had made the folder has just removed it
            raise CorpusError("this is a file, not a folder", where=folder, do="give another --out") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(name)):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            os.close(handle)
            do = "wait for it, or give another --out"
            raise LockedError("another build is writing into this folder", where=folder, do=do) from error
        except OSError:
            os.close(handle)
            raise
        os.close(handle)


def _store(url: str) -> Any:
    """The fsspec file system of `url`, asked for each time: fsspec keeps one a process, and a new one after a fork."""
    import fsspec

    protocol = url.partition("://")[0]
    if protocol in ("s3", "s3a"):
        if importlib.util.find_spec("s3fs") is None:
            raise MissingExtra.of("s3fs", "s3")
        # Listings are not cached: another worker's file must be seen. The client tries but a few times: `_remote` adds.
        tries = int(os.environ.get("AWS_MAX_ATTEMPTS", "3"))
        store = fsspec.filesystem(
            protocol, use_listings_cache=False, config_kwargs={"retries": {"total_max_attempts": tries}}
        )
        store.retries = 2
        # A forked child shares its parent's epoll: if it let go of the parent's store, closing those connections would
        # leave the parent deaf on them until they time out. So nothing is let go.
        _held[id(store)] = store
        return store
    try:
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        raise MissingExtra(str(error), where=url) from error


def _cat(store: Any, where: str) -> bytes:
    # s3fs asks for the size first, to fetch large files in parts: one more round trip for each of a million pictures.
    options = {"max_concurrency": 1} if "s3" in store.protocol else {}
    return cast(bytes, store.cat_file(where, **options))


def _cat_range(store: Any, where: str, offset: int, size: int) -> bytes:
    try:
        return cast(bytes, store.cat_file(where, start=offset, end=offset + size))
    except OSError as error:
        if _code(error) in ("InvalidRange", "416"):  # S3's word for an offset at or past the end
            return b""
        raise


def _find(store: Any, where: str, prefix: str, depth: int | None) -> dict[str, int]:
    try:
        found = store.find(where, maxdepth=None if depth is None else depth + 1, detail=True)
    except FileNotFoundError:
        return {}
    base = store._strip_protocol(where).rstrip("/") + "/"
    return {
        (prefix + "/" if prefix else "") + name[len(base) :]: int(info["size"] or 0)
        for name, info in found.items()
        if info["type"] == "file" and name.startswith(base) and not name.endswith("/")
    }


def _code(error: BaseException) -> str:
    """The store's own word for what went wrong, which s3fs keeps in the cause."""
    response = getattr(error.__cause__, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _refused(error: BaseException) -> bool:
    return _code(error) in ("PreconditionFailed", "412")


def _is_trouble(error: BaseException) -> bool:
    """Whether an error comes from the disk, the network or a store's client, rather than from a mistake of ours."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS
