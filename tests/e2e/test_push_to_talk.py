"""Radios that send only while a key is held: each transmission is one utterance, told soon, whatever comes between."""

import secrets
from collections.abc import Sequence

import numpy as np
from tests.support.server import Server
from tests.support.talk import RATE, Pcm, shift_talk
from tests.support.wire import Json, connected, new_id, spans

CUTS_S = ((2.1, 5.4), (7.6, 9.7), (29.1, 31.2))
"""Where people speak in the shift; a key that is held just so long cuts them hard at both ends."""


def transmissions() -> list[Pcm]:
    return [shift_talk().pcm[round(start * RATE) : round(end * RATE)] for start, end in CUTS_S]


def ends(parts: Sequence[Pcm]) -> list[int]:
    return [int(end) for end in np.cumsum([len(part) for part in parts])]


def one_each(events: Sequence[Json], parts: Sequence[Pcm]) -> None:
    """Every transmission is one utterance, and none reaches across a key that was let go."""
    found = sorted((start, end) for _, start, end in spans(events))
    limits = [0, *ends(parts)]
    assert len(found) == len(parts), found
    for (start, end), before, behind in zip(found, limits, limits[1:], strict=False):
        assert before <= start < end <= behind


async def test_nothing_is_sent_between_transmissions(server: Server) -> None:
    """Each is told though no silence follows it, before the next one begins; the connection stays."""
    parts = transmissions()
    async with connected(server.url, server.key(), new_id("ptt")) as wire:
        await wire.until("ready")
        for number, part in enumerate(parts, start=1):
            await wire.send(part.tobytes(), 2 * RATE // 50)
            while len(wire.of("utterance")) < number:
                assert await wire.hear() is not None
        ended = await wire.end()
    one_each(wire.heard, parts)
    total = ended["ledger"]
    assert total["received"] == ends(parts)[-1] == total["speech"] + total["silence"] + total["gap"]
    assert total["speech"] == sum(end - start for _, start, end in spans(wire.heard))


async def test_transmissions_in_one_burst_stay_apart_also_after_a_break(server: Server) -> None:
    """With their offsets flushes may be said again after a resume, and need not be waited for."""
    parts, token, conversation = transmissions(), secrets.token_urlsafe(32), new_id("ptt")
    sound, cuts = np.concatenate(parts).tobytes(), ends(parts)
    events: list[Json] = []
    async with connected(server.url, server.key(), conversation, resume_token=token) as wire:
        await wire.until("ready")
        await wire.send(sound[: 2 * cuts[0] + 8_000], RATE)  # the flush of the first is lost with the connection
        await wire.hear_for(0.3)
        events += wire.heard
    async with connected(server.url, server.key(), conversation, resume_token=token, after_seq=wire.last_seq) as again:
        at = (await again.until("ready"))["next_offset"]
        assert at % 512 == 0
        for cut in cuts:
            if cut > at:
                await again.send(sound[2 * at : 2 * cut], RATE)
                at = cut
            await again.say(type="flush", offset=cut)
        await again.end()
        events += again.heard
    found = sorted((start, end) for _, start, end in spans(events))
    assert [cut for cut in cuts[1:] if any(start < cut < end for start, end in found)] == []
    assert len(found) >= len(parts) - 1


async def test_with_flushes_it_is_as_if_nothing_had_broken(server: Server) -> None:
    parts = transmissions()
    async with connected(server.url, server.key(), new_id("ptt")) as wire:
        await wire.until("ready")
        at = 0
        for part in parts:
            await wire.send(part.tobytes(), RATE)
            at += len(part)
            await wire.say(type="flush", offset=at)
        await wire.end()
    one_each(wire.heard, parts)


async def test_too_many_flushes_ahead_of_the_sound_are_refused(server: Server) -> None:
    async with connected(server.url, server.key(), new_id("ptt")) as wire:
        await wire.until("ready")
        for number in range(1_025):
            await wire.say(type="flush", offset=1_000 * number + 1_000)
        assert (await wire.until("error"))["code"] == "audio.bad_flush"
        assert await wire.until_closed() == 1008


async def test_a_flush_says_after_how_many_samples(server: Server) -> None:
    async with connected(server.url, server.key(), new_id("ptt")) as wire:
        await wire.until("ready")
        await wire.say(type="flush")
        error = await wire.until("error")
        assert error["code"] == "audio.bad_flush"
        assert await wire.until_closed() == 1008
