"""A data directory has one owner: a lock that dies with its process, and word of where that process listens."""

import contextlib
import hashlib
import os
import shlex
import stat
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, Protocol

import click
import msgspec
import platformdirs
from filelock import FileLock, Timeout

from quickcomm.contracts.routes import Side
from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.kernel.runtime.releases import place_at, releases_of
from quickcomm.kernel.settings import StorageSettings

DATABASE: Final = "quickcomm.sqlite"
DASHBOARD: Final = "dashboard"
INTELLIGENCE: Final = "intelligence"
"""A service of its own keeps its part in a directory of this name, and in a database of this name there."""
MOVING: Final = ".moving"
TRAFFIC: Final = "traffic"
RECORDINGS: Final = "recordings"
RESTORING: Final = ".restoring"
"""A file that is there while `restore` exchanges the data."""
IMPORTING: Final = ".importing"
"""A file that is there while `import` adds data."""
UNFINISHED: Final = {RESTORING: ("A restore", "quickcomm restore"), IMPORTING: ("An import", "quickcomm import")}
"""Such files: what was cut off where one is there, and the command that finishes it."""
SOCKET_LIMIT: Final = 100
"""A Unix socket's path has room for 107 bytes."""
LONGEST_NAME: Final = "intelligence-99.admin.sock"
"""Of the sockets of a site of several processes."""
LONGEST_SOCKET: Final = len("/0123456789abcdef01234567.run/intelligence-99.admin.sock")
"""What comes after the runtime directory in the longest path of a socket."""
SHORT_TMP: Final = Path("/tmp")  # noqa: S108 - where TMPDIR is too long for sockets; checked before it is used
OWNER_WAIT_S: Final = 60.0
"""How long a server waits for commands that work on the directory: on a busy machine they take seconds each."""
PROBED_WITHIN_S: Final = 0.5
"""Commands take a lock for a moment to see whether it is held, and must not make another start fail."""
TELL_AFTER_S: Final = 1.0
LOOK_EVERY_S: Final = 0.05
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def default_data_dir() -> Path:
    return Path(os.environ.get("QUICKCOMM_DATA_DIR") or platformdirs.user_data_path("quickcomm"))


def data_dir_flag(path: Path) -> str:
    """Return what a printed command needs to find this directory: nothing where it is the default one."""
    path = path.expanduser().absolute()
    is_default = path == default_data_dir().expanduser().absolute()
    return "" if is_default else f" --data-dir {shlex.quote(str(path))}"


def recordings_of(settings: StorageSettings, directory: "DataDirectory") -> Path | str | None:
    """Where the sound of utterances goes: a directory, or a URL; None where it is not kept."""
    if not settings.recordings:
        return None
    return settings.recordings_url or directory.recordings


def name_of(data_dir: Path) -> str:
    """Return a short file name that stands for this path."""
    return hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:24]


def runtime_directory() -> Path:
    """Return where sockets go whose path would be too long inside their data directory."""
    name = f"quickcomm-{os.getuid()}"
    path = Path(tempfile.gettempdir()) / name
    return path if len(os.fsencode(path)) + LONGEST_SOCKET <= SOCKET_LIMIT else SHORT_TMP / name


def make_runtime_directory() -> None:
    """Make it. Raises `ConfigurationError` where it is not this user's: anybody may have made it before us."""
    path = runtime_directory()
    try:
        path.mkdir(exist_ok=True, mode=0o700)
        found = path.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        if is_ours and stat.S_IMODE(found.st_mode) & OTHERS:  # earlier versions made it readable
            path.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"The folder for sockets, {path}, cannot be made: {error.strerror}.") from error
    if not is_ours:
        raise ConfigurationError(
            f"{path} must be a directory of this user. Remove it, or use a --data-dir with a shorter path."
        )


def is_trusted(socket: Path, data_dir: Path) -> bool:
    """Return True if the socket was made by this user or by the owner of the data directory.

    A path in a folder for all users may have been made by anybody.
    """
    try:
        return socket.lstat().st_uid in {os.getuid(), data_dir.stat().st_uid}
    except OSError:
        return False


