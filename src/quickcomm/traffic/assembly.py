"""Builds the migration controller as a part of a process."""

from typing import Any

import msgspec

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.routing import RedisRoutes
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.site_pack import SitePack
from quickcomm.traffic.adapters.evidence import UNDERSTOOD, SiteEvidence
from quickcomm.traffic.adapters.journal import SqlJournal
from quickcomm.traffic.adapters.measuring import Measurer
from quickcomm.traffic.adapters.parity import Dashboards
from quickcomm.traffic.adapters.site import UpSite
from quickcomm.traffic.ports import TrafficSettings
from quickcomm.traffic.service.controller import Controller
from quickcomm.traffic.service.gatekeeper import Gatekeeper
from quickcomm.traffic.service.operating import Operating


def load(_app: App, _settings: Settings, _pack: SitePack) -> None:
    """Load nothing: the controller has no models."""


def build(context: Context, _loaded: None) -> Part:
    """Raises `ConfigurationError` outside of a site that `up` runs."""
    settings, registry = context.settings, context.registry
    if settings.redis_url is None or registry is None:
        raise ConfigurationError("The migration controller needs a site of several processes. Use: quickcomm up")
    own = settings.of(TrafficSettings)
    link = Link(settings.redis_url)
    journal = SqlJournal(context.database, context.clock)
    budgets_ms = msgspec.to_builtins(settings.budgets) | {
        "answer": own.answer_ms,
        UNDERSTOOD: settings.budgets.classify,
    }
    dashboards = Dashboards(context.messaging.rpc, context.clock)
    site = UpSite(context.site, registry, dashboards)
    evidence = SiteEvidence(
        context.site, registry, dashboards, Measurer(context.messaging.rpc, context.clock), context.clock, budgets_ms
    )
    controller = Controller(journal, RedisRoutes(link), site, context.clock, own)
    gates = Gatekeeper(controller, evidence, context.clock, own)

    async def opened() -> None:
        journal.migrate()
        await controller.open()

    async def status() -> dict[str, Any]:
        return {"routes": controller.site.version, "moving": sorted(controller.moving)}

    return Part(
        name="traffic",
        answers=Operating(controller, gates, journal, context.clock).answers(),
        open=opened,
        work={"controller": controller.run, "gates": gates.run, "evidence": evidence.run},
        close=link.aclose,
        status=status,
    )
