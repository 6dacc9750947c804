"""Where model weights come from: an explicit folder, an installed package, or a model hub; checked by hash before use.

Engines ask `ModelStore.locate` for a folder with the files that they know by name and hash. Packages are found without
being imported, because some of them ask for more than their files on import. Nothing is read at import.
"""

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock

from quickcomm.kernel.errors import ConfigurationError

_CHUNK = 1 << 20

Origin = Literal["path", "package", "cache", "hub"]


class ModelFileError(ConfigurationError):
    """Weights are missing, cut short or not the published ones; the text says what to do."""

    code = "configuration.model_files"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A file of a model. `sha256` None: any content will do. `parts`: (package, path) pieces to be joined, in order."""

    name: str
    sha256: str | None = None
    parts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A model and where it may be found. `package` and `folder`: an installed package that carries the files.

    `hub`: a Hugging Face repository, from which files that match `hub_extra` are taken as well; `install`: what to tell
    somebody who has none of it.
    """

    name: str
    files: tuple[ModelFile, ...]
    package: str | None = None
    folder: str = "."
    hub: str | None = None
    hub_extra: tuple[str, ...] = ()
    install: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedModel:
    """A folder that holds all files of a model. `verified`: every file with a known hash has it."""

    name: str
    folder: Path
    origin: Origin
    verified: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """For `quickcomm doctor`: which model, where from, and whether its hash is the published one."""

    name: str
    found: bool
    folder: str | None
    origin: Origin | None
    hash: Literal["ok", "unknown", "wrong", "missing"]
    detail: str


def package_folder(package: str, folder: str = ".") -> Path | None:
    """Find the folder of an installed package without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(place) / folder
        if candidate.is_dir():
            return candidate
    return None


@dataclass(frozen=True, slots=True)
class ModelStore:
    """Finds and checks model files. `cache`: a folder of our own, for joined files and for hashes already computed."""

    cache: Path
    allow_hub: bool = False
    _hashes: dict[str, str] = field(default_factory=dict, compare=False)

    def locate(self, spec: ModelSpec, path: Path | None = None) -> LocatedModel:
        """Find the model: explicit path, then package, then parts, then hub. Raises `ModelFileError`."""
        if path is not None:
            return self._checked(spec, path, "path", known=False)
        if spec.package and (folder := package_folder(spec.package, spec.folder)):
            return self._checked(spec, folder, "package")
        if any(file.parts for file in spec.files) and (joined := self._join(spec)):
            return self._checked(spec, joined, "cache")
        if spec.hub and self.allow_hub:
            return self._checked(spec, self._download(spec.hub, spec), "hub", known=False)
        raise ModelFileError(_how_to_get(spec, hub_allowed=self.allow_hub))

    def describe(self, spec: ModelSpec, path: Path | None = None) -> ModelReport:
        """Look without raising."""
        try:
            found = self.locate(spec, path)
        except ModelFileError as error:
            wrong = "sha256" in str(error)
            return ModelReport(
                name=spec.name,
                found=False,
                folder=str(path) if path else None,
                origin=None,
                hash="wrong" if wrong else "missing",
                detail=str(error),
            )
        return ModelReport(
            name=spec.name,
            found=True,
            folder=str(found.folder),
            origin=found.origin,
            hash="ok" if found.verified else "unknown",
            detail=f"{spec.name} from {found.origin}",
        )

    def sha256(self, path: Path) -> str:
        """Hash of a file; remembered beside its size and time, so that a warm start does not read it again."""
        state = path.stat()
        key = f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"
        remembered = self._remembered()
        if (known := remembered.get(key)) is not None:
            return known
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        self._remember(key, digest.hexdigest())
        return digest.hexdigest()

    def _checked(self, spec: ModelSpec, folder: Path, origin: Origin, *, known: bool = True) -> LocatedModel:
        """Check names and hashes. A folder that somebody chose (`known` false) may hold weights of their own."""
        missing = [file.name for file in spec.files if not (folder / file.name).is_file()]
        if missing:
            raise ModelFileError(f"{folder} is no complete {spec.name}: {', '.join(missing)} missing. {spec.install}")
        wrong = [file.name for file in spec.files if file.sha256 and self.sha256(folder / file.name) != file.sha256]
        if wrong and known:
            raise ModelFileError(
                f"{', '.join(wrong)} of {spec.name} in {folder} has the wrong sha256: it was cut short or changed. "
                f"Remove it and install it again. {spec.install}"
            )
        verified = not wrong and any(file.sha256 for file in spec.files)
        return LocatedModel(name=spec.name, folder=folder, origin=origin, verified=verified)

    def _join(self, spec: ModelSpec) -> Path | None:
        """Put files together that come in parts, once, into the cache; None where a part is not installed."""
        sources: dict[str, list[Path]] = {}
        for file in spec.files:
            folders = [(package_folder(package), name) for package, name in file.parts]
            sources[file.name] = [folder / name for folder, name in folders if folder and (folder / name).is_file()]
            if not sources[file.name] or len(sources[file.name]) != len(file.parts):
                return None
        target = self.cache / "models" / spec.name
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / ".lock"):
            for name, parts in sources.items():
                _concatenate(parts, target / name)
        return target

    def _download(self, repository: str, spec: ModelSpec) -> Path:
        # Imported here: only a start that may use the hub pays for it.
        from huggingface_hub import snapshot_download  # noqa: PLC0415
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

        try:
            return Path(
                snapshot_download(repository, allow_patterns=[file.name for file in spec.files] + list(spec.hub_extra))
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ModelFileError(
                f"{repository} could not be fetched from the model hub: {error}. {spec.install}"
            ) from error

    def _remembered(self) -> dict[str, str]:
        if not self._hashes:
            try:
                stored = json.loads(self._hash_file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                stored = {}
            if isinstance(stored, dict):
                self._hashes.update({str(key): str(value) for key, value in stored.items()})
        return self._hashes

    def _remember(self, key: str, digest: str) -> None:
        self._hashes[key] = digest
        temporary = self._hash_file.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._hashes, indent=1), encoding="utf-8")
            temporary.replace(self._hash_file)
        except OSError:
            return  # a cache that cannot be written costs the next start a second, no more

    @property
    def _hash_file(self) -> Path:
        return self.cache / "sha256.json"


def _concatenate(parts: Iterable[Path], target: Path) -> None:
    parts = list(parts)
    size = sum(part.stat().st_size for part in parts)
    if target.is_file() and target.stat().st_size == size:
        return
    temporary = target.with_name(f"{target.name}.part")
    with temporary.open("wb") as out:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, out, _CHUNK)
    temporary.replace(target)


def _how_to_get(spec: ModelSpec, *, hub_allowed: bool) -> str:
    hub = "" if hub_allowed or not spec.hub else f" Or allow the model hub, where it is {spec.hub}."
    return f"The model {spec.name} is not on this machine. {spec.install}{hub}"
