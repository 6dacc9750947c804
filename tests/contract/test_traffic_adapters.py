"""How the migration controller reaches a site: sockets of `up` and the monolith, dashboards, rights in the store."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.support.guarded import Guarded

from quickcomm.apps import APPS, TRAFFIC_APP
from quickcomm.contracts.checking import (
    FIRST,
    CompareDashboard,
    Contents,
    Conversations,
    Item,
    ListBacklog,
    RecentDashboard,
    Summary,
    Waiting,
)
from quickcomm.contracts.commands import Command, Scale, StartModule, StopModule
from quickcomm.contracts.evidence import Difference, FieldAgreement, Measure, Measured, Shadowed, Spending
from quickcomm.contracts.routes import MONOLITH, SERVICE, ModuleRoute, Routes
from quickcomm.kernel.clock import FakeClock, SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry, Instance
from quickcomm.kernel.errors import BusyError, NotFoundError, QuickCommError
from quickcomm.kernel.messaging.bus import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.kernel.messaging.rpc import LocalRpc, UnansweredError
from quickcomm.kernel.routing import RedisRoutes, RoutesFollower
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.runtime.data_directory import DataDirectory, admin_socket_of
from quickcomm.kernel.telemetry.measured import Measurements
from quickcomm.operate.up import access
from quickcomm.traffic.adapters.evidence import RECENT_NS, SiteEvidence, queue_age_s
from quickcomm.traffic.adapters.measuring import Measurer
from quickcomm.traffic.adapters.parity import Dashboards, SideSilentError
from quickcomm.traffic.adapters.site import UpSite
from quickcomm.traffic.model.gates import Evidence, Limits, judge
from quickcomm.traffic.ports import SiteError

ROUTE: Final = ModuleRoute()
NS: Final = 10**9


class Everywhere(LocalRpc):
    """Answers of several instances."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.contents: dict[str, Contents | QuickCommError] = {}
        self.measured: dict[str, Measured | QuickCommError] = {}
        self.changed: list[int] = []
        self.wholes = 0

    async def call_all(self, request: Any) -> Mapping[str, Any]:
        if isinstance(request, Measure):
            return self.measured
        if isinstance(request, RecentDashboard):
            self.changed.append(request.since_ns)
            return {name: Conversations(keys=[("main", "u0"), ("main", "u1")]) for name in self.contents}
        assert isinstance(request, CompareDashboard)
        assert request.content
        self.wholes += request.after == FIRST
        return self.contents


def cards(*digests: str) -> Contents:
    items = [Item(site="main", id=f"u{at}", digest=digest) for at, digest in enumerate(digests)]
    return Contents(kinds={"cards": Summary(count=len(items), digest="".join(digests))}, items={"cards": items})


class Site:
    """A data directory with what runs on it."""

    def __init__(self, path: Path) -> None:
        self.directory = DataDirectory(path)
        self.directory.create()
        self.directory.run.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.registry = DirectoryRegistry(self.directory.run / "instances")
        self.clock = FakeClock(pauses=0.0)
        self.rpc = Everywhere()
        dashboards = Dashboards(self.rpc, self.clock)
        self.processes = UpSite(self.directory, self.registry, dashboards)
        self.evidence = SiteEvidence(
            self.directory, self.registry, dashboards, Measurer(self.rpc, self.clock), self.clock
        )
        self.asked: list[Command] = []
        self.in_monolith = {"dashboard"}
        self.waiting: list[Waiting] = []

    def serves(self, module: str) -> None:
        instance = Instance(module=module, name=f"{module}-1", pid=os.getpid(), version="1", socket="/nowhere.sock")
        self.registry.put(instance)

    async def scale(self, request: Scale) -> dict[str, Any]:
        self.asked.append(request)
        return {"module": request.process, "replicas": request.replicas}

    async def backlog(self, _request: ListBacklog) -> list[Waiting]:
        return self.waiting

    async def stop(self, request: StopModule) -> dict[str, Any]:
        """As a process does it."""
        self.asked.append(request)
        if request.name not in self.in_monolith:
            raise NotFoundError(f"There is no {request.name} that can be stopped here. There are: audio.")
        self.in_monolith.discard(request.name)
        return {"module": request.name, "stopped": True}

    async def start(self, request: StartModule) -> dict[str, Any]:
        self.in_monolith.add(request.name)
        return {"module": request.name, "started": True}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path / "site")
    up, monolith, service = (LocalRpc(made.clock) for _ in range(3))
    service.serve([(StopModule, made.stop)])
    up.serve([(Scale, made.scale), (ListBacklog, made.backlog)])
    monolith.serve([(StopModule, made.stop), (StartModule, made.start)])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(admin_socket(up, made.directory.control))
        await stack.enter_async_context(admin_socket(monolith, made.directory.socket))
        made.directory.dashboard.create()
        await stack.enter_async_context(admin_socket(service, made.directory.dashboard.socket))
        yield made


