"""Intelligence moves between the monolith and a service while people talk, and back from one that hangs."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_check import check
from tests.support.resuming import Heard, assert_as_undisturbed, assert_listed_once, stream
from tests.support.routing import Routing, routing
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk, shift_talk

from quickcomm.client.audio_client import Event
from quickcomm.contracts.audio_socket import Insights, Utterance
from quickcomm.contracts.routes import MONOLITH, SERVICE
from quickcomm.kernel.runtime.data_directory import DataDirectory

WEIGHTS: Final = (10_000, 4_000, 0, 6_000, 0, 10_000, 2_000)
LINES: Final = 4
SAMPLES: Final = 45
"""So many utterances show where the 95th percentile is, with this confidence."""
GATES: Final = {
    "QUICKCOMM_TRAFFIC_CONFIDENCE": "0.8",
    "QUICKCOMM_BUDGETS_CLASSIFY": "10000",  # how fast this machine is is no matter here
    "QUICKCOMM_TRAFFIC_SILENT_S": "600",
    "QUICKCOMM_TRAFFIC_QUEUE_AGE_S": "600",
    "QUICKCOMM_TRAFFIC_OLDEST_UNANSWERED_S": "600",
}
Json = dict[str, Any]


async def answered_once(routes: Routing, heard: Heard) -> set[str]:
    """Each utterance has one answer, by the side that was stamped last; return the sides."""
    stamps = {
        each.utterance_id: (each.owner, each.owner_epoch) for each in await routes.transcripts(heard.conversation_id)
    }
    found = await routes.insights(heard.conversation_id)
    assert {each.utterance_id: (each.owner, each.owner_epoch) for each in found} == stamps
    assert [each.utterance_id for each in found] == [each.utterance_id for each in heard.utterances]
    epochs = [each.owner_epoch for each in found]
    assert epochs == sorted(epochs)
    return {each.owner for each in found}


async def started(new_site: NewSite) -> Site:
    site = new_site("--shape", "monolith", QUICKCOMM_AUDIO_REASSIGN_AFTER_S="0.3")
    await asyncio.to_thread(site.start)
    await asyncio.to_thread(quickcomm, "scale", "intelligence=1", "--data-dir", str(site.data_dir), timeout=240)
    return site


@pytest.mark.long  # each interleaving: tests/contract/test_sides.py
async def test_weights_change_while_people_talk(new_site: NewSite, talk: Talk) -> None:
    site = await started(new_site)
    key = await asyncio.to_thread(site.key)
    async with routing(site) as routes:
        undisturbed = await stream(site.url, key, talk.wire)
        assert await answered_once(routes, undisturbed) == {MONOLITH}
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(stream(site.url, key, talk.wire, paced=True)) for _ in range(LINES)]
            number = 0
            while not all(task.done() for task in talking):
                await routes.put("intelligence", WEIGHTS[number % len(WEIGHTS)])
                number += 1
                await asyncio.sleep(0.5)
        sides: set[str] = set()
        for heard in [task.result() for task in talking]:
            assert_as_undisturbed(heard, undisturbed)
            await assert_listed_once(site, heard)
            sides |= await answered_once(routes, heard)
        assert sides == {MONOLITH, SERVICE}
        findings, totals = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
        assert (findings, totals["findings"]) == ([], 0), "each side knows what the other one has answered"


@pytest.mark.long
async def test_a_service_that_hangs_is_left_at_once_and_its_late_answers_count_for_nothing(
    new_site: NewSite, talk: Talk
) -> None:
    site = await started(new_site)
    key = await asyncio.to_thread(site.key)
    async with routing(site) as routes:
        undisturbed = await stream(site.url, key, talk.wire)
        await routes.put("intelligence", 10_000)
        heard = await stream(site.url, key, talk.wire)
        assert_as_undisturbed(heard, undisturbed)
        assert await answered_once(routes, heard) == {SERVICE}
        pid = (await asyncio.to_thread(site.process, "intelligence")).pid
        waits = asyncio.Event()
        open_: set[str] = set()

        def watch(event: Event) -> None:
            if isinstance(event, Utterance):
                open_.add(event.utterance_id)
            if isinstance(event, Insights):
                open_.discard(event.utterance_id)
            if len(open_) > 1:
                waits.set()

        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.TaskGroup() as tasks:
                talking = tasks.create_task(stream(site.url, key, talk.wire, watch))
                await waits.wait()
                await routes.put("intelligence", 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert_as_undisturbed(talking.result(), undisturbed)
        assert await answered_once(routes, talking.result()) == {MONOLITH}
        await routes.put("intelligence", 10_000)
        again = await stream(site.url, key, talk.wire)
        assert await answered_once(routes, again) == {SERVICE}
        assert await answered_once(routes, talking.result()) == {MONOLITH}, "it is awake, and was refused"
        await assert_listed_once(site, talking.result())


@pytest.mark.long  # by two databases: tests/contract/test_other_side.py
async def test_a_prompt_that_is_deployed_is_in_force_on_both_sides(new_site: NewSite, tmp_path: Path) -> None:
    site = await started(new_site)
    mine = tmp_path / "mine.toml"

    async def prompts(*words: str) -> str:
        return await asyncio.to_thread(quickcomm, "prompts", *words, "--data-dir", str(site.data_dir))

    def live(database: Path) -> str:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            query = (
                "SELECT p.name FROM intelligence_prompts p JOIN intelligence_prompt_deployments d ON d.live_id = p.id"
            )
            row = connection.execute(f"{query} ORDER BY d.revision DESC").fetchone()
            return "" if row is None else str(row[0])

    async with routing(site) as routes:
        await routes.put("intelligence", 0)
        mine.write_text((await prompts("show", "live")).replace('name = "', 'name = "mine of ', 1))
        await prompts("deploy", str(mine), "--force")
        directory = DataDirectory(site.data_dir)
        async with asyncio.timeout(EVENTUALLY_S):
            while not live(directory.intelligence.database).startswith("mine of "):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
        await routes.put("intelligence", 10_000, decides=SERVICE)
        await prompts("rollback")
        assert not live(directory.intelligence.database).startswith("mine of ")
        async with asyncio.timeout(EVENTUALLY_S):
            while live(directory.database).startswith("mine of "):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)


class Operator:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def migrate(self, *words: str, status: int = 0) -> str:
        where = ("--data-dir", str(self._site.data_dir))
        return await asyncio.to_thread(
            quickcomm, "migrate", *words, *where, timeout=300, statuses=(status,), errors=status != 0
        )

    async def intelligence(self) -> Json:
        modules: list[Json] = json.loads(await self.migrate("status", "--json"))["modules"]
        return next(module for module in modules if module["name"] == "intelligence")

    async def until(self, holds: Callable[[Json], bool]) -> Json:
        async with asyncio.timeout(3 * EVENTUALLY_S):
            while not holds(found := await self.intelligence()):  # noqa: ASYNC110 - the controller tells nobody
                await asyncio.sleep(0.2)
        return found


@pytest.mark.long
async def test_a_candidate_that_agrees_passes_its_gate_and_one_that_hangs_holds_nothing_up(new_site: NewSite) -> None:
    site = new_site("--deployment", "monolith", **GATES)
    await asyncio.to_thread(site.start)
    operator, key, wire = Operator(site), await asyncio.to_thread(site.key), shift_talk().wire
    undisturbed = await stream(site.url, key, wire)
    assert "shadow, the monolith decides" in await operator.migrate("start", "intelligence", "--force")
    refused = await operator.migrate("step", "intelligence", status=1)
    assert "agreement: nothing was compared yet" in refused
    assert "samples are missing" in refused
    pid = (await asyncio.to_thread(site.process, "intelligence")).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert_as_undisturbed(await stream(site.url, key, wire), undisturbed)
    finally:
        os.kill(pid, signal.SIGCONT)
    said = 0
    while said < SAMPLES:
        heard = await stream(site.url, key, wire)
        assert_as_undisturbed(heard, undisturbed)
        await assert_listed_once(site, heard)
        said += len(heard.utterances)
    found = await operator.until(lambda module: module["gate"] == "pass")
    understood = found["understood"]
    assert understood["compared"] >= SAMPLES
    assert understood["alike"] == understood["compared"], understood
    assert understood["differences"] == []
    assert {field["name"] for field in understood["fields"]} >= {"intent", "department", "urgency", "rooms", "items"}
    assert all(side["p95_ms"] > 0 for side in understood["sides"])
    shown = await operator.migrate("status")
    assert "understood on both sides" in shown
    listed = await asyncio.to_thread(site.get, "/v1/migration", "read")
    [over_rest] = [module for module in listed.json()["modules"] if module["name"] == "intelligence"]
    assert over_rest["understood"]["compared"] >= SAMPLES
    assert "canary 1 %, the monolith decides" in await operator.migrate("step", "intelligence")
    findings, totals = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
    assert (findings, totals["findings"]) == ([], 0)


@pytest.mark.long  # as long as a process is given that hangs
async def test_a_candidate_that_hangs_in_the_shadow_is_stopped_and_may_be_started_again(new_site: NewSite) -> None:
    site = new_site("--deployment", "monolith")
    await asyncio.to_thread(site.start)
    operator, key, wire = Operator(site), await asyncio.to_thread(site.key), shift_talk().wire
    undisturbed = await stream(site.url, key, wire)
    await operator.migrate("start", "intelligence", "--force")
    pid = (await asyncio.to_thread(site.process, "intelligence")).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert_as_undisturbed(await stream(site.url, key, wire), undisturbed)
        off = await operator.until(lambda module: module["mode"] == "off" and not module["change"])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert "silent" in off["why"] or "queue age" in off["why"]
    await operator.migrate("start", "intelligence", "--force")
    heard = await stream(site.url, key, wire)
    assert_as_undisturbed(heard, undisturbed)
    found = await operator.until(
        lambda module: (module["understood"] or {}).get("compared", 0) >= len(heard.utterances)
    )
    assert found["understood"]["alike"] == found["understood"]["compared"]
    findings, totals = await asyncio.to_thread(check, site.data_dir, "--settle", "10")
    assert (findings, totals["findings"]) == ([], 0), "what it missed came with the copy"
