"""A real `quickcomm up` on a free port: its edge, its store and its processes; nothing of it may be left behind."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from tests.support.server import READY_S, STOP_S, Server, command, quickcomm

from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.operate.up.layout import Layout
from quickcomm.topology.adapters.processes import Identity, alive, identify

_POLL_S: Final = 0.05
STOP_WITHIN_S: Final = 60.0


class Site(Server):
    """As `Server`, with everything that `up` brings. `kill` kills `up` itself, and nothing else."""

    def __init__(self, data_dir: Path, *flags: str, **settings: str) -> None:
        super().__init__(data_dir, *flags, **settings)
        self.layout = Layout(DataDirectory(data_dir))
        self.seen: set[Identity] = set()

    def launch(self) -> None:
        assert self._process is None
        arguments = ["up", "--port", str(self.port), "--data-dir", str(self.data_dir), *self._flags]
        with (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._settings},
            )

    def wait_ready(self) -> None:
        """Everything serves, looked after by the `up` that was launched."""
        super().wait_ready()
        deadline = time.monotonic() + READY_S
        while not self._whole(rows := self.status()):
            assert self._process is not None
            assert self._process.poll() is None, self.log[-6000:]
            assert time.monotonic() < deadline, (rows, self.log[-6000:])
            time.sleep(_POLL_S)

    def _whole(self, rows: list[dict[str, Any]]) -> bool:
        assert self._process is not None
        led = any(row["module"] == "up" and row["pid"] == self._process.pid for row in rows)
        return led and all(row["healthy"] for row in rows)

    def status(self) -> list[dict[str, Any]]:
        """A row a process; all processes ever seen are remembered."""
        done = subprocess.run(
            [command(), "status", "--json", "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        found = [identify(row["module"], row["pid"]) for row in rows if row["pid"]]
        self.seen |= {identity for identity in found if identity is not None}
        return rows

    def process(self, module: str) -> Identity:
        """The one process of a module."""
        [row] = [row for row in self.status() if row["module"] == module]
        found = identify(module, row["pid"])
        assert found is not None
        return found

    def down(self) -> str:
        said = quickcomm("down", "--data-dir", str(self.data_dir), timeout=120)
        if self._process is not None:
            assert self.wait(STOP_S) == 0
        return said

    def left_behind(self) -> list[object]:
        """Processes and files that should be gone: those seen, and whoever names our directory."""
        mine = os.fsencode(self.data_dir)
        named = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if mine in path.read_bytes():
                    named.append(path.read_text())
            except OSError:
                continue  # it ended just now
        files = [self.layout.root] if self.layout.root.exists() else []
        sockets = self.data_dir.rglob("*.sock")
        return [*(each for each in self.seen if alive(each)), *named, *files, *sockets]

    def make_sure(self) -> None:
        """After a test, however it went."""
        if self._process is not None:
            with contextlib.suppress(AssertionError):
                self.stop()
        quickcomm("down", "--data-dir", str(self.data_dir), timeout=120)


class Behind(Site):
    """A site that tests take for a single server: `kill` kills what serves, and the supervisor starts it again."""

    comes_back = True
    serving: tuple[str, ...] = ("monolith",)

    def __init__(self, data_dir: Path, *flags: str, **settings: str) -> None:
        super().__init__(data_dir, *flags, **settings)
        self._killed: set[int] = set()

    def launch(self) -> None:
        """After a kill `up` is still there, and looks after it."""
        if self._process is None:
            super().launch()

    def kill(self) -> None:
        """Nothing happens where it is dead already."""
        rows = [row for row in self.status() if row["module"] in self.serving and row["pid"]]
        found = [identify(row["module"], row["pid"]) for row in rows]
        for identity in [each for each in found if each is not None]:
            self._killed.add(identity.pid)
            os.kill(identity.pid, signal.SIGKILL)

    def _whole(self, rows: list[dict[str, Any]]) -> bool:
        return super()._whole(rows) and not any(row["pid"] in self._killed for row in rows)

    def wait_ready(self) -> None:
        super().wait_ready()
        self._killed = set()

    def wait(self, timeout: float = STOP_WITHIN_S) -> int:
        return super().wait(timeout)

    def stop(self) -> int | None:
        """All of it, and nothing is left."""
        if self._process is None:
            return None
        status = super().stop()
        assert self.left_behind() == []
        return status


class Apart(Behind):
    """As `Behind`, with services of their own."""

    serving = ("audio", "intelligence", "dashboard")

    def __init__(self, data_dir: Path, *flags: str, **settings: str) -> None:
        super().__init__(data_dir, "--deployment", "services", *flags, **settings)

    @property
    def page_database(self) -> Path:
        return self.layout.directory.dashboard.database
