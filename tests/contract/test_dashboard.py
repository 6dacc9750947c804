"""The dashboard through a real server, a real database file and the real bus."""

import asyncio
import itertools
import socket as sockets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.dashboard_site import START_NS, Site, events, found, heard, insight, running, until

from quickcomm.contracts.captions import Caption
from quickcomm.contracts.conversations import ConversationChanged, Ledger
from quickcomm.contracts.transcripts import TRANSCRIPTS
from quickcomm.dashboard.module import Alarm, DashboardSettings, Health


@pytest.fixture
async def site(tmp_path: Path, store: Path | str) -> AsyncIterator[Site]:
    async with running(tmp_path, store=store) as site:
        yield site


async def test_utterance_becomes_card_task_and_receipt(site: Site) -> None:
    transcript = heard(48_000, "bring two towels to 412")
    latency = await site.say(transcript, insight("request_item", "412", summary="Bring towels to 412"))
    assert latency.stt == 300.0
    assert latency.classify == 6.0
    assert latency.store is not None
    assert latency.push is not None
    assert latency.total is not None
    card = await site.get("/v1/utterances/shift-1:0:48000")
    assert card["text"] == "bring two towels to 412"
    assert card["insights"][0]["rooms"] == ["412"]
    assert card["tasks"][0]["status"] == "open"
    assert card["spoken_at"].endswith("Z")
    await site.dashboard.drain()
    assert (await site.get("/v1/utterances/shift-1:0:48000"))["latency_ms"]["total"] == latency.total
    listed = await site.get("/v1/tasks", {"status": "open", "department": "housekeeping"})
    assert [task["task_id"] for task in listed["items"]] == ["shift-1:0:48000:0"]


