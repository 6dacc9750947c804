"""What happens when … fails: a row of the table in docs/when-something-fails.md, a test.

Somebody speaks, somebody has the page open, and a part is taken away in the middle of the talk. What the others do
meanwhile is looked at; when the part is back, everything is as if nothing had happened.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import pytest
from tests.support.onlooker import Onlooker, onlooking
from tests.support.prompting import named, write
from tests.support.resuming import (
    PATIENCE,
    WITHIN_S,
    Heard,
    assert_as_undisturbed,
    assert_listed_once,
    complete,
    stream,
)
from tests.support.server import quickcomm
from tests.support.site import Site
from tests.support.talk import RATE, Talk
from tests.support.wire import connected, converse, new_id

from quickcomm.client.audio_client import AudioClient, Disconnected, Event
from quickcomm.client.options import StreamOptions
from quickcomm.client.sources import PcmSource
from quickcomm.contracts.audio_socket import Ack, AudioFormat, Ended, Insights, Utterance

LOOKED_FOR_S: Final = 0.5
"""So long is looked whether something happens that must not."""


class Speaker:
    """Somebody who says the first part, waits for `go_on`, and says the rest. What is heard is told at once."""

    def __init__(self, site: Site, key: str, pcm: bytes, cut: int) -> None:
        """`cut`: samples before the pause."""
        self.conversation_id = new_id()
        self.go_on = asyncio.Event()
        self.events: list[Event] = []
        self._changed = asyncio.Condition()
        self._pcm = pcm
        self._cut = 2 * cut
        options = StreamOptions(url=site.url, key=key, conversation_id=self.conversation_id, patience=PATIENCE)
        self._client = AudioClient(options, PcmSource(AudioFormat(sample_rate=RATE), self._pieces()))

    async def speak(self) -> Heard:
        async with asyncio.timeout(WITHIN_S), self._client.stream() as told:
            async for event in told:
                self.events.append(event)
                async with self._changed:
                    self._changed.notify_all()
        return Heard(self.conversation_id, self.events)

    async def until(self, holds: Callable[["Speaker"], bool]) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: holds(self))

    @property
    def utterances(self) -> list[Utterance]:
        return [event for event in self.events if isinstance(event, Utterance)]

    @property
    def answered(self) -> set[str]:
        return {event.utterance_id for event in self.events if isinstance(event, Insights)}

    @property
    def acked(self) -> int:
        return max((event.offset for event in self.events if isinstance(event, Ack)), default=0)

    @property
    def interruptions(self) -> int:
        return sum(isinstance(event, Disconnected) for event in self.events)

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self._pcm[: self._cut]
        await self.go_on.wait()
        for at in range(self._cut, len(self._pcm), RATE):
            yield self._pcm[at : at + RATE]


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Everybody while a part is away. `before`: what had been heard until then."""

    site: Site
    speaker: Speaker
    onlooker: Onlooker
    before: tuple[Utterance, ...]

    @property
    def later(self) -> list[Utterance]:
        return self.speaker.utterances[len(self.before) :]


Look = Callable[[Scene], Awaitable[None]]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """`part`: which module, one process of it. `alarm`: the code of what the page says. `gone`: how it is away."""

    part: str
    meanwhile: Look
    alarm: str | None = None
    gone: str = "hangs"
    processes: int = 1


# -- what the others do meanwhile --------------------------------------------------------------------------------------


async def heard_and_not_classified(scene: Scene) -> None:
    """Transcripts and acks go on; cards come, and have no insights yet."""
    scene.speaker.go_on.set()
    await scene.speaker.until(lambda one: bool(scene.later) and one.acked > scene.later[0].start_offset)
    first = scene.later[0].utterance_id
    await scene.onlooker.until(lambda one: first in one.cards)
    assert not scene.onlooker.classified(first)
    assert first not in scene.speaker.answered
    assert "intelligence service is away" in scene.onlooker.alarms["intelligence.away"]
    assert "away" in scene.onlooker.health["classifier"]["message"]
    assert scene.speaker.interruptions == 0


