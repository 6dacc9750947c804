"""The ways of running that the same tests are run against.

`E2E_DEPLOYMENT=monolith-up` runs them through edge and store, `E2E_DEPLOYMENT=services` with the dashboard as a service
of its own as well, `E2E_DEPLOYMENT=migrating` with modules that move every few seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.deployment import DEPLOYMENT, MIGRATING
from tests.support.flipping import Migrating
from tests.support.server import Server
from tests.support.site import Apart, Behind

SHAPES: Final[dict[str, type[Server]]] = {
    "serve": Server,
    "monolith-up": Behind,
    "services": Apart,
    MIGRATING: Migrating,
}


def server_class() -> type[Server]:
    """The one that this run of the tests is about."""
    return SHAPES[DEPLOYMENT]


@contextmanager
def running(data_dir: Path, *flags: str, **settings: str) -> Iterator[Server]:
    server = server_class()(data_dir, *flags, **settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
