"""Processes kept running, scaled and replaced, with a supervisor and an edge that only write down what happens."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from quickcomm.audio.model.settings import AudioSettings
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.discovery import Instance
from quickcomm.kernel.errors import BusyError
from quickcomm.topology.model.program import Program
from quickcomm.topology.module import (
    Backoff,
    DesiredProcesses,
    Fleet,
    Module,
    NotReadyError,
    ScaleError,
    Tools,
    UnknownModuleError,
)
from quickcomm.topology.service import keeper as keeper_module

SOON = 30.0


class World:
    """Supervisor, processes, registry and edge in one: every process registers as soon as it is started."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.programs: dict[str, Program] = {}
        self.pids: dict[str, int] = {}
        self.ends: dict[int, asyncio.Event] = {}
        self.registered: dict[str, Instance] = {}
        self.serving: dict[str, list[str]] = {}
        self.left_running: dict[str, int] = {}
        self.ill: set[str] = set()
        self.deaf = False
        self.edge_full = False
        self.stubborn = False
        self.started: dict[str, int] = {}
        self.nice: dict[str, tuple[int, int]] = {}
        self.changed = asyncio.Event()

    def note(self, what: str) -> None:
        self.happened.append(what)
        self.changed.set()

    async def until(self, what: str, times: int = 1) -> None:
        async with asyncio.timeout(SOON):
            while self.happened.count(what) < times:
                self.changed.clear()
                await self.changed.wait()

    # -- the port Supervisor

    async def define(self, program: Program) -> int | None:
        self.programs[program.name] = program
        if program.name in self.left_running:
            pid = self.left_running[program.name]
            if self.pids.get(program.name) == pid:
                return pid
            self._runs(program.name, pid)
            return pid
        return None

    async def start(self, name: str) -> int:
        pid = 100 + len(self.ends)
        self._runs(name, pid)
        self.started[name] = self.started.get(name, 0) + 1
        self.note(f"start {name}")
        return pid

    async def stop(self, name: str) -> None:
        self.die(name)

    async def forget(self, name: str) -> None:
        self.note(f"stop {name}")
        if self.stubborn:
            self.left_running[name] = self.pids[name]
            raise BusyError("The supervisor does not answer.")
        self.die(name)

    def die(self, name: str) -> None:
        self.left_running.pop(name, None)
        pid = self.pids.pop(name, None)
        if pid is not None:
            self.ends[pid].set()

    def _runs(self, name: str, pid: int) -> None:
        self.pids[name] = pid
        self.ends[pid] = asyncio.Event()
        module = name.rpartition("-")[0]
        self.put(Instance(module=module, name=name, pid=pid, version="1", socket=f"/{name}"))

    # -- the port Processes

    def record(self, name: str, pid: int) -> None:
        self.note(f"record {name} {pid}")

    def prioritise(self, name: str, pid: int, nice: int) -> None:
        self.nice[name] = (pid, nice)

    def erase(self, name: str) -> None:
        self.note(f"erase {name}")

    async def gone(self, pid: int) -> None:
        await self.ends[pid].wait()

    # -- the port Registry

    def put(self, instance: Instance) -> None:
        self.registered[instance.name] = instance

    def withdraw(self, name: str) -> None:
        self.registered.pop(name, None)

    def instances(self) -> list[Instance]:
        return list(self.registered.values())


class Edge:
    """The port Balancer."""

    def __init__(self, world: World) -> None:
        self._world = world

    def put(self, module: str, sockets: Sequence[str]) -> None:
        if self._world.edge_full:
            raise FULL
        if self._world.serving.get(module) != list(sockets):
            self._world.serving[module] = list(sockets)
            self._world.note(f"serve {module} {' '.join(sockets)}".rstrip())

    async def confirmed(self) -> None:
        if self._world.deaf:
            raise BusyError("It does not answer.")

    async def healthy(self, module: str) -> Mapping[str, bool]:
        return {socket: socket not in self._world.ill for socket in self._world.serving.get(module, [])}


