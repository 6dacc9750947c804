"""Files for Envoy to watch: each in a directory of its own, replaced by rename, so that it never sees half of one."""

import hashlib
import os
from pathlib import Path

import msgspec

from quickcomm.edge.model.envoy import ConfigSource, Message, PathConfigSource, Resources, WatchedDirectory


class WatchedFiles:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._versions: dict[str, str] = {}

    def source(self, name: str) -> ConfigSource:
        path = self._path(name)
        watched = WatchedDirectory(path=str(path.parent))
        return ConfigSource(path_config_source=PathConfigSource(path=str(path), watched_directory=watched))

    def put(self, name: str, resources: tuple[Message, ...]) -> str:
        """The version is a digest of the content: the same content again changes nothing."""
        version = hashlib.sha256(msgspec.json.encode(resources)).hexdigest()[:16]
        if self._versions.get(name) != version:
            content = msgspec.json.encode(Resources(version_info=version, resources=resources))
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
