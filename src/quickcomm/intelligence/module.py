"""The public face of intelligence: build it, run it, drain it, close it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.evidence import Measured, MeasureIntelligence
from quickcomm.contracts.health import Alarm, ClassifierHealth
from quickcomm.contracts.identity import bucket
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.link import InstanceStatus
from quickcomm.contracts.narrative import Narrate, Narrated
from quickcomm.contracts.prompts import GetPrompts, PromptsView
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.contracts.usage import GetUsage, UsageReport
from quickcomm.intelligence.adapters.asked_model import AskedModel, examined_by, mask_of_people
from quickcomm.intelligence.adapters.correcting import Corrections
from quickcomm.intelligence.adapters.digests import digest_answer
from quickcomm.intelligence.adapters.embedding import MINILM
from quickcomm.intelligence.adapters.erasing import erasing_answer
from quickcomm.intelligence.adapters.exported import EXPORTED
from quickcomm.intelligence.adapters.history import take_over
from quickcomm.intelligence.adapters.local import LocalClassifier, build_local_classifier
from quickcomm.intelligence.adapters.openai_model import OpenAiModel
from quickcomm.intelligence.adapters.other_side import OtherSide, Processes
from quickcomm.intelligence.adapters.prompt_commands import PromptCommands
from quickcomm.intelligence.adapters.prompting import Prompting, labelled_set
from quickcomm.intelligence.adapters.shadowing import Metered, shadow_local, shadow_model
from quickcomm.intelligence.adapters.side_work import SideSettings, SideWork
from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS, SqlResults
from quickcomm.intelligence.declaration import GROUP
from quickcomm.intelligence.model.grounding import Grounder
from quickcomm.intelligence.model.reading import Reader
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.ports import (
    Classifier,
    Heard,
    LanguageModel,
    SharedStand,
    StoredPrompt,
)
from quickcomm.intelligence.service.doubting import Doubting
from quickcomm.intelligence.service.guard import ModelState
from quickcomm.intelligence.service.llm import Parts, Unmasked
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.prompt_evaluation import Evaluation, Examined
from quickcomm.intelligence.service.shadow import Shadow
from quickcomm.intelligence.service.understanding import Understanding
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.copier.transfer import ModuleTables
from quickcomm.kernel.messaging.bus import Bus
from quickcomm.kernel.messaging.rpc import Answer, Rpc
from quickcomm.kernel.model_files import ModelReport, ModelStore
from quickcomm.kernel.runtime.alarms import rfc3339
from quickcomm.kernel.runtime.part import Part
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.storage import Database, migrate
from quickcomm.kernel.telemetry import Budget
from quickcomm.kernel.telemetry.measured import Measurements

OVERLAP: Final = 64
"""Batches of a partition in hand at once, where a model is asked."""
MODEL_ALARM: Final = "language_model"
OFF: Final = "No language model is connected; the local classifier answers."


class IntelligenceSettings(msgspec.Struct, frozen=True, kw_only=True):
    llm: LlmSettings = LlmSettings()
    side: SideSettings = SideSettings()
    budget: Budget = Budget()
    """Of the stages, as the page shows it."""
    shadow_share: float | None = None
    """As in `StoreSettings`."""


class Peers(msgspec.Struct, frozen=True, kw_only=True):
    """What a process shares with other processes of intelligence."""

    shared: SharedStand | None = None
    """The breaker state of the model."""
    ownership: Ownership | None = None
    """Where conversations move between two sides: those of this one."""
    processes: Callable[[], Processes | None] = lambda: None
    """Where they do: how the processes of the other side are asked, once there are connections."""
    rpc: Rpc | None = None
    """How the dashboard is asked for corrected texts; None where no utterance is corrected."""


class Intelligence:
    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        clock: Clock,
        pack: SitePack,
        classifier: Classifier,
        model: LanguageModel | None = None,
        settings: IntelligenceSettings = IntelligenceSettings(),  # noqa: B008 - frozen
        peers: Peers = Peers(),  # noqa: B008 - frozen
    ) -> None:
        """`classifier`: the local one. `model`: a language model that goes before it, or None.

        `peers`: the processes that do the same, if there are any.
        """
        self._measurements = Measurements(clock, (peers.ownership or Ownership()).side)
        self._clock = clock
        self._ownership = ownership = peers.ownership or Ownership()
        self._database = database
        self._bus = bus
        self._local = classifier
        self._store = SqlResults(database, clock)
        self._shared = peers.shared
        self._started_ns = clock.now_ns()
        self._settings = settings.llm
        self._budget = settings.budget
        self.prompting = Prompting(database, pack, clock)
        mask = Unmasked if model is None else mask_of_people()
        self._side = SideWork(database, bus, clock, settings.side, model, mask, ownership)
        self._processes = peers.processes
        self._rpc = peers.rpc
        self._corrections: Corrections | None = None
        self._other_side: OtherSide | None = None
        if ownership.moves:
            self._side.follow(self._follow)
            self._other_side = OtherSide(SqlPrompts(database), self._side.usage, ownership, clock)
        self._model: AskedModel | None = None
        self._shadow: Shadow | None = None
        share = settings.shadow_share
        if model is None:
            doubting = Doubting(classifier, classifier, pack)
            self._understanding = Understanding(doubting, self._store, clock, pack.opens_task, ownership=ownership)
            self._understanding.on_answer = self._count
            self._understanding.on_read = self._measurements.read
            if ownership.moves:
                self._cast(shadow_local(classifier, pack, clock, ownership, share, lambda: self.busy))
            return
        parts = Parts(
            model=model,
            prompts=self.prompting.prompts,
            grounding=Grounder(Reader(pack)),
            cache=self._side.cache,
            usage=Metered(self._side.usage, self._measurements.bill.add),
            mask=mask,
            pack=pack.digest,
        )
        self._model = AskedModel(parts, classifier, self._store, clock, pack.opens_task, settings.llm, ownership)
        if peers.shared is not None:
            self._model.agree(peers.shared)
        fallback = self._model.fallback
        doubting = Doubting(fallback, classifier, pack)
        self._understanding = Understanding(
            doubting, self._store, clock, pack.opens_task, alone=lambda: fallback.available, ownership=ownership
        )
        self._understanding.on_answer = self._count
        self._understanding.on_read = self._measurements.read
        if ownership.moves:
            usage = self._side.usage
            self._cast(shadow_model(parts, usage, classifier, pack, clock, settings.llm, ownership, share))
        self._side.questions.may_ask = lambda: fallback.available
        self.prompting.desk.connect(examined_by(parts, classifier, self._side))

    def _cast(self, shadow: Shadow) -> None:
        """Have what the other side answers understood here as well, to be compared."""
        self._shadow = shadow
        self._understanding.on_other = shadow.offer

    # -- what it tells ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> ModelState:
        """How it is with the language model, in words for operators."""
        if self._model is None:
            return ModelState(state="off", since_ns=self._started_ns, why=OFF)
        return self._model.fallback.state

    @property
    def available(self) -> bool:
        """Whether there is a language model, it answers, and its budget is not used up."""
        return self._model is not None and self._model.fallback.available

    @property
    def classifier(self) -> str:
        """Who answers now, by name."""
        return self._local.model if self._model is None else self._model.fallback.model

    @property
    def catch_up_s(self) -> float:
        """How long what is in hand may take."""
        return self._settings.budget_s if self._model else 0.0

    @property
    def trouble(self) -> str | None:
        """Why nothing can be published now: what the database says."""
        return self._understanding.trouble

    async def status(self) -> dict[str, Any]:
        """Return the fields of `quickcomm status --json`."""
        state = self.state
        model = {} if self._model is None else self._model.status()
        return {
            "classifier": self.classifier,
            "llm": {"state": state.state, "why": state.why, **model, "since": self.health().since},
            "usage_today": msgspec.to_builtins(self._side.used_today()),
        }

    def health(self) -> ClassifierHealth:
        """Return how utterances are classified now, for the page."""
        state = self.state
        return ClassifierHealth(
            model=self.classifier,
            source="llm" if state.state == "up" else "local",
            degraded=state.state == "degraded",
            state=state.state,
            message=state.why,
            since=rfc3339(datetime.fromtimestamp(state.since_ns / 1e9, UTC)),
        )

    def alarms(self) -> list[Alarm]:
        """Return an alarm while there is a language model that does not answer."""
        health = self.health()
        return [Alarm(code=MODEL_ALARM, message=health.message, since=health.since or "")] if health.degraded else []

    def _count(self, found: InsightsFound) -> None:
        """Count an answer for the gates; one that the model should have given, and did not, has failed."""
        self._measurements.client(bucket("intelligence", found.conversation_id))
        self._measurements.answered(
            found.latency.classify or 0.0, failed=any(insight.degraded for insight in found.insights)
        )
        self._measurements.stage("queue", found.latency.queue or 0.0)
        if self._shadow is not None:
            self._shadow.forget(found.site, found.utterance_id)

    def part(self) -> Part:
        """Return this module as a part of a process."""
        return Part(
            name=GROUP,
            answers=self._answers(),
            work={GROUP: self.run},
            open=self.migrate,
            purge=self.purge,
            alarms=self.alarms,
            live_status=self._live_status,
            status=self.status,
            close=self.aclose,
        )

    def _answers(self) -> Sequence[Answer]:

        async def prompts(_request: GetPrompts) -> PromptsView:
            return await self.prompting.desk.view()

        async def usage(request: GetUsage) -> UsageReport:
            return await self._side.usage_report(request.site, request.conversation, request.limit)

        async def narrate(request: Narrate) -> Narrated:
            return Narrated(text=await self._side.narrate(request.site, request.facts))

        async def measure(request: MeasureIntelligence) -> Measured:
            found = self._measurements.since(request.since_ns)
            shadow = None if self._shadow is None else self._shadow.since(request.since_ns)
            return msgspec.structs.replace(found, oldest_unanswered_s=self._understanding.oldest_s, shadow=shadow)

        about_prompts: Sequence[Answer] = [(GetPrompts, prompts), *PromptCommands(self.prompting).answers()]
        if self._other_side is not None:
            about_prompts = self._other_side.answers(about_prompts, self._processes)
        compared = digest_answer(self._database)
        asked: list[Answer] = [(MeasureIntelligence, measure), self._side.concluding(self._database, self._clock)]
        if self._rpc is not None:
            understanding, own = self._understanding, self._ownership
            self._corrections = Corrections(understanding, self._store, own, self._clock, self._rpc)
            asked.append(self._corrections.answer(self._database))
        erasing = erasing_answer(self._database, self._forget)
        return [*asked, (GetUsage, usage), (Narrate, narrate), compared, erasing, *about_prompts]

    def _forget(self, scope: Scope) -> None:
        """Forget what this process has in memory of what is erased."""
        self._side.cache.forget()
        self._understanding.erase(scope)
        if self._corrections is not None:
            self._corrections.erase(scope)
        if self._shadow is not None:
            self._shadow.erase(scope)

    @classmethod
    def stored_answers(cls, database: Database, pack: SitePack, clock: Clock) -> Sequence[Answer]:
        """Return what can be answered on a database that no server has open: all about prompts but evaluating."""
        cls.migrate_tables(database)
        stored: list[Answer] = [digest_answer(database), erasing_answer(database)]
        return [*stored, *PromptCommands(Prompting(database, pack, clock)).answers()]

    @classmethod
    def erasing(cls, database: Database) -> Sequence[Answer]:
        """Return what is answered about erasure on a database that no intelligence has open now."""
        cls.migrate_tables(database)
        return [erasing_answer(database)]

    @staticmethod
    def exported() -> ModuleTables:
        """Return the tables that go with an export."""
        return EXPORTED

    def _live_status(self) -> InstanceStatus:
        return InstanceStatus(classifier=self.health(), budget=msgspec.to_builtins(self._budget))

    # -- its life ---------------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        self.migrate_tables(self._database)
        self._side.restore()

    async def learn(self) -> None:
        """Read what was copied into the database, while it is written to. Raises `StorageError`."""
        await self._side.usage.learn()

    @staticmethod
    def migrate_tables(database: Database) -> None:
        migrate(database.engine, "intelligence", MIGRATIONS)

    async def run(self) -> None:
        """Work until cancelled."""
        overlap = OVERLAP if self._model else 1
        await self.prompting.start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._side.run(), name="intelligence:side")
            if self._other_side is not None:
                tasks.create_task(self._other_side.run(self._processes), name="intelligence:other_side")
            if self._model is not None:
                tasks.create_task(self.prompting.run(), name="intelligence:prompts")
                tasks.create_task(self._model.run(self._settings.renew_minutes), name="intelligence:model")
            if self._shadow is not None:
                tasks.create_task(self._shadow.run(), name="intelligence:shadow")
            group = self._ownership.group(GROUP)
            await self._bus.subscribe(TRANSCRIPTS, group, self._understanding.handle, overlap=overlap)

    async def _follow(self, found: Sequence[InsightsFound]) -> None:
        """Remember what the other side has found, and compare it."""
        if self._shadow is not None:
            for each in found:
                self._shadow.served(each)
        await self._store.follow(found, self._understanding.owed(found))

    def drain(self) -> None:
        """Begin nothing that nobody waits for, and be done soon with the rest."""
        self._side.drain()
        if self._model is not None:
            self._model.renewal.stop()

    def leave(self) -> None:
        """As `drain`, where another process goes on: begin nothing more, whoever waits for it."""
        self.drain()
        self._understanding.leave()

    @property
    def busy(self) -> bool:
        """Whether utterances are in hand."""
        return self._understanding.in_hand > 0

    async def purge(self, before_ns: int) -> None:
        await self._store.purge(before_ns)
        await self._side.purge(before_ns)

    async def aclose(self) -> None:
        """Write what is left. May be called again."""
        await self._side.aclose()
        if isinstance(self._local, LocalClassifier):
            await self._local.aclose()
        if self._shared is not None:
            await self._shared.aclose()
        await self._ownership.aclose()
        if self._model is not None:
            await self._model.language_model.aclose()


def share_stand(redis_url: str) -> SharedStand:
    """By what processes agree, in that Valkey. Raises `ConfigurationError`."""
    from quickcomm.intelligence.adapters.shared_breaker import RedisStand  # noqa: PLC0415 - where there is no Valkey

    return RedisStand(redis_url)


def build_classifier(pack: SitePack, cache: Path) -> Classifier:
    """The local classifier of a pack; learns it at the first start (seconds). Raises `ConfigurationError`."""
    return build_local_classifier(pack, cache)


def build_model(settings: LlmSettings) -> LanguageModel | None:
    """The language model that the settings name, if they do; takes a second. Raises `ConfigurationError`."""
    return OpenAiModel(settings) if settings.url else None


def describe_models(store: ModelStore) -> list[ModelReport]:
    """Which embedding model would be used, where from, and whether it is the published one."""
    return [store.describe(MINILM)]


__all__ = [
    "Classifier",
    "Evaluation",
    "Examined",
    "Heard",
    "Intelligence",
    "IntelligenceSettings",
    "LanguageModel",
    "LlmSettings",
    "ModelState",
    "Peers",
    "Prompting",
    "SharedStand",
    "SideSettings",
    "SideWork",
    "StoredPrompt",
    "build_classifier",
    "build_model",
    "describe_models",
    "labelled_set",
    "share_stand",
    "take_over",
]