# -- processes --------------------------------------------------------------------------------------------------------


async def test_a_service_is_started_once_and_stopped(site: Site) -> None:
    await site.processes.start("dashboard", SERVICE)
    site.serves("dashboard")
    await site.processes.start("dashboard", SERVICE)
    await site.processes.stop("dashboard", SERVICE)
    assert site.asked == [
        Scale(process="dashboard", replicas=1),
        StopModule(name="dashboard"),
        Scale(process="dashboard", replicas=0),
    ]


async def test_a_service_that_hangs_is_stopped_where_nothing_waits_for_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quickcomm.traffic.adapters.site.STOPS_WITHIN_S", 0.05)
    site.serves("intelligence")

    async def hang(_request: StopModule) -> None:
        await asyncio.Event().wait()

    hanging = LocalRpc(site.clock)
    hanging.serve([(StopModule, hang)])
    home = site.directory.part("intelligence")
    home.create()
    async with admin_socket(hanging, home.socket):
        await site.processes.stop("intelligence", SERVICE)
    assert site.asked == [Scale(process="intelligence", replicas=0)]


async def test_each_of_several_processes_has_to_confirm_that_it_has_stopped(site: Site) -> None:
    """They share a database, and each has a socket of its own."""
    stopped: list[str] = []

    def process(name: str) -> LocalRpc:
        async def stop(request: StopModule) -> dict[str, Any]:
            stopped.append(name)
            return {"module": request.name, "stopped": True}

        rpc = LocalRpc(site.clock)
        rpc.serve([(StopModule, stop)])
        return rpc

    sockets = [str(site.directory.run / f"dashboard-{number}.sock") for number in (1, 2)]
    for number, socket in enumerate(sockets, 1):
        site.registry.put(
            Instance(module="dashboard", name=f"dashboard-{number}", pid=os.getpid(), version="1", socket=socket)
        )
    async with (
        admin_socket(process("one"), admin_socket_of(sockets[0])),
        admin_socket(process("two"), admin_socket_of(sockets[1])),
    ):
        await site.processes.stop("dashboard", SERVICE)
    assert sorted(stopped) == ["one", "two"]
    assert site.asked == [Scale(process="dashboard", replicas=0)]
    admin_socket_of(sockets[1]).touch()  # one that hangs
    with pytest.raises(SiteError, match="a process of the service does not answer"):
        await site.processes.stop("dashboard", SERVICE)


async def test_a_module_of_the_monolith_is_stopped_and_started_as_often_as_asked(site: Site) -> None:
    for _ in range(2):
        await site.processes.retire("dashboard", MONOLITH)
        assert site.in_monolith == set()
    for _ in range(2):
        await site.processes.revive("dashboard", MONOLITH)
        assert site.in_monolith == {"dashboard"}
    assert site.asked[-1] == Scale(process="monolith", replicas=1), "there may be no process"


async def test_the_process_of_the_monolith_ends_once_all_modules_are_stopped_and_all_messages_sent(site: Site) -> None:
    asked = [
        Scale(process="monolith", replicas=1),
        *(StopModule(name=name) for name in ("dashboard", "intelligence", "audio")),
    ]
    with contextlib.closing(sqlite3.connect(site.directory.database)) as database:
        database.execute("CREATE TABLE bus_messages (id INTEGER)")
        database.execute("INSERT INTO bus_messages VALUES (1)")
        database.commit()
        with pytest.raises(SiteError, match="still to be sent"):
            await site.processes.end()
        assert site.asked == asked
        database.execute("DELETE FROM bus_messages")
        database.commit()
    site.asked.clear()
    await site.processes.end()
    assert site.asked == [*asked, Scale(process="monolith", replicas=0)]


