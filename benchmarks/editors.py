"""Live clients that edit what they see, a real page beside them, and what is wrong with what they were answered."""

import asyncio
import contextlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec
from playwright.async_api import async_playwright
from tests.support.cursor import Cursor
from tests.support.page import chromium, launched
from tests.support.server import Server
from tests.support.site import Site

Json = dict[str, Any]
SETTLE_S: Final = 20.0


@asynccontextmanager
async def client(server: Server, role: str = "admin", key: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    key = key or await asyncio.to_thread(server.key, role)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        server.url, headers={"Authorization": f"Bearer {key}"}, connector=connector
    ) as made:
        yield made


class Page:
    """A live client: its cards, and the time at which each came complete."""

    def __init__(self) -> None:
        self.came: dict[str, float] = {}
        self.cards: dict[str, Json] = {}
        self.cursor = Cursor()
        self.connections = 0

    async def look(self, server: Server, session: aiohttp.ClientSession, begun: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.ws_connect(
                    f"{server.url}/v1/live", params=self.cursor.query, max_msg_size=0
                ) as live:
                    self.connections += 1
                    async for message in live:
                        self._take(msgspec.json.decode(message.data), begun)
            await asyncio.sleep(0.2)

    def _take(self, event: Json, begun: asyncio.Event) -> None:
        if event["type"] == "replayed":
            begun.set()
        self.cursor.take(event)
        if event["type"] != "card":
            return
        card = event["card"]
        self.cards[card["utterance_id"]] = card
        if card["insights"]:
            self.came.setdefault(card["utterance_id"], time.monotonic())


class Editor:
    """A live client that edits tasks which it sees, by the version that it sees."""

    def __init__(self, name: int, seed: int, pause_s: tuple[float, float] = (0.5, 3.0)) -> None:
        """`pause_s`: the least and the most between two edits."""
        self._pause_s = pause_s
        self.page = Page()
        self.answered: list[Json] = []
        self.statuses: defaultdict[str, int] = defaultdict(int)
        self._chance = random.Random(f"{seed}:{name}")  # noqa: S311 - to be repeated, not to be secret

    async def edit_forever(self, session: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*self._pause_s))
            tasks = [task for card in list(self.page.cards.values()) for task in card["tasks"]]
            if not tasks:
                continue
            task = self._chance.choice(tasks[-40:])
            action = self._chance.choice(["acknowledge", "complete", "assign", "reopen"])
            body = {"assignee": f"Ann {self._chance.randrange(99)}"} if action == "assign" else None
            path, headers = f"/v1/tasks/{task['task_id']}/{action}", {"If-Match": f'"{task["version"]}"'}
            try:
                async with session.post(path, json=body, headers=headers) as answer:
                    self.statuses[str(answer.status)] += 1
                    if answer.status == 200:
                        after = await answer.json()
                        if after["version"] > task["version"]:
                            self.answered.append(after)
            except (aiohttp.ClientError, OSError):
                self.statuses["cut off"] += 1


@asynccontextmanager
async def browser(site: Site) -> AsyncIterator[Callable[[], Awaitable[dict[str, list[str]]]] | None]:
    """A real Chromium with the page; gives what asks for the tasks' states by utterance. None where there is none."""
    executable = chromium()
    if executable is None:
        yield None
        return
    key = await asyncio.to_thread(site.key, "read")
    async with async_playwright() as playwright:
        window = await launched(playwright, executable)
        page = await window.new_page()
        await page.goto(f"{site.url}/#key={key}")
        await page.locator('[data-testid="connection"][data-state="live"]').wait_for()

        async def shown() -> dict[str, list[str]]:
            found: dict[str, list[str]] = await page.evaluate(_SHOWN)
            return found

        yield shown
        await window.close()


_SHOWN: Final = """() => Object.fromEntries([...document.querySelectorAll('[data-testid="card"]')].map(card => [
  card.dataset.utteranceId, [...card.querySelectorAll('[data-testid="task"]')].map(task => task.dataset.status).sort()
]))"""


async def judge(site: Site, editors: list[Editor]) -> Json:
    """Compare what was answered with what there is, and all pages with each other."""
    cards = await every_card(site)
    now = {task["task_id"]: task for card in cards.values() for task in card["tasks"]}
    answered: dict[tuple[str, int], Json] = {}
    twice = 0
    for one in (one for editor in editors for one in editor.answered):
        # They share a key, and so are one person: the same edit of the same version, sent again, is answered again.
        twice += not _alike(answered.setdefault((one["task_id"], one["version"]), one), one)
    newest = {task_id: max(version for each, version in answered if each == task_id) for task_id, _ in answered}
    lost = [
        task_id
        for editor in editors
        for one in editor.answered
        if one["version"] == newest[task_id := one["task_id"]]
        and (
            task_id not in now
            or now[task_id]["version"] < one["version"]
            or (now[task_id]["version"] == one["version"] and not _alike(now[task_id], one))
        )
    ]
    limit = time.monotonic() + SETTLE_S
    while _unlike(editors, cards) and time.monotonic() < limit:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    statuses: defaultdict[str, int] = defaultdict(int)
    for editor in editors:
        for status, count in editor.statuses.items():
            statuses[status] += count
    return {
        "answered": len(answered),
        "answered_with_two_outcomes": twice,
        "answered_and_lost": len(set(lost)),
        "statuses": dict(statuses),
        "cards_that_pages_have_otherwise": _unlike(editors, cards),
        "page_connections": sum(editor.page.connections for editor in editors),
    }


async def judge_page(site: Site, shown: Callable[[], Awaitable[dict[str, list[str]]]]) -> Json:
    """Compare what a real page shows with what there is; it draws so many cards of each column."""
    limit, wrong, has = time.monotonic() + SETTLE_S, 1, dict[str, list[str]]()
    while wrong and time.monotonic() < limit:
        cards, has = await every_card(site), await shown()
        states = {name: sorted(task["status"] for task in card["tasks"]) for name, card in cards.items()}
        wrong = sum(each != states.get(name) for name, each in has.items())
    return {"browser_cards": len(has), "browser_cards_that_are_otherwise": wrong}


def _alike(one: Json, other: Json) -> bool:
    return all(one[name] == other[name] for name in ("status", "assignee", "completed_by", "completed_by_utterance"))


def _unlike(editors: list[Editor], cards: dict[str, Json]) -> int:
    wanted = {name: card["tasks"] for name, card in cards.items()}
    return sum(has["tasks"] != wanted.get(name) for editor in editors for name, has in editor.page.cards.items())


async def every_card(site: Site) -> dict[str, Json]:
    cards: dict[str, Json] = {}
    async with client(site, "read") as session:
        query = {"limit": "200", "after": "0"}
        while True:
            async with session.get("/v1/utterances", params=query) as answer:
                body = await answer.json()
            cards |= {card["utterance_id"]: card for card in body["items"]}
            if not body["more"]:
                return cards
            query["after"] = body["next_after"]
