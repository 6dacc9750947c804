"""Files for Envoy to watch: each in a directory of its own, replaced by rename, so that it never sees half of one."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from quickcomm.edge.config import Resource


class WatchedFiles:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions: dict[str, str] = {}

    def source(self, name: str) -> Resource:
        """Return the place of a file in the form of Envoy's `PathConfigSource`."""
        path = self._path(name)
        return {"path": str(path), "watched_directory": {"path": str(path.parent)}}

    def put(self, name: str, resources: Sequence[Resource]) -> str:
        """Replace a file unless its content is the same; return the version, a digest, that Envoy will report."""
        version = hashlib.sha256(msgspec.json.encode(resources, order="deterministic")).hexdigest()[:16]
        if self._versions.get(name) != version:
            content = msgspec.json.encode({"version_info": version, "resources": resources})
            replace(self._path(name), content)
            self._versions[name] = version
        return version

    def _path(self, name: str) -> Path:
        return self._root / name / "resources.json"


def replace(path: Path, content: bytes) -> None:
    """Put a file in place as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    os.replace(new, path)  # noqa: PTH105 - says what it is
