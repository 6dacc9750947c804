"""Every interleaving of publications, checkpoints and a take-over, on both session stores.

Two speakers. The first owner publishes an utterance, stores a checkpoint, and publishes again; a call that another one
overtakes was given up by its owner, but still reaches the server. A second owner takes over at any moment.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import permutations

import msgspec
import pytest
from tests.contract.test_session_store import Site, open_site
from tests.support.hearing import TOKEN, request

from quickcomm.audio.model.checkpoint import Checkpoint
from quickcomm.audio.ports import FencedError, Progress, Stored
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.conversations import Ledger
from quickcomm.contracts.identity import utterance_id
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed

__all__ = ["open_site"]
STEREO = AudioFormat(speakers=2)
Orders = tuple[str, ...]
COMMANDS = ("publish", "save", "publish again", "take over", "their publish", "their save")


def orders() -> Iterator[Orders]:
    """In which a new owner does nothing before it has taken over, and awaits what it does."""
    for order in permutations(COMMANDS):
        places = [order.index(name) for name in COMMANDS[3:]]
        if places == sorted(places):
            yield order


def progress(stored: Stored, step: int, *offsets: int) -> Progress:
    return Progress(
        site=stored.site,
        conversation_id=stored.conversation_id,
        epoch=stored.epoch,
        step=step,
        checkpoints=tuple(Checkpoint(offset=offset) for offset in offsets),
        ledgers=tuple(Ledger(received=offset, silence=offset) for offset in offsets),
    )


def utterance(stored: Stored, speaker: int, start: int) -> UtteranceTranscribed:
    return UtteranceTranscribed(
        site=stored.site,
        conversation_id=stored.conversation_id,
        utterance_id=utterance_id(stored.conversation_id, speaker, start),
        channel=stored.channel,
        speaker=speaker,
        seq=0,
        start_offset=start,
        end_offset=start + 100,
        sample_rate=16_000,
        text="towels",
        words=(),
        confidence=0.9,
        stt_model="m",
        spoken_at_ns=1,
        speech_ended_ns=2,
        published_ns=3,
        latency=Latency(),
    )


class Trial:
    """One order of the commands on one conversation, with what each owner believes."""

    def __init__(self, site: Site, name: str, order: Orders) -> None:
        self.site = site
        self.name = name
        self.order = order
        self.acked = 0
        self.theirs: Stored | None = None
        self.steps = 2

    async def run(self) -> None:
        self.ours = await self.site.store.open(request(self.name, audio_format=STEREO), TOKEN)
        await self.site.store.save([progress(self.ours, 1, 500, 300)])
        self.acked = 300
        after = await self.stored()
        for command in self.order:
            before = after
            await self.do(command)
            after = await self.stored()
            assert min(after) >= self.acked, f"{self.order}: {command} lies behind what was acked"
            assert self.theirs is None or command not in COMMANDS[:3] or after == before, f"{self.order}: not fenced"

    async def stored(self) -> list[int]:
        [found] = await self.site.store.ledgers(self.name)
        return [ledger.received for ledger in found.ledgers]

    async def once(self, told: list[str]) -> None:
        """No utterance twice, and none in the log that the bus was not told of."""
        logged = [event.utterance_id for event in await self.site.store.events("main", self.name, 0)]
        assert logged == [utterance_id(self.name, 0, 600)], self.order
        assert [each for each in told if each.startswith(f"{self.name}:")] == logged, self.order

    def late(self, command: str) -> bool:
        """Whether its owner has sent another one since, and waits for it no more."""
        mine = COMMANDS[:3]
        place = self.order.index(command)
        return any(self.order.index(later) < place for later in mine[mine.index(command) + 1 :])

    async def do(self, command: str) -> None:
        if command == "take over":
            self.theirs = await self.site.store.open(request(self.name, audio_format=STEREO), TOKEN)
            assert min(each.offset for each in self.theirs.checkpoints) >= self.acked
        elif command in COMMANDS[:3]:
            await self.ours_do(command)
        else:
            await self.theirs_do(command)

    async def ours_do(self, command: str) -> None:
        # What was given up is put back: only a publication that was answered has moved the first speaker.
        moved = 1_000 if not self.late("publish") and command != "publish" else 500
        done = {
            "publish": progress(self.ours, 10, 1_000, 300),
            "save": progress(self.ours, 11, moved, 2_000),
            "publish again": progress(self.ours, 12, 1_000, 2_000),
        }[command]
        try:
            if command == "save":
                fenced = bool(await self.site.store.save([done]))
            else:
                await self.site.store.publish(done, utterance(self.ours, 0, 600))
                fenced = False
        except FencedError:
            fenced = True
        assert fenced == (self.theirs is not None), self.order
        if not fenced and not self.late(command):
            self.acked = max(self.acked, min(checkpoint.offset for checkpoint in done.checkpoints))

    async def theirs_do(self, command: str) -> None:
        assert self.theirs is not None
        first, second = (checkpoint.offset for checkpoint in self.theirs.checkpoints)
        if command == "their publish":  # what they hear again, if it was not published
            done = progress(self.theirs, 1, max(first, 1_000), second)
            await self.site.store.publish(done, utterance(self.theirs, 0, 600))
        else:
            done = progress(self.theirs, 2, 3_000, 3_000)
            assert await self.site.store.save([done]) == []
        self.acked = max(self.acked, min(checkpoint.offset for checkpoint in done.checkpoints))


async def test_whatever_comes_late_or_from_whom(open_site: Callable[[], AbstractAsyncContextManager[Site]]) -> None:
    async with open_site() as site:
        trials = [Trial(site, f"c-{number}", order) for number, order in enumerate(orders())]
        await asyncio.gather(*(trial.run() for trial in trials))
        messages = [msgspec.json.decode(each, type=UtteranceTranscribed) for each in await site.told(TRANSCRIPTS)]
        told = [message.utterance_id for message in messages]
        await asyncio.gather(*(trial.once(told) for trial in trials))


@pytest.mark.parametrize("speaker", [0, 1])
async def test_a_late_publication_never_replaces_a_newer_checkpoint(
    open_site: Callable[[], AbstractAsyncContextManager[Site]], speaker: int
) -> None:
    async with open_site() as site:
        stored = await site.store.open(request(audio_format=STEREO), TOKEN)
        await site.store.save([progress(stored, 2, 0, 2_048)])
        await site.store.publish(progress(stored, 1, 1_024, 512), utterance(stored, speaker, 600))
        again = await site.store.open(request(audio_format=STEREO), TOKEN)
        assert [each.offset for each in again.checkpoints] == [0, 2_048]
        logged = len(await site.store.events("main", "c-1", 0))
        assert logged == (speaker == 0), "what the stored checkpoint has behind it is settled"