class Ready:
    def __init__(self, world: World, socket: str) -> None:
        self._world = world
        self._socket = socket

    async def __call__(self) -> bool:
        return self._socket not in self._world.ill


MANY = Module(name="many", command=("run", "{name}"), environment={"SOCKET": "{socket}"}, replicas=2)
ONE = Module(name="one", command=("run",), most=1, one_because="there is one")


class Wanted:
    """`Desired` in memory: it outlives a fleet."""

    def __init__(self) -> None:
        self.kept: dict[str, Sequence[str]] = {}

    def names(self, module: str) -> Sequence[str] | None:
        return self.kept.get(module)

    def keep(self, module: str, names: Sequence[str]) -> None:
        self.kept[module] = tuple(names)


@contextlib.asynccontextmanager
async def running(
    world: World, *modules: Module, wanted: Wanted | None = None, left_out: str = ""
) -> AsyncGenerator[Fleet]:
    def probe(_module: Module, socket: str) -> Ready:
        return Ready(world, socket)

    fleet = Fleet(modules, world, Edge(world), probe, lambda name: f"/{name}", wanted or Wanted())
    tools = Tools(world, world, FakeClock(), fleet.ended, lambda: Backoff(first_s=0.001, longest_s=0.004))
    async with asyncio.TaskGroup() as tasks:
        fleet.begin(tools, tasks)
        if left_out:
            fleet.leave_out(left_out)
        try:
            await fleet.start()
            yield fleet
        finally:
            for module in modules:
                await fleet.stop(module.name)
            fleet.end()


START_S = 5.0
"""Longer than a service takes to start on a machine that is not overloaded."""


def test_back_off_doubles_to_a_limit_and_is_forgotten_after_a_long_life() -> None:
    backoff = Backoff(first_s=1, longest_s=8, lived_s=60)
    assert [backoff.after(0.1) for _ in range(5)] == [1, 2, 4, 8, 8]
    assert backoff.after(60) == 1
    assert backoff.after(0.1) == 2


def test_who_is_killed_often_is_back_before_a_conversation_stops_waiting_for_it() -> None:
    backoff = Backoff()
    delays = [backoff.after(0.1) for _ in range(20)]
    assert max(delays) + START_S < AudioSettings().answer_wait_s


def test_a_program_knows_its_own_name_and_socket() -> None:
    program = MANY.program("many-2", "/many-2")
    assert program.command == ("run", "many-2")
    assert program.environment == {"SOCKET": "/many-2"}


async def test_a_scale_is_kept_for_the_next_to_run_it() -> None:
    """Another `up` after a crash starts, or adopts, the very processes that were wanted, and stops none of them."""
    wanted, names = Wanted(), []
    async with running(World(), ONE, MANY, wanted=wanted) as fleet:
        await fleet.scale("many", 3)
        await fleet.restart("many")
        names = sorted(keeper.name for keeper in fleet.keepers)
    async with running(World(), ONE, MANY, wanted=wanted) as fleet:
        assert sorted(keeper.name for keeper in fleet.keepers) == names
        assert len(names) == 4
        await fleet.scale("many", 1)
    async with running(World(), ONE, MANY, wanted=wanted) as fleet:
        assert len(fleet.keepers) == 2


NONE: Final = msgspec.structs.replace(ONE, least=0)


async def test_what_is_left_out_does_not_start_with_the_others_and_can_be_started_later() -> None:
    wanted = Wanted()
    async with running(World(), NONE, MANY, wanted=wanted, left_out="one") as fleet:
        assert {keeper.module for keeper in fleet.keepers} == {"many"}
        with pytest.raises(ScaleError, match="No process of one runs"):
            await fleet.restart("one")
        await fleet.scale("one", 1)
        assert {keeper.module for keeper in fleet.keepers} == {"one", "many"}
    async with running(World(), NONE, MANY, wanted=wanted, left_out="one") as fleet:
        assert {keeper.module for keeper in fleet.keepers} == {"one", "many"}, "it was wanted"
        await fleet.scale("one", 0)
    async with running(World(), NONE, MANY, wanted=wanted) as fleet:
        assert {keeper.module for keeper in fleet.keepers} == {"many"}, "none was wanted"


