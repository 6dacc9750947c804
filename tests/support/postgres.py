"""A real PostgreSQL server in its own process, from the system's packages: started, stopped, killed by its handle."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from tests.support.ports import free_port

START_S: Final = 30.0
USERS: Final = ("postgres", "nobody")
"""PostgreSQL refuses to run as root."""
SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
    "unix_socket_permissions": "0777",
}


def programs() -> Path | None:
    """The folder with `initdb` and `postgres`."""
    found = shutil.which("initdb")
    if found and (Path(found).resolve().parent / "postgres").is_file():
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name.zfill(9))
    return next((folder for folder in reversed(folders) if (folder / "initdb").is_file()), None)


class PostgresServer:
    """On a free loopback port and on a socket in its folder; `start` again after `kill`: same place, same files."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="qc-pg-"))
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            owner = pwd.getpwnam(next(name for name in USERS if name in names))
            self._user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.port = free_port()
        self._names = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        initdb: list[str | Path] = [self._bin / "initdb", "-D", self.folder / "data", "-U", "quickcomm", "-A", "trust"]
        options = ["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run([*initdb, *options], cwd=self.folder, capture_output=True, check=False, **self._user)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        flags = [f"-c{name}={value}" for name, value in SETTINGS.items()]
        command: list[str | Path] = [
            self._bin / "postgres",
            "-D",
            self.folder / "data",
            "-k",
            self.folder,
            "-p",
            str(self.port),
            *flags,
        ]
        with (self.folder / "log").open("ab") as output:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, cwd=self.folder, stdout=output, stderr=output, **self._user
            )
        self._process = process
        ready: list[str | Path] = [self._bin / "pg_isready", "-q", "-h", self.folder, "-p", str(self.port)]
        limit = time.monotonic() + START_S
        while subprocess.run(ready, check=False).returncode != 0:
            if process.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """As `kill -9` does; its children end when they see it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(START_S)
        self._process = None

    def stop(self) -> None:
        """At once; and its files are gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_S)
            self._process = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str = "postgres", *, tcp: bool = False, password: str = "", query: str = "") -> str:
        place = f"127.0.0.1:{self.port}" if tcp else ""
        host = query if tcp else f"host={self.folder}&port={self.port}"
        return f"postgresql://quickcomm{password and ':' + password}@{place}/{name}?{host}"

    def create(self, template: str = "template1") -> str:
        """A new database as the template is; its name."""
        name = f"test_{next(self._names)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def template(self, prepare: Callable[[str], None]) -> str:
        """A database that `prepare` has filled, given its address."""
        name = self.create()
        prepare(self.url(name))
        return name

    def _execute(self, statement: str) -> None:
        import psycopg  # noqa: PLC0415 - only where there is a server

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement.encode())
