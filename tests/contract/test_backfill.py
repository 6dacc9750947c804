"""What an earlier database has comes over: cut off anywhere, while messages arrive, and never over what people did."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from sqlalchemy import Connection
from tests.support.dashboard_site import START_NS, found, heard, insight
from tests.support.examples import examples
from tests.support.hostile import TEXTS, UNPRINTABLE
from tests.support.memory import MemoryDatabase

from quickcomm.contracts.backfill import PATH, BackfillPage, BackfillTotal
from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.adapters.history import MARKS, TABLES, settle, write
from quickcomm.dashboard.adapters.queries import SqlQueries
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.adapters.tables import (
    changes,
    closings,
    conversations,
    decided_in,
    decisions,
    rooms,
    tasks,
    utterances,
)
from quickcomm.dashboard.backfill import backfill, prepare_source, purge_source
from quickcomm.dashboard.backfill import source as history_of
from quickcomm.dashboard.model.edits import Edit
from quickcomm.dashboard.model.places import After, CursorResetError
from quickcomm.dashboard.model.records import Closing
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Board, Page, UtteranceFilter
from quickcomm.dashboard.service.decider import Decider
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.copier.copier import Copier, CopyError, Source
from quickcomm.kernel.copier.http import HttpSource, copy_routes
from quickcomm.kernel.copier.sql import SqlTarget
from quickcomm.kernel.errors import ForbiddenError
from quickcomm.kernel.http import UnauthorizedError, create_app
from quickcomm.kernel.storage import Database, StorageError, migrate

Message = UtteranceTranscribed | InsightsFound | ConversationChanged
TASK = "shift-1:0:0:0"


def opened(where: Path | str) -> Database:
    made = Database(where)
    made.open()
    migrate(made.engine, "dashboard", MIGRATIONS)
    return made


@pytest.fixture
async def earlier(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "earlier.sqlite")
    made.open()
    prepare_source(made)
    yield made
    await made.aclose()


@pytest.fixture
async def own(store: Path | str) -> AsyncIterator[Database]:
    made = opened(store)
    yield made
    await made.aclose()


def project(connection: Connection, messages: Sequence[Message]) -> None:
    projector = Projector(SqlState(connection))
    for message in messages:
        match message:
            case UtteranceTranscribed():
                projector.transcript(message)
            case InsightsFound():
                projector.insights(message)
            case ConversationChanged():
                projector.conversation(message)
    Decider(projector, SqlState(connection), START_NS).settle()
    projector.finish()


async def say(database: Database, *messages: Message) -> None:
    await database.write(lambda connection: project(connection, messages))


def asked(start: int, room: str = "412", text: str = "towels please") -> list[Message]:
    transcript = heard(start, text)
    return [transcript, found(transcript, insight("request_item", room, summary=f"Towels to {room}"))]


def done(start: int, room: str = "412") -> list[Message]:
    transcript = heard(start, f"{room} done")
    return [transcript, found(transcript, insight("task_done", room, summary="done"))]


def ended(at: int) -> ConversationChanged:
    return ConversationChanged(
        site="main",
        conversation_id="shift-1",
        channel="housekeeping",
        state="ended",
        sample_rate=16_000,
        speakers=1,
        ledgers=(),
        at_ns=START_NS + at,
    )


async def edit(database: Database, action: Any, task_id: str = TASK) -> None:
    def run(connection: Connection) -> None:
        projector = Projector(SqlState(connection))
        edit = Edit(action=action, by="desk", assignee="Maria")
        Decider(projector, SqlState(connection), START_NS + 10**12).edit("main", task_id, edit)
        projector.finish()

    await database.write(run)


def contents(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All that is kept, without ids, and without the versions, which count the way to it."""
    return {
        table.name: sorted(
            (
                tuple(row)
                for row in connection.execute(sa.select(*(c for c in table.c if c.name not in {"id", "version"})))
            ),
            key=repr,
        )
        for table in (changes, conversations, utterances, tasks, closings, rooms)
    }


async def task_of(database: Database, task_id: str = TASK) -> Any:
    return await database.read(lambda connection: SqlState(connection).task("main", task_id))


class Flaky:
    """An earlier database that does something before every page."""

    def __init__(self, database: Database, before: Callable[[str], None] = lambda _: None) -> None:
        self._source = history_of(database)
        self._before = before
        self.pages = 0

    async def page(self, table: str, after: str, limit: int) -> BackfillPage:
        self._before(table)
        self.pages += 1
        return await self._source.page(table, after, limit)

    async def total(self, table: str, after: str, limit: int) -> BackfillTotal:
        return await self._source.total(table, after, limit)


