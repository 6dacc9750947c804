"""The shape of the audio on the wire; offsets are samples per speaker, bytes are what a message carries."""

from typing import Final, Literal, get_args

import msgspec

from quickcomm.kernel.errors import InvalidInputError

Encoding = Literal["linear16", "mulaw", "alaw"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)
SAMPLE_RATES: Final = (8_000, 16_000, 24_000, 32_000, 48_000)
MAX_MESSAGE_MS: Final = 1_000
_WIDTH: Final[dict[Encoding, int]] = {"linear16": 2, "mulaw": 1, "alaw": 1}


class AudioFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Raw audio, interleaved where there are two speakers."""

    encoding: Encoding = "linear16"
    sample_rate: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise InvalidInputError(f"Encoding {self.encoding!r} is not one of {', '.join(ENCODINGS)}.")
        if self.sample_rate not in SAMPLE_RATES:
            rates = ", ".join(str(rate) for rate in SAMPLE_RATES)
            raise InvalidInputError(f"Sample rate {self.sample_rate} is not one of {rates}.")
        if self.channels not in (1, 2):
            raise InvalidInputError(f"{self.channels} channels: give 1, or 2 for two speakers.")

    @property
    def block(self) -> int:
        """Bytes of one sample of all speakers."""
        return _WIDTH[self.encoding] * self.channels

    def samples(self, milliseconds: float) -> int:
        return int(self.sample_rate * milliseconds / 1_000)

    def seconds(self, samples: int) -> float:
        return samples / self.sample_rate


def wire_rate(rate: int) -> int:
    """The rate at which sound of any rate is sent: its own where the wire has it, else the nearest useful one."""
    if rate in SAMPLE_RATES:
        return rate
    return 16_000 if rate > 16_000 else 8_000  # noqa: PLR2004 - speech needs no more than 16 kHz
