"""A real `quickcomm serve` in its own process: started, watched, stopped and killed by its own handle."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.support.ports import free_port

from quickcomm.contracts.commands import CreateKey
from quickcomm.operate.administration import administer

Json = dict[str, Any]

READY_S: Final = 240.0  # the first start of all trains the classifier
STOP_S: Final = 30.0
EVENTUALLY_S: Final = 30.0
_POLL_S: Final = 0.05


class Key(msgspec.Struct, frozen=True):
    """What `quickcomm keys create --json` prints, once."""

    key: str
    id: str
    role: str


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP answer, whatever its status."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Json:
        parsed: Json = json.loads(self.body)
        return parsed


def quickcomm(
    *arguments: str,
    timeout: float = 60.0,
    env: Mapping[str, str] | None = None,
    statuses: tuple[int, ...] = (0,),
    errors: bool = False,
) -> str:
    """Run the command line as a user does; its standard output (or `errors`, what it says beside that)."""
    done = subprocess.run(
        [command(), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode in statuses, f"quickcomm {' '.join(arguments)} → {done.returncode}\n{done.stderr[-4000:]}"
    return done.stderr if errors else done.stdout


def command() -> str:
    """The program beside the Python that runs the tests."""
    return str(Path(sys.executable).parent / "quickcomm")


class Server:
    """One monolith on a free port. `start` again after `stop` or `kill`: same port, same data directory."""

    comes_back = False
    """Whether somebody starts it again after a kill."""
    program: tuple[str, ...] = ()
    """What to run instead of `quickcomm`."""

    def __init__(self, data_dir: Path, *flags: str, **settings: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._flags = flags
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._keys: dict[str, Key] = {}

    @property
    def page_database(self) -> Path:
        """Where cards and tasks are kept."""
        return self.data_dir / "quickcomm.sqlite"

    @property
    def page_databases(self) -> Sequence[Path]:
        """Where pages may have reported what they have painted."""
        return [self.page_database]

    @property
    def log(self) -> str:
        path = self.data_dir.parent / f"{self.data_dir.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def launch(self) -> None:
        """Begin to start; `wait_ready` waits for the rest."""
        assert self._process is None
        arguments = ["serve", "--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.data_dir)]
        arguments += self._flags
        with (self.data_dir.parent / f"{self.data_dir.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*(self.program or (command(),)), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._settings},
            )

    def start(self) -> None:
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            assert self._process is not None
            if (status := self._process.poll()) is not None:
                raise AssertionError(f"The server ended with {status} while it started:\n{self.log[-6000:]}")
            try:
                if self.get("/readyz").status == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"The server is not ready after {READY_S} s:\n{self.log[-6000:]}")
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """`kill -9`: no warning, no clean-up."""
        self._end(signal.SIGKILL)

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """SIGTERM (or SIGINT, for Ctrl-C), without waiting for what it does."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_S) -> int:
        """Its exit status."""
        assert self._process is not None
        status = self._process.wait(timeout)
        self._process = None
        return status

    def stop(self) -> int | None:
        """Stop it properly, and by force if it does not; None if it was not running."""
        if self._process is None:
            return None
        try:
            self.terminate()
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"The server had to be killed:\n{self.log[-6000:]}") from None

    async def until(self, path: str, holds: Callable[[Json], bool], role: str = "read") -> Json:
        """Ask a list or a thing again and again until it is as it should become; the answer then."""
        deadline = time.monotonic() + EVENTUALLY_S
        while True:
            answer = await asyncio.to_thread(self.get, path, role)
            if answer.status == 200 and holds(answer.json()):
                return answer.json()
            if time.monotonic() > deadline:
                raise AssertionError(f"{path} does not become what it should: {answer}")
            await asyncio.sleep(_POLL_S)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(STOP_S)
        self._process = None

    def key(self, role: str = "ingest") -> str:
        """A key with that role, made once."""
        if role not in self._keys:
            self._keys[role] = self.new_key(role)
        return self._keys[role].key

    def new_key(self, role: str) -> Key:
        """Ask the server's administration socket, as the command line does (its own tests start it)."""
        what = {"role": role, "name": "", "site": "main"}

        def ask() -> list[Json]:
            return asyncio.run(administer(self.data_dir, msgspec.convert(what, CreateKey)))

        with ThreadPoolExecutor(1) as beside:  # the caller may have a loop of its own
            [row] = beside.submit(ask).result()
        return msgspec.convert(row, Key)

    def get(self, path: str, role: str | None = None) -> Answer:
        return self.ask("GET", path, self.key(role) if role else None)

    def ask(self, method: str, path: str, key: str | None = None, body: object = None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)  # noqa: S310 - our own address
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310
                return Answer(status=response.status, headers=_lower(response.headers.items()), body=response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(status=error.code, headers=_lower(error.headers.items()), body=error.read())


def _lower(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}
