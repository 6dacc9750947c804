"""The tiers of the tests: how many examples, in what order, and what needs a server beside the code under test."""

from pathlib import Path
from typing import Final

import pytest
from tests.support.examples import register_profiles

register_profiles()

FOLDERS: Final = ("e2e", "integration", "contract", "unit")
"""Slowest files first: with several workers, many short ones are left to fill the end."""
SERVERS: Final = frozenset({"postgresql", "postgres", "redis", "valkey"})
"""Fixtures, and values of a fixture's parameter, that stand for a server of their own."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need PostgreSQL or Valkey; sort by folder."""
    folders = {config.rootpath / "tests" / name: at for at, name in enumerate(FOLDERS)}
    for item in items:
        if _needs_server(item):
            item.add_marker("server")
    items.sort(key=lambda item: next((at for folder, at in folders.items() if _inside(item.path, folder)), len(folders)))


def _inside(path: Path, folder: Path) -> bool:
    return folder in path.parents


def _needs_server(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function):
        return False
    chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return not SERVERS.isdisjoint(item.fixturenames) or any(value in SERVERS for value in chosen if isinstance(value, str))
