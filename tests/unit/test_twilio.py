"""Twilio's calls: signature, order, gaps, and what becomes of them in a conversation, over a real socket."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.support.hearing import Hall, hall, silence, speech
from tests.support.twilio import CALL, CONNECTED, FRAME, STREAM, TOKEN, Call, connected, say, signature, whole_call
from tests.unit.test_audio_share import Followed, routes

from quickcomm.audio.ingest.caller import Caller
from quickcomm.audio.ingest.reception import Reception
from quickcomm.audio.ingest.twilio import (
    HOLD,
    JITTER,
    OUT_OF_ORDER,
    Media,
    MediaStreams,
    Message,
    Order,
    Timeline,
    refusal,
    relayed_caller,
)
from quickcomm.audio.model.ending import EndReason
from quickcomm.audio.model.settings import AudioSettings, TwilioSettings
from quickcomm.audio.service.share import Share
from quickcomm.contracts.audio_socket import Utterance
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.identity import bucket
from quickcomm.contracts.routes import HEADER
from quickcomm.kernel.errors import ForbiddenError

RATE = 8_000
HERE = "wss://ops.example.com/v1/ingest/twilio"
SET_UP = TwilioSettings(auth_token=TOKEN)
PHRASE = np.concatenate([silence(0.6, RATE), speech(1.2, RATE), silence(1.2, RATE)])
QUIET = silence(3.0, RATE)
CONVERSATION = f"{CALL}.{STREAM}"


# -- signature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["ops.example.com", "ops.example.com:443"])
def test_a_signature_of_the_address_is_right_with_the_port_and_without(host: str) -> None:
    for signed in (HERE, HERE.replace(".com", ".com:443")):
        assert refusal(SET_UP, signature(signed), host, "/v1/ingest/twilio") is None


def test_behind_a_proxy_the_public_address_counts() -> None:
    behind = TwilioSettings(auth_token=TOKEN, public_url="https://ops.example.com/quick/")
    signed = signature("wss://ops.example.com/quick/v1/ingest/twilio")
    assert refusal(behind, signed, "10.0.0.7:8080", "/v1/ingest/twilio") is None
    assert refusal(SET_UP, signed, "10.0.0.7:8080", "/v1/ingest/twilio") is not None


@pytest.mark.parametrize(
    ("settings", "signed", "says"),
    [
        (TwilioSettings(), signature(HERE), "audio.twilio.auth_token"),
        (SET_UP, None, "X-Twilio-Signature"),
        (SET_UP, "", "X-Twilio-Signature"),
        (SET_UP, signature(HERE, "another token"), "auth_token must be"),
        (SET_UP, signature(HERE + "/"), "public_url"),
        (SET_UP, "\udcff\x00no base64", "auth_token must be"),
    ],
)
def test_a_refusal_says_what_to_do_and_nothing_secret(settings: TwilioSettings, signed: str | None, says: str) -> None:
    reason = refusal(settings, signed, "ops.example.com", "/v1/ingest/twilio")
    assert reason is not None
    assert says in reason
    assert TOKEN not in reason
    assert TOKEN not in repr(AudioSettings(twilio=SET_UP))


# -- order and gaps -------------------------------------------------------------------------------------------------


def numbered(*numbers: int) -> list[Message]:
    return [Message(event="media", sequence_number=number) for number in numbers]


@given(st.permutations(range(1, OUT_OF_ORDER + 1)))
def test_messages_that_come_out_of_order_are_put_in_order(numbers: list[int]) -> None:
    order = Order()
    found = [each for message in numbered(*numbers) for each in order.put(message)]
    assert [message.sequence_number for message in found] == sorted(numbers)
    assert not list(order.rest())


@given(st.lists(st.integers(0, 60), max_size=80))
def test_whatever_numbers_come_each_is_given_once_and_none_goes_back(numbers: list[int]) -> None:
    order = Order()
    found = [each for message in numbered(*numbers) for each in order.put(message)] + list(order.rest())
    counted = [message.sequence_number for message in found if message.sequence_number]
    assert counted == sorted(set(counted))
    assert len(found) - len(counted) == numbers.count(0), "messages without a number are never held back"


def test_a_message_that_stays_away_is_given_up() -> None:
    order = Order()
    found = [each for message in numbered(1, *range(3, 4 + OUT_OF_ORDER)) for each in order.put(message)]
    assert [message.sequence_number for message in found] == [1, *range(3, 4 + OUT_OF_ORDER)]
    assert not list(order.put(*numbered(2))), "it would be heard behind what followed it"


frames = st.lists(st.tuples(st.sampled_from(["inbound", "outbound"]), st.integers(0, 200)), max_size=120)


@given(frames, st.integers(0, 50))
def test_tracks_lie_side_by_side_whatever_is_missing(sent: list[tuple[str, int]], at: int) -> None:
    """Each piece has as many samples of both tracks, or gaps; it ends where its timestamps say."""
    timeline = Timeline(("inbound", "outbound"), at * FRAME)
    pieces = []
    for track, number in sent:
        pieces += timeline.put(Media(track=track, timestamp=20 * number, payload=bytes(FRAME)))
    pieces += timeline.rest()
    offset = at * FRAME
    for tracks, samples in pieces:
        assert samples > 0
        assert all(part is None or len(part) == samples for part in tracks)
        offset += samples
    ends = [20 * 8 * number + FRAME for _, number in sent if number >= at]
    assert abs(offset - max([at * FRAME, *ends])) <= JITTER


def test_sound_of_one_track_waits_for_the_other_but_not_for_ever() -> None:
    timeline = Timeline(("inbound", "outbound"), 0)
    silent = [
        piece
        for number in range(100)
        for piece in timeline.put(Media(track="inbound", timestamp=20 * number, payload=bytes(FRAME)))
    ]
    assert all(tracks[1] is None and tracks[0] is not None for tracks, _ in silent)
    assert 100 * FRAME - sum(samples for _, samples in silent) <= HOLD + RATE // 10


@given(st.lists(st.integers(-JITTER // 20, JITTER // 20), min_size=1, max_size=200))
def test_a_timestamp_that_is_a_little_off_is_no_gap(off: list[int]) -> None:
    timeline = Timeline(("inbound",), 0)
    pieces = []
    for number, each in enumerate(off):
        pieces += timeline.put(Media(track="inbound", timestamp=max(0, 20 * number + each), payload=bytes(FRAME)))
    pieces += timeline.rest()
    assert all(tracks[0] is not None for tracks, _ in pieces)
    assert sum(samples for _, samples in pieces) == len(off) * FRAME


# -- over a socket --------------------------------------------------------------------------------------------------


async def nobody(request: web.Request) -> Caller:
    raise AssertionError(f"No API key is asked for: {request.path}")


@asynccontextmanager
async def site(here: Hall, share: Share | None = None) -> AsyncGenerator[str]:
    ingest = MediaStreams(Reception(here.manager, share=share), nobody)
    app = web.Application()
    app.router.add_get(MediaStreams.path, ingest.handle)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@asynccontextmanager
async def desk(path: Path, twilio: TwilioSettings = SET_UP) -> AsyncGenerator[tuple[Hall, str]]:
    settings = AudioSettings(answer_wait_s=0.0, twilio=twilio)
    async with hall(path / "site.sqlite", settings=settings) as here, site(here) as url:
        yield here, url


async def spoken(here: Hall, conversation_id: str = CONVERSATION) -> list[Utterance]:
    log = await here.store.events("main", conversation_id, 0)
    return [event for event in log if isinstance(event, Utterance)]


async def ended(here: Hall, conversation_id: str = CONVERSATION) -> tuple[Ledger, ...]:
    async with asyncio.timeout(30):
        while True:
            changes = await here.store.ledgers(conversation_id)
            if changes and changes[0].state == "ended":
                return changes[0].ledgers
            await asyncio.sleep(0.01)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


def cut(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Break the connection off without a close frame, as where the network is cut."""
    socket._response.close()


