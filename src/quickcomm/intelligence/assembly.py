"""Builds intelligence as a part of a process."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import msgspec
import structlog
from aiohttp import web

from quickcomm.contracts.routes import MONOLITH
from quickcomm.intelligence.adapters.history import MARKS, begin_anew, begin_warm
from quickcomm.intelligence.declaration import GROUP, INTELLIGENCE
from quickcomm.intelligence.history import PATH
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.model.settings import StoreSettings
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.module import (
    Classifier,
    Intelligence,
    IntelligenceSettings,
    LanguageModel,
    LlmSettings,
    Peers,
    SideSettings,
    build_classifier,
    build_model,
    share_stand,
    take_over,
)
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.kernel.copier.copier import CopyError
from quickcomm.kernel.copier.http import HttpSource
from quickcomm.kernel.copier.sql import note_stale
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.rpc.wire import connector_to
from quickcomm.kernel.runtime.alarms import Found
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.declaration import App
from quickcomm.kernel.runtime.groups import register_groups
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.kernel.runtime.shared_parts import backlog
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.telemetry.settings import budget_with_model

PEERS_S: Final = 0.5
"""A process that stops together with this one has left the registry by then."""
CATCH_UP_S: Final = 3.0
LOOK_EVERY_S: Final = 0.05
WARM_ALARM: Final = "intelligence.lacking"
LACKING: Final = "Prompts, costs and conversations of the monolith have not come over; they are still in its database."
STORE_ALARM: Final = "intelligence.store"
NOT_STORED: Final = "What is said is on the page, and understood when it is back."
OUTBOX: Final = ("outbox",)

log = structlog.get_logger(__name__)


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """Models that take long to load; `model` is None where no language model is set."""

    classifier: Classifier
    model: LanguageModel | None = None


def load(_app: App, settings: Settings, pack: SitePack) -> Engines:
    """Learn the local classifier, or load it; connect the language model."""
    return Engines(classifier=build_classifier(pack, settings.cache), model=build_model(settings.of(LlmSettings)))


def build(context: Context, engines: Engines) -> Part:
    settings = context.settings
    llm = settings.of(LlmSettings)
    budget = budget_with_model(settings.budgets, llm.budget_s if engines.model else 0.0)
    side = SideSettings(
        answers=settings.of(CacheSettings), usage=settings.of(UsageSettings), summaries=settings.of(SummarySettings)
    )
    several = context.app.alone or context.moving
    shared = share_stand(settings.redis_url) if several and settings.redis_url is not None else None
    intelligence = Intelligence(
        database=context.database,
        bus=context.messaging.bus,
        clock=context.clock,
        pack=context.pack,
        classifier=engines.classifier,
        model=engines.model,
        settings=IntelligenceSettings(
            llm=llm, side=side, budget=budget, shadow_share=settings.of(StoreSettings).shadow_share
        ),
        peers=Peers(
            shared=shared,
            ownership=_ownership(context),
            processes=lambda: context.messaging.rpc.elsewhere,
            rpc=context.messaging.rpc,
        ),
    )
    work = _Work(context, intelligence)
    return msgspec.structs.replace(
        intelligence.part(),
        work={GROUP: work.run},
        open=work.open,
        alarms=work.alarms,
        budget=lambda: budget,
        stopping=intelligence.drain,
        drain=work.drain,
        retire=work.retire,
    )


def doors() -> Sequence[web.AbstractRouteDef]:
    """Return no routes: intelligence has none."""
    return ()


def _ownership(context: Context) -> Ownership | None:
    """Return this side's share of the conversations; None where there is one side."""
    url = context.settings.redis_url
    if not context.moving or url is None:
        return None
    from quickcomm.intelligence.adapters.redis_assignments import RedisAssignments  # noqa: PLC0415 - without, no Valkey

    return Ownership(context.side, context.routes, RedisAssignments(url))


class _Work:
    """Opening, alarms and draining of intelligence in its process."""

    def __init__(self, context: Context, intelligence: Intelligence) -> None:
        self._context = context
        self._intelligence = intelligence
        self._lacks: str | None = None
        """Why it began without what the other side knows."""

    async def open(self) -> None:
        """Migrate the tables; take over what the site's file has where they are in a database elsewhere."""
        site, database = self._context.site_store, self._context.database
        if site is not None and site is not database:
            SqlBus(site, self._context.clock).migrate()
            Intelligence.migrate_tables(site)
            Intelligence.migrate_tables(database)
            await take_over(database, site)
        self._intelligence.migrate()

    async def run(self) -> None:
        """Work until cancelled; a side that is new begins with what the other one knows."""
        context = self._context
        registry, trust, url = context.registry, context.trust, context.settings.redis_url
        if await self._begins_warm() and registry is not None and trust is not None and url is not None:
            await register_groups(url, INTELLIGENCE, context.side, context.clock)
            side = context.routes.routes.of(INTELLIGENCE.name).other(context.side)
            other = MONOLITH if side == MONOLITH else INTELLIGENCE.name
            connector = partial(connector_to, registry, other, "" if side == MONOLITH else side)
            headers = partial(trust.headers, other)
            try:
                await begin_warm(context.database, HttpSource(connector, headers, f"http://{other}", PATH))
                self._lacks = None
                with contextlib.suppress(QuickCommError):  # it is looked for again and again
                    await self._intelligence.learn()
            except CopyError as error:
                log.exception("intelligence.not_warm", error=str(error))
                self._lacks = str(error)
        await self._intelligence.run()

    async def retire(self) -> None:
        """Note that what is here becomes stale: the other side goes on."""
        await self._context.database.write(lambda connection: note_stale(connection, MARKS))

    async def _begins_warm(self) -> bool:
        """Return True for a service, and for a monolith that was retired.

        A service that was off has nothing of its own, and may lack messages that were trimmed meanwhile.
        """
        if not self._context.moving:
            return False
        routes = self._context.routes.routes
        route = routes.of(INTELLIGENCE.name)
        is_new = self._context.side == route.candidate and route.mode == "off"
        if self._context.app.alone and routes.version and is_new and route.leaves(self._context.side):
            await self.retire()
        return await self._context.database.write(begin_anew) or self._context.app.alone

    def alarms(self) -> Iterable[Found]:
        if self._lacks is not None:
            yield WARM_ALARM, f"{LACKING} {self._lacks}"
        watch = self._context.store_watch
        stored = (watch and watch.trouble) or self._intelligence.trouble
        if stored and self._context.app.alone:
            yield STORE_ALARM, f"{stored.rstrip('.')}. {NOT_STORED}"
        yield from self._intelligence.alarms()

    async def drain(self) -> None:
        """Finish what is in hand; leave the backlog to peers, or work it off where there are none."""
        app = self._context.app
        if app.alone:
            await asyncio.sleep(PEERS_S)
        peers = self._context.peers()
        if peers:
            self._intelligence.leave()
        waited_for = OUTBOX if peers else (*(f"/{self._context.group(group)}" for group in app.groups), *OUTBOX)
        with contextlib.suppress(TimeoutError, QuickCommError):  # a store that does not answer keeps what waits
            async with asyncio.timeout(CATCH_UP_S + self._intelligence.catch_up_s):
                while self._intelligence.busy or await self._waits(waited_for):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY_S)  # only the store knows

    async def _waits(self, ends: tuple[str, ...]) -> bool:
        found = await backlog(self._context.bus, ends)
        return found is not None and any(found.values())
