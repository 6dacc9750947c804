"""Erasing on a real site: the words are in no byte of any file, nothing brings them back, and no kill stops it."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewServer, NewSite
from tests.e2e.test_check import check, spoken
from tests.support.remains import forms
from tests.support.server import Answer, Server, quickcomm
from tests.support.talk import Talk, shift_talk
from tests.support.wire import Wire, connected, new_id

from quickcomm.contracts.transcripts import TRANSCRIPTS

Json = dict[str, Any]
RECORDED: Final = {"QUICKCOMM_STORAGE_RECORDINGS": "true"}
CHUNK: Final = 3_200
PATIENCE_S: Final = 240.0
"""As long as a process that was killed may take until it is there again, on a machine with much else to do."""
NAME: Final = "Quentin Vandermolen"


@pytest.fixture(scope="session")
def talk() -> Talk:
    return shift_talk()


def texts_of(wire: Wire) -> list[str]:
    return [said["text"] for said in wire.of("utterance") if len(said["text"]) > 20]


def places(server: Server, texts: list[str]) -> set[str]:
    """Return the files of a site, its logs included, that have any of these texts; of a socket there is no file."""
    sought = [form for text in texts for form in forms(text)]
    files = [path for path in server.data_dir.rglob("*") if path.is_file()]
    files.append(server.data_dir.parent / f"{server.data_dir.name}.log")
    return {
        str(path.relative_to(server.data_dir.parent))
        for path in files
        if any(form in path.read_bytes() for form in sought)
    }


def listed(server: Server) -> list[Json]:
    items: list[Json] = server.get("/v1/utterances", "read").json()["items"]
    return items


def erase(server: Server, *arguments: str, statuses: tuple[int, ...] = (0,)) -> list[Json]:
    told = quickcomm(
        "erase", *arguments, "--json", "--data-dir", str(server.data_dir), statuses=statuses, env=RECORDED, timeout=180
    )
    return [json.loads(line) for line in told.splitlines()]


async def ask_to_erase(server: Server, **wanted: Any) -> Answer:
    key = await asyncio.to_thread(server.key, "admin")
    return await asyncio.to_thread(server.ask, "POST", "/v1/erasures", key, wanted)


async def until_at_work(server: Server, number: int = 1) -> None:
    """Return once a step of the newest of so many erasures is done."""

    def holds(body: Json) -> bool:
        erasing = [each for each in body["items"] if each["operation"] == "erase"]
        return len(erasing) == number and any(event["what"] == "done" for event in erasing[0]["history"])

    await server.until("/v1/operations", holds)


async def until_erased(server: Server) -> Json:
    """Return the newest receipt once it is done."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await asyncio.to_thread(server.get, "/v1/erasures", "admin")
            items: list[Json] = answer.json()["items"] if answer.status == 200 else []
            if items and items[0]["status"] == "done":
                return items[0]
            await asyncio.sleep(0.2)


def plant_dead_letter(server: Server, conversation: str, text: str) -> None:
    """As a message that could not be handled."""
    ids = {"site": "main", "conversation_id": conversation, "utterance_id": f"{conversation}:0:1"}
    payload = json.dumps(ids | {"text": text})
    with closing(sqlite3.connect(server.page_database, timeout=30)) as database, database:
        database.execute(
            "INSERT INTO bus_dead_letters (stream, group_name, key, payload, reason, attempts, at_ns)"
            " VALUES (?, 'intelligence', ?, ?, 'planted', 5, 1)",
            (TRANSCRIPTS, conversation, payload.encode()),
        )


def searched(server: Server, texts: list[str]) -> Iterator[str]:
    """Yield words of the texts that the full-text index still has."""
    with closing(sqlite3.connect(server.page_database)) as database:
        database.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab('main', 'dashboard_fts', 'row')")
        known = {term for (term,) in database.execute("SELECT term FROM temp.vocabulary")}
    yield from (word for text in texts for word in text.lower().split() if len(word) > 4 and word in known)


@pytest.mark.long
async def test_a_conversation_is_in_no_byte_of_any_file(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server, **RECORDED)
    wire = await spoken(server, talk)
    texts, name = texts_of(wire), wire.conversation_id
    await asyncio.to_thread(plant_dead_letter, server, name, texts[0])
    assert places(server, texts)
    assert list((server.data_dir / "recordings").rglob("*.flac"))

    [receipt] = await asyncio.to_thread(erase, server, "conversation", name, "--yes")
    assert receipt["state"] == "done"
    listed_ = await asyncio.to_thread(quickcomm, "sagas", "list", "--json", "--data-dir", str(server.data_dir))
    assert [json.loads(line)["subject"] for line in listed_.splitlines()] == [receipt["id"]]
    assert not any(text in json.dumps(receipt) for text in texts)
    what = {line["what"] for line in receipt["erased"] if line["count"]}
    assert {"files", "logged events", "dead letters", "results", "cards", "tasks"} <= what
    assert {line["gone"] for line in receipt["erased"]} == {""}
    assert places(server, texts) == set()
    assert list(searched(server, texts)) == []
    assert list((server.data_dir / "recordings").rglob("*.flac")) == []
    assert await asyncio.to_thread(listed, server) == []
    findings, totals = await asyncio.to_thread(check, server.data_dir)
    assert (findings, totals["unavailable"]) == ([], {})
    [again] = await asyncio.to_thread(erase, server, "conversation", name, "--yes")
    assert not any(line["count"] for line in again["erased"])
    await asyncio.to_thread(server.stop)
    assert places(server, texts) == set()


