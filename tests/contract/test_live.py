"""One behaviour for the live channel, within a process and between processes over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from tests.support.dashboard_site import heard
from tests.support.linked import WITHIN_S, Word, served, until

from quickcomm.audio.adapters.captions import LiveCaptions
from quickcomm.contracts.captions import Behind, Caption
from quickcomm.contracts.link import (
    FIRST,
    LINK,
    Captioned,
    Committed,
    FellBehind,
    InstanceStatus,
    KeepTrace,
    Receipt,
    Room,
    SoundCopy,
    Watching,
)
from quickcomm.contracts.messaging import Topic
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.live import LocalLive, LostError, Peer, UnsupportedTopicError, wire
from quickcomm.kernel.messaging.live.wire import WireLive
from quickcomm.kernel.runtime.shared_parts import traces_part
from quickcomm.kernel.telemetry import Word as Said
from quickcomm.kernel.telemetry import set_tracing
from quickcomm.kernel.telemetry.off import NoTraces


class Ear:
    """Subscribes to everything that a dashboard does; what has come, to be waited for."""

    TOPICS: ClassVar[tuple[type[Topic], ...]] = (Captioned, FellBehind, Committed, InstanceStatus)

    def __init__(self, live: LocalLive, *topics: type[Topic]) -> None:
        self.live = live
        self.came: asyncio.Queue[Topic] = asyncio.Queue()
        self.errors: asyncio.Queue[tuple[Peer, QuickCommError]] = asyncio.Queue()
        self.peers: list[Peer] = []
        live.subscribe([(topic, self._take) for topic in topics or self.TOPICS])
        live.on_error(lambda peer, error: self.errors.put_nowait((peer, error)))

    def _take(self, message: Topic, peer: Peer) -> None:
        self.came.put_nowait(message)
        self.peers.append(peer)

    async def next(self) -> Any:
        """Return the next message but the status of an instance, with which each connection begins."""
        async with asyncio.timeout(WITHIN_S):
            while isinstance(message := await self.came.get(), InstanceStatus):
                pass
        return message

    async def connected(self) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not isinstance(await self.came.get(), InstanceStatus):
                pass


class Instance:
    """A process of audio."""

    def __init__(self, registry: DirectoryRegistry) -> None:
        self.trust = Word()
        self.live = LocalLive()
        self.captions = LiveCaptions(self.live)
        self.receipts: asyncio.Queue[Receipt] = asyncio.Queue()
        self.live.subscribe([*self.captions.subscriptions(), (Receipt, self._receipt)])
        self.live.publish(InstanceStatus(module="audio", sessions=1))
        self.wire = WireLive(self.live, ("audio",), registry, self.trust, "audio-1")

    def _receipt(self, receipt: Receipt, _peer: Peer) -> None:
        self.receipts.put_nowait(receipt)


@asynccontextmanager
async def dialling(live: LocalLive, registry: DirectoryRegistry, word: str = "friend") -> AsyncIterator[None]:
    """A dashboard's process connects with those that it finds."""
    wire = WireLive(live, ("dashboard",), registry, Word(word), "dashboard-1")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(wire.run())
        try:
            yield
        finally:
            task.cancel()


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "instances", lease_s=3_600)


class Pair:
    """A publisher, and a subscriber that is connected with it."""

    def __init__(self, instance: Instance, ear: Ear) -> None:
        self.instance = instance
        self.captions = instance.captions
        self.ear = ear


@pytest_asyncio.fixture(params=["local", "wired"])
async def pair(request: pytest.FixtureRequest, registry: DirectoryRegistry, tmp_path: Path) -> AsyncIterator[Pair]:
    instance = Instance(registry)
    if request.param == "local":
        instance.live.forward = None
        yield Pair(instance, Ear(instance.live))
        return
    ear = Ear(LocalLive())
    async with served(instance.wire.routes(), registry, tmp_path, "audio-1", "audio"), dialling(ear.live, registry):
        await ear.connected()
        yield Pair(instance, ear)


