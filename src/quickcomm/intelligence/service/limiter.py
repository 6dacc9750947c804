"""Places for calls to the model: as many as it takes, live utterances first. Who is too late is told at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from quickcomm.intelligence.model.concurrency import Limit
from quickcomm.intelligence.ports import ModelBusyError
from quickcomm.intelligence.service.metrics import SERVED, Metrics
from quickcomm.kernel.clock import Clock

MIN_PAUSE_S: Final = 0.2
MAX_PAUSE_S: Final = 60.0
_Waiters = deque[asyncio.Future[None]]


class NoPlaceError(ModelBusyError):
    """There is no place for the call before its deadline. Says nothing about the model."""

    code = "intelligence.no_place"


class Limiter:
    def __init__(self, limit: Limit, clock: Clock, metrics: Metrics = SERVED) -> None:
        self._metrics = metrics
        self._limit = limit
        self._clock = clock
        self._in_flight = 0
        self._spare_in_flight = 0
        self._waiting: _Waiters = deque()
        self._spare: _Waiters = deque()
        self._paused_until = 0.0
        self._metrics.concurrency_limit.set(limit.value)

    @property
    def limit(self) -> int:
        return self._limit.value

    @property
    def latency(self) -> float:
        return self._limit.latency

    @asynccontextmanager
    async def place(self, deadline: float, *, spare: bool = False) -> AsyncIterator[None]:
        """One call's place, until the block ends; `deadline` on the monotonic clock.

        `spare`: only what live utterances leave, and no more than three quarters of all places. Raises `NoPlaceError`.
        """
        await self._acquire(deadline, spare=spare)
        try:
            yield
        finally:
            self._leave(spare=spare)

    def answered(self, seconds: float) -> None:
        self._limit.answered(seconds, self._in_flight)
        self._metrics.concurrency_limit.set(self._limit.value)

    def refused(self, retry_after_s: float | None = None) -> None:
        """Take the endpoint at its word: nothing is sent before `retry_after_s` is over."""
        now = self._clock.monotonic()
        self._limit.refused(now)
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + min(max(retry_after_s, MIN_PAUSE_S), MAX_PAUSE_S))
        self._metrics.concurrency_limit.set(self._limit.value)

    async def _acquire(self, deadline: float, *, spare: bool) -> None:
        await self._sit_out_pause(deadline)
        if self._free(spare=spare) and not self._waiting:
            self._take(spare=spare)
            return
        left = deadline - self._clock.monotonic()
        if not spare and self._expected_wait() > left:
            raise NoPlaceError("The language model has more to do than it can answer in time.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._spare if spare else self._waiting
        queue.append(turn)
        try:
            async with asyncio.timeout(max(0.0, left)):
                await turn
        except BaseException as error:
            if turn.cancelled():
                with suppress(ValueError):  # `_leave` has passed over it
                    queue.remove(turn)
            else:  # it was given a place in the very moment
                self._leave(spare=spare)
            if isinstance(error, TimeoutError):
                raise NoPlaceError("No place for a call to the language model came free in time.") from None
            raise

    async def _sit_out_pause(self, deadline: float) -> None:
        while (pause := self._paused_until - (now := self._clock.monotonic())) > 0:
            if now + pause + self._limit.latency > deadline:
                raise NoPlaceError("The language model asked for a pause that is longer than the time there is.")
            await asyncio.sleep(pause)

    def _expected_wait(self) -> float:
        """Until an answer, for who joins the queue now."""
        return self._limit.latency * (1 + (len(self._waiting) + 1) / self._limit.value)

    def _free(self, *, spare: bool) -> bool:
        limit = self._limit.value
        if spare and (self._waiting or self._spare_in_flight >= max(1, limit * 3 // 4)):
            return False
        return self._in_flight < limit

    def _take(self, *, spare: bool) -> None:
        self._in_flight += 1
        self._spare_in_flight += spare
        self._metrics.in_flight.set(self._in_flight)

    def _leave(self, *, spare: bool) -> None:
        self._in_flight -= 1
        self._spare_in_flight -= spare
        self._metrics.in_flight.set(self._in_flight)
        for queue, waits_as_spare in ((self._waiting, False), (self._spare, True)):
            while queue and self._free(spare=waits_as_spare):
                turn = queue.popleft()
                if not turn.done():
                    self._take(spare=waits_as_spare)
                    turn.set_result(None)