async def test_a_module_that_a_killed_monolith_began_without_is_started_before_it_serves(site: Site) -> None:
    await site.processes.revive("intelligence", MONOLITH)
    site.in_monolith = set()
    assert await site.processes.ready("intelligence", MONOLITH) == ""
    assert site.in_monolith == {"intelligence"}


async def test_who_does_not_answer_is_told(tmp_path: Path) -> None:
    lonely = Site(tmp_path)
    with pytest.raises(SiteError, match="`quickcomm up` does not answer"):
        await lonely.processes.start("dashboard", SERVICE)
    with pytest.raises(SiteError, match="the monolith does not answer"):
        await lonely.processes.retire("dashboard", MONOLITH)


async def test_a_monolith_that_cannot_start_a_module_again_says_what_to_do(tmp_path: Path) -> None:
    old = Site(tmp_path)
    up = LocalRpc(old.clock)
    up.serve([(Scale, old.scale)])
    async with admin_socket(up, old.directory.control), admin_socket(LocalRpc(old.clock), old.directory.socket):
        with pytest.raises(SiteError, match="quickcomm restart monolith"):
            await old.processes.revive("dashboard", MONOLITH)


async def test_a_side_is_ready_when_it_has_what_the_other_one_has(site: Site) -> None:
    assert await site.processes.ready("dashboard", SERVICE) == "no process of dashboard serves yet"
    site.serves("dashboard")
    with pytest.raises(SideSilentError, match="the dashboard of the monolith does not answer"):
        await site.processes.ready("dashboard", SERVICE)
    site.rpc.contents = {"monolith": cards("a", "b"), "dashboard-1": cards("a")}
    assert "1 differences between the sides, such as cards.missing u1" in await site.processes.ready(
        "dashboard", SERVICE
    )
    assert await site.processes.ready("dashboard", MONOLITH) != ""
    site.rpc.contents["dashboard-1"] = cards("a", "b")
    assert await site.processes.ready("dashboard", SERVICE) == ""


# -- evidence ---------------------------------------------------------------------------------------------------------


async def test_without_a_process_nothing_is_measured_and_the_reasons_are_given(site: Site) -> None:
    found = await site.evidence.of("dashboard", 0, ROUTE)
    assert (found.differences, found.service.queue_age_s) == (None, None)
    assert found.why_not["queue age"] == "no process of the service serves"
    assert found.why_not["differences"] == "not compared yet"
    assert "errors" in found.why_not


async def test_what_both_sides_measured_is_added_up_by_side(site: Site) -> None:
    busy = Measured(side="service", answered=30, errors=2, compared=30, alike=29, conversations=2)
    site.rpc.measured = {
        "dashboard-1": msgspec.structs.replace(busy, stages_ms={"store": (1.0, 2.0)}),
        "dashboard-2": busy,
        "monolith-1": Measured(side="monolith", answered=7, conversations=3),
    }
    found = await site.evidence.of("dashboard", site.clock.now_ns() - 600 * 10**9, ROUTE)
    assert (found.service.answered, found.service.errors, found.monolith.answered) == (56, 4, 7)
    assert (found.agreement, found.service.stages_ms) == ((58, 60), {"store": (1.0, 2.0)})
    assert found.conversations_per_hour == pytest.approx(7 * 6)
    assert found.service.silent_s == 0


async def test_cpu_time_is_put_together_by_side_and_unknown_where_nobody_measures_it(site: Site) -> None:
    site.rpc.measured = {
        "dashboard-1": Measured(side="service", cpu_ms=(1.0, 2.0)),
        "dashboard-2": Measured(side="service", cpu_ms=(3.0,)),
        "monolith-1": msgspec.json.decode(b'{"side":"monolith","cpu_s":9.5}', type=Measured),  # an older release
    }
    found = await site.evidence.of("dashboard", 0, ROUTE)
    assert (found.service.cpu_ms, found.monolith.cpu_ms) == ((1.0, 2.0, 3.0), None)


def test_cpu_time_is_of_the_process_by_the_utterances_that_it_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = FakeClock(), iter([10.0, 10.5, 11.5, 11.5, 11.5, 11.5])
    monkeypatch.setattr("time.process_time", lambda: next(seconds))
    measurements = Measurements(clock, "service")
    for utterances in (4, 5, 11):
        measurements.read(utterances)
    clock.advance(5)
    later_ns = clock.now_ns()
    measurements.read(50)
    assert measurements.since(0).cpu_ms == (25.0, 20.0)
    assert measurements.since(later_ns).cpu_ms == (20.0,)


