"""Routes in a real Valkey: followed by all, kept where the store is emptied, refused from a controller that is late."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from tests.support.valkey import Valkey

from quickcomm.contracts.routes import SERVICE, ModuleRoute, Routes
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.routing import RedisRoutes, RoutesFollower, StaleRoutesError, first_routes, stored_routes
from quickcomm.kernel.routing.port import UnreadableRoutesError
from quickcomm.kernel.routing.redis import EDGE, FRESH_MS
from quickcomm.kernel.storage import Database
from quickcomm.traffic.adapters.journal import SqlJournal
from quickcomm.traffic.model.state import ModuleState, SiteState


def routes(version: int, weight: int = 0) -> Routes:
    return Routes(version=version, modules={"dashboard": ModuleRoute(mode="canary", weight=weight)})


class Store:
    """A store with a controller's end, and followers."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.prefix = secrets.token_hex(8)
        self.controller = RedisRoutes(link, prefix=self.prefix)

    def follower(self, name: str) -> RoutesFollower:
        return RoutesFollower(self.link, name, SystemClock(), prefix=self.prefix)

    async def empty(self) -> None:
        async for key in self.link.scan(f"{self.prefix}:*"):
            await self.link.call("DEL", key)


@pytest.fixture
async def store(valkey: Valkey) -> AsyncIterator[Store]:
    link = Link(valkey.url)
    yield Store(link)
    await link.aclose()


async def test_what_is_published_is_followed_and_reported_at_the_next_look(store: Store) -> None:
    audio, edge = store.follower("audio-1"), store.follower(EDGE)
    seen: list[tuple[int, int]] = []

    async def act() -> None:
        seen.append((audio.routes.version, audio.in_force))

    audio.on_change(act)
    await audio.look()
    assert (audio.routes, audio.in_force, seen) == (Routes(), 0, [])
    await store.controller.publish(routes(1, 500), 1)
    await audio.look()
    assert audio.routes.of("dashboard").weight == 500
    assert await store.controller.followers() == {"audio-1": 1}
    await edge.look()
    await audio.look()
    assert audio.in_force == 1
    assert seen[-1] == (1, 1)
    assert await store.controller.followers() == {"audio-1": 1, EDGE: 1}


async def test_a_version_is_reported_once_all_that_follows_from_it_is_done(store: Store) -> None:
    follower, reported = store.follower("audio-1"), list[int]()

    async def act() -> None:
        reported.append((await store.controller.followers())["audio-1"])
        if len(reported) == 1:
            raise RuntimeError("it fails once")

    follower.on_change(act)
    await store.controller.publish(routes(1), 1)
    with pytest.raises(RuntimeError, match="fails once"):
        await follower.look()
    await follower.look()
    assert reported == [0, 0]
    assert await store.controller.followers() == {"audio-1": 1}


async def test_an_emptied_store_changes_nobody_and_takes_the_same_routes_again(store: Store) -> None:
    follower = store.follower("audio-1")
    await store.controller.publish(routes(7, 500), 3)
    await follower.look()
    await store.empty()
    assert await store.controller.version() == 0
    await follower.look()
    assert follower.routes == routes(7, 500)
    assert await store.controller.followers() == {"audio-1": 7}
    await store.controller.publish(routes(7, 500), 3)
    await follower.look()
    assert (await store.controller.version(), follower.routes) == (7, routes(7, 500))
    assert store.follower("new").routes == Routes()


@pytest.mark.parametrize("field", ["routes", "version", "epoch"])
async def test_unreadable_routes_change_nobody_and_are_published_again(store: Store, field: str) -> None:
    follower = store.follower("audio-1")
    await store.controller.publish(routes(7, 500), 3)
    await follower.look()
    await store.link.call("HSET", f"{store.prefix}:routes", field, b"\xff no JSON")
    late = store.follower("late")
    for each in (follower, late):
        with contextlib.suppress(UnreadableRoutesError):
            await each.look()
    assert follower.routes == routes(7, 500)
    if field == "routes":
        assert await store.controller.version() == 0
        with pytest.raises(UnreadableRoutesError):
            await late.known()
    await store.controller.publish(routes(7, 500), 3)
    await late.look()
    assert late.routes == routes(7, 500)
    assert await store.controller.followers() == {"audio-1": 7, "late": 7}


