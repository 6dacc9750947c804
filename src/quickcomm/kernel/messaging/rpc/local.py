"""Requests to a module of the same process: a plain call. All others go over the wire, if there is one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar, cast

from quickcomm.contracts.messaging import EVERY, Request
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.rpc.port import Answer, DeadlineError, NotOwnerError, UnansweredError, UnsupportedError

R = TypeVar("R")
HERE: Final = "here"


class Elsewhere(Protocol):
    """Calls to other processes: `WireRpc`."""

    async def call(self, request: Request[R]) -> R: ...

    async def call_all(self, request: Request[R]) -> Mapping[str, R | QuickCommError]: ...


class LocalRpc:
    """Implements `Rpc`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answers: dict[type[Request[Any]], Answer] = {}
        self.elsewhere: Elsewhere | None = None
        """How modules of other processes are asked."""

    def serve(self, answers: Sequence[Answer]) -> None:
        self.answers |= {answer[0]: answer for answer in answers}

    async def call(self, request: Request[R]) -> R:
        if type(request) in self.answers:
            try:
                return await self.answer(request)
            except NotOwnerError as error:
                if self.elsewhere is None:
                    raise UnansweredError(request) from error
        if self.elsewhere is None:
            raise UnsupportedError(type(request))
        return await self.elsewhere.call(request)

    async def call_all(self, request: Request[R]) -> Mapping[str, R | QuickCommError]:
        if type(request) not in self.answers:
            return {} if self.elsewhere is None else await self.elsewhere.call_all(request)
        replies: dict[str, R | QuickCommError] = {}
        if request.module == EVERY and self.elsewhere is not None:
            replies |= await self.elsewhere.call_all(request)
        try:
            return replies | {HERE: await self.answer(request)}
        except QuickCommError as error:
            return replies | {HERE: error}

    async def answer(self, request: Request[R]) -> R:
        """Have the handler of this process answer. Raises what it raises, and `DeadlineError`."""
        _, handler = self.answers[type(request)]
        limit = self._clock.timeout(request.within_s)
        try:
            async with limit:
                return cast("R", await handler(request))
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineError(request) from error
