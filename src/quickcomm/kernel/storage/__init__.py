"""SQL storage: one database a process, writes grouped into few commits, migrations a module."""

from quickcomm.kernel.storage.database import Database
from quickcomm.kernel.storage.errors import StorageAwayError, StorageError
from quickcomm.kernel.storage.migrations import migrate

__all__ = ["Database", "StorageAwayError", "StorageError", "migrate"]