def caption(channel: str = "desk", *, site: str = "main", text: str = "towels to", speaker: int = 0) -> Caption:
    return Caption(site=site, conversation_id="c-1", channel=channel, speaker=speaker, start_offset=0, text=text)


def numbered(start: int, seq: int, conversation: str = "shift-1") -> UtteranceTranscribed:
    return msgspec.structs.replace(heard(start, "Towels to 412", conversation=conversation), seq=seq)


def receipt(number: int = 0) -> Receipt:
    return Receipt(
        site="main", conversation_id="shift-1", utterance_id=f"shift-1:0:{number}", latency=Latency(total=812.5)
    )


# -- both -----------------------------------------------------------------------------------------------------------


async def test_events_come_in_their_order(pair: Pair) -> None:
    sent = [Committed(message=numbered(16_000 * number, number), after=str(number)) for number in range(200)]
    for message in sent:
        pair.instance.live.publish(message)
    assert [await pair.ear.next() for _ in sent] == sent


async def test_the_state_is_there_for_who_comes_later(pair: Pair) -> None:
    pair.ear.live.publish(Watching(sites={"main": ("desk",)}))
    await until(lambda: pair.captions.watched("main", "desk"))
    late = Ear(pair.instance.live, Watching, InstanceStatus)
    assert isinstance(late.came.get_nowait(), Topic)


async def test_captions_come_only_of_what_a_page_shows(pair: Pair) -> None:
    live = pair.ear.live
    assert not pair.captions.watched("main", "desk")
    live.publish(Watching(sites={"main": ("desk",), "hotel": ("*",)}))
    await until(lambda: pair.captions.watched("main", "desk"))
    assert not pair.captions.watched("main", "kitchen")
    assert pair.captions.watched("hotel", "kitchen")
    emergency = msgspec.structs.replace(caption("kitchen"), emergency=True)
    for one in (caption("kitchen"), caption("desk", site="elsewhere"), caption("desk", text="towels"), emergency):
        pair.captions.caption(one)
    assert [(await pair.ear.next()).caption for _ in range(2)] == [caption("desk", text="towels"), emergency]
    live.publish(Watching())
    await until(lambda: not pair.captions.watched("main", "desk"))


async def test_what_follows_on_what_another_process_published_is_left_to_the_stream(pair: Pair) -> None:
    """After a crash, or a stay elsewhere, nobody here knows which utterance came before."""
    pair.captions.published(numbered(16_000, 3), None)
    pair.captions.published(numbered(32_000, 5), "shift-1:0:16000")
    pair.captions.behind(Behind(site="main", conversation_id="shift-1", channel="desk", behind_ms=700))
    came = await pair.ear.next()
    assert (came.message.seq, came.after) == (5, "shift-1:0:16000")
    assert (await pair.ear.next()).behind.behind_ms == 700


async def test_receipts_go_back_once_somebody_watches(pair: Pair) -> None:
    assert not pair.captions.gives_receipts
    pair.ear.live.publish(Watching())
    await until(lambda: pair.captions.gives_receipts)
    for number in range(300):
        pair.ear.live.publish(receipt(number))
    async with asyncio.timeout(WITHIN_S):
        assert [await pair.instance.receipts.get() for _ in range(300)] == [receipt(number) for number in range(300)]


async def test_the_newest_status_comes_last(pair: Pair) -> None:
    for sessions in range(50):
        pair.instance.live.publish(InstanceStatus(module="audio", sessions=sessions))
    async with asyncio.timeout(WITHIN_S):
        while (await pair.ear.came.get()) != InstanceStatus(module="audio", sessions=49):
            pass


