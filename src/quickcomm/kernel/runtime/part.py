"""A part of a process: a module, or a resource that modules share, with all that the process does for it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web

from quickcomm.contracts.link import InstanceStatus
from quickcomm.kernel.messaging.live.port import Subscription
from quickcomm.kernel.messaging.rpc.port import Answer
from quickcomm.kernel.runtime.alarms import Found
from quickcomm.kernel.telemetry import Budget

Work = Callable[[], Awaitable[None]]
"""Runs until it is cancelled."""


async def _nothing() -> None:
    """Do nothing."""


def _nothing_more() -> None:
    """Do nothing."""


async def _no_status() -> Mapping[str, Any]:
    return {}


async def _no_purge(_before_ns: int) -> None:
    """Delete nothing."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """`open` before all else, in the order of the parts; `drain` in that order; `close` after all else, in reverse."""

    name: str
    routes: Sequence[web.AbstractRouteDef] = ()
    answers: Sequence[Answer] = ()
    """Requests with their handlers, of other modules and of operators."""
    subscriptions: Sequence[Subscription] = ()
    """Live topics with their handlers."""
    work: Mapping[str, Work] = {}
    """By the name of its task."""
    open: Callable[[], Awaitable[None] | None] = _nothing
    stops: bool = False
    """Operators may stop it while the other parts go on."""
    stopping: Callable[[], None] = _nothing_more
    """Begin nothing more that can wait: called of all parts before the first is drained."""
    drain: Work = _nothing
    """Finish what was begun, and take nothing new."""
    retire: Work = _nothing
    """Note that the module goes on elsewhere, without this process: called before it is stopped for that."""
    close: Work = _nothing
    """May be called again."""
    purge: Callable[[int], Awaitable[int | None]] = _no_purge
    """Delete what is older than a time in ns; return how much was deleted, if that is known."""
    alarms: Callable[[], Iterable[Found]] = tuple
    budget: Callable[[], Budget] | None = None
    """What the stages may take, where this module knows better than the settings."""
    live_status: Callable[[], InstanceStatus] | None = None
    """How it is, published each second with the alarms of the process."""
    status: Callable[[], Awaitable[Mapping[str, Any]]] = _no_status
    """Fields of the process's row in `quickcomm status`."""