async def history(database: Database) -> None:
    """40 utterances with tasks, half of them done by voice; receipts, paintings, edits, and texts that mean ill."""
    for number in range(20):
        await say(database, *asked(number * 32_000, str(400 + number)))
        await say(database, *(done(number * 32_000 + 16_000, str(400 + number)) if number % 2 else []))
    for place, text in enumerate((*TEXTS.values(), *UNPRINTABLE.values())):
        transcript = msgspec.structs.replace(heard(10_000_000 + place * 16_000, text), channel=text)
        await say(database, transcript, found(transcript, insight("repair", text, summary=text[:80], department=text)))
    await say(database, heard(90_000_000, "without insights"), ended(10**13))
    await edit(database, "complete")

    def stamp(connection: Connection) -> None:
        state = SqlState(connection)
        state.save_receipt("main", "shift-1:0:0", Latency(store=1.5, push=2.25, total=812.0))
        state.save_painted("main", "shift-1:0:0", 850.125)

    await database.write(stamp)


async def copy(own: Database, source: Source, **options: Any) -> dict[str, int]:
    """Backfill, with options of the copier."""
    target = SqlTarget(own, MARKS, partial(write, closing_confidence=CLOSING_CONFIDENCE))

    async def match_again(_closings: Sequence[Closing]) -> None:
        """Nothing was said meanwhile."""

    return await Copier(source, target, TABLES, settle=partial(settle, own, match_again), **options).run()


async def test_all_comes_over_as_it_was(earlier: Database, own: Database) -> None:
    await history(earlier)
    before = await earlier.read(contents)
    brought = await copy(own, history_of(earlier), page=7)
    assert await own.read(contents) == before
    assert await earlier.read(contents) == before
    assert brought["utterances"] == len(before["dashboard_utterances"]) > 30
    for query in ("towels", "tow", "412", "swordfish", "towels please", "fertig"):
        wanted, page = UtteranceFilter(query=query), Page(limit=100)
        assert (await SqlQueries(own).utterances("main", wanted, page)).items == (
            await SqlQueries(earlier).utterances("main", wanted, page)
        ).items
    assert await backfill(own, history_of(earlier)) == {}


async def test_nothing_to_bring_is_soon_done(earlier: Database, own: Database) -> None:
    assert set(await backfill(own, history_of(earlier))) == {table.name for table in TABLES}
    await say(own, *asked(0))
    assert (await task_of(own)).status == "open"


async def test_what_people_did_meanwhile_stands(earlier: Database, own: Database) -> None:
    await say(earlier, *asked(0), *asked(16_000, "413"))
    await edit(earlier, "acknowledge")
    await edit(earlier, "acknowledge", "shift-1:0:16000:0")
    await say(own, *asked(0), *asked(16_000, "413"))  # delivered again
    await edit(own, "complete")
    await backfill(own, history_of(earlier))
    assert (await task_of(own)).status == "done"
    assert (await task_of(own, "shift-1:0:16000:0")).status == "acknowledged"


@pytest.mark.parametrize("table", [table.name for table in TABLES])
@pytest.mark.parametrize("page", [1, 100])
async def test_what_was_decided_there_while_its_page_was_on_its_way(
    earlier: Database, own: Database, table: str, page: int
) -> None:
    """The log brings the decision after the page was read and before it is written."""
    await say(earlier, *asked(0), *done(160_000), *asked(320_000, "413"))
    await edit(earlier, "reopen")
    await edit(earlier, "acknowledge", "shift-1:0:320000:0")
    source, missed = history_of(earlier), [TASK, "shift-1:0:320000:0"]

    class Late(Flaky):
        async def page(self, name: str, after: str, limit: int) -> BackfillPage:
            read = await source.page(name, after, limit)
            if name == table and missed:
                before = await earlier.read(decided)
                await edit(earlier, "complete", missed.pop())
                for decision in set(await earlier.read(decided)) - set(before):
                    await own.write(partial(take, decision))
            return read

    await copy(own, Late(earlier), page=page, live=True)
    assert await own.read(tasks_by_id) == await earlier.read(tasks_by_id)


def decided(connection: Connection) -> list[bytes]:
    return list(connection.execute(sa.select(decisions.c.payload)).scalars())


def take(decision: bytes, connection: Connection) -> None:
    projector = Projector(SqlState(connection))
    projector.decision(decided_in(decision))
    projector.finish()


