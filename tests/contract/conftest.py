"""What the contract tests share: real servers, one of each kind, and each test with names of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.intelligence_store import prepare
from tests.support.postgres import PostgresServer
from tests.support.valkey import Valkey

from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.kernel.storage import Database, migrate


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    server = Valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def dashboard_template(postgres: PostgresServer) -> str:
    """The name of a database with the dashboard's empty tables."""

    def prepare(url: str) -> None:
        database = Database(url)
        try:
            migrate(database.engine, "dashboard", MIGRATIONS)
        finally:
            database.engine.dispose()

    return postgres.template(prepare)


@pytest.fixture(scope="session")
def intelligence_template(postgres: PostgresServer) -> str:
    """The name of a database with the empty tables of intelligence."""

    def make(url: str) -> None:
        database = Database(url)
        try:
            prepare(database)
        finally:
            database.engine.dispose()

    return postgres.template(make)


@pytest.fixture(params=["sqlite", "postgresql"])
def mind_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where intelligence keeps things: a new file, and a new database on a server."""
    if request.param == "sqlite":
        yield tmp_path / "mind.sqlite"
        return
    template: str = request.getfixturevalue("intelligence_template")
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create(template)
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def shared_store(postgres: PostgresServer, intelligence_template: str) -> Iterator[str]:
    """The address of a new database that several processes of intelligence may have."""
    name = postgres.create(intelligence_template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where to keep things: a new file, and a new database on a server."""
    if request.param == "sqlite":
        yield tmp_path / "store.sqlite"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create()
    yield server.url(name)
    server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """The same for the dashboard, whose tables may be there already."""
    if request.param == "sqlite":
        yield tmp_path / "store.sqlite"
        return
    template: str = request.getfixturevalue("dashboard_template")
    server: PostgresServer = request.getfixturevalue("postgres")
    name = server.create(template)
    yield server.url(name)
    server.drop(name)
