"""Where keys are read: files that are replaced while we run, or a text given as a setting. New ones count at once."""

from pathlib import Path
from typing import Final, NamedTuple

import structlog
from joserfc.jwk import OKPKey

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.trust.jwk import PrivateJwk, PublicJwk, parse_private, parse_public

SUFFIX: Final = ".jwks"
Stamp = tuple[int, int, int]

log = structlog.get_logger(__name__)


class Trusted(NamedTuple):
    """A public key, ready for use."""

    jwk: PublicJwk
    key: OKPKey


class Signing(NamedTuple):
    """A private key, ready for use."""

    jwk: PrivateJwk
    key: OKPKey


class SigningKey:
    """A service's own private key: a file, or the JSON itself. The file is read again when it was replaced."""

    def __init__(self, where: str) -> None:
        self._path = None if _is_json(where) else Path(where)
        self._stamp: Stamp | None = None
        self._current: Signing | None = None if self._path else _signing(where.encode())

    def current(self) -> Signing:
        """Raises `ConfigurationError` where there never was one; a damaged new one leaves the old one in force."""
        if self._path is not None:
            stamp = _stamp(self._path)
            if stamp != self._stamp or self._current is None:
                self._read(self._path)
                self._stamp = stamp
        assert self._current is not None  # noqa: S101 - else `_read` has raised
        return self._current

    def _read(self, path: Path) -> None:
        try:
            self._current = _signing(path.read_bytes())
        except (OSError, ConfigurationError) as error:
            if self._current is None:
                raise ConfigurationError(f"The private key of this service cannot be read: {_why(error)}") from None
            log.warning("trust.key_not_read", file=path.name, error=_why(error))


class KeyRing:
    """Public keys of all services, by their ids: a folder of `.jwks` files, one such file, or the JSON itself."""

    def __init__(self, where: str) -> None:
        """Raises `ConfigurationError` for a text that is no key set."""
        self._root = None if _is_json(where) else Path(where)
        self._files: dict[Path, tuple[Stamp | None, tuple[Trusted, ...]]] = {}
        self._keys: dict[str, Trusted] = {}
        if self._root is None:
            self._keys = {each.jwk.kid: each for each in _trusted(where.encode())}

    def find(self, kid: str) -> Trusted | None:
        """As the files are now."""
        self._look()
        return self._keys.get(kid)

    def services(self) -> set[str]:
        self._look()
        return {each.jwk.service for each in self._keys.values()}

    def _look(self) -> None:
        if self._root is None:
            return
        paths = sorted(self._root.glob(f"*{SUFFIX}")) if self._root.is_dir() else [self._root]
        now = {path: stamp for path in paths if (stamp := _stamp(path)) is not None}
        if now == {path: stamp for path, (stamp, _) in self._files.items()}:
            return
        before, self._files = self._files, {}
        for path, stamp in now.items():
            known = before.get(path)
            if known is not None and known[0] == stamp:
                self._files[path] = known
                continue
            try:
                self._files[path] = (stamp, self._of_file(path))
            except (OSError, ConfigurationError) as error:
                log.warning("trust.keys_not_read", file=path.name, error=_why(error))
                self._files[path] = (stamp, known[1] if known else ())  # a damaged file withdraws nothing
        self._keys = {each.jwk.kid: each for _, found in self._files.values() for each in found}

    def _of_file(self, path: Path) -> tuple[Trusted, ...]:
        """Return its keys. In a folder, a file speaks only for the service that it is named after."""
        found = _trusted(path.read_bytes())
        if path == self._root:
            return found
        others = sorted({each.jwk.service for each in found} - {path.stem})
        if others:
            log.warning("trust.keys_of_another", file=path.name, services=others)
        return tuple(each for each in found if each.jwk.service == path.stem)


def _is_json(where: str) -> bool:
    return where.lstrip().startswith("{")


def _signing(text: bytes) -> Signing:
    jwk = parse_private(text)
    return Signing(jwk, jwk.key())


def _trusted(text: bytes) -> tuple[Trusted, ...]:
    return tuple(Trusted(jwk, jwk.key()) for jwk in parse_public(text))


def _stamp(path: Path) -> Stamp | None:
    """Changes when the file is replaced, or written to. None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _why(error: Exception) -> str:
    return error.strerror or "it cannot be opened" if isinstance(error, OSError) else str(error)
