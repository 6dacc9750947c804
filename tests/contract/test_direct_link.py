"""The direct link between an instance that hears and a dashboard, over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.support.dashboard_site import heard
from tests.support.linked import WITHIN_S, Everything, Hearing, linked, served, until

from quickcomm.contracts.captions import Caption
from quickcomm.contracts.link import FIRST, Watching
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.kernel.discovery import DirectoryRegistry
from quickcomm.kernel.telemetry import Word, set_tracing
from quickcomm.kernel.telemetry.off import NoTraces


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "instances", lease_s=3_600)


@pytest_asyncio.fixture
async def hearing(registry: DirectoryRegistry, tmp_path: Path) -> AsyncIterator[Hearing]:
    made = Hearing()
    async with served(made.link.routes(), registry, tmp_path):
        yield made


def caption(channel: str = "desk", *, site: str = "main", text: str = "towels to", speaker: int = 0) -> Caption:
    return Caption(site=site, conversation_id="c-1", channel=channel, speaker=speaker, start_offset=0, text=text)


def numbered(start: int, seq: int, conversation: str = "shift-1") -> UtteranceTranscribed:
    return msgspec.structs.replace(heard(start, "Towels to 412", conversation=conversation), seq=seq)


async def test_captions_come_only_of_what_somebody_looks_at(hearing: Hearing, registry: DirectoryRegistry) -> None:
    told = Everything()
    async with linked(registry, told) as links, asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        assert not hearing.link.watched("main", "desk")
        links.watching(Watching(sites={"main": ("desk",), "hotel": ("*",)}))
        await until(lambda: hearing.link.watched("main", "desk"))
        assert not hearing.link.watched("main", "kitchen")
        assert hearing.link.watched("hotel", "kitchen")
        for one in (caption("kitchen"), caption("desk", site="elsewhere"), caption("desk", text="towels to 412")):
            hearing.link.caption(one)
        assert await told.captions.get() == caption("desk", text="towels to 412")
        links.watching(Watching())
        await until(lambda: not hearing.link.watched("main", "desk"))
        assert told.captions.empty()


async def test_of_captions_that_wait_only_the_newest_of_each_speaker_is_sent(
    hearing: Hearing, registry: DirectoryRegistry
) -> None:
    told = Everything()
    async with linked(registry, told) as links, asyncio.timeout(WITHIN_S):
        links.watching(Watching(sites={"main": ("*",)}))
        await until(lambda: hearing.link.watched("main", "desk"))
        for text in ("fire", "fire in", "fire in 412"):
            hearing.link.caption(caption(text=text))
        hearing.link.caption(caption(text="yes", speaker=1))
        assert [(await told.captions.get()).text for _ in range(2)] == ["fire in 412", "yes"]
        assert told.captions.empty()


async def test_utterances_come_with_the_one_before_them(hearing: Hearing, registry: DirectoryRegistry) -> None:
    told = Everything()
    async with linked(registry, told), asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        first, second, other = numbered(0, 1), numbered(16_000, 3), numbered(0, 1, "shift-2")
        hearing.link.published(first, FIRST)
        hearing.link.published(other, FIRST)
        hearing.link.published(second, first.utterance_id)
        came = [await told.finals.get() for _ in range(3)]
    assert [(each.message, each.after) for each in came] == [
        (first, FIRST),
        (other, FIRST),
        (second, first.utterance_id),
    ]


async def test_what_follows_on_what_another_process_published_is_left_to_the_stream(
    hearing: Hearing, registry: DirectoryRegistry
) -> None:
    """After a crash, or a stay elsewhere, nobody here knows which utterance came before."""
    told = Everything()
    async with linked(registry, told), asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        hearing.link.published(numbered(16_000, 3), None)
        hearing.link.published(numbered(32_000, 5), "shift-1:0:16000")
        came = await told.finals.get()
        assert (came.message.seq, came.after) == (5, "shift-1:0:16000")
        assert told.finals.empty()


async def test_receipts_go_back(hearing: Hearing, registry: DirectoryRegistry) -> None:
    told = Everything()
    async with linked(registry, told) as links, asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        await until(lambda: hearing.link.gives_receipts)
        links.receipt("main", "shift-1", "shift-1:0:0", Latency(total=812.5))
        assert await hearing.receipts.get() == ("main", "shift-1", "shift-1:0:0", Latency(total=812.5))
    await until(lambda: not hearing.link.gives_receipts)


class Words(NoTraces):
    """Tracing that hears only what is said of traces elsewhere."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[Word] = asyncio.Queue()

    def word(self, word: Word) -> None:
        self.came.put_nowait(word)