def is_locked(lock: Path) -> bool:
    """Return True if another process holds this lock file."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _close_if_empty(path: Path) -> None:
    """Take the rights of others from a directory of ours in which nothing is yet: it was made for us by `mkdir`."""
    found = path.stat()
    if stat.S_IMODE(found.st_mode) & OTHERS and found.st_uid == os.getuid() and not any(path.iterdir()):
        path.chmod(0o700)


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
        return self.part(DASHBOARD)

    def part(self, module: str, side: Side = "") -> "DataDirectory":
        """Return the part of a module that is a service of its own, with a database of its name.

        `side`: of two releases of the service; without one, the one that serves.
        """
        return DataDirectory(place_at(self.path, module, side), f"{module}.sqlite")

    def parts(self, module: str) -> list["DataDirectory"]:
        """Return the parts of all its releases, first that of the one that serves, whether it is there or not."""
        releases = releases_of(self.path)
        sides = dict.fromkeys((releases.serves(module), *releases.sides(module)))
        first, *others = (self.part(module, side) for side in sides)
        return [first, *(each for each in others if each.path.is_dir())]

    @property
    def intelligence(self) -> "DataDirectory":
        """The part of an intelligence that has moved out of a monolith."""
        return self.part(INTELLIGENCE)

    @property
    def recordings(self) -> Path:
        return self.path / RECORDINGS

    @property
    def socket(self) -> Path:
        """The local administration socket; elsewhere where the directory's own path is too long for one."""
        inside = self.path / "admin.sock"
        if len(os.fsencode(inside)) <= SOCKET_LIMIT:
            return inside
        return runtime_directory() / f"{name_of(self.path)}.sock"

    @property
    def is_moving(self) -> bool:
        """Return True if this is the part of a service whose module also runs, or ran, in the monolith."""
        return (self.path / MOVING).exists()

    def note_moving(self) -> None:
        """Have `is_moving` hold from now on."""
        (self.path / MOVING).touch()

    @property
    def run(self) -> Path:
        """Where a running site of several processes has its sockets; elsewhere where their paths would be too long."""
        inside = self.path / "run"
        if len(os.fsencode(inside / LONGEST_NAME)) <= SOCKET_LIMIT:
            return inside
        return runtime_directory() / f"{name_of(self.path)}.run"

    @property
    def control(self) -> Path:
        """The local socket on which `up` answers."""
        return self.run / "up.sock"

    @property
    def traffic(self) -> "DataDirectory":
        """The part of the migration controller."""
        return self.part(TRAFFIC)

    def create(self) -> None:
        """Make the directory, for this user alone.

        Raises `ConfigurationError` where it cannot be used, or other users of the machine can read it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            _close_if_empty(self.path)
        except OSError as error:
            raise ConfigurationError(f"The data directory {self.path} cannot be made: {error.strerror}.") from error
        if not os.access(self.path, os.W_OK):
            raise ConfigurationError(f"The data directory {self.path} is not writable; choose another --data-dir.")
        mode = stat.S_IMODE(self.path.stat().st_mode)
        if mode & OTHERS:
            raise ConfigurationError(
                f"Other users of this machine can read the data directory {self.path} (mode {mode:o}), "
                f"and with it what people say. Close it: chmod 700 {shlex.quote(str(self.path))}"
            )
        if self.socket.parent != self.path:
            make_runtime_directory()

    @contextlib.contextmanager
    def own(self, wait_s: float = OWNER_WAIT_S, *, finishes: Collection[str] = ()) -> Iterator[None]:
        """Be the one process on this directory.

        An owner that has not announced itself may be a command, which is soon done: wait for it up to `wait_s`.
        Raises `DataDirectoryBusyError` that names the other one, and `ConfigurationError` where a restore or an import
        was cut off. `finishes`: the marks of those that the caller goes on with.
        """
        self.create()
        lock = FileLock(self._lock)
        began, is_told = time.monotonic(), False
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                waited_s = time.monotonic() - began
                if self.running() is not None or waited_s >= wait_s:
                    raise DataDirectoryBusyError(self._busy()) from None
            if waited_s > TELL_AFTER_S and not is_told:
                click.echo(f"Waiting for another QuickComm that uses {self.path} …", err=True)
                is_told = True
            time.sleep(LOOK_EVERY_S)
        try:
            self._require_whole(finishes)
            self._info.unlink(missing_ok=True)  # of an owner that was killed
            yield
        finally:
            self._info.unlink(missing_ok=True)
            lock.release()

    def _require_whole(self, finishes: Collection[str]) -> None:
        for mark, (what, command) in UNFINISHED.items():
            if mark not in finishes and (self.path / mark).exists():
                raise ConfigurationError(
                    f"{what} into {self.path} was cut off, and its data is not whole. "
                    f"Do it again: {command} FILE{data_dir_flag(self.path)}"
                )

    def is_owned(self) -> bool:
        """Return True if a process owns the directory now, whether it answers already or not."""
        return is_locked(self._lock)

    def announce(self, running: Running) -> None:
        self._info.write_bytes(msgspec.json.encode(running))

    def running(self) -> Running | None:
        """What the owner announced, if there is one."""
        try:
            return msgspec.json.decode(self._info.read_bytes(), type=Running)
        except (OSError, *MALFORMED):
            return None

    @property
    def _lock(self) -> Path:
        return self.path / ".lock"

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
