from __future__ import annotations

import contextlib
import errno
import http.client
import http.server
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from conftest import S3
from hypothesis import given
from hypothesis import strategies as st

from aesampler import storage
from aesampler.errors import CorpusError, LockedError, MissingExtra, SourceError, StorageError
from aesampler.storage import Folder

TEMPORARY = ".aesampler-tmp-"


def put(folder: Folder, **files: bytes) -> None:
    for name, data in files.items():
        folder.commit_bytes(name.replace("__", "/") + ".bin", data)


def everything(path: Path) -> list[str]:
    return sorted(each.relative_to(path).as_posix() for each in path.rglob("*"))


@pytest.fixture(params=["local", "s3", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """One behaviour, three kinds of storage: a disk, a real S3 server, and fsspec's own store in memory."""
    if request.param == "s3":
        return Folder.at(request.getfixturevalue("bucket") + "/some/prefix")
    return Folder.at(tmp_path if request.param == "local" else f"memory://{tmp_path.name}")


# One behaviour


def test_what_is_committed_is_read(folder: Folder) -> None:
    put(folder, a=b"0123456789", deep__er__b=b"")
    assert folder.read("a.bin") == b"0123456789"
    assert folder.read("./deep//er/b.bin") == b""
    assert (folder / "deep").read("er/b.bin") == b""
    assert folder.size("a.bin") == 10
    with folder.open("a.bin") as file:
        assert file.seek(4) == 4
        assert file.read(3) == b"456"
        assert file.read() == b"789"
    folder.commit_bytes("a.bin", b"new")
    assert folder.read("a.bin") == b"new"
    assert folder.size("a.bin") == 3


def test_ranges(folder: Folder) -> None:
    put(folder, a=b"0123456789")
    assert folder.read_range("a.bin", 2, 3) == b"234"
    assert folder.read_range("a.bin", 8, 10) == b"89"
    assert folder.read_range("a.bin", 10, 5) == b""
    assert folder.read_range("a.bin", 50, 5) == b""
    assert folder.read_range("a.bin", 3, 0) == b""
    with pytest.raises(ValueError, match="negative"):
        folder.read_range("a.bin", -1, 3)


def test_large_files(folder: Folder) -> None:
    data = random.Random(0).randbytes(3 << 20)

    def write(file: BinaryIO) -> None:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])

    folder.commit("large.bin", write)
    assert folder.read("large.bin") == data
    with folder.local_copy("large.bin") as path:
        assert path.read_bytes() == data
    assert path.exists() == folder.is_local
    if folder.is_local:
        assert path == folder.path / "large.bin"


@pytest.mark.parametrize("name", ["none.bin", "none/none.bin", "a.bin/below.bin", "x" * 300])
def test_an_absent_file_is_not_trouble(folder: Folder, name: str) -> None:
    if folder.url.startswith("memory") and "below" in name:
        pytest.skip("fsspec's store in memory cannot be asked for what lies below a file")
    put(folder, a=b"1")
    for ask in (folder.read, folder.size, folder.open, lambda rel: folder.read_range(rel, 0, 1)):
        with pytest.raises(FileNotFoundError) as caught:
            ask(name)  # type: ignore[operator]
        assert not isinstance(caught.value, StorageError)
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(FileNotFoundError), folder.local_copy(name):
        pass
    assert not folder.exists(name)
    assert folder.stat_token(name) == ""
    assert folder.list(name) == {}
    folder.remove(name)
    folder.remove_tree(name)


def test_a_folder_is_not_a_file(folder: Folder) -> None:
    put(folder, deep__a=b"1")
    for ask in (folder.read, folder.size):
        with pytest.raises(FileNotFoundError):
            ask("deep")  # type: ignore[operator]
    assert folder.exists("deep")
    assert folder.exists()


