"""The demo: the sample shift through the real sockets of a running server, and a page that watches."""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import ExitStack
from importlib.resources import as_file
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from quickcomm.client.assembly import UtteranceReport
from quickcomm.client.ingest import Ingest, IngestOptions, IngestResult
from quickcomm.contracts.commands import CreateKey, Role
from quickcomm.contracts.insight import Insight
from quickcomm.demo_shift import Shift, audio_file
from quickcomm.demo_shift.score import Outcome, Score, score
from quickcomm.operate.administration import administer

PAGE_WAIT_S: Final = 5.0


class DemoResult(msgspec.Struct, frozen=True, kw_only=True):
    """`missing`: utterances that were transcribed and did not reach the page; there must be none."""

    score: Score
    missing: tuple[str, ...]
    ended: bool

    @property
    def ok(self) -> bool:
        return self.ended and not self.missing and self.score.matched > 0


class Page:
    """Watches the live socket as the page does: which cards came, with their insights and latency."""

    def __init__(self) -> None:
        self.cards: dict[str, dict[str, object]] = {}
        self._news = asyncio.Event()

    async def watch(self, url: str, key: str) -> None:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as client,
            client.ws_connect(f"{url}/v1/live", max_msg_size=0) as socket,
        ):
            await socket.send_json({"type": "watch", "channels": ["*"]})
            async for message in socket:
                event = msgspec.json.decode(message.data)
                if event["type"] == "card" and event["card"]["insights"]:
                    self.cards[event["card"]["utterance_id"]] = event["card"]
                    self._news.set()

    async def has(self, utterance_ids: set[str]) -> set[str]:
        """Those of the ids that do not show up in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAGE_WAIT_S):
                while not utterance_ids <= self.cards.keys():
                    self._news.clear()
                    await self._news.wait()
        return utterance_ids - self.cards.keys()


async def play(shift: Shift, url: str, key: str, report: Callable[[UtteranceReport], None]) -> list[IngestResult]:
    """Every channel at once, in real time, each a conversation of its own."""

    def quiet(_line: str) -> None:
        """Progress is shown by utterances."""

    with ExitStack() as stack:
        async with asyncio.TaskGroup() as tasks:
            running = []
            for channel in shift.channels:
                file = stack.enter_context(as_file(audio_file(channel)))
                options = IngestOptions(files=(str(file),), url=url, key=key, channel=channel.channel)
                running.append(tasks.create_task(Ingest(options, report=report, progress=quiet).run()))
    return [task.result() for task in running]


async def new_key(data_dir: Path, role: Role) -> str:
    [row] = await administer(data_dir, CreateKey(role=role, holder="demo"), needs_server=True)
    return str(row["key"])


async def run_shift(shift: Shift, url: str, data_dir: Path, report: Callable[[UtteranceReport], None]) -> DemoResult:
    """Play the shift into a running server and score what reached the page."""
    page = Page()
    reports: list[UtteranceReport] = []

    def keep(utterance: UtteranceReport) -> None:
        reports.append(utterance)
        report(utterance)

    watching = asyncio.ensure_future(page.watch(url, await new_key(data_dir, "read")))
    try:
        results = await play(shift, url, await new_key(data_dir, "ingest"), keep)
        missing = await page.has({item.utterance_id for item in reports})
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
            await watching
    outcomes = [outcome(page.cards[item.utterance_id]) for item in reports if item.utterance_id in page.cards]
    return DemoResult(
        score=score(shift, outcomes), missing=tuple(sorted(missing)), ended=all(result.ok for result in results)
    )


def outcome(card: dict[str, object]) -> Outcome:
    latency = card["latency_ms"]
    assert isinstance(latency, dict)  # noqa: S101 - the contract's own shape
    return Outcome(
        channel=str(card["channel"]),
        start_offset=int(str(card["start_offset"])),
        end_offset=int(str(card["end_offset"])),
        sample_rate=int(str(card["sample_rate"])),
        text=str(card["text"]),
        insights=msgspec.convert(card["insights"], tuple[Insight, ...]),
        latency_total_ms=latency["total"],
    )