async def test_a_service_that_answers_no_more_is_silent_for_as_long(site: Site) -> None:
    site.rpc.measured = {"dashboard-1": Measured(side="service")}
    await site.evidence.of("dashboard", 0, ROUTE)
    site.rpc.measured = {"dashboard-1": BusyError("It hangs.")}
    site.clock.advance(7.0)
    found = await site.evidence.of("dashboard", 0, ROUTE)
    assert found.service.silent_s == 7.0
    assert judge("dashboard", "canary", found, Limits()).outcome == "breach"


async def test_what_both_sides_understood_is_agreement_and_a_stage(site: Site) -> None:
    whole = Measured(side="service", shadow=Shadowed())
    site.rpc.measured = {"intelligence-1": whole, "monolith-1": Measured(side="monolith", answered=80)}
    found = await site.evidence.of("intelligence", 0, ROUTE)
    assert found.agreement == (0, 0)
    verdict = judge("intelligence", "shadow", found, Limits())
    [waits] = [figure for figure in verdict.figures if figure.name == "agreement"]
    assert (waits.outcome, waits.missing, waits.in_s) == ("wait", 25, None)
    assert "errors" not in {figure.name for figure in verdict.figures}, "it answers nobody"
    shadow = Shadowed(
        compared=20,
        alike=19,
        fields=(FieldAgreement(name="intent", alike=19, of=20),),
        own_ms=(10.0, 30.0),
        served_ms=(20.0, 40.0),
        spent=Spending(answers=20, calls=5, prompt_tokens=50, cost=0.5),
        shed=3,
        differences=(Difference(at_ns=1, by="service", conversation_id="c", utterance_id="c:0:1", fields=("intent",)),),
    )
    other = msgspec.structs.replace(shadow, own_ms=(5.0,), served_ms=(6.0,), differences=())
    site.rpc.measured = {
        "intelligence-1": msgspec.structs.replace(whole, shadow=shadow, spent=Spending(answers=7, calls=7)),
        "monolith-1": Measured(side="monolith", shadow=other),
    }
    found = await site.evidence.of("intelligence", site.clock.now_ns() - 100 * NS, ROUTE)
    assert found.agreement == (38, 40)
    assert found.service.stages_ms == {"understood": (10.0, 30.0, 6.0)}
    assert found.monolith.stages_ms == {"understood": (5.0, 20.0, 40.0)}
    told = found.understood
    assert told is not None
    assert (told.compared, told.alike, told.shed, len(told.differences)) == (40, 38, 6, 1)
    assert told.fields == (FieldAgreement(name="intent", alike=38, of=40),)
    [service, monolith] = told.sides
    assert (service.side, service.samples, service.p50_ms) == ("service", 3, 10.0)
    assert (service.served.calls, service.shadow.calls, monolith.served.calls) == (7, 5, 0)
    [waits] = [each for each in judge("intelligence", "shadow", found, Limits()).figures if each.name == "agreement"]
    assert waits.missing is not None
    assert waits.in_s == pytest.approx(waits.missing * 100 / 40)
    site.rpc.measured = {"intelligence-1": Measured(side="service")}
    assert "shadow_share" in (await site.evidence.of("intelligence", 0, ROUTE)).why_not["agreement"]


async def test_messages_are_told_by_side(site: Site) -> None:
    site.serves("dashboard")
    now_ns = site.clock.now_ns()

    def waits(group: str, seconds: int) -> Waiting:
        return Waiting(stream="transcripts.v1", group=group, count=1, oldest_ns=now_ns - seconds * NS)

    site.waiting = [waits("dashboard@service", 3), waits("dashboard@service", 7), waits("dashboard", 20)]
    found = await site.evidence.of("dashboard", 0, ROUTE)
    assert (found.service.queue_age_s, found.monolith.queue_age_s) == (7.0, 20.0)
    site.waiting = []
    assert (await site.evidence.of("dashboard", 0, ROUTE)).service.queue_age_s == 0.0
    assert queue_age_s([waits("dashboard", -5)], "dashboard", now_ns) == 0.0