def test_listing(folder: Folder) -> None:
    assert folder.list() == {}
    put(folder, b=b"12", a__z=b"1", a__y__x=b"123", a__y__w__v=b"", ab=b"4")
    every = {"a/y/w/v.bin": 0, "a/y/x.bin": 3, "a/z.bin": 1, "ab.bin": 1, "b.bin": 2}
    assert list(folder.list().items()) == list(every.items())
    assert folder.list("a") == {name: size for name, size in every.items() if name.startswith("a/")}
    assert folder.list(depth=0) == {"ab.bin": 1, "b.bin": 2}
    assert folder.list("a", depth=0) == {"a/z.bin": 1}
    assert folder.list("a", depth=1) == {"a/y/x.bin": 3, "a/z.bin": 1}
    assert folder.list("b.bin") == {}
    assert folder.list("none") == {}
    assert (folder / "a").list() == {"y/w/v.bin": 0, "y/x.bin": 3, "z.bin": 1}


def test_a_name_in_another_encoding_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.bin").write_bytes(b"12")
    (tmp_path / "nowhere").symlink_to("none")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/deep/caf\xe9.bin")).write_bytes(b"1")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.bin")).write_bytes(b"123")
    odd = os.fsdecode(b"caf\xe9.bin")
    assert Folder.at(tmp_path).list() == {"a.bin": 2, odd: 3, f"deep/{odd}": 1}


def test_tokens_tell_changes(folder: Folder) -> None:
    put(folder, a=b"1", deep__b=b"1")
    if folder.is_local:
        for name in ("a.bin", "deep"):
            os.utime(folder.path / name, ns=(1, 1))  # a disk's clock has ticks
    tokens = [folder.stat_token("a.bin"), folder.stat_token("deep"), folder.stat_token("")]
    assert all(tokens)
    assert tokens == [folder.stat_token("a.bin"), folder.stat_token("deep"), folder.stat_token("")]
    put(folder, a=b"2", deep__c=b"1")
    assert folder.stat_token("a.bin") != tokens[0]
    assert folder.stat_token("deep") != tokens[1]


