"""A store that was emptied, or came back empty: nobody is told that a key is wrong, and all keys are put back."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.home import HOME, mark
from tests.support.valkey import Valkey

from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.keys import Principal
from quickcomm.kernel.keys import copy as copies
from quickcomm.kernel.keys.copy import KeyCopy
from quickcomm.kernel.keys.redis import AWAY_S, STALE_S, RedisKeys
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.messaging.bus.home import HomeInStore
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.runtime.store_alarms import LOST_CODE, StoreAlarms
from quickcomm.operate.up import store
from quickcomm.operate.up.store_watch import StoreWatch


class World:
    """A site's keys in a Valkey, and who looks after it."""

    def __init__(self, url: str, file: Path) -> None:
        self.clock = FakeClock()
        self.prefix = secrets.token_hex(8)
        self.url, self.file, self.link = url, file, Link(url)
        self.keys = RedisKeys(url, self.clock, prefix=self.prefix)
        self.alarms = StoreAlarms(url, self.clock, self.prefix)
        self.watch = self.new_watch()

    def new_watch(self) -> StoreWatch:
        """As the next `up` has it."""
        return StoreWatch(self.link, self.clock, self.new_copy(), self.prefix)

    def new_copy(self) -> KeyCopy:
        return KeyCopy(self.file, "redis://store", self.link, self.prefix)

    async def known(self, role: str = "ingest") -> tuple[str, Principal]:
        made = await self.keys.create("ingest" if role == "ingest" else "read")
        principal = await self.keys.verify(made.key)
        assert principal is not None
        return made.key, principal

    async def lose_all(self) -> None:
        for key in await self.link.call("KEYS", f"{self.prefix}:*"):
            await self.link.call("DEL", key)
        self.clock.advance(AWAY_S + 1.1)  # nothing is fresh any more

    async def codes(self) -> set[str]:
        return {code for code, _ in await self.alarms._read()}

    async def aclose(self) -> None:
        await self.keys.aclose()
        await self.alarms.aclose()
        await self.link.aclose()


@pytest.fixture
async def world(valkey: Valkey, tmp_path: Path) -> AsyncIterator[World]:
    made = World(valkey.url, tmp_path / "keys.json")
    await mark(valkey.url, made.prefix)
    yield made
    await made.aclose()


async def test_a_key_that_is_not_there_is_no_wrong_one_while_the_store_has_lost_its_data(world: World) -> None:
    _, principal = await world.known()
    unseen = await world.keys.create("ingest")
    secret = await world.keys.open_session(principal)
    assert await world.keys.verify("qc_ingest_wrong") is None
    await world.lose_all()
    assert await world.keys.still_valid(principal), "a radio that speaks is not sent away"
    for attempt in (world.keys.verify(unseen.key), world.keys.verify_session(secret)):
        with pytest.raises(BusUnavailableError) as told:
            await attempt
        assert told.value.retryable
    world.clock.advance(STALE_S)
    with pytest.raises(BusUnavailableError):
        await world.keys.still_valid(principal)


async def test_keys_are_put_back_and_revocations_with_them(world: World) -> None:
    text, principal = await world.known()
    unused = await world.keys.create("read", name="door")
    revoked, gone = await world.known()
    await world.keys.revoke(gone.key_id)
    before = await world.keys.list()
    await world.watch.look(HOME)
    assert await world.codes() == set()
    await world.lose_all()
    assert await world.codes() == {LOST_CODE}
    await world.new_watch().look(HOME)
    world.clock.advance(AWAY_S + 0.1)
    assert await world.keys.list() == before
    assert await world.keys.verify(text) == principal
    assert await world.keys.verify(unused.key) is not None
    assert await world.keys.verify(revoked) is None
    assert await world.keys.verify("qc_ingest_wrong") is None
    await world.keys.revoke(principal.key_id)
    assert await world.keys.verify(text) is None
    assert await HomeInStore(world.link, world.prefix).read() == HOME
    assert await world.codes() == {LOST_CODE}, "it is told for an hour"
    world.clock.advance(3600)
    assert await world.codes() == set()


