"""The client of an ingest, once it is authenticated."""

from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated client."""

    site: str
    key_id: str
    still_valid: Callable[[], Awaitable[bool]]
    """Ask again: a stream lives longer than many a key."""


Authenticate = Callable[[web.Request], Awaitable[Caller]]
"""Check a request's API key. Raises an aiohttp HTTP error where it may not send audio."""
