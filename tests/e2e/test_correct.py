"""Correcting a misheard utterance: its card, its task and the summary follow; also where processes are killed."""

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
from tests.support.wire import converse, new_id

from quickcomm.contracts.correcting import first_revision

Json = dict[str, Any]
STEPS: Final = ["amend", "understand"]
SETTLE: Final = ("--settle", "0.5")
TEXT: Final = "Please bring four pillows to 733."
ROOM: Final = "733"
"""Not said in the talk."""


@pytest.fixture(scope="session")
def talk() -> Talk:
    """One that opens tasks."""
    return shift_talk()


async def opened(server: Server, talk: Talk) -> Json:
    """Return the card of an utterance that has opened a task, in a conversation that has ended."""
    key = await asyncio.to_thread(server.key)
    wire = await converse(server.url, key, talk.wire, conversation_id=new_id("misheard"), channel="radio")
    ids = {said["utterance_id"] for said in wire.of("utterance")}

    def complete(body: Json) -> bool:
        return {card["utterance_id"] for card in body["items"] if card["insights"]} >= ids

    found = await server.until(f"/v1/utterances?conversation={wire.conversation_id}", complete)
    return next(card for card in found["items"] if card["tasks"])


async def correct(server: Server, card: Json, text: str) -> Answer:
    key = await asyncio.to_thread(server.key, "admin")
    path = f"/v1/utterances/{card['utterance_id']}/correct"
    return await asyncio.to_thread(server.ask, "POST", path, key, {"text": text})


async def until_corrected(server: Server, card: Json, text: str, number: int) -> Json:
    """Return the card once it has the insights of a correction."""

    def corrected(body: Json) -> bool:
        return bool(body["text"] == text and body["insights"][0]["revision"] >= first_revision(number))

    return await server.until(f"/v1/utterances/{card['utterance_id']}", corrected)


def done_steps(stand: Json) -> list[str]:
    return [event["step"] for event in stand["history"] if event["what"] == "done"]


def check(server: Server) -> None:
    """Raise where anything is wrong: `quickcomm check` exits with another status."""
    quickcomm("check", "--data-dir", str(server.data_dir), *SETTLE)


@pytest.mark.long
async def test_a_correction_is_one_transaction_under_serve(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server)
    card = await opened(server, talk)
    data = ("--data-dir", str(server.data_dir))
    assert (await correct(server, card, card["text"])).status == 409
    assert (await correct(server, {"utterance_id": "nobody:0:0"}, TEXT)).status == 404
    answer = await correct(server, card, TEXT)
    stand = answer.json()
    assert (answer.status, stand["status"], done_steps(stand)) == (200, "done", STEPS)
    after = await until_corrected(server, card, TEXT, 1)
    assert (after["corrected"]["heard"], after["words"]) == (card["text"], [])
    task = next(task for task in after["tasks"] if task["task_id"] == card["tasks"][0]["task_id"])
    assert task["rooms"] == [ROOM]
    listed = await server.until("/v1/utterances?query=pillows", lambda body: bool(body["items"]))
    assert [each["utterance_id"] for each in listed["items"]] == [card["utterance_id"]]
    path = f"/v1/conversations/{card['conversation_id']}"
    await server.until(path, lambda body: ROOM in (body["summary"] or {}).get("text", ""))
    again = (await correct(server, card, TEXT)).json()
    assert again["operation_id"] == stand["operation_id"]
    second = "Please bring four pillows to 734."
    row = json.loads(quickcomm("correct", card["utterance_id"], "--text", second, "--json", *data))
    assert (row["name"], row["status"]) == ("correct", "done")
    after = await until_corrected(server, card, second, 2)
    assert [each["rooms"] for each in after["tasks"]] == [["734"]]
    await asyncio.to_thread(check, server)

    await asyncio.to_thread(quickcomm, "erase", "name", "pillows", "--yes", *data, timeout=180)
    assert (await correct(server, card, TEXT)).status == 404
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(check, server)
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    assert [path.name for path in files if b"pillows" in path.read_bytes()] == []


async def kill(site: Site, module: str) -> None:
    found = await asyncio.to_thread(site.process, module)
    os.kill(found.pid, signal.SIGKILL)


@pytest.mark.long
@pytest.mark.parametrize("shape", ["services", "monolith"])
async def test_a_correction_over_services_survives_kills(new_site: NewSite, talk: Talk, shape: str) -> None:
    site = new_site("--deployment", shape)
    await asyncio.to_thread(site.start)
    card = await opened(site, talk)
    answer = await correct(site, card, TEXT)
    stand = answer.json()
    assert (answer.status, stand["status"], done_steps(stand)) == (200, "done", STEPS)
    after = await until_corrected(site, card, TEXT, 1)
    assert [task["rooms"] for task in after["tasks"]] == [[ROOM]]

    mind = "intelligence" if shape == "services" else "monolith"
    for number, victim in enumerate(("operations", mind), 2):
        text = f"Please bring four pillows to 73{number + 2}."
        correcting = asyncio.create_task(correct(site, card, text))
        await kill(site, victim)
        answer = await correcting
        await asyncio.to_thread(site.wait_ready)
        if answer.status != 200:  # the process that was asked is the one that was killed
            answer = await correct(site, card, text)
        path = f"/v1/operations/{answer.json()['operation_id']}"
        stand = await site.until(path, lambda body: body["status"] == "done")
        assert done_steps(stand) == STEPS
        after = await until_corrected(site, card, text, number)
        assert [task["rooms"] for task in after["tasks"]] == [[f"73{number + 2}"]]
    row = json.loads(
        quickcomm("correct", card["utterance_id"], "--text", text, "--json", "--data-dir", str(site.data_dir))
    )
    assert row["id"] == stand["operation_id"]
    await asyncio.to_thread(check, site)
