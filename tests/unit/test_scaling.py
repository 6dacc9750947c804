"""The scaling policy: up at once, down slowly, never flapping, always within its bounds."""

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from quickcomm.capacity.model.scaling import Memory, Reading, Rule, ScalingPolicy, decide

POLICY = ScalingPolicy()
EVERY_S = 5.0
QUIET = Reading(at_s=0.0, talkers=0, audio=1, workers=1, backlog_s=0, intelligence=1, lag_s=0, lag_messages=0)
loads = st.builds(
    Reading,
    at_s=st.just(10_000.0),
    talkers=st.floats(0, 500),
    audio=st.integers(0, 20),
    workers=st.integers(1, 4),
    backlog_s=st.floats(0, 2_000),
    intelligence=st.integers(0, 20),
    lag_s=st.floats(0, 100),
    lag_messages=st.integers(0, 500),
)


def at(reading: Reading, **changes: float) -> Reading:
    return msgspec.structs.replace(reading, **changes)


def course(talkers: list[float], bears: float, policy: ScalingPolicy = POLICY) -> list[int]:
    """Processes of audio over time, on a machine on which one really bears `bears` talkers; it catches up or falls
    behind by the difference."""
    memory, processes, backlog_s, found = Memory(), 1, 0.0, []
    for step, count in enumerate(talkers):
        backlog_s = max(0.0, backlog_s + (count - processes * bears) * EVERY_S / 2)
        reading = at(QUIET, at_s=step * EVERY_S, talkers=count, audio=processes, backlog_s=backlog_s)
        decision = decide(policy, reading, memory)
        processes, memory = decision.audio.processes, decision.memory
        found.append(processes)
    return found


@given(loads)
@examples(300)
def test_it_never_leaves_its_bounds_and_says_why(reading: Reading) -> None:
    rule = Rule(talkers=16, behind_s=20, least=2, most=5)
    decision = decide(ScalingPolicy(audio=rule, intelligence=rule), reading, Memory())
    for wanted in (decision.audio, decision.intelligence):
        assert 2 <= wanted.processes <= 5
        assert wanted.why


@given(loads, st.floats(0, 200), st.floats(0, 500), st.floats(0, 50), st.integers(0, 100))
@examples(300)
def test_more_load_never_wants_fewer(
    reading: Reading, talkers: float, backlog_s: float, lag_s: float, messages: int
) -> None:
    more = at(
        reading,
        talkers=reading.talkers + talkers,
        backlog_s=reading.backlog_s + backlog_s,
        lag_s=reading.lag_s + lag_s,
        lag_messages=reading.lag_messages + messages,
    )
    less_wanted, more_wanted = decide(POLICY, reading, Memory()), decide(POLICY, more, Memory())
    assert more_wanted.audio.processes >= less_wanted.audio.processes
    assert more_wanted.intelligence.processes >= less_wanted.intelligence.processes


@given(st.floats(0, 100), st.floats(8, 40))
@examples(100)
def test_a_constant_load_settles_whatever_a_process_really_bears(talkers: float, bears: float) -> None:
    found = course([talkers] * 600, bears)
    steps = [later - earlier for earlier, later in pairwise(found) if later != earlier]
    turns = sum((one > 0) != (next_one > 0) for one, next_one in pairwise(steps))
    assert turns <= 4, "it learns what a process bears, at most twice"
    assert found[-1] * bears >= talkers - 2 or found[-1] == POLICY.audio.most


@given(st.lists(st.floats(23, 32), min_size=200, max_size=400))
@examples(50)
def test_an_oscillation_within_the_band_changes_nothing(talkers: list[float]) -> None:
    found = course([32.0, *talkers], bears=16)
    assert set(found) == {2}


def test_a_burst_is_answered_at_once_and_taken_back_slowly() -> None:
    found = course([8.0] * 10 + [32.0] * 20 + [8.0] * 60, bears=20)
    assert found[9:11] == [1, 2]
    assert found[29:53] == [2] * 24
    assert found[-1] == 1


def test_what_waits_counts_where_talkers_do_not() -> None:
    decision = decide(POLICY, at(QUIET, talkers=4, backlog_s=90), Memory())
    assert decision.audio.processes == 2
    assert "90 s of sound" in decision.audio.why
    again = decide(POLICY, at(QUIET, at_s=EVERY_S, talkers=4, audio=2, backlog_s=90), decision.memory)
    assert again.audio.processes == 2, "what was started has not had its chance yet"


def test_one_stuck_message_is_no_reason_for_more_processes() -> None:
    stuck = at(QUIET, lag_s=600, lag_messages=1)
    assert decide(POLICY, stuck, Memory()).intelligence.processes == 1
    assert decide(POLICY, at(stuck, lag_messages=50), Memory()).intelligence.processes == 2
