"""A data directory has one owner: a lock that dies with its process, and word of where that process listens."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

import msgspec
import platformdirs
from filelock import FileLock, Timeout

from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.kernel.settings import StorageSettings

DATABASE: Final = "quickcomm.sqlite"
DASHBOARD: Final = "dashboard"
"""A service of its own keeps its part in a directory of this name, and in a database of this name there."""
RECORDINGS: Final = "recordings"
SOCKET_LIMIT: Final = 100
"""A Unix socket's path has room for 107 bytes."""


def default_data_dir() -> Path:
    return Path(os.environ.get("QUICKCOMM_DATA_DIR") or platformdirs.user_data_path("quickcomm"))


def recordings_of(settings: StorageSettings, directory: "DataDirectory") -> Path | str | None:
    """Where the sound of utterances goes: a directory, or a URL; None where it is not kept."""
    if not settings.recordings:
        return None
    return settings.recordings_url or directory.recordings


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The process that owns the directory."""

    pid: int
    url: str
    version: str
    module: str = "monolith"


class Post(Protocol):
    """Where a process answers on a local socket, and says that it does."""

    @property
    def socket(self) -> Path: ...

    def announce(self, running: Running) -> None: ...


class InstancePost:
    """Of one of several processes of a module: beside the socket where it serves."""

    def __init__(self, instance_socket: str) -> None:
        self.socket = admin_socket_of(instance_socket)

    def announce(self, running: Running) -> None:
        """Its lease says all of it."""


def admin_socket_of(instance_socket: str) -> Path:
    """`run/audio-1.sock` → `run/audio-1.admin.sock`."""
    return Path(instance_socket).with_suffix(".admin.sock")


class DataDirectoryBusyError(ConfigurationError):
    code = "data_directory.busy"


class DataDirectory:
    def __init__(self, path: Path, database: str = DATABASE) -> None:
        self.path = path.expanduser().absolute()
        self.database = self.path / database

    @property
    def dashboard(self) -> "DataDirectory":
        """The part of a dashboard that is a service of its own."""
        return DataDirectory(self.path / DASHBOARD, f"{DASHBOARD}.sqlite")

    @property
    def recordings(self) -> Path:
        return self.path / RECORDINGS

    @property
    def socket(self) -> Path:
        """The local administration socket; elsewhere where the directory's own path is too long for one."""
        inside = self.path / "admin.sock"
        if len(os.fsencode(inside)) <= SOCKET_LIMIT:
            return inside
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:24]
        return Path(tempfile.gettempdir()) / f"quickcomm-{os.getuid()}" / f"{name}.sock"

    def create(self) -> None:
        """Raises `ConfigurationError` where the directory cannot be used."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.socket.parent.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigurationError(f"The data directory {self.path} cannot be made: {error.strerror}.") from error
        if not os.access(self.path, os.W_OK):
            raise ConfigurationError(f"The data directory {self.path} is not writable; choose another --data-dir.")

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Be the one process on this directory. Raises `DataDirectoryBusyError` that names the other one."""
        self.create()
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise DataDirectoryBusyError(self._busy()) from None
        self._info.unlink(missing_ok=True)  # of an owner that was killed
        try:
            yield
        finally:
            self._info.unlink(missing_ok=True)
            lock.release()

    def announce(self, running: Running) -> None:
        self._info.write_bytes(msgspec.json.encode(running))

    def running(self) -> Running | None:
        """What the owner announced, if there is one."""
        try:
            return msgspec.json.decode(self._info.read_bytes(), type=Running)
        except (OSError, *MALFORMED):
            return None

    @property
    def _info(self) -> Path:
        return self.path / "running.json"

    def _busy(self) -> str:
        owner = self.running()
        who = f"process {owner.pid}, at {owner.url}" if owner else "just starting or stopping"
        return (
            f"Another QuickComm ({who}) uses {self.path}. "
            "Stop it first, or give this one a --data-dir (and a --port) of its own."
        )