async def test_who_starts_begins_with_what_the_controller_has_stored(store: Store, tmp_path: Path) -> None:
    """Where the store has nothing readable, or is behind; with a warning, once."""
    route = ModuleRoute(mode="full", weight=10_000, decides=SERVICE)
    database = Database(tmp_path / "traffic.sqlite")
    database.open()
    journal = SqlJournal(database, SystemClock())
    journal.migrate()
    await journal.begin()
    await journal.store(SiteState(version=7, modules={"dashboard": ModuleState(route=route)}), ())
    await database.aclose()
    last = stored_routes(tmp_path / "traffic.sqlite")
    assert last == Routes(version=7, modules={"dashboard": route})
    assert await first_routes(store.controller, last) == last
    await store.link.call("HSET", f"{store.prefix}:routes", "version", 9, "routes", "{")
    with structlog.testing.capture_logs() as logs:
        assert await store.follower(EDGE).adopt(last) == last
    assert [(each["event"], each["begins_with_version"]) for each in logs] == [("routes.not_known", 7)]
    await store.empty()
    await store.link.call("SET", f"{store.prefix}:routes", "no hash")
    assert await store.follower(EDGE).adopt(last) == last
    await store.empty()
    await store.controller.publish(routes(8, 500), 1)
    assert await first_routes(store.controller, last) == routes(8, 500)


def test_a_file_of_the_controller_that_is_missing_or_damaged_tells_no_routes(tmp_path: Path) -> None:
    assert stored_routes(tmp_path / "none.sqlite") == Routes()
    (tmp_path / "damaged.sqlite").write_bytes(b"no database" * 100)
    assert stored_routes(tmp_path / "damaged.sqlite") == Routes()


async def test_a_controller_that_is_late_is_refused(store: Store) -> None:
    await store.controller.publish(routes(5), 2)
    with pytest.raises(StaleRoutesError):
        await store.controller.publish(routes(6), 1)
    with pytest.raises(StaleRoutesError):
        await store.controller.publish(routes(4), 2)
    assert await store.controller.version() == 5
    await store.controller.publish(routes(5), 2)
    await store.controller.publish(routes(6), 3)
    assert await store.controller.version() == 6


async def test_who_is_behind_is_listed_with_what_it_follows(store: Store) -> None:
    quick, slow = store.follower("quick"), store.follower("slow")
    await store.controller.publish(routes(1), 1)
    await quick.look()
    await slow.look()
    await store.controller.publish(routes(2), 1)
    await quick.look()
    assert await store.controller.followers() == {"quick": 2, "slow": 1}


async def test_who_has_not_looked_for_long_is_not_waited_for(store: Store) -> None:
    living = store.follower("living")
    await living.look()
    now_s, _ = await store.link.call("TIME")
    long_ago_ms = int(now_s) * 1_000 - 2 * FRESH_MS
    await store.link.call("HSET", f"{store.prefix}:routes:followers", "hangs", f"0 {long_ago_ms}")
    assert await store.controller.followers() == {"living": 0}


async def test_routes_are_read_as_they_were_written(store: Store) -> None:
    follower = store.follower("audio-1")
    route = ModuleRoute(mode="full", weight=10_000, decides=SERVICE, overrides={"c1": SERVICE, "ü": "monolith"})
    await store.controller.publish(Routes(version=1, modules={"audio": route}), 1)
    await follower.look()
    assert follower.routes.of("audio") == route
    assert follower.routes.of("dashboard") == ModuleRoute()
