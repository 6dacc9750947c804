"""Delivers the notice of a dispatch: signed, tried again with back-off, until the receiver takes or refuses it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec
import structlog
from prometheus_client import Counter

from quickcomm.contracts.dispatching import Delivered, DescribeTask, SendNotice, TaskNotice
from quickcomm.kernel.clock import Clock
from quickcomm.kernel.errors import ConflictError, QuickCommError
from quickcomm.kernel.messaging.rpc import Answer, Rpc
from quickcomm.operations.declaration import OperationsSettings
from quickcomm.operations.signing import secret_of, signed

KIND: Final = "task.dispatched"
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
LONGEST_ASKED_S: Final = 120.0
"""A receiver that asks for a longer wait is tried again after so long."""
TAKEN: Final = range(200, 300)
REFUSED: Final = frozenset(range(400, 500)) - {408, 425, 429}
"""For good; all other answers are tried again."""
NS: Final = 10**9
ATTEMPTS = Counter("quickcomm_notice_attempts_total", "Attempts to deliver a notice to the webhook", ["outcome"])

log = structlog.get_logger(__name__)


class NoWebhookError(ConflictError):
    code = "operations.no_webhook"

    def __init__(self) -> None:
        super().__init__(
            "Tasks are dispatched through a webhook, and none is set. Set `operations.webhook_url` and "
            "`operations.webhook_secret`, then start again. See docs/dispatch.md."
        )


class UndeliveredError(ConflictError):
    """The receiver has refused the notice, or has not taken it in time: it is not tried again."""

    code = "operations.undelivered"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver answered. `wait_s`: how long it asks to wait before the next attempt."""

    status: int
    wait_s: float = 0.0


class Post(Protocol):
    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answered:
        """Send a request. Raises `UnavailableError` where no answer came."""
        ...


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the request. `timestamp`: of this attempt, RFC 3339 UTC."""

    type: str
    timestamp: str
    data: TaskNotice


class Notices:
    def __init__(self, rpc: Rpc, post: Post, settings: OperationsSettings, clock: Clock) -> None:
        self._rpc = rpc
        self._post = post
        self._settings = settings
        self._clock = clock

    def answers(self) -> list[Answer]:
        """Return what the executor asks in its own process."""
        return [(SendNotice, self.send)]

    def check(self) -> None:
        """Raise `NoWebhookError` where no receiver is set."""
        if not self._settings.webhook_url:
            raise NoWebhookError

    async def send(self, request: SendNotice) -> Delivered:
        """Return once the receiver has taken the notice.

        Raises `NoWebhookError`, `UndeliveredError`, and what the dashboard raises where the task was changed.
        """
        self.check()
        within_s = self._settings.webhook_within_s
        until_s = self._clock.monotonic() + within_s
        wait_s, attempts = FIRST_WAIT_S, 0
        while True:
            attempts += 1
            try:
                answered = await self._attempt(request)
            except QuickCommError as error:
                if not error.retryable:
                    raise
                why, asked_s = str(error), 0.0
            else:
                if answered.status in TAKEN:
                    log.info("notice.delivered", notice_id=request.key, status=answered.status, attempts=attempts)
                    return Delivered(status=answered.status, attempts=attempts, at_ns=self._clock.now_ns())
                why, asked_s = f"The receiver answered {answered.status}.", min(answered.wait_s, LONGEST_ASKED_S)
                if answered.status in REFUSED:
                    raise UndeliveredError(f"{why} The notice is not sent again. It was attempt {attempts}.")
            next_s = max(wait_s, asked_s)
            if self._clock.monotonic() + next_s > until_s:
                raise UndeliveredError(f"Not delivered within {within_s:g} s, attempts: {attempts}. The last: {why}")
            log.info("notice.postponed", notice_id=request.key, attempts=attempts, wait_s=next_s, error=why[:200])
            await self._clock.sleep(next_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _attempt(self, request: SendNotice) -> Answered:
        """Ask what the task is now, and send that."""
        settings = self._settings
        task = await self._rpc.call(DescribeTask(site=request.site, task_id=request.task_id, reserved=request.reserved))
        now_ns = self._clock.now_ns()
        body = msgspec.json.encode(Notice(type=KIND, timestamp=_rfc3339(now_ns), data=task))
        headers = signed(secret_of(settings.webhook_secret), request.key, now_ns // NS, body)
        outcome = "unreachable"
        try:
            answered = await self._post(settings.webhook_url, body, headers, settings.webhook_timeout_s)
            outcome = f"{answered.status // 100}xx"
        finally:
            ATTEMPTS.labels(outcome).inc()
        return answered


def _rfc3339(ns: int) -> str:
    return datetime.fromtimestamp(ns / NS, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
