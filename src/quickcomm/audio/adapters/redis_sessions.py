"""The session store in Valkey: utterance, seq, checkpoint, epoch check and bus message are one Lua script.

Used where monolith and services run side by side, so that a conversation can go from one to the other. All keys of a
conversation and the partitions of the bus lie on one server; a cluster is not supported. Keys: docs/adr/0012.
"""

import asyncio
import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from quickcomm.audio.adapters import redis_scripts as lua
from quickcomm.audio.adapters.event_log import insights_event, utterance_event
from quickcomm.audio.adapters.log_limits import LogLimits
from quickcomm.audio.adapters.redis_calls import Calls, around_seq, stored_event
from quickcomm.audio.adapters.redis_digests import gather, recent
from quickcomm.audio.adapters.redis_erasing import RedisErasing
from quickcomm.audio.adapters.redis_owners import MAIL_S, PRESENT_S, Owners, Sweep, mine
from quickcomm.audio.adapters.redis_rows import (
    Row,
    SessionNames,
    at_rest,
    digest,
    last_said,
    new_fields,
    offsets,
    pairs,
    unanswered,
)
from quickcomm.audio.adapters.redis_sides import Moves, Sides
from quickcomm.audio.adapters.tables import OPEN_STATES
from quickcomm.audio.model.checkpoint import Checkpoint, decode_checkpoints, encode_checkpoints
from quickcomm.audio.model.formats import check_unchanged
from quickcomm.audio.ports import FencedError, OpenRequest, Progress, Stored, Tell
from quickcomm.contracts.audio_socket import DurableEvent, decode_durable
from quickcomm.contracts.checking import Compare, Contents
from quickcomm.contracts.closing import Finished
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged, ConversationState, Ledger
from quickcomm.contracts.erasing import EraseAudio
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import BusyError, ForbiddenError, NotFoundError
from quickcomm.kernel.messaging.bus.port import BusFullError, BusUnavailableError
from quickcomm.kernel.messaging.bus.redis import HIGH_WATER
from quickcomm.kernel.messaging.bus.redis_assignments import AssignmentNames
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX, Names, partition
from quickcomm.kernel.messaging.rpc import NotOwnerError
from quickcomm.kernel.telemetry.side import stamp

