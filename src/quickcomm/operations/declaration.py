"""The declaration of the executor of operations: in the process of `serve`, and a process of its own under `up`."""

from pathlib import Path
from typing import Final

import msgspec

from quickcomm.contracts.saga import OPERATIONS as NAME
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import Module, Replicas, SettingsReader

ONE: Final = "one executor a site goes on with what the one before left"


class OperationsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the executor keeps what it has under way."""

    database_url: str | None = None
    """PostgreSQL for the steps of operations; None: a SQLite file in the directory `operations`."""


def steps_file(own: DataDirectory) -> Path:
    """Return the file of the steps, given the directory of the executor."""
    return own.path / "steps.sqlite"


def steps_of(settings: OperationsSettings, site: DataDirectory) -> str:
    """Return the address of the database in which the executor keeps steps."""
    return settings.database_url or f"sqlite:///{steps_file(site.part(NAME))}"


def _database(_settings: SettingsReader, site: Path) -> Path:
    return DataDirectory(site).part(NAME).database


def _replicas(_settings: SettingsReader) -> Replicas:
    return Replicas(most=1, because=ONE)


OPERATIONS: Final = Module(
    name=NAME,
    build="quickcomm.operations.assembly",
    settings={"operations": OperationsSettings},
    without_store="Operations wait where they are.",
    replicas=_replicas,
    database=_database,
    home=NAME,
)
