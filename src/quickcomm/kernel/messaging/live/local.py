"""The live channel within a process: publishing calls the subscribers. `WireLive` joins it with that of others."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Final

from quickcomm.contracts.messaging import Topic
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.live.port import HERE, Peer, Subscription

MAX_KEYS: Final = 1_024


class LocalLive:
    """Implements `Live`."""

    def __init__(self) -> None:
        self._handlers: dict[type[Topic], list[Callable[[Any, Peer], None]]] = {}
        self._state: dict[type[Topic], OrderedDict[Hashable, Topic]] = {}
        self._on_error: list[Callable[[Peer, QuickCommError], None]] = []
        self.forward: Callable[[Topic], None] | None = None
        """Sends to subscribers in other processes."""

    @property
    def subscribed(self) -> frozenset[type[Topic]]:
        """Return the topics with a handler here."""
        return frozenset(self._handlers)

    def state(self) -> Iterator[Topic]:
        """Iterate over the state of all topics that are replayed, as published here."""
        for known in self._state.values():
            yield from known.values()

    def publish(self, message: Topic) -> None:
        topic = type(message)
        if topic.replayed:
            known = self._state.setdefault(topic, OrderedDict())
            known[message.key()] = message
            if len(known) > MAX_KEYS:
                known.popitem(last=False)
        self.deliver(message, HERE)
        if self.forward is not None:
            self.forward(message)

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        for topic, handler in subscriptions:
            self._handlers.setdefault(topic, []).append(handler)
            for message in self._state.get(topic, {}).values():
                handler(message, HERE)

    def unsubscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Call these handlers no more."""
        for topic, handler in subscriptions:
            left = [each for each in self._handlers.pop(topic, ()) if each != handler]
            if left:
                self._handlers[topic] = left

    def on_error(self, handler: Callable[[Peer, QuickCommError], None]) -> None:
        self._on_error.append(handler)

    def deliver(self, message: Topic, peer: Peer) -> None:
        """Call the handlers of this process."""
        for handler in self._handlers.get(type(message), ()):
            handler(message, peer)

    def failed(self, peer: Peer, error: QuickCommError) -> None:
        """Report a peer that was lost, or lacks a topic."""
        for handler in self._on_error:
            handler(peer, error)
