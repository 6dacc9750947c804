"""The demo as a newcomer has it: a link where it can be found, nothing missed, and Ctrl-C ends it cleanly."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from tests.support.server import READY_S, STOP_S, command

PLAYING = "Playing “"
_POLL_S = 0.05


class Run:
    """A demo with a terminal of its own, or with files only. Its server's folder is below `folder`."""

    def __init__(self, folder: Path, *flags: str, terminal: bool) -> None:
        self.folder = folder
        self.out, self.err = folder / "out.log", folder / "err.log"
        self._master: int | None
        self._master, slave = pty.openpty() if terminal else (None, os.open(os.devnull, os.O_RDWR))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [command(), "demo", "--port", "0", *flags],
                stdin=slave,
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": str(folder), "XDG_STATE_HOME": str(folder)},
                start_new_session=True,
                preexec_fn=_take_terminal if terminal else None,  # noqa: PLW1509 - one system call, no lock
            )
        os.close(slave)

    def until(self, file: Path, text: str) -> str:
        """What is in the file once the text is."""
        deadline = time.monotonic() + READY_S
        while text not in (found := file.read_text()):
            assert self.process.poll() is None, self.err.read_text()
            assert time.monotonic() < deadline, found
            time.sleep(_POLL_S)
        return found

    @property
    def url(self) -> str:
        return self.link.partition("/#key=")[0]

    @property
    def link(self) -> str:
        return self.until(self.out, "\n").split()[-1]

    def type(self, keys: bytes) -> None:
        assert self._master is not None
        os.write(self._master, keys)

    def end(self) -> int:
        """Ctrl-C, as the terminal sends it; the exit status."""
        if self._master is None:
            self.process.send_signal(signal.SIGINT)
        else:
            self.type(b"\x03")
        return self.process.wait(STOP_S)

    def left(self) -> list[Path]:
        """Data of the demo's server that are still there."""
        return list(self.folder.glob("quickcomm-demo-*"))

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._master is not None:
            os.close(self._master)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def running(folder: Path, *flags: str, terminal: bool = False) -> Iterator[Run]:
    run = Run(folder, *flags, terminal=terminal)
    try:
        yield run
    finally:
        run.close()


async def answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as client, client.get(f"{url}/healthz") as answer:
            return answer.ok
    except aiohttp.ClientError:
        return False


async def test_the_link_is_on_standard_output_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        assert "/#key=qc_admin_" in await asyncio.to_thread(lambda: demo.link)
        await asyncio.to_thread(demo.until, demo.err, PLAYING)
        assert await answers(demo.url)
        assert await asyncio.to_thread(demo.end) == 1
        assert demo.err.read_text().rstrip().endswith("Stopped before the shift was over.")
        assert "Traceback" not in demo.err.read_text()
        assert "qc_admin_" not in demo.err.read_text()
        assert not await answers(demo.url)
        assert demo.left() == []


def test_with_json_standard_output_has_objects_only(tmp_path: Path) -> None:
    with running(tmp_path, "--json") as demo:
        first = demo.until(demo.out, "\n").splitlines()[0]
        assert json.loads(first)["utterance_id"]
        assert "/#key=qc_admin_" in demo.err.read_text()
        assert demo.end() == 1
        assert all(json.loads(line)["text"] is not None for line in demo.out.read_text().splitlines())


def test_ctrl_c_ends_it_while_it_starts(tmp_path: Path) -> None:
    with running(tmp_path) as demo:
        demo.until(demo.err, "Starting QuickComm")
        assert demo.end() == 1
        assert "Traceback" not in demo.err.read_text()
        assert PLAYING not in demo.err.read_text()
        assert demo.left() == []


async def test_on_a_terminal_the_shift_waits_for_the_page(tmp_path: Path) -> None:
    with running(tmp_path, terminal=True) as demo:
        before = await asyncio.to_thread(demo.until, demo.err, "The shift begins when the page is open.")
        assert PLAYING not in before
        key = demo.link.partition("#key=")[2]
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as client, client.ws_connect(f"{demo.url}/v1/live"):
            await asyncio.to_thread(demo.until, demo.err, PLAYING)
        assert await asyncio.to_thread(demo.end) == 1
        assert "Traceback" not in demo.err.read_text()


@pytest.mark.parametrize("flags", [(), ("--once",)])
def test_enter_or_once_begins_it_without_a_page(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with running(tmp_path, *flags, terminal=True) as demo:
        if not flags:
            demo.until(demo.err, "The shift begins when the page is open.")
            demo.type(b"\n")
        said = demo.until(demo.err, PLAYING)
        assert ("The shift begins" in said) == (not flags)
        assert demo.end() == 1
