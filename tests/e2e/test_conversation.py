"""The audio socket when nothing goes wrong: what a client hears, in which order, and that the sums are right."""

import asyncio
import re

import pytest
from tests.support.server import Server
from tests.support.talk import RATE, Talk, at_rate, g711
from tests.support.wire import Wire, balanced, connected, converse, new_id, spans, texts


def heard_words(talk: Talk, wire: Wire) -> float:
    """The share of the words said that were understood."""
    heard = words(texts(wire.heard))
    said = words(talk.words)
    return sum(word in heard for word in said) / len(said)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


@pytest.fixture(scope="session")
def plain() -> dict[str, Wire]:
    return {}


async def undisturbed(server: Server, talk: Talk, kept: dict[str, Wire]) -> Wire:
    """The talk, once, at 16 kHz in messages of 100 ms: what the others are compared with."""
    if "wire" not in kept:
        kept["wire"] = await converse(server.url, server.key(), talk.wire, resume_token="t" * 32, channel="plain")
    return kept["wire"]


async def test_a_conversation_from_ready_to_ended(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    wire = await undisturbed(server, talk, plain)
    first = wire.heard[0]
    assert first["type"] == "ready"
    assert first["conversation_id"] == wire.conversation_id
    assert first["resume_token"] == "t" * 32
    assert first["next_offset"] == 0
    assert first["max_unacked_ms"] >= 60_000
    assert first["ack_interval_ms"] > 0
    assert wire.heard[-1]["type"] == "ended"
    assert wire.close_code == 1000
    ledger = wire.heard[-1]["ledger"]
    assert balanced(ledger)
    assert (ledger["received"], ledger["gap"]) == (talk.samples, 0)
    assert 0 < ledger["speech"] < talk.samples


async def test_acks_never_go_back_and_reach_the_end(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    acks = [event["offset"] for event in (await undisturbed(server, talk, plain)).of("ack")]
    assert acks
    assert acks == sorted(acks)
    assert acks[-1] <= talk.samples


async def test_what_was_said_is_understood(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    wire = await undisturbed(server, talk, plain)
    assert len(wire.of("utterance")) >= talk.utterances - 1
    assert heard_words(talk, wire) >= 0.7


async def test_utterances_lie_in_the_conversation_and_apart(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    wire = await undisturbed(server, talk, plain)
    end = 0
    for event in sorted(wire.of("utterance"), key=lambda event: int(event["start_offset"])):
        assert end <= event["start_offset"] < event["end_offset"] <= talk.samples
        assert event["utterance_id"] == f"{wire.conversation_id}:0:{event['start_offset']}"
        assert 0 <= event["confidence"] <= 1
        assert event["text"]
        for word in event["words"]:
            assert word["start_offset"] <= word["end_offset"]
        end = event["end_offset"]


async def test_seq_counts_from_one_and_every_utterance_has_its_insights(
    server: Server, talk: Talk, plain: dict[str, Wire]
) -> None:
    wire = await undisturbed(server, talk, plain)
    assert [event["seq"] for event in wire.durable] == list(range(1, len(wire.durable) + 1))
    said = [event["utterance_id"] for event in wire.of("utterance")]
    assert len(said) == len(set(said))
    assert {event["utterance_id"] for event in wire.of("insights")} == set(said)
    for event in wire.of("insights"):
        assert [insight["index"] for insight in event["insights"]] == list(range(len(event["insights"])))
        assert event["insights"]
        for insight in event["insights"]:
            assert len(insight["summary"]) <= 80
            assert insight["urgency"] in {"low", "normal", "high", "critical"}


async def test_a_receipt_says_where_the_time_went(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    wire = await undisturbed(server, talk, plain)
    assert {event["utterance_id"] for event in wire.of("receipt")} == {e["utterance_id"] for e in wire.of("utterance")}
    for event in wire.of("receipt"):
        stages = event["latency_ms"]
        assert {"endpoint", "stt", "publish", "queue", "classify", "store", "push", "total"} <= set(stages)
        assert stages["total"] > 0


@pytest.mark.parametrize("sizes", [(32_000,), (2, 640, 31_998, 6, 1_024), (1_022,)], ids=str)
async def test_the_cut_into_messages_changes_nothing(
    server: Server, talk: Talk, plain: dict[str, Wire], sizes: tuple[int, ...]
) -> None:
    usual = await undisturbed(server, talk, plain)
    wire = await converse(server.url, server.key(), talk.wire, sizes)
    assert spans(wire.heard) == spans(usual.heard)
    assert wire.heard[-1]["ledger"] == usual.heard[-1]["ledger"]


@pytest.mark.parametrize("rate", [8_000, 24_000, 32_000, 48_000])
async def test_every_rate(server: Server, talk: Talk, rate: int) -> None:
    pcm = at_rate(talk.pcm, rate)
    wire = await converse(server.url, server.key(), pcm.tobytes(), (rate // 5,), sample_rate=rate)
    assert wire.heard[-1]["ledger"]["received"] == len(pcm)
    assert balanced(wire.heard[-1]["ledger"])
    assert heard_words(talk, wire) >= 0.6
    assert all(end <= len(pcm) for _, _, end in spans(wire.heard))


@pytest.mark.parametrize("law", ["mulaw", "alaw"])
async def test_telephone_encodings(server: Server, talk: Talk, law: str) -> None:
    coded = g711(at_rate(talk.pcm, 8_000), law)
    wire = await converse(server.url, server.key(), coded, (160,), encoding=law, sample_rate=8_000)
    assert wire.heard[-1]["ledger"]["received"] == len(coded)
    assert heard_words(talk, wire) >= 0.6


async def test_two_speakers_are_heard_apart(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    """The second says the same two seconds later; each one's utterances are what they would be alone."""
    alone = spans((await undisturbed(server, talk, plain)).heard)
    shift = 2 * RATE
    both = bytearray(4 * (talk.samples + shift))
    stereo = memoryview(both).cast("h")
    stereo[0 : 2 * talk.samples : 2] = memoryview(talk.wire).cast("h")
    stereo[2 * shift + 1 :: 2] = memoryview(talk.wire).cast("h")
    wire = await converse(server.url, server.key(), bytes(both), (6_400,), channels=2)
    assert balanced(wire.heard[-1]["ledger"])
    assert [span for span in spans(wire.heard) if span[0] == 0] == alone
    second = [span for span in spans(wire.heard) if span[0] == 1]
    assert len(second) == len(alone)
    for (_, start, end), (_, first_start, first_end) in zip(second, alone, strict=True):
        assert abs(start - shift - first_start) < RATE // 2
        assert abs(end - shift - first_end) < RATE // 2


async def test_silence_is_no_utterance(server: Server) -> None:
    wire = await converse(server.url, server.key(), bytes(5 * 2 * RATE))
    assert wire.durable == []
    assert wire.heard[-1]["ledger"] == {"received": 5 * RATE, "speech": 0, "silence": 5 * RATE, "gap": 0}


async def test_an_empty_conversation_ends_too(server: Server) -> None:
    wire = await converse(server.url, server.key(), b"")
    assert wire.heard[-1]["ledger"] == {"received": 0, "speech": 0, "silence": 0, "gap": 0}


async def test_a_skip_is_a_gap_and_moves_what_follows(server: Server, talk: Talk) -> None:
    skipped = 3 * RATE + 7
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        await wire.send(talk.wire, 3_200)
        await wire.say(type="skip", samples=skipped)
        await wire.send(talk.wire, 3_200)
        ended = await wire.end()
    ledger = ended["ledger"]
    assert balanced(ledger)
    assert (ledger["received"], ledger["gap"]) == (2 * talk.samples + skipped, skipped)
    for _, start, end in spans(wire.heard):
        assert end <= talk.samples or start >= talk.samples + skipped


async def test_a_skip_in_mid_speech_cuts_the_utterance(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    _, start, end = spans((await undisturbed(server, talk, plain)).heard)[-1]
    middle = (start + end) // 2
    async with connected(server.url, server.key(), new_id()) as wire:
        await wire.until("ready")
        await wire.send(talk.wire[: 2 * middle], 3_200)
        await wire.say(type="skip", samples=10 * RATE)
        ended = await wire.end()
    assert balanced(ended["ledger"])
    assert ended["ledger"]["gap"] == 10 * RATE
    assert all(span_end <= middle for _, _, span_end in spans(wire.heard))


async def test_conversations_side_by_side_do_not_mix(server: Server, talk: Talk, plain: dict[str, Wire]) -> None:
    usual = await undisturbed(server, talk, plain)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(converse(server.url, server.key(), talk.wire)) for _ in range(4)]
    for wire in [task.result() for task in running]:
        assert spans(wire.heard) == spans(usual.heard)
        assert all(event["utterance_id"].startswith(wire.conversation_id + ":") for event in wire.durable)


async def test_the_key_may_stand_in_the_query_for_browsers(server: Server) -> None:
    async with connected(server.url, None, new_id(), key=server.key()) as wire:
        await wire.until("ready")
        await wire.end()