PAGE: Final = 200
TOGETHER: Final = 64
NS: Final = 1_000_000_000
ORPHANS_EVERY_S: Final = 5.0
REPLAY_S: Final = 86_400
CLOSED_AT_MOST: Final = 100_000
"""So many ended conversations are kept, the newest ones, whatever the retention."""
_LOAD: Final = Script(lua.LOAD)
_CREATE: Final = Script(lua.CREATE)
_REPLACE: Final = Script(lua.REPLACE)
_PUBLISH: Final = Script(lua.PUBLISH)
_SAVE: Final = Script(lua.SAVE)
_FENCED: Final = Script(lua.FENCED)
_CHANGE: Final = Script(lua.CHANGE)
_INSIGHTS: Final = Script(lua.INSIGHTS)
_DELETE: Final = Script(lua.DELETE)
_ROWS: Final = Script(lua.ROWS)
_EVENTS: Final = Script(lua.EVENTS)
_SWEEP: Final = Script(lua.SWEEP)
FULL: Final = "Too many changes of conversations wait to be handled; no new one is taken. Try again in a moment."


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
        limits: LogLimits = LogLimits(),  # noqa: B008 - frozen
        moves: Moves | None = None,
    ) -> None:
        """`owner`: a name that one process has at a time; the next one of that name takes over what it had.

        `replay_s`: for so long a conversation that has ended can be replayed to its client.
        `moves`: where intelligence may move.
        """
        self._link = Link(url)
        self._calls = Calls(self._link, clock)
        self._run = self._calls.run
        self._clock = clock
        self._bus = Names(prefix)
        self._names = SessionNames(prefix)
        self._owners = Owners(self._calls, self._names, clock, owner)
        self._life = self._owners.life
        self._orphans_due = 0.0
        self._high_water = high_water
        self._replay_s = replay_s
        self._limits = limits
        self.sides = Sides(self._link, prefix, clock, moves)

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

    async def known(self, site: str, conversation_id: str) -> bool:
        return bool(await self._rows([f"{site}:{conversation_id}"]))

    async def publish(self, progress: Progress, message: UtteranceTranscribed) -> DurableEvent | None:
        name = f"{message.site}:{message.conversation_id}"
        zero = msgspec.structs.replace(message, seq=0)
        event = utterance_event(zero)
        stream = self._bus.of_key(TRANSCRIPTS, message.conversation_id)
        keys = [*self._keys(name, "conversation", "said", "log"), self._names.open, stream, *self.sides.keys(name)]
        head, tail = around_seq(msgspec.json.encode(zero))
        arguments: list[Argument] = [name, message.conversation_id, progress.epoch, message.utterance_id]
        arguments += [*self._progress(progress), self._high_water, *around_seq(msgspec.json.encode(event)), head]
        arguments += [self.sides.unstamped(tail), progress.step, *self._limits.arguments()]
        answer, repeated = await self.sides.publish(
            lambda by: self._run(_PUBLISH, keys, *arguments, *by, unsure=(name, message.utterance_id)),
            message.conversation_id,
            message.channel,
            message.site,
        )
        if answer[0] == b"fenced":
            raise FencedError("The conversation has another owner.")
        if answer[0] == b"late":
            return None
        if answer[0] == b"full":
            where = f"Partition {partition(message.conversation_id)} of {TRANSCRIPTS}"
            group = answer[1].decode() or "a group"
            raise BusFullError(f"{where} is full: {group} is behind there. The text is kept and tried again.")
        return stored_event(answer, event, repeated=repeated)

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

    async def change_state(self, progress: Progress, change: ConversationChanged, *, fence: bool = False) -> None:
        name = f"{progress.site}:{progress.conversation_id}"
        keys = [*self._keys(name, "conversation", "said", "log"), self._names.open, self._names.closed]
        done, repeated = await self._run(
            _CHANGE,
            [*keys, self._bus.of_key(CONVERSATIONS, change.conversation_id)],
            name,
            change.conversation_id,
            progress.epoch,
            *self._progress(progress if change.state in OPEN_STATES else _at_rest(progress)),
            change.state,
            msgspec.json.encode(change),
            self._replay_s,
            progress.step,
            int(fence),
        )
        if not done and not (fence and repeated):  # else this very call has fenced it
            raise FencedError("The conversation has another owner.")

    async def finish(self, site: str, conversation_id: str, reason: str) -> Finished:
        name = f"{site}:{conversation_id}"
        for _ in range(20):
            loaded, _ = await self._run(_LOAD, self._keys(name, "conversation", "said"))
            if not loaded[0]:
                raise NotFoundError(f"There is no conversation {conversation_id!r}.")
            row = Row.of(pairs(loaded[0]))
            if not row.is_open:
                last, seq = last_said(pairs(loaded[1]))
                return Finished(state=row.state, ledgers=row.ledgers, last_utterance=last, last_seq=seq)
            if row.owner != self._life and await self._owners.is_there(row.owner):
                raise NotOwnerError("Another process has this conversation.")
            await self._let_go(row, "ended", self._clock.now_ns(), reason)
        raise BusyError("This conversation changes too fast to be closed; try again.")

    async def add_insights(self, found: InsightsFound) -> DurableEvent | None:
        name = f"{found.site}:{found.conversation_id}"
        event = insights_event(found, 0)
        answer, repeated = await self._run(
            _INSIGHTS,
            [*self._keys(name, "conversation", "said", "log"), self._names.open],
            found.utterance_id,
            found.revision,
            *around_seq(msgspec.json.encode(event)),
            self._life,
            name,
            self._names.mailboxes,
            MAIL_S,
            self._clock.now_ns(),
            *self._limits.arguments(),
            unsure=(name, f"{found.utterance_id} {found.revision}"),
        )
        return stored_event(answer, event, repeated=repeated) if answer else None

    async def listen(self, tell: Tell) -> None:
        """As the port says; also say again and again that this process is there."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._owners.listen(self._link, tell), name="audio:inbox")
            tasks.create_task(self._owners.stay_present(), name="audio:presence")
            tasks.create_task(self.sides.reassign_forever(), name="audio:sides")

    async def events(self, site: str, conversation_id: str, after_seq: int) -> list[DurableEvent]:
        keys = self._keys(f"{site}:{conversation_id}", "conversation", "log")
        (_, page), _ = await self._run(_EVENTS, keys, after_seq, PAGE)
        return [decode_durable(entry.partition(b"\n")[2]) for entry in page]

    async def adopt(self) -> int:
        """What earlier processes of this owner's name had live is interrupted now; returns how many.

        Nobody could come back while there was no server: the idle limit begins anew, for what processes had that are
        not there as well.
        """
        await self._owners.be_present()
        count = 0
        left = await self._sweep("+inf", "+inf", others=True)
        for row in await self._rows(left.mine):
            if row.owner == self._life or not mine(row.owner, self._owners.owner):
                continue
            change = None
            if row.state == "live":
                change = row.change("interrupted", self._clock.now_ns(), reason="the server was restarted")
            replaced = await self._replace(row, "interrupted", change, "updated_ns", self._clock.now_ns())
            count += replaced is not None and row.state == "live"
        for row in await self._rows([name for names in left.missing.values() for name in names]):
            if row.owner not in left.missing:
                continue
            await self._replace(row, row.state, None, "updated_ns", self._clock.now_ns())
        return count

    async def ledgers(self, conversation_id: str | None) -> list[ConversationChanged]:
        names = await self._members(self._names.open) + await self._members(self._names.closed)
        if conversation_id is not None:
            names = [name for name in names if name.partition(":")[2] == conversation_id]
        rows = sorted(await self._rows(names), key=lambda row: row.updated_ns)
        return [row.change(row.state, row.updated_ns) for row in rows]

    async def contents(self, request: Compare) -> Contents:
        return await gather(request, self._calls, self._names)

    async def recent(self, since_ns: int, limit: int) -> list[tuple[str, str]]:
        return await recent(since_ns, limit, self._calls, self._names)

    async def expire(self, before_ns: int, now_ns: int, keep: frozenset[tuple[str, str]]) -> int:
        """As the port says. What another process that is there owns, is its own."""
        others = self._clock.monotonic() >= self._orphans_due
        quiet_ns = max(before_ns, now_ns - PRESENT_S * NS) if others else before_ns
        try:
            found = await self._sweep(quiet_ns, before_ns, others=others)
        except BusUnavailableError:
            self._owners.start_over()
            raise
        kept = {f"{site}:{conversation_id}" for site, conversation_id in keep}
        names = [name for name in found.mine if name not in kept]
        gone: set[str] = set()
        if others:
            self._orphans_due = self._clock.monotonic() + ORPHANS_EVERY_S
            gone = self._owners.gone(set(found.missing))
        names += [name for life in gone for name in found.missing[life]]
        count = 0
        for row in await self._rows(names):
            if row.owner not in gone and not mine(row.owner, self._owners.owner):
                continue  # another process has taken it over since
            if row.state == "live" and (row.owner != self._life or row.updated_ns < before_ns):
                await self._let_go(row, "interrupted", now_ns, "the server is gone")
            elif row.state == "interrupted" and row.updated_ns < before_ns:
                count += await self._let_go(row, "expired", now_ns, "nobody came back")
        return count

    async def turn(self, work: str, for_s: int) -> bool:
        return await self._owners.turn(work, for_s)

    async def purge(self, before_ns: int) -> int:
        count = 0
        oldest = await self._calls.call("ZRANGE", self._names.closed, 0, -CLOSED_AT_MOST - 1)
        too_many = {name.decode() for name in oldest}
        for row in await self._rows(list(too_many.union(await self._members(self._names.closed, before_ns)))):
            if (row.updated_ns < before_ns or row.name in too_many) and not row.is_open:
                keys = [*self._keys(row.name, "conversation", "said", "log"), self._names.closed]
                deleted, _ = await self._run(_DELETE, keys, row.name, row.version)
                count += deleted
        return count

    async def erase(self, request: EraseAudio) -> dict[str, int]:
        erasing = RedisErasing(self._calls, self._names, AssignmentNames(self._bus.prefix), self._end)
        return await erasing.run(request)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _end(self, name: str) -> bool:
        """End a conversation that is going on, whichever process owns it; return False where it is not."""
        for _ in range(20):
            rows = await self._rows([name])
            if not rows or not rows[0].is_open:
                return False
            if await self._let_go(rows[0], "ended", self._clock.now_ns(), "erased"):
                return True
        raise BusyError("This conversation changes too fast to be ended; try again.")

    async def _sweep(self, quiet: int | str, idle: int | str, *, others: bool) -> Sweep:
        """Open conversations to look at, that are quiet since then: one call, however many there are."""
        prefixes = (self._names.conversation(""), self._names.owner(""))
        keys = (self._names.open,)
        answer, _ = await self._run(_SWEEP, keys, quiet, idle, self._life, *prefixes, int(others))
        return Sweep.of(*answer)

    async def _let_go(self, row: Row, state: ConversationState, now_ns: int, reason: str) -> bool:
        """It is nobody's: should its owner only hang, it is fenced. False where something happened meanwhile."""
        fields: list[Argument] = ["updated_ns", now_ns, "epoch", row.epoch + 1]
        if state not in OPEN_STATES:
            fields += ["checkpoints", encode_checkpoints(at_rest(decode_checkpoints(row.checkpoints)))]
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
            continues=request.continues,
            side=stamp(),
        )
        stream = self._bus.of_key(CONVERSATIONS, request.conversation_id)
        keys = (self._names.conversation(name), self._names.open, self._names.closed, stream)
        fields = new_fields(stored, request, token, self._life)
        payload = msgspec.json.encode(change)
        # No later change says what it continues.
        stays = int(request.continues is not None)
        head = (name, request.conversation_id, payload, now, self._high_water, stays)
        created, _ = await self._run(_CREATE, keys, *head, *fields)
        if created < 0:
            raise BusFullError(FULL)
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

    def _progress(self, progress: Progress) -> tuple[bytes, bytes, str, int]:
        checkpoints = encode_checkpoints(progress.checkpoints)
        ledgers = msgspec.json.encode(progress.ledgers)
        return checkpoints, ledgers, offsets(progress.checkpoints), self._clock.now_ns()

    def _keys(self, name: str, *kinds: str) -> list[str]:
        return [getattr(self._names, kind)(name) for kind in kinds]

    async def _members(self, index: str, before_ns: int | None = None) -> list[str]:
        """Names in an index; its order is only as exact as a float is, so that one too many may be there."""
        limit = "+inf" if before_ns is None else before_ns
        return [name.decode() for name in await self._calls.call("ZRANGEBYSCORE", index, "-inf", limit)]

    async def _rows(self, names: Sequence[str]) -> list[Row]:
        found = []
        for start in range(0, len(names), TOGETHER):
            keys = [self._names.conversation(name) for name in names[start : start + TOGETHER]]
            rows, _ = await self._run(_ROWS, keys)
            found += [Row.of(pairs(flat)) for flat in rows if flat]
        return found


def _at_rest(progress: Progress) -> Progress:
    return msgspec.structs.replace(progress, checkpoints=at_rest(progress.checkpoints))
