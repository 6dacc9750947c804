"""Alembic, one history a module: each module's tables move on their own, in one database or in several."""

import re
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from quickcomm.kernel.errors import ConfigurationError

REVISION: Final = re.compile(r'^revision = "([^"]+)"$', re.MULTILINE)


def migrate(engine: Engine, module: str, directory: Path) -> None:
    """Bring the module's tables to the newest revision in `directory` (files are numbered, oldest first).

    Raises:
        ConfigurationError: the database was written by a newer QuickComm.

    """
    with engine.begin() as connection:
        table = f"{module}_schema_version"
        if _present(connection, table) != _newest(directory):
            _upgrade(connection, table, directory)


def is_current(connection: Connection, module: str, directory: Path) -> bool:
    """Return True if the module's tables are there at the newest revision in `directory`."""
    return _present(connection, f"{module}_schema_version") == _newest(directory)


def knows(revision: str, directory: Path) -> bool:
    """Return True if `directory` has this revision: tables of an unknown one were made by a newer QuickComm."""
    return any(revision in REVISION.findall(path.read_text()) for path in directory.glob("[0-9]*.py"))


def _newest(directory: Path) -> str:
    """Read without Alembic, whose import takes longer than all the rest of a warm start."""
    newest = max(directory.glob("[0-9]*.py"))
    found = REVISION.search(newest.read_text())
    if found is None:
        raise ConfigurationError(f"{newest} names no revision.")
    return found.group(1)


def _present(connection: Connection, table: str) -> str | None:
    if not sa.inspect(connection).has_table(table):
        return None
    version: str | None = connection.execute(sa.text(f"SELECT version_num FROM {table}")).scalar()  # noqa: S608 - our name
    return version


def _upgrade(connection: Connection, table: str, directory: Path) -> None:
    from alembic.migration import MigrationContext  # noqa: PLC0415 - see _newest
    from alembic.operations import Operations  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    script = ScriptDirectory(str(directory), version_locations=[str(directory)])

    def steps(heads: Any, _context: MigrationContext) -> Any:
        return script._upgrade_revs("head", heads)  # noqa: SLF001 - as Alembic's own `upgrade` command does

    context = MigrationContext.configure(connection, opts={"fn": steps, "version_table": table})
    try:
        with Operations.context(context):
            context.run_migrations()
    except CommandError as error:
        raise ConfigurationError(
            "The database was written by a newer QuickComm. Install that version, or restore a backup."
        ) from error
