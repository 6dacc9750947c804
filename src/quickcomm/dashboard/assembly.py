"""Builds the dashboard as a part of a process."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.contracts.health import Alarm
from quickcomm.contracts.routes import MONOLITH
from quickcomm.dashboard.backfill import backfill
from quickcomm.dashboard.declaration import DASHBOARD
from quickcomm.dashboard.module import Dashboard, DashboardSettings
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.copier.copier import CopyError
from quickcomm.kernel.copier.http import HttpSource
from quickcomm.kernel.messaging.rpc.wire import connector_to
from quickcomm.kernel.runtime.alarms import rfc3339
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.groups import register_groups
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.site_pack import SitePack

EARLIER: Final = "intelligence"
"""The service whose process has the database of the former monolith, while there is none."""
HISTORY_ALARM: Final = "history.lacking"
LACKING: Final = "What there was before this dashboard began is not copied; it is still where it was."

log = structlog.get_logger(__name__)


def load(_app: App, _settings: Settings, _pack: SitePack) -> None:
    """Load nothing: the dashboard has no models."""


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
            context.registry if context.moving else None,
        ),
    )
    part = msgspec.structs.replace(dashboard.part(), budget=lambda: dashboard.budget)
    history = _History(context, dashboard)
    if context.trust is None:
        return part
    return msgspec.structs.replace(part, work={**part.work, "history": history.run}, alarms=lambda: history.lacking)


def doors() -> Sequence[web.AbstractRouteDef]:
    """Return the routes of a dashboard that is not built."""
    return Dashboard.doors()


class _History:
    """Copies, once in the life of this side, what the other side had before."""

    def __init__(self, context: Context, dashboard: Dashboard) -> None:
        self.lacking: list[Alarm] = []
        self._context = context
        self._dashboard = dashboard

    async def run(self) -> None:
        """Copy it; nothing in a monolith that has had everything all along."""
        if self._context.app.alone or await self._dashboard.lacks_history():
            try:
                await self._copy()
            except CopyError as error:
                log.exception("history.failed", error=str(error))
                since = rfc3339(datetime.now(UTC))
                self.lacking[:] = [Alarm(code=HISTORY_ALARM, message=f"{LACKING} {error}", since=since)]

    async def _copy(self) -> None:
        context = self._context
        registry, trust, url = context.registry, context.trust, context.settings.redis_url
        assert registry is not None and trust is not None and url is not None, "it has peers"  # noqa: S101, PT018
        if context.moving:  # before it copies what was published before
            await register_groups(url, DASHBOARD, context.side, context.clock)
        source = EARLIER if not context.moving else MONOLITH if context.app.alone else DASHBOARD.name
        await backfill(
            context.database,
            HttpSource(partial(connector_to, registry, source), partial(trust.headers, source), f"http://{source}"),
            self._dashboard.match_again,
            context.settings.of(DashboardSettings).closing_confidence,
            live=context.moving,
        )
