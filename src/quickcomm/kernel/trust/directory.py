"""A folder with the keys of all services of a machine: made, replaced and withdrawn here, read by `sources.py`.

`private/NAME.jwk` is a service's own, `public/NAME.jwks` is for everybody. Files are replaced as a whole, in such an
order that whoever is cut off leaves nothing that does not work.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.trust.jwk import Jwks, PrivateJwk, PublicJwk, generate, parse_private, parse_public

PRIVATE: Final = "private"
PUBLIC: Final = "public"
KEEP_S: Final = 120
"""A key that was replaced longer ago is deleted: nothing that it signed is good any more."""


def private_file(root: Path | str, service: str) -> Path:
    return Path(root) / PRIVATE / f"{service}.jwk"


def public_folder(root: Path | str) -> Path:
    return Path(root) / PUBLIC


class TrustDirectory:
    """One process writes to it at a time. `now`: seconds of the wall clock."""

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self.root = root
        self._now = now

    def ensure(self, services: Iterable[str]) -> None:
        """Each of them has a key that is good, and nobody else has one. Keys that are there stay."""
        wanted = set(services)
        self._make()
        for path in [*(self.root / PUBLIC).iterdir(), *(self.root / PRIVATE).iterdir()]:
            if path.stem not in wanted:
                path.unlink()
        for service in sorted(wanted):
            own, public = self._private(service), self._public(service)
            if own is not None and own.public() in public:
                self._retire_all_but(own, public)
            else:
                self._replace(service, keep_old=True)

    def rotate(self, *, at_once: bool = False) -> list[str]:
        """A new key for everybody; the services.

        Old ones stay until all that they signed has expired; `at_once`: they are withdrawn, with what they signed.
        """
        services = sorted(path.stem for path in (self.root / PRIVATE).glob("*.jwk"))
        for service in services:
            self._replace(service, keep_old=not at_once)
        return services

    def renew(self, service: str) -> None:
        """A new key for one service, whether it has one or not; the old one is retired."""
        self._make()
        self._replace(service, keep_old=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _make(self) -> None:
        for folder in (self.root, self.root / PRIVATE, self.root / PUBLIC):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _replace(self, service: str, *, keep_old: bool) -> None:
        """The new one is known before it is used; the old one is retired once it is not used any more."""
        new, old = generate(service), self._public(service)
        self._write_public(service, (new.public(), *old))
        _write(private_file(self.root, service), msgspec.json.encode(new))
        self._retire_all_but(new, old if keep_old else ())

    def _retire_all_but(self, own: PrivateJwk, public: tuple[PublicJwk, ...]) -> None:
        now = int(self._now())
        old = (each for each in public if each.kid != own.kid)
        retired = (each if each.retired is not None else msgspec.structs.replace(each, retired=now) for each in old)
        kept = [each for each in retired if each.retired is None or each.retired > now - KEEP_S]
        wanted = (own.public(), *kept)
        if wanted != self._public(own.service):
            self._write_public(own.service, wanted)

    def _private(self, service: str) -> PrivateJwk | None:
        try:
            return parse_private(private_file(self.root, service).read_bytes())
        except (OSError, ConfigurationError):
            return None

    def _public(self, service: str) -> tuple[PublicJwk, ...]:
        try:
            return parse_public(self._public_file(service).read_bytes())
        except (OSError, ConfigurationError):
            return ()

    def _public_file(self, service: str) -> Path:
        return public_folder(self.root) / f"{service}.jwks"

    def _write_public(self, service: str, keys: tuple[PublicJwk, ...]) -> None:
        _write(self._public_file(service), msgspec.json.encode(Jwks(keys=keys)))


def _write(path: Path, content: bytes) -> None:
    """As a whole, for this user alone."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    os.replace(new, path)  # noqa: PTH105 - says what it is
