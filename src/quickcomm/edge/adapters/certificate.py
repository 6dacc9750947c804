"""The edge's certificate: looked at now and then, handed to Envoy as a new file once it has changed and is whole."""

import hashlib
import os
import shutil
import ssl
from pathlib import Path
from typing import Final

from quickcomm.edge.adapters.files import WatchedFiles
from quickcomm.edge.config import CERTIFICATE, Tls, secret
from quickcomm.kernel.errors import ConfigurationError

KEPT: Final = 2


class Certificate:
    """Envoy reads copies, for this user alone: however the files are replaced, it never sees half of a pair."""

    def __init__(self, tls: Tls, files: WatchedFiles, root: Path) -> None:
        self._tls = tls
        self._files = files
        self._root = root
        self._seen: str | None = None
        self.version = ""
        """That Envoy reports once it has it."""

    def refresh(self) -> bool:
        """Take over a new one; True if there was one. The old one stays in force otherwise.

        Raises `ConfigurationError` where it is no good, `OSError` where the disk does not take its copy.
        """
        try:
            chain, key = self._tls.certificate.read_bytes(), self._tls.key.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}.") from None
        digest = hashlib.sha256(chain + b"\0" + key).hexdigest()[:32]
        if digest == self._seen:
            return False
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = self._root / digest
        copy = Tls(certificate=folder / "certificate.pem", key=folder / "key.pem")
        _write(copy.certificate, chain)
        _write(copy.key, key)
        try:
            _check(copy)
        except ConfigurationError:
            self._seen = digest
            shutil.rmtree(folder)
            raise
        self.version = self._files.put(CERTIFICATE, [secret(copy)])
        self._seen = digest
        self._tidy(folder)
        return True

    def _tidy(self, newest: Path) -> None:
        os.utime(newest)
        old = sorted(self._root.iterdir(), key=lambda path: path.stat().st_mtime)
        for folder in old[:-KEPT]:
            shutil.rmtree(folder)


def _check(tls: Tls) -> None:
    """Raises `ConfigurationError` where Envoy would refuse it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: b"")  # never asks at the terminal
    except (ssl.SSLError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or "no PEM file"
        raise ConfigurationError(
            f"The TLS certificate and its key do not work together ({why}). Give PEM files: the certificate with its "
            "chain, and its key without a passphrase."
        ) from None


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
