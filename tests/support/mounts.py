"""A file system of a test's own: small enough to be filled, and mounted so that it can be made read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(where: Path, megabytes: int) -> Iterator[Path]:
    """Skips the test where mounting is not permitted."""
    where.mkdir()
    done = _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "quickcomm-test", str(where))
    if done.returncode != 0:
        pytest.skip(f"A file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def remount(where: Path, mode: str) -> None:
    """`ro` or `rw`."""
    done = _mount("-o", f"remount,{mode}", str(where))
    assert done.returncode == 0, done.stderr


def fill(disk: Path) -> Path:
    """Leaves not a byte; the file that must go to make room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    file.write(os.urandom(size) if size > 1 else b"x")
            except OSError:
                continue
    return ballast


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"A file system cannot be mounted here: {error}")