async def test_more_than_there_may_be_is_not_started_again() -> None:
    wanted = Wanted()
    wanted.keep("one", ["one-1", "one-2"])
    async with running(World(), ONE, wanted=wanted) as fleet:
        assert [keeper.name for keeper in fleet.keepers] == ["one-1"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"many": 3}', b'{"many": ["many-2", "many-5"]}'])
def test_what_is_wanted_is_read_from_a_file_that_may_be_torn(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "desired.json"
    if content is not None:
        path.write_bytes(content)
    desired = DesiredProcesses(path)
    whole = content is not None and content.endswith(b"]}")
    assert desired.names("many") == (("many-2", "many-5") if whole else None)
    desired.keep("one", ["one-1"])
    assert DesiredProcesses(path).names("one") == ("one-1",)
    assert desired.names("many") == (("many-2", "many-5") if whole else None)


async def test_modules_start_in_order_and_are_served() -> None:
    world = World()
    async with running(world, ONE, MANY):
        assert [what for what in world.happened if what.startswith("start")] == [
            "start one-1",
            "start many-1",
            "start many-2",
        ]
        await world.until("serve many /many-1 /many-2")
    assert world.pids == {}


async def test_one_that_does_not_get_ready_stops_the_start() -> None:
    world = World()
    world.ill.add("/one-1")
    hasty = Module(name="one", command=("run",), ready_within_s=0.01)
    with pytest.raises(ExceptionGroup) as failed:
        async with running(world, hasty):
            pass
    assert failed.group_contains(NotReadyError)


async def test_one_that_ends_is_started_again() -> None:
    world = World()
    async with running(world, MANY):
        for times in (2, 3, 4):
            world.die("many-1")
            await world.until("start many-1", times)
        assert world.started == {"many-1": 4, "many-2": 1}


async def test_nobody_is_sent_to_one_that_ended() -> None:
    world = World()
    async with running(world, MANY):
        await world.until("serve many /many-1 /many-2")
        world.die("many-1")
        await world.until("serve many /many-2")
        await world.until("serve many /many-2 /many-1")


async def test_each_process_gets_the_priority_of_its_module() -> None:
    world = World()
    world.left_running["kind-1"] = 7
    kind = Module(name="kind", command=("run",), nice=5)
    async with running(world, ONE, kind):
        assert world.nice["one-1"][1] == 0
        assert world.nice["kind-1"] == (7, 5), "also one that was adopted"


async def test_what_runs_already_is_adopted() -> None:
    world = World()
    world.left_running["many-1"] = 7
    async with running(world, MANY) as fleet:
        assert world.started == {"many-2": 1}
        assert {keeper.name: keeper.pid for keeper in fleet.keepers}["many-1"] == 7


async def test_scaling_up_and_down() -> None:
    world = World()
    async with running(world, MANY) as fleet:
        await fleet.scale("many", 4)
        assert sorted(world.pids) == ["many-1", "many-2", "many-3", "many-4"]
        await fleet.scale("many", 1)
        assert sorted(world.pids) == ["many-1"]
        await fleet.scale("many", 1)
        assert sorted(world.pids) == ["many-1"]


async def test_those_that_only_services_call_do_not_wait_for_the_edge() -> None:
    world = World()
    inner = Module(name="inner", command=("run",), faces_edge=False)
    async with running(world, inner) as fleet:
        world.deaf = True
        await fleet.scale("inner", 2)
        await fleet.restart("inner")
        assert set(world.pids) == {"inner-3", "inner-1"}
        await fleet.scale("inner", 1)
    assert "inner" not in world.serving


async def test_who_is_to_go_gets_nothing_new_before_it_is_stopped() -> None:
    world = World()
    async with running(world, MANY) as fleet:
        await world.until("serve many /many-1 /many-2")
        await fleet.scale("many", 1)
        assert world.happened.index("serve many /many-1", 5) < world.happened.index("stop many-2")


async def test_scaling_says_why_not() -> None:
    async with running(World(), ONE, MANY) as fleet:
        with pytest.raises(ScaleError, match="there is one"):
            await fleet.scale("one", 2)
        with pytest.raises(ScaleError, match="at least one"):
            await fleet.scale("many", 0)
        with pytest.raises(UnknownModuleError, match="one, many"):
            await fleet.scale("other", 1)


async def test_a_restart_has_the_new_one_serve_before_the_old_one_goes() -> None:
    world = World()
    async with running(world, MANY) as fleet:
        del world.happened[:]
        await fleet.restart("many")
        steps = [what for what in world.happened if what.startswith(("start", "stop"))]
        assert steps == ["start many-3", "stop many-1", "start many-1", "stop many-2"]
        assert sorted(world.pids) == ["many-1", "many-3"]


async def test_the_only_one_is_stopped_before_it_is_started_again() -> None:
    world = World()
    async with running(world, ONE) as fleet:
        del world.happened[:]
        await fleet.restart("one")
        assert [what for what in world.happened if what.startswith(("start", "stop"))] == ["stop one-1", "start one-1"]


async def test_an_edge_that_is_away_does_not_keep_anybody_from_stopping() -> None:
    world = World()
    async with running(world, MANY) as fleet:
        world.deaf = True
        await fleet.scale("many", 1)
        assert sorted(world.pids) == ["many-1"]


# -- a full disk, and starts that fail --------------------------------------------------------------------------------

FULL = OSError(28, "No space left on device")


class FullDisk(World):
    """Takes nothing while `full`."""

    full = False

    async def define(self, program: Program) -> int | None:
        self.note(f"define {program.name}")
        self._write()
        return await super().define(program)

    def record(self, name: str, pid: int) -> None:
        self._write()
        super().record(name, pid)

    def _write(self) -> None:
        if self.full:
            self.note("full")
            raise FULL


async def test_a_full_disk_ends_no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "AGAIN_S", 0.001)
    world = FullDisk()
    async with running(world, MANY):
        world.full = True
        world.die("many-1")
        await world.until("start many-1", 2)
        await world.until("full", 3)
        assert "many-1" in world.pids
        world.full = False
        await world.until(f"record many-1 {world.pids['many-1']}")