async def test_differences_count_once_they_were_looked_for_in_this_stage(site: Site) -> None:
    site.serves("dashboard")
    site.rpc.contents = {"monolith": cards("a"), "dashboard-1": UnansweredError(CompareDashboard())}
    began_ns = site.clock.now_ns()
    comparing = asyncio.create_task(site.evidence.run())

    async def looked(since_ns: int, found: Callable[[Evidence], bool]) -> Evidence:
        async with asyncio.timeout(20):
            while not found(evidence := await site.evidence.of("dashboard", since_ns, ROUTE)):  # noqa: ASYNC110 - none is told
                await asyncio.sleep(0)
        return evidence

    def compared(evidence: Evidence) -> bool:
        return evidence.differences is not None

    await looked(began_ns, lambda evidence: "service does not answer" in evidence.why_not["differences"])
    site.rpc.contents["dashboard-1"] = cards("a")
    assert (await looked(began_ns, compared)).differences == 0
    site.clock.advance(1.0)
    site.rpc.contents["dashboard-1"] = cards("b")
    assert (await looked(site.clock.now_ns(), compared)).differences == 1
    comparing.cancel()
    await asyncio.gather(comparing, return_exceptions=True)
    site.clock.advance(500.0)
    assert (await site.evidence.of("dashboard", began_ns, ROUTE)).differences is None, "it is old"


async def test_what_has_just_changed_is_compared_between_two_comparisons_of_all(site: Site) -> None:
    site.serves("dashboard")
    site.rpc.contents = {"monolith": cards("a"), "dashboard-1": cards("a")}
    began_ns = site.clock.now_ns()
    async with asyncio.timeout(20):
        comparing = asyncio.create_task(site.evidence.run())
        while (await site.evidence.of("dashboard", began_ns, ROUTE)).differences is None:  # noqa: ASYNC110 - none is told
            await asyncio.sleep(0)
        wholes = site.rpc.wholes
        site.rpc.contents["dashboard-1"] = cards("wrong")
        while (await site.evidence.of("dashboard", began_ns, ROUTE)).differences == 0:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
    comparing.cancel()
    await asyncio.gather(comparing, return_exceptions=True)
    assert site.rpc.wholes == wholes, "all of it was not compared again"
    assert site.rpc.changed[0] >= began_ns - RECENT_NS


@pytest.mark.parametrize("group", ["dashboard", "dashboard@service"])
async def test_a_side_that_is_behind_differs_only_once_it_has_handled_what_waited(site: Site, group: str) -> None:
    site.serves("dashboard")
    site.rpc.contents = {"monolith": cards("a"), "dashboard-1": cards("b")}
    began_ns = site.clock.now_ns()
    site.waiting = [Waiting(stream="decisions", group=group, count=1, oldest_ns=began_ns)]
    comparing = asyncio.create_task(site.evidence.run())

    async def looked(until: Callable[[Evidence], bool]) -> Evidence:
        async with asyncio.timeout(60):
            while not until(found := await site.evidence.of("dashboard", began_ns, ROUTE)):
                site.clock.advance(0.5)
                await asyncio.sleep(0)
        return found

    behind = await looked(lambda found: "too far behind" in found.why_not.get("differences", ""))
    assert behind.differences is None
    site.waiting = []
    assert (await looked(lambda found: found.differences is not None)).differences == 1
    comparing.cancel()
    await asyncio.gather(comparing, return_exceptions=True)


# -- the store --------------------------------------------------------------------------------------------------------


async def test_its_rights_in_the_store_are_enough_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "APPS", {**APPS, TRAFFIC_APP.name: TRAFFIC_APP})
    guarded = Guarded(tmp_path)
    guarded.valkey.start()
    link = Link(guarded.url(TRAFFIC_APP.name))
    try:
        routes, follower = RedisRoutes(link), RoutesFollower(link, "traffic-1", SystemClock())
        assert await routes.version() == 0
        await routes.publish(Routes(version=1), 1)
        await follower.look()
        assert await routes.followers() == {"traffic-1": 1}
        for command in (("SET", f"{PREFIX}:other", "1"), ("DEL", f"{PREFIX}:routes"), ("FLUSHALL",)):
            with pytest.raises((BusRefusedError, BusUnavailableError)):
                await link.call(*command)
        assert await routes.version() == 1
    finally:
        await link.aclose()
        guarded.valkey.stop()