async def heard_classified_and_ended(scene: Scene) -> None:
    """Nobody who speaks notices."""
    scene.speaker.go_on.set()
    await scene.speaker.until(lambda one: isinstance(one.events[-1], Ended))
    assert {one.utterance_id for one in scene.later} <= scene.speaker.answered
    assert scene.speaker.interruptions == 0
    assert not any(one.utterance_id in scene.onlooker.cards for one in scene.later)


async def kept_by_who_speaks(scene: Scene) -> None:
    """Nothing is heard, and who comes now is told to come again; the page stays, and says so."""
    scene.speaker.go_on.set()
    refused = await asyncio.to_thread(scene.site.get, f"/v1/conversations/{new_id()}/audio", "ingest")
    assert refused.status == 503
    await asyncio.sleep(LOOKED_FOR_S)
    assert scene.later == []
    assert all(one.utterance_id in scene.onlooker.cards for one in scene.before)
    answer = await asyncio.to_thread(scene.site.get, "/v1/utterances?limit=1", "read")
    assert answer.status == 200


async def not_acknowledged(scene: Scene) -> None:
    """What is not durable is neither acknowledged nor told; the page says why."""
    acked = scene.speaker.acked
    scene.speaker.go_on.set()
    await asyncio.sleep(LOOKED_FOR_S)
    assert scene.later == []
    assert scene.speaker.acked == acked


async def nothing_special(scene: Scene) -> None:
    """It is back before anybody could look."""
    scene.speaker.go_on.set()


ROWS: Final = (
    Row(part="intelligence", meanwhile=heard_and_not_classified, alarm="intelligence.away"),
    Row(part="dashboard", meanwhile=heard_classified_and_ended),
    Row(part="audio", meanwhile=kept_by_who_speaks, alarm="audio.away"),
    Row(part="valkey", meanwhile=not_acknowledged, alarm="bus.unavailable"),
    Row(part="audio", meanwhile=nothing_special, gone="dies", processes=2),
    Row(part="intelligence", meanwhile=nothing_special, gone="dies"),
    Row(part="dashboard", meanwhile=nothing_special, gone="dies"),
    Row(part="edge", meanwhile=nothing_special, gone="dies"),
)


def name_of(row: Row) -> str:
    return f"{'one of two ' if row.processes == 2 else ''}{row.part} {row.gone}".replace(" ", "-")


# -- the scene ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    shared = Site(tmp_path_factory.mktemp("isolation") / "data", "--deployment", "services")
    try:
        shared.start()
        yield shared
    finally:
        shared.make_sure()


def busiest(site: Site, module: str) -> int:
    """The process of a module that has the most conversations; where it has none, any."""
    rows = [row for row in site.status() if row["module"] == module]
    pid: int = max(rows, key=lambda row: row.get("sessions") or 0)["pid"]
    return pid


@contextlib.contextmanager
def scaled(site: Site, row: Row) -> Iterator[None]:
    """As many processes of the part as the row is about."""
    where = ("--data-dir", str(site.data_dir))
    if row.processes > 1:
        quickcomm("scale", f"{row.part}={row.processes}", *where, timeout=300)
        site.wait_ready()
    try:
        yield
    finally:
        if row.processes > 1:
            quickcomm("scale", f"{row.part}=1", *where, timeout=300)


