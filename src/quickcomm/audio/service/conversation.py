"""One live conversation: sound in, utterances out in order, acks when everything before them is durable."""

import asyncio
from typing import Final

import msgspec
import structlog

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import decode
from quickcomm.audio.model.state import FINAL, LISTENING, Event, State, advance
from quickcomm.audio.model.track import Track
from quickcomm.audio.model.twins import Twins
from quickcomm.audio.ports import FencedError, Progress, RecordingError, Stored
from quickcomm.audio.service.account import Account
from quickcomm.audio.service.arrivals import Arrivals
from quickcomm.audio.service.due import ReceiptsDue
from quickcomm.audio.service.lateness import Lateness
from quickcomm.audio.service.listener import Listener, Tools
from quickcomm.audio.service.outlet import Outlet, Recent
from quickcomm.audio.service.pace import Pace
from quickcomm.audio.service.traced import trace_published
from quickcomm.audio.service.utterance import Finished, transcribed
from quickcomm.audio.service.voice import Voice
from quickcomm.contracts.audio_socket import (
    DurableEvent,
    Ended,
    Insights,
    Late,
    Receipt,
    Reconnect,
    ServerEvent,
)
from quickcomm.contracts.captions import Behind
from quickcomm.contracts.conversations import ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.link import FIRST
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.errors import InvalidInputError, QuickCommError
from quickcomm.kernel.telemetry import tracing

RETRY_S: Final = 1.0
SAMPLE_BYTES: Final = 2
LEAST_S: Final = 30
"""What each client may be ahead however much the process holds: enough for the longest utterance to come to its end."""
log = structlog.get_logger(__name__)


