"""Who serves what, now: instances register under a lease that they must renew, and are found by who sends them work.

On one machine the registry is a directory of small files. Where an orchestrator does this by itself (DNS and probes in
Kubernetes), nobody registers, and the same answers come from there.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from quickcomm.contracts.messaging import EVERY
from quickcomm.kernel.errors import MALFORMED

LEASE_S: Final = 1.5
RENEW_EVERY_S: Final = 0.4

log = structlog.get_logger(__name__)


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a module, and the Unix socket where it answers."""

    module: str
    name: str
    pid: int
    version: str
    socket: str
    modules: tuple[str, ...] = ()
    """That run in it, where it is a process of several."""
    side: str = ""
    """Of a migration; empty where nothing moves."""

    def has(self, module: str) -> bool:
        """Return True if the module runs in this process; `EVERY` runs in all of them."""
        return module in self.modules or module in {self.module, EVERY}


class Registry(Protocol):
    """All calls are quick: a file, or a key in memory."""

    def put(self, instance: Instance) -> None:
        """Register, or renew the lease. Raises `OSError` where that is not possible."""
        ...

    def withdraw(self, name: str) -> None:
        """Be found no more. Nothing happens if it was not found."""
        ...

    def instances(self) -> list[Instance]:
        """All whose lease is good, in the order of their names."""
        ...


class _Lease(msgspec.Struct, frozen=True, kw_only=True):
    instance: Instance
    renewed: float
    """Seconds of the machine's monotonic clock, which all its processes share."""


class DirectoryRegistry:
    """A file an instance. `monotonic` is a clock that all processes of this machine share, as Linux' is."""

    def __init__(
        self, directory: Path, *, lease_s: float = LEASE_S, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._lease_s = lease_s
        self._monotonic = monotonic
        self._stored: dict[str, Instance] = {}

    def put(self, instance: Instance) -> None:
        now, path = self._monotonic(), self._path(instance.name)
        if self._stored.get(instance.name) == instance:
            with contextlib.suppress(OSError):  # such as a file that was removed by hand
                os.utime(path, (now, now))  # a whole file each time keeps the event loop waiting
                return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._directory / f".{instance.name}.new"
            new.write_bytes(msgspec.json.encode(_Lease(instance=instance, renewed=now)))
            os.replace(new, path)  # noqa: PTH105 - says what it is
            self._stored[instance.name] = instance
        except OSError:  # such as a full disk: the file's own time takes no room
            known = _read(path)
            if known is None or known.instance != instance:
                raise
            os.utime(path, (now, now))

    def withdraw(self, name: str) -> None:
        self._stored.pop(name, None)
        self._path(name).unlink(missing_ok=True)

    def instances(self) -> list[Instance]:
        found = [(path, _read(path)) for path in sorted(self._directory.glob("*.json"))]
        return [each.instance for path, each in found if each is not None and self._is_good(path, each)]

    def _is_good(self, path: Path, lease: _Lease) -> bool:
        """A lease from the future is from before the machine was started again; so is a file's time of a wall clock.

        The clock is read last: one that is renewed meanwhile is not from the future.
        """
        renewals = lease.renewed, _touched(path)
        now = self._monotonic()
        return any(0 <= now - renewed <= self._lease_s for renewed in renewals)

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"


def _read(path: Path) -> _Lease | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Lease)
    except (OSError, *MALFORMED):
        return None  # just withdrawn


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -1.0  # just withdrawn


@contextlib.asynccontextmanager
async def registered(registry: Registry, instance: Instance) -> AsyncIterator[None]:
    """Be found inside the block, for as long as the event loop turns."""
    _renew(registry, instance)
    renewing = asyncio.ensure_future(_renew_forever(registry, instance))
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing
        registry.withdraw(instance.name)


async def _renew_forever(registry: Registry, instance: Instance) -> None:
    while True:
        await asyncio.sleep(RENEW_EVERY_S)
        _renew(registry, instance)


def _renew(registry: Registry, instance: Instance) -> None:
    try:
        registry.put(instance)
    except OSError as error:  # it serves all the same, and is found once there is room
        log.warning("registry.not_renewed", error=str(error))
