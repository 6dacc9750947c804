"""Everybody who looks at a page: each message is written once and handed to bounded queues, one a client."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from aiohttp import WSCloseCode
from prometheus_client import Counter, Gauge

from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.health import ClassifierHealth
from quickcomm.contracts.link import EVERYTHING, Watching
from quickcomm.dashboard.adapters.paints import PaintReports
from quickcomm.dashboard.model.views import Card, Conversation, Task
from quickcomm.dashboard.ports import Board, Health, LeftOut
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.keys import Role

MAX_CAPTIONS: Final = 64
MAX_SAID: Final = 1_000
"""Speakers whose newest caption is kept."""
MAX_MOVING: Final = 1_000
KEPT_S: Final = 8.0
"""A page takes less to come back from the other side."""
MAX_NAMED: Final = 500
"""Channels of a site that are named to audio one by one; where more are watched, all of them are meant."""
TOO_SLOW: Final = (1013, "You did not keep up; connect again.")

CLIENTS = Gauge("quickcomm_live_clients", "Pages connected to the live feed")
DROPPED = Counter("quickcomm_live_captions_dropped_total", "Captions dropped for clients that do not keep up")
EVICTED = Counter("quickcomm_live_clients_evicted_total", "Clients disconnected because they did not keep up")

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class CardEvent(msgspec.Struct, frozen=True, tag="card"):
    card: Card


class CardsEvent(msgspec.Struct, frozen=True, tag="cards"):
    """Several cards of a replay, for a client that asked for them with `batch`."""

    cards: list[Card]


class CaptionEvent(msgspec.Struct, frozen=True, kw_only=True, tag="caption"):
    conversation_id: str
    channel: str
    speaker: int
    start_offset: int
    text: str
    final: bool
    utterance_id: str | None
    emergency: bool
    """By its words it is one; its card, which comes later, confirms it."""
    side: str | msgspec.UnsetType = msgspec.UNSET
    """The side whose audio made it, during a migration."""


class BehindEvent(msgspec.Struct, frozen=True, kw_only=True, tag="behind"):
    """How long the oldest words of a conversation wait to be written down; 0 once it is whole again."""

    conversation_id: str
    channel: str
    behind_ms: int


class TaskEvent(msgspec.Struct, frozen=True, tag="task"):
    task: Task
    change: int


class ConversationEvent(msgspec.Struct, frozen=True, tag="conversation"):
    conversation: Conversation


class HealthEvent(msgspec.Struct, frozen=True, tag="health"):
    health: Health


class ErrorEvent(msgspec.Struct, frozen=True, tag="error"):
    code: str
    message: str


class HelloEvent(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """`side`: the dashboard whose numbers all `change` are; `SIDE:CHANGE` is what `after` takes."""

    version: str
    site: str
    role: Role
    side: str
    change: int
    reset: bool
    classifier: ClassifierHealth
    health: Health
    conversations: list[Conversation]
    board: Board


class ResetEvent(msgspec.Struct, frozen=True, tag="reset"):
    """The `after` is not of this side: after `hello` (with `reset`) a new first state comes."""


class ReplayedEvent(msgspec.Struct, frozen=True, kw_only=True, tag="replayed"):
    """All cards of the replay have been sent: what there was at `change`. `left_out` only after a `reset`."""

    change: int
    left_out: LeftOut | None


LiveEvent = (
    CardEvent
    | CardsEvent
    | CaptionEvent
    | BehindEvent
    | TaskEvent
    | ConversationEvent
    | HealthEvent
    | ErrorEvent
    | HelloEvent
    | ResetEvent
    | ReplayedEvent
)


def text_of(event: LiveEvent) -> str:
    return _encode(event).decode()


class Subscriber:
    """One client's queues. Durable messages keep their order; of captions only the newest of each speaker waits."""

    def __init__(self, site: str, limit: int, clock: Clock) -> None:
        self.site = site
        self.paints = PaintReports(clock)
        self.channels: frozenset[str] = frozenset({EVERYTHING})
        self.farewell: tuple[int, str] | None = None
        """Why the client must go: a close code and its reason."""
        self.baseline = 0
        """Changes up to this one were replayed when the client connected."""
        self._limit = limit
        self._durable: deque[tuple[int, str, str]] = deque()
        self._captions: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._wake = asyncio.Event()

    def watches(self, channel: str) -> bool:
        return EVERYTHING in self.channels or channel in self.channels

    def put(self, text: str, change: int = 0, to_paint: str = "") -> None:
        """Queue a message.

        `change` 0: nothing that a replay would bring again. `to_paint`: the utterance id of a complete card.
        """
        if self.farewell is not None:
            return
        if len(self._durable) >= self._limit:
            EVICTED.inc()
            self.dismiss(*TOO_SLOW)
        else:
            self._durable.append((change, text, to_paint))
            self._wake.set()

    def put_caption(self, speaker: tuple[str, int], text: str) -> None:
        if self.farewell is not None:
            return
        if self._captions.pop(speaker, None) is not None:
            DROPPED.inc()
        self._captions[speaker] = text
        if len(self._captions) > MAX_CAPTIONS:
            self._captions.popitem(last=False)
            DROPPED.inc()
        self._wake.set()

    def dismiss(self, code: int, reason: str) -> None:
        """Have the client sent away by whoever takes its messages."""
        if self.farewell is None:
            self.farewell = (code, reason)
            self._durable.clear()
            self._captions.clear()
            self._wake.set()

    async def get(self) -> str | None:
        """The next message to send; None when the client must go, see `farewell`."""
        while True:
            if self.farewell is not None:
                return None
            while self._durable:
                change, text, to_paint = self._durable.popleft()
                if change == 0 or change > self.baseline:
                    if to_paint:
                        self.paints.pushed(to_paint)
                    return text
            if self._captions:
                return self._captions.popitem(last=False)[1]
            self._wake.clear()
            await self._wake.wait()


