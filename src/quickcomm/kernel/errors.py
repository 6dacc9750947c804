"""The one root of errors. `code` is stable and public; `retryable` says whether the same call may succeed later."""

from collections.abc import Mapping
from typing import Final

MALFORMED: Final = (ValueError, RecursionError)
"""What decoding bytes from elsewhere can raise: no JSON or TOML, no UTF-8, a number of too many digits, too deep."""


class QuickCommError(Exception):
    """Base of all errors that QuickComm raises on purpose; its text says what to do."""

    code: str = "internal"
    retryable: bool = False
    outside: str | None = None
    """What clients are told in its place, where its text is for operators: it may name what is inside."""
    members: Mapping[str, object] = {}
    """More for programs, beside code and text; in JSON."""

    def for_clients(self) -> str:
        """Return the text that may leave the site."""
        return self.outside or str(self)


class InvalidInputError(QuickCommError):
    code = "invalid_input"


class NotFoundError(QuickCommError):
    code = "not_found"


class ForbiddenError(QuickCommError):
    code = "forbidden"


class ConfigurationError(QuickCommError):
    code = "configuration"


class BusyError(QuickCommError):
    code = "busy"
    retryable = True


class UnavailableError(QuickCommError):
    """What is needed does not answer now. Nothing is wrong with what was asked: the same call may succeed later."""

    code = "unavailable"
    retryable = True


class GoneError(QuickCommError):
    """What the caller goes by is not there any more; it must begin again."""

    code = "gone"


class ConflictError(QuickCommError):
    """What is asked contradicts the state that the thing is in."""

    code = "conflict"
