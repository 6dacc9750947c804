"""What a module remembers beside the effect of a step, in the same transaction: that it was done, or taken back."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from quickcomm.kernel.errors import ConflictError
from quickcomm.kernel.storage.migrations import migrate

MIGRATIONS: Final = Path(__file__).with_name("migrations")
KEPT_NS: Final = 30 * 24 * 3600 * 10**9
"""At least so long is a key remembered: longer than any operation is tried again or lies parked unseen."""

keys = sa.Table(
    "saga_keys",
    sa.MetaData(),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("undone", sa.Boolean),
    sa.Column("reply", sa.LargeBinary),
    sa.Column("at_ns", sa.BigInteger),
)
_FIND: Final = sa.select(keys.c.undone, keys.c.reply).where(keys.c.key == sa.bindparam("key"))
_KEEP: Final = keys.insert()
_UNDO: Final = keys.update().where(keys.c.key == sa.bindparam("undone_key")).values(undone=True)


class CompensatedError(ConflictError):
    """The step was taken back: it must not have its effect any more."""

    code = "saga.compensated"


def migrate_keys(engine: Engine) -> None:
    """Make the table, in a database in which steps have effects."""
    migrate(engine, "saga", MIGRATIONS)


def once(connection: Connection, key: str, now_ns: int, effect: Callable[[], bytes]) -> bytes:
    """Have an effect, and remember its reply; where it was had before, return that reply.

    Raises `CompensatedError` where the step was taken back, and what the effect raises.
    """
    known = connection.execute(_FIND, {"key": key}).one_or_none()
    if known is None:
        reply = effect()
        connection.execute(_KEEP, {"key": key, "undone": False, "reply": reply, "at_ns": now_ns})
        return reply
    if known.undone:
        raise CompensatedError("This step was taken back; it has no effect any more.")
    return bytes(known.reply)


def undo(connection: Connection, key: str, now_ns: int, effect: Callable[[bytes], None]) -> bool:
    """Take a step back, given its reply, and refuse its key from now on, also where it had no effect yet.

    Return whether it had had one. Doing it again changes nothing.
    """
    known = connection.execute(_FIND, {"key": key}).one_or_none()
    if known is None:
        connection.execute(_KEEP, {"key": key, "undone": True, "reply": b"", "at_ns": now_ns})
        return False
    if not known.undone:
        effect(bytes(known.reply))
        connection.execute(_UNDO, {"undone_key": key})
    return bool(known.reply)


def forget(connection: Connection, before_ns: int) -> None:
    """Delete keys that are older than that."""
    connection.execute(keys.delete().where(keys.c.at_ns < before_ns))