class Hub:
    """Implements `Live`, and shows captions. To be used from the event loop; nothing here waits."""

    def __init__(self, max_clients: int, queue_limit: int, clock: Clock) -> None:
        self._clock = clock
        self._max_clients = max_clients
        self._queue_limit = queue_limit
        self._sites: dict[str, set[Subscriber]] = {}
        self._count = 0
        self._vacated = asyncio.Event()
        self._vacated.set()
        self._listeners: list[Callable[[], None]] = []
        self._moving: deque[tuple[float, str, frozenset[str]]] = deque(maxlen=MAX_MOVING)
        self._said: OrderedDict[tuple[str, str, int], tuple[float, Caption]] = OrderedDict()

    @property
    def full(self) -> bool:
        return self._count >= self._max_clients

    @property
    def empty(self) -> bool:
        return self._count == 0

    def watched(self, site: str) -> bool:
        return site in self._sites

    def join(self, site: str) -> Subscriber:
        subscriber = Subscriber(site, self._queue_limit, self._clock)
        self._sites.setdefault(site, set()).add(subscriber)
        self._count += 1
        self._vacated.clear()
        CLIENTS.inc()
        self._looks_changed()
        self._recall(subscriber)
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        site = self._sites.get(subscriber.site, set())
        if subscriber not in site:
            return
        site.remove(subscriber)
        self._count -= 1
        CLIENTS.dec()
        if not site:
            del self._sites[subscriber.site]
        if subscriber.farewell is not None and subscriber.farewell[0] == WSCloseCode.SERVICE_RESTART:
            self._moving.append((self._clock.monotonic() + KEPT_S, subscriber.site, subscriber.channels))
        if self._count == 0:
            self._vacated.set()
        self._looks_changed()

    def watch(self, subscriber: Subscriber, channels: frozenset[str]) -> None:
        """From now on it wants the captions of these."""
        if channels != subscriber.channels:
            subscriber.channels = channels
            self._looks_changed()

    def on_watching(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever `watching` may have changed."""
        self._listeners.append(listener)

    def watching(self) -> Watching:
        """What somebody looks at now, or is about to look at from the other side."""
        sites = {
            site: frozenset[str]().union(*(each.channels for each in subscribers))
            for site, subscribers in self._sites.items()
        }
        for _, site, channels in self._moving:
            sites[site] = sites.get(site, frozenset()) | channels
        return Watching(
            sites={
                site: (EVERYTHING,) if EVERYTHING in channels or len(channels) > MAX_NAMED else tuple(sorted(channels))
                for site, channels in sites.items()
            }
        )

    def tend(self) -> None:
        """Forget pages that were sent to the other side some seconds ago. To be called now and then."""
        before, now = len(self._moving), self._clock.monotonic()
        while self._moving and self._moving[0][0] <= now:
            self._moving.popleft()
        if len(self._moving) < before:
            self._looks_changed()

    async def vacated(self) -> None:
        """Wait until nobody is connected."""
        await self._vacated.wait()

    def card(self, site: str, card: Card) -> None:
        self._send(site, lambda: CardEvent(card), card.change, card.utterance_id if card.insights else "")

    def task(self, site: str, task: Task, change: int) -> None:
        self._send(site, lambda: TaskEvent(task, change), change)

    def conversation(self, site: str, conversation: Conversation) -> None:
        self._send(site, lambda: ConversationEvent(conversation), conversation.change)

    def health(self, health: Health) -> None:
        text = text_of(HealthEvent(health))
        for site in self._sites.values():
            for subscriber in site:
                subscriber.put(text)

    def reset(self, site: str) -> None:
        """Have all pages of a site read everything anew: something of what they show is gone."""
        for speaker in [speaker for speaker in self._said if speaker[0] == site]:
            del self._said[speaker]
        for subscriber in self._sites.get(site, set()):
            subscriber.dismiss(WSCloseCode.SERVICE_RESTART, "Something was erased; connect again.")

    def caption(self, caption: Caption) -> None:
        self._remember(caption)
        site = self._sites.get(caption.site, set())
        watching = [each for each in site if caption.emergency or each.watches(caption.channel)]
        if not watching:
            return
        text = _written(caption)
        for subscriber in watching:
            if caption.emergency:
                subscriber.put(text)
            else:
                subscriber.put_caption((caption.conversation_id, caption.speaker), text)

    def behind(self, behind: Behind) -> None:
        told = BehindEvent(conversation_id=behind.conversation_id, channel=behind.channel, behind_ms=behind.behind_ms)
        self._send(behind.site, lambda: told, 0)

    def _remember(self, caption: Caption) -> None:
        """Keep the newest one of each speaker, for a page that connects meanwhile."""
        speaker = (caption.site, caption.conversation_id, caption.speaker)
        self._said.pop(speaker, None)
        self._said[speaker] = (self._clock.monotonic(), caption)
        if len(self._said) > MAX_SAID:
            self._said.popitem(last=False)

    def _recall(self, subscriber: Subscriber) -> None:
        """Give a page that connects what was said while it came from the other side."""
        since = self._clock.monotonic() - KEPT_S
        for (site, conversation_id, number), (at, caption) in self._said.items():
            if site == subscriber.site and at >= since:
                subscriber.put_caption((conversation_id, number), _written(caption))

    def _looks_changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _send(self, site: str, event: Callable[[], LiveEvent], change: int, to_paint: str = "") -> None:
        subscribers = self._sites.get(site)
        if not subscribers:
            return
        text = text_of(event())
        for subscriber in subscribers:
            subscriber.put(text, change, to_paint)


def _written(caption: Caption) -> str:
    values: dict[str, Any] = msgspec.structs.asdict(caption)
    del values["site"]
    return text_of(CaptionEvent(**values))
