"""Archiving a conversation is done once for its key: where decisions are transactions, and in the log of a site."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.dashboard_site import Site, heard, insight, running
from tests.support.valkey import Valkey

from quickcomm.contracts.closing import ArchiveConversation, Archived, OpenTasks, ReopenConversation
from quickcomm.contracts.saga import Undone
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.saga import CompensatedError
from quickcomm.kernel.saga.keys import migrate_keys

LAST = "shift-1:0:0"
TASK = f"/v1/tasks/{LAST}:0"
CONVERSATION = "/v1/conversations/shift-1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture(params=["database", "log"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, server: Valkey) -> AsyncIterator[Site]:
    url = server.url if request.param == "log" else None
    async with running(tmp_path / "site", redis_url=url) as site:
        migrate_keys(site.database.engine)
        yield site


def archiving(
    key: str, tasks: OpenTasks = "close", assignee: str | None = None, last: str = LAST
) -> ArchiveConversation:
    return ArchiveConversation(
        key=key,
        site="main",
        conversation_id="shift-1",
        by="grace",
        tasks=tasks,
        assignee=assignee,
        last_utterance=last,
    )


def reopening(key: str) -> ReopenConversation:
    return ReopenConversation(key=key, site="main", conversation_id="shift-1", by="grace")


async def call(site: Site, request: Any) -> Any:
    answers: dict[type[Any], Callable[[Any], Any]] = dict(site.dashboard._answers())
    return await answers[type(request)](request)


async def test_open_tasks_are_closed_with_the_conversation_once(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    first: Archived = await call(site, archiving("one:archive"))
    assert first.tasks == 1
    [task] = (await site.get("/v1/tasks"))["items"]
    assert (task["status"], task["completed_by"], task["version"]) == ("done", "grace", 1)
    found = await site.get(CONVERSATION)
    assert (found["archived_by"], found["archived_at"] is not None) == ("grace", True)
    await site.post(f"{TASK}/reopen")
    assert await call(site, archiving("one:archive")) == first  # sent again: nothing happens
    [task] = (await site.get("/v1/tasks"))["items"]
    assert (task["status"], task["version"]) == ("open", 2)


async def test_taken_back_it_leaves_what_somebody_has_changed_since(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    await site.say(heard(16_000, "and a cot to 414"), insight("request_item", "414"))
    await call(site, archiving("one:archive", "hand_over", "night desk"))
    await site.post(f"{TASK}/assign", body={"assignee": "Ann"})
    assert await call(site, reopening("one:archive")) == Undone(found=True)
    await call(site, reopening("one:archive"))
    tasks = (await site.get("/v1/tasks"))["items"]
    assert {(task["rooms"][0], task["assignee"], task["version"]) for task in tasks} == {
        ("412", "Ann", 2),
        ("414", None, 2),
    }
    assert (await site.get(CONVERSATION))["archived_at"] is None
    with pytest.raises(CompensatedError):
        await call(site, archiving("one:archive"))
    await call(site, archiving("two:archive", "keep"))
    with pytest.raises(CompensatedError):  # also when another closing has come since
        await call(site, archiving("one:archive"))
    assert (await site.get(CONVERSATION))["archived_at"] is not None


async def test_a_closing_that_comes_after_its_compensation_is_refused(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    assert await call(site, reopening("one:archive")) == Undone(found=False)
    with pytest.raises(CompensatedError):
        await call(site, archiving("one:archive"))
    [task] = (await site.get("/v1/tasks"))["items"]
    assert (task["status"], task["version"]) == ("open", 0)


async def test_it_waits_until_all_that_was_said_is_there(site: Site) -> None:
    with pytest.raises(BusyError):
        await call(site, archiving("one:archive", last=""))
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    with pytest.raises(BusyError):
        await call(site, archiving("one:archive", last="shift-1:0:16000"))
    await site.say(heard(16_000, "thank you"), insight("acknowledge"))
    await call(site, archiving("one:archive", last="shift-1:0:16000"))
    await site.say(heard(32_000, "one more"), insight("chatter"))  # what comes later does not take it off the archive
    assert (await site.get(CONVERSATION))["archived_at"] is not None
