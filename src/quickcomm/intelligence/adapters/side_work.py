"""What goes on beside classifying: the cache of answers, what they cost, summaries and reports; one thing to run."""

import asyncio
import contextlib

import msgspec

from quickcomm.contracts.closing import SummarizeConversation, Summarized
from quickcomm.contracts.usage import DayUsage, UsageReport
from quickcomm.intelligence.adapters.sql_cache import SqlCache
from quickcomm.intelligence.adapters.sql_talks import SqlTalks
from quickcomm.intelligence.adapters.sql_usage import SqlUsage
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.ports import LanguageModel
from quickcomm.intelligence.service.llm import Mask, Unmasked
from quickcomm.intelligence.service.narrator import ModelNarrator
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.side_questions import SideQuestions
from quickcomm.intelligence.service.summaries import Follow, Summaries
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus import Bus
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.saga import Transaction, Transactional
from quickcomm.kernel.storage import Database


class SideSettings(msgspec.Struct, frozen=True, kw_only=True):
    answers: CacheSettings = CacheSettings()
    usage: UsageSettings = UsageSettings()
    summaries: SummarySettings = SummarySettings()


class SideWork:
    """`cache` and `usage` are for the classifier; `questions.may_ask` is to be set by whoever watches the model."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        clock: Clock,
        settings: SideSettings | None = None,
        model: LanguageModel | None = None,
        mask: Mask = Unmasked,
        ownership: Ownership | None = None,
    ) -> None:
        """`mask` hides what must not leave. Raises `ConfigurationError` for a time zone that nobody knows."""
        settings = settings or SideSettings()
        self._bus = bus
        self._model = model
        self.cache = SqlCache(database, clock, settings.answers)
        self.usage = SqlUsage(database, clock, settings.usage, ownership.side if ownership and ownership.moves else "")
        self.questions = SideQuestions(
            model,
            self.usage,
            mask=mask,
            concurrency=settings.summaries.concurrency,
            timeout_s=settings.summaries.timeout_s,
        )
        self._narrator = ModelNarrator(self.questions)
        self._talks = SqlTalks(database, settings.summaries)
        self._summaries = Summaries(self._talks, self.questions, clock, settings.summaries, ownership)

    def follow(self, act: Follow) -> None:
        """Have `act` called with the insights that the other side has found."""
        self._summaries.follow = act

    def restore(self) -> None:
        """Right after the migrations, before anything is asked."""
        self.usage.restore()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._model is not None:
                tasks.create_task(self.cache.run(), name="intelligence:cache")
                tasks.create_task(self.usage.run(), name="intelligence:usage")
            tasks.create_task(self._summaries.run(self._bus), name="intelligence:summaries")

    def drain(self) -> None:
        """Be done soon with what there is."""
        self._summaries.drain()

    def concluding(self, database: Database, clock: Clock) -> Answer:
        """Return who writes the last summary of a conversation that is closed, as a step of that operation."""

        async def prepare(request: SummarizeConversation) -> None:
            await self._summaries.conclude(request.site, request.conversation_id, request.last_seq)
            await self.usage.flush()

        def effect(transaction: Transaction, request: SummarizeConversation) -> Summarized:
            connection, name = transaction.connection, (request.site, request.conversation_id)
            talk = self._talks.conclude(connection, name, request.last_seq, clock.now_ns())
            usage = self.usage.of_conversation(connection, *name)
            if talk is None:
                return Summarized(usage=usage)
            return Summarized(revision=talk.revision, source=talk.source, utterances=talk.utterances, usage=usage)

        return Transactional(SummarizeConversation, database, clock, effect, prepare).answer

    async def narrate(self, site: str, facts: str) -> str | None:
        """A few sentences about facts; None where no model can find them now."""
        return await self._narrator.narrate(site, facts)

    async def usage_report(self, site: str, conversation_id: str | None, limit: int) -> UsageReport:
        """What the model costs. "off" where there is none; what it cost before stays."""
        report = await self.usage.report(site, conversation_id, limit)
        return report if self._model is not None else msgspec.structs.replace(report, state="off")

    def used_today(self) -> DayUsage:
        """For `quickcomm status`."""
        return self.usage.today()

    @property
    def settled(self) -> bool:
        """Whether all that was counted and kept is written."""
        return self.usage.settled and self.cache.settled

    async def purge(self, before_ns: int) -> None:
        """Forget conversations of old, and answers that are too old."""
        await self.usage.purge(before_ns)
        await self._talks.purge(before_ns)
        await self.cache.purge()

    async def aclose(self) -> None:
        """Write what is left. May be called again."""
        for flush in (self.usage.flush, self.cache.flush):
            with contextlib.suppress(QuickCommError):  # said already, while it ran
                await flush()
