"""The declaration of the executor of operations: in the process of `serve`, and a process of its own under `up`."""

import ipaddress
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from quickcomm.contracts.saga import OPERATIONS as NAME
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.runtime.declaration import Module, Replicas, SettingsReader
from quickcomm.operations.signing import secret_of

ONE: Final = "one executor a site goes on with what the one before left"


class OperationsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the executor keeps what it has under way, and the webhook through which tasks are dispatched."""

    database_url: str | None = None
    """PostgreSQL for the steps of operations; None: a SQLite file in the directory `operations`."""
    webhook_url: str = ""
    """Where notices of dispatched tasks go: https, or a loopback address. Empty: tasks are not dispatched."""
    webhook_secret: str = ""
    """Signs them: `whsec_` and Base64. Best given as QUICKCOMM_OPERATIONS_WEBHOOK_SECRET; never logged."""
    webhook_allow_http: bool = False
    """Send notices over http to other machines as well, where each machine on the way can read them."""
    webhook_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0
    """How long the receiver may take to answer an attempt."""
    webhook_within_s: Annotated[float, msgspec.Meta(gt=0, le=3_600)] = 600.0
    """A notice that is not delivered within so long is given up, and the task is released."""

    def __repr__(self) -> str:
        """Without addresses and secrets: settings end up in messages and logs."""
        told = {name: "set" if getattr(self, name) else "none" for name in ("database_url", "webhook_url")}
        return f"OperationsSettings({told}, webhook_secret={'set' if self.webhook_secret else 'none'})"


def check(settings: SettingsReader) -> None:
    """Raise `ConfigurationError` for a receiver that cannot be used."""
    found = settings.of(OperationsSettings)
    if not found.webhook_url:
        return
    try:
        parts = urlsplit(found.webhook_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            "operations.webhook_url is no address of a receiver. It looks like https://example.org/quickcomm."
        )
    if parts.scheme == "http" and not (_is_loopback(parts.hostname or "") or found.webhook_allow_http):
        raise ConfigurationError(
            "operations.webhook_url must begin with https://, so that what people say is not readable on its way. "
            "For http in a network that you trust, set operations.webhook_allow_http."
        )
    secret_of(found.webhook_secret)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def steps_file(own: DataDirectory) -> Path:
    """Return the file of the steps, given the directory of the executor."""
    return own.path / "steps.sqlite"


def steps_of(settings: OperationsSettings, site: DataDirectory) -> str:
    """Return the address of the database in which the executor keeps steps."""
    return settings.database_url or f"sqlite:///{steps_file(site.part(NAME))}"


def _database(_settings: SettingsReader, site: Path) -> Path:
    return DataDirectory(site).part(NAME).database


def _replicas(_settings: SettingsReader) -> Replicas:
    return Replicas(most=1, because=ONE)


OPERATIONS: Final = Module(
    name=NAME,
    build="quickcomm.operations.assembly",
    settings={"operations": OperationsSettings},
    check=check,
    without_store="Operations wait where they are.",
    replicas=_replicas,
    database=_database,
    home=NAME,
)
