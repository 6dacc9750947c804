"""Five faults, planted across services: each is found from its card, by its trace, in two steps; the third repairs it.

A step is something that an operator does: read the id off the card (or the caption), one command, the command that it
names. Each drill prints its steps and seconds: pytest -s -m "long or not long" tests/e2e/test_drills.py
"""

import asyncio
import contextlib
import os
import re
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
from tests.e2e.conftest import NewSite
from tests.support.llm import FakeLlm, fake_llm
from tests.support.page import talk_of
from tests.support.prompting import named, write
from tests.support.proxy import Proxy, proxied
from tests.support.routing import routing
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.valkey import Valkey
from tests.support.wire import Wire, connected, new_id

from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.messaging.bus.redis import HIGH_WATER
from quickcomm.kernel.messaging.bus.redis_link import Link, Script
from quickcomm.kernel.messaging.bus.redis_names import Names, partition
from quickcomm.operate.up.access import users

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]  # each cause: tests/unit/test_causes.py

Json = dict[str, Any]
TOWELS: Final = "two extra bath towels"
SLOW_S: Final = 0.25
COMMAND: Final = re.compile(r"quickcomm [a-z-]+(?: [a-z0-9=-]+)*")
FOUND_IN: Final = 2
_FILL: Final = Script("for _ = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'k', ARGV[2], 'p', ARGV[3]) end")


def pushed(card: Json) -> bool:
    """Return True if a card is complete, with its receipt."""
    return bool(card["insights"]) and card["latency_ms"].get("total") is not None


class Scene:
    """A site of services, each with a wire of its own to the store."""

    def __init__(self, site: Site, valkey: Valkey, wires: dict[str, Proxy], model: FakeLlm) -> None:
        self.site = site
        self.valkey = valkey
        self.wires = wires
        self.model = model

    @asynccontextmanager
    async def saying(self, conversation: str | None = None) -> AsyncIterator[Wire]:
        """One utterance, said and not waited for."""
        key = await asyncio.to_thread(self.site.key)
        async with connected(self.site.url, key, conversation or new_id("drill")) as wire:
            await wire.until("ready")
            await wire.send(talk_of(TOWELS), 3_200)
            yield wire

    async def say(self, conversation: str | None = None) -> Wire:
        """One utterance, until it is all over."""
        async with self.saying(conversation) as wire:
            await wire.end()
        return wire

    async def card(self, conversation: str, holds: Callable[[Json], bool]) -> Json:
        """Return the card of a conversation once it is as it should become."""
        path = f"/v1/utterances?conversation={conversation}"
        found = await self.site.until(path, lambda body: bool(body["items"]) and holds(body["items"][0]))
        card: Json = found["items"][0]
        return card


class Operator:
    """Counts steps and seconds, from the card on."""

    def __init__(self, scene: Scene, drill: str) -> None:
        self._scene = scene
        self._drill = drill
        self._began = time.monotonic()
        self.steps = ["read the id"]

    async def command(self, *words: str) -> str:
        self.steps.append(f"quickcomm {' '.join(words)}")
        where = ("--data-dir", str(self._scene.site.data_dir))
        return await asyncio.to_thread(quickcomm, *words, *where, timeout=240)

    async def trace(self, identifier: str) -> str:
        """Look once; the cause must be in it."""
        said = await self.command("trace", identifier)
        took = time.monotonic() - self._began
        assert len(self.steps) == FOUND_IN
        sys.stdout.write(f"\n{self._drill}: found in {len(self.steps)} steps, {took:.1f} s\n{said}\n")
        return said

    async def do_as_told(self, said: str) -> None:
        """Do what each line with a command says."""
        lines = [COMMAND.search(line) for line in said.splitlines() if "→" in line]
        assert lines, said
        for found in lines:
            assert found is not None, said
            began = time.monotonic()
            await self.command(*found[0].split()[1:])
            sys.stdout.write(f"{self._drill}: {self.steps[-1]}, {time.monotonic() - began:.1f} s\n")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Scene]:
    folder = tmp_path_factory.mktemp("d")
    valkey = Valkey(folder / "store", maxmemory_policy="noeviction")
    valkey.start()
    try:
        async with AsyncExitStack() as stack:
            sockets = {user: folder / f"{user}.sock" for user in users()}
            wires = {
                user: await stack.enter_async_context(proxied(valkey.port, socket_path=path))
                for user, path in sockets.items()
            }
            model = await stack.enter_async_context(fake_llm())
            address = ("--redis-url", f"unix://{folder}/{{user}}.sock", "--llm-url", model.url)
            site = Site(folder / "data", "--deployment", "services", *address)
            try:
                await asyncio.to_thread(site.start)
                await asyncio.to_thread(site.key, "read")
                made = Scene(site, valkey, wires, model)
                await made.say()
                yield made
            finally:
                await asyncio.to_thread(site.make_sure)
    finally:
        valkey.stop()


