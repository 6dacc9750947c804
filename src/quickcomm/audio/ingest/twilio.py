"""`WS /v1/ingest/twilio`: telephone calls from Twilio Media Streams, by Twilio's "Media Streams - WebSocket Messages".

A call's tracks are the speakers of a conversation, in the order in which `start` names them. Twilio sends no sound
again and reads no acks: its sequence numbers and timestamps tell what is missing, and that is declared as a gap of its
track.
"""

import asyncio
import base64
import hashlib
import hmac
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np
import structlog
from aiohttp import WSMsgType, web

from quickcomm.audio.ingest.caller import Authenticate, Caller
from quickcomm.audio.ingest.reception import BreachError, Reception, converse, not_websocket, refused
from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.formats import Int16, decode, parse_channel, parse_conversation_id
from quickcomm.audio.model.settings import TwilioSettings
from quickcomm.audio.ports import OpenRequest
from quickcomm.audio.service.manager import Session
from quickcomm.audio.service.metrics import IGNORED
from quickcomm.audio.service.outlet import Outlet
from quickcomm.contracts.audio_socket import RELAYED, TWILIO_PATH, AudioFormat, CloseCode
from quickcomm.kernel.errors import MALFORMED, ForbiddenError, InvalidInputError, QuickCommError
from quickcomm.kernel.http.problems import problem

NAME: Final = "twilio"
SIGNATURE: Final = "X-Twilio-Signature"
RATE: Final = 8_000
MULAW: Final = AudioFormat(encoding="mulaw", sample_rate=RATE)
MOST_TRACKS: Final = 2
MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Twilio sends 20 ms in about 400 bytes, and in `start` parameters of up to 500 characters each."""
START_WITHIN_S: Final = 10.0
MESSAGES_A_SECOND: Final = 2_000
"""A connection that sends more is read more slowly; two tracks in real time are 100."""
OUT_OF_ORDER: Final = 10
"""So many messages wait for a missing one before it is given up."""
JITTER: Final = RATE * 60 // 1000
"""A timestamp may be off by so many samples while the sound has no gap."""
HOLD: Final = RATE // 2
"""One track waits for the other by so many samples; sound that is missing then is a gap."""
BATCH: Final = RATE // 10
PORT: Final = re.compile(r":\d+$")
MAX_GAP: Final = RATE * 3_600
DIGITS: Final = frozenset({"dtmf", "mark"})
"""Known messages that are no speech."""

ENDINGS: Final[dict[EndReason | None, CloseCode]] = {
    None: CloseCode.NORMAL,
    EndReason.ENDED: CloseCode.NORMAL,
    EndReason.MOVED: CloseCode.GOING_AWAY,
}
"""Of all others: `RESTART`."""

Piece = tuple[list[Int16 | None], int]
"""For each track int16[n] or None for a gap, and n."""

log = structlog.get_logger(__name__)


class MediaFormat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    encoding: str = "audio/x-mulaw"
    sample_rate: int = RATE
    channels: int = 1


class Start(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    stream_sid: str
    call_sid: str
    tracks: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MOST_TRACKS)]
    custom_parameters: dict[str, str] = {}
    media_format: MediaFormat = MediaFormat()


class Media(msgspec.Struct, frozen=True, kw_only=True):
    track: str
    timestamp: Annotated[int, msgspec.Meta(ge=0)]
    """Milliseconds since the stream began."""
    payload: Annotated[bytes, msgspec.Meta(max_length=RATE)]


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Numbers come as strings. Only `connected` has no sequence number; `start` has 1."""

    event: str
    sequence_number: int = 0
    start: Start | None = None
    media: Media | None = None


_message: Final = msgspec.json.Decoder(Message, strict=False)


