"""All conversations of a process: who may open one, checkpoints for all in one write, grace, idle limit, drain."""

import asyncio
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import check_unchanged
from quickcomm.audio.model.settings import AudioSettings
from quickcomm.audio.model.state import State
from quickcomm.audio.ports import FencedError, OpenRequest, Progress
from quickcomm.audio.service.admission import Admission, Source
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.listener import Tools
from quickcomm.audio.service.metrics import CONVERSATIONS, DEMAND, LEVEL, BehindGauge
from quickcomm.audio.service.outlet import Outlet
from quickcomm.contracts.audio_socket import LEAST_TOKEN_CHARS, DurableEvent, Ready, Reconnect
from quickcomm.contracts.conversations import ConversationState
from quickcomm.contracts.erasing import Scope
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.kernel.errors import BusyError, ForbiddenError, InvalidInputError, QuickCommError

MAX_TOKEN_CHARS: Final = 256
HERE_AGAIN_MS: Final = 500
"""Where this server itself must come back before."""
AT_ONCE_MS: Final = 0
SWEEP_EVERY_S: Final = 1.0
LOOK_EVERY_S: Final = 0.2
MUTE_AFTER_S: Final = 60.0
TALKED_S: Final = 10.0
"""A pause that is no longer is part of the talk."""
NS: Final = 1_000_000_000

HAND_OVER: Final = Reconnect(reason="handover", after_ms=AT_ONCE_MS)
Others = Callable[[], bool]

log = structlog.get_logger(__name__)


def _nobody() -> bool:
    return False


def _ignore(_conversation: Conversation) -> None:
    """Do nothing."""


def _nothing() -> None:
    """Do nothing."""


class Session(msgspec.Struct, frozen=True):
    """A connection that was let in."""

    conversation: Conversation
    outlet: Outlet
    ready: Ready


class _Door(msgspec.Struct, eq=False):
    """One client at a time for one conversation."""

    lock: asyncio.Lock
    waiting: int = 0


class ShuttingDownError(BusyError):
    code = "audio.draining"


class FullError(BusyError):
    """As many conversations are live in this process as may be."""


