"""Shows pages what any process of a shared database has committed, in the order of the changes."""

import asyncio
from typing import Final, Protocol

import structlog

from quickcomm.dashboard.model.places import After
from quickcomm.dashboard.model.views import Card, Conversation, Task
from quickcomm.dashboard.ports import Live, Page, Queries, UtteranceFilter
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError

LOOK_EVERY_S: Final = 0.2
"""For what other processes commit; what this one commits is shown at once."""
TOGETHER: Final = 200
RETRY_S: Final = 1.0

log = structlog.get_logger(__name__)


class Audience(Live, Protocol):
    """Pages, by the site they look at."""

    def watched(self, site: str) -> bool:
        """Return True if there is a page of the site."""
        ...


class Follower:
    """A `Live` for the process that commits: it is only told that there is something, and reads what that is.

    A page so gets all changes in their order, whichever process has made them: the newest one that it has seen is a
    point behind which nothing is missing.
    """

    def __init__(self, queries: Queries, audience: Audience, clock: Clock) -> None:
        self._queries = queries
        self._audience = audience
        self._clock = clock
        self._wake = asyncio.Event()
        self._waits = False
        self._shown: dict[str, int] | None = None
        """The newest change that pages were shown, by site; None before the first look."""

    def card(self, site: str, card: Card) -> None:  # noqa: ARG002 - as `Live` has it
        self._wake.set()

    def task(self, site: str, task: Task, change: int) -> None:  # noqa: ARG002
        self._wake.set()

    def conversation(self, site: str, conversation: Conversation) -> None:  # noqa: ARG002
        self._wake.set()

    async def run(self) -> None:
        """Look for changes until cancelled."""
        while True:
            try:
                await self.look()
            except QuickCommError as error:  # the database is away: pages get it when it is back
                if not self._waits:
                    log.warning("following.waits", error=str(error))
                self._waits = True
                await self._clock.sleep(RETRY_S)
                continue
            self._waits = False
            try:
                async with self._clock.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Show what has changed since the last look. At the first one, nothing: a page is replayed what it lacks."""
        self._wake.clear()
        newest = await self._queries.changes()
        if self._shown is None:
            self._shown = newest
            return
        for site, change in newest.items():
            shown = self._shown.get(site, 0)
            while shown < change and self._audience.watched(site):
                shown = await self._show(site, shown)
            self._shown[site] = max(shown, change)

    async def _show(self, site: str, shown: int) -> int:
        """Show changes after `shown`; return the one up to which that were all."""
        page = Page(limit=TOGETHER, after=After(change=shown))
        cards = await self._queries.utterances(site, UtteranceFilter(), page)
        conversations = await self._queries.conversations(site, None, None, page)
        up_to = min(found.after.whole for found in (cards, conversations) if found.after is not None)
        changed: list[Card | Conversation] = [*cards.items, *conversations.items]
        for one in sorted(changed, key=lambda item: item.change):
            if one.change > up_to:
                break
            if isinstance(one, Card):
                self._audience.card(site, one)
                for task in one.tasks:
                    self._audience.task(site, task, one.change)
            else:
                self._audience.conversation(site, one)
        return up_to
