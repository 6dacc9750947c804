"""The client against a scripted server: drops, refusals, resumes, duplicates, and what a newer server might say."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.scripted import INSIGHT, Line, Part, Refuse, ScriptedServer, scripted, utterance

from quickcomm.client.audio_client import AudioClient, Continued, Disconnected, Event, Forgotten
from quickcomm.client.errors import (
    NotAllowedError,
    ProtocolError,
    RefusedError,
    SourceError,
    UnauthorizedError,
    UnreachableError,
)
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import Missing, PcmSource
from quickcomm.contracts.audio_socket import AudioFormat, Ended, Insights, Partial, Unknown, Utterance
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import InvalidInputError

FORMAT = AudioFormat(sample_rate=8_000)
AUDIO = bytes(range(256)) * 100  # 12,800 samples, 1.6 s


class Naps:
    """Notes how long the client would have slept, and lets the clock pass."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


async def source(*chunks: bytes | Missing) -> AsyncIterator[bytes | Missing]:
    for chunk in chunks:
        yield chunk


def client_for(server: ScriptedServer | str, naps: Naps, *chunks: bytes | Missing, **options: Any) -> AudioClient:
    url = server if isinstance(server, str) else server.url
    live = options.pop("live", False)
    stream = StreamOptions(**{"url": url, "key": "K", "conversation_id": "c-1", **options})
    pcm = PcmSource(FORMAT, source(*(chunks or (AUDIO,))), live=live)
    return AudioClient(stream, pcm, clock=naps.clock, sleep=naps, chance=lambda: 0.0)


async def all_events(client: AudioClient) -> list[Event]:
    async with asyncio.timeout(20), client.stream() as events:
        return [event async for event in events]


async def test_it_streams_everything_and_ends() -> None:
    async def part(line: Line) -> None:
        assert line.request.headers["Authorization"] == "Bearer K"
        query = line.request.query
        assert (query["encoding"], query["sample_rate"], query["channels"]) == ("linear16", "8000", "1")
        assert query["channel"] == "house keeping"
        assert len(query["resume_token"]) >= 22
        await line.ready()
        assert await line.until_end() == AUDIO
        await line.say("partial", speaker=0, start_offset=0, text="tow")
        await line.say("utterance", **utterance(1))
        await line.say("insights", seq=2, utterance_id="c-1:0:0", insights=[INSIGHT])
        await line.say("ack", offset=12_800)
        await line.ended(received=12_800, silence=12_800)

    async with scripted(part) as server:
        client = client_for(server, Naps(), AUDIO[:777], AUDIO[777:], channel="house keeping")
        events = await all_events(client)
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Ready", "Partial", "Utterance", "Insights", "Ack", "Ended"]
    insights = next(event for event in events if isinstance(event, Insights))
    assert insights.insights[0].items[0].quantity == 2
    assert client.delivered
    assert client.acked == client.produced == 12_800
    assert client.ended is not None
    assert client.ended.ledger.balanced


async def test_messages_are_of_the_chosen_length() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        sizes = []
        while isinstance(message := await line.hear(), bytes):
            sizes.append(len(message))
        assert sizes == [3_200] * 8
        await line.ended()

    async with scripted(part) as server:
        await all_events(
            client_for(server, Naps(), *[AUDIO[at : at + 100] for at in range(0, 25_600, 100)], message_ms=200)
        )


async def test_a_drop_resumes_at_next_offset_with_the_same_token() -> None:
    tokens = []

    async def first(line: Line) -> None:
        tokens.append(line.request.query["resume_token"])
        await line.ready()
        await line.audio(16_000)
        await line.say("utterance", **utterance(1))
        await line.say("ack", offset=4_000)
        await line.socket.receive()
        line.cut()

    async def second(line: Line) -> None:
        tokens.append(line.request.query["resume_token"])
        assert line.request.query["after_seq"] == "1"
        await line.ready(next_offset=4_096)
        assert await line.until_end() == AUDIO[8_192:]
        await line.ended()

    async with scripted(first, second) as server:
        events = await all_events(client_for(server, Naps()))
    assert tokens[0] == tokens[1]
    assert sum(isinstance(event, Disconnected) for event in events) == 1


