"""NVIDIA DALI's index of each shard: `<split>/<source>-000000.idx`, beside which `fn.readers.webdataset` reads the tar.

The text that DALI's own `wds2idx` makes, byte for byte: `v1.2 SAMPLES`, then a line a sample, `ext offset size name`
for each of its members, offset and size being those of the member's data. With no index DALI reads every tar through
before its first batch. The tars stay where they are; the reader takes the two lists of paths side by side.
"""

from __future__ import annotations

from aesampler.corpus import Corpus
from aesampler.errors import RecipeError
from aesampler.export.selection import Exported, Selection
from aesampler.plan import Progress
from aesampler.shard import iter_blocks
from aesampler.storage import Folder

VERSION = "v1.2"
BLOCK = 512
"""Bytes of a tar header, and the unit to which a member's data is padded."""


def check(corpus: Corpus, selection: Selection) -> None:
    """Raise RecipeError where there is a limit."""
    if selection.limit is not None:
        raise RecipeError("an index is of whole shards", got=f"limit {selection.limit}", do="leave the limit out")


def export(corpus: Corpus, out: Folder, selection: Selection, progress: Progress | None = None) -> Exported:
    """Write the index of every shard selected. Raises CorpusError where a tar is not as written."""
    total, done, files = selection.count(corpus), 0, 0
    for _, _, head in selection.parts(corpus):
        for shard in head.shards:
            out.commit_bytes(f"{shard.path.removesuffix('.tar')}.idx", index(corpus.folder, shard.path))
            done, files = done + shard.samples, files + 1
            if progress is not None:
                progress("samples", done, total)
    return Exported(samples=done, files=files)


def index(folder: Folder, path: str) -> bytes:
    """The index of the tar at `path`."""
    lines = []
    with folder.open(path) as tar:
        for block, members in iter_blocks(tar):
            place, entries = block.offset, []
            for extension, data in members.items():
                entries.append(f"{extension} {place + BLOCK} {len(data)} {block.key}.{extension}")
                place += BLOCK + len(data) + -len(data) % BLOCK
            lines.append(" ".join(entries))
    return "\n".join([f"{VERSION} {len(lines)}", *lines, ""]).encode("ascii")
