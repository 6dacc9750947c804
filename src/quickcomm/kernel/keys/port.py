"""What a key is, and what every store of keys promises. `sql.py` keeps them in a database, `redis.py` in Valkey.

Stores have only SHA-256 digests: the secrets have 256 random bits. What was verified is remembered for a second, so
that a key that was revoked by another process is refused soon after.
"""

import hashlib
import re
import secrets
from typing import Final, Literal, Protocol, get_args

import msgspec

from quickcomm.contracts.commands import Role
from quickcomm.kernel.errors import InvalidInputError

Via = Literal["bearer", "query", "session"]

SESSION_NS: Final = 12 * 3600 * 10**9
RENEW_NS: Final = 5 * 60 * 10**9
MAX_NAME: Final = 80
OPERATORS: Final = "main"
"""The site that keys are made for where none is named. Its administrators operate the whole server."""
SITE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
"""It becomes the name of a folder, among other things."""


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


def new_key(role: Role, name: str, site: str, now_ns: int) -> tuple[str, Key]:
    """Its text, to be shown once, and what is kept. Raises `InvalidInputError`."""
    if role not in get_args(Role):
        raise InvalidInputError(f"There is no role {role!r}; choose ingest, read or admin.")
    if len(name) > MAX_NAME or not name.isprintable():
        raise InvalidInputError(f"A key's name has at most {MAX_NAME} printable characters.")
    if not SITE.fullmatch(site):
        raise InvalidInputError("A site is 1 to 80 of the characters A-Z a-z 0-9 . _ - and starts with none of . _ -")
    text = f"qc_{role}_{secrets.token_urlsafe(32)}"
    key = Key(id=f"key_{secrets.token_hex(8)}", site=site, role=role, name=name, created_ns=now_ns)
    return text, key


def new_session() -> str:
    return secrets.token_urlsafe(32)


def is_key(text: str) -> bool:
    """Whether it is worth a look."""
    return text.startswith("qc_") and len(text) <= MAX_NAME


def is_session(secret: str) -> bool:
    return len(secret) <= MAX_NAME


class KeyStore(Protocol):
    """Every call may raise the store's own `QuickCommError`s: a database, or a server, that is away."""

    def migrate(self) -> None:
        """At start-up, before the first use."""
        ...

    async def create(self, role: Role, name: str = "", site: str = "main") -> CreatedKey:
        """Raises `InvalidInputError`."""
        ...

    async def list(self) -> list[Key]:
        """All that were ever made, the oldest first."""
        ...

    async def revoke(self, key_id: str) -> None:
        """Refuse the key and its page sessions from now on. Raises `NotFoundError`; doing it twice is fine."""
        ...

    async def verify(self, text: str) -> Principal | None:
        """The owner of a key, or None."""
        ...

    async def open_session(self, principal: Principal) -> str:
        """A new page session; returns its secret id, which only the browser keeps."""
        ...

    async def verify_session(self, secret: str) -> Principal | None:
        """Its owner, or None. Being used keeps it from expiring."""
        ...

    async def close_session(self, secret: str) -> None: ...

    async def still_valid(self, principal: Principal) -> bool:
        """Ask again for a connection that lives long. Keeps its page session from expiring."""
        ...

    async def aclose(self) -> None:
        """After the last use. May be called again."""
        ...
