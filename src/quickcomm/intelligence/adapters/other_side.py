"""While intelligence moves, each side asks the other one, each second, what it lacks: prompts, and what was spent.

Prompts are changed on the side that decides; the other one follows. Spending is counted on both, in rows of each side,
so that both know the sum and keep to the day's cap. What is followed is asked for by what is stored: nothing has to be
remembered, and a message more or less changes nothing. See docs/adr/0043.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol, TypeVar

import msgspec
import structlog

from quickcomm.contracts.messaging import Request
from quickcomm.contracts.routes import Side
from quickcomm.intelligence.adapters.sql_prompts import PromptChanges, SqlPrompts
from quickcomm.intelligence.adapters.sql_usage import SpentBySide, SqlUsage
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError

EVERY_S: Final = 1.0
ELSEWHERE: Final = "Prompts are changed on the other side of the migration."

R = TypeVar("R")
log = structlog.get_logger(__name__)


class SideNews(msgspec.Struct, frozen=True, kw_only=True):
    """What one side has that the other one may lack."""

    side: Side
    prompts: PromptChanges
    spent: SpentBySide


class GetSideNews(Request[SideNews], frozen=True, kw_only=True, tag="intelligence.news"):
    """Asks a side for prompts changed, and for what it has spent, since then."""

    module: ClassVar = "intelligence"
    callers: ClassVar = ("intelligence",)
    about: ClassVar = "prompts and costs of its side"

    prompts_since_ns: int
    spent_since_ns: int


class Processes(Protocol):
    """All processes of other sides, and of this one: `WireRpc`."""

    async def call_all(self, request: Request[R]) -> Mapping[str, R | QuickCommError]: ...


class OtherSide:
    def __init__(self, prompts: SqlPrompts, usage: SqlUsage, ownership: Ownership, clock: Clock) -> None:
        self._prompts = prompts
        self._usage = usage
        self._ownership = ownership
        self._clock = clock
        self._decided = False

    def answers(self, own: Sequence[Answer], processes: Callable[[], Processes | None]) -> Sequence[Answer]:
        """Return the answers to the other side's question, and `own`, about prompts, while this side decides."""

        async def news(request: GetSideNews) -> SideNews:
            return SideNews(
                side=self._ownership.side,
                prompts=await self._prompts.changes_since(request.prompts_since_ns),
                spent=await self._usage.spent_since(request.spent_since_ns),
            )

        def guarded(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
            async def handle(request: Any) -> Any:
                if not await self._decides(processes()):
                    raise NotOwnerError(ELSEWHERE)
                return await handler(request)

            return handle

        return [(GetSideNews, news), *((kind, guarded(handler)) for kind, handler in own)]

    async def run(self, processes: Callable[[], Processes | None]) -> None:
        """Follow until cancelled, while there is another side."""
        while True:
            try:
                if self._ownership.has_other:
                    await self.look(processes(), prompts=not await self._ownership.decides())
            except QuickCommError as error:
                log.warning("other_side.not_followed", error=str(error)[:200])
            await self._clock.sleep(EVERY_S)

    async def look(self, processes: Processes | None, *, prompts: bool) -> None:
        """Take over what the other side has spent; `prompts`: and what it has changed. It may not run."""
        if processes is None:
            return
        request = GetSideNews(
            prompts_since_ns=await self._prompts.followed_until(),
            spent_since_ns=await self._usage.followed_until(self._ownership.other),
        )
        for reply in (await processes.call_all(request)).values():
            if isinstance(reply, QuickCommError) or reply.side != self._ownership.other:
                continue
            if prompts:
                await self._prompts.follow(reply.prompts)
            await self._usage.follow(reply.side, reply.spent)
            return  # the processes of a side have one database

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _decides(self, processes: Processes | None) -> bool:
        """Return True if this side decides; when that is new, once it has what the other one had changed."""
        decides = await self._ownership.decides()
        if decides and not self._decided:
            await self.look(processes, prompts=True)
        self._decided = decides
        return decides
