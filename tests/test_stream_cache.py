"""Shards of a store on the local disk: the same samples, each fetched once, within bounds, whatever dies."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import corpora
import pytest
from conftest import S3
from hypothesis import given
from hypothesis import strategies as st
from test_storage import Forward, Proxy
from test_stream import same

from aesampler import Corpus, Folder, storage
from aesampler.errors import CorpusError, StorageError
from aesampler.stream import Cache, cache
from aesampler.stream.cache import RUN_BYTES, Shelf, Wanted, runs
from aesampler.stream.pool import CalledOff, Pool

COCO = corpora.Part(source="coco", shards=(20, 3, 11, 16), failed=(7,), bare=4)
DAVIS = corpora.Part(source="davis", kind="clip", frames=3, shards=(4, 3), bare=1, skipped=(2,))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(corpora.write(tmp_path_factory.mktemp("corpus") / "tiny", (COCO, DAVIS)))


def copied(corpus: Corpus, s3: S3) -> str:
    """The address of a copy of the corpus in the store."""
    address = s3.bucket()
    shutil.copytree(corpus.folder.path, s3.disk / address.removeprefix("s3://"), dirs_exist_ok=True)
    time.sleep(1.1)  # the server looks at its disk once a second
    return address


@pytest.fixture(scope="module")
def url(corpus: Corpus, s3: S3) -> str:
    return copied(corpus, s3)


class Log(list[tuple[str, int, int]]):
    """Every ranged reading of a store: path, offset, size; and whole ones, with size 0."""

    def of_tars(self) -> list[tuple[str, int, int]]:
        return [each for each in self if each[0].endswith(".tar")]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    found = Log()
    read_range, read = Folder.read_range, Folder.read

    def ranged(self: Folder, rel: str, offset: int, size: int) -> bytes:
        if not self.is_local:
            found.append((rel, offset, size))
        return read_range(self, rel, offset, size)

    def whole(self: Folder, rel: str) -> bytes:
        if not self.is_local:
            found.append((rel, 0, 0))
        return read(self, rel)

    monkeypatch.setattr(Folder, "read_range", ranged)
    monkeypatch.setattr(Folder, "read", whole)
    return found


def held(folder: Path) -> int:
    """Bytes of the disk that a cache takes, while it removes nothing: what is gone meanwhile would be counted beside
    what came for it.
    """
    total = 0
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_blocks * 512
    return total


def keys(corpus: Corpus, **options: Any) -> list[str]:
    return [sample.key for sample in corpus.stream("train", **options)]


# -- what is fetched --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fetch", ["ranges", "shards"])
def test_the_same_samples_and_the_store_is_asked_once(
    corpus: Corpus, url: str, log: Log, tmp_path: Path, fetch: Any
) -> None:
    remote = Corpus.open(url)
    options: dict[str, Any] = {"cache": Cache(tmp_path / "cache", fetch=fetch), "window": 2}
    found = list(remote.stream("train", **options))
    assert [sample.key for sample in found] == keys(corpus, window=2)
    for sample in found:
        same(sample, corpus[sample.key])
    sizes = {entry.path: entry.bytes for part in remote.head.splits["train"].values() for entry in part.shards}
    if fetch == "shards":
        assert sorted(log.of_tars()) == sorted((path, 0, size) for path, size in sizes.items())
    else:
        fetched = sorted(log.of_tars())
        for (path, offset, size), (following, start, _) in itertools.pairwise(fetched):
            assert path != following or offset + size <= start, "nothing is fetched twice"
        assert len(fetched) < len(found)
    log.clear()
    assert keys(remote, epoch=1, **options) == keys(corpus, epoch=1, window=2)
    assert log == []
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_rank_fetches_what_is_its_own(url: str, log: Log, tmp_path: Path) -> None:
    remote = Corpus.open(url)
    list(remote.stream("train", cache=tmp_path / "cache", rank=1, world_size=4))
    of_all = sum(entry.bytes for part in remote.head.splits["train"].values() for entry in part.shards)
    assert sum(size for *_, size in log.of_tars()) < 0.35 * of_all


def test_touching_samples_come_by_one_request(url: str, log: Log, tmp_path: Path) -> None:
    remote = Corpus.open(url)
    stream = remote.stream("train", cache=tmp_path / "cache", shuffle=False, window=8)
    assert len(list(stream.members())) == len(stream)
    assert len(log.of_tars()) <= 12, "shards in order: by a few requests each"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), max_size=30), st.integers(1, 100))
def test_runs(gaps: list[tuple[int, int]], most: int) -> None:
    """Touching samples, in order, are in one run while it is short enough; no run has a hole, and none is left out."""
    wanted, offset = [], 0
    for row, (gap, size) in enumerate(gaps):
        offset += gap if gap > 10 else 0
        wanted.append(Wanted(row, offset, size))
        offset += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "RUN_BYTES", most)
        found = list(runs(random.Random(1).sample(wanted, len(wanted))))
    assert [each for run in found for each in run] == wanted
    for run in found:
        assert all(a.offset + a.size == b.offset for a, b in itertools.pairwise(run))
        assert len(run) == 1 or sum(each.size for each in run) <= most
    for one, two in itertools.pairwise(found):
        touch = one[-1].offset + one[-1].size == two[0].offset
        assert not touch or sum(each.size for each in one) + two[0].size > most
    assert RUN_BYTES >= 1 << 20


def test_a_local_corpus_needs_none(corpus: Corpus, tmp_path: Path) -> None:
    assert keys(corpus, cache=tmp_path / "cache") == keys(corpus)
    assert not (tmp_path / "cache").exists()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_worker_processes_share_it(corpus: Corpus, url: str, tmp_path: Path) -> None:
    remote = Corpus.open(url)
    loader = remote.stream("train", cache=tmp_path / "cache").torch(2, num_workers=2)
    found = [sample.key for batch in loader for sample in batch]
    assert found == keys(corpus)


def test_states_do_not_depend_on_it(corpus: Corpus, url: str, tmp_path: Path) -> None:
    stream = Corpus.open(url).stream("train", cache=tmp_path / "cache")
    first = [sample.key for _, sample in zip(range(11), stream, strict=False)]
    rest = corpus.stream("train")
    rest.load_state_dict(stream.state_dict())
    assert [*first, *(sample.key for sample in rest)] == keys(corpus)


# -- bounds -----------------------------------------------------------------------------------------------------------


FILL = """
import sys
from aesampler import Corpus
from aesampler.stream import Cache
url, folder, fetch, most, *seeds = sys.argv[1:]
print("begun", flush=True)
for seed in seeds:
    cache = Cache(folder, fetch=fetch, max_bytes=int(most))
    for sample in Corpus.open(url).stream("train", cache=cache, seed=int(seed)):
        print(sample.key, flush=True)
