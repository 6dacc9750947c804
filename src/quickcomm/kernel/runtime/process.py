"""The one lifecycle of a process: open its parts, listen, work, answer operators, drain, close."""

import asyncio
import contextlib
import ctypes
import errno
import gc
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import structlog
from aiohttp import web

from quickcomm import __version__
from quickcomm.contracts.commands import GetMetrics, GetStatus, StartModule, StopModule
from quickcomm.contracts.health import Alarm, MetricsText, ReadMetrics
from quickcomm.contracts.link import STATUS_EVERY_S
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance, registered
from quickcomm.kernel.errors import ConfigurationError, NotFoundError, QuickCommError
from quickcomm.kernel.http import create_app
from quickcomm.kernel.http.app import Handler
from quickcomm.kernel.internal import Trust
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.runtime.alarms import Since, rfc3339
from quickcomm.kernel.runtime.data_directory import Post, Running
from quickcomm.kernel.runtime.movable import HeldRoute, Movable
from quickcomm.kernel.runtime.part import Part, Work
from quickcomm.kernel.runtime.wiring import wires
from quickcomm.kernel.settings import InstanceSettings
from quickcomm.kernel.telemetry.exposition import exposition
from quickcomm.kernel.telemetry.machine import watch_loop

PURGE_EVERY_S: Final = 3_600.0
DAY_NS: Final = 86_400 * 1_000_000_000
MAX_LINE_BYTES: Final = 64 * 1024
CLOSE_S: Final = 2.0
SETTLE_S: Final = 0.1
"""As long as the loop has not called back what waited for a part, its memory is not free."""

