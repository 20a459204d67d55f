"""The bytes of a corpus, for tests that compare them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256s(folder: Path) -> dict[str, str]:
    """sha256 of every file below `folder`, hidden ones too, by path."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