async def test_durable_events_are_told_once() -> None:
    async def first(line: Line) -> None:
        await line.ready()
        await line.say("utterance", **utterance(1))
        await line.say("insights", seq=2, utterance_id="c-1:0:0", insights=[INSIGHT])
        await line.until_end()
        line.cut()

    async def second(line: Line) -> None:
        # A server may send more again than it was asked for.
        await line.ready(next_offset=12_800)
        await line.say("utterance", **utterance(1))
        await line.say("insights", seq=2, utterance_id="c-1:0:0", insights=[INSIGHT])
        await line.say("utterance", **utterance(3, 1_600))
        await line.say("insights", seq=4, utterance_id="c-1:0:0", insights=[INSIGHT | {"revision": 2}])
        await line.until_end()
        await line.ended()

    async with scripted(first, second) as server:
        events = await all_events(client_for(server, Naps()))
    assert [event.seq for event in events if isinstance(event, Utterance | Insights)] == [1, 2, 3, 4]


async def test_a_lost_ready_is_followed_by_another_try_with_the_token() -> None:
    tokens = []

    async def mute(line: Line) -> None:
        tokens.append(line.request.query["resume_token"])
        line.cut()

    async def part(line: Line) -> None:
        tokens.append(line.request.query["resume_token"])
        await line.ready()
        assert await line.until_end() == AUDIO
        await line.ended()

    async with scripted(mute, part) as server:
        await all_events(client_for(server, Naps(), resume_token="T" * 22))
    assert tokens == ["T" * 22] * 2


async def test_it_backs_off_and_heeds_retry_after() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.until_end()
        await line.ended()

    naps = Naps()
    parts: list[Part | Refuse] = [
        Refuse(503, Retry_After="7"),
        Refuse(503),
        Refuse(502),
        Refuse(429, Retry_After="3"),
        part,
    ]
    async with scripted(*parts) as server:
        await all_events(client_for(server, naps))
    assert naps.taken == [7.25, 0.5, 1.0, 5.0]


async def test_reconnect_waits_as_told_and_does_not_count_as_a_failure() -> None:
    async def leaving(line: Line) -> None:
        await line.ready()
        await line.say("reconnect", reason="drain", after_ms=1_500)

    async def part(line: Line) -> None:
        await line.ready()
        assert await line.until_end() == AUDIO
        await line.ended()

    naps = Naps()
    async with scripted(leaving, leaving, part) as server:
        events = await all_events(client_for(server, naps))
    assert naps.taken == [1.75, 1.75]
    assert [event.reason for event in events if isinstance(event, Disconnected)] == ["drain", "drain"]


@pytest.mark.parametrize(("status", "error"), [(401, UnauthorizedError), (403, NotAllowedError), (404, RefusedError)])
async def test_an_answer_that_will_not_change_is_an_error(status: int, error: type[Exception]) -> None:
    async with scripted(Refuse(status)) as server:
        with pytest.raises(error, match=str(status)):
            await all_events(client_for(server, Naps()))


@pytest.mark.parametrize(
    ("code", "error"), [(1003, RefusedError), (1007, RefusedError), (1008, NotAllowedError), (1009, RefusedError)]
)
async def test_a_refusing_close_is_an_error(code: int, error: type[Exception]) -> None:
    async def part(line: Line) -> None:
        await line.socket.close(code=code)

    async with scripted(part) as server:
        with pytest.raises(error, match=str(code)):
            await all_events(client_for(server, Naps()))


async def test_the_servers_own_words_are_in_the_error() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.say("error", code="audio.odd_bytes", message="Half a sample.", retryable=False)
        await line.socket.close(code=1007)

    async with scripted(part) as server:
        with pytest.raises(RefusedError, match=r"Half a sample\. \(audio\.odd_bytes\)") as caught:
            await all_events(client_for(server, Naps()))
    assert (caught.value.server_code, caught.value.close_code) == ("audio.odd_bytes", 1007)


async def test_a_retryable_error_is_tried_again() -> None:
    async def busy(line: Line) -> None:
        await line.say("error", code="busy", message="Somebody is still connected.", retryable=True)
        await line.socket.close(code=1008)

    async def part(line: Line) -> None:
        await line.ready()
        await line.until_end()
        await line.ended()

    async with scripted(busy, part) as server:
        assert isinstance((await all_events(client_for(server, Naps())))[-1], Ended)