def test_a_failed_commit_leaves_nothing(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    put(folder, old=b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    for name in ("new.bin", "old.bin"):
        with pytest.raises(KeyboardInterrupt):
            folder.commit(name, fail)
    assert folder.list("") | {} == {"old.bin": 3}
    assert folder.read("old.bin") == b"old"
    assert everything(spool) == []
    if folder.is_local:
        assert everything(folder.path) == ["old.bin", "spool"]


def test_put_if_absent(folder: Folder) -> None:
    assert folder.put_if_absent("deep/plan.json", b"one")
    assert not folder.put_if_absent("deep/plan.json", b"two")
    assert folder.read("deep/plan.json") == b"one"
    if folder.is_local:
        assert everything(folder.path) == ["deep", "deep/plan.json"]


def test_removing(folder: Folder) -> None:
    put(folder, a=b"1", deep__b=b"1", deep__er__c=b"1", deeper__d=b"1")
    folder.remove("a.bin")
    folder.remove("a.bin")
    folder.remove_tree("deep")
    folder.remove_tree("deep")
    assert folder.list() == {"deeper/d.bin": 1}
    assert not folder.exists("deep")
    folder.remove_tree("")
    assert folder.list() == {}


def test_odd_names(folder: Folder) -> None:
    for name in ("with space.txt", "a[1]*?.txt", "pl+us%20.txt", "#hash.txt", "\u00fcber.txt", "..dots..txt"):
        folder.commit_bytes(name, name.encode())
        assert folder.read(name) == name.encode()
        assert folder.list()[name] == len(name.encode())
        folder.remove_tree(name)
        assert folder.list() == {}


def test_a_folder_is_an_address(folder: Folder) -> None:
    put(folder, a=b"1")
    again = pickle.loads(pickle.dumps(folder))
    assert again == folder
    assert hash(again) == hash(folder)
    assert again.read("a.bin") == b"1"
    assert Folder.at(folder.url + "/") == folder
    assert Folder.at(str(folder)) == folder
    assert (folder / "a/b").url == folder.url + "/a/b"
    assert folder / "" == folder


def test_threads(folder: Folder) -> None:
    def once(index: int) -> bytes:
        folder.commit_bytes(f"{index}.bin", b"%d" % index)
        return folder.read(f"{index}.bin")

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(once, range(40))) == [b"%d" % index for index in range(40)]
    assert len(folder.list()) == 40


# Confinement

ESCAPES = ["..", "../a", "a/../b", "a/..", "/etc/passwd", "/", "a\0b", "s3://other/a", "./../a"]


@pytest.mark.parametrize("rel", ESCAPES)
def test_paths_are_confined(folder: Folder, rel: str) -> None:
    asks: list[Callable[[], object]] = [
        lambda: folder.read(rel),
        lambda: folder.read_range(rel, 0, 1),
        lambda: folder.open(rel),
        lambda: folder.local_copy(rel).__enter__(),
        lambda: folder.exists(rel),
        lambda: folder.size(rel),
        lambda: folder.list(rel),
        lambda: folder.stat_token(rel),
        lambda: folder.commit_bytes(rel, b""),
        lambda: folder.commit(rel, lambda file: None),
        lambda: folder.put_if_absent(rel, b""),
        lambda: folder.remove(rel),
        lambda: folder.remove_tree(rel),
        lambda: folder / rel,
    ]
    for ask in asks:
        with pytest.raises(SourceError, match="confined to their root"):
            ask()


@given(st.lists(st.sampled_from(["..", ".", "", "a", "..a", "a..", "...", "b c", "\u00e9"]), max_size=6).map("/".join))
def test_an_address_never_leaves_its_folder(rel: str) -> None:
    root = Folder.at("/base/root")
    try:
        inner = root / rel
    except SourceError:
        assert rel.startswith("/") or ".." in rel.split("/")
    else:
        assert inner.url == os.path.normpath(os.path.join(root.url, rel))
        assert os.path.commonpath([inner.url, root.url]) == root.url


def test_a_file_needs_a_name(folder: Folder) -> None:
    for rel in ("", ".", "./"):
        with pytest.raises(SourceError, match="needs a name"):
            folder.commit_bytes(rel, b"")
        with pytest.raises((SourceError, FileNotFoundError)):
            folder.read(rel)


def test_links_are_read_but_not_written_through(tmp_path: Path) -> None:
    root, other = Folder.at(tmp_path / "root"), Folder.at(tmp_path / "other")
    put(root, own=b"12")
    put(other, a=b"1")
    (root.path / "linked").symlink_to(other.path)
    (root.path / "loop").symlink_to(root.path)
    (root.path / "nowhere").symlink_to(root.path / "none")
    assert root.list() == {"linked/a.bin": 1, "own.bin": 2}
    assert root.read("linked/a.bin") == b"1"
    for act in (
        lambda: root.commit_bytes("linked/b.bin", b""),
        lambda: root.commit_bytes("linked/deep/b.bin", b""),
        lambda: root.put_if_absent("linked/b.bin", b""),
        lambda: root.remove("linked/a.bin"),
        lambda: root.remove_tree("linked/a.bin"),
    ):
        with pytest.raises(SourceError, match="leads out of the folder"):
            act()
    root.remove_tree("linked")
    root.commit_bytes("nowhere", b"here")
    assert everything(other.path) == ["a.bin"]
    assert everything(root.path) == ["loop", "nowhere", "own.bin"]
    linked = Folder.at(tmp_path / "alias")
    linked.path.symlink_to(root.path)
    linked.commit_bytes("deep/c.bin", b"3")  # a root may itself be a link
    assert root.read("deep/c.bin") == b"3"


# Addresses


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder.at("corpora/a/").url == f"{tmp_path}/corpora/a"
    assert Folder.at(f"file://{tmp_path}/a").path == tmp_path / "a"
    assert Folder.at("/").list is not None
    assert (Folder.at("/") / "a").url == "/a"
    assert not Folder.at("s3://bucket/a").is_local
    with pytest.raises(ValueError, match="not a local folder"):
        _ = Folder.at("s3://bucket/a").path
    for bad, message in (
        ("s4://b/a", "no storage is known by s4://"),
        ("s3://", "names no bucket"),
        ("", "not the path"),
    ):
        with pytest.raises(SourceError, match=message):
            Folder.at(bad)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"aesampler\[s3\]"):
        Folder.at("s3://bucket").read("a")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingExtra, match="gcsfs"):
        Folder.at("gs://bucket").read("a")


