"""Summaries, shift reports and usage through a real server, a real database file and the real bus."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from tests.support.dashboard_site import START_NS, Site, events, found, heard, insight, running

from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.narrative import Narrate, Narrated
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.usage import DayUsage, GetUsage, UsageReport
from quickcomm.dashboard.adapters.reports import MAX_OPEN, SqlReports
from quickcomm.dashboard.adapters.state import SqlState
from quickcomm.dashboard.model.records import TaskRecord
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Shift
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.storage import Database, migrate

SECOND = 10**9
HOUR = 3_600
WINDOW = {"since": "2025-10-09T00:00:00Z", "until": "2025-10-10T00:00:00Z"}


def at(seconds: float) -> int:
    return START_NS + int(seconds * SECOND)


def summary(revision: int, text: str, conversation: str = "shift-1") -> ConversationSummarized:
    return ConversationSummarized(
        site="main",
        conversation_id=conversation,
        channel="housekeeping",
        revision=revision,
        text=text,
        source="llm",
        utterances=revision,
        at_ns=at(revision),
    )


def task(number: int, *, said: float, **values: Any) -> TaskRecord:
    standard: dict[str, Any] = {
        "site": "main",
        "task_id": f"u{number}:0",
        "utterance_id": f"u{number}",
        "insight_index": 0,
        "channel": "housekeeping",
        "intent": "request_item",
        "department": "housekeeping",
        "urgency": "normal",
        "rooms": ("412",),
        "summary": f"Task {number}",
        "created_ns": at(said),
    }
    return TaskRecord(**{**standard, **values})


def done(after: float, said: float) -> dict[str, Any]:
    return {"status": "done", "completed_ns": at(said + after), "completed_by": "desk"}


@pytest.fixture
async def site(tmp_path: Path, store: Path | str) -> AsyncIterator[Site]:
    async with running(tmp_path, store=store) as site:
        yield site


@pytest.fixture
async def database(store: Path | str) -> AsyncIterator[Database]:
    made = Database(store)
    made.open()
    migrate(made.engine, "dashboard", MIGRATIONS)
    yield made
    await made.aclose()


async def save(database: Database, *tasks: TaskRecord) -> None:
    def work(connection: sa.Connection) -> None:
        for record in tasks:
            SqlState(connection).save_task(record)

    await database.write(work)


def shift(since: float, until: float, now: float) -> Shift:
    return Shift(since_ns=at(since), until_ns=at(until), now_ns=at(now))


# -- summaries ------------------------------------------------------------------------------------------------------


async def test_a_summary_reaches_the_page_and_the_highest_revision_stands(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    path = "/v1/conversations/shift-1"
    assert (await site.get(path))["summary"] is None
    async with site.live() as socket:
        await events(socket, "card")
        await site.publish(summary(2, "Towels to 412 are open."), summary(2, "Again."), summary(1, "Old."))
        shown = (await events(socket, "conversation"))["conversation"]
        assert shown["summary"]["text"] == "Towels to 412 are open."
        await site.publish(summary(3, "Towels brought."))
        shown = (await events(socket, "conversation"))["conversation"]
    assert shown["summary"] == {
        "text": "Towels brought.",
        "source": "llm",
        "revision": 3,
        "at": "2025-10-09T08:53:23.000Z",
    }
    assert (await site.get(path))["summary"] == shown["summary"]
    assert (await site.get(path))["utterances"] == 1


async def test_a_summary_may_come_before_all_else(site: Site) -> None:
    async with site.live() as socket:
        await events(socket, "hello")  # else it may be in there
        await site.publish(summary(1, "Nothing yet.", "shift-9"))
        await events(socket, "conversation")
        await site.say(heard(0, "towels to 412", conversation="shift-9"), insight("request_item", "412"))
    change = ConversationChanged(
        site="main",
        conversation_id="shift-9",
        channel="housekeeping",
        state="ended",
        sample_rate=16_000,
        speakers=1,
        ledgers=(),
        at_ns=at(60),
    )
    async with site.live() as socket:
        await events(socket, "hello")
        await site.publish(change)
        conversation = (await events(socket, "conversation"))["conversation"]
    assert (conversation["state"], conversation["utterances"]) == ("ended", 1)
    assert conversation["summary"]["text"] == "Nothing yet."


# -- the numbers of a report ----------------------------------------------------------------------------------------


async def test_what_came_in_is_counted_by_department_intent_and_urgency(database: Database) -> None:
    await save(
        database,
        task(1, said=0, **done(60, 0)),
        task(2, said=1, department="engineering", intent="repair", urgency="high"),
        task(3, said=2, department="engineering", intent="repair", **done(60, 2)),
        task(4, said=3, department="engineering", intent="cleaning"),
        task(5, said=-1),
        task(6, said=100),
        task(7, said=5, site="elsewhere"),
    )
    report = await SqlReports(database).shift("main", shift(0, 100, 200))
    assert report.requests == 4
    assert [(item.name, item.requests, item.done) for item in report.by_department] == [
        ("engineering", 3, 1),
        ("housekeeping", 1, 1),
    ]
    assert [(item.name, item.requests) for item in report.by_intent] == [
        ("repair", 2),
        ("cleaning", 1),
        ("request_item", 1),
    ]
    assert [(item.name, item.requests) for item in report.by_urgency] == [("normal", 3), ("high", 1)]


async def test_what_was_slow(database: Database) -> None:
    records = [task(number, said=0, acknowledged_ns=at(number), **done(number * 10, 0)) for number in range(1, 101)]
    await save(database, *records, task(101, said=0), task(102, said=0, **done(-5, 0)))
    report = await SqlReports(database).shift("main", shift(-1, 100, 2_000))
    assert (report.done.count, report.done.p50_s, report.done.p95_s) == (101, 500.0, 950.0)
    assert (report.acknowledged.count, report.acknowledged.p50_s, report.acknowledged.p95_s) == (100, 50.0, 95.0)
    assert [(item.task.summary, item.seconds) for item in report.slowest[:2]] == [("Task 100", 1_000), ("Task 99", 990)]


async def test_what_is_open_now_whenever_it_was_said(database: Database) -> None:
    old = [task(number, said=-1_000 + number) for number in range(1, MAX_OPEN + 5)]
    await save(database, *old, task(99, said=-5_000, status="acknowledged", acknowledged_ns=at(-4_000)))
    report = await SqlReports(database).shift("main", shift(0, 100, 200))
    assert report.requests == 0
    assert report.open_now == MAX_OPEN + 5
    assert len(report.open) == MAX_OPEN
    assert [(item.task.summary, item.seconds) for item in report.open[:2]] == [("Task 99", 5_200), ("Task 1", 1_199)]


async def test_emergencies_and_how_fast_they_were_seen(database: Database) -> None:
    danger = {"urgency": "critical", "intent": "emergency", "department": "security"}
    await save(
        database,
        task(1, said=0, acknowledged_ns=at(30), **danger),
        task(2, said=1, **danger, **done(90, 1)),
        task(3, said=2, acknowledged_ns=at(62), **danger, **done(600, 2)),
        task(4, said=3, **danger),
        task(5, said=4),
    )
    report = await SqlReports(database).shift("main", shift(0, 100, 200))
    assert (report.emergencies, report.emergencies_unseen) == (4, 1)
    assert (report.emergencies_seen.count, report.emergencies_seen.p50_s) == (3, 60.0)
    assert [(item.task.summary, item.seen_after_s) for item in report.emergency] == [
        ("Task 4", None),
        ("Task 3", 60.0),
        ("Task 2", 90.0),
        ("Task 1", 30.0),
    ]


async def test_a_report_of_nothing(database: Database) -> None:
    report = await SqlReports(database).shift("main", shift(0, 100, 200))
    assert (report.utterances, report.requests, report.open_now, report.emergencies) == (0, 0, 0, 0)
    assert report.done.p50_s is None


async def test_counts_are_answered_by_the_index_alone(database: Database) -> None:
    """So that a report costs what its window holds, not what the store does."""
    if database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL decides that by what its statistics say.")
    query = (
        "EXPLAIN QUERY PLAN SELECT department, intent, urgency, count(*), count(completed_ns) FROM dashboard_tasks"
        " WHERE site = 'main' AND created_ns >= 1 AND created_ns < 2 GROUP BY department, intent, urgency"
    )
    plan = await database.read(lambda connection: [row.detail for row in connection.execute(sa.text(query))])
    assert "COVERING INDEX dashboard_tasks_report" in plan[0]


async def test_tasks_of_before_get_their_intent(tmp_path: Path, empty_store: Path | str) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for name in ("0001_projections.py", "0002_unfinished_tasks.py"):
        shutil.copy(MIGRATIONS / name, old)
    database = Database(empty_store)
    database.open()
    migrate(database.engine, "dashboard", old)
    transcript = heard(0, "leak in 305, and towels")
    insights = msgspec.json.encode(found(transcript, insight("repair", "305"), insight("request_item", index=1)))

    def fill(connection: sa.Connection) -> None:
        connection.execute(
            sa.text(
                "INSERT INTO dashboard_utterances (site, utterance_id, conversation_id, channel, spoken_ns, heard,"
                " change, found) VALUES ('main', 'u', 'c', 'x', 1, true, 1, :found)"
            ),
            {"found": insights},
        )
        for index, utterance in ((0, "u"), (1, "u"), (0, "lost")):
            connection.execute(
                sa.text(
                    "INSERT INTO dashboard_tasks (site, task_id, utterance_id, insight_index, channel, status,"
                    " department, urgency, rooms, summary, created_ns) VALUES ('main', :id, :utterance, :at, 'x',"
                    " 'open', 'd', 'normal', '[]', 's', 1)"
                ),
                {"id": f"{utterance}:{index}", "utterance": utterance, "at": index},
            )

    await database.write(fill)
    migrate(database.engine, "dashboard", MIGRATIONS)
    intents = sa.text("SELECT task_id, intent FROM dashboard_tasks ORDER BY task_id")
    rows = await database.read(lambda connection: [tuple(row) for row in connection.execute(intents)])
    assert rows == [("lost:0", ""), ("u:0", "repair"), ("u:1", "request_item")]
    await database.aclose()


# -- REST -----------------------------------------------------------------------------------------------------------


async def test_a_shift_from_what_was_said_to_the_report(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412", summary="Bring towels to 412"))
    fire = msgspec.structs.replace(insight("emergency", summary="Fire in the kitchen"), urgency="critical")
    await site.say(heard(160_000, "fire in the kitchen"), fire)
    await site.say(heard(9_600_000, "412 done"), insight("task_done", "412", summary="412 done"))
    report = await site.get("/v1/reports/shift", WINDOW)
    assert (report["utterances"], report["requests"], report["open_now"]) == (3, 2, 1)
    assert report["by_intent"][0] == {"name": "emergency", "requests": 1, "done": 0}
    assert report["slowest"][0]["task"]["utterance_id"] == "shift-1:0:0"
    assert report["slowest"][0]["seconds"] == 600
    assert report["emergency"][0]["seen_after_s"] is None
    assert report["narrative"]["source"] == "local"
    assert report["narrative"]["text"].startswith("In 1 d, 3 utterances with 2 requests")
    assert (await site.get("/v1/reports/shift", WINDOW, role="elsewhere"))["utterances"] == 0
    await site.post("/v1/tasks/shift-1:0:160000:0/acknowledge")
    report = await site.get("/v1/reports/shift", WINDOW)
    assert report["emergencies_unseen"] == 0
    assert report["emergency"][0]["seen_after_s"] > 0


async def test_the_last_eight_hours_where_nothing_is_asked_for(site: Site) -> None:
    report = await site.get("/v1/reports/shift")
    since, until = (datetime.fromisoformat(report[name]) for name in ("since", "until"))
    assert (until - since).total_seconds() == 8 * HOUR
    assert abs((datetime.now(UTC) - until).total_seconds()) < HOUR
    earlier = await site.get("/v1/reports/shift", {"until": WINDOW["until"]})
    assert earlier["since"] == "2025-10-09T16:00:00.000Z"


@pytest.mark.parametrize(
    "query",
    [
        {"since": WINDOW["until"], "until": WINDOW["since"]},
        {"since": "2024-01-01T00:00:00Z", "until": WINDOW["until"]},
        {"since": "2999-01-01T00:00:00Z"},
        {"until": "0001-01-01T00:00:00Z"},
        {"since": "yesterday"},
        {"narrative": "poem"},
        {"sinse": WINDOW["since"]},
    ],
)
async def test_times_that_make_no_sense(site: Site, query: dict[str, str]) -> None:
    assert (await site.get("/v1/reports/shift", query, expect=400))["code"] == "invalid_input"


class Teller:
    """Answers `Narrate`."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.facts: list[str] = []

    async def __call__(self, request: Narrate) -> Narrated:
        self.facts.append(request.facts)
        return Narrated(text=self.text)


