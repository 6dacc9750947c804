"""A language model with everything around it: limit, breaker, fallback, renewal; and how prompts are tried on it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.adapters.breaker import CircuitBreaker
from quickcomm.intelligence.adapters.side_work import SideWork
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.model.concurrency import Limit
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.ports import Classifier, Draft, Heard, ModelAnswer, OpensTask, SharedStand
from quickcomm.intelligence.service.agreement import Agreement
from quickcomm.intelligence.service.fallback import Fallback
from quickcomm.intelligence.service.guard import Guard
from quickcomm.intelligence.service.limiter import Limiter
from quickcomm.intelligence.service.llm import LlmClassifier, Mask, Parts
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.prompt_evaluation import Examined
from quickcomm.intelligence.service.renewal import Renewal
from quickcomm.kernel.clock import Clock

INITIAL_CONCURRENCY: Final = 16
EVALUATION_SITE: Final = "main"


class AskedModel:
    """Everything around a language model, put together."""

    def __init__(
        self,
        parts: Parts,
        local: Classifier,
        results: SqlResults,
        clock: Clock,
        opens_task: OpensTask,
        settings: LlmSettings,
        ownership: Ownership,
    ) -> None:
        self.language_model = parts.model
        self._limiter = Limiter(Limit(settings.min_concurrency, settings.max_concurrency, INITIAL_CONCURRENCY), clock)
        self._guard = Guard(CircuitBreaker(), clock, settings.budget_s)
        self._llm = LlmClassifier(parts, self._limiter, self._guard, clock, settings)
        self.fallback = Fallback(self._llm, local, self._guard, clock, settings.budget_s)
        self.renewal = Renewal(self._llm, self.fallback, results, results, clock, opens_task, ownership)
        self._agreement: Agreement | None = None

    def agree(self, shared: SharedStand) -> None:
        """From now on, have one stand with others."""
        self._agreement = Agreement(self._guard, shared)

    def status(self) -> dict[str, Any]:
        return {"model": self.language_model.model, "concurrency_limit": self._limiter.limit}

    async def run(self, renew_minutes: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            if self._agreement is not None:
                tasks.create_task(self._agreement.run(), name="llm:agreement")
            tasks.create_task(self._guard.watch(self._llm.probe), name="llm:watch")
            tasks.create_task(self.renewal.run(renew_minutes), name="llm:renewal")


def mask_of_people() -> Mask:
    """Return what hides names of people from a language model."""
    from quickcomm.intelligence.model.masking import mask  # noqa: PLC0415 - its tables take a quarter of a second

    return mask


def examined_by(parts: Parts, local: Classifier, side: SideWork) -> Examined:
    """Return how prompts are tried: as utterances are answered, masked on the way out and held against the text."""

    def spent(answer: ModelAnswer) -> float:
        side.usage.record(EVALUATION_SITE, "", answer)
        return side.usage.cost_of(answer)

    def prepare(heard: Heard) -> Heard:
        masked = parts.mask(heard.text, heard.context)
        return msgspec.structs.replace(heard, text=masked.text, context=masked.context)

    async def finish(drafts: tuple[Draft, ...], heard: Heard) -> Sequence[Draft | Insight]:
        [opinion] = await local.classify([heard])
        return parts.grounding.ground(drafts, heard, opinion) or opinion

    return Examined(model=parts.model, spent=spent, prepare=prepare, finish=finish)
