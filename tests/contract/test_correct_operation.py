"""Correcting an utterance, from the request to the task: in one transaction and durably; and what intelligence does."""

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.dashboard_site import Site, events, found, heard, insight, running
from tests.support.talking import delivery

from quickcomm.contracts.correcting import Correction, ReadCorrection, UnderstandCorrection, first_revision
from quickcomm.contracts.erasing import EraseIntelligence, Scope
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.intelligence.adapters.correcting import Corrections
from quickcomm.intelligence.adapters.erasing import erasing_answer
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.model.talk import SummarySettings, Talk
from quickcomm.intelligence.model.talk import found as with_insights
from quickcomm.intelligence.model.talk import heard as with_transcript
from quickcomm.intelligence.module import Intelligence
from quickcomm.intelligence.ports import Heard, Owed
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.understanding import Understanding
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import NotFoundError, UnavailableError
from quickcomm.kernel.messaging.bus.sql_tables import messages
from quickcomm.kernel.messaging.rpc import LocalRpc
from quickcomm.kernel.saga.definition import digest
from quickcomm.kernel.saga.durable import Durable
from quickcomm.kernel.saga.executors import InTransaction
from quickcomm.kernel.saga.keys import migrate_keys
from quickcomm.kernel.saga.running import Runner
from quickcomm.operations.adapters.journal import SqlJournal
from quickcomm.operations.definitions import OPERATIONS
from quickcomm.operations.service.desk import Desk

SAID: Final = heard(0, "towels to 415")
CARD: Final = f"/v1/utterances/{SAID.utterance_id}"
RIGHT: Final = "sailcloth to 412"


class Rooms:
    """A classifier: numbers are rooms; "sorry" is said while the model is away."""

    model = "rooms"

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.failures: list[Exception] = []

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        if self.failures:
            raise self.failures.pop()
        self.heard += heard
        return [(self._insight(each.text),) for each in heard]

    def _insight(self, text: str) -> Insight:
        told = insight("request_item", *re.findall(r"\d+", text), summary=f"Bring {text}")
        return msgspec.structs.replace(told, degraded="sorry" in text)


class Mind:
    """Intelligence on a database that is there."""

    def __init__(self, database: Any, rpc: LocalRpc) -> None:
        Intelligence.migrate_tables(database)
        migrate_keys(database.engine)
        clock = SystemClock()
        self.rooms = Rooms()
        self.results = SqlResults(database, clock)
        self.understanding = Understanding(self.rooms, self.results, clock, lambda _intent: True)
        self.corrections = Corrections(self.understanding, self.results, Ownership(), clock, rpc)
        self.answer = self.corrections.answer(database)


class World:
    """A dashboard, intelligence, and an executor."""

    def __init__(self, site: Site, mind: Mind, journal: SqlJournal, directory: Path) -> None:
        self.site = site
        self.mind = mind
        self.journal = journal
        self.directory = directory

    async def correct(self, text: str, expect: int = 200) -> Any:
        return await self.site.post(f"{CARD}/correct", body={"text": text}, expect=expect)

    async def card_with(self, text: str, revision: int) -> Any:
        async with self.site.live("?after=0") as feed:
            while True:
                card = (await events(feed, "card"))["card"]
                if card["text"] == text and card["insights"][0]["revision"] == revision:
                    return card


