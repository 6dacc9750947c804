"""The controller on a real database and a real store: what it says is in force is in force, whenever it is killed."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
import sqlalchemy as sa
from tests.support.migrating import BAD, GOOD, FakeEvidence, FakeSite
from tests.support.valkey import Valkey

from quickcomm.contracts.messaging import Request
from quickcomm.contracts.migration import (
    AutoMigration,
    GetMigration,
    KillMigration,
    ListMigrationAudit,
    MigrationDone,
    MigrationStatus,
    OverflowMigration,
    PauseMigration,
    PromoteMigration,
    ResumeMigration,
    RollBackMigration,
    StartMigration,
    StepMigration,
)
from quickcomm.contracts.routes import MONOLITH, SERVICE, ModuleRoute, Routes
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.routing import RedisRoutes, RoutesFollower, StaleRoutesError
from quickcomm.kernel.routing.redis import EDGE
from quickcomm.kernel.storage import Database, StorageError
from quickcomm.traffic.adapters.journal import SqlJournal, audit_table
from quickcomm.traffic.model.overflow import OVERFLOW_S
from quickcomm.traffic.model.state import RefusedError, SiteState
from quickcomm.traffic.ports import TrafficSettings
from quickcomm.traffic.service.controller import AbandonedError, Controller, NotInForceError
from quickcomm.traffic.service.gatekeeper import Gatekeeper
from quickcomm.traffic.service.operating import GateError, Operating

T = TypeVar("T")
LIMIT_S: Final = 30.0


class KilledError(BaseException):
    """Stands for `kill -9`."""


class Life:
    """One life of a controller."""

    def __init__(self, world: "World", database: Database) -> None:
        self.database = database
        self.journal = SqlJournal(database, world.clock)
        settings = TrafficSettings(follow_s=5.0, ready_s=5.0, bake_s=60.0)
        self.controller = Controller(self.journal, world.routes, world.site, world.clock, settings)
        self.gates = Gatekeeper(self.controller, world.evidence, world.clock, settings)
        operating = Operating(self.controller, self.gates, self.journal, world.clock)
        self._answers = dict(operating.answers())

    async def ask(self, request: Request[Any]) -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await self._answers[type(request)](request)

    async def status(self) -> MigrationStatus:
        found: MigrationStatus = await self.ask(GetMigration(entries=50))
        return found

    async def settled(self) -> None:
        """Return when no change is under way."""

        async def under_way() -> bool:
            return any(state.change is not None for state in self.controller.site.modules.values())

        await until(under_way, lambda moves: not moves)


class World:
    """What outlives a controller: its file, the store, the processes."""

    def __init__(self, folder: Path, link: Link) -> None:
        self.folder = folder
        self.link = link
        self.prefix = secrets.token_hex(8)
        self.routes = RedisRoutes(link, prefix=self.prefix)
        self.clock = FakeClock(pauses=0.05)
        self.site = FakeSite()
        self.evidence = FakeEvidence()
        self.followers = [self.follower(EDGE), self.follower("monolith")]
        self.follows = asyncio.Event()
        self.follows.set()

    def follower(self, name: str) -> RoutesFollower:
        return RoutesFollower(self.link, name, self.clock, prefix=self.prefix)

    async def follow(self) -> None:
        """Follow until cancelled; while `follows` is not set, only the edge does."""
        while True:
            for follower in self.followers if self.follows.is_set() else self.followers[:1]:
                with contextlib.suppress(QuickCommError):  # the store is down
                    await follower.look()
            await asyncio.sleep(0.005)

    async def empty_store(self) -> None:
        async for key in self.link.scan(f"{self.prefix}:*"):
            await self.link.call("DEL", key)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Life]:
        """A controller that has read its journal, and does nothing yet."""
        database = Database(self.folder / "traffic.sqlite")
        database.open()
        life = Life(self, database)
        try:
            life.journal.migrate()
            await life.controller.open()
            yield life
        finally:
            await database.aclose()

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[Life]:
        async with self.opened() as life, asyncio.TaskGroup() as group:
            tasks = [group.create_task(life.controller.run()), group.create_task(self.follow())]
            await asyncio.sleep(0)
            yield life
            for task in tasks:
                task.cancel()


@pytest.fixture
async def world(tmp_path: Path, valkey: Valkey) -> AsyncIterator[World]:
    link = Link(valkey.url)
    yield World(tmp_path, link)
    await link.aclose()


async def until(found: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    async with asyncio.timeout(LIMIT_S):
        while not wanted(last := await found()):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    return last


def start(name: str = "dashboard", **more: Any) -> StartMigration:
    return StartMigration(name=name, by="ann", **more)


def step(name: str = "dashboard", *, force: bool = True) -> StepMigration:
    return StepMigration(name=name, by="ann", force=force)


# -- what a command says ----------------------------------------------------------------------------------------------


async def test_a_command_comes_back_when_the_change_is_in_force_everywhere(world: World) -> None:
    async with world.living() as life:
        done: MigrationDone = await life.ask(start())
        assert (done.mode, done.version, world.site.running) == ("shadow", 1, {"dashboard"})
        done = await life.ask(step())
        assert (done.mode, done.weight, done.version) == ("canary", 100, 2)
        await until(world.routes.followers, lambda followers: followers == {EDGE: 2, "monolith": 2})
        assert all(follower.routes.of("dashboard").weight == 100 for follower in world.followers)
        done = await life.ask(PromoteMigration(name="dashboard", by="ann", force=True))
        assert (done.mode, done.weight, done.decides) == ("full", 10_000, SERVICE)
        done = await life.ask(step())
        assert (done.mode, world.site.in_monolith) == ("retired", {"intelligence", "audio"})
        status = await until(life.status, lambda found: found.in_force)
        assert [each.name for each in status.modules] == ["dashboard", "intelligence", "audio"]


async def test_who_is_behind_is_named_and_the_change_goes_on(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        world.follows.clear()
        asking = asyncio.create_task(life.ask(step()))
        await until(world.routes.followers, lambda followers: followers.get(EDGE) == 2)
        world.clock.advance(6.0)
        with pytest.raises(NotInForceError, match=r"canary 1 % is not in force yet: behind version 2: .*monolith"):
            await asking
        status = await until(life.status, lambda found: found.modules[0].problem == "behind version 2: monolith")
        assert (status.in_force, status.behind) == (False, ("monolith",))
        assert "version 2" in status.modules[0].phase
        world.follows.set()
        await life.settled()
        await until(life.status, lambda status: status.in_force)
        assert (await life.status()).modules[0].problem == ""


async def test_an_edge_that_does_not_follow_is_waited_for(world: World) -> None:
    world.followers = [world.follower("monolith")]
    async with world.living() as life:
        asking = asyncio.create_task(life.ask(start()))
        await until(world.routes.followers, lambda followers: followers.get("monolith") == 1)
        world.clock.advance(6.0)
        with pytest.raises(NotInForceError, match="behind version 1: edge"):
            await asking
        world.followers.append(world.follower(EDGE))
        await life.settled()


async def test_a_service_that_does_not_get_ready_is_told_with_the_reason(world: World) -> None:
    world.site.lacks[SERVICE] = "40 cards are missing"
    async with world.living() as life:
        asking = asyncio.create_task(life.ask(start()))
        await until(life.status, lambda status: "has everything" in status.modules[0].phase)
        world.clock.advance(6.0)
        with pytest.raises(NotInForceError, match="40 cards are missing"):
            await asking
        del world.site.lacks[SERVICE]
        await life.settled()
        assert (await life.status()).modules[0].mode == "shadow"


async def test_a_rollback_does_not_wait_for_the_step_that_it_abandons(world: World) -> None:
    world.site.lacks[SERVICE] = "it never gets ready"
    async with world.living() as life:
        asking = asyncio.create_task(life.ask(start()))
        await until(life.status, lambda status: "has everything" in status.modules[0].phase)
        done: MigrationDone = await life.ask(RollBackMigration(name="dashboard", by="bob", why="no"))
        assert (done.mode, world.site.running) == ("off", set())
        with pytest.raises(AbandonedError, match="rollback to off by bob"):
            await asking


async def test_the_gate_is_asked_unless_forced(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        with pytest.raises(GateError, match="differences: not measured"):
            await life.ask(step(force=False))
        world.evidence.found = BAD
        with pytest.raises(GateError, match="3 between the sides"):
            await life.ask(step(force=False))
        world.evidence.found = GOOD
        done: MigrationDone = await life.ask(step(force=False))
        assert done.weight == 100
        [entry, *_] = [each for each in await life.ask(ListMigrationAudit(limit=50)) if each.action == "step"]
        assert {figure.outcome for figure in entry.evidence} == {"pass"}


async def test_what_is_refused_changes_nothing(world: World) -> None:
    async with world.living() as life:
        with pytest.raises(RefusedError, match="dashboard goes before intelligence"):
            await life.ask(start("intelligence"))
        assert life.controller.site == SiteState()
        assert await life.ask(ListMigrationAudit()) == []
        assert (await life.ask(start())).mode == "shadow"


async def test_the_kill_switch_takes_all_modules_back(world: World) -> None:
    async with world.living() as life:
        for name in ("dashboard", "intelligence"):
            await life.ask(start(name))
            await life.ask(PromoteMigration(name=name, by="ann", force=True))
        await life.ask(step("dashboard"))
        version = await world.routes.version()
        done: list[MigrationDone] = await life.ask(KillMigration(by="bob", why="smoke"))
        assert [(each.name, each.mode, each.decides) for each in done] == [
            ("dashboard", "shadow", MONOLITH),
            ("intelligence", "shadow", MONOLITH),
        ]
        assert "dashboard" in world.site.in_monolith
        assert await world.routes.version() == version + 2  # the one that was retired had to be started first
        everybody = {EDGE: version + 2, "monolith": version + 2}
        await until(world.routes.followers, lambda followers: followers == everybody)


async def test_what_has_no_room_gets_a_route_that_ends_by_itself(world: World) -> None:
    async with world.living() as life:
        await life.ask(start("audio", force=True))
        await life.ask(step("audio"))
        names = [f"c-{number}" for number in range(5)]
        asked = [OverflowMigration(name="audio", conversation_id=name) for name in [*names, *names]]
        await asyncio.gather(*map(life.ask, asked))
        wanted = dict.fromkeys(names, MONOLITH)
        await until(world.routes.read, lambda routes: routes.of("audio").overrides == wanted)
        await life.settled()
        assert (await life.status()).in_force
        world.clock.advance(OVERFLOW_S)
        await until(world.routes.read, lambda routes: routes.of("audio").overrides == {})
        await life.settled()
        told = {entry.who for entry in (await life.status()).audit if entry.action == "override"}
        assert told == {"controller"}


async def test_of_two_who_step_at_the_same_time_one_is_refused(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        found = await asyncio.gather(life.ask(step()), life.ask(step()), return_exceptions=True)
        assert {type(each) for each in found} == {MigrationDone, RefusedError}
        assert life.controller.site.of("dashboard").route.weight == 100


async def test_a_caller_that_hangs_up_leaves_the_change_whole(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        world.follows.clear()
        asking = asyncio.create_task(life.ask(step()))
        await until(world.routes.version, lambda version: version == 2)
        asking.cancel()
        await asyncio.wait([asking])
        world.follows.set()
        await life.settled()
        await until(life.status, lambda status: status.in_force)
        assert life.controller.site.of("dashboard").route.weight == 100


async def test_a_store_that_is_down_is_waited_for(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    link = Link(valkey.url)
    world = World(tmp_path, link)
    try:
        async with world.living() as life:
            await life.ask(start())
            valkey.stop()
            asking = asyncio.create_task(life.ask(step()))
            await until(life.status, lambda status: "version 2" in status.modules[0].phase)
            assert (await life.status()).followers is None
            world.clock.advance(11.0)
            with pytest.raises(NotInForceError, match="Valkey server does not answer"):
                await asking
            valkey.start()
            await life.settled()
            await until(life.status, lambda status: status.in_force)
            assert all(follower.routes.of("dashboard").weight == 100 for follower in world.followers)
    finally:
        await link.aclose()
        valkey.stop()


# -- gates ------------------------------------------------------------------------------------------------------------


async def test_a_breach_rolls_back_by_itself_and_says_why(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        await life.ask(step())
        await life.gates.look()
        assert life.gates.verdicts["dashboard"].outcome == "wait"
        world.evidence.found = BAD
        await life.gates.look()
        await life.settled()
        assert life.controller.site.of("dashboard").route == ModuleRoute(mode="shadow")
        [entry] = [each for each in await life.ask(ListMigrationAudit(limit=50)) if each.action == "rollback"]
        assert (entry.who, entry.before, entry.why) == ("controller", "canary 1 %", "differences: 3 between the sides")
        await life.gates.look()
        assert life.controller.site.of("dashboard").change is None


async def test_steps_are_taken_where_wanted_once_the_gate_passes_and_the_bake_time_is_over(world: World) -> None:
    world.evidence.found = GOOD
    async with world.living() as life:

        async def looked() -> tuple[str, int]:
            await life.gates.look()
            await life.settled()
            route = life.controller.site.of("dashboard").route
            return route.mode, route.weight

        await life.ask(start())
        world.clock.advance(61.0)
        assert await looked() == ("shadow", 0)  # nobody has asked for it
        await life.ask(AutoMigration(name="dashboard", by="ann", on=True))
        await life.ask(PauseMigration(name="dashboard", by="ann"))
        assert await looked() == ("shadow", 0)
        await life.ask(ResumeMigration(name="dashboard", by="ann"))
        assert await looked() == ("canary", 100)
        assert await looked() == ("canary", 100)  # it bakes
        seen = []
        for _ in range(6):
            world.clock.advance(61.0)
            seen.append(await looked())
        assert seen[:4] == [("canary", 500), ("canary", 2_500), ("canary", 5_000), ("full", 10_000)]
        assert seen[4:] == [("retired", 10_000)] * 2


# -- crashes ----------------------------------------------------------------------------------------------------------


class Killing:
    """A port of which the n-th call, before or after it had its effect, is the last thing that the controller does."""

    def __init__(self, port: Any, names: tuple[str, ...], counter: Iterator[int], at: int, *, after: bool) -> None:
        self._port = port
        self._names = names
        self._counter = counter
        self._at = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._port, name)
        if name not in self._names:
            return real

        async def call(*arguments: Any) -> Any:
            dies = next(self._counter) == self._at
            if dies and not self._after:
                raise KilledError
            found = await real(*arguments)
            if dies:
                raise KilledError
            return found

        return call


async def killed_at(world: World, commands: list[Request[Any]], at: int, *, after: bool) -> bool:
    """Run commands with a controller that dies at its n-th call; return False if it lived."""
    counter = iter(range(10_000))
    async with world.opened() as life:
        controller: Any = life.controller
        controller._journal = Killing(controller._journal, ("store",), counter, at, after=after)
        controller._routes = Killing(controller._routes, ("publish",), counter, at, after=after)
        acts = ("start", "stop", "retire", "revive", "end", "ready")
        controller._processes = Killing(controller._processes, acts, counter, at, after=after)

        async def work() -> None:
            try:
                for command in commands:
                    await life.ask(command)
            finally:
                running.cancel()

        running = asyncio.create_task(controller.run())
        asking = asyncio.create_task(work())
        await asyncio.wait([running])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return running.cancelled() or running.exception() is None


@pytest.mark.parametrize("after", [False, True])
async def test_killed_anywhere_the_next_controller_goes_on(tmp_path: Path, valkey: Valkey, *, after: bool) -> None:
    """The same commands and a kill at each call in turn: what was stored comes into force, once and completely."""
    forward: list[Request[Any]] = [start(), step(), PromoteMigration(name="dashboard", by="ann", force=True), step()]
    commands = [*forward, RollBackMigration(name="dashboard", by="bob"), step()]
    link = Link(valkey.url)
    for at in range(10_000):
        world = World(tmp_path / f"{at}", link)
        world.folder.mkdir()
        async with asyncio.TaskGroup() as group:
            following = group.create_task(world.follow())
            lived = await killed_at(world, commands, at, after=after)
            following.cancel()
        async with world.living() as life:
            await life.settled()
            site = life.controller.site
            state = site.of("dashboard")
            assert life.controller.epoch == 2
            await until(world.routes.version, lambda version, site=site: version == site.version)  # type: ignore[misc]
            await until(life.status, lambda status: status.in_force)
            assert ("dashboard" in world.site.running) == (state.stage.mode != "off")
            assert ("dashboard" in world.site.in_monolith) == (state.stage.mode != "retired")
            versions = [each.version for each in reversed(await life.ask(ListMigrationAudit(limit=1_000)))]
            assert versions == sorted(versions)
        if lived:
            break
    assert state.stage.mode == "off"
    await link.aclose()


async def nearly_left(world: World) -> None:
    """Take two modules to the end of the way, and the last one to full."""
    async with world.living() as life:
        for name in ("dashboard", "intelligence", "audio"):
            await life.ask(start(name))
            await life.ask(PromoteMigration(name=name, by="ann", force=True))
        for name in ("dashboard", "intelligence"):
            await life.ask(step(name))
        assert world.site.has_monolith


@pytest.mark.parametrize("after", [False, True])
async def test_killed_anywhere_the_process_of_the_monolith_is_there_if_it_has_a_module(
    tmp_path: Path, valkey: Valkey, *, after: bool
) -> None:
    """The last module goes and comes back; a controller that was killed is one that goes on."""
    commands: list[Request[Any]] = [step("audio"), start("audio", goal=MONOLITH)]
    link = Link(valkey.url)
    first = World(tmp_path / "first", link)
    first.folder.mkdir()
    await nearly_left(first)
    seen = set()
    for at in range(10_000):
        world = World(tmp_path / f"{at}", link)
        shutil.copytree(first.folder, world.folder)
        world.site.in_monolith = {"audio"}
        world.site.running = {"dashboard", "intelligence", "audio"}
        async with asyncio.TaskGroup() as group:
            following = group.create_task(world.follow())
            lived = await killed_at(world, commands, at, after=after)
            following.cancel()
        async with world.living() as life:
            await life.settled()
            mode = life.controller.site.of("audio").stage.mode
            seen.add(mode)
            assert ("audio" in world.site.in_monolith) == (mode == "full")
            assert world.site.has_monolith == (mode == "full")
            await life.ask(RollBackMigration(name="audio", by="bob"))
            assert world.site.has_monolith
            assert world.site.in_monolith == {"audio"}
        if lived:
            break
    assert seen == {"full", "retired"}
    await link.aclose()


async def test_a_module_that_comes_back_waits_until_the_process_has_ended_and_has_it_started(world: World) -> None:
    await nearly_left(world)
    asked, may_end, end = asyncio.Event(), asyncio.Event(), world.site.end

    async def slowly() -> None:
        asked.set()
        await may_end.wait()
        await end()

    world.site.end = slowly  # type: ignore[method-assign]
    async with world.living() as life:
        leaving = asyncio.create_task(life.ask(step("audio")))
        await asked.wait()
        world.site.calls.clear()
        coming = asyncio.create_task(life.ask(start("dashboard", goal=MONOLITH, force=True)))
        await until(life.status, lambda status: "starting the module" in status.modules[0].phase)
        assert world.site.calls == []
        may_end.set()
        assert ((await leaving).mode, (await coming).mode) == ("retired", "full")
        assert [call for call in world.site.calls if call != "ready"] == ["end", "revive"]
        assert (world.site.has_monolith, world.site.in_monolith) == (True, {"dashboard"})


async def test_the_process_does_not_end_where_a_module_has_begun_to_come_back(world: World) -> None:
    """As its turn comes: the other module has taken its turn before."""
    await nearly_left(world)
    async with world.living() as life:
        async with life.controller._at_monolith:
            leaving = asyncio.create_task(life.ask(step("audio")))
            await until(life.status, lambda status: "stopping the module" in status.modules[2].phase)
        world.site.lacks[MONOLITH] = "it copies"
        coming = asyncio.create_task(life.ask(start("dashboard", goal=MONOLITH, force=True)))
        assert (await leaving).mode == "retired"
        del world.site.lacks[MONOLITH]
        assert (await coming).mode == "full"
        assert world.site.has_monolith


async def test_an_emptied_store_gets_its_routes_again(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        await life.ask(step())
        await world.empty_store()
        assert await until(world.routes.version, bool) == 2
        assert all(follower.routes.of("dashboard").weight == 100 for follower in world.followers)


async def test_unreadable_routes_are_published_again(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        await life.ask(step())
        await world.link.call("HSET", f"{world.prefix}:routes", "version", "x", "routes", "no JSON")
        assert await until(world.routes.version, bool) == 2
        assert (await life.ask(step())).weight == 500


async def test_a_controller_that_was_replaced_stops_with_an_error(world: World) -> None:
    async with world.opened() as life:
        await world.routes.publish(Routes(version=1), 9)
        running = asyncio.create_task(life.controller.run())
        await asyncio.sleep(0)
        asking = asyncio.create_task(life.ask(start()))
        with pytest.raises(StaleRoutesError):
            await asyncio.wait_for(running, LIMIT_S)
        with pytest.raises(QuickCommError):
            await asking


async def test_each_controller_has_an_epoch_of_its_own(world: World) -> None:
    for epoch in (1, 2, 3):
        async with world.opened() as life:
            assert life.controller.epoch == epoch


# -- the audit --------------------------------------------------------------------------------------------------------


async def test_the_audit_tells_all_and_nothing_of_it_can_be_changed(world: World) -> None:
    async with world.living() as life:
        await life.ask(start())
        await life.ask(RollBackMigration(name="dashboard", by="bob", why="enough"))
        told = [(each.who, each.action, each.before, each.after) for each in await life.ask(ListMigrationAudit())]
        assert list(reversed(told)) == [
            ("ann", "start", "off", "shadow"),
            ("ann", "publish", "off", "shadow"),
            ("ann", "in force", "shadow", "shadow"),
            ("bob", "rollback", "shadow", "off"),
            ("bob", "publish", "shadow", "off"),
            ("bob", "in force", "off", "off"),
        ]
        for change in (audit_table.update().values(who="eve"), audit_table.delete()):
            with pytest.raises(StorageError, match="only appended to"):
                await life.database.write(lambda connection, change=change: connection.execute(change))  # type: ignore[misc]
        assert len(await life.ask(ListMigrationAudit(name="dashboard"))) == 6
        assert await life.ask(ListMigrationAudit(name="audio")) == []
        count = await life.database.read(
            lambda connection: connection.scalar(sa.select(sa.func.count(audit_table.c.id)))
        )
        assert count == 6