"""


def started(url: str, folder: Path, fetch: str, most: int, *seeds: int) -> subprocess.Popen[str]:
    """A process that streams epochs of some seeds, and prints the keys."""
    command = [sys.executable, "-c", FILL, url, str(folder), fetch, str(most), *map(str, seeds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)


@pytest.mark.parametrize("fetch", ["ranges", "shards"])
def test_it_never_holds_more_than_it_may(corpus: Corpus, url: str, tmp_path: Path, fetch: str) -> None:
    """Two processes at once, in other orders, with room for a part of the corpus."""
    entries = [entry for part in corpus.head.splits["train"].values() for entry in (*part.shards, *part.manifests)]
    most = 3 * (max(entry.bytes for entry in entries) // 4096 + 4) * 4096
    assert most < sum(entry.bytes for entry in entries)
    folder, peak = tmp_path / "cache", 0
    workers = [started(url, folder, fetch, most, 2 * place, 2 * place + 1) for place in range(2)]
    while any(worker.poll() is None for worker in workers):
        if folder.exists():
            peak = max(peak, held(folder))
        time.sleep(0.002)
    peak = max(peak, held(folder))
    for place, worker in enumerate(workers):
        told, _ = worker.communicate()
        assert worker.returncode == 0
        assert told.split()[1:] == keys(corpus, seed=2 * place) + keys(corpus, seed=2 * place + 1)
    assert most / 4 < peak <= most


def test_the_oldest_goes_first(corpus: Corpus, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "TOUCH_S", 0.0)
    remote = Corpus.open(url)
    entries = remote.head.splits["train"]["coco"].shards
    most = 4096 + sum((entry.bytes // 4096 + 1) * 4096 for entry in (entries[0], entries[2], entries[3]))
    shelf = Shelf(Cache(tmp_path, max_bytes=most), whole=True)
    for place in (2, 0, 3, 2):
        shelf.keep(remote.folder, entries[place])
        time.sleep(0.02)
    shelf.keep(remote.folder, entries[1])
    assert {path.stem for path in tmp_path.glob("*.whole")} == {entries[place].sha256 for place in (3, 2, 1)}


def test_one_that_is_too_small_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cache.max_bytes: the cache cannot hold even this; got 1000; allowed: "):
        list(Corpus.open(url).stream("train", cache=Cache(tmp_path, max_bytes=1000)))


@pytest.mark.parametrize(
    "wrong", [{"folder": ""}, {"folder": "s3://a/b"}, {"folder": "a", "max_bytes": 0}, {"folder": "a", "fetch": "all"}]
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(CorpusError, match="cache"):
        Cache(**wrong)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def spoil(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("fetch", ["ranges", "shards"])
def test_a_disk_that_forgets(corpus: Corpus, url: str, tmp_path: Path, log: Log, fetch: Any) -> None:
    """Zeros where a sample was, as a machine that lost its power may leave them."""
    remote, options = Corpus.open(url), {"cache": Cache(tmp_path, fetch=fetch)}
    list(remote.stream("train", **options))
    for path in tmp_path.glob("*.rows" if fetch == "ranges" else "*.whole"):
        if path.stat().st_size > 20_000:
            spoil(path, 10_000, bytes(5_000))
            spoil(path, path.stat().st_size - 3_000, bytes(3_000))
    log.clear()
    for sample in remote.stream("train", **options):
        same(sample, corpus[sample.key])
    assert log.of_tars()


def test_another_shard_in_the_store(corpus: Corpus, s3: S3, tmp_path: Path) -> None:
    """Whole shards are checked against corpus.json as they come, and `verify` has them come whole."""
    url = copied(corpus, s3)
    tar = s3.disk / url.removeprefix("s3://") / "train/coco-000003.tar"
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(data)
    time.sleep(1.1)
    assert keys(Corpus.open(url), cache=tmp_path / "ranges") == keys(corpus)
    for options in ({"cache": Cache(tmp_path / "a", fetch="shards")}, {"cache": tmp_path / "b", "verify": True}):
        with pytest.raises(CorpusError, match="a shard is not the one that was built; got sha256"):
            keys(Corpus.open(url), **options)
        assert not list(tmp_path.rglob("*.part"))


def test_a_name_is_a_sum(corpus: Corpus, tmp_path: Path) -> None:
    import msgspec

    entry = msgspec.structs.replace(corpus.head.splits["train"]["coco"].shards[0], sha256="../" * 8 + "etc/x")
    with pytest.raises(CorpusError, match=r"corpus.json is damaged: this is no sha256"):
        Shelf(Cache(tmp_path), whole=True).keep(corpus.folder, entry)


class Slow(Forward):
    """Answers no GET of a tar before its time."""

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if ".tar" in self.path and self.command == "GET":
            time.sleep(0.05)
        super().answer(status, headers, body)


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    import s3fs

    with Proxy(s3) as server:
        server.RequestHandlerClass = Slow
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setattr(storage, "BACKOFF", (0.01, 0.01))
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("fetch", ["ranges", "shards"])
def test_killed_while_it_is_filled(corpus: Corpus, url: str, proxy: Any, tmp_path: Path, fetch: Any) -> None:
    """Again and again, at any moment: what is left is good, and the next process takes over what was under way."""
    folder, random_ = tmp_path / "cache", random.Random(3)
    for _ in range(3):
        with started(url, folder, fetch, 10**9, 0) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            end = time.monotonic() + 20
            before = set(folder.glob("*")) if folder.exists() else set()
            while process.poll() is None and time.monotonic() < end:
                if folder.exists() and set(folder.glob("*.part")) | set(folder.glob("*.rows")) - before:
                    break
                time.sleep(0.005)
            time.sleep(random_.uniform(0.0, 0.15))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    found = list(Corpus.open(url).stream("train", cache=Cache(folder, fetch=fetch)))
    assert [sample.key for sample in found] == keys(corpus)
    for sample in found:
        same(sample, corpus[sample.key])
    Shelf(Cache(folder), whole=True).keep(Folder.at(url), corpus.head.splits["train"]["davis"].shards[0])
    with Shelf(Cache(folder), whole=True)._room(1, spare=folder):
        pass
    assert not list(folder.glob("*.part"))


def test_through_trouble(corpus: Corpus, url: str, proxy: Any, tmp_path: Path) -> None:
    class Trouble(list[Any]):
        random = random.Random(5)

        def pop(self, _: Any = 0) -> Any:
            return self.random.choice([500, 503, "reset"]) if self.random.random() < 0.1 else None

    proxy.faults = Trouble([None])
    for fetch in ("ranges", "shards"):
        found = list(Corpus.open(url).stream("train", cache=Cache(tmp_path / fetch, fetch=fetch)))
        assert [sample.key for sample in found] == keys(corpus)


# -- stopping ---------------------------------------------------------------------------------------------------------


def threads() -> set[threading.Thread]:
    """The threads of streams."""
    return {each for each in threading.enumerate() if each.name.startswith(("prefetch", "stream"))}


def ended(before: set[threading.Thread]) -> None:
    """No thread of a stream is left that was not there before."""
    for each in threads() - before:
        each.join(60)
    assert threads() <= before


@pytest.mark.parametrize("fetchers", [1, 8])
def test_stopping_early_leaves_nobody_waiting(
    url: str, proxy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetchers: int
) -> None:
    """Though all samples are being waited for, and of the fetchings some are under way and others called off."""
    monkeypatch.setattr("aesampler.stream.stream.FETCHERS", 2 * fetchers)
    before = threads()
    found = iter(Corpus.open(url).stream("train", cache=tmp_path / "cache", threads=16))
    next(found)
    found.close()  # type: ignore[attr-defined]
    ended(before)


def test_stopping_early_ends_the_fetching_of_whole_shards(
    url: str, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread ends with the piece that it has in hand."""
    monkeypatch.setattr("aesampler.stream.stream.FETCHERS", 2)
    monkeypatch.setattr(cache, "RUN_BYTES", 4096)
    closing, read_range = threading.Event(), Folder.read_range

    def ranged(self: Folder, rel: str, offset: int, size: int) -> bytes:
        data = read_range(self, rel, offset, size)
        if rel.endswith(".tar") and rel != log.of_tars()[0][0]:
            closing.wait(60)
        return data

    def call_off(self: Pool) -> None:
        pool_call_off(self)
        closing.set()

    pool_call_off = Pool.call_off
    monkeypatch.setattr(Pool, "call_off", call_off)
    monkeypatch.setattr(Folder, "read_range", ranged)
    found = iter(Corpus.open(url).stream("train", cache=Cache(tmp_path / "cache", fetch="shards"), threads=1))
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert len([path for path, *_ in log.of_tars() if path != log.of_tars()[0][0]]) <= 2
    assert not list((tmp_path / "cache").glob("*.part"))


