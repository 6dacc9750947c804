"""Alembic, one history a module: each module's tables move on their own, in one database or in several."""

from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine

from quickcomm.kernel.errors import ConfigurationError


def migrate(engine: Engine, module: str, directory: Path) -> None:
    """Bring the module's tables to the newest revision in `directory`.

    Raises:
        ConfigurationError: the database was written by a newer QuickComm.

    """
    script = ScriptDirectory(str(directory), version_locations=[str(directory)])

    def steps(heads: Any, _context: MigrationContext) -> Any:
        return script._upgrade_revs("head", heads)  # noqa: SLF001 - as Alembic's own `upgrade` command does

    with engine.begin() as connection:
        options = {"fn": steps, "version_table": f"{module}_schema_version"}
        context = MigrationContext.configure(connection, opts=options)
        if context.get_current_revision() == script.get_current_head():
            return
        try:
            with Operations.context(context):
                context.run_migrations()
        except CommandError as error:
            raise ConfigurationError(
                f"The {module} tables were written by a newer QuickComm. Install that version, or restore a backup."
            ) from error