async def told(tmp_path: Path, teller: Teller, *queries: dict[str, str]) -> list[dict[str, str]]:
    async with running(tmp_path, answers=[(Narrate, teller)]) as site:
        await site.say(heard(0, "towels to 412"), _towels())
        await site.say(heard(9_600_000, "412 done"), insight("task_done", "412", summary="412 done"))
        return [(await site.get("/v1/reports/shift", {**WINDOW, **query}))["narrative"] for query in queries]


def _towels() -> Insight:
    return insight("request_item", "412", summary="Bring towels to 412")


async def test_a_narrator_is_asked_once_for_the_same_facts(tmp_path: Path) -> None:
    teller = Teller("One request, for 412, done within 10 min.")
    first, again, local = await told(tmp_path, teller, {}, {}, {"narrative": "local"})
    assert first == again == {"text": teller.text, "source": "llm"}
    assert local["source"] == "local"
    assert len(teller.facts) == 1
    assert "Bring towels to 412" in teller.facts[0]


@pytest.mark.parametrize("text", [None, "", "17 requests came in.", "A leak in 999."])
async def test_numbers_that_are_not_in_the_facts_are_not_shown(tmp_path: Path, text: str | None) -> None:
    (narrative,) = await told(tmp_path, Teller(text), {})
    assert narrative["source"] == "local"
    assert narrative["text"].startswith("In 1 d, 2 utterances with 1 request")


