"""The connection to Valkey (or Redis): scripts by their hash, errors in our words, patience while it is away."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from quickcomm.kernel.errors import ConfigurationError, QuickCommError
from quickcomm.kernel.messaging.bus.port import BusFullError, BusUnavailableError
from quickcomm.kernel.messaging.bus.redis_address import PasswordFileError, parse

T = TypeVar("T")
Argument = str | bytes | int
CONNECTIONS: Final = 16
WAITING: Final = 4_096
"""Connections on which a reader waits, one a partition: so many as there are subscriptions, never refused."""
ANSWER_S: Final = 5.0
BLOCK_S: Final = 5.0
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0

log = structlog.get_logger(__name__)


class GroupMissingError(BusUnavailableError):
    """The group is not registered (any more)."""

    code = "bus.group_missing"


class BusRefusedError(BusUnavailableError):
    """The server does not let us in, or not do this: a matter of passwords and access rules."""

    code = "bus.refused"


class Script:
    """A Lua script, known to the server by its hash once it has run."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Link:
    """Many may call at once: `CONNECTIONS` of them are served, the others wait. Nothing is retried here unasked."""

    def __init__(self, url: str) -> None:
        """`url`: see `redis_address.py`. Raises `ConfigurationError` for one that is none."""
        self._away = False
        address = parse(url)
        # No socket_timeout: for that redis-py uses asyncio.wait_for, which in Python 3.11 may swallow a cancellation.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "socket_timeout": None, **address.options}
        try:
            pool = BlockingConnectionPool.from_url(address.url, max_connections=CONNECTIONS, timeout=None, **options)
            self._redis = Redis(connection_pool=pool)
            self._blocking = Redis.from_url(address.url, max_connections=WAITING, **options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Not the address of a Valkey or Redis server: {error}") from error

    async def aclose(self) -> None:
        """May be called again."""
        for client in (self._redis, self._blocking):
            await client.aclose(close_connection_pool=True)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Raises `BusUnavailableError`, `BusFullError` and `GroupMissingError`."""
        with _in_our_words():
            try:
                return await self._call("EVALSHA", script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await self._call("EVAL", script.text, len(keys), *keys, *arguments)

    async def call(self, command: str, *arguments: Argument) -> Any:
        """One command. Raises as `run` does."""
        with _in_our_words():
            return await self._call(command, *arguments)

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield the server's keys that match, each once. Raises as `run` does."""
        seen: set[bytes] = set()
        cursor = 0
        while True:
            cursor, found = await self.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            for key in found:
                if key not in seen:
                    seen.add(key)
                    yield key
            if not int(cursor):
                return

    async def wait_for(self, stream: str, after: str) -> None:
        """Return when the stream may have something behind `after`; at the latest after `BLOCK_S`."""
        command = ("XREAD", "COUNT", 1, "BLOCK", int(BLOCK_S * 1000), "STREAMS", stream, after)
        with _in_our_words():
            async with asyncio.timeout(BLOCK_S + ANSWER_S):
                await self._blocking.execute_command(*command)  # type: ignore[no-untyped-call]

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the server answers and has room, with growing pauses. Other errors pass."""
        wait = FIRST_WAIT_S
        while True:
            try:
                result = await call()
            except GroupMissingError:
                raise
            except (BusFullError, BusUnavailableError) as error:
                if not self._away:
                    log.warning("bus.unavailable", error=str(error))
                self._away = True
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                if self._away:
                    log.info("bus.available_again")
                self._away = False
                return result

    async def _call(self, command: str, *arguments: Argument) -> Any:
        async with asyncio.timeout(ANSWER_S):
            return await self._redis.execute_command(command, *arguments)  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise BusUnavailableError("The Valkey server takes too long to answer.") from error
    except RedisError as error:
        raise _translated(error) from error


def _translated(error: RedisError) -> QuickCommError:
    """In our words; without arguments, which may be what people said."""
    text = str(error)
    if (refused := _refused(error, text)) is not None:
        return refused
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in text:
        return BusFullError("The Valkey server has no memory left (maxmemory); what waits must be handled first.")
    if "NOGROUP" in text:
        return GroupMissingError("The consumer group is not registered.")
    if isinstance(error, (RedisConnectionError, RedisTimeoutError)) and not isinstance(error, ResponseError):
        return BusUnavailableError("The Valkey server does not answer; is it running?")
    return BusUnavailableError(f"The Valkey server refused: {text[:200]}")


def _refused(error: RedisError, text: str) -> BusRefusedError | None:
    if isinstance(error, NoPermissionError) or "NOPERM" in text or "ACL failure" in text:
        return BusRefusedError(f"The Valkey server does not let this user do that: {text[:200]}")
    # Over a Unix socket, redis-py says that the connection failed, and has the reason behind it.
    reason = error if isinstance(error, AuthenticationError) else error.__cause__
    if isinstance(reason, PasswordFileError):
        return BusRefusedError(str(reason))
    if isinstance(reason, AuthenticationError):
        return BusRefusedError("The Valkey server does not know this user, or its password is another one.")
    return None