@pytest.mark.long
async def test_a_backup_from_before_is_restored_without_it(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server)
    wire = await spoken(server, talk)
    texts, backup = texts_of(wire), server.data_dir.with_name("before.backup")
    await asyncio.to_thread(quickcomm, "backup", str(backup), "--data-dir", str(server.data_dir), timeout=120)
    [receipt] = await asyncio.to_thread(erase, server, "conversation", wire.conversation_id, "--yes")
    assert [copy["where"] for copy in receipt["copies"]] == [str(backup)]
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(quickcomm, "restore", str(backup), "--data-dir", str(server.data_dir), timeout=120)
    assert places(server, texts) == set()
    await asyncio.to_thread(server.start)
    assert await asyncio.to_thread(listed, server) == []


@pytest.mark.long
async def test_a_conversation_that_goes_on_ends(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server)
    key, name = await asyncio.to_thread(server.key), new_id("live")
    async with connected(server.url, key, name) as wire:
        wire.token = (await wire.until("ready"))["resume_token"]
        await wire.send(talk.wire[: len(talk.wire) // 2], CHUNK)
        said = await wire.until("utterance")
        await asyncio.to_thread(erase, server, "conversation", name, "--yes")
        await wire.until_closed()
    async with connected(server.url, key, name, resume_token=wire.token, after_seq=0) as late:
        ended = await late.until("ended")
        assert ended["ledger"]["received"] >= 0
        assert late.of("utterance") == []
    assert places(server, [said["text"]]) == set()
    assert await asyncio.to_thread(listed, server) == []


@pytest.mark.long
async def test_services_and_their_store(new_site: NewSite, talk: Talk) -> None:
    site = new_site("--deployment", "services", **RECORDED)
    await asyncio.to_thread(site.start)
    wire = await spoken(site, talk)
    texts = texts_of(wire)
    assert places(site, texts)
    [receipt] = await asyncio.to_thread(erase, site, "conversation", wire.conversation_id, "--yes")
    assert {line["gone"] for line in receipt["erased"]} == {""}
    assert places(site, texts) == set()
    findings, totals = await asyncio.to_thread(check, site.data_dir)
    assert (findings, totals["unavailable"]) == ([], {})
    await asyncio.to_thread(site.down)
    assert places(site, texts) == set()


@pytest.mark.long
async def test_programs_erase_and_a_kill_under_serve_stops_nothing(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server, **RECORDED)
    wire = await spoken(server, talk)
    texts, name = texts_of(wire), wire.conversation_id
    for wanted in (
        {},
        {"conversation": name, "name": NAME},
        {"name": " "},
        {"since": "2026-05-02T00:00:00Z", "until": "2026-05-01T00:00:00Z"},
        {"until": "2026-05-01T00:00:00Z"},
        {"since": "yesterday"},
        {"words": NAME},
    ):
        assert (await ask_to_erase(server, **wanted)).status == 400, wanted
    counted = (await ask_to_erase(server, since="2026-01-01T00:00:00Z", dry_run=True)).json()
    assert (counted["status"], counted["erasure_id"]) == ("found", None)
    assert counted["utterances"] == len(wire.of("utterance"))
    assert server.get("/v1/erasures", "admin").json() == {"items": []}
    asking = asyncio.create_task(ask_to_erase(server, conversation=name))
    await until_at_work(server)
    await asyncio.to_thread(server.kill)
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.to_thread(server.start)
    receipt = await until_erased(server)
    assert receipt["conversations"] == [name]
    assert places(server, texts) == set()
    assert await asyncio.to_thread(listed, server) == []
    assert (await ask_to_erase(server, since="2026-01-01T00:00:00Z")).json()["status"] == "found"
    findings, totals = await asyncio.to_thread(check, server.data_dir)
    assert (findings, totals["unavailable"]) == ([], {})


@pytest.mark.long
async def test_kills_of_the_executor_and_of_a_module_stop_nothing(new_site: NewSite, talk: Talk) -> None:
    """A name, which is in the records of a closing, and then all that was said."""
    site = new_site("--deployment", "services", **RECORDED)
    await asyncio.to_thread(site.start)
    wire = await spoken(site, talk)
    admin = await asyncio.to_thread(site.key, "admin")
    path = f"/v1/conversations/{wire.conversation_id}/close"
    closed = await asyncio.to_thread(site.ask, "POST", path, admin, {"tasks": {"assignee": NAME}})
    await site.until(f"/v1/operations/{closed.json()['operation_id']}", lambda body: body["status"] == "done")
    kept = " ".join(places(site, [NAME]))
    assert "operations.sqlite" in kept
    assert "steps.sqlite" in kept
    for number, (victims, wanted, gone) in enumerate(
        (
            (("operations", "intelligence"), {"name": NAME}, [NAME]),
            (("dashboard", "operations"), {"since": "2026-01-01T00:00:00Z"}, texts_of(wire)),
        ),
        start=1,
    ):
        asking = asyncio.create_task(ask_to_erase(site, **wanted))
        await until_at_work(site, number)
        for victim in victims:
            process = await asyncio.to_thread(site.process, victim)
            os.kill(process.pid, signal.SIGKILL)
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.to_thread(site.wait_ready)
        receipt = await until_erased(site)
        assert receipt["kind"] == ("name" if "name" in wanted else "time")
        assert places(site, gone) == set()
    findings, totals = await asyncio.to_thread(check, site.data_dir)
    assert (findings, totals["unavailable"]) == ([], {})
    await asyncio.to_thread(site.down)
    assert places(site, [NAME, *texts_of(wire)]) == set()
