"""The processes of a site that `up` runs: services by its control socket, modules of the monolith by its own."""

import contextlib
from pathlib import Path
from typing import Any, Final

import aiohttp

from quickcomm.contracts.commands import Command, GoOnWith, Scale, StartModule, StopModule
from quickcomm.contracts.routes import MONOLITH, SERVICE, UNAWAITED, Side, place_of
from quickcomm.kernel.checking.compare import Finding
from quickcomm.kernel.discovery import Instance, Registry
from quickcomm.kernel.errors import InvalidInputError
from quickcomm.kernel.messaging.bus.home import first_row
from quickcomm.kernel.messaging.bus.sql_tables import messages
from quickcomm.kernel.runtime.admin_socket import CALL_TIMEOUT_S, UnknownCommandError, ask
from quickcomm.kernel.runtime.data_directory import DataDirectory, admin_socket_of
from quickcomm.traffic.adapters.parity import Dashboards
from quickcomm.traffic.model.ladder import MODULES
from quickcomm.traffic.ports import SiteError

COMPARED: Final = "dashboard"
"""The module of which both sides keep a history that can be compared; of the others, a running process is enough."""
STOPS_WITHIN_S: Final = 20.0
"""Longer than a module takes for its last work."""
NOT_THERE: Final = "There is no {module} "
"""How the monolith begins its refusal to stop what it has stopped already."""


class UpSite:
    """Implements `Site`."""

    def __init__(self, directory: DataDirectory, registry: Registry, dashboards: Dashboards) -> None:
        """`directory`: of the site. `registry`: where a process is found as long as it serves."""
        self._directory = directory
        self._registry = registry
        self._dashboards = dashboards

    async def start(self, module: str, side: Side) -> None:
        if not running(self._registry, module, side):  # an operator may have scaled it meanwhile
            await self._asked(self._directory.control, Scale(process=place_of(module, side), replicas=1))

    async def stop(self, module: str, side: Side) -> None:
        """Have what waits for it go, confirmed by each of its processes, then the processes.

        Where nothing waits for it, one that hangs need not confirm it.
        """
        for instance in self._registry.instances():
            if is_of(instance, module, side):
                own = admin_socket_of(instance.socket)  # of one of several; the only one has that of its directory
                socket = own if own.exists() else self._directory.part(module, side).socket
                with contextlib.suppress(*(SiteError,) if module in UNAWAITED else ()):
                    await self._asked(socket, StopModule(name=module), STOPS_WITHIN_S)
        await self._asked(self._directory.control, Scale(process=place_of(module, side), replicas=0))

    async def retire(self, module: str, side: Side) -> None:
        if side == MONOLITH:
            await self._retire(module)
        else:
            await self.stop(module, side)

    async def revive(self, module: str, side: Side) -> None:
        """Have `up` start the process where there is none: it begins without the modules that are retired."""
        if side != MONOLITH:
            await self.start(module, side)
            return
        await self._asked(self._directory.control, Scale(process=MONOLITH, replicas=1))
        await self._revived(module)

    async def go_on(self, module: str, side: Side, without: Side) -> None:
        await self._asked(self._directory.control, GoOnWith(name=module, side=side, without=without), STOPS_WITHIN_S)

    async def end(self) -> None:
        """Stop each module once more: a monolith that was killed may have begun with it again."""
        await self._asked(self._directory.control, Scale(process=MONOLITH, replicas=1))
        for module in MODULES:
            await self._retire(module)
        if first_row(self._directory.database, messages.name) is not None:
            raise SiteError("messages of the monolith are still to be sent")
        await self._asked(self._directory.control, Scale(process=MONOLITH, replicas=0))

    async def _retire(self, module: str) -> None:
        """Have the monolith stop a module."""
        try:
            await self._asked(self._directory.socket, StopModule(name=module))
        except InvalidInputError as error:
            if not str(error).startswith(NOT_THERE.format(module=module)):
                raise

    async def _revived(self, module: str) -> None:
        try:
            await self._asked(self._directory.socket, StartModule(name=module))
        except UnknownCommandError as error:
            raise SiteError(
                f"the running monolith, of an older release, cannot start {module} again: quickcomm restart monolith"
            ) from error

    async def ready(self, module: str, side: Side) -> str:
        if side == MONOLITH:
            await self._revived(module)  # it may have been killed, and have begun without the module
        elif not running(self._registry, module, side):
            return f"no process of {place_of(module, side)} serves yet"
        if module != COMPARED:
            return ""
        report = await self._dashboards.report()
        if not report.findings:
            return ""
        return f"{len(report.findings)} differences between the sides, such as {told(report.findings[0])}"

    async def _asked(self, socket: Path, request: Command, within_s: float = CALL_TIMEOUT_S) -> Any:
        try:
            return await ask(socket, request, within_s)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            known = {self._directory.control: "`quickcomm up`", self._directory.socket: "the monolith"}
            who = known.get(socket, "a process of the service")
            raise SiteError(f"{who} does not answer on {socket}") from error


def told(difference: Finding) -> str:
    """Name a difference in one line, without what people said."""
    return " ".join(word for word in (difference.code, difference.id, difference.event) if word)


def running(registry: Registry, module: str, side: Side) -> bool:
    """Return True if a process of this side of a service serves."""
    return any(is_of(instance, module, side) for instance in registry.instances())


def is_of(instance: Instance, module: str, side: Side) -> bool:
    """Return True for a process of this side of a service."""
    return instance.module == module and (instance.side or SERVICE) == side