@contextlib.asynccontextmanager
async def hanging(site: Site, module: str) -> AsyncIterator[int]:
    """A process that hangs, until it is replaced."""
    pid = (await asyncio.to_thread(site.process, module)).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def test_a_slow_hop(scene: Scene) -> None:
    slow = scene.wires["intelligence"]
    slow.delay_s = SLOW_S
    try:
        said = await scene.say()
        card = await scene.card(said.conversation_id, pushed)
        operator = Operator(scene, "a slow hop")
        told = await operator.trace(card["utterance_id"])
    finally:
        slow.delay_s = 0.0
    pid = (await asyncio.to_thread(scene.site.process, "intelligence")).pid
    assert "Waiting in line (queue, of intelligence) took" in told
    [cause] = [line for line in told.splitlines() if line.startswith("hop.slow: ")]
    assert cause.startswith("hop.slow: The hop between the store and intelligence")
    assert f"(service side, pid {pid}) is slow: an answer takes " in cause
    again = await scene.say()
    card = await scene.card(again.conversation_id, pushed)
    assert "hop.slow" not in await Operator(scene, "after it").trace(card["utterance_id"])


async def test_a_dropped_consumer(scene: Scene) -> None:
    async with hanging(scene.site, "intelligence") as pid, scene.saying() as wire:
        await wire.until("utterance")
        card = await scene.card(wire.conversation_id, lambda card: not card["insights"])
        operator = Operator(scene, "a dropped consumer")
        told = await operator.trace(card["utterance_id"])
        [cause] = [line for line in told.splitlines() if line.startswith("group.waits: ")]
        where = f"in partition {partition(wire.conversation_id)} of transcripts.v1"
        assert "Its transcript waits for intelligence (service side, group intelligence) since " in cause
        assert where in cause
        assert f"(service side, pid {pid}) does not answer." in cause
        assert "→ quickcomm restart intelligence" in told
        await operator.do_as_told(told)
        await scene.card(wire.conversation_id, lambda card: bool(card["insights"]))
        await wire.end()


async def test_a_wrong_prompt(scene: Scene, tmp_path: Path) -> None:
    wrong = write(tmp_path, "wrong.toml", named("wrong", system="Everything at $site is for engineering."))
    scene.model.obeys = {"is for engineering": {"department": "engineering"}}
    where = ("--data-dir", str(scene.site.data_dir))
    await asyncio.to_thread(quickcomm, "prompts", "deploy", str(wrong), "--force", *where)
    said = await scene.say()
    card = await scene.card(said.conversation_id, lambda card: bool(card["insights"]))
    assert card["insights"][0]["department"] == "engineering", "the fault is planted"
    operator = Operator(scene, "a wrong prompt")
    told = await operator.trace(card["utterance_id"])
    [line] = [line for line in told.splitlines() if line.startswith("Understood by ")]
    assert f"with prompt {card['insights'][0]['prompt_version']} “wrong”" in line
    assert ", without the evidence of an evaluation; before it: " in line
    assert "→ if it is wrong: quickcomm prompts rollback" in told
    await operator.do_as_told(told)
    again = await scene.say()
    card = await scene.card(again.conversation_id, lambda card: bool(card["insights"]))
    assert card["insights"][0]["department"] == "housekeeping"


async def test_a_poisoned_message(scene: Scene) -> None:
    conversation = new_id("poisoned")
    database = scene.site.layout.directory.dashboard.database
    trigger = f"""
        CREATE TRIGGER planted BEFORE UPDATE ON dashboard_utterances
        WHEN NEW.conversation_id = '{conversation}' AND NEW.found IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'no such department'); END
    """
    await asyncio.to_thread(change, database, trigger)
    said = await scene.say(conversation)
    utterance_id = said.of("utterance")[0]["utterance_id"]
    await letters(scene, 2)
    card = await scene.card(conversation, lambda card: not card["insights"])
    assert card["utterance_id"] == utterance_id
    operator = Operator(scene, "a poisoned message")
    told = await operator.trace(utterance_id)
    causes = [line for line in told.splitlines() if line.startswith("dead_letter: ")]
    assert len(causes) == 2, "one for each group that could not handle it"
    for group in ("dashboard", "decisions"):
        of_group = f"of insights.v1) could not be handled by dashboard (service side, group {group}): "
        assert any(of_group in cause and "no such department" in cause for cause in causes)
    await asyncio.to_thread(change, database, "DROP TRIGGER planted")
    await operator.do_as_told(told)
    await scene.card(conversation, lambda card: bool(card["insights"]))
    await letters(scene, 0)


