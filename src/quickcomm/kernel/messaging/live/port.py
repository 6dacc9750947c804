"""Messages that are pushed at once and may be lost, in one process or between several."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgspec

from quickcomm.contracts.messaging import Topic, name_of
from quickcomm.kernel.errors import QuickCommError

T = TypeVar("T", bound=Topic)


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A process from which messages come: `HERE`, or another one."""

    module: str
    name: str


HERE: Final = Peer(module="", name="")
Subscription = tuple[type[Topic], Callable[[Any, Peer], None]]
"""A topic with its handler, which must not wait. A module lists all that it subscribes to: `Sequence[Subscription]`."""


class LostError(QuickCommError):
    """The connection to a peer ended; it is opened again."""

    code = "live.lost"
    retryable = True


class UnsupportedTopicError(QuickCommError):
    """A peer does not know a topic: it runs another release."""

    code = "live.unsupported"

    def __init__(self, topic: type[Topic] | str, peer: Peer) -> None:
        name = topic if isinstance(topic, str) else name_of(topic)
        super().__init__(f"{peer.name} does not publish {name!r}: it runs another release.")
        self.topic = name


class Live(Protocol):
    """Of a module in one process: nothing here waits."""

    def publish(self, message: Topic) -> None:
        """Push to all subscribers. Where one does not keep up, state is replaced, and the oldest events are dropped."""
        ...

    def subscribe(self, subscriptions: Sequence[Subscription]) -> None:
        """Have handlers called, at once with the state of topics that are replayed. Before connections are opened."""
        ...

    def on_error(self, handler: Callable[[Peer, QuickCommError], None]) -> None:
        """Have `handler` called where a peer was lost (`LostError`) or lacks a topic (`UnsupportedTopicError`)."""
        ...
