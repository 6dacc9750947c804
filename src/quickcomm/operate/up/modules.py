"""The table of what `up` runs: a row for each app of the deployment, made from what its modules declare."""

import sys
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from quickcomm.apps import DEPLOYMENTS
from quickcomm.contracts.routes import SERVICE, place_of
from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import App, Route
from quickcomm.kernel.runtime.releases import Release, Releases
from quickcomm.kernel.runtime.settings import Settings
from quickcomm.operate.up.layout import Layout
from quickcomm.topology.module import Module

STOP_S: Final = 30.0
"""The last insights, pages that say goodbye, the database."""
READY_WITHIN_S: Final = 300.0
"""The first start of all learns the site pack."""


RELEASE_READY_WITHIN_S: Final = 60.0
"""Longer than a service takes that has learnt the pack; then the release is taken back."""


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
    """`own`: the directory whose local socket the app answers on; None: each process has a socket of its own."""

    module: Module
    routes: tuple[Route, ...]
    own: DataDirectory | None
    stands_before: tuple[Route, ...] = ()
    """Routes of other rows whose requests come to its processes first, while there are any."""
    asked_for: bool = False
    """Its processes are started by a migration, and get a share of the requests of the monolith."""


def rows(shape: str, site: Site) -> tuple[Row, ...]:
    """Return the apps of a deployment, in the order in which they are started."""
    return tuple(_row(app, site) for app in DEPLOYMENTS[shape])


def release_rows(shape: str, site: Site, releases: Releases) -> tuple[Row, ...]:
    """Return the rows of other releases of services, which a deployment may start beside them."""
    movable = {app.name: app for app in DEPLOYMENTS[shape] if app.side == SERVICE}
    return tuple(
        release_row(movable[name], site, each)
        for name, known in sorted(releases.known.items())
        for each in known
        if name in movable
    )


def release_row(app: App, site: Site, release: Release) -> Row:
    """Return the row of another release of a service. `app`: as the site has it."""
    return _row(msgspec.structs.replace(app, side=release.side), site, release)


def _row(app: App, site: Site, release: Release | None = None) -> Row:
    replicas = app.replicas(site.settings)
    python = sys.executable if release is None else release.python
    module = Module(
        name=place_of(app.name, app.side),
        command=_command(python, app.command, site, *_engines(site, app.options)),
        environment=_environment(site, app) | (_release_environment(release) if release is not None else {}),
        replicas=replicas.first,
        most=replicas.most,
        one_because=replicas.because,
        ready_within_s=READY_WITHIN_S if release is None else RELEASE_READY_WITHIN_S,
        drain_s=app.drain_s(site.settings) + STOP_S,
        faces_edge=bool(app.routes or app.stands_before),
        least=replicas.least,
    )
    home = app.place(app.side) if replicas.most == 1 else None
    own = None if home is None else DataDirectory(site.layout.directory.path / home)
    return Row(module=module, routes=app.routes, stands_before=app.stands_before, own=own, asked_for=app.asked_for)


def _release_environment(release: Release) -> dict[str, str]:
    """Have its own files found first, and nothing of what `up` was started with."""
    return {"PYTHONPATH": release.source}


def _command(python: str, name: str, site: Site, *flags: str) -> tuple[str, ...]:
    program = (python, "-m", "quickcomm.cli.main", name)
    return (*program, "--data-dir", str(site.layout.directory.path), *site.flags, *flags)


def _engines(site: Site, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if name in site.engines:
            yield from (f"--{name.replace('_', '-')}", site.engines[name])


def _environment(site: Site, app: App) -> dict[str, str]:
    """Settings by which a process takes its place: `{name}` and `{socket}` are its own."""
    return {
        "QUICKCOMM_INSTANCE_NAME": "{name}",
        "QUICKCOMM_INSTANCE_SOCKET": "{socket}",
        "QUICKCOMM_INSTANCE_REGISTRY": str(site.layout.instances),
        "QUICKCOMM_INSTANCE_PUBLIC_URL": site.public_url,
        "QUICKCOMM_INSTANCE_EDGE": str(site.layout.behind_relay),
        "QUICKCOMM_REDIS_URL": for_user(site.redis_url, app.name),
        "QUICKCOMM_TRUST_SERVICE": app.name,
        "QUICKCOMM_INSTANCE_SIDE": app.side,
        "QUICKCOMM_TRUST_DIRECTORY": str(site.layout.trust),
        # Only the edge can reach the socket, and it appends who called.
        "QUICKCOMM_KEYS_TRUST_FORWARDED": "true",
    }
