"""The bus port: ordered streams, consumer groups, at least once.

`sql.py` is the one inside a process, `redis.py` the one between processes, `outbox.py` that one for a process with
a database of its own.
"""

from quickcomm.kernel.messaging.bus.port import (
    Bus,
    BusFullError,
    BusUnavailableError,
    DeadLetter,
    Delivery,
    Handler,
    RejectedError,
    WholeBus,
)

__all__ = [
    "Bus",
    "BusFullError",
    "BusUnavailableError",
    "DeadLetter",
    "Delivery",
    "Handler",
    "RejectedError",
    "WholeBus",
]