async def test_that_a_trace_is_kept_goes_back_behind_its_receipt(hearing: Hearing, registry: DirectoryRegistry) -> None:
    told, words = Everything(), Words()
    set_tracing(words)
    try:
        async with linked(registry, told) as links, asyncio.timeout(WITHIN_S):
            await told.statuses.get()
            await until(lambda: hearing.link.gives_receipts)
            word = Word(
                site="main", conversation_id="shift-1", utterance_id="shift-1:0:0", why="slow", painted_ms=900.0
            )
            links.receipt("main", "shift-1", "shift-1:0:0", Latency(total=812.5))
            links.keep_trace(word)
            assert await words.came.get() == word
            assert hearing.receipts.qsize() == 1
    finally:
        set_tracing(None)


async def test_the_status_comes_again_and_again(hearing: Hearing, registry: DirectoryRegistry) -> None:
    told = Everything()
    async with linked(registry, told), asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(hearing.link.run())
        name, status = await told.statuses.get()
        assert (name, status.sessions) == ("core-1", 1)
        hearing.sessions = 2
        while (await told.statuses.get())[1].sessions != 2:
            pass
        telling.cancel()


async def test_a_link_that_breaks_is_opened_again_and_hears_what_is_looked_at(
    registry: DirectoryRegistry, tmp_path: Path
) -> None:
    told = Everything()
    async with linked(registry, told) as links, asyncio.timeout(WITHIN_S):
        links.watching(Watching(sites={"main": ("*",)}))
        for _ in range(3):
            hearing = Hearing()
            async with served(hearing.link.routes(), registry, tmp_path):
                await told.statuses.get()
                await until(partial(hearing.link.watched, "main", "desk"))
                hearing.link.close()
                assert await told.losses.get() == "core-1"
    assert told.losses.empty()


async def test_two_dashboards_and_two_instances_all_hear_each_other(
    hearing: Hearing, registry: DirectoryRegistry, tmp_path: Path
) -> None:
    one, two, second = Everything(), Everything(), Hearing()
    async with (
        served(second.link.routes(), registry, tmp_path, "core-2"),
        linked(registry, one) as links,
        linked(registry, two),
        asyncio.timeout(WITHIN_S),
    ):
        for told in (one, two):
            assert {(await told.statuses.get())[0] for _ in range(2)} == {"core-1", "core-2"}
        hearing.link.published(numbered(0, 1), FIRST)
        second.link.published(numbered(0, 1, "shift-2"), FIRST)
        for told in (one, two):
            assert {(await told.finals.get()).message.conversation_id for _ in range(2)} == {"shift-1", "shift-2"}
        links.receipt("main", "shift-1", "shift-1:0:0", Latency())
        assert (await hearing.receipts.get())[1] == "shift-1"


async def test_a_stranger_is_not_let_in(hearing: Hearing, registry: DirectoryRegistry) -> None:
    stranger, told = Everything(), Everything()
    async with linked(registry, stranger, "foe"), linked(registry, told), asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        hearing.link.published(numbered(0, 1), FIRST)
        await told.finals.get()
    assert stranger.statuses.empty()
    assert stranger.finals.empty()


async def test_who_does_not_read_loses_the_oldest_and_nobody_waits(
    hearing: Hearing, registry: DirectoryRegistry
) -> None:
    """The chain is broken where something was dropped: the dashboard leaves the rest to the stream."""
    told = Everything()
    async with linked(registry, told), asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        for number in range(3_000):  # at once: the sender gets no turn meanwhile
            after = f"shift-1:0:{16_000 * (number - 1)}" if number else FIRST
            hearing.link.published(numbered(16_000 * number, 1 + 2 * number), after)
        came = [await told.finals.get() for _ in range(1_024)]
        assert told.finals.empty()
    assert came[-1].message.seq == 1 + 2 * 2_999
    assert came[0].after == f"shift-1:0:{16_000 * 1_975}"


async def test_whose_key_is_withdrawn_must_go(hearing: Hearing, registry: DirectoryRegistry) -> None:
    told = Everything()
    async with linked(registry, told), asyncio.timeout(WITHIN_S):
        await told.statuses.get()
        hearing.withdrawn.set()
        assert await told.losses.get() == "core-1"
