"""What a site's dashboard kept while it was a part of the monolith: served to the one that is a service of its own.

Whoever has the monolith's database does this, and needs the dashboard's code for it; where that is not installed, there
is nothing to be served.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import structlog
from aiohttp import web

from quickcomm.kernel.errors import QuickCommError

if TYPE_CHECKING:
    from quickcomm.kernel.storage import Database

DASHBOARD: Final = "quickcomm.dashboard"

log = structlog.get_logger(__name__)


class Earlier:
    """`open` before it is served."""

    def __init__(self, site: "Database") -> None:
        self._site = site
        self._known = importlib.util.find_spec(DASHBOARD) is not None

    def open(self) -> None:
        """Bring the tables to this version."""
        if self._known:
            from quickcomm.dashboard import backfill  # noqa: PLC0415 - where it is installed

            backfill.prepare_source(self._site)
        else:
            log.warning("history.not_served", because="the dashboard's code is not installed here")

    def routes(self, admit: Callable[[web.Request], object]) -> Sequence[web.AbstractRouteDef]:
        """`admit` raises where the caller may not ask."""
        if not self._known:
            return []
        from quickcomm.dashboard import backfill  # noqa: PLC0415 - as above

        return backfill.routes(self._site, admit)

    async def purge(self, before_ns: int) -> None:
        """The retention holds for what stays behind, too."""
        if not self._known:
            return
        from quickcomm.dashboard import backfill  # noqa: PLC0415 - as above

        try:
            await backfill.purge_source(self._site, before_ns)
        except QuickCommError as error:
            log.warning("history.not_purged", error=str(error))
