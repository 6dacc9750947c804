"""A telephone call as Twilio Media Streams sends it: messages after its reference's examples, and its signature."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from tests.support.talk import Pcm, g711

Json = dict[str, Any]
TOKEN: Final = "12345678901234567890123456789012"
PATH: Final = "/v1/ingest/twilio"
CALL: Final = "CAXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
STREAM: Final = "MZXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
ACCOUNT: Final = "ACXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX"
FRAME: Final = 160
CONNECTED: Final[Json] = {"event": "connected", "protocol": "Call", "version": "1.0.0"}


def signature(url: str, token: str = TOKEN) -> str:
    """Sign an address as Twilio does: HMAC-SHA1 under the account's auth token, in base64."""
    return base64.b64encode(hmac.new(token.encode(), url.encode(), hashlib.sha1).digest()).decode()


class Call:
    """Numbers messages as they are made; `tracks` as Twilio names them."""

    def __init__(self, *tracks: str, stream: str = STREAM, call: str = CALL, **parameters: str) -> None:
        self.tracks = tracks or ("inbound",)
        self.stream, self.call, self.parameters = stream, call, parameters
        self.sequence = 0
        self._chunks = dict.fromkeys(self.tracks, 0)

    def _numbered(self, event: str, body: Json) -> Json:
        self.sequence += 1
        return {"event": event, "sequenceNumber": str(self.sequence), event: body, "streamSid": self.stream}

    def start(self) -> Json:
        return self._numbered(
            "start",
            {
                "accountSid": ACCOUNT,
                "streamSid": self.stream,
                "callSid": self.call,
                "tracks": list(self.tracks),
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": self.parameters,
            },
        )

    def media(self, payload: bytes, timestamp: int, track: str = "inbound") -> Json:
        self._chunks[track] = self._chunks.get(track, 0) + 1
        return self._numbered(
            "media",
            {
                "track": track,
                "chunk": str(self._chunks[track]),
                "timestamp": str(timestamp),
                "payload": base64.b64encode(payload).decode(),
            },
        )

    def dtmf(self, digit: str) -> Json:
        return self._numbered("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> Json:
        return self._numbered("mark", {"name": name})

    def stop(self) -> Json:
        return self._numbered("stop", {"accountSid": ACCOUNT, "callSid": self.call})

    def sound(self, *tracks: Pcm, since_ms: int = 0) -> Iterator[Json]:
        """Yield the media messages of sound, int16[n] a track at 8 kHz: 20 ms each, the tracks in turn."""
        coded = [g711(track, "mulaw") for track in tracks]
        for at in range(0, max(map(len, coded)), FRAME):
            for name, codes in zip(self.tracks, coded, strict=True):
                if at < len(codes):
                    yield self.media(codes[at : at + FRAME], since_ms + at // 8, name)


@asynccontextmanager
async def connected(
    url: str, signed: str | None = None, headers: dict[str, str] | None = None
) -> AsyncGenerator[aiohttp.ClientWebSocketResponse]:
    """Connect as Twilio does. `url`: of the server, http://…; `signed`: the address that is signed, if another."""
    address = f"ws{url.removeprefix('http')}{PATH}"
    given = {"X-Twilio-Signature": signature(signed or f"wss{url.removeprefix('http')}{PATH}")} | (headers or {})
    async with aiohttp.ClientSession() as client, client.ws_connect(address, headers=given) as socket:
        yield socket


async def say(socket: aiohttp.ClientWebSocketResponse, *messages: Json) -> None:
    for message in messages:
        await socket.send_str(json.dumps(message))


async def whole_call(url: str, call: Call, tracks: Sequence[Pcm]) -> int | None:
    """Send a call from its first message to its last; return the close code of the server."""
    async with connected(url) as socket:
        await say(socket, CONNECTED, call.start(), *call.sound(*tracks), call.stop())
        assert (await socket.receive(60)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        return socket.close_code
