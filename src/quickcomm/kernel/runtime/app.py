"""Makes a process of what its modules declare, and runs it until a signal comes."""

import asyncio
import contextlib
import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec
import structlog
from aiohttp import web

from quickcomm.contracts.link import KeepTrace
from quickcomm.contracts.routes import MONOLITH, SERVICE, Routes, Side, group_of
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry, Registry
from quickcomm.kernel.errors import ConfigurationError, ConflictError
from quickcomm.kernel.internal import Trust
from quickcomm.kernel.keys import Authenticator, KeyStore, key_store
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus import WholeBus
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.routing import (
    FixedRoutes,
    FollowedRoutes,
    RedisRoutes,
    RoutesFollower,
    first_routes,
    stored_routes,
)
from quickcomm.kernel.runtime.data_directory import PROBED_WITHIN_S, DataDirectory, InstancePost
from quickcomm.kernel.runtime.declaration import App, Module
from quickcomm.kernel.runtime.groups import retire_groups
from quickcomm.kernel.runtime.movable import Movable
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.process import Address, Process, stopped_by_signals
from quickcomm.kernel.runtime.settings import MetricsSettings, Settings
from quickcomm.kernel.runtime.shared_parts import (
    bus_part,
    database_part,
    keys_part,
    probe_routes,
    probes_part,
    site_part,
    traces_part,
)
from quickcomm.kernel.runtime.starting import in_daemon, unless_stopped
from quickcomm.kernel.runtime.store_commands import letter_answers
from quickcomm.kernel.site_pack import SitePack, load_pack
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.watch import DatabaseWatch
from quickcomm.kernel.telemetry import Budget, Word
from quickcomm.kernel.telemetry.setup import start_tracing
from quickcomm.kernel.telemetry.side import set_side
from quickcomm.kernel.trust import trust_of

HEALTH: Final = "health"
"""The route by which the edge probes a process."""

log = structlog.get_logger(__name__)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """The process that a module is built into."""

    app: App
    settings: Settings
    site: DataDirectory
    """The data directory of the whole site."""
    pack: SitePack
    clock: Clock
    messaging: Messaging
    bus: WholeBus | RedisBus
    """That of `messaging`, with its backlog."""
    keys: Authenticator
    store: Database | None
    """The database of this process, if a module of it needs one."""
    site_store: Database | None
    """The file of the site, which a monolith left; often the same."""
    store_watch: DatabaseWatch | None
    traced: bool
    registry: Registry | None
    """Of the processes of the site, where there are several."""
    trust: Trust | None
    routes: FollowedRoutes
    """Which side serves what, while modules move."""

    @property
    def side(self) -> Side:
        """Return the side of this process: that of its deployment, where nothing moves."""
        return self.settings.instance.side or (SERVICE if self.app.alone else MONOLITH)

    def side_while_moving(self) -> Side | None:
        """Return the side of this process for what it tells; None while no module is out of the monolith."""
        moved = any(route.moves for route in self.routes.routes.modules.values())
        return self.side if self.moving and moved else None

    @property
    def moving(self) -> bool:
        """Return True where its modules may run in another process as well."""
        return bool(self.settings.instance.side)

    def group(self, name: str) -> str:
        """Return the name of a consumer group of a module of this process."""
        return group_of(name, self.side) if self.moving else name

    @property
    def database(self) -> Database:
        """Return the database of this process, in a module that has declared that it needs one."""
        assert self.store is not None, "a module that keeps tables declares a database"  # noqa: S101 - programming error
        return self.store

    def peers(self) -> list[str]:
        """Return the names of the other processes of a module that has processes of its own."""
        if self.registry is None or not self.app.alone:
            return []
        name = self.settings.instance.name
        return [each.name for each in self.registry.instances() if each.module == self.app.name and each.name != name]


class Builder(Protocol):
    """The Python module that a module's `build` names."""

    def load(self, app: App, settings: Settings, pack: SitePack) -> Any:
        """Load what takes long, in a thread. Raises `ConfigurationError`."""
        ...

    def build(self, context: Context, loaded: Any) -> Part: ...

    def doors(self) -> Sequence[web.AbstractRouteDef]:
        """Return the routes of the part, each with the handler `asleep`. Of a module that can be asleep."""
        ...


