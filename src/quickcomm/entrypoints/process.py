"""What every process has around its modules: a place to listen, a local socket, a lease, an orderly end."""

import asyncio
import contextlib
import errno
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from quickcomm import __version__
from quickcomm.entrypoints.administration import Answering, admin_socket
from quickcomm.entrypoints.data_directory import Post, Running
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance, registered
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.http import Gate, create_app
from quickcomm.kernel.settings import InstanceSettings

PURGE_EVERY_S: Final = 3_600.0
DAY_NS: Final = 86_400 * 1_000_000_000
MAX_LINE_BYTES: Final = 64 * 1024
CLOSE_S: Final = 2.0

log = structlog.get_logger(__name__)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process listens: on a Unix socket behind an edge, else on host and port."""

    host: str
    port: int
    place: InstanceSettings


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """What a process does. `work` runs until the end, `ready` is called once it serves, `drain` at the end."""

    routes: Sequence[web.AbstractRouteDef]
    administration: Answering
    work: Mapping[str, Callable[[], Awaitable[None]]]
    ready: Callable[[], Awaitable[None]]
    drain: Callable[[], Awaitable[None]]
    gate: Gate | None = None
    """Needed where other services call: who lets them in."""


class Process:
    def __init__(self, module: str, address: Address, post: Post) -> None:
        self.module = module
        self.url = ""
        self.started = datetime.now(UTC)
        self._address = address
        self._post = post

    def row(self, *, healthy: bool) -> dict[str, Any]:
        """The beginning of its line in `quickcomm status`."""
        return {
            "module": self.module,
            "pid": os.getpid(),
            "healthy": healthy,
            "version": __version__,
            "url": self.url,
            "started_at": rfc3339(self.started),
        }

    async def run(self, duty: Duty, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then drain. Raises `ConfigurationError` where the port cannot be had."""
        try:
            async with asyncio.TaskGroup() as tasks:
                work = [tasks.create_task(_until_cancelled(run), name=name) for name, run in duty.work.items()]
                async with self._listening(duty):
                    # What is there now stays: a full collection that walked it would stop every thread for 60 ms.
                    gc.freeze()
                    async with self._found():
                        await duty.ready()
                        await stop.wait()
                    await duty.drain()
                for task in work:
                    task.cancel()
        except* QuickCommError as errors:
            raise errors.exceptions[0] from errors

    @contextlib.asynccontextmanager
    async def _listening(self, duty: Duty) -> AsyncIterator[None]:
        # A body is small, and is taken as it is: nothing to be gained from unpacking what a stranger sends.
        # A long address gets as far as the operation that refuses it, in the words that are documented.
        runner = web.AppRunner(
            create_app(duty.routes, duty.gate),
            access_log=None,
            shutdown_timeout=CLOSE_S,
            auto_decompress=False,
            max_line_size=MAX_LINE_BYTES,
        )
        await runner.setup()
        address, place = self._address, self._address.place
        site: web.BaseSite = (
            web.UnixSite(runner, place.socket) if place.socket else web.TCPSite(runner, address.host, address.port)
        )
        try:
            try:
                await site.start()
            except OSError as error:
                raise ConfigurationError(_cannot_listen(error, address)) from error
            if place.socket:
                self.url = place.public_url or f"unix:{place.socket}"
            else:
                port = runner.addresses[0][1]
                host = "127.0.0.1" if address.host in {"0.0.0.0", "::"} else address.host
                self.url = f"http://{host}:{port}"
            async with admin_socket(duty.administration, self._post.socket):
                me = Running(pid=os.getpid(), url=self.url, version=__version__, module=self.module)
                self._post.announce(me)
                yield
        finally:
            await runner.cleanup()

    @contextlib.asynccontextmanager
    async def _found(self) -> AsyncIterator[None]:
        """Be in the registry, where there is one; out of it before the drain begins."""
        place = self._address.place
        if place.registry is None or place.socket is None:
            yield
            return
        me = Instance(module=self.module, name=place.name, pid=os.getpid(), version=__version__, socket=place.socket)
        async with registered(DirectoryRegistry(Path(place.registry)), me):
            yield


async def purge_forever(purge: Callable[[int], Awaitable[int]], days: int, clock: Clock) -> None:
    """Delete what is older than so many days, each hour, until cancelled; 0 keeps everything."""
    while days:
        try:
            removed = await purge(clock.now_ns() - days * DAY_NS)
        except QuickCommError as error:
            log.warning("retention.failed", error=str(error))
        else:
            if removed:
                log.info("retention.purged", removed=removed, older_than_days=days)
        await asyncio.sleep(PURGE_EVERY_S)


def stopped_by_signals() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")


async def _until_cancelled(run: Callable[[], Awaitable[None]]) -> None:
    await run()


def _cannot_listen(error: OSError, address: Address) -> str:
    where = address.place.socket or f"{address.host}:{address.port}"
    if error.errno == errno.EADDRINUSE:
        return f"Port {address.port} is taken by another program. Stop it, or choose another with --port."
    return f"Cannot listen on {where}: {error.strerror}."
