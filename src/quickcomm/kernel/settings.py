"""Settings types shared by modules; the only place that reads the environment is `entrypoints/settings.py`."""

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


class StorageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    retention_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 90
    """Conversations that ended longer ago are deleted; 0 keeps everything."""
    recordings: bool = False
    """Keep the sound of every utterance as FLAC."""
