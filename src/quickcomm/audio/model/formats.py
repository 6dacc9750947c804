"""Sound as clients send it: its format, names and ids parsed, its samples decoded."""

from typing import Final, cast

import numpy as np
import numpy.typing as npt

from quickcomm.contracts.audio_socket import CONVERSATION_ID, FRAME_MS, SAMPLE_RATES, AudioFormat, Encoding
from quickcomm.kernel.errors import InvalidInputError

Int16 = npt.NDArray[np.int16]

ENGINE_RATE: Final = 16_000
ENGINE_FRAME: Final = ENGINE_RATE * FRAME_MS // 1000
CHANNEL_LIMIT: Final = 80
_NUMBERS: Final = {str(number): number for number in (*SAMPLE_RATES, 1, 2)}


def parse_format(encoding: str, sample_rate: str, speakers: str) -> AudioFormat:
    """Check the format that a client asked for. Raises `InvalidInputError` that names what is allowed."""
    try:
        return AudioFormat(
            encoding=cast("Encoding", encoding),
            sample_rate=_NUMBERS.get(sample_rate, 0),
            speakers=_NUMBERS.get(speakers, 0),
        )
    except ValueError as error:
        raise InvalidInputError(str(error)) from error


def parse_conversation_id(text: str) -> str:
    if not CONVERSATION_ID.fullmatch(text):
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
        raise InvalidInputError("encoding, sample_rate and speakers cannot change within a conversation.")


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
