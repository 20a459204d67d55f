"""Object stores, by fsspec: what `Folder` (storage.py) asks of them, and what their errors mean."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, cast

from aesampler.errors import MissingExtra

BLOCK = 8 << 20
"""Bytes read ahead: s3fs asks for 50 MB at a time otherwise, in each worker."""
_CLIENTS = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "requests", "urllib3"}
_held: dict[int, Any] = {}  # every store that this process or its parent has used, by identity: see connect


def connect(url: str) -> Any:
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


def cat(store: Any, where: str) -> bytes:
    """All bytes of a file."""
    # s3fs asks for the size first, to fetch large files in parts: one more round trip for each of a million pictures.
    options = {"max_concurrency": 1} if "s3" in store.protocol else {}
    return cast(bytes, store.cat_file(where, **options))


def cat_range(store: Any, where: str, offset: int, size: int) -> bytes:
    """At most `size` bytes from `offset` on; none at or past the end."""
    try:
        return cast(bytes, store.cat_file(where, start=offset, end=offset + size))
    except OSError as error:
        if _code(error) in ("InvalidRange", "416"):  # S3's word for an offset at or past the end
            return b""
        raise


def find(store: Any, where: str, prefix: str, depth: int | None) -> dict[str, int]:
    """Path below `where`, after `prefix` -> bytes, of every file; depth: levels of folders to enter, None for all."""
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


def refused(error: BaseException) -> bool:
    """Whether a conditional write was refused: the file is there."""
    return _code(error) in ("PreconditionFailed", "412")


def is_trouble(error: BaseException) -> bool:
    """Whether an error comes from the disk, the network or a store's client, rather than from a mistake of ours."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _CLIENTS
