"""Keys and page sessions in the database. Only SHA-256 digests are stored: the secrets have 256 random bits."""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import InvalidInputError, NotFoundError
from quickcomm.kernel.storage import Database, migrate

Role = Literal["ingest", "read", "admin"]
Via = Literal["bearer", "query", "session"]

MIGRATIONS: Final = Path(__file__).with_name("migrations")
CACHE_TTL_S: Final = 1.0
CACHE_SIZE: Final = 4096
SESSION_NS: Final = 12 * 3600 * 10**9
RENEW_NS: Final = 5 * 60 * 10**9
MAX_NAME: Final = 80
SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""It becomes the name of a folder, among other things."""

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


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret."""

    id: str
    site: str
    role: Role
    name: str
    created_ns: int
    revoked_ns: int | None = None


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key: the only time its text is seen."""

    key: str
    id: str
    role: Role


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking. `secret_digest` lets a long-lived connection ask again whether it is still welcome."""

    site: str
    role: Role
    key_id: str
    name: str = ""
    via: Via = "bearer"
    secret_digest: bytes = b""


def permits(role: Role, need: Role) -> bool:
    """An admin may do everything; the others only what is theirs."""
    return role in ("admin", need)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class KeyStore:
    """Answers are remembered for a second, so that a key revoked by another process is refused soon after."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._epoch = 0  # counts revocations, so that an answer read before one is not remembered after it

    def migrate(self) -> None:
        migrate(self._database.engine, "keys", MIGRATIONS)

    async def create(self, role: Role, name: str = "", site: str = "main") -> CreatedKey:
        if role not in get_args(Role):
            raise InvalidInputError(f"There is no role {role!r}; choose ingest, read or admin.")
        if len(name) > MAX_NAME or not name.isprintable():
            raise InvalidInputError(f"A key's name has at most {MAX_NAME} printable characters.")
        if not SITE.fullmatch(site):
            raise InvalidInputError(
                "A site is 1 to 80 of the characters A-Z a-z 0-9 . _ - and starts with none of . _ -"
            )
        text = f"qc_{role}_{secrets.token_urlsafe(32)}"
        key_id = f"key_{secrets.token_hex(8)}"
        row = {
            "id": key_id,
            "site": site,
            "role": role,
            "name": name,
            "digest": digest(text),
            "created_ns": self._clock.now_ns(),
        }
        await self._execute(keys_table.insert().values(row))
        return CreatedKey(key=text, id=key_id, role=role)

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
        self._forget(key_id)

    async def verify(self, text: str) -> Principal | None:
        """The owner of a key, or None."""
        if not text.startswith("qc_") or len(text) > MAX_NAME:
            return None
        return await self._lookup(digest(text))

    async def open_session(self, principal: Principal) -> str:
        """A new page session; returns its secret id, which only the browser keeps."""
        secret = secrets.token_urlsafe(32)
        now = self._clock.now_ns()
        row = {"digest": digest(secret), "key_id": principal.key_id, "expires_ns": now + SESSION_NS}

        def run(connection: Connection) -> None:
            connection.execute(sessions_table.delete().where(sessions_table.c.expires_ns < now))
            connection.execute(sessions_table.insert().values(row))

        await self._database.write(run)
        return secret

    async def verify_session(self, secret: str) -> Principal | None:
        if len(secret) > MAX_NAME:
            return None
        return await self._lookup_session(digest(secret))

    async def close_session(self, secret: str) -> None:
        key = digest(secret)
        self._cache.pop(key, None)
        self._epoch += 1
        await self._execute(sessions_table.delete().where(sessions_table.c.digest == key))

    async def still_valid(self, principal: Principal) -> bool:
        """Ask again for a connection that lives long. Keeps its page session from expiring."""
        lookup = self._lookup_session if principal.via == "session" else self._lookup
        return await lookup(principal.secret_digest) is not None

    async def _lookup(self, key: bytes) -> Principal | None:
        epoch = self._epoch
        cached = self._cached(key)
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
        return self._remember(key, principal, epoch)

    async def _lookup_session(self, key: bytes) -> Principal | None:
        epoch = self._epoch
        cached = self._cached(key)
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
        return self._remember(key, principal, epoch)

    def _cached(self, key: bytes) -> Principal | None:
        entry = self._cache.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock.monotonic():
            del self._cache[key]
            return None
        return entry[1]

    def _remember(self, key: bytes, principal: Principal, epoch: int) -> Principal:
        if epoch != self._epoch:
            return principal
        self._cache[key] = (self._clock.monotonic() + CACHE_TTL_S, principal)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return principal

    async def _execute(self, statement: sa.Executable) -> None:
        def run(connection: Connection) -> None:
            connection.execute(statement)

        await self._database.write(run)

    def _forget(self, key_id: str) -> None:
        self._epoch += 1
        for key in [key for key, (_, principal) in self._cache.items() if principal.key_id == key_id]:
            del self._cache[key]
