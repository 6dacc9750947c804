"""Connects the modules of a process with those of other processes."""

from collections.abc import Collection
from pathlib import Path

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.internal import Trust
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.live.wire import WireLive
from quickcomm.kernel.messaging.rpc.wire import WireRpc, rpc_routes
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.settings import InstanceSettings


def wires(
    messaging: Messaging,
    modules: Collection[str],
    place: InstanceSettings,
    trust: Trust,
    clock: Clock,
    asleep: Collection[str] = (),
) -> Part:
    """Connect the modules of this process, which are connected with each other, with those of other processes.

    `asleep`: those of the modules that are not built yet.
    """
    assert place.registry is not None, "processes that talk to others are registered"  # noqa: S101 - checked before
    registry = DirectoryRegistry(Path(place.registry))
    live = WireLive(messaging.live, modules, registry, trust, place.name)
    rpc = messaging.rpc.elsewhere = WireRpc(registry, trust, clock, name=place.name)

    async def drain() -> None:
        live.close()

    return Part(
        name="messaging",
        routes=[*live.routes(), *rpc_routes(messaging.rpc, trust, asleep)],
        work={"live": live.run},
        drain=drain,
        close=rpc.aclose,
    )