def ignored(reason: str) -> float:
    return REGISTRY.get_sample_value("quickcomm_ingest_ignored_total", {"ingest": "twilio", "reason": reason}) or 0.0


async def test_a_call_from_its_first_message_to_its_last(tmp_path: Path) -> None:
    async with desk(tmp_path) as (here, url):
        assert await whole_call(url, Call("inbound", channel="front desk"), [PHRASE]) == 1000
        [ledger] = await ended(here)
        assert (ledger.received, ledger.gap) == (len(PHRASE), 0)
        [utterance] = await spoken(here)
        assert abs(utterance.start_offset - 0.6 * RATE) < 0.5 * RATE
        [change] = await here.store.ledgers(CONVERSATION)
        assert (change.channel, change.sample_rate, change.speakers) == ("front desk", RATE, 1)


async def test_two_tracks_are_two_speakers(tmp_path: Path) -> None:
    async with desk(tmp_path) as (here, url):
        both = [np.concatenate([PHRASE, QUIET]), np.concatenate([QUIET, PHRASE])]
        assert await whole_call(url, Call("inbound", "outbound"), both) == 1000
        ledgers = await ended(here)
        assert [(ledger.received, ledger.gap) for ledger in ledgers] == [(6 * RATE, 0)] * 2
        assert [utterance.speaker for utterance in await spoken(here)] == [0, 1]
        [change] = await here.store.ledgers(CONVERSATION)
        assert change.channel == "phone"


