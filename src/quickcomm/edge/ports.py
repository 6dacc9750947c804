"""Envoy's administration, as the edge needs it."""

from collections.abc import Mapping
from typing import Protocol

import msgspec


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """What Envoy says about itself."""

    version: str
    state: str
    connections: int


class EdgeControl(Protocol):
    """Envoy's administration. Every call raises `EdgeUnavailableError` while Envoy does not answer."""

    async def info(self) -> Listening: ...

    async def versions(self) -> Mapping[str, str]:
        """Version of each resource file that was taken over, by the statistic that tells it."""
        ...

    async def healthy(self, cluster: str) -> Mapping[str, bool]:
        """Address of each endpoint, and whether it gets requests."""
        ...

    async def stop_listening(self) -> None:
        """Take no new connections; what is open goes on."""
        ...
