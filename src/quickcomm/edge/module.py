"""The edge: Envoy as the only public port. Writes what Envoy reads, and waits until Envoy says that it has it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import structlog

from quickcomm.edge.adapters.admin import EdgeUnavailableError, EnvoyAdmin
from quickcomm.edge.adapters.certificate import Certificate
from quickcomm.edge.adapters.files import WatchedFiles, replace
from quickcomm.edge.config import (
    CERTIFICATE,
    CLUSTERS,
    INNER,
    LISTENERS,
    ROUTES,
    Apart,
    Backend,
    Config,
    Front,
    Public,
    Split,
    Tls,
    assignment,
    render,
)
from quickcomm.edge.ports import EdgeControl, Listening
from quickcomm.edge.settings import EdgeSettings
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.declaration import Route

ROUTES_VERSION: Final = "http.public.rds.public.version_text"
INNER_VERSION: Final = "http.inner.rds.inner.version_text"
CONFIRM_EVERY_S: Final = 0.02
CONFIRM_WITHIN_S: Final = 15.0
CERTIFICATE_EVERY_S: Final = 2.0

log = structlog.get_logger(__name__)


class Edge:
    """`root` holds its files and the administration socket."""

    def __init__(self, root: Path, settings: EdgeSettings, control: EdgeControl | None = None) -> None:
        self._root = root
        self._settings = settings
        self._files = WatchedFiles(root / "xds")
        self.admin_socket = root / "envoy.sock"
        self.control: EdgeControl = control or EnvoyAdmin(self.admin_socket)
        self._certificate: Certificate | None = None
        self._said = ""
        """What is wrong with the newest certificate; the one before it is in force meanwhile."""
        self._render: Callable[[Sequence[Split], int], Config] | None = None
        self._wanted: dict[str, str] = {}
        """Statistic → version that Envoy will report once it has the newest files."""

    def command(self, envoy: Path) -> list[str]:
        """How Envoy is started, without privileges and without sharing anything with another Envoy."""
        return [
            str(envoy),
            *("--config-path", str(self._root / "bootstrap.json")),
            *("--concurrency", str(self._settings.threads)),
            *("--log-level", "warning"),
            *("--log-format", "%l %n: %v"),
            "--disable-hot-restart",
        ]

    def write(
        self,
        public: Public,
        served: Mapping[str, Sequence[Route]],
        serving: Mapping[str, Sequence[Backend]] | None = None,
        splits: Sequence[Split] = (),
        front: Front | None = None,
    ) -> bytes:
        """Write everything; return what Envoy starts with, to see if it changed.

        `served`: the routes of each cluster; `serving`: the instances that serve already; `splits`, `front`: of
        these routes.
        """
        if public.tls is not None:
            self._certificate = Certificate(public.tls, self._files, self._root / "tls")
            self.refresh_certificate()
        fronts = () if front is None else (front.cluster,)
        names = sorted({*served, *fronts, *(split.cluster for split in splits)})
        for name in names:
            self.put_endpoints(name, (serving or {}).get(name, ()))
        watched = (LISTENERS, CLUSTERS, ROUTES, INNER, CERTIFICATE, *map(endpoints, names))
        sources = {name: self._files.source(name) for name in watched}
        self._render = partial(render, public, self._settings, served, sources, self.admin_socket, front=front)
        config = self._render(splits, 0)
        self._wanted["cluster_manager.cds.version_text"] = self._files.put(CLUSTERS, config.clusters)
        self._put_routes(config)
        self._wanted["listener_manager.lds.version_text"] = self._files.put(LISTENERS, config.listeners)
        content = msgspec.json.encode(config.bootstrap)
        replace(self._root / "bootstrap.json", content)
        return content

    def put_splits(self, splits: Sequence[Split], version: int) -> None:
        """Send shares of the routes elsewhere, by this version of the routes, from now on. `write` comes first."""
        assert self._render is not None, "`write` comes first"  # noqa: S101 - a programming error
        self._put_routes(self._render(splits, version))

    def _put_routes(self, config: Config) -> None:
        self._wanted[ROUTES_VERSION] = self._files.put(ROUTES, [config.routes])
        if config.inner is not None:
            self._wanted[INNER_VERSION] = self._files.put(INNER, [config.inner])

    def refresh_certificate(self) -> bool:
        """Take over a certificate that has changed; whether it has. Raises `ConfigurationError` for a bad one."""
        if self._certificate is None or not self._certificate.refresh():
            return False
        self._wanted[f"sds.{CERTIFICATE}.version_text"] = self._certificate.version
        return True

    async def watch_certificate(self, clock: Clock) -> None:
        """Until cancelled. One that is no good is told of, and the old one stays."""
        while True:
            await clock.sleep(CERTIFICATE_EVERY_S)
            try:
                if self.refresh_certificate():
                    log.info("edge.certificate_replaced")
            except (ConfigurationError, OSError) as error:
                if str(error) != self._said:
                    log.warning("edge.certificate_refused", error=str(error))
                self._said = str(error)
            else:
                self._said = ""

    def alarms(self) -> Iterator[tuple[str, str]]:
        """Yield code and message of what an operator should mend."""
        if self._said:
            yield "edge.certificate", f"The new TLS certificate is not taken, the old one stays in force. {self._said}"

    def put_endpoints(self, name: str, backends: Sequence[Backend]) -> None:
        """Who serves a cluster, from now on."""
        version = self._files.put(endpoints(name), [assignment(name, backends)])
        self._wanted[f"cluster.{name}.version_text"] = version

    async def confirmed(self, within_s: float = CONFIRM_WITHIN_S) -> None:
        """Wait until Envoy has taken over all that was written. Raises `EdgeUnavailableError` if it does not."""
        missing: dict[str, str] = dict(self._wanted)
        try:
            async with asyncio.timeout(within_s):
                while missing:
                    try:
                        has = await self.control.versions()
                    except EdgeUnavailableError:
                        has = {}
                    missing = {name: version for name, version in self._wanted.items() if has.get(name) != version}
                    if missing:
                        await asyncio.sleep(CONFIRM_EVERY_S)  # Envoy tells nobody when it has taken a file over
        except TimeoutError:
            raise EdgeUnavailableError(f"The edge has not taken over: {', '.join(sorted(missing))}.") from None


def endpoints(name: str) -> str:
    """Return the name of the watched file with the endpoints of a cluster."""
    return f"endpoints-{name}"


__all__ = [
    "Apart",
    "Backend",
    "Edge",
    "EdgeSettings",
    "EdgeUnavailableError",
    "Front",
    "Listening",
    "Public",
    "Split",
    "Tls",
    "replace",
]
