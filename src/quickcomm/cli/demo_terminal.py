"""The terminal of the demo: Enter, Ctrl-C, what the starting server does, and whether somebody has opened the page."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import click

LEARNING: Final = "classifier.training"
"""Event in the log of a first start."""
TICK_S: Final = 15
LOOK_EVERY_S: Final = 0.5
PAGES: Final = "quickcomm_live_clients "
"""Gauge of `GET /metrics`."""


def has_person() -> bool:
    """Return True if somebody sits at a terminal and this is its foreground process, so that Enter can reach it."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:
        return False


class Keyboard:
    """Lines typed on standard input; their text is ignored."""

    def __init__(self) -> None:
        self._pressed = asyncio.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        loop, file = asyncio.get_running_loop(), sys.stdin.fileno()

        def read() -> None:
            # In the background the line is the shell's, and reading it would stop this process (SIGTTIN).
            if has_person() and os.read(file, 1024):
                self._pressed.set()
            else:
                loop.remove_reader(file)

        loop.add_reader(file, read)
        try:
            yield
        finally:
            loop.remove_reader(file)

    async def enter(self) -> None:
        """Wait for the next time that Enter is pressed."""
        self._pressed.clear()
        await self._pressed.wait()


async def unless_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run it until its end, or cancel it at the first Ctrl-C or SIGTERM; what it then cleans up is not disturbed."""
    task = asyncio.ensure_future(work)

    def cancel() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def narrated(
    log: Path, say: Callable[[str], None], *, look_every_s: float = LOOK_EVERY_S, tick_s: int = TICK_S
) -> AsyncIterator[None]:
    """Say inside the block what the starting server does, from its log, and that it still does it."""
    telling = asyncio.ensure_future(_narrate(log, say, look_every_s, tick_s))
    try:
        yield
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling


async def _narrate(log: Path, say: Callable[[str], None], look_every_s: float, tick_s: int) -> None:
    is_learning = False
    clock = asyncio.get_running_loop().time
    began, told = clock(), 0
    while True:
        await asyncio.sleep(look_every_s)
        if not is_learning and LEARNING in _text(log):
            is_learning = True
            say("  Learning the words of a hotel: only at the first start of all, for about a minute …")
        lasted = int(clock() - began)
        if lasted // tick_s > told:
            told = lasted // tick_s
            say(f"  still starting, {lasted} s …")


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


async def page_opened(url: str, key: str) -> None:
    """Wait until a page is connected. Raises `aiohttp.ClientError` if the server is gone."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, raise_for_status=True) as client:
        while True:
            async with client.get(f"{url}/metrics") as answer:
                text = await answer.text()
            if any(line.startswith(PAGES) and float(line.split()[1]) > 0 for line in text.splitlines()):
                return
            await asyncio.sleep(LOOK_EVERY_S)


def show_link(link: str, *, as_json: bool) -> None:
    """Print it to standard output, or beside it where that is for objects only; and where a person sees it."""
    is_seen = not as_json and sys.stdout.isatty()
    if not as_json:
        click.echo(f"Open the page:  {_clickable(link) if is_seen else link}")
    if as_json or (not is_seen and sys.stderr.isatty()):
        click.echo(f"Open the page:  {_clickable(link) if sys.stderr.isatty() else link}", err=True)


def _clickable(link: str) -> str:
    return f"\033[4m{link}\033[0m" if os.environ.get("TERM") != "dumb" else link
