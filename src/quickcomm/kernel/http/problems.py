"""Errors as RFC 9457 problem documents: what every HTTP answer with a status of 400 or more looks like."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import msgspec
from aiohttp import web

from quickcomm.kernel.errors import (
    BusyError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidInputError,
    NotFoundError,
    QuickCommError,
)

MEDIA_TYPE: Final = "application/problem+json"


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`code` is stable and for programs; `detail` is for people and says what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    retryable: bool = False


class UnauthorizedError(QuickCommError):
    """Nobody knows who is asking."""

    code = "unauthorized"


class TooManyRequestsError(QuickCommError):
    code = "too_many_requests"
    retryable = True

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


_STATUS: Final[tuple[tuple[type[QuickCommError], int], ...]] = (
    (InvalidInputError, 400),
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (GoneError, 410),
    (TooManyRequestsError, 429),
    (BusyError, 503),
)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str | None = None,
    headers: dict[str, str] | None = None,
    members: Mapping[str, object] = MappingProxyType({}),
) -> web.Response:
    """Return the answer; `members` are added to the document."""
    document = Problem(
        type=f"urn:quickcomm:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        instance=instance,
        retryable=status in (429, 503),
    )
    body = msgspec.json.encode({**members, **msgspec.to_builtins(document)})
    return web.Response(status=status, body=body, content_type=MEDIA_TYPE, headers=headers or {})


def error_of(document: bytes) -> QuickCommError:
    """Return the error that a problem document is about: with its code and members, and the base class of its status.

    Raises `ValueError` where it is none.
    """
    found = msgspec.json.decode(document, type=Problem)
    kind = next((kind for kind, status in _STATUS if status == found.status), QuickCommError)
    error = kind(found.detail)
    error.code, error.retryable = found.code, found.retryable
    known = frozenset(Problem.__struct_fields__)
    more: dict[str, object] = msgspec.json.decode(document)
    error.members = {name: value for name, value in more.items() if name not in known}
    return error


def status_of(error: QuickCommError) -> int:
    """Return the HTTP status of an error that was raised on purpose."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503 if error.retryable else 500)


def problem_of(error: QuickCommError, instance: str | None = None) -> web.Response:
    """The answer to an error that was raised on purpose. Anything unforeseen is a plain 500 with nothing inside."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = 'Bearer realm="quickcomm"'
    elif isinstance(error, TooManyRequestsError):
        headers["Retry-After"] = str(error.retry_after_s)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    detail = (
        error.for_clients() if status < HTTPStatus.INTERNAL_SERVER_ERROR or error.retryable else "Something went wrong."
    )
    return problem(status, error.code, detail, instance=instance, headers=headers, members=error.members)
