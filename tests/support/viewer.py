"""Somebody who looks at the page: takes cards from the live socket and reports each as painted, as the browser does."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from tests.support.server import Server

Json = dict[str, Any]
PAINTED_MS: Final = 16.7


@asynccontextmanager
async def viewer(server: Server) -> AsyncGenerator[dict[str, Json]]:
    """Complete cards by utterance id, as they come."""
    cards: dict[str, Json] = {}
    key = await asyncio.to_thread(server.key, "read")
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/v1/live", headers=headers, max_msg_size=0) as live,
        asyncio.TaskGroup() as tasks,
    ):
        ready = asyncio.Event()
        watching = tasks.create_task(_watch(live, cards, ready))
        await ready.wait()
        yield cards
        watching.cancel()


async def _watch(live: aiohttp.ClientWebSocketResponse, cards: dict[str, Json], ready: asyncio.Event) -> None:
    async for message in live:
        event = json.loads(message.data)
        if event["type"] == "hello":
            ready.set()
        if event["type"] != "card" or event["card"]["latency_ms"].get("total") is None:
            continue
        card = event["card"]
        if card["utterance_id"] not in cards:
            cards[card["utterance_id"]] = card
            report = {"type": "painted", "utterance_id": card["utterance_id"], "revision": 1, "painted_ms": PAINTED_MS}
            await live.send_str(json.dumps(report))
