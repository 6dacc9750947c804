"""What the edge needs from outside: somebody who lays down its files, and Envoy's own word on what it has taken."""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from quickcomm.edge.model.envoy import ConfigSource, Message


class Files(Protocol):
    """Watched files, each in a directory of its own, replaced as a whole."""

    def source(self, name: str) -> ConfigSource:
        """How Envoy finds the file of that name."""
        ...

    def put(self, name: str, resources: tuple[Message, ...]) -> str:
        """Replace it; the version that Envoy will report. What has not changed is left alone."""
        ...


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