@pytest.mark.parametrize("kind", ["unset", "missing", "wrong", "another address"])
async def test_only_twilio_may_connect(tmp_path: Path, kind: str) -> None:
    async with desk(tmp_path, TwilioSettings() if kind == "unset" else SET_UP) as (here, url):
        headers = {
            "missing": {"X-Twilio-Signature": ""},
            "wrong": {"X-Twilio-Signature": signature(f"wss{url[4:]}/v1/ingest/twilio", "wrong")},
        }.get(kind, {})
        signed = "wss://elsewhere.example/v1/ingest/twilio" if kind == "another address" else None
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(url, signed, headers):
                pass
        assert refused.value.status == 403
        assert not here.manager.conversations


async def test_a_request_that_is_no_websocket_is_answered(tmp_path: Path) -> None:
    async with desk(tmp_path) as (_, url), aiohttp.ClientSession() as client:
        answer = await client.get(f"{url}/v1/ingest/twilio")
        assert (answer.status, (await answer.json())["code"]) == (426, "audio.not_websocket")


async def test_what_is_lost_is_a_declared_gap(tmp_path: Path) -> None:
    """Messages 30 to 79 never come; the sound behind them lies where it was said."""
    call = Call()
    messages = [call.start(), *call.sound(np.concatenate([PHRASE, PHRASE]))]
    async with desk(tmp_path) as (here, url), connected(url) as socket:
        await say(socket, CONNECTED, *messages[:200], *messages[250:], call.stop())
        [ledger] = await ended(here)
        assert (ledger.received, ledger.gap) == (2 * len(PHRASE), 50 * FRAME)
        starts = [utterance.start_offset for utterance in await spoken(here)]
        assert len(starts) == 2
        assert abs(starts[1] - starts[0] - len(PHRASE)) <= 2 * 256, "up to a frame of the front end at either end"


async def test_torn_repeated_and_unknown_messages_are_counted_and_left_out(tmp_path: Path) -> None:
    call = Call()
    messages = [call.start(), *call.sound(PHRASE)]
    before = {reason: ignored(reason) for reason in ("malformed", "late", "unknown", "dtmf", "mark", "track")}
    async with desk(tmp_path) as (here, url), connected(url) as socket:
        await say(socket, CONNECTED, *messages[:20])
        for torn in ('{"event":"media","sequenceNu', "", "[]", "7", '{"event":7}', '{"event":"media","media":{}}'):
            await socket.send_str(torn)
        await socket.send_bytes(b"\x00\xff")
        await say(
            socket, messages[5], call.dtmf("1"), call.mark("x"), {"event": "of a later version"}, *messages[20:40]
        )
        await say(socket, *messages[40:], call.media(bytes(FRAME), 0, "third"), call.stop())
        [ledger] = await ended(here)
        assert (ledger.received, ledger.gap) == (len(PHRASE), 0)
        assert len(await spoken(here)) == 1
    told = {reason: ignored(reason) - count for reason, count in before.items()}
    assert told == {"malformed": 7, "late": 1, "unknown": 1, "dtmf": 1, "mark": 1, "track": 1}


