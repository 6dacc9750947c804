"""Consumes transcripts, has them classified, publishes insights: once an utterance, come what may, in the order spoken.

Several batches may be in hand at once, because a language model takes its time. What is published of a conversation
waits for what was said before in it; conversations do not wait for each other.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import msgspec
import structlog

from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.intelligence.ports import Classifier, Heard, OpensTask, Owed, ResultStore
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, BusyError, UnavailableError
from quickcomm.kernel.messaging.bus import Delivery, RejectedError
from quickcomm.kernel.telemetry import Detail, origin_of, tracing

CONTEXT_UTTERANCES: Final = 3
MAX_CHANNELS: Final = 2_000
MAX_CONTEXTS: Final = 20_000
MAX_OTHERS: Final = 5_000
"""Utterances of the other side that are remembered until their insights come."""
NS_PER_MS: Final = 1_000_000
AGAIN_S: Final = 1.0
CERTAIN_WORD: Final = 0.5
"""How sure the engine must be of a word of danger in a text that it is not sure of."""
_decoder = msgspec.json.Decoder(UtteranceTranscribed)
_Key = tuple[str, str]
T = TypeVar("T")

log = structlog.get_logger(__name__)


class _Work(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance in hand: published after `before`, and `done` when it is."""

    message: UtteranceTranscribed
    heard: Heard
    before: asyncio.Event
    done: asyncio.Event

    @property
    def key(self) -> _Key:
        return (self.message.site, self.message.utterance_id)