async def test_it_gives_up_when_told_so() -> None:
    async with scripted() as server:
        gone = server.url
    with pytest.raises(UnreachableError, match="giving up"):
        await all_events(client_for(gone, Naps(), patience=Patience(give_up_after=5.0)))


async def test_unknown_events_do_no_harm() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.say("weather", sun=True)
        await line.until_end()
        await line.ended()

    async with scripted(part) as server:
        events = await all_events(client_for(server, Naps()))
    assert [event.type for event in events if isinstance(event, Unknown)] == ["weather"]


@pytest.mark.parametrize("said", ["no JSON", "[]", '{"type":"ack"}', '{"type":"ack","offset":"x"}'])
async def test_nonsense_is_a_protocol_error(said: str) -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.socket.send_str(said)
        await line.socket.receive()

    async with scripted(part) as server:
        with pytest.raises(ProtocolError):
            await all_events(client_for(server, Naps()))


async def test_missing_samples_are_a_declared_gap() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        assert await line.audio(1_600) == AUDIO[:1_600]
        assert await line.hear() == {"type": "skip", "samples": 500}
        assert await line.until_end() == AUDIO[:1_600]
        await line.ended()

    async with scripted(part) as server:
        await all_events(client_for(server, Naps(), AUDIO[:1_600], Missing(samples=500), AUDIO[:1_600]))


async def test_a_source_that_breaks_ends_the_conversation_and_then_is_told() -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield AUDIO
        raise SourceError("The cable is out.")

    async def part(line: Line) -> None:
        await line.ready()
        assert await line.until_end() == AUDIO
        await line.ended()

    async with scripted(part) as server:
        options = StreamOptions(url=server.url, key="K", conversation_id="c-1")
        client = AudioClient(options, PcmSource(FORMAT, breaking()))
        with pytest.raises(SourceError, match="cable"):
            await all_events(client)
    assert client.ended is not None


async def test_finish_sends_what_is_in_hand_and_ends() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield AUDIO
        await asyncio.Event().wait()

    async def part(line: Line) -> None:
        await line.ready()
        await line.audio(len(AUDIO))
        await line.say("partial", speaker=0, start_offset=0, text="tow")
        await line.until_end()
        await line.ended()

    async with scripted(part) as server:
        client = AudioClient(
            StreamOptions(url=server.url, key="K", conversation_id="c-1"), PcmSource(FORMAT, endless())
        )
        async with asyncio.timeout(20), client.stream() as events:
            async for event in events:
                if isinstance(event, Partial):
                    client.finish()
    assert client.delivered


async def test_a_server_that_lost_the_conversation_counts_anew_and_nothing_new_is_dropped() -> None:
    """Its store was emptied: what comes now has numbers that were heard before, but is not the same."""

    async def first(line: Line) -> None:
        await line.ready(last_seq=0)
        for seq in range(1, 31):
            await line.say("utterance", **utterance(seq, start=seq))
        await line.until_end()
        await line.say("ack", offset=6_400)
        line.cut()

    async def second(line: Line) -> None:
        assert line.request.query["after_seq"] == "30"
        await line.ready(last_seq=0)
        assert await line.hear() == {"type": "skip", "samples": 6_400}
        assert await line.until_end() == AUDIO[12_800:]
        await line.say("utterance", **utterance(1, start=6_400))
        await line.say("insights", seq=2, utterance_id="c-1:0:6400", insights=[INSIGHT])
        line.cut()

    async def third(line: Line) -> None:
        assert line.request.query["after_seq"] == "2"
        await line.ready(next_offset=12_800, last_seq=2)
        await line.ended()

    async with scripted(first, second, third) as server:
        events = await all_events(client_for(server, Naps()))
    assert [event.seq for event in events if isinstance(event, Utterance)] == [*range(1, 31), 1]
    assert sum(isinstance(event, Insights) for event in events) == 1


