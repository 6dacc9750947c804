"""Two processes of audio behind the edge: whoever dies or drains, what comes out is what comes out undisturbed."""

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from tests.e2e.test_up_kills import sounds
from tests.support.resuming import Heard, assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import command, quickcomm
from tests.support.site import Site
from tests.support.talk import RATE, Talk
from tests.support.wire import Wire, connected, new_id, spans

from quickcomm.client.audio_client import Disconnected, Event
from quickcomm.contracts.audio_socket import Ack, Receipt, Reconnect
from quickcomm.topology.adapters.processes import identify
from quickcomm.topology.model.settings import PrioritySettings

TALKERS: Final = 6
SECONDS: Final = 20
WITHIN_S: Final = 120.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("audio")
    shared = Site(folder / "data", "--deployment", "services", QUICKCOMM_AUDIO_PROCESSES="2")
    try:
        shared.start()
        yield shared
    finally:
        shared.make_sure()


@pytest.fixture(scope="module")
def kept() -> dict[str, list[Heard]]:
    return {}


async def undisturbed(site: Site, kept: dict[str, list[Heard]]) -> list[Heard]:
    if "heard" not in kept:
        key = await asyncio.to_thread(site.key)
        said = (stream(site.url, key, sound) for sound in sounds(TALKERS, SECONDS))
        kept["heard"] = await asyncio.gather(*said)
    return kept["heard"]


def of_audio(site: Site) -> list[dict[str, Any]]:
    """The lines of `quickcomm status`."""
    return [row for row in site.status() if row["module"] == "audio"]


class Once:
    """Does something in a thread when so many clients have heard an event of a kind."""

    def __init__(self, kind: type[Event], clients: int, do: Callable[[], None]) -> None:
        self._kind = kind
        self._clients = clients
        self._do = do
        self._heard: set[int] = set()
        self.doing: asyncio.Future[None] | None = None
        self.done = asyncio.Event()

    def watcher(self, client: int) -> Callable[[Event], None]:
        def watch(event: Event) -> None:
            if isinstance(event, self._kind):
                self._heard.add(client)
                if len(self._heard) == self._clients and self.doing is None:
                    self.doing = asyncio.ensure_future(self._run())

        return watch

    async def _run(self) -> None:
        try:
            await asyncio.to_thread(self._do)
        finally:
            self.done.set()


async def talk_through(site: Site, kept: dict[str, list[Heard]], do: Callable[[], None]) -> list[Heard]:
    """All talk in real time; when each has heard an ack, something happens. Nobody leaves before it has."""
    before = await undisturbed(site, kept)
    key = await asyncio.to_thread(site.key)
    once = Once(Ack, TALKERS, do)
    said = [
        stream(site.url, key, sound, once.watcher(number), paced=True, stays=once.done)
        for number, sound in enumerate(sounds(TALKERS, SECONDS))
    ]
    heard = await asyncio.gather(*said)
    assert once.doing is not None
    await once.doing
    for now, then in zip(heard, before, strict=True):
        assert_as_undisturbed(now, then)
    for now in heard:
        await assert_listed_once(site, now)
    return heard


def moved(heard: Sequence[Heard]) -> list[list[Disconnected]]:
    """Breaks of those who had any."""
    found = [[event for event in each.events if isinstance(event, Disconnected)] for each in heard]
    return [breaks for breaks in found if breaks]


async def test_conversations_are_spread_and_each_process_is_in_the_status(site: Site) -> None:
    key = site.key()
    async with asyncio.timeout(WITHIN_S), AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(site.url, key, new_id("spread"))) for _ in range(12)]
        for each in opened:
            await each.until("ready")
        rows = await asyncio.to_thread(of_audio, site)
        for each in opened:
            await each.end()
    assert len(rows) == 2
    assert len({row["pid"] for row in rows}) == 2
    assert all(row["healthy"] and row["serving"] and row["version"] for row in rows)
    assert sum(row["sessions"] for row in rows) == 12
    assert min(row["sessions"] for row in rows) >= 2, "none has more than half as much again as its share"


async def test_receipts_and_insights_come_back_to_whoever_has_the_conversation(
    site: Site, kept: dict[str, list[Heard]]
) -> None:
    """Insights are logged by the process whose turn it is, receipts go to all of them."""
    for each in await undisturbed(site, kept):
        assert sorted(event.utterance_id for event in each.insights) == sorted(u.utterance_id for u in each.utterances)
        assert [event for event in each.events if isinstance(event, Receipt)]


