"""A classifier that always answers: the language model where it can, the local classifier where it cannot.

The local classifier is asked where the model fails, and where rules alone cannot judge what the model claims: it takes
milliseconds, but of all there is here it costs the most. Feeds `Understanding`; what it marks as degraded is owed a
renewal.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.ports import Classifier, Heard, ModelError
from quickcomm.intelligence.service import metrics
from quickcomm.intelligence.service.guard import Guard, ModelState
from quickcomm.intelligence.service.llm import LlmClassifier
from quickcomm.kernel.clock import Clock

OPINIONS: Final = 4_096
EXHAUSTED: Final = (
    "Today's budget for the language model is used up; answers come from the local classifier until it is raised "
    "or the day is over."
)
Insights = tuple[Insight, ...]

log = structlog.get_logger(__name__)


class Fallback:
    """A `Classifier`."""

    def __init__(self, llm: LlmClassifier, local: Classifier, guard: Guard, clock: Clock, budget_s: float) -> None:
        self._llm = llm
        self._local = local
        self._guard = guard
        self._clock = clock
        self._budget_s = budget_s
        self._opinions: OrderedDict[Heard, Insights] = OrderedDict()
        self._exhausted_since: int | None = None

    @property
    def model(self) -> str:
        return self._llm.model if self.available else self._local.model

    @property
    def available(self) -> bool:
        """Whether utterances go to the model now."""
        return self._guard.available and not self._llm.exhausted

    @property
    def well(self) -> bool:
        """Whether there is nothing against asking it what nobody waits for."""
        return self._guard.well and not self._llm.exhausted

    @property
    def state(self) -> ModelState:
        if not self._llm.exhausted:
            self._exhausted_since = None
            return self._guard.state
        self._exhausted_since = self._exhausted_since or self._clock.now_ns()
        return ModelState(state="degraded", since_ns=self._exhausted_since, why=EXHAUSTED)

    async def classify(self, heard: Sequence[Heard]) -> list[Insights]:
        deadline = self._clock.monotonic() + self._budget_s
        if not self.available:
            await self.opinions(heard)  # together, which is cheaper; they are remembered
        async with asyncio.TaskGroup() as tasks:
            found = [tasks.create_task(self._one(one, deadline), name="llm:utterance") for one in heard]
        return [task.result() for task in found]

    async def opinion(self, heard: Heard) -> Insights:
        [opinion] = await self.opinions([heard])
        return opinion

    async def opinions(self, heard: Sequence[Heard]) -> list[Insights]:
        """What the local classifier says; of what is said again and again it is asked once."""
        keys = [Heard(text=one.text, channel=one.channel, context=one.context) for one in heard]
        known = {key: self._opinions[key] for key in keys if key in self._opinions}
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new:
            known |= zip(new, await self._local.classify(new), strict=True)
        for key in keys:
            self._opinions[key] = known[key]
            self._opinions.move_to_end(key)
        while len(self._opinions) > OPINIONS:
            self._opinions.popitem(last=False)
        return [known[key] for key in keys]

    async def _one(self, heard: Heard, deadline: float) -> Insights:
        if not heard.text.strip():
            return await self.opinion(heard)  # a model knows no more about nothing
        local = partial(self.opinion, heard)
        try:
            if self.available:
                insights: Insights | None = await self._llm.answer(heard, local, deadline=deadline)
            else:
                insights = await self._llm.remembered(heard, local)
        except ModelError as error:
            log.info("llm.failed", utterance_id=heard.utterance_id, code=error.code, reason=str(error))
            insights = None
        except Exception as error:
            # Come what may, the utterance is answered. Without the error's text: it may be what somebody said.
            log.warning("llm.broken", utterance_id=heard.utterance_id, error=type(error).__name__)
            log.debug("llm.broken_at", exc_info=True)
            insights = None
        metrics.INSIGHTS.labels("degraded" if insights is None else "llm").inc()
        if insights is not None:
            return insights
        return tuple(msgspec.structs.replace(insight, degraded=True) for insight in await local())
