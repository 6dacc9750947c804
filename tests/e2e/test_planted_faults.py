"""A fault in one of the processes, planted from outside: `trace` and the page name its stage, by their text alone."""

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest
from tests.e2e.conftest import NewSite
from tests.support.fake_llm import fake_llm
from tests.support.page import talk_of
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.wire import Wire, connected, new_id

from quickcomm.dashboard.service.lateness import CODE as LATE
from quickcomm.kernel.messaging.bus.redis_names import PARTITIONS, partition
from quickcomm.kernel.telemetry.live import ENOUGH

Json = dict[str, Any]
SHAPES: Final = (pytest.param("monolith", marks=pytest.mark.long), "services")
HELD_S: Final = 2.0
HELD_FACTOR: Final = 2.0
"""The database is held for longer than speech-to-text may have taken, however busy the machine is."""
BUDGET_S: Final = 1.0
STAGE: Final = re.compile(r"\((\w+)[,)]")
TOWELS: Final = "two extra bath towels"


def named(text: str) -> str:
    """The stage that a text names first."""
    found = STAGE.search(text)
    assert found is not None, f"No stage is named in: {text}"
    return found[1]


async def trace_says(site: Site, utterance_id: str) -> str:
    """The sentence below the waterfall."""
    arguments = ("trace", utterance_id, "--data-dir", str(site.data_dir))
    lines = (await asyncio.to_thread(quickcomm, *arguments)).splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("End of speech to page")]
    return lines[at + 1]


async def page_says(site: Site) -> str:
    """What the Health panel says first, once there is something: an alarm of a part, else the stage furthest over."""
    headers = {"Authorization": f"Bearer {await asyncio.to_thread(site.key, 'read')}"}
    async with (
        asyncio.timeout(EVENTUALLY_S),
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{site.url}/v1/live", headers=headers, max_msg_size=0) as live,
    ):
        async for message in live:
            event = json.loads(message.data)
            if (health := event.get("health")) and (said := alarms(health)):
                return said[0]
    raise AssertionError("The page was sent away before it was told.")


def alarms(health: Json) -> list[str]:
    slow = [stage for stage in health["stages"] if stage["breach"] and stage["stage"] != "total"]
    slow.sort(key=lambda stage: stage["budget_ms"] - stage["p95_ms"])
    # That cards come late is said in plain words; which stage is at fault stands below it.
    parts = [alarm["message"] for alarm in health["alarms"] if alarm["code"] != LATE]
    return [*parts, *(stage["breach"] for stage in slow)]


async def say(site: Site, key: str, conversation: str, heard: asyncio.Event, go_on: asyncio.Event) -> Wire:
    """One utterance; `heard` is set when its text is back, and after `go_on` it is the end."""
    async with connected(site.url, key, conversation) as wire:
        await wire.until("ready")
        await wire.send(talk_of(TOWELS), 3_200)
        await wire.until("utterance")
        heard.set()
        await go_on.wait()
        await wire.end()
        return wire


async def say_at_once(site: Site, conversations: Sequence[str], database: Path | None = None) -> list[str]:
    """An utterance in each, while somebody holds `database`; utterance ids."""
    key = await asyncio.to_thread(site.key)
    go_on, heard = asyncio.Event(), [asyncio.Event() for _ in conversations]
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        with ExitStack() as stack:
            if database is not None:
                stack.enter_context(held(database))
            talking = [
                tasks.create_task(say(site, key, conversation, each, go_on))
                for conversation, each in zip(conversations, heard, strict=True)
            ]
            for each in heard:
                await each.wait()
            if database is not None:
                await asyncio.sleep(max(HELD_S, HELD_FACTOR * (time.monotonic() - began)))
        go_on.set()
    return [task.result().of("utterance")[0]["utterance_id"] for task in talking]


@contextmanager
def held(database: Path) -> Iterator[None]:
    """As a long query of somebody else does: nobody can write meanwhile."""
    connection = sqlite3.connect(database, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def dashboard_of(site: Site, shape: str) -> Path:
    """Where the dashboard keeps its things."""
    directory = site.layout.directory
    return directory.dashboard.database if shape == "services" else directory.database


def apart() -> list[str]:
    """Conversations of which none waits behind another one on the bus."""
    found: dict[int, str] = {}
    while len(found) < PARTITIONS:
        conversation = new_id("planted")
        found.setdefault(partition(conversation), conversation)
    return list(found.values())


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.long
async def test_a_slow_query_in_the_dashboard_is_named(new_site: NewSite, shape: str) -> None:
    site = new_site("--deployment", shape)
    await asyncio.to_thread(site.start)
    await asyncio.to_thread(site.key, "read")
    said: list[str] = []
    while len(said) < ENOUGH:
        said += await say_at_once(site, apart(), dashboard_of(site, shape))
    for utterance_id in (said[0], said[-1]):
        assert named(await trace_says(site, utterance_id)) == "store"
    assert named(await page_says(site)) == "store"


@pytest.mark.long
async def test_a_slow_model_is_named(new_site: NewSite, shape: str) -> None:
    with fake_llm() as fake:
        settings = {"QUICKCOMM_LLM_BUDGET_S": str(BUDGET_S)}
        site = new_site("--deployment", shape, "--llm-url", fake.url, **settings)
        await asyncio.to_thread(site.start)
        await fake.change(median_ms=4_000 * BUDGET_S)
        [said] = await say_at_once(site, [new_id("planted")])
        told = await trace_says(site, said)
        assert named(told) == "classify"
        assert "Understanding (classify, of intelligence) took" in told, "and it took too long besides"
        assert named(await page_says(site)) == "classify"


@pytest.mark.long
async def test_a_key_that_is_good_no_more_is_named(new_site: NewSite, shape: str) -> None:
    with fake_llm("--api-key", "the-old-one") as fake:
        site = new_site("--deployment", shape, "--llm-url", fake.url, QUICKCOMM_LLM_KEY="the-old-one")
        await asyncio.to_thread(site.start)
    with fake_llm("--port", str(urlsplit(fake.url).port), "--api-key", "the-new-one"):
        [said] = await say_at_once(site, [new_id("planted")])
        assert named(await trace_says(site, said)) == "classify"
        told = await page_says(site)
    assert named(told) == "classify"
    assert "QUICKCOMM_LLM_KEY" in told, "and what is to be done"