class Conversation:
    def __init__(self, stored: Stored, token_digest: bytes, tools: Tools) -> None:
        self.site = stored.site
        self.id = stored.conversation_id
        self.channel = stored.channel
        self.format = stored.format
        self.token_digest = token_digest
        self._window = stored.format.sample_rate * tools.settings.max_unacked_ms // 1000
        self._least = stored.format.sample_rate * LEAST_S
        self._held = 0
        self.state = State.CONNECTING
        self._tools = tools
        self._recent = Recent()
        self._last_seq = stored.last_seq
        self._published: str | None = None
        """The utterance before the next one, where this process has published it."""
        self._outlet: Outlet | None = None
        self._unanswered = dict.fromkeys(stored.unanswered, 0)
        """Utterances whose insights are not in the log yet: a place in the log behind which they will be."""
        self._due = ReceiptsDue(tools.clock)
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ending = False
        self._expiring = False
        self._flushed = False
        self._released = False
        self._pace = Pace(tools.clock)
        self._twins = Twins(stored.format.sample_rate, stored.format.speakers)
        self.last_sound = tools.clock.monotonic()
        self.interrupted_since: float | None = None
        settings = tools.settings.segmenter
        self._voices = [
            Voice(Track(speaker, stored.format, settings, checkpoint), checkpoint, ledger)
            for speaker, (checkpoint, ledger) in enumerate(zip(stored.checkpoints, stored.ledgers, strict=True))
        ]
        self._next_offset = self._received()
        origin_ns = stored.checkpoints[0].origin_ns
        self._arrivals = Arrivals(stored.format.sample_rate, tools.clock.now_ns(), self.next_offset, origin_ns)
        self.account = Account(stored, self._voices)
        self._listener = Listener(self, self._voices, self._arrivals, tools, self._news, self._note)
        self._lateness = Lateness()
        if stored.state in {"ended", "expired"}:
            self.state = State(stored.state)
            return
        try:
            for voice in self._voices:
                voice.lane = tools.front_end.attach(voice.track, self._listener.hear, self.give_up)
        except QuickCommError:
            self.release()
            raise

    # -- connection -------------------------------------------------------------------------------------------------

    @property
    def key(self) -> tuple[str, str]:
        return self.site, self.id

    @property
    def connected(self) -> bool:
        return self._outlet is not None

    @property
    def finished(self) -> bool:
        return self.state in FINAL

    @property
    def ending(self) -> bool:
        """The client has said everything, and what it said is on its way."""
        return self._ending and not self.finished

    @property
    def next_offset(self) -> int:
        """Where the client is, or has to go on: what comes from there."""
        return self._next_offset

    @property
    def last_seq(self) -> int:
        """The seq of the newest durable event."""
        return self._last_seq

    @property
    def acked(self) -> int:
        """Everything before it is durable."""
        return self.account.acked if self.finished else self._on_grid(self.account.acked)

    @property
    def voiced_s(self) -> float:
        """Seconds of speech since the last text came out (for the watchdog)."""
        return self._listener.voiced_s

    @property
    def speaking(self) -> int:
        """How many of its speakers speak just now."""
        return sum(not voice.track.idle for voice in self._voices)

    @property
    def behind(self) -> bool:
        """Whether something that came is not heard yet, or has no text: then it is we who keep the client waiting."""
        return bool(self._listener.pending) or not self._listener.all_heard

    @property
    def behind_s(self) -> float:
        """How long the oldest words wait that have no text yet."""
        return self._listener.behind_s

    @property
    def told_behind(self) -> bool:
        """Whether the last word was that it is behind."""
        return self._lateness.told

    @property
    def too_late(self) -> bool:
        """Whether that is beyond the bound."""
        return self._listener.too_late

    @property
    def same_tracks(self) -> bool:
        """Whether two speakers' tracks carry the same sound."""
        return self._twins.same

    @property
    def released(self) -> bool:
        """Nothing will come of it here any more; it may be opened again from the store."""
        return self._released

    def serves(self, outlet: Outlet) -> bool:
        """Whether this is the connection that counts: what another one still sends would be heard twice.

        Nor does one that is being closed: what it still sends it will not see acknowledged.
        """
        return self._outlet is outlet and not outlet.closing

    def connect(self, last_seq: int, *, resumed: bool) -> Outlet:
        """Take a new connection; one that was there before is told so and closed."""
        if resumed:
            self._to(Event.RESUME)
        self._to(Event.READY)
        if self._outlet is not None:
            self._outlet.close(EndReason.SUPERSEDED)
        # A client that has later events than there are has them of a conversation that the store has lost.
        self._outlet = Outlet(last_seq if last_seq <= self._last_seq else 0, self.events_after)
        self._arrivals.connected()
        if self.finished:
            self._outlet.close(EndReason.ENDED, self._ended_event())
            return self._outlet
        self.interrupted_since = None
        self.last_sound = self._tools.clock.monotonic()
        self._next_offset = self._received()
        return self._outlet

    def disconnect(self, outlet: Outlet) -> bool:
        """The connection is gone. False where another one had taken its place."""
        if self._outlet is not outlet:
            return False
        self._outlet = None
        self._due.stop_waiting()
        if self.state not in FINAL:
            self._to(Event.DROP)
        self.interrupted_since = self._tools.clock.monotonic()
        self._room.set()
        return True

    def wait_anew(self) -> None:
        """Nobody can come back now, as the store is away: that time does not count as the client's."""
        if self.interrupted_since is not None:
            self.interrupted_since = self._tools.clock.monotonic()

    async def events_after(self, seq: int) -> list[DurableEvent]:
        if seq >= self._last_seq:
            return []
        return self._recent.after(seq) or await self._tools.store.events(self.site, self.id, seq)

    # -- input ------------------------------------------------------------------------------------------------------

    async def feed(self, data: bytes) -> None:
        """Take a message of sound; waits while the client is too far ahead of the acks.

        Raises `InvalidInputError` for a message that is no whole number of samples, or longer than a second.
        """
        if self.state not in LISTENING:
            return
        samples = decode(data, self.format)
        if len(samples[0]) > self.format.sample_rate:
            raise InvalidInputError("A message holds at most one second of sound.")
        self._to(Event.AUDIO)
        if self._twins.compare(samples):
            log.warning("conversation.tracks_identical", conversation_id=self.id, channel=self.channel)
        for voice, part in zip(self._voices, samples, strict=True):
            known = voice.track.received - self._next_offset
            voice.track.feed(part[known:] if known > 0 else part)
        await self._came_in(len(samples[0]))

    async def skip(self, samples: int) -> None:
        """Take a declared gap."""
        if self.state not in LISTENING:
            return
        self._to(Event.AUDIO)
        for voice in self._voices:
            voice.track.skip(max(0, self._next_offset + samples - voice.track.received))
        await self._came_in(samples)

    def captured(self, offset: int, at_ns: int) -> None:
        """The client says when it captured the sample at `offset`, and so what follows."""
        self._arrivals.tell(offset, at_ns, self._tools.clock.now_ns())

    def end(self) -> None:
        """The client has said everything."""
        if self.state in LISTENING:
            self._finish_input()

    def expire(self) -> None:
        """Nobody came back: end with what was received."""
        if not self._ending and not self.finished and self.state is not State.DRAINING:
            self._expiring = True
            self._finish_input()

    def flush(self, offset: int) -> None:
        """The speaker let go of the key after `offset` samples: what is open ends there.

        What the stream has already got beyond is as it is.

        Raises `InvalidInputError` where too many are announced ahead of the sound.
        """
        if self.state in LISTENING:
            for voice in self._voices:
                voice.track.flush(offset)
            self._poke()

    def flush_here(self) -> None:
        """Publish speech in hand though no silence followed it: nothing more has come for too long."""
        if self._flushed or self._ending:
            return
        self._flushed = True
        for voice in self._voices:
            if not voice.track.idle or voice.track.has_work:
                voice.track.flush()
        self._poke()

    def flush_if_stopped(self) -> None:
        """A client that is connected and sends nothing more, as a radio does whose key was let go, has said it all."""
        if self.connected and self._room.is_set() and self._pace.stopped:
            self.flush_here()

    def tell_lateness(self) -> None:
        """Tell client and page how far it is behind, if there is something new to tell."""
        now = self._tools.clock.monotonic()
        behind_ms = self._lateness.look(self.behind_s, now, urgent=self._listener.urgent)
        if behind_ms is not None:
            self._tell_behind(behind_ms)

    def _tell_behind(self, behind_ms: int) -> None:
        self._note(Late(behind_ms=behind_ms))
        behind = Behind(site=self.site, conversation_id=self.id, channel=self.channel, behind_ms=behind_ms)
        self._tools.captions.behind(behind)

    def stop_listening(self, reason: str, after_ms: int) -> None:
        """Drain: take no more, tell the client to come back, finish what is in hand."""
        if self.state in FINAL or self.state is State.DRAINING:
            return
        self._to(Event.FINISH)
        self._note(Reconnect(reason=reason, after_ms=after_ms))

    async def settled(self) -> None:
        """Wait until everything received is heard and everything that was said is published."""
        while not self._released and (self._listener.pending or not self._listener.all_heard or self.ending):
            self._settled.clear()
            await self._settled.wait()

    # -- output -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish utterances in the order spoken until the conversation is over. Raises `FencedError`."""
        while not self.finished and not self._released:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._get_on()
            except FencedError:
                raise
            except QuickCommError as error:  # a full disk, say: nothing is acked, so nothing is lost
                log.warning("conversation.store_failed", conversation_id=self.id, error=str(error))
                await self._tools.clock.sleep(RETRY_S)
                self._wake.set()
        self.release()

    async def _get_on(self) -> None:
        while self._listener.pending and self._listener.pending[0].text.done():
            await self._publish(self._listener.pending[0])
            self._listener.pending.popleft()
            self._settled.set()
            await self._settle()
        if self._ending and not self._listener.pending and self._listener.all_heard:
            await self._finish()
            self._settled.set()

    def progress(self) -> Progress | None:
        """A checkpoint that is worth storing, or None."""
        return self.account.progress(self._listener.pending)

    def saved(self, progress: Progress) -> None:
        """That progress is durable: tell the client."""
        self.account.saved(progress)
        self._arrivals.forget(self.acked)
        self._count_held()
        if self._outlet is not None:
            self._outlet.ack(self.acked)
        if not self._window_full():
            self._room.set()

    def publish_event(self, event: DurableEvent) -> None:
        """A durable event is in the log."""
        self._recent.add(event)
        self._last_seq = max(self._last_seq, event.seq)
        if self._outlet is not None:
            self._outlet.wake()

    def answered(self, event: DurableEvent) -> None:
        """The insights of an utterance are in the log."""
        self._unanswered.pop(event.utterance_id, None)
        self.publish_event(event)
        self._wake.set()

    def receipt(self, identifier: str, latency: Latency) -> None:
        """The card of an utterance was pushed: tell the client."""
        self._note(Receipt(utterance_id=identifier, latency_ms=latency))
        self._due.came(identifier)

    def hand_back(self, reason: EndReason, last: ServerEvent | None = None) -> None:
        """Let go: what is stored is all there is. The client resumes elsewhere or later."""
        if self.state is State.DRAINING:
            self._to(Event.HAND_BACK)
        if self._outlet is not None:
            self._outlet.close(reason, last)
            self._outlet = None
        self._due.stop_waiting()
        self._released = True
        self._wake.set()
        self.release()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _to(self, event: Event) -> None:
        self.state = advance(self.state, event)

    def _news(self) -> None:
        """From the listener: something was heard, or has its text."""
        self._settled.set()
        if self._ending or self._listener.pending:
            self._wake.set()

    def _note(self, event: ServerEvent) -> None:
        if self._outlet is not None:
            self._outlet.note(event)

    def give_up(self, error: Exception) -> None:
        """A defect: let go of this conversation, so that no other suffers."""
        log.error("conversation.failed", conversation_id=self.id, error=f"{type(error).__name__}: {error}")
        self.hand_back(EndReason.FAILED)

    def _received(self) -> int:
        """Where a client goes on: on the frame grid, though a stream that began anew within a frame has some more."""
        received = min(voice.track.received for voice in self._voices)
        return received if self._voices[0].track.ended else self._on_grid(received)

    def _on_grid(self, offset: int) -> int:
        return offset - offset % self.format.frame

    async def _came_in(self, samples: int) -> None:
        self._flushed = False
        self._next_offset += samples
        self._count_held()
        self._pace.came(self.format.seconds(samples))
        self.last_sound = self._tools.clock.monotonic()
        self._arrivals.add(self.next_offset, self._tools.clock.now_ns())
        self._voices[0].track.origin_ns = self._arrivals.steady_origin
        self._poke()
        if self._window_full():
            self._room.clear()
            await self._room.wait()

    def _count_held(self) -> None:
        # A declared gap is no sound: what is held is never more than the window.
        ahead = 0 if self._released else min(self._next_offset - self.acked, self._window)
        held = ahead * len(self._voices) * SAMPLE_BYTES
        self._tools.held.total += held - self._held
        self._held = held

    def _poke(self) -> None:
        for voice in self._voices:
            if voice.lane is not None:
                self._tools.front_end.poke(voice.lane)

    def _window_full(self) -> bool:
        ahead = self.next_offset - self.acked
        return self.connected and ahead >= (self._least if self._tools.held.full else self._window)

    def _finish_input(self) -> None:
        self._to(Event.FINISH)
        self._ending = True
        for voice in self._voices:
            voice.track.end()
        self._poke()
        self._wake.set()

    async def _publish(self, item: Finished) -> None:
        """Publish the oldest finished utterance; one without words is silence."""
        now = self._tools.clock.now_ns()
        message = transcribed(self, item, self._arrivals, self._tools.transcriber.model, now)
        if message is None:
            self._voices[item.track.speaker].settled(item.span, speech=False)
            return
        await self._record(message.utterance_id, item)
        storing = self._tools.clock.now_ns()
        async with self.account.storing:
            event = await self._store(item, message)
        if event is None:  # published before a restart, or by another process
            self._published = None
            return
        if tracing().on:
            batch = self._tools.transcriber.batch_of(item.text)
            trace_published(message, batch, (storing, self._tools.clock.now_ns()))
        self._listener.voiced_s = 0.0
        if not self._recent.has(message.utterance_id):  # else another process was so quick with the insights
            self._unanswered[message.utterance_id] = event.seq
        self._due.add(message.utterance_id)
        self.publish_event(event)
        after = FIRST if event.seq == 1 else self._published
        self._published = message.utterance_id
        self._listener.published(msgspec.structs.replace(message, seq=event.seq), after)
        log.debug("utterance.published", site=self.site, utterance_id=message.utterance_id, seq=event.seq)

    async def _record(self, identifier: str, item: Finished) -> None:
        if self._tools.recorder is None:
            return
        try:
            await self._tools.recorder.record(self.site, identifier, item.span.samples)
        except RecordingError as error:  # what was said must come out all the same
            # Without its causes: what a bucket says may have the request in it.
            log.warning("recording.failed", site=self.site, utterance_id=identifier, error=str(error))

    async def _store(self, item: Finished, message: UtteranceTranscribed) -> DurableEvent | None:
        """The utterance and the checkpoint that it allows, in one step."""
        voice = self._voices[item.track.speaker]
        before = voice.standing()
        voice.settled(item.span, speech=True)
        progress = self.account.moved(voice, (other for other in self._listener.pending if other is not item))
        try:
            event = await self._tools.store.publish(progress, message)
        except QuickCommError:
            voice.back_to(before)
            raise
        if event is None:
            self.account.dirty = True  # the checkpoint is still to be stored
        else:
            self.saved(progress)
        return event

    async def _settle(self) -> None:
        """Store the furthest checkpoint that the last publication allows."""
        progress = self.progress()
        if progress is not None:
            if await self._tools.store.save([progress]):
                raise FencedError("The conversation has another owner.")
            self.saved(progress)

    async def _finish(self) -> None:
        """Everything is published: wait for the last insights, store the end, and say it."""
        await self._wait_for_answers()
        await self._wait_for_receipts()
        if self._released:
            return  # the server stops: the end is said after the restart
        state: ConversationState = "expired" if self._expiring else "ended"
        reason = "nobody came back" if self._expiring else None
        async with self.account.storing:
            progress = self.account.at_end()
            await self._tools.store.change_state(progress, self.change(state, reason))
            self._to(Event.DONE)
            self.saved(progress)
        if self._outlet is not None:
            self._outlet.close(EndReason.ENDED, self._ended_event())
        log.info("conversation.ended", conversation_id=self.id, state=state)

    async def _wait_for_answers(self) -> None:
        await self._catch_up()
        try:
            async with asyncio.timeout(self._tools.settings.answer_wait_s):
                while self._unanswered:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            await self._catch_up()
            if self._unanswered:
                log.warning("conversation.insights_late", conversation_id=self.id, missing=len(self._unanswered))

    async def _catch_up(self) -> None:
        """Read what is in the log and nobody has told of: another process may have written it, and its mail is lost."""
        after = min(self._unanswered.values(), default=0)
        while self._unanswered and (page := await self._tools.store.events(self.site, self.id, after)):
            for event in page:
                if isinstance(event, Insights):
                    self.answered(event)
            after = page[-1].seq

    async def _wait_for_receipts(self) -> None:
        """After the end nobody would hear them."""
        late = await self._due.wait(self._unanswered, lambda: self.connected and self._tools.captions.gives_receipts)
        if late:
            log.info("conversation.receipts_late", conversation_id=self.id, missing=late)

    def change(self, state: ConversationState, reason: str | None = None) -> ConversationChanged:
        return ConversationChanged(
            site=self.site,
            conversation_id=self.id,
            channel=self.channel,
            state=state,
            sample_rate=self.format.sample_rate,
            speakers=self.format.speakers,
            ledgers=self.account.ledgers,
            at_ns=self._tools.clock.now_ns(),
            reason=reason,
        )

    def _ended_event(self) -> Ended:
        ledgers = self.account.ledgers
        return Ended(ledger=sum(ledgers, Ledger()), speakers=ledgers)

    def release(self) -> None:
        """Give back what the process keeps for it."""
        self._released = True
        if self._lateness.told:
            self._lateness = Lateness()
            self._tell_behind(0)
        self._count_held()
        for voice in self._voices:
            voice.take_back()
            if voice.lane is not None:
                self._tools.front_end.detach(voice.lane)
                voice.lane = None
        self._room.set()