class MediaStreams:
    path = TWILIO_PATH

    def __init__(self, reception: Reception, authenticate: Authenticate) -> None:
        del authenticate  # Twilio has no API key: it signs its request
        self._reception = reception
        self._settings = reception.settings.twilio

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if (answer := not_websocket(request)) is not None:
            return answer
        reason = refusal(self._settings, request.headers.get(SIGNATURE), request.host, request.path_qs)
        if reason is not None:
            log.warning("twilio.refused", reason=reason)
            return problem(HTTPStatus.FORBIDDEN, "audio.twilio_signature", reason)
        try:
            await self._reception.check_open(request)
        except QuickCommError as error:
            return refused(error)
        async with self._reception.upgraded(request, MAX_MESSAGE_BYTES) as socket:
            await socket.close(code=await self._serve(socket))
            return socket

    async def _serve(self, socket: web.WebSocketResponse) -> CloseCode:
        """Serve one stream; return the code to close with."""
        messages = in_order(socket)
        caller = Caller(site=self._settings.site, key_id=NAME, still_valid=_is_valid)
        try:
            start = await first(messages)
            wanted = self._wanted(start)
            async with (
                self._reception.place(caller, wanted.channel, wanted.conversation_id),
                self._reception.session(caller, wanted) as session,
            ):
                timeline = Timeline(start.tracks, session.conversation.next_offset)
                listen = listen_to(messages, timeline, partial(_take, session), partial(_end, session))
                ended_by = await converse(session.outlet, _discard_events(session.outlet), listen)
                if isinstance(ended_by, BreachError):
                    raise ended_by
                return ENDINGS.get(ended_by, CloseCode.RESTART)
        except BreachError as error:
            log.warning("twilio.breach", code=error.code, error=str(error))
            return error.close_code
        except InvalidInputError as error:
            log.warning("twilio.refused", reason=str(error))
            return CloseCode.POLICY
        except (QuickCommError, TimeoutError) as error:
            log.warning("twilio.not_opened", error=str(error))
        return CloseCode.TRY_LATER

    def _wanted(self, start: Start) -> OpenRequest:
        """Name the conversation by call and stream, so that the same stream finds it again. Raises `BreachError`."""
        language = start.custom_parameters.get("language", "")
        if language and language.partition("-")[0].lower() != self._reception.language:
            log.warning("twilio.language_not_supported", language=language, engine=self._reception.language)
        return request_of(self._settings, start, self._reception.own_id)


def request_of(settings: TwilioSettings, start: Start, id_of: Callable[[str], str]) -> OpenRequest:
    """Return what a stream asks for. `id_of`: makes the id of call and stream the conversation's.

    Raises `BreachError`, `InvalidInputError`.
    """
    if start.media_format != MediaFormat():
        raise BreachError(CloseCode.UNSUPPORTED, "audio.twilio_format", "Only audio/x-mulaw at 8000 Hz is taken.")
    if len(set(start.tracks)) < len(start.tracks):
        raise BreachError(CloseCode.POLICY, "audio.twilio_start", "A track is named twice.")
    conversation_id = id_of(parse_conversation_id(f"{start.call_sid}.{start.stream_sid}"))
    return OpenRequest(
        site=settings.site,
        conversation_id=conversation_id,
        channel=parse_channel(start.custom_parameters.get("channel", "")) or settings.channel,
        format=msgspec.structs.replace(MULAW, speakers=len(start.tracks)),
        token=hmac.new(settings.auth_token.encode(), conversation_id.encode(), hashlib.sha256).hexdigest(),
        resumes=False,
    )


def relayed_caller(settings: TwilioSettings, request: web.Request) -> Caller:
    """Authenticate the call that the session relay passes on by the native socket. Raises `ForbiddenError`.

    Twilio's signature of the request that it sent to the relay is its credential.
    """
    host, _, path = request.headers.get(RELAYED, "").partition("/")
    reason = refusal(settings, request.headers.get(SIGNATURE), host, f"/{path}")
    if reason is not None or urlsplit(f"/{path}").path != TWILIO_PATH:
        raise ForbiddenError(reason or f"Only a call that came to {TWILIO_PATH} is passed on.")
    return Caller(site=settings.site, key_id=NAME, still_valid=_is_valid)


