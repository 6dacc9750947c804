"""What a client may send: encodings, rates, and the frame grid on which everything is positioned."""

import re
from typing import Annotated, Final, Literal, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from quickcomm.kernel.errors import InvalidInputError

Encoding = Literal["linear16", "mulaw", "alaw"]
Int16 = npt.NDArray[np.int16]

RATES: Final = (8_000, 16_000, 24_000, 32_000, 48_000)
ENCODINGS: Final[tuple[str, ...]] = get_args(Encoding)
ENGINE_RATE: Final = 16_000
FRAME_MS: Final = 32
ENGINE_FRAME: Final = ENGINE_RATE * FRAME_MS // 1000
MAX_MESSAGE_S: Final = 1.0
ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._~-]{1,128}")
CHANNEL_LIMIT: Final = 80


class AudioFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How a client's sound is coded. Offsets count samples per speaker at `sample_rate`."""

    encoding: Encoding = "linear16"
    sample_rate: int = ENGINE_RATE
    speakers: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1

    @property
    def frame(self) -> int:
        """Samples of one 32 ms frame at the client's rate."""
        return self.sample_rate * FRAME_MS // 1000

    @property
    def block_bytes(self) -> int:
        """Bytes of one sample of every speaker."""
        return (2 if self.encoding == "linear16" else 1) * self.speakers

    def seconds(self, samples: int) -> float:
        return samples / self.sample_rate


def parse_format(encoding: str, sample_rate: str, channels: str) -> AudioFormat:
    """Check what a client asked for. Raises `InvalidInputError` that names what is allowed."""
    if encoding not in ENCODINGS:
        raise InvalidInputError(f"encoding must be one of {', '.join(ENCODINGS)}.")
    if sample_rate not in {str(rate) for rate in RATES}:
        raise InvalidInputError(f"sample_rate must be one of {', '.join(map(str, RATES))}.")
    if channels not in {"1", "2"}:
        raise InvalidInputError("channels must be 1, or 2 for two speakers, interleaved.")
    return msgspec.convert(
        {"encoding": encoding, "sample_rate": int(sample_rate), "speakers": int(channels)}, AudioFormat
    )


def parse_conversation_id(text: str) -> str:
    if not ID_PATTERN.fullmatch(text):
        raise InvalidInputError("A conversation id is 1 to 128 of the characters A-Z a-z 0-9 . _ ~ -")
    return text


def parse_channel(text: str) -> str:
    if len(text) > CHANNEL_LIMIT or not text.isprintable():
        raise InvalidInputError(f"A channel name has at most {CHANNEL_LIMIT} printable characters.")
    return text.strip()


def decode(data: bytes, audio_format: AudioFormat) -> list[Int16]:
    """Split a message into one int16[n] a speaker. Raises `InvalidInputError` for a length that cuts a sample."""
    if len(data) % audio_format.block_bytes:
        raise InvalidInputError(
            f"A message of {len(data)} bytes is no whole number of samples ({audio_format.block_bytes} bytes each)."
        )
    if audio_format.encoding == "linear16":
        samples = np.frombuffer(data, dtype="<i2")
    else:
        samples = _TABLES[audio_format.encoding][np.frombuffer(data, dtype=np.uint8)]
    if audio_format.speakers == 1:
        return [samples]
    return [samples[speaker :: audio_format.speakers] for speaker in range(audio_format.speakers)]


def check_unchanged(now: AudioFormat, asked: AudioFormat) -> None:
    """Raises `InvalidInputError` where who comes back sends in another format than before."""
    if now != asked:
        raise InvalidInputError("encoding, sample_rate and channels cannot change within a conversation.")


def _mulaw_table() -> Int16:
    """ITU-T G.711 µ-law, all 256 codes."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = ((((code & 0x0F) << 3) + 0x84) << ((code >> 4) & 0x07)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Int16:
    """ITU-T G.711 A-law, all 256 codes."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent = (code >> 4) & 0x07
    mantissa = (code & 0x0F) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES: Final = {"mulaw": _mulaw_table(), "alaw": _alaw_table()}
