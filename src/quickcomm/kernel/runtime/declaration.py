"""The declaration of a module, as data: all that is needed to give it a process, a store and requests.

Pure and light: `up` and the command line read it without loading the module. Derived from it: the store's access rules,
the edge's routes, the table of processes, the settings of a process, and its parts.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from quickcomm.contracts.routes import Side, place_of
from quickcomm.kernel.messaging.bus.redis_assignments import Fence
from quickcomm.kernel.settings import InstanceSettings

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
    shared: bool = False
    """Where the module moves, both sides consume as this group, together or in turn; else each has one of its own."""


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
    """Text that is hashed, with segments of the path in it: requests with equal ones come to the same process."""
    passes_full: bool = False
    """A process that has no room, and says so before it lets a client in (503), is passed over once."""
    answers_within_s: float | None = None
    """None: the edge's setting."""
    by_client: bool = False
    """While its module moves, a page session or a key stays on one side."""
    channel_in: str = ""
    """The query parameter that names the channel: while its module moves, a channel may have a side of its own."""
    channel_else: str = ""
    """The channel of requests that name none."""


class Replicas(msgspec.Struct, frozen=True, kw_only=True):
    """The number of processes of a module: at first, at most, and at least."""

    first: int = 1
    least: int = 1
    """0: the site does without it."""
    most: int = MOST_PROCESSES
    because: str = ""
    """Why there can be no more: an end of a sentence for the operator."""


def _many(_settings: SettingsReader) -> Replicas:
    return Replicas()


def _at_once(_settings: SettingsReader) -> float:
    return 0.0


def _nothing_wrong(_settings: SettingsReader) -> None:
    """Accept what the types allow."""


def _no_database(_settings: SettingsReader, _site: Path) -> None:
    return None


class Module(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    build: str
    """Python module with `load(app, settings, pack)`, for what takes long, and `build(context, loaded)`: its `Part`."""
    settings: Mapping[str, type[msgspec.Struct]] = {}
    """Its sections of `quickcomm.toml`."""
    check: Callable[[SettingsReader], None] = _nothing_wrong
    """Raises `ConfigurationError` for settings that no type can refuse."""
    options: tuple[str, ...] = ()
    """Options of `quickcomm up` that go on to its processes."""
    publishes: tuple[str, ...] = ()
    """Streams to which it publishes by the bus."""
    appends: tuple[str, ...] = ()
    """Streams to which scripts of its own append."""
    consumes: tuple[Group, ...] = ()
    trims: bool = False
    """Its processes delete from the streams what all groups have handled."""
    fences: Mapping[str, Callable[[bytes], Fence | None]] = {}
    """By stream to which it publishes: the fence of a payload, where another side may have the conversation by then."""
    deletes_from: tuple[str, ...] = ()
    """Streams from which it takes messages that a newer one replaces."""
    store: tuple[StoreKeys, ...] = ()
    makes_keys: bool = False
    """It makes and revokes API keys and page sessions; every module verifies them."""
    watches_site: bool = False
    """Its process has the alarms of the disk and of the store's server, for all processes."""
    without_store: str = ""
    """A sentence for operators: the consequence of a store that does not answer."""
    routes: tuple[Route, ...] = ()
    stands_before: tuple[Route, ...] = ()
    """Routes of another module whose requests come to this one first, while a process of it serves."""
    replicas: Callable[[SettingsReader], Replicas] = _many
    drain_s: Callable[[SettingsReader], float] = _at_once
    """Seconds that its work may take to come to an end."""
    database: Callable[[SettingsReader, Path], Path | str | None] = _no_database
    """The file or URL that a process of its own has, given the directory of the site; None: it needs none."""
    home: str | None = None
    """The directory below the site's that its process owns, where it answers operators, if there can be only one; else,
    and for None, each of its processes has a socket of its own."""
    also: tuple[str, ...] = ()
    """Python modules with `build(context)`, for more parts of a process of its own; left out where not installed."""
    history: str = ""
    """Python module with `build(context)`: serves what this side has to the other one, while it moves."""


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of process: the modules that run in it."""

    name: str
    modules: tuple[Module, ...]
    command: str
    """The subcommand of `quickcomm` that starts it."""
    one_because: str = ""
    """Why there can be only one process of several modules."""
    home: str | None = None
    """As in `Module`."""
    operates: bool = False
    """Operators ask its process for dead letters; else they ask `up`."""
    also: tuple[str, ...] = ()
    """As in `Module`, for a process that talks to others."""
    side: Side = ""
    """Where its modules move between a monolith and services: which of them it is."""
    asked_for: bool = False
    """Its processes are started when a migration needs them, and not with the site."""
    inside: tuple[Module, ...] = ()
    """Modules that run in it where there are no other processes; else they have processes of their own."""

    def in_place(self, place: InstanceSettings) -> "App":
        """Return the app with all the modules that run in it at this place."""
        alone = place.registry is None and bool(self.inside)
        return msgspec.structs.replace(self, modules=(*self.modules, *self.inside), inside=()) if alone else self

    @property
    def alone(self) -> bool:
        """Return True if the process has one module, and talks to others."""
        return len(self.modules) == 1

    @property
    def routes(self) -> tuple[Route, ...]:
        return tuple(route for module in self.modules for route in module.routes)

    @property
    def stands_before(self) -> tuple[Route, ...]:
        """Return the routes of other apps whose requests come to this one first."""
        return tuple(route for module in self.modules for route in module.stands_before)

    @property
    def options(self) -> tuple[str, ...]:
        """Return each option once, in the order of the modules."""
        return tuple(dict.fromkeys(option for module in self.modules for option in module.options))

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(group.name for module in self.modules for group in module.consumes)

    def replicas(self, settings: SettingsReader) -> Replicas:
        least = 0 if self.side == "monolith" else 1  # services may have all of its modules
        several = Replicas(least=least, most=1, because=self.one_because)
        found = self.modules[0].replicas(settings) if self.alone else several
        return msgspec.structs.replace(found, first=0, least=0) if self.asked_for else found

    def home_of(self, settings: SettingsReader) -> str | None:
        """Return the directory that its only process owns; None where there can be several."""
        return self.place(settings.of(InstanceSettings).side) if self.replicas(settings).most == 1 else None

    def place(self, side: Side) -> str | None:
        """Return its home on a side: releases of a module have one each."""
        return None if self.home is None else place_of(self.home, side)

    def drain_s(self, settings: SettingsReader) -> float:
        return sum(module.drain_s(settings) for module in self.modules)


def service(module: Module) -> App:
    """Return the app of a module that has processes of its own."""
    return App(name=module.name, modules=(module,), command=module.name, home=module.home, also=module.also)


def moving(module: Module) -> App:
    """Return the app of a module that is moved out of a monolith while people talk: with a directory of its own."""
    more = (module.history,) if module.history else ()
    home = module.home or module.name
    return msgspec.structs.replace(asked_for(service(module)), also=more, side="service", home=home)


def asked_for(app: App) -> App:
    """Return the app with processes that are not started with the site."""
    return msgspec.structs.replace(app, asked_for=True)