@contextlib.asynccontextmanager
async def away(pid: int, *, dies: bool) -> AsyncGenerator[None]:
    """It hangs until this is left, or dies at once."""
    os.kill(pid, signal.SIGKILL if dies else signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def has_first_of(speaker: Speaker, onlooker: Onlooker) -> bool:
    return onlooker.classified(speaker.utterances[0].utterance_id)


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=pytest.mark.long if row.gone == "dies" else (), id=name_of(row)) for row in ROWS]
)
async def test_a_part_is_away_and_the_others_go_on(site: Site, talk: Talk, row: Row) -> None:
    with contextlib.ExitStack() as around:
        await asyncio.to_thread(around.enter_context, scaled(site, row))
        key = await asyncio.to_thread(site.key)
        undisturbed = await stream(site.url, key, talk.wire)
        cut = sorted(undisturbed.places)[1][1]  # the second utterance is said while it is away
        async with onlooking(site) as onlooker:
            await onlooker.until(lambda one: not one.alarms)
            # With several processes there are several speakers, and some of them are on the one that dies.
            speakers = [Speaker(site, key, talk.wire, cut) for _ in range(4 * (row.processes - 1) or 1)]
            async with asyncio.TaskGroup() as tasks:
                speaking = [tasks.create_task(speaker.speak()) for speaker in speakers]
                for speaker in speakers:
                    await speaker.until(lambda one: bool(one.answered))
                    await onlooker.until(partial(has_first_of, speaker))
                victim = await asyncio.to_thread(busiest, site, row.part)
                async with away(victim, dies=row.gone == "dies"):
                    if row.alarm is not None:
                        await onlooker.until(lambda one: row.alarm in one.alarms)
                    for speaker in speakers:
                        before = tuple(speaker.utterances)
                        await row.meanwhile(Scene(site=site, speaker=speaker, onlooker=onlooker, before=before))
            await asyncio.to_thread(site.wait_ready)
            assert row.processes == 1 or any(speaker.interruptions for speaker in speakers)
            for task in speaking:
                await made_good(site, onlooker, task.result(), undisturbed)
            await onlooker.until(lambda one: one.connected and not one.alarms)


async def test_the_site_is_not_ready_while_no_process_of_audio_answers(site: Site) -> None:
    """The page's process stays in the edge all the same: its own probe asks for that process alone."""

    async def until(status: int) -> None:
        while (await client.get("/readyz")).status != status:  # noqa: ASYNC110 - nobody pushes it
            await asyncio.sleep(0.1)

    pid = await asyncio.to_thread(busiest, site, "audio")
    async with aiohttp.ClientSession(site.url) as client, asyncio.timeout(WITHIN_S):
        await until(200)
        async with away(pid, dies=False):
            await until(503)
            problem = await (await client.get("/readyz")).json()
            assert problem["code"] == "audio.away"
            assert (await client.get("/readyz?of=process")).status == 200
        await until(200)


@pytest.mark.long
async def test_insights_that_come_after_the_end_are_told_to_who_comes_again(site: Site, talk: Talk) -> None:
    key = await asyncio.to_thread(site.key)
    pid = await asyncio.to_thread(busiest, site, "intelligence")
    async with away(pid, dies=False):
        said = await converse(site.url, key, talk.wire)  # its end waits for the insights only for so long
    assert said.of("insights") == []
    wanted = [event["utterance_id"] for event in said.of("utterance")]
    await site.until(
        f"/v1/utterances?conversation={said.conversation_id}&limit=200", lambda body: complete(body, wanted)
    )
    resumed = {"resume_token": said.token, "after_seq": said.last_seq}
    async with connected(site.url, key, said.conversation_id, **resumed) as again:
        await again.until("ended")
    assert [event["utterance_id"] for event in again.of("insights")] == wanted
    assert again.of("utterance") == []


async def test_a_prompt_is_deployed_and_no_process_notices(site: Site, tmp_path: Path) -> None:
    before = [(row["module"], row["pid"]) for row in await asyncio.to_thread(site.status)]
    file = write(tmp_path, "mine.toml", named("shorter", system="Label this for $site."))
    where = ("--data-dir", str(site.data_dir))
    await asyncio.to_thread(quickcomm, "prompts", "deploy", str(file), "--force", *where, timeout=120)
    assert [(row["module"], row["pid"]) for row in await asyncio.to_thread(site.status)] == before


async def made_good(site: Site, onlooker: Onlooker, heard: Heard, undisturbed: Heard) -> None:
    """For who spoke, for who looks, and for who looks later."""
    assert_as_undisturbed(heard, undisturbed)
    await onlooker.until(lambda one: all(one.classified(each.utterance_id) for each in heard.utterances))
    assert sorted(onlooker.of(heard.conversation_id)) == sorted(each.utterance_id for each in heard.utterances)
    await assert_listed_once(site, heard)
