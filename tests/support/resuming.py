"""The product's own client in tests: everything it hears, and what must be true of it however often it was cut off."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import jiwer
from tests.support.server import Json, Server
from tests.support.talk import RATE
from tests.support.wire import new_id

from quickcomm.client.audio_client import AudioClient, Event
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import Chunk, KeyReleased, Paced, PcmSource
from quickcomm.contracts.audio_socket import AudioFormat, Ended, Insights, Utterance

PATIENCE: Final = Patience(first=0.02, longest=0.2, connect=5.0, give_up_after=240.0)
WITHIN_S: Final = 1_200.0  # a bound, not an expectation
MAX_WER: Final = 0.01
Place = tuple[int, int, int]


def ignored(_: Event) -> None:
    """Nobody watches."""


class Heard:
    """What one client was told, from the first connection to `ended`."""

    def __init__(self, conversation_id: str, events: list[Event]) -> None:
        self.conversation_id = conversation_id
        self.events = events
        self.utterances = [event for event in events if isinstance(event, Utterance)]
        self.insights = [event for event in events if isinstance(event, Insights)]

    @property
    def ended(self) -> Ended:
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last

    @property
    def places(self) -> list[Place]:
        """(speaker, start, end) of each utterance."""
        return sorted((each.speaker, each.start_offset, each.end_offset) for each in self.utterances)

    @property
    def ids(self) -> list[str]:
        """Utterance ids without the conversation's own part."""
        return sorted(each.utterance_id.removeprefix(self.conversation_id) for each in self.utterances)

    @property
    def text(self) -> str:
        said = sorted(self.utterances, key=lambda each: (each.speaker, each.start_offset))
        return " ".join(each.text for each in said)


async def stream(
    url: str,
    key: str,
    pcm: bytes | Sequence[bytes],
    watch: Callable[[Event], None] = ignored,
    patience: Patience = PATIENCE,
    *,
    paced: bool = False,
    pauses_s: Sequence[float] = (0.0,),
    stays: asyncio.Event | None = None,
) -> Heard:
    """A whole conversation of 16 kHz mono, as fast as the server takes it, or as it is spoken; `watch` sees it all.

    Several sounds are the transmissions of a push-to-talk gateway, which sends nothing in the pauses between them.
    `stays`: it ends only when that has happened.
    """
    transmissions = [pcm] if isinstance(pcm, bytes) else pcm

    async def pieces() -> AsyncIterator[Chunk]:
        for number, sound in enumerate(transmissions):
            for at in range(0, len(sound), RATE):
                yield sound[at : at + RATE]
            if len(transmissions) > 1:
                yield KeyReleased()
                if paced:
                    await asyncio.sleep(pauses_s[number % len(pauses_s)])
        if stays is not None:
            await stays.wait()

    options = StreamOptions(url=url, key=key, conversation_id=new_id(), patience=patience)
    source = PcmSource(AudioFormat(sample_rate=RATE), pieces())
    client = AudioClient(options, Paced(source) if paced else source)
    events: list[Event] = []
    async with asyncio.timeout(WITHIN_S), client.stream() as told:
        async for event in told:
            events.append(event)
            watch(event)
    assert client.delivered
    return Heard(options.conversation_id, events)


def assert_as_undisturbed(heard: Heard, undisturbed: Heard) -> None:
    """Nothing is lost, nothing doubled, nothing different."""
    assert heard.ids == undisturbed.ids
    assert heard.places == undisturbed.places
    durable = [event.seq for event in heard.events if isinstance(event, Utterance | Insights)]
    assert durable == list(range(1, len(durable) + 1))
    assert sorted(event.utterance_id for event in heard.insights) == sorted(u.utterance_id for u in heard.utterances)
    assert heard.ended.ledger.balanced
    assert heard.ended.ledger == undisturbed.ended.ledger


def assert_same_text(heard: Sequence[Heard], undisturbed: Sequence[Heard]) -> None:
    """Not to the letter: what is decoded together with others may come out a hair differently."""
    before = [_words(each.text) for each in undisturbed]
    now = [_words(each.text) for each in heard]
    changed = jiwer.process_words(before, now)
    assert changed.wer <= MAX_WER, jiwer.visualize_alignment(changed)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


async def assert_listed_once(server: Server, heard: Heard) -> None:
    """The page has each utterance once, with its insights."""
    wanted = {each.utterance_id: each.text for each in heard.utterances}
    path = f"/v1/utterances?conversation={heard.conversation_id}&limit=200"
    listed = await server.until(path, lambda answer: complete(answer, wanted))
    assert sorted(card["utterance_id"] for card in listed["items"]) == sorted(wanted)
    assert {card["utterance_id"]: card["text"] for card in listed["items"]} == wanted


def complete(answer: Json, wanted: Iterable[str]) -> bool:
    done = {card["utterance_id"] for card in answer["items"] if card["insights"]}
    return set(wanted) <= done
