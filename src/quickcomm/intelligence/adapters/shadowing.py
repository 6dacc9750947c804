"""A second pipeline of understanding for the shadow: the same objects, without effects outside of it.

It asks the same model with the same prompts, but has a circuit breaker, a limit, a cache and metrics of its own. So
nothing of it reaches what is served: no breaker opens for others, no answer is found in the cache, no bill is counted.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from quickcomm.intelligence.adapters.breaker import CircuitBreaker
from quickcomm.intelligence.adapters.sql_usage import SqlUsage
from quickcomm.intelligence.model.concurrency import Limit
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.model.usage import Spent
from quickcomm.intelligence.ports import Cached, Classifier, ModelAnswer
from quickcomm.intelligence.service.doubting import Doubting
from quickcomm.intelligence.service.fallback import Fallback
from quickcomm.intelligence.service.guard import Guard
from quickcomm.intelligence.service.limiter import Limiter
from quickcomm.intelligence.service.llm import LlmClassifier, Parts
from quickcomm.intelligence.service.metrics import Metrics
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.shadow import ANSWER_WITHIN_S, Shadow
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.site_pack import SitePack

SHARE_OF_MODEL: Final = 0.25
SHARE_OF_LOCAL: Final = 1.0
"""The local classifier costs some milliseconds of a processor."""
CACHED: Final = 2_000
Spend = Callable[[int, int, float], None]


class Metered:
    """Implements `Usage`: counts what `usage` counts, and tells the tokens and the cost of each call."""

    def __init__(self, usage: SqlUsage, spent: Spend) -> None:
        self._usage = usage
        self._spent = spent

    @property
    def exhausted(self) -> bool:
        return self._usage.exhausted

    def record(self, site: str, conversation_id: str, answer: ModelAnswer) -> None:
        self._usage.record(site, conversation_id, answer)
        self._spent(answer.prompt_tokens, answer.completion_tokens, self._usage.cost_of(answer))


class ShadowUsage:
    """Implements `Usage` for calls of a shadow: counted apart, and within what the day's cap leaves."""

    def __init__(self, usage: SqlUsage) -> None:
        self._usage = usage
        self._today = Spent()
        self._day = ""
        self.on_spent: Spend = lambda _prompt, _completion, _cost: None
        """Told of each call."""

    @property
    def exhausted(self) -> bool:
        self._turn()
        return not self._usage.leaves(self._today)

    def record(self, site: str, conversation_id: str, answer: ModelAnswer) -> None:
        del site, conversation_id  # it is in no conversation's bill
        self._turn()
        price = self._usage.price_of(answer)
        self._today += price
        self.on_spent(price.prompt_tokens, price.completion_tokens, price.cost)

    def _turn(self) -> None:
        if self._day != (day := self._usage.today().day):
            self._day, self._today = day, Spent()


class MemoryCache:
    """Implements `AnswerCache` for as long as the process lives; the least recently used go first."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, Cached] = OrderedDict()

    async def get(self, key: bytes) -> Cached | None:
        if key in self._answers:
            self._answers.move_to_end(key)
        return self._answers.get(key)

    async def put(self, key: bytes, answer: Cached) -> None:
        self._answers[key] = answer
        while len(self._answers) > CACHED:
            self._answers.popitem(last=False)


def shadow_local(
    local: Classifier, pack: SitePack, clock: Clock, ownership: Ownership, share: float | None, busy: Callable[[], bool]
) -> Shadow:
    """Return a shadow that asks no model, and only while nothing else is in hand: they share a processor."""
    share = SHARE_OF_LOCAL if share is None else share
    return Shadow(Doubting(local, local, pack), clock, ownership, pack.opens_task, share, busy=busy)


def shadow_model(
    parts: Parts,
    usage: SqlUsage,
    local: Classifier,
    pack: SitePack,
    clock: Clock,
    settings: LlmSettings,
    ownership: Ownership,
    share: float | None,
) -> Shadow:
    """Return a shadow that asks the model of `parts`, one call at a time."""
    metrics, own_usage = Metrics(None), ShadowUsage(usage)
    fenced = msgspec.structs.replace(parts, usage=own_usage, cache=MemoryCache(), metrics=metrics, traced=False)
    guard = Guard(CircuitBreaker(), clock, settings.budget_s, metrics)
    limiter = Limiter(Limit(1, 1, 1), clock, metrics)
    llm = LlmClassifier(fenced, limiter, guard, clock, msgspec.structs.replace(settings, hedge_after_s=0.0))
    shadow = Shadow(
        Doubting(Fallback(llm, local, guard, clock, settings.budget_s, metrics), local, pack),
        clock,
        ownership,
        pack.opens_task,
        SHARE_OF_MODEL if share is None else share,
        exhausted=lambda: own_usage.exhausted,
        within_s=max(ANSWER_WITHIN_S, 2 * settings.budget_s),
    )
    shadow.watch = lambda: guard.watch(llm.probe)
    own_usage.on_spent = shadow.bill.add
    return shadow
