"""What topology needs from outside: a supervisor, word of processes that end, probes, and the edge."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from quickcomm.topology.model.program import Program


class Supervisor(Protocol):
    """Starts and stops processes, and survives who asks it to. Raises `SupervisorError` where it cannot."""

    async def define(self, program: Program) -> int | None:
        """Make a program known. If just that one runs already, its process id; a different one is stopped first."""
        ...

    async def start(self, name: str) -> int:
        """The process id."""
        ...

    async def stop(self, name: str) -> None:
        """Ask it to stop, wait, and kill it if it takes too long; come back when it is gone."""
        ...

    async def forget(self, name: str) -> None:
        """Stop it if need be, and know it no more."""
        ...


class Processes(Protocol):
    """Processes by their ids, whoever started them."""

    def record(self, name: str, pid: int) -> None:
        """Write down who that is, so that it can be recognised later."""
        ...

    def erase(self, name: str) -> None: ...

    def prioritise(self, name: str, pid: int, nice: int) -> None:
        """Have it yield so much more than this process does; where that is refused, it runs as it was started."""
        ...

    async def gone(self, pid: int) -> None:
        """Come back when it has ended."""
        ...


class Probe(Protocol):
    async def __call__(self) -> bool:
        """Whether the process can do its work just now."""
        ...


class Balancer(Protocol):
    """The edge, as far as it must know who serves."""

    def put(self, module: str, sockets: Sequence[str]) -> None:
        """From now on, these and no others."""
        ...

    async def confirmed(self) -> None:
        """Come back when that is in force. Raises `BusyError` if it does not come into force."""
        ...

    async def healthy(self, module: str) -> Mapping[str, bool]:
        """Socket of each instance that it knows, and whether it gives it requests."""
        ...


class Desired(Protocol):
    """The processes of each module that an operator wants, by name; it outlives the process that keeps them."""

    def names(self, module: str) -> Sequence[str] | None: ...

    def keep(self, module: str, names: Sequence[str]) -> None:
        """Raises `OSError`."""
        ...
