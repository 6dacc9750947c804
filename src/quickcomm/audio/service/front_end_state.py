"""The state of many streams at the front end: arrays over slots, one slot a stream."""

import numpy as np
import numpy.typing as npt

from quickcomm.audio.model.checkpoint import FrontEndState
from quickcomm.audio.model.gate import INITIAL_FLOOR
from quickcomm.audio.model.resample import MAX_HISTORY, RESAMPLERS
from quickcomm.audio.ports import VAD_CONTEXT, VAD_STATE


class SlotStates:
    """The state of gate, voice activity model and resampler after a frame, of each stream."""

    def __init__(self, capacity: int, rest: npt.NDArray[np.float32]) -> None:
        """`rest`: float32[VAD_STATE], the voice activity model's state in silence."""
        self._rest = rest
        self.floor = np.full(capacity, INITIAL_FLOOR, np.float32)
        self.hang = np.zeros(capacity, np.int32)
        self.vad = np.repeat(rest[:, None], capacity, axis=1)
        self.context = np.zeros((capacity, VAD_CONTEXT), np.int16)
        self.history = np.zeros((capacity, MAX_HISTORY), np.int16)

    def copy(self, other: "SlotStates", slots: npt.NDArray[np.int64]) -> None:
        """Take the states of some slots from another set of arrays."""
        self.floor[slots] = other.floor[slots]
        self.hang[slots] = other.hang[slots]
        self.vad[:, slots] = other.vad[:, slots]
        self.context[slots] = other.context[slots]
        self.history[slots] = other.history[slots]

    def rest(self, slots: npt.NDArray[np.int64]) -> None:
        """Put the voice activity model of some slots to rest."""
        self.vad[:, slots] = self._rest[:, None]

    def export(self, slot: int, rate: int) -> FrontEndState:
        """Return the state of a stream of `rate` Hz, to restart it from."""
        length = RESAMPLERS[rate].history
        return FrontEndState(
            noise_floor=float(self.floor[slot]),
            hang=int(self.hang[slot]),
            vad=self.vad[:, slot].tobytes() if self.hang[slot] else b"",
            context=self.context[slot].tobytes(),
            history=self.history[slot, MAX_HISTORY - length :].tobytes(),
        )

    def restore(self, slot: int, state: FrontEndState | None, rate: int) -> None:
        """Set a stream of `rate` Hz to an exported state; None is how a stream begins."""
        self.floor[slot] = INITIAL_FLOOR
        self.hang[slot] = 0
        self.vad[:, slot] = self._rest
        self.context[slot] = 0
        self.history[slot] = 0
        if state is None:
            return
        self.floor[slot] = state.noise_floor
        self.hang[slot] = state.hang
        if state.vad:
            self.vad[:, slot] = np.frombuffer(state.vad, np.float32).reshape(VAD_STATE)
        self.context[slot] = np.frombuffer(state.context, np.int16)
        length = RESAMPLERS[rate].history
        if length:
            self.history[slot, MAX_HISTORY - length :] = np.frombuffer(state.history, np.int16)