async def test_a_conversation_that_ended_long_ago_replays_and_ends() -> None:
    async def part(line: Line) -> None:
        assert line.request.query["after_seq"] == "4"
        await line.say("utterance", **utterance(5))
        await line.ended(received=800, speech=800)

    async with scripted(part) as server:
        client = client_for(server, Naps(), after_seq=4)
        events = await all_events(client)
    assert [type(event).__name__ for event in events] == ["Utterance", "Ended"]
    assert not client.delivered


async def test_the_oldest_sound_of_a_live_source_makes_room_and_becomes_a_gap() -> None:
    heard: asyncio.Future[tuple[object, bytes]] = asyncio.get_running_loop().create_future()

    async def part(line: Line) -> None:
        await line.ready()
        gap = await line.hear()
        await line.say("ack", offset=16_000)
        heard.set_result((gap, await line.audio(32_000)))
        assert await line.until_end() == b""
        await line.ended(received=32_000, silence=16_000, gap=16_000)

    chunks = [bytes([n]) * 1_600 for n in range(40)]  # 4 s, and 2 s fit
    async with scripted(part) as server:
        client = client_for(server, Naps(), *chunks, live=True, memory_ms=2_000)
        await all_events(client)
    gap, audio = await heard
    assert gap == {"type": "skip", "samples": 16_000}
    assert audio == b"".join(chunks[20:])
    assert client.lost == 16_000


async def test_errors_of_the_caller_are_not_wrapped() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.socket.receive()

    async def fail(events: AsyncIterator[Event]) -> None:
        async for _ in events:
            raise KeyError("mine")

    async with scripted(part) as server:
        client = client_for(server, Naps())
        with pytest.raises(KeyError, match="mine"):
            async with client.stream() as events:
                await fail(events)


@pytest.mark.parametrize("wrong", [{"conversation_id": "a b"}, {"conversation_id": ""}, {"resume_token": "short"}])
def test_options_that_the_server_would_refuse_are_refused_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        StreamOptions(**{"url": "http://x", "key": "K", "conversation_id": "c", **wrong})


async def endless(*chunks: bytes | Missing) -> AsyncIterator[bytes | Missing]:
    for chunk in chunks:
        yield chunk
    await asyncio.Event().wait()


def live_client(server: ScriptedServer, naps: Naps, *chunks: bytes | Missing, **options: Any) -> AudioClient:
    stream = StreamOptions(**{"url": server.url, "key": "K", "conversation_id": "radio-7", **options})
    pcm = PcmSource(FORMAT, endless(*(chunks or (AUDIO,))), live=True)
    return AudioClient(stream, pcm, clock=naps.clock, sleep=naps, chance=lambda: 0.0)


async def played(server: ScriptedServer, client: AudioClient) -> list[Event]:
    """The events of a live client until the script is over."""
    heard: list[Event] = []
    async with asyncio.timeout(20), client.stream() as events:
        async for event in events:
            heard.append(event)
            if server.played.is_set() and isinstance(event, Disconnected):
                break
    return heard


async def test_a_live_source_goes_on_in_another_conversation_where_the_server_ended_it() -> None:
    async def first(line: Line) -> None:
        await line.ready()
        await line.audio(16_000)
        await line.say("utterance", **utterance(1))
        await line.say("ack", offset=4_000)
        await line.socket.receive()
        line.cut()

    async def too_late(line: Line) -> None:
        await line.ready(next_offset=8_000)
        await line.ended(received=8_000, silence=8_000)

    async def another(line: Line) -> None:
        query = line.request.query
        assert query["continues"] == "radio-7"
        assert query["after_seq"] == "0"
        assert query["resume_token"] != tokens[0]
        await line.ready()
        assert await line.audio(len(AUDIO) - 16_000) == AUDIO[16_000:]
        await line.say("utterance", **utterance(1))

    async with scripted(first, too_late, another) as server:
        client = live_client(server, Naps())
        tokens = [client._options.resume_token]
        events = await played(server, client)
    (on,) = [event for event in events if isinstance(event, Continued)]
    assert (on.continues, on.ledger.received) == ("radio-7", 8_000)
    assert on.conversation_id == client.conversation_id
    assert on.conversation_id.startswith("radio-7~")
    assert not any(isinstance(event, Ended) for event in events)
    assert sum(isinstance(event, Utterance) for event in events) == 2


