"""Runs a process that has engines: they are loaded beside each other, and a signal meanwhile is heard."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from quickcomm.entrypoints.core import Engines
from quickcomm.entrypoints.data_directory import DataDirectory
from quickcomm.entrypoints.engines import load_classifier, load_engine, load_model
from quickcomm.entrypoints.moving import check_here, settle
from quickcomm.entrypoints.process import stopped_by_signals
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.starting import in_daemon, unless_stopped
from quickcomm.kernel.site_pack import load_pack

Run = Callable[[Settings, DataDirectory, Engines, asyncio.Event], Awaitable[None]]


async def run_on(settings: Settings, directory: DataDirectory, run: Run) -> bool:
    """Run on a data directory, which the caller owns, until SIGINT or SIGTERM.

    False if that came while engines were loaded: see `unless_stopped`.
    """
    stop = stopped_by_signals()
    pack = load_pack(settings.pack)
    loaded = await unless_stopped(
        stop,
        asyncio.gather(
            in_daemon(partial(load_engine, settings, pack), "load_engine"),
            in_daemon(partial(load_classifier, settings, pack), "load_classifier"),
            in_daemon(partial(load_model, settings, pack), "load_model"),
            _keep(directory, settings.redis_url),
        ),
    )
    if loaded is None:
        return False
    speech, classifier, model, _ = loaded
    if not stop.is_set():
        await run(settings, directory, Engines(speech=speech, classifier=classifier, model=model), stop)
    return True


async def _keep(directory: DataDirectory, redis_url: str | None) -> None:
    """Have conversations and messages where they are to be. Raises `ElsewhereError`."""
    if redis_url is None:
        check_here(directory)
    else:
        await settle(directory, redis_url)
