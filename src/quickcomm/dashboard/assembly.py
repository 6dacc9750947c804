"""Builds the dashboard as a part of a process."""

from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.health import Alarm
from quickcomm.contracts.routes import MONOLITH
from quickcomm.dashboard.backfill import backfill
from quickcomm.dashboard.declaration import DASHBOARD, GROUP
from quickcomm.dashboard.module import Dashboard, DashboardSettings
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.copier.copier import CopyError
from quickcomm.kernel.copier.http import HttpSource
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.rpc.wire import connector_to
from quickcomm.kernel.runtime.alarms import rfc3339
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.site_pack import SitePack

EARLIER: Final = "intelligence"
"""The service whose process has the database of the former monolith, while there is none."""
HISTORY_ALARM: Final = "history.lacking"
LACKING: Final = "What the monolith had of earlier times has not come over; it is still in its database."

log = structlog.get_logger(__name__)


def load(_app: App, _settings: Settings, _pack: SitePack) -> None:
    """Load nothing: the dashboard has no models."""


async def _register(context: Context) -> None:
    """Have the store keep for this side what is published from now on, before it copies what was published before."""
    bus = context.bus
    assert isinstance(bus, RedisBus), "it publishes nothing"  # noqa: S101 - a programming error
    for stream in next(group.streams for group in DASHBOARD.consumes if group.name == GROUP):
        await bus.register(stream, context.group(GROUP))


def build(context: Context, _loaded: None) -> Part:
    settings = context.settings
    own = settings.of(DashboardSettings)
    dashboard = Dashboard(
        database=context.database,
        messaging=context.messaging,
        clock=context.clock,
        keys=context.keys,
        settings=own,
        budget=settings.budgets,
        trace_url=settings.telemetry.trace_url if context.traced else None,
        standing=Standing(
            context.side,
            context.routes if context.moving else None,
            settings.redis_url if context.app.alone or context.moving else None,
        ),
    )
    part = msgspec.structs.replace(dashboard.part(), budget=lambda: dashboard.budget)
    registry, trust = context.registry, context.trust
    if not context.app.alone or registry is None or trust is None:
        return part
    lacking: list[Alarm] = []

    async def take_over() -> None:
        """Copy, once in a site's life, what the monolith had before this was a service of its own."""
        source = MONOLITH if context.moving else EARLIER
        try:
            if context.moving:
                await _register(context)
            await backfill(
                context.database,
                HttpSource(partial(connector_to, registry, source), partial(trust.headers, source), f"http://{source}"),
                dashboard.match_again,
                own.closing_confidence,
                live=context.moving,
            )
        except CopyError as error:
            log.exception("history.failed", error=str(error))
            since = rfc3339(datetime.now(UTC))
            lacking[:] = [Alarm(code=HISTORY_ALARM, message=f"{LACKING} {error}", since=since)]

    return msgspec.structs.replace(part, work={**part.work, "history": take_over}, alarms=lambda: lacking)
