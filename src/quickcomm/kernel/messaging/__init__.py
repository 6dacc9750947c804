"""What modules say to each other, each kind with a form within a process and one between processes.

`kernel.bus` for events that must not be lost, `live` for what may be lost, `rpc` for an answer now. A module gets all
three as `Messaging`, and lists what it answers as data. See docs/architecture.md.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.messaging.bus import Bus
from quickcomm.kernel.messaging.live import LocalLive, Subscription
from quickcomm.kernel.messaging.rpc import Answer, LocalRpc


class Connected(Protocol):
    """A part of a process, as far as it is connected with others."""

    @property
    def answers(self) -> Sequence[Answer]: ...

    @property
    def subscriptions(self) -> Sequence[Subscription]: ...


class Messaging(msgspec.Struct, frozen=True, kw_only=True):
    """By what a module talks to others, whichever process they are in. One for all modules of a process."""

    bus: Bus
    live: LocalLive
    rpc: LocalRpc

    @classmethod
    def over(cls, bus: Bus, clock: Clock) -> "Messaging":
        return cls(bus=bus, live=LocalLive(), rpc=LocalRpc(clock))

    def connect(self, *parts: Connected) -> None:
        """Have these answer, and hear what they subscribe to."""
        for part in parts:
            self.rpc.serve(part.answers)
            self.live.subscribe(part.subscriptions)

    def disconnect(self, part: Connected) -> None:
        """Forget the handlers of a part that stops."""
        for kind, _ in part.answers:
            self.rpc.answers.pop(kind, None)
        self.live.unsubscribe(part.subscriptions)


__all__ = ["Messaging"]
