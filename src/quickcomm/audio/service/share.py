"""The share of all conversations that this side has, by the routes that it follows while audio moves."""

from itertools import count, islice
from typing import Final

from quickcomm.contracts.identity import BUCKETS
from quickcomm.contracts.routes import MONOLITH, SERVICE, Mode, Side
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.routing import FollowedRoutes

MODULE: Final = "audio"
TRIES: Final = 20 * BUCKETS
"""Even of the least share, one bucket, an id is all but certain to be among so many."""


class ElsewhereError(BusyError):
    """The routes give the conversation to the other side."""

    code = "audio.elsewhere"


class LedBackError(ElsewhereError):
    """There was no room here, and the routes give the conversation to the other side by now."""


class Share:
    """`routes`: None where nothing moves, and everything belongs to this side.

    `channel`: that by which the edge chose the side of a client; empty where it knows none (`OpenRequest.sent_on`).
    """

    def __init__(self, side: Side = MONOLITH, routes: FollowedRoutes | None = None) -> None:
        self.side = side
        self._routes = routes

    @property
    def moves(self) -> bool:
        return self._routes is not None

    @property
    def standing(self) -> tuple[int, bool]:
        """Return the version of the routes that this goes by, and whether the edge has them in force."""
        return self.version, self._in_force

    @property
    def version(self) -> int:
        """Return the version of the routes that this goes by."""
        return 0 if self._routes is None else self._routes.routes.version

    @property
    def copied(self) -> bool:
        """Return True while the other side hears some of what this one serves, too, to be compared."""
        return self._mode == "canary" or (self._mode == "shadow" and self.side == MONOLITH)

    @property
    def shadows(self) -> bool:
        """Return True while this side hears some of what the other one serves."""
        return self._mode == "canary" or (self._mode == "shadow" and self.side == SERVICE)

    def has(self, conversation_id: str, channel: str = "") -> bool:
        """Return True if the routes give a conversation to this side."""
        return self._routes is None or self._routes.routes.side(MODULE, conversation_id, channel=channel) == self.side

    def is_apart(self, conversation_id: str) -> bool:
        """Return True if the routes name this conversation itself."""
        return self._routes is not None and conversation_id in self._routes.routes.of(MODULE).overrides

    def gives_up(self, conversation_id: str, channel: str = "") -> bool:
        """Return True if the routes give it to the other side, and the edge sends its client there already."""
        return not self.has(conversation_id, channel) and self._in_force

    async def check(self, conversation_id: str, sent_by: int | None, channel: str = "") -> None:
        """Raise `ElsewhereError` where the other side has to let this client in.

        `sent_by`: the version of the routes by which the edge has chosen this side; None where no edge was asked. What
        comes by older routes than this process follows is taken until the edge has the newer ones, and then given up:
        so a client always finds a side that takes it. Raises `BusUnavailableError`.
        """
        await self._catch_up(sent_by)
        if not self.has(conversation_id, channel) and not self._sent_by_older(sent_by):
            raise ElsewhereError("The other side has this conversation. Connect again: the way leads there by now.")

    async def check_any(self, sent_by: int | None) -> None:
        """As `check`, of a conversation that gets its id from this side. Raises `ElsewhereError` without a share."""
        await self._catch_up(sent_by)
        if self._has_none and not self._sent_by_older(sent_by):
            raise ElsewhereError("The other side has all conversations. Connect again: the way leads there by now.")

    def own_id(self, name: str) -> str:
        """Return an id of this side's share: the name, else the name with the first number behind it that makes one.

        The name itself where there is none: it was let in while the edge still had older routes.
        """
        numbered = (f"{name}.{number}" for number in islice(count(1), TRIES))
        if self.has(name) or self._has_none:
            return name
        return next(filter(self.has, numbered), name)

    # -- inside -----------------------------------------------------------------------------------------------------

    @property
    def _mode(self) -> Mode:
        return "off" if self._routes is None else self._routes.routes.of(MODULE).mode

    @property
    def _in_force(self) -> bool:
        return self._routes is not None and self._routes.in_force >= self._routes.routes.version

    @property
    def _has_none(self) -> bool:
        if self._routes is None:
            return False
        return self._routes.routes.of(MODULE).weight == (0 if self.side == SERVICE else BUCKETS)

    def _sent_by_older(self, sent_by: int | None) -> bool:
        return sent_by is not None and sent_by < self.version and not self._in_force

    async def _catch_up(self, sent_by: int | None) -> None:
        """Take the routes of the store where the edge has newer ones than this process."""
        if self._routes is not None and sent_by is not None and sent_by > self.version:
            await self._routes.catch_up()
