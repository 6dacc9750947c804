"""Parts that several processes have beside their modules: database, bus, keys, the disk, traces."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import web

from quickcomm.contracts.link import KeepTrace, Receipt
from quickcomm.entrypoints.disk import disk_alarms
from quickcomm.entrypoints.store_alarms import StoreAlarms
from quickcomm.entrypoints.store_commands import key_answers
from quickcomm.kernel.bus.redis import RedisBus
from quickcomm.kernel.bus.watch import ServerWatch
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.keys import Authenticator, KeyStore
from quickcomm.kernel.messaging.live import HERE, Peer
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.settings import InstanceSettings
from quickcomm.kernel.storage import Database
from quickcomm.kernel.telemetry import Word, tracing
from quickcomm.kernel.telemetry.setup import stop_tracing
from quickcomm.kernel.telemetry.traces import Traces


class Backlogged(Protocol):
    """A bus, as far as its backlog goes."""

    async def backlog(self) -> dict[str, int]: ...


def database_part(database: Database) -> Part:
    """Open the database before all that keeps tables in it."""
    return Part(name="database", open=database.open, close=database.aclose)


def keys_part(keys: KeyStore, *, administered: bool = True) -> Part:
    """Keep API keys and sessions. `administered`: operators may ask this process for them."""
    return Part(name="keys", answers=key_answers(keys) if administered else (), open=keys.migrate, close=keys.aclose)


def redis_bus_part(bus: RedisBus, watch: ServerWatch, group: str, *, trims: bool = False, tells: bool = False) -> Part:
    """Watch the bus of a process without tables of its own.

    `trims`: this process deletes what all have handled. `tells`: it has the alarms of the server for all processes.
    """

    async def status() -> Mapping[str, Any]:
        return {"bus_backlog": await backlog(bus, (f"/{group}",))}

    work = {"bus": watch.run} | ({"trim": bus.trim_forever} if trims else {})
    return Part(name="bus", work=work, alarms=lambda: watch.alarms if tells else (), status=status, close=bus.aclose)


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


def measuring(keys: Authenticator, *, open_to_all: bool) -> Callable[[web.Request], Awaitable[None]]:
    """Return a check that raises `UnauthorizedError` where a caller may not see the metrics."""

    async def may_measure(request: web.Request) -> None:
        if not open_to_all:
            await keys.require(request, "read")

    return may_measure


def peers(place: InstanceSettings, module: str) -> list[str]:
    """Return the names of the other registered processes of a module."""
    found = [] if place.registry is None else DirectoryRegistry(Path(place.registry)).instances()
    return [each.name for each in found if each.module == module and each.name != place.name]


async def backlog(bus: Backlogged, ends: tuple[str, ...] = ("",)) -> dict[str, int] | None:
    """Return the messages that wait, by stream and group, of the names that end so; None while the store is down."""
    try:
        found = await bus.backlog()
    except QuickCommError:
        return None
    return {name: count for name, count in found.items() if name.endswith(ends)}
