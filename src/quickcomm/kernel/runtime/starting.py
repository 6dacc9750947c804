"""What takes long when a process starts, and a signal that comes meanwhile."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


async def unless_stopped(stop: asyncio.Event, loading: Awaitable[T]) -> T | None:
    """What it gives; None if `stop` is set before.

    Threads may still be at work then, so that the process must leave by `os._exit`. They write under names that count
    only once they are whole.
    """
    loaded = asyncio.ensure_future(loading)
    stopping = asyncio.ensure_future(stop.wait())
    either: set[asyncio.Future[Any]] = {loaded, stopping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if loaded.done():
        return loaded.result()
    loaded.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loaded
    return None


async def in_daemon(function: Callable[[], T], name: str) -> T:
    """As `asyncio.to_thread`, but nobody waits for the thread at the end: native code cannot be interrupted."""
    loop = asyncio.get_running_loop()
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # it cannot be cancelled any more, only left alone

    def work() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            result.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await asyncio.wrap_future(result, loop=loop)
