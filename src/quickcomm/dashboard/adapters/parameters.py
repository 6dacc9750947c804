"""What comes in with a request, checked and bounded: anything else is a 400 that names the parameter."""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from quickcomm.contracts.erasing import Wanted
from quickcomm.dashboard.model.places import After, Cursor
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import MALFORMED, InvalidInputError

S = TypeVar("S", bound=str)
T = TypeVar("T")
MAX_TEXT: Final = 200
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
"""Zero bytes, and what a byte that is no UTF-8 becomes in an address."""
MAX_INTEGER: Final = 2**62
MAX_CHANGE: Final = 2**53
AFTER: Final = "^(?:[A-Za-z0-9_-]{1,40}:)?[0-9]{1,16}(?:[.][0-9]{1,9})?$"
"""`SIDE:CHANGE`, `SIDE:CHANGE.INDEX`, or a plain number of this side."""
BODY_WITHIN_S: Final = 10.0
"""A body is a line of JSON; whoever sends it drop by drop only wants to keep us waiting."""
MAX_TIME_NS: Final = 2**63 - 1


def check_names(query: Mapping[str, str], known: frozenset[str]) -> None:
    """A parameter with a typing error must not silently select everything."""
    unknown = sorted(set(query) - known)
    if unknown:
        raise InvalidInputError(
            f"There is no parameter {unknown[0][:MAX_TEXT]!r} here; known: {', '.join(sorted(known))}."
        )


def text(query: Mapping[str, str], name: str, limit: int = MAX_TEXT) -> str | None:
    """None where it is missing or empty."""
    value = query.get(name)
    if value is not None and len(value) > limit:
        raise InvalidInputError(f"`{name}` has more than {limit} characters.")
    if value is not None and _NO_TEXT.search(value):
        raise InvalidInputError(f"`{name}` contains what is no text.")
    return value or None


def integer(query: Mapping[str, str], name: str, *, low: int, high: int) -> int | None:
    value = query.get(name)
    if value is None or value == "":
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and low <= int(value) <= high):  # noqa: PLR2004 - digits of 2**63
        raise InvalidInputError(f"`{name}` must be a whole number from {low} to {high}.")
    return int(value)


def choice(query: Mapping[str, str], name: str, values: tuple[S, ...]) -> S | None:
    asked = query.get(name) or None
    if asked is None:
        return None
    for value in values:
        if value == asked:
            return value
    raise InvalidInputError(f"`{name}` must be one of {', '.join(values)}.")


def time_ns(query: Mapping[str, str], name: str) -> int | None:
    """RFC 3339; nanoseconds since the epoch."""
    value = text(query, name, 40)
    if value is None:
        return None
    try:
        # A "+" that was not URL-encoded arrives as a space.
        moment = datetime.fromisoformat(value.replace(" ", "+") if "T" in value else value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInputError(f"`{name}` must be an RFC 3339 time with its zone, like 2026-05-09T07:35:00Z.")
    ns = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000) * 10**6
    return max(-MAX_TIME_NS, min(ns, MAX_TIME_NS))  # beyond what the store can hold there is nothing


def cursor_text(cursor: Cursor | None) -> str | None:
    if cursor is None:
        return None
    place = f"{cursor.side or ''}:{cursor.time_ns}.{cursor.row}".removeprefix(":")
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def cursor(query: Mapping[str, str]) -> Cursor | None:
    value = text(query, "cursor")
    if value is None:
        return None
    try:
        place = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode("ascii")
        side, _, numbers = place.rpartition(":")
        time, _, row = numbers.partition(".")
        found = Cursor(side=side or None, time_ns=int(time), row=int(row))
    except (binascii.Error, ValueError):
        found = Cursor(time_ns=-1, row=0)
    if not (0 <= found.time_ns <= MAX_INTEGER and abs(found.row) <= MAX_INTEGER):
        raise InvalidInputError("`cursor` must be the `next_cursor` of an earlier answer.")
    return found


def after(query: Mapping[str, str]) -> After | None:
    value = text(query, "after")
    if value is None:
        return None
    side, _, numbers = value.rpartition(":")
    change, _, index = numbers.partition(".")
    if not re.fullmatch(AFTER, value) or int(change) > MAX_CHANGE:
        raise InvalidInputError(
            "`after` must be the `next_after` of an earlier answer; 0 begins with the first change."
        )
    return After(side=side or None, change=int(change), index=int(index) if index else None)


def wanted(site: str, given: Mapping[str, str], clock: Clock) -> Wanted:
    """Return what is to be erased: one of `conversation`, `name`, and `since` with `until`, which is now if missing."""
    since_ns, until_ns = time_ns(given, "since"), time_ns(given, "until")
    has_time = since_ns is not None or until_ns is not None
    name = (text(given, "name") or "").strip()
    found = Wanted(
        site=site,
        conversation=text(given, "conversation") or "",
        name=name,
        since_ns=since_ns or 0,
        until_ns=until_ns or 0 if until_ns is not None or not has_time else clock.now_ns(),
    )
    kinds = [bool(found.conversation), given.get("name") is not None, has_time]
    if kinds.count(True) != 1 or (given.get("name") is not None and not re.search(r"\w", name)):
        raise InvalidInputError("Give one of the three: `conversation`, `name`, or `since` with `until`.")
    if has_time and (since_ns is None or not found.is_one):
        raise InvalidInputError("`since` must be a time before `until`, which is now where it is not given.")
    return found


async def body(request: web.Request, kind: type[T], clock: Clock, default: T | None = None) -> T:
    """Return the JSON body as `kind`; `default` where there is none."""
    try:
        async with clock.timeout(BODY_WITHIN_S):
            data = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    if not data and default is not None:
        return default
    if request.content_type != "application/json":
        raise InvalidInputError("The body must be JSON, with Content-Type: application/json.")
    try:
        return msgspec.json.decode(data, type=kind)
    except MALFORMED as error:
        raise InvalidInputError(f"The body is not as expected: {error}") from error