async def test_a_program_is_made_known_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "AGAIN_S", 0.001)
    world = FullDisk()
    async with running(world, MANY) as fleet:
        world.full = True
        restart = asyncio.ensure_future(fleet.restart("many"))
        await world.until("define many-3")
        await world.until("full", 3)
        assert not restart.done()
        world.full = False
        await restart
        assert sorted(world.pids) == ["many-1", "many-3"]


async def test_nobody_is_lost_when_the_edge_cannot_be_told() -> None:
    world = World()
    async with running(world, MANY) as fleet:
        world.edge_full = True
        await fleet.scale("many", 1)
        assert sorted(world.pids) == [keeper.name for keeper in fleet.keepers] == ["many-1"]


async def test_who_cannot_be_stopped_is_kept() -> None:
    world = World()
    async with running(world, MANY) as fleet:
        world.stubborn = True
        with pytest.raises(BusyError):
            await fleet.scale("many", 1)
        assert [keeper.name for keeper in fleet.keepers] == ["many-1", "many-2"]
        world.stubborn = False
        world.die("many-2")
        await world.until("start many-2", 2)


@pytest.mark.parametrize("what", ["scale", "restart"])
async def test_one_that_does_not_get_ready_leaves_no_extra_process(what: str) -> None:
    world = World()
    hasty = Module(name="hasty", command=("run",), replicas=2, ready_within_s=0.01)
    async with running(world, hasty) as fleet:
        world.ill.add("/hasty-3")
        with pytest.raises(NotReadyError):
            await (fleet.scale("hasty", 3) if what == "scale" else fleet.restart("hasty"))
        assert sorted(world.pids) == [keeper.name for keeper in fleet.keepers] == ["hasty-1", "hasty-2"]
