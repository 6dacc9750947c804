"""The demo on a terminal: Enter plays again, the score counts every time, the link goes where it is looked for."""

import asyncio
import contextlib
import os
import pty
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

import pytest

from quickcomm.cli import demo as cli_demo
from quickcomm.cli import demo_terminal
from quickcomm.cli.demo import Demo
from quickcomm.cli.demo_terminal import LEARNING, Keyboard, narrated, show_link, unless_interrupted
from quickcomm.demo_shift import load_shift
from quickcomm.demo_shift.score import score
from quickcomm.operate.demo import DemoResult

LINK = "http://127.0.0.1:8080/#key=qc_admin_x"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal in whose foreground we are; gives the other end."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "rb", buffering=0) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        for module in (cli_demo, demo_terminal):
            monkeypatch.setattr(module, "has_person", lambda: True)
        yield master
    os.close(master)


class Plays:
    """Takes the place of `run_shift`: results in order, and an event for each that was begun."""

    def __init__(self, *missing: tuple[str, ...]) -> None:
        self.missing = list(missing)
        self.begun = asyncio.Semaphore(0)

    async def run_shift(self, *_arguments: object) -> DemoResult:
        self.begun.release()
        return DemoResult(score=score(load_shift(), []), missing=self.missing.pop(0), ended=True)


def demo(folder: Path, monkeypatch: pytest.MonkeyPatch, plays: Plays, *, once: bool = False) -> Demo:
    @contextlib.asynccontextmanager
    async def server(*_arguments: object) -> AsyncIterator[str]:
        yield "http://127.0.0.1:8080"

    async def new_key(*_arguments: object) -> str:
        return "qc_admin_x"

    async def page_opened(*_arguments: object) -> None:
        """It is open already."""

    for name, value in (("server", server), ("new_key", new_key), ("page_opened", page_opened)):
        monkeypatch.setattr(cli_demo, name, value)
    monkeypatch.setattr(cli_demo, "run_shift", plays.run_shift)
    return Demo(folder, 0, once=once, as_json=False)


async def test_enter_plays_it_again(terminal: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plays, invited = Plays((), ()), asyncio.Event()
    monkeypatch.setattr(cli_demo, "_say", lambda text: invited.set() if "Enter plays the shift again" in text else None)
    shown = demo(tmp_path, monkeypatch, plays)
    running = asyncio.ensure_future(shown.run())
    await plays.begun.acquire()
    await invited.wait()
    os.write(terminal, b"\n")
    await plays.begun.acquire()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert plays.missing == []


async def test_once_plays_once_and_remembers_what_was_missing(
    terminal: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert terminal
    shown = demo(tmp_path, monkeypatch, Plays(("an utterance",)), once=True)
    await shown.run()
    assert (shown.ended, shown.ok) == (True, False)


async def test_the_keyboard_is_left_alone_in_the_background(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()

    def has_person() -> bool:
        looked.set()
        return False

    monkeypatch.setattr(demo_terminal, "has_person", has_person)
    with Keyboard().listening():
        os.write(terminal, b"for the shell\n")
        await looked.wait()
    assert os.read(sys.stdin.fileno(), 100) == b"for the shell\n"


async def test_what_takes_long_is_told(tmp_path: Path) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    async with narrated(tmp_path / "log", told.put_nowait, look_every_s=0, tick_s=10**9):
        (tmp_path / "log").write_text(f"… [info] {LEARNING} step=phrases")
        assert "Learning the words" in await told.get()


async def test_an_error_of_the_work_is_raised() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await unless_interrupted(fail())


class Terminal:
    """A stream that is a terminal, or a file."""

    def __init__(self, stream: IO[str], *, is_terminal: bool) -> None:
        self._stream = stream
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@pytest.mark.parametrize(
    ("as_json", "out_is_terminal", "err_is_terminal", "on_out", "on_err"),
    [
        (False, True, True, True, False),
        (False, False, True, True, True),  # make demo > log: the person looks at the terminal
        (False, False, False, True, False),
        (True, False, True, False, True),
        (True, False, False, False, True),
    ],
)
def test_the_link_is_where_it_is_looked_for(
    *,
    as_json: bool,
    out_is_terminal: bool,
    err_is_terminal: bool,
    on_out: bool,
    on_err: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(sys.stdout, is_terminal=out_is_terminal))
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr, is_terminal=err_is_terminal))
    show_link(LINK, as_json=as_json)
    said = capsys.readouterr()
    assert (LINK in said.out, LINK in said.err) == (on_out, on_err)