# A disk that fails


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    disk = tmp_path / "small"
    disk.mkdir()
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("only root may mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("this system lets no small disk be mounted")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    folder = Folder.at(small_disk)
    put(folder, kept=b"k" * 1000)
    for act in (
        lambda: folder.commit_bytes("deep/large.bin", b"x" * (2 << 20)),
        lambda: folder.commit_bytes("kept.bin", b"x" * (2 << 20)),
        lambda: folder.put_if_absent("large.bin", b"x" * (2 << 20)),
    ):
        with pytest.raises(StorageError, match=r"No space left on device.*make room") as caught:
            act()
        assert caught.value.exit_code == 3
    assert folder.list() == {"kept.bin": 1000}
    assert folder.read("kept.bin") == b"k" * 1000
    assert not any(TEMPORARY in name for name in everything(small_disk))


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_any_step_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = Folder.at(tmp_path)
    put(folder, a=b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StorageError, match="No space left on device"):
            folder.commit_bytes("a.bin", b"new")
    assert everything(tmp_path) == ["a.bin"]
    assert folder.read("a.bin") == b"old"


def test_unreadable_is_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", broken)
        with pytest.raises(StorageError, match=r"a\.bin: cannot be read: Input/output error"):
            Folder.at(tmp_path).read("a.bin")


# Processes

COMMIT = """
    import sys
    from aesampler.storage import Folder
    folder = Folder.at(sys.argv[1])
    def write(file):
        file.write(b"half"); file.flush()
        print("inside", flush=True)
        sys.stdin.read()
    folder.commit("deep/a.bin", write)
"""
LOCK = """
    import sys
    from aesampler.storage import Folder
    with Folder.at(sys.argv[1]).lock():
        print("inside", flush=True)
        sys.stdin.read()
"""


@contextlib.contextmanager
def process(code: str, *args: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that has said "inside"; killed at the end."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"inside\n"
            yield child
        finally:
            child.kill()
            child.wait()


def test_a_killed_commit_leaves_only_what_sweeping_removes(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    with process(COMMIT, tmp_path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    (left,) = (tmp_path / "deep").iterdir()
    assert left.name.startswith(TEMPORARY)
    assert folder.list() == {}
    (tmp_path / ".aesampler-tmp-notes").write_text("not ours")
    folder.sweep_temporaries()
    assert everything(tmp_path) == [".aesampler-tmp-notes", "deep"]


@pytest.mark.long
def test_kills_at_any_instant_leave_whole_files(tmp_path: Path) -> None:
    code = """
        import sys
        from aesampler.storage import Folder
        folder = Folder.at(sys.argv[1])
        print("inside", flush=True)
        while True:
            for letter in b"abcdef":
                folder.commit_bytes("a.bin", bytes([letter]) * 300_000)
    """
    draw, folder = random.Random(0), Folder.at(tmp_path)
    for _ in range(20):
        with process(code, tmp_path) as child:
            time.sleep(draw.random() * 0.1)
            child.send_signal(signal.SIGKILL)
            child.wait()
        if folder.exists("a.bin"):
            data = folder.read("a.bin")
            assert data == data[:1] * 300_000
        folder.sweep_temporaries()
        assert set(everything(tmp_path)) <= {"a.bin"}


def test_one_build_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    folder = Folder.at(out)
    with process(LOCK, out) as child:
        with pytest.raises(LockedError, match=f"{out}: another build is writing into this folder"), folder.lock():
            pass
        assert folder.list() == {}
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(everything(out)) == 1  # a killed holder's file
    with folder.lock(), pytest.raises(LockedError), folder.lock():
        pass
    assert everything(out) == []
    with folder.lock():
        put(folder, a=b"1")
    assert everything(out) == ["a.bin"]


def test_a_file_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    for where in ("out", "out/below"):
        with pytest.raises((CorpusError, StorageError)), Folder.at(tmp_path / where).lock():
            pass


def test_below_a_link_to_nothing_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "unmounted")
    for below in ("link/out", "link/a/b"):
        with pytest.raises(StorageError, match=": this folder cannot be made; see whether"):
            Folder.at(str(tmp_path / below)).lock().__enter__()


def test_a_lock_leaves_no_folder_of_its_own(tmp_path: Path) -> None:
    with Folder.at(tmp_path / "out").lock():
        assert (tmp_path / "out").is_dir()
    assert everything(tmp_path) == []


def test_a_store_has_no_lock(bucket: str) -> None:
    with Folder.at(bucket).lock(), Folder.at(bucket).lock():
        assert Folder.at(bucket).list() == {}


def test_the_lock_excludes(tmp_path: Path) -> None:
    # Each process takes and drops the lock as fast as it can; two inside at once would meet at the exclusive file.
    code = """
        import os, sys
        from aesampler.errors import LockedError
        from aesampler.storage import Folder
        print("inside", flush=True)
        held = 0
        while held < 300:
            try:
                with Folder.at(sys.argv[1]).lock():
                    os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))
                    held += 1
                    os.unlink(sys.argv[2])
            except LockedError:
                pass
    """
    args = (tmp_path / "out", tmp_path / "inside")
    with process(code, *args) as one, process(code, *args) as two, process(code, *args) as three:
        for child in (one, two, three):
            child.communicate(timeout=300)
            assert child.returncode == 0
    assert everything(tmp_path) in ([], ["out"])  # the maker of the folder may not have been the last to leave


def test_put_if_absent_has_one_winner(tmp_path: Path) -> None:
    folder, barrier = Folder.at(tmp_path), threading.Barrier(8)

    def race(index: int) -> bool:
        barrier.wait(timeout=60)
        return folder.put_if_absent("plan.json", b"%d" % index * 1000)

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(race, range(8)))
    assert won.count(True) == 1
    assert folder.read("plan.json") == b"%d" % won.index(True) * 1000
    assert everything(tmp_path) == ["plan.json"]


def read_in_child(folder: Folder, queue: Any) -> None:
    queue.put(folder.read("a.bin"))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_stores_work_in_children(bucket: str, method: str) -> None:
    folder = Folder.at(bucket)
    put(folder, a=b"1")
    assert folder.read("a.bin") == b"1"  # the parent's client has connections and a thread by now
    context = multiprocessing.get_context(method)
    queue: Any = context.Queue()
    child = context.Process(target=read_in_child, args=(folder, queue))
    with warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads; here the fork beside threads is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    try:
        assert queue.get(timeout=60) == b"1"
    finally:
        child.join(timeout=10)
        child.kill()
        queue.close()
        queue.join_thread()
    start = time.monotonic()
    assert folder.read("a.bin") == b"1"
    # Else the read waits for its timeout, 60 s.
    assert time.monotonic() - start < 45, "the child has closed connections that are its parent's"


# A store that fails


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the S3 server: fails as it is told to, and honours If-None-Match, which rclone does not.

    faults: what the next requests meet, in turn: a status, or "reset". conditional: whether If-None-Match is honoured.
    """

    daemon_threads = True

    def __init__(self, s3: S3) -> None:
        super().__init__(("127.0.0.1", 0), Forward)
        self.s3, self.faults, self.seen = s3, [], []  # type: ignore[var-annotated]
        self.conditional = threading.Lock()


class Forward(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *_: object) -> None:
        pass

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(self.command)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
            return
        if fault:
            code = b"AccessDenied" if fault == 403 else b"InternalError"
            self.answer(fault, {}, b"<Error><Code>%s</Code><Message>injected</Message></Error>" % code)
            return
        with self.server.conditional:
            answer = self.ask(body)
        self.answer(*answer)

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """What the S3 server answers, or what one that knows If-None-Match would."""
        key = self.server.s3.disk / self.path.partition("?")[0].lstrip("/")
        if self.headers.get("If-None-Match") == "*" and key.exists():
            return 412, {}, b"<Error><Code>PreconditionFailed</Code><Message>there</Message></Error>"
        address = self.server.s3.endpoint.removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(address)) as inner:
            # The Host header is signed, so it goes on as it came.
            inner.request(self.command, self.path, body, dict(self.headers))
            answer = inner.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    import s3fs

    with Proxy(s3) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        # A client is made anew for another endpoint only when fsspec has forgotten the last one.
        s3fs.S3FileSystem.clear_instance_cache()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(storage, "BACKOFF", (0.01, 0.01))
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()


def test_passing_trouble_is_tried_again(proxy: Proxy) -> None:
    folder = Folder.at(proxy.s3.bucket())
    for fault in (500, 503, "reset"):
        proxy.faults[:] = [fault]
        folder.commit_bytes("a.bin", b"1")
        proxy.faults[:] = [fault]
        assert folder.read("a.bin") == b"1"
        proxy.faults[:] = [fault]
        folder.commit("b.bin", lambda file: storage._write_all(file, b"22"))
        proxy.faults[:] = [fault]
        assert folder.list() == {"a.bin": 1, "b.bin": 2}
        assert proxy.faults == []


def test_lasting_trouble_is_told(proxy: Proxy) -> None:
    folder = Folder.at(proxy.s3.bucket())
    folder.commit_bytes("a.bin", b"1")
    proxy.faults[:] = [503] * 50
    for ask in (
        lambda: folder.read("a.bin"),
        lambda: folder.commit_bytes("a.bin", b"2"),
        lambda: folder.exists("a.bin"),
    ):
        with pytest.raises(StorageError, match=r"a\.bin: the store does not answer as it should") as caught:
            ask()
        assert caught.value.exit_code == 3
    proxy.faults[:] = []
    assert folder.read("a.bin") == b"1"


def test_rights_are_not_tried_again(proxy: Proxy) -> None:
    folder = Folder.at(proxy.s3.bucket())
    proxy.faults[:], proxy.seen[:] = [403] * 50, []
    with pytest.raises(StorageError, match="PermissionError"):
        folder.read("a.bin")
    assert proxy.seen == ["GET"]


def test_a_store_that_is_not_there(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"s3://nowhere/a\.bin.*Could not connect"):
        Folder.at("s3://nowhere").read("a.bin")


def test_a_bucket_that_is_not_there(s3: S3) -> None:
    folder = Folder.at("s3://no-such-bucket/prefix")
    assert not folder.exists()
    assert folder.list() == {}
    with pytest.raises(StorageError, match="the bucket does not exist"):
        folder.commit_bytes("a.bin", b"1")


def test_a_conditional_put_has_one_winner(proxy: Proxy) -> None:
    folder, barrier = Folder.at(proxy.s3.bucket()), threading.Barrier(4)

    def race(index: int) -> bool:
        barrier.wait(timeout=60)
        return folder.put_if_absent("plan.json", b"%d" % index)

    with ThreadPoolExecutor(4) as threads:
        won = list(threads.map(race, range(4)))
    assert won.count(True) == 1
    assert folder.read("plan.json") == b"%d" % won.index(True)
    assert not folder.put_if_absent("plan.json", b"later")


@pytest.mark.long
def test_stores_work_in_ray_workers(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    folder = Folder.at(bucket)
    put(folder, a=b"1")

    def work(index: int) -> bytes:
        folder.commit_bytes(f"{index}.bin", folder.read("a.bin"))
        return folder.read(f"{index}.bin")

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        task = ray.remote(work)
        assert ray.get([task.remote(index) for index in range(4)]) == [b"1"] * 4
    finally:
        ray.shutdown()
    assert len(folder.list()) == 5
