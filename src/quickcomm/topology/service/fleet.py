"""All processes of a topology: started in order, found by the edge, scaled, replaced one by one, stopped in order."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from quickcomm.kernel.discovery import Registry
from quickcomm.kernel.errors import BusyError, QuickCommError
from quickcomm.topology.model.program import Module, ScaleError, UnknownModuleError
from quickcomm.topology.ports import Balancer, Desired, Probe
from quickcomm.topology.service.keeper import Keeper, Tools

LOOK_EVERY_S: Final = 0.2
IN_FORCE_WITHIN_S: Final = 15.0
POLL_S: Final = 0.05
SETTLE_S: Final = 0.1
"""The edge says that it knows a moment before each of its threads does."""

log = structlog.get_logger(__name__)

MakeProbe = Callable[[Module, str], Probe]
"""The probe of a module's process, by the process's socket."""


class NotReadyError(BusyError):
    code = "topology.not_ready"


class Fleet:
    """`socket_of` gives each process a Unix socket of its own, by its name."""

    def __init__(
        self,
        modules: Sequence[Module],
        registry: Registry,
        balancer: Balancer,
        probe_of: MakeProbe,
        socket_of: Callable[[str], str],
        desired: Desired,
    ) -> None:
        self._modules = {module.name: module for module in modules}
        self._registry = registry
        self._balancer = balancer
        self._probe_of = probe_of
        self._socket_of = socket_of
        self._desired = desired
        self._keepers: dict[str, list[Keeper]] = {module.name: [] for module in modules}
        self._leaving: set[str] = set()
        self._look = asyncio.Event()
        self._changing = asyncio.Lock()
        self._tools: Tools | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def keepers(self) -> list[Keeper]:
        return [keeper for keepers in self._keepers.values() for keeper in keepers]

    @property
    def changing(self) -> bool:
        """Return True while processes are started, stopped or replaced on demand."""
        return self._changing.locked()

    def begin(self, tools: Tools, tasks: asyncio.TaskGroup) -> None:
        """Before the first start; `end` after the last stop."""
        self._tools, self._tasks = tools, tasks
        self._telling = tasks.create_task(self._tell_forever(), name="topology:endpoints")

    def end(self) -> None:
        if self._telling is not None:
            self._telling.cancel()

    def ended(self, name: str) -> None:
        """A process is no more: nobody shall be sent to it."""
        self._registry.withdraw(name)
        self._look.set()

    def leave_out(self, name: str) -> None:
        """Have `start` begin without processes of a module, unless some were wanted last."""
        self._modules[name] = msgspec.structs.replace(self._modules[name], replicas=0)

    def put(self, module: Module) -> None:
        """Add a row, or replace that of this name for processes that are started from now on."""
        self._modules[module.name] = module
        self._keepers.setdefault(module.name, [])

    def drop(self, name: str) -> None:
        """Forget a row. Raises `ScaleError` while a process of it runs; does nothing where there is no such row."""
        if self._keepers.get(name):
            raise ScaleError(f"A process of {name} still runs.")
        self._modules.pop(name, None)
        self._keepers.pop(name, None)

    async def start(self, *names: str) -> None:
        """These modules, or all that are not started yet, in the order of the table, each ready before the next.

        Raises `NotReadyError`.
        """
        for module in self._modules.values():
            if (names and module.name not in names) or self._keepers[module.name]:
                continue
            for name in self._wanted(module):
                self._add(module, name)
            await asyncio.gather(*(self._until_ready(keeper) for keeper in self._keepers[module.name]))

    async def scale(self, name: str, replicas: int) -> None:
        """Raises `ScaleError`, `UnknownModuleError`, `NotReadyError`."""
        module = self._module(name)
        module.check(replicas)
        async with self._changing:
            keepers = self._keepers[name]
            await self._add_serving(module, replicas - len(keepers))
            for keeper in keepers[replicas:]:
                await self._remove(keeper)
            self._want(module)
        log.info("topology.scaled", module=name, replicas=replicas)

    async def restart(self, name: str) -> None:
        """One process after the other; where there may be several, the new one serves before the old one goes.

        Raises `ScaleError` where there is none.
        """
        module = self._module(name)
        async with self._changing:
            if not self._keepers[name]:
                raise ScaleError(f"No process of {name} runs: there is nothing to restart.")
            for keeper in list(self._keepers[name]):
                if module.most > 1:
                    await self._add_serving(module, 1)
                    await self._remove(keeper)
                else:
                    await self._remove(keeper)
                    await self._until_serving(self._add(module, keeper.name))
                self._want(module)
        log.info("topology.restarted", module=name)

    async def stop(self, name: str) -> None:
        """All of a module's processes, drained together."""
        await asyncio.gather(*(self._remove(keeper) for keeper in list(self._keepers[name])))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _module(self, name: str) -> Module:
        if name not in self._modules:
            known = ", ".join(self._modules)
            raise UnknownModuleError(f"There is no module {name} here. There are: {known}.")
        return self._modules[name]

    def _add(self, module: Module, name: str) -> Keeper:
        assert self._tools is not None and self._tasks is not None, "begin() comes first"  # noqa: S101, PT018
        socket = self._socket_of(name)
        keeper = Keeper(module.name, module.program(name, socket), self._probe_of(module, socket), self._tools)
        self._keepers[module.name].append(keeper)
        keeper.keep(self._tasks)
        return keeper

    async def _add_serving(self, module: Module, count: int) -> None:
        """Add so many that serve, or none: raises `NotReadyError`."""
        added = [self._add(module, self._free_name(module)) for _ in range(count)]
        try:
            await asyncio.gather(*(self._until_serving(keeper) for keeper in added))
        except NotReadyError:
            await asyncio.gather(*(self._remove(keeper) for keeper in added))
            raise

    def _wanted(self, module: Module) -> Sequence[str]:
        """Return the processes to start: those that were wanted last, where that is still allowed."""
        kept = self._desired.names(module.name)
        if kept is not None and module.least <= len(kept) <= module.most:
            return kept
        return [module.process_name(number) for number in range(1, module.replicas + 1)]

    def _want(self, module: Module) -> None:
        """Keep what runs now as what is wanted. A full disk changes nothing of what runs."""
        try:
            self._desired.keep(module.name, [keeper.name for keeper in self._keepers[module.name]])
        except OSError as error:
            log.warning("topology.desired_not_kept", module=module.name, error=str(error))

    def _free_name(self, module: Module) -> str:
        taken = {keeper.name for keeper in self._keepers[module.name]}
        number = 1
        while module.process_name(number) in taken:
            number += 1
        return module.process_name(number)

    async def _remove(self, keeper: Keeper) -> None:
        """Send new work elsewhere, then stop it; it finishes what it has. It stays ours if it cannot be stopped."""
        self._leaving.add(keeper.name)
        try:
            if _faces_edge(self._modules[keeper.module]):
                await self._tell_at_once(keeper)
            await keeper.stop()
            self._keepers[keeper.module].remove(keeper)
            self._registry.withdraw(keeper.name)
        except QuickCommError:
            assert self._tasks is not None, "begin() comes first"  # noqa: S101
            keeper.keep(self._tasks)
            raise
        finally:
            self._leaving.discard(keeper.name)

    async def _tell_at_once(self, keeper: Keeper) -> None:
        try:
            self._tell()
            await self._balancer.confirmed()
            await asyncio.sleep(SETTLE_S)
        except (BusyError, OSError) as error:  # the edge is away, or the disk is full: clients find the rest
            log.warning("topology.edge_not_told", process=keeper.name, error=str(error))

    async def _until_ready(self, keeper: Keeper) -> None:
        within_s = self._modules[keeper.module].ready_within_s
        if not await keeper.ready(within_s):
            raise NotReadyError(f"{keeper.name} is not ready after {within_s:.0f} s. Its log says more.")

    async def _until_serving(self, keeper: Keeper) -> None:
        """Ready, and given requests by the edge."""
        await self._until_ready(keeper)
        if not _faces_edge(self._modules[keeper.module]):
            return
        socket = self._socket_of(keeper.name)
        try:
            async with asyncio.timeout(IN_FORCE_WITHIN_S):
                while not (await self._balancer.healthy(keeper.module)).get(socket):  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)  # the edge tells nobody when it begins
        except TimeoutError:
            raise NotReadyError(f"{keeper.name} is ready, but the edge sends it nothing.") from None

    async def _tell_forever(self) -> None:
        while True:
            try:
                self._tell()
            except OSError as error:
                log.warning("topology.edge_not_told", error=str(error))
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()

    def _tell(self) -> None:
        """Who has a good lease, and is not about to leave, serves."""
        found: dict[str, list[str]] = {name: [] for name, module in self._modules.items() if _faces_edge(module)}
        for instance in self._registry.instances():
            if instance.module in found and instance.name not in self._leaving:
                found[instance.module].append(instance.socket)
        for module, sockets in found.items():
            self._balancer.put(module, sockets)


def _faces_edge(module: Module) -> bool:
    return module.registers and module.faces_edge
