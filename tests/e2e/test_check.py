"""`quickcomm check` on a real site: nothing is wrong with what was said, and each fault that is planted is named."""

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewServer, NewSite
from tests.support.server import EVENTUALLY_S, Server, quickcomm
from tests.support.talk import Talk, shift_talk
from tests.support.wire import Wire, converse, new_id

Json = dict[str, Any]
RECORDED: Final = {"QUICKCOMM_STORAGE_RECORDINGS": "true"}
SETTLE: Final = ("--settle", "0.2")


@pytest.fixture(scope="session")
def talk() -> Talk:
    """One that opens tasks."""
    return shift_talk()


def check(data_dir: Path, *options: str, status: int = 0) -> tuple[list[Json], Json]:
    """Return the findings, and the totals."""
    arguments = ("check", "--json", "--data-dir", str(data_dir), *SETTLE, *options)
    lines = quickcomm(*arguments, statuses=(status,), env=RECORDED).splitlines()
    *findings, totals = [json.loads(line) for line in lines]
    return findings, totals


def named(findings: list[Json]) -> set[tuple[str, str]]:
    return {(finding["code"], finding["id"]) for finding in findings}


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        with connection:
            yield connection
    finally:
        connection.close()


async def spoken(server: Server, talk: Talk) -> Wire:
    key = await asyncio.to_thread(server.key)
    wire = await converse(server.url, key, talk.wire, conversation_id=new_id("checked"), channel="radio")
    ids = {said["utterance_id"] for said in wire.of("utterance")}

    def complete(body: Json) -> bool:
        return {card["utterance_id"] for card in body["items"] if card["insights"]} >= ids

    await server.until("/v1/utterances", complete)
    return wire


async def test_what_was_said_is_there_and_what_is_planted_is_found(new_server: NewServer, talk: Talk) -> None:
    often = {"QUICKCOMM_CHECK_EVERY_MINUTES": "0.02", "QUICKCOMM_CHECK_SETTLE_S": "0.2"}
    server = await asyncio.to_thread(new_server, **RECORDED, **often)
    wire = await spoken(server, talk)
    utterances = len(wire.of("utterance"))
    first = wire.of("utterance")[0]["utterance_id"]
    [*findings], totals = await asyncio.to_thread(check, server.data_dir)
    assert (findings, totals["utterances"], totals["unavailable"]) == ([], utterances, {})
    _, totals = await asyncio.to_thread(check, server.data_dir, "--since", "1", "--online")
    assert totals["utterances"] == utterances

    await asyncio.to_thread(server.stop)
    assert (await asyncio.to_thread(check, server.data_dir))[1]["utterances"] == utterances
    other = server.data_dir.with_name("other")
    await asyncio.to_thread(shutil.copytree, server.data_dir, other)
    assert (await asyncio.to_thread(check, server.data_dir, "--against", str(other)))[1]["findings"] == 0

    undone = wire.of("utterance")[1]["utterance_id"]
    planted = plant(server, first, wire.conversation_id)
    planted |= unanswer(server.page_database, server.page_database, undone)
    stopped, _ = await asyncio.to_thread(check, server.data_dir, status=1)
    assert named(stopped) == planted
    for finding in stopped:
        assert finding["since"], finding
        assert finding["repair"], finding
    copies, _ = await asyncio.to_thread(check, server.data_dir, "--against", str(other), status=1)
    assert ("cards.missing", first) in named(copies)

    await asyncio.to_thread(server.start)
    online, _ = await asyncio.to_thread(check, server.data_dir, status=1)
    assert named(online) == planted
    repaired, _ = await asyncio.to_thread(check, server.data_dir, "--repair", status=1)
    mended = {("dead_letter", wire.conversation_id), ("card.missing", first), ("task.orphan", first)}
    mended.add(("insights.missing", undone))
    assert planted - named(repaired) == planted & mended
    assert named(repaired) - planted == {("insights.missing", first)}, "its transcript came again, and nothing else"
    await asyncio.to_thread(tells_by_itself, server, wire.conversation_id)


def tells_by_itself(server: Server, conversation_id: str) -> None:
    """Wait for the site's own check to say what it has found: in the metrics, and to people."""
    counts_by_itself(server, "ledger.unbalanced")
    row = json.loads(quickcomm("status", "--json", "--data-dir", str(server.data_dir), statuses=(1,)))
    [alarm] = [alarm for alarm in row["alarms"] if alarm["code"] == "check.ledger.unbalanced"]
    assert alarm["message"] == f"1 have a ledger that does not add up, such as {conversation_id}. See: quickcomm check"


