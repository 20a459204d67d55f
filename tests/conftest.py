"""Fixtures that hold something real: an S3 server, the datasets beside the checkout."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same examples everywhere, however slow the machine is.
settings.register_profile(
    "steady", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

# No test asks the Hugging Face Hub, nor do the processes that it starts; huggingface_hub reads this as it is imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

KEY, SECRET = "aesampler", "aesampler-secret"  # rclone takes no key of one letter
_buckets = itertools.count()


@dataclass(frozen=True)
class S3:
    """A running server. endpoint: its address; disk: the folder that it serves, one folder a bucket."""

    endpoint: str
    disk: Path

    def bucket(self, name: str | None = None) -> str:
        """The `s3://` address of a bucket, new and empty where no name is given."""
        import boto3

        name = name or f"bucket-{next(_buckets)}"
        client = boto3.client("s3")
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """`rclone serve s3` on a free port; all that clients need is set in the environment, which children inherit."""
    import s3fs

    disk = tmp_path_factory.mktemp("s3")
    log = tmp_path_factory.mktemp("s3-log") / "rclone.log"
    rclone = Path(sysconfig.get_path("scripts")) / "rclone"
    command = [str(rclone), "serve", "s3", "--config", "", "--auth-key", f"{KEY},{SECRET}", "--addr", "127.0.0.1:0"]
    # A short memory lets the server see what tests put on its disk behind its back; with none it goes round for ever.
    command += ["--dir-cache-time", "1s", str(disk)]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL) as server:
        try:
            endpoint = _endpoint(server, log)
            environment = {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_DEFAULT_REGION": "us-east-1",
                # The server knows none of S3's newer checksums.
                "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
                "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }
            with pytest.MonkeyPatch.context() as patch:
                for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
                    patch.delenv(name, raising=False)
                for name, value in environment.items():
                    patch.setenv(name, value)
                s3fs.S3FileSystem.clear_instance_cache()
                yield S3(endpoint=endpoint, disk=disk)
                s3fs.S3FileSystem.clear_instance_cache()
        finally:
            server.kill()  # it has nothing to lose, and asked politely it waits for its clients


def _endpoint(server: subprocess.Popen[bytes], log: Path) -> str:
    import time

    for _ in range(1200):
        started = re.search(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]", log.read_text())
        if started:
            return started[1]
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"rclone did not start:\n{log.read_text()}")


@pytest.fixture
def bucket(s3: S3) -> str:
    """The address of a new, empty bucket."""
    return s3.bucket()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The real datasets (AESAMPLER_REAL_DATA): tests that want them are skipped without, but never under CI."""
    value = os.environ.get("AESAMPLER_REAL_DATA", "")
    if value and Path(value).is_dir():
        return Path(value)
    message = f"AESAMPLER_REAL_DATA must name the folder of the real datasets; got {value!r}"
    if value or os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; tests that want it are skipped where there is none."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here: `make chromium` installs it for root, where there is apt-get")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # the sandbox refuses to run as root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Catalogs are cached in a folder of the test run, in child processes too; WordNet is off."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AESAMPLER_CACHE", str(folder))
        patch.setenv("WNHOME", "")  # what a machine knows of words must not change what the tests expect
        yield folder
