"""The session store in SQL: utterance, seq, checkpoint and bus message are one transaction, fenced by the epoch."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.audio.adapters.event_log import insights_event, utterance_event
from quickcomm.audio.adapters.log_limits import LogLimits, settled
from quickcomm.audio.adapters.sql_digests import gather, recent
from quickcomm.audio.adapters.sql_erasing import erase
from quickcomm.audio.adapters.sql_forgetting import forget
from quickcomm.audio.adapters.tables import OPEN_STATES, conversations, erased, events
from quickcomm.audio.model.checkpoint import Checkpoint, decode_checkpoints, encode_checkpoints
from quickcomm.audio.model.formats import check_unchanged
from quickcomm.audio.ports import FencedError, OpenRequest, Progress, Stored, Tell
from quickcomm.contracts.audio_socket import AudioFormat, DurableEvent, decode_durable
from quickcomm.contracts.checking import Compare, Contents
from quickcomm.contracts.closing import Finished
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.erasing import EraseAudio
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.erasing.tombstones import Tombstones
from quickcomm.kernel.errors import ForbiddenError, NotFoundError
from quickcomm.kernel.messaging.bus.sql_tables import append
from quickcomm.kernel.storage import Database

MIGRATIONS: Final = Path(__file__).with_name("migrations")
PAGE: Final = 200
_EXPIRED: Final = ("expired", "nobody came back")
_ledgers = msgspec.json.Decoder(tuple[Ledger, ...])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _is(site: str, conversation_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(conversations.c.site == site, conversations.c.conversation_id == conversation_id)


# Built once: they run for every conversation, every second.
_SAVE: Final = (
    conversations.update()
    .where(
        conversations.c.site == sa.bindparam("own_site"),
        conversations.c.conversation_id == sa.bindparam("own_id"),
        conversations.c.epoch == sa.bindparam("own_epoch"),
        conversations.c.step <= sa.bindparam("own_step"),
    )
    .values(
        checkpoints=sa.bindparam("checkpoints"),
        ledgers=sa.bindparam("ledgers"),
        updated_ns=sa.bindparam("updated_ns"),
        step=sa.bindparam("own_step"),
    )
)
_SAVE_STATE: Final = _SAVE.values(state=sa.bindparam("new_state"))


def _epoch(connection: Connection, key: tuple[str, str]) -> int | None:
    return connection.execute(sa.select(conversations.c.epoch).where(_is(*key))).scalar_one_or_none()


class SqlSessions:
    """A `SessionStore`. As in the one in Valkey, a checkpoint of an older `step` never replaces a newer one."""

    shared = False

    def __init__(self, database: Database, clock: Clock, *, limits: LogLimits = LogLimits()) -> None:  # noqa: B008
        self._database = database
        self._clock = clock
        self._limits = limits

    async def open(self, request: OpenRequest, token: str) -> Stored:
        def run(connection: Connection) -> Stored:
            where = _is(request.site, request.conversation_id)
            row = connection.execute(sa.select(conversations).where(where)).one_or_none()
            if row is None:
                return self._create(connection, request, token)
            if request.token is None or not hmac.compare_digest(row.token_hash, _digest(request.token)):
                raise ForbiddenError("This conversation exists; it can be resumed only with its resume_token.")
            was = AudioFormat(encoding=row.encoding, sample_rate=row.sample_rate, speakers=row.speakers)
            check_unchanged(was, request.format)
            self._take_over(connection, row)
            return _stored(connection, row)

        return await self._database.write(run)

    async def known(self, site: str, conversation_id: str) -> bool:
        return await self._database.read(lambda connection: _epoch(connection, (site, conversation_id)) is not None)

    async def publish(self, progress: Progress, message: UtteranceTranscribed) -> DurableEvent | None:
        def run(connection: Connection) -> DurableEvent | None:
            found = _owned(connection, progress)
            known = sa.select(events.c.seq).where(
                events.c.site == message.site,
                events.c.utterance_id == message.utterance_id,
                events.c.kind == "utterance",
            )
            is_erased = Tombstones(connection, erased).hides(message.site, message.utterance_id)
            if is_erased or connection.execute(known).first() is not None:
                connection.execute(_SAVE, self._values(progress))
                return None
            if progress.step < found.step and settled(message.utterance_id, decode_checkpoints(found.checkpoints), 0):
                return None  # a call that was given up long ago
            seq = found.seq + 1
            connection.execute(_SAVE, self._values(progress))
            where = _is(message.site, message.conversation_id)
            connection.execute(conversations.update().where(where).values(seq=seq))
            numbered = msgspec.structs.replace(message, seq=seq)
            event = utterance_event(numbered)
            _log(connection, message.site, message.conversation_id, event, kind="utterance", revision=1)
            append(connection, TRANSCRIPTS, message.conversation_id, msgspec.json.encode(numbered))
            forget(connection, (message.site, message.conversation_id), self._clock.now_ns(), self._limits)
            return event

        return await self._database.write(run)

    async def save(self, progress: Sequence[Progress]) -> list[tuple[str, str]]:
        def run(connection: Connection) -> list[tuple[str, str]]:
            rows = [self._values(item) for item in progress]
            if connection.execute(_SAVE, rows).rowcount == len(rows):
                return []
            return [
                key for item in progress if _epoch(connection, key := (item.site, item.conversation_id)) != item.epoch
            ]

        return await self._database.write(run)

    async def fenced(self, progress: Sequence[Progress]) -> list[tuple[str, str]]:
        def run(connection: Connection) -> list[tuple[str, str]]:
            return [
                key for item in progress if _epoch(connection, key := (item.site, item.conversation_id)) != item.epoch
            ]

        return await self._database.read(run)

    async def change_state(self, progress: Progress, change: ConversationChanged, *, fence: bool = False) -> None:
        def run(connection: Connection) -> None:
            _owned(connection, progress)
            if connection.execute(_SAVE_STATE, {**self._values(progress), "new_state": change.state}).rowcount == 0:
                return  # a newer one is stored
            if fence:
                where = _is(progress.site, progress.conversation_id)
                connection.execute(conversations.update().where(where).values(epoch=progress.epoch + 1))
            append(connection, CONVERSATIONS, change.conversation_id, msgspec.json.encode(change))

        await self._database.write(run)

    async def finish(self, site: str, conversation_id: str, reason: str) -> Finished:
        return await self._database.write(lambda connection: self.finish_in(connection, site, conversation_id, reason))

    def finish_in(self, connection: Connection, site: str, conversation_id: str, reason: str) -> Finished:
        """As `finish`, in a transaction that is there already."""
        row = connection.execute(sa.select(conversations).where(_is(site, conversation_id))).one_or_none()
        if row is None:
            raise NotFoundError(f"There is no conversation {conversation_id!r}.")
        state = cast("ConversationState", row.state)
        if row.state in OPEN_STATES:
            state, now = "ended", self._clock.now_ns()
            values = {"state": state, "epoch": row.epoch + 1, "updated_ns": now}
            connection.execute(conversations.update().where(_is(site, conversation_id)).values(values))
            change = _change(row, state, now, reason)
            append(connection, CONVERSATIONS, conversation_id, msgspec.json.encode(change))
        mine = (events.c.site == site, events.c.conversation_id == conversation_id, events.c.kind == "utterance")
        last = sa.select(events.c.seq, events.c.utterance_id).where(*mine).order_by(events.c.seq.desc()).limit(1)
        found = connection.execute(last).one_or_none()
        return Finished(
            state=state,
            ledgers=_ledgers.decode(row.ledgers),
            last_utterance="" if found is None else found.utterance_id,
            last_seq=0 if found is None else found.seq,
        )

    async def add_insights(self, found: InsightsFound) -> DurableEvent | None:
        def run(connection: Connection) -> DurableEvent | None:
            known = sa.select(events.c.seq).where(
                events.c.site == found.site,
                events.c.utterance_id == found.utterance_id,
                events.c.kind == "insights",
                events.c.revision >= found.revision,
            )
            if Tombstones(connection, erased).hides(found.site, found.utterance_id):
                return None
            if connection.execute(known).first() is not None:
                return None
            where = _is(found.site, found.conversation_id)
            number = conversations.update().where(where).values(seq=conversations.c.seq + 1)
            seq = connection.execute(number.returning(conversations.c.seq)).scalar_one_or_none()
            if seq is None:
                return None
            event = insights_event(found, seq)
            _log(connection, found.site, found.conversation_id, event, kind="insights", revision=found.revision)
            forget(connection, (found.site, found.conversation_id), self._clock.now_ns(), self._limits)
            return event

        return await self._database.write(run)

    async def listen(self, tell: Tell) -> None:
        """There is nobody else: a database of this kind has one process."""
        del tell
        await asyncio.Event().wait()

    async def events(self, site: str, conversation_id: str, after_seq: int) -> list[DurableEvent]:
        query = (
            sa.select(events.c.payload)
            .where(events.c.site == site, events.c.conversation_id == conversation_id, events.c.seq > after_seq)
            .order_by(events.c.seq)
            .limit(PAGE)
        )

        def run(connection: Connection) -> list[DurableEvent]:
            return [decode_durable(kept) for kept in connection.execute(query).scalars()]

        return await self._database.read(run)

    async def ledgers(self, conversation_id: str | None) -> list[ConversationChanged]:
        query = sa.select(conversations).order_by(conversations.c.updated_ns)
        if conversation_id is not None:
            query = query.where(conversations.c.conversation_id == conversation_id)

        def run(connection: Connection) -> list[ConversationChanged]:
            return [_change(row, row.state, row.updated_ns) for row in connection.execute(query)]

        return await self._database.read(run)

    async def contents(self, request: Compare) -> Contents:
        return await self._database.read(lambda connection: gather(connection, request))

    async def recent(self, since_ns: int, limit: int) -> list[tuple[str, str]]:
        return await self._database.read(lambda connection: recent(connection, since_ns, limit))

    async def adopt(self) -> int:
        def run(connection: Connection) -> int:
            now = self._clock.now_ns()
            # Nobody could come back while there was no server: the idle limit begins anew.
            away = conversations.c.state == "interrupted"
            connection.execute(conversations.update().where(away).values(updated_ns=now))
            rows = connection.execute(sa.select(conversations).where(conversations.c.state == "live")).all()
            for row in rows:
                where = _is(row.site, row.conversation_id)
                connection.execute(conversations.update().where(where).values(state="interrupted", updated_ns=now))
                change = _change(row, "interrupted", now, reason="the server was restarted")
                append(connection, CONVERSATIONS, row.conversation_id, msgspec.json.encode(change))
            return len(rows)

        return await self._database.write(run)

    async def expire(self, before_ns: int, now_ns: int, keep: frozenset[tuple[str, str]]) -> int:
        def run(connection: Connection) -> int:
            query = sa.select(conversations).where(
                conversations.c.state.in_(OPEN_STATES), conversations.c.updated_ns < before_ns
            )
            rows = [row for row in connection.execute(query) if (row.site, row.conversation_id) not in keep]
            for row in rows:
                state, reason = ("interrupted", "the server is gone") if row.state == "live" else _EXPIRED
                where = _is(row.site, row.conversation_id)
                values = {"state": state, "epoch": row.epoch + 1, "updated_ns": now_ns}
                connection.execute(conversations.update().where(where).values(values))
                change = _change(row, state, now_ns, reason=reason)
                append(connection, CONVERSATIONS, row.conversation_id, msgspec.json.encode(change))
            return sum(row.state != "live" for row in rows)

        return await self._database.write(run)

    async def turn(self, work: str, for_s: int) -> bool:
        """Always: as `listen`."""
        del work, for_s
        return True

    async def purge(self, before_ns: int) -> int:
        old = sa.and_(conversations.c.state.not_in(OPEN_STATES), conversations.c.updated_ns < before_ns)

        def run(connection: Connection) -> int:
            query = sa.select(conversations.c.site, conversations.c.conversation_id).where(old).limit(PAGE)
            rows = connection.execute(query).all()
            for site, conversation_id in rows:
                connection.execute(
                    events.delete().where(events.c.site == site, events.c.conversation_id == conversation_id)
                )
                connection.execute(conversations.delete().where(_is(site, conversation_id)))
            return len(rows)

        total = 0
        while count := await self._database.write(run):
            total += count
        return total

    async def erase(self, request: EraseAudio) -> dict[str, int]:
        return await self._database.write(lambda connection: erase(connection, request, self._clock.now_ns(), _change))

    async def aclose(self) -> None:
        """The database is closed by who opened it."""

    # -- inside -----------------------------------------------------------------------------------------------------

    def _create(self, connection: Connection, request: OpenRequest, token: str) -> Stored:
        speakers = request.format.speakers
        checkpoints = tuple(Checkpoint() for _ in range(speakers))
        ledgers = tuple(Ledger() for _ in range(speakers))
        connection.execute(
            conversations.insert().values(
                site=request.site,
                conversation_id=request.conversation_id,
                channel=request.channel,
                encoding=request.format.encoding,
                sample_rate=request.format.sample_rate,
                speakers=speakers,
                token_hash=_digest(token),
                epoch=1,
                seq=0,
                state="live",
                checkpoints=encode_checkpoints(checkpoints),
                ledgers=msgspec.json.encode(ledgers),
                updated_ns=self._clock.now_ns(),
            )
        )
        stored = Stored(
            site=request.site,
            conversation_id=request.conversation_id,
            channel=request.channel,
            format=request.format,
            epoch=1,
            created=True,
            state="live",
            checkpoints=checkpoints,
            ledgers=ledgers,
            last_seq=0,
        )
        change = ConversationChanged(
            site=request.site,
            conversation_id=request.conversation_id,
            channel=request.channel,
            state="live",
            sample_rate=request.format.sample_rate,
            speakers=speakers,
            ledgers=ledgers,
            at_ns=self._clock.now_ns(),
            continues=request.continues,
        )
        append(connection, CONVERSATIONS, request.conversation_id, msgspec.json.encode(change))
        return stored

    def _take_over(self, connection: Connection, row: sa.Row[Any]) -> None:
        now = self._clock.now_ns()
        values: dict[str, object] = {"epoch": row.epoch + 1, "step": 0}
        if row.state in OPEN_STATES:
            values |= {"state": "live", "updated_ns": now}
            append(connection, CONVERSATIONS, row.conversation_id, msgspec.json.encode(_change(row, "live", now)))
        connection.execute(conversations.update().where(_is(row.site, row.conversation_id)).values(values))

    def _values(self, progress: Progress) -> dict[str, object]:
        return {
            "own_site": progress.site,
            "own_id": progress.conversation_id,
            "own_epoch": progress.epoch,
            "own_step": progress.step,
            "checkpoints": encode_checkpoints(progress.checkpoints),
            "ledgers": msgspec.json.encode(progress.ledgers),
            "updated_ns": self._clock.now_ns(),
        }


def _owned(connection: Connection, progress: Progress) -> sa.Row[Any]:
    """Return the conversation as it is stored. Raises `FencedError` where it has another owner."""
    row = connection.execute(sa.select(conversations).where(_is(progress.site, progress.conversation_id))).one_or_none()
    if row is None or row.epoch != progress.epoch:
        raise FencedError("The conversation has another owner.")
    return row


def _log(
    connection: Connection, site: str, conversation_id: str, event: DurableEvent, *, kind: str, revision: int
) -> None:
    connection.execute(
        events.insert().values(
            site=site,
            conversation_id=conversation_id,
            seq=event.seq,
            kind=kind,
            utterance_id=event.utterance_id,
            revision=revision,
            payload=msgspec.json.encode(event).decode(),
        )
    )


def _stored(connection: Connection, row: sa.Row[Any]) -> Stored:
    mine = sa.and_(events.c.site == row.site, events.c.conversation_id == row.conversation_id)
    answered = sa.select(events.c.utterance_id).where(mine, events.c.kind == "insights")
    waiting = sa.select(events.c.utterance_id).where(
        mine, events.c.kind == "utterance", events.c.utterance_id.not_in(answered)
    )
    return Stored(
        site=row.site,
        conversation_id=row.conversation_id,
        channel=row.channel,
        format=AudioFormat(encoding=row.encoding, sample_rate=row.sample_rate, speakers=row.speakers),
        epoch=row.epoch + 1,
        created=False,
        state=row.state,
        checkpoints=decode_checkpoints(row.checkpoints),
        ledgers=_ledgers.decode(row.ledgers),
        last_seq=row.seq,
        unanswered=tuple(connection.execute(waiting).scalars()),
    )


def _change(row: sa.Row[Any], state: str, at_ns: int, reason: str | None = None) -> ConversationChanged:
    return ConversationChanged(
        site=row.site,
        conversation_id=row.conversation_id,
        channel=row.channel,
        state=cast("ConversationState", state),
        sample_rate=row.sample_rate,
        speakers=row.speakers,
        ledgers=_ledgers.decode(row.ledgers),
        at_ns=at_ns,
        reason=reason,
    )
