"""Makes good what was answered in the model's place: once it is back, degraded insights are classified again.

Takes only the places that live utterances leave. A renewal is the next revision of the same insights: it keeps the
times and the receipt of the first, since that is when the card was there.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NamedTuple

import msgspec
import structlog

from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.intelligence.ports import Debts, ModelBusyError, OpensTask, Owed, ResultStore
from quickcomm.intelligence.service import metrics
from quickcomm.intelligence.service.fallback import Fallback
from quickcomm.intelligence.service.llm import LlmClassifier
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.understanding import opened
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError

BATCH: Final = 64
ATTEMPTS: Final = 5
"""After so many the local answer stands: the model has nothing usable to say of that utterance."""
FIRST_PAUSE_S: Final = 2.0
SLOWDOWN: Final = 4.0
LOOK_EVERY_S: Final = 1.0
TIDY_EVERY_S: Final = 30.0
PLACE_WAIT_S: Final = 60.0
NS_PER_MINUTE: Final = 60 * 1_000_000_000

_Key = tuple[str, str]
log = structlog.get_logger(__name__)


class _Failed(NamedTuple):
    attempts: int
    not_before: float


class Renewal:
    def __init__(
        self,
        llm: LlmClassifier,
        fallback: Fallback,
        debts: Debts,
        store: ResultStore,
        clock: Clock,
        opens_task: OpensTask,
        ownership: Ownership | None = None,
    ) -> None:
        self._ownership = ownership or Ownership()
        self._llm = llm
        self._fallback = fallback
        self._debts = debts
        self._store = store
        self._clock = clock
        self._opens_task = opens_task
        self._failed: dict[_Key, _Failed] = {}
        self._up_since_ns = 0
        self._stopped = False

    def stop(self) -> None:
        """Begin no more; what is left is owed after the restart."""
        self._stopped = True

    async def run(self, minutes: float, sleep: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Renew what is younger than `minutes` and give up what is older, until stopped or cancelled."""
        tidied = -math.inf
        while not self._stopped:
            since_ns = self._clock.now_ns() - int(minutes * NS_PER_MINUTE)
            renewed = 0
            try:
                if self._clock.monotonic() - tidied >= TIDY_EVERY_S:
                    metrics.RENEWED.labels("given_up").inc(await self._debts.forget_before(since_ns))
                    tidied = self._clock.monotonic()
                renewed = await self.renew(since_ns)
            except QuickCommError as error:
                log.warning("llm.renewal_failed", error=str(error))
            if not renewed:
                await (sleep or self._clock.sleep)(LOOK_EVERY_S)

    async def renew(self, since_ns: int) -> int:
        """The oldest of them, as many as make a batch; how many were renewed."""
        if not self._fallback.well:
            return 0
        if self._up_since_ns != self._fallback.state.since_ns:
            self._up_since_ns = self._fallback.state.since_ns
            self._failed.clear()  # what failed then may have failed with all the others
        owed = await self._due(since_ns)
        if not owed:
            return 0
        async with asyncio.TaskGroup() as tasks:
            work = [tasks.create_task(self._one(item), name="llm:renew") for item in owed]
        await self._debts.release([item for item, task in zip(owed, work, strict=True) if not task.result()])
        renewed = sum(task.result() for task in work)
        log.info("llm.renewed", utterances=renewed, of=len(owed))
        return renewed

    async def _due(self, since_ns: int) -> list[Owed]:
        owed, mine = await self._oldest(BATCH + len(self._failed), since_ns)
        if not owed:
            self._failed.clear()
        now = self._clock.monotonic()
        waits = {key for key, failed in self._failed.items() if failed.not_before > now}
        due = [item for item in mine if _key(item) not in waits][:BATCH]
        taken = set(map(_key, due))
        await self._debts.release([item for item in owed if _key(item) not in taken])
        return due

    async def _oldest(self, limit: int, since_ns: int) -> tuple[list[Owed], list[Owed]]:
        """Return the oldest ones, and those of them that this side has to renew: up to `limit` of these."""
        found: dict[_Key, Owed] = {}
        while True:
            more = await self._debts.oldest(limit + len(found), since_ns)
            before = len(found)
            found |= {_key(item): item for item in more}
            mine = [item for item in found.values() if self._has(item)]
            if len(mine) >= limit or len(found) == before or not self._ownership.moves:
                return list(found.values()), mine[:limit]

    def _has(self, item: Owed) -> bool:
        return self._ownership.has(item.found.site, item.found.conversation_id, item.heard.channel)

    async def _one(self, item: Owed) -> bool:
        if self._stopped or not self._fallback.well:
            return False
        deadline = self._clock.monotonic() + PLACE_WAIT_S
        local = partial(self._fallback.opinion, item.heard)
        try:
            insights = await self._llm.answer(item.heard, local, deadline=deadline, spare=True)
        except ModelBusyError:
            return False
        except Exception as error:  # noqa: BLE001 - of one utterance; the others go on
            whose = {"site": item.heard.site, "utterance_id": item.heard.utterance_id}
            log.debug("llm.renewal_refused", **whose, error=type(error).__name__)
            if self._fallback.available:
                await self._try_later(item)
            return False
        try:
            epoch = await self._ownership.epoch(item.found.site, item.found.conversation_id)
            if epoch is None:
                return False
            await self._store.publish([self._renewed(item.found, insights, epoch)])
        except QuickCommError as error:
            log.warning("llm.renewal_failed", error=str(error))
            return False
        self._fallback.renewed()
        metrics.RENEWED.labels("renewed").inc()
        return True

    def _renewed(self, found: InsightsFound, insights: tuple[Insight, ...], epoch: int) -> InsightsFound:
        revision = found.revision + 1
        return msgspec.structs.replace(
            found,
            revision=revision,
            insights=tuple(msgspec.structs.replace(insight, revision=revision) for insight in insights),
            opens_tasks=opened(insights, self._opens_task),
            owner=self._ownership.side if self._ownership.moves else found.owner,
            owner_epoch=max(epoch, found.owner_epoch),
        )

    async def _try_later(self, item: Owed) -> None:
        """Its own fault, or so it seems: the model is there."""
        key = _key(item)
        attempts = self._failed[key].attempts + 1 if key in self._failed else 1
        pause_s = FIRST_PAUSE_S * SLOWDOWN ** (attempts - 1)
        self._failed[key] = _Failed(attempts, self._clock.monotonic() + pause_s)
        if attempts >= ATTEMPTS:
            with contextlib.suppress(QuickCommError):  # then it is tried again
                await self._debts.forget(item)
                metrics.RENEWED.labels("given_up").inc()
                del self._failed[key]


def _key(item: Owed) -> _Key:
    return (item.found.site, item.found.utterance_id)
