"""Who may begin a conversation while speech-to-text is far behind: those who are in stay, others come back later."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from quickcomm.audio.ports import SessionStore
from quickcomm.audio.service.conversation import Conversation
from quickcomm.audio.service.load import Load
from quickcomm.audio.service.metrics import REFUSED
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.emergencies import EmergencyRules
from quickcomm.kernel.errors import BusyError

log = structlog.get_logger(__name__)


class OverloadedError(BusyError):
    """More is said than can be written down; a new conversation would make all others later."""

    code = "audio.overloaded"


class Source(msgspec.Struct, frozen=True):
    """Where sound comes from: a channel of a key."""

    site: str
    key_id: str
    channel: str


class _Place(msgspec.Struct, eq=False):
    """What a conversation leaves to the next one of its source, once all is said on it."""

    conversation: Conversation | None
    left_at: float = 0.0

    def free(self, now: float, for_s: float) -> bool:
        talk = self.conversation
        return talk.ending or talk.finished if talk is not None else now - self.left_at < for_s


class Admission:
    """Refuses while `load` says so. A resume is never refused, nor is a channel for emergencies.

    A gateway that begins a conversation for each transmission gets the place of the one before, for `place_s`: as long
    as a conversation that is kept open could be resumed.
    """

    def __init__(
        self, load: Load, store: SessionStore, clock: Clock, emergencies: EmergencyRules, place_s: float
    ) -> None:
        self._load = load
        self._store = store
        self._clock = clock
        self._emergencies = emergencies
        self._place_s = place_s
        self._places: dict[Source, dict[str, _Place]] = {}
        self.refused: int | None = None
        """New conversations turned away since it began; None while all are taken."""

    async def check(self, source: Source, conversation_id: str) -> None:
        """Raise `OverloadedError` where this conversation is a new one that cannot be taken now."""
        if not self._load.refuses or self._emergencies.is_channel(source.channel):
            return
        if self._take_place(source) or await self._store.known(source.site, conversation_id):
            return
        self.refused = (self.refused or 0) + 1
        REFUSED.inc()
        raise OverloadedError("More is said than can be written down in time; try again later.")

    @contextmanager
    def present(self, source: Source, conversation: Conversation) -> Iterator[None]:
        """Remember the source of a conversation while its client is connected, and its place when it has left."""
        place = _Place(conversation)
        self._places.setdefault(source, {})[conversation.id] = place
        try:
            yield
        finally:
            place.conversation, place.left_at = None, self._clock.monotonic()

    def look(self) -> None:
        """Note that an episode of refusing has begun or is over. To be called now and then."""
        if self._load.refuses and self.refused is None:
            self.refused = 0
            log.warning("admission.closed")
        elif not self._load.refuses and self.refused is not None:
            log.warning("admission.opened", refused=self.refused)
            self.refused = None

    def forget_places(self) -> None:
        """Drop places that were left too long ago."""
        now = self._clock.monotonic()
        for source, places in list(self._places.items()):
            for conversation_id, place in list(places.items()):
                if place.conversation is None and not place.free(now, self._place_s):
                    del places[conversation_id]
            if not places:
                del self._places[source]

    def _take_place(self, source: Source) -> bool:
        places, now = self._places.get(source, {}), self._clock.monotonic()
        found = next((each for each, place in places.items() if place.free(now, self._place_s)), None)
        if found is not None:
            del places[found]
        return found is not None
