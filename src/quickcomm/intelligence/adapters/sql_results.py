"""The result store in SQL: what is remembered and what goes to the bus are one transaction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.kernel.bus.sql import append
from quickcomm.kernel.storage import Database

MIGRATIONS: Final = Path(__file__).with_name("migrations")
results = sa.Table(
    "intelligence_results",
    sa.MetaData(),
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("utterance_id", sa.String, primary_key=True),
    sa.Column("revision", sa.Integer),
    sa.Column("at_ns", sa.BigInteger),
)


class SqlResults:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def known(self, utterances: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        query = sa.select(results.c.site, results.c.utterance_id).where(
            results.c.utterance_id.in_([identifier for _, identifier in utterances])
        )

        def run(connection: Connection) -> set[tuple[str, str]]:
            return {(row.site, row.utterance_id) for row in connection.execute(query)}

        return await self._database.read(run)

    async def publish(self, found: Sequence[InsightsFound]) -> None:
        def run(connection: Connection) -> None:
            for item in found:
                row = {
                    "site": item.site,
                    "utterance_id": item.utterance_id,
                    "revision": item.revision,
                    "at_ns": item.published_ns,
                }
                if connection.execute(insert(results).values(row).on_conflict_do_nothing()).rowcount:
                    append(connection, INSIGHTS, item.conversation_id, msgspec.json.encode(item))

        await self._database.write(run)

    async def purge(self, before_ns: int) -> None:
        await self._database.write(lambda connection: connection.execute(_old(before_ns)))


def _old(before_ns: int) -> sa.Delete:
    return results.delete().where(results.c.at_ns < before_ns)
