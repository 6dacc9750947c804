"""Closing a conversation: one transaction under `serve`; over services the same, whatever is killed meanwhile."""

import asyncio
import json
import os
import signal
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewServer, NewSite
from tests.support.server import Answer, Server, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk, shift_talk
from tests.support.wire import connected, converse, new_id

Json = dict[str, Any]
STEPS: Final = ["finish", "summarize", "archive"]
SETTLE: Final = ("--settle", "0.5")


@pytest.fixture(scope="session")
def talk() -> Talk:
    """One that opens tasks."""
    return shift_talk()


async def spoken(server: Server, talk: Talk) -> str:
    """Return the id of a conversation that has ended, with its cards complete."""
    key = await asyncio.to_thread(server.key)
    wire = await converse(server.url, key, talk.wire, conversation_id=new_id("closed"), channel="radio")
    ids = {said["utterance_id"] for said in wire.of("utterance")}

    def complete(body: Json) -> bool:
        return {card["utterance_id"] for card in body["items"] if card["insights"]} >= ids

    await server.until(f"/v1/utterances?conversation={wire.conversation_id}", complete)
    return wire.conversation_id


async def close(server: Server, conversation_id: str, **body: Any) -> Answer:
    key = await asyncio.to_thread(server.key, "admin")
    return await asyncio.to_thread(server.ask, "POST", f"/v1/conversations/{conversation_id}/close", key, body)


async def until_done(server: Server, operation_id: str) -> Json:
    return await server.until(f"/v1/operations/{operation_id}", lambda body: body["status"] == "done")


async def tasks_of(server: Server, conversation_id: str) -> list[Json]:
    listed = await server.until("/v1/tasks", lambda body: bool(body["items"]))
    return [task for task in listed["items"] if task["utterance_id"].startswith(f"{conversation_id}:")]


def done_steps(stand: Json) -> list[str]:
    return [event["step"] for event in stand["history"] if event["what"] == "done"]


def check(server: Server) -> None:
    """Raise where anything is wrong: `quickcomm check` exits with another status."""
    quickcomm("check", "--data-dir", str(server.data_dir), *SETTLE)


async def test_a_conversation_is_closed_in_one_transaction_under_serve(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server)
    conversation_id = await spoken(server, talk)
    assert (await close(server, "nobody-said-it")).status == 404
    assert (await close(server, conversation_id, tasks={"assignee": ""})).status == 400
    answer = await close(server, conversation_id, tasks="close")
    stand = answer.json()
    assert (answer.status, stand["status"], done_steps(stand)) == (200, "done", STEPS)
    kept = await server.until(f"/v1/conversations/{conversation_id}", lambda body: body["summary"] is not None)
    assert (kept["state"], kept["archived_at"] is not None) == ("ended", True)
    tasks = await tasks_of(server, conversation_id)
    assert tasks
    assert {task["status"] for task in tasks} == {"done"}
    again = (await close(server, conversation_id, tasks="keep")).json()
    assert again["operation_id"] == stand["operation_id"]
    listed = quickcomm("sagas", "list", "--json", "--data-dir", str(server.data_dir)).splitlines()
    assert [json.loads(line)["subject"] for line in listed] == [conversation_id]
    await asyncio.to_thread(check, server)

    key = await asyncio.to_thread(server.key)
    live = new_id("live")
    async with connected(server.url, key, live, channel="radio") as wire:
        await wire.send(talk.wire[: 16_000 * 2 * 8], 3_200)
        await wire.until("utterance")
        closing = asyncio.create_task(close(server, live))
        await wire.until("ended")
        assert (await closing).json()["status"] == "done"
    kept = await server.until(f"/v1/conversations/{live}", lambda body: body["state"] == "ended")
    assert kept["archived_by"]
    said = quickcomm("close", conversation_id, "--json", "--data-dir", str(server.data_dir))
    assert json.loads(said)["id"] == stand["operation_id"]
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(check, server)


async def kill(site: Site, module: str) -> None:
    found = await asyncio.to_thread(site.process, module)
    os.kill(found.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("shape", ["services", "monolith"])
async def test_a_closing_over_services_survives_kills(new_site: NewSite, talk: Talk, shape: str) -> None:
    site = new_site("--deployment", shape)
    await asyncio.to_thread(site.start)
    first = await spoken(site, talk)
    answer = await close(site, first, tasks={"assignee": "night desk"})
    stand = answer.json()
    assert (answer.status, stand["status"], done_steps(stand)) == (200, "done", STEPS)
    tasks = await tasks_of(site, first)
    assert {(task["assignee"], task["version"]) for task in tasks if task["status"] != "done"} <= {("night desk", 1)}

    mind = "intelligence" if shape == "services" else "monolith"
    for victim in ("operations", mind):
        conversation_id = await spoken(site, talk)
        closing = asyncio.create_task(close(site, conversation_id, tasks="close"))
        await kill(site, victim)
        answer = await closing
        await asyncio.to_thread(site.wait_ready)
        if answer.status != 200:  # the process that was asked is the one that was killed
            answer = await close(site, conversation_id, tasks="close")
        stand = await until_done(site, answer.json()["operation_id"])
        assert done_steps(stand) == STEPS
        kept = await site.until(f"/v1/conversations/{conversation_id}", lambda body: body["archived_at"] is not None)
        assert kept["state"] == "ended"
        assert {task["status"] for task in await tasks_of(site, conversation_id)} == {"done"}
    await asyncio.to_thread(check, site)
