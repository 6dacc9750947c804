"""What dashboard and intelligence tell the checker: the same from SQLite and PostgreSQL, in ranges of any size."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from tests.support.dashboard_site import found, heard, insight

from quickcomm.contracts.checking import (
    ANSWERED,
    CONTENT,
    ENDED,
    TRANSCRIBED,
    Compare,
    CompareDashboard,
    CompareIntelligence,
    Contents,
    Item,
    RecentDashboard,
)
from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.dashboard.adapters.digests import digest_answers
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.adapters.tables import tasks, utterances
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.intelligence.adapters.digests import digest_answer
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.module import Intelligence
from quickcomm.kernel.checking.compare import compare_copies
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database, migrate

START = 16_000
EDITED = f"a-b:0:{5 * 10 * START}"
NAMES = ("a", "a-b", "a.c")
SAID = [heard(number * 10 * START, f"towels {number}", conversation=NAMES[number // 3]) for number in range(9)]


def ended(conversation: str, gap: int = 0) -> ConversationChanged:
    return ConversationChanged(
        site="main",
        conversation_id=conversation,
        channel="housekeeping",
        state="ended",
        sample_rate=16_000,
        speakers=1,
        ledgers=(Ledger(received=10, speech=4, silence=6, gap=gap),),
        at_ns=SAID[-1].speech_ended_ns,
    )


def talk(state: State) -> None:
    projector = Projector(state)
    for message in SAID:
        projector.transcript(message)
        projector.insights(found(message, insight("request_item", str(400 + message.seq))))
    projector.conversation(ended("a"))
    projector.conversation(ended("a-b", gap=1))
    decider = Decider(projector, state, SAID[-1].published_ns, new_id=lambda: "once")
    decider.settle()
    decider.edit("main", f"{EDITED}:0", Edit(action="acknowledge", by="Ada"))
    projector.finish()


@asynccontextmanager
async def dashboard(where: Path | str) -> AsyncIterator[Database]:
    database = Database(where)
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    try:
        await SqlStore(database).transact(talk)
        yield database
    finally:
        await database.aclose()


async def told(database: Database, **asked: Any) -> Contents:
    (_, contents), *_ = digest_answers(database)
    answer: Contents = await contents(CompareDashboard(**asked))
    return answer


def by_id(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: item.id)


async def in_ranges(database: Database, limit: int, **asked: Any) -> list[Contents]:
    ranges = [await told(database, limit=limit, **asked)]
    while (after := ranges[-1].until) is not None:
        ranges.append(await told(database, after=after, limit=limit, **asked))
    return ranges


async def test_a_dashboard_tells_of_all_in_ranges_of_any_size(store: Path | str) -> None:
    async with dashboard(store) as database:
        whole = await told(database, items=True)
        assert whole.until is None
        assert {item.id for item in whole.items[TRANSCRIBED]} == {message.utterance_id for message in SAID}
        assert whole.kinds[TRANSCRIBED] == whole.kinds[ANSWERED]
        assert {item.id for item in whole.items[ENDED]} == {"a", "a-b"}
        assert [(fault.code, fault.id) for fault in whole.faults] == [("ledger.unbalanced", "a-b")]
        for limit in (1, 2, 4, len(SAID), len(SAID) + 1):
            ranges = await in_ranges(database, limit, items=True)
            assert all(one.kinds[TRANSCRIBED].count <= limit for one in ranges)
            for kind, items in whole.items.items():
                assert by_id(item for one in ranges for item in one.items[kind]) == by_id(items)
        _, (_, recent), _ = digest_answers(database)
        edited = await recent(RecentDashboard(since_ns=SAID[-1].speech_ended_ns + 1))
        assert edited.keys == [("main", EDITED.partition(":")[0])]
        assert (await recent(RecentDashboard(since_ns=SAID[-1].published_ns + 1))).keys == []
        lately = await recent(RecentDashboard(since_ns=SAID[-1].speech_ended_ns))
        assert lately.keys == [("main", "a"), ("main", "a-b"), ("main", "a.c")]


async def test_what_does_not_hold_together_is_told(store: Path | str) -> None:
    lost, undone = SAID[0].utterance_id, SAID[4].utterance_id

    def plant(connection: sa.Connection) -> None:
        connection.execute(utterances.delete().where(utterances.c.utterance_id == lost))
        connection.execute(tasks.delete().where(tasks.c.utterance_id == undone))
        alone = utterances.update().where(utterances.c.utterance_id == SAID[8].utterance_id)
        connection.execute(alone.values(copy_of="gone:0:1"))
        connection.execute(tasks.update().where(tasks.c.utterance_id == EDITED).values(status="open"))

    async with dashboard(store) as database:
        await database.write(plant)
        faults = {(fault.code, fault.id) for fault in (await told(database)).faults}
        assert faults - {("ledger.unbalanced", "a-b")} == {
            ("task.orphan", lost),
            ("conversation.miscounted", "a"),
            ("task.missing", undone),
            ("copy.orphan", SAID[8].utterance_id),
            ("decision.unfolded", EDITED),
        }


async def test_dashboards_on_two_databases_are_alike_until_they_differ(store: Path | str, tmp_path: Path) -> None:
    async with dashboard(store) as here, dashboard(tmp_path / "there.sqlite") as there:
        ours, theirs = [await told(each, content=True) for each in (here, there)]
        assert ours == theirs
        assert set(ours.kinds) <= set(CONTENT)
        assert ours.kinds["decisions"].count == theirs.kinds["decisions"].count == 1
        assert ours.kinds["tasks"].count == ours.kinds["cards"].count == len(SAID)
        done = tasks.update().where(tasks.c.utterance_id == SAID[2].utterance_id).values(status="done")
        await there.write(lambda connection: connection.execute(done))
        pair = [await told(each, content=True, items=True) for each in (here, there)]
        [finding] = compare_copies(*pair)
        assert (finding.code, finding.id, finding.detail) == ("tasks.differ", f"{SAID[2].utterance_id}:0", "not alike")


async def test_intelligence_tells_what_it_answered(mind_store: Path | str) -> None:
    database = Database(mind_store)
    database.open()
    SqlBus(database, SystemClock()).migrate()
    Intelligence.migrate_tables(database)
    try:
        await SqlResults(database).publish([found(message, insight()) for message in SAID])
        _, contents = digest_answer(database)
        requests: list[Compare] = [CompareIntelligence(limit=4, items=True)]
        items = []
        while requests:
            part: Contents = await contents(requests.pop())
            items += part.items[ANSWERED]
            if part.until is not None:
                requests.append(CompareIntelligence(after=part.until, limit=4, items=True))
        assert sorted(item.id for item in items) == sorted(message.utterance_id for message in SAID)
        assert all(item.at_ns for item in items)
    finally:
        await database.aclose()
