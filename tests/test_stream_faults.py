"""Streams over broken shards and a store that fails: samples arrive intact, or the error says which one and why."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import corpora
import pytest
from conftest import S3
from test_storage import Forward, Proxy
from test_stream import COCO, DAVIS, same

from aesampler import Corpus, Folder, storage
from aesampler.errors import CorpusError, StorageError, ToleranceError
from aesampler.manifest import SampleRow

TAR = "train/coco-000003.tar"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return corpora.write(tmp_path / "tiny", (COCO,))


def tampered(folder: Folder, key: str, extension: str, change: Callable[[bytes], bytes]) -> None:
    """A member of one sample changed, all sums fitting."""

    def each(row: SampleRow, members: dict[str, bytes]) -> tuple[SampleRow, dict[str, bytes]]:
        return row, members | {extension: change(members[extension])} if row.key == key else members

    corpora.rewrite(folder, each)


def keys(folder: Folder, **options: Any) -> list[str]:
    return [sample.key for sample in Corpus.open(folder).stream("train", **options)]


@pytest.mark.parametrize("threads", [0, 3])
def test_a_truncated_shard(folder: Folder, threads: int) -> None:
    order = keys(folder)
    data = (folder.path / TAR).read_bytes()
    (folder.path / TAR).write_bytes(data[: len(data) // 2])
    stream = Corpus.open(folder).stream("train", threads=threads)
    with pytest.raises(CorpusError) as caught:
        list(stream)
    assert "cannot be used: the shard ends too early; got " in str(caught.value)
    assert f"{TAR} at " in str(caught.value)
    assert order[stream.consumed] in str(caught.value), "errors come in the order of the samples"


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda data: b"\0" * 512 + data[512:], "a header is broken, or not of a shard"),
        (lambda data: data.replace(b"coco_train_000012", b"coco_train_000099"), "broken, or not of a shard"),
        (lambda data: data[8192:] + data[:8192], "cannot be used: a"),
    ],
)
def test_a_spoilt_tar(folder: Folder, spoil: Callable[[bytes], bytes], what: str) -> None:
    (folder.path / TAR).write_bytes(spoil((folder.path / TAR).read_bytes()))
    with pytest.raises(CorpusError, match=what):
        keys(folder)
    with pytest.raises(CorpusError, match=r"a shard is not the one that was built; got sha256 .*; allowed: "):
        keys(folder, verify=True)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda data: data[:2000], "the shard ends too early"),
        (lambda data: bytes(512) + data[512:], "a header is broken, or not of a shard"),
        (lambda data: data[8192:] + data[:8192], "cannot be used: (a header is broken|the tar holds another sample)"),
    ],
)
def test_blocks_of_a_spoilt_tar(folder: Folder, spoil: Callable[[bytes], bytes], what: str) -> None:
    whole = [key for key, _ in Corpus.open(folder).stream("train").blocks()]
    (folder.path / TAR).write_bytes(spoil((folder.path / TAR).read_bytes()))
    with pytest.raises(CorpusError, match=what):
        list(Corpus.open(folder).stream("train").blocks())
    stream = Corpus.open(folder).stream("train", tolerance=0.9)
    found = [key for key, _ in stream.blocks()]
    assert stream.bad
    assert len(found) == len(whole)
    assert len(set(found)) < len(whole)


def test_whole_shards_are_verified_where_that_is_asked_for(folder: Folder) -> None:
    assert keys(folder, verify=True) == keys(folder)
    data = bytearray((folder.path / TAR).read_bytes())
    data[-1] ^= 1  # in the tar's own end, which no sample reads
    (folder.path / TAR).write_bytes(data)
    keys(folder)
    with pytest.raises(CorpusError, match="a shard is not the one that was built"):
        keys(folder, verify=True)


@pytest.mark.parametrize("name", [TAR, "manifest/train/coco-000003.parquet"])
def test_what_is_gone(folder: Folder, name: str) -> None:
    (folder.path / name).unlink()
    with pytest.raises(CorpusError, match=r"is gone; see `aesampler verify`"):
        keys(folder)


@pytest.mark.parametrize(
    ("extension", "change", "what"),
    [
        ("jpg", lambda data: data[:100], "cannot be used: an image cannot be read"),
        ("json", lambda data: data[:-5], "cannot be used: K.json is not as the corpus format says"),
        (
            "json",
            lambda data: data.replace(b'"height":24', b'"height":25'),
            "cannot be used: the picture has not the size",
        ),
    ],
)
def test_bad_samples_are_named_and_tolerated_where_that_is_asked_for(
    folder: Folder, extension: str, change: Callable[[bytes], bytes], what: str
) -> None:
    key = "coco_train_000012"
    whole = keys(folder)
    tampered(folder, key, extension, change)
    for threads in (0, 2):
        with pytest.raises(CorpusError, match=f"sample {key} {what}"):
            keys(folder, threads=threads)
        stream = Corpus.open(folder).stream("train", threads=threads, tolerance=0.06)
        found = list(stream)
        place = whole.index(key)
        following = whole[(place + 1) % len(whole)]
        assert [sample.key for sample in found] == [*whole[:place], following, *whole[place + 1 :]]
        assert [sample.duplicate for sample in found] == [name == key for name in whole]
        assert len(stream.bad) == 1
        assert key in next(iter(stream.bad.values()))
    with pytest.raises(ToleranceError, match="more samples cannot be used than are tolerated; got 1; allowed: 0"):
        keys(folder, tolerance=0.01)


def test_a_broken_neighbour_is_no_replacement(folder: Folder) -> None:
    whole = keys(folder)
    for key in whole[4:6]:
        tampered(folder, key, "jpg", lambda data: data[:100])
    stream = Corpus.open(folder).stream("train", tolerance=0.2)
    assert [sample.key for sample in stream] == [*whole[:4], whole[6], *whole[6:7], *whole[6:]]
    assert len(stream.bad) == 2


# -- a store that fails -----------------------------------------------------------------------------------------------


class Trouble(list[Any]):
    """Faults without end: each request meets one with a chance of `rate`."""

    def __init__(self, rate: float) -> None:
        super().__init__([None])
        self.rate, self.met, self._random = rate, 0, random.Random(5)

    def pop(self, _: Any = 0) -> Any:
        if self._random.random() >= self.rate:
            return None
        self.met += 1
        return self._random.choice([500, 503, "reset"])


class Cutting(Forward):
    """Cuts bodies, too, and takes its time; `short` bodies lie about their length, as some proxies' do."""

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        server: Any = self.server
        kind = server.cuts.pop() if server.cuts and self.command == "GET" and len(body) > 1000 else None
        if kind == "slow":
            time.sleep(0.3)
        if kind == "short":
            body = body[: len(body) // 2]
            headers = {name: value for name, value in headers.items() if name.lower() != "etag"}
        if kind == "cut":
            self.send_response_only(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        super().answer(status, headers, body)


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import s3fs

    with Proxy(s3) as server:
        server.RequestHandlerClass = Cutting
        server.cuts = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(storage, "BACKOFF", (0.01,) * 5)  # of ten requests one fails, and three may be one's
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()


@pytest.fixture
def stored(s3: S3, tmp_path: Path) -> tuple[Corpus, str]:
    """A corpus on disk, and the address of its copy in the store."""
    folder = corpora.write(tmp_path / "tiny", (COCO, DAVIS))
    url = s3.bucket()
    target = s3.disk / url.removeprefix("s3://")
    for path in folder.path.rglob("*"):
        if path.is_file():
            (target / path.relative_to(folder.path)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(folder.path)).write_bytes(path.read_bytes())
    time.sleep(1.1)  # the server looks at its disk once a second
    return Corpus.open(folder), url


def test_samples_arrive_through_trouble(stored: tuple[Corpus, str], proxy: Any) -> None:
    corpus, url = stored
    proxy.faults = Trouble(0.1)
    proxy.cuts[:] = ["slow", "cut", "slow", "cut", "cut"]
    found = list(Corpus.open(url).stream("train"))
    assert [sample.key for sample in found] == [sample.key for sample in corpus.stream("train")]
    for sample in found:
        same(sample, corpus[sample.key])
    assert proxy.faults.met > 0
    assert proxy.cuts == []


def test_a_body_that_is_short_is_read_again(stored: tuple[Corpus, str], proxy: Any) -> None:
    corpus, url = stored
    remote = Corpus.open(url)
    stream = remote.stream("train", threads=1)
    first = next(stream.members())
    proxy.cuts[:] = ["short", "short"]
    found = [first, *stream.members()]
    assert [key for key, _ in found] == list(corpus.stream("train").keys())
    assert all(members == corpus.members(corpus.row(key)) for key, members in found)
    proxy.cuts[:] = ["short"] * 1000
    with pytest.raises(CorpusError, match=r"ends too early|not a manifest"):
        list(remote.stream("train", threads=1))


def test_a_store_that_stays_broken_is_told(stored: tuple[Corpus, str], proxy: Any) -> None:
    _, url = stored
    remote = Corpus.open(url)
    proxy.faults = Trouble(1.0)
    with pytest.raises(StorageError, match="the store does not answer as it should"):
        list(remote.stream("train", tolerance=0.5))


def test_a_sample_is_never_taken_for_another(folder: Folder) -> None:
    """A tar of another build, in which every header is sound, but a key is not that of the manifest."""
    manifest = (folder.path / "manifest/train/coco-000003.parquet").read_bytes()

    def renamed(row: SampleRow, members: dict[str, bytes]) -> tuple[SampleRow, dict[str, bytes]]:
        return (replace(row, key="coco_train_900013") if row.key == "coco_train_000013" else row), members

    corpora.rewrite(folder, renamed)
    (folder.path / "manifest/train/coco-000003.parquet").write_bytes(manifest)
    what = "sample coco_train_000013 cannot be used: the tar holds another sample here; got coco_train_900013"
    with pytest.raises(CorpusError, match=what):
        keys(folder)
