"""The table of what runs: a row a module, and which of them make up a shape. A service is added by a row."""

import sys
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from quickcomm.edge.module import Purpose
from quickcomm.entrypoints.settings import Settings
from quickcomm.entrypoints.up.layout import Layout
from quickcomm.kernel.bus.redis_address import for_user
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.topology.module import Module

MONOLITH: Final = "monolith"
STOP_S: Final = 30.0
"""Beyond the drain of the sound: the last insights, pages that say goodbye, the database."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What a row is made from. `flags` go to every process as they were given to `up`."""

    layout: Layout
    settings: Settings
    public_url: str
    redis_url: str
    """With `{user}` where the name of the service belongs."""
    flags: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    module: Module
    serves: frozenset[Purpose]


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
    command = (sys.executable, "-m", "quickcomm.entrypoints.cli", "serve")
    module = Module(
        name=MONOLITH,
        command=(*command, "--data-dir", str(site.layout.directory.path), *site.flags),
        environment=_environment(site, MONOLITH),
        most=1,
        one_because="it keeps everything in one database, and is the only one that writes to it",
        ready_within_s=300.0,  # the first start of all learns the site pack
        drain_s=site.settings.audio.drain_s + STOP_S,
    )
    return (Row(module=module, serves=frozenset(Purpose)),)


def _services(_site: Site) -> tuple[Row, ...]:
    return ()


SHAPES: Final[Mapping[str, Shape]] = {"monolith": _monolith, "services": _services}


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
