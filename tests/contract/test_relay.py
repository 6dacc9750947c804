"""The session relay by the contract of the audio socket: what passes, what does not, and what it keeps."""

import asyncio
import random
from typing import Any, Final

import aiohttp
import pytest
from prometheus_client import REGISTRY
from tests.support.relaying import Relaying, relaying
from tests.support.scripted import INSIGHT, Line, Part, Refuse, utterance
from tests.support.talk import Pcm, at_rate, g711, shift_talk
from tests.support.twilio import CALL, CONNECTED, PATH, STREAM, Call, say
from tests.support.twilio import connected as calling
from tests.support.wire import Wire, connected

from quickcomm.audio.model.formats import decode
from quickcomm.contracts.audio_socket import RELAYED, AudioFormat

SECOND: Final = bytes(range(250)) * 64  # 8,000 samples
RATE: Final = 8_000
QUERY: Final = {"sample_rate": RATE, "encoding": "linear16"}
CANNOT: Final = {**QUERY, "resume": "no"}
NOTHING: Final = {"received": 0, "speech": 0, "silence": 0, "gap": 0}


async def hear_all(relay: Relaying, sound: bytes, query: dict[str, Any] = QUERY) -> Wire:
    """Send everything and `end`; return what was heard until the close."""
    async with connected(relay.url, relay.key, "c-1", **query) as wire:
        await wire.until("ready")
        await wire.send(sound, 1_600)
        await wire.say(type="end")
        await wire.until_closed()
        return wire


async def test_what_the_owner_says_passes_as_it_is_and_by_the_clients_own_key() -> None:
    said = {**utterance(1), "from_the_future": [1]}

    async def part(line: Line) -> None:
        assert line.request.headers["Authorization"] == f"Bearer {relay.key}"
        assert line.request.headers["X-Forwarded-For"] == "192.0.2.7"
        query = dict(line.request.query)
        assert len(query.pop("resume_token")) > 22
        assert query == {"sample_rate": "8000", "channel": "front desk", "after_seq": "0"}
        await line.ready(max_unacked_ms=61_000)
        assert await line.until_end() == SECOND
        await line.say("partial", speaker=0, start_offset=0, text="tow")
        await line.say("utterance", **said)
        await line.say("insights", seq=2, utterance_id="c-1:0:0", insights=[INSIGHT])
        await line.say("mood", of="a newer server")
        await line.say("ack", offset=8_000)
        await line.ended(received=8_000, silence=8_000)

    async with relaying(part) as relay, aiohttp.ClientSession() as client:
        address = f"{relay.url}/v1/conversations/c-1/audio"
        query = {"key": relay.key, "resume": "no", "sample_rate": "8000", "channel": "front desk"}
        async with client.ws_connect(address, params=query, headers={"X-Forwarded-For": "192.0.2.7"}) as socket:
            wire = Wire(socket, "c-1", "")
            ready = await wire.until("ready")
            assert (ready["max_unacked_ms"], ready["from_the_future"]) == (61_000, True)
            assert ready["resume_token"] == relay.owner.requests[0].query["resume_token"]
            await wire.send(SECOND, 1_600)
            await wire.end()
    assert [each["type"] for each in wire.heard[1:]] == ["partial", "utterance", "insights", "mood", "ack", "ended"]
    assert wire.of("utterance") == [{"type": "utterance", **said}]
    assert wire.of("insights")[0]["insights"] == [INSIGHT]


async def first_half(line: Line) -> None:
    await line.ready()
    await line.audio(len(SECOND))
    await line.say("utterance", **utterance(1))
    await line.say("ack", offset=4_000)


async def moves(line: Line) -> None:
    await first_half(line)
    await line.say("reconnect", reason="handover", after_ms=0)
    await line.socket.close(code=1012)


async def dies(line: Line) -> None:
    await first_half(line)
    line.cut()


async def is_fenced(line: Line) -> None:
    await first_half(line)
    await line.say("error", code="audio.fenced", message="Elsewhere.", retryable=True)
    await line.socket.close(code=1012)


async def fails(line: Line) -> None:
    await first_half(line)
    await line.say("error", code="audio.failed", message="A defect.", retryable=True)
    await line.socket.close(code=1011)


