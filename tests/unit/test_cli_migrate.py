"""`quickcomm migrate` as an operator has it: the real command, the real socket, a site that does as it is told."""

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from click.testing import CliRunner, Result
from tests.support.migrating import BAD, GOOD, FakeEvidence, FakeRoutes, FakeSite

from quickcomm.cli.main import main
from quickcomm.contracts.commands import Scale
from quickcomm.contracts.evidence import Difference, FieldAgreement, Spending
from quickcomm.contracts.migration import Hearings, SideUnderstanding, Understandings
from quickcomm.contracts.routes import SERVICE
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.runtime.admin_socket import admin_socket
from quickcomm.kernel.runtime.data_directory import DataDirectory, is_trusted
from quickcomm.kernel.storage import Database
from quickcomm.operate.up.layout import Layout
from quickcomm.traffic.adapters.journal import SqlJournal
from quickcomm.traffic.ports import TrafficSettings
from quickcomm.traffic.service.controller import Controller
from quickcomm.traffic.service.gatekeeper import Gatekeeper
from quickcomm.traffic.service.operating import Operating


class Running:
    """A controller that operators can ask."""

    def __init__(self, path: Path) -> None:
        self.directory = DataDirectory(path)
        self.routes = FakeRoutes()
        self.site = FakeSite()
        self.evidence = FakeEvidence()

    async def migrate(self, *arguments: str) -> Result:
        return await asyncio.to_thread(migrate, self.directory.path, *arguments)

    @contextlib.asynccontextmanager
    async def controller(self) -> AsyncIterator[None]:
        clock, settings = SystemClock(pauses=0.1), TrafficSettings(follow_s=0.5, ready_s=0.5, bake_s=3_600.0)
        self.directory.create()
        self.directory.traffic.create()
        database = Database(self.directory.traffic.database)
        database.open()
        journal = SqlJournal(database, clock)
        journal.migrate()
        controller = Controller(journal, self.routes, self.site, clock, settings)
        gates = Gatekeeper(controller, self.evidence, clock, settings)
        rpc = LocalRpc(clock)
        rpc.serve(Operating(controller, gates, journal, clock).answers())
        await controller.open()
        running = asyncio.create_task(controller.run())
        await asyncio.sleep(0)
        try:
            async with admin_socket(rpc, self.directory.traffic.socket):
                yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await database.aclose()


def migrate(data_dir: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["migrate", *arguments, "--data-dir", str(data_dir)])


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keep the controller's log out of what the command prints: here they share a process."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    found = Running(tmp_path / "site")
    async with found.controller():
        yield found


