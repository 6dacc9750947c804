"""The life of a conversation: only legal transitions, final states stay final, every state can be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.model.state import (
    CONCLUDING,
    FINAL,
    LISTENING,
    OPEN,
    OVER,
    TRANSITIONS,
    Event,
    IllegalTransitionError,
    State,
    advance,
)


def reachable(start: State) -> set[State]:
    found, waiting = {start}, [start]
    while waiting:
        state = waiting.pop()
        for (source, _), target in TRANSITIONS.items():
            if source is state and target not in found:
                found.add(target)
                waiting.append(target)
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(State.CONNECTING) == set(State)


def test_every_conversation_can_come_to_an_end() -> None:
    assert all(reachable(state) & FINAL for state in set(State) - {State.DRAINING, State.RELEASED})


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_any_sequence_of_events(events: list[Event]) -> None:
    """What is not in the table is refused and changes nothing; what is final stays so."""
    state = State.CONNECTING
    for event in events:
        before = state
        if (state, event) in TRANSITIONS:
            state = advance(state, event)
        else:
            with pytest.raises(IllegalTransitionError, match=str(before)):
                advance(state, event)
        if before in FINAL:
            assert state is before


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_conversation_still_takes_listeners(state: State) -> None:
    """A client may come back to hear the replay, and go."""
    for event in (Event.RESUME, Event.READY, Event.DROP):
        assert advance(state, event) is state


def test_no_sound_is_taken_but_while_listening() -> None:
    taking = {state for (state, event) in TRANSITIONS if event is Event.AUDIO}
    assert taking == LISTENING
    assert all(advance(state, Event.AUDIO) is State.STREAMING for state in LISTENING)


@pytest.mark.parametrize("state", sorted(set(State) - OVER))
def test_a_conversation_that_is_not_over_can_be_resumed(state: State) -> None:
    after = advance(state, Event.RESUME)
    assert after is (State.RESUMED if state in OPEN | {State.CONNECTING} else state)


@pytest.mark.parametrize("state", sorted(set(State)))
def test_any_conversation_can_be_let_go_and_is_over_then(state: State) -> None:
    after = advance(state, Event.RELEASE)
    assert after is (state if state in FINAL else State.RELEASED)
    assert advance(after, Event.RELEASE) is after


@pytest.mark.parametrize("state", sorted(OPEN))
def test_a_drain_comes_to_no_end_of_its_own(state: State) -> None:
    """The conversation goes on in another process: only letting go leads out, and no client can end or expire it."""
    draining = advance(state, Event.DRAIN)
    assert draining is State.DRAINING
    assert reachable(draining) == {State.DRAINING, State.RELEASED}


@pytest.mark.parametrize(
    ("event", "through", "to"),
    [
        (Event.END, State.ENDING, State.ENDED),
        (Event.EXPIRE, State.EXPIRING, State.EXPIRED),
    ],
)
def test_how_it_ended_is_how_it_is_stored(event: Event, through: State, to: State) -> None:
    """A client that comes back meanwhile, and goes again, changes nothing about that."""
    for state in OPEN:
        if (state, event) not in TRANSITIONS:
            assert (state, event) == (State.INTERRUPTED, Event.END), "only a connected client can end it"
            continue
        concluding = advance(state, event)
        for interlude in ((), (Event.DROP,), (Event.RESUME, Event.READY), (Event.DROP, Event.RESUME, Event.READY)):
            at = concluding
            for each in interlude:
                at = advance(at, each)
            assert at is through
            assert advance(at, Event.DONE) is to


@given(st.lists(st.sampled_from(Event), max_size=40))
def test_every_event_of_the_machine_has_its_place(events: list[Event]) -> None:
    """Sound only comes to an end by END, EXPIRE, CLOSE or DRAIN, and is never taken again in this process after it."""
    state, closed = State.CONNECTING, False
    for event in events:
        if (state, event) not in TRANSITIONS:
            continue
        state = advance(state, event)
        closed |= event in {Event.END, Event.EXPIRE, Event.DRAIN, Event.RELEASE, Event.CLOSE}
        assert not (closed and state in LISTENING)
        assert (state in CONCLUDING) <= closed
    assert {event for _, event in TRANSITIONS} == set(Event)
