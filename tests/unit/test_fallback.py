"""Whatever the model does, every utterance is answered; who answers, and why, is told in words."""

import asyncio
from typing import Self

import pytest
from tests.support.intelligence import Desk, heard

from quickcomm.contracts.insight import Insight
from quickcomm.intelligence.ports import (
    ModelAnswerError,
    ModelBusyError,
    ModelError,
    ModelNotAllowedError,
    ModelTimeoutError,
)
from quickcomm.intelligence.service.fallback import ENOUGH, OPINIONS, RECENT_S
from quickcomm.intelligence.service.guard import SLOWEST_PROBE_S
from quickcomm.kernel.clock import FakeClock


def who(answers: list[tuple[Insight, ...]]) -> list[tuple[str, bool]]:
    return [(found.summary, found.degraded) for [found] in answers]


def up(desk: Desk) -> bool:
    return desk.fallback.available


async def say(desk: Desk, *texts: str) -> list[tuple[str, bool]]:
    return who(await desk.fallback.classify([heard(text, number) for number, text in enumerate(texts)]))


class Probing:
    """The guard's watch, one pause at a time; the clock goes on with each."""

    def __init__(self, desk: Desk, clock: FakeClock) -> None:
        self.pauses: list[float] = []
        self._desk, self._clock = desk, clock
        self._may = asyncio.Semaphore(0)
        self._asleep = asyncio.Event()

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._asleep.set()
        await self._may.acquire()
        self._clock.advance(seconds)

    async def __aenter__(self) -> Self:
        self._desk.guard.succeeded()  # the probe at the start
        self._task = asyncio.ensure_future(self._desk.guard.watch(self._desk.llm.probe, self._sleep))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task

    async def once(self) -> None:
        """Let one pause pass, and wait until what follows is over."""
        async with asyncio.timeout(20):
            await self._asleep.wait()
            self._asleep.clear()
            before = len(self.pauses)
            self._may.release()
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(self.pauses) <= before + 1


async def test_the_model_answers_where_it_can() -> None:
    desk = Desk()
    assert await say(desk, "fix the lamp", "fix the door") == [("fix the lamp", False), ("fix the door", False)]
    assert desk.fallback.model == "scripted"
    assert desk.fallback.state.state == "up"


async def test_the_local_classifier_where_it_cannot() -> None:
    desk = Desk()
    desk.model.failures = [ModelError("500"), ModelError("500")]
    assert await say(desk, "fix the lamp") == [("Local: fix the lamp", True)]
    assert desk.fallback.state.state == "up", "two failures are no outage"


async def test_whatever_is_raised_the_utterance_is_answered() -> None:
    desk = Desk()
    desk.model.failures = [ValueError("a fault of ours")]
    assert await say(desk, "fix the lamp", "fix the lamp") == [("Local: fix the lamp", True), ("fix the lamp", False)]


async def test_nothing_said_needs_no_model() -> None:
    desk = Desk()
    assert await say(desk, " ") == [("Local:  ", False)]
    assert desk.model.requests == []


async def test_failures_in_a_row_open_the_breaker_and_then_nobody_waits() -> None:
    desk = Desk()
    desk.model.down = ModelError("500")
    await say(desk, *(f"lamp {number}" for number in range(10)))
    assert not up(desk)
    before = len(desk.model.requests)
    assert await say(desk, "fix the door") == [("Local: fix the door", True)]
    assert len(desk.model.requests) == before
    assert desk.fallback.model == "local-1"


async def test_a_lone_call_that_hangs_for_its_whole_budget_opens_it() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    desk.model.gate.clear()
    call = asyncio.ensure_future(say(desk, "fix the lamp"))
    await desk.model.asked(1)
    clock.advance(3)
    desk.model.down = ModelTimeoutError("too late")
    desk.model.gate.set()
    assert await call == [("Local: fix the lamp", True)]
    assert not up(desk)
    assert desk.fallback.state.why == (
        "Understanding (classify): The language model does not answer; answers come from the local classifier "
        "and will be renewed."
    )


async def test_a_slow_one_among_others_that_are_answered_does_not() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    desk.model.gate.clear()
    call = asyncio.ensure_future(say(desk, "fix the lamp"))
    await desk.model.asked(1)
    clock.advance(2.5)
    desk.guard.succeeded()
    clock.advance(0.5)
    desk.model.failures = [ModelTimeoutError("too late")]
    desk.model.gate.set()
    assert await call == [("Local: fix the lamp", True)]
    assert up(desk)


async def test_calls_in_flight_are_given_up_when_it_opens() -> None:
    desk = Desk()
    desk.model.gate.clear()
    hung = asyncio.ensure_future(say(desk, "fix the lamp", "fix the door"))
    await desk.model.asked(2)
    desk.guard.failed(ModelNotAllowedError("The key is refused."), desk.clock.monotonic())
    assert await hung == [("Local: fix the lamp", True), ("Local: fix the door", True)]
    assert desk.limiter._in_flight == 0


async def test_an_overloaded_model_lives_unless_it_answers_nothing_else() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    for _ in range(20):
        desk.guard.failed(ModelBusyError("429"), clock.monotonic())
    assert up(desk)
    clock.advance(3)
    desk.guard.failed(ModelBusyError("429"), clock.monotonic())
    assert not up(desk)
    assert "overloaded" in desk.fallback.state.why


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelError("500"), "Understanding (classify): The language model fails; "),
        (ModelAnswerError("cut"), "gives no usable answers; "),
        (ModelNotAllowedError("The key is refused."), "cannot be used: The key is refused."),
    ],
)
async def test_why_it_is_away_is_told(error: ModelError, words: str) -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    clock.advance(7)
    for _ in range(5):
        desk.guard.failed(error, clock.monotonic())
    state = desk.fallback.state
    assert (state.state, state.since_ns) == ("degraded", clock.now_ns())
    assert words in state.why


