"""What is remembered of conversations, in SQL; a summary and its message are one transaction."""

from collections.abc import Sequence
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.sqlite import insert

from quickcomm.contracts.insight import Source
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.intelligence.model.talk import SummarySettings, Talk, due_ns, summarized
from quickcomm.intelligence.ports import TalkChange
from quickcomm.kernel.bus.sql import append
from quickcomm.kernel.storage import Database

talks = sa.Table(
    "intelligence_talks",
    sa.MetaData(),
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("conversation_id", sa.String, primary_key=True),
    sa.Column("talk", sa.LargeBinary),
    sa.Column("ended", sa.Boolean),
    sa.Column("due_ns", sa.BigInteger),
    sa.Column("at_ns", sa.BigInteger),
)
_decoder = msgspec.json.Decoder(Talk)
_row = insert(talks)
_SAVE: Final = _row.on_conflict_do_update(
    index_elements=["site", "conversation_id"],
    set_={name: _row.excluded[name] for name in ("talk", "ended", "due_ns", "at_ns")},
)
_LOAD: Final = sa.select(talks.c.talk).where(
    talks.c.site == sa.bindparam("site"), talks.c.conversation_id == sa.bindparam("conversation_id")
)
_DUE: Final = (
    sa.select(talks.c.talk)
    .where(talks.c.due_ns <= sa.bindparam("now_ns"))
    .order_by(talks.c.due_ns)
    .limit(sa.bindparam("limit"))
)


class SqlTalks:
    """Implements `TalkStore`."""

    def __init__(self, database: Database, settings: SummarySettings) -> None:
        self._database = database
        self._settings = settings

    async def apply(self, changes: Sequence[tuple[tuple[str, str], TalkChange]]) -> None:
        await self._database.write(lambda connection: self._apply(connection, changes))

    async def due(self, now_ns: int, limit: int) -> list[Talk]:
        values = {"now_ns": now_ns, "limit": limit}
        return await self._database.read(
            lambda connection: [_decoder.decode(talk) for talk in connection.execute(_DUE, values).scalars()]
        )

    async def publish(self, seen: Talk, text: str, source: Source, now_ns: int) -> bool:
        def run(connection: Connection) -> bool:
            talk = _load(connection, (seen.site, seen.conversation_id))
            if talk is None or talk.revision != seen.revision:
                return False
            after = summarized(talk, seen, text, source)
            self._save(connection, [after])
            if after.revision == talk.revision:
                return False
            message = ConversationSummarized(
                site=after.site,
                conversation_id=after.conversation_id,
                channel=after.channel,
                revision=after.revision,
                text=after.text,
                source=after.source,
                utterances=seen.utterances,
                at_ns=now_ns,
            )
            append(connection, SUMMARIES, after.conversation_id, msgspec.json.encode(message))
            return True

        return await self._database.write(run)

    async def forget(self, before_ns: int) -> None:
        old = talks.delete().where(talks.c.ended, talks.c.at_ns < before_ns)
        await self._database.write(lambda connection: connection.execute(old))

    async def purge(self, before_ns: int) -> None:
        """Forget all that were last changed before, whether they have ended or not."""
        old = talks.delete().where(talks.c.at_ns < before_ns)
        await self._database.write(lambda connection: connection.execute(old))

    def _apply(self, connection: Connection, changes: Sequence[tuple[tuple[str, str], TalkChange]]) -> None:
        before: dict[tuple[str, str], Talk | None] = {}
        after: dict[tuple[str, str], Talk | None] = {}
        for key, change in changes:
            if key not in after:
                before[key] = after[key] = _load(connection, key)
            after[key] = change(after[key])
        self._save(connection, [talk for key, talk in after.items() if talk is not None and talk is not before[key]])

    def _save(self, connection: Connection, changed: Sequence[Talk]) -> None:
        rows = [
            {
                "site": talk.site,
                "conversation_id": talk.conversation_id,
                "talk": msgspec.json.encode(talk),
                "ended": talk.ended,
                "due_ns": due_ns(talk, self._settings),
                "at_ns": talk.changed_ns,
            }
            for talk in changed
        ]
        if rows:
            connection.execute(_SAVE, rows)


def _load(connection: Connection, key: tuple[str, str]) -> Talk | None:
    data = connection.execute(_LOAD, {"site": key[0], "conversation_id": key[1]}).scalar()
    return None if data is None else _decoder.decode(data)