async def test_forward_and_back(running: Running) -> None:
    result = await running.migrate("start", "dashboard")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("dashboard: shadow, the monolith decides (version 1,")
    running.evidence.found = GOOD
    result = await running.migrate("step", "dashboard")
    assert result.stdout.startswith("dashboard: canary 1 %, the monolith decides (version 2,")
    result = await running.migrate("promote", "dashboard", "--force")
    assert result.stdout.startswith("dashboard: full, the service decides (version 4,")
    result = await running.migrate("rollback", "dashboard", "--why", "just so")
    assert result.stdout.startswith("dashboard: shadow, the monolith decides (version 5,")
    result = await running.migrate("history", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows[0]["why"] == "just so"
    assert {row["action"] for row in rows} == {"start", "step", "promote", "rollback", "publish", "lease", "in force"}
    assert "just so" in (await running.migrate("history", "--limit", "1")).stdout


async def test_a_gate_that_has_not_passed_is_an_error_that_says_what_is_missing(running: Running) -> None:
    await running.migrate("start", "dashboard")
    result = await running.migrate("step", "dashboard")
    assert result.exit_code == 1
    assert "stays at shadow. The gate has not passed yet: differences: not measured" in result.stderr
    assert "--force" in result.stderr
    running.evidence.found = BAD
    result = await running.migrate("promote", "dashboard")
    assert "A figure is a breach: differences: 3 between the sides" in result.stderr
    assert (await running.migrate("step", "dashboard", "--force")).exit_code == 0


async def test_who_is_behind_is_an_error_that_names_it_and_progress_is_told(running: Running) -> None:
    await running.migrate("start", "dashboard")
    running.routes.following = {"edge"}
    running.routes.followers = _behind  # type: ignore[method-assign]
    result = await running.migrate("step", "dashboard", "--force")
    assert result.exit_code == 1
    assert "canary 1 % is not in force yet: behind version 2: edge, monolith. It goes on by itself." in result.stderr
    assert "dashboard: waiting until version 2 is in force everywhere …" in result.stderr
    status = await running.migrate("status")
    assert "Routes: version 2, not in force yet: edge, monolith behind." in status.stdout
    assert "PROBLEM: behind version 2" in status.stdout


async def _behind() -> dict[str, int]:
    return {"edge": 1, "monolith": 1}


async def test_what_a_change_waits_for_is_told(running: Running) -> None:
    running.site.lacks[SERVICE] = "3 differences between the sides, such as cards.missing u7."
    result = await running.migrate("start", "dashboard")
    assert result.exit_code == 1
    waits = "waiting until the service has everything: 3 differences between the sides, such as cards.missing u7"
    assert f"dashboard: {waits} …" in result.stderr
    assert f"start to shadow: {waits}\n" in (await running.migrate("status")).stdout
    running.site.lacks.clear()


async def status_of(running: Running) -> list[dict[str, Any]]:
    modules: list[dict[str, Any]] = json.loads((await running.migrate("status", "--json")).stdout)["modules"]
    return modules


async def test_status_for_people_and_for_programs(running: Running) -> None:
    await running.migrate("start", "dashboard")
    await running.migrate("auto", "dashboard")
    await running.migrate("pause", "dashboard")
    result = await running.migrate("status")
    assert "dashboard: shadow, the monolith decides (goal: service, paused)" in result.stdout
    assert "intelligence: off, the monolith decides (goal: monolith)" in result.stdout
    assert "audio: off (goal: monolith)" in result.stdout, "nothing is decided there"
    assert "Routes: version 1, in force everywhere." in result.stdout
    row: dict[str, Any] = json.loads((await running.migrate("status", "--json")).stdout)
    assert row["followers"] == {"edge": 1, "monolith": 1}
    assert (row["modules"][0]["auto"], row["modules"][0]["paused"]) == (True, True)
    assert (await running.migrate("resume", "dashboard")).stdout == "dashboard: goes on.\n"
    assert (await running.migrate("auto", "dashboard", "off")).stdout == "dashboard: auto off.\n"


HEARD = Hearings(
    utterances=40,
    words=300,
    wrong=4,
    missed=1,
    extra=2,
    start_p95_ms=32.0,
    end_p95_ms=64.0,
    shed=3,
    lost=1,
    differences=(
        Difference(at_ns=10**18, by="service", conversation_id="c", utterance_id="c:0:1", fields=("missed",)),
    ),
)
UNDERSTOOD = Understandings(
    compared=40,
    alike=39,
    fields=(FieldAgreement(name="number", alike=40, of=40), FieldAgreement(name="intent", alike=39, of=40)),
    sides=(
        SideUnderstanding(
            side="service",
            p50_ms=12.0,
            p95_ms=24.4,
            samples=40,
            shadow=Spending(answers=40, calls=9, prompt_tokens=900, completion_tokens=90, cost=0.0123),
        ),
        SideUnderstanding(side="monolith", p50_ms=11.0, p95_ms=22.0, samples=40, served=Spending(answers=160, calls=3)),
    ),
    unserved=1,
    shed=2,
    differences=(
        Difference(at_ns=10**18, by="service", conversation_id="c", utterance_id="c:0:1", fields=("intent",)),
    ),
)


async def test_what_both_sides_understood_is_shown(running: Running) -> None:
    await running.migrate("start", "intelligence", "--force")
    assert "understood" not in (await running.migrate("status")).stdout
    running.evidence.found = msgspec.structs.replace(BAD, understood=UNDERSTOOD)
    assert (await running.migrate("step", "intelligence")).exit_code == 1
    shown = (await running.migrate("status")).stdout
    for line in (
        "understood on both sides: 39 of 40 alike",
        "number 40 of 40, intent 39 of 40",
        "service: half within 12 ms, 95 % within 24 ms, of 40",
        "service in the shadow: 40 answers, 9 calls, 900 + 90 tokens, cost 0.0123",
        "monolith served: 160 answers, 3 calls, 0 + 0 tokens\n",
        "1 not served, 2 left out",
        "differs: c:0:1 in intent (2001-09-09T01:46:40Z, shadow: service)",
    ):
        assert line in shown
    row = json.loads((await running.migrate("status", "--json")).stdout)["modules"][1]
    assert msgspec.convert(row["understood"], Understandings) == UNDERSTOOD


async def test_what_both_sides_heard_is_shown(running: Running) -> None:
    await running.migrate("start", "audio", "--force")
    running.evidence.found = msgspec.structs.replace(BAD, heard=HEARD)
    assert (await running.migrate("step", "audio")).exit_code == 1
    shown = (await running.migrate("status")).stdout
    for line in (
        "heard on both sides: 300 words in 40 utterances, 4 words otherwise, 1 missed, 2 too many",
        "95 % begin within 32 ms, end within 64 ms of each other",
        "3 left out, 1 broken off",
        "differs: c:0:1 in missed (2001-09-09T01:46:40Z, shadow: service)",
    ):
        assert line in shown
    row = json.loads((await running.migrate("status", "--json")).stdout)["modules"][2]
    assert msgspec.convert(row["heard"], Hearings) == HEARD


async def test_refusals_say_why(running: Running) -> None:
    for arguments, why in (
        (("start", "intelligence"), "dashboard goes before intelligence"),
        (("step", "dashboard"), "quickcomm migrate start dashboard"),
        (("rollback", "edge"), "There is no module 'edge' to migrate"),
    ):
        result = await running.migrate(*arguments)
        assert result.exit_code == 1
        assert why in result.stderr
    killed = await running.migrate("kill-switch", "all")
    assert killed.stdout == "All is with the monolith.\n"
    assert not any(module["paused"] for module in await status_of(running))
    named = await running.migrate("kill-switch", "audio")
    assert named.stdout == "All is with the monolith. audio stays there until the switch is cleared.\n"
    assert (await running.migrate("kill-switch", "all", "--clear")).stdout == "audio: may go on.\n"
    assert not any(module["paused"] for module in await status_of(running))


async def test_the_kill_switch(running: Running) -> None:
    await running.migrate("start", "dashboard")
    await running.migrate("promote", "dashboard", "--force")
    result = await running.migrate("kill-switch", "dashboard", "--reason", "smoke")
    assert result.exit_code == 0
    assert result.stdout.startswith("dashboard: shadow, the monolith decides (version 4,")
    refused = await running.migrate("start", "dashboard")
    assert refused.exit_code == 1
    assert "is paused" in refused.stderr
    assert (await running.migrate("kill-switch", "dashboard", "--clear")).stdout == "dashboard: may go on.\n"
    assert (await running.migrate("start", "dashboard")).exit_code == 0


async def test_a_share_by_hand_asks_the_gate_where_it_rises(running: Running) -> None:
    await running.migrate("start", "dashboard")
    assert "in a canary alone" in (await running.migrate("weight", "dashboard", "10")).stderr
    await running.migrate("step", "dashboard", "--force")
    refused = await running.migrate("weight", "dashboard", "12.5")
    assert refused.exit_code == 1
    assert "stays at canary 1 %. The gate has not passed yet" in refused.stderr
    running.evidence.found = GOOD
    result = await running.migrate("weight", "dashboard", "12.5", "--reason", "a quiet day")
    assert result.stdout.startswith("dashboard: canary 12.5 %, the monolith decides (version 3,")
    assert running.routes.published.of("dashboard").weight == 1_250
    assert "goal: service" in (await running.migrate("status")).stdout
    assert "migrate start dashboard --to monolith" in (await running.migrate("weight", "dashboard", "2")).stderr
    assert (await running.migrate("weight", "dashboard", "100")).exit_code == 2
    assert "a quiet day" in (await running.migrate("history")).stdout


async def at_canary(running: Running) -> None:
    await running.migrate("start", "intelligence", "--force")
    await running.migrate("step", "intelligence", "--force")


async def test_overrides_are_published_shown_audited_and_removed(running: Running) -> None:
    assert (
        "only while both sides serve"
        in (await running.migrate("override", "intelligence", "--channel", "desk", "--to", "services")).stderr
    )
    await at_canary(running)
    result = await running.migrate(
        "override", "intelligence", "--channel", "desk", "--to", "services", "--reason", "they asked"
    )
    assert result.stdout.startswith("intelligence: canary 1 %, the monolith decides"), result.stderr
    assert running.routes.published.of("intelligence").channels == {"desk": "service"}
    await running.migrate("override", "intelligence", "--conversation", "c-1", "--to", "monolith")
    shown = (await running.migrate("status")).stdout
    assert "override: channel desk to the service (" in shown
    assert ": they asked)" in shown
    row: dict[str, Any] = json.loads((await running.migrate("status", "--json")).stdout)
    assert [(each["kind"], each["of"], each["side"]) for each in row["modules"][1]["overrides"]] == [
        ("channel", "desk", "service"),
        ("conversation", "c-1", "monolith"),
    ]
    await running.migrate("override", "intelligence", "--channel", "desk", "--remove")
    route = running.routes.published.of("intelligence")
    assert (route.channels, route.overrides) == ({}, {"c-1": "monolith"})
    await running.migrate("rollback", "intelligence")
    assert running.routes.published.of("intelligence").overrides == {}
    rows = [json.loads(line) for line in (await running.migrate("history", "--json")).stdout.splitlines()]
    assert [row["after"] for row in rows if row["action"] == "override"] == [
        "channel desk: by its bucket",
        "conversation c-1: monolith",
        "channel desk: service",
    ]
    assert [row["why"] for row in rows if row["action"] == "overrides removed"] == ["conversation c-1"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--to", "monolith"),
        ("--channel", "a", "--site", "b", "--to", "monolith"),
        ("--channel", "a"),
        ("--channel", "a", "--to", "monolith", "--remove"),
        ("--channel", "", "--to", "monolith"),
        ("--channel", "a", "--to", "elsewhere"),
    ],
)
async def test_an_override_that_is_not_whole_is_refused_before_anybody_is_asked(
    running: Running, arguments: tuple[str, ...]
) -> None:
    assert (await running.migrate("override", "intelligence", *arguments)).exit_code == 2


