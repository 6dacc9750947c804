"""Bugs against which there are decisions, outbox and inbox, planted in copies of the code: each is found."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.contract.test_check import ended
from tests.support.dashboard_site import START_NS, found, heard, insight

from quickcomm.contracts.checking import CompareDashboard, CompareIntelligence, Contents
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.digests import digest_answers
from quickcomm.dashboard.adapters.state import SqlState, SqlStore
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.intelligence.adapters.digests import digest_answer
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.module import Intelligence
from quickcomm.kernel.checking.compare import compare, compare_copies
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database, migrate

Message = UtteranceTranscribed | InsightsFound
ASKED, DONE = heard(0, "towels to 412", conversation="a"), heard(160_000, "all done", conversation="a")
MESSAGES: tuple[Message, ...] = (
    ASKED,
    found(ASKED, insight("request_item", "412")),
    DONE,
    found(DONE, insight("task_done")),
)


@asynccontextmanager
async def dashboard(where: Path) -> AsyncIterator[Database]:
    database = Database(where)
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    try:
        yield database
    finally:
        await database.aclose()


async def told(database: Database, **asked: Any) -> Contents:
    (_, contents), *_ = digest_answers(database)
    answer: Contents = await contents(CompareDashboard(items=True, **asked))
    return answer


async def take(database: Database, messages: Iterable[Message], projector: type[Projector] = Projector) -> None:
    def work(state: State) -> None:
        projection = projector(state)
        for message in messages:
            if isinstance(message, UtteranceTranscribed):
                projection.transcript(message)
            else:
                projection.insights(message)
        projection.finish()

    await SqlStore(database).transact(work)


async def test_publishing_before_the_commit_is_found(tmp_path: Path) -> None:
    """The process dies in between: the dashboard is told what intelligence does not know."""
    mind = Database(tmp_path / "mind.sqlite")
    mind.open()
    bus = SqlBus(mind, SystemClock())
    bus.migrate()
    Intelligence.migrate_tables(mind)
    published: list[Message] = [ASKED]

    class Died(Exception):  # noqa: N818 - of the process, not of a call
        """Of the process."""

    async def publish(messages: Iterable[InsightsFound]) -> None:
        for message in messages:
            await bus.publish(INSIGHTS, message.conversation_id, msgspec.json.encode(message))
            published.append(message)
        raise Died

    try:
        await SqlResults(mind).publish([message for message in MESSAGES[3:] if isinstance(message, InsightsFound)])
        with pytest.raises(Died):
            await publish([message for message in MESSAGES[:2] if isinstance(message, InsightsFound)])
        async with dashboard(tmp_path / "page.sqlite") as page:
            await take(page, [*published, *MESSAGES[2:]])
            _, contents = digest_answer(mind)
            sides = {"dashboard": await told(page), "intelligence": await contents(CompareIntelligence(items=True))}
        [finding] = compare(sides)
        assert (finding.code, finding.id) == ("insights.unrecorded", ASKED.utterance_id)
    finally:
        await mind.aclose()


async def test_a_missing_inbox_mark_is_found(tmp_path: Path) -> None:
    """What comes twice is applied twice."""

    class Forgetful(Projector):
        def transcript(self, message: UtteranceTranscribed) -> None:
            key = (message.site, message.utterance_id)
            known = self.utterance(*key)
            if known is not None:
                self.loaded[key] = msgspec.structs.replace(known, heard=None)
            super().transcript(message)

    async with dashboard(tmp_path / "page.sqlite") as page:
        await take(page, MESSAGES, Forgetful)
        await SqlStore(page).transact(lambda state: Projector(state).conversation(ended("a")))
        assert (await told(page)).faults == []
        await take(page, MESSAGES[:1], Forgetful)
        [fault] = (await told(page)).faults
        assert (fault.code, fault.id) == ("conversation.miscounted", "a")
        assert fault.detail == "3 utterances counted, 2 are there"


async def test_a_projection_that_decides_is_found(tmp_path: Path) -> None:
    """Which task is acknowledged when somebody says "all done" depends on when each side hears of it."""

    class Deciding(Projector):
        def adopt(self, record: Any) -> None:
            super().adopt(record)
            Decider(self, self._state, START_NS).settle()

    def acknowledge(state: State) -> None:
        projector = Projector(state)
        Decider(projector, state, START_NS, new_id=lambda: "once").edit(
            "main", f"{ASKED.utterance_id}:0", Edit(action="acknowledge", by="Ann")
        )
        projector.finish()

    async with dashboard(tmp_path / "one.sqlite") as one, dashboard(tmp_path / "two.sqlite") as two:
        for side, parts in ((one, (2, 2)), (two, (4, 0))):
            await take(side, MESSAGES[: parts[0]], Deciding)
            await SqlStore(side).transact(acknowledge)
            await take(side, MESSAGES[parts[0] :], Deciding)
        here, there = [await told(side, content=True) for side in (one, two)]
        found_ids = {(finding.code, finding.id) for finding in compare_copies(here, there)}
        assert ("tasks.differ", f"{ASKED.utterance_id}:0") in found_ids
        status = [await side.read(lambda c: SqlState(c).task("main", f"{ASKED.utterance_id}:0")) for side in (one, two)]
        assert [task.status for task in status if task is not None] == ["done", "acknowledged"]