async def test_said_done_closes_the_newest_task_of_the_room(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    await site.say(heard(16_000, "towels to 413"), insight("request_item", "413"))
    await site.say(heard(32_000, "412 done"), insight("task_done", "412", summary="412 done"))
    tasks = {task["rooms"][0]: task for task in (await site.get("/v1/tasks"))["items"]}
    assert tasks["412"]["status"] == "done"
    assert tasks["412"]["completed_by_utterance"] == "shift-1:0:32000"
    assert tasks["413"]["status"] == "open"


async def test_a_report_that_is_not_sure_is_information_and_closes_nothing(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    await site.say(heard(16_000, "412 never came"), insight("task_done", "412", confidence=0.32))
    [task] = (await site.get("/v1/tasks"))["items"]
    assert (task["status"], task["completed_by_utterance"]) == ("open", None)
    card = await site.get("/v1/utterances/shift-1:0:16000")
    assert [(one["intent"], one["confidence"]) for one in card["insights"]] == [("task_done", 0.32)]
    await site.say(heard(32_000, "412 done"), insight("task_done", "412"))
    assert (await site.get("/v1/tasks"))["items"][0]["completed_by_utterance"] == "shift-1:0:32000"


async def test_one_transmission_through_two_receivers_is_one_card(site: Site) -> None:
    text, done = "fire in the laundry", "the fire in the laundry is out"
    fire = msgspec.structs.replace(insight("emergency", department="security"), urgency="critical")
    since, until_ = "2025-10-09T00:00:00Z", "2025-10-10T00:00:00Z"
    async with site.live() as socket:
        await site.say(heard(0, text), fire)
        await site.say(heard(4_800, text, conversation="second", channel="security"), fire)
        while not (shown := (await events(socket, "card"))["card"])["copies"]:
            pass
    copy = {"conversation_id": "second", "channel": "security", "speaker": 0, "utterance_id": "second:0:4800"}
    assert [shown["copies"][0][name] for name in copy] == list(copy.values())
    [task] = (await site.get("/v1/tasks"))["items"]
    assert task["utterance_id"] == "shift-1:0:0"
    card = await site.get("/v1/utterances/second:0:4800")
    assert (card["relates_to"], card["tasks"]) == ({"kind": "copy", "utterance_id": "shift-1:0:0"}, [])
    assert [each["intent"] for each in card["insights"]] == ["emergency"]
    first = await site.get("/v1/utterances/shift-1:0:0")
    assert (first["relates_to"], first["copies"][0]["channel"]) == (None, "security")
    report = await site.get("/v1/reports/shift", {"since": since, "until": until_})
    assert (report["emergencies"], report["requests"]) == (1, 1)
    await site.say(heard(80_000, "412 towels"), insight("request_item", "412"))
    await site.say(heard(160_000, f"412 done, {done}"), insight("task_done", "412"))
    assert [task["rooms"] for task in (await site.get("/v1/tasks", {"status": "open"}))["items"]] == [[]]


async def test_a_site_may_ask_closings_for_less(tmp_path: Path, store: Path | str) -> None:
    async with running(tmp_path, DashboardSettings(closing_confidence=0.3), store=store) as site:
        await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
        await site.say(heard(16_000, "412 is don"), insight("task_done", "412", confidence=0.32))
        assert (await site.get("/v1/tasks"))["items"][0]["status"] == "done"


async def test_what_people_do_with_tasks_is_idempotent_and_survives_revisions(site: Site) -> None:
    transcript = heard(0, "towels to 412")
    await site.say(transcript, insight("request_item", "412"))
    path = "/v1/tasks/shift-1:0:0:0"
    first = await site.post(f"{path}/acknowledge")
    assert first["status"] == "acknowledged"
    assert await site.post(f"{path}/acknowledge") == first
    assert (await site.post(f"{path}/assign", body={"assignee": "Maria"}))["assignee"] == "Maria"
    async with site.live() as socket:
        await events(socket, "card")
        await site.publish(found(transcript, insight("chatter"), revision=2, opens=False))
        card = (await events(socket, "card"))["card"]
    assert card["insights"][0]["intent"] == "chatter"
    assert card["tasks"][0]["status"] == "acknowledged"
    done = await site.post(f"{path}/complete")
    assert (done["status"], done["completed_by"]) == ("done", "the admin")
    assert (await site.post(f"{path}/acknowledge", expect=409))["code"] == "conflict"
    assert (await site.post(f"{path}/reopen"))["status"] == "open"


async def test_lists_page_by_cursor_while_new_ones_arrive(site: Site) -> None:
    for start in range(0, 80_000, 16_000):
        await site.say(heard(start, f"towels number {start}"), insight("request_item", "412"))
    later = itertools.count(1_000_000)
    queries: tuple[dict[str, str], ...] = (
        {},
        {"query": "towels"},
        {"department": "housekeeping"},
        {"channel": "housekeeping"},
    )
    for query in queries:
        seen: list[int] = []
        cursor: dict[str, str] = {}
        while True:
            page = await site.get("/v1/utterances", {"limit": "2", **query, **cursor})
            seen += [card["start_offset"] for card in page["items"]]
            await site.say(heard(next(later), "later"), insight("chatter"))
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        mine = [start for start in seen if start <= 64_000]
        assert mine == [64_000, 48_000, 32_000, 16_000, 0], query


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("towels", 1),
        ("412 tow", 1),
        ('tow" OR "x', 0),
        ("NOT (", 0),
        ("'; DROP TABLE", 0),
        ("***", 0),
        ("TOWELS 412", 1),
    ],
)
async def test_queries_of_people_never_break(site: Site, query: str, count: int) -> None:
    await site.say(heard(0, "please bring towels"), insight("request_item", "412"))
    assert len((await site.get("/v1/utterances", {"query": query}))["items"]) == count


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/utterances", {"limit": "0"}),
        ("/v1/utterances", {"limit": "201"}),
        ("/v1/utterances", {"limit": "many"}),
        ("/v1/utterances", {"cursor": "no cursor"}),
        ("/v1/utterances", {"since": "yesterday"}),
        ("/v1/utterances", {"since": "2026-05-09T07:00:00"}),
        ("/v1/utterances", {"query": "x" * 201}),
        ("/v1/utterances", {"chanel": "x"}),
        ("/v1/tasks", {"status": "closed"}),
        ("/v1/conversations", {"state": "dead"}),
    ],
)
async def test_bad_parameters_are_400_problems(site: Site, path: str, query: dict[str, str]) -> None:
    problem = await site.get(path, query, expect=400)
    assert problem["code"] == "invalid_input"
    assert problem["status"] == 400
    assert problem["title"] == "Bad Request"