More = Callable[[Context], Part]
"""Builds a part of a process that is no module."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers at `url`."""

    url: str
    keys: KeyStore


def assemble(
    app: App,
    settings: Settings,
    site: DataDirectory,
    pack: SitePack,
    loaded: Mapping[str, Any],
    routes: Routes = Routes(),  # noqa: B008 - frozen
    more: Sequence[More] = (),
) -> tuple[Process, KeyStore]:
    """Build the modules of an app, by what was loaded for each of their names, and the process around them.

    `routes`: those that were in force when it was started. A module that they call retired is not built.
    `more`: builds further parts, which may use all that modules answer here.
    Raises `ConfigurationError` where a module alone has no store, or no place among others.
    """
    _check_place(app, settings)
    clock, place = SystemClock(), settings.instance
    app = app.in_place(place)
    store, site_store = _databases(app, settings, site)
    bus = _bus(app, settings, store, clock)
    keys = key_store(settings.redis_url, store, clock)
    messaging = Messaging.over(bus, clock)
    running: list[Process] = []
    traces = start_tracing(
        settings.telemetry,
        clock,
        lambda: _budget(running, settings),
        modules=frozenset(module.name for module in app.modules),
        process=app.name,
        tell=lambda word: messaging.live.publish(_keep(word)),
    )
    context = Context(
        app=app,
        settings=settings,
        site=site,
        pack=pack,
        clock=clock,
        messaging=messaging,
        bus=bus,
        keys=Authenticator(keys, clock, settings.keys),
        store=store,
        site_store=site_store,
        store_watch=None if store is None else DatabaseWatch(store, clock),
        traced=traces is not None,
        registry=None if place.registry is None else DirectoryRegistry(Path(place.registry)),
        trust=None if place.registry is None else trust_of(settings.trust),
        routes=_routes(settings, clock, routes),
    )
    set_side(context.side_while_moving)
    place_of_one = app.home_of(settings)
    home = None if place_of_one is None else DataDirectory(site.path / place_of_one)
    sleeping = asleep_in(app, settings, routes)
    parts = [traces_part(traces), *_shared(context, keys), *_modules(context, loaded, sleeping)]
    parts += [build(context) for build in more]
    process = Process(
        app.name,
        Address(host=settings.host, port=settings.port, place=place, trust=context.trust),
        InstancePost(place.socket or "") if home is None else home,
        parts,
        messaging,
        clock,
        retention_days=settings.storage.retention_days,
        movable=Movable() if app.alone and not context.moving else _movable(context, running, sleeping),
    )
    running.append(process)
    return process, keys


async def serve(
    app: App,
    settings: Settings,
    site: DataDirectory,
    ready: Callable[[Started], Awaitable[None] | None],
    *,
    prepare: Callable[[], Awaitable[None]] | None = None,
    more: Sequence[More] = (),
) -> bool:
    """Run a process of an app until SIGINT or SIGTERM; return False if that came before it had begun.

    `prepare`: work on the directory, beside the loading. The caller owns the directory of an app of several modules.
    `more`: as in `assemble`.
    Raises `ConfigurationError`, and what a part raises.
    """
    _check_place(app, settings)
    app = app.in_place(settings.instance)
    with _owned(app, settings, site):
        stop = stopped_by_signals()
        pack = load_pack(settings.pack)
        found = await unless_stopped(stop, _loaded(app, settings, site, pack, prepare))
        if found is None:
            return False
        if not stop.is_set():
            process, keys = assemble(app, settings, site, pack, *found, more=more)
            del found  # a module that is stopped takes its models with it
            await process.run(lambda: ready(Started(url=process.url, keys=keys)), stop)
        return True


