"""Whether keys are still in a database whose site has moved to Valkey. Needs nothing that takes long to load."""

import contextlib
import sqlite3
from pathlib import Path

from quickcomm.kernel.errors import ConfigurationError


def keys_in(database: Path) -> bool:
    if not database.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'kernel_keys'").fetchone():
                return False
            return connection.execute("SELECT 1 FROM kernel_keys").fetchone() is not None
    except sqlite3.Error as error:
        raise ConfigurationError(f"The database {database} cannot be opened: {error}") from error
