"""A real Supervisor and, before real processes, a real Envoy: adoption, identity, scaling and rolling restarts."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from tests.support.edge import PATIENCE_S, RealEdge, running_edge

from quickcomm.edge.module import EdgeSettings
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.operate.up.balancer import EdgeBalancer
from quickcomm.topology.adapters.processes import Identity, alive, identify
from quickcomm.topology.module import (
    DesiredProcesses,
    Fleet,
    HttpProbe,
    Module,
    Program,
    RecordedProcesses,
    Supervisord,
    Tools,
)

SLEEPS = (sys.executable, "-c", "import time; time.sleep(3600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(3600)",
)
ENVIRONMENT = dict(os.environ)
UNLIMITED = EdgeSettings(requests_per_second=10**6, requests_burst=10**6)


class Place:
    """A directory for one supervisor; `again` is what the next `up` would have of it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="qc-sup-"))
        self.logs = self.root / "logs"
        self.logs.mkdir()
        self.processes = RecordedProcesses(self.root / "processes")
        self.made: list[Supervisord] = []
        self.supervisor = self.again()

    def again(self) -> Supervisord:
        self.made.append(Supervisord(self.root, self.logs, self.processes))
        return self.made[-1]

    async def start(self, name: str, command: tuple[str, ...], drain_s: float = 10) -> int:
        await self.supervisor.define(Program(name=name, command=command, drain_s=drain_s))
        pid = await self.supervisor.start(name)
        self.processes.record(name, pid)
        return pid

    async def until_logged(self, name: str, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in (self.logs / f"{name}.log").read_text():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture
async def place() -> AsyncGenerator[Place]:
    made = Place()
    try:
        yield made
    finally:
        for each in reversed(made.made):
            await each.clear()
        shutil.rmtree(made.root)


def living(name: str, pid: int) -> Identity:
    found = identify(name, pid)
    assert found is not None
    return found


async def test_processes_start_and_stop(place: Place) -> None:
    assert not await place.supervisor.launch(ENVIRONMENT)
    pid = await place.start("one", SLEEPS)
    one = living("one", pid)
    assert await place.supervisor.running() == {"one": pid}
    await place.supervisor.forget("one")
    assert not alive(one)
    assert await place.supervisor.running() == {}
    itself = living("supervisor", place.supervisor.pid or 0)
    await place.supervisor.shut_down()
    assert not alive(itself)
    assert place.processes.find("supervisor") is None


async def test_who_does_not_stop_is_killed(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    one = living("one", await place.start("one", STUBBORN, drain_s=1))
    await place.until_logged("one", "deaf")
    await place.supervisor.stop("one")
    assert not alive(one)


async def test_one_that_was_killed_can_be_started_again_at_once(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    first = await place.start("one", SLEEPS)
    os.kill(first, signal.SIGKILL)
    await place.processes.gone(first)
    second = await place.supervisor.start("one")
    assert second != first
    living("one", second)


async def test_a_full_disk_leaves_no_half_of_a_program(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor reads all of them at once: half of one would keep the others from being changed."""
    await place.supervisor.launch(ENVIRONMENT)
    write = Path.write_text

    def full(path: Path, text: str) -> int:
        write(path, text[: len(text) // 4])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="space"):
            await place.start("one", SLEEPS)
    living("two", await place.start("two", SLEEPS))
    living("one", await place.start("one", SLEEPS))


async def test_what_is_asked_for_survives_percents_spaces_and_commas(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    says = (sys.executable, "-c", "import os, sys; print(sys.argv[1:], os.environ['Q'], flush=True)", "a b", "%s", "")
    await place.supervisor.define(Program(name="one", command=says, environment={"Q": "x,y z=%d"}))
    await place.supervisor.start("one")
    await place.until_logged("one", "['a b', '%s', ''] x,y z=%d")


async def test_the_next_one_adopts_what_runs(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    pid = await place.start("one", SLEEPS)
    following = place.again()
    assert await following.launch(ENVIRONMENT)
    assert following.pid == place.supervisor.pid
    assert await following.define(Program(name="one", command=SLEEPS)) == pid


async def test_another_program_of_the_same_name_is_not_adopted(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    one = living("one", await place.start("one", SLEEPS))
    other = Program(name="one", command=SLEEPS, environment={"PORT": "1"})
    assert await place.again().define(other) is None
    assert not alive(one)


@pytest.mark.long
async def test_with_another_environment_all_begins_anew(place: Place) -> None:
    """A new key of the language model is in the environment, and would be missing."""
    await place.supervisor.launch(ENVIRONMENT)
    one = living("one", await place.start("one", SLEEPS))
    following = place.again()
    assert not await following.launch(ENVIRONMENT | {"QUICKCOMM_LLM_KEY": "another"})
    assert not alive(one)
    place.supervisor = following


async def test_what_a_killed_supervisor_leaves_is_stopped_by_the_next_one(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    one = living("one", await place.start("one", SLEEPS))
    supervisor = place.supervisor.pid
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    await place.supervisor.gone()
    assert alive(one)
    place.supervisor = place.again()
    assert not await place.supervisor.launch(ENVIRONMENT)
    assert not alive(one)


async def test_somebody_who_got_the_id_of_one_that_ended_is_left_alone(place: Place) -> None:
    await place.supervisor.launch(ENVIRONMENT)
    stranger = await asyncio.create_subprocess_exec(*SLEEPS)
    try:
        place.processes.record("one", stranger.pid)
        path = place.root / "processes" / "one.json"
        path.write_text(path.read_text().replace('"started":', '"started":1'))
        assert place.processes.find("one") is None
        await place.supervisor.clear()
        assert stranger.returncode is None
        living("stranger", stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


# -- real processes behind a real edge ------------------------------------------------------------------------------


class Served:
    def __init__(self, edge: RealEdge, fleet: Fleet) -> None:
        self.edge = edge
        self.fleet = fleet

    async def until_serving(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while sum((await self.edge.edge.control.healthy("all")).values()) != count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def served(place: Place, replicas: int) -> AsyncGenerator[Served]:
    async with running_edge(UNLIMITED) as edge:
        command = (sys.executable, "-m", "tests.support.instance", "{name}", "{socket}", str(place.root / "instances"))
        paths = os.pathsep.join(str(Path(__file__).parents[2] / each) for each in (".", "src"))
        module = Module(name="all", command=command, environment={"PYTHONPATH": paths}, replicas=replicas, drain_s=5)
        fleet = Fleet(
            [module],
            DirectoryRegistry(place.root / "instances"),
            EdgeBalancer(edge.edge),
            lambda _module, socket: HttpProbe(socket),
            lambda name: str(place.root / f"{name}.sock"),
            DesiredProcesses(place.root / "desired.json"),
        )
        await place.supervisor.launch(ENVIRONMENT)
        async with asyncio.TaskGroup() as tasks:
            fleet.begin(Tools(place.supervisor, place.processes, SystemClock(), fleet.ended), tasks)
            await fleet.start()
            made = Served(edge, fleet)
            await made.until_serving(replicas)
            yield made
            await fleet.stop("all")
            fleet.end()


@contextlib.asynccontextmanager
async def asking(url: str) -> AsyncGenerator[Callable[[], int]]:
    """Asks all the time; every answer must be good. Gives how many there were."""
    count = 0
    async with aiohttp.ClientSession() as client:

        async def ask() -> None:
            nonlocal count
            while True:
                async with client.get(f"{url}/v1/tasks") as answer:
                    assert answer.status == 200, await answer.text()
                    count += 1

        async with asyncio.TaskGroup() as tasks:
            asked = tasks.create_task(ask())
            yield lambda: count
            asked.cancel()


def pids(fleet: Fleet) -> Iterator[int]:
    for keeper in fleet.keepers:
        assert keeper.pid is not None
        yield keeper.pid


async def test_a_rolling_restart_answers_every_request(place: Place) -> None:
    async with served(place, 2) as site:
        before = set(pids(site.fleet))
        async with asking(site.edge.url) as count:
            await site.fleet.restart("all")
        assert count() > 0
        assert before.isdisjoint(pids(site.fleet))


async def test_scaling_answers_every_request(place: Place) -> None:
    async with served(place, 1) as site:
        async with asking(site.edge.url) as count:
            await site.fleet.scale("all", 3)
            await site.fleet.scale("all", 1)
        assert count() > 0
        assert len(site.fleet.keepers) == 1


async def test_one_that_is_killed_is_out_and_comes_back(place: Place) -> None:
    async with served(place, 2) as site:
        victim = site.fleet.keepers[0]
        assert victim.pid is not None
        socket = str(place.root / f"{victim.name}.sock")
        os.kill(victim.pid, signal.SIGKILL)
        while (await site.edge.edge.control.healthy("all")).get(socket):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await site.until_serving(2)
        assert victim.restarts == 1


async def test_one_that_hangs_gets_nothing_more(place: Place) -> None:
    """It lives, but neither renews its lease nor answers."""
    async with served(place, 2) as site:
        hangs, other = site.fleet.keepers
        assert hangs.pid is not None
        os.kill(hangs.pid, signal.SIGSTOP)
        try:
            await site.until_serving(1)
            async with aiohttp.ClientSession() as client:
                for _ in range(10):
                    async with client.get(f"{site.edge.url}/v1/tasks") as answer:
                        assert (await answer.json())["name"] == other.name
        finally:
            os.kill(hangs.pid, signal.SIGCONT)
        await site.until_serving(2)