# -- between processes ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def wired(registry: DirectoryRegistry, folder: Path, *ears: Ear, word: str = "friend") -> AsyncIterator[Instance]:
    instance = Instance(registry)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served(instance.wire.routes(), registry, folder, "audio-1", "audio"))
        for ear in ears:
            await stack.enter_async_context(dialling(ear.live, registry, word))
            if word == "friend":
                await ear.connected()
        yield instance


async def test_a_module_that_is_started_later_hears_and_is_heard(registry: DirectoryRegistry, tmp_path: Path) -> None:
    """On either end: as where a module comes back to a monolith that was started without it."""
    early, instance = LocalLive(), Instance(registry)
    early.publish(Watching(sites={"main": ("desk",)}))
    instance.live.unsubscribe(instance.captions.subscriptions())
    answers = served(instance.wire.routes(), registry, tmp_path, "audio-1", "audio")
    async with answers, dialling(early, registry), asyncio.TaskGroup() as tasks:
        working = tasks.create_task(instance.wire.run())
        await asyncio.sleep(0)
        ear = Ear(early)
        await ear.connected()
        instance.live.subscribe(instance.captions.subscriptions())
        await until(lambda: instance.captions.watched("main", "desk"))
        other = Ear(early, Room)
        instance.live.publish(Room(conversations=7))
        async with asyncio.timeout(WITHIN_S):
            assert await other.came.get() == Room(conversations=7)
        working.cancel()


