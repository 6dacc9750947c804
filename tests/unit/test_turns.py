"""Whose turn it is at the engine."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hearing import Talk

from quickcomm.audio.ports import Clip, Transcript, length_step
from quickcomm.audio.service.turns import DRAFT_AFTER_S, Job, Turns

BATCH = 4
FAR = DRAFT_AFTER_S + 1


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def job(loop: asyncio.AbstractEventLoop, seconds: float, line: Talk, at: float = 0.0) -> Job:
    future: asyncio.Future[Transcript] = loop.create_future()
    return Job(Clip(samples=np.zeros(1, np.int16)), seconds, at, at, future, line)


def drained(turns: Turns, most: int, now: float) -> list[list[float]]:
    batches = []
    while turns:
        batches.append([job.seconds for job in turns.next_batch(most, now)])
    return batches


def test_the_earliest_deadline_goes_first_whoever_has_more_waiting(loop: asyncio.AbstractEventLoop) -> None:
    turns, incident, brief = Turns(), Talk(), Talk()
    turns.add(job(loop, 10, incident, 0.0))
    turns.add(job(loop, 2, brief, 0.5))
    turns.add(job(loop, 11, incident, 1.0))
    assert drained(turns, 1, 2.0) == [[10], [2], [11]]


def test_of_equals_those_who_still_talk_and_then_those_with_less_waiting(loop: asyncio.AbstractEventLoop) -> None:
    turns, over, far, near = Turns(), Talk(over=True), Talk(), Talk()
    for seconds, line in ((1, over), (10, far), (11, far), (20, near)):
        turns.add(job(loop, seconds, line, 0.01))
    assert drained(turns, 1, 1.0) == [[20], [10], [11], [1]]


def test_a_line_that_is_over_loses_to_no_later_one(loop: asyncio.AbstractEventLoop) -> None:
    """A gateway that begins a conversation for each transmission is as good as one that keeps it."""
    turns = Turns()
    turns.add(job(loop, 1, Talk(over=True), 0.0))
    turns.add(job(loop, 2, Talk(), 0.2))
    assert drained(turns, 1, 3.0) == [[1], [2]]


def test_urgent_lines_go_first_and_have_every_second_turn_at_most(loop: asyncio.AbstractEventLoop) -> None:
    turns, urgent = Turns(), Talk(urgent=True)
    for seconds in (1, 2, 3):
        turns.add(job(loop, seconds, Talk(), 0.0))
        turns.add(job(loop, 10 * seconds, urgent, 5.0))
    assert drained(turns, 1, 5.0) == [[10], [1], [20], [2], [30], [3]]


def test_nothing_ordinary_goes_along_with_what_is_urgent(loop: asyncio.AbstractEventLoop) -> None:
    turns = Turns()
    turns.add(job(loop, 2, Talk(), 0.0))
    turns.add(job(loop, 2.5, Talk(urgent=True), 1.0))
    assert drained(turns, BATCH, 1.0) == [[2.5], [2]]


def test_the_newest_of_a_line_far_behind_is_decoded_ahead_once(loop: asyncio.AbstractEventLoop) -> None:
    turns, line = Turns(), Talk()
    for number in range(4):
        turns.add(job(loop, 1 + number, line, float(number) / 10))
    assert [each.seconds for each in turns.next_batch(BATCH, FAR)] == [4]
    assert [each.seconds for each in turns.next_batch(1, FAR)] == [1]
    assert [each.seconds for each in turns.next_batch(1, FAR)] == [2]
    turns.add(job(loop, 9, line, FAR))
    turns.add(job(loop, 10, line, FAR))
    again = FAR + DRAFT_AFTER_S
    assert drained(turns, 1, again) == [[10], [3], [9]]


def test_a_line_that_sends_more_and_more_has_a_draft_every_few_seconds_at_most(loop: asyncio.AbstractEventLoop) -> None:
    turns, file, drafts = Turns(), Talk(), 0
    for number in range(200):
        now = number / 10
        newest = job(loop, 4, file, now)
        turns.add(newest)
        turns.add(job(loop, 2, Talk(), now))
        drafts += turns.next_batch(1, now) == [newest]
    assert 3 <= drafts <= 20 / DRAFT_AFTER_S


def test_a_line_that_is_not_far_behind_keeps_its_order(loop: asyncio.AbstractEventLoop) -> None:
    turns, line = Turns(), Talk()
    for number in range(3):
        turns.add(job(loop, 1 + number, line, float(number)))
    assert drained(turns, 1, DRAFT_AFTER_S) == [[1], [2], [3]]


def test_one_that_failed_comes_next_and_alone(loop: asyncio.AbstractEventLoop) -> None:
    turns = Turns()
    turns.add(job(loop, 1, Talk()))
    turns.add_again(job(loop, 1.5, Talk()))
    assert drained(turns, BATCH, 0.0) == [[1.5], [1]]


def test_cancelled_ones_are_left_out(loop: asyncio.AbstractEventLoop) -> None:
    turns, gone = Turns(), job(loop, 1, Talk())
    turns.add(gone)
    gone.future.cancel()
    assert turns.next_batch(BATCH, 0.0) == []
    assert not turns


def test_the_longest_wait_counts_from_when_it_was_queued_or_counts_as_said(loop: asyncio.AbstractEventLoop) -> None:
    turns, line = Turns(), Talk()
    assert turns.longest_wait_s(5.0) == 0
    early = job(loop, 1, line, 1.0)
    early.ended_at = 3.0
    turns.add(early)
    assert turns.longest_wait_s(2.0) == 0
    assert turns.longest_wait_s(5.0) == 2


SAID = st.lists(
    st.tuples(st.floats(0.1, 28), st.integers(0, 7), st.floats(0, 3), st.integers(0, 3)), min_size=1, max_size=80
)
"""Seconds of speech, line, pause before it, turns taken after it."""


def lines() -> list[Talk]:
    return [Talk(over=number % 3 == 0, urgent=number % 4 == 1) for number in range(8)]


@given(said=SAID, most=st.integers(1, 5))
def test_each_comes_out_once_in_order_but_for_drafts(
    loop: asyncio.AbstractEventLoop, said: Sequence[tuple[float, int, float, int]], most: int
) -> None:
    turns, talkers, now = Turns(), lines(), 0.0
    added: dict[int, list[Job]] = defaultdict(list)
    out: list[Job] = []
    drafts = 0

    def take() -> None:
        nonlocal drafts
        batch = turns.next_batch(most, now)
        assert len(batch) <= most
        assert len({length_step(each.seconds) for each in batch}) <= 1
        for each in batch:
            waiting = [other for other in added[id(each.line)] if not any(other is one for one in out)]
            if waiting[0] is not each:
                assert batch == [each], "a draft goes alone"
                assert waiting[-1] is each
                assert now - waiting[0].queued_at > DRAFT_AFTER_S
                drafts += 1
            out.append(each)

    for seconds, line, pause, turned in said:
        now += pause
        added[id(talkers[line])].append(job(loop, seconds, talkers[line], now))
        turns.add(added[id(talkers[line])][-1])
        for _ in range(turned):
            now += 0.1
            take()
    while turns:
        now += 0.5
        take()
    assert sorted(map(id, out)) == sorted(id(each) for line in added.values() for each in line)


@given(said=SAID, crowd=st.integers(1, 6))
def test_no_line_starves(
    loop: asyncio.AbstractEventLoop, said: Sequence[tuple[float, int, float, int]], crowd: int
) -> None:
    """What waits is served after as many turns as utterances were there before it, twice for the others' urgency."""
    turns, talkers, now = Turns(), lines(), 0.0
    waiting = []
    for seconds, line, pause, _ in said:
        now += pause
        waiting.append(job(loop, seconds, talkers[line], now))
        turns.add(waiting[-1])
    taken = 0
    while any(each in turns for each in waiting):
        now += 1.0
        for number in range(crowd):
            turns.add(job(loop, 1.0, Talk(urgent=number % 2 == 0), now))
        turns.next_batch(1, now)
        taken += 1
        assert taken <= 3 * len(said) + 2
