"""What a database that refuses is to its callers."""

from quickcomm.kernel.errors import QuickCommError, UnavailableError


class StorageError(QuickCommError):
    """The database refused (disk full, read-only, damaged, away). The same write may succeed later."""

    code = "storage.failed"
    retryable = True


class StorageAwayError(StorageError, UnavailableError):
    """It takes nothing now: the server is away, the disk full. Nothing is wrong with what was to be stored."""

    code = "storage.away"
