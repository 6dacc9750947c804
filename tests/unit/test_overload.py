"""More speech than can be decoded, in virtual time: who is how late, and what is left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.hearing import Talk
from tests.support.overload import Outcome, Said, percentile, simulate, talk

from quickcomm.audio.ports import Effort
from quickcomm.audio.service.lateness import TELL_S, URGENT_BOUND_S, WHOLE_S, Lateness
from quickcomm.audio.service.load import CALM_S, CATCH_UP, LIMITS_S, Load, Tempo

LINES = 48
URGENT = 2
BY_TRANSMISSION = 6
"""Gateways that begin a conversation for each transmission: it is over as soon as it is heard."""
STREAM_S = 120.0


class Site:
    """Lines that talk for two minutes; the first are urgent, the last begin a conversation for each transmission."""

    def __init__(self) -> None:
        self.steady = [Talk(urgent=number < URGENT) for number in range(LINES - BY_TRANSMISSION)]
        self.brief: list[Talk] = []
        self.said = [one for number, line in enumerate(self.steady) for one in talk(line, STREAM_S, number)]
        for number in range(len(self.steady), LINES):
            for one in talk(Talk(), STREAM_S, number):
                self.brief.append(Talk(over=True))
                self.said.append(Said(self.brief[-1], one.ended, one.seconds))


def figures(outcome: Outcome, lines: list[Talk]) -> tuple[float, float]:
    late = outcome.of(lines)
    return percentile(late, 0.95), late[-1]


@pytest.mark.parametrize("load", [0.95, 1.10, 1.14])
def test_everybody_is_served_in_bounded_time(load: float) -> None:
    site = Site()
    outcome = simulate(site.said, load)
    p95, longest = figures(outcome, [*site.steady, *site.brief])
    assert p95 <= 5.0
    assert longest <= 6.0
    urgent_p95, _ = figures(outcome, site.steady[:URGENT])
    assert urgent_p95 <= 2.0
    brief_p95, brief_longest = figures(outcome, site.brief)
    steady_p95, steady_longest = figures(outcome, site.steady[URGENT:])
    assert brief_p95 <= steady_p95 + 0.1
    assert brief_longest <= steady_longest + 0.5


def test_what_is_just_said_on_a_line_far_behind_is_decoded_at_once() -> None:
    """Far above what shedding saves all are late; what is decoded ahead comes in a second or two."""
    site = Site()
    outcome = simulate(site.said, 1.4)
    assert figures(outcome, site.steady[URGENT:])[0] > 5.0
    assert len(outcome.drafted_s) > 50  # of a turn in four, and a turn is a batch
    assert percentile(sorted(outcome.drafted_s), 0.5) <= 1.5
    assert figures(outcome, site.steady[:URGENT])[0] <= 2.0


def test_a_file_at_full_speed_costs_the_others_no_more_than_two_lines_would() -> None:
    site, file = Site(), Talk()
    spoken = sum(one.seconds for one in site.said)
    burst = [Said(file, 30.0 + number / 100, 4.0, place=5.0 * number) for number in range(1, 151)]
    outcome = simulate([*site.said, *burst], 0.9 * (1 + 600.0 / spoken))
    assert figures(outcome, [*site.steady, *site.brief])[0] <= 2.5
    assert len(outcome.of([file])) == len(burst)


def test_the_level_rises_at_once_and_falls_step_by_step() -> None:
    load = Load()
    load.look(LIMITS_S[2] + 0.1, 0.0)
    assert (load.level, load.refuses, load.effort) == (3, True, Effort.LEAST)
    load.look(LIMITS_S[2] - 0.1, 1.0)
    assert load.level == 3, "not yet half of its limit"
    seen, now = [], 1.0
    while load.level:
        now += CALM_S / 4
        load.look(0.0, now)
        seen.append(load.level)
    assert sorted(set(seen), reverse=True) == [3, 2, 1, 0]
    assert now >= 1.0 + 3 * CALM_S
    assert (load.refuses, load.effort) == (False, Effort.FULL)


def test_a_level_is_kept_by_a_wait_that_comes_again() -> None:
    load, now = Load(), 0.0
    load.look(LIMITS_S[0] + 0.1, now)
    assert load.effort == Effort.ONE_OPINION
    for _ in range(20):
        now += CALM_S * 0.8
        load.look(0.0, now)
        load.look(LIMITS_S[0] * 0.6, now + 0.01)
    assert load.level == 1


@given(waits=st.lists(st.floats(0, 20), max_size=60))
def test_a_level_is_never_lower_than_what_waits_demands(waits: list[float]) -> None:
    load = Load()
    for number, wait in enumerate(waits):
        load.look(wait, number / 2)
        assert load.level >= sum(wait > limit for limit in LIMITS_S)


def arrivals(load: Load, a_second: float, share: float, cost: float, seconds: float) -> int:
    """Let conversations come at a steady pace until they are refused, or the time is over; return how many came in."""
    inside = 0
    for step in range(round(seconds * 5)):
        now = step / 5
        load.demand.decoded(4, 16.0, 16.0 * cost)
        load.demand.look(round(inside * share), inside, now)
        if not load.refuses:
            inside += round(a_second * (step + 1) / 5) - round(a_second * step / 5)
    return inside


def test_a_crowd_is_let_in_as_far_as_the_engine_goes_before_any_of_its_words_is_late() -> None:
    """Two a second, who all speak most of the time; a worker needs 0.04 s for a second of speech."""
    assert 24 <= arrivals(Load(1), 2.0, 0.85, 0.04, 60) <= 29
    assert 48 <= arrivals(Load(2), 2.0, 0.85, 0.04, 60) <= 54


def test_a_thousand_quiet_channels_are_let_in() -> None:
    assert arrivals(Load(2), 20.0, 0.03, 0.04, 60) == 1_200


def test_those_who_come_back_after_a_silence_are_not_judged_by_what_was_said_before() -> None:
    load = Load(1)
    load.demand.decoded(4, 60.0, 30.0)
    for step in range(100):
        load.demand.look(4, 4, step / 5)
    assert load.refuses
    for step in range(100, 250):
        load.demand.look(0, 0, step / 5)
    load.demand.look(0, 12, 50.0)
    assert not load.refuses


def test_single_clips_say_nothing_about_what_speech_costs_under_load() -> None:
    load = Load(1)
    load.demand.decoded(1, 4.0, 4.0)
    load.demand.look(40, 40, 0.0)
    assert not load.refuses


@given(clips=st.lists(st.tuples(st.integers(1, 4), st.floats(0.1, 60), st.floats(0, 60)), max_size=40))
def test_demand_is_never_negative_and_is_over_when_all_have_gone(clips: list[tuple[int, float, float]]) -> None:
    load = Load(2)
    for number, (count, speech_s, work_s) in enumerate(clips):
        load.demand.decoded(count, speech_s, work_s)
        load.demand.look(number, 40, number / 5)
        assert load.demand.of_engine >= 0
    load.demand.look(0, 0, 100.0)
    assert not load.refuses


def test_optional_work_is_left_out_before_speech_is_late_and_done_again_once_the_engine_has_time() -> None:
    load = Load(1)
    load.demand.decoded(4, 60.0, 60.0 * 0.025)
    load.demand.look(20, 20, 0.0)
    assert (load.effort, load.calm) == (Effort.FULL, True)
    load.demand.look(30, 30, 1.0)
    assert (load.effort, load.calm, load.level) == (Effort.LEAST, False, 0)
    load.demand.decoded(4, 600.0, 600.0 * 0.02)  # what it costs without optional work
    load.demand.look(30, 30, 2.0)
    assert load.effort == Effort.LEAST
    load.demand.look(15, 15, 3.0)
    assert (load.effort, load.calm) == (Effort.FULL, True)


def test_speech_in_real_time_counts_from_when_it_ended() -> None:
    tempo = Tempo()
    assert [tempo.ended_at(at, at, waits=True) for at in (5.0, 8.0, 8.5)] == [5.0, 8.0, 8.5]


def test_speech_in_a_burst_counts_at_twice_the_pace_until_the_line_has_caught_up() -> None:
    tempo = Tempo()
    assert tempo.ended_at(100.0, 10.0, waits=False) == 100.0
    assert tempo.ended_at(100.1, 20.0, waits=True) == 100.0 + 10 / CATCH_UP
    assert tempo.ended_at(100.2, 40.0, waits=True) == 100.0 + 30 / CATCH_UP
    assert tempo.ended_at(103.0, 41.0, waits=False) == 103.0


def test_lateness_is_told_now_and_then_and_once_when_it_is_over() -> None:
    late, told = Lateness(), []
    for step in range(100):
        now = step * 0.2
        behind = min(now, max(0.0, 16.0 - now))
        told.append(late.look(behind, now))
    words = [each for each in told if each is not None]
    assert words[-1] == 0
    assert words.count(0) == 1
    assert 3 <= len(words) <= 7
    assert words[0] == round(TELL_S * 1000, -2)
    assert not late.told
    assert late.look(WHOLE_S, 100.0) is None


def test_an_urgent_line_is_told_from_its_bound_on() -> None:
    assert Lateness().look(URGENT_BOUND_S + 0.1, 0.0) is None
    assert Lateness().look(URGENT_BOUND_S + 0.1, 0.0, urgent=True) == 2100
