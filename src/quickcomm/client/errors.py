"""What can go wrong for a client, each with a code and with a text that says what to do."""

from quickcomm.kernel.errors import ConfigurationError, ForbiddenError, InvalidInputError, QuickCommError


class UnauthorizedError(ForbiddenError):
    """HTTP 401: no key, or one that the server does not know."""

    code = "client.unauthorized"


class NotAllowedError(ForbiddenError):
    """HTTP 403 or close 1008: the key or the token may not do this."""

    code = "client.not_allowed"


class RefusedError(InvalidInputError):
    """The server refused what was sent, and would refuse it again. `server_code` is the server's own code."""

    code = "client.refused"

    def __init__(self, message: str, *, server_code: str | None = None, close_code: int | None = None) -> None:
        super().__init__(message)
        self.server_code = server_code
        self.close_code = close_code


class ProtocolError(QuickCommError):
    """The server said something that is not in the protocol."""

    code = "client.protocol"


class UnreachableError(QuickCommError):
    """No connection for as long as the client was told to go on trying."""

    code = "client.unreachable"
    retryable = True


class SourceError(InvalidInputError):
    """The sound cannot be had: no such file, not audio, device gone."""

    code = "client.source"


class DeviceMissingError(ConfigurationError):
    """No sound device of that name, or no support for sound devices installed."""

    code = "client.device_missing"