async def test_of_state_that_waits_only_the_newest_of_each_key_is_sent(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    ear = Ear(LocalLive())
    async with wired(registry, tmp_path, ear) as instance:
        ear.live.publish(Watching(sites={"main": ("*",)}))
        await until(lambda: instance.captions.watched("main", "desk"))
        for text in ("fire", "fire in", "fire in 412"):
            instance.captions.caption(caption(text=text))
        instance.captions.caption(caption(text="yes", speaker=1))
        assert [(await ear.next()).caption.text for _ in range(2)] == ["fire in 412", "yes"]
        assert ear.came.empty()


async def test_a_subscriber_that_does_not_read_loses_the_oldest_events_and_nobody_waits(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    """The chain is broken where something was dropped: the dashboard leaves the rest to the stream."""
    ear = Ear(LocalLive())
    async with wired(registry, tmp_path, ear) as instance:
        for number in range(3_000):  # at once: the sender gets no turn meanwhile
            after = f"shift-1:0:{16_000 * (number - 1)}" if number else FIRST
            instance.captions.published(numbered(16_000 * number, 1 + 2 * number), after)
        came = [await ear.next() for _ in range(1_024)]
        assert ear.came.empty()
    assert came[-1].message.seq == 1 + 2 * 2_999
    assert came[0].after == f"shift-1:0:{16_000 * 1_975}"


async def test_bulk_goes_last_and_is_dropped_first(registry: DirectoryRegistry, tmp_path: Path) -> None:
    ear = Ear(LocalLive(), InstanceStatus, Committed, SoundCopy)
    async with wired(registry, tmp_path, ear) as instance:
        for number in range(300):  # at once: the sender gets no turn meanwhile
            instance.live.publish(piece(number))
            instance.captions.published(numbered(16_000 * number, 1 + 2 * number), FIRST)
        came = [await ear.next() for _ in range(300 + wire.MAX_BULK)]
        assert ear.came.empty()
    assert [type(each) for each in came] == [Committed] * 300 + [SoundCopy] * wire.MAX_BULK
    assert [each.number for each in came[300:]] == list(range(300 - wire.MAX_BULK, 300))


def piece(number: int) -> SoundCopy:
    """As long as a message of sound gets."""
    return SoundCopy(
        to="audio-2",
        site="main",
        conversation_id="c-1",
        number=number,
        sample_rate=16_000,
        offset=16_384 * number,
        samples=16_384,
        tracks=(bytes(2 * 16_384),),
    )


async def test_a_process_that_hangs_is_hung_up_on_and_the_others_get_all(
    registry: DirectoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SEND_WITHIN_S", 2.0)
    ear = Ear(LocalLive())
    async with (
        wired(registry, tmp_path, ear) as instance,
        aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(tmp_path / "audio-1.sock")), headers=Word().headers("audio")
        ) as client,
    ):
        hung = await client.ws_connect(f"http://x{LINK}", max_msg_size=0)
        assert hung._response.connection is not None
        assert hung._response.connection.transport is not None
        hung._response.connection.transport.pause_reading()
        await until(lambda: len(instance.wire._lines) == 2)
        large = msgspec.structs.replace(numbered(0, 1), text="x" * 20_000)
        sent = 0
        while len(instance.wire._lines) == 2:
            await asyncio.sleep(0.01)
            instance.captions.published(large, str(sent))
            assert (await ear.next()).after == str(sent)
            sent += 1
        hung._response.close()


async def test_a_connection_that_breaks_is_opened_again_with_the_state(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    ear = Ear(LocalLive())
    ear.live.publish(Watching(sites={"main": ("*",)}))
    async with dialling(ear.live, registry), asyncio.timeout(WITHIN_S):
        for turn in range(3):
            instance = Instance(registry)
            async with served(instance.wire.routes(), registry, tmp_path, "audio-1", "audio"):
                await ear.connected()
                await until(partial(instance.captions.watched, "main", "desk"))
                if turn:
                    instance.wire.close()
                    peer, error = await ear.errors.get()
                    assert (peer.name, type(error)) == ("audio-1", LostError)
            if not turn:  # its process is gone without a word
                assert isinstance((await ear.errors.get())[1], LostError)
            await until(lambda: not instance.captions.gives_receipts)  # noqa: B023 - within the turn
    assert ear.errors.empty()


async def test_two_dashboards_and_two_instances_all_hear_each_other(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    one, two, second = Ear(LocalLive()), Ear(LocalLive()), Instance(registry)
    async with (
        served(second.wire.routes(), registry, tmp_path, "audio-2", "audio"),
        wired(registry, tmp_path, one, two) as first,
    ):
        for ear in (one, two):
            await ear.connected()
            ear.live.publish(Watching())
        await until(lambda: all(len(each.captions._watching) == 2 for each in (first, second)))
        first.captions.published(numbered(0, 1), FIRST)
        second.captions.published(numbered(0, 1, "shift-2"), FIRST)
        for ear in (one, two):
            assert {(await ear.next()).message.conversation_id for _ in range(2)} == {"shift-1", "shift-2"}
            assert {peer.name for peer in ear.peers} == {"audio-1", "audio-2"}
        one.live.publish(receipt())
        for instance in (first, second):
            async with asyncio.timeout(WITHIN_S):
                assert await instance.receipts.get() == receipt()


async def test_a_stranger_is_not_let_in(registry: DirectoryRegistry, tmp_path: Path) -> None:
    stranger, ear = Ear(LocalLive()), Ear(LocalLive())
    async with wired(registry, tmp_path, ear) as instance, dialling(stranger.live, registry, "foe"):
        instance.captions.published(numbered(0, 1), FIRST)
        await ear.next()
    assert stranger.came.empty()


async def test_a_peer_whose_key_is_withdrawn_must_go(registry: DirectoryRegistry, tmp_path: Path) -> None:
    ear = Ear(LocalLive())
    async with wired(registry, tmp_path, ear) as instance, asyncio.timeout(WITHIN_S):
        instance.trust.end.set()
        assert isinstance((await ear.errors.get())[1], LostError)


class Smell(Topic, frozen=True, kw_only=True, tag="smell"):
    """A topic of a later release: instances of this one do not publish it."""

    kind: ClassVar = "state"
    subscribers: ClassVar = ("dashboard",)

    def key(self) -> Hashable:
        return ()


async def test_a_topic_that_a_peer_does_not_know_is_told(
    registry: DirectoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = Instance(registry)
    monkeypatch.setattr(Smell, "publishers", ("audio",))
    ear = Ear(LocalLive(), Smell, Committed, InstanceStatus)
    async with (
        served(instance.wire.routes(), registry, tmp_path, "audio-1", "audio"),
        dialling(ear.live, registry),
        asyncio.timeout(WITHIN_S),
    ):
        peer, error = await ear.errors.get()
        assert isinstance(error, UnsupportedTopicError)
        assert (peer.name, error.topic) == ("audio-1", "smell")
        instance.captions.published(numbered(0, 1), FIRST)
        assert isinstance(await ear.next(), Committed)


# -- with the release before, which says nothing first, and sends a frame a message -----------------------------------


async def test_a_dashboard_of_the_release_before_is_served(registry: DirectoryRegistry, tmp_path: Path) -> None:
    instance = Instance(registry)
    async with (
        served(instance.wire.routes(), registry, tmp_path, "audio-1", "audio") as socket,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), headers=Word().headers("audio")) as client,
        client.ws_connect(f"http://x{LINK}") as link,
        asyncio.timeout(WITHIN_S),
    ):
        await link.send_json({"type": "watching", "sites": {"main": ["desk"]}})
        await link.send_json(msgspec.to_builtins(receipt()))
        assert await instance.receipts.get() == receipt()
        instance.captions.caption(caption())
        instance.captions.published(numbered(0, 1), FIRST)
        said = [await link.receive_json() for _ in range(4)]
    assert [each["type"] for each in said] == ["subscribe", "status", "final", "caption"]
    assert said[1]["sessions"] == 1
    assert said[3]["caption"]["text"] == "towels to"


async def test_an_instance_of_the_release_before_is_heard(registry: DirectoryRegistry, tmp_path: Path) -> None:
    heard_there: asyncio.Queue[Any] = asyncio.Queue()

    async def link(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "status", "sessions": 3})
        await socket.send_json({"type": "caption", "caption": msgspec.to_builtins(caption())})
        async for message in socket:
            heard_there.put_nowait(message.json())
        return socket

    ear = Ear(LocalLive())
    ear.live.publish(Watching(sites={"main": ("*",)}))
    async with (
        served([web.get(LINK, link)], registry, tmp_path, "audio-1", "audio"),
        dialling(ear.live, registry),
        asyncio.timeout(WITHIN_S),
    ):
        assert await ear.came.get() == InstanceStatus(sessions=3)
        assert (await ear.next()).caption == caption()
        ear.live.publish(receipt())
        ear.live.publish(receipt(1))
        said = [await heard_there.get() for _ in range(4)]
    assert [each["type"] for each in said] == ["subscribe", "watching", "receipt", "receipt"]


# -- traces -----------------------------------------------------------------------------------------------------------


class Traces(NoTraces):
    """Notes what comes of utterances."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def receipt(self, site: str, utterance_id: str, latency: Latency) -> None:
        del site, latency
        self.said.append(("receipt", utterance_id))

    def word(self, word: Said) -> None:
        self.said.append((word.why, word.utterance_id))


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    set_tracing(made)
    yield made
    set_tracing(None)


async def test_that_a_trace_is_kept_goes_back_behind_its_receipt(
    registry: DirectoryRegistry, tmp_path: Path, traces: Traces
) -> None:
    ear, instance = Ear(LocalLive()), Instance(registry)
    instance.live.subscribe(traces_part(None).subscriptions)
    async with (
        served(instance.wire.routes(), registry, tmp_path, "audio-1", "audio"),
        dialling(ear.live, registry),
    ):
        await ear.connected()
        ear.live.publish(receipt(0))
        ear.live.publish(KeepTrace(site="main", conversation_id="c", utterance_id="shift-1:0:0", why="slow"))
        await until(lambda: bool(traces.said[1:]))
    assert traces.said == [("receipt", "shift-1:0:0"), ("slow", "shift-1:0:0")]
