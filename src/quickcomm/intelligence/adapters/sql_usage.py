"""Tokens and money, by day and by conversation: counted in memory, written behind, read again at the start.

The day's sum is the whole installation's, because its bill is: where several processes have one database, each learns
within a second or two what the others have spent. Where intelligence moves, each side counts in rows of its own, and
has a copy of the other one's (`spent_since`, `follow`). `kill -9` costs what was counted in the last second.
"""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from prometheus_client import Counter, Gauge
from sqlalchemy import Connection

from quickcomm.contracts.usage import Cap, ConversationUsage, DayUsage, UsageReport
from quickcomm.intelligence.adapters.write_behind import WriteBehind
from quickcomm.intelligence.model.usage import NANO, Calendar, Spent, UsageSettings, cap_state, share_of_cap, spent_on
from quickcomm.intelligence.ports import ModelAnswer
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.storage import Database
from quickcomm.kernel.storage.upsert import Insert, Upsert, saving

MAX_WAITING: Final = 20_000
"""Conversations whose sums may wait for a disk that refuses; beyond that only the days are kept."""
MAX_DAYS: Final = 31
LEARN_EVERY_S: Final = 1.0

TOKENS = Counter("quickcomm_llm_tokens_total", "Tokens paid for", ["kind"])
COST = Counter("quickcomm_llm_cost_total", "Money spent on the model, in the currency of the settings")
OF_CAP = Gauge("quickcomm_llm_cap_used_ratio", "How much of the day's cap is used; 0 without a cap")

_meta = sa.MetaData()


def _sums() -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger) for name in ("calls", "prompt_tokens", "completion_tokens", "cost_nano")]


days = sa.Table(
    "intelligence_usage_days",
    _meta,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("day", sa.String, primary_key=True),
    sa.Column("side", sa.String, primary_key=True),
    *_sums(),
)
conversations = sa.Table(
    "intelligence_usage_conversations",
    _meta,
    sa.Column("site", sa.String, primary_key=True),
    sa.Column("conversation_id", sa.String, primary_key=True),
    sa.Column("side", sa.String, primary_key=True),
    sa.Column("last_ns", sa.BigInteger),
    *_sums(),
)


def _adding(table: sa.Table, keys: list[str]) -> Upsert:
    def make(insert: Insert) -> sa.Executable:
        statement = insert(table)
        sums = {name: table.c[name] + statement.excluded[name] for name in Spent.__struct_fields__}
        latest = {"last_ns": statement.excluded.last_ns} if "last_ns" in table.c else {}
        adding: sa.Executable = statement.on_conflict_do_update(index_elements=keys, set_={**sums, **latest})
        return adding

    return Upsert(make)


ADD_DAY: Final = _adding(days, ["site", "day", "side"])
_ADD_CONVERSATION: Final = _adding(conversations, ["site", "conversation_id", "side"])
_COUNTS: Final = Spent.__struct_fields__
_PUT_DAY: Final = saving(days, ("site", "day", "side"), _COUNTS)
_PUT_CONVERSATION: Final = saving(conversations, ("site", "conversation_id", "side"), ("last_ns", *_COUNTS))
OVERLAP_NS: Final = 10 * NANO
"""Counts are written some time after their call, and again where a disk refused them."""
MAX_FOLLOWED: Final = 1_000