async def test_a_site_sees_nothing_of_another(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    for path in ("/v1/utterances", "/v1/tasks", "/v1/conversations", "/v1/channels"):
        assert (await site.get(path, role="elsewhere"))["items"] == []
    assert (await site.get("/v1/utterances", {"query": "towels"}, role="elsewhere"))["items"] == []
    await site.get("/v1/utterances/shift-1:0:0", role="elsewhere", expect=404)
    await site.post("/v1/tasks/shift-1:0:0:0/complete", "elsewhere", expect=404)
    async with site.live(role="elsewhere") as socket:
        assert (await events(socket, "hello"))["change"] == 0


async def test_conversation_with_its_ledger(site: Site) -> None:
    await site.say(heard(0, "hello"), insight("chatter"))
    ledger = Ledger(received=100, speech=60, silence=30, gap=10)
    async with site.live() as socket:
        hello = await events(socket, "hello")
        assert hello["conversations"][0]["state"] == "live"
        await site.publish(
            ConversationChanged(
                site="main",
                conversation_id="shift-1",
                channel="housekeeping",
                state="ended",
                sample_rate=16_000,
                speakers=2,
                ledgers=(ledger, ledger),
                at_ns=START_NS + 10**9,
            )
        )
        assert (await events(socket, "conversation"))["conversation"]["state"] == "ended"
    conversation = await site.get("/v1/conversations/shift-1")
    assert conversation["ledger"] == {"received": 200, "speech": 120, "silence": 60, "gap": 20}
    assert conversation["utterances"] == 1
    assert (await site.get("/v1/channels"))["items"][0]["live"] == 0


async def test_live_resumes_where_it_was(site: Site) -> None:
    await site.say(heard(0, "first"), insight("chatter"))
    async with site.live() as socket:
        hello = await events(socket, "hello")
        assert hello["reset"] is True
        assert (await events(socket, "card"))["card"]["text"] == "first"
    await site.say(heard(16_000, "second"), insight("chatter"))
    async with site.live(f"?after={hello['change']}") as socket:
        again = await events(socket, "hello")
        assert again["reset"] is False
        assert (await events(socket, "card"))["card"]["text"] == "second"
    async with site.live(f"?after={10**9}") as socket:
        assert (await events(socket, "hello"))["reset"] is True


async def test_captions_reach_only_who_watches(site: Site) -> None:
    captions = site.captions
    assert not captions.watched("main", "housekeeping")
    async with site.live() as socket:
        await events(socket, "hello")
        assert captions.watched("main", "housekeeping")
        await socket.send_json({"type": "watch", "channels": ["security"]})
        await socket.send_str("nonsense")
        await events(socket, "error")
        assert not captions.watched("main", "housekeeping")
        for channel in ("housekeeping", "security"):
            captions.caption(
                Caption(site="main", conversation_id="c", channel=channel, speaker=0, start_offset=0, text="som")
            )
        plain = await events(socket, "caption")
        assert plain["channel"] == "security"
        assert "side" not in plain
        captions.caption(
            Caption(
                site="main",
                conversation_id="c",
                channel="security",
                speaker=1,
                start_offset=0,
                text="x",
                side="service",
            )
        )
        assert (await events(socket, "caption"))["side"] == "service"


async def report_painted(socket: Any, utterance_id: str, painted_ms: float) -> None:
    """Return when the server has heard it."""
    await socket.send_json({"type": "painted", "utterance_id": utterance_id, "revision": 1, "painted_ms": painted_ms})
    await socket.send_str("nonsense")
    await events(socket, "error")


async def complete_card(socket: Any) -> Any:
    while not (card := (await events(socket, "card"))["card"])["insights"]:
        pass
    return card


def paints(site: Site) -> int:
    """How many reports the percentiles of the last minutes are made of."""
    return next((stage.count for stage in site.dashboard.stages if stage.stage == "painted"), 0)


async def test_painted_is_kept_of_what_was_pushed_live_and_counts_once(site: Site) -> None:
    async with site.live() as socket, site.live() as other:
        await events(socket, "hello")
        await events(other, "hello")
        await site.say(heard(0, "first"), insight("chatter"))
        card = await complete_card(socket)
        await complete_card(other)
        for ms in (812.5, 9_000):
            await report_painted(socket, card["utterance_id"], ms)
        assert paints(site) == 1
        await report_painted(other, card["utterance_id"], 20)
        assert paints(site) == 2, "each page is asked"
    await site.dashboard.drain()
    painted = await site.database.read(
        lambda connection: connection.exec_driver_sql("SELECT painted_ms FROM dashboard_utterances").scalar()
    )
    assert painted == 812.5


async def test_a_replayed_card_is_no_measurement_of_painting(site: Site) -> None:
    await site.say(heard(0, "first"), insight("chatter"))
    for _ in range(3):
        async with site.live() as socket:
            card = (await events(socket, "card"))["card"]
            await report_painted(socket, card["utterance_id"], 9_000)
            await report_painted(socket, "no-such-card", 9_000)
    assert paints(site) == 0
    await site.dashboard.drain()
    painted = await site.database.read(
        lambda connection: connection.exec_driver_sql("SELECT painted_ms FROM dashboard_utterances").scalar()
    )
    assert painted is None


async def test_a_client_that_does_not_read_is_cut_off_and_harms_nobody(tmp_path: Path) -> None:
    settings = DashboardSettings(live_queue=8, live_send_timeout_s=0.2, health_every_s=60)
    async with running(tmp_path, settings) as site:
        with sockets.socket() as deaf:
            deaf.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", int(site.url.rpartition(":")[2])))
            deaf.sendall(
                f"GET /v1/live?key={site.tokens['read']} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "\r\n".encode()
            )
            async with site.live() as socket:
                await events(socket, "hello")
                await until(lambda: site.dashboard._hub._count == 2)
                big = Health(alarms=(Alarm(code="x", message="x" * 1_000_000, since=""),))
                while site.dashboard._hub._count == 2:
                    site.dashboard._hub.health(big)
                    await events(socket, "health")
        await site.say(heard(0, "hello"), insight("chatter"))
        async with site.live() as socket:
            assert (await events(socket, "hello"))["change"] > 0


async def test_malformed_messages_become_dead_letters(site: Site) -> None:
    await site.bus.publish(TRANSCRIPTS, "shift-1", b'{"site": 3')
    await site.say(heard(0, "after it"), insight("chatter"))
    async with asyncio.timeout(10):
        while not (letters := await site.bus.dead_letters()):  # noqa: ASYNC110 - the bus has no event for it
            await asyncio.sleep(0)
    assert [letter.group for letter in letters] == ["dashboard"]
    assert "cannot be read" in letters[0].reason


async def test_purge_leaves_nothing_behind(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    await site.say(heard(16_000, "412 done"), insight("task_done", "412"))
    await site.say(heard(0, "stays", conversation="shift-2"), insight("request_item", "9"))
    async with site.live() as socket:
        await events(socket, "hello")
        for name in ("shift-1", "shift-2"):
            await site.publish(
                ConversationChanged(
                    site="main",
                    conversation_id=name,
                    channel="housekeeping",
                    state="ended" if name == "shift-1" else "live",
                    sample_rate=16_000,
                    speakers=1,
                    ledgers=(Ledger(),),
                    at_ns=START_NS + 10**10,
                )
            )
            await events(socket, "conversation")
    assert await site.dashboard.purge(START_NS) == 0
    assert await site.dashboard.purge(START_NS + 10**11) == 3
    rows = {}
    for table in ("conversations", "utterances", "fts", "tasks", "rooms", "closings"):
        query = f"SELECT count(*) FROM dashboard_{table}"  # noqa: S608 - names from above
        rows[table] = await site.database.read(
            lambda connection, query=query: connection.exec_driver_sql(query).scalar()  # type: ignore[misc]
        )
    assert rows == {"conversations": 1, "utterances": 1, "fts": 1, "tasks": 1, "rooms": 1, "closings": 0}