def tasks_by_id(connection: Connection) -> dict[str, Any]:
    rows = connection.execute(sa.select(tasks).order_by(tasks.c.task_id)).mappings()
    return {row["task_id"]: {name: row[name] for name in row if name != "id"} for row in rows}


async def test_a_later_revision_that_came_meanwhile_stands(earlier: Database, own: Database) -> None:
    transcript = heard(0, "towels to 412")
    await say(earlier, *asked(0), *asked(16_000, "413"))
    await say(own, found(transcript, insight("chatter"), revision=2, opens=False))
    await backfill(own, history_of(earlier))
    record = await own.read(lambda connection: SqlState(connection).utterance("main", "shift-1:0:0"))
    assert record is not None
    assert record.found is not None
    assert (record.heard is not None, record.found.revision) == (True, 2)
    assert await task_of(own) is None
    assert (await task_of(own, "shift-1:0:16000:0")).status == "open"


async def test_what_was_said_meanwhile_closes_what_was_asked_before(earlier: Database, own: Database) -> None:
    await say(earlier, *asked(0))
    await say(own, *done(160_000))
    await backfill(own, history_of(earlier))
    task = await task_of(own)
    assert (task.status, task.completed_by_utterance) == ("done", "shift-1:0:160000")
    [conversation] = (await SqlQueries(own).conversations("main", None, None, Page())).items
    assert conversation.utterances == 2


async def test_new_ones_stay_before_old_ones_and_numbers_rise(earlier: Database, own: Database) -> None:
    for number in range(5):
        await say(earlier, *asked(number * 16_000))
    await say(own, *asked(960_000))
    await backfill(own, history_of(earlier))
    await say(own, *asked(976_000))
    wanted = UtteranceFilter(query="towels")
    seen: list[int] = []
    page = Page(limit=2)
    while True:
        found = await SqlQueries(own).utterances("main", wanted, page)
        seen += [card.start_offset for card in found.items]
        if found.cursor is None:
            break
        page = Page(limit=2, cursor=found.cursor)
    assert seen == [976_000, 960_000, 64_000, 48_000, 32_000, 16_000, 0]
    last = (await SqlQueries(earlier).replay("main", None, 100, Board())).change
    missed = await SqlQueries(own).replay("main", After(change=last), 100, Board())
    assert not missed.reset
    assert [card.start_offset for card in missed.cards] == [960_000, 976_000]


async def test_who_polled_before_all_was_there_begins_again(earlier: Database, own: Database) -> None:
    for number in range(5):
        await say(earlier, *asked(number * 16_000))
    await say(own, *asked(960_000))
    queries, wanted = SqlQueries(own), UtteranceFilter()
    before = [(await each.utterances("main", wanted, Page())).after for each in (SqlQueries(earlier), queries)]
    await backfill(own, history_of(earlier))
    for after in before:
        with pytest.raises(CursorResetError):
            await queries.utterances("main", wanted, Page(after=after))
    assert len((await queries.utterances("main", wanted, Page(after=After(change=0)))).items) == 6


async def test_what_is_deleted_there_meanwhile_does_not_disturb(earlier: Database, own: Database) -> None:
    await history(earlier)
    purged: list[int] = []

    class Purging(Flaky):
        async def total(self, table: str, after: str, limit: int) -> BackfillTotal:
            if not purged:
                purged.append(await purge_source(earlier, START_NS + 10**14))
            return await super().total(table, after, limit)

    brought = await backfill(own, Purging(earlier))
    assert purged[0] > 20
    assert brought["utterances"] == 0


async def test_damage_is_seen(earlier: Database, own: Database) -> None:
    await say(earlier, *asked(0))

    class Damaged(Flaky):
        async def page(self, table: str, after: str, limit: int) -> BackfillPage:
            page = await super().page(table, after, limit)
            return msgspec.structs.replace(page, rows=page.rows.replace(b"412", b"413"))

    with pytest.raises(CopyError, match="damaged"):
        await backfill(own, Damaged(earlier))
    assert await task_of(own) is None

    class Newer(Flaky):
        async def page(self, table: str, after: str, limit: int) -> BackfillPage:
            page = await super().page(table, after, limit)
            return msgspec.structs.replace(page, columns=(*page.columns, "mood"))

    with pytest.raises(CopyError, match="one version"):
        await backfill(own, Newer(earlier))


class Cut(Exception):  # noqa: N818 - no error of ours
    """As if the process had ended."""


