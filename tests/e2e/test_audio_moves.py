"""Audio moves between the monolith and a service while people talk, there and back; a process is killed on the way."""

import asyncio
import json
import os
import signal
from typing import Final

import aiohttp
import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_check import check
from tests.e2e.test_migrate import Operator
from tests.support.kills import Toll, count
from tests.support.resuming import Heard, assert_as_undisturbed, assert_listed_once, assert_same_text, stream
from tests.support.routing import routing
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import RATE, Talk
from tests.support.wire import connected, new_id

from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Ready
from quickcomm.contracts.identity import BUCKETS, bucket
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.traffic.model.overflow import NO_ROOM

TALKERS: Final = 6
ROUNDS: Final = 3
PAUSE_S: Final = 2.0
WEIGHTS: Final = (10_000, 0, 5_000)
BLOCK: Final = RATE // 10


async def started(new_site: NewSite, **settings: str) -> Site:
    site = new_site("--deployment", "monolith", **settings)
    await asyncio.to_thread(site.start)
    await asyncio.to_thread(quickcomm, "scale", "audio=1", "--data-dir", str(site.data_dir), timeout=240)
    return site


async def sessions(site: Site) -> dict[str, int]:
    """How many conversations each side has."""
    rows = await asyncio.to_thread(site.status)
    names = {"monolith": MONOLITH, "audio": SERVICE}
    return {names[row["module"]]: row.get("sessions", 0) for row in rows if row["module"] in names}


async def until_has(site: Site, side: str, conversations: int) -> None:
    async with asyncio.timeout(EVENTUALLY_S):
        while (await sessions(site)).get(side) != conversations:  # noqa: ASYNC110 - a process tells nobody
            await asyncio.sleep(0.1)


