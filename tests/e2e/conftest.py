"""One real server for all tests that do it no harm, and one of their own for those that do."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.server import Server
from tests.support.talk import Talk
from tests.support.talk import talk as real_talk

NewServer = Callable[..., Server]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    shared = Server(tmp_path_factory.mktemp("shared") / "data")
    try:
        shared.start()
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """Makes servers that a test may kill; settings are environment variables."""
    made: list[Server] = []

    def make(**settings: str) -> Server:
        made.append(Server(tmp_path / f"data-{len(made)}", **settings))
        made[-1].start()
        return made[-1]

    try:
        yield make
    finally:
        for each in made:
            each.stop()


@pytest.fixture(scope="session")
def talk() -> Talk:
    return real_talk()
