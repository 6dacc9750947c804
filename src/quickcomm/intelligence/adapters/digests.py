"""Answers the checker what was answered: sums and ids of utterances, a range at a time."""

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.checking import ANSWERED, Compare, CompareIntelligence, Contents
from quickcomm.intelligence.adapters.sql_results import results
from quickcomm.kernel.checking.gathering import Gathering, reach, within
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database


def digest_answer(database: Database) -> Answer:
    async def contents(request: CompareIntelligence) -> Contents:
        return await database.read(lambda connection: _gather(connection, request))

    return CompareIntelligence, contents


def _gather(connection: Connection, request: Compare) -> Contents:
    key = (results.c.site, results.c.utterance_id)
    gathering = Gathering(request, until := reach(connection, *key, request))
    query = sa.select(*key, sa.null(), results.c.at_ns).where(within(*key, request, until))
    gathering.add(ANSWERED, connection.execute(query))
    return gathering.contents()
