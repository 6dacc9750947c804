"""The public port: free or not, before anything is started."""

import errno
import socket

from quickcomm.edge.module import Public
from quickcomm.kernel.errors import ConfigurationError


def check(public: Public) -> None:
    """Raises `ConfigurationError` where the edge could not listen."""
    try:
        _try(public.host, public.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"Port {public.port} is taken by another program. Stop it, or choose another with --port."
        else:
            message = f"Cannot listen on {public.host}:{public.port}: {error.strerror}."
        raise ConfigurationError(message) from error


def free(host: str) -> int:
    """A port that nobody has just now."""
    try:
        return _try(host, 0)
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {host}: {error.strerror}.") from error


def _try(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)
        found: int = probe.getsockname()[1]
        return found