@examples(12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 8), max_size=6), st.lists(st.integers(0, 30), max_size=6))
def test_cut_off_anywhere_while_messages_arrive(cuts: list[int], meanwhile: list[int]) -> None:
    """The same as if one database had heard all of it; and messages of before may come again."""
    asyncio.run(_cut_off(cuts, meanwhile))


async def _cut_off(cuts: list[int], meanwhile: list[int]) -> None:
    old = [message for number in range(8) for message in (*asked(number * 16_000, str(410 + number % 3)),)]
    old += done(140_000, "410")
    new = [
        message
        for place, kind in enumerate(meanwhile)
        for message in (done if kind % 3 else asked)(1_000_000 + place * 16_000, str(410 + kind % 4))
    ]
    again = [old[kind % len(old)] for kind in meanwhile]
    arriving = [[*pair] for pair in zip(new[::2], new[1::2], strict=True)] + [[message] for message in again]
    with _memory() as earlier, _memory() as own, _memory() as whole:
        await say(earlier, *old)
        await say(whole, *old, *new)
        left = list(cuts)

        def before(_table: str) -> None:
            if arriving:
                with own.engine.begin() as connection:
                    project(connection, arriving.pop(0))
            if left:
                left[0] -= 1
                if left[0] < 0:
                    left.pop(0)
                    raise Cut

        while True:
            try:
                await backfill(own, Small(earlier, before))
            except Cut:
                continue
            break
        for messages in arriving:
            await say(own, *messages)
        assert _comparable(await own.read(contents)) == _comparable(await whole.read(contents))


class Small(Flaky):
    async def page(self, table: str, after: str, limit: int) -> BackfillPage:
        return await super().page(table, after, min(limit, 3))


def _memory() -> MemoryDatabase:
    return MemoryDatabase(prepare=lambda engine: migrate(engine, "dashboard", MIGRATIONS))


def _comparable(kept: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Change numbers count how often something changed, which may differ."""
    tables = {"dashboard_conversations": conversations, "dashboard_utterances": utterances}
    compared = {name: rows for name, rows in kept.items() if name != "dashboard_changes"}
    for name, table in tables.items():
        names = [column.name for column in table.c if column.name != "id"]
        place = names.index("change")
        compared[name] = [row[:place] + row[place + 1 :] for row in kept[name]]
    return compared


async def test_a_database_that_is_away_is_waited_for(earlier: Database, own: Database) -> None:
    await say(earlier, *asked(0))
    away = iter([True, True, False])
    waited: list[float] = []

    def before(_table: str) -> None:
        if next(away, False):
            raise StorageError("away")

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    await copy(own, Flaky(earlier, before), sleep=sleep)
    assert waited == [0.25, 0.5]
    assert (await task_of(own)).status == "open"


async def test_over_http_on_a_socket(earlier: Database, own: Database, tmp_path: Path) -> None:
    await history(earlier)

    class Gate:
        def require(self, request: web.Request, *_callers: str) -> str:
            if request.headers.get("Authorization") not in {"Bearer yes", "Bearer other"}:
                raise UnauthorizedError("Nobody knows who is asking.")
            return "somebody"

    def check(request: web.Request) -> None:
        if request.headers["Authorization"] != "Bearer yes":
            raise ForbiddenError("Only the dashboard may ask.")

    place = str(tmp_path / "s")
    runner = web.AppRunner(create_app(copy_routes(history_of(earlier), check), Gate()))
    await runner.setup()
    await web.UnixSite(runner, place).start()
    try:
        yes = {"Authorization": "Bearer yes"}
        source = HttpSource(lambda: aiohttp.UnixConnector(place), lambda: yes, "http://core")
        await backfill(own, source)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(place)) as client:
            for table in TABLES:
                for path in (f"{PATH}/{table.name}", f"{PATH}/{table.name}/total"):
                    async with client.get(f"http://core{path}") as answer:
                        assert answer.status == 401
                    other = {"Authorization": "Bearer other"}
                    async with client.get(f"http://core{path}", headers=other) as answer:
                        assert answer.status == 403
            headers = {"Authorization": "Bearer yes"}
            for path, status in {
                "nothing": 404,
                "tasks?limit=0": 400,
                "tasks?limit=1001": 400,
                "tasks?limit=x": 400,
                "tasks?after=x": 400,
                'tasks?after=["x"]': 400,
                "tasks/total?after=[]": 400,
            }.items():
                async with client.get(f"http://core{PATH}/{path}", headers=headers) as answer:
                    assert answer.status == status, path
    finally:
        await runner.cleanup()
    assert await own.read(contents) == await earlier.read(contents)
