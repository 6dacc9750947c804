"""A database in memory, without threads: a few hundred of them are made by a property test."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool


class MemoryDatabase:
    """Looks like a `Database` to those that read and write."""

    def __init__(self, prepare: Callable[[Engine], None]) -> None:
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        prepare(self.engine)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.engine.dispose()

    async def write(self, function: Callable[[Connection], Any]) -> Any:
        with self.engine.begin() as connection:
            return function(connection)

    async def read(self, function: Callable[[Connection], Any]) -> Any:
        return await self.write(function)
