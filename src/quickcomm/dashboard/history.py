"""Serves the dashboard's tables to the dashboard of another process, which begins with what they have.

A part of the process that has the database: that of a former monolith, or of the other side of a migration.
"""

from functools import partial

from quickcomm.dashboard import backfill
from quickcomm.kernel.copier.http import copy_routes
from quickcomm.kernel.internal import MONOLITH
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.part import Part


def build(context: Context) -> Part:
    site, trust = context.site_store, context.trust
    assert site is not None, "this process has the site's file open"  # noqa: S101 - a programming error
    assert trust is not None, "it is one of several"  # noqa: S101 - a programming error
    return Part(
        name="history",
        open=partial(backfill.prepare_source, site),
        routes=copy_routes(backfill.source(site), lambda request: trust.require(request, "dashboard", MONOLITH)),
        purge=partial(backfill.purge_source, site),
    )
