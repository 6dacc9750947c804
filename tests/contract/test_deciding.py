"""Decisions of a running dashboard: within its database, and in the log of the site's Valkey."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.dashboard_site import START_NS, Site, events, found, heard, insight, running
from tests.support.valkey import Valkey

from quickcomm.contracts.decisions import DECISIONS, CopyDecision, Decision
from quickcomm.dashboard.adapters.decision_log import RedisDecisions
from quickcomm.dashboard.adapters.state import SqlState, SqlStore
from quickcomm.dashboard.model.changes import TaskChangedError
from quickcomm.dashboard.model.edits import Action, Edit
from quickcomm.dashboard.model.records import TaskRecord
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Applied, NotDecidingError, StaleDecisionError
from quickcomm.dashboard.service.deciding import DecidingInLog, fold, settling
from quickcomm.dashboard.service.projector import Projector
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.errors import NotFoundError
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.storage import Database, migrate

TASK = "/v1/tasks/shift-1:0:0:0"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture(params=["database", "log"])
async def site(
    request: pytest.FixtureRequest, tmp_path: Path, store: Path | str, server: Valkey
) -> AsyncIterator[Site]:
    url = server.url if request.param == "log" else None
    async with running(tmp_path / "site", store=store, redis_url=url) as site:
        yield site


def no_page(applied: Applied) -> None:
    pass


class SlowDecisions(RedisDecisions):
    """`asked` is set when something is to be appended, which waits for `go_on`."""

    def __init__(self, url: str, side: str, clock: SystemClock) -> None:
        super().__init__(url, side, clock)
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def append(self, decisions: Sequence[Decision]) -> None:
        self.asked.set()
        await self.go_on.wait()
        await super().append(decisions)


async def until(site: Site, path: str, fits: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(20):
        while not fits(answer := await site.get(path)):  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.01)
    return answer


async def test_a_report_closes_the_task_and_its_revision_opens_it_again(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    done = heard(16_000, "412 is done")
    await site.say(done, insight("task_done", "412"))
    [task] = (await until(site, "/v1/tasks?status=done", lambda found: found["items"]))["items"]
    assert (task["completed_by_utterance"], task["version"]) == ("shift-1:0:16000", 1)
    await site.publish(found(done, insight("chatter"), revision=2, opens=False))
    [task] = (await until(site, "/v1/tasks?status=open", lambda found: found["items"]))["items"]
    assert (task["completed_by_utterance"], task["version"]) == (None, 2)


async def test_the_second_of_two_persons_is_told_who_was_first(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    [task] = (await site.get("/v1/tasks"))["items"]
    assert task["version"] == 0
    async with site.live() as page:
        await events(page, "replayed")
        first = await site.post(f"{TASK}/assign", body={"assignee": "Ann"}, seen=0)
        assert (first["assignee"], first["version"]) == ("Ann", 1)
        second = await site.post(f"{TASK}/assign", body={"assignee": "Bob"}, seen=0, expect=409)
        assert (await events(page, "task"))["task"] == first
    assert (second["code"], second["changed_by"], second["task"]) == ("dashboard.task_changed", "the admin", first)
    assert second["detail"].startswith("the admin gave it to Ann at ")
    assert second["changed_at"].endswith("Z")
    assert await site.post(f"{TASK}/assign", body={"assignee": "Ann"}, seen=0) == first  # sent again
    assert (await site.post(f"{TASK}/assign?expected=1", body={"assignee": "Bob"}))["version"] == 2
    done = await site.post(f"{TASK}/complete")
    refused = await site.post(f"{TASK}/assign", body={"assignee": "Eve"}, expect=409)
    assert (refused["code"], refused["task"]) == ("conflict", done)
    assert (await site.post(f"{TASK}/reopen", seen=3))["status"] == "open"


@pytest.mark.parametrize("header", ["3", "three", '"-1"', '"' + 30 * "9" + '"'])
async def test_a_version_that_is_none_is_said_so(site: Site, header: str) -> None:
    headers = site.headers("admin") | {"If-Match": header}
    async with site.http.post(f"{site.url}{TASK}/complete", headers=headers) as answer:
        assert (answer.status, "`version`" in (await answer.json())["detail"]) == (400, True)


async def test_two_persons_at_once_have_one_winner(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))

    async def assign(name: str) -> int:
        headers = site.headers("admin") | {"If-Match": '"0"'}
        async with site.http.post(f"{site.url}{TASK}/assign", json={"assignee": name}, headers=headers) as answer:
            return answer.status

    statuses = await asyncio.gather(*(assign(f"Ann {number}") for number in range(8)))
    assert sorted(statuses) == [200, *[409] * 7]


async def test_one_transmission_has_one_task(site: Site) -> None:
    text, one = "bring two bath towels to room 412 please", insight("request_item", "412")
    await site.say(heard(0, text), one)
    await site.say(msgspec.structs.replace(heard(1600, text, conversation="other"), channel="security"), one)
    card = await until(site, "/v1/utterances/other:0:1600", lambda found: found["relates_to"])
    assert (card["relates_to"]["utterance_id"], card["tasks"]) == ("shift-1:0:0", [])
    assert len((await site.get("/v1/tasks"))["items"]) == 1


# -- the log ----------------------------------------------------------------------------------------------------------


def decision(version: int, copy_of: str | None = None, *, number: int = 0, epoch: int = 1) -> Decision:
    return Decision(
        site="main",
        decision_id=f"{version}-{copy_of}-{number}",
        epoch=epoch,
        version=version,
        at_ns=START_NS,
        what=CopyDecision(utterance_id=f"u{number}", copy_of=copy_of),
    )


async def entries(server: Valkey) -> int:
    bus = RedisBus(server.url, SystemClock())
    try:
        await bus.register(DECISIONS, "counter")
        return (await bus.backlog())[f"{DECISIONS}/counter"]
    finally:
        await bus.aclose()


async def test_the_log_takes_each_version_once_and_all_or_none(server: Valkey) -> None:
    log = RedisDecisions(server.url, "dashboard", SystemClock())
    await log.hold(0)
    assert log.epoch == 1
    first = [decision(1), decision(1, number=1)]
    await log.append(first)
    await log.append(first)  # the answer was lost
    assert await entries(server) == 2
    with pytest.raises(StaleDecisionError):
        await log.append([decision(1, "other", number=2), decision(1, "other")])
    assert await entries(server) == 2
    await log.append([decision(2, "other"), decision(7, number=3)])
    assert await entries(server) == 4
    await log.aclose()


async def test_one_side_decides_and_a_store_that_was_emptied_begins_above_what_is_known(server: Valkey) -> None:
    log, other = (RedisDecisions(server.url, side, SystemClock()) for side in ("dashboard", "monolith"))
    link = Link(server.url)
    await log.hold(4)
    assert log.epoch == 5
    with pytest.raises(NotDecidingError, match="dashboard decides"):
        await other.hold(9)
    await link.call("FLUSHALL")
    with pytest.raises(NotDecidingError):
        await log.append([decision(3)])
    await log.hold(5)
    assert log.epoch == 6
    await log.append([decision(3)])
    for each in (log, other, link):
        await each.aclose()


async def test_two_messages_in_hand_at_once_have_their_consequence(tmp_path: Path, server: Valkey) -> None:
    """The consumers of two streams decide, and neither has been folded by the consumers that fold."""
    database, log = Database(tmp_path / "own.sqlite"), RedisDecisions(server.url, "dashboard", SystemClock())
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    deciding = DecidingInLog(SqlStore(database), SystemClock(), 0.5, log)
    asked, done = heard(0, "towels to 412"), heard(16_000, "412 is done")
    about = settling([("main", asked.utterance_id), ("main", done.utterance_id)])
    await asyncio.gather(
        deciding.decide(about, no_page, fold([found(done, insight("task_done", "412"))], Projector.insights)),
        deciding.decide(about, no_page, fold([found(asked, insight("request_item", "412"))], Projector.insights)),
        deciding.decide(about, no_page, fold([done], Projector.transcript)),
        deciding.decide(about, no_page, fold([asked], Projector.transcript)),
    )
    task = await database.read(lambda connection: SqlState(connection).task("main", "shift-1:0:0:0"))
    assert task is not None
    assert (task.status, task.completed_by_utterance) == ("done", "shift-1:0:16000")
    await log.aclose()
    await database.aclose()


async def test_pages_get_what_was_folded_before_a_decision_in_the_order_of_the_changes(
    tmp_path: Path, server: Valkey
) -> None:
    """Whoever comes back with the newest change that it has seen would else never get the one before."""
    database, log = Database(tmp_path / "own.sqlite"), SlowDecisions(server.url, "dashboard", SystemClock())
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    deciding = DecidingInLog(SqlStore(database), SystemClock(), 0.5, log)
    shown: list[int] = []

    def show(applied: Applied) -> None:
        shown.extend(card.change for card, _ in applied.cards)

    asked, other = heard(0, "towels to 412"), heard(16_000, "a bucket to 413")
    await deciding.folded(fold([found(asked, insight("request_item", "412"))], Projector.insights), show)
    about = settling([("main", asked.utterance_id)])
    slow = asyncio.create_task(deciding.decide(about, show, fold([asked], Projector.transcript)))
    await log.asked.wait()
    await deciding.folded(fold([other], Projector.transcript), show)
    log.go_on.set()
    await slow
    assert len(shown) >= 2
    assert shown == sorted(shown)
    await log.aclose()
    await database.aclose()


class Counted(SlowDecisions):
    """Notes how many decisions came at a time."""

    def __init__(self, url: str, side: str, clock: SystemClock) -> None:
        super().__init__(url, side, clock)
        self.sizes: list[int] = []

    async def append(self, decisions: Sequence[Decision]) -> None:
        await super().append(decisions)
        self.sizes.append(len(decisions))


async def test_edits_that_come_in_meanwhile_are_decided_together(tmp_path: Path, server: Valkey) -> None:
    database, log = Database(tmp_path / "own.sqlite"), Counted(server.url, "dashboard", SystemClock())
    database.open()
    migrate(database.engine, "dashboard", MIGRATIONS)
    deciding = DecidingInLog(SqlStore(database), SystemClock(), 0.5, log)
    for number in range(8):
        said = heard(16_000 * number, f"towels to {400 + number}")
        messages = fold([found(said, insight("request_item", str(400 + number)))], Projector.insights)
        await deciding.folded(fold([said], Projector.transcript), no_page)
        await deciding.folded(messages, no_page)

    def edit(task: str, action: Action, expected: int) -> asyncio.Task[TaskRecord]:
        wanted = Edit(action=action, by="Ann", expected=expected)
        return asyncio.create_task(
            deciding.decide(lambda decider: decider.edit("main", f"shift-1:0:{task}:0", wanted), no_page)
        )

    first = edit("0", "acknowledge", 0)
    await log.asked.wait()
    others = [edit(str(16_000 * number), "acknowledge", 0) for number in range(1, 8)]
    left = edit("16000", "complete", 1)
    await asyncio.sleep(0)
    left.cancel()
    same = edit("16000", "complete", 1)
    unknown, late = edit("7", "complete", 0), edit("32000", "complete", 5)
    await asyncio.sleep(0)
    log.go_on.set()
    assert [(await each).version for each in (first, *others)] == [1] * 8
    assert ((await same).status, (await same).version) == ("done", 2), "decided on what another one has decided"
    with pytest.raises(NotFoundError):
        await unknown
    with pytest.raises(TaskChangedError):
        await late
    assert log.sizes == [1, 7, 1]
    task = await database.read(lambda connection: SqlState(connection).task("main", "shift-1:0:16000:0"))
    assert task is not None
    assert (task.status, task.version) == ("done", 2)
    await log.aclose()
    await database.aclose()


async def test_edits_go_on_where_the_store_was_emptied(tmp_path: Path, store: Path | str, server: Valkey) -> None:
    async with running(tmp_path / "site", store=store, redis_url=server.url) as site:
        await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
        assert (await site.post(f"{TASK}/acknowledge"))["version"] == 1
        link = Link(server.url)
        await link.call("FLUSHALL")
        await link.aclose()
        done = await site.post(f"{TASK}/complete", seen=1)
        assert (done["status"], done["version"]) == ("done", 2)
        newest = await site.database.read(lambda connection: SqlState(connection).newest_epoch())
        assert newest == 2


async def test_what_was_answered_is_there_after_the_store_was_killed(tmp_path: Path, server: Valkey) -> None:
    """Two dashboards with databases of their own, as on both sides of a migration: the second only folds."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(running(tmp_path / "site", redis_url=server.url))
        await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
        await site.post(f"{TASK}/acknowledge")
        server.kill()
        assert (await site.post(f"{TASK}/complete", expect=503))["retryable"]
        server.start()
        assert (await until_answered(site, f"{TASK}/complete"))["status"] == "done"
        bus = RedisBus(server.url, SystemClock())
        stack.push_async_callback(bus.aclose)
        assert (await bus.backlog())[f"{DECISIONS}/dashboard"] >= 0
        [task] = (await site.get("/v1/tasks"))["items"]
        assert (task["status"], task["version"]) == ("done", 2)


async def until_answered(site: Site, path: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            async with site.http.post(site.url + path, headers=site.headers("admin")) as answer:
                if answer.status == 200:
                    return await answer.json()
            await asyncio.sleep(0.05)
