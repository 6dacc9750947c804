"""The table of what runs: a row a module, and which of them make up a shape. A service is added by a row."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import msgspec

from quickcomm.edge.module import Purpose
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.up.layout import Layout
from quickcomm.kernel.bus.redis_address import for_user
from quickcomm.kernel.bus.redis_names import PARTITIONS
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.topology.module import Module

MONOLITH: Final = "monolith"
AUDIO: Final = "audio"
INTELLIGENCE: Final = "intelligence"
DASHBOARD: Final = "dashboard"
STOP_S: Final = 30.0
"""The last insights, pages that say goodbye, the database."""
HEARING: Final = ("pack", "stt_model")
UNDERSTANDING: Final = ("pack", "llm_url", "llm_model")
ALL: Final = ("pack", "stt_model", "llm_url", "llm_model")
IN_A_FILE: Final = (
    "it keeps prompts, costs and results in a file, and is the only one that writes to it. With a PostgreSQL database "
    "(QUICKCOMM_INTELLIGENCE_DATABASE_URL) there can be more"
)
SHARED: Final = "so many partitions share the work"
READY_WITHIN_S: Final = 300.0
"""The first start of all learns the site pack."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a row is made from. Flags go to the processes as they were given to `up`."""

    layout: Layout
    settings: Settings
    public_url: str
    redis_url: str
    """With `{user}` where the name of the service belongs."""
    flags: tuple[str, ...] = ()
    """About logs."""
    engines: Mapping[str, str] = {}
    """What hears and understands, by the names of the options."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`own`: the directory whose local socket the module answers on; None: each process has a socket of its own."""

    module: Module
    serves: frozenset[Purpose]
    own: DataDirectory | None


Shape = Callable[[Site], tuple[Row, ...]]


def rows(shape: str, site: Site) -> tuple[Row, ...]:
    """The modules of a shape, in the order in which they are started. Raises `ConfigurationError`."""
    found = SHAPES[shape](site)
    served = frozenset[Purpose]().union(*(row.serves for row in found))
    if served != frozenset(Purpose):
        missing = ", ".join(sorted(frozenset(Purpose) - served))
        raise ConfigurationError(
            f"This version cannot run the shape {shape}: it has no service of its own for {missing}. "
            "Use: quickcomm up --shape monolith"
        )
    return found


def clusters(found: tuple[Row, ...]) -> Mapping[Purpose, str]:
    """Which module serves which purpose."""
    return {purpose: row.module.name for row in found for purpose in row.serves}


def _monolith(site: Site) -> tuple[Row, ...]:
    module = Module(
        name=MONOLITH,
        command=_command("serve", site, *_engines(site, ALL)),
        environment=_environment(site, MONOLITH),
        most=1,
        one_because="it keeps everything in one database, and is the only one that writes to it",
        ready_within_s=READY_WITHIN_S,
        drain_s=site.settings.audio.drain_s + STOP_S,
    )
    return (Row(module=module, serves=frozenset(Purpose), own=site.layout.directory),)


def _services(site: Site) -> tuple[Row, ...]:
    """In the order of what needs what: the dashboard is the last to stop, so that people see what comes of it all."""
    dashboard = Module(
        name=DASHBOARD,
        command=_command(DASHBOARD, site),
        environment=_environment(site, DASHBOARD),
        most=1,
        one_because="a page sees what its own process has handled, and each message is handled by one process",
        ready_within_s=READY_WITHIN_S,
        drain_s=STOP_S,
    )
    elsewhere = site.settings.intelligence.database_url is not None
    intelligence = Module(
        name=INTELLIGENCE,
        command=_command(INTELLIGENCE, site, *_engines(site, UNDERSTANDING)),
        environment=_environment(site, INTELLIGENCE),
        most=PARTITIONS if elsewhere else 1,
        one_because=SHARED if elsewhere else IN_A_FILE,
        ready_within_s=READY_WITHIN_S,
        drain_s=STOP_S,
        faces_edge=False,
    )
    audio = Module(
        name=AUDIO,
        command=_command(AUDIO, site, *_engines(site, HEARING)),
        environment=_environment(site, AUDIO),
        replicas=site.settings.audio.processes,
        ready_within_s=READY_WITHIN_S,
        drain_s=site.settings.audio.drain_s + STOP_S,
    )
    pages = frozenset(Purpose) - {Purpose.AUDIO}
    return (
        Row(module=dashboard, serves=pages, own=site.layout.directory.dashboard),
        Row(module=intelligence, serves=frozenset(), own=None),
        Row(module=audio, serves=frozenset({Purpose.AUDIO}), own=None),
    )


SHAPES: Final[Mapping[str, Shape]] = {"monolith": _monolith, "services": _services}


def _command(name: str, site: Site, *flags: str) -> tuple[str, ...]:
    program = (sys.executable, "-m", "quickcomm.entrypoints.cli", name)
    return (*program, "--data-dir", str(site.layout.directory.path), *site.flags, *flags)


def _engines(site: Site, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name in site.engines:
            yield from (f"--{name.replace('_', '-')}", site.engines[name])


def _environment(site: Site, service: str) -> dict[str, str]:
    """Settings by which a process takes its place: `{name}` and `{socket}` are its own.

    `service`: who it is for the others, and in the store.
    """
    return {
        "QUICKCOMM_INSTANCE_NAME": "{name}",
        "QUICKCOMM_INSTANCE_SOCKET": "{socket}",
        "QUICKCOMM_INSTANCE_REGISTRY": str(site.layout.instances),
        "QUICKCOMM_INSTANCE_PUBLIC_URL": site.public_url,
        "QUICKCOMM_REDIS_URL": for_user(site.redis_url, service),
        "QUICKCOMM_TRUST_SERVICE": service,
        "QUICKCOMM_TRUST_DIRECTORY": str(site.layout.trust),
        # Only the edge can reach the socket, and it appends who called.
        "QUICKCOMM_KEYS_TRUST_FORWARDED": "true",
    }