async def test_a_live_source_never_gives_up() -> None:
    async def part(line: Line) -> None:
        await line.ready()
        await line.audio(len(AUDIO))
        await line.say("partial", speaker=0, start_offset=0, text="tow")

    naps = Naps()
    async with scripted(*[Refuse(503, Retry_After="3600")] * 30, part) as server:
        events = await played(server, live_client(server, naps, patience=Patience(give_up_after=60.0)))
    assert sum(naps.taken) > 24 * 3_600
    assert sum(isinstance(event, Disconnected) for event in events) == 31


async def test_a_live_source_that_is_over_has_the_patience_of_a_file() -> None:
    async with scripted(*[Refuse(503)] * 20) as server:
        naps = Naps()
        with pytest.raises(UnreachableError, match="giving up"):
            await all_events(client_for(server, naps, live=True, patience=Patience(give_up_after=5.0)))


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_live_source_that_was_welcome_takes_no_refusal_for_good(status: int) -> None:
    async def first(line: Line) -> None:
        await line.ready()
        await line.say("error", code="audio.key_revoked", message="Revoked.", retryable=False)
        await line.socket.close(code=1008)

    async def second(line: Line) -> None:
        await line.ready()
        await line.say("partial", speaker=0, start_offset=0, text="tow")

    naps = Naps()
    async with scripted(first, Refuse(status), second) as server:
        events = await played(server, live_client(server, naps))
    assert sum(isinstance(event, Partial) for event in events) == 1
    assert naps.taken[:2] == [30.25, 30.5]


async def test_nonsense_does_not_end_a_live_source() -> None:
    async def first(line: Line) -> None:
        await line.ready()
        await line.socket.send_str("no JSON")
        await line.socket.receive()

    async def second(line: Line) -> None:
        await line.ready()
        await line.say("partial", speaker=0, start_offset=0, text="tow")

    async with scripted(first, second) as server:
        events = await played(server, live_client(server, Naps()))
    assert sum(isinstance(event, Partial) for event in events) == 1


async def test_one_that_was_never_welcome_is_told_at_once() -> None:
    async with scripted(Refuse(401)) as server:
        with pytest.raises(UnauthorizedError):
            await all_events(live_client(server, Naps()))


async def test_events_of_a_server_that_lost_its_data_are_not_taken_for_known() -> None:
    async def first(line: Line) -> None:
        await line.ready()
        await line.audio(16_000)
        for seq in (1, 2, 3):
            await line.say("utterance", **utterance(seq, 800 * seq))
        await line.say("ack", offset=4_000)
        await line.socket.receive()
        line.cut()

    async def emptied(line: Line) -> None:
        assert line.request.query["after_seq"] == "3"
        await line.ready(next_offset=0)
        assert await line.hear() == {"type": "skip", "samples": 4_000}
        await line.audio(8_000)
        await line.say("utterance", **utterance(1, 8_000))
        await line.say("insights", seq=2, utterance_id="c-1:0:8000", insights=[INSIGHT])

    async with scripted(first, emptied) as server:
        events = await played(server, live_client(server, Naps()))
    assert [event.samples for event in events if isinstance(event, Forgotten)] == [4_000]
    assert [event.seq for event in events if isinstance(event, Utterance | Insights)] == [1, 2, 3, 1, 2]


async def test_the_server_is_told_by_its_own_clock_when_live_sound_was_captured() -> None:
    said: list[Any] = []

    async def part(line: Line) -> None:
        await line.ready(now_ms=1_000_000)
        said.append(await line.hear())
        await line.audio(len(AUDIO))
        await line.say("partial", speaker=0, start_offset=0, text="tow")

    async with scripted(part) as server:
        await played(server, live_client(server, Naps()))
    # The fake clock stands still: 1.6 s of sound that ended just now.
    assert said == [{"type": "captured", "offset": 0, "at_ms": 998_400}]


async def test_a_broken_handshake_is_tried_again_and_a_false_certificate_is_not() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"no TLS here")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        naps = Naps()
        with pytest.raises(UnreachableError):
            await all_events(client_for(url, naps, patience=Patience(give_up_after=2.0)))
    assert len(naps.taken) > 2