async def test_messages_out_of_order_are_heard_in_order(tmp_path: Path) -> None:
    call = Call()
    messages = [call.start(), *call.sound(PHRASE), call.stop()]
    for at in range(10, 140, 10):
        messages[at], messages[at + 4] = messages[at + 4], messages[at]
    async with desk(tmp_path) as (here, url), connected(url) as socket:
        await say(socket, CONNECTED, *messages)
        [ledger] = await ended(here)
        assert (ledger.received, ledger.gap) == (len(PHRASE), 0)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("x" * 70_000, 1009),
        (json.dumps({**Call().media(bytes(9_000), 0), "event": "media"}), None),
        (json.dumps(Call().media(bytes(FRAME), 10**9)), 1008),
    ],
)
async def test_what_is_out_of_all_bounds(tmp_path: Path, message: str, code: int | None) -> None:
    """A message or a gap that is too large ends the stream; a payload of more than a second is left out."""
    call = Call()
    async with desk(tmp_path) as (here, url), connected(url) as socket:
        await say(socket, CONNECTED, call.start())
        await socket.send_str(message.replace('"sequenceNumber": "1"', '"sequenceNumber": "2"'))
        if code is None:
            call.sequence = 2
            await say(socket, *call.sound(PHRASE), call.stop())
            [ledger] = await ended(here)
            assert ledger.received == len(PHRASE)
        else:
            await socket.receive(30)
            assert socket.close_code == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tracks": []}, 1008),
        ({"tracks": ["a", "b", "c"]}, 1008),
        ({"tracks": ["inbound", "inbound"]}, 1008),
        ({"mediaFormat": {"encoding": "audio/l16", "sampleRate": 16000, "channels": 1}}, 1003),
        ({"callSid": "no/id"}, 1008),
        ({"customParameters": {"channel": "x" * 200}}, 1008),
    ],
)
async def test_a_start_that_is_not_taken(tmp_path: Path, change: dict[str, object], code: int) -> None:
    start = Call().start()
    start["start"] |= change
    async with desk(tmp_path) as (here, url), connected(url) as socket:
        await say(socket, CONNECTED, start, Call().media(bytes(FRAME), 0))
        await socket.receive(30)
        assert socket.close_code == code
        assert not here.manager.conversations


async def test_a_call_that_breaks_off_goes_on_where_it_was(tmp_path: Path) -> None:
    """The same stream again, with some of the same sound: nothing is heard twice, what nobody sent is a gap."""
    call = Call()
    messages = [call.start(), *call.sound(np.concatenate([PHRASE, QUIET, PHRASE]))]
    async with desk(tmp_path) as (here, url):
        async with connected(url) as socket:
            await say(socket, CONNECTED, *messages[:200])
            live = here.manager
            await until(lambda: bool(live.conversations) and live.conversations[0].next_offset >= 190 * FRAME)
            cut(socket)
        await until(lambda: not here.manager.conversations[0].connected)
        assert here.manager.conversations[0].state == "interrupted"
        again = Call()
        async with connected(url) as socket:
            rest = [CONNECTED, again.start()]
            for message in [*messages[180:201], *messages[230:]]:
                again.sequence += 1
                rest.append({**message, "sequenceNumber": str(again.sequence)})
            await say(socket, *rest, again.stop())
            [ledger] = await ended(here)
        assert ledger.received == 2 * len(PHRASE) + len(QUIET)
        assert abs(ledger.gap - 29 * FRAME) <= 2 * FRAME
        spans = [(utterance.start_offset, utterance.end_offset) for utterance in await spoken(here)]
        assert len(spans) == len(set(spans)) == 2


