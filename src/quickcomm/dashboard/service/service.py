"""Consumes the streams, commits projections in batches, pushes what changed and writes the latency receipts."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec
import structlog

from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.decisions import DECISIONS, Decision
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.link import FIRST, Committed
from quickcomm.contracts.reading import Reader, reader
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.dashboard.declaration import DECIDERS, GROUP
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.model.projections import latency_of, own_latency
from quickcomm.dashboard.model.records import Closing, ConversationRecord, UtteranceRecord
from quickcomm.dashboard.model.views import Task, card_view, conversation_view, task_view
from quickcomm.dashboard.ports import Applied, DecisionLog, Live, OnReceipt, State, Store
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.deciding import DecidedHere, Deciding, DecidingInLog, fold, matching_again, settling
from quickcomm.dashboard.service.projector import Projector
from quickcomm.dashboard.service.receipts import Receipts
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.messaging.bus import Bus, Delivery, Handler, RejectedError
from quickcomm.kernel.telemetry import Budget, Detail, Over, origin_of, tracing
from quickcomm.kernel.telemetry.live import LiveStages
from quickcomm.kernel.telemetry.side import side_here

PURGE_BATCH: Final = 200
FOLDED_EVERY_S: Final = 0.02
FOLDED_LOOKS: Final = 50

Consumer = tuple[str, str, Handler]
"""Stream, group, handler."""

M = TypeVar("M", UtteranceTranscribed, InsightsFound, ConversationChanged, ConversationSummarized, Decision)
T = TypeVar("T")
U = TypeVar("U", UtteranceTranscribed, InsightsFound)
log = structlog.get_logger(__name__)


class DashboardService:
    def __init__(
        self,
        store: Store,
        live: Live,
        clock: Clock,
        on_receipt: OnReceipt,
        stages: LiveStages | None = None,
        closing_confidence: float = CLOSING_CONFIDENCE,
        decisions: DecisionLog | None = None,
        standing: Standing = Standing(),  # noqa: B008 - without state of its own
    ) -> None:
        """`decisions`: where decisions are made durable; None: in the store, with what they change.

        `standing`: among the dashboards of the site.
        """
        self.stages = stages or LiveStages(clock, Budget)
        self._store = store
        self._live = live
        self._clock = clock
        self._on_receipt = on_receipt
        self._deciding: Deciding = (
            DecidedHere(store, clock, closing_confidence)
            if decisions is None
            else DecidingInLog(store, clock, closing_confidence, decisions, standing)
        )
        self._standing = standing
        self._receipts = Receipts(store)
        self.measured: Callable[[str, float], None] = lambda _stage, _ms: None
        """Called with each stage of this module and its milliseconds."""
        self.read: Callable[[int], None] = lambda _utterances: None
        """Called with the number of utterances that were folded for the first time."""
        self._running = 0
        self._in_hand = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def ready(self) -> bool:
        """Whether the streams are being consumed."""
        return self._running > 0

    async def run(self, bus: Bus) -> None:
        """Consume until cancelled."""
        folds = self._standing.group(GROUP)
        consumers: list[Consumer] = [
            (TRANSCRIPTS, folds, self._consumer(UtteranceTranscribed, Projector.transcript)),
            (INSIGHTS, folds, self._consumer(InsightsFound, Projector.insights)),
            (CONVERSATIONS, folds, self._consumer(ConversationChanged, Projector.conversation)),
            (SUMMARIES, folds, self._consumer(ConversationSummarized, Projector.summary)),
        ]
        in_log = isinstance(self._deciding, DecidingInLog)
        if in_log:
            consumers.append((DECISIONS, folds, self._consumer(Decision, Projector.decision)))
        self._running += 1
        try:
            async with asyncio.TaskGroup() as group:
                _subscribe(group, bus, consumers)
                if in_log:
                    group.create_task(self._decide_in_turn(bus), name="dashboard:decide")
                group.create_task(self._receipts.run(), name="dashboard:receipts")
        finally:
            self._running -= 1

    async def _decide_in_turn(self, bus: Bus) -> None:
        """Decide what follows from messages while this side has the lease; the group goes on with the other one."""
        consumers: list[Consumer] = [
            (TRANSCRIPTS, DECIDERS, self._decider(UtteranceTranscribed, Projector.transcript)),
            (INSIGHTS, DECIDERS, self._decider(InsightsFound, Projector.insights)),
        ]
        changed = asyncio.Event()

        async def look() -> None:
            changed.set()

        self._standing.routes.on_change(look)
        while True:
            changed.clear()
            deciding = self._standing.decides
            async with asyncio.TaskGroup() as group:
                tasks = _subscribe(group, bus, consumers if deciding else ())
                while self._standing.decides == deciding:
                    await changed.wait()
                    changed.clear()
                for task in tasks:
                    task.cancel()

    async def drain(self) -> None:
        """Wait until what is in hand is committed and pushed, and store the receipts."""
        await self._idle.wait()
        await self._receipts.flush()

    async def store_receipts(self) -> None:
        """Those that were stamped and reported so far."""
        await self._receipts.flush()

    async def edit_task(self, site: str, task_id: str, edit: Edit) -> Task:
        """Raises what `Commands.edit_task` does, and `NotDecidingError` where the other side has the lease."""
        return task_view(await self._deciding.decide(lambda decider: decider.edit(site, task_id, edit), self._push))

    async def decide(self, work: Callable[[Decider], T]) -> T:
        """Raises what `work` does, and `NotDecidingError` where the other side has the lease."""
        return await self._deciding.decide(work, self._push)

    @property
    def decides(self) -> bool:
        """Return True if decisions about this site are made on this side."""
        return self._standing.decides

    @property
    def decides_in_transactions(self) -> bool:
        """Return True where a decision is a transaction of this database, and of nothing else."""
        return isinstance(self._deciding, DecidedHere)

    def decide_within(self, state: State, work: Callable[[Decider], T]) -> tuple[T, Callable[[], None]]:
        """Decide in a transaction that is there already; return what is to be called once it is committed, too."""
        assert isinstance(self._deciding, DecidedHere), "asked before"  # noqa: S101 - a programming error
        result, applied = self._deciding.within(state, work)
        return result, lambda: self._push(applied)

    async def until_folded(self, site: str, task: Task) -> None:
        """Wait a moment for a decision that was made elsewhere: who made it will look at the task here."""
        for _ in range(FOLDED_LOOKS):
            known = await self._store.transact(lambda state: state.task(site, task.task_id))
            if known is not None and known.version >= task.version:
                return
            await self._clock.sleep(FOLDED_EVERY_S)

    async def match_again(self, closings: Sequence[Closing]) -> None:
        """Match closings with tasks that were said before them and have come since."""
        await self._deciding.decide(matching_again(closings), self._push)

    def painted(self, site: str, utterance_id: str, painted_ms: float) -> None:
        self._receipts.painted(site, utterance_id, painted_ms)
        self.stages.painted(painted_ms)
        tracing().painted(site, utterance_id, painted_ms)

    async def purge(self, before_ns: int) -> int:
        """Delete what ended before; in small transactions, so that nobody waits for it."""
        total = 0
        while True:
            purged = await self._store.transact(lambda state: state.purge(before_ns, PURGE_BATCH))
            total += purged
            if purged == 0:
                return total

    def _consumer(self, kind: type[M], apply: Callable[[Projector, M], None]) -> Handler:
        decoder = reader(kind)

        async def handle(batch: Sequence[Delivery]) -> None:
            messages = [_decode(decoder, delivery) for delivery in batch]
            with self._hold():
                show = partial(self._push, received_ns=self._clock.now_ns())
                await self._deciding.folded(fold(messages, apply), show, _utterances(messages))

        return handle

    def _decider(self, kind: type[U], apply: Callable[[Projector, U], None]) -> Handler:
        """Decide what follows from messages, whether or not they are folded already."""
        decoder = reader(kind)

        async def handle(batch: Sequence[Delivery]) -> None:
            messages = [_decode(decoder, delivery) for delivery in batch]
            with self._hold():
                work, show = settling(_utterances(messages)), partial(self._push, received_ns=self._clock.now_ns())
                await self._deciding.decide(work, show, fold(messages, apply))

        return handle

    async def committed(self, finals: Sequence[Committed]) -> None:
        """Utterances that came past the streams: applied where what went before is known, else left to the stream."""
        show = partial(self._push, received_ns=self._clock.now_ns())

        def work(projector: Projector) -> None:
            for final in finals:
                if final.after == FIRST or projector.knows(final.message.site, final.after):
                    projector.transcript(final.message)

        with self._hold():
            await self._deciding.folded(work, show)

    @contextlib.contextmanager
    def _hold(self) -> Iterator[None]:
        """Something is in hand: a drain waits for it."""
        self._in_hand += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_hand -= 1
            if self._in_hand == 0:
                self._idle.set()

    def _push(self, applied: Applied, received_ns: int | None = None) -> None:
        committed_ns = self._clock.now_ns()
        for card, tasks in applied.cards:
            record = self._with_receipt(card)
            stamped = self._stamp(record, received_ns, committed_ns)
            copies = applied.copies.get((record.site, record.utterance_id), [])
            self._live.card(record.site, card_view(stamped, tasks, copies))
            if stamped is not record:
                self._on_receipt(record.site, record.conversation_id, record.utterance_id, latency_of(stamped))
        for task, change in applied.tasks:
            self._live.task(task.site, task_view(task), change)
        for conversation in applied.conversations:
            self._live.conversation(conversation.site, conversation_view(conversation))
            if conversation.ended_ns is not None:
                tracing().conversation(_over(conversation, conversation.ended_ns))
        for seen in applied.again:
            record = self._with_receipt(seen)
            stamped = self._stamp(record, received_ns, committed_ns)
            if stamped is not record:
                self._on_receipt(record.site, record.conversation_id, record.utterance_id, latency_of(stamped))

    def _with_receipt(self, record: UtteranceRecord) -> UtteranceRecord:
        """A card that changes again at once keeps its receipt, though that is not stored yet."""
        receipt = self._receipts.known(record.site, record.utterance_id)
        if receipt is None or record.receipt.total is not None:
            return record
        return msgspec.structs.replace(record, receipt=receipt)

    def _stamp(self, record: UtteranceRecord, received_ns: int | None, committed_ns: int) -> UtteranceRecord:
        """Finish the receipt, once an utterance: `store` since it was published, `push` since the commit."""
        heard, found = record.heard, record.found
        if heard is None or found is None or record.receipt.total is not None or received_ns is None:
            return record
        now = self._clock.now_ns()
        published = max(found.published_ns, heard.published_ns)
        since = published if 0 < published <= received_ns else received_ns
        side = side_here()
        receipt = Latency(
            store=_ms(committed_ns - since),
            push=_ms(now - committed_ns),
            total=_ms(now - heard.speech_ended_ns),
            sides=msgspec.UNSET if side is None else {"dashboard": side},
        )
        self._receipts.stamped(record.site, record.utterance_id, receipt)
        self.read(1)
        stamped = msgspec.structs.replace(record, receipt=receipt)
        for stage, ms in (("store", receipt.store), ("push", receipt.push)):
            self.measured(stage, ms or 0.0)
        latency = own_latency(stamped)
        self.stages.observe(latency)
        if tracing().on:
            commit = Detail(
                name="store.commit", module="dashboard", stage="store", start_ns=received_ns, end_ns=committed_ns
            )
            tracing().detail(record.site, record.utterance_id, commit)
            tracing().finished(origin_of(heard), latency, parent=found.traceparent)
        return stamped


def _subscribe(group: asyncio.TaskGroup, bus: Bus, consumers: Iterable[Consumer]) -> list[asyncio.Task[None]]:
    return [
        group.create_task(bus.subscribe(stream, name, handler), name=f"{name}:{stream}")
        for stream, name, handler in consumers
    ]


def _decode(decoder: Reader[M], delivery: Delivery) -> M:
    try:
        return decoder.decode(delivery.payload)
    except MALFORMED as error:
        raise RejectedError(f"Message {delivery.message_id} of {delivery.stream} cannot be read: {error}") from error


def _utterances(messages: Iterable[object]) -> list[tuple[str, str]]:
    about = (message for message in messages if isinstance(message, UtteranceTranscribed | InsightsFound))
    return list(dict.fromkeys((message.site, message.utterance_id) for message in about))


def _over(record: ConversationRecord, ended_ns: int) -> Over:
    return Over(
        site=record.site,
        conversation_id=record.conversation_id,
        channel=record.channel,
        started_ns=record.started_ns,
        ended_ns=ended_ns,
        state=record.state,
    )


def _ms(ns: int) -> float:
    return round(max(ns, 0) / 1e6, 3)
