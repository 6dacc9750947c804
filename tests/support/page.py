"""The page as a person has it: a hotel of its own on a real server, radios that talk, and a browser that looks."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
from playwright.async_api import Browser, ConsoleMessage, Locator, Page, Playwright, ViewportSize
from tests.support.server import Server
from tests.support.talk import RATE, Pcm, decoded

from quickcomm.client.audio_client import AudioClient
from quickcomm.client.options import Patience, StreamOptions
from quickcomm.client.sources import Paced, PcmSource
from quickcomm.contracts.audio_socket import AudioFormat, Utterance
from quickcomm.contracts.commands import CreateKey
from quickcomm.demo_shift import load_shift
from quickcomm.operate.administration import administer

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS: Final = 45_000
# Violations are said on the console as well, but not all of them in all versions.
WATCH_POLICY: Final = """
document.addEventListener('securitypolicyviolation', (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""
_SHIFT: Final = Path(__file__).parents[2] / "src/quickcomm/demo_shift"
_BEFORE_S: Final = 0.4
_AFTER_S: Final = 0.9
_POLL_S: Final = 0.05


def chromium() -> str | None:
    """Where a Chromium is on this machine; QUICKCOMM_CHROMIUM names one that is not on the PATH."""
    named = os.environ.get("QUICKCOMM_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


async def launched(playwright: Playwright, executable: str) -> Browser:
    return await playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))


@cache
def clip(words: str) -> Pcm:
    """The one utterance of the sample shift in which these words are said, with a little of the radio around it."""
    [(file, said)] = [(c.file, u) for c in load_shift().channels for u in c.utterances if words in u.text]
    start, end = (round(at * RATE) for at in (said.start_s - _BEFORE_S, said.end_s + _AFTER_S))
    return decoded(_SHIFT / file)[start:end]


def talk_of(*words: str) -> bytes:
    return np.concatenate([clip(each) for each in words]).tobytes()


class Place(Protocol):
    """Where a page can be opened."""

    async def link(self, role: str) -> str:
        """Return an address that signs in."""
        ...


class Hotel:
    """A site that nobody else uses, on a server that others may share."""

    def __init__(self, server: Server, site: str = "") -> None:
        self.server = server
        self.site = site or f"hotel-{secrets.token_hex(4)}"
        self._keys: dict[str, str] = {}

    async def key(self, role: str) -> str:
        if role not in self._keys:
            what = {"role": role, "name": "Ada", "site": self.site}
            [row] = await administer(self.server.data_dir, msgspec.convert(what, CreateKey), needs_server=True)
            self._keys[role] = str(row["key"])
        return self._keys[role]

    async def link(self, role: str) -> str:
        return f"{self.server.url}/#key={await self.key(role)}"

    async def radio(self, channel: str, sound: AsyncIterator[bytes], *, paced: bool) -> AudioClient:
        source = PcmSource(AudioFormat(sample_rate=RATE), sound)
        options = StreamOptions(
            url=self.server.url,
            key=await self.key("ingest"),
            conversation_id=f"talk-{secrets.token_hex(6)}",
            channel=channel,
            patience=Patience(longest=0.5, connect=5.0),
        )
        return AudioClient(options, Paced(source) if paced else source)

    async def say(
        self, channel: str, *words: str, paced: bool = False, first: asyncio.Event | None = None
    ) -> list[Utterance]:
        """Once, in real time or as fast as the server takes it; what was heard, in order. `first`: something was."""
        client = await self.radio(channel, _once(talk_of(*words)), paced=paced)
        heard: list[Utterance] = []
        async with asyncio.timeout(2 * PATIENCE_MS / 1_000), client.stream() as events:
            async for event in events:
                if isinstance(event, Utterance):
                    heard.append(event)
                    if first is not None:
                        first.set()
        return heard

    @contextlib.asynccontextmanager
    async def on_air(self, channel: str, *words: str) -> AsyncGenerator[None]:
        """Somebody says it again and again, in real time, until this is left."""
        client = await self.radio(channel, _again(talk_of(*words)), paced=True)

        async def listen() -> None:
            async with client.stream() as events:
                async for _ in events:
                    pass

        async with asyncio.timeout(2 * PATIENCE_MS / 1_000), asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            try:
                yield
            finally:
                client.finish()

    async def painted_ms(self, utterance_id: str) -> float:
        """What a page has reported, from the store: REST does not give it."""
        return await asyncio.to_thread(_painted_ms, self.server.page_databases, utterance_id)

    async def utterance_ids(self) -> list[str]:
        items = json.loads(await self._get("/v1/utterances?limit=100"))["items"]
        return [str(item["utterance_id"]) for item in items]

    async def _get(self, path: str) -> bytes:
        answer = await asyncio.to_thread(self.server.ask, "GET", path, await self.key("read"))
        assert answer.status == 200, answer
        return answer.body


def _painted_ms(databases: Sequence[Path], utterance_id: str) -> float:
    question = "SELECT painted_ms FROM dashboard_utterances WHERE utterance_id = ? AND painted_ms IS NOT NULL"
    deadline = time.monotonic() + PATIENCE_MS / 1_000
    while True:
        for database in databases:
            with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
                if (row := store.execute(question, (utterance_id,)).fetchone()) is not None:
                    return float(row[0])
        assert time.monotonic() < deadline, "No page has reported that it has painted this."
        time.sleep(_POLL_S)


async def _once(pcm: bytes) -> AsyncIterator[bytes]:
    yield pcm


async def _again(pcm: bytes) -> AsyncIterator[bytes]:
    while True:
        yield pcm


class Screen(msgspec.Struct, frozen=True, kw_only=True):
    """One browser with nobody else's cookies. `errors`: what its console complained about."""

    page: Page
    hotel: Place
    errors: list[str]

    def get(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def card(self, utterance: Utterance) -> Locator:
        return self.page.locator(f'[data-testid="card"][data-utterance-id="{utterance.utterance_id}"]')

    def tile(self, channel: str) -> Locator:
        return self.page.locator(f'[data-testid="channel-tile"][data-channel="{channel}"]')

    async def sign_in(self, role: str = "admin") -> None:
        """By the link that the server prints."""
        await self.page.goto(await self.hotel.link(role))

    async def card_ids(self) -> list[str]:
        script = "cards => cards.map((card) => card.dataset.utteranceId)"
        ids: list[str] = await self.get("card").evaluate_all(script)
        return ids

    def forgive(self, pattern: str) -> None:
        """Complaints that belong to what the test does."""
        self.errors[:] = [error for error in self.errors if not re.search(pattern, error)]


@contextlib.asynccontextmanager
async def screen(browser: Browser, hotel: Place, viewport: ViewportSize) -> AsyncGenerator[Screen]:
    context = await browser.new_context(viewport=viewport)
    context.set_default_timeout(PATIENCE_MS)
    await context.add_init_script(WATCH_POLICY)
    page = await context.new_page()
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            errors.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(f"uncaught: {error}"))
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    try:
        yield Screen(page=page, hotel=hotel, errors=errors)
    finally:
        await context.close()