@pytest.fixture(params=["local", "durable"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    clock = SystemClock()
    async with running(tmp_path / "site") as site:
        rpc = site.dashboard._rpc
        assert isinstance(rpc, LocalRpc)
        mind = Mind(site.database, rpc)
        journal = SqlJournal(site.database)
        journal.migrate()
        runner = Runner(OPERATIONS, rpc, clock)
        if request.param == "local":
            rpc.serve([mind.answer])
            here = InTransaction(runner, journal, site.database, clock, patience_s=0.2)
            desk = Desk(OPERATIONS, journal, here, None, clock)
            rpc.serve(desk.answers())
            yield World(site, mind, journal, tmp_path)
            return

        async def over_the_wire(asked: Any) -> Any:
            return await mind.answer[1](asked)

        rpc.serve([(UnderstandCorrection, over_the_wire)])
        durable = Durable(runner, journal, f"sqlite:///{tmp_path / 'steps.sqlite'}", digest(OPERATIONS.values()))
        desk = Desk(OPERATIONS, journal, None, durable, clock)
        durable.told = desk.told
        rpc.serve(desk.answers())
        await durable.open()
        yield World(site, mind, journal, tmp_path)
        await durable.aclose()


async def test_from_the_request_to_the_task(world: World) -> None:
    site, early = world.site, heard(-16_000, "good morning")
    await site.say(early, insight("chatter"))
    await site.say(SAID, insight("request_item", "415", summary="Bring towels to 415"))
    stand = await world.correct(RIGHT)
    assert (stand["operation"], stand["status"], stand["subject"]) == ("correct", "done", f"{SAID.utterance_id}#1")
    assert [each["step"] for each in stand["history"] if each["what"] == "done"] == ["amend", "understand"]
    [asked] = world.mind.rooms.heard
    assert (asked.text, asked.context, asked.channel) == (RIGHT, ("good morning",), SAID.channel)
    card = await world.card_with(RIGHT, first_revision(1))
    assert (card["corrected"]["by"], card["corrected"]["heard"]) == ("the admin", SAID.text)
    assert [(task["rooms"], task["summary"]) for task in card["tasks"]] == [(["412"], f"Bring {RIGHT}")]
    assert (await world.correct(RIGHT))["operation_id"] == stand["operation_id"], "the same text, the same answer"
    assert len(world.mind.rooms.heard) == 1
    second = await world.correct("sailcloth to 411")
    assert (second["status"], second["subject"]) == ("done", f"{SAID.utterance_id}#2")
    assert (await world.card_with("sailcloth to 411", first_revision(2)))["tasks"][0]["rooms"] == ["411"]
    await world.correct(SAID.text)
    assert (await world.card_with(SAID.text, first_revision(3)))["corrected"]["heard"] == SAID.text


async def rows_of(site: Site, table: str) -> Sequence[Any]:
    query = sa.text(f"SELECT * FROM {table}")  # noqa: S608 - a name of ours
    return await site.database.read(lambda connection: connection.execute(query).all())


async def test_what_is_kept_of_operations_has_no_words(world: World) -> None:
    await world.site.say(SAID, insight("request_item", "415"))
    assert (await world.correct(RIGHT))["status"] == "done"
    for table in ("operations_journal", "saga_keys"):
        rows = await rows_of(world.site, table)
        assert rows
        assert "sailcloth" not in str(rows)
    kept = [path.read_bytes() for path in world.directory.glob("steps.sqlite*")]
    assert all(b"sailcloth" not in each for each in kept)


async def test_what_intelligence_refuses_takes_the_text_back(world: World) -> None:
    await world.site.say(SAID, insight("request_item", "415"))
    world.mind.rooms.failures.append(NotFoundError("It was erased."))
    is_local = not list(world.directory.glob("steps.sqlite"))
    if is_local:
        await world.correct(RIGHT, expect=404)
    else:
        stand = await world.correct(RIGHT)
        assert (stand["status"], stand["why"]) == ("compensated", "It was erased.")
    card = await world.site.get(CARD)
    assert (card["text"], card["corrected"], card["insights"][0]["rooms"]) == (SAID.text, None, ["415"])
    assert (await world.correct(RIGHT))["status"] == "done"
    assert (await world.site.get(CARD))["text"] == RIGHT


async def test_what_may_still_succeed_is_tried_again(world: World) -> None:
    await world.site.say(SAID, insight("request_item", "415"))
    world.mind.rooms.failures.append(UnavailableError("The database is away."))
    assert (await world.correct(RIGHT))["status"] == "done"
    assert (await world.site.get(CARD))["text"] == RIGHT


# -- intelligence -----------------------------------------------------------------------------------------------------


class Alone:
    """Intelligence, whose dashboard says what it is to understand."""

    def __init__(self, site: Site, text: str) -> None:
        self.rpc = LocalRpc(SystemClock())
        self.site = site
        self.mind = Mind(site.database, self.rpc)
        self.first = found(SAID, msgspec.structs.replace(insight("request_item", "415"), degraded=True))

        async def read(_request: ReadCorrection) -> Correction:
            return Correction(text=text, channel=SAID.channel, context=(), found=self.first)

        self.rpc.serve([(ReadCorrection, read), self.mind.answer])

    async def understand(self, number: int = 1) -> Any:
        key = f"op-{number}:understand"
        asked = UnderstandCorrection(key=key, site="main", utterance_id=SAID.utterance_id, number=number)
        return await self.rpc.call(asked)

    def owed(self) -> Owed:
        told = Heard(
            text=SAID.text,
            channel=SAID.channel,
            site="main",
            conversation_id=SAID.conversation_id,
            utterance_id=SAID.utterance_id,
        )
        return Owed(found=self.first, heard=told)

    async def published(self) -> list[InsightsFound]:
        query = sa.select(messages.c.payload).order_by(messages.c.id)
        rows = await self.site.database.read(lambda connection: connection.execute(query).scalars().all())
        return [msgspec.json.decode(row, type=InsightsFound) for row in rows if b'"insights"' in row]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path / "site") as site:
        yield site


async def test_a_renewal_of_the_heard_text_comes_too_late(site: Site) -> None:
    alone = Alone(site, "towels to 412")
    await alone.mind.results.publish([alone.first], [alone.owed()])
    [debt] = await alone.mind.results.oldest(9, 0)
    assert (await alone.understand()).revision == first_revision(1)
    assert await alone.mind.results.oldest(9, 0) == [], "what was owed was of another text"
    late = msgspec.structs.replace(debt.found, revision=2)
    await alone.mind.results.publish([late])
    told = await alone.published()
    assert [each.revision for each in told] == [1, first_revision(1)]
    assert (told[-1].text, told[-1].insights[0].rooms, told[-1].opens_tasks) == ("towels to 412", ("412",), (0,))
    assert told[-1].latency == alone.first.latency, "the receipt is that of the first"
    assert await alone.understand() == await alone.understand()
    assert len(await alone.published()) == 2


async def test_a_corrected_text_is_owed_as_it_is_corrected(site: Site) -> None:
    alone = Alone(site, "sorry towels to 412")
    await alone.mind.results.publish([alone.first], [alone.owed()])
    await alone.understand()
    [debt] = await alone.mind.results.oldest(9, 0)
    assert (debt.heard.text, debt.found.revision) == ("sorry towels to 412", first_revision(1))


async def test_what_was_erased_is_not_understood_again(site: Site) -> None:
    alone = Alone(site, "towels to 412")
    await alone.mind.results.publish([alone.first])
    _, erase = erasing_answer(site.database, alone.mind.corrections.erase)
    await erase(EraseIntelligence(erasure="e", at_ns=1, scope=Scope(utterances=(SAID.utterance_id,))))
    with pytest.raises(NotFoundError):
        await alone.understand()
    assert await alone.published() == []


class Theirs(Ownership):
    """The other side answers everything."""

    def answers(self, message: UtteranceTranscribed) -> bool:
        del message
        return False


async def test_what_the_other_side_has_corrected_is_renewed_as_corrected(site: Site) -> None:
    clock = SystemClock()
    mine = Understanding(Rooms(), SqlResults(site.database, clock), clock, lambda _intent: True, ownership=Theirs())
    await mine.handle([delivery(SAID)])
    degraded = msgspec.structs.replace(insight("request_item", "412"), degraded=True)
    first = found(SAID, degraded)
    [debt] = mine.owed([first])
    assert debt.heard.text == SAID.text
    right = msgspec.structs.replace(first, revision=first_revision(1), text="towels to 412")
    [debt] = mine.owed([right])
    assert debt.heard.text == "towels to 412"


def test_summaries_know_a_corrected_text_from_then_on() -> None:
    rules, next_one = SummarySettings(), heard(16_000, "thank you")
    right = msgspec.structs.replace(found(SAID, revision=first_revision(1)), text="towels to 412")
    blank = Talk(site="main", conversation_id=SAID.conversation_id, channel="")
    said = with_transcript(with_transcript(blank, SAID, rules, 1), next_one, rules, 2)
    after = with_insights(said, right, 3)
    assert [line.text for line in after.lines] == ["towels to 412", "thank you"]
    assert after.changes > said.changes
    assert with_insights(after, right, 4) == after
    late = with_insights(after, found(SAID, insight("request_item", "415"), revision=2), 5)
    assert late == after
    covered = msgspec.structs.replace(said, lines=())
    assert [line.text for line in with_insights(covered, right, 3).lines] == ["towels to 412"]
    before = with_insights(blank, right, 1)  # streams may be read side by side
    assert [line.text for line in with_transcript(before, SAID, rules, 2).lines] == ["towels to 412"]