async def test_a_full_partition(scene: Scene) -> None:
    conversation = new_id("full")
    async with hanging(scene.site, "intelligence") as pid:
        await fill(scene, partition(conversation))
        async with scene.saying(conversation) as wire:
            await refused(scene, conversation)
            operator = Operator(scene, "a full partition")
            told = await operator.trace(conversation)
            assert f"There is no card of {conversation}." in told
            [cause] = [line for line in told.splitlines() if line.startswith("partition.full: ")]
            assert f"Publishing waits: partition {partition(conversation)} of transcripts.v1 is full." in cause
            assert f"{HIGH_WATER} messages wait there for intelligence (service side, group intelligence)" in cause
            assert f"(service side, pid {pid}) does not answer." in cause
            await operator.do_as_told(told)
            said = await wire.until("utterance")
            await scene.card(conversation, bool)
            late = await Operator(scene, "a card that is late by it").trace(said["utterance_id"])
            assert "Saving the text (publish, of audio) was tried again and again: Partition" in late
            # Two groups of intelligence read there; which one is further behind after the restart is chance.
            assert re.search("is full: (intelligence|summaries) is behind there", late)
            await wire.end()


async def test_a_dropped_consumer_on_one_side_of_a_migration(new_site: NewSite) -> None:
    site = new_site("--deployment", "monolith")
    await asyncio.to_thread(site.start)
    where = ("--data-dir", str(site.data_dir))
    await asyncio.to_thread(quickcomm, "scale", "intelligence=1", *where, timeout=240)
    key = await asyncio.to_thread(site.key)
    async with routing(site) as routes:
        await routes.put("intelligence", 10_000)
        async with hanging(site, "intelligence") as pid, connected(site.url, key, new_id("side")) as wire:
            await wire.until("ready")
            await wire.send(talk_of(TOWELS), 3_200)
            said = await wire.until("utterance")
            told = await asyncio.to_thread(quickcomm, "trace", said["utterance_id"], *where)
    [cause] = [line for line in told.splitlines() if line.startswith("group.waits: ")]
    assert "waits for intelligence (service side, group intelligence@service) since " in cause
    assert f"(service side, pid {pid}) does not answer." in cause
    assert "monolith side" not in cause, "it reads as well, and is not to answer"


def change(database: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute(statement)


async def letters(scene: Scene, count: int) -> None:
    """Return when there are so many dead letters."""
    async with asyncio.timeout(EVENTUALLY_S):
        link = Link(scene.valkey.url)
        try:
            while int(await link.call("HLEN", Names().dead)) != count:  # noqa: ASYNC110 - only the store knows
                await asyncio.sleep(0.05)
        finally:
            await link.aclose()


async def fill(scene: Scene, part: int) -> None:
    """Fill a partition of the transcripts with what nobody has to think about: noise, said once and told often."""
    noise = next(name for name in (new_id("noise") for _ in range(1_000)) if partition(name) == part)
    message = UtteranceTranscribed(
        site="main",
        conversation_id=noise,
        utterance_id=f"{noise}:0:0",
        channel="noise",
        speaker=0,
        seq=1,
        start_offset=0,
        end_offset=16_000,
        sample_rate=16_000,
        text="",
        words=(),
        confidence=0.0,
        status="unintelligible",
        stt_model="none",
        spoken_at_ns=time.time_ns(),
        speech_ended_ns=time.time_ns(),
        published_ns=time.time_ns(),
        latency=Latency(),
    )
    link = Link(scene.valkey.url)
    try:
        await link.run(_FILL, (Names().part(TRANSCRIPTS, part),), HIGH_WATER, noise, msgspec.json.encode(message))
    finally:
        await link.aclose()


async def refused(scene: Scene, conversation: str) -> None:
    """Return when audio has tried to publish, and could not."""
    async with asyncio.timeout(EVENTUALLY_S):
        logs = [path for path in scene.site.layout.logs.glob("audio*.log") if "access" not in path.name]
        while True:
            lines = [line for path in logs for line in path.read_text(errors="replace").splitlines()]
            if any("conversation.store_failed" in line and conversation in line for line in lines):
                return
            await asyncio.sleep(0.1)
