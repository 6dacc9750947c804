"""Keys and page sessions in the database. Only SHA-256 digests are stored: the secrets have 256 random bits."""

import hmac
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.contracts.commands import Role
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.keys.answers import Answers
from quickcomm.kernel.keys.port import (
    RENEW_NS,
    SESSION_NS,
    CreatedKey,
    Key,
    Principal,
    digest,
    is_key,
    is_session,
    new_key,
    new_session,
)
from quickcomm.kernel.storage import Database, migrate

MIGRATIONS: Final = Path(__file__).with_name("migrations")

_meta = sa.MetaData()
keys_table = sa.Table(
    "kernel_keys",
    _meta,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("site", sa.String),
    sa.Column("role", sa.String),
    sa.Column("name", sa.String),
    sa.Column("digest", sa.LargeBinary),
    sa.Column("created_ns", sa.BigInteger),
    sa.Column("revoked_ns", sa.BigInteger),
)
sessions_table = sa.Table(
    "kernel_sessions",
    _meta,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("key_id", sa.String),
    sa.Column("expires_ns", sa.BigInteger),
)


class SqlKeys:
    """Answers are remembered for a second, so that a key revoked by another process is refused soon after."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._answers = Answers(clock)

    def migrate(self) -> None:
        migrate(self._database.engine, "keys", MIGRATIONS)

    async def aclose(self) -> None:
        """The database is closed by who opened it."""

    async def create(self, role: Role, name: str = "", site: str = "main") -> CreatedKey:
        text, key = new_key(role, name, site, self._clock.now_ns())
        row = {
            "id": key.id,
            "site": key.site,
            "role": key.role,
            "name": key.name,
            "digest": digest(text),
            "created_ns": key.created_ns,
        }
        await self._execute(keys_table.insert().values(row))
        return CreatedKey(key=text, id=key.id, role=key.role)

    async def list(self) -> list[Key]:
        def load(connection: Connection) -> list[Key]:
            rows = connection.execute(sa.select(keys_table).order_by(keys_table.c.created_ns, keys_table.c.id))
            return [
                Key(
                    id=row.id,
                    site=row.site,
                    role=row.role,
                    name=row.name,
                    created_ns=row.created_ns,
                    revoked_ns=row.revoked_ns,
                )
                for row in rows
            ]

        return await self._database.read(load)

    async def revoke(self, key_id: str) -> None:
        """Refuse the key and its page sessions from now on. Raises `NotFoundError`; doing it twice is fine."""
        now = self._clock.now_ns()

        def run(connection: Connection) -> None:
            revoke = keys_table.update().where(keys_table.c.id == key_id)
            values = {"revoked_ns": sa.func.coalesce(keys_table.c.revoked_ns, now)}
            if connection.execute(revoke.values(values)).rowcount == 0:
                raise NotFoundError(f"There is no key {key_id!r}.")
            connection.execute(sessions_table.delete().where(sessions_table.c.key_id == key_id))

        await self._database.write(run)
        self._answers.forget_key(key_id)

    async def verify(self, text: str) -> Principal | None:
        """The owner of a key, or None."""
        return await self._lookup(digest(text)) if is_key(text) else None

    async def open_session(self, principal: Principal) -> str:
        """A new page session; returns its secret id, which only the browser keeps."""
        secret = new_session()
        now = self._clock.now_ns()
        row = {"digest": digest(secret), "key_id": principal.key_id, "expires_ns": now + SESSION_NS}

        def run(connection: Connection) -> None:
            connection.execute(sessions_table.delete().where(sessions_table.c.expires_ns < now))
            connection.execute(sessions_table.insert().values(row))

        await self._database.write(run)
        return secret

    async def verify_session(self, secret: str) -> Principal | None:
        return await self._lookup_session(digest(secret)) if is_session(secret) else None

    async def close_session(self, secret: str) -> None:
        key = digest(secret)
        await self._execute(sessions_table.delete().where(sessions_table.c.digest == key))
        self._answers.forget(key)

    async def still_valid(self, principal: Principal) -> bool:
        """Ask again for a connection that lives long. Keeps its page session from expiring."""
        lookup = self._lookup_session if principal.via == "session" else self._lookup
        return await lookup(principal.secret_digest) is not None

    async def _lookup(self, key: bytes) -> Principal | None:
        epoch = self._answers.epoch
        cached = self._answers.fresh(key)
        if cached is not None:
            return cached
        row = await self._database.read(
            lambda connection: connection.execute(
                sa.select(keys_table).where(keys_table.c.digest == key, keys_table.c.revoked_ns.is_(None))
            ).one_or_none()
        )
        if row is None or not hmac.compare_digest(row.digest, key):
            return None
        principal = Principal(site=row.site, role=row.role, key_id=row.id, name=row.name, secret_digest=key)
        return self._answers.remember(key, principal, epoch)

    async def _lookup_session(self, key: bytes) -> Principal | None:
        epoch = self._answers.epoch
        cached = self._answers.fresh(key)
        if cached is not None:
            return cached
        now = self._clock.now_ns()
        query = (
            sa.select(keys_table, sessions_table.c.expires_ns, sessions_table.c.digest.label("session"))
            .join(sessions_table, sessions_table.c.key_id == keys_table.c.id)
            .where(sessions_table.c.digest == key, sessions_table.c.expires_ns > now, keys_table.c.revoked_ns.is_(None))
        )
        row = await self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None or not hmac.compare_digest(row.session, key):
            return None
        if row.expires_ns < now + SESSION_NS - RENEW_NS:
            renew = sessions_table.update().where(sessions_table.c.digest == key).values(expires_ns=now + SESSION_NS)
            await self._execute(renew)
        principal = Principal(
            site=row.site, role=row.role, key_id=row.id, name=row.name, via="session", secret_digest=key
        )
        return self._answers.remember(key, principal, epoch)

    async def _execute(self, statement: sa.Executable) -> None:
        def run(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(run)
