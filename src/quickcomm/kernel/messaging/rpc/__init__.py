"""Request/reply between modules: `port` the interface, `local` within a process, `wire` between processes."""

from quickcomm.kernel.messaging.rpc.local import LocalRpc
from quickcomm.kernel.messaging.rpc.port import (
    Answer,
    DeadlineError,
    NotOwnerError,
    Rpc,
    UnansweredError,
    UnsupportedError,
)

__all__ = ["Answer", "DeadlineError", "LocalRpc", "NotOwnerError", "Rpc", "UnansweredError", "UnsupportedError"]
