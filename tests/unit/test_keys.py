"""Who may what, and the limits on guessing. The stores of keys: tests/contract/test_keys.py."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.http import TooManyRequestsError, UnauthorizedError
from quickcomm.kernel.keys import Authenticator, KeySettings, Role, permits
from quickcomm.kernel.keys.limits import TokenBuckets
from quickcomm.kernel.keys.sql import SqlKeys
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
def keys(database: Database, clock: FakeClock) -> SqlKeys:
    keys = SqlKeys(database, clock)
    keys.migrate()
    return keys


@pytest.mark.parametrize(
    ("role", "may"), [("ingest", {"ingest"}), ("read", {"read"}), ("admin", {"ingest", "read", "admin"})]
)
def test_roles(role: Role, may: set[str]) -> None:
    needs: tuple[Role, ...] = ("ingest", "read", "admin")
    assert {need for need in needs if permits(role, need)} == may


async def test_guessing_is_slowed_down_but_good_keys_pass(keys: SqlKeys, clock: FakeClock) -> None:
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


@pytest.mark.parametrize("host", ["127.0.0.1:8091", "localhost:8091", "[::1]:8091", "localhost"])
async def test_on_its_machine_a_refusal_names_the_command_for_this_server(keys: SqlKeys, host: str) -> None:
    with pytest.raises(UnauthorizedError, match="This makes one") as refused:
        await Authenticator(keys, FakeClock()).authenticate(make_mocked_request("GET", "/", headers={"Host": host}))
    assert str(refused.value).endswith(f"quickcomm keys create --role ROLE --url http://{host}")


@pytest.mark.parametrize("host", ["hotel.example", "localhost.example", "localhost:80;reboot", "127.0.0.1:1/$(reboot)"])
async def test_elsewhere_a_refusal_repeats_nothing(keys: SqlKeys, host: str) -> None:
    with pytest.raises(UnauthorizedError, match="On the server's machine") as refused:
        await Authenticator(keys, FakeClock()).authenticate(make_mocked_request("GET", "/", headers={"Host": host}))
    assert host not in str(refused.value)
    assert "--url" not in str(refused.value)


async def test_one_key_cannot_ask_without_end(keys: SqlKeys, clock: FakeClock) -> None:
    auth = Authenticator(keys, clock, KeySettings(requests_burst=3, requests_per_second=1))
    request = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {(await keys.create('read')).key}"})
    for _ in range(3):
        await auth.authenticate(request)
    with pytest.raises(TooManyRequestsError):
        await auth.authenticate(request)


async def test_one_key_cannot_open_pages_without_end(keys: SqlKeys, clock: FakeClock) -> None:
    """Each is a session that the store keeps for hours."""
    auth = Authenticator(keys, clock, KeySettings(requests_burst=3, requests_per_second=1))
    key = (await keys.create("read")).key
    for _ in range(3):
        await auth.login(make_mocked_request("POST", "/"), key)
    with pytest.raises(TooManyRequestsError):
        await auth.login(make_mocked_request("POST", "/"), key)


def test_buckets_are_bounded(clock: FakeClock) -> None:
    buckets = TokenBuckets(clock, rate=1, burst=1, max_names=10)
    for name in range(1000):
        assert buckets.take(str(name)) == 0
    assert len(buckets._buckets) == 10
    assert buckets.take("999") == 1
