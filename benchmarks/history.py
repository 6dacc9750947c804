"""A long history for a data directory: generated talk, put in by the dashboard's own projector in large batches."""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Final

from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.contracts.insight import Insight, Item
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed, Word
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.runtime.data_directory import DataDirectory
from quickcomm.kernel.storage import Database, migrate

RATE: Final = 16_000
DAYS: Final = 60
"""Less than what is kept, so that nothing is purged meanwhile."""
BATCH: Final = 1_000
PER_CONVERSATION: Final = 250
VOCABULARY: Final = 20_000
CHANNELS: Final = tuple(f"{place}-{floor}" for place in ("housekeeping", "front-desk", "valet") for floor in range(12))
DEPARTMENTS: Final = ("housekeeping", "engineering", "front_desk", "security", "food_and_beverage", "bell_valet")
INTENTS: Final = ("request_item", "report_issue", "task_done", "chatter", "status_update")
WEIGHTS: Final = (35, 15, 20, 20, 10)
COMMON: Final = "towels"
"""In every third utterance."""
RARE: Final = "defibrillator"
"""In every five-thousandth."""
_STAGES: Final = Latency(endpoint=500.0, stt=80.0, publish=4.0, queue=2.0, classify=11.0)


@dataclass(frozen=True, slots=True)
class Talk:
    """One utterance and its insights. `last`: the conversation ends after it."""

    transcript: UtteranceTranscribed
    insights: InsightsFound
    last: bool = False


class Vocabulary:
    """Words made of syllables, as frequent as words are: the n-th comes 1/n times as often as the first."""

    def __init__(self, chance: random.Random) -> None:
        syllables = [first + then for first in "bcdfghklmnprstvw" for then in ("a", "e", "i", "o", "u", "an", "er")]
        words: dict[str, None] = {}
        while len(words) < VOCABULARY:
            words["".join(chance.choices(syllables, k=chance.randint(1, 4)))] = None
        self.words: Final = list(words)
        self._weights: Final = list(accumulate(1 / (rank + 1) for rank in range(VOCABULARY)))
        self._chance = chance

    def say(self, count: int) -> list[str]:
        return self._chance.choices(self.words, cum_weights=self._weights, k=count)


async def fill(directory: DataDirectory, utterances: int, seed: int = 7) -> float:
    """Fill an empty data directory; nobody may serve it meanwhile. Returns the seconds it took."""
    directory.create()
    return await fill_database(directory.database, utterances, seed)


async def fill_database(where: Path | str, utterances: int, seed: int = 7) -> float:
    """The same for a database of the dashboard alone: a file, or the address of a PostgreSQL one."""
    return await store_talks(where, history(utterances, seed))


async def store_talks(where: Path | str, talks: Iterable[Talk]) -> float:
    """Store this talk as the dashboard would, in large batches. Return the seconds it took."""
    began = time.perf_counter()
    database = Database(where)
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    store = SqlStore(database)
    left = iter(talks)
    try:
        while batch := list(islice(left, BATCH)):
            await store.transact(partial(_project, talks=batch))
    finally:
        await database.aclose()
    return time.perf_counter() - began


def history(utterances: int, seed: int) -> Iterator[Talk]:
    """The same for the same seed, but for the time: it ends now."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    vocabulary = Vocabulary(chance)
    step_ns = DAYS * 86_400 * 10**9 // utterances
    start_ns = int(datetime.now(UTC).timestamp() * 1e9) - utterances * step_ns
    for number in range(utterances):
        channel = number % len(CHANNELS)
        place = number // len(CHANNELS)
        conversation = f"{CHANNELS[channel]}-{place // PER_CONVERSATION}"
        yield _talk(chance, vocabulary, number, (CHANNELS[channel], conversation, place), start_ns + number * step_ns)


def _talk(chance: random.Random, vocabulary: Vocabulary, number: int, where: tuple[str, str, int], at_ns: int) -> Talk:
    channel, conversation, place = where
    words = vocabulary.say(chance.randint(4, 18))
    if number % 3 == 0:
        words[0] = COMMON
    if number % 5_000 == 0:
        words[-1] = RARE
    room = str(100 * chance.randint(1, 40) + chance.randint(0, 40))
    words.append(room)
    start = place % PER_CONVERSATION * RATE * 10
    transcript = UtteranceTranscribed(
        site="main",
        conversation_id=conversation,
        utterance_id=f"{conversation}:0:{start}",
        channel=channel,
        speaker=0,
        seq=1 + place % PER_CONVERSATION,
        start_offset=start,
        end_offset=start + 4 * RATE,
        sample_rate=RATE,
        text=" ".join(words),
        words=_timed(words, start),
        confidence=0.9,
        stt_model="whisper-tiny.en",
        spoken_at_ns=at_ns,
        speech_ended_ns=at_ns + 4 * 10**9,
        published_ns=at_ns + 4_600_000_000,
        latency=_STAGES,
    )
    return Talk(transcript, _insights(chance, transcript, words, room), last=transcript.seq == PER_CONVERSATION)


def _timed(words: Sequence[str], start: int) -> tuple[Word, ...]:
    return tuple(
        Word(text=word, start_offset=start + at * 3_000, end_offset=start + at * 3_000 + 2_500, confidence=0.9)
        for at, word in enumerate(words)
    )


def _insights(
    chance: random.Random, transcript: UtteranceTranscribed, words: Sequence[str], room: str
) -> InsightsFound:
    [intent] = chance.choices(INTENTS, WEIGHTS)
    insight = Insight(
        index=0,
        intent=intent,
        department=chance.choice(DEPARTMENTS),
        urgency="normal",
        rooms=(room,) if intent != "chatter" else (),
        items=(Item(name=words[0]),) if intent == "request_item" else (),
        summary=" ".join(words[:6])[:80],
        confidence=0.8,
        model="local",
    )
    return InsightsFound(
        site=transcript.site,
        conversation_id=transcript.conversation_id,
        utterance_id=transcript.utterance_id,
        revision=1,
        insights=(insight,),
        opens_tasks=(0,) if intent in ("request_item", "report_issue") else (),
        speech_ended_ns=transcript.speech_ended_ns,
        published_ns=transcript.published_ns + 11_000_000,
        latency=_STAGES,
    )


def _project(state: State, talks: Sequence[Talk]) -> None:
    projector = Projector(state)
    for talk in talks:
        projector.transcript(talk.transcript)
        projector.insights(talk.insights)
        if talk.last:
            projector.conversation(ended(talk.transcript))
    Decider(projector, state, talks[-1].transcript.published_ns).settle()
    projector.finish()


def ended(last: UtteranceTranscribed) -> ConversationChanged:
    heard = last.seq * 10 * RATE
    speech = last.seq * 4 * RATE
    return ConversationChanged(
        site=last.site,
        conversation_id=last.conversation_id,
        channel=last.channel,
        state="ended",
        sample_rate=RATE,
        speakers=1,
        ledgers=(Ledger(received=heard, speech=speech, silence=heard - speech),),
        at_ns=last.speech_ended_ns + 10**9,
    )
