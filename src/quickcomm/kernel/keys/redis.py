"""Keys and page sessions in Valkey, where several processes must know them, also while one of them is away.

While the server is away, who was known in the last `STALE_S` is still known; nobody can be revoked then either. The
same holds while it has lost its data, which the missing mark of its site tells: then a missing key is no wrong one.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import structlog

from quickcomm.contracts.commands import Role
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import NotFoundError, QuickCommError
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
from quickcomm.kernel.messaging.bus.port import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import PREFIX

STALE_S: Final = 300.0
AWAY_S: Final = 1.0
"""After the server did not answer, who is known is not asked for again so soon."""
MS: Final = 1_000_000

_CREATE: Final = Script("""
-- KEYS: by digest, by id. ARGV: digest, id, key.
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
return 1
""")
_keys: Final = msgspec.msgpack.Decoder(Key)

log = structlog.get_logger(__name__)


class StoreLostError(BusUnavailableError):
    """The store has not what it must have: it was emptied, or has come back without its data."""

    code = "store.lost"


class KeyNames:
    """Keys of this part in Valkey."""

    def __init__(self, prefix: str = PREFIX) -> None:
        self.by_digest = f"{prefix}:keys:by-digest"
        self.by_id = f"{prefix}:keys:by-id"
        self.sessions = f"{prefix}:page-sessions:"
        self.home = f"{prefix}:home"

    def session(self, key: bytes) -> str:
        return f"{self.sessions}{key.hex()}"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A page session as it is stored: whose, and until when. The server forgets it then."""

    key: bytes
    expires_ns: int


_sessions: Final = msgspec.msgpack.Decoder(Session)


class RedisKeys:
    """A `KeyStore`. Raises `BusUnavailableError` for who is not remembered while the server is away."""

    def __init__(self, url: str, clock: Clock, *, prefix: str = PREFIX) -> None:
        self._link = Link(url)
        self._clock = clock
        self._names = KeyNames(prefix)
        self._answers = Answers(clock, STALE_S)
        self._away_until = 0.0

    def migrate(self) -> None:
        """Nothing to be made before."""

    async def aclose(self) -> None:
        """May be called again."""
        await self._link.aclose()

    async def create(self, role: Role, name: str = "", site: str = "main") -> CreatedKey:
        text, key = new_key(role, name, site, self._clock.now_ns())
        places = (self._names.by_digest, self._names.by_id)
        await self._link.run(_CREATE, places, digest(text), key.id, msgspec.msgpack.encode(key))
        return CreatedKey(key=text, id=key.id, role=key.role)

    async def list(self) -> list[Key]:
        found: dict[bytes, bytes] = await self._link.call("HGETALL", self._names.by_digest)
        return sorted(map(_keys.decode, found.values()), key=lambda key: (key.created_ns, key.id))

    async def revoke(self, key_id: str) -> None:
        place: bytes | None = await self._link.call("HGET", self._names.by_id, key_id)
        key = await self._key(place) if place is not None else None
        if place is None or key is None:
            raise NotFoundError(f"There is no key {key_id!r}.")
        if key.revoked_ns is None:  # who does so at the same time writes the same
            revoked = msgspec.structs.replace(key, revoked_ns=self._clock.now_ns())
            await self._link.call("HSET", self._names.by_digest, place, msgspec.msgpack.encode(revoked))
        self._answers.forget_key(key_id)

    async def verify(self, text: str) -> Principal | None:
        """The owner of a key, or None."""
        return await self._known(digest(text), self._by_key) if is_key(text) else None

    async def open_session(self, principal: Principal) -> str:
        """Its key must have been verified just now."""
        secret = new_session()
        place: bytes | None = await self._link.call("HGET", self._names.by_id, principal.key_id)
        if place is None:
            raise NotFoundError("The key of this session is not there any more.")
        await self._write(digest(secret), place)
        return secret

    async def verify_session(self, secret: str) -> Principal | None:
        return await self._known(digest(secret), self._by_session) if is_session(secret) else None

    async def close_session(self, secret: str) -> None:
        key = digest(secret)
        await self._link.call("DEL", self._names.session(key))
        self._answers.forget(key)

    async def still_valid(self, principal: Principal) -> bool:
        """Ask again for a connection that lives long. Keeps its page session from expiring."""
        look = self._by_session if principal.via == "session" else self._by_key
        return await self._known(principal.secret_digest, look) is not None

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _known(self, key: bytes, look: Callable[[bytes], Awaitable[Principal | None]]) -> Principal | None:
        answers = self._answers
        if (found := answers.fresh(key)) is not None:
            return found
        epoch, known = answers.epoch, answers.stale(key)
        if known is not None and self._clock.monotonic() < self._away_until:
            return known
        try:
            found = await look(key)
        except BusUnavailableError as error:
            if self._away_until <= self._clock.monotonic():
                log.warning("keys.store_away", error=str(error))
            self._away_until = self._clock.monotonic() + AWAY_S
            # Asked for anew: it may have been revoked here meanwhile.
            if (known := answers.stale(key)) is None:
                raise
            return known
        if found is None:
            answers.drop(key)
            return None
        return answers.remember(key, found, epoch)

    async def _by_key(self, place: bytes) -> Principal | None:
        key = await self._key(place)
        if key is None:
            await self._check_not_lost()
        if key is None or key.revoked_ns is not None:
            return None
        return Principal(site=key.site, role=key.role, key_id=key.id, name=key.name, secret_digest=place)

    async def _by_session(self, place: bytes) -> Principal | None:
        stored: bytes | None = await self._link.call("GET", self._names.session(place))
        if stored is None:
            await self._check_not_lost()
        session = None if stored is None else _sessions.decode(stored)
        now = self._clock.now_ns()
        if session is None or session.expires_ns <= now:
            return None
        owner = await self._by_key(session.key)
        if owner is None:
            return None
        if session.expires_ns < now + SESSION_NS - RENEW_NS:
            try:
                await self._write(place, session.key, "XX")
            except QuickCommError as error:  # also where this process may only read: another one renews it
                log.debug("keys.session_not_renewed", error=str(error))
        return msgspec.structs.replace(owner, via="session", secret_digest=place)

    async def _check_not_lost(self) -> None:
        """Raises `StoreLostError` where the store has not even the mark of its site: see `messaging/bus/home.py`."""
        [mark] = await self._link.call("HMGET", self._names.home, "id")
        if mark is None:
            raise StoreLostError("The store has lost its data; keys are put back by: quickcomm up")

    async def _key(self, place: bytes) -> Key | None:
        stored: bytes | None = await self._link.call("HGET", self._names.by_digest, place)
        return None if stored is None else _keys.decode(stored)

    async def _write(self, place: bytes, key: bytes, *condition: str) -> None:
        session = Session(key=key, expires_ns=self._clock.now_ns() + SESSION_NS)
        value = msgspec.msgpack.encode(session)
        await self._link.call("SET", self._names.session(place), value, "PX", SESSION_NS // MS, *condition)
