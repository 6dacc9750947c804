"""What a database that refuses is to its callers."""

from quickcomm.kernel.errors import QuickCommError, UnavailableError


class StorageError(QuickCommError):
    """The database refused (disk full, read-only, damaged, away). The same write may succeed later."""

    code = "storage.failed"
    retryable = True


class StorageAwayError(StorageError, UnavailableError):
    """The server of the database does not answer, or is not ready: nothing is wrong with what was to be stored."""

    code = "storage.away"
