"""Runs a process that has engines: they are loaded beside each other, and a signal meanwhile is heard."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from quickcomm.entrypoints.core import Engines
from quickcomm.entrypoints.data_directory import DataDirectory
from quickcomm.entrypoints.engines import load_classifier, load_engine, load_model
from quickcomm.entrypoints.moving import check_here, settle
from quickcomm.entrypoints.process import stopped_by_signals
from quickcomm.entrypoints.settings import Settings
from quickcomm.kernel.site_pack import SitePack, load_pack

T = TypeVar("T")
Run = Callable[[Settings, DataDirectory, Engines, asyncio.Event], Awaitable[None]]


async def run_on(settings: Settings, data_dir: Path, run: Run) -> bool:
    """Run on a data directory until SIGINT or SIGTERM.

    False if that came while engines were loaded. Their threads may still be at work, so the process must leave by
    `os._exit`. They write under names that count only once they are whole.
    """
    directory = DataDirectory(data_dir)
    with directory.own():
        stop = stopped_by_signals()
        pack = load_pack(settings.pack)
        loading = asyncio.gather(
            _in_daemon(load_engine, settings, pack),
            _in_daemon(load_classifier, settings, pack),
            _in_daemon(load_model, settings, pack),
            _keep(directory, settings.redis_url),
        )
        stopping = asyncio.ensure_future(stop.wait())
        either: set[asyncio.Future[Any]] = {loading, stopping}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
            return False
        speech, classifier, model, _ = loading.result()
        if not stop.is_set():
            await run(settings, directory, Engines(speech=speech, classifier=classifier, model=model), stop)
    return True


async def _keep(directory: DataDirectory, redis_url: str | None) -> None:
    """Have conversations and messages where they are to be. Raises `ElsewhereError`."""
    if redis_url is None:
        check_here(directory)
    else:
        await settle(directory, redis_url)


async def _in_daemon(function: Callable[[Settings, SitePack], T], settings: Settings, pack: SitePack) -> T:
    """As `asyncio.to_thread`, but nobody waits for the thread at the end: learning a pack cannot be interrupted."""
    loop = asyncio.get_running_loop()
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()  # it cannot be cancelled any more, only left alone

    def work() -> None:
        try:
            result.set_result(function(settings, pack))
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            result.set_exception(error)

    threading.Thread(target=work, name=function.__name__, daemon=True).start()
    return await asyncio.wrap_future(result, loop=loop)
