"""What a module declares of itself, as data: all that others must know to give it a process, a store and requests.

Pure and light: `up` and the command line read it without loading the module. Derived from it: the store's access rules,
the edge's routes, the table of processes.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

import msgspec

MOST_PROCESSES: Final = 64

S = TypeVar("S", bound=msgspec.Struct)


class SettingsReader(Protocol):
    """The settings of a site."""

    def of(self, kind: type[S]) -> S:
        """Return the section that a module declares with this type."""
        ...


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group of the bus."""

    name: str
    streams: tuple[str, ...]


class StoreKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of the store that a module alone uses: `keys` behind the prefix of the site, with the commands allowed."""

    keys: tuple[str, ...]
    commands: tuple[str, ...]
    between_replicas: bool = False
    """Only needed where the module has processes of its own."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A path of the public address. One that ends with `/` stands for all below it; `{name}` for one segment."""

    name: str
    """The kind of request, for the access log."""
    path: str
    websocket: bool = False
    """Connections are kept open without a limit of time."""
    sticky: str = ""
    """What is hashed, with the segments of the path in it: equal ones come to the same process while that is there."""
    answers_within_s: float | None = None
    """None: the edge's setting."""


class Replicas(msgspec.Struct, frozen=True, kw_only=True):
    """How many processes of a module there are at first, and may be."""

    first: int = 1
    most: int = MOST_PROCESSES
    because: str = ""
    """Why there can be no more: an end of a sentence for the operator."""


def _many(_settings: SettingsReader) -> Replicas:
    return Replicas()


def _at_once(_settings: SettingsReader) -> float:
    return 0.0


class Module(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    settings: Mapping[str, type[msgspec.Struct]] = {}
    """Its sections of `quickcomm.toml`."""
    options: tuple[str, ...] = ()
    """Options of `quickcomm up` that go on to its processes."""
    publishes: tuple[str, ...] = ()
    """Streams."""
    consumes: tuple[Group, ...] = ()
    trims: bool = False
    """Its processes delete from the streams what all groups have handled."""
    deletes_from: tuple[str, ...] = ()
    """Streams from which it takes messages that a newer one replaces."""
    store: tuple[StoreKeys, ...] = ()
    makes_keys: bool = False
    """It makes and revokes API keys and page sessions; every module verifies them."""
    routes: tuple[Route, ...] = ()
    replicas: Callable[[SettingsReader], Replicas] = _many
    drain_s: Callable[[SettingsReader], float] = _at_once
    """Seconds that its work may take to come to an end."""


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of process: the modules that run in it."""

    name: str
    modules: tuple[Module, ...]
    command: str
    """The subcommand of `quickcomm` that starts it."""
    alone: str = ""
    """Why there can be only one process of several modules."""

    home: str | None = None
    """The directory below the site's in which its only process has its socket for operators; None: it may have several
    processes, each with a socket of its own."""
    operates: bool = False
    """Operators ask its process for dead letters; else they ask `up`."""

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(route for module in self.modules for route in module.routes)

    @property
    def options(self) -> tuple[str, ...]:
        """Each option once, in the order of the modules."""
        return tuple(dict.fromkeys(option for module in self.modules for option in module.options))

    def replicas(self, settings: SettingsReader) -> Replicas:
        if len(self.modules) > 1:
            return Replicas(most=1, because=self.alone)
        return self.modules[0].replicas(settings)

    def drain_s(self, settings: SettingsReader) -> float:
        return sum(module.drain_s(settings) for module in self.modules)
