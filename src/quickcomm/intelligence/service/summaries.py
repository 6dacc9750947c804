"""Keeps a short summary of every conversation: remembers what is said, and renews the text when there is a pause."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import structlog
from prometheus_client import Counter

from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.insight import Source
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.reading import Reader, reader
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.intelligence.declaration import SUMMARIES_GROUP
from quickcomm.intelligence.model.summary_text import INSTRUCTIONS, SCHEMA, local_summary, model_input, usable
from quickcomm.intelligence.model.talk import NS, SummarySettings, Talk, adopted, due_ns, ended, found, heard
from quickcomm.intelligence.ports import ChatMessage, ModelRequest, TalkChange, TalkStore
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.side_questions import SideQuestions
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, QuickCommError
from quickcomm.kernel.messaging.bus import Bus, Delivery, Handler, RejectedError
from quickcomm.kernel.messaging.rpc import NotOwnerError

TICK_S: Final = 1.0
AT_ONCE: Final = 20
LINGER_S: Final = 2.0
FORGET_AFTER_NS: Final = 2 * 86_400 * NS
"""How long an ended conversation is remembered: its insights may still be renewed."""
FORGET_EVERY_TICKS: Final = 3_600
MAX_TOKENS: Final = 200
POSTPONED_NS: Final = 60 * NS
"""A summary that the other side has to write is looked at again after so long: the conversation may have come here."""

WRITTEN = Counter("quickcomm_summaries_total", "Summaries of conversations", ["source"])
REFUSED = Counter("quickcomm_summaries_refused_total", "Summaries of the model that nothing said supports")

M = TypeVar("M", UtteranceTranscribed, InsightsFound, ConversationChanged, ConversationSummarized)
Follow = Callable[[Sequence[InsightsFound]], Awaitable[None]]
"""Takes note of insights that the other side has found."""
_transcripts: Final = reader(UtteranceTranscribed)
_insights: Final = reader(InsightsFound)
_conversations: Final = reader(ConversationChanged)
_summaries: Final = reader(ConversationSummarized)
log = structlog.get_logger(__name__)


class Summaries:
    def __init__(
        self,
        store: TalkStore,
        questions: SideQuestions,
        clock: Clock,
        settings: SummarySettings,
        ownership: Ownership | None = None,
    ) -> None:
        """`follow` is to be set by whoever takes note of the other side's insights."""
        self.follow: Follow | None = None
        self._ownership = ownership or Ownership()
        self._store = store
        self._questions = questions
        self._clock = clock
        self._settings = settings
        self._hurry = asyncio.Event()
        self._draining = False

    def drain(self) -> None:
        """From now on, handle at once what comes."""
        self._draining = True
        self._hurry.set()

    def hurry(self) -> None:
        """Handle at once what has come: an operation waits for the last summary of a conversation."""
        if not self._hurry.is_set():
            self._hurry.set()
            asyncio.get_running_loop().call_later(LINGER_S, self._linger)

    async def conclude(self, site: str, conversation_id: str, last_seq: int) -> None:
        """Have the model write the last summary, where there is one and it knows all that was said.

        Raises `NotOwnerError` where the other side answers the conversation.
        """
        self.hurry()
        talk = await self._store.find(site, conversation_id)
        if talk is None:
            return
        if not self._ownership.has(site, conversation_id, talk.channel):
            raise NotOwnerError("The other side answers this conversation.")
        if talk.last_seq >= last_seq and talk.covered != talk.changes and self._questions.available:
            await self._write(talk, self._clock.now_ns())

    async def run(self, bus: Bus) -> None:
        """Consume and write until cancelled."""
        handlers = {TRANSCRIPTS: self.transcripts, INSIGHTS: self.insights, CONVERSATIONS: self.conversations}
        if self._ownership.moves:
            handlers[SUMMARIES] = self.summaries
        name = self._ownership.group(SUMMARIES_GROUP)
        async with asyncio.TaskGroup() as group:
            for stream, handler in handlers.items():
                group.create_task(bus.subscribe(stream, name, self._lingering(handler)), name=f"summaries:{stream}")
            group.create_task(self._renew_forever(), name="summaries:renew")

    async def transcripts(self, batch: Sequence[Delivery]) -> None:
        now = self._clock.now_ns()

        def change(message: UtteranceTranscribed) -> TalkChange:
            blank = Talk(site=message.site, conversation_id=message.conversation_id, channel=message.channel)
            return lambda talk: heard(talk or blank, message, self._settings, now)

        await self._apply(batch, _transcripts, change)

    async def insights(self, batch: Sequence[Delivery]) -> None:
        """What comes before its transcript is kept, too; the channel is then told by the transcript."""
        now = self._clock.now_ns()

        def change(message: InsightsFound) -> TalkChange:
            blank = Talk(site=message.site, conversation_id=message.conversation_id, channel="")
            return lambda talk: found(talk or blank, message, now)

        messages = await self._apply(batch, _insights, change)
        others = [each for each in messages if each.owner != self._ownership.side]
        if others and self.follow is not None:
            await self.follow(others)

    async def conversations(self, batch: Sequence[Delivery]) -> None:
        """An end that comes before what was said is kept, too: who catches up reads the streams side by side."""
        now = self._clock.now_ns()

        def change(message: ConversationChanged) -> TalkChange:
            over = message.state in ("ended", "expired")
            blank = Talk(site=message.site, conversation_id=message.conversation_id, channel=message.channel)
            return lambda talk: ended(talk or blank, now) if over else talk

        await self._apply(batch, _conversations, change)

    async def summaries(self, batch: Sequence[Delivery]) -> None:
        """Go on from what the other side has written."""

        def change(message: ConversationSummarized) -> TalkChange:
            return lambda talk: talk and adopted(talk, message)

        await self._apply(batch, _summaries, change)

    async def renew(self) -> int:
        """Write the summaries that are due, and this side's; how many were due."""
        now = self._clock.now_ns()
        due = await self._store.due(now, AT_ONCE)
        mine = [talk for talk in due if self._ownership.has(talk.site, talk.conversation_id, talk.channel)]
        if len(mine) < len(due):
            await self._store.postpone([talk for talk in due if talk not in mine], now + POSTPONED_NS)
        async with asyncio.TaskGroup() as group:
            for talk in mine:
                group.create_task(self._write(talk, now), name="summaries:write")
        return len(due)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _linger(self) -> None:
        if not self._draining:
            self._hurry.clear()

    def _lingering(self, handler: Handler) -> Handler:
        """Nobody waits for this: what comes within a moment is handled together, for the price of one."""

        async def handle(batch: Sequence[Delivery]) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    await self._hurry.wait()
            await handler(batch)

        return handle

    async def _renew_forever(self) -> None:
        ticks = 0
        while True:
            try:
                if ticks % FORGET_EVERY_TICKS == 0:
                    await self._store.forget(self._clock.now_ns() - FORGET_AFTER_NS)
                while await self.renew() == AT_ONCE:
                    pass
            except* QuickCommError as errors:
                log.warning("summaries.failed", error=str(errors.exceptions[0]))
            ticks += 1
            await asyncio.sleep(TICK_S)

    async def _apply(self, batch: Sequence[Delivery], read: Reader[M], change: Callable[[M], TalkChange]) -> list[M]:
        messages = [_decode(delivery, read) for delivery in batch]
        changes = [((message.site, message.conversation_id), change(message)) for message in messages]
        await self._store.apply(changes, list(map(_about, messages)))
        return messages

    async def _write(self, talk: Talk, now_ns: int) -> None:
        text = await self._ask(talk, now_ns)
        source: Source = "llm" if text is not None else "local"
        try:
            published = await self._store.publish(talk, text or local_summary(talk), source, self._clock.now_ns())
        except QuickCommError:
            with contextlib.suppress(QuickCommError):
                await self._store.release(talk)
            raise
        if published:
            WRITTEN.labels(source).inc()

    async def _ask(self, talk: Talk, now_ns: int) -> str | None:
        since = due_ns(talk, self._settings)
        late = since is not None and now_ns - since > self._settings.late_s * NS
        if late or not self._settings.by_model or not talk.lines or not self._questions.available:
            return None
        messages = (
            ChatMessage(role="system", content=INSTRUCTIONS),
            ChatMessage(role="user", content=model_input(talk)),
        )
        request = ModelRequest(messages=messages, schema=SCHEMA, schema_name="summary", max_tokens=MAX_TOKENS)
        answer = await self._questions.ask(request, talk.site, talk.conversation_id)
        text = None if answer is None else usable(answer, talk)
        if answer is not None and text is None:
            REFUSED.inc()
        return text


def _about(message: object) -> tuple[str, int]:
    """Return the utterance that a message is about, or when a summary was made."""
    if isinstance(message, UtteranceTranscribed | InsightsFound):
        return message.utterance_id, 0
    return "", message.at_ns if isinstance(message, ConversationSummarized) else 0


def _decode(delivery: Delivery, read: Reader[M]) -> M:
    try:
        return read.decode(delivery.payload)
    except MALFORMED as error:
        raise RejectedError(f"Message {delivery.message_id} of {delivery.stream} cannot be read: {error}") from error
