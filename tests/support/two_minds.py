"""Two real sides of intelligence around one Valkey, a real controller with real evidence, and what is said."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.migrating import FakeSite
from tests.support.two_sides import TwoSides

from quickcomm.contracts.checking import ListBacklog, Waiting
from quickcomm.contracts.evidence import MeasureIntelligence
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.migration import GetMigration, MigrationStatus, ModuleMigration, StartMigration, StepMigration
from quickcomm.contracts.routes import MONOLITH, SERVICE, Side
from quickcomm.intelligence.adapters.redis_assignments import RedisAssignments
from quickcomm.intelligence.declaration import fence
from quickcomm.intelligence.module import Intelligence, Peers
from quickcomm.intelligence.ports import Heard
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance, registered
from quickcomm.kernel.messaging.bus.outbox import OutboxBus
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.routing import RedisRoutes, RoutesFollower
from quickcomm.kernel.routing.redis import EDGE
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.site_pack import load_pack
from quickcomm.kernel.storage import Database
from quickcomm.traffic.adapters.evidence import SiteEvidence
from quickcomm.traffic.adapters.journal import SqlJournal
from quickcomm.traffic.adapters.measuring import Measurer
from quickcomm.traffic.adapters.parity import Dashboards
from quickcomm.traffic.ports import TrafficSettings
from quickcomm.traffic.service.controller import Controller
from quickcomm.traffic.service.gatekeeper import Gatekeeper
from quickcomm.traffic.service.operating import Operating

LIMIT_S: Final = 30.0
PACK: Final = load_pack()
NAMES: Final[Mapping[Side, str]] = {MONOLITH: "monolith-1", SERVICE: "intelligence-1"}


class Keywords:
    """A local classifier that goes by a word; `wrong`: by the wrong one. May be held."""

    model = "keywords"

    def __init__(self) -> None:
        self.wrong = False
        self.heard = 0
        self.free = asyncio.Event()
        self.free.set()

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        self.heard += len(heard)
        await self.free.wait()
        return [(self._found("towels" in one.text),) for one in heard]

    def _found(self, towels: bool) -> Insight:  # noqa: FBT001 - what was found
        asks, chats = sorted(PACK.intents)[:2]
        intent = asks if towels != self.wrong else chats
        department = PACK.intents[intent].department
        return Insight(
            index=0, intent=intent, department=department, urgency="normal", summary="x", confidence=0.9, model="k"
        )


class Mind:
    """A side of intelligence with its database and its outbox."""

    def __init__(self, side: Side, folder: Path, url: str, prefix: str, routes: RoutesFollower) -> None:
        self.classifier = Keywords()
        clock = SystemClock(pauses=0.02)
        self.database = Database(folder / f"{side}.sqlite")
        self.database.open()
        bus = RedisBus(url, clock, prefix=prefix)
        self.bus = OutboxBus(url, self.database, clock, bus, {INSIGHTS: fence})
        ownership = Ownership(side, routes, RedisAssignments(url, prefix=prefix))
        self.intelligence = Intelligence(
            database=self.database,
            bus=self.bus,
            clock=clock,
            pack=PACK,
            classifier=self.classifier,
            peers=Peers(ownership=ownership),
        )
        self._answers = dict(self.intelligence.part().answers)

    def work(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        self.bus.migrate()
        self.intelligence.migrate()
        return [tasks.create_task(self.intelligence.run()), tasks.create_task(self.bus.maintain())]

    async def answer(self, request: Request[Any]) -> Any:
        return await self._answers[type(request)](request)

    async def aclose(self) -> None:
        await self.intelligence.aclose()
        await self.bus.aclose()
        await self.database.aclose()


class Everybody(LocalRpc):
    """Both sides' answers, as the controller gets them. `silent`: sides that do not answer."""

    def __init__(self, minds: Mapping[Side, Mind]) -> None:
        super().__init__(SystemClock())
        self._minds = minds

    async def call_all(self, request: Any) -> Mapping[str, Any]:
        assert isinstance(request, MeasureIntelligence)
        return {NAMES[side]: await mind.answer(request) for side, mind in self._minds.items()}


