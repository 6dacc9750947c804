"""Whether the disk of the data directory has room: said before it is full, for then little can be written down."""

import os
from pathlib import Path
from typing import Final

LEAST_BYTES: Final = 256 * 1024 * 1024
LEAST_SHARE: Final = 0.02
MB: Final = 1024 * 1024
CODE: Final = "disk.full"
MESSAGE: Final = (
    "The disk of the data directory has {left} MB left of {all} MB. Once it is full nothing is acknowledged: radios "
    "keep what is said and send it again later. Make room: delete what does not belong there, old backups and logs "
    "first; shorter retention: storage.retention_days."
)


def disk_alarms(directory: Path) -> list[tuple[str, str]]:
    """Return code and message of what is wrong with the disk; nothing where it has room, or cannot be asked."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return []
    left, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    if left >= min(LEAST_BYTES, size * LEAST_SHARE):
        return []
    return [(CODE, MESSAGE.format(left=left // MB, all=size // MB))]
