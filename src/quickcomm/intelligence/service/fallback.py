"""A classifier that always answers: the language model where it can, the local classifier where it cannot.

The local classifier is asked where the model fails, and where rules alone cannot judge what the model claims: it takes
milliseconds, but of all there is here it costs the most. Feeds `Understanding`; what it marks as degraded is owed a
renewal.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.ports import Classifier, Heard, ModelError
from quickcomm.intelligence.service.guard import STAGE, Guard, ModelState
from quickcomm.intelligence.service.llm import LlmClassifier
from quickcomm.intelligence.service.metrics import SERVED, Metrics
from quickcomm.kernel.clock import Clock

OPINIONS: Final = 4_096
EXHAUSTED: Final = (
    f"{STAGE}Today's budget for the language model is used up; answers come from the local classifier until it is "
    "raised or the day is over."
)
BEHIND: Final = (
    f"{STAGE}Most answers come from the local classifier: the language model is too slow for what is said now, or its "
    "answers cannot be used. They will be renewed."
)
RECENT_S: Final = 30.0
RECENT: Final = 100
ENOUGH: Final = 10
"""Of so many utterances in `RECENT_S` most must have gone without the model before that is said."""
Insights = tuple[Insight, ...]

log = structlog.get_logger(__name__)


class Fallback:
    """A `Classifier`."""

    def __init__(
        self,
        llm: LlmClassifier,
        local: Classifier,
        guard: Guard,
        clock: Clock,
        budget_s: float,
        metrics: Metrics = SERVED,
    ) -> None:
        self._metrics = metrics
        self._llm = llm
        self._local = local
        self._guard = guard
        self._clock = clock
        self._budget_s = budget_s
        self._opinions: OrderedDict[Heard, Insights] = OrderedDict()
        self._recent: deque[tuple[float, bool]] = deque(maxlen=RECENT)
        self._trouble: ModelState | None = None

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
        why = EXHAUSTED if self._llm.exhausted else BEHIND if self._guard.available and self._behind() else None
        if why is None:
            self._trouble = None
            return self._guard.state
        if self._trouble is None or self._trouble.why != why:
            self._trouble = ModelState(state="degraded", since_ns=self._clock.now_ns(), why=why)
        return self._trouble

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

    def renewed(self) -> None:
        """One that was degraded has its answer now."""
        self._recent.append((self._clock.monotonic(), False))

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

    def _behind(self) -> bool:
        since = max(self._clock.monotonic() - RECENT_S, self._guard.changed_at)
        recent = [degraded for at, degraded in self._recent if at > since]
        return len(recent) >= ENOUGH and sum(recent) * 2 > len(recent)

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
            log.info("llm.failed", site=heard.site, utterance_id=heard.utterance_id, code=error.code)
            insights = None
        except Exception as error:
            # Come what may, the utterance is answered. Without the error's text: it may be what somebody said.
            log.warning("llm.broken", site=heard.site, utterance_id=heard.utterance_id, error=type(error).__name__)
            log.debug("llm.broken_at", exc_info=True)
            insights = None
        self._recent.append((self._clock.monotonic(), insights is None))
        self._metrics.insights.labels("degraded" if insights is None else "llm").inc()
        if insights is not None:
            return insights
        return tuple(msgspec.structs.replace(insight, degraded=True) for insight in await local())
