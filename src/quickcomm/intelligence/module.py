"""The public face of intelligence: build it, run it, drain it, close it."""

import asyncio
from pathlib import Path
from typing import Any, Final

from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.intelligence.adapters.breaker import CircuitBreaker
from quickcomm.intelligence.adapters.embedding import MINILM
from quickcomm.intelligence.adapters.local import build_local_classifier
from quickcomm.intelligence.adapters.openai_model import OpenAiModel
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS, SqlResults
from quickcomm.intelligence.model.concurrency import Limit
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.ports import Classifier, Heard, LanguageModel, OpensTask
from quickcomm.intelligence.service import plain
from quickcomm.intelligence.service.fallback import Fallback
from quickcomm.intelligence.service.guard import Guard, ModelState
from quickcomm.intelligence.service.limiter import Limiter
from quickcomm.intelligence.service.llm import LlmClassifier, Parts
from quickcomm.intelligence.service.renewal import Renewal
from quickcomm.intelligence.adapters.prompting import Prompting, labelled_set
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS, SqlResults
from quickcomm.intelligence.ports import Classifier, Heard, OpensTask, StoredPrompt
from quickcomm.intelligence.service.prompt_evaluation import Evaluation, Examined
from quickcomm.intelligence.service.understanding import Understanding
from quickcomm.kernel.bus import Bus
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.model_files import ModelReport, ModelStore
from quickcomm.kernel.site_pack import SitePack
from quickcomm.kernel.storage import Database, migrate

GROUP: Final = "intelligence"
OVERLAP: Final = 64
"""Batches of a partition in hand at once, where a model is asked."""
INITIAL_CONCURRENCY: Final = 16
OFF: Final = "No language model is connected; the local classifier answers."


class Intelligence:
    def __init__(
        self,
        *,
        database: Database,
        bus: Bus,
        clock: Clock,
        classifier: Classifier,
        opens_task: OpensTask,
        llm: Parts | None = None,
        settings: LlmSettings = LlmSettings(),  # noqa: B008 - frozen
    ) -> None:
        """`classifier`: the local one. `llm`: the language model and what it is asked with; None: there is none."""
        self._database = database
        self._bus = bus
        self._local = classifier
        self._store = SqlResults(database)
        self._started_ns = clock.now_ns()
        self._settings = settings
        self._model = None
        if llm is None:
            self._understanding = Understanding(classifier, self._store, clock, opens_task)
        else:
            self._model = _Model(llm, classifier, self._store, clock, opens_task, settings)
            fallback = self._model.fallback
            self._understanding = Understanding(
                fallback, self._store, clock, opens_task, alone=lambda: fallback.available
            )

    @property
    def state(self) -> ModelState:
        """How it is with the language model, in words for operators."""
        if self._model is None:
            return ModelState(state="off", since_ns=self._started_ns, why=OFF)
        return self._model.fallback.state

    @property
    def classifier(self) -> str:
        """Who answers now, by name."""
        return self._local.model if self._model is None else self._model.fallback.model

    @property
    def catch_up_s(self) -> float:
        """How long what is in hand may take."""
        return self._settings.budget_s if self._model else 0.0

    def status(self) -> dict[str, Any]:
        """For `quickcomm status --json`."""
        state = self.state
        told: dict[str, Any] = {"state": state.state, "why": state.why}
        return told if self._model is None else told | self._model.status()

    def migrate(self) -> None:
        self.migrate_tables(self._database)

    @staticmethod
    def migrate_tables(database: Database) -> None:
        migrate(database.engine, "intelligence", MIGRATIONS)

    async def run(self) -> None:
        """Work until cancelled."""
        overlap = OVERLAP if self._model else 1
        async with asyncio.TaskGroup() as tasks:
            if self._model is not None:
                tasks.create_task(self._model.run(self._settings.renew_minutes), name="intelligence:model")
            await self._bus.subscribe(TRANSCRIPTS, GROUP, self._understanding.handle, overlap=overlap)

    def drain(self) -> None:
        """Begin nothing that nobody waits for."""
        if self._model is not None:
            self._model.renewal.stop()

    async def purge(self, before_ns: int) -> None:
        await self._store.purge(before_ns)

    async def aclose(self) -> None:
        """May be called again."""
        if self._model is not None:
            await self._model.language_model.aclose()


class _Model:
    """Everything around a language model, put together."""

    def __init__(
        self,
        parts: Parts,
        local: Classifier,
        results: SqlResults,
        clock: Clock,
        opens_task: OpensTask,
        settings: LlmSettings,
    ) -> None:
        self.language_model = parts.model
        self._limiter = Limiter(Limit(settings.min_concurrency, settings.max_concurrency, INITIAL_CONCURRENCY), clock)
        self._guard = Guard(CircuitBreaker(), clock, settings.budget_s)
        self._llm = LlmClassifier(parts, self._limiter, self._guard, clock, settings)
        self.fallback = Fallback(self._llm, local, self._guard, clock, settings.budget_s)
        self.renewal = Renewal(self._llm, self.fallback, results, results, clock, opens_task)

    def status(self) -> dict[str, Any]:
        return {"model": self.language_model.model, "concurrency_limit": self._limiter.limit}

    async def run(self, renew_minutes: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._guard.watch(self._llm.probe), name="llm:watch")
            tasks.create_task(self.renewal.run(renew_minutes), name="llm:renewal")


def build_classifier(pack: SitePack, cache: Path) -> Classifier:
    """The local classifier of a pack; learns it at the first start (seconds). Raises `ConfigurationError`."""
    return build_local_classifier(pack, cache)


def build_model(settings: LlmSettings) -> LanguageModel | None:
    """The language model that the settings name, if they do; takes a second. Raises `ConfigurationError`."""
    return OpenAiModel(settings) if settings.url else None


def build_parts(model: LanguageModel, pack: SitePack, clock: Clock) -> Parts:
    """What a language model is asked with."""
    return Parts(
        model=model,
        prompts=plain.OnePrompt(plain.PlainPrompt(pack)),
        grounding=plain.PlainGrounding(pack),
        cache=plain.MemoryCache(clock),
        usage=plain.Uncapped(),
        mask=plain.Unmasked,
    )


def describe_models(store: ModelStore) -> list[ModelReport]:
    """Which embedding model would be used, where from, and whether it is the published one."""
    return [store.describe(MINILM)]


__all__ = [
    "Classifier",
    "Heard",
    "Intelligence",
    "LanguageModel",
    "LlmSettings",
    "ModelState",
    "build_classifier",
    "build_model",
    "build_parts",
    "describe_models",
    "Evaluation",
    "Examined",
    "Heard",
    "Intelligence",
    "Prompting",
    "StoredPrompt",
    "build_classifier",
    "describe_models",
    "labelled_set",
]