def asleep_in(app: App, settings: Settings, routes: Routes) -> frozenset[str]:
    """Return the modules that a process is not built with: those that a monolith has stopped, by these routes."""
    if settings.instance.side != MONOLITH:
        return frozenset()
    return frozenset(module.name for module in app.modules if not routes.of(module.name).runs(MONOLITH))


async def _loaded(
    app: App, settings: Settings, site: DataDirectory, pack: SitePack, prepare: Callable[[], Awaitable[None]] | None
) -> tuple[dict[str, Any], Routes]:
    """Load what is not asleep; return it by module, and the routes, which may have changed while it was loaded."""
    if prepare is not None:
        await prepare()  # then the store is there, and has the routes
    routes = await _first_routes(settings, site)
    loaded: dict[str, Any] = {}
    while missing := [each for each in app.modules if each.name not in {*loaded, *asleep_in(app, settings, routes)}]:
        loading = (
            in_daemon(partial(_builder(each).load, app, settings, pack), f"load_{each.name}") for each in missing
        )
        loaded |= dict(zip((each.name for each in missing), await asyncio.gather(*loading), strict=True))
        routes = await _first_routes(settings, site)
    return loaded, routes


def _movable(context: Context, running: Sequence[Process], sleeping: Collection[str]) -> Movable:
    """`running`: gets the process once it is there."""
    modules = context.app.modules
    metrics_open = context.settings.of(MetricsSettings).metrics_open
    return Movable(
        builders={module.name: partial(_built, module, context) for module in modules},
        asleep={module.name: _builder(module).doors() for module in modules if module.name in sleeping},
        moves=context.moving,
        retire=partial(_retire, context),
        check_stop=partial(_check_unused, context),
        stand_ins=probe_routes(
            context.keys, lambda: [part for each in running for part in each.parts], metrics_open=metrics_open
        ),
    )


def _check_unused(context: Context, name: str) -> None:
    """Raise `ConflictError` where requests or decisions still come to a module of this process."""
    route = context.routes.routes.of(name)
    if context.moving and not route.leaves(context.side):
        raise ConflictError(f"{name} serves here: it is stopped once the other side has everything.")


async def _retire(context: Context, name: str) -> None:
    """Have nothing wait for a module that does not run here."""
    url = context.settings.redis_url
    if context.moving and url is not None:
        module = next(module for module in context.app.modules if module.name == name)
        await retire_groups(url, module, context.side, context.clock)


async def _built(module: Module, context: Context) -> Part:
    """Load a module, and build it into a process that runs."""
    builder = _builder(module)
    loaded = await in_daemon(partial(builder.load, context.app, context.settings, context.pack), f"load_{module.name}")
    return msgspec.structs.replace(builder.build(context, loaded), stops=True)


# -- inside -----------------------------------------------------------------------------------------------------------


def _check_place(app: App, settings: Settings) -> None:
    place = settings.instance
    if app.alone and (settings.redis_url is None or place.registry is None or place.socket is None):
        raise ConfigurationError(
            f"{app.name} as a service of its own needs a store, and others beside it. "
            "Use: quickcomm up --deployment services"
        )


async def _first_routes(settings: Settings, site: DataDirectory) -> Routes:
    """Return what is in force now; where the store does not tell, what the controller has stored."""
    if settings.redis_url is None or not settings.instance.side:
        return Routes()
    link = Link(settings.redis_url)
    try:
        return await first_routes(RedisRoutes(link), stored_routes(site.traffic.database))
    finally:
        await link.aclose()


def _routes(settings: Settings, clock: Clock, routes: Routes) -> RoutesFollower | FixedRoutes:
    place = settings.instance
    if settings.redis_url is None or not place.side:
        return FixedRoutes()
    return RoutesFollower(Link(settings.redis_url), place.name, clock, routes)


def _owned(app: App, settings: Settings, site: DataDirectory) -> contextlib.AbstractContextManager[object]:
    """Own the directory of the only process that writes to it."""
    if not app.alone:
        return contextlib.nullcontext()
    [module] = app.modules
    place = app.place(settings.instance.side)
    if place is not None:
        home = DataDirectory(site.path / place)
        home.create()  # commands tell by it that the module has processes of its own
        if settings.instance.side:
            home.note_moving()
        if app.home_of(settings) is not None:
            return home.own()
    where = module.database(settings, site.path)
    if where is not None:
        site.create()  # also what is kept elsewhere begins with what the file of the site has
    if where != site.database:
        return contextlib.nullcontext()
    return site.own(wait_s=PROBED_WITHIN_S)


