"""Somebody with the page open all the time: comes back whenever it is cut off, and has what it would show."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from tests.support.cursor import Cursor
from tests.support.server import Server

from quickcomm.dashboard.service.lateness import CODE as LATE

Json = dict[str, Any]
AGAIN_S: Final = 0.1
WITHIN_S: Final = 60.0
"""A bound, not an expectation."""


class Onlooker:
    """`cards`: the newest of each utterance. `alarms`: the messages of those that there are now, by code.

    Without the one about lateness: what is streamed faster than it is spoken comes late, and no part is at fault.
    """

    def __init__(self) -> None:
        self.cards: dict[str, Json] = {}
        self.alarms: dict[str, str] = {}
        self.health: Json = {}
        self.connected = False
        self.connections = 0
        self._cursor = Cursor()
        self._changed = asyncio.Condition()

    async def until(self, holds: Callable[["Onlooker"], bool]) -> None:
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(lambda: holds(self))

    def classified(self, utterance_id: str) -> bool:
        return utterance_id in self.cards and bool(self.cards[utterance_id]["insights"])

    def of(self, conversation_id: str) -> list[str]:
        """Its utterances that have cards."""
        return [name for name, card in self.cards.items() if card["conversation_id"] == conversation_id]

    @property
    def side(self) -> str:
        """The dashboard that it has looked at last."""
        return self._cursor.side

    async def look(self, server: Server, key: str) -> None:
        """Until cancelled."""
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            while True:
                try:
                    query = self._cursor.query
                    async with session.ws_connect(f"{server.url}/v1/live", params=query, max_msg_size=0) as live:
                        self.connections += 1
                        async for message in live:
                            await self._take(json.loads(message.data))
                except (aiohttp.ClientError, OSError):
                    pass
                await self._tell(connected=False)
                await asyncio.sleep(AGAIN_S)

    async def _take(self, event: Json) -> None:
        self._cursor.take(event)
        if event["type"] == "card":
            card = event["card"]
            self.cards[card["utterance_id"]] = card
        health = event["health"] if event["type"] in {"hello", "health"} and "health" in event else event
        if "alarms" in health:
            self.health = health
            told = {alarm["code"]: alarm["message"] for alarm in health["alarms"]}
            self.alarms = {code: message for code, message in told.items() if code != LATE}
        await self._tell(connected=True)

    async def _tell(self, *, connected: bool) -> None:
        self.connected = connected
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def onlooking(server: Server, key: str = "") -> AsyncGenerator[Onlooker]:
    """Connected when this is entered. `key`: one of its own."""
    onlooker = Onlooker()
    key = key or await asyncio.to_thread(server.key, "read")
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(onlooker.look(server, key))
        await onlooker.until(lambda one: one.connected)
        yield onlooker
        looking.cancel()