async def test_a_store_that_came_back_with_old_data_revives_nobody(world: World) -> None:
    """As after a restart with a file that lacks the last seconds."""
    text, principal = await world.known()
    stored = await world.link.call("HGETALL", f"{world.prefix}:keys:by-digest")
    newer = await world.keys.create("ingest")
    await world.keys.revoke(principal.key_id)
    await world.watch.look(HOME)
    [(place, value)] = stored.items()
    await world.link.call("DEL", f"{world.prefix}:keys:by-digest")
    await world.link.call("HSET", f"{world.prefix}:keys:by-digest", place, value)
    await world.watch.look(HOME)
    assert await world.keys.verify(text) is None
    assert await world.keys.verify(newer.key) is not None
    assert await world.codes() == {LOST_CODE}


async def test_the_copy_waits_for_room_and_has_no_secret(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    made = await world.keys.create("ingest")
    with monkeypatch.context() as disk:
        disk.setattr(copies, "replace_file", full)
        await world.watch.look(HOME)
    assert not world.file.exists()
    await world.watch.look(HOME)
    assert made.id in world.file.read_text()
    assert made.key not in world.file.read_text()
    assert world.file.stat().st_mode & 0o777 == 0o600
    assert world.new_copy().is_of_this_store()
    assert not KeyCopy(world.file, "redis://other", world.link).is_of_this_store()
    world.file.write_text("{")
    with pytest.raises(ConfigurationError, match="damaged"):
        world.new_copy().is_of_this_store()


async def test_another_sites_store_is_left_alone(world: World) -> None:
    await world.watch.look(HOME)
    await HomeInStore(world.link, world.prefix).write(type(HOME)(id="other", whole=True))
    made = await world.keys.create("ingest")
    await world.watch.look(HOME)
    assert made.id not in world.file.read_text()


# -- a store of somebody else's ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_store_that_throws_data_away_is_refused(tmp_path: Path, policy: str) -> None:
    server = Valkey(tmp_path / "valkey", maxmemory="30mb", maxmemory_policy=policy)
    server.start()
    try:
        with pytest.raises(ConfigurationError, match=f"{policy}.*maxmemory-policy noeviction"):
            await store.check(server.url)
    finally:
        server.stop()


async def test_what_a_store_lacks_is_told_with_what_to_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Valkey(tmp_path / "valkey", appendonly="no", maxmemory_policy="allkeys-lru")
    server.start()
    world = World(server.url, tmp_path / "keys.json")
    try:
        await store.check(server.url)
        said = capsys.readouterr().out
        assert "appendonly yes" in said
        assert "no password" in said
        assert "maxmemory-policy noeviction" in said
        await mark(server.url, world.prefix)
        world.watch.facts = store.parse_facts(await world.link.call("INFO"))
        await world.watch.look(HOME)
        assert await world.codes() == {"store.not_persistent"}
        await world.link.call("CONFIG", "SET", "maxmemory", "30mb")
        await world.link.call("CONFIG", "SET", "appendonly", "yes")
        world.watch.facts = facts = store.parse_facts(await world.link.call("INFO"))
        await world.watch.look(HOME)
        assert await world.codes() == {"store.evicts"}
        row = facts.row()
        assert (row["policy"], row["max_memory_mb"], row["persistence"]) == ("allkeys-lru", 30, "append-only file")
        assert row["version"].partition(".")[0].isdigit()
    finally:
        await world.aclose()
        server.kill()  # it would wait until its new file is written


def test_an_address_is_shown_without_who_we_are() -> None:
    shown = store.shown_address("rediss://up:secret@store.example:6380/0?password_file=/etc/secret")
    assert shown == "rediss://store.example:6380/0"
    assert store.shown_address("unix://up@/run/valkey.sock?password_file=/x") == "unix:///run/valkey.sock"


def test_an_old_server_is_told_apart() -> None:
    assert store.parse_facts({"redis_version": "6.2.14"}).speaks < store.LEAST_VERSION
    assert store.parse_facts({"redis_version": "7.0.0"}).speaks >= store.LEAST_VERSION
