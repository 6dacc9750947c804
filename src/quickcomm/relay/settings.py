"""Settings of the session relay."""

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0)]


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    processes: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """How many processes of the relay are started with the site; 0: clients are connected with audio itself."""
    max_sockets: Annotated[int, msgspec.Meta(ge=1)] = 2_000
    """Clients of one process; more get 503."""
    held_mb: Annotated[int, msgspec.Meta(ge=1)] = 512
    """Unacknowledged sound that a process holds; beyond it, each client may have 30 s only."""
    held_mb_each: Annotated[int, msgspec.Meta(ge=8)] = 8
    """Unacknowledged sound of one client; beyond it, the client is not read."""
    give_up_s: Seconds = 300.0
    """Without a process that takes the conversation for so long, the client is sent away."""
    linger_s: Seconds = 60.0
    """What a client that cannot resume has left behind is delivered within so long."""
    drain_s: Seconds = 10.0
    """When a process stops: for so long clients that cannot resume may end by themselves."""