def _databases(app: App, settings: Settings, site: DataDirectory) -> tuple[Database | None, Database | None]:
    """Return the database of the process, and the file of the site where it looks into that, too."""
    where = app.modules[0].database(settings, site.path) if app.alone else site.database
    if where is None:
        return None, None
    store = Database(where)
    looks_in = app.alone and app.also and not settings.instance.side and where != site.database
    return store, Database(site.database) if looks_in else store


def _bus(app: App, settings: Settings, store: Database | None, clock: Clock) -> WholeBus | RedisBus:
    if settings.redis_url is None:
        from quickcomm.kernel.messaging.bus.sql import SqlBus  # noqa: PLC0415 - where there is no Valkey

        assert store is not None, "messages are in Valkey, or in a database"  # noqa: S101 - a programming error
        return SqlBus(store, clock)
    if store is None or not any(module.publishes for module in app.modules):
        return RedisBus(settings.redis_url, clock)
    from quickcomm.kernel.messaging.bus.outbox import OutboxBus  # noqa: PLC0415 - for who publishes from a database

    fences = {name: each for module in app.modules for name, each in module.fences.items()}
    return OutboxBus(settings.redis_url, store, clock, fences=fences if settings.instance.side else {})


def _shared(context: Context, keys: KeyStore) -> Iterator[Part]:
    """Make what the modules of a process share."""
    app, settings = context.app, context.settings
    if context.store is not None and context.site_store is not None and context.store_watch is not None:
        yield database_part(context.store, context.site_store, context.store_watch, context.clock)
    yield bus_part(context.bus, app, context.clock, context.side)
    if isinstance(context.routes, RoutesFollower):
        yield Part(name="routes", work={"routes": context.routes.run}, close=context.routes.aclose)
    yield keys_part(keys, administered=any(module.makes_keys for module in app.modules))
    if any(module.watches_site for module in app.modules):
        yield site_part(context.site.path, settings.redis_url, context.clock)
        from quickcomm.kernel.checking.part import SiteCheck  # noqa: PLC0415 - its metrics are of this process

        letters = letter_answers(context.bus)
        days = settings.storage.retention_days
        yield SiteCheck(context.messaging.rpc, letters, context.clock, settings.check, days).part()


def _modules(context: Context, loaded: Mapping[str, Any], sleeping: Collection[str]) -> list[Part]:
    app, metrics_open = context.app, context.settings.of(MetricsSettings).metrics_open
    found = _more(context)
    for module in (each for each in app.modules if each.name not in sleeping):
        part = _builder(module).build(context, loaded[module.name])
        found.append(msgspec.structs.replace(part, stops=context.moving or not app.alone))
    if not any(route.name == HEALTH for route in app.routes):
        watched = tuple(found)
        found.append(probes_part(context.keys, lambda: watched, metrics_open=metrics_open))
    return found


def _builder(module: Module) -> Builder:
    return cast("Builder", importlib.import_module(module.build))


def _more(context: Context) -> list[Part]:
    """Return the further parts of a process, of what is installed."""
    found = []
    for name in context.app.also if context.trust is not None else ():
        try:
            known = importlib.util.find_spec(name) is not None
        except ModuleNotFoundError:
            known = False
        if known:
            found.append(importlib.import_module(name).build(context))
        else:
            log.warning("app.part_not_installed", part=name)
    return found


def _budget(running: Sequence[Process], settings: Settings) -> Budget:
    parts = [part for process in running for part in process.parts]
    known = next((part.budget for part in reversed(parts) if part.budget is not None), None)
    return settings.budgets if known is None else known()


def _keep(word: Word) -> KeepTrace:
    return KeepTrace(**msgspec.structs.asdict(word))