@pytest.mark.long
async def test_one_of_two_is_killed_and_its_clients_go_on_with_the_other(
    site: Site, kept: dict[str, list[Heard]]
) -> None:
    def kill() -> None:
        victim = max(of_audio(site), key=lambda row: row["sessions"])
        os.kill(victim["pid"], signal.SIGKILL)

    heard = await talk_through(site, kept, kill)
    assert moved(heard)
    await asyncio.to_thread(site.wait_ready)
    assert sum(row["restarts"] for row in of_audio(site)) == 1


@pytest.mark.long
async def test_one_is_drained_and_its_clients_are_told_to_come_back_at_once(
    site: Site, kept: dict[str, list[Heard]]
) -> None:
    def scale() -> None:
        quickcomm("scale", "audio=1", "--data-dir", str(site.data_dir), timeout=120)

    heard = await talk_through(site, kept, scale)
    told = [event for each in heard for event in each.events if isinstance(event, Reconnect)]
    assert told
    assert {(event.reason, event.after_ms) for event in told} == {("drain", 0)}
    assert {each.reason for breaks in moved(heard) for each in breaks} == {"drain"}
    assert len(of_audio(site)) == 1
    quickcomm("scale", "audio=2", "--data-dir", str(site.data_dir), timeout=300)
    assert len(of_audio(site)) == 2


@pytest.mark.long
async def test_a_rolling_restart_replaces_one_after_the_other(site: Site, kept: dict[str, list[Heard]]) -> None:
    before = {row["pid"] for row in of_audio(site)}

    def restart() -> None:
        subprocess.run([command(), "restart", "audio", "--data-dir", str(site.data_dir)], check=True, timeout=300)

    heard = await talk_through(site, kept, restart)
    assert {each.reason for breaks in moved(heard) for each in breaks} == {"drain"}
    after = {row["pid"] for row in of_audio(site)}
    assert len(after) == 2
    assert not before & after


async def test_a_client_that_reaches_the_other_process_is_served_there(site: Site, talk: Talk) -> None:
    """The owner is alive, and its connection open: it lets go as soon as it sees that it was replaced."""
    key, conversation, token = site.key(), new_id(), secrets.token_urlsafe(32)
    names = sorted(row["process"] for row in of_audio(site))
    async with heard_by(site, names[0], key, new_id(), "") as calm:
        await calm.until("ready")
        await calm.send(talk.wire, 3_200)
        await calm.end()
    middle = talk.samples // 2
    async with heard_by(site, names[0], key, conversation, token) as older:
        await older.until("ready")
        await older.send(talk.wire[: 2 * middle], 3_200)
        await older.until("utterance")
        async with heard_by(site, names[1], key, conversation, token) as newer:
            offset = (await newer.until("ready"))["next_offset"]
            assert offset <= middle
            error = await older.until("error")
            assert (error["code"], error["retryable"]) == ("audio.fenced", True)
            assert await older.until_closed() == 1012
            await newer.send(talk.wire[2 * offset :], 3_200)
            ended = await newer.end()
    assert spans(newer.heard) == spans(calm.heard), "the newer one hears all from the beginning"
    assert ended["ledger"] == calm.heard[-1]["ledger"]


@asynccontextmanager
async def heard_by(site: Site, process: str, key: str, conversation: str, token: str) -> AsyncGenerator[Wire]:
    """A connection past the edge, to one process."""
    connector = aiohttp.UnixConnector(site.layout.socket(process))
    headers = {"Authorization": f"Bearer {key}"}
    query = {"resume_token": token} if token else {}
    async with (
        aiohttp.ClientSession("http://audio", connector=connector, headers=headers) as session,
        session.ws_connect(f"/v1/conversations/{conversation}/audio", params=query, max_msg_size=0) as socket,
    ):
        yield Wire(socket, conversation, token)


async def test_the_ledger_is_told_by_any_of_them(site: Site, kept: dict[str, list[Heard]]) -> None:
    [first, *_] = await undisturbed(site, kept)
    assert first.conversation_id in quickcomm("ledger", first.conversation_id, "--data-dir", str(site.data_dir))
    assert first.ended.ledger.received == SECONDS * RATE


def test_dashboards_yield_to_who_listens(site: Site) -> None:
    """Of every thread, as Linux has it."""
    own = os.getpriority(os.PRIO_PROCESS, 0)
    nice = {}
    for module in ("audio", "dashboard", "edge", "valkey"):
        for row in [row for row in site.status() if row["module"] == module]:
            assert identify(module, row["pid"]) is not None
            threads = [int(path.name) for path in Path(f"/proc/{row['pid']}/task").iterdir()]
            nice[module] = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
    assert nice["audio"] == nice["edge"] == nice["valkey"] == {own}
    assert nice["dashboard"] == {min(19, own + PrioritySettings().dashboard)}
