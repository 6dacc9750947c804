"""Sends a request to the receiver of notices: one attempt, no redirects, and of the answer only status and headers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from quickcomm import __version__
from quickcomm.kernel.errors import UnavailableError
from quickcomm.operations.service.notices import Answered

AGENT: Final = f"QuickComm/{__version__}"


class UnreachableError(UnavailableError):
    """No answer came. The text does not name the address: it may have a secret in it."""

    code = "operations.webhook_unreachable"


async def post(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answered:
    """Implements `Post`."""
    sent = {"Content-Type": "application/json", "User-Agent": AGENT, **headers}
    limit = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as client,
            client.post(url, data=body, headers=sent, allow_redirects=False) as answer,
        ):
            return Answered(status=answer.status, wait_s=wait_asked(answer.headers.get("Retry-After", "")))
    except TimeoutError as error:
        raise UnreachableError(f"The receiver did not answer within {timeout_s:g} s.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UnreachableError(f"The receiver could not be reached ({type(error).__name__}).") from None


def wait_asked(retry_after: str) -> float:
    """Return the seconds of a `Retry-After`, which has a number or a date; 0 where it has neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        at = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError):
        return 0.0
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)
