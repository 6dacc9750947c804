"""Opens the socket, and tells what may be tried again from what will be refused every time."""

import asyncio
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.typedefs import StrOrURL

from quickcomm.client.errors import NotAllowedError, RefusedError, UnauthorizedError
from quickcomm.client.options import Patience
from quickcomm.contracts.audio_socket import CloseCode, ErrorReported
from quickcomm.kernel.errors import QuickCommError

_MAX_EVENT: Final = 16 * 1024 * 1024
_REVOKED: Final = "audio.key_revoked"
_REFUSING: Final[dict[int | None, str]] = {
    CloseCode.UNSUPPORTED: "not the kind of data that it takes",
    CloseCode.INVALID: "invalid data",
    CloseCode.TOO_BIG: "a message too big",
}
_TEMPORARY: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


class Dropped(Exception):  # noqa: N818 - no error: it happens, and is mended
    """The connection is gone or was not to be had; worth trying again, `after_s` at the earliest."""

    def __init__(self, reason: str, *, after_s: float = 0.0, planned: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.planned = planned


async def open_socket(
    session: aiohttp.ClientSession, address: StrOrURL, headers: Mapping[str, str], patience: Patience, url: str
) -> aiohttp.ClientWebSocketResponse:
    """Open it, of the server at `url`. Raises `Dropped`, or the error that the server's answer means."""
    try:
        async with asyncio.timeout(patience.connect):
            return await session.ws_connect(
                address,
                headers=headers,
                heartbeat=patience.heartbeat,
                max_msg_size=_MAX_EVENT,
                timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
            )
    except aiohttp.WSServerHandshakeError as error:
        retry_after = error.headers.get("Retry-After") if error.headers else None
        raise _answer(error.status, retry_after, url) from error
    except (aiohttp.InvalidURL, aiohttp.ClientConnectorCertificateError) as error:
        raise RefusedError(f"There is no trustworthy server at this address: {error}") from error
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise Dropped(f"no connection ({type(error).__name__})") from error


def _answer(status: int, retry_after: str | None, url: str) -> QuickCommError | Dropped:
    if status == HTTPStatus.UNAUTHORIZED:
        return UnauthorizedError(
            f"The server at {url} does not know this key (401). "
            f"Make one on its machine: quickcomm keys create --role ingest --url {url}"
        )
    if status == HTTPStatus.FORBIDDEN:
        return NotAllowedError("This key may not send audio (403). It needs the role `ingest`.")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TEMPORARY:
        return Dropped(f"the server answered {status}", after_s=_seconds(retry_after))
    return RefusedError(f"The server refused the connection with HTTP {status}; is the address right?")


def _seconds(retry_after: str | None) -> float:
    """`Retry-After` as RFC 9110 has it: seconds, or a date."""
    if retry_after is None:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    now = at.now(tz=at.tzinfo)
    return max(0.0, (at - now).total_seconds())


def closed(close_code: int | None, error: ErrorReported | None) -> QuickCommError | Dropped:
    """What a connection that closed without `ended` means."""
    if error is not None:
        return _reported(close_code, error)
    if close_code == CloseCode.POLICY:
        return NotAllowedError(
            "The server does not allow this (1008): the conversation exists, and the token is not its own."
        )
    if close_code in _REFUSING:
        return RefusedError(f"The server closed with {close_code}: {_REFUSING[close_code]}.", close_code=close_code)
    return Dropped(f"the connection broke ({close_code})")


def _reported(close_code: int | None, error: ErrorReported) -> QuickCommError | Dropped:
    if error.retryable:
        return Dropped(f"{error.message or 'the server asked to try again'} ({error.code})")
    text = f"The server refused: {error.message} ({error.code})"
    if error.code == _REVOKED:
        return UnauthorizedError(text)
    if close_code == CloseCode.POLICY:
        return NotAllowedError(text)
    return RefusedError(text, server_code=error.code, close_code=close_code)
