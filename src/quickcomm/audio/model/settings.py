"""Settings of the audio module, with sensible defaults."""

from typing import Annotated

import msgspec

from quickcomm.audio.model.segmenter import SegmenterSettings


class TwilioSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Telephone calls by Twilio Media Streams; without a token none are taken."""

    auth_token: str = ""
    """The account's, by which Twilio signs. Best given as QUICKCOMM_AUDIO_TWILIO_AUTH_TOKEN; never logged."""
    public_url: str = ""
    """How the address of `<Stream>` begins, such as wss://ops.example.com. Empty: by the request's Host."""
    site: str = "main"
    """The site that the calls belong to."""
    channel: str = "phone"
    """Of calls without a parameter `channel`."""

    def __repr__(self) -> str:
        """Leave out the token: settings end up in messages and logs."""
        return f"TwilioSettings(public_url={self.public_url!r}, auth_token={'set' if self.auth_token else 'none'})"


class AudioSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    processes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Where audio is a service of its own: how many processes of it are started."""
    max_sessions: int = 1_000
    """Live conversations in this process; more get 503."""
    max_sessions_per_key: int = 200
    """Of them, open at the same time with one key. Several processes do not count together."""
    max_unacked_ms: Annotated[int, msgspec.Meta(ge=60_000)] = 120_000
    """How far a client may run ahead of the acks before the server stops reading.

    Must have room for the longest utterance and its transcription: acks come behind it.
    """
    max_unacked_mb: Annotated[int, msgspec.Meta(ge=1)] = 2_048
    """Sound of all conversations together that a process holds; beyond it each client may be ahead by 30 s only."""
    ack_interval_ms: int = 1_000
    interrupted_grace_s: float = 30.0
    """After this long without sound, speech in hand is finished and published."""
    idle_limit_s: float = 300.0
    """After this long interrupted, a conversation ends with what was received."""
    silent_limit_s: float = 3_600.0
    """After this long connected without any sound, too."""
    ping_every_s: Annotated[float, msgspec.Meta(gt=0)] = 20.0
    """Seconds between two pings to a client: many proxies cut a connection that is silent for 60 s."""
    drain_s: float = 8.0
    """How long a shutdown waits for utterances in hand."""
    hand_over_s: float = 1.0
    """The same where another process goes on with the conversations: it writes down what is left by then."""
    answer_wait_s: float = 15.0
    """How long `ended` waits for the last insights."""
    reassign_after_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    """While intelligence moves to a service: how long the monolith may finish what it has of a conversation."""
    stay_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    """While audio moves: for so long a client that cannot resume stays where it is. Then its conversation is ended in
    the next pause, at the latest a minute later."""
    shadow_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """While audio moves: so many of all conversations are heard by the other side as well, and compared."""
    partial_every_s: float = 0.8
    early_decoding: bool = True
    """Decode in the pause before an utterance is known to be over, where the engine is idle."""
    segmenter: SegmenterSettings = SegmenterSettings()
    twilio: TwilioSettings = TwilioSettings()


class SttSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: str = "whisper"
    model: str = "tiny.en"
    model_path: str | None = None
    """A folder with a CTranslate2 Whisper model."""
    language: str = "en"
    workers: Annotated[int, msgspec.Meta(ge=0, le=256)] = 0
    """Decodings at once in each process. 0: two, shared out where audio has several processes."""
    allow_hub: bool = True
    """Whether a model that is not installed may be fetched from its hub."""