async def test_probes_find_out_that_it_is_back_and_no_utterance_does() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    async with Probing(desk, clock) as probing:
        desk.model.down = ModelError("500")
        desk.guard.failed(ModelNotAllowedError("no"), clock.monotonic())
        for _ in range(8):
            await probing.once()
            assert not up(desk)
        assert probing.pauses[:3] == [1.0, 1.5, 2.25]
        assert max(probing.pauses) == SLOWEST_PROBE_S
        desk.model.down = None
        await probing.once()
        assert up(desk)
        assert desk.fallback.state.state == "up"
        assert await say(desk, "fix the lamp") == [("fix the lamp", False)]


async def test_a_single_failure_is_looked_into_without_waiting_for_the_next_utterance() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    async with Probing(desk, clock) as probing:
        desk.model.down = ModelError("refused")
        desk.guard.failed(desk.model.down, clock.monotonic())
        await probing.once()
        assert up(desk)
        await probing.once()
        await probing.once()
        assert not up(desk), "nothing but failures for the length of a budget"
        assert sum(probing.pauses[:3]) <= 5.0


async def test_a_single_failure_that_was_one_is_forgotten() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    async with Probing(desk, clock) as probing:
        desk.guard.failed(ModelError("500"), clock.monotonic())
        await probing.once()
        clock.advance(60)
        desk.guard.failed(ModelError("500"), clock.monotonic())
        assert up(desk)


async def test_probes_wait_as_long_as_they_are_told() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    async with Probing(desk, clock) as probing:
        desk.guard.failed(ModelNotAllowedError("no"), clock.monotonic())
        desk.model.down = ModelBusyError("429", 20.0)
        await probing.once()
        await probing.once()
        assert probing.pauses[1] == 20.0


async def test_what_ends_after_it_has_opened_does_not_close_it() -> None:
    desk = Desk()
    desk.guard.failed(ModelNotAllowedError("no"), desk.clock.monotonic())
    desk.guard.succeeded()
    desk.guard.failed(ModelError("late"), 0.0)
    assert not desk.guard.available


async def test_what_the_cache_knows_needs_no_model_that_lives() -> None:
    desk = Desk()
    await say(desk, "fix the lamp")
    desk.guard.failed(ModelNotAllowedError("no"), desk.clock.monotonic())
    assert await say(desk, "fix the lamp", "fix the door") == [("fix the lamp", False), ("Local: fix the door", True)]


async def test_a_budget_that_is_used_up_degrades_and_says_so() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    desk.bill.exhausted = True
    assert await say(desk, "fix the lamp") == [("Local: fix the lamp", True)]
    assert desk.model.requests == []
    state = desk.fallback.state
    clock.advance(5)
    assert desk.fallback.state == state, "since when it was first seen"
    assert "budget" in state.why
    desk.bill.exhausted = False
    assert await say(desk, "fix the lamp") == [("fix the lamp", False)]
    assert desk.fallback.state.state == "up"


async def test_the_local_classifier_is_asked_once_for_what_is_said_again() -> None:
    desk = Desk()
    await say(desk, "fix the lamp", "fix the door", "fix the lamp")
    await say(desk, "fix the door")
    assert sorted(desk.local.calls) == [["fix the door"], ["fix the lamp"]]
    for start in range(0, OPINIONS + 10, 512):
        await desk.fallback.opinions([heard(f"lamp {number}") for number in range(start, start + 512)])
    assert len(desk.fallback._opinions) == OPINIONS


async def test_at_the_start_the_model_is_looked_at_before_anybody_speaks() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    desk.model.down = ModelNotAllowedError("The key is refused.")
    watching = asyncio.ensure_future(desk.guard.watch(desk.llm.probe))
    await desk.model.asked(1)
    await asyncio.sleep(0)
    assert not up(desk)
    assert "The key is refused." in desk.fallback.state.why
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_a_probe_that_breaks_in_an_unknown_way_is_a_failed_one() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    async with Probing(desk, clock) as probing:
        desk.guard.failed(ModelNotAllowedError("no"), clock.monotonic())
        desk.model.failures = [ValueError("a fault of ours")]
        await probing.once()
        assert not up(desk)
        await probing.once()
        assert up(desk)


async def test_a_model_that_cannot_keep_up_is_told_while_it_lasts() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    await say(desk, *(f"lamp {number}" for number in range(ENOUGH)))
    assert desk.fallback.state.state == "up"
    await say(desk, *["nonsense"] * ENOUGH)
    assert desk.fallback.state.state == "up", "half is not most"
    await say(desk, "nonsense")
    state = desk.fallback.state
    assert (state.state, state.since_ns) == ("degraded", clock.now_ns())
    assert "too slow" in state.why
    assert up(desk), "it is asked all the same"
    clock.advance(RECENT_S + 1)
    assert desk.fallback.state.state == "up"


async def test_an_outage_is_not_held_against_it_afterwards() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    async with Probing(desk, clock) as probing:
        desk.guard.failed(ModelNotAllowedError("no"), clock.monotonic())
        await say(desk, *(f"lamp {number}" for number in range(2 * ENOUGH)))
        await probing.once()
        assert desk.fallback.state.state == "up"
