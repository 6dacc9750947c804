"""What every bus promises.

Messages with the same key keep their order; each group sees every message at least once; a message that keeps
failing goes to the dead letters with its reason and lets the ones behind it pass.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from quickcomm.contracts.checking import Standing, Waiting
from quickcomm.contracts.erasing import Erased, Scope, Wanted
from quickcomm.kernel.errors import BusyError, QuickCommError


class RejectedError(QuickCommError):
    """Raised by a handler for a message that no retry can help: straight to the dead letters."""

    code = "bus.rejected"


class BusUnavailableError(QuickCommError):
    """The server behind the bus does not answer, or refuses; the same call may succeed later."""

    code = "bus.unavailable"
    retryable = True
    outside = "The site's store does not answer just now. Nothing is wrong with what you sent: try again in a moment."


class BusFullError(BusyError):
    """So much waits to be handled that no more is taken. Nothing was published: keep it and try again."""

    code = "bus.full"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message as a group gets it. `attempt` counts from 1; `fresh`: certainly never given to the group before."""

    message_id: int
    stream: str
    key: str
    payload: bytes
    attempt: int = 1
    fresh: bool = False


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be handled, and why."""

    id: int
    stream: str
    group: str
    key: str
    payload: bytes
    reason: str
    attempts: int
    at_ns: int


Handler = Callable[[Sequence[Delivery]], Awaitable[None]]
"""Handles a batch in order; raising means none of it is acknowledged."""


Alarms = tuple[tuple[str, str], ...]
"""Codes, and words for an operator."""


class Bus(Protocol):
    async def publish(self, stream: str, key: str, payload: bytes) -> None:
        """Return once the message is durable. Raises `BusFullError` and `BusUnavailableError`."""
        ...

    async def subscribe(self, stream: str, group: str, handler: Handler, *, overlap: int = 1) -> None:
        """Register the group and deliver to it until cancelled.

        `overlap`: so many batches of a partition may be in hand at once. They are begun in order and acknowledged in
        order: a crash brings again all from the first that was not finished. A handler that is given more than one
        keeps the order of a key itself, where it matters; a message that fails and is tried again may come after
        later ones.
        """
        ...

    async def dead_letters(self) -> list[DeadLetter]: ...

    async def replay(self, dead_letter_id: int) -> None:
        """Put a dead letter back for its group. Raises `NotFoundError`."""
        ...

    async def drop(self, dead_letter_id: int) -> None:
        """Forget a dead letter. Raises `NotFoundError`."""
        ...


class WholeBus(Bus, Protocol):
    """A bus as the process that runs it has it in hand."""

    def migrate(self) -> None:
        """At start-up, before anything is written."""
        ...

    async def maintain(self) -> None:
        """What it needs to be done beside its users, until cancelled."""
        ...

    async def find(self, wanted: Wanted) -> set[str]:
        """Return the ids of utterances in messages that a name or a time stands for, dead letters included."""
        ...

    async def erase(self, scope: Scope, *, traces: bool = True) -> list[Erased]:
        """Delete messages and dead letters with words of the scope, also those that a consumer has not handled yet.

        `traces`: also what they leave behind in files.
        """
        ...

    async def backlog(self) -> dict[str, int]:
        """Messages not yet acknowledged, by `stream/group`."""
        ...

    async def waiting(self) -> list[Waiting]:
        """As `backlog`, without groups that wait for nothing, and with when the first message was published."""
        ...

    async def standing(self, key: str, utterance_id: str) -> list[Standing]:
        """Return how far each group is in the partitions of a key, and whether it has handled an utterance.

        `utterance_id`: empty for any message of the key.
        """
        ...

    async def answer_ms(self) -> float | None:
        """Return how long the server takes to answer now, in ms; None where there is none."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why nothing is handled now, in words for an operator."""
        ...

    @property
    def alarms(self) -> Alarms:
        """What an operator must know of it: `trouble`, dead letters, no memory left."""
        ...

    async def aclose(self) -> None:
        """After the last use. May be called again."""
        ...
