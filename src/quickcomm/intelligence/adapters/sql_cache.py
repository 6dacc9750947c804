"""Answers of the model by key: in memory, bounded and least recently used out; written behind, warm after a restart.

A hit costs microseconds and never touches the disk. `kill -9` costs what was put in the last second. Where several
processes have one database, what is not in memory is looked for there: another one may have asked.
"""

import contextlib
from collections import OrderedDict
from typing import Final

import msgspec
import sqlalchemy as sa
from prometheus_client import Counter, Gauge
from sqlalchemy import Connection

from quickcomm.intelligence.adapters.write_behind import WriteBehind
from quickcomm.intelligence.model.cache import CacheSettings
from quickcomm.intelligence.ports import Cached
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED
from quickcomm.kernel.storage import Database, StorageError
from quickcomm.kernel.storage.upsert import saving

HOUR_NS: Final = 3_600 * 10**9
REFRESH_NS: Final = HOUR_NS // 6
"""How old the stored time of last use may grow before a hit renews it."""
LOAD_ROWS: Final = 500
SPARE: Final = 1.1
"""The table may hold so many times what memory holds before it is trimmed."""

LOOKUPS = Counter("quickcomm_answer_cache_lookups_total", "Look-ups of the model's answers", ["result"])
ENTRIES = Gauge("quickcomm_answer_cache_entries", "Answers of the model in memory")
HIT_RATIO = Gauge("quickcomm_answer_cache_hit_ratio", "Hits among all look-ups since the start")

answers = sa.Table(
    "intelligence_cache",
    sa.MetaData(),
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("at_ns", sa.BigInteger),
    sa.Column("used_ns", sa.BigInteger),
)
_SAVE: Final = saving(answers, ["key"], ["answer", "at_ns", "used_ns"])
_decoder = msgspec.json.Decoder(Cached)


class _Entry(msgspec.Struct, kw_only=True):
    """`answer` stays encoded: small, and decoded only for those that are asked for."""

    answer: bytes
    at_ns: int
    used_ns: int