async def test_an_override_survives_the_end_of_the_controller(running: Running, tmp_path: Path) -> None:
    await at_canary(running)
    await running.migrate("override", "intelligence", "--site", "east", "--to", "service")
    again = Running(tmp_path / "again")
    again.directory.create()
    again.directory.traffic.create()
    with (
        sqlite3.connect(running.directory.traffic.database) as database,
        sqlite3.connect(again.directory.traffic.database) as copy,
    ):
        database.backup(copy)
    async with again.controller():
        assert "override: site east to the service" in (await again.migrate("status")).stdout
        await again.migrate("step", "intelligence", "--force")
        assert again.routes.published.of("intelligence").sites == {"east": "service"}
    copy.close()
    database.close()


async def test_without_a_controller_the_way_to_one_is_told(tmp_path: Path) -> None:
    for arguments in (("status",), ("step", "dashboard"), ("kill-switch", "all")):
        result = await asyncio.to_thread(migrate, tmp_path, *arguments)
        assert result.exit_code == 1
        assert "then start one: quickcomm migrate start MODULE" in result.stderr
    result = await asyncio.to_thread(migrate, tmp_path, "start", "dashboard")
    assert result.exit_code == 1
    assert "Start one with: quickcomm up" in result.stderr


async def test_start_has_up_start_the_controller(tmp_path: Path) -> None:
    found = Running(tmp_path / "site")
    found.directory.create()
    found.directory.run.mkdir(parents=True, mode=0o700)
    asked: list[Scale] = []
    async with contextlib.AsyncExitStack() as stack:

        async def scale(request: Scale) -> dict[str, Any]:
            asked.append(request)
            await stack.enter_async_context(found.controller())
            return {"module": request.process, "replicas": request.replicas}

        up = LocalRpc(SystemClock())
        up.serve([(Scale, scale)])
        async with admin_socket(up, found.directory.control):
            for _ in range(2):
                result = await found.migrate("start", "dashboard")
                assert result.exit_code == 0, result.stderr
    assert asked == [Scale(process="traffic", replicas=1)]


async def test_a_command_waits_for_a_controller_that_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, asked = Running(tmp_path / "site"), threading.Event()

    def looked(socket: Path, directory: Path) -> bool:
        found = is_trusted(socket, directory)
        if not found:
            asked.set()
        return found

    monkeypatch.setattr("quickcomm.cli.migrate.is_trusted", looked)
    async with running.controller():
        await running.migrate("start", "dashboard")
    with Layout(running.directory).own():
        command = asyncio.create_task(running.migrate("pause", "dashboard"))
        await asyncio.to_thread(asked.wait)
        async with running.controller():
            result = await command
    assert result.stdout == "dashboard: paused.\n", result.stderr


async def test_a_controller_that_ends_before_it_answers_is_told_as_that(tmp_path: Path) -> None:
    running = Running(tmp_path / "site")
    running.directory.create()
    running.directory.traffic.create()
    socket = running.directory.traffic.socket
    server = await asyncio.start_unix_server(lambda _, writer: writer.close(), socket)
    socket.chmod(0o600)
    async with server:
        result = await running.migrate("step", "dashboard")
    assert result.exit_code == 1
    assert "before it had answered" in result.stderr
    assert "quickcomm migrate status" in result.stderr
