"""Binary messages of any length → pieces of whole samples, as conversations take them."""

from collections.abc import Iterator
from typing import Final

from quickcomm.audio.ingest.reception import BreachError
from quickcomm.contracts.audio_socket import AudioFormat, CloseCode

MAX_MESSAGE_S: Final = 10
"""As much of µ-law as a pipe gives at once, and more."""


class Pieces:
    """The messages of one connection. A sample that one message cuts is completed by the next one."""

    def __init__(self, audio_format: AudioFormat) -> None:
        self._block = audio_format.block_bytes
        self._second = self._block * audio_format.sample_rate
        self._rest = b""

    def cut(self, data: bytes) -> Iterator[bytes]:
        """Yield whole samples of every speaker, at most a second at once. Raises `BreachError` for a longer message."""
        if len(data) > MAX_MESSAGE_S * self._second:
            detail = f"A message holds at most {MAX_MESSAGE_S} seconds of sound."
            raise BreachError(CloseCode.TOO_BIG, "audio.message_too_long", detail)
        data = self._rest + data
        whole = len(data) - len(data) % self._block
        self._rest = data[whole:]
        for start in range(0, whole, self._second):
            yield data[start : min(start + self._second, whole)]

    def drop_rest(self) -> None:
        """Forget a sample that was cut: what comes next does not complete it."""
        self._rest = b""
