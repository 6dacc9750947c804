"""A real server that speaks S3, in its own process: moto's, from its package."""

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tests.support.ports import free_port

START_S = 60.0
ACCESS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}


class BucketServer:
    """`start` again after `stop`: same address, but it forgets everything."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *buckets: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "MOTO_ALLOW_NONEXISTENT_REGION": "true"},
        )
        limit = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, "moto's server has ended"
            assert time.monotonic() < limit, "moto's server does not answer"
            time.sleep(0.05)
        for bucket in buckets:
            request = urllib.request.Request(f"{self.url}/{bucket}", method="PUT")  # noqa: S310 - our own server
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
                assert answer.status == 200

    def stop(self) -> None:
        """May be called again."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=1):  # noqa: S310 - as above
                return True
        except (urllib.error.URLError, OSError):
            return False


@contextlib.contextmanager
def serving(*buckets: str) -> Iterator[BucketServer]:
    server = BucketServer()
    server.start(*buckets)
    try:
        yield server
    finally:
        server.stop()
