"""Parts that processes have beside their modules: database, bus, keys, the disk, traces, probes."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

from quickcomm.contracts.link import KeepTrace, Receipt
from quickcomm.contracts.routes import MONOLITH, SERVICE, Side, group_of
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.keys import Authenticator, KeyStore
from quickcomm.kernel.messaging.bus import WholeBus
from quickcomm.kernel.messaging.bus.outbox import OUTBOX_ALARM
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.watch import UNAVAILABLE_ALARM, ServerWatch
from quickcomm.kernel.messaging.live import HERE, Peer
from quickcomm.kernel.runtime.alarms import Found
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.disk import disk_alarms
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.probes import probes
from quickcomm.kernel.runtime.store_alarms import StoreAlarms
from quickcomm.kernel.runtime.store_commands import key_answers, letter_answers
from quickcomm.kernel.saga.keys import KEPT_NS, forget, migrate_keys
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.watch import DatabaseWatch
from quickcomm.kernel.telemetry import Word, tracing
from quickcomm.kernel.telemetry.setup import stop_tracing
from quickcomm.kernel.telemetry.traces import Traces

OF_EACH_PROCESS: Final = frozenset({UNAVAILABLE_ALARM, OUTBOX_ALARM})
"""Alarms of the bus that a process tells of itself."""


def _nothing() -> None:
    """Do nothing."""


def database_part(database: Database, site: Database, watch: DatabaseWatch, clock: Clock) -> Part:
    """Open the databases before all that keeps tables in them. `site`: the file of the site, often the same.

    The keys of the steps that have their effects in it are kept for all modules at once.
    """

    async def close() -> None:
        await database.aclose()
        if site is not database:
            await site.aclose()

    def opened() -> None:
        site.open()
        if site is not database:
            database.open()
        migrate_keys(database.engine)

    async def purge(before_ns: int) -> None:
        oldest_ns = min(before_ns, clock.now_ns() - KEPT_NS)
        await database.write(lambda connection: forget(connection, oldest_ns))

    return Part(name="database", open=opened, work={"database": watch.run}, purge=purge, close=close)


def keys_part(keys: KeyStore, *, administered: bool = True) -> Part:
    """Keep API keys and sessions. `administered`: operators may ask this process for them."""
    return Part(name="keys", answers=key_answers(keys) if administered else (), open=keys.migrate, close=keys.aclose)


def bus_part(bus: WholeBus | RedisBus, app: App, clock: Clock, side: Side = SERVICE) -> Part:
    """Keep the bus going. The alarms of the store's server are told by the process that watches the site."""
    sides = (MONOLITH, SERVICE, side)
    ends = (*dict.fromkeys(f"/{group_of(group, each)}" for each in sides for group in app.groups), "outbox")

    async def status() -> Mapping[str, Any]:
        return {"bus_backlog": await backlog(bus, ends), **await _answers_in(bus)}

    watches = any(module.watches_site for module in app.modules)
    answers = letter_answers(bus) if app.operates else ()
    keeper: ServerWatch | WholeBus
    if isinstance(bus, RedisBus):
        keeper = ServerWatch(bus, clock, next(module.without_store for module in app.modules))
        work = {"bus": keeper.run, "trim": bus.trim_forever} if _trims(app) else {"bus": keeper.run}
    else:
        keeper, work = bus, {"bus": bus.maintain}

    def alarms() -> Iterable[Found]:
        return (each for each in keeper.alarms if watches or each[0] in OF_EACH_PROCESS)

    return Part(
        name="bus",
        answers=answers,
        open=_nothing if isinstance(bus, RedisBus) else bus.migrate,
        work=work,
        alarms=alarms,
        status=status,
        close=bus.aclose,
    )


def _trims(app: App) -> bool:
    return any(module.trims for module in app.modules)


def site_part(directory: Path, redis_url: str | None, clock: Clock) -> Part:
    """Tell what is wrong with the disk of the site, and with its store where there is one."""
    store = None if redis_url is None else StoreAlarms(redis_url, clock)
    if store is None:
        return Part(name="site", alarms=lambda: disk_alarms(directory))
    return Part(
        name="site",
        work={"store-alarms": store.run},
        alarms=lambda: [*store.found, *disk_alarms(directory)],
        close=store.aclose,
    )


def traces_part(traces: Traces | None) -> Part:
    """Send spans while the process works, and follow what the dashboard says of traces. None: tracing is off."""

    async def close() -> None:
        await stop_tracing(traces)

    return Part(
        name="traces",
        work={} if traces is None else {"traces": traces.run},
        subscriptions=[(Receipt, _finished), (KeepTrace, _keep)],
        close=close,
    )


def _finished(receipt: Receipt, _peer: Peer) -> None:
    tracing().receipt(receipt.site, receipt.utterance_id, receipt.latency)


def _keep(said: KeepTrace, peer: Peer) -> None:
    if peer is not HERE:
        tracing().word(Word(**msgspec.structs.asdict(said)))


def probes_part(keys: Authenticator, parts: Callable[[], Sequence[Part]], *, metrics_open: bool) -> Part:
    """Answer the edge's probes in a process that has no dashboard to do it."""
    return Part(name="probes", routes=probe_routes(keys, parts, metrics_open=metrics_open))


def probe_routes(
    keys: Authenticator, parts: Callable[[], Sequence[Part]], *, metrics_open: bool
) -> Sequence[web.RouteDef]:
    """Return the routes of the probes of a process. `parts`: returns those that it has now."""
    admit = measuring(keys, open_to_all=metrics_open)
    return probes(admit, lambda: any(any(part.alarms()) for part in parts()))


def measuring(keys: Authenticator, *, open_to_all: bool) -> Callable[[web.Request], Awaitable[None]]:
    """Return a check that raises `UnauthorizedError` where a caller may not see the metrics."""

    async def may_measure(request: web.Request) -> None:
        if not open_to_all:
            await keys.require(request, "read")

    return may_measure


async def _answers_in(bus: WholeBus | RedisBus) -> dict[str, float]:
    """Return how long the store takes to answer this process, in ms, where there is one and it answers."""
    try:
        taken = await bus.answer_ms()
    except QuickCommError:
        return {}
    return {} if taken is None else {"store_ms": taken}


async def backlog(bus: WholeBus | RedisBus, ends: tuple[str, ...] = ("",)) -> dict[str, int] | None:
    """Return the messages that wait, by stream and group, of the names that end so; None while the store is down."""
    try:
        found = await bus.backlog()
    except QuickCommError:
        return None
    return {name: count for name, count in found.items() if name.endswith(ends)}
