"""What a running topology answers on its local socket: how it is, and what shall change."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import aiohttp
import msgspec
import structlog

from quickcomm import __version__
from quickcomm.contracts.commands import (
    AwaitReady,
    CreateKey,
    GetOptions,
    GetStatus,
    GetWhereabouts,
    GoOnWith,
    InstallRelease,
    Restart,
    RevokeKey,
    RotateKeys,
    Scale,
    Stop,
)
from quickcomm.contracts.routes import place_of
from quickcomm.edge.module import Edge, EdgeUnavailableError
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import Registry
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.keys import KeyStore
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.routing import RoutesFollower
from quickcomm.kernel.runtime.admin_socket import ask
from quickcomm.kernel.runtime.alarms import Since
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.disk import disk_alarms
from quickcomm.kernel.runtime.releases import releases_of
from quickcomm.kernel.runtime.store_commands import Letters, key_answers, letter_answers
from quickcomm.kernel.trust.directory import TrustDirectory
from quickcomm.operate.up import store
from quickcomm.operate.up.autoscale import Autoscaler
from quickcomm.operate.up.layout import Layout
from quickcomm.operate.up.left import check_left
from quickcomm.operate.up.releases import Installer
from quickcomm.operate.up.store_watch import StoreWatch
from quickcomm.topology.module import Fleet, Keeper

EDGE: Final = "edge"
STORE: Final = "store"
ANSWER_S: Final = 5.0
Row = dict[str, Any]

log = structlog.get_logger(__name__)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a topology is made of."""

    fleet: Fleet
    edge: Edge
    registry: Registry
    trust: TrustDirectory
    keys: KeyStore
    letters: Letters
    watch: StoreWatch
    routes: RoutesFollower


class Running:
    """What the control reads of a running topology."""

    def __init__(self, layout: Layout, parts: Parts, clock: Clock) -> None:
        self.layout = layout
        self.fleet = parts.fleet
        self.edge = parts.edge
        self.registry = parts.registry
        self.trust = parts.trust
        self.keys = parts.keys
        self.letters = parts.letters
        self.watch = parts.watch
        self.routes = parts.routes
        self.clock = clock
        self.supervisor_pid: int | None = None
        self.url = ""
        self.shape = ""
        self.options: Mapping[str, str] = {}
        """With which it runs; see `asked.py`."""
        self.store_address = ""
        """Of a store that somebody else runs; empty: `up` runs its own."""
        self.own: dict[str, DataDirectory | None] = {}
        """Where each module answers for itself; None where each of its processes has a socket of its own."""
        self.releases: Installer | None = None
        """By whom other releases of services are made known; None before the site is made."""
        self.behind_edge: frozenset[str] = frozenset()
        """Modules that get requests from the edge."""
        self.whereabouts: Row = {}
        """Where the parts of the site are that are not in the data directory: for `quickcomm backup`."""
        self.autoscaler: Autoscaler | None = None
        """None: only operators say how many processes there are."""
        self.ready = asyncio.Event()
        self.stop = asyncio.Event()


