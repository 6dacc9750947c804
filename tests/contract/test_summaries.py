"""Summaries through a real database and bus: debounced, grounded, local without the model, each revision once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.intelligence_store import allow_writes, opened, refuse_writes
from tests.support.talking import (
    START_NS,
    CountedUsage,
    ScriptedModel,
    changed,
    delivery,
    insight,
    spoken,
    understood,
)

from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.intelligence.adapters.sql_talks import SqlTalks
from quickcomm.intelligence.model.talk import SummarySettings
from quickcomm.intelligence.ports import ModelError
from quickcomm.intelligence.service.side_questions import SideQuestions
from quickcomm.intelligence.service.summaries import AT_ONCE, Summaries
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus import Delivery, RejectedError
from quickcomm.kernel.messaging.bus.sql_tables import messages
from quickcomm.kernel.storage import Database, StorageError

SETTINGS = SummarySettings(quiet_s=20, utterances=3, settle_s=2, late_s=60)
LEAK = spoken(1, "leak in 305")
LEAK_FOUND = understood(LEAK, insight("repair", "Fix leak in 305", "305"))
GOOD = '{"summary":"A leak in 305 is open."}'


class Desk:
    """Summaries with a clock that is moved by hand."""

    def __init__(
        self,
        database: Database,
        model: ScriptedModel | None = None,
        clock: FakeClock | None = None,
        *,
        is_open: Callable[[], bool] = lambda: True,
    ) -> None:
        self.database = database
        self.clock = clock or FakeClock(START_NS)
        self.usage = CountedUsage()
        self.store = SqlTalks(database, SETTINGS)
        questions = SideQuestions(model, self.usage)
        questions.may_ask = is_open
        self.summaries = Summaries(self.store, questions, self.clock, SETTINGS)

    async def leak(self) -> None:
        await self.summaries.transcripts([delivery(LEAK)])
        await self.summaries.insights([delivery(LEAK_FOUND)])

    async def published(self) -> list[ConversationSummarized]:
        query = sa.select(messages.c.payload).where(messages.c.stream == SUMMARIES).order_by(messages.c.id)
        payloads = await self.database.read(lambda connection: list(connection.execute(query).scalars()))
        return [msgspec.json.decode(payload, type=ConversationSummarized) for payload in payloads]


@pytest.fixture
async def database(mind_store: Path | str) -> AsyncIterator[Database]:
    async with opened(mind_store) as database:
        yield database


async def test_a_summary_comes_after_a_pause_and_once(database: Database) -> None:
    model = ScriptedModel(GOOD)
    desk = Desk(database, model)
    await desk.leak()
    desk.clock.advance(19)
    assert await desk.summaries.renew() == 0
    desk.clock.advance(1)
    assert await desk.summaries.renew() == 1
    assert await desk.summaries.renew() == 0
    await desk.leak()  # delivered again
    desk.clock.advance(100)
    assert await desk.summaries.renew() == 0
    (message,) = await desk.published()
    assert (message.text, message.source, message.revision) == ("A leak in 305 is open.", "llm", 1)
    assert (message.channel, message.utterances) == ("housekeeping", 1)
    assert desk.usage.calls == [("main", "c", 120)]
    assert model.requests[0].schema is not None


async def test_many_utterances_or_the_end_do_not_wait_for_a_pause(database: Database) -> None:
    desk = Desk(database)
    await desk.summaries.transcripts([delivery(spoken(number, "hello")) for number in (1, 2, 3)])
    await desk.summaries.transcripts([delivery(spoken(1, "hello", conversation="d"))])
    await desk.summaries.conversations([delivery(changed("d", "ended")), delivery(changed("nobody", "ended"))])
    desk.clock.advance(2)
    assert await desk.summaries.renew() == 2
    assert {message.conversation_id for message in await desk.published()} == {"c", "d"}


@pytest.mark.parametrize(
    "answer",
    ['{"summary":"A leak in 999 is open."}', "I cannot help with that.", ModelError("refused")],
)
async def test_without_a_usable_answer_the_summary_is_local(database: Database, answer: str | ModelError) -> None:
    desk = Desk(database, ScriptedModel(answer))
    await desk.leak()
    desk.clock.advance(20)
    await desk.summaries.renew()
    (message,) = await desk.published()
    assert (message.text, message.source) == ("Open: Fix leak in 305.", "local")


@pytest.mark.parametrize("reason", ["no model", "cap", "circuit", "late"])
async def test_the_model_is_not_asked_when_it_should_not_be(database: Database, reason: str) -> None:
    model = ScriptedModel(GOOD)
    desk = Desk(database, None if reason == "no model" else model, is_open=lambda: reason != "circuit")
    desk.usage.exhausted = reason == "cap"
    await desk.leak()
    desk.clock.advance(81 if reason == "late" else 20)
    await desk.summaries.renew()
    assert model.requests == []
    assert [message.source for message in await desk.published()] == ["local"]


async def test_when_the_model_is_back_it_sees_what_it_missed(database: Database) -> None:
    model = ScriptedModel(ModelError("down"), GOOD)
    desk = Desk(database, model)
    await desk.leak()
    desk.clock.advance(20)
    await desk.summaries.renew()
    await desk.summaries.transcripts([delivery(spoken(2, "anybody there"))])
    desk.clock.advance(20)
    await desk.summaries.renew()
    assert [(message.revision, message.source) for message in await desk.published()] == [(1, "local"), (2, "llm")]
    assert "leak in 305" in model.requests[1].messages[1].content


async def test_a_restart_forgets_nothing_and_repeats_no_revision(database: Database) -> None:
    desk = Desk(database)
    await desk.leak()
    desk.clock.advance(20)
    await desk.summaries.renew()
    await desk.summaries.transcripts([delivery(spoken(2, "305 fixed"))])
    again = Desk(database, clock=desk.clock)
    await again.leak()
    await again.summaries.insights([delivery(understood(spoken(2, ""), insight("task_done", "305 fixed", "305")))])
    again.clock.advance(20)
    assert await again.summaries.renew() == 1
    assert [(message.revision, message.text) for message in await again.published()] == [
        (1, "Open: Fix leak in 305."),
        (2, "Done: Fix leak in 305."),
    ]


async def test_of_two_that_write_the_same_revision_one_counts(database: Database) -> None:
    desk = Desk(database)
    await desk.leak()
    desk.clock.advance(20)
    (seen,) = await desk.store.due(desk.clock.now_ns(), 10)
    assert await desk.store.publish(seen, "First.", "local", 1)
    assert not await desk.store.publish(seen, "Second.", "local", 2)
    assert [message.text for message in await desk.published()] == ["First."]


async def test_a_summary_that_cannot_be_stored_is_written_later(database: Database) -> None:
    desk = Desk(database)
    await desk.leak()
    desk.clock.advance(20)
    await refuse_writes(database, "bus_messages")
    with pytest.raises(ExceptionGroup) as failed:
        await desk.summaries.renew()
    assert failed.group_contains(StorageError)
    await allow_writes(database)
    assert await desk.summaries.renew() == 1
    assert [message.revision for message in await desk.published()] == [1]


async def test_few_questions_at_once(database: Database) -> None:
    model = ScriptedModel('{"summary":"Hello."}')
    desk = Desk(database, model)
    for number in range(30):
        await desk.summaries.transcripts([delivery(spoken(1, "hello", conversation=f"c{number}"))])
    desk.clock.advance(20)
    assert await desk.summaries.renew() == AT_ONCE
    assert await desk.summaries.renew() == 30 - AT_ONCE
    assert model.most == 2
    assert len(await desk.published()) == 30


async def test_ended_conversations_are_forgotten_and_others_are_not(database: Database) -> None:
    desk = Desk(database)
    for name in ("c", "d"):
        await desk.summaries.transcripts([delivery(spoken(1, "hello", conversation=name))])
    await desk.summaries.conversations([delivery(changed("c", "expired"))])
    await desk.store.forget(START_NS + 1)
    left = await desk.store.due(START_NS + 10**12, 10)
    assert [talk.conversation_id for talk in left] == ["d"]
    await desk.store.purge(START_NS + 1)
    assert await desk.store.due(START_NS + 10**12, 10) == []


async def test_what_is_no_message_goes_to_the_dead_letters(database: Database) -> None:
    desk = Desk(database)
    broken = Delivery(message_id=1, stream="test", key="c", payload=b"{}")
    for handle in (desk.summaries.transcripts, desk.summaries.insights, desk.summaries.conversations):
        with pytest.raises(RejectedError):
            await handle([broken])


async def test_what_a_later_release_adds_to_an_insight_does_no_harm(database: Database) -> None:
    desk = Desk(database)
    await desk.summaries.transcripts([delivery(LEAK)])
    said = msgspec.to_builtins(LEAK_FOUND)
    said["insights"][0]["of_a_later_release"] = True
    await desk.summaries.insights([msgspec.structs.replace(delivery(LEAK), payload=msgspec.json.encode(said))])
    [talk] = await desk.store.due(START_NS + 10**12, 10)
    assert [asked.rooms for note in talk.notes for asked in note.asked] == [("305",)]


async def test_an_end_that_comes_before_what_was_said_is_not_forgotten(database: Database) -> None:
    desk = Desk(database)
    await desk.summaries.conversations([delivery(changed("c", "ended"))])
    assert await desk.summaries.renew() == 0
    await desk.leak()
    desk.clock.advance(SETTINGS.settle_s)
    assert await desk.summaries.renew() == 1
    await desk.store.forget(START_NS + 10**12)
    assert await desk.store.due(START_NS + 10**12, 10) == []
    await desk.leak()
    [talk] = await desk.store.due(START_NS + 10**12, 10)
    assert talk.revision == 0, "as if it had never been heard of"


async def test_of_several_processes_one_writes_and_another_goes_on_where_it_died(shared_store: str) -> None:
    model = ScriptedModel(GOOD)
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        clock = FakeClock(START_NS)
        one, two = Desk(mine, model, clock), Desk(theirs, model, clock)
        await one.summaries.transcripts([delivery(LEAK)])
        await two.summaries.insights([delivery(LEAK_FOUND)])
        clock.advance(20)
        assert len(await one.store.due(clock.now_ns(), 10)) == 1
        assert await two.summaries.renew() == 0
        clock.advance(59)
        assert await two.summaries.renew() == 0
        clock.advance(1)
        assert await two.summaries.renew() == 1
        assert await one.summaries.renew() == 0
        assert [(message.revision, message.text) for message in await one.published()] == [
            (1, "A leak in 305 is open."),
        ]
        assert len(model.requests) == 1


async def test_three_streams_of_a_conversation_may_be_in_several_hands(shared_store: str) -> None:
    """Updates do not get lost, whoever makes them."""
    async with opened(shared_store) as mine, opened(shared_store) as theirs:
        clock = FakeClock(START_NS)
        one, two = Desk(mine, clock=clock), Desk(theirs, clock=clock)
        said = [spoken(number, f"leak in {number}") for number in range(1, 31)]
        found = [understood(each, insight("repair", f"Fix {each.seq}", str(each.seq))) for each in said]
        async with asyncio.TaskGroup() as group:
            for message, insights in zip(said, found, strict=True):
                group.create_task(two.summaries.insights([delivery(insights)]))
                await one.summaries.transcripts([delivery(message)])
        clock.advance(20)
        [talk] = await one.store.due(clock.now_ns(), 10)
        assert (talk.utterances, len(talk.lines), len(talk.notes)) == (30, 30, 30)
