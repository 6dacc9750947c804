"""The declaration of audio: sound in, transcripts out, in as many processes as it takes."""

from typing import Final

from quickcomm.audio.model.settings import AudioSettings, SttSettings
from quickcomm.contracts.audio_socket import DEFAULT_CHANNEL, TWILIO_PATH
from quickcomm.contracts.conversations import CONVERSATIONS
from quickcomm.contracts.insights import INSIGHTS
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.kernel.runtime.declaration import Group, Module, Replicas, Route, SettingsReader, StoreKeys

GROUP: Final = "audio"
INGESTS: Final = (
    "quickcomm.audio.ingest.websocket:NativeSocket",
    "quickcomm.audio.ingest.twilio:MediaStreams",
)
"""The protocols by which sound comes in (`ingest/port.py`)."""
CONVERSATION: Final = "/v1/conversations/{conversation}/audio"
INGEST: Final = "/v1/ingest/"
"""The beginning of the paths of further ingests."""
_CONVERSATIONS: Final = StoreKeys(
    keys=("audio:*",),
    commands=(
        *("hget", "hgetall", "hmget", "hset", "hdel", "hincrby", "hexists", "exists"),
        *("zadd", "zrem", "zscore", "zrange", "zrangebyscore"),
        *("rpush", "llen", "lrange", "ltrim", "lset", "expire", "del", "set", "get"),
        *("xadd", "xread", "xrange", "xdel"),
    ),
)
_ASSIGNMENTS: Final = StoreKeys(
    keys=("understanding", "understanding:*"),
    commands=("hget", "hgetall", "hmget", "hset", "hdel", "hlen", "del", "expire", "sadd", "srem", "smembers"),
)
"""Which side answers a conversation."""


def _replicas(settings: SettingsReader) -> Replicas:
    return Replicas(first=settings.of(AudioSettings).processes)


def _drain_s(settings: SettingsReader) -> float:
    return settings.of(AudioSettings).drain_s


AUDIO: Final = Module(
    name="audio",
    build="quickcomm.audio.assembly",
    settings={"audio": AudioSettings, "stt": SttSettings},
    options=("pack", "stt_model"),
    publishes=(TRANSCRIPTS, CONVERSATIONS),
    consumes=(Group(name=GROUP, streams=(INSIGHTS,), shared=True),),
    trims=True,
    deletes_from=(CONVERSATIONS,),
    store=(_CONVERSATIONS, _ASSIGNMENTS),
    without_store="Sound is taken and kept by who sent it, but nothing is acknowledged until it is back.",
    routes=(
        Route(
            name="audio",
            path=CONVERSATION,
            websocket=True,
            sticky="audio:{conversation}",
            passes_full=True,
            channel_in="channel",
            channel_else=DEFAULT_CHANNEL,
        ),
        Route(name="twilio", path=TWILIO_PATH, websocket=True, passes_full=True),
        Route(name="ingest", path=INGEST, websocket=True, passes_full=True),
    ),
    replicas=_replicas,
    drain_s=_drain_s,
)
