"""Files that are replaced as a whole: after a crash there is the old content or the new one."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file, readable for this user alone; it is on the disk when this returns. Raises `OSError`."""
    new = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
