"""The life of a conversation in one process, as one explicit machine.

connecting → streaming ⇄ interrupted → resumed → streaming
connecting → resumed (after a restart)
streaming, resumed, interrupted → ending → ended      the client has sent everything, or it was closed
                                → expiring → expired  no client came back, or it sent nothing for too long
                                → draining            the process stops
anything that is not final → released                 another process goes on, or this one after a restart
"""

from enum import StrEnum
from typing import Final

from quickcomm.kernel.errors import QuickCommError


class State(StrEnum):
    CONNECTING = "connecting"
    STREAMING = "streaming"
    INTERRUPTED = "interrupted"
    RESUMED = "resumed"
    ENDING = "ending"
    """The client has sent everything; the rest is being published."""
    EXPIRING = "expiring"
    """The same, as no client sends any more."""
    DRAINING = "draining"
    """The process takes no more; what it has is published before it lets go."""
    ENDED = "ended"
    EXPIRED = "expired"
    RELEASED = "released"
    """This process has let go; the conversation may be opened again from the store."""


class Event(StrEnum):
    READY = "ready"
    """The client was sent the offset to start from."""
    AUDIO = "audio"
    """Sound, or a declared gap, came in."""
    DROP = "drop"
    """The connection is gone."""
    RESUME = "resume"
    """A client with the right token is back."""
    END = "end"
    """The client has sent everything."""
    CLOSE = "close"
    """A person or a program closes it, whether a client is there or not."""
    EXPIRE = "expire"
    """No client came back within the idle limit, or a connected one was silent for too long."""
    DRAIN = "drain"
    """The process stops."""
    DONE = "done"
    """Everything is published, and the end is stored."""
    RELEASE = "release"
    """This process lets go."""


class IllegalTransitionError(QuickCommError):
    code = "audio.illegal_transition"


FINAL: Final = frozenset({State.ENDED, State.EXPIRED})
OVER: Final = FINAL | {State.RELEASED}
LISTENING: Final = frozenset({State.STREAMING, State.RESUMED})
OPEN: Final = LISTENING | {State.INTERRUPTED}
"""More may come."""
CONCLUDING: Final = frozenset({State.ENDING, State.EXPIRING})

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.CONNECTING, Event.READY): State.STREAMING,
    (State.CONNECTING, Event.RESUME): State.RESUMED,  # known from the store, new to this process
    (State.CONNECTING, Event.DROP): State.INTERRUPTED,
    **{(state, Event.RESUME): State.RESUMED for state in OPEN},  # while streaming: a second connection takes over
    **{(state, Event.DROP): State.INTERRUPTED for state in LISTENING},
    **{(state, Event.AUDIO): State.STREAMING for state in LISTENING},
    **{(state, Event.END): State.ENDING for state in LISTENING},
    (State.RESUMED, Event.READY): State.RESUMED,
    **{(state, Event.CLOSE): State.ENDING for state in OPEN},
    **{(state, Event.EXPIRE): State.EXPIRING for state in OPEN},
    **{(state, Event.DRAIN): State.DRAINING for state in OPEN},
    # A client may come back to hear the rest, or the replay, and go.
    **{
        (state, event): state
        for state in CONCLUDING | FINAL | {State.DRAINING}
        for event in (Event.RESUME, Event.READY, Event.DROP)
    },
    (State.ENDING, Event.DONE): State.ENDED,
    (State.EXPIRING, Event.DONE): State.EXPIRED,
    (State.RELEASED, Event.DONE): State.RELEASED,  # it let go while the end was being stored
    **{(state, Event.RELEASE): state if state in FINAL else State.RELEASED for state in State},
}


def advance(state: State, event: Event) -> State:
    """Return the state after `event`. Raises `IllegalTransitionError` where the event makes no sense."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"A conversation that is {state} cannot take {event!r}.") from None
