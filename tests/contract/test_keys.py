"""Keys: seen once, stored as hashes, refused as soon as they are revoked; the same in a database and in Valkey."""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.home import mark
from tests.support.valkey import Valkey

from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import InvalidInputError, NotFoundError
from quickcomm.kernel.keys import KeyStore, Principal
from quickcomm.kernel.keys.redis import AWAY_S, STALE_S, RedisKeys
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.storage import Database


class Site:
    """`open` gives a store of its own, as another process has it; `stored` is all that lies there."""

    def __init__(self, opened: Callable[[], KeyStore], stored: Callable[[], Awaitable[str]], clock: FakeClock) -> None:
        self.open = opened
        self.stored = stored
        self.clock = clock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sql", "valkey"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Site]:
    stores: list[KeyStore] = []
    database = Database(tmp_path / "keys.sqlite")
    database.open()
    prefix = secrets.token_hex(8)

    if request.param == "valkey":
        await mark(request.getfixturevalue("valkey").url, prefix)

    def opened() -> KeyStore:
        if request.param == "sql":
            store: KeyStore = SqlKeys(database, clock)
        else:
            store = RedisKeys(request.getfixturevalue("valkey").url, clock, prefix=prefix)
        store.migrate()
        stores.append(store)
        return store

    async def stored() -> str:
        if request.param == "sql":
            tables = ("kernel_keys", "kernel_sessions")
            return await database.read(
                lambda connection: repr([connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in tables])  # noqa: S608
            )
        return await everything(request.getfixturevalue("valkey"), prefix)

    yield Site(opened, stored, clock)
    for store in stores:
        await store.aclose()
    await database.aclose()


async def everything(valkey: Valkey, prefix: str) -> str:
    link = Link(valkey.url)
    try:
        found: list[Any] = []
        for name in await link.call("KEYS", f"{prefix}:*"):
            kind = await link.call("TYPE", name)
            found += [name, await link.call("HGETALL" if kind == b"hash" else "GET", name)]
        return repr(found)
    finally:
        await link.aclose()


@pytest.fixture
def keys(site: Site) -> KeyStore:
    return site.open()


async def owner(keys: KeyStore, role: str = "admin") -> Principal:
    principal = await keys.verify((await keys.create(role)).key)  # type: ignore[arg-type]
    assert principal is not None
    return principal


async def test_a_key_is_seen_once_and_stored_as_a_hash(keys: KeyStore, site: Site) -> None:
    created = await keys.create("ingest", name="radio 1")
    assert re.fullmatch(r"qc_ingest_[A-Za-z0-9_-]{43}", created.key)
    principal = await keys.verify(created.key)
    assert principal is not None
    assert (principal.site, principal.role, principal.key_id) == ("main", "ingest", created.id)
    assert (principal.name, principal.via) == ("radio 1", "bearer")
    listed = await keys.list()
    assert [(key.id, key.name, key.revoked_ns) for key in listed] == [(created.id, "radio 1", None)]
    secret = await keys.open_session(principal)
    stored = await site.stored()
    assert created.id in stored
    for text in (created.key, created.key[-43:], secret):
        assert text not in stored


async def test_the_oldest_comes_first(keys: KeyStore, clock: FakeClock) -> None:
    made = []
    for name in ("b", "a", "c"):
        made.append((await keys.create("read", name)).id)
        clock.advance(1)
    assert [key.id for key in await keys.list()] == made
    assert await keys.list() != []


@pytest.mark.parametrize("text", ["", "qc_", "qc_read_", "x" * 10_000, "qc_admin_" + "A" * 43, "qc_\udc80"])
async def test_what_is_no_key_is_refused(keys: KeyStore, text: str) -> None:
    assert await keys.verify(text) is None
    assert await keys.verify_session(text) is None


async def test_a_session_is_no_key_and_a_key_no_session(keys: KeyStore) -> None:
    created = await keys.create("admin")
    secret = await keys.open_session(await owner(keys))
    assert await keys.verify(secret) is None
    assert await keys.verify_session(created.key) is None


async def test_a_revoked_key_is_refused_at_once_here(keys: KeyStore, clock: FakeClock) -> None:
    created = await keys.create("read")
    assert await keys.verify(created.key) is not None
    await keys.revoke(created.id)
    assert await keys.verify(created.key) is None
    [listed] = await keys.list()
    clock.advance(60)
    await keys.revoke(created.id)
    assert await keys.list() == [listed], "when it was revoked first is kept"
    with pytest.raises(NotFoundError):
        await keys.revoke("key_unknown")


