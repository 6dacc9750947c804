"""How many calls at once: learnt from latency and refusals, within bounds; places in order, live before spare."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.intelligence.model.concurrency import BACKOFF, Limit
from quickcomm.intelligence.service.limiter import Limiter, NoPlaceError
from quickcomm.kernel.clock import FakeClock, SystemClock

bounds = st.tuples(st.integers(1, 20), st.integers(0, 200)).map(lambda pair: (pair[0], sum(pair)))
events = st.lists(
    st.one_of(
        st.tuples(st.just("answered"), st.floats(0.0, 100.0), st.integers(0, 300)),
        st.tuples(st.just("refused"), st.floats(0.0, 1000.0), st.just(0)),
    ),
    max_size=200,
)


@given(bounds=bounds, initial=st.integers(0, 500), events=events)
def test_the_limit_stays_within_its_bounds(
    bounds: tuple[int, int], initial: int, events: list[tuple[str, float, int]]
) -> None:
    low, high = bounds
    limit = Limit(low, high, initial)
    for kind, number, in_flight in events:
        before = limit.value
        if kind == "answered":
            limit.answered(number, in_flight)
        else:
            limit.refused(number)
            assert limit.value <= before, "a refusal is no reason for more"
        assert low <= limit.value <= high


@given(seconds=st.floats(0.001, 10.0), high=st.integers(4, 200))
def test_steady_latency_in_full_use_leads_to_the_highest(seconds: float, high: int) -> None:
    limit = Limit(1, high, 2)
    for _ in range(2_000):
        limit.answered(seconds, limit.value)
    assert limit.value == high


@given(seconds=st.floats(0.001, 10.0), in_flight=st.integers(0, 4))
def test_what_is_not_used_is_not_widened(seconds: float, in_flight: int) -> None:
    limit = Limit(1, 100, 10)
    for _ in range(100):
        limit.answered(seconds, in_flight)
    assert limit.value == 10


@given(factor=st.floats(4.0, 20.0))
def test_latency_that_rises_narrows_it(factor: float) -> None:
    limit = Limit(1, 100, 50)
    for _ in range(300):
        limit.answered(0.5, 25)
    before = limit.value
    for _ in range(20):
        limit.answered(0.5 * factor, before)
    assert limit.value < before


def test_refusals_of_one_moment_count_once() -> None:
    limit = Limit(1, 100, 40)
    limit.answered(1.0, 1)
    for _ in range(10):
        limit.refused(100.0)
    assert limit.value == int(40 * BACKOFF)
    limit.refused(101.5)
    assert limit.value == int(40 * BACKOFF * BACKOFF)


class Caller:
    """Takes a place and keeps it until told."""

    def __init__(self, limiter: Limiter, log: list[str], name: str, *, spare: bool = False) -> None:
        self.leave = asyncio.Event()
        self.name = name
        self._limiter, self._log, self._spare = limiter, log, spare

    async def run(self) -> None:
        async with self._limiter.place(asyncio.get_running_loop().time() + 1e6, spare=self._spare):
            self._log.append(self.name)
            await self.leave.wait()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_places_go_round_in_order_and_live_ones_first() -> None:
    log: list[str] = []
    limiter = Limiter(Limit(2, 2, 2), SystemClock())
    names = ["s1", "s2", "s3", "a", "b", "c"]
    callers = {name: Caller(limiter, log, name, spare=name.startswith("s")) for name in names}
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(callers[name].run())
            await settle()
        assert log == ["s1", "a"], "spare ones do not take all"
        callers["s1"].leave.set()
        await settle()
        assert log == ["s1", "a", "b"]
        callers["a"].leave.set()
        await settle()
        assert log == ["s1", "a", "b", "c"], "live ones first"
        for caller in callers.values():
            caller.leave.set()
    assert log == ["s1", "a", "b", "c", "s2", "s3"]
    assert (limiter._in_flight, limiter._spare_in_flight) == (0, 0)


async def test_who_waits_in_vain_is_told_and_takes_nothing_with_him() -> None:
    limiter = Limiter(Limit(1, 1, 1), SystemClock())
    holder = Caller(limiter, [], "holder")
    task = asyncio.ensure_future(holder.run())
    await settle()
    with pytest.raises(NoPlaceError):
        async with limiter.place(SystemClock().monotonic() + 0.01):
            raise AssertionError
    waiting = asyncio.ensure_future(Caller(limiter, [], "cancelled").run())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    holder.leave.set()
    await task
    async with limiter.place(SystemClock().monotonic() + 10):
        assert limiter._in_flight == 1
    assert limiter._in_flight == 0


async def test_who_is_cancelled_with_a_place_just_given_hands_it_on() -> None:
    limiter, log = Limiter(Limit(1, 1, 1), SystemClock()), list[str]()
    first, second, third = (Caller(limiter, log, name) for name in "abc")
    tasks = [asyncio.ensure_future(caller.run()) for caller in (first, second, third)]
    await settle()
    first.leave.set()
    await asyncio.sleep(0)  # now the second has a place, and does not know it yet
    tasks[1].cancel()
    third.leave.set()
    await asyncio.wait(tasks)
    assert log == ["a", "c"]
    assert limiter._in_flight == 0


async def test_who_gives_up_in_the_moment_a_place_comes_free_is_passed_over() -> None:
    limiter, log = Limiter(Limit(1, 1, 1), SystemClock()), list[str]()
    first, second, third = (Caller(limiter, log, name) for name in "abc")
    tasks = [asyncio.ensure_future(caller.run()) for caller in (first, second, third)]
    await settle()
    third.leave.set()
    first.leave.set()
    tasks[1].cancel()
    await asyncio.wait(tasks)
    with pytest.raises(asyncio.CancelledError):
        tasks[1].result()
    assert log == ["a", "c"]
    assert limiter._in_flight == 0


async def test_where_the_queue_is_too_long_nobody_joins_it() -> None:
    clock = FakeClock()
    limiter = Limiter(Limit(1, 1, 1), clock)
    limiter.answered(2.0)
    async with limiter.place(clock.monotonic() + 3):
        with pytest.raises(NoPlaceError, match="more to do"):
            async with limiter.place(clock.monotonic() + 3):
                raise AssertionError


async def test_a_pause_that_is_asked_for_is_kept() -> None:
    clock = FakeClock()
    limiter = Limiter(Limit(1, 8, 8), clock)
    limiter.refused(5.0)
    with pytest.raises(NoPlaceError, match="pause"):
        async with limiter.place(clock.monotonic() + 3):
            raise AssertionError
    clock.advance(5)
    async with limiter.place(clock.monotonic() + 3):
        assert limiter.limit == 6
