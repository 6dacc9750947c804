"""Which conversations this side answers while intelligence moves between a monolith and a service.

An utterance has its side in its stamp. What is done of a conversation later, summaries and renewed insights, is done by
the side that the routes say.
"""

import contextlib
from typing import Final

from quickcomm.contracts.routes import MONOLITH, ModuleRoute, Side, group_of
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.intelligence.ports import Assignments
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.routing import FollowedRoutes

MODULE: Final = "intelligence"


class Ownership:
    def __init__(
        self, side: Side = MONOLITH, routes: FollowedRoutes | None = None, assignments: Assignments | None = None
    ) -> None:
        """`routes` and `assignments`: None where nothing moves, and this side has all conversations."""
        self.side = side
        self._routes = routes
        self._assignments = assignments

    @property
    def moves(self) -> bool:
        return self._routes is not None

    def group(self, name: str) -> str:
        """Return the name of a consumer group on this side."""
        return group_of(name, self.side) if self.moves else name

    def answers(self, message: UtteranceTranscribed) -> bool:
        """Return True if this side is to find the insights of an utterance."""
        return not self.moves or message.owner == self.side

    def has(self, site: str, conversation_id: str, channel: str) -> bool:
        """Return True if the routes give a conversation to this side."""
        if self._routes is None:
            return True
        return self._routes.routes.side(MODULE, conversation_id, channel=channel, site=site) == self.side

    @property
    def shadows(self) -> bool:
        """Return True while this side understands some of what the other one answers, to be compared.

        A service does in the shadow; both sides do while both serve.
        """
        if self._routes is None:
            return False
        route = self._routes.routes.of(MODULE)
        return route.mode == "canary" or (route.mode == "shadow" and self.side == route.candidate)

    async def decides(self) -> bool:
        """Return True if prompts are changed on this side, by the newest routes that can be read."""
        if self._routes is None:
            return True
        routes = self._routes.routes
        with contextlib.suppress(QuickCommError):  # then by those that it follows
            known = await self._routes.known()
            routes = known if known.version > routes.version else routes
        return routes.of(MODULE).decides == self.side

    @property
    def has_other(self) -> bool:
        """Return True while there are two sides, by the routes that are followed."""
        return self._routes is not None and self._routes.routes.of(MODULE).mode != "off"

    @property
    def other(self) -> Side:
        route = ModuleRoute() if self._routes is None else self._routes.routes.of(MODULE)
        return route.other(self.side)

    async def epoch(self, site: str, conversation_id: str) -> int | None:
        """Return the epoch by which this side can answer now; None: the other side still has the conversation.

        0 where nobody knows of an epoch: any answer is accepted. Raises `BusUnavailableError`.
        """
        if self._assignments is None:
            return 0
        found = await self._assignments.of(site, conversation_id)
        if found is None:
            return 0
        return found.epoch if found.side == self.side else None

    async def aclose(self) -> None:
        """May be called again."""
        if self._assignments is not None:
            await self._assignments.aclose()
