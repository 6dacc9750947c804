"""Read what the bus holds in Valkey, without disturbing it, and write it as the tables of `sql.py`: for a backup."""

import re
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.messaging.bus.redis_consumer import Letter
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, PREFIX, Names
from quickcomm.kernel.messaging.bus.sql_tables import PARTITIONS as SQL_PARTITIONS
from quickcomm.kernel.messaging.bus.sql_tables import append, dead, groups, messages

TOGETHER: Final = 500
Id = tuple[int, int]
"""Of an entry: milliseconds, and a number within them."""
BEGINNING: Final = (0, 0)
_letters: Final = msgspec.msgpack.Decoder(Letter)


class _Place(NamedTuple):
    """One partition of one stream in Valkey."""

    stream: str
    part: int


class _Message(NamedTuple):
    id: Id
    place: _Place
    key: str
    payload: bytes


class MessageExport:
    """Messages that some group has not acknowledged, the groups' positions, and dead letters.

    What writes a message and what handles it are copied at different moments. Call `look` once at first, and again
    between any two copies: positions are those of the first look, messages those of all. What a consumer had handled
    in between is delivered to it again, and it drops what it knows.
    """

    def __init__(self, link: Link, prefix: str = PREFIX, joined: Mapping[str, str] = MappingProxyType({})) -> None:
        """`joined`: groups whose work another one does where there is one database, with the name of that one."""
        self._link = link
        self._joined = joined
        self._names = Names(prefix)
        self._acked: dict[_Place, dict[str, Id]] | None = None
        self._messages: dict[tuple[_Place, Id], _Message] = {}
        self._letters: dict[int, Letter] = {}

    async def look(self) -> None:
        """Read positions (the first time), messages and dead letters."""
        places = [place async for place in self._places()]
        if self._acked is None:
            self._acked = {place: await self._positions(place) for place in places}
        for place in places:
            after = min(self._acked.get(place, {}).values(), default=BEGINNING)
            async for message in self._after(place, after):
                self._messages[place, message.id] = message
        found: dict[bytes, bytes] = await self._link.call("HGETALL", self._names.dead)
        self._letters |= {int(number): _letters.decode(letter) for number, letter in found.items()}

    def write(self, connection: Connection) -> dict[str, int]:
        """Fill the tables, which may have messages that were not sent yet; return the rows that each must have now."""
        unsent = connection.execute(sa.select(messages).order_by(messages.c.id)).all()
        for table in (messages, groups, dead):
            connection.execute(table.delete())
        numbered = list(enumerate(sorted(self._messages.values()), start=1))
        if numbered:
            connection.execute(messages.insert(), [_row(number, message) for number, message in numbered])
        for row in unsent:
            append(connection, row.stream, row.key, row.payload)
        positions = self._positions_in(numbered)
        if positions:
            connection.execute(groups.insert(), positions)
        if self._letters:
            connection.execute(dead.insert(), [_letter_row(*item) for item in sorted(self._letters.items())])
        return {
            messages.name: len(numbered) + len(unsent),
            groups.name: len(positions),
            dead.name: len(self._letters),
        }

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _places(self) -> AsyncIterator[_Place]:
        is_part = re.compile(re.escape(self._names.prefix) + rf":([^:]+):([0-{PARTITIONS - 1}])")
        async for key in self._link.scan(f"{self._names.prefix}:*:[0-{PARTITIONS - 1}]"):
            if (found := is_part.fullmatch(key.decode())) is not None:
                yield _Place(found[1], int(found[2]))

    async def _positions(self, place: _Place) -> dict[str, Id]:
        """Return for each group the newest entry up to which it has acknowledged all."""
        stream = self._names.part(*place)
        found: dict[str, Id] = {}
        for group in await self._link.call("XINFO GROUPS", stream):
            acked = _id(group["last-delivered-id"])
            if group["pending"]:
                oldest = (await self._link.call("XPENDING", stream, group["name"]))["min"]
                acked = min(acked, _before(_id(oldest))) if oldest else acked
            name = self._joined.get(group["name"].decode(), group["name"].decode())
            found[name] = min(acked, found.get(name, acked))
        return found

    async def _after(self, place: _Place, after: Id) -> AsyncIterator[_Message]:
        while True:
            begin = f"({after[0]}-{after[1]}"
            page = await self._link.call("XRANGE", self._names.part(*place), begin, "+", "COUNT", TOGETHER)
            for entry, fields in page:
                after = _id(entry)
                yield _Message(after, place, fields[b"k"].decode(), fields[b"p"])
            if len(page) < TOGETHER:
                return

    def _positions_in(self, numbered: list[tuple[int, _Message]]) -> list[dict[str, str | int]]:
        """Return rows of `bus_groups`. A table has fewer partitions: a group stands before the first it may lack."""
        wanted: dict[tuple[str, str, int], int] = {}
        for place, positions in (self._acked or {}).items():
            for group in positions:
                for part in range(SQL_PARTITIONS):
                    wanted.setdefault((place.stream, group, part), 0)
        lacking: set[tuple[str, str, int]] = set()
        for number, message in numbered:
            part = message.place.part % SQL_PARTITIONS
            for group, acked in (self._acked or {}).get(message.place, {}).items():
                at = (message.place.stream, group, part)
                if message.id > acked:
                    lacking.add(at)
                elif at not in lacking:
                    wanted[at] = number
        return [
            {"stream": stream, "group_name": group, "part": part, "acked_id": acked}
            for (stream, group, part), acked in sorted(wanted.items())
        ]


def _id(entry: bytes) -> Id:
    ms, _, number = entry.partition(b"-")
    return int(ms), int(number)


def _before(entry: Id) -> Id:
    return (entry[0], entry[1] - 1) if entry[1] else (entry[0] - 1, 2**63)


def _row(number: int, message: _Message) -> dict[str, str | int | bytes]:
    return {
        "id": number,
        "stream": message.place.stream,
        "part": message.place.part % SQL_PARTITIONS,
        "key": message.key,
        "payload": message.payload,
    }


def _letter_row(number: int, letter: Letter) -> dict[str, str | int | bytes]:
    row: dict[str, str | int | bytes] = msgspec.structs.asdict(letter)
    return row | {"id": number, "group_name": row.pop("group")}