class Understanding:
    def __init__(
        self,
        classifier: Classifier,
        store: ResultStore,
        clock: Clock,
        opens_task: OpensTask,
        *,
        alone: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        ownership: Ownership | None = None,
    ) -> None:
        """`alone`: whether the classifier takes so long that each utterance is published when it is ready.

        `ownership`: where another side may have a conversation; its utterances are only remembered, for context.
        """
        self._ownership = ownership or Ownership()
        self._others: OrderedDict[_Key, Heard] = OrderedDict()
        self._classifier = classifier
        self._store = store
        self._clock = clock
        self._opens_task = opens_task
        self._alone = alone
        self._sleep = sleep
        self._held_up: dict[object, str] = {}
        """Who waits for the store, and why."""
        self._context = Context()
        self._last: dict[_Key, asyncio.Event] = {}
        self._leaving = False
        self._arrived: dict[object, int] = {}
        """When each batch came that is being handled, in ns."""
        self.on_answer: Callable[[InsightsFound], None] = lambda _found: None
        """Called with each answer once it is stored."""
        self.on_read: Callable[[int], None] = lambda _utterances: None
        """Called with the number of utterances of each batch, whichever side answers them."""
        self.on_other: Callable[[Heard], None] = lambda _heard: None
        """Called with each utterance that the other side answers. Never blocks."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be published now, while somebody waits for it."""
        return next(iter(self._held_up.values()), None)

    @property
    def in_hand(self) -> int:
        """Return the number of batches that are being handled."""
        return len(self._arrived)

    @property
    def oldest_s(self) -> float:
        """Return for how long the oldest batch has been in hand; 0 where none is."""
        oldest_ns = min(self._arrived.values(), default=None)
        return 0.0 if oldest_ns is None else (self._clock.now_ns() - oldest_ns) / 1e9

    def leave(self) -> None:
        """Begin nothing more: what is delivered from now on goes to another process when this one ends."""
        self._leaving = True

    async def handle(self, batch: Sequence[Delivery]) -> None:
        """A batch of transcripts in the order spoken. Raises `RejectedError` for what is none."""
        if self._leaving:
            await asyncio.Event().wait()  # until it is cancelled
        self.on_read(len(batch))
        arrived, batch_in_hand = self._clock.now_ns(), object()
        self._arrived[batch_in_hand] = arrived
        # Up to the first `await` batches come one after the other, so that their utterances line up in order.
        work: list[_Work] = []
        try:
            work, again = self._take(batch)
            known = await self._patiently(lambda: self._known(again)) if again else set()
            erased = await self._patiently(lambda: self._store.erased([item.key for item in work])) if work else set()
            if erased:
                work = self._without(erased, work)
                known |= erased
            answer = self._each if self._alone() else self._together
            await answer(work, known, arrived)
        finally:
            del self._arrived[batch_in_hand]
            for item in work:
                self._settled(item)
        self._context.forget([item.key for item in work])

    def owed(self, found: Sequence[InsightsFound]) -> list[Owed]:
        """Return those that the other side has found in the model's place, with what it takes to renew them."""
        heard = [(each, self._others.get((each.site, each.utterance_id))) for each in found]
        return [
            Owed(found=each, heard=_with_text(text, each))
            for each, text in heard
            if text is not None and any(insight.degraded for insight in each.insights)
        ]

    async def again(self, found: InsightsFound, heard: Heard, revision: int) -> tuple[InsightsFound, Owed | None]:
        """Return the insights of another text of the same utterance, and what of them is to be renewed.

        `found`: those that they come after, whose times and receipt they keep.
        """
        [answer] = await self._classifier.classify([heard])
        insights = tuple(msgspec.structs.replace(insight, revision=revision) for insight in answer)
        renewed = msgspec.structs.replace(
            found,
            revision=revision,
            insights=insights,
            opens_tasks=opened(insights, self._opens_task),
            published_ns=self._clock.now_ns(),
            text=heard.text,
        )
        is_owed = any(insight.degraded for insight in insights)
        return renewed, Owed(found=renewed, heard=heard) if is_owed else None

    def correct(self, site: str, utterance_id: str, text: str) -> None:
        """Have a corrected text be the context of what is said next."""
        self._context.correct(site, utterance_id, text)

    def erase(self, scope: Scope) -> None:
        """Forget the words of what was erased, which are the context of what is said next."""
        for key in [key for key in self._others if scope.has(*key)]:
            del self._others[key]
        for key, heard in self._others.items():
            self._others[key] = _alone(heard)
        self._context.erase(scope)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _take(self, batch: Sequence[Delivery]) -> tuple[list[_Work], list[_Work]]:
        """Return what this side answers, in order; and what of that may have been handled before."""
        work, again = [], []
        for message, delivery in [(_decode(delivery), delivery) for delivery in batch]:
            if not self._ownership.answers(message):
                self._others[message.site, message.utterance_id] = heard = self._heard(message)
                _trim(self._others, MAX_OTHERS)
                self.on_other(heard)
                continue
            work.append(self._line_up(message))
            if not delivery.fresh:
                again.append(work[-1])
        return work, again

    def _without(self, erased: set[_Key], work: Sequence[_Work]) -> list[_Work]:
        """Forget words that were erased, also where they are the context of what came with them."""
        for site, name in erased:
            self.erase(Scope(site=site, utterances=(name,)))
        return [msgspec.structs.replace(item, heard=_alone(item.heard)) for item in work]

    async def _known(self, work: Sequence[_Work]) -> set[_Key]:
        return await self._store.known([item.key for item in work], [item.message.owner_epoch for item in work])

    def _line_up(self, message: UtteranceTranscribed) -> _Work:
        conversation = (message.site, message.conversation_id)
        done = asyncio.Event()
        before = self._last.get(conversation)
        self._last[conversation] = done
        if before is None:
            before = asyncio.Event()
            before.set()
        return _Work(message=message, heard=self._heard(message), before=before, done=done)

    def _heard(self, message: UtteranceTranscribed) -> Heard:
        return Heard(
            text=message.text,
            channel=message.channel,
            context=self._context.of(message),
            site=message.site,
            conversation_id=message.conversation_id,
            utterance_id=message.utterance_id,
            doubtful=message.status != "ok",
            certain=tuple(word.text for word in message.words if word.confidence >= CERTAIN_WORD),
        )

    def _settled(self, item: _Work) -> None:
        item.done.set()
        conversation = (item.message.site, item.message.conversation_id)
        if self._last.get(conversation) is item.done:
            del self._last[conversation]

    async def _together(self, work: Sequence[_Work], known: set[_Key], arrived_ns: int) -> None:
        """One call and one transaction for all: a fast classifier is faster still that way."""
        fresh = [item for item in work if item.key not in known]
        if not fresh:
            return
        answers = await self._classifier.classify([item.heard for item in fresh])
        own = {item.done for item in work}
        for item in work:
            if item.before not in own:
                await item.before.wait()
        await self._publish(fresh, answers, arrived_ns)

    async def _each(self, work: Sequence[_Work], known: set[_Key], arrived_ns: int) -> None:
        """Each by itself; one that fails is no hindrance to the others."""
        failures: list[Exception] = []

        async def understand(item: _Work) -> None:
            try:
                answers = [] if item.key in known else await self._classifier.classify([item.heard])
                await item.before.wait()
                if answers:
                    await self._publish([item], answers, arrived_ns)
            except Exception as error:  # noqa: BLE001 - raised below, once the others are done
                failures.append(error)
            finally:
                self._settled(item)

        async with asyncio.TaskGroup() as tasks:
            for item in work:
                tasks.create_task(understand(item), name="understand")
        if failures:
            raise failures[0]

    async def _publish(self, work: Sequence[_Work], answers: Sequence[tuple[Insight, ...]], arrived_ns: int) -> None:
        now = self._clock.now_ns()
        found = [
            self._found(item.message, insights, arrived_ns, now) for item, insights in zip(work, answers, strict=True)
        ]
        owed = [
            Owed(found=each, heard=item.heard)
            for item, each in zip(work, found, strict=True)
            if any(insight.degraded for insight in each.insights)
        ]
        await self._patiently(lambda: self._store.publish(found, owed))
        for each in found:
            self.on_answer(each)
        if tracing().on:
            self._trace(work, found, now)
        log.debug("insights.published", utterances=len(found))

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """While the store is away everybody keeps their place: who failed would be overtaken by what was said later."""
        me = object()
        try:
            while True:
                try:
                    return await call()
                except (BusyError, UnavailableError) as error:
                    if not self._held_up:
                        log.warning("understanding.waits", error=str(error))
                    self._held_up[me] = str(error)
                await self._sleep(AGAIN_S)
        finally:
            self._held_up.pop(me, None)

    def _trace(self, work: Sequence[_Work], found: Sequence[InsightsFound], began_ns: int) -> None:
        """Its time is part of the way to the next module: the message cannot say when it was itself committed."""
        end_ns = self._clock.now_ns()
        for item, each in zip(work, found, strict=True):
            commit = Detail(
                name="insights.commit",
                module="intelligence",
                stage="store",
                start_ns=began_ns,
                end_ns=end_ns,
                attributes={"messaging.destination.name": INSIGHTS, "messaging.operation.type": "send"},
                kind="producer",
            )
            tracing().detail(each.site, each.utterance_id, commit)
            tracing().passed_on(origin_of(item.message), each.latency)

    def _found(
        self, message: UtteranceTranscribed, insights: tuple[Insight, ...], arrived_ns: int, now_ns: int
    ) -> InsightsFound:
        latency = msgspec.structs.replace(
            message.latency,
            queue=_ms(arrived_ns - message.published_ns),
            classify=_ms(now_ns - arrived_ns),
        )
        return InsightsFound(
            site=message.site,
            conversation_id=message.conversation_id,
            utterance_id=message.utterance_id,
            revision=max(insight.revision for insight in insights),
            insights=insights,
            opens_tasks=opened(insights, self._opens_task),
            speech_ended_ns=message.speech_ended_ns,
            published_ns=now_ns,
            latency=latency,
            owner=message.owner,
            owner_epoch=message.owner_epoch,
            traceparent=tracing().onward(message.site, message.utterance_id, message.traceparent),
        )