def refusal(settings: TwilioSettings, signature: str | None, host: str, path: str) -> str | None:
    """Return why an upgrade request is not taken for one of Twilio's; None where its signature is right.

    Twilio signs the address of `<Stream>` by HMAC-SHA1 under the account's auth token, in base64; its libraries take it
    with the port and without. `host`, `path`: of the request, in case that no `public_url` is set.
    """
    if not settings.auth_token:
        return "Twilio is not set up here: set audio.twilio.auth_token (QUICKCOMM_AUDIO_TWILIO_AUTH_TOKEN)."
    if not signature:
        return f"The request has no {SIGNATURE}: only Twilio can connect here."
    parts = urlsplit((settings.public_url or f"wss://{host}").rstrip("/") + path)
    bare = PORT.sub("", parts.netloc)
    for netloc in (parts.netloc, bare, f"{bare}:443"):
        url = parts._replace(scheme="wss", netloc=netloc).geturl()
        digest = hmac.new(settings.auth_token.encode(), url.encode(), hashlib.sha1).digest()
        if hmac.compare_digest(base64.b64encode(digest), signature.encode("utf-8", "surrogateescape")):
            return None
    return (
        f"The signature is not the one of {parts.path}. audio.twilio.auth_token must be the account's, and "
        "audio.twilio.public_url the beginning of the <Stream> url, as Twilio has it."
    )


async def in_order(socket: web.WebSocketResponse) -> AsyncIterator[Message]:
    """Yield messages by their sequence numbers. Malformed, repeated and late ones are counted and left out."""
    order, loop = Order(), asyncio.get_running_loop()
    second, read = loop.time(), 0
    async for raw in socket:
        read += 1
        if read > MESSAGES_A_SECOND:
            await asyncio.sleep(max(0.0, second + 1.0 - loop.time()))
        if loop.time() - second >= 1.0:
            second, read = loop.time(), 0
        try:
            message = _message.decode(raw.data if raw.type is WSMsgType.TEXT else b"")
        except MALFORMED:
            IGNORED.labels(NAME, "malformed").inc()
            continue
        for each in order.put(message):
            yield each
    for each in order.rest():
        yield each


class Order:
    """Messages that came before one with a lower sequence number, until that is there or given up."""

    def __init__(self) -> None:
        self._next = 1
        self._early: dict[int, Message] = {}

    def put(self, message: Message) -> Iterator[Message]:
        number = message.sequence_number
        if not number:
            yield message
        elif number < self._next or number in self._early:
            IGNORED.labels(NAME, "late").inc()
        else:
            self._early[number] = message
            if len(self._early) > OUT_OF_ORDER:
                self._next = min(self._early)
            while (found := self._early.pop(self._next, None)) is not None:
                self._next += 1
                yield found

    def rest(self) -> Iterator[Message]:
        for number in sorted(self._early):
            yield self._early[number]