class TwoMinds:
    def __init__(self, folder: Path, url: str, prefix: str) -> None:
        self.sound = TwoSides(url, prefix)
        self.clock = SystemClock(pauses=0.05)
        self.store = RedisRoutes(self.sound.link, prefix=prefix)
        self.followers = {
            name: RoutesFollower(self.sound.link, name, self.clock, prefix=prefix) for name in (EDGE, *NAMES.values())
        }
        self.minds = {side: Mind(side, folder, url, prefix, self.followers[name]) for side, name in NAMES.items()}
        self.directory = DataDirectory(folder / "site")
        self.directory.create()
        self.directory.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._registry = DirectoryRegistry(self.directory.run / "instances")
        self._database = Database(folder / "traffic.sqlite")
        self._database.open()
        self.journal = SqlJournal(self._database, self.clock)
        rpc = Everybody(self.minds)
        dashboards = Dashboards(rpc, self.clock)
        measurer = Measurer(rpc, self.clock)
        evidence = SiteEvidence(
            self.directory, self._registry, dashboards, measurer, self.clock, {"understood": 10_000.0}
        )
        settings = TrafficSettings(queue_age_s=60.0, bake_s=3_600.0, answer_ms=10_000.0, answers=20)
        self.controller = Controller(self.journal, self.store, FakeSite(), self.clock, settings)
        self.gates = Gatekeeper(self.controller, evidence, self.clock, settings)
        self._answers = dict(Operating(self.controller, self.gates, self.journal, self.clock).answers())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.journal.migrate()
        await self.controller.open()
        up = LocalRpc(self.clock)
        up.serve([(ListBacklog, self._waiting)])
        try:
            name = NAMES[SERVICE]
            me = Instance(module="intelligence", name=name, pid=os.getpid(), version="1", socket="/none.sock")
            async with (
                registered(self._registry, me),
                admin_socket(up, self.directory.control),
                asyncio.TaskGroup() as tasks,
            ):
                work = [tasks.create_task(follower.run()) for follower in self.followers.values()]
                for mind in self.minds.values():
                    work += mind.work(tasks)
                work += [tasks.create_task(self.controller.run()), tasks.create_task(self.gates.run())]
                await asyncio.sleep(0)
                yield
                for task in work:
                    task.cancel()
        finally:
            for mind in self.minds.values():
                await mind.aclose()
            await self._database.aclose()
            await self.sound.aclose()

    # -- operators --------------------------------------------------------------------------------------------------

    async def start(self) -> Any:
        return await self._ask(StartMigration(name="intelligence", by="ann", force=True))

    async def step(self, *, force: bool = False) -> Any:
        return await self._ask(StepMigration(name="intelligence", by="ann", force=force))

    async def status(self) -> ModuleMigration:
        found: MigrationStatus = await self._ask(GetMigration())
        return next(module for module in found.modules if module.name == "intelligence")

    async def until(self, holds: Any) -> ModuleMigration:
        found = await self.status()
        try:
            async with asyncio.timeout(LIMIT_S):
                while not holds(found := await self.status()):  # noqa: ASYNC110 - the controller tells nobody
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(str(found)) from None
        return found

    async def compared(self, count: int) -> ModuleMigration:
        return await self.until(lambda module: module.understood is not None and module.understood.compared >= count)

    # -- people -----------------------------------------------------------------------------------------------------

    async def say(self, count: int, first: int = 0) -> list[str]:
        """Say something in so many conversations; return when all of it is answered."""
        names = [f"c{number}" for number in range(first, first + count)]
        said = [await self.sound.say(name, "towels" if number % 2 else "hello") for number, name in enumerate(names)]
        async with asyncio.timeout(LIMIT_S):
            while await self.sound.unanswered():  # noqa: ASYNC110 - only the store knows
                await asyncio.sleep(0.02)
        return said

    async def _ask(self, request: Request[Any]) -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await self._answers[type(request)](request)

    async def _waiting(self, _request: ListBacklog) -> list[Waiting]:
        return await self.minds[MONOLITH].bus.waiting()
