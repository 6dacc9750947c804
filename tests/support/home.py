"""The mark of a site in its store, which `up` writes before anything else is there; and what it moves there."""

from collections.abc import Sequence

from quickcomm.kernel.copier.copier import Copier
from quickcomm.kernel.copier.sql import SqlSource
from quickcomm.kernel.copier.valkey import Moved, ValkeyTarget
from quickcomm.kernel.messaging.bus.home import Home, HomeInStore
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.storage import Database

HOME = Home(id="site", whole=True)


async def mark(url: str, prefix: str = PREFIX) -> None:
    link = Link(url)
    try:
        await HomeInStore(link, prefix).write(HOME)
    finally:
        await link.aclose()


async def move(database: Database, url: str, moved: Sequence[Moved], prefix: str = PREFIX) -> None:
    """Copy tables into an empty store."""
    tables = [each.table for each in moved]
    link = Link(url)
    try:
        await Copier(SqlSource(database, tables), ValkeyTarget(link, f"{prefix}:copy", moved), tables).run()
    finally:
        await link.aclose()
