"""The circuit breaker: pybreaker, told of outcomes by the guard, which also decides when to try again."""

from typing import Final, NoReturn

import pybreaker

from quickcomm.intelligence.ports import ModelError

FAILURES: Final = 5
"""Failures in a row, with no success between them, that open it."""
_NEVER_S: Final = 10**9
"""It does not half-open by the clock: probes do that."""


class CircuitBreaker:
    """A `Breaker`."""

    def __init__(self) -> None:
        self._breaker = pybreaker.CircuitBreaker(fail_max=FAILURES, reset_timeout=_NEVER_S, name="llm")

    @property
    def closed(self) -> bool:
        return self._breaker.current_state == pybreaker.STATE_CLOSED

    def succeeded(self) -> None:
        self._breaker.call(_nothing)

    def failed(self) -> None:
        try:
            self._breaker.call(_fail)
        except (ModelError, pybreaker.CircuitBreakerError):
            return

    def trip(self) -> None:
        self._breaker.open()

    def try_again(self) -> None:
        self._breaker.half_open()


def _nothing() -> None:
    """How the library is told of a success."""


def _fail() -> NoReturn:
    raise ModelError("As the library is told of a failure.")