class Control:
    def __init__(self, running: Running) -> None:
        self._running = running
        self._since = Since()

    def answers(self) -> Sequence[Answer]:
        """Return the requests that `up` answers, those about the store included."""
        stored = (*key_answers(self._running.keys), *letter_answers(self._running.letters))
        return [
            (GetStatus, self._status),
            (AwaitReady, self._ready),
            (GetOptions, self._options),
            (Scale, self._scale),
            (Restart, self._restart),
            (InstallRelease, self._install),
            (GoOnWith, self._go_on),
            (Stop, self._down),
            (RotateKeys, self._rotate_keys),
            (GetWhereabouts, self._whereabouts),
            *((kind, self._once_ready(handler)) for kind, handler in stored),
        ]

    # -- inside -----------------------------------------------------------------------------------------------------

    def _once_ready(self, handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        async def handle(request: Any) -> Any:
            await self._running.ready.wait()  # while a site moves into its store, no key shall be made there
            reply = await handler(request)
            if isinstance(request, CreateKey | RevokeKey):
                await self._running.watch.keys.join()
            return reply

        return handle

    async def _ready(self, _request: AwaitReady) -> Row:
        await self._running.ready.wait()
        return {"url": self._running.url}

    async def _options(self, _request: GetOptions) -> Row:
        return dict(self._running.options)

    async def _whereabouts(self, _request: GetWhereabouts) -> Row:
        await self._running.ready.wait()  # before, conversations may be on their way into the store
        return self._running.whereabouts

    async def _scale(self, request: Scale) -> Row:
        if request.replicas == 0:
            check_left(request.process, self._running.shape, self._running.routes.routes)
        await _whole(self._running.fleet.scale(self._serving(request.process), request.replicas))
        if self._running.autoscaler is not None:
            self._running.autoscaler.asked_for(request.process, request.replicas)
        return {"module": request.process, "replicas": request.replicas}

    async def _restart(self, request: Restart) -> Row:
        await _whole(self._running.fleet.restart(self._serving(request.process)))
        return {"module": request.process, "restarted": True}

    def _serving(self, name: str) -> str:
        """Return the row by which a module serves: that of a release, where one has taken its place."""
        return place_of(name, releases_of(self._running.layout.directory.path).serves(name))

    async def _install(self, request: InstallRelease) -> Row:
        assert self._running.releases is not None, "the site is made"  # noqa: S101 - a programming error
        await self._running.ready.wait()
        release = await self._running.releases.install(request)
        return {"module": request.name, "release": release.name, "side": release.side, "digest": release.digest}

    async def _go_on(self, request: GoOnWith) -> Row:
        assert self._running.releases is not None, "the site is made"  # noqa: S101 - a programming error
        await _whole(self._running.releases.go_on(request.name, request.side, request.without))
        return {"module": request.name, "side": request.side}

    async def _rotate_keys(self, request: RotateKeys) -> list[Row]:
        rotated = self._running.trust.rotate(at_once=request.at_once)
        log.info("trust.rotated", services=rotated, at_once=request.at_once)
        return [{"service": name, "rotated": True} for name in rotated]

    async def _down(self, _request: Stop) -> Row:
        self._running.stop.set()
        return {"pid": os.getpid()}

    async def _status(self, _request: GetStatus) -> list[Row]:
        running = self._running
        up = {
            "module": "up",
            "process": "up",
            "pid": os.getpid(),
            "healthy": running.ready.is_set(),
            "version": __version__,
            "state": "ready" if running.ready.is_set() else "starting",
            "shape": running.shape,
            "url": running.url,
        }
        up |= {"autoscale": running.autoscaler.row()} if running.autoscaler is not None else {}
        supervisor = {
            "module": "supervisor",
            "process": "supervisor",
            "pid": running.supervisor_pid,
            "healthy": running.supervisor_pid is not None,
            "version": _supervisor_version(),
            "state": "ready",
        }
        alarms = self._since.dated([*disk_alarms(running.layout.directory.path), *running.edge.alarms()])
        up |= {"alarms": msgspec.to_builtins(alarms)} if alarms else {}
        keepers = running.fleet.keepers
        return [up, supervisor, *self._store(), *await asyncio.gather(*(self._process(keeper) for keeper in keepers))]

    def _store(self) -> list[Row]:
        """One that `up` does not run itself."""
        running, facts = self._running, self._running.watch.facts
        if not running.store_address:
            return []
        row: Row = {"module": STORE, "process": STORE, "pid": None, "version": None, "state": "elsewhere"}
        row |= {"healthy": facts is not None and not facts.evicts, "url": running.store_address}
        return [row | (facts.row() if facts is not None else {})]

    async def _process(self, keeper: Keeper) -> Row:
        running = self._running
        lived_s = running.clock.monotonic() - keeper.started
        row: Row = {
            "module": keeper.module,
            "process": keeper.name,
            "pid": keeper.pid,
            "healthy": keeper.state == "ready" and await keeper.probe(),
            "version": None,
            "state": keeper.state,
            "restarts": keeper.restarts,
            "up_s": round(lived_s, 1) if keeper.pid else None,
        }
        if keeper.module == EDGE:
            row |= await self._edge()
        elif keeper.module == store.NAME:
            row |= running.watch.facts.row() if running.watch.facts is not None else {}
        else:
            row |= await self._instance(keeper) | {"module": keeper.module}  # of a release, its row
        return row

    async def _edge(self) -> Row:
        try:
            info = await self._running.edge.control.info()
        except EdgeUnavailableError:
            return {"healthy": False}
        return {"version": info.version, "connections": info.connections, "url": self._running.url}

    async def _instance(self, keeper: Keeper) -> Row:
        """What it says itself, and whether the edge sends it anything."""
        running = self._running
        found = {instance.name: instance for instance in running.registry.instances()}.get(keeper.name)
        row: Row = {}
        if keeper.module in running.own and keeper.pid is not None:
            try:
                directory = running.own[keeper.module]
                socket = running.layout.administration(keeper.name) if directory is None else directory.socket
                [own] = await ask(socket, GetStatus(), ANSWER_S)
                row = own | {"healthy": own["healthy"] and keeper.state == "ready"}
            except (QuickCommError, aiohttp.ClientError, OSError, TimeoutError):
                row = {"healthy": False}
        if found is None:
            return row | {"healthy": False, "serving": False}
        if keeper.module not in running.behind_edge:
            return row | {"version": found.version, "serving": True}
        try:
            healthy = await running.edge.control.healthy(keeper.module)
        except EdgeUnavailableError:
            healthy = {}
        return row | {"version": found.version, "serving": healthy.get(found.socket, False)}


async def _whole(change: Coroutine[Any, Any, None]) -> None:
    """Carry out a change of processes to its end, also where who asked for it hangs up."""
    await asyncio.shield(asyncio.ensure_future(change))


def _supervisor_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - only to answer

    return version("supervisor")
