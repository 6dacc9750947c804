"""What runs, as data: a row a module, and a program for each of its processes."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from quickcomm.kernel.errors import ConfigurationError, NotFoundError

State = Literal["starting", "ready", "waiting", "stopping", "stopped"]
"""`waiting`: it ended, and is started again once its back-off is over."""

MOST: Final = 64


class ScaleError(ConfigurationError):
    code = "topology.scale"


class UnknownModuleError(NotFoundError):
    code = "topology.unknown_module"


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """One process. `environment` is added to what the supervisor has itself."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}
    drain_s: float = 10.0
    """So long may it take to stop by itself; then it is killed."""
    output_apart: bool = False
    """Its standard output has a file of its own, and is not part of the common stream: an access log."""
    nice: int = 0
    """How much it yields to others, beyond what `up` does."""


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table: how many processes of which kind, and what may be done with them."""

    name: str
    command: tuple[str, ...]
    """`{name}` and `{socket}` are replaced by those of each process."""
    environment: Mapping[str, str] = {}
    replicas: int = 1
    most: int = MOST
    least: int = 1
    one_because: str = ""
    """Where there can be only one: why."""
    ready_within_s: float = 60.0
    drain_s: float = 10.0
    registers: bool = True
    """Its processes register, and so are found by others."""
    faces_edge: bool = True
    """And get requests from the edge; False: only services call them."""
    output_apart: bool = False
    nice: int = 0
    """How much its processes yield to others where processors are scarce: -20 … 19."""

    def check(self, replicas: int) -> None:
        """Raises `ScaleError` that says why there cannot be so many."""
        if replicas < self.least:
            raise ScaleError(f"{self.name} needs at least one process. To stop everything: quickcomm down")
        if replicas > self.most:
            because = f": {self.one_because}" if self.one_because else ""
            raise ScaleError(f"{self.name} can have {self.most} at most{because}.")

    def program(self, name: str, socket: str) -> Program:
        """One of its processes."""
        given = {"{name}": name, "{socket}": socket}
        return Program(
            name=name,
            command=tuple(given.get(word, word) for word in self.command),
            environment={key: given.get(value, value) for key, value in self.environment.items()},
            drain_s=self.drain_s,
            output_apart=self.output_apart,
            nice=self.nice,
        )

    def process_name(self, number: int) -> str:
        return f"{self.name}-{number}" if self.registers else self.name
