"""Why a connection ends, in no protocol's terms; each ingest tells it to its client in its own way."""

from enum import StrEnum


class EndReason(StrEnum):
    ENDED = "ended"
    """Everything is final."""
    SUPERSEDED = "superseded"
    """Another connection serves the conversation now."""
    REFUSED = "refused"
    """The client broke the protocol."""
    REVOKED = "revoked"
    """The client's key was revoked."""
    DRAINED = "drained"
    """The process stops; the conversation goes on in another one, or in the next."""
    MOVED = "moved"
    """As `ENDED`, because a client that cannot resume is sent to the other side."""
    FENCED = "fenced"
    """Another process owns the conversation."""
    FAILED = "failed"
    """A defect."""