class SqlCache:
    """Implements `AnswerCache`. Run `run` beside it, and `flush` at the end."""

    def __init__(self, database: Database, clock: Clock, settings: CacheSettings | None = None) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings or CacheSettings()
        self._ttl_ns = int(self._settings.ttl_hours * HOUR_NS)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._changed: set[bytes] = set()
        self._behind = WriteBehind(self.flush, "cache")
        self._loaded = False
        self._rows = 0
        self._writing = 0
        self._hits = 0
        self._lookups = 0

    @property
    def hit_rate(self) -> float:
        """Hits among all look-ups since the start."""
        return self._hits / self._lookups if self._lookups else 0.0

    @property
    def settled(self) -> bool:
        """Whether everything is written."""
        return not self._changed and not self._writing

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: bytes) -> Cached | None:
        found = self._known(key)
        if found is None and (self._database.shared or not self._loaded):
            await self._fetch(key)
            found = self._known(key)
        self._lookups += 1
        self._hits += found is not None
        LOOKUPS.labels("miss" if found is None else "hit").inc()
        HIT_RATIO.set(self.hit_rate)
        return found

    async def put(self, key: bytes, answer: Cached) -> None:
        now = self._clock.now_ns()
        self._entries.pop(key, None)
        self._entries[key] = _Entry(answer=msgspec.json.encode(answer), at_ns=now, used_ns=now)
        self._mark(key)
        self._trim()

    async def run(self) -> None:
        """Take up what is stored, newest first, then write behind until cancelled."""
        await self.load()
        await self._behind.run()

    async def load(self) -> None:
        """In small reads, so that a start does not wait. Until it is done a look-up asks the table."""
        offset = 0
        while len(self._entries) < self._settings.entries:
            rows = await self._read(_newest(self._clock.now_ns() - self._ttl_ns, offset))
            for row in rows:
                self._take(row)
            offset += len(rows)
            if len(rows) < LOAD_ROWS:
                break
        with contextlib.suppress(StorageError):
            self._rows = await self._database.read(_count)
        self._loaded = True

    async def flush(self) -> None:
        """Write what has changed. Raises `StorageError`; then it stays to be written."""
        if not self._changed:
            return
        changed, self._changed = self._changed, set()
        rows = [_values(key, entry) for key in changed if (entry := self._entries.get(key)) is not None]
        crowded = self._rows + len(rows) > self._settings.entries * SPARE

        def run(connection: Connection) -> int:
            if rows:
                connection.execute(_SAVE.on(connection), rows)
            if crowded:
                self._cut(connection)
            return _count(connection) if crowded else self._rows + len(rows)

        self._writing += 1
        try:
            self._rows = await self._database.write(run)
        except Exception:
            self._changed |= changed
            raise
        finally:
            self._writing -= 1

    async def purge(self) -> None:
        """Delete what is too old or too much."""
        await self._database.write(self._cut)
        self._rows = await self._database.read(_count)

    def forget(self) -> None:
        """Forget all answers that are in memory, written or not."""
        self._entries.clear()
        self._changed.clear()
        ENTRIES.set(0)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _known(self, key: bytes) -> Cached | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock.now_ns()
        try:
            answer = _decoder.decode(entry.answer) if now - entry.at_ns < self._ttl_ns else None
        except MALFORMED:  # written by another version
            answer = None
        if answer is None:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        if now - entry.used_ns > REFRESH_NS:
            entry.used_ns = now
            self._mark(key)
        return answer

    def _mark(self, key: bytes) -> None:
        self._changed.add(key)
        self._behind.touch()

    def _trim(self) -> None:
        while len(self._entries) > self._settings.entries:
            key, _ = self._entries.popitem(last=False)
            self._changed.discard(key)
        ENTRIES.set(len(self._entries))

    def _take(self, row: sa.Row[tuple[bytes, bytes, int, int]]) -> None:
        """As used longest ago of all that are here; what came since the start is newer."""
        if row.key not in self._entries and len(self._entries) < self._settings.entries:
            self._entries[row.key] = _Entry(answer=row.answer, at_ns=row.at_ns, used_ns=row.used_ns)
            self._entries.move_to_end(row.key, last=False)
            ENTRIES.set(len(self._entries))

    async def _fetch(self, key: bytes) -> None:
        for row in await self._read(sa.select(answers).where(answers.c.key == key)):
            while row.key not in self._entries and len(self._entries) >= self._settings.entries:
                self._changed.discard(self._entries.popitem(last=False)[0])  # for one that is wanted now
            self._take(row)

    async def _read(
        self, query: sa.Select[tuple[bytes, bytes, int, int]]
    ) -> list[sa.Row[tuple[bytes, bytes, int, int]]]:
        try:
            return await self._database.read(lambda connection: list(connection.execute(query)))
        except StorageError:  # then it is not warm: the model is asked
            return []

    def _cut(self, connection: Connection) -> None:
        connection.execute(answers.delete().where(answers.c.at_ns < self._clock.now_ns() - self._ttl_ns))
        surplus = sa.select(answers.c.key).order_by(answers.c.used_ns.desc()).offset(self._settings.entries)
        connection.execute(answers.delete().where(answers.c.key.in_(surplus)))


def _values(key: bytes, entry: _Entry) -> dict[str, object]:
    return {"key": key, **msgspec.structs.asdict(entry)}


def _newest(since_ns: int, offset: int) -> sa.Select[tuple[bytes, bytes, int, int]]:
    return (
        sa.select(answers)
        .where(answers.c.at_ns >= since_ns)
        .order_by(answers.c.used_ns.desc())
        .limit(LOAD_ROWS)
        .offset(offset)
    )


def _count(connection: Connection) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(answers)).scalar_one())
