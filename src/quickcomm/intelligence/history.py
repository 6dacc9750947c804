"""Serves what intelligence has in the database of a monolith to the intelligence that moves out of it.

A part of the process that has that database.
"""

from typing import Final

from quickcomm.intelligence.adapters.history import WARM
from quickcomm.kernel.copier.http import copy_routes
from quickcomm.kernel.copier.sql import SqlSource
from quickcomm.kernel.internal import MONOLITH
from quickcomm.kernel.runtime.app import Context
from quickcomm.kernel.runtime.part import Part

PATH: Final = "/internal/v1/intelligence/backfill"


def build(context: Context) -> Part:
    site, trust = context.site_store, context.trust
    assert site is not None, "this process has the site's file open"  # noqa: S101 - a programming error
    assert trust is not None, "it is one of several"  # noqa: S101 - a programming error
    routes = copy_routes(SqlSource(site, WARM), lambda request: trust.require(request, "intelligence", MONOLITH), PATH)
    return Part(name="warm", routes=routes)
