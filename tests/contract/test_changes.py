"""Polling by change: nothing is missed, whatever is written meanwhile, and another side says that it is one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dashboard_site import Site, events, found, heard, insight, running
from tests.support.examples import examples
from tests.support.memory import MemoryDatabase
from tests.support.poller import KINDS, Desk, Poller, deeds
from tests.support.seed import Seed, seed

from quickcomm.dashboard.adapters.changed import changed_rows, changing_utterances, now_of, renew_side
from quickcomm.dashboard.model.places import After
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Page, UtteranceFilter
from quickcomm.kernel.storage import migrate

Json = dict[str, Any]
OTHER = "0123456789abcdef"


@pytest.fixture
async def site(tmp_path: Path, store: Path | str) -> AsyncIterator[Site]:
    async with running(tmp_path, store=store) as site:
        yield site


async def poll(site: Site, path: str, after: str, **query: str) -> tuple[list[Json], str]:
    """Return everything that changed, in as many answers as it takes, and where to go on."""
    items: list[Json] = []
    more = True
    while more:
        answer = await site.get(path, {"after": after, **query})
        items += answer["items"]
        after, more = answer["next_after"], answer["more"]
        assert answer["next_cursor"] is None
    return items, after


async def test_who_begins_with_the_list_and_polls_has_all(site: Site) -> None:
    await site.say(heard(160_000, "towels to 412"), insight("request_item", "412"))
    first = await site.get("/v1/utterances")
    assert [card["start_offset"] for card in first["items"]] == [160_000]
    assert await poll(site, "/v1/utterances", first["next_after"]) == ([], first["next_after"])
    await site.say(heard(0, "a long one that began before"), insight("chatter"))
    cards, after = await poll(site, "/v1/utterances", first["next_after"])
    assert [card["start_offset"] for card in cards] == [0]
    await site.post("/v1/tasks/shift-1:0:160000:0/complete")
    cards, after = await poll(site, "/v1/utterances", after)
    assert [card["tasks"][0]["status"] for card in cards] == ["done"]
    tasks, _ = await poll(site, "/v1/tasks", first["next_after"])
    assert [(task["utterance_id"], task["status"]) for task in tasks] == [
        ("shift-1:0:0", "open"),
        ("shift-1:0:160000", "done"),
    ]
    assert await poll(site, "/v1/utterances", after) == ([], after)
    assert [each["utterances"] for each in (await poll(site, "/v1/conversations", "0"))[0]] == [2]


@pytest.mark.parametrize("limit", ["1", "2", "200"])
async def test_a_long_absence_comes_page_by_page_in_the_order_of_changes(site: Site, limit: str) -> None:
    ids = await seed(site.database, Seed(open=5, information=4))
    await site.say(heard(0, "all at once"), *(insight("request_item", room, index=at) for at, room in enumerate("123")))
    cards, after = await poll(site, "/v1/utterances", "0", limit=limit)
    assert [card["utterance_id"] for card in cards] == [*ids, "shift-1:0:0"]
    assert cards == sorted(cards, key=lambda card: card["change"])
    assert await poll(site, "/v1/utterances", after) == ([], after)
    tasks, _ = await poll(site, "/v1/tasks", "0", limit=limit)
    assert len(tasks) == 8
    assert [task["rooms"] for task in tasks[-3:]] == [["1"], ["2"], ["3"]]
    answer = await site.get("/v1/tasks", {"after": "0", "limit": "7"})
    assert (len(answer["items"]), answer["more"]) == (7, True)
    cards, _ = await poll(site, "/v1/utterances", answer["next_after"])
    assert cards[-1]["utterance_id"] == "shift-1:0:0", "its tasks are not all known"


async def test_a_task_that_is_not_wanted_any_more_is_told_by_its_card(site: Site) -> None:
    transcript = heard(0, "towels to 412")
    await site.say(transcript, insight("request_item", "412"))
    after = (await site.get("/v1/utterances"))["next_after"]
    async with site.live() as socket:
        await events(socket, "replayed")
        await site.publish(found(transcript, insight("chatter"), revision=2, opens=False))
        await events(socket, "card")
    assert (await poll(site, "/v1/tasks", after))[0] == []
    assert [card["tasks"] for card in (await poll(site, "/v1/utterances", after))[0]] == [[]]


async def test_another_side_says_that_it_is_one(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    await site.say(heard(16_000, "towels to 413"), insight("request_item", "413"))
    listed = await site.get("/v1/utterances", {"limit": "1"})
    side, _, change = listed["next_after"].partition(":")
    ahead = int(change) + 1
    for path in ("/v1/utterances", "/v1/tasks", "/v1/conversations"):
        for after in (f"{OTHER}:{change}", f"{OTHER}:0", f"{side}:{ahead}", str(ahead)):
            problem = await site.get(path, {"after": after}, expect=410)
            assert problem["code"] == "cursor.reset"
            assert "retryable" not in problem
        await site.get(path, {"after": change})
    older = {"limit": "1", "cursor": listed["next_cursor"]}
    assert (await site.get("/v1/utterances", older))["next_after"] is None, "the first page told it"
    await site.database.write(renew_side)
    for query in (older, {"after": listed["next_after"]}):
        assert (await site.get("/v1/utterances", query, expect=410))["code"] == "cursor.reset"


async def test_the_live_feed_names_its_side(site: Site) -> None:
    await site.say(heard(0, "first"), insight("chatter"))
    async with site.live() as socket:
        hello = await events(socket, "hello")
    after = f"{hello['side']}:{hello['change']}"
    assert after == (await site.get("/v1/utterances"))["next_after"]
    await site.say(heard(16_000, "second"), insight("chatter"))
    async with site.live(f"?after={after}") as socket:
        assert (await events(socket, "hello"))["reset"] is False
        assert (await events(socket, "card"))["card"]["text"] == "second"
    for other in (f"{OTHER}:{hello['change']}", f"{hello['side']}:{10**9}"):
        async with site.live(f"?after={other}") as socket:
            assert (await socket.receive_json())["reset"] is True
            assert await socket.receive_json() == {"type": "reset"}
            assert (await events(socket, "card"))["card"]["text"] == "first"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/utterances", {"after": "yesterday"}),
        ("/v1/utterances", {"after": "-1"}),
        ("/v1/utterances", {"after": f"{OTHER}:"}),
        ("/v1/utterances", {"after": f"{OTHER}:1.x"}),
        ("/v1/utterances", {"after": str(2**53 + 1)}),
        ("/v1/utterances", {"after": "0", "query": "towels"}),
        ("/v1/utterances", {"after": "0", "department": "housekeeping"}),
        ("/v1/tasks", {"after": "0", "status": "open"}),
        ("/v1/conversations", {"after": "0", "state": "live"}),
        ("/v1/conversations", {"after": "0", "cursor": "MS4x"}),
    ],
)
async def test_what_could_miss_something_is_refused(site: Site, path: str, query: Json) -> None:
    problem = await site.get(path, query, expect=400)
    assert "`after`" in problem["detail"]


async def test_one_channel_of_many_is_looked_for_a_part_at_a_time(site: Site) -> None:
    await seed(site.database, Seed(information=20))
    await site.say(heard(0, "once", channel="pool"), insight("chatter"))
    await seed(site.database, Seed(information=20), first=20)
    cards, after = await poll(site, "/v1/utterances", "0", channel="pool")
    assert [card["text"] for card in cards] == ["once"]
    assert after == (await site.get("/v1/utterances"))["next_after"]
    changing = changing_utterances("main", UtteranceFilter(channel="pool"))

    def look(connection: sa.Connection) -> list[int]:
        counts, page, now = [], Page(after=After(change=0)), now_of(connection, "main")
        while True:
            part = changed_rows(connection, changing, page, now, looked_through=12)
            counts.append(len(part.items))
            page = Page(after=part.after)
            if not part.more:
                assert part.after == now
                return counts

    assert await site.database.read(look) == [0, 1, 0, 0]


async def test_a_site_polls_its_own_changes(site: Site) -> None:
    await site.say(heard(0, "towels to 412"), insight("request_item", "412"))
    for path in ("/v1/utterances", "/v1/tasks", "/v1/conversations"):
        answer = await site.get(path, {"after": "0"}, role="elsewhere")
        assert (answer["items"], answer["more"], answer["next_after"].endswith(":0")) == ([], False, True)


async def test_who_polls_while_others_write_misses_nothing(site: Site) -> None:
    writers = [seed(site.database, Seed(open=1, information=2), first=100 * number) for number in range(12)]
    seen: dict[str, int] = {}

    async def watch() -> None:
        after = "0"
        while len(seen) < 36:
            cards, after = await poll(site, "/v1/utterances", after, limit="2")
            seen.update({card["utterance_id"]: card["change"] for card in cards})

    async with asyncio.timeout(30):
        watching = asyncio.create_task(watch())
        written = await asyncio.gather(*writers)
        await watching
    assert sorted(seen) == sorted(name for names in written for name in names)
    assert len(set(seen.values())) == 36


async def test_polling_reads_only_what_has_changed(tmp_path: Path) -> None:
    def plans(connection: sa.Connection) -> list[str]:
        told = []
        for kind in KINDS.values():
            changing = kind.changing("main")
            query = changing.items.where(changing.change > 7).order_by(changing.change).limit(3)
            text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
            told += [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
        return told

    async with running(tmp_path) as site:
        found_plans = await site.database.read(plans)
    assert found_plans
    assert not [plan for plan in found_plans if plan.startswith("SCAN")], found_plans


@given(st.lists(deeds | st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 4)), max_size=30), st.integers(1, 4))
@examples(200)
def test_whatever_is_written_between_whatever_pages_nothing_is_missed(steps: list[Any], limit: int) -> None:
    async def run(database: MemoryDatabase) -> None:
        desk, poller = Desk(database), Poller(database)
        for step in steps:
            if isinstance(step, tuple):
                await poller.ask(*step)
            else:
                await desk.do(step)
        for kind in KINDS:
            while await poller.ask(kind, limit):
                pass
        await poller.check()

    with MemoryDatabase(lambda engine: migrate(engine, "dashboard", MIGRATIONS)) as database:
        asyncio.run(run(database))
