"""The life of a conversation: only legal transitions, final states stay final, every state can be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickcomm.audio.model.state import FINAL, LISTENING, TRANSITIONS, Event, IllegalTransitionError, State, advance


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
    assert all(reachable(state) & FINAL for state in State)


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


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_who_lives_can_be_resumed(state: State) -> None:
    assert advance(state, Event.RESUME) in {State.RESUMED, State.DRAINING}


@pytest.mark.parametrize("state", [State.STREAMING, State.RESUMED, State.INTERRUPTED])
def test_a_drain_hands_the_conversation_back(state: State) -> None:
    draining = advance(state, Event.FINISH)
    assert draining is State.DRAINING
    assert advance(draining, Event.HAND_BACK) is State.INTERRUPTED
    assert advance(draining, Event.DONE) is State.ENDED
