"""A hotel's morning for a data directory: cards with open tasks and for information, stored by the dashboard."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from benchmarks.history import Talk, store_talks
from quickcomm.contracts.insight import Evidence, Insight, Item, Urgency
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed, Word
from quickcomm.kernel.runtime.data_directory import DataDirectory

RATE: Final = 16_000
HOURS: Final = 8
FLOORS: Final = 9
INFORMATION_SHARE: Final = 101 / 239
"""Cards for information for each open task: 340 cards with 239 open, as after ten demo shifts."""
_STAGES: Final = Latency(endpoint=500.0, stt=80.0, publish=4.0, queue=2.0, classify=11.0)
_SECOND: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A sentence of the radio and what it asks for; `{room}` is filled in."""

    text: str
    summary: str
    intent: str
    department: str
    urgency: Urgency
    channel: str
    weight: int = 4
    item: Item | None = None


WORK: Final = (
    Phrase(
        text="Housekeeping, please send two extra bath towels to {room}.",
        summary="Bring 2 bath towels to {room}",
        intent="request_item",
        department="housekeeping",
        urgency="normal",
        channel="housekeeping",
        item=Item(name="bath towels", quantity=2),
    ),
    Phrase(
        text="{room} checked out, it needs a full clean before three.",
        summary="Clean {room} before three",
        intent="cleaning",
        department="housekeeping",
        urgency="normal",
        channel="housekeeping",
    ),
    Phrase(
        text="The bedside lamp in {room} does not work.",
        summary="Repair the bedside lamp in {room}",
        intent="repair",
        department="engineering",
        urgency="normal",
        channel="engineering",
    ),
    Phrase(
        text="Room service, two club sandwiches and a pot of coffee for {room}.",
        summary="Bring 2 club sandwiches and coffee to {room}",
        intent="food_order",
        department="food_beverage",
        urgency="normal",
        channel="front-desk",
        item=Item(name="club sandwiches", quantity=2),
    ),
    Phrase(
        text="Bell desk, please pick up the bags from {room}.",
        summary="Pick up the bags from {room}",
        intent="transport",
        department="guest_services",
        urgency="normal",
        channel="front-desk",
    ),
    Phrase(
        text="Water is coming through the ceiling in {room}.",
        summary="Stop the water through the ceiling in {room}",
        intent="repair",
        department="engineering",
        urgency="high",
        channel="engineering",
    ),
    Phrase(
        text="The guest in {room} is very upset, nobody came for an hour.",
        summary="Attend to the upset guest in {room}",
        intent="complaint",
        department="front_desk",
        urgency="high",
        channel="front-desk",
    ),
    Phrase(
        text="There is smoke coming from under the door of {room}.",
        summary="Check the smoke at {room}",
        intent="emergency",
        department="security",
        urgency="critical",
        channel="security",
        weight=1,
    ),
)
ALIKE: Final = (WORK[0], WORK[5], replace(WORK[7], weight=4))
"""One phrase of each urgency, equally often: all cards of a section have the same height, and none is the last."""
INFORMATION: Final = (
    Phrase(
        text="Copy that, I'm on my way to {room}.",
        summary="Note: on the way to {room}",
        intent="acknowledge",
        department="none",
        urgency="low",
        channel="housekeeping",
    ),
    Phrase(
        text="Good morning everybody, it is a busy day.",
        summary="No action: Good morning",
        intent="chatter",
        department="none",
        urgency="low",
        channel="front-desk",
    ),
    Phrase(
        text="Room {room} is clean and inspected.",
        summary="Note: {room} is clean and inspected",
        intent="room_status",
        department="housekeeping",
        urgency="low",
        channel="housekeeping",
    ),
)


async def fill_board(directory: DataDirectory, open_tasks: int, work: Sequence[Phrase] = WORK, seed: int = 7) -> int:
    """Fill an empty data directory with that many open tasks, each on its own card; return the number of cards."""
    directory.create()
    talks = list(morning(open_tasks, work, seed))
    await store_talks(directory.database, talks)
    return len(talks)


def morning(open_tasks: int, work: Sequence[Phrase], seed: int) -> Iterator[Talk]:
    """Yield the talk of the last hours, oldest first: the same for the same seed, up to a minute ago."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    phrases = chance.choices(work, [phrase.weight for phrase in work], k=open_tasks)
    phrases += chance.choices(INFORMATION, k=round(open_tasks * INFORMATION_SHARE))
    chance.shuffle(phrases)
    step_ns = HOURS * 3_600 * _SECOND // len(phrases)
    start_ns = int(datetime.now(UTC).timestamp()) * _SECOND - 60 * _SECOND - len(phrases) * step_ns
    left = Counter(phrase.channel for phrase in phrases)
    seen: Counter[str] = Counter()
    for number, phrase in enumerate(phrases):
        seen[phrase.channel] += 1
        left[phrase.channel] -= 1
        room = str(100 * chance.randint(1, FLOORS) + chance.randint(0, 60))
        at_ns = start_ns + number * step_ns
        yield _talk(phrase, room, seen[phrase.channel], at_ns, last=left[phrase.channel] == 0)


def _talk(phrase: Phrase, room: str, seq: int, at_ns: int, *, last: bool) -> Talk:
    conversation = f"morning-{phrase.channel}"
    start = seq * RATE * 10
    text = phrase.text.format(room=room)
    transcript = UtteranceTranscribed(
        site="main",
        conversation_id=conversation,
        utterance_id=f"{conversation}:0:{start}",
        channel=phrase.channel,
        speaker=0,
        seq=seq,
        start_offset=start,
        end_offset=start + 4 * RATE,
        sample_rate=RATE,
        text=text,
        words=tuple(
            Word(text=word, start_offset=start + at * 3_000, end_offset=start + at * 3_000 + 2_500, confidence=0.9)
            for at, word in enumerate(text.split())
        ),
        confidence=0.9,
        stt_model="whisper-tiny.en",
        spoken_at_ns=at_ns,
        speech_ended_ns=at_ns + 4 * _SECOND,
        published_ns=at_ns + 4 * _SECOND + 600_000_000,
        latency=_STAGES,
    )
    return Talk(transcript, _insights(phrase, room, transcript), last=last)


def _insights(phrase: Phrase, room: str, transcript: UtteranceTranscribed) -> InsightsFound:
    named = "{room}" in phrase.text
    insight = Insight(
        index=0,
        intent=phrase.intent,
        department=phrase.department,
        urgency=phrase.urgency,
        rooms=(room,) if named else (),
        items=(phrase.item,) if phrase.item else (),
        summary=phrase.summary.format(room=room),
        confidence=0.8,
        model="local",
        evidence=Evidence(rooms=(room,)) if named else Evidence(),
    )
    return InsightsFound(
        site=transcript.site,
        conversation_id=transcript.conversation_id,
        utterance_id=transcript.utterance_id,
        revision=1,
        insights=(insight,),
        opens_tasks=() if phrase.urgency == "low" else (0,),
        speech_ended_ns=transcript.speech_ended_ns,
        published_ns=transcript.published_ns + 11_000_000,
        latency=_STAGES,
    )