class Manager:
    def __init__(self, tools: Tools, spawn: Callable[[Conversation], None]) -> None:
        self._tools = tools
        self._spawn = spawn
        self._live: dict[tuple[str, str], Conversation] = {}
        self._opening: dict[tuple[str, str], _Door] = {}
        self._expected: Counter[tuple[str, str]] = Counter()
        self._giving_up: set[tuple[str, str]] = set()
        """Conversations that are being handed over: late writes of this process are refused, as they should be."""
        self.sent_away: set[tuple[str, str]] = set()
        """Conversations that another process shall have: each is refused here once."""
        self._draining = False
        self._behind = BehindGauge()
        self.on_open: Callable[[Conversation], None] = _ignore
        self.on_fenced: Callable[[], None] = _nothing
        """Called for each write that was refused because another process has the conversation."""
        self.admission = Admission(
            tools.transcriber.load, tools.store, tools.clock, tools.emergencies, tools.settings.idle_limit_s
        )

    @property
    def settings(self) -> AudioSettings:
        return self._tools.settings

    @property
    def conversations(self) -> list[Conversation]:
        return list(self._live.values())

    @property
    def talking(self) -> list[Conversation]:
        """Return the conversations in which somebody spoke within the last ten seconds."""
        since = self._tools.clock.monotonic() - TALKED_S
        return [item for item in self._live.values() if item.spoke_at >= since]

    @property
    def room(self) -> int:
        """Return how many further conversations can be taken now."""
        if self._draining or self._tools.transcriber.load.refuses:
            return 0
        return max(0, self.settings.max_sessions - len(self._live.keys() | self._expected.keys()))

    async def admit(self, source: Source, conversation_id: str) -> None:
        """Raise `OverloadedError` where speech-to-text is too far behind for a new conversation."""
        key = source.site, conversation_id
        if key not in self._live and key not in self._expected:
            await self.admission.check(source, conversation_id)

    @contextmanager
    def expecting(self, key: tuple[str, str]) -> Iterator[None]:
        """Keep a place while a client is let in and as long as it is there: those on their way count each other.

        Raises `FullError` or `ShuttingDownError` where no further one can be taken; who is in may always come back.
        """
        self._check_room(key)
        self._expected[key] += 1
        try:
            yield
        finally:
            self._expected[key] -= 1
            if not self._expected[key]:
                del self._expected[key]

    def _check_room(self, key: tuple[str, str]) -> None:
        self._check_draining()
        if key in self.sent_away:
            self.sent_away.discard(key)
            raise FullError("Another process shall have this conversation; connect again.")
        taken = self._live.keys() | self._expected.keys()
        if len(taken) >= self.settings.max_sessions and key not in taken:
            raise FullError(f"{self.settings.max_sessions} conversations are live; try again later.")

    def _check_draining(self) -> None:
        if self._draining:
            raise ShuttingDownError("This server is shutting down; try again in a moment.")

    async def open(self, request: OpenRequest, after_seq: int) -> Session:
        """Let a client in: create, resume or take over. Raises `ForbiddenError`, `InvalidInputError`, `BusyError`."""
        key = (request.site, request.conversation_id)
        door = self._opening.setdefault(key, _Door(asyncio.Lock()))
        door.waiting += 1
        try:
            async with door.lock:
                return await self._open(request, after_seq)
        finally:
            door.waiting -= 1
            if not door.waiting:
                del self._opening[key]

    async def dropped(self, session: Session) -> None:
        """The connection is gone."""
        conversation = session.conversation
        if conversation.disconnect(session.outlet) and conversation.state is State.INTERRUPTED:
            log.info("conversation.interrupted", conversation_id=conversation.id)
            await self._announce(conversation, "interrupted")

    async def answered(self, found: InsightsFound) -> None:
        """Insights came: log them for the client, once."""
        event = await self._tools.store.add_insights(found)
        conversation = self._live.get((found.site, found.conversation_id))
        if event is not None and conversation is not None:
            conversation.answered(event)

    def told(self, site: str, conversation_id: str, event: DurableEvent) -> None:
        """Another process has logged an event of a conversation that this one has."""
        conversation = self._live.get((site, conversation_id))
        if conversation is not None:
            conversation.answered(event)

    def receipt(self, site: str, conversation_id: str, identifier: str, latency: Latency) -> None:
        conversation = self._live.get((site, conversation_id))
        if conversation is not None:
            conversation.receipt(identifier, latency)

    async def close(self, site: str, conversation_id: str, reason: str) -> None:
        """End a conversation that this process has; return when all of it is published, and the end is stored.

        Raises `BusyError` where the process lets go of it meanwhile.
        """
        conversation = self._live.get((site, conversation_id))
        if conversation is None:
            return
        conversation.close(reason)
        await conversation.settled()
        if not conversation.finished:
            raise BusyError("The conversation changes its process just now; try again in a moment.")

    def finished(self, conversation: Conversation) -> None:
        """The conversation's task is over."""
        if self._live.get(conversation.key) is conversation:
            del self._live[conversation.key]

    def mute(self) -> list[Conversation]:
        """Conversations in which people speak and no text comes out."""
        return [item for item in self._live.values() if item.voiced_s >= MUTE_AFTER_S]

    def doubled(self) -> list[Conversation]:
        """Conversations whose two tracks carry the same sound."""
        return [item for item in self._live.values() if item.same_tracks]

    # -- regular work -----------------------------------------------------------------------------------------------

    async def checkpoint_forever(self) -> None:
        while True:
            await asyncio.sleep(self.settings.ack_interval_ms / 1000)
            try:
                await self.checkpoint()
            except QuickCommError as error:
                log.warning("checkpoint.failed", error=str(error))

    async def checkpoint(self) -> None:
        """Store all checkpoints that moved, in one write, then send the acks."""
        await self._store(self._live.values())

    async def _store(self, conversations: Iterable[Conversation]) -> None:
        moved = [(item, progress) for item in conversations if not item.finished and (progress := item.progress())]
        if not moved:
            return
        fenced = set(await self._tools.store.save([progress for _, progress in moved]))
        for conversation, progress in moved:
            if conversation.key in fenced:
                self.let_go(conversation)
            else:
                conversation.saved(progress)

    async def look_forever(self) -> None:
        """End utterances of clients that stopped sending, and see who is behind."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        """Look at all once."""
        load = self._tools.transcriber.load
        self._tools.transcriber.look()
        LEVEL.set(load.level)
        self.admission.look()
        behind: dict[str, float] = {}
        present = [item for item in self._live.values() if item.connected]
        speaking, voices = sum(item.speaking for item in present), sum(item.format.speakers for item in present)
        CONVERSATIONS.set(len(present))
        now = self._tools.clock.monotonic()
        load.demand.look(speaking, voices, now)
        DEMAND.set(load.demand.of_engine)
        for conversation in self._live.values():
            if conversation.speaking:
                conversation.spoke_at = now
            conversation.flush_if_stopped()
            conversation.tell_lateness()
            behind[conversation.channel] = max(behind.get(conversation.channel, 0.0), conversation.behind_s)
        self._behind.show(behind)

    async def sweep_forever(self) -> None:
        """Grace and idle limits."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            await self.sweep()

    async def sweep(self) -> None:
        """Look at all once."""
        before = self._tools.clock.now_ns() - int(self.settings.idle_limit_s * NS)
        there = True
        try:
            await self._tools.store.expire(before, self._tools.clock.now_ns(), frozenset(self._live))
            if self._tools.store.shared:
                await self.look_for_owners()
        except QuickCommError as error:
            there = False
            log.warning("sweep.failed", error=str(error))
        self.admission.forget_places()
        now = self._tools.clock.monotonic()
        for conversation in self.conversations:
            if not there:
                conversation.wait_anew()
            self._sweep(conversation, now)

    async def look_for_owners(self) -> None:
        """Let go of what another process has taken over; of what moves, storing it tells that."""
        quiet = [item for item in self._live.values() if not item.finished and not item.account.dirty]
        if not quiet:
            return
        fenced = set(await self._tools.store.fenced([item.account.now() for item in quiet]))
        for conversation in quiet:  # not who is there by now: it may have come back meanwhile, under a new epoch
            if conversation.key in fenced and not (conversation.released or conversation.finished):
                self.let_go(conversation, written=False)

    def _sweep(self, conversation: Conversation, now: float) -> None:
        quiet = conversation.quiet_s(now)
        if quiet >= self.settings.interrupted_grace_s:
            conversation.flush_here()
        since = conversation.interrupted_since
        gone = since is not None and now - since >= self.settings.idle_limit_s
        if gone or quiet >= self.settings.silent_limit_s:
            conversation.expire()

    async def drain(self, others: Others = _nobody) -> None:
        """Stop listening, let utterances in hand come out, store, and send the clients away.

        `others`: whether another process takes the conversations now. Then each goes as soon as it can.
        """
        self._draining = True
        longest = self.settings.drain_s
        soon = others()
        within_s, after_ms = (min(longest, self.settings.hand_over_s), AT_ONCE_MS) if soon else (longest, HERE_AGAIN_MS)
        going = self.conversations
        for conversation in going:
            conversation.stop_listening(Reconnect(reason="drain", after_ms=after_ms))

        async def send_away(conversation: Conversation) -> bool:
            """Whether it had to go before all of it was out."""
            out = await _settled(conversation, within_s)
            if not out and not others():  # whoever was there is stopped as well
                out = await _settled(conversation, longest - within_s)
            await self._hand_back(conversation, after_ms)
            return not out

        late = await asyncio.gather(*(send_away(each) for each in going))
        if any(late):
            log.warning("drain.cut_short", conversations=sum(late))

    async def give_up(self, conversation: Conversation) -> Progress | None:
        """Hand a conversation over: take no more, store how far it is, fence this process, and send its client away.

        Return what is stored, under the epoch that counts now. Where the store does not answer, the client goes all the
        same: the other side takes the conversation over from the last checkpoint.
        """
        conversation.stop_listening()
        stored: Progress | None = None
        async with conversation.account.storing:
            if conversation.finished or conversation.released:
                return None
            progress, change = conversation.furthest(), conversation.change("interrupted")
            self._giving_up.add(conversation.key)
            try:
                await self._tools.store.change_state(progress, change, fence=True)
            except FencedError:
                self._giving_up.discard(conversation.key)
                self.let_go(conversation)
                return None
            except QuickCommError as error:
                log.warning("conversation.not_given_up", conversation_id=conversation.id, error=str(error))
            else:
                conversation.saved(progress)
                stored = msgspec.structs.replace(progress, epoch=progress.epoch + 1)
            finally:
                self._giving_up.discard(conversation.key)
            conversation.hand_back(EndReason.DRAINED, HAND_OVER)
        self.finished(conversation)
        log.info("conversation.handed_over", conversation_id=conversation.id)
        return stored

    async def _hand_back(self, conversation: Conversation, after_ms: int) -> None:
        try:
            await self._store([conversation])
        except QuickCommError as error:  # nothing is acked that is not stored: the clients send it again
            log.warning("checkpoint.failed", error=str(error))
        # Who had ended already was not told yet to come back.
        last = Reconnect(reason="drain", after_ms=after_ms) if conversation.ending else None
        conversation.hand_back(EndReason.DRAINED, last)
        await self._announce(conversation, "interrupted")

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _open(self, request: OpenRequest, after_seq: int) -> Session:
        key = (request.site, request.conversation_id)
        live = self._live.get(key)
        if live is not None and not live.finished and not live.released:
            if request.token is None or not hmac.compare_digest(live.token_digest, _digest(request.token)):
                raise ForbiddenError("This conversation is live; it can be resumed only with its resume_token.")
            check_unchanged(live.format, request.format)
            await self._announce(live, "live")
            if not live.released:
                return self._session(live, request, request.token, after_seq, resumed=True)
        self._check_draining()
        token = request.token or secrets.token_urlsafe(24)
        if not LEAST_TOKEN_CHARS <= len(token) <= MAX_TOKEN_CHARS:
            raise InvalidInputError(
                f"A resume_token has {LEAST_TOKEN_CHARS} to {MAX_TOKEN_CHARS} characters (128 bit)."
            )
        stored = await self._tools.store.open(request, token)
        conversation = Conversation(stored, _digest(token), self._tools)
        if conversation.finished:
            return self._session(conversation, request, token, after_seq, resumed=True)
        try:
            self._check_draining()  # it may have begun while this one was opened
        except ShuttingDownError:
            await self._announce(conversation, "interrupted")
            conversation.release()
            raise
        self._live[conversation.key] = conversation
        self._spawn(conversation)
        log.info("conversation.opened", conversation_id=conversation.id, resumed=not stored.created)
        return self._session(conversation, request, token, after_seq, resumed=not stored.created)

    def _session(
        self, conversation: Conversation, request: OpenRequest, token: str, after_seq: int, *, resumed: bool
    ) -> Session:
        outlet = conversation.connect(after_seq, resumed=resumed)
        conversation.resumes, conversation.sent_on = request.resumes, request.sent_on
        ready = Ready(
            conversation_id=conversation.id,
            resume_token=token,
            next_offset=conversation.next_offset,
            max_unacked_ms=self.settings.max_unacked_ms,
            ack_interval_ms=self.settings.ack_interval_ms,
            last_seq=conversation.last_seq,
            now_ms=self._tools.clock.now_ns() // 1_000_000,
        )
        self.on_open(conversation)
        return Session(conversation, outlet, ready)

    async def _announce(self, conversation: Conversation, state: ConversationState) -> None:
        """Store the state and tell the bus; a conversation that ended meanwhile has told everything itself."""
        async with conversation.account.storing:
            if conversation.finished or (state == "interrupted" and conversation.connected):
                return  # the client has come back before its break was stored
            try:
                await self._tools.store.change_state(conversation.account.now(), conversation.change(state))
            except FencedError:
                self.let_go(conversation)
            except QuickCommError as error:
                log.warning("conversation.state_not_stored", conversation_id=conversation.id, error=str(error))

    def erased(self, scope: Scope) -> None:
        """Let go of conversations that were erased: they have ended."""
        for conversation in [each for each in self._live.values() if each.key[0] == scope.site]:
            if conversation.id in scope.conversations:
                self.let_go(conversation, written=False)

    def let_go(self, conversation: Conversation, *, written: bool = True) -> None:
        """Another process has the conversation. `written`: this one learned it from a write that was refused.

        While this process itself gives it up, that is no news: `give_up` sends the client away.
        """
        if conversation.key in self._giving_up:
            return
        if not conversation.released:  # else it was given up while the write was on its way
            log.warning("conversation.fenced", conversation_id=conversation.id)
            if written:
                self.on_fenced()
        conversation.hand_back(EndReason.FENCED)
        self.finished(conversation)


async def _settled(conversation: Conversation, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await conversation.settled()
    except TimeoutError:
        return False
    return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
