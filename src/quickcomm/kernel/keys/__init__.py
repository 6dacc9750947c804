"""API keys and page sessions: who is asking, for which site, and what they may do."""

from typing import TYPE_CHECKING

from quickcomm.contracts.commands import Role
from quickcomm.kernel.keys.auth import Authenticator, KeySettings
from quickcomm.kernel.keys.port import OPERATORS, CreatedKey, Key, KeyStore, Principal, permits

if TYPE_CHECKING:  # neither store is needed to read settings
    from quickcomm.kernel.clock import Clock
    from quickcomm.kernel.storage import Database


def key_store(redis_url: str | None, database: "Database | None", clock: "Clock") -> KeyStore:
    """Where the keys of a site are: in its Valkey, if it has one, else in its database."""
    if redis_url is not None:
        from quickcomm.kernel.keys.redis import RedisKeys  # noqa: PLC0415 - where there is no Valkey

        return RedisKeys(redis_url, clock)
    from quickcomm.kernel.keys.sql import SqlKeys  # noqa: PLC0415 - as above

    assert database is not None, "keys are in Valkey, or in a database"  # noqa: S101 - a programming error
    return SqlKeys(database, clock)


__all__ = [
    "OPERATORS",
    "Authenticator",
    "CreatedKey",
    "Key",
    "KeySettings",
    "KeyStore",
    "Principal",
    "Role",
    "key_store",
    "permits",
]