def counts_by_itself(server: Server, kind: str) -> None:
    deadline = time.monotonic() + EVENTUALLY_S
    while f'quickcomm_check_findings{{kind="{kind}"}} 1.0' not in server.get("/metrics", "read").body.decode():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def unanswer(page: Path, mind: Path, utterance_id: str) -> set[tuple[str, str]]:
    """Have an utterance as it is before intelligence answers, in the databases of both."""
    with opened(page) as database:
        database.execute("UPDATE dashboard_utterances SET found = NULL WHERE utterance_id = ?", (utterance_id,))
    with opened(mind) as database:
        database.execute("DELETE FROM intelligence_results WHERE utterance_id = ?", (utterance_id,))
    return {("insights.missing", utterance_id)}


def plant(server: Server, lost: str, conversation_id: str) -> set[tuple[str, str]]:
    """Delete a card and a recording, add a task and a dead letter, miscount sound; return what is to be found."""
    with opened(server.page_database) as database:
        database.execute("DELETE FROM dashboard_utterances WHERE utterance_id = ?", (lost,))
        tasks = database.execute("SELECT count(*) FROM dashboard_tasks WHERE utterance_id = ?", (lost,)).fetchone()[0]
        columns = [row[1] for row in database.execute("PRAGMA table_info(dashboard_tasks)")]
        values = ", ".join(
            {"id": "id + 1000", "utterance_id": "'nobody:0:1'", "task_id": "'nobody:0:1:0'"}.get(name, name)
            for name in columns
        )
        database.execute(
            f"INSERT INTO dashboard_tasks ({', '.join(columns)}) SELECT {values} FROM dashboard_tasks LIMIT 1"  # noqa: S608
        )
        database.execute(
            "INSERT INTO bus_dead_letters (stream, group_name, key, payload, reason, attempts, at_ns)"
            " SELECT stream, 'dashboard', key, payload, 'planted', 5, 1700000000000000000 FROM bus_messages"
            " WHERE stream = 'transcripts.v1' LIMIT 1"
        )
        database.execute(
            "UPDATE audio_conversations SET ledgers = replace(CAST(ledgers AS TEXT), '\"gap\":0', '\"gap\":1')"
        )
    [recording] = list((server.data_dir / "recordings").glob(f"*/c-*/{lost.partition(':')[2].replace(':', '-')}.flac"))
    recording.unlink()
    return {
        ("card.missing", lost),
        ("conversation.miscounted", conversation_id),
        ("task.orphan", "nobody:0:1"),
        ("dead_letter", conversation_id),
        ("recording.missing", lost),
        ("ledger.unbalanced", conversation_id),
        ("ledger.differs", conversation_id),
        *({("task.orphan", lost)} if tasks else ()),
    }


@pytest.mark.long
async def test_services_are_checked_from_outside_and_by_the_dashboard(new_site: NewSite, talk: Talk) -> None:
    often = {"QUICKCOMM_CHECK_EVERY_MINUTES": "0.02", "QUICKCOMM_CHECK_SETTLE_S": "0.2"}
    site = new_site("--deployment", "services", **RECORDED, **often)
    await asyncio.to_thread(site.start)
    wire = await spoken(site, talk)
    utterances = len(wire.of("utterance"))
    findings, totals = await asyncio.to_thread(check, site.data_dir)
    assert (findings, totals["utterances"], totals["unavailable"]) == ([], utterances, {})
    lost = wire.of("utterance")[-1]["utterance_id"]
    page = site.layout.directory.dashboard.database
    with opened(page) as database:
        database.execute("DELETE FROM dashboard_utterances WHERE utterance_id = ?", (lost,))
    found, totals = await asyncio.to_thread(check, site.data_dir, status=1)
    assert ("card.missing", lost) in named(found)
    assert totals["unavailable"] == {}
    await asyncio.to_thread(counts_by_itself, site, "card.missing")
    undone = wire.of("utterance")[0]["utterance_id"]
    await asyncio.to_thread(unanswer, page, site.page_database, undone)
    found, _ = await asyncio.to_thread(check, site.data_dir, status=1)
    assert ("insights.missing", undone) in named(found)
    repaired, _ = await asyncio.to_thread(check, site.data_dir, "--repair", "--settle", "2", status=1)
    assert named(found) - named(repaired) == {("insights.missing", undone)}


async def test_a_site_in_which_people_talk_gives_no_false_alarm(server: Server, talk: Talk) -> None:
    key = await asyncio.to_thread(server.key)
    async with asyncio.TaskGroup() as tasks:
        talking = [tasks.create_task(converse(server.url, key, talk.wire, channel=f"busy {at}")) for at in range(3)]
        checks = 0
        while checks < 2 or not all(each.done() for each in talking):
            findings, totals = await asyncio.to_thread(check, server.data_dir, "--settle", "8")
            assert (findings, totals["unavailable"]) == ([], {})
            checks += 1
