"""The life of a conversation's connection, as one explicit machine.

connecting → streaming ⇄ interrupted → resumed → streaming
connecting → resumed (after a restart)
any of these → draining → ended | interrupted
interrupted → expired
"""

from enum import StrEnum
from typing import Final

from quickcomm.kernel.errors import QuickCommError


class State(StrEnum):
    CONNECTING = "connecting"
    STREAMING = "streaming"
    INTERRUPTED = "interrupted"
    RESUMED = "resumed"
    DRAINING = "draining"
    ENDED = "ended"
    EXPIRED = "expired"


class Event(StrEnum):
    READY = "ready"
    """The client was told where to start."""
    AUDIO = "audio"
    """Sound, or a declared gap, came in."""
    DROP = "drop"
    """The connection is gone."""
    RESUME = "resume"
    """A client with the right token is back."""
    FINISH = "finish"
    """No more input is taken: the client ended, or the server drains."""
    DONE = "done"
    """Everything is published and the client's end is honoured."""
    HAND_BACK = "hand_back"
    """The drain is over, the conversation may go on elsewhere."""
    EXPIRE = "expire"
    """Nobody came back within the idle limit."""


class IllegalTransitionError(QuickCommError):
    code = "audio.illegal_transition"


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.CONNECTING, Event.READY): State.STREAMING,
    (State.CONNECTING, Event.DROP): State.INTERRUPTED,
    (State.CONNECTING, Event.RESUME): State.RESUMED,  # known from the store, new to this process
    (State.STREAMING, Event.AUDIO): State.STREAMING,
    (State.STREAMING, Event.DROP): State.INTERRUPTED,
    (State.STREAMING, Event.RESUME): State.RESUMED,  # a second connection takes over from the first
    (State.STREAMING, Event.FINISH): State.DRAINING,
    (State.INTERRUPTED, Event.RESUME): State.RESUMED,
    (State.INTERRUPTED, Event.FINISH): State.DRAINING,
    (State.INTERRUPTED, Event.EXPIRE): State.EXPIRED,
    (State.RESUMED, Event.READY): State.RESUMED,
    (State.RESUMED, Event.AUDIO): State.STREAMING,
    (State.RESUMED, Event.RESUME): State.RESUMED,
    (State.RESUMED, Event.DROP): State.INTERRUPTED,
    (State.RESUMED, Event.FINISH): State.DRAINING,
    (State.DRAINING, Event.RESUME): State.DRAINING,  # to hear the rest
    (State.DRAINING, Event.READY): State.DRAINING,
    (State.DRAINING, Event.DROP): State.DRAINING,
    (State.DRAINING, Event.DONE): State.ENDED,
    (State.DRAINING, Event.HAND_BACK): State.INTERRUPTED,
    (State.ENDED, Event.RESUME): State.ENDED,  # to hear the replay
    (State.ENDED, Event.READY): State.ENDED,
    (State.ENDED, Event.DROP): State.ENDED,
    (State.EXPIRED, Event.RESUME): State.EXPIRED,
    (State.EXPIRED, Event.READY): State.EXPIRED,
    (State.EXPIRED, Event.DROP): State.EXPIRED,
}

FINAL: Final = frozenset({State.ENDED, State.EXPIRED})
LISTENING: Final = frozenset({State.STREAMING, State.RESUMED})


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises `IllegalTransitionError` where the event makes no sense."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransitionError(f"A conversation that is {state} cannot take {event!r}.") from None
