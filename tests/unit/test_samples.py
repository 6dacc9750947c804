"""Samples of a site's metrics become rates and levels; what is missing is counted, and never taken for 0."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.capacity.model.samples import (
    Sample,
    percentile,
    rank_correlation,
    ratio_spread,
    read_samples,
    record,
)
from quickcomm.kernel.errors import InvalidInputError

POSITIVE = st.floats(0.01, 1_000)
PAIRS = st.lists(st.tuples(POSITIVE, POSITIVE), min_size=3, max_size=40)


LEVELS = frozenset({"conversations", "cores", "memory_mb"})


def sample(at: float, *process: str, started_at: float = -60.0, **figures: float) -> Sample:
    """`process`: its name and module."""
    name, module = process or ("monolith", "monolith")
    levels = {key: value for key, value in figures.items() if key in LEVELS}
    totals = {key: value for key, value in figures.items() if key not in LEVELS}
    return Sample(at=at, process=name, module=module, started_at=started_at, totals=totals, levels=levels)


@examples(100)
@given(st.lists(st.floats(0, 50), min_size=2, max_size=30), st.integers(60, 600))
def test_rates_are_those_that_were_put_in(rates: list[float], step: int) -> None:
    total, samples = 0.0, [sample(0.0, speech=0.0)]
    for number, rate in enumerate(rates, 1):
        total += rate * step
        samples.append(sample(float(number * step), speech=total))
    seen = record(reversed(samples))
    assert seen.missing == 0
    assert [step.rates["speech"] for step in seen.steps] == pytest.approx(rates, abs=1e-6)


@examples(60)
@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), min_size=3, max_size=30))
def test_a_restart_gives_no_rate_below_nothing(each: list[tuple[float, bool]]) -> None:
    """A process that starts anew counts from nothing again."""
    total, started, samples, restarts = 0.0, -60.0, [], 0
    for number, (added, anew) in enumerate(each):
        if anew and number:
            total, started, restarts = 0.0, number * 60.0 - 10, restarts + 1
        total += added
        samples.append(sample(number * 60.0, started_at=started, speech=total, conversations=3))
    seen = record(samples)
    assert all(step.rates["speech"] >= 0 for step in seen.steps)
    assert len(seen.restarts) == restarts == seen.missing
    assert all(each.talking == 3 for each in seen.restarts)


def test_samples_that_are_near_together_are_thinned_out_and_a_hole_is_missing() -> None:
    times = [float(second) for second in range(0, 3_600, 10) if not 1_200 <= second < 2_400]
    seen = record([sample(at, speech=2 * at) for at in times])
    assert {round(step.rates["speech"], 6) for step in seen.steps} == {2.0}
    assert all(later.at - earlier.at >= 60 for earlier, later in pairwise(seen.steps))
    assert 20 <= seen.missing <= 22


def test_processes_of_services_are_added_and_what_a_machine_has_is_not() -> None:
    def of(at: float, process: str, module: str) -> Sample:
        return sample(at, process, module, cores=8, memory_mb=300, loop=at * 0.4, speech=at)

    names = (("audio-1", "audio"), ("audio-2", "audio"), ("dashboard-1", "dashboard"))
    seen = record([of(minute * 60.0, *name) for minute in range(5) for name in names])
    assert {step.levels["cores"] for step in seen.steps} == {8}
    assert {step.levels["memory_mb"] for step in seen.steps} == {900}
    assert {round(step.rates["speech"], 6) for step in seen.steps} == {3}
    assert {round(step.rates["loop"], 6) for step in seen.steps} == {0.4}, "each process has its own"


def test_a_step_without_one_of_the_modules_is_missing() -> None:
    there = [sample(minute * 60.0, "audio-1", "audio", speech=0) for minute in range(11)]
    seen = record([*there, *(sample(minute * 60.0, "dashboard-1", "dashboard") for minute in range(6))])
    assert (len(seen.steps), seen.missing) == (5, 5)


def test_what_fewer_than_half_of_the_steps_have_is_not_known() -> None:
    late = [sample(minute * 60.0, speech=minute) for minute in range(8, 11)]
    seen = record([*(sample(minute * 60.0) for minute in range(8)), *late])
    assert seen.series("speech") is None
    assert seen.series("cores") is None


@examples(100)
@given(PAIRS)
def test_rank_correlation_is_symmetric_and_knows_nothing_of_units(pairs: list[tuple[float, float]]) -> None:
    found = rank_correlation(pairs)
    turned = rank_correlation([(other, one) for one, other in pairs])
    if found is None or turned is None:
        assert found is turned is None
        return
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert turned == pytest.approx(found)
    assert rank_correlation([(math.log(one), 7 * other) for one, other in pairs]) == pytest.approx(found, abs=0.05)


@examples(60)
@given(st.lists(st.integers(1, 1_000), min_size=3, max_size=30, unique=True), st.floats(0.1, 10))
def test_loads_in_one_ratio_scale_together(values: list[int], ratio: float) -> None:
    pairs = [(value, value * ratio) for value in values]
    assert rank_correlation(pairs) == pytest.approx(1)
    assert ratio_spread(pairs) == pytest.approx(1)


def test_what_does_not_change_has_no_correlation() -> None:
    assert rank_correlation([(1, 2), (1, 3), (1, 4)]) is None
    assert rank_correlation([(1, 2), (2, 3)]) is None
    assert ratio_spread([(0, 2), (1, 0)]) is None
    assert percentile([1, 2, 3], 0.5) == 2


def test_a_line_that_is_no_sample_is_named() -> None:
    good = b'{"at":0,"process":"p","module":"monolith","started_at":0,"totals":{"speech":1}}'
    assert read_samples(good + b"\n" + good)[1].totals == {"speech": 1}
    with pytest.raises(InvalidInputError, match=r"Line 2.*should-we-split"):
        read_samples(good + b'\n{"at":0}')
    with pytest.raises(InvalidInputError, match="Line 1"):
        read_samples(good.replace(b":1}", b":-1}"))
    with pytest.raises(InvalidInputError, match="no samples"):
        record([])
