"""Which side's intelligence answers a conversation: stamped into its transcripts, and changed when the routes change.

Where nothing is unanswered, a conversation changes sides with its next utterance. Else this process gives it to the
other side, with what is unanswered: to the monolith at once, to the service after some seconds.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import structlog

from quickcomm.audio.adapters.redis_rows import SessionNames
from quickcomm.contracts.routes import Routes
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.port import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_assignments import REASSIGN, UNANSWERED, UNSTAMPED, AssignmentNames
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import Names
from quickcomm.kernel.routing import FollowedRoutes
from quickcomm.kernel.routing.redis import RouteNames

MODULE: Final = "intelligence"
LOOK_EVERY_S: Final = 1.0
BEHIND_AT_MOST: Final = 5
NOWHERE: Final[tuple[Argument, ...]] = ("", 0, "")
Publish = Callable[[Sequence[Argument]], Awaitable[tuple[Any, bool]]]
_REASSIGN: Final = Script(REASSIGN)
_UNANSWERED: Final = Script(UNANSWERED)

log = structlog.get_logger(__name__)


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    """How intelligence moves: by these routes."""

    routes: FollowedRoutes
    step_s: float = 0.0
    """How long the monolith may finish what it has of a conversation that the service is to get."""


class Sides:
    """`moves`: None where nothing moves."""

    def __init__(self, link: Link, prefix: str, clock: Clock, moves: Moves | None = None) -> None:
        routes = None if moves is None else moves.routes
        self._link = link
        self._clock = clock
        self._routes = routes
        self._step_s = 0.0 if moves is None else moves.step_s
        self._bus = Names(prefix)
        self._names = AssignmentNames(prefix)
        self._sessions = SessionNames(prefix)
        self._routes_key = RouteNames(prefix).routes
        self._changed = asyncio.Event()
        self._version = -1
        self._since = -math.inf
        """When this version of the routes was first seen; those of the start are as old as can be."""
        if routes is not None:
            routes.on_change(self._wake)

    # -- for the script that publishes ------------------------------------------------------------------------------

    async def publish(self, call: Publish, conversation_id: str, channel: str, site: str) -> tuple[Any, bool]:
        """Have `call` run the script with its further arguments: the wanted side, by the newest routes.

        Overrides of channels and sites are resolved here, for each conversation, since here both are known.
        Raises `BusUnavailableError` where the routes change again and again meanwhile.
        """
        if self._routes is None:
            return await call(NOWHERE)
        routes = self._routes.routes
        for _ in range(BEHIND_AT_MOST):
            side = routes.side(MODULE, conversation_id, channel=channel, site=site)
            by = (side, routes.version, self._routes_key)
            answer, repeated = await call(by)
            if answer[0] != b"behind":
                return answer, repeated
            routes = await self._routes.known()
        raise BusUnavailableError("The routes change too fast; the utterance is kept and tried again.")

    def keys(self, name: str) -> list[str]:
        """Return the further keys of the script."""
        return [] if self._routes is None else [self._names.unanswered, self._names.assignment(name)]

    def unstamped(self, tail: bytes) -> bytes:
        """Return the end of a transcript without the fields that the script adds."""
        if self._routes is None:
            return tail
        before, found, after = tail.partition(UNSTAMPED)
        assert found, "the message has an owner, and another field behind it"  # noqa: S101 - a programming error
        return before + after

    # -- what is unanswered -----------------------------------------------------------------------------------------

    async def reassign_forever(self) -> None:
        """Give conversations to the side that the routes say, until cancelled: what does not go there by itself."""
        while self._routes is not None:
            self._changed.clear()
            try:
                left = await self.reassign(self._routes.routes)
            except QuickCommError as error:
                log.warning("understanding.not_reassigned", error=str(error))
                left = 1
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(LOOK_EVERY_S if left else None):
                    await self._changed.wait()
        await asyncio.Event().wait()

    async def reassign(self, routes: Routes) -> int:
        """Reassign what is due now; return how many conversations are still on the other side."""
        is_old = self._clock.monotonic() - self._since >= self._step_s
        left = 0
        prefixes = (self._names.assignments, self._sessions.conversation(""))
        found = await self._link.run(_UNANSWERED, [self._names.unanswered], *prefixes)
        for raw, side, channel in zip(found[::3], found[1::3], found[2::3], strict=True):
            name = raw.decode()
            site, _, conversation_id = name.partition(":")
            wanted = routes.side(MODULE, conversation_id, channel=channel.decode(), site=site)
            if side.decode() == wanted:
                continue
            if wanted == routes.of(MODULE).candidate and not is_old:
                left += 1
            else:
                left += await self._reassign(name, wanted, routes.version) < 0
        return left

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _reassign(self, name: str, wanted: str, version: int) -> int:
        """Return how many utterances went along; -1 where the store has newer routes."""
        key = name.partition(":")[2]
        keys = (self._names.unanswered, self._names.assignment(name), self._bus.of_key(TRANSCRIPTS, key))
        count: int = await self._link.run(_REASSIGN, keys, self._routes_key, version, name, key, wanted)
        if count > 0:
            log.info("understanding.reassigned", conversation=key, side=wanted, utterances=count)
        return count

    async def _wake(self) -> None:
        version = 0 if self._routes is None else self._routes.routes.version
        if version != self._version:
            self._version, self._since = version, self._clock.monotonic()
        self._changed.set()
