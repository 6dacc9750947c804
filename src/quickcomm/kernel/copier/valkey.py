"""Rows that become keys: the target of a copy in Valkey."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import sqlalchemy as sa

from quickcomm.kernel.copier.copier import CopiedTable, Mark, Values
from quickcomm.kernel.messaging.bus.redis_link import Argument, Link, Script

Command = tuple[Argument, ...]
Commands = Callable[[list[Values]], Iterable[Command]]
"""What is done with a page of rows. A command has at most some thousand arguments."""
_APPLY: Final = Script("""
-- KEYS: marks. ARGV: table, its mark before and after; of each command the number of its words, and those.
local present = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if present ~= ARGV[2] then return present end
local place = 4
while place <= #ARGV do
    local last = place + tonumber(ARGV[place])
    redis.call(unpack(ARGV, place + 1, last))
    place = last + 1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return ARGV[3]
""")
_marks: Final = msgspec.json.Decoder(Mark)


class Moved(NamedTuple):
    """A table that becomes keys. `home`: the table that is emptied after the move, before the one it refers to."""

    table: CopiedTable
    commands: Commands
    home: sa.Table


class ValkeyTarget:
    """A `Target`. `marks`: the key of a hash."""

    def __init__(self, link: Link, marks: str, tables: Sequence[Moved]) -> None:
        self._link = link
        self._marks = marks
        self._commands = {moved.table.name: moved.commands for moved in tables}

    async def mark(self, table: str) -> Mark:
        found: bytes | None = await self._link.call("HGET", self._marks, table)
        return _read(found)

    async def apply(self, table: str, rows: list[Values], before: Mark, after: Mark) -> Mark:
        commands = self._commands[table](rows) if rows else ()
        words = [word for command in commands for word in (len(command), *command)]
        return _read(await self._link.run(_APPLY, [self._marks], table, _text(before), _text(after), *words))


def _text(mark: Mark) -> bytes:
    return b"" if mark == Mark() else msgspec.json.encode(mark)


def _read(found: bytes | None) -> Mark:
    return _marks.decode(found) if found else Mark()
