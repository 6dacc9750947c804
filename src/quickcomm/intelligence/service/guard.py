"""Watches over the model: counts what fails, opens the circuit breaker, and probes until the model is back.

Live utterances are sent only while the breaker is closed. It is a probe of our own that finds out whether the model is
back, so that no utterance ever waits for one that is down; and calls in flight are given up when the breaker opens.
Where several processes ask the same model, `Agreement` has them open and close together, and one of them probe.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal, Protocol

import msgspec
import structlog

from quickcomm.intelligence.ports import (
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
    ModelTimeoutError,
)
from quickcomm.intelligence.service.metrics import SERVED, Metrics
from quickcomm.kernel.clock import Clock

FIRST_PROBE_S: Final = 1.0
SLOWEST_PROBE_S: Final = 5.0
SLOWDOWN: Final = 1.5
MAX_RETRY_AFTER_S: Final = 30.0
SILENCE: Final = 0.9
"""Of the budget: nothing but failures for so long opens the breaker, however few they are."""
STAGE: Final = "Understanding (classify): "
"""Whoever reads an alarm looks for its stage in receipts and traces."""
_REST: Final = "; answers come from the local classifier and will be renewed."
_WORDS: Final[tuple[tuple[type[ModelError], str], ...]] = (
    (ModelTimeoutError, "The language model does not answer"),
    (ModelBusyError, "The language model is overloaded and refuses requests"),
    (ModelAnswerError, "The language model gives no usable answers"),
)

log = structlog.get_logger(__name__)


class Breaker(Protocol):
    """A circuit breaker whose half-open state is entered by `try_again` and ended by the next outcome."""

    @property
    def closed(self) -> bool: ...

    def succeeded(self) -> None: ...

    def failed(self) -> None: ...

    def trip(self) -> None: ...

    def try_again(self) -> None: ...


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """`off`: there is no model; `degraded`: there is one, but the local classifier answers. `why` is for operators."""

    state: Literal["up", "degraded", "off"]
    since_ns: int
    why: str


class Guard:
    def __init__(self, breaker: Breaker, clock: Clock, budget_s: float, metrics: Metrics = SERVED) -> None:
        self._metrics = metrics
        self.probes = True
        """Whether it is this process that finds out whether a model that was down is back."""
        self.on_change: Callable[[], None] = _nobody
        """Told when the breaker opens or closes by what happened here."""
        self._breaker = breaker
        self._clock = clock
        self._patience_s = budget_s * SILENCE
        self._good_at = -math.inf
        self._silent_since: float | None = None
        self.changed_at = -math.inf
        """When the breaker opened or closed last, on the monotonic clock."""
        self._since_ns = clock.now_ns()
        self._why = ""
        self._in_hand: set[asyncio.Timeout] = set()
        self._trouble = asyncio.Event()
        self._retry_after_s = 0.0

    @property
    def available(self) -> bool:
        return self._breaker.closed

    @property
    def well(self) -> bool:
        """Available, and the last that was heard of it was an answer."""
        return self._breaker.closed and self._silent_since is None and self._good_at > -math.inf

    @property
    def state(self) -> ModelState:
        if self.available:
            return ModelState(state="up", since_ns=self._since_ns, why="The language model answers.")
        return ModelState(state="degraded", since_ns=self._since_ns, why=self._why)

    @asynccontextmanager
    async def giving_up(self) -> AsyncIterator[None]:
        """Ends the block with `ModelError` when the breaker opens."""
        try:
            async with asyncio.timeout(None) as timeout:
                self._in_hand.add(timeout)
                try:
                    yield
                finally:
                    self._in_hand.discard(timeout)
        except TimeoutError:
            raise ModelError("The call was given up: the language model is down.") from None

    def succeeded(self) -> None:
        """A call was answered. What ends after the breaker has opened does not count: only a probe closes it."""
        if self._breaker.closed:
            self._good_at = self._clock.monotonic()
            self._silent_since = None
            self._breaker.succeeded()

    def failed(self, error: ModelError, began: float) -> None:
        """A call that began then has failed. An overloaded model lives; only if it answers nothing else is it down."""
        if not self.available:
            return
        start = max(began, self._good_at)
        self._silent_since = start if self._silent_since is None else min(start, self._silent_since)
        silent_s = self._clock.monotonic() - self._silent_since
        if isinstance(error, ModelNotAllowedError) or silent_s >= self._patience_s:
            self._breaker.trip()
        elif not isinstance(error, ModelBusyError):
            self._breaker.failed()
        if not self._breaker.closed:
            self._opened(_words(error), error.code)
            self.on_change()
        self._trouble.set()

    @property
    def stand(self) -> tuple[bool, str, int]:
        """Whether the breaker is closed, why not, and since when (ns of the wall clock)."""
        return self._breaker.closed, self._why, self._since_ns

    def agree(self, *, closed: bool, why: str, since_ns: int) -> None:
        """Another process has found out how it is."""
        if closed and not self._breaker.closed:
            self._breaker.try_again()
            self._breaker.succeeded()
            self._good_at = self._clock.monotonic()
            self._silent_since = None
            self._closed()
        elif not closed and self._breaker.closed:
            self._breaker.trip()
            self._opened(why, "agreed")
            self._trouble.set()
        self._why, self._since_ns = why, since_ns

    async def watch(
        self, probe: Callable[[], Awaitable[None]], sleep: Callable[[float], Awaitable[None]] | None = None
    ) -> None:
        """Probe at the start and while there is trouble, until cancelled: to find out that it is down, or back."""
        await self._probe(probe)
        while True:
            await self._trouble.wait()
            pause_s = FIRST_PROBE_S
            while not self.well:
                await (sleep or self._clock.sleep)(max(pause_s, self._retry_after_s))
                await self._probe(probe)
                pause_s = min(pause_s * SLOWDOWN, SLOWEST_PROBE_S)
            self._trouble.clear()

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _probe(self, probe: Callable[[], Awaitable[None]]) -> None:
        if self.well:
            return
        began = self._clock.monotonic()
        open_before = not self._breaker.closed
        if open_before and not self.probes:
            return
        if open_before:
            self._breaker.try_again()
        error = await _outcome(probe)
        self._retry_after_s = 0.0
        if isinstance(error, ModelBusyError) and error.retry_after_s is not None:
            self._retry_after_s = min(error.retry_after_s, MAX_RETRY_AFTER_S)
        if error is None:
            if open_before:
                self._breaker.succeeded()
                self._closed()
                self.on_change()
            self.succeeded()
        elif open_before:
            self._breaker.failed()
            if self._why != (why := _words(error)):
                self._why = why
                self.on_change()
        else:
            self.failed(error, began)

    def _opened(self, why: str, code: str) -> None:
        self._changed(why)
        self._silent_since = None
        self._metrics.breaker_open.set(1)
        log.warning("llm.breaker_opened", code=code, why=self._why, given_up=len(self._in_hand))
        now = asyncio.get_running_loop().time()
        for timeout in self._in_hand:
            timeout.reschedule(now)

    def _changed(self, why: str) -> None:
        self._since_ns, self._why = self._clock.now_ns(), why
        self.changed_at = self._clock.monotonic()

    def _closed(self) -> None:
        self._changed("")
        self._metrics.breaker_open.set(0)
        log.info("llm.breaker_closed")


def _nobody() -> None:
    """Where there is one process."""


async def _outcome(probe: Callable[[], Awaitable[None]]) -> ModelError | None:
    try:
        await probe()
    except ModelError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whoever watches must not fall asleep
        log.warning("llm.probe_broken", error=type(error).__name__)
        return ModelError("The probe failed.")
    return None


def _words(error: ModelError) -> str:
    if isinstance(error, ModelNotAllowedError):
        return f"{STAGE}The language model cannot be used: {error} Until then answers come from the local classifier."
    words = next((words for kind, words in _WORDS if isinstance(error, kind)), "The language model fails")
    return STAGE + words + _REST
