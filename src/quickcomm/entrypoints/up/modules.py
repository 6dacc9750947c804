"""The table of what runs: a row a module, and which of them make up a shape. A service is added by a row."""

import sys
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from quickcomm.edge.module import Purpose
from quickcomm.entrypoints.data_directory import DataDirectory
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.up.layout import Layout
from quickcomm.kernel.bus.redis_address import for_user
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.topology.module import Module

MONOLITH: Final = "monolith"
CORE: Final = "core"
DASHBOARD: Final = "dashboard"
STOP_S: Final = 30.0
"""Beyond the drain of the sound: the last insights, pages that say goodbye, the database."""
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
    engine_flags: tuple[str, ...] = ()
    """About what hears and understands."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`own`: the directory whose local socket the module answers on."""

    module: Module
    serves: frozenset[Purpose]
    own: DataDirectory


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
        command=_command("serve", site, *site.flags, *site.engine_flags),
        environment=_environment(site, MONOLITH),
        most=1,
        one_because="it keeps everything in one database, and is the only one that writes to it",
        ready_within_s=READY_WITHIN_S,
        drain_s=site.settings.audio.drain_s + STOP_S,
    )
    return (Row(module=module, serves=frozenset(Purpose), own=site.layout.directory),)


def _services(site: Site) -> tuple[Row, ...]:
    """The dashboard first, and so the last to stop: while the others drain, people still see what comes of it."""
    dashboard = Module(
        name=DASHBOARD,
        command=_command(DASHBOARD, site, *site.flags),
        environment=_environment(site, DASHBOARD),
        most=1,
        one_because="a page sees what its own process has handled, and each message is handled by one process",
        ready_within_s=READY_WITHIN_S,
        drain_s=STOP_S,
    )
    core = Module(
        name=CORE,
        command=_command(CORE, site, *site.flags, *site.engine_flags),
        environment=_environment(site, CORE),
        most=1,
        one_because="it keeps prompts and costs in one database, and is the only one that writes to it",
        ready_within_s=READY_WITHIN_S,
        drain_s=site.settings.audio.drain_s + STOP_S,
    )
    pages = frozenset(Purpose) - {Purpose.AUDIO}
    return (
        Row(module=dashboard, serves=pages, own=site.layout.directory.dashboard),
        Row(module=core, serves=frozenset({Purpose.AUDIO}), own=site.layout.directory),
    )


SHAPES: Final[Mapping[str, Shape]] = {"monolith": _monolith, "services": _services}


def _command(name: str, site: Site, *flags: str) -> tuple[str, ...]:
    program = (sys.executable, "-m", "quickcomm.entrypoints.cli", name)
    return (*program, "--data-dir", str(site.layout.directory.path), *flags)


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
