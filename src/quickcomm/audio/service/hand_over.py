"""Hands conversations over while audio moves: what the routes give to the other side goes there, with its client.

A rule, and no list: whatever conversation this side still has at new routes, or opens by older ones, it gives up, as
fast as the other side can take them. Those that are ending stay. A client that cannot resume stays for a time; then its
conversation is ended in the next pause.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import structlog

from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.ports import Progress, SessionStore
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.manager import Manager
from quickcomm.audio.service.share import Share
from quickcomm.contracts.identity import bucket
from quickcomm.contracts.link import Room
from quickcomm.contracts.routes import MONOLITH
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.live import HERE, Peer

LOOK_EVERY_S: Final = 0.1
UNDERWAY: Final = 25
"""So many clients may be on their way to the other side: it gets more as it takes them."""
LATE_S: Final = 1.0
"""Who is on the way for longer is not waited for."""
PAUSE_WITHIN_S: Final = 60.0
"""A client that cannot resume and has stayed for its time is ended in a pause within this, else in mid-speech."""
TALKING: Final = 1
"""So many conversations in which somebody speaks may go at a look: what is not acknowledged is written down again."""
BEHIND_S: Final = 0.5
"""Of a backlog: a side with more to write down gets nothing further."""
FRESH_S: Final = 2.0
"""A process that has not said for so long what it can take, gets nothing."""
BACK_WITHIN_S: Final = 10.0
"""By then a client that was sent to the other side should be there."""
RECENT_S: Final = 60.0
MOST: Final = 1_000
BUSY: Final = Room(conversations=0, stt_backlog_s=1.0)
Key = tuple[str, str]
_Told = tuple[float, Room]

log = structlog.get_logger(__name__)


class Receivers:
    """How much the processes of the other side can take, by what they say themselves."""

    def __init__(self, share: Share, clock: Clock) -> None:
        self._share = share
        self._clock = clock
        self._known: dict[str, _Told] = {}
        self._beside: dict[str, _Told] = {}
        """Of the other processes of this side."""

    def told(self, room: Room, peer: Peer) -> None:
        if peer is not HERE:
            theirs = (peer.module == MONOLITH) != (self._share.side == MONOLITH)
            (self._known if theirs else self._beside)[peer.name] = self._clock.monotonic(), room

    @property
    def room(self) -> int:
        """Return how many conversations they can take now; 0 where one is behind, or none is there."""
        fresh = self._fresh(self._known)
        if any(each.stt_backlog_s > BEHIND_S for each in fresh):
            return 0
        return sum(each.conversations for each in fresh)

    @property
    def room_beside(self) -> int:
        """Return how many conversations the other processes of this side can take now."""
        return sum(each.conversations for each in self._fresh(self._beside))

    def takes_copies(self, name: str) -> bool:
        """Return True if a process of theirs answers, and nothing waits there for its text."""
        at, room = self._known.get(name, (0.0, BUSY))
        return not room.stt_backlog_s and at >= self._clock.monotonic() - FRESH_S

    def hearer(self, conversation_id: str) -> str | None:
        """Return the process of theirs that a conversation is copied to: mostly the same one; None where none can."""
        able = filter(self.takes_copies, self._known)
        return max(able, key=lambda name: bucket(name, conversation_id), default=None)

    def _fresh(self, known: dict[str, _Told]) -> list[Room]:
        """Forget who has not said anything for too long; return what the others said."""
        since = self._clock.monotonic() - FRESH_S
        for name in [name for name, (at, _) in known.items() if at < since]:
            del known[name]
        return [room for _, room in known.values()]


class HandOver:
    def __init__(
        self, manager: Manager, store: SessionStore, share: Share, receivers: Receivers, clock: Clock, *, stay_s: float
    ) -> None:
        """`stay_s`: for so long a client that cannot resume stays."""
        self._manager = manager
        self._store = store
        self._share = share
        self._receivers = receivers
        self._clock = clock
        self._stay_s = stay_s
        self._looks_by = (-1, False)
        """The routes at the last look, and whether the edge had them."""
        self._opened = False
        self._since: dict[Key, float] = {}
        """When it was first seen that a conversation belongs to the other side."""
        self._sent: list[tuple[float, Progress]] = []
        """Conversations whose clients are on their way, under the epoch by which they were given up."""
        self._not_back: deque[float] = deque(maxlen=MOST)

    @property
    def left(self) -> int:
        """Return how many conversations are still here that the routes give to the other side."""
        return sum(self._goes_away(each) for each in self._manager.conversations)

    @property
    def recent_not_back(self) -> int:
        """Return how many clients did not come to the other side, within the last minute."""
        since = self._clock.monotonic() - RECENT_S
        return sum(at >= since for at in self._not_back)

    def opened(self, conversation: Conversation) -> None:
        """Look again where it is one to be given up."""
        self._opened |= not self._share.has(conversation.id, conversation.sent_on)

    async def run(self) -> None:
        """Hand over until cancelled."""
        while True:
            by = self._share.standing
            if by != self._looks_by or self._opened or self._since or self._sent:
                self._looks_by, self._opened = by, False
                await self.follow_up()
                await self.look()
            await self._clock.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Give up what the other side can take now, and end what has stayed for too long."""
        now = self._clock.monotonic()
        going = [each for each in self._manager.conversations if _goes(each) and self._goes_away(each)]
        self._since = {each.key: self._since.get(each.key, now) for each in going}
        for conversation in going:
            over_s = now - self._since[conversation.key] - self._stay_s
            if not conversation.resumes and over_s >= 0:
                conversation.end_because(EndReason.MOVED, in_speech=over_s >= PAUSE_WITHIN_S)
        chosen = list(self._chosen(going))
        if chosen:
            await asyncio.gather(*map(self._give_up, chosen))
            log.info("conversations.handed_over", count=len(chosen), left=len(going) - len(chosen))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _goes_away(self, conversation: Conversation) -> bool:
        return self._share.gives_up(conversation.id, conversation.sent_on)

    def _chosen(self, going: Iterable[Conversation]) -> Iterator[Conversation]:
        since = self._clock.monotonic() - LATE_S
        free = min(self._receivers.room, UNDERWAY - sum(at >= since for at, _ in self._sent))
        talking = TALKING
        for conversation in going:
            in_hand = conversation.in_hand
            # Of a client that is away, what is in hand here is nowhere else: it is finished first.
            may_go = conversation.resumes if conversation.connected else not in_hand
            if free > 0 and may_go and (talking or not in_hand):
                free, talking = free - 1, talking - in_hand
                yield conversation

    async def _give_up(self, conversation: Conversation) -> None:
        connected = conversation.connected
        progress = await self._manager.give_up(conversation)
        if progress is not None and connected:
            self._sent.append((self._clock.monotonic(), progress))

    async def follow_up(self) -> None:
        """Forget the clients that the other side has by now; count those that have not come in time."""
        if not self._sent:
            return
        try:
            taken = set(await self._store.fenced([progress for _, progress in self._sent]))
        except QuickCommError as error:
            log.info("conversations.not_followed_up", error=str(error)[:200])
            return
        before = self._clock.monotonic() - BACK_WITHIN_S
        waiting = [(at, each) for at, each in self._sent if (each.site, each.conversation_id) not in taken]
        self._sent = [(at, each) for at, each in waiting if at >= before]
        for _, each in waiting[: len(waiting) - len(self._sent)]:
            self._not_back.append(self._clock.monotonic())
            log.warning("conversation.not_taken_over", conversation_id=each.conversation_id)


def _goes(conversation: Conversation) -> bool:
    """Return True for one of which more may come."""
    return not (conversation.ending or conversation.finished or conversation.released)
