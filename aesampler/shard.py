"""One shard: samples <-> one tar whose bytes are a function of the samples alone.

USTAR, uncompressed, every member a plain file of mode 0644 with owner 0, no names and time 0: what `tarfile` writes of
the same members in its USTAR format, byte for byte, with its two zero blocks at the end and zeros up to 10,240. Written
by hand because `tarfile` spends 20 us on a small member, most of it on the header; this takes 3.5.

The members of a sample are adjacent and share its key, the part of the name before the first dot (webdataset's rule).
Reading accepts only what the writer writes: a header must be, byte for byte, the one of its own name and size, which is
stricter than its checksum and faster to test.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from aesampler.errors import CorpusError

Member = tuple[str, bytes]
"""The extension ("json", "000.jpg", "mask.png") and the data."""

_BLOCK, _RECORD = 512, 10_240
_SMALL = 16_384
_KEY = re.compile(r"[a-z0-9_-]{1,80}")
_EXTENSION = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME, _LARGEST = 100, 8**11 - 1
_ZEROS = bytes(_RECORD)

# A header: name, mode, uid, gid, size, time, checksum, type, link, magic, version; names, device and prefix are empty.
_MIDDLE = b"\x00".join((b"0000644", b"0000000", b"0000000", b""))
_TIME = b"\x00".join((b"", b"00000000000", b""))
_REST = b" 0" + bytes(100) + b"ustar\x0000" + bytes(247)
_CONSTANT_SUM = sum(_TIME) + sum(_REST) + 7 * ord(" ")  # the checksum counts itself as spaces
_FRONT, _SIZE, _CHECKSUM = 135, 11, 7  # all before the time; its end; the checksum without the first byte of _REST
_FIELDS = struct.Struct(f"{_FRONT}s{len(_TIME)}s{_CHECKSUM}s{len(_REST)}s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A sample's bytes in the tar, from its first header to the end of its last padding."""

    key: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSummary:
    """What a finished tar is: its length in bytes, its SHA-256 and how many samples it holds."""

    bytes: int
    sha256: str
    samples: int


class ShardWriter:
    """Writes samples to a binary sink, in order, hashing as it goes; holds nothing of them but their keys."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._digest = hashlib.sha256()
        self._offset = 0
        self._keys: set[str] = set()

    def add(self, key: str, members: Sequence[Member]) -> Block:
        """Writes one sample and says where it lies.

        Raises CorpusError, before anything is written, where the key is not of [a-z0-9_-]{1,80} or has been there, an
        extension is no name or comes twice, a name is longer than 100 bytes, or there is no member.
        """
        if not _KEY.fullmatch(key):
            raise CorpusError("not a key of a sample", got=repr(key), allowed=_KEY.pattern)
        if key in self._keys:
            raise CorpusError("a key occurs twice in a shard", got=key)
        extensions = [extension for extension, _ in members]
        if not members or len(set(extensions)) < len(extensions):
            raise CorpusError("a sample needs members, each of its own extension", where=key, got=extensions)
        parts: list[bytes] = []
        small: list[bytes] = []  # to be written in one piece
        for extension, data in members:
            if not _EXTENSION.fullmatch(extension):
                raise CorpusError("not an extension", where=key, got=repr(extension), allowed=_EXTENSION.pattern)
            small.append(_header(f"{key}.{extension}", len(data)))
            if len(data) > _SMALL:
                parts += [b"".join(small), data]
                small.clear()
            else:
                small.append(data)
            small.append(_ZEROS[: -len(data) % _BLOCK])
        parts.append(b"".join(small))
        self._keys.add(key)
        block = Block(key=key, offset=self._offset, size=sum(map(len, parts)))
        for part in parts:
            self._write(part)
        return block

    def finish(self) -> ShardSummary:
        """Writes the end of the tar; the sink stays open."""
        self._write(_ZEROS[: 2 * _BLOCK])
        self._write(_ZEROS[: -self._offset % _RECORD])
        return ShardSummary(bytes=self._offset, sha256=self._digest.hexdigest(), samples=len(self._keys))

    def _write(self, part: bytes) -> None:
        self._sink.write(part)
        self._digest.update(part)
        self._offset += len(part)


def read_block(data: bytes) -> tuple[str, dict[str, bytes]]:
    """The key and the members (extension -> data) of one sample's block; CorpusError where it is not exactly one."""
    members: dict[str, bytes] = {}
    key, place = "", 0
    while place < len(data):
        owner, extension, size = _parse(data, place)
        begin = place + _BLOCK
        place = begin + size + -size % _BLOCK
        if place > len(data):
            where = f"{owner}.{extension}"
            raise CorpusError("a sample's block ends too early", where=where, got=f"{len(data)} bytes", allowed=place)
        if members and owner != key:
            raise CorpusError("a sample's block holds another sample", where=key, got=owner)
        if extension in members:
            raise _twice(owner, extension)
        members[extension] = data[begin : begin + size]
        key = owner
    if not members:
        raise CorpusError("a sample's block is empty")
    return key, members