log = structlog.get_logger(__name__)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process listens: on a Unix socket behind an edge, else on host and port.

    `trust`: where modules of other processes are talked to, and may call.
    """

    host: str
    port: int
    place: InstanceSettings
    trust: Trust | None = None


class Process:
    """One process of a deployment: its parts, in the order in which they depend on each other."""

    def __init__(
        self,
        module: str,
        address: Address,
        post: Post,
        parts: Sequence[Part],
        messaging: Messaging,
        clock: Clock,
        *,
        retention_days: int,
        movable: Movable = Movable(),  # noqa: B008 - immutable
    ) -> None:
        """`messaging`: of the parts. `retention_days` 0 keeps everything."""
        self.module = module
        self.modules = tuple(movable.builders) or (module,)
        self._builders = movable.builders
        self._asleep = tuple(movable.asleep)
        self._moves = movable.moves
        self._retire = movable.retire
        self._changing = asyncio.Lock()
        self._check_stop = movable.check_stop
        self._order = [*(part.name for part in parts if part.name not in movable.builders), *movable.builders]
        self._group: asyncio.TaskGroup | None = None
        self.url = ""
        self.started = datetime.now(UTC)
        messaging.connect(*parts)
        messaging.rpc.serve(
            [
                (GetStatus, self.status),
                (GetMetrics, _metrics),
                (ReadMetrics, _metrics_text),
                (StopModule, self._stop_asked),
                (StartModule, self._start_asked),
            ]
        )
        trust = address.trust
        wired = [] if trust is None else [wires(messaging, self.modules, address.place, trust, clock, self._asleep)]
        self.parts = (*parts, *wired)
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        """By the name of the part."""
        instead = {route.path: cast("Handler", route.handler) for route in movable.stand_ins}
        self._held = {
            name: [HeldRoute(route, instead.get(getattr(route, "path", ""))) for route in routes]
            for name, routes in ({part.name: part.routes for part in self.parts} | dict(movable.asleep)).items()
        }
        for name in movable.asleep:
            self._let_go(name)
        self._address = address
        self._post = post
        self._clock = clock
        self._retention_days = retention_days
        self._trust = trust
        self._messaging = messaging
        self._since = Since()

    async def run(self, ready: Callable[[], Awaitable[None] | None], stop: asyncio.Event) -> None:
        """Open all parts, serve until `stop` is set, drain, close.

        Raises `ConfigurationError` where the port cannot be had, and what a part raises.
        """
        try:
            for name in self._asleep:
                await self._retire(name)
            for part in self.parts:
                await _done(part.open())
            async with asyncio.TaskGroup() as tasks:
                self._group = tasks
                for owner, work in self._work().items():
                    self._begin(owner, work)
                async with self._listening():
                    # What is there now stays: a full collection that walked it would stop every thread for 60 ms.
                    gc.freeze()
                    async with self._found():
                        await _done(ready())
                        await stop.wait()
                    log.info("server.draining")
                    for part in self.parts:
                        part.stopping()
                    for part in self.parts:
                        await part.drain()
                for task in (task for work in self._tasks.values() for task in work):
                    task.cancel()
        except* QuickCommError as errors:
            raise errors.exceptions[0] from errors
        finally:
            await self.aclose()

    async def stop_part(self, name: str) -> None:
        """Drain a part, end its work and let go of it, and of its memory; the others go on.

        Its routes answer 503 from now on. Raises `NotFoundError`, and what a part raises that cannot note that it goes
        on elsewhere: then it has not been stopped.
        """
        async with self._changing:
            await self._stop(name)

    async def _stop(self, name: str) -> None:
        part = self._find(name)
        if part is None:
            raise NotFoundError(f"There is no {name} in this process.")
        if self._moves:
            await part.retire()
        self._put_away(part)
        log.info("part.stopping", part=name)
        try:
            part.stopping()
            await part.drain()
        finally:  # also where the drain fails, or the operator hangs up
            await self._end(part)
        del part
        await _give_back()
        await self._retire(name)
        log.info("part.stopped", part=name)

    async def start_part(self, name: str) -> None:
        """Build a part that was stopped, and begin its work. Its routes answer again.

        Raises `NotFoundError`, and what building or opening it raises; then it is as it was before.
        """
        async with self._changing:
            await self._start(name)

    async def _start(self, name: str) -> None:
        if self._find(name) is not None:
            return
        if name not in self._builders:
            raise NotFoundError(f"There is no {name} in this process.")
        log.info("part.starting", part=name)
        part = await self._builders[name]()
        self._messaging.connect(part)
        try:
            await _done(part.open())
        except BaseException:
            self._messaging.disconnect(part)
            await part.close()
            raise
        self.parts = tuple(sorted((*self.parts, part), key=self._place))
        self._begin(name, part.work)
        for held, route in zip(self._held[name], part.routes, strict=True):
            held.take(route)
        log.info("part.started", part=name)

    def _place(self, part: Part) -> int:
        """Return its place in the order of the parts; the wires come behind all."""
        return self._order.index(part.name) if part.name in self._order else len(self._order)

    def _begin(self, owner: str, work: Mapping[str, Work]) -> None:
        assert self._group is not None, "the process runs"  # noqa: S101 - a programming error
        self._tasks[owner] = [self._group.create_task(_until_cancelled(run), name=name) for name, run in work.items()]

    def _put_away(self, part: Part) -> None:
        """Hand its routes no request any more, and forget it."""
        self.parts = tuple(each for each in self.parts if each is not part)
        self._let_go(part.name)

    def _let_go(self, name: str) -> None:
        for held in self._held[name]:
            held.let_go()

    async def _end(self, part: Part) -> None:
        ended = self._tasks.pop(part.name, [])
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)
        self._messaging.disconnect(part)
        await part.close()

    async def aclose(self) -> None:
        """Close all parts, those first that depend on the others. May be called again."""
        for part in reversed(self.parts):
            await part.close()

    def alarms(self) -> list[Alarm]:
        """Return what is wrong with any part, and since when."""
        return self._since.dated(alarm for part in self.parts for alarm in part.alarms())

    async def status(self, _request: GetStatus) -> dict[str, Any]:
        """Return the row of this process in `quickcomm status`."""
        alarms = self.alarms()
        row = {
            "module": self.module,
            "pid": os.getpid(),
            "healthy": not alarms,
            "version": __version__,
            "url": self.url,
            "started_at": rfc3339(self.started),
        }
        for part in self.parts:
            row |= await part.status()
        return row | {"alarms": msgspec.to_builtins(alarms)}

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the routes of all parts, also of those that do not run."""
        return [held.route for routes in self._held.values() for held in routes]

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _stop_asked(self, request: StopModule) -> dict[str, Any]:
        known = [part.name for part in self.parts if part.stops]
        self._check_stop(request.name)
        if request.name in self._builders and request.name not in known:
            async with self._changing:
                await self._retire(request.name)  # what was cut off before is done now
            return {"module": request.name, "stopped": True}
        if request.name not in known:
            raise NotFoundError(f"There is no {request.name} that can be stopped here. There are: {', '.join(known)}.")
        await self.stop_part(request.name)
        return {"module": request.name, "stopped": True}

    async def _start_asked(self, request: StartModule) -> dict[str, Any]:
        await self.start_part(request.name)
        return {"module": request.name, "started": True}

    def _work(self) -> Mapping[str, Mapping[str, Work]]:
        """Return what is to run: by part, then by name."""
        own: dict[str, Work] = {
            "purge": partial(purge_forever, self._purge, self._retention_days, self._clock),
            "live-status": self._tell,
            "loop-lag": watch_loop,
        }
        return {part.name: part.work for part in self.parts} | {"process": own}

    async def _tell(self) -> None:
        """Publish how the parts are, each second until cancelled."""
        while True:
            alarms = tuple(self.alarms())
            for part in self.parts:
                if part.live_status is not None:
                    status = part.live_status()
                    self._messaging.live.publish(msgspec.structs.replace(status, module=part.name, alarms=alarms))
            await asyncio.sleep(STATUS_EVERY_S)

    async def _purge(self, before_ns: int) -> int:
        total = 0
        for name in [part.name for part in self.parts]:
            if (part := self._find(name)) is not None:  # it may have been stopped meanwhile
                total += await part.purge(before_ns) or 0
        return total

    def _find(self, name: str) -> Part | None:
        return next((part for part in self.parts if part.name == name), None)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        # A body is small, and is taken as it is: nothing to be gained from unpacking what a stranger sends.
        # A long address gets as far as the operation that refuses it, in the words that are documented.
        runner = web.AppRunner(
            create_app(self.routes(), self._trust),
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
            async with admin_socket(self._messaging.rpc, self._post.socket):
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
        me = msgspec.structs.replace(me, modules=self.modules, side=place.side)
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


async def _give_back() -> None:
    """Free what a part had, and return it to the system, which the C library does not do by itself."""
    await asyncio.sleep(SETTLE_S)
    gc.unfreeze()  # it was there from the beginning
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def stopped_by_signals() -> asyncio.Event:
    """Set by SIGINT and SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _done(result: Awaitable[None] | None) -> None:
    if result is not None:
        await result


async def _metrics(_request: GetMetrics) -> dict[str, Any]:
    return {"text": exposition().decode()}


async def _metrics_text(_request: ReadMetrics) -> MetricsText:
    return MetricsText(text=exposition().decode())


async def _until_cancelled(run: Callable[[], Awaitable[None]]) -> None:
    await run()


def _cannot_listen(error: OSError, address: Address) -> str:
    where = address.place.socket or f"{address.host}:{address.port}"
    if error.errno == errno.EADDRINUSE:
        return f"Port {address.port} is taken by another program. Stop it, or choose another with --port."
    return f"Cannot listen on {where}: {error.strerror}."
