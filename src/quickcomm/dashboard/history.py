"""Serves what a site's dashboard kept as a part of the monolith to the dashboard that is a service of its own.

A part of the process that has the monolith's database.
"""

import structlog

from quickcomm.dashboard import backfill
from quickcomm.kernel.copier.http import copy_routes
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.part import Part

log = structlog.get_logger(__name__)


def build(context: Context) -> Part:
    site, trust = context.site_store, context.trust
    assert site is not None, "this process has the site's file open"  # noqa: S101 - a programming error
    assert trust is not None, "it is one of several"  # noqa: S101 - a programming error

    async def purge(before_ns: int) -> None:
        """Apply the retention to what stays behind, too."""
        try:
            await backfill.purge_source(site, before_ns)
        except QuickCommError as error:
            log.warning("history.not_purged", error=str(error))

    return Part(
        name="history",
        open=lambda: backfill.prepare_source(site),
        routes=copy_routes(backfill.source(site), lambda request: trust.require(request, "dashboard")),
        purge=purge,
    )