class SpentOnDay(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    day: str
    spent: Spent


class SpentOnConversation(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    conversation_id: str
    last_ns: int
    spent: Spent


class SpentBySide(msgspec.Struct, frozen=True, kw_only=True):
    """What one side has counted: its last days, and the conversations that cost something last, oldest first."""

    days: tuple[SpentOnDay, ...] = ()
    conversations: tuple[SpentOnConversation, ...] = ()


class SqlUsage:
    """Implements `Usage`. `restore` before the first call, run `run` beside it, and `flush` at the end."""

    def __init__(self, database: Database, clock: Clock, settings: UsageSettings | None = None, side: str = "") -> None:
        """`side`: of this process, where intelligence moves."""
        self._side = side
        self._database = database
        self._clock = clock
        self._settings = settings or UsageSettings()
        self._calendar = Calendar(self._settings.time_zone)
        self._behind = WriteBehind(self.flush, "usage")
        self._days: dict[tuple[str, str], Spent] = {}
        self._conversations: dict[tuple[str, str], tuple[Spent, int]] = {}
        self._in_hand: list[dict[tuple[str, str], Spent]] = []
        """Days that are being written."""
        self._writes = 0
        self._today = Spent()
        self._day = ""
        self._ends_ns = 0
        self._turn()

    @property
    def exhausted(self) -> bool:
        self._turn()
        return share_of_cap(self._settings, self._today) >= 1

    @property
    def settled(self) -> bool:
        """Whether everything is written."""
        return not self._days and not self._in_hand

    def record(self, site: str, conversation_id: str, answer: ModelAnswer) -> None:
        self._turn()
        spent = spent_on(self._settings, answer.prompt_tokens, answer.completion_tokens)
        self._today += spent
        self._add_day(site, self._day, spent)
        self._add_conversation(site, conversation_id, spent, self._clock.now_ns())
        self._behind.touch()
        TOKENS.labels("prompt").inc(spent.prompt_tokens)
        TOKENS.labels("completion").inc(spent.completion_tokens)
        COST.inc(spent.cost)
        OF_CAP.set(share_of_cap(self._settings, self._today))

    def price_of(self, answer: ModelAnswer) -> Spent:
        """Return what a call costs, without counting it."""
        return spent_on(self._settings, answer.prompt_tokens, answer.completion_tokens)

    def cost_of(self, answer: ModelAnswer) -> float:
        """In the currency of the settings."""
        return self.price_of(answer).cost

    def leaves(self, beside: Spent) -> bool:
        """Return True if today's cap allows more than was counted here, and `beside`."""
        self._turn()
        return share_of_cap(self._settings, self._today + beside) < 1

    def today(self) -> DayUsage:
        """What all sites used since midnight."""
        self._turn()
        return _day_usage(self._day, self._today)

    def restore(self) -> None:
        """Read what today has cost so far, so that the cap holds across restarts. After the migrations."""
        self._turn()
        with self._database.engine.begin() as connection:
            self._today = _sum_of(connection, self._day)
        OF_CAP.set(share_of_cap(self._settings, self._today))

    async def run(self) -> None:
        """Write behind until cancelled, and learn what others have spent."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._behind.run(), name="usage:write")
            if self._database.shared or self._side:
                tasks.create_task(self._learn_forever(), name="usage:learn")

    async def learn(self) -> None:
        """Take over what all processes have spent today. Raises `StorageError`."""
        self._turn()
        day, writes = self._day, self._writes
        if self._in_hand:
            return  # what is being written might be counted twice
        stored = await self._database.read(lambda connection: _sum_of(connection, day))
        if writes == self._writes and day == self._day:
            self._take(stored)

    async def flush(self) -> None:
        """Write what was counted. Raises `StorageError`; then it stays to be written."""
        by_day, self._days = self._days, {}
        by_conversation, self._conversations = self._conversations, {}
        day_rows = [
            {"site": site, "day": day, "side": self._side, **_columns(spent)} for (site, day), spent in by_day.items()
        ]
        rows = [
            {"site": site, "conversation_id": identifier, "side": self._side, "last_ns": at_ns, **_columns(spent)}
            for (site, identifier), (spent, at_ns) in by_conversation.items()
        ]

        def run(connection: Connection) -> Spent:
            connection.execute(ADD_DAY.on(connection), day_rows)
            if rows:
                connection.execute(_ADD_CONVERSATION.on(connection), rows)
            return _sum_of(connection, today)

        if not day_rows:
            return
        today = self._day
        self._in_hand.append(by_day)
        self._writes += 1
        stored = None
        try:
            stored = await self._database.write(run)
        except Exception:
            for (site, day), spent in by_day.items():
                self._add_day(site, day, spent)
            for (site, identifier), (spent, at_ns) in by_conversation.items():
                self._add_conversation(site, identifier, spent, at_ns)
            raise
        finally:
            self._in_hand.remove(by_day)
            self._writes += 1
            if stored is not None and today == self._day:
                self._take(stored)

    async def report(self, site: str, conversation_id: str | None, limit: int) -> UsageReport:
        """The last days and the conversations that cost something last, `limit` at most."""
        await self.flush()
        by_day = sa.select(days.c.day, *_sum(days)).where(days.c.site == site).group_by(days.c.day)
        by_day = by_day.order_by(days.c.day.desc()).limit(MAX_DAYS)
        last_ns = sa.func.max(conversations.c.last_ns).label("last_ns")
        newest = sa.select(conversations.c.conversation_id, last_ns, *_sum(conversations))
        newest = newest.where(conversations.c.site == site).group_by(conversations.c.conversation_id)
        if conversation_id is not None:
            newest = newest.where(conversations.c.conversation_id == conversation_id)
        newest = newest.order_by(last_ns.desc()).limit(limit)
        day_rows, rows = await self._database.read(
            lambda connection: (list(connection.execute(by_day)), list(connection.execute(newest)))
        )
        return UsageReport(
            state=cap_state(self._settings, self._today),
            currency=self._settings.currency,
            time_zone=self._calendar.name or "local",
            cap=Cap(
                cost=self._settings.daily_cost, tokens=self._settings.daily_tokens, resets_at=_rfc3339(self._ends_ns)
            ),
            today=self.today(),
            days=tuple(_day_usage(row.day, _spent(row)) for row in day_rows),
            conversations=tuple(_conversation_usage(row) for row in rows),
        )

    def of_conversation(self, connection: Connection, site: str, conversation_id: str) -> ConversationUsage | None:
        """Return what one has cost, as far as it is written; None where it has cost nothing."""
        last_ns = sa.func.max(conversations.c.last_ns).label("last_ns")
        query = sa.select(conversations.c.conversation_id, last_ns, *_sum(conversations))
        query = query.where(conversations.c.site == site, conversations.c.conversation_id == conversation_id)
        row = connection.execute(query.group_by(conversations.c.conversation_id)).one_or_none()
        return None if row is None else _conversation_usage(row)

    async def spent_since(self, since_ns: int) -> SpentBySide:
        """Return what this side has counted, for the other one: of conversations, what changed since then."""
        await self.flush()
        own, recent = days.c.side == self._side, conversations.c.last_ns >= since_ns
        by_day = sa.select(days).where(own).order_by(days.c.day.desc()).limit(MAX_FOLLOWED)
        newest = sa.select(conversations).where(conversations.c.side == self._side, recent)
        newest = newest.order_by(conversations.c.last_ns).limit(MAX_FOLLOWED)
        day_rows, rows = await self._database.read(
            lambda connection: (list(connection.execute(by_day)), list(connection.execute(newest)))
        )
        return SpentBySide(
            days=tuple(SpentOnDay(site=row.site, day=row.day, spent=_spent(row)) for row in day_rows),
            conversations=tuple(
                SpentOnConversation(
                    site=row.site, conversation_id=row.conversation_id, last_ns=row.last_ns, spent=_spent(row)
                )
                for row in rows
            ),
        )

    async def followed_until(self, side: str) -> int:
        """Return from when on the other side's counts may be missing here."""
        query = sa.select(sa.func.max(conversations.c.last_ns)).where(conversations.c.side == side)
        newest = await self._database.read(lambda connection: connection.execute(query).scalar())
        return max(0, (newest or 0) - OVERLAP_NS)

    async def follow(self, side: str, found: SpentBySide) -> None:
        """Keep what the other side has counted, in place of what was known of it."""
        day_rows = [{"site": each.site, "day": each.day, "side": side, **_columns(each.spent)} for each in found.days]
        rows = [
            {
                "site": each.site,
                "conversation_id": each.conversation_id,
                "side": side,
                "last_ns": each.last_ns,
                **_columns(each.spent),
            }
            for each in found.conversations
        ]

        def run(connection: Connection) -> None:
            if day_rows:
                connection.execute(_PUT_DAY.on(connection), day_rows)
            if rows:
                connection.execute(_PUT_CONVERSATION.on(connection), rows)

        if day_rows or rows:
            await self._database.write(run)

    async def purge(self, before_ns: int) -> None:
        """Forget conversations of old; days are sums of nobody in particular, and stay."""
        old = conversations.delete().where(conversations.c.last_ns < before_ns)
        await self._database.write(lambda connection: connection.execute(old))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """A new day, a new allowance."""
        now = self._clock.now_ns()
        if now >= self._ends_ns:
            self._day = self._calendar.day(now)
            self._ends_ns = self._calendar.next_midnight_ns(now)
            self._today = Spent()
            OF_CAP.set(0)

    def _take(self, stored: Spent) -> None:
        """What is written, by whomever, and what is not yet."""
        waiting = (
            spent for each in (self._days, *self._in_hand) for (_, day), spent in each.items() if day == self._day
        )
        self._today = sum(waiting, stored)
        OF_CAP.set(share_of_cap(self._settings, self._today))

    async def _learn_forever(self) -> None:
        while True:
            await asyncio.sleep(LEARN_EVERY_S)
            with contextlib.suppress(QuickCommError):  # then it knows what it knew
                await self.learn()

    def _add_day(self, site: str, day: str, spent: Spent) -> None:
        self._days[site, day] = self._days.get((site, day), Spent()) + spent

    def _add_conversation(self, site: str, conversation_id: str, spent: Spent, at_ns: int) -> None:
        key = (site, conversation_id)
        before, last_ns = self._conversations.get(key, (Spent(), 0))
        if key in self._conversations or len(self._conversations) < MAX_WAITING:
            self._conversations[key] = (before + spent, max(last_ns, at_ns))


def _sum_of(connection: Connection, day: str) -> Spent:
    return _spent(connection.execute(sa.select(*_sum(days)).where(days.c.day == day)).one())


def _sum(table: sa.Table) -> list[sa.Label[int]]:
    """Return the sums over all sides."""
    return [sa.func.coalesce(sa.func.sum(table.c[name]), 0).label(name) for name in Spent.__struct_fields__]


def _spent(row: Any) -> Spent:
    return Spent(**{name: int(getattr(row, name)) for name in Spent.__struct_fields__})


def _columns(spent: Spent) -> dict[str, int]:
    return {name: getattr(spent, name) for name in Spent.__struct_fields__}


def _day_usage(day: str, spent: Spent) -> DayUsage:
    return DayUsage(
        day=day,
        calls=spent.calls,
        prompt_tokens=spent.prompt_tokens,
        completion_tokens=spent.completion_tokens,
        cost=spent.cost,
    )


def _conversation_usage(row: sa.Row[Any]) -> ConversationUsage:
    values = msgspec.structs.asdict(_day_usage("", _spent(row)))
    del values["day"]
    return ConversationUsage(conversation_id=row.conversation_id, last_call_at=_rfc3339(row.last_ns), **values)


def _rfc3339(ns: int) -> str:
    return datetime.fromtimestamp(ns // NANO, UTC).isoformat().replace("+00:00", "Z")
