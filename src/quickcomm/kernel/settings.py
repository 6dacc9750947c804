"""Settings types shared by modules; the only place that reads the environment is `runtime/setting_sources.py`."""

from typing import Annotated

import msgspec


class InstanceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a process takes its place behind an edge; `up` sets them, and `serve` alone has none of them."""

    name: str = "monolith"
    socket: str | None = None
    """Listen on this Unix socket, and not on host and port."""
    registry: str | None = None
    """Directory in which it registers while it serves."""
    public_url: str | None = None
    """Where people reach it: the edge's address."""
    edge: str | None = None
    """The edge's Unix socket for processes that pass requests on to the sides."""
    side: Annotated[str, msgspec.Meta(pattern=r"^(monolith|service(@[0-9A-Za-z._-]+)?)?$")] = ""
    """Its side, where modules move between a monolith and services of their own; empty where nothing can move."""


class TrustSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By which services know each other; `up` sets `service` and `directory`. See `kernel/trust`."""

    service: str = ""
    """Who this process is."""
    directory: str | None = None
    """Folder with `private/NAME.jwk` and `public/NAME.jwks`."""
    private_key: str | None = None
    """Elsewhere: a file with this service's own key, or the JSON Web Key itself."""
    public_keys: str | None = None
    """Elsewhere: a file or a folder with the public keys of all services, or the JSON Web Key Set itself."""

    def __repr__(self) -> str:
        return f"TrustSettings(service={self.service!r}, directory={self.directory!r})"


class CheckSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The check that a site makes by itself: docs/check.md."""

    every_minutes: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    """0: none."""
    hours: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Of conversations that changed so lately."""
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.1
    """Of a core that it may take."""
    settle_s: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    """How long what was just said may be on its way."""


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 90
    """Conversations that ended longer ago are deleted; 0 keeps everything."""
    recordings: bool = False
    """Keep the sound of every utterance as FLAC."""
    recordings_url: str | None = None
    """Where: a directory, or `s3://bucket/prefix`. None: in the data directory."""
    recordings_endpoint: str | None = None
    """Address of an S3-compatible server, such as https://s3.example:9000; None: Amazon's."""
