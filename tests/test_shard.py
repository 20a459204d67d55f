"""Shards: the bytes of tarfile, read by tarfile and webdataset, and by nothing once they are cut or damaged."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aesampler.errors import CorpusError
from aesampler.shard import Block, Member, ShardSummary, ShardWriter, iter_blocks, read_block

Samples = list[tuple[str, list[Member]]]

TWO: Samples = [
    ("coco-000000000139", [("json", b"{}"), ("cls", b"1"), ("jpg", bytes(range(256)) * 3), ("mask.png", b"")]),
    ("coco-000000000285", [("json", b'{"a":1}'), ("cls", b"0"), ("000.jpg", b"x" * 512), ("000.mask.png", b"y" * 513)]),
]

PINNED = "66d14ebc81bf2e0e560aea851afc46bb037f97b24ea315e0c2cce5229e281821"

keys = st.text("abz09_-", min_size=1, max_size=80)
extensions = st.sampled_from(["json", "cls", "jpg", "png", "mask.png", "000.jpg", "000.mask.png", "001.jpg"])
sizes = st.sampled_from([0, 1, 511, 512, 513, 1024, 5000])
member = st.tuples(extensions, st.builds(lambda size, fill: bytes([fill]) * size, sizes, st.integers(0, 255)))
samples = st.lists(
    st.tuples(keys, st.lists(member, min_size=1, max_size=5, unique_by=lambda pair: pair[0])),
    max_size=6,
    unique_by=lambda pair: pair[0],
)


def written(content: Samples) -> tuple[bytes, list[Block], ShardSummary]:
    sink = io.BytesIO()
    writer = ShardWriter(sink)
    blocks = [writer.add(key, members) for key, members in content]
    summary = writer.finish()
    return sink.getvalue(), blocks, summary


def by_tarfile(content: Samples) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in content:
            for extension, data in members:
                entry = tarfile.TarInfo(f"{key}.{extension}")
                entry.size, entry.mode = len(data), 0o644
                tar.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


@given(samples)
def test_the_bytes_are_tarfiles(content: Samples) -> None:
    data, blocks, summary = written(content)
    assert data == by_tarfile(content)
    assert summary == ShardSummary(bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), samples=len(content))
    assert len(data) % 10_240 == 0
    assert sum(block.size for block in blocks) <= len(data) - 1024


@given(samples)
def test_what_is_written_is_read(content: Samples) -> None:
    data, blocks, _ = written(content)
    assert [(block.key, members) for block, members in iter_blocks(io.BytesIO(data))] == [
        (key, dict(members)) for key, members in content
    ]
    assert [block for block, _ in iter_blocks(io.BytesIO(data))] == blocks
    for block, (key, members) in zip(blocks, content, strict=True):
        found, stored = read_block(data[block.offset : block.offset + block.size])
        assert (found, list(stored.items())) == (key, members)


def test_bytes_are_pinned() -> None:
    _, blocks, summary = written(TWO)
    assert blocks == [
        Block(key="coco-000000000139", offset=0, size=4096),
        Block(key="coco-000000000285", offset=4096, size=4608),
    ]
    assert summary == ShardSummary(bytes=10_240, sha256=PINNED, samples=2)
    assert written([])[0] == bytes(10_240)


@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO")  # webdataset leaves the file to the collector
def test_webdataset_reads_every_sample(tmp_path: Path) -> None:
    import webdataset

    path = tmp_path / "coco-000000.tar"
    path.write_bytes(written(TWO)[0])
    read = [
        (sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")})
        for sample in webdataset.WebDataset(str(path), shardshuffle=False)
    ]
    assert read == [(key, dict(members)) for key, members in TWO]


def test_members_are_plain_files_of_nobody() -> None:
    with tarfile.open(fileobj=io.BytesIO(written(TWO)[0])) as tar:
        for entry in tar:
            assert entry.isreg()
            assert (entry.mode, entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0o644, 0, 0, "", "", 0)


# What is not written


@pytest.mark.parametrize("key", ["", "a.b", "A", "a b", "a/b", "\u00e9", "a\n", "x" * 81])
def test_a_key_must_be_a_key(key: str) -> None:
    writer = ShardWriter(sink := io.BytesIO())
    with pytest.raises(CorpusError, match="not a key"):
        writer.add(key, [("json", b"")])
    assert sink.getvalue() == b""


@pytest.mark.parametrize("extension", ["", ".json", "json.", "a/b", "..", "a b", "\u00e9"])
def test_an_extension_must_be_a_name(extension: str) -> None:
    writer = ShardWriter(sink := io.BytesIO())
    with pytest.raises(CorpusError, match="not an extension"):
        writer.add("k", [("json", b""), (extension, b"")])
    assert sink.getvalue() == b""
    writer.add("k", [("json", b"")])  # the key is still free


def test_names_of_100_bytes_and_no_more() -> None:
    writer = ShardWriter(sink := io.BytesIO())
    writer.add("k" * 80, [("e" * 19, b"data")])
    with pytest.raises(CorpusError, match="does not fit"):
        writer.add("j" * 80, [("e" * 20, b"data")])
    writer.finish()
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as tar:
        assert tar.getnames() == ["k" * 80 + "." + "e" * 19]


def test_a_member_of_8_gib_does_not_fit() -> None:
    from aesampler import shard

    assert shard._header("k.jpg", 8**11 - 1)[124:136] == b"77777777777\0"
    with pytest.raises(CorpusError, match="does not fit"):
        shard._header("k.jpg", 8**11)


@pytest.mark.parametrize("members", [[], [("json", b""), ("json", b"")]])
def test_members_must_be_there_and_differ(members: list[Member]) -> None:
    with pytest.raises(CorpusError, match="members"):
        ShardWriter(io.BytesIO()).add("k", members)


def test_a_key_occurs_once() -> None:
    writer = ShardWriter(io.BytesIO())
    writer.add("k", [("json", b"")])
    with pytest.raises(CorpusError, match="twice"):
        writer.add("k", [("jpg", b"")])


# What is not read


def test_every_cut_is_refused_with_its_offset() -> None:
    data = written(TWO)[0]
    for size in range(0, len(data), 97):
        with pytest.raises(CorpusError, match=r"^byte \d+: a tar ends too early"):
            list(iter_blocks(io.BytesIO(data[:size])))


def test_samples_before_the_cut_are_read() -> None:
    data, (first, second), _ = written(TWO)
    reading = iter_blocks(io.BytesIO(data[: second.offset + 1500]))
    assert next(reading)[0] == first
    with pytest.raises(CorpusError, match=f"^byte {second.offset + 1024}: a tar ends too early; got 476 bytes"):
        next(reading)


@given(st.integers(0, 511), st.integers(1, 255))
def test_any_changed_byte_of_a_header_is_refused(place: int, change: int) -> None:
    whole, (_, second), _ = written(TWO)
    data = bytearray(whole)
    data[second.offset + place] ^= change
    with pytest.raises(CorpusError):
        list(iter_blocks(io.BytesIO(data)))
    with pytest.raises(CorpusError):
        read_block(bytes(data[second.offset : second.offset + second.size]))


@given(st.integers(0, 511), st.integers(0, 511), st.integers(1, 255))
def test_two_changes_that_the_checksum_misses_are_refused(one: int, other: int, change: int) -> None:
    """But in the key and the size, where what comes out is the header of another member."""
    data, (_, second), _ = written(TWO)
    header = bytearray(data[second.offset : second.offset + 512])
    header[one], header[other] = (header[one] + change) % 256, (header[other] - change) % 256
    named, sized = range(len(second.key)), range(124, 135)
    if bytes(header) != data[second.offset : second.offset + 512] and not {one, other} <= {*named, *sized}:
        with pytest.raises(CorpusError):
            read_block(bytes(header) + data[second.offset + 512 : second.offset + second.size])


def test_the_end_is_the_end() -> None:
    data = written(TWO)[0]
    for tail in (bytes(512), b"x", data):
        with pytest.raises(CorpusError, match="goes on after its end"):
            list(iter_blocks(io.BytesIO(data + tail)))
    damaged = data[:-1] + b"x"
    with pytest.raises(CorpusError, match="goes on after its end"):
        list(iter_blocks(io.BytesIO(damaged)))


def test_members_of_a_key_are_adjacent_and_differ() -> None:
    apart = by_tarfile([("a", [("json", b"")]), ("b", [("json", b"")]), ("a", [("jpg", b"")])])
    with pytest.raises(CorpusError, match="byte 1024: the members of a sample are not adjacent"):
        list(iter_blocks(io.BytesIO(apart)))
    twice = by_tarfile([("a", [("json", b""), ("json", b"")])])
    with pytest.raises(CorpusError, match="twice"):
        list(iter_blocks(io.BytesIO(twice)))
    with pytest.raises(CorpusError, match="twice"):
        read_block(twice[:1024])


def test_a_block_is_one_whole_sample() -> None:
    data, (first, second), _ = written(TWO)
    block = data[: first.size]
    for wrong in (b"", block[:-1], block[:700], data[: first.size + second.size], data[512:], data):
        with pytest.raises(CorpusError):
            read_block(wrong)


def test_foreign_tars_are_refused() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        entry = tarfile.TarInfo("a.json")
        entry.mtime = 5
        tar.addfile(entry)
    with pytest.raises(CorpusError, match="byte 0: a header is broken, or not of a shard"):
        list(iter_blocks(io.BytesIO(sink.getvalue())))