def block_key(data: bytes) -> str:
    """The key of a block, as its first header says. Raises CorpusError where it begins with none."""
    return _parse(data, 0)[0]


def iter_blocks(source: BinaryIO) -> Iterator[tuple[Block, dict[str, bytes]]]:
    """The samples of a whole tar in order, one in memory at a time.

    Raises CorpusError, naming the offset, where the tar ends too early or goes on after its end, a header is broken, or
    the members of a key are not adjacent.
    """
    seen: set[str] = set()
    key, start, place = "", 0, 0
    members: dict[str, bytes] = {}
    while True:
        header = _take(source, _BLOCK, place)
        if header == _ZEROS[:_BLOCK]:
            break
        owner, extension, size = _parse(header, 0, place)
        if owner != key:
            if members:
                yield Block(key=key, offset=start, size=place - start), members
            if owner in seen:
                raise CorpusError(
                    "the members of a sample are not adjacent", where=f"byte {place}", got=f"{owner}.{extension}"
                )
            seen.add(owner)
            key, start, members = owner, place, {}
        padded = size + -size % _BLOCK
        data = _take(source, padded, place + _BLOCK)
        if extension in members:
            raise _twice(owner, extension)
        members[extension] = data[:size]
        place += _BLOCK + padded
    if members:
        yield Block(key=key, offset=start, size=place - start), members
    _check_end(source, place)


def _check_end(source: BinaryIO, place: int) -> None:
    """The tar's end lies at `place`, of which one zero block has been read."""
    rest = _BLOCK + -(place + 2 * _BLOCK) % _RECORD
    if _take(source, rest, place + _BLOCK).strip(b"\0") or source.read(1):
        raise CorpusError("a tar goes on after its end", where=f"byte {place}")


def _take(source: BinaryIO, size: int, place: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise CorpusError("a tar ends too early", where=f"byte {place}", got=f"{len(data)} bytes", allowed=f"{size}")
    return data


def _twice(key: str, extension: str) -> CorpusError:
    return CorpusError("a member occurs twice", where=f"{key}.{extension}")


def _header(name: str, size: int) -> bytes:
    raw = name.encode("ascii")
    if len(raw) > _LONGEST_NAME or size > _LARGEST:
        raise CorpusError(
            "a member does not fit in a tar",
            where=name,
            got=f"a name of {len(raw)} bytes, {size} bytes of data",
            allowed=f"{_LONGEST_NAME}, {_LARGEST}",
        )
    front = b"".join((raw.ljust(_LONGEST_NAME, b"\0"), _MIDDLE, b"%011o" % size))
    return b"".join((front, _TIME, _checksum(_sum(front)), _REST))


def _parse(data: bytes, at: int, begin: int = 0) -> tuple[str, str, int]:
    """Key, extension and size that the header at a place of data says, where it is one of the writer's. begin: where in
    the tar data begins.
    """
    try:
        front, time, checksum, rest = _FIELDS.unpack_from(data, at)
        first, _, after = front[:-_SIZE].partition(b".")
        digits = front[-_SIZE:]
        key, extension, size = first.decode("ascii"), _extension(after), int(digits, 8)
        sound = time == _TIME and rest == _REST and digits.isdigit() and checksum == _checksum(_sum(front))
    except (struct.error, ValueError):
        sound = False
    if not sound:
        got = repr(data[at : at + 40])
        raise CorpusError("a header is broken, or not of a shard", where=f"byte {begin + at}", got=got)
    return key, extension, size


@lru_cache(maxsize=4096)
def _extension(after: bytes) -> str:
    """The extension in a header, from what follows the first dot up to the size. Raises ValueError where it is none."""
    extension = after.removesuffix(_MIDDLE).rstrip(b"\0").decode("ascii")
    if not after.endswith(_MIDDLE) or not _EXTENSION.fullmatch(extension):
        raise ValueError(f"no extension: {after!r}")
    return extension


@lru_cache(maxsize=4096)
def _checksum(front: int) -> bytes:
    """What a header says of its sum, given that of all before the time."""
    return b"%06o\0" % (_CONSTANT_SUM + front)


def _sum(data: bytes) -> int:
    """The sum of some bytes, less than 65,521: the lower half of Adler-32, less one, at a third of what `sum` takes."""
    return (zlib.adler32(data) & 0xFFFF) - 1