class Context:
    """What was said on each channel before an utterance. Whoever comes again gets what he got before."""

    def __init__(self) -> None:
        self._said: OrderedDict[_Key, deque[tuple[str, str]]] = OrderedDict()
        self._given: OrderedDict[_Key, tuple[str, ...]] = OrderedDict()

    def of(self, message: UtteranceTranscribed) -> tuple[str, ...]:
        key = (message.site, message.utterance_id)
        if key in self._given:
            return self._given[key]
        channel = (message.site, message.channel)
        said = self._said.setdefault(channel, deque(maxlen=CONTEXT_UTTERANCES))
        self._said.move_to_end(channel)
        context = tuple(text for identifier, text in said if identifier != message.utterance_id)
        if message.status == "ok" and all(identifier != message.utterance_id for identifier, _ in said):
            said.append((message.utterance_id, message.text))
        self._given[key] = context
        _trim(self._said, MAX_CHANNELS)
        _trim(self._given, MAX_CONTEXTS)
        return context

    def correct(self, site: str, utterance_id: str, text: str) -> None:
        for (where, _), said in self._said.items():
            for at, (identifier, _) in enumerate(said if where == site else ()):
                if identifier == utterance_id:
                    said[at] = (identifier, text)

    def erase(self, scope: Scope) -> None:
        for (site, _), said in self._said.items():
            for each in [each for each in said if scope.has(site, each[0])]:
                said.remove(each)
        self._given.clear()

    def forget(self, utterances: Sequence[_Key]) -> None:
        """They are published: they do not come again."""
        for key in utterances:
            self._given.pop(key, None)


def _with_text(heard: Heard, found: InsightsFound) -> Heard:
    """Return an utterance with the text that its insights are of: a person may have corrected it."""
    if found.text is msgspec.UNSET:
        return heard
    return msgspec.structs.replace(heard, text=found.text, doubtful=False, certain=())


def _alone(heard: Heard) -> Heard:
    """Return an utterance without what was said before it."""
    return msgspec.structs.replace(heard, context=())


def opened(insights: Sequence[Insight], opens_task: OpensTask) -> tuple[int, ...]:
    """Indexes of the insights that call for somebody to act."""
    return tuple(insight.index for insight in insights if opens_task(insight.intent))


def _trim(entries: OrderedDict[_Key, T], limit: int) -> None:
    while len(entries) > limit:
        entries.popitem(last=False)


def _decode(delivery: Delivery) -> UtteranceTranscribed:
    try:
        return _decoder.decode(delivery.payload)
    except MALFORMED as error:
        raise RejectedError(f"Not an UtteranceTranscribed message: {error}") from error


def _ms(nanoseconds: int) -> float:
    return round(max(0, nanoseconds) / NS_PER_MS, 2)
