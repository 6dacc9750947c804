"""The bus port: ordered streams, consumer groups, at least once. See `sql.py` for the one inside a process."""

from quickcomm.kernel.bus.port import Bus, DeadLetter, Delivery, Handler, RejectedError

__all__ = ["Bus", "DeadLetter", "Delivery", "Handler", "RejectedError"]