class TrackBuffer:
    """Sound of one track that is not taken yet, by its place in the stream."""

    def __init__(self, at: int) -> None:
        self.end = at
        """The offset behind the newest sound."""
        self._pieces: deque[tuple[int, Int16]] = deque()
        self._begun = False
        """Before the first sound, what lies before `end` has been taken over another connection."""

    def put(self, start: int, samples: Int16) -> None:
        """Add int16[n] that begins at `start`. Raises `BreachError` for a timestamp that cannot be."""
        if start - self.end > MAX_GAP:
            raise BreachError(CloseCode.POLICY, "audio.twilio_timestamp", "A timestamp is more than an hour ahead.")
        if 0 <= start - self.end <= JITTER or (self._begun and 0 < self.end - start <= JITTER):
            start = self.end
        samples = samples[max(0, self.end - start) :]
        if not len(samples):
            IGNORED.labels(NAME, "repeated").inc()
            return
        start = max(start, self.end)
        if self._pieces and start == self.end:
            start, before = self._pieces.pop()
            samples = np.concatenate((before, samples))
        self.end = start + len(samples)
        self._pieces.append((start, samples))
        self._begun = True

    def until(self, at: int) -> int:
        """Return the offset at which sound that lies at `at` ends, or the gap there; at most `end`."""
        if not self._pieces:
            return self.end
        start, samples = self._pieces[0]
        return start if start > at else start + len(samples)

    def cut(self, at: int, end: int) -> Int16 | None:
        """Take what lies from `at` to `end`, int16[end - at]; None for a gap."""
        self.end = max(self.end, end)
        if not self._pieces or self._pieces[0][0] > at:
            return None
        start, samples = self._pieces.popleft()
        if start + len(samples) > end:
            self._pieces.appendleft((end, samples[end - start :]))
        return samples[at - start : end - start]


class Timeline:
    """Lays tracks beside each other. `at`: the samples of the stream that the conversation has already."""

    def __init__(self, tracks: Sequence[str], at: int) -> None:
        self._tracks = {track: TrackBuffer(at) for track in tracks}
        self._at = at

    def put(self, media: Media) -> list[Piece]:
        """Add sound; return what the conversation can take now, in order."""
        track = self._tracks.get(media.track)
        if track is None:
            IGNORED.labels(NAME, "track").inc()
            return []
        [samples] = decode(media.payload, MULAW)
        track.put(media.timestamp * RATE // 1000, samples)
        ends = [each.end for each in self._tracks.values()]
        ready = max(min(ends), max(ends) - HOLD)
        return self._cut(ready) if ready - self._at >= BATCH else []

    def rest(self) -> list[Piece]:
        """Return what is left at the end."""
        return self._cut(max(track.end for track in self._tracks.values()))

    def _cut(self, ready: int) -> list[Piece]:
        pieces: list[Piece] = []
        tracks = self._tracks.values()
        while self._at < ready:
            bounds = [bound for track in tracks if (bound := track.until(self._at)) > self._at]
            end = min([ready, *bounds])
            pieces.append(([track.cut(self._at, end) for track in tracks], end - self._at))
            self._at = end
        return pieces


async def first(messages: AsyncIterator[Message]) -> Start:
    """Return the `start` of a stream. Raises `BreachError`, and `TimeoutError` where it does not come."""
    async with asyncio.timeout(START_WITHIN_S):
        async for message in messages:
            if message.start is not None:
                return message.start
            if message.event != "connected":
                break
    raise BreachError(CloseCode.POLICY, "audio.twilio_start", "The first message of a stream is `start`.")


async def listen_to(
    messages: AsyncIterator[Message],
    timeline: Timeline,
    take: Callable[[Iterable[Piece]], Awaitable[None]],
    end: Callable[[], None],
) -> None:
    """Give the sound of a stream to `take`, and call `end` after its last message, if that comes."""
    ended = False
    async for message in messages:
        if message.media is not None:
            await take(timeline.put(message.media))
        elif message.event == "stop":
            ended = True
            break
        else:
            IGNORED.labels(NAME, message.event if message.event in DIGITS else "unknown").inc()
    await take(timeline.rest())
    if ended:
        end()


def _end(session: Session) -> None:
    if session.conversation.serves(session.outlet):
        session.conversation.end()


async def _take(session: Session, pieces: Iterable[Piece]) -> None:
    for tracks, samples in pieces:
        if session.conversation.serves(session.outlet):
            await session.conversation.take(tracks, samples)


async def _discard_events(outlet: Outlet) -> None:
    """Read events until the end: Twilio takes none."""
    async for _ in outlet.events():
        pass


async def _is_valid() -> bool:
    return True
