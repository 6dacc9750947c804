"""The durable events of one conversation: the newest in memory, the others in the store."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from quickcomm.audio.ports import SessionStore, Stored
from quickcomm.contracts.audio_socket import DurableEvent, Insights

RECENT: Final = 256


class Recent:
    """The newest durable events of a conversation, so that a connected client costs no reading."""

    def __init__(self) -> None:
        self._events: deque[DurableEvent] = deque(maxlen=RECENT)

    def add(self, event: DurableEvent) -> None:
        self._events.append(event)

    def has(self, utterance_id: str) -> bool:
        return any(event.utterance_id == utterance_id for event in reversed(self._events))

    def after(self, seq: int) -> list[DurableEvent] | None:
        """Return events behind `seq` without a hole; None where only the store can tell."""
        found = sorted((event for event in self._events if event.seq > seq), key=lambda event: event.seq)
        if [event.seq for event in found] != list(range(seq + 1, seq + 1 + len(found))):
            return None
        return found


class EventLog:
    """`added` is called after each new event."""

    def __init__(self, stored: Stored, store: SessionStore, added: Callable[[], None]) -> None:
        self._site, self._id = stored.site, stored.conversation_id
        self._store = store
        self._added = added
        self._changed = asyncio.Event()
        self._recent = Recent()
        self.last_seq = stored.last_seq
        """The seq of the newest event."""
        self.unanswered = dict.fromkeys(stored.unanswered, 0)
        """Utterances without insights in the log, with a seq behind which those will be."""

    async def after(self, seq: int) -> list[DurableEvent]:
        """Return a page of the events behind `seq`, in order."""
        if seq >= self.last_seq:
            return []
        return self._recent.after(seq) or await self._store.events(self._site, self._id, seq)

    def published(self, event: DurableEvent) -> None:
        """Add an utterance."""
        if not self._recent.has(event.utterance_id):  # else another process was so quick with the insights
            self.unanswered[event.utterance_id] = event.seq
        self._add(event)

    def answered(self, event: DurableEvent) -> None:
        """Add the insights of an utterance."""
        self.unanswered.pop(event.utterance_id, None)
        self._add(event)

    async def all_answered(self, within_s: float) -> int:
        """Wait for the insights of every utterance; return how many are still missing after so long."""
        await self._catch_up()
        try:
            async with asyncio.timeout(within_s):
                while self.unanswered:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            await self._catch_up()
        return len(self.unanswered)

    async def _catch_up(self) -> None:
        """Read insights that another process has logged, and whose notification was lost."""
        after = min(self.unanswered.values(), default=0)
        while self.unanswered and (page := await self._store.events(self._site, self._id, after)):
            for event in page:
                if isinstance(event, Insights):
                    self.answered(event)
            after = page[-1].seq

    def _add(self, event: DurableEvent) -> None:
        self._recent.add(event)
        self.last_seq = max(self.last_seq, event.seq)
        self._changed.set()
        self._added()