def test_stopping_early_does_not_wait_for_another_process(corpus: Corpus, url: str, tmp_path: Path) -> None:
    """Which fetches the very file that is wanted."""
    shelf, entry = Shelf(Cache(tmp_path), whole=True), corpus.head.splits["train"]["coco"].shards[0]
    with (tmp_path / f"{entry.sha256}.part").open("w") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        pool = Pool(1, "stream")
        waiting = pool.submit(shelf.keep, Folder.at(url), entry)
        pool.call_off()
        pool.join()
        assert waiting.cancelled() or isinstance(waiting.exception(), CalledOff)


def test_the_collector_may_close_it_in_any_thread(url: str, proxy: Any, tmp_path: Path) -> None:
    """Even in the one by which the store is read, for which the stream's own threads wait."""
    import fsspec.asyn

    before = threads()
    found = iter(Corpus.open(url).stream("train", cache=tmp_path / "cache", threads=16))
    next(found)
    closed = threading.Event()
    fsspec.asyn.get_loop().call_soon_threadsafe(lambda: (found.close(), closed.set()))  # type: ignore[attr-defined]
    assert closed.wait(60)
    ended(before)


def test_the_collector_may_close_it_where_a_lock_is_held(
    url: str, proxy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For which its threads wait: they are not waited for without end."""
    monkeypatch.setattr("aesampler.stream.pool.JOIN_S", 0.1)
    before = threads()
    stream = Corpus.open(url).stream("train", cache=tmp_path / "cache", threads=16)
    found = iter(stream)
    next(found)
    assert stream._reader.shelf is not None
    with stream._reader.shelf._landed:
        found.close()  # type: ignore[attr-defined]
    ended(before)


def test_a_process_that_ends_first_fetches_nothing_more(corpus: Corpus, url: str, tmp_path: Path) -> None:
    code = """
import atexit, sys, time
from aesampler import Corpus, Folder
from aesampler.stream import stream
stream.FETCHERS = 2
read, asked = Folder.read_range, []
def slow(self, rel, offset, size):
    asked.append(rel)
    time.sleep(0.1)
    return read(self, rel, offset, size)
Folder.read_range = slow
atexit.register(lambda: print(len(asked), flush=True))  # when the threads have ended
found = iter(Corpus.open(sys.argv[1]).stream("train", cache=sys.argv[2], threads=2))
next(found)
raise RuntimeError("out of memory, say")
"""
    told = subprocess.run([sys.executable, "-c", code, url, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert "RuntimeError: out of memory, say" in told.stderr
    assert int(told.stdout) < 12, "what was under way; all would be 19"


@pytest.fixture
def child() -> Iterator[Any]:
    """Forks a process that does nothing, but has all that is open here."""
    born: list[int] = []

    def fork() -> None:
        number = os.fork()
        if number == 0:
            signal.pause()
            os._exit(0)
        born.append(number)

    yield fork
    for number in born:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_keeps_no_lock(corpus: Corpus, tmp_path: Path, child: Any) -> None:
    """A process forked while a file is locked has it open too, for as long as it lives."""
    shelf, entry = Shelf(Cache(tmp_path), whole=True), corpus.head.splits["train"]["coco"].shards[0]
    for locked in (shelf._locked, lambda: shelf._fetching(entry)):
        with locked():
            child()
        pool = Pool(1, "stream")
        again = pool.submit(lambda: locked().__enter__())  # noqa: B023 (it is called at once)
        assert again.result(timeout=60) is not None
        pool.call_off()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_workers_wait_for_no_thread_of_their_parent(corpus: Corpus) -> None:
    """They are forked while one is reading the rows of each shard, which it will never do in them."""
    stream = corpus.stream("train")
    shards = corpus.head.splits["train"]
    for part, source in enumerate(sorted(shards)):
        for number in range(len(shards[source].shards)):
            stream._reader._rows[part, number] = Future()
    found = [sample.key for batch in stream.torch(2, num_workers=1, timeout=60) for sample in batch]
    assert found == keys(corpus)


# -- room -------------------------------------------------------------------------------------------------------------


def test_files_are_looked_at_where_there_may_be_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each sample that is put down: of thousands of files that would take longer than the fetching."""
    looks: list[int] = []
    look = Shelf._make_room
    monkeypatch.setattr(Shelf, "_make_room", lambda self, *given: (looks.append(1), look(self, *given))[1])
    kept = tmp_path / "kept.whole"
    first, second = (Shelf(Cache(tmp_path, max_bytes=100 * 4096), whole=False) for _ in range(2))
    with first._room(40 * 4096, spare=kept):
        kept.write_bytes(bytes(40 * 4096))
    for _ in range(50):
        with first._room(4096, spare=kept):
            pass
    assert len(looks) == 1
    with second._room(4096, spare=kept):
        assert len(looks) == 2, "once in every process, which sees that it is 41, not 91"
    with first._room(56 * 4096, spare=kept):
        assert len(looks) == 2, "as all see then"
    with first._room(4 * 4096, spare=kept):
        assert len(looks) == 3, "42 and 56 and 4 would be too much"
    assert kept.exists(), "but are not there"
    with first._room(70 * 4096, spare=kept):
        assert not kept.exists()
