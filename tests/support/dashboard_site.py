"""A running dashboard for tests: a real server on loopback, a real database file and the real bus."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import aiohttp
import msgspec
from aiohttp import web

from quickcomm.audio.adapters.captions import LiveCaptions
from quickcomm.contracts.conversations import CONVERSATIONS, ConversationChanged
from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.link import STATUS_EVERY_S, InstanceStatus, Receipt
from quickcomm.contracts.narrative import Narrate, Narrated
from quickcomm.contracts.prompts import GetPrompts, PromptsView
from quickcomm.contracts.routes import SERVICE
from quickcomm.contracts.summaries import SUMMARIES, ConversationSummarized
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed, Word
from quickcomm.contracts.usage import DayUsage, GetUsage, UsageReport
from quickcomm.dashboard.module import Dashboard, DashboardSettings
from quickcomm.dashboard.service.standing import Standing
from quickcomm.kernel.clock import Clock, SystemClock
from quickcomm.kernel.http import create_app
from quickcomm.kernel.keys import Authenticator, KeySettings, KeyStore, Role
from quickcomm.kernel.keys.sql import SqlKeys
from quickcomm.kernel.messaging import Messaging
from quickcomm.kernel.messaging.bus import Bus
from quickcomm.kernel.messaging.bus.redis import RedisBus
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.bus.sql_tables import MIGRATIONS as BUS_MIGRATIONS
from quickcomm.kernel.messaging.live import Live
from quickcomm.kernel.messaging.rpc import Answer
from quickcomm.kernel.storage import Database, migrate

Message = UtteranceTranscribed | InsightsFound | ConversationChanged | ConversationSummarized
START_NS = 1_760_000_000_000_000_000


def heard(
    start: int, text: str, *, conversation: str = "shift-1", site: str = "main", channel: str = "housekeeping"
) -> UtteranceTranscribed:
    at_ns = START_NS + start * 62_500
    return UtteranceTranscribed(
        site=site,
        conversation_id=conversation,
        utterance_id=f"{conversation}:0:{start}",
        channel=channel,
        speaker=0,
        seq=1 + start // 16_000,
        start_offset=start,
        end_offset=start + 8000,
        sample_rate=16_000,
        text=text,
        words=(Word(text=text.partition(" ")[0], start_offset=start, end_offset=start + 4000, confidence=0.9),),
        confidence=0.9,
        stt_model="test",
        spoken_at_ns=at_ns,
        speech_ended_ns=at_ns + 500_000_000,
        published_ns=at_ns + 900_000_000,
        latency=Latency(endpoint=500.0, stt=300.0, publish=5.0),
    )


def found(transcript: UtteranceTranscribed, *insights: Insight, revision: int = 1, opens: bool = True) -> InsightsFound:
    return InsightsFound(
        site=transcript.site,
        conversation_id=transcript.conversation_id,
        utterance_id=transcript.utterance_id,
        revision=revision,
        insights=insights,
        opens_tasks=tuple(insight.index for insight in insights) if opens else (),
        speech_ended_ns=transcript.speech_ended_ns,
        published_ns=transcript.published_ns + 5_000_000,
        latency=Latency(endpoint=500.0, stt=300.0, publish=5.0, queue=2.0, classify=6.0),
    )


def insight(
    intent: str = "request_item",
    *rooms: str,
    index: int = 0,
    summary: str = "Bring towels",
    department: str = "",
    confidence: float = 0.9,
) -> Insight:
    return Insight(
        index=index,
        intent=intent,
        department=department or "housekeeping",
        urgency="normal",
        rooms=rooms,
        summary=summary,
        confidence=confidence,
        model="test",
    )


async def _no_prompts(_request: GetPrompts) -> PromptsView:
    return PromptsView()


async def _no_usage(_request: GetUsage) -> UsageReport:
    return UsageReport(today=DayUsage(day=datetime.now(UTC).date().isoformat()))


async def _no_words(_request: Narrate) -> Narrated:
    return Narrated()


async def _are_well(live: Live) -> None:
    """As audio and intelligence do in a process of theirs."""
    while True:
        for module in ("audio", "intelligence"):
            live.publish(InstanceStatus(module=module))
        await asyncio.sleep(STATUS_EVERY_S)


UNCONNECTED: Final[Sequence[Answer]] = ((GetPrompts, _no_prompts), (GetUsage, _no_usage), (Narrate, _no_words))


class Site:
    """A running dashboard and keys for it."""

    def __init__(self, database: Database, bus: Bus, dashboard: Dashboard, keys: KeyStore) -> None:
        self.database = database
        self.bus = bus
        self.dashboard = dashboard
        self.keys = keys
        self.receipts: asyncio.Queue[Receipt] = asyncio.Queue()
        self.captions: LiveCaptions
        self.http: aiohttp.ClientSession
        self.url = ""
        self.tokens: dict[str, str] = {}
        self.app: web.Application

    async def publish(self, *messages: Message) -> None:
        streams = {
            UtteranceTranscribed: TRANSCRIPTS,
            InsightsFound: INSIGHTS,
            ConversationChanged: CONVERSATIONS,
            ConversationSummarized: SUMMARIES,
        }
        for message in messages:
            await self.bus.publish(streams[type(message)], message.conversation_id, msgspec.json.encode(message))

    async def say(self, transcript: UtteranceTranscribed, *insights: Insight) -> Latency:
        """Publish both messages and wait for the receipt."""
        await self.publish(transcript, found(transcript, *insights))
        async with asyncio.timeout(10):
            return (await self.receipts.get()).latency

    def headers(self, role: str = "read") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[role]}"}

    async def get(
        self, path: str, query: dict[str, str] | None = None, *, role: str = "read", expect: int = 200
    ) -> Any:
        async with self.http.get(self.url + path, params=query, headers=self.headers(role)) as answer:
            assert answer.status == expect, await answer.text()
            return await answer.json(content_type=None)

    async def post(
        self, path: str, role: str = "admin", *, expect: int = 200, body: Any = None, seen: int | None = None
    ) -> Any:
        """`seen`: the version of the task that the person looks at."""
        headers = self.headers(role) | ({} if seen is None else {"If-Match": f'"{seen}"'})
        async with self.http.post(self.url + path, json=body, headers=headers) as answer:
            assert answer.status == expect, await answer.text()
            return await answer.json(content_type=None)

    async def link(self, role: str = "read") -> str:
        """Return an address of the page that signs in."""
        return f"{self.url}/#key={self.tokens[role]}"

    def live(self, query: str = "", role: str = "read", **options: Any) -> Any:
        return self.http.ws_connect(f"{self.url}/v1/live{query}", headers=self.headers(role), **options)


@asynccontextmanager
async def running(
    path: Path,
    settings: DashboardSettings | None = None,
    answers: Sequence[Answer] = (),
    store: Path | str | None = None,
    clock: Clock | None = None,
    redis_url: str | None = None,
) -> AsyncIterator[Site]:
    """`store`: where the dashboard keeps what it knows, if not where bus and keys are.

    `answers`: what intelligence answers, beyond what it says where no model is connected. `redis_url`: of the Valkey
    that has the streams and the log of decisions, as for a dashboard that is a service.
    """
    path.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - a test's own folder
    database = Database(path / "site.sqlite")
    database.open()
    own = database if store is None else Database(store)
    if own is not database:
        own.open()
    clock = clock or SystemClock()
    bus = SqlBus(database, clock) if redis_url is None else RedisBus(redis_url, clock)
    keys = SqlKeys(database, clock)
    auth = Authenticator(keys, clock, KeySettings(failures_burst=1000))
    receipts: asyncio.Queue[Receipt] = asyncio.Queue()
    messaging = Messaging.over(bus, clock)
    messaging.rpc.serve([*UNCONNECTED, *answers])
    messaging.live.subscribe([(Receipt, lambda receipt, _: receipts.put_nowait(receipt))])
    dashboard = Dashboard(
        database=own,
        messaging=messaging,
        clock=clock,
        keys=auth,
        settings=settings,
        standing=Standing(SERVICE, None, redis_url),
    )
    migrate(database.engine, "bus", BUS_MIGRATIONS)
    keys.migrate()
    dashboard.migrate()
    messaging.connect(dashboard.part())
    site = Site(own, bus, dashboard, keys)
    site.captions = LiveCaptions(messaging.live)
    messaging.live.subscribe(site.captions.subscriptions())
    site.receipts = receipts
    for role in get_args(Role):
        site.tokens[role] = (await keys.create(role, name=f"the {role}")).key
    site.tokens["elsewhere"] = (await keys.create("admin", site="elsewhere")).key
    site.app = create_app(dashboard.routes())
    runner = web.AppRunner(site.app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as site.http:
            async with asyncio.TaskGroup() as group:
                work = [group.create_task(dashboard.run()), group.create_task(_are_well(messaging.live))]
                yield site
                await dashboard.drain()
                for task in work:
                    task.cancel()
            await dashboard.aclose()
    finally:
        await runner.cleanup()
        await bus.aclose()
        await own.aclose()
        await database.aclose()


async def events(socket: Any, wanted: str) -> Any:
    """The next event of a type."""
    async with asyncio.timeout(10):
        while True:
            event = await socket.receive_json()
            if event["type"] == wanted:
                return event


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0)
