"""The tiers of the tests: how many examples, in what order, and what needs a server beside the code under test."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from tests.support.examples import register_profiles
from tests.support.postgres import PostgresServer, programs

register_profiles()
# Rich tracebacks, structlog's default where Rich is installed, take seconds on a busy machine.
_plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _plain])

TESTS: Final = Path(__file__).parent
FOLDERS: Final = ("e2e", "integration", "contract", "unit")
"""Slowest files first: with several workers, many short ones are left to fill the end."""
SERVERS: Final = frozenset({"postgresql", "postgres", "redis", "valkey"})
"""Fixtures, and values of a fixture's parameter, that stand for a server of their own."""
LONG_LIMIT_S: Final = 3_000
"""The time limit of a test that is marked `long`; that of the others is in pyproject.toml."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests of a worker; who kills it starts it again."""
    folder = programs()
    if folder is None:
        pytest.skip("There is no PostgreSQL server on this machine (Debian: apt-get install postgresql).")
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need PostgreSQL or Valkey, give long ones more time, and sort by folder."""
    for item in items:
        if _needs_server(item):
            item.add_marker("server")
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LONG_LIMIT_S))
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(TESTS).parts[0]
    return FOLDERS.index(folder) if folder in FOLDERS else len(FOLDERS)


def _needs_server(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return bool(SERVERS.intersection(item.fixturenames) or SERVERS.intersection(filter(_is_text, chosen)))


def _is_text(value: object) -> bool:
    return isinstance(value, str)
