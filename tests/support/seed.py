"""A board full of cards, put in by the dashboard's own projector: a thousand in about a second, nothing is spoken."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec
from tests.support.dashboard_site import START_NS, found, heard, insight

from quickcomm.contracts.insight import Insight, Urgency
from quickcomm.contracts.transcripts import UtteranceTranscribed, Word
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.storage import Database

BATCH: Final = 200
STEP: Final = 16_000
CONVERSATION: Final = "seeded"
URGENCIES: Final[tuple[Urgency, ...]] = ("normal", "high", "normal", "low", "critical", "normal")
WORDS: Final = ("please", "bring", "four", "bath", "towels", "and", "a", "robe", "to", "room", "they", "have", "asked")


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """So many cards of each kind, evenly mixed; `done` are finished one second after the other."""

    open: int = 0
    done: int = 0
    information: int = 0
    unclassified: int = 0


async def seed(database: Database, wanted: Seed, *, site: str = "main", first: int = 0) -> list[str]:
    """Put in the cards, the oldest first; return their ids. `first`: how many were put in before."""
    counts = zip(wanted.__struct_fields__, msgspec.structs.astuple(wanted), strict=True)
    spread = sorted(((at + 0.5) / count, kind) for kind, count in counts for at in range(count))
    kinds = [kind for _, kind in spread]

    def work(numbered: Sequence[tuple[int, str]], state: State) -> list[str]:
        projector = Projector(state)
        put = [_put(projector, state, site, number, kind) for number, kind in numbered]
        projector.finish()
        return put

    ids: list[str] = []
    for start in range(0, len(kinds), BATCH):  # what writes at the same time waits for one of them
        batch = partial(work, list(enumerate(kinds[start : start + BATCH], start=first + start)))
        ids += await SqlStore(database).transact(batch)
    return ids


def _put(projector: Projector, state: State, site: str, number: int, kind: str) -> str:
    transcript = _heard(site, number)
    projector.transcript(transcript)
    if kind != "unclassified":
        projector.insights(found(transcript, _insight(number, kind), opens=kind in {"open", "done"}))
    if kind == "done":
        decider = Decider(projector, state, START_NS + number * 10**9)
        decider.edit(site, f"{transcript.utterance_id}:0", Edit(action="complete", by="Ada"))
    return transcript.utterance_id


def _heard(site: str, number: int) -> UtteranceTranscribed:
    start = number * STEP
    words = _timed(start, (*WORDS, str(100 + number)))
    return msgspec.structs.replace(
        heard(start, " ".join(word.text for word in words), conversation=CONVERSATION, site=site), words=words
    )


def _timed(start: int, words: Sequence[str]) -> tuple[Word, ...]:
    return tuple(
        Word(text=text, start_offset=start + at * 500, end_offset=start + at * 500 + 400, confidence=0.9)
        for at, text in enumerate(words)
    )


def _insight(number: int, kind: str) -> Insight:
    if kind == "information":
        return insight("chatter", summary="Good morning", department="none")
    # Each room is its own, so that nothing is closed by what is said of another one.
    room = str(100 + number)
    made = insight("request_item", room, summary=f"Bring towels to {room}")
    return msgspec.structs.replace(made, urgency=URGENCIES[number % len(URGENCIES)])
