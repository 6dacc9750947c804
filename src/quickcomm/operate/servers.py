"""Running servers of this user: how a command finds the one to ask when no data directory is named.

Each `serve` and each `up` has a small file here while it runs. A file that a killed server left behind is told by the
lock of its data directory, which died with it.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import msgspec
import platformdirs
import structlog

from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory, default_data_dir, name_of
from quickcomm.operate.up.layout import Layout

PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "::"})

log = structlog.get_logger(__name__)


class SeveralServersError(ConfigurationError):
    code = "servers.several"


class NoSuchServerError(ConfigurationError):
    code = "servers.none"


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """`url` is empty while the server starts."""

    data_dir: Path
    url: str

    def __str__(self) -> str:
        return f"{self.url or 'a server that is starting'} (data directory {self.data_dir})"


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    data_dir: str
    url: str = ""


class ServerFile:
    """The file of one server."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = _folder() / f"{name_of(data_dir)}.json"

    def write(self, url: str = "") -> None:
        """Without a home directory to write to, the server runs all the same, and is found by --data-dir."""
        new = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new.write_bytes(msgspec.json.encode(_Entry(data_dir=str(self._data_dir), url=url)))
            new.replace(self._path)
        except OSError as error:
            log.info("server.not_listed", error=str(error))

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def listed(directory: DataDirectory) -> Iterator[ServerFile]:
    """Be found by commands inside the block. The caller owns the directory, or is about to."""
    file = ServerFile(directory.path)
    file.write()
    try:
        yield file
    finally:
        file.remove()


def running_servers() -> list[RunningServer]:
    """Return all servers that this user has started and that still live, in the order of their directories."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        entry = _read(path)
        if entry is None:
            continue
        if not Path(entry.data_dir).is_dir():  # of a demo or a test that was killed
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        elif server := _living(Path(entry.data_dir), entry.url):
            found.append(server)
    return sorted(found, key=lambda server: server.data_dir)


def server_on(data_dir: Path) -> RunningServer | None:
    """Return the server that lives on this directory, whoever started it."""
    path = DataDirectory(data_dir).path
    entry = _read(_folder() / f"{name_of(path)}.json")
    return _living(path, entry.url if entry else "")


def find_data_dir(given: Path | None, url: str | None, words: Sequence[str] | None = None) -> Path:
    """Return the data directory that a command is about: the one given, else that of the server that runs.

    `words`: the command, repeated in the error (default: that of this process).

    Raises:
        SeveralServersError: more than one runs; lists the commands to choose from.
        NoSuchServerError: none runs at this URL.

    """
    if given is not None:
        if url is not None:
            raise click.UsageError("Give --data-dir or --url, not both.")
        return given
    servers = running_servers()
    words = sys.argv[1:] if words is None else words
    if url is not None:
        found = [server for server in servers if _is_at(server, url)]
        if not found:
            raise NoSuchServerError(f"No server that you have started runs at {url}. {_listing(servers, words)}")
        return found[0].data_dir
    if len(servers) > 1:
        raise SeveralServersError(f"Several servers run; say which one. {_listing(servers, words)}")
    default = default_data_dir()
    if not servers or DataDirectory(default).path == servers[0].data_dir:
        return default
    click.echo(f"Using {servers[0]}.", err=True)
    return servers[0].data_dir


def _folder() -> Path:
    """In the user's home, not in a runtime directory: that is another one for a session, a service and cron."""
    return platformdirs.user_state_path("quickcomm") / "servers"


def _read(path: Path) -> _Entry | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Entry)
    except (OSError, *MALFORMED):
        return None


def _living(data_dir: Path, url: str) -> RunningServer | None:
    directory = DataDirectory(data_dir)
    parts = (Layout(directory), directory, directory.dashboard)
    if not any(part.is_owned() for part in parts):
        return None
    running = directory.running()
    return RunningServer(data_dir=directory.path, url=url or (running.url if running else ""))


def _is_at(server: RunningServer, url: str) -> bool:
    return bool(server.url) and _place(server.url) == _place(url)


def _place(url: str) -> tuple[str, int | None]:
    """Host and port; all names of this machine's loopback are one."""
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return url, None
    return "localhost" if host in LOOPBACK else host, port


def _listing(servers: Sequence[RunningServer], words: Sequence[str]) -> str:
    """The exact command for each server."""
    if not servers:
        return "None runs. Start one with: quickcomm serve"
    command = shlex.join(["quickcomm", *_without_url(words)])
    lines = [
        f"  {command} --data-dir {shlex.quote(str(each.data_dir))}   # {each.url or 'starting'}" for each in servers
    ]
    return "\n".join(["Choose:", *lines])


def _without_url(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word != "--url" and not word.startswith("--url="):
            kept.append(word)
        skip = word == "--url"
    return kept