class Line:
    """Somebody who talks for most of a minute, and stays on the line until `stays` is set."""

    def __init__(self, site: Site, key: str, talk: Talk, stays: asyncio.Event | None = None) -> None:
        self.connections = 0
        self._changed = asyncio.Event()
        self.heard = asyncio.create_task(
            stream(site.url, key, talk.wire * ROUNDS, self._watch, paced=True, stays=stays)
        )

    async def until(self, connections: int) -> None:
        """Return once it is connected for so many times."""
        async with asyncio.timeout(EVENTUALLY_S):
            while self.connections < connections:
                self._changed.clear()
                await self._changed.wait()

    def _watch(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.connections += 1
            self._changed.set()


async def assert_whole(site: Site, all_heard: list[Heard], undisturbed: Heard) -> None:
    """Nothing is lost, doubled, or out of order; the page has it once."""
    toll = Toll(seed=0, kills={})
    for heard in all_heard:
        count(toll, heard, undisturbed)
        assert_as_undisturbed(heard, undisturbed)
        await assert_listed_once(site, heard)
    assert toll.faults == {}
    assert_same_text(all_heard, [undisturbed] * len(all_heard))


@pytest.mark.long
async def test_talkers_go_there_and_back_and_a_side_is_killed(new_site: NewSite, talk: Talk) -> None:
    site = await started(new_site)
    key = await asyncio.to_thread(site.key)
    async with routing(site) as routes:
        undisturbed = await stream(site.url, key, talk.wire * ROUNDS)
        lines = [Line(site, key, talk) for _ in range(TALKERS)]
        await asyncio.gather(*(line.until(1) for line in lines))
        pid = (await asyncio.to_thread(site.process, "audio")).pid
        await routes.put("audio", 10_000)
        await asyncio.gather(*(line.until(2) for line in lines))
        assert await sessions(site) == {MONOLITH: 0, SERVICE: TALKERS}
        os.kill(pid, signal.SIGKILL)
        await routes.put("audio", 0)
        await asyncio.gather(*(line.until(3) for line in lines))
        assert (await sessions(site))[MONOLITH] == TALKERS
        await assert_whole(site, [await line.heard for line in lines], undisturbed)
        findings, _ = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
        assert findings == []


@pytest.mark.long  # each step by hand: tests/contract/test_hand_over.py
async def test_weights_change_all_the_time(new_site: NewSite, talk: Talk) -> None:
    site = await started(new_site)
    key = await asyncio.to_thread(site.key)
    async with routing(site) as routes:
        undisturbed = await stream(site.url, key, talk.wire * ROUNDS)
        lines = [Line(site, key, talk) for _ in range(TALKERS)]
        number = 0
        while not all(line.heard.done() for line in lines):
            await routes.put("audio", WEIGHTS[number % len(WEIGHTS)])
            number += 1
            await asyncio.sleep(PAUSE_S)
        assert min(line.connections for line in lines) > 2
        await assert_whole(site, [line.heard.result() for line in lines], undisturbed)


@pytest.mark.long  # by a store alone: tests/contract/test_hand_over.py
async def test_a_client_that_cannot_resume_stays_and_is_ended_in_a_pause(new_site: NewSite, talk: Talk) -> None:
    site = await started(new_site, QUICKCOMM_AUDIO_STAY_S="1")
    key = await asyncio.to_thread(site.key)
    async with routing(site) as routes, connected(site.url, key, new_id(), resume="no") as wire:
        await wire.until("ready")
        await routes.put("audio", 10_000)
        await wire.send(talk.wire[: 2 * 10 * RATE], 2 * BLOCK)  # ten seconds, as fast as it is taken
        assert await wire.until_closed() == 1001
        assert wire.of("reconnect") == []
        assert wire.heard[-1]["type"] == "ended"
        ledger = wire.heard[-1]["ledger"]
        assert ledger["received"] == ledger["speech"] + ledger["silence"] + ledger["gap"]
        async with connected(site.url, key, new_id(), resume="no") as again:
            await again.until("ready")
            assert await sessions(site) == {MONOLITH: 0, SERVICE: 1}


@pytest.mark.long  # each part: unit/test_audio_overflow.py, unit/test_migration_machine.py, integration/test_edge.py
async def test_a_channel_has_its_side_and_what_has_no_room_is_with_the_monolith(new_site: NewSite, talk: Talk) -> None:
    site = new_site("--deployment", "monolith", QUICKCOMM_AUDIO_MAX_SESSIONS="2")
    await asyncio.to_thread(site.start)
    operator, key = Operator(site), await asyncio.to_thread(site.key)
    undisturbed = await stream(site.url, key, talk.wire * ROUNDS)
    await operator.migrate("start", "audio", "--force")
    assert "canary 1 %" in await operator.migrate("step", "audio", "--force")
    refused = await operator.migrate("override", "audio", "--site", "main", "--to", "services", status=1)
    assert "Use --channel or --conversation" in refused
    await operator.migrate("override", "audio", "--channel", "the pool", "--to", "services")
    with_the_monolith = next(name for name in iter(new_id, "") if bucket("audio", name) >= BUCKETS // 100)
    async with connected(site.url, key, with_the_monolith, channel="the pool") as wire:
        await wire.until("ready")
        assert await sessions(site) == {MONOLITH: 0, SERVICE: 1}
        await operator.migrate("override", "audio", "--channel", "the pool", "--remove")
        assert (await wire.until("reconnect"))["reason"] == "handover"

    await operator.migrate("promote", "audio", "--force")
    lines = []
    for _ in range(4):
        lines.append(Line(site, key, talk))
        await lines[-1].until(1)
    history = map(json.loads, (await operator.migrate("history", "--limit", "200", "--json")).splitlines())
    given = {row["after"] for row in history if (row["action"], row["why"]) == ("override", NO_ROOM)}
    assert len(given) >= 2, "each of those that it could not take"
    with pytest.raises(aiohttp.WSServerHandshakeError) as full:
        async with connected(site.url, key, new_id()):
            pass
    assert full.value.status == 503
    await assert_whole(site, [await line.heard for line in lines], undisturbed)
