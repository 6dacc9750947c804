"""What is remembered of conversations, in SQL; a summary and its message are one transaction."""

from collections.abc import Sequence
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.insight import Source
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.intelligence.adapters.sql_results import erased
from quickcomm.intelligence.model.summary_text import local_summary
from quickcomm.intelligence.model.talk import SummarySettings, Talk, due_ns, ended, summarized
from quickcomm.intelligence.ports import TalkChange
from quickcomm.kernel.erasing.tombstones import Tombstones
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.messaging.bus.sql_tables import append
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.upsert import saving

talks = sa.Table(
    "intelligence_talks",
    sa.MetaData(),
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("conversation_id", sa.String, primary_key=True),
    sa.Column("talk", sa.LargeBinary),
    sa.Column("ended", sa.Boolean),
    sa.Column("due_ns", sa.BigInteger),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("claimed_ns", sa.BigInteger),
)
CLAIM_NS: Final = 60 * 10**9
"""So long has a process what it took to summarize to itself."""
_decoder = msgspec.json.Decoder(Talk)
_KEY: Final = ("site", "conversation_id")
NOTHING: Final = ("", 0)
"""A change that is about no utterance and no summary."""
_SAVE: Final = saving(talks, _KEY, ["talk", "ended", "due_ns", "at_ns"])
_LOAD: Final = sa.select(talks.c.talk).where(
    talks.c.site == sa.bindparam("site"), talks.c.conversation_id == sa.bindparam("conversation_id")
)
_DUE: Final = (
    sa.select(talks.c.talk)
    .where(talks.c.due_ns <= sa.bindparam("now_ns"))
    .order_by(talks.c.due_ns)
    .limit(sa.bindparam("limit"))
)
_FREE: Final = sa.select(talks).where(
    talks.c.due_ns <= sa.bindparam("now_ns"), talks.c.claimed_ns <= sa.bindparam("now_ns")
)
_TAKE: Final = _FREE.order_by(talks.c.due_ns).limit(sa.bindparam("limit"))
_NAME: Final = sa.tuple_(talks.c.site, talks.c.conversation_id)


class SqlTalks:
    """Implements `TalkStore`."""

    def __init__(self, database: Database, settings: SummarySettings) -> None:
        self._database = database
        self._settings = settings

    async def apply(
        self, changes: Sequence[tuple[tuple[str, str], TalkChange]], about: Sequence[tuple[str, int]] = ()
    ) -> None:
        def run(connection: Connection) -> None:
            tombstones = Tombstones(connection, erased)
            told = about or [NOTHING] * len(changes)
            kept = [
                each for each, what in zip(changes, told, strict=True) if not _is_erased(tombstones, each[0], *what)
            ]
            self._apply(connection, kept)

        await self._database.write(run)

    async def due(self, now_ns: int, limit: int) -> list[Talk]:
        values = {"now_ns": now_ns, "limit": limit}
        if self._database.shared:
            return await self._database.write(lambda connection: _claimed(connection, values))
        return await self._database.read(
            lambda connection: [_decoder.decode(talk) for talk in connection.execute(_DUE, values).scalars()]
        )

    async def release(self, talk: Talk) -> None:
        if self._database.shared:
            name = (talk.site, talk.conversation_id)
            await self._database.write(lambda connection: _claim(connection, [name], 0))

    async def postpone(self, talks_due: Sequence[Talk], until_ns: int) -> None:
        names = [(talk.site, talk.conversation_id) for talk in talks_due]
        if names:
            later = talks.update().where(_NAME.in_(names)).values(due_ns=until_ns, claimed_ns=0)
            await self._database.write(lambda connection: connection.execute(later))

    async def find(self, site: str, conversation_id: str) -> Talk | None:
        return await self._database.read(lambda connection: _load(connection, (site, conversation_id)))

    def conclude(self, connection: Connection, name: tuple[str, str], last_seq: int, now_ns: int) -> Talk | None:
        """Write the last summary of a conversation, locally where the newest one does not cover everything.

        Return what is remembered then; None where nothing was said. Raises `BusyError` until it knows all that was.
        """
        if self._database.shared:
            _claim(connection, [name], 0)
        talk = _load(connection, name)
        if (0 if talk is None else talk.last_seq) < last_seq:
            if Tombstones(connection, erased).hides_all(*name):
                return None
            raise BusyError("Not all that was said has come to intelligence yet; try again in a moment.")
        if talk is None or talk.utterances == 0:
            return None
        after = ended(talk, now_ns)
        if talk.covered == talk.changes:  # that it has ended is no news for the summary
            after = summarized(after, after, talk.text, talk.source)
        else:
            after = summarized(after, after, local_summary(after), "local")
        self._save(connection, [after])
        if after.revision != talk.revision:
            _tell(connection, after, after.utterances, now_ns)
        return after

    async def publish(self, seen: Talk, text: str, source: Source, now_ns: int) -> bool:
        def run(connection: Connection) -> bool:
            name = (seen.site, seen.conversation_id)
            if self._database.shared:
                _claim(connection, [name], 0)
            talk = _load(connection, name)
            if talk is None or talk.revision != seen.revision:
                return False
            if Tombstones(connection, erased).hides_summary(*name, seen.changed_ns):
                return False  # it was made of what was erased meanwhile
            after = summarized(talk, seen, text, source)
            self._save(connection, [after])
            if after.revision == talk.revision:
                return False
            _tell(connection, after, seen.utterances, now_ns)
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
                "claimed_ns": 0,
            }
            for talk in changed
        ]
        if rows:
            connection.execute(_SAVE.on(connection), rows)


def _tell(connection: Connection, talk: Talk, utterances: int, now_ns: int) -> None:
    message = ConversationSummarized(
        site=talk.site,
        conversation_id=talk.conversation_id,
        channel=talk.channel,
        revision=talk.revision,
        text=talk.text,
        source=talk.source,
        utterances=utterances,
        at_ns=now_ns,
    )
    append(connection, SUMMARIES, talk.conversation_id, msgspec.json.encode(message))


def _is_erased(tombstones: Tombstones, key: tuple[str, str], utterance_id: str, summary_ns: int) -> bool:
    if utterance_id:
        return tombstones.hides(key[0], utterance_id)
    return tombstones.hides_summary(*key, summary_ns) if summary_ns else tombstones.hides_all(*key)


def _load(connection: Connection, key: tuple[str, str]) -> Talk | None:
    data = connection.execute(_LOAD, {"site": key[0], "conversation_id": key[1]}).scalar()
    return None if data is None else _decoder.decode(data)


def _claimed(connection: Connection, values: dict[str, int]) -> list[Talk]:
    """Those that nobody else has in hand; from now on we have."""
    rows = connection.execute(_TAKE, values).all()
    _claim(connection, [(row.site, row.conversation_id) for row in rows], values["now_ns"] + CLAIM_NS)
    return [_decoder.decode(row.talk) for row in rows]


def _claim(connection: Connection, names: Sequence[tuple[str, str]], until_ns: int) -> None:
    if names:
        connection.execute(talks.update().where(_NAME.in_(names)).values(claimed_ns=until_ns))
