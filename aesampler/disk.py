"""The local disk, by plain system calls: what `Folder` (storage.py) does there.

An absent file is a FileNotFoundError; other trouble in reading and writing is a StorageError. What is written has a
temporary name until it is on disk, folders included.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import itertools
import os
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from aesampler.errors import CorpusError, LockedError, StorageError

TEMPORARY = re.compile(r"\.aesampler-tmp-\d+-\d+")
"""Names of files that are being written."""
LOCK = ".aesampler-lock"
TRIES = 1000
"""Openings of a lock file whose holders remove it just then."""
_HANDED = 8 << 20  # bytes that are handed to the disk at once
_counter = itertools.count()


def absent(where: str) -> FileNotFoundError:
    """The error that says so."""
    return FileNotFoundError(errno.ENOENT, "no such file", where)


@contextlib.contextmanager
def reading(where: str) -> Iterator[str]:
    """Local reading: what is not a file is absent, whatever else goes wrong may pass."""
    try:
        yield where
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise absent(where) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise absent(where) from error
        raise StorageError(f"cannot be read: {error.strerror or error}", where=where) from error


@contextlib.contextmanager
def writing(where: str, what: str = "could not be written") -> Iterator[None]:
    """Turn errors of the disk into StorageErrors, but for an absent file, which the caller was reading meanwhile."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        do = "make room, then run again: nothing already written is lost" if full else ""
        raise StorageError(f"{what}: {error.strerror or error}", where=error.filename or where, do=do) from error


def unlink(where: str) -> None:
    """Remove a file or a link; a missing one is fine."""
    if os.path.lexists(where):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), writing(where, "cannot be removed"):
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
def temporary(target: str) -> Iterator[tuple[str, BinaryIO]]:
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


def sync(file: BinaryIO) -> None:
    """Have all that was written to `file` on disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: str) -> None:
    """Have the names in `folder` on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that keeps no such promise
            raise
    finally:
        os.close(handle)


def make_folders(folder: str) -> None:
    """`os.makedirs` whose new names are on disk when it returns."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    make_folders(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
        sync_folder(parent)


def walk(where: str, prefix: str, depth: int | None, above: frozenset[tuple[int, int]]) -> Iterator[tuple[str, int]]:
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
        elif not (name.startswith(".") and (name == LOCK or TEMPORARY.fullmatch(name))):
            yield prefix + name, size
    if depth is None or depth > 0:
        above |= {(stat.st_dev, stat.st_ino)}
        for name in below:
            yield from walk(f"{where}/{name}", f"{prefix}{name}/", None if depth is None else depth - 1, above)


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


def acquire(folder: str) -> int:
    """A descriptor of the lock file in `folder`, locked, and still the file of that name."""
    name = os.path.join(folder, LOCK)
    for _ in range(TRIES):
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
    raise StorageError(
        "this folder cannot be made",
        where=folder,
        do="see whether a part of its path is a link to something that is not there",
    )
