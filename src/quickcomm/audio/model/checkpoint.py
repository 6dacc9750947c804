"""What must survive for a stream to be restarted at an ack and give the same utterances as if nothing had happened."""

import msgspec

from quickcomm.audio.model.segmenter import SegmenterState


class FrontEndState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one speaker's front end after a frame. Arrays are their bytes, little-endian."""

    noise_floor: float
    hang: int
    vad: bytes = b""
    """float32[2, 128] of the voice activity model; empty where it is at rest (`VoiceActivity.rest`)."""
    context: bytes
    """int16[64]: the last samples at 16 kHz."""
    history: bytes
    """int16[history]: the last samples at the client's rate, for the resampler."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One speaker, restartable at sample `offset`: whole frames behind `start_floor`."""

    offset: int = 0
    start_floor: int = 0
    """Where the stream began anew: the end of the last gap, or where the speaker let go of the key. No utterance starts
    before it."""
    gap: int = 0
    """Declared-gap samples before `offset`."""
    silence: int = 0
    """Samples before `offset` that belong to no utterance and no gap, as counted while they were heard."""
    origin_ns: int = 0
    """When sample 0 was said, of the first speaker, where sound comes without pauses; 0: not known."""
    segmenter: SegmenterState = msgspec.field(default_factory=SegmenterState)
    front_end: FrontEndState | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[Checkpoint, ...])


def encode_checkpoints(checkpoints: tuple[Checkpoint, ...]) -> bytes:
    return _encoder.encode(checkpoints)


def decode_checkpoints(data: bytes) -> tuple[Checkpoint, ...]:
    """Raises `msgspec.DecodeError` for anything else."""
    return _decoder.decode(data)
