"""One live conversation: sound in, utterances out in order, acks when everything before them is durable.

ingest → Conversation → Intake → tracks → FrontEnd → Listener → Publisher → EventLog → Outlet → ingest

The conversation alone has the state (`model/state.py`) and the connection; the others report through the functions that
they are given.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

import structlog

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import Int16, decode
from quickcomm.audio.model.state import CONCLUDING, FINAL, LISTENING, OPEN, OVER, Event, State, advance
from quickcomm.audio.ports import FencedError, Progress, Stored
from quickcomm.audio.service.account import Account
from quickcomm.audio.service.due import ReceiptsDue
from quickcomm.audio.service.event_log import EventLog
from quickcomm.audio.service.intake import Intake
from quickcomm.audio.service.lateness import Lateness
from quickcomm.audio.service.listener import Listener, Tools
from quickcomm.audio.service.outlet import Outlet
from quickcomm.audio.service.publisher import Publisher
from quickcomm.contracts.audio_socket import DurableEvent, Late, Receipt, Reconnect, ServerEvent
from quickcomm.contracts.captions import Behind
from quickcomm.contracts.conversations import ConversationChanged, ConversationState
from quickcomm.contracts.timing import Latency
from quickcomm.kernel.errors import InvalidInputError, QuickCommError
from quickcomm.kernel.telemetry.side import stamp

RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class Conversation:
    def __init__(self, stored: Stored, token_digest: bytes, tools: Tools) -> None:
        self.site = stored.site
        self.id = stored.conversation_id
        self.channel = stored.channel
        self.format = stored.format
        self.token_digest = token_digest
        self.state = State.CONNECTING
        self.interrupted_since: float | None = None
        self.resumes = True
        """Whether the client that is connected can resume."""
        self.sent_on = ""
        """The channel by which the edge chose the side of that client."""
        self.spoke_at = -math.inf
        """When somebody last spoke, in monotonic seconds, as far as the manager has looked."""
        self._ends_by = EndReason.ENDED
        self._closed_because: str | None = None
        self._clock = tools.clock
        self._store = tools.store
        self._captions = tools.captions
        self._answer_wait_s = tools.settings.answer_wait_s
        self._outlet: Outlet | None = None
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._due = ReceiptsDue(tools.clock)
        self._lateness = Lateness()
        self._log = EventLog(stored, tools.store, self._logged)
        self._intake = Intake(stored, tools)
        self._copies = tools.copies
        self.account = Account(stored, self._intake.voices)
        self._listener = Listener(self, self._intake.voices, self._intake.arrivals, tools, self._news, self._note)
        self._publisher = Publisher(
            tools,
            account=self.account,
            listener=self._listener,
            events=self._log,
            due=self._due,
            saved=self.saved,
        )
        if stored.state in FINAL:
            self.state = State(stored.state)
            return
        try:
            self._intake.attach(self._listener.hear, self.give_up)
        except QuickCommError:
            self.release()
            raise

    # -- how it stands ----------------------------------------------------------------------------------------------

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
    def released(self) -> bool:
        """Return True if this process has let go; the conversation may be opened again from the store."""
        return self.state is State.RELEASED

    @property
    def ending(self) -> bool:
        """Return True if no more sound will come, and the rest is being published."""
        return self.state in CONCLUDING

    @property
    def next_offset(self) -> int:
        """The offset at which the client goes on."""
        return self._intake.next_offset

    @property
    def last_seq(self) -> int:
        """The seq of the newest durable event."""
        return self._log.last_seq

    @property
    def acked(self) -> int:
        """The offset before which everything is durable."""
        return self.account.acked if self.finished else self._intake.on_grid(self.account.acked)

    @property
    def told_until(self) -> int:
        """The offset before which everything is durable, and was told to all."""
        return min(self.acked, *(item.span.start for item in self._listener.pending), self.next_offset)

    @property
    def voiced_s(self) -> float:
        """Seconds of speech since the last text came out (for the watchdog)."""
        return self._listener.voiced_s

    @property
    def speaking(self) -> int:
        """The number of its speakers that speak just now."""
        return sum(not voice.track.idle for voice in self._intake.voices)

    @property
    def behind(self) -> bool:
        """Return True if received sound is not heard yet, or has no text: then the client waits for this process."""
        return bool(self._listener.pending) or not self._listener.all_heard

    @property
    def in_hand(self) -> bool:
        """Return True if somebody speaks, or what was said is not published: less than that is in no checkpoint."""
        return self.behind or self.speaking > 0

    @property
    def behind_s(self) -> float:
        """How long the oldest words wait that have no text yet."""
        return self._listener.behind_s

    @property
    def told_behind(self) -> bool:
        """Return True if the client was last sent that the conversation is behind."""
        return self._lateness.told

    @property
    def too_late(self) -> bool:
        return self._listener.too_late

    @property
    def same_tracks(self) -> bool:
        """Return True if two speakers' tracks carry the same sound."""
        return self._intake.same_tracks

    # -- connection -------------------------------------------------------------------------------------------------

    def serves(self, outlet: Outlet) -> bool:
        """Return True if this connection's sound counts: no other one has taken over, and its acks will reach it."""
        return self._outlet is outlet and not outlet.closing

    def connect(self, last_seq: int, *, resumed: bool) -> Outlet:
        """Take a new connection; close one that was there before."""
        if resumed:
            self._to(Event.RESUME)
        self._to(Event.READY)
        if self._outlet is not None:
            self._outlet.close(EndReason.SUPERSEDED)
        # A client that has later events than there are has them of a conversation that the store has lost.
        self._outlet = Outlet(last_seq if last_seq <= self.last_seq else 0, self._log.after)
        if self.finished:
            self._outlet.close(EndReason.ENDED, self.account.ended)
            return self._outlet
        self.interrupted_since = None
        self._intake.connected()
        return self._outlet

    def disconnect(self, outlet: Outlet) -> bool:
        """Note that the connection is gone. Return False where another one had taken its place."""
        if self._outlet is not outlet:
            return False
        self._outlet = None
        self._due.stop_waiting()
        self._to(Event.DROP)
        self.interrupted_since = self._clock.monotonic()
        self._intake.disconnected()
        return True

    def quiet_s(self, now: float) -> float:
        """Seconds without sound at monotonic `now`; while this process is behind, the client is not quiet."""
        if self.behind:
            self._intake.last_sound = now
        return now - self._intake.last_sound

    def wait_anew(self) -> None:
        """Begin the idle limit anew: while the store is unavailable no client can come back."""
        if self.interrupted_since is not None:
            self.interrupted_since = self._clock.monotonic()

    # -- input ------------------------------------------------------------------------------------------------------

    async def feed(self, data: bytes) -> None:
        """Take a message of sound; waits while the client is too far ahead of the acks.

        Raises `InvalidInputError` for a message that is no whole number of samples, or longer than a second.
        """
        if self.state not in LISTENING:
            return
        tracks = decode(data, self.format)
        if len(tracks[0]) > self.format.sample_rate:
            raise InvalidInputError("A message holds at most one second of sound.")
        await self.take(tracks, len(tracks[0]))

    async def skip(self, samples: int) -> None:
        """Take a declared gap of all speakers."""
        await self.take([None] * self.format.speakers, samples)

    async def take(self, tracks: Sequence[Int16 | None], samples: int) -> None:
        """Take int16[samples] of each speaker, or None for a gap; waits as `feed` does."""
        if self.state in LISTENING:
            self._to(Event.AUDIO)
            self._copies.sound(self, self._intake.next_offset, tracks, samples)
            await self._intake.take(tracks, samples)

    def captured(self, offset: int, at_ns: int) -> None:
        """Date the sample at `offset`, and so the ones behind it, by the client's word."""
        self._intake.captured(offset, at_ns)

    def end(self) -> None:
        """Take no more: the client has sent everything."""
        if self.state in LISTENING:
            self._conclude(Event.END)

    def close(self, reason: str) -> None:
        """End with what was received, though a client may be there: its socket is told that it has ended."""
        if self.state in OPEN:
            self._closed_because = reason
            self._conclude(Event.CLOSE)

    def expire(self) -> None:
        """End with what was received: no client came back."""
        if self.state in OPEN:
            self._conclude(Event.EXPIRE)

    def flush(self, offset: int) -> None:
        """End what is open after `offset` samples, where the speaker let go of the key.

        What the stream has already got beyond is as it is. Raises `InvalidInputError` where too many are announced.
        """
        if self.state in LISTENING:
            self._intake.flush(offset)
            self._copies.flush(self, offset)

    def flush_here(self) -> None:
        """Publish speech in hand though no silence followed it: nothing more has come for too long. Idempotent."""
        self._intake.flush_open()
        self._copies.flush(self, self.next_offset)

    def flush_if_stopped(self) -> None:
        """Publish speech in hand of a client that is connected and sends no more, as a radio whose key was let go.

        Call it at each look: see `Intake.has_stopped`.
        """
        if self.connected and self._intake.has_stopped():
            self.flush_here()

    def stop_listening(self, last: Reconnect | None = None) -> None:
        """Drain: take no more, tell the client to come back (`last`), finish what is in hand."""
        if self.state in OPEN:
            self._to(Event.DRAIN)
            if last is not None:
                self._note(last)

    def end_because(self, reason: EndReason, *, in_speech: bool = False) -> None:
        """End as if the client had sent everything. Do nothing while somebody speaks, but for `in_speech`."""
        if self.state in LISTENING and (in_speech or not self.in_hand):
            self._ends_by = reason
            self._conclude(Event.END)

    async def settled(self) -> None:
        """Wait until everything received is heard and everything that was said is published."""
        while not self.released and (self.behind or self.ending):
            self._settled.clear()
            await self._settled.wait()

    # -- output -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish utterances in the order spoken until the conversation is over. Raises `FencedError`."""
        while self.state not in OVER:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._get_on()
            except FencedError:
                raise
            except QuickCommError as error:  # a full disk, say: nothing is acked, so nothing is lost
                log.warning("conversation.store_failed", conversation_id=self.id, error=str(error))
                await self._clock.sleep(RETRY_S)
                self._wake.set()
        self.release()

    def progress(self) -> Progress | None:
        """Return a checkpoint that is worth storing, or None."""
        return self.account.progress(self._listener.pending)

    def furthest(self) -> Progress:
        """Return the last checkpoint from which a restart gives what would have come without one."""
        return self.account.furthest(self._listener.pending)

    def saved(self, progress: Progress) -> None:
        """Acknowledge what is durable now."""
        self.account.saved(progress)
        self._intake.acknowledged(self.acked)
        if self._outlet is not None:
            self._outlet.ack(self.acked)

    def answered(self, event: DurableEvent) -> None:
        """Send the insights of an utterance, which are in the log."""
        self._log.answered(event)

    def receipt(self, identifier: str, latency: Latency) -> None:
        """Send how long each stage took of an utterance whose card was pushed."""
        self._note(Receipt(utterance_id=identifier, latency_ms=latency))
        self._due.came(identifier)

    def tell_lateness(self) -> None:
        """Tell client and page how far it is behind, if that is news."""
        behind_ms = self._lateness.look(self.behind_s, self._clock.monotonic(), urgent=self._listener.urgent)
        if behind_ms is not None:
            self._tell_behind(behind_ms)

    def change(self, state: ConversationState, reason: str | None = None) -> ConversationChanged:
        return ConversationChanged(
            site=self.site,
            conversation_id=self.id,
            channel=self.channel,
            state=state,
            sample_rate=self.format.sample_rate,
            speakers=self.format.speakers,
            ledgers=self.account.ledgers,
            at_ns=self._clock.now_ns(),
            reason=reason,
            side=stamp(),
        )

    def hand_back(self, reason: EndReason, last: ServerEvent | None = None) -> None:
        """Let go: what is stored is all there is. The client resumes elsewhere or later."""
        if self._outlet is not None:
            self._outlet.close(reason, last)
            self._outlet = None
        self._due.stop_waiting()
        self.release()

    def give_up(self, error: Exception) -> None:
        """Let go of a conversation with a defect, so that no other suffers."""
        log.error("conversation.failed", conversation_id=self.id, error=f"{type(error).__name__}: {error}")
        self.hand_back(EndReason.FAILED)

    def release(self) -> None:
        """Give back what the process keeps for it. Idempotent."""
        self._to(Event.RELEASE)
        self._copies.forget(self)
        self._wake.set()
        self._settled.set()
        if self._lateness.told:
            self._lateness = Lateness()
            self._tell_behind(0)
        self._intake.detach()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _to(self, event: Event) -> None:
        self.state = advance(self.state, event)

    def _conclude(self, event: Event) -> None:
        self._to(event)
        self._intake.end()
        self._wake.set()

    def _news(self) -> None:
        """Go on: something was heard, or has its text."""
        self._settled.set()
        if self.ending or self._listener.pending:
            self._wake.set()

    def _note(self, event: ServerEvent) -> None:
        if self._outlet is not None:
            self._outlet.note(event)

    def _logged(self) -> None:
        if self._outlet is not None:
            self._outlet.wake()

    def _tell_behind(self, behind_ms: int) -> None:
        self._note(Late(behind_ms=behind_ms))
        behind = Behind(site=self.site, conversation_id=self.id, channel=self.channel, behind_ms=behind_ms)
        self._captions.behind(behind)

    async def _get_on(self) -> None:
        while (item := self._listener.next_with_text) is not None:
            await self._publisher.publish(item)
            self._listener.pop()
            self._settled.set()
            await self._publisher.settle()
        if self.ending and not self.behind:
            await self._finish()
            self._settled.set()

    async def _finish(self) -> None:
        """Wait for the last insights, as everything is published, then store the end and send it."""
        if missing := await self._log.all_answered(self._answer_wait_s):
            log.warning("conversation.insights_late", conversation_id=self.id, missing=missing)
        if late := await self._due.wait(self._log.unanswered, self._gets_receipts):
            log.info("conversation.receipts_late", conversation_id=self.id, missing=late)
        if self.released:
            return  # the process stops: the end is sent after the restart
        expired = self.state is State.EXPIRING
        async with self.account.storing:
            progress = self.account.furthest()
            change = (
                self.change("expired", "nobody came back") if expired else self.change("ended", self._closed_because)
            )
            await self._store.change_state(progress, change)
            self._to(Event.DONE)
            self.saved(progress)
        self._copies.over(self.key)
        if self._outlet is not None:
            self._outlet.close(self._ends_by, self.account.ended)
        log.info("conversation.ended", conversation_id=self.id, state=change.state)

    def _gets_receipts(self) -> bool:
        return self.connected and self._captions.gives_receipts
