"""Whose turn it is at the engine."""

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hearing import Talk

from quickcomm.audio.ports import Clip, Transcript, length_step
from quickcomm.audio.service.turns import LATE_AFTER_S, LATE_TURN, OLDEST_TURN, Job, Turns

LATER = LATE_AFTER_S + 1
BATCH = 4


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def job(loop: asyncio.AbstractEventLoop, seconds: float, line: Talk, at: float = 0.0) -> Job:
    future: asyncio.Future[Transcript] = loop.create_future()
    return Job(Clip(samples=np.zeros(1, np.int16)), seconds, at, future, line)


def drained(turns: Turns, most: int, now: float) -> list[list[float]]:
    batches = []
    while turns:
        batches.append([job.seconds for job in turns.next_batch(most, now)])
    return batches


def test_the_line_with_the_least_to_catch_up_goes_first(loop: asyncio.AbstractEventLoop) -> None:
    turns, far, near = Turns(), Talk(), Talk()
    for seconds, line in ((10, far), (11, far), (20, near)):
        turns.add(job(loop, seconds, line), 0.0)
    assert drained(turns, 1, LATER) == [[20], [10], [11]]


def test_those_who_still_talk_go_before_those_who_are_done(loop: asyncio.AbstractEventLoop) -> None:
    turns, done, talking = Turns(), Talk(over=True), Talk()
    turns.add(job(loop, 1, done), 0.0)
    turns.add(job(loop, 10, talking), 0.0)
    assert drained(turns, 1, LATER) == [[10], [1]]


def test_what_follows_a_late_one_stays_behind_it(loop: asyncio.AbstractEventLoop) -> None:
    turns, line, other = Turns(), Talk(), Talk()
    turns.add(job(loop, 10, line), 0.0)
    turns.add(job(loop, 11, line, LATER), LATER, late=True)
    turns.add(job(loop, 2, other, LATER), LATER)
    assert drained(turns, 1, LATER) == [[2], [10], [11]]


def test_nobody_starves(loop: asyncio.AbstractEventLoop) -> None:
    """The line furthest behind gets a turn now and then, though others are on time or nearer to it for ever."""
    turns, far = Turns(), Talk()
    for _ in range(3):
        turns.add(job(loop, 20, far), 0.0)
    waited = 0
    now = LATER
    while any(each.line is far for each in turns):
        now += 1
        turns.add(job(loop, 1, Talk(), now), now)
        turns.add(job(loop, 5, Talk(), now), now)
        turns.next_batch(1, now)
        waited += 1
    assert waited <= 3 * LATE_TURN * OLDEST_TURN


def test_one_that_failed_comes_next_and_alone(loop: asyncio.AbstractEventLoop) -> None:
    turns = Turns()
    turns.add(job(loop, 1, Talk()), 0.0)
    turns.add_again(job(loop, 1.5, Talk()))
    assert drained(turns, BATCH, 0.0) == [[1.5], [1]]


def test_cancelled_ones_are_left_out(loop: asyncio.AbstractEventLoop) -> None:
    turns, gone = Turns(), job(loop, 1, Talk())
    turns.add(gone, 0.0)
    gone.future.cancel()
    assert turns.next_batch(BATCH, 0.0) == []
    assert not turns


@given(
    said=st.lists(
        st.tuples(st.floats(0.1, 28), st.integers(0, 5), st.floats(0, 3), st.booleans()), min_size=1, max_size=60
    ),
    most=st.integers(1, 5),
)
def test_each_comes_out_once_in_batches_of_like_length(
    loop: asyncio.AbstractEventLoop, said: Sequence[tuple[float, int, float, bool]], most: int
) -> None:
    turns, lines, now = Turns(), [Talk(over=number == 0) for number in range(6)], 0.0
    jobs = []
    for seconds, line, pause, late in said:
        now += pause
        jobs.append(job(loop, seconds, lines[line], now))
        turns.add(jobs[-1], now, late=late)
    out: list[Job] = []
    while turns:
        now += 0.5
        batch = turns.next_batch(most, now)
        assert 1 <= len(batch) <= most
        assert len({length_step(each.seconds) for each in batch}) == 1
        out += batch
    assert sorted(map(id, out)) == sorted(map(id, jobs))