async def test_a_call_that_is_cut_off_for_good_is_published_after_the_grace(tmp_path: Path) -> None:
    call = Call()
    async with desk(tmp_path) as (here, url):
        async with connected(url) as socket:
            await say(socket, CONNECTED, call.start(), *call.sound(PHRASE[: 2 * RATE // 10 * 8]))
            await until(lambda: bool(here.manager.conversations))
            cut(socket)
        await until(lambda: not here.manager.conversations[0].connected)
        [conversation] = here.manager.conversations
        conversation.flush_here()
        await until(lambda: conversation.last_seq == 1)
        conversation.expire()
        await until(lambda: conversation.finished)
        assert conversation.state == "expired"


async def test_a_server_that_drains_takes_no_call(tmp_path: Path) -> None:
    async with desk(tmp_path) as (here, url):
        await here.manager.drain()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(url):
                pass
        assert refused.value.status == 503


# -- while audio moves ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def moving(path: Path, weight: int) -> AsyncGenerator[tuple[Hall, str]]:
    """The monolith's audio, of which the service has a share."""
    settings = AudioSettings(answer_wait_s=0.0, twilio=SET_UP)
    share = Share("monolith", Followed(routes(3, weight), in_force=3))
    async with hall(path / "site.sqlite", settings=settings) as here, site(here, share) as url:
        yield here, url


async def test_a_call_gets_an_id_of_the_side_that_it_came_to(tmp_path: Path) -> None:
    weight = bucket("audio", CONVERSATION) + 1
    async with moving(tmp_path, weight) as (here, url):
        assert await whole_call(url, Call("inbound"), [PHRASE]) == 1000
        [change] = await here.store.ledgers(None)
        assert change.conversation_id.startswith(f"{CONVERSATION}.")
        assert bucket("audio", change.conversation_id) >= weight
        await ended(here, change.conversation_id)
        assert await spoken(here, change.conversation_id)


async def test_a_side_without_a_share_takes_no_call(tmp_path: Path) -> None:
    async with moving(tmp_path, 10_000) as (_, url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(url, headers={HEADER: "3"}):
                pass
        assert refused.value.status == 503
        assert refused.value.headers is not None
        assert refused.value.headers["Retry-After"] == "1"


async def test_a_call_that_has_to_end_is_closed_as_going_away(tmp_path: Path) -> None:
    async with desk(tmp_path) as (here, url), connected(url) as socket:
        call = Call("inbound")
        await say(socket, CONNECTED, call.start(), *call.sound(PHRASE))
        await until(lambda: any(each.in_hand for each in here.manager.conversations))
        [talk] = here.manager.conversations
        assert not talk.resumes
        await until(lambda: not talk.in_hand)
        talk.end_because(EndReason.MOVED)
        assert (await socket.receive(60)).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
        assert socket.close_code == 1001
        assert len(await spoken(here)) == 1


def relayed(url: str, **headers: str) -> web.Request:
    """The request by which the relay passes on a call that came to `url`."""
    address = url.removeprefix("wss://")
    given = {"x-quickcomm-relayed": address, "X-Twilio-Signature": signature(url), **headers}
    return make_mocked_request("GET", "/v1/conversations/c/audio", headers=given)


def test_a_relayed_call_is_known_by_the_signature_of_its_own_request() -> None:
    url = "wss://ops.example/v1/ingest/twilio?a=b"
    assert relayed_caller(SET_UP, relayed(url)).key_id == "twilio"
    for bad in (
        relayed(url, **{"X-Twilio-Signature": "wrong"}),
        relayed("wss://ops.example/v1/conversations/c/audio"),
        relayed(url, **{"x-quickcomm-relayed": "ops.example/v1/ingest/twilio"}),
        relayed(url, **{"x-quickcomm-relayed": ""}),
    ):
        with pytest.raises(ForbiddenError):
            relayed_caller(SET_UP, bad)
    with pytest.raises(ForbiddenError):
        relayed_caller(TwilioSettings(), relayed(url))
