"""Where a running topology keeps its files: sockets and states go with it, logs and the store stay."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from quickcomm.edge.settings import INNER_SOCKET
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import (
    PROBED_WITHIN_S,
    DataDirectory,
    DataDirectoryBusyError,
    admin_socket_of,
    is_locked,
    make_runtime_directory,
    runtime_directory,
)


class Layout:
    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory
        self.root = directory.run
        """Sockets, what was started, what Envoy reads. Gone after `down`."""
        self.logs = directory.path / "logs"
        self.store = directory.path / "valkey"
        self.keys = directory.path / "keys.json"
        """A copy of the site's keys, should the store lose its data."""
        self.instances = self.root / "instances"
        self.processes = self.root / "processes"
        self.desired = self.root / "desired.json"
        """How many processes an operator wants of each module, as long as the site runs."""
        self.least = self.root / "least.json"
        """How many processes of a module an operator asked for last, of which `up --autoscale` never has fewer."""
        self.options = self.root / "options.json"
        """What `up` was told on its command line, as long as the site runs."""
        self.edge = self.root / "edge"
        self.behind_relay = self.edge / INNER_SOCKET
        """Where the edge takes what the session relay passes on."""
        self.trust = self.root / "trust"
        """Keys by which services know each other."""
        self.access = self.root / "access"
        """Passwords of the store's users, and the store's access rules."""
        self.control = directory.control

    def socket(self, name: str) -> str:
        return str(self.root / f"{name}.sock")

    def administration(self, name: str) -> Path:
        """Where a process answers its operator that shares the data directory with others of its module."""
        return admin_socket_of(self.socket(name))

    def administrations(self, module: str) -> list[Path]:
        """Of all its processes, and of some that were killed."""
        return sorted(self.root.glob(f"{module}-*.admin.sock"))

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Be the one `up` (or `down`) on this data directory."""
        self.directory.create()
        lock = FileLock(self._lock)
        try:
            lock.acquire(timeout=PROBED_WITHIN_S)
        except Timeout:
            raise DataDirectoryBusyError(
                f"A topology runs on {self.directory.path} already, or is just starting or stopping. "
                "See it with: quickcomm status. Stop it with: quickcomm down"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def is_owned(self) -> bool:
        """Return True if an `up` is at work, whether it answers already or not."""
        return is_locked(self._lock)

    def create(self) -> None:
        """Raises `ConfigurationError` where a directory is not ours alone."""
        if self.root.parent == runtime_directory():
            make_runtime_directory()
        for path in (self.root, self.edge, self.logs, self.store):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = self.root.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigurationError(f"{self.root} must belong to this user alone (mode 700). Remove it and try again.")

    @property
    def _lock(self) -> Path:
        return self.directory.path / ".up.lock"

    def clear(self) -> None:
        """Nothing of what ran is left."""
        shutil.rmtree(self.root, ignore_errors=True)
