"""What the edge is told of the rows of a topology: what stands before others, how requests are split, its settings."""

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from quickcomm.contracts import routes as sides
from quickcomm.contracts.routes import SERVICE, ModuleRoute, Routes
from quickcomm.edge.module import Apart, EdgeSettings, Front, Split
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.operate.up.layout import Layout
from quickcomm.operate.up.modules import Row


def front_of(rows: Sequence[Row], layout: Layout) -> Front | None:
    """Return what stands before others at the edge, whether any process of it runs or not."""
    found = [
        Front(cluster=row.module.name, routes=row.stands_before, socket=layout.behind_relay)
        for row in rows
        if row.stands_before
    ]
    return found[0] if found else None


def splits_of(rows: Sequence[Row], routes: Routes) -> list[Split]:
    """Return how requests are split between the monolith and the services beside it."""
    return [
        Split(
            routes=row.routes,
            cluster=row.module.name,
            weight=routes.of(row.module.name).weight,
            apart=_apart(routes.of(row.module.name)),
        )
        for row in rows
        if row.asked_for and row.routes
    ]


def edge_settings(settings: Settings) -> EdgeSettings:
    """Return the settings of the edge.

    It trusts as many proxies as the keys do. Where it is told nothing else, its spans go where those of the processes
    go, and are as many.
    """
    url = settings.telemetry.otlp_url
    edge = msgspec.structs.replace(settings.of(EdgeSettings), trusted_hops=settings.keys.trusted_hops)
    if edge.otlp_url is not None or url is None or not url.startswith("http://"):
        return edge  # the edge speaks no TLS to a collector
    path = "" if urlsplit(url).path.strip("/") else "/v1/traces"
    return msgspec.structs.replace(
        edge, otlp_url=f"{url.rstrip('/')}{path}", trace_percent=100.0 * settings.telemetry.sample
    )


def _apart(route: ModuleRoute) -> tuple[Apart, ...]:
    """Return what has a side of its own at the edge, which knows no sites."""
    return tuple(
        Apart(
            there=side == SERVICE,
            conversations=tuple(sorted(name for name, own in route.overrides.items() if own == side)),
            channels=tuple(sorted(name for name, own in route.channels.items() if own == side)),
        )
        for side in (SERVICE, sides.MONOLITH)
    )