@pytest.mark.parametrize("query", [QUERY, CANNOT])
@pytest.mark.parametrize("before", [moves, dies, is_fenced, fails])
async def test_the_client_does_not_notice_that_the_owner_changes(before: Part, query: dict[str, Any]) -> None:
    async def after(line: Line) -> None:
        assert line.request.query["after_seq"] == "1"
        assert line.request.query["resume_token"] == relay.owner.requests[0].query["resume_token"]
        await line.ready(next_offset=4_096, last_seq=1)
        assert await line.until_end() == (SECOND + SECOND)[2 * 4_096 :]
        await line.say("utterance", **utterance(1))
        await line.say("ack", offset=4_000)
        await line.say("utterance", **utterance(2, start=8_000))
        await line.ended(received=16_000, silence=16_000)

    async with relaying(before, Refuse(503, Retry_After="0"), after) as relay:
        wire = await hear_all(relay, SECOND + SECOND, query)
    assert wire.close_code == 1000
    assert [each["type"] for each in wire.heard] == ["ready", "utterance", "ack", "utterance", "ended"]
    assert [each["seq"] for each in wire.durable] == [1, 2]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_breaks_each_sample_and_each_event_comes_once(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test
    sound = chance.randbytes(40 * 1_600)
    heard, acked, seq = b"", 0, 0

    async def say_from(line: Line, first: int) -> None:
        """Send events again from `first` on, and a new one."""
        nonlocal seq
        seq += 1
        for number in range(first, seq + 1):
            await line.say("utterance", **utterance(number, start=number))

    async def part(line: Line) -> None:
        nonlocal heard, acked
        heard = heard[: 2 * chance.randint(acked, len(heard) // 2)]
        await line.ready(next_offset=len(heard) // 2)
        await say_from(line, chance.randint(1, int(line.request.query["after_seq"]) + 1))
        for _ in range(chance.randint(0, 6)):
            message = await line.hear()
            if not isinstance(message, bytes):
                break
            heard += message
        acked = chance.randint(acked, len(heard) // 2)
        await line.say("ack", offset=acked)
        if chance.random() < 0.5:
            await line.say("reconnect", reason="drain", after_ms=0)
        if chance.random() < 0.5:
            line.cut()

    async def last(line: Line) -> None:
        nonlocal heard
        await line.ready(next_offset=len(heard) // 2)
        await say_from(line, 1)
        heard += await line.until_end()
        await line.ended()

    async with relaying(*[part] * 8, last) as relay:
        wire = await hear_all(relay, sound)
    assert heard == sound
    assert [each["seq"] for each in wire.durable] == list(range(1, seq + 1))
    acks = [each["offset"] for each in wire.of("ack")]
    assert acks == sorted(set(acks))


def figure(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"quickcomm_relay_{name}", labels) or 0.0


async def test_figures_tell_of_sockets_bytes_and_moves() -> None:
    async def dies_soon(line: Line) -> None:
        await line.ready(next_offset=4_096)
        line.cut()

    async def after(line: Line) -> None:
        await line.ready(next_offset=4_096)
        during.append((figure("sockets"), figure("held_bytes") >= 8_000))
        await line.until_end()
        await line.ended()

    during: list[tuple[float, bool]] = []
    before = figure("resumed_total", after="reconnect"), figure("resumed_total", after="break")
    async with relaying(moves, dies_soon, after) as relay:
        await hear_all(relay, SECOND * 2)
        assert during == [(1.0, True)]
        moved, broken = figure("resumed_total", after="reconnect"), figure("resumed_total", after="break")
        assert (moved - before[0], broken - before[1]) == (1.0, 1.0)
        assert await relay.held() == 0
    assert (figure("sockets"), figure("held_bytes")) == (0.0, 0.0)


async def test_a_skip_a_flush_and_the_time_are_told_again_to_the_next_owner() -> None:
    async def part(line: Line) -> None:
        await line.ready(now_ms=1_700_000_000_000)
        controls = [await line.hear() for _ in range(4)]
        assert controls[1:] == [SECOND, {"type": "skip", "samples": 800}, {"type": "flush", "offset": 8_800}]
        told.append(controls[0])
        await line.say("ack", offset=4_000)
        line.cut()

    async def after(line: Line) -> None:
        await line.ready(next_offset=4_000, now_ms=1_700_000_000_000)
        controls = [await line.hear() for _ in range(5)]
        told.append(controls[0])
        rest = [SECOND[8_000:], {"type": "skip", "samples": 800}, {"type": "flush", "offset": 8_800}, {"type": "end"}]
        assert controls[1:] == rest
        await line.ended()

    told: list[Any] = []
    async with relaying(part, after) as relay, connected(relay.url, relay.key, "c-1", **QUERY) as wire:
        await wire.until("ready")
        await wire.say(type="captured", offset=0, at_ms=1_699_999_990_000)
        await wire.send(SECOND)
        await wire.say(type="skip", samples=800)
        await wire.say(type="flush", offset=8_800)
        await wire.end()
    assert [each["offset"] for each in told] == [0, 4_000]
    assert [round(each["at_ms"] - 1_699_999_990_000, -1) for each in told] == [0, 500]


async def test_a_client_that_comes_again_goes_on_where_the_owner_says() -> None:
    async def part(line: Line) -> None:
        assert line.request.query["after_seq"] == "7"
        await line.ready(next_offset=8_000, last_seq=8)
        await line.say("utterance", **utterance(7))
        await line.say("utterance", **utterance(8, start=1))
        assert await line.until_end() == SECOND
        await line.ended()

    async with relaying(part) as relay:
        wire = await hear_all(relay, SECOND, {**QUERY, "resume_token": "T" * 30, "after_seq": 7})
    assert [each["seq"] for each in wire.durable] == [8]


async def test_over_the_bound_the_client_is_held_back_and_nothing_is_lost() -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def part(line: Line) -> None:
        await line.ready()
        await line.audio(1_600)
        arrived.set()
        await go_on.wait()
        line.cut()

    async def after(line: Line) -> None:
        await line.ready()
        total = 0
        while isinstance(message := await line.hear(), bytes):
            total += len(message) // 2
            await line.say("ack", offset=total)
        assert total * 2 == 1_000 * len(SECOND)
        await line.ended()

    async with relaying(part, after, held_mb_each=1, held_mb=1, linger_s=1.0) as relay:
        async with connected(relay.url, relay.key, "c-1", **CANNOT) as wire:
            await wire.until("ready")
            sending = asyncio.create_task(wire.send(SECOND * 1_000, len(SECOND)))
            await arrived.wait()
            while await relay.held() < 1 << 20:  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.01)
            assert await relay.held() < (1 << 20) + 2 * len(SECOND)
            with pytest.raises(aiohttp.WSServerHandshakeError) as full:
                async with connected(relay.url, relay.key, "c-2", **CANNOT):
                    pass
            assert full.value.status == 503
            assert not sending.done()
            go_on.set()
            await sending
            await wire.end()
        assert await relay.held() == 0


async def test_what_a_client_that_cannot_resume_has_left_behind_is_delivered() -> None:
    got = asyncio.Event()

    async def part(line: Line) -> None:
        await line.ready()
        await line.audio(1_600)
        line.cut()

    async def after(line: Line) -> None:
        await line.ready()
        assert await line.audio(len(SECOND)) == SECOND
        await line.say("ack", offset=8_000)
        got.set()
        assert (await line.socket.receive(10)).type is aiohttp.WSMsgType.CLOSE

    async with relaying(part, Refuse(503, Retry_After="0"), after) as relay:
        async with connected(relay.url, relay.key, "c-1", **CANNOT) as wire:
            await wire.until("ready")
            await wire.send(SECOND, 1_600)
            await wire.socket.close()
        async with asyncio.timeout(20):
            await got.wait()
            await relay.owner.played.wait()


async def test_the_owner_is_left_at_once_when_a_client_goes_that_can_resume() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        while (await line.socket.receive(10)).type is aiohttp.WSMsgType.BINARY:
            pass

    async with relaying(part) as relay:
        async with connected(relay.url, relay.key, "c-1", **QUERY) as wire:
            await wire.until("ready")
            await wire.send(SECOND, 1_600)
        async with asyncio.timeout(10):
            await relay.owner.played.wait()


async def test_a_refusal_is_passed_on() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.say("error", code="audio.key_revoked", message="This key was revoked.")
        await line.socket.close(code=1008)

    async with relaying(part) as relay, connected(relay.url, relay.key, "c-1", **CANNOT) as wire:
        assert await wire.until_closed() == 1008
    assert wire.heard[-1] == {"type": "error", "code": "audio.key_revoked", "message": "This key was revoked."}


async def test_a_key_that_is_gone_when_the_owner_changes_ends_the_stream() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        line.cut()

    async with relaying(part, Refuse(401)) as relay, connected(relay.url, relay.key, "c-1", **CANNOT) as wire:
        assert await wire.until_closed() == 1008
    assert wire.heard[-1]["code"] == "client.unauthorized"


@pytest.mark.parametrize(
    ("data", "code", "close_code"),
    [
        (SECOND * 10 + b"\0\0", "audio.message_too_long", 1009),
        ('{"type":"skip","samples":"x"}', "audio.bad_control", 1008),
        ('{"type":"skip","samples":0}', "audio.bad_skip", 1008),
    ],
)
async def test_bad_input_is_refused_as_the_owner_does(data: bytes | str, code: str, close_code: int) -> None:
    async def part(line: Line) -> None:
        await line.ready()
        assert (await line.socket.receive(10)).type is aiohttp.WSMsgType.CLOSE

    async with relaying(part) as relay, connected(relay.url, relay.key, "c-1", **QUERY) as wire:
        await wire.until("ready")
        await (wire.socket.send_bytes(data) if isinstance(data, bytes) else wire.socket.send_str(data))
        assert await wire.until_closed() == close_code
    assert wire.heard[-1]["code"] == code


async def test_bad_parameters_never_reach_the_owner() -> None:
    async with relaying() as relay, connected(relay.url, relay.key, "c-1", encoding="opus") as wire:
        assert await wire.until_closed() == 1008
        assert wire.heard[-1]["code"] == "audio.invalid_request"
        assert relay.owner.requests == []


async def refused(relay: Relaying, key: str | None) -> tuple[int, str | None]:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        async with connected(relay.url, key, "c-1", **QUERY):
            pass
    headers = error.value.headers
    return error.value.status, None if headers is None else headers.get("Retry-After")


async def test_nobody_is_let_in_whom_the_owner_would_not_take() -> None:
    async with relaying(Refuse(503, Retry_After="7"), Refuse(401), Refuse(403), max_sockets=1) as relay:
        assert await refused(relay, None) == (401, None)
        assert await refused(relay, "wrong") == (401, None)
        assert relay.owner.requests == []
        assert await refused(relay, relay.key) == (503, "7")
        assert await refused(relay, relay.key) == (401, None)
        assert await refused(relay, relay.key) == (403, None)


async def test_there_is_a_bound_of_sockets() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.socket.receive(20)

    async with relaying(part, max_sockets=1) as relay, connected(relay.url, relay.key, "c-1", **QUERY) as wire:
        await wire.until("ready")
        assert (await refused(relay, relay.key))[0] == 503


async def drain(relay: Relaying) -> None:
    await relay.part.drain()


async def test_at_its_own_end_it_sends_clients_on_that_can_resume_and_delivers_what_others_have_said() -> None:
    delivered: list[bytes] = []

    async def part(line: Line) -> None:
        await line.ready()
        delivered.append(await line.audio(len(SECOND)))
        if line.request.match_info["id"] == "c-2":  # the one that cannot resume
            await line.say("ack", offset=8_000)
        await line.socket.receive(20)

    async with (
        relaying(part, part, linger_s=20.0) as relay,
        connected(relay.url, relay.key, "c-1", **QUERY) as can,
        connected(relay.url, relay.key, "c-2", **CANNOT) as cannot,
    ):
        for wire in (can, cannot):
            await wire.until("ready")
            await wire.send(SECOND, 1_600)
        await cannot.until("ack")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(drain(relay))
            assert await can.until_closed() == 1012
            assert await cannot.until_closed() == 1001
        assert can.heard[-1] == {"type": "reconnect", "reason": "drain", "after_ms": 0}
        assert cannot.of("reconnect") == []
        assert (await refused(relay, relay.key))[0] == 503
    assert delivered == [SECOND, SECOND]


async def test_a_client_that_has_said_end_hears_the_end_also_while_the_relay_stops() -> None:
    ending = asyncio.Event()

    async def part(line: Line) -> None:
        await line.ready()
        assert await line.until_end() == SECOND
        ending.set()
        await stopping.wait()
        await line.ended()

    stopping = asyncio.Event()
    async with relaying(part) as relay, connected(relay.url, relay.key, "c-1", **CANNOT) as wire:
        await wire.until("ready")
        await wire.send(SECOND, 1_600)
        await wire.say(type="end")
        await ending.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(drain(relay))
            assert (await refused(relay, relay.key))[0] == 503
            stopping.set()
            await wire.until("ended")
            assert await wire.until_closed() == 1000


async def test_without_an_owner_for_too_long_the_client_is_sent_away() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        line.cut()

    async def never(line: Line) -> None:
        relay.clock.advance(301.0)
        line.cut()

    async with relaying(part, never) as relay, connected(relay.url, relay.key, "c-1", **QUERY) as wire:
        assert await wire.until_closed() == 1012
        assert wire.heard[-1]["type"] == "reconnect"


def phone_sound() -> Pcm:
    """Two seconds, as they are once they were µ-law."""
    pcm = at_rate(shift_talk().pcm[: 2 * 16_000], RATE)
    [decoded] = decode(g711(pcm, "mulaw"), AudioFormat(encoding="mulaw", sample_rate=RATE))
    return decoded


async def test_a_call_is_passed_on_with_twilios_signature_and_resumes() -> None:
    phrase = phone_sound()
    sound = phrase.tobytes()

    async def part(line: Line) -> None:
        host = relay.url.removeprefix("http://")
        assert line.request.match_info["id"] == f"{CALL}.{STREAM}"
        assert line.request.headers[RELAYED] == f"{host}{PATH}"
        assert line.request.headers["X-Twilio-Signature"]
        asked = {name: line.request.query[name] for name in ("channel", "encoding", "sample_rate", "speakers")}
        assert asked == {"channel": "phone", "encoding": "linear16", "sample_rate": "8000", "speakers": "1"}
        await line.ready()
        await line.audio(8_000)
        await line.say("ack", offset=2_000)
        await line.say("reconnect", reason="handover", after_ms=0)

    async def after(line: Line) -> None:
        await line.ready(next_offset=2_048)
        assert await line.until_end() == sound[2 * 2_048 :]
        await line.ended()

    async with relaying(part, after) as relay, calling(relay.url) as socket:
        call = Call()
        await say(socket, CONNECTED, call.start(), *call.sound(phrase), call.stop())
        assert (await socket.receive(20)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000


async def test_a_gap_of_one_track_is_silence_and_of_both_a_gap() -> None:
    phrase = phone_sound()
    call = Call("inbound", "outbound")
    start, messages = call.start(), [*call.sound(phrase, phrase)]
    both = [messages[at] for at in range(len(messages)) if not 100 <= at < 160]
    one = [each for at, each in enumerate(both) if not (at % 2 and 20 <= at < 30)]

    async def part(line: Line) -> None:
        await line.ready()
        samples, gaps = 0, 0
        while (message := await line.hear()) != {"type": "end"}:
            if isinstance(message, bytes):
                samples += len(message) // 4
            else:
                gaps += message["samples"]
        assert (samples + gaps, gaps) == (len(phrase), 30 * 160)
        await line.ended()

    async with relaying(part) as relay, calling(relay.url) as socket:
        await say(socket, CONNECTED, start, *one, call.stop())
        assert (await socket.receive(20)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000


async def test_a_call_without_twilios_signature_is_refused() -> None:
    async with relaying() as relay:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            async with calling(relay.url, headers={"X-Twilio-Signature": "wrong"}):
                pass
        assert error.value.status == 403
        assert relay.owner.requests == []
