"""What a page is sent first, by either kind of database: all work left, of any age, and the newest of the rest."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.dashboard_site import Site, events, found, heard, insight, running
from tests.support.seed import Seed, seed

from quickcomm.dashboard.module import DashboardSettings
from quickcomm.dashboard.ports import Board

Json = dict[str, Any]


async def first_state(site: Site, query: str = "") -> tuple[Json, list[Json], Json]:
    """Return `hello`, the cards in the order in which they came, and `replayed`."""
    cards: list[Json] = []
    async with site.live(query, max_msg_size=0) as socket:
        hello = await events(socket, "hello")
        while (event := await socket.receive_json())["type"] != "replayed":
            assert event["type"] == "card"
            cards.append(event["card"])
    return hello, cards, event


def kind_of(card: Json) -> str:
    if not card["insights"]:
        return "unclassified"
    return str(card["tasks"][0]["status"]) if card["tasks"] else "information"


async def test_all_work_left_comes_and_the_newest_of_the_rest(tmp_path: Path, store: Path | str) -> None:
    settings = DashboardSettings(board=Board(recent=40, done=10))
    async with running(tmp_path, settings, store=store) as site:
        ids = await seed(site.database, Seed(open=120, done=60, information=200, unclassified=20))
        hello, cards, replayed = await first_state(site)
        assert hello["reset"] is True
        assert hello["board"] == {"recent": 40, "done": 10, "open": 2000}
        assert replayed["change"] == hello["change"]
        assert replayed["left_out"] == {
            "critical": 0, "high": 0, "normal": 0, "low": 0, "unclassified": 0, "older": True,
        }  # fmt: skip
        came = [card["utterance_id"] for card in cards]
        assert came == sorted(came, key=ids.index), "oldest first"
        assert set(ids[-40:]) <= set(came)
        kinds = Counter(kind_of(card) for card in cards)
        assert (kinds["open"], kinds["unclassified"]) == (120, 20)
        assert 10 <= kinds["done"] < 20, "the last done, and those among the newest"
        assert kinds["information"] == sum(kind_of(card) == "information" for card in cards[-40:])
        assert [card["utterance_id"] for card in (await first_state(site))[1]] == came


async def test_a_client_that_asks_for_batches_gets_the_same_cards_in_few_messages(
    tmp_path: Path, store: Path | str
) -> None:
    async with running(tmp_path, DashboardSettings(), store=store) as site:
        await seed(site.database, Seed(open=120))
        _, one_by_one, _ = await first_state(site)
        async with site.live("?batch=50", max_msg_size=0) as socket:
            await events(socket, "hello")
            batches = []
            while (event := await socket.receive_json())["type"] == "cards":
                batches.append(event["cards"])
        assert event["type"] == "replayed"
        assert [len(batch) for batch in batches] == [50, 50, 20]
        assert [card for batch in batches for card in batch] == one_by_one


async def test_what_is_done_now_is_among_the_first_however_long_ago_it_was_said(
    tmp_path: Path, store: Path | str
) -> None:
    settings = DashboardSettings(board=Board(recent=5, done=3))
    async with running(tmp_path, settings, store=store) as site:
        [_, oldest, *_] = await seed(site.database, Seed(open=30, done=30))
        await site.post(f"/v1/tasks/{oldest}:0/complete")
        _, cards, _ = await first_state(site)
        assert cards[0]["utterance_id"] == oldest
        assert kind_of(cards[0]) == "done"


async def test_beyond_the_bound_the_most_urgent_come_and_the_others_are_counted(
    tmp_path: Path, store: Path | str
) -> None:
    settings = DashboardSettings(board=Board(recent=1, done=1, open=25))
    async with running(tmp_path, settings, store=store) as site:
        ids = await seed(site.database, Seed(open=60, unclassified=30))
        _, cards, replayed = await first_state(site)
        shown = Counter(task["urgency"] for card in cards for task in card["tasks"])
        # Of six, one is critical, one high, one low, three normal; seeded by their number.
        all_of_them = Counter(task["urgency"] for task in await all_tasks(site))
        left = replayed["left_out"]
        assert shown["critical"] == all_of_them["critical"]
        assert {name: shown[name] + left[name] for name in all_of_them} == dict(all_of_them)
        assert left["normal"] > 0
        assert left["unclassified"] == 30 - sum(kind_of(card) == "unclassified" for card in cards)
        assert len(cards) < len(ids)


async def all_tasks(site: Site) -> list[Json]:
    items: list[Json] = (await site.get("/v1/tasks", {"limit": "200"}))["items"]
    return items


async def test_cards_of_the_same_millisecond_stay_together(tmp_path: Path, store: Path | str) -> None:
    """A page knows no shorter times: it could not tell which of them were sent."""
    settings = DashboardSettings(board=Board(recent=2, done=1))
    async with running(tmp_path, settings, store=store) as site:
        for start in (0, 3, 6, 16_000):  # 62,500 ns a step
            said = heard(start, f"good morning {start}")
            await site.publish(said, found(said, insight("chatter"), opens=False))
            async with site.live() as socket:
                await events(socket, "replayed")
            await site.receipts.get()
        _, cards, replayed = await first_state(site)
        assert [card["start_offset"] for card in cards] == [0, 3, 6, 16_000]
        assert replayed["left_out"]["older"] is True


async def test_who_comes_back_gets_what_was_missed_and_no_first_state(tmp_path: Path, store: Path | str) -> None:
    settings = DashboardSettings(replay=10)
    async with running(tmp_path, settings, store=store) as site:
        ids = await seed(site.database, Seed(open=30))
        hello, _, _ = await first_state(site)
        assert (await first_state(site, f"?after={hello['change']}"))[1] == []
        await site.post(f"/v1/tasks/{ids[0]}:0/acknowledge")
        again, cards, replayed = await first_state(site, f"?after={hello['change']}")
        assert again["reset"] is False
        assert replayed["left_out"] is None
        assert [card["utterance_id"] for card in cards] == [ids[0]]
        assert cards[0]["change"] > hello["change"]
        await seed(site.database, Seed(open=11), first=1_000)
        again, cards, _ = await first_state(site, f"?after={hello['change']}")
        assert again["reset"] is True
        assert len(cards) == 41
