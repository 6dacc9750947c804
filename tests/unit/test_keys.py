"""Keys: seen once, stored as hashes, refused as soon as they are revoked; and the limits on guessing."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import InvalidInputError, NotFoundError
from quickcomm.kernel.http import TooManyRequestsError, UnauthorizedError
from quickcomm.kernel.keys import Authenticator, KeySettings, KeyStore, Role, permits
from quickcomm.kernel.keys.limits import TokenBuckets
from quickcomm.kernel.storage import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "keys.sqlite")
    database.open()
    yield database
    await database.aclose()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(database: Database, clock: FakeClock) -> KeyStore:
    keys = KeyStore(database, clock)
    keys.migrate()
    return keys


async def test_a_key_is_seen_once_and_stored_as_a_hash(keys: KeyStore, database: Database) -> None:
    created = await keys.create("ingest", name="radio 1")
    assert re.fullmatch(r"qc_ingest_[A-Za-z0-9_-]{43}", created.key)
    principal = await keys.verify(created.key)
    assert principal is not None
    assert (principal.site, principal.role, principal.key_id) == ("main", "ingest", created.id)
    listed = await keys.list()
    assert [(key.id, key.name, key.revoked_ns) for key in listed] == [(created.id, "radio 1", None)]
    stored = await database.read(
        lambda connection: connection.exec_driver_sql("SELECT * FROM kernel_keys").all().__repr__()
    )
    assert created.key not in stored
    assert created.key[-43:] not in stored


@pytest.mark.parametrize("text", ["", "qc_", "qc_read_", "x" * 10_000, "qc_admin_" + "A" * 43, "qc_\udc80"])
async def test_what_is_no_key_is_refused(keys: KeyStore, text: str) -> None:
    assert await keys.verify(text) is None


async def test_a_revoked_key_is_refused_at_once_here(keys: KeyStore) -> None:
    created = await keys.create("read")
    assert await keys.verify(created.key) is not None
    await keys.revoke(created.id)
    assert await keys.verify(created.key) is None
    await keys.revoke(created.id)
    with pytest.raises(NotFoundError):
        await keys.revoke("key_unknown")


async def test_a_revoked_key_is_refused_soon_by_another_process(
    keys: KeyStore, database: Database, clock: FakeClock
) -> None:
    created = await keys.create("read")
    other = KeyStore(database, clock)
    principal = await other.verify(created.key)
    assert principal is not None
    await keys.revoke(created.id)
    clock.advance(2)
    assert await other.verify(created.key) is None
    assert not await other.still_valid(principal)


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
    clock.advance(12 * 3600 + 1)
    assert await keys.verify_session(secret) is None
    secret = await keys.open_session(principal)
    await keys.revoke(created.id)
    assert await keys.verify_session(secret) is None


async def test_a_closed_session_is_refused_at_once(keys: KeyStore) -> None:
    created = await keys.create("admin")
    principal = await keys.verify(created.key)
    assert principal is not None
    secret = await keys.open_session(principal)
    assert await keys.verify_session(secret) is not None
    await keys.close_session(secret)
    assert await keys.verify_session(secret) is None


async def test_bad_roles_and_names_are_refused(keys: KeyStore) -> None:
    with pytest.raises(InvalidInputError):
        await keys.create("root")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError):
        await keys.create("read", name="x" * 81)


@pytest.mark.parametrize(
    ("role", "may"), [("ingest", {"ingest"}), ("read", {"read"}), ("admin", {"ingest", "read", "admin"})]
)
def test_roles(role: Role, may: set[str]) -> None:
    needs: tuple[Role, ...] = ("ingest", "read", "admin")
    assert {need for need in needs if permits(role, need)} == may


@pytest.mark.parametrize("site", ["", "..", "../../etc", "a/b", ".hidden", "-rf", "a b", "a\x00", "é", "x" * 81])
async def test_a_site_can_be_the_name_of_a_folder(keys: KeyStore, site: str) -> None:
    with pytest.raises(InvalidInputError):
        await keys.create("read", site=site)


@pytest.mark.parametrize("name", ["\u202eevil", "a\nb", "\x1b[31m", "\ud800"])
async def test_a_name_can_be_shown(keys: KeyStore, name: str) -> None:
    with pytest.raises(InvalidInputError):
        await keys.create("read", name=name)


async def test_guessing_is_slowed_down_but_good_keys_pass(keys: KeyStore, clock: FakeClock) -> None:
    auth = Authenticator(keys, clock, KeySettings(failures_burst=2, failures_per_minute=60))
    wrong = make_mocked_request("GET", "/", headers={"Authorization": "Bearer qc_read_wrong"})
    right = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {(await keys.create('read')).key}"})
    for _ in range(2):
        with pytest.raises(UnauthorizedError):
            await auth.authenticate(wrong)
    with pytest.raises(TooManyRequestsError) as refused:
        await auth.authenticate(wrong)
    assert refused.value.retry_after_s == 1
    assert (await auth.authenticate(right)).role == "read"
    clock.advance(1)
    with pytest.raises(UnauthorizedError):
        await auth.authenticate(wrong)


async def test_one_key_cannot_ask_without_end(keys: KeyStore, clock: FakeClock) -> None:
    auth = Authenticator(keys, clock, KeySettings(requests_burst=3, requests_per_second=1))
    request = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {(await keys.create('read')).key}"})
    for _ in range(3):
        await auth.authenticate(request)
    with pytest.raises(TooManyRequestsError):
        await auth.authenticate(request)


def test_buckets_are_bounded(clock: FakeClock) -> None:
    buckets = TokenBuckets(clock, rate=1, burst=1, max_names=10)
    for name in range(1000):
        assert buckets.take(str(name)) == 0
    assert len(buckets._buckets) == 10
    assert buckets.take("999") == 1
