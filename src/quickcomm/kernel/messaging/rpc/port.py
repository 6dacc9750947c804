"""Requests between modules, in one process or in several: a typed reply, or a typed error within the deadline."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from quickcomm.contracts.messaging import Request, name_of
from quickcomm.kernel.errors import BusyError, QuickCommError

R = TypeVar("R")
Answer = tuple[type[Request[Any]], Callable[[Any], Awaitable[Any]]]
"""A request type with its handler. A module lists all that it answers: `Sequence[Answer]`."""


class UnansweredError(BusyError):
    """No replica of the module answered; the same request may be answered later."""

    def __init__(self, request: Request[Any]) -> None:
        super().__init__(
            f"The {request.module} service is away: only it knows {request.about}. It comes back by itself; try again."
        )
        self.code = f"{request.module}.away"


class DeadlineError(UnansweredError):
    """A replica is there, but did not answer in time."""


class UnsupportedError(BusyError):
    """The process that was asked does not know this request: it runs another release."""

    code = "rpc.unsupported"

    def __init__(self, request: type[Request[Any]]) -> None:
        super().__init__(f"The {request.module} service does not know {name_of(request)!r}: it runs another release.")


class NotOwnerError(QuickCommError):
    """Raised by a handler: another replica has what the request is about."""

    code = "rpc.not_owner"


class Rpc(Protocol):
    async def call(self, request: Request[R]) -> R:
        """Ask any replica, or the owner.

        Raises:
            UnansweredError: no replica answered; `DeadlineError` where one took too long.
            UnsupportedError: the replicas run a release that does not know this request.
            QuickCommError: raised by the handler; it has the same `code` and base class as there.

        """
        ...

    async def call_all(self, request: Request[R]) -> Mapping[str, R | QuickCommError]:
        """Ask all replicas at once; return each one's reply or error by its name, the own one's as `HERE`."""
        ...

    def serve(self, answers: Sequence[Answer]) -> None:
        """Answer these requests from now on."""
        ...
