"""The session store in Valkey: utterance, seq, checkpoint, epoch check and bus message are one Lua script.

Used where monolith and services run side by side, so that a conversation can go from one to the other. All keys of a
conversation and the partitions of the bus lie on one server; a cluster is not supported. Keys: docs/adr/0012.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from quickcomm.audio.adapters import redis_scripts as lua
from quickcomm.audio.adapters.redis_owners import MAIL_S, PRESENT_S, Owners, mine
from quickcomm.audio.adapters.redis_rows import Row, SessionNames, digest, new_fields, pairs, unanswered
from quickcomm.audio.model import events as wire
from quickcomm.audio.model.checkpoint import Checkpoint, encode_checkpoints
from quickcomm.audio.model.formats import check_unchanged
from quickcomm.audio.ports import FencedError, OpenRequest, Progress, Stored, StoredEvent, Tell
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.bus.port import BusFullError, BusUnavailableError
from quickcomm.kernel.bus.redis import HIGH_WATER
from quickcomm.kernel.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.bus.redis_names import PREFIX, Names
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError, ForbiddenError

PAGE: Final = 200
TOGETHER: Final = 64
RETRY_S: Final = (0.05, 0.1, 0.2, 0.4)
NS: Final = 1_000_000_000
ORPHANS_EVERY_S: Final = 5.0
REPLAY_S: Final = 86_400
_LOAD: Final = Script(lua.LOAD)
_CREATE: Final = Script(lua.CREATE)
_REPLACE: Final = Script(lua.REPLACE)
_PUBLISH: Final = Script(lua.PUBLISH)
_SAVE: Final = Script(lua.SAVE)
_FENCED: Final = Script(lua.FENCED)
_CHANGE: Final = Script(lua.CHANGE)
_INSIGHTS: Final = Script(lua.INSIGHTS)
_DELETE: Final = Script(lua.DELETE)


class RedisSessions:
    """A `SessionStore`. `connect()` before the first use, `aclose()` after the last.

    A call that the server does not answer is tried again for a second: each may be done twice without harm. Then it
    raises `BusUnavailableError`. `publish` raises `BusFullError` where nobody takes the transcripts: nothing is stored,
    hence nothing acknowledged, and the client keeps its sound until there is room again.
    """

    shared = True

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        owner: str = "monolith",
        prefix: str = PREFIX,
        high_water: int = HIGH_WATER,
        replay_s: int = REPLAY_S,
    ) -> None:
        """`owner`: a name that one process has at a time; the next one of that name takes over what it had.

        `replay_s`: for so long a conversation that has ended can be replayed to its client.
        """
        self._link = Link(url)
        self._clock = clock
        self._bus = Names(prefix)
        self._names = SessionNames(prefix)
        self._owners = Owners(self._call, self._names, clock, owner)
        self._life = self._owners.life
        self._orphans_due = 0.0
        self._high_water = high_water
        self._replay_s = replay_s
        self._unsure: set[tuple[str, str]] = set()

    async def connect(self) -> None:
        """Raises `BusUnavailableError` where the server does not answer."""
        await self._owners.be_present()

    async def aclose(self) -> None:
        """May be called again."""
        await self._link.aclose()

    # -- the port ---------------------------------------------------------------------------------------------------

    async def open(self, request: OpenRequest, token: str) -> Stored:
        name = f"{request.site}:{request.conversation_id}"
        given = request.token
        for _ in range(20):
            loaded, _ = await self._run(_LOAD, self._keys(name, "conversation", "said"))
            if not loaded[0]:
                stored = await self._create(name, request, token)
                if stored is not None:
                    return stored
                # Somebody was quicker; or it was us, and the answer was lost.
                given = given or token
                continue
            row = Row.of(pairs(loaded[0]))
            if given is None or not hmac.compare_digest(row.token_hash, digest(given)):
                raise ForbiddenError("This conversation exists; it can be resumed only with its resume_token.")
            check_unchanged(row.format, request.format)
            taken = await self._take_over(row)
            if taken is not None:
                return taken.stored(created=False, state=row.state, unanswered=unanswered(pairs(loaded[1])))
        raise BusyError("This conversation changes too fast to be taken over; try again.")

    async def publish(self, progress: Progress, message: UtteranceTranscribed) -> StoredEvent | None:
        name = f"{message.site}:{message.conversation_id}"
        event = _around_seq(msgspec.json.encode(wire.utterance(message, 0)))
        zero = msgspec.structs.replace(message, seq=0)
        keys = [*self._keys(name, "conversation", "said", "log"), self._names.open]
        answer, repeated = await self._run(
            _PUBLISH,
            [*keys, self._bus.of_key(TRANSCRIPTS, message.conversation_id)],
            name,
            message.conversation_id,
            progress.epoch,
            message.utterance_id,
            *self._progress(progress),
            self._high_water,
            *event,
            *_around_seq(msgspec.json.encode(zero)),
            progress.step,
            unsure=(name, message.utterance_id),
        )
        if answer[0] == b"fenced":
            raise FencedError("The conversation has another owner.")
        if answer[0] == b"full":
            raise BusFullError("Too many transcripts wait to be handled; this one is kept and tried again.")
        return _event(answer, message.utterance_id, event, repeated=repeated)

    async def save(self, progress: Sequence[Progress]) -> list[tuple[str, str]]:
        fenced = []
        for start in range(0, len(progress), TOGETHER):
            part = progress[start : start + TOGETHER]
            names = [f"{item.site}:{item.conversation_id}" for item in part]
            arguments: list[Argument] = []
            for name, item in zip(names, part, strict=True):
                arguments += [name, item.epoch, *self._progress(item), item.step]
            keys = [self._names.open, *map(self._names.conversation, names)]
            places, _ = await self._run(_SAVE, keys, *arguments)
            fenced += [(part[place].site, part[place].conversation_id) for place in places]
        return fenced

    async def fenced(self, progress: Sequence[Progress]) -> list[tuple[str, str]]:
        found = []
        for start in range(0, len(progress), TOGETHER):
            part = progress[start : start + TOGETHER]
            keys = [self._names.conversation(f"{item.site}:{item.conversation_id}") for item in part]
            places, _ = await self._run(_FENCED, keys, *(item.epoch for item in part))
            found += [(part[place].site, part[place].conversation_id) for place in places]
        return found

    async def change_state(self, progress: Progress, change: ConversationChanged) -> None:
        name = f"{progress.site}:{progress.conversation_id}"
        keys = [*self._keys(name, "conversation", "said", "log"), self._names.open, self._names.closed]
        done, _ = await self._run(
            _CHANGE,
            [*keys, self._bus.of_key(CONVERSATIONS, change.conversation_id)],
            name,
            change.conversation_id,
            progress.epoch,
            *self._progress(progress),
            change.state,
            msgspec.json.encode(change),
            self._replay_s,
            progress.step,
        )
        if not done:
            raise FencedError("The conversation has another owner.")

    async def add_insights(self, found: InsightsFound, payload: dict[str, object]) -> StoredEvent | None:
        name = f"{found.site}:{found.conversation_id}"
        event = _around_seq(msgspec.json.encode({"type": payload["type"], "seq": 0, **payload}))
        answer, repeated = await self._run(
            _INSIGHTS,
            self._keys(name, "conversation", "said", "log"),
            found.utterance_id,
            found.revision,
            *event,
            self._life,
            name,
            self._names.mailboxes,
            MAIL_S,
            unsure=(name, f"{found.utterance_id} {found.revision}"),
        )
        return _event(answer, found.utterance_id, event, repeated=repeated) if answer else None

    async def listen(self, tell: Tell) -> None:
        await self._owners.listen(self._link, tell)

    async def events(self, site: str, conversation_id: str, after_seq: int) -> list[StoredEvent]:
        log_key = self._names.log(f"{site}:{conversation_id}")
        page = await self._call("LRANGE", log_key, after_seq, after_seq + PAGE - 1)
        found = []
        for seq, entry in enumerate(page, after_seq + 1):
            identifier, _, text = entry.decode().partition("\n")
            found.append(StoredEvent(seq=seq, utterance_id=identifier, payload=text))
        return found

    async def adopt(self) -> int:
        """What earlier processes of this owner's name had live is interrupted now; returns how many.

        Nobody could come back while there was no server: the idle limit begins anew, for what processes had that are
        not there as well.
        """
        await self._owners.be_present()
        count = 0
        rows = [row for row in await self._rows(await self._members(self._names.open)) if row.owner != self._life]
        others = {row.owner for row in rows if not mine(row.owner, self._owners.owner)}
        present = {life for life in others if await self._owners.is_present(life)}
        for row in rows:
            now = self._clock.now_ns()
            if row.owner in others:
                if row.owner not in present:
                    await self._replace(row, row.state, None, "updated_ns", now)
                continue
            change = None
            if row.state == "live":
                change = row.change("interrupted", now, reason="the server was restarted")
            replaced = await self._replace(row, "interrupted", change, "updated_ns", now)
            count += replaced is not None and row.state == "live"
        return count

    async def ledgers(self, conversation_id: str | None) -> list[ConversationChanged]:
        names = await self._members(self._names.open) + await self._members(self._names.closed)
        if conversation_id is not None:
            names = [name for name in names if name.partition(":")[2] == conversation_id]
        rows = sorted(await self._rows(names), key=lambda row: row.updated_ns)
        return [row.change(row.state, row.updated_ns) for row in rows]

    async def expire(self, before_ns: int, now_ns: int, keep: frozenset[tuple[str, str]]) -> int:
        """As the port says; also says that this process is there. What another one that is there owns, is its own."""
        try:
            await self._owners.be_present()
            orphans = await self._orphans(max(before_ns, now_ns - PRESENT_S * NS))
        except BusUnavailableError:
            self._owners.start_over()
            raise
        idle = await self._rows(await self._members(self._names.open, before_ns))
        own = [row for row in idle if mine(row.owner, self._owners.owner)]
        count = 0
        for row in (*own, *orphans):
            if row.updated_ns < before_ns:
                if row.is_open and (row.site, row.conversation_id) not in keep:
                    count += await self._let_go(row, "expired", now_ns, "nobody came back")
            elif row.state == "live" and row.owner != self._life:
                await self._let_go(row, "interrupted", now_ns, "the server is gone")
        return count

    async def turn(self, work: str, for_s: int) -> bool:
        return await self._owners.turn(work, for_s)

    async def purge(self, before_ns: int) -> int:
        count = 0
        for row in await self._rows(await self._members(self._names.closed, before_ns)):
            if row.updated_ns < before_ns and not row.is_open:
                keys = [*self._keys(row.name, "conversation", "said", "log"), self._names.closed]
                deleted, _ = await self._run(_DELETE, keys, row.name, row.version)
                count += deleted
        return count

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _orphans(self, before_ns: int) -> list[Row]:
        """Open conversations, quiet since then, of processes that are gone for good; it looks only now and then."""
        if self._clock.monotonic() < self._orphans_due:
            return []
        self._orphans_due = self._clock.monotonic() + ORPHANS_EVERY_S
        quiet = await self._rows(await self._members(self._names.open, before_ns))
        others = [row for row in quiet if row.owner != self._life and row.is_open]
        gone = await self._owners.gone({row.owner for row in others})
        return [row for row in others if row.owner in gone]

    async def _let_go(self, row: Row, state: ConversationState, now_ns: int, reason: str) -> bool:
        """It is nobody's: should its owner only hang, it is fenced. False where something happened meanwhile."""
        fields = ("updated_ns", now_ns, "epoch", row.epoch + 1)
        return await self._replace(row, state, row.change(state, now_ns, reason=reason), *fields) is not None

    async def _create(self, name: str, request: OpenRequest, token: str) -> Stored | None:
        """None where it exists by now."""
        speakers, now = request.format.speakers, self._clock.now_ns()
        stored = Stored(
            site=request.site,
            conversation_id=request.conversation_id,
            channel=request.channel,
            format=request.format,
            epoch=1,
            created=True,
            state="live",
            checkpoints=tuple(Checkpoint() for _ in range(speakers)),
            ledgers=tuple(Ledger() for _ in range(speakers)),
            last_seq=0,
        )
        change = ConversationChanged(
            site=request.site,
            conversation_id=request.conversation_id,
            channel=request.channel,
            state="live",
            sample_rate=request.format.sample_rate,
            speakers=speakers,
            ledgers=stored.ledgers,
            at_ns=now,
        )
        stream = self._bus.of_key(CONVERSATIONS, request.conversation_id)
        keys = (self._names.conversation(name), self._names.open, self._names.closed, stream)
        fields = new_fields(stored, request, token, self._life)
        payload = msgspec.json.encode(change)
        created, _ = await self._run(_CREATE, keys, name, request.conversation_id, payload, now, *fields)
        return stored if created else None

    async def _take_over(self, row: Row) -> Row | None:
        """The conversation as it is now, ours; None where it changed since it was read."""
        now = self._clock.now_ns()
        fields: list[Argument] = ["epoch", row.epoch + 1, "step", 0, "owner", self._life]
        if not row.is_open:
            return await self._replace(row, row.state, None, *fields)
        return await self._replace(row, "live", row.change("live", now), *fields, "updated_ns", now)

    async def _replace(
        self, row: Row, state: ConversationState, change: ConversationChanged | None, *fields: Argument
    ) -> Row | None:
        """Write if nothing has happened since `row` was read; the conversation as it is then."""
        stream = self._bus.of_key(CONVERSATIONS, row.conversation_id)
        names = self._names
        keys = (names.conversation(row.name), names.open, names.closed, stream, *self._keys(row.name, "said", "log"))
        payload = b"" if change is None else msgspec.json.encode(change)
        head = (row.name, row.conversation_id, payload, row.version, state, self._replay_s)
        flat, _ = await self._run(_REPLACE, keys, *head, *fields)
        return Row.of(pairs(flat)) if flat else None

    def _progress(self, progress: Progress) -> tuple[bytes, bytes, int]:
        checkpoints = encode_checkpoints(progress.checkpoints)
        return checkpoints, msgspec.json.encode(progress.ledgers), self._clock.now_ns()

    def _keys(self, name: str, *kinds: str) -> list[str]:
        return [getattr(self._names, kind)(name) for kind in kinds]

    async def _members(self, index: str, before_ns: int | None = None) -> list[str]:
        """Names in an index; its order is only as exact as a float is, so that one too many may be there."""
        limit = "+inf" if before_ns is None else before_ns
        return [name.decode() for name in await self._call("ZRANGEBYSCORE", index, "-inf", limit)]

    async def _rows(self, names: Sequence[str]) -> list[Row]:
        found = []
        for name in names:
            fields = await self._call("HGETALL", self._names.conversation(name))
            if fields:
                found.append(Row.of(fields))
        return found

    async def _call(self, command: str, *arguments: Argument) -> Any:
        async def once() -> Any:
            return await self._link.call(command, *arguments)

        return (await self._tried(once))[0]

    async def _run(
        self, script: Script, keys: Sequence[str], *arguments: Argument, unsure: tuple[str, str] | None = None
    ) -> tuple[Any, bool]:
        """Its answer, and whether it may have run before without our hearing of it.

        `unsure`: what the call is about, to be remembered where no answer comes at all.
        """
        before = unsure in self._unsure
        try:
            answer, repeated = await self._tried(lambda: self._link.run(script, keys, *arguments))
        except BusUnavailableError:
            if unsure is not None:
                self._unsure.add(unsure)
            raise
        if unsure is not None:
            self._unsure.discard(unsure)
        return answer, before or repeated

    async def _tried(self, call: Callable[[], Awaitable[Any]]) -> tuple[Any, bool]:
        """Call until an answer comes, and whether it was called before; raises `BusUnavailableError` at last."""
        repeated = False
        for wait in RETRY_S:
            try:
                return await call(), repeated
            except BusUnavailableError:
                repeated = True
                await self._clock.sleep(wait)
        return await call(), repeated


def _around_seq(data: bytes) -> tuple[bytes, bytes]:
    """What comes before and after the number. It cannot be mistaken for what was said: there, quotes are escaped."""
    head, found, tail = data.partition(b'"seq":0,')
    assert found, "the message has a seq, and another field behind it"  # noqa: S101 - a programming error
    return head + b'"seq":', b"," + tail


def _event(
    answer: Sequence[Any], utterance_id: str, around: tuple[bytes, bytes], *, repeated: bool
) -> StoredEvent | None:
    """The event that was stored; None where that was done by another call than this one."""
    if answer[0] == b"known" and not repeated:
        return None
    seq = answer[1] if answer[0] == b"known" else answer[0]
    payload = b"%b%d%b" % (around[0], seq, around[1])
    return StoredEvent(seq=seq, utterance_id=utterance_id, payload=payload.decode())