async def test_a_revoked_key_is_refused_soon_by_another_process(keys: KeyStore, site: Site) -> None:
    created = await keys.create("read")
    other = site.open()
    principal = await other.verify(created.key)
    assert principal is not None
    session = await other.open_session(principal)
    seen = await other.verify_session(session)
    assert seen is not None
    await keys.revoke(created.id)
    site.clock.advance(1.01)
    assert await other.verify(created.key) is None
    assert not await other.still_valid(principal)
    assert await other.verify_session(session) is None
    assert not await other.still_valid(seen)


async def test_a_key_made_by_another_process_is_known_at_once(keys: KeyStore, site: Site) -> None:
    other = site.open()
    assert await other.verify("qc_read_" + "A" * 43) is None
    assert await other.verify((await keys.create("read")).key) is not None
    secret = await other.open_session(await owner(keys))
    assert await keys.verify_session(secret) is not None


async def test_sessions_slide_expire_and_end_with_their_key(keys: KeyStore, clock: FakeClock) -> None:
    created = await keys.create("admin")
    principal = await keys.verify(created.key)
    assert principal is not None
    secret = await keys.open_session(principal)
    for _ in range(3):
        clock.advance(11 * 3600)
        seen = await keys.verify_session(secret)
        assert seen is not None
        assert seen.via == "session"
        assert await keys.still_valid(seen)
    clock.advance(12 * 3600 + 1)
    assert await keys.verify_session(secret) is None
    secret = await keys.open_session(principal)
    await keys.revoke(created.id)
    assert await keys.verify_session(secret) is None


async def test_a_closed_session_is_refused_at_once(keys: KeyStore, clock: FakeClock) -> None:
    secret = await keys.open_session(await owner(keys))
    assert await keys.verify_session(secret) is not None
    await keys.close_session(secret)
    assert await keys.verify_session(secret) is None
    clock.advance(3600)
    assert await keys.verify_session(secret) is None
    await keys.close_session(secret)


async def test_bad_roles_and_names_are_refused(keys: KeyStore) -> None:
    with pytest.raises(InvalidInputError):
        await keys.create("root")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        await keys.create("read", name="x" * 81)


@pytest.mark.parametrize("site_name", ["", "..", "../../etc", "a/b", ".hidden", "-rf", "a b", "a\x00", "é", "x" * 81])
async def test_a_site_can_be_the_name_of_a_folder(keys: KeyStore, site_name: str) -> None:
    with pytest.raises(InvalidInputError):
        await keys.create("read", site=site_name)


@pytest.mark.parametrize("name", ["\u202eevil", "a\nb", "\x1b[31m", "\ud800"])
async def test_a_name_can_be_shown(keys: KeyStore, name: str) -> None:
    with pytest.raises(InvalidInputError):
        await keys.create("read", name=name)


# -- Valkey alone -----------------------------------------------------------------------------------------------------


async def test_sessions_are_forgotten_by_the_server_itself(valkey: Valkey, clock: FakeClock, tmp_path: Path) -> None:
    keys, link = RedisKeys(valkey.url, clock, prefix=tmp_path.name), Link(valkey.url)
    try:
        await keys.open_session(await owner(keys))
        [name] = await link.call("KEYS", f"{tmp_path.name}:page-sessions:*")
        assert 12 * 3600 - 60 < await link.call("TTL", name) <= 12 * 3600
    finally:
        await keys.aclose()
        await link.aclose()


async def test_who_is_known_stays_known_while_the_server_is_away_but_not_for_ever(
    tmp_path: Path, clock: FakeClock
) -> None:
    server = Valkey(tmp_path / "valkey")
    server.start()
    keys = RedisKeys(server.url, clock)
    try:
        principal = await owner(keys)
        secret = await keys.open_session(principal)
        session = await keys.verify_session(secret)
        assert session is not None
        unseen = await keys.create("read")
        revoked = await owner(keys)
        await keys.revoke(revoked.key_id)
        server.stop()
        clock.advance(STALE_S - 2)
        assert await keys.still_valid(principal)
        assert await keys.verify_session(secret) == session
        for attempt in (keys.verify(unseen.key), keys.still_valid(revoked), keys.create("read"), keys.list()):
            with pytest.raises(BusUnavailableError):
                await attempt
        clock.advance(2.1)
        with pytest.raises(BusUnavailableError):
            await keys.still_valid(principal)
        server.start()
        clock.advance(AWAY_S)
        assert await keys.still_valid(principal)
        assert not await keys.still_valid(revoked)
    finally:
        await keys.aclose()
        server.stop()
