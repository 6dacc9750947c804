"""Envoy's administration interface, on a Unix socket that only this user may open."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from quickcomm.edge.ports import Listening
from quickcomm.kernel.errors import MALFORMED, BusyError

TIMEOUT_S: Final = 5.0
VERSIONS: Final = "/stats?type=TextReadouts&format=json&filter=version_text$"
CONNECTIONS: Final = "/stats?format=json&filter=^http\\.public\\.downstream_cx_active$"


class EdgeUnavailableError(BusyError):
    code = "edge.unavailable"


class _Stat(msgspec.Struct, frozen=True):
    name: str = ""
    value: str | int = ""


class _Stats(msgspec.Struct, frozen=True):
    stats: list[_Stat]


class _Info(msgspec.Struct, frozen=True):
    version: str
    state: str


class _Health(msgspec.Struct, frozen=True):
    failed_active_health_check: bool = False
    eds_health_status: str = "HEALTHY"


class _Pipe(msgspec.Struct, frozen=True):
    path: str


class _Socket(msgspec.Struct, frozen=True):
    address: str
    port_value: int


class _Address(msgspec.Struct, frozen=True):
    pipe: _Pipe | None = None
    socket_address: _Socket | None = None

    def __str__(self) -> str:
        if self.pipe is not None:
            return self.pipe.path
        return f"{self.socket_address.address}:{self.socket_address.port_value}" if self.socket_address else "-"


class _Host(msgspec.Struct, frozen=True):
    address: _Address
    health_status: _Health


class _Cluster(msgspec.Struct, frozen=True):
    name: str
    host_statuses: list[_Host] = []


class _Clusters(msgspec.Struct, frozen=True):
    cluster_statuses: list[_Cluster] = []


class EnvoyAdmin:
    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def info(self) -> Listening:
        told = _decode(await self._ask("GET", "/server_info"), _Info)
        stats = _decode(await self._ask("GET", CONNECTIONS), _Stats).stats
        open_now = sum(int(stat.value) for stat in stats if stat.name)
        # "commit/1.40.0/Clean/RELEASE/BoringSSL"
        return Listening(version=told.version.split("/")[1], state=told.state.lower(), connections=open_now)

    async def versions(self) -> Mapping[str, str]:
        stats = _decode(await self._ask("GET", VERSIONS), _Stats).stats
        return {stat.name: str(stat.value) for stat in stats if stat.name}

    async def healthy(self, cluster: str) -> Mapping[str, bool]:
        clusters = _decode(await self._ask("GET", "/clusters?format=json"), _Clusters).cluster_statuses
        hosts = [host for each in clusters if each.name == cluster for host in each.host_statuses]
        return {str(host.address): not host.health_status.failed_active_health_check for host in hosts}

    async def stop_listening(self) -> None:
        await self._ask("POST", "/drain_listeners?inboundonly")

    async def _ask(self, method: str, path: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.UnixConnector(str(self._socket))
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
                client.request(method, f"http://envoy{path}", raise_for_status=True) as answer,
            ):
                return await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise EdgeUnavailableError(f"The edge does not answer: {error}") from error


def _decode(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except MALFORMED as error:
        raise EdgeUnavailableError(f"The edge's answer is not understood: {error}") from error
