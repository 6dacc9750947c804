"""Makes good what was answered in the model's place: once it is back, degraded insights are classified again.

Takes only the places that live utterances leave. A renewal is the next revision of the same insights: it keeps the
times and the receipt of the first, since that is when the card was there.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.intelligence.ports import Debts, OpensTask, Owed, ResultStore
from quickcomm.intelligence.service import metrics
from quickcomm.intelligence.service.fallback import Fallback
from quickcomm.intelligence.service.limiter import NoPlaceError
from quickcomm.intelligence.service.llm import LlmClassifier
from quickcomm.intelligence.service.understanding import opened
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError

BATCH: Final = 64
ATTEMPTS: Final = 3
"""After so many the local answer stands: the model has nothing usable to say of that utterance."""
LOOK_EVERY_S: Final = 1.0
TIDY_EVERY_S: Final = 30.0
PLACE_WAIT_S: Final = 60.0
NS_PER_MINUTE: Final = 60 * 1_000_000_000

log = structlog.get_logger(__name__)


class Renewal:
    def __init__(
        self,
        llm: LlmClassifier,
        fallback: Fallback,
        debts: Debts,
        store: ResultStore,
        clock: Clock,
        opens_task: OpensTask,
    ) -> None:
        self._llm = llm
        self._fallback = fallback
        self._debts = debts
        self._store = store
        self._clock = clock
        self._opens_task = opens_task
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._stopped = False

    def stop(self) -> None:
        """Begin no more; what is left is owed after the restart."""
        self._stopped = True

    async def run(self, minutes: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Renew what is younger than `minutes` and give up what is older, until stopped or cancelled."""
        tidied = -math.inf
        while not self._stopped:
            since_ns = self._clock.now_ns() - int(minutes * NS_PER_MINUTE)
            renewed = 0
            try:
                if self._clock.monotonic() - tidied >= TIDY_EVERY_S:
                    metrics.RENEWED.labels("given_up").inc(await self._debts.forget_before(since_ns))
                    tidied = self._clock.monotonic()
                if self._fallback.available:
                    renewed = await self.renew(since_ns)
            except QuickCommError as error:
                log.warning("llm.renewal_failed", error=str(error))
            if not renewed:
                await sleep(LOOK_EVERY_S)

    async def renew(self, since_ns: int) -> int:
        """The oldest of them, as many as make a batch; how many were renewed."""
        owed = await self._debts.oldest(BATCH, since_ns)
        if not owed:
            self._attempts.clear()
            return 0
        opinions = await self._fallback.opinions([item.heard for item in owed])
        async with asyncio.TaskGroup() as tasks:
            work = [
                tasks.create_task(self._one(item, opinion), name="llm:renew")
                for item, opinion in zip(owed, opinions, strict=True)
            ]
        renewed = sum(task.result() for task in work)
        log.info("llm.renewed", utterances=renewed, of=len(owed))
        return renewed

    async def _one(self, item: Owed, opinion: tuple[Insight, ...]) -> bool:
        if self._stopped or not self._fallback.available:
            return False
        deadline = self._clock.monotonic() + PLACE_WAIT_S
        try:
            insights = await self._llm.answer(item.heard, opinion, deadline=deadline, spare=True)
        except NoPlaceError:
            return False
        except Exception as error:  # noqa: BLE001 - of one utterance; the others go on
            log.debug("llm.renewal_refused", utterance_id=item.heard.utterance_id, error=type(error).__name__)
            if self._fallback.available:
                await self._failed(item)
            return False
        try:
            await self._store.publish([self._renewed(item.found, insights)])
        except QuickCommError as error:
            log.warning("llm.renewal_failed", error=str(error))
            return False
        metrics.RENEWED.labels("renewed").inc()
        return True

    def _renewed(self, found: InsightsFound, insights: tuple[Insight, ...]) -> InsightsFound:
        revision = found.revision + 1
        return msgspec.structs.replace(
            found,
            revision=revision,
            insights=tuple(msgspec.structs.replace(insight, revision=revision) for insight in insights),
            opens_tasks=opened(insights, self._opens_task),
        )

    async def _failed(self, item: Owed) -> None:
        """Its own fault, or so it seems: the model answers others."""
        key = (item.found.site, item.found.utterance_id)
        self._attempts[key] += 1
        if self._attempts[key] >= ATTEMPTS:
            del self._attempts[key]
            metrics.RENEWED.labels("given_up").inc()
            with contextlib.suppress(QuickCommError):  # then it is tried again
                await self._debts.forget(item)
