"""What modules say to each other, each kind with a form within a process and one between processes.

`kernel.bus` for events that must not be lost, `live` for what may be lost, `rpc` for an answer now. A module gets all
three as `Messaging`, and lists what it answers as data. See docs/architecture.md.
"""

import msgspec

from quickcomm.kernel.bus import Bus
from quickcomm.kernel.messaging.rpc import Rpc


class Messaging(msgspec.Struct, frozen=True, kw_only=True):
    """By what a module talks to others, whichever process they are in."""

    bus: Bus
    rpc: Rpc


__all__ = ["Messaging"]
