"""A dispatch whose executor is killed once the receiver has the notice: assigned once, and the receiver has one id."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.e2e.conftest import NewServer, NewSite
from tests.support.receiver import SECRET, Receiver, receiving
from tests.support.server import READY_S, Answer, Server, quickcomm
from tests.support.talk import Talk, shift_talk
from tests.support.wire import converse, new_id

Json = dict[str, Any]
Kill = Callable[[], Awaitable[None]]


@pytest.fixture(scope="session")
def talk() -> Talk:
    """One that opens tasks."""
    return shift_talk()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


def told_of(receiver: Receiver) -> dict[str, str]:
    """Return the settings of a site that has this receiver."""
    return {"QUICKCOMM_OPERATIONS_WEBHOOK_URL": receiver.url, "QUICKCOMM_OPERATIONS_WEBHOOK_SECRET": SECRET}


async def open_tasks(server: Server, talk: Talk) -> list[str]:
    """Return the ids of tasks that are open, of a conversation that has ended."""
    key = await asyncio.to_thread(server.key)
    wire = await converse(server.url, key, talk.wire, conversation_id=new_id("sent"), channel="radio")
    ids = {said["utterance_id"] for said in wire.of("utterance")}

    def complete(body: Json) -> bool:
        return {card["utterance_id"] for card in body["items"] if card["insights"]} >= ids

    await server.until(f"/v1/utterances?conversation={wire.conversation_id}", complete)
    listed = (await server.until("/v1/tasks", lambda body: bool(body["items"])))["items"]
    return [task["task_id"] for task in listed if (task["status"], task["version"]) == ("open", 0)]


async def dispatch(server: Server, task_id: str, to: str = "Maria") -> Answer:
    key = await asyncio.to_thread(server.key, "admin")
    return await asyncio.to_thread(server.ask, "POST", f"/v1/tasks/{task_id}/dispatch", key, {"assignee": to})


async def killed_with_the_notice(server: Server, task_id: str, receiver: Receiver, kill: Kill) -> None:
    """Kill the executor when the receiver has the notice and has not answered; see that it ends well."""
    before, killed = len(receiver.got), asyncio.Event()

    async def kill_once() -> None:
        receiver.on_request = lambda: None
        await kill()
        killed.set()

    receiver.on_request = kill_once
    asked = asyncio.create_task(dispatch(server, task_id))
    async with asyncio.timeout(READY_S):
        await killed.wait()
        await asyncio.gather(asked, return_exceptions=True)  # the process that was asked may be the one that was killed
    await asyncio.to_thread(server.wait_ready)
    listed = await server.until("/v1/operations", lambda body: _of(body, task_id, "running", "done"))
    [stand] = [each for each in listed["items"] if each["subject"] == task_id]
    done = await server.until(f"/v1/operations/{stand['operation_id']}", lambda body: body["status"] == "done")
    assert [event["step"] for event in done["history"] if event["what"] == "done"] == ["reserve", "notice", "confirm"]
    found = await server.until("/v1/tasks", lambda body: bool(body["items"]))
    [task] = [each for each in found["items"] if each["task_id"] == task_id]
    assert (task["assignee"], task["version"]) == ("Maria", 1)
    assert [got.id for got in receiver.got[before:]] == [f"{done['operation_id']}:notice"] * 2


def _of(body: Json, task_id: str, *statuses: str) -> bool:
    return any(each["subject"] == task_id and each["status"] in statuses for each in body["items"])


@pytest.mark.long
@pytest.mark.parametrize("shape", ["services", "monolith"])
async def test_the_process_of_operations_is_killed_with_a_notice(
    new_site: NewSite, talk: Talk, receiver: Receiver, shape: str
) -> None:
    site = new_site("--deployment", shape, **told_of(receiver))
    await asyncio.to_thread(site.start)
    task_id, *_ = await open_tasks(site, talk)

    async def kill() -> None:
        found = await asyncio.to_thread(site.process, "operations")
        os.kill(found.pid, signal.SIGKILL)

    await killed_with_the_notice(site, task_id, receiver, kill)
    await asyncio.to_thread(quickcomm, "check", "--data-dir", str(site.data_dir), "--settle", "0.5")


@pytest.mark.long
async def test_a_monolith_is_killed_with_a_notice(new_server: NewServer, talk: Talk, receiver: Receiver) -> None:
    server = await asyncio.to_thread(lambda: new_server(**told_of(receiver)))
    first, *_ = await open_tasks(server, talk)
    assert not (server.data_dir / "operations").exists()
    said = await asyncio.to_thread(quickcomm, "dispatch", first, "--to", "Ann", "--data-dir", str(server.data_dir))
    assert "done" in said
    assert (server.data_dir / "operations" / "steps.sqlite").is_file()

    async def kill() -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    second, *_ = await open_tasks(server, talk)
    await killed_with_the_notice(server, second, receiver, kill)
    shown = await asyncio.to_thread(quickcomm, "sagas", "list", "--data-dir", str(server.data_dir))
    assert shown.count("dispatch") == 2
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(quickcomm, "check", "--data-dir", str(server.data_dir), "--settle", "0.5")
