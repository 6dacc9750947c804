"""What a database that refuses is to its callers."""

from quickcomm.kernel.errors import QuickCommError


class StorageError(QuickCommError):
    """The database refused (disk full, read-only, damaged, away). The same write may succeed later."""

    code = "storage.failed"
    retryable = True