async def test_a_narrator_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    async def hang(_request: Narrate) -> Narrated:
        await asyncio.Event().wait()
        return Narrated()

    async with running(tmp_path, answers=[(Narrate, hang)], clock=SystemClock(limits=0.001)) as site:
        assert (await site.get("/v1/reports/shift"))["narrative"]["source"] == "local"


async def test_usage_where_no_model_is_connected(site: Site) -> None:
    report = await site.get("/v1/usage")
    assert (report["state"], report["days"], report["conversations"]) == ("off", [], [])
    assert report["today"]["calls"] == 0


async def test_usage_is_asked_for_the_site_of_the_key(tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, int]] = []

    async def usage(request: GetUsage) -> UsageReport:
        asked.append((request.site, request.conversation, request.limit))
        return UsageReport(state="near", currency="EUR", today=DayUsage(day="2026-05-09", calls=7, cost=1.5))

    async with running(tmp_path, answers=[(GetUsage, usage)]) as site:
        report = await site.get("/v1/usage", {"conversation": "shift-1", "limit": "5"})
        await site.get("/v1/usage", role="elsewhere")
        await site.get("/v1/usage", {"limit": "0"}, expect=400)
    assert (report["state"], report["today"]["calls"], report["today"]["cost"]) == ("near", 7, 1.5)
    assert asked == [("main", "shift-1", 5), ("elsewhere", None, 50)]


async def test_the_document_has_both(site: Site) -> None:
    paths = (await site.get("/openapi.json"))["paths"]
    assert {"/v1/reports/shift", "/v1/usage"} <= set(paths)
