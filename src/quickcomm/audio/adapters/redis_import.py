"""Conversations from SQL to Valkey, with all that a client may still ask for. Nobody may use either meanwhile."""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from quickcomm.audio.adapters.redis_rows import SessionNames, offsets
from quickcomm.audio.adapters.redis_sessions import REPLAY_S
from quickcomm.audio.adapters.tables import OPEN_STATES, conversations, events
from quickcomm.audio.model.checkpoint import decode_checkpoints
from quickcomm.kernel.bus.redis_link import Argument, Link
from quickcomm.kernel.bus.redis_names import PREFIX
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.storage import Database

PAGE: Final = 64
TOGETHER: Final = 500
OWNER: Final = "monolith#before"
"""So that the next monolith adopts them."""
NS: Final = 1_000_000_000


async def move(database: Database, url: str, clock: Clock, *, prefix: str = PREFIX) -> int:
    """How many conversations. May be done again; what is there already is written anew."""
    link = Link(url)
    try:
        return await _Move(database, link, SessionNames(prefix), clock.now_ns()).run()
    finally:
        await link.aclose()


class _Move:
    def __init__(self, database: Database, link: Link, names: SessionNames, now_ns: int) -> None:
        self._database = database
        self._link = link
        self._names = names
        self._now_ns = now_ns

    async def run(self) -> int:
        count = 0
        after = ("", "")
        while rows := await self._page(after):
            for row in rows:
                await self._conversation(row)
            count += len(rows)
            after = (rows[-1].site, rows[-1].conversation_id)
        return count

    async def _page(self, after: tuple[str, str]) -> Sequence[sa.Row[Any]]:
        place = sa.tuple_(conversations.c.site, conversations.c.conversation_id)
        query = sa.select(conversations).where(place > after).order_by(*place.clauses).limit(PAGE)
        return await self._database.read(lambda connection: connection.execute(query).all())

    async def _conversation(self, row: sa.Row[Any]) -> None:
        name = f"{row.site}:{row.conversation_id}"
        where = offsets(decode_checkpoints(row.checkpoints))
        fields = row._asdict() | {"owner": OWNER, "version": 1, "offsets": where, "base": 0}
        await self._link.call("HSET", self._names.conversation(name), *(x for pair in fields.items() for x in pair))
        is_open = row.state in OPEN_STATES
        await self._link.call("ZADD", self._names.open if is_open else self._names.closed, row.updated_ns, name)
        left_s = REPLAY_S - (self._now_ns - row.updated_ns) // NS
        if is_open:
            await self._log(row, name)
        elif left_s > 0:
            for key in await self._log(row, name):
                await self._link.call("EXPIRE", key, left_s)

    async def _log(self, row: sa.Row[Any], name: str) -> tuple[str, str]:
        """The event log and what is in it."""
        log, said = self._names.log(name), self._names.said(name)
        await self._link.call("DEL", log, said)
        where = sa.and_(events.c.site == row.site, events.c.conversation_id == row.conversation_id)
        query = sa.select(events).where(where).order_by(events.c.seq)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        if found:
            await self._link.call("HSET", self._names.conversation(name), "base", found[0].seq - 1)
        for start in range(0, len(found), TOGETHER):
            part = found[start : start + TOGETHER]
            await self._link.call("RPUSH", log, *(f"{event.utterance_id}\n{event.payload}" for event in part))
            places: list[Argument] = []
            for event in part:  # of several revisions, the last one counts
                if event.kind == "utterance":
                    places += [f"u:{event.utterance_id}", event.seq]
                else:
                    places += [f"i:{event.utterance_id}", f"{event.revision} {event.seq}"]
            await self._link.call("HSET", said, *places)
        return log, said
