"""Keeps one process running: starts it, sees that it gets ready, and starts it again when it ends."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.topology.model.backoff import Backoff
from quickcomm.topology.model.program import Program, State
from quickcomm.topology.ports import Probe, Processes, Supervisor

PROBE_EVERY_S: Final = 0.05
AGAIN_S: Final = 1.0
"""After the disk would not take what has to be written."""

log = structlog.get_logger(__name__)


class Tools:
    """What all keepers share. `sleep` is injected with the clock."""

    def __init__(
        self,
        supervisor: Supervisor,
        processes: Processes,
        clock: Clock,
        ended: Callable[[str], None],
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.supervisor = supervisor
        self.processes = processes
        self.clock = clock
        self.ended = ended
        self.backoff = backoff


class Keeper:
    def __init__(self, module: str, program: Program, probe: Probe, tools: Tools) -> None:
        self.module = module
        self.program = program
        self.probe = probe
        self.state: State = "starting"
        self.pid: int | None = None
        self.restarts = 0
        self.started = 0.0
        """Seconds of the clock, when its present process was started or adopted."""
        self._tools = tools
        self._backoff = tools.backoff()
        self._ready = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self.program.name

    def keep(self, tasks: asyncio.TaskGroup) -> None:
        """Begin."""
        self._running = tasks.create_task(self._run(), name=f"keep:{self.name}")

    async def ready(self, within_s: float) -> bool:
        """Wait until it can work; False if that takes too long."""
        try:
            async with asyncio.timeout(within_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """Let it finish, and stop keeping it."""
        self.state = "stopping"
        self._ready.clear()
        await self._let_go()
        await self._tools.supervisor.forget(self.name)
        self._tools.processes.erase(self.name)
        self.pid = None
        self.state = "stopped"

    async def _let_go(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
            self._running = None

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        adopted = await self._define()
        if adopted is not None:
            log.info("process.adopted", process=self.name, pid=adopted)
        while True:
            pid, adopted = adopted if adopted is not None else await self._start(), None
            if pid is not None:
                await self._live(pid)
            lived_s = self._tools.clock.monotonic() - self.started
            delay_s = self._backoff.after(lived_s)
            self.state = "waiting"
            log.warning("process.ended", process=self.name, pid=pid, lived_s=round(lived_s, 1), again_in_s=delay_s)
            await asyncio.sleep(delay_s)
            self.restarts += 1

    async def _define(self) -> int | None:
        while True:
            try:
                return await self._tools.supervisor.define(self.program)
            except OSError as error:  # such as a full disk: there will be room again
                log.warning("process.not_defined", process=self.name, error=str(error))
            await self._tools.clock.sleep(AGAIN_S)

    async def _start(self) -> int | None:
        self.state = "starting"
        self.started = self._tools.clock.monotonic()
        try:
            return await self._tools.supervisor.start(self.name)
        except QuickCommError as error:
            log.warning("process.not_started", process=self.name, error=str(error))
            return None

    async def _live(self, pid: int) -> None:
        self.pid = pid
        self.state = "starting"
        self.started = self._tools.clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            beside = [
                tasks.create_task(self._record(pid), name=f"record:{self.name}"),
                tasks.create_task(self._until_ready(), name=f"probe:{self.name}"),
            ]
            self._tools.processes.prioritise(self.name, pid, self.program.nice)
            await self._tools.processes.gone(pid)
            for task in beside:
                task.cancel()
        self._ready.clear()
        self.pid = None
        self._tools.ended(self.name)

    async def _record(self, pid: int) -> None:
        """Write down who that is; where the disk is full, once it is not."""
        while True:
            try:
                self._tools.processes.record(self.name, pid)
            except OSError as error:
                log.warning("process.not_recorded", process=self.name, error=str(error))
                await self._tools.clock.sleep(AGAIN_S)
            else:
                return

    async def _until_ready(self) -> None:
        while not await self.probe():  # noqa: ASYNC110
            await asyncio.sleep(PROBE_EVERY_S)  # the process tells nobody when it is ready
        took_s = self._tools.clock.monotonic() - self.started
        log.info("process.ready", process=self.name, pid=self.pid, took_s=round(took_s, 2))
        self.state = "ready"
        self._ready.set()
