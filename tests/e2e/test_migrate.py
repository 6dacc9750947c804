"""`quickcomm migrate` on a real site: there and back by the command line, a candidate that hangs, a restart halfway."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.conftest import NewSite
from tests.support.onlooker import Onlooker, onlooking
from tests.support.resuming import Heard, assert_listed_once, stream
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk, shift_talk

from quickcomm.kernel.messaging.bus.redis_address import for_user
from quickcomm.kernel.messaging.bus.redis_link import Link
from quickcomm.kernel.messaging.bus.redis_names import PREFIX
from quickcomm.operate.up import store
from quickcomm.operate.up.access import UP

Json = dict[str, Any]


class Operator:
    def __init__(self, site: Site) -> None:
        self._site = site

    async def migrate(self, *words: str, status: int = 0) -> str:
        where = ("--data-dir", str(self._site.data_dir))
        return await asyncio.to_thread(
            quickcomm, "migrate", *words, *where, timeout=300, statuses=(status,), errors=status != 0
        )

    async def dashboard(self) -> Json:
        found: Json = json.loads(await self.migrate("status", "--json"))["modules"][0]
        return found

    async def until(self, holds: Callable[[Json], bool]) -> Json:
        async with asyncio.timeout(3 * EVENTUALLY_S):
            while not holds(found := await self.dashboard()):  # noqa: ASYNC110 - the controller tells nobody
                await asyncio.sleep(0.2)
        return found


@pytest.fixture
async def site(new_site: NewSite) -> Site:
    made = new_site("--deployment", "monolith")
    await asyncio.to_thread(made.start)
    return made


async def say(site: Site, talk: Talk) -> Heard:
    return await stream(site.url, await asyncio.to_thread(site.key), talk.wire)


async def has(page: Onlooker, heard: Heard) -> None:
    await page.until(lambda one: all(one.classified(each.utterance_id) for each in heard.utterances))


@pytest.mark.long
async def test_there_by_steps_retired_started_anew_and_back(site: Site) -> None:
    operator, talk = Operator(site), shift_talk()
    before = await say(site, talk)
    refused = await operator.migrate("step", "dashboard", status=1)
    assert "quickcomm migrate start MODULE" in refused
    async with onlooking(site) as page:
        await has(page, before)
        monolith = page.side
        assert "shadow, the monolith decides" in await operator.migrate("start", "dashboard")
        assert "The gate has not passed yet" in await operator.migrate("step", "dashboard", status=1)
        for share in ("1 %", "5 %", "25 %", "50 %"):
            assert f"canary {share}" in await operator.migrate("step", "dashboard", "--force")
        assert "full, the service decides" in await operator.migrate("step", "dashboard", "--force")
        await page.until(lambda one: one.side != monolith)
        assert "retired" in await operator.migrate("step", "dashboard", "--force")
        compared = ("check", "--sides", "--data-dir", str(site.data_dir))
        assert "one side only" in await asyncio.to_thread(quickcomm, *compared, statuses=(2,), errors=True)
        meanwhile = await say(site, talk)
        await has(page, meanwhile)
        await asyncio.to_thread(site.down)
        site.launch()
        await asyncio.to_thread(site.wait_ready)
        assert {row["module"] for row in await asyncio.to_thread(site.status)} >= {"monolith", "dashboard", "traffic"}
        assert (await operator.dashboard())["mode"] == "retired"
        after = await say(site, talk)
        await has(page, after)
        assert "shadow, the monolith decides" in await operator.migrate("rollback", "dashboard", "--reason", "a test")
        await page.until(lambda one: one.connected)
        last = await say(site, talk)
        await has(page, last)
    assert "off" in await operator.migrate("step", "dashboard")
    for one in (before, meanwhile, after, last):
        await assert_listed_once(site, one)
    audit = [json.loads(line) for line in (await operator.migrate("history", "--json")).splitlines()]
    assert any(row["why"] == "a test" for row in audit)
    where = ("--data-dir", str(site.data_dir))
    assert "nothing is wrong" in await asyncio.to_thread(quickcomm, "check", "--settle", "1", *where)


@pytest.mark.long
async def test_a_candidate_that_hangs_is_taken_back_by_itself(site: Site) -> None:
    operator, talk = Operator(site), shift_talk()
    await operator.migrate("start", "dashboard")
    await operator.migrate("promote", "dashboard", "--force")
    pid = site.process("dashboard").pid
    os.kill(pid, signal.SIGSTOP)
    try:
        found = await operator.until(lambda module: module["weight"] == 0)
        assert found["decides"] == "monolith"
        async with onlooking(site) as page:
            await has(page, await say(site, talk))
            task_id = next(task["task_id"] for card in page.cards.values() for task in card["tasks"])
            done = await asyncio.to_thread(site.ask, "POST", f"/v1/tasks/{task_id}/complete", site.key("admin"))
            assert done.status == 200
    finally:
        os.kill(pid, signal.SIGCONT)
    audit = [json.loads(line) for line in (await operator.migrate("history", "--json")).splitlines()]
    [breach] = [row for row in audit if row["action"] == "rollback"]
    assert breach["who"] == "controller"
    assert any(figure["outcome"] == "breach" for figure in breach["evidence"])


@pytest.mark.long  # before and after each call: tests/contract/test_controller.py
async def test_a_controller_that_is_killed_in_a_step_goes_on_with_it(site: Site) -> None:
    operator = Operator(site)
    await operator.migrate("start", "dashboard")
    asked = asyncio.create_task(operator.migrate("promote", "dashboard", "--force", status=1))
    await operator.until(lambda module: module["change"] != "" or module["weight"] != 0)
    os.kill(site.process("traffic").pid, signal.SIGKILL)
    await asyncio.gather(asked, return_exceptions=True)  # the command may have had its answer just before
    await asyncio.to_thread(site.wait_ready)
    found = await operator.until(lambda module: module["change"] == "")
    assert (found["mode"], found["decides"]) in {("full", "service"), ("shadow", "monolith")}
    assert "monolith decides" in await operator.migrate("kill-switch", "dashboard", "--reason", "a test")
    assert "is paused" in await operator.migrate("start", "dashboard", status=1)


async def sides_of(page: Onlooker, heard: Heard) -> list[Json]:
    """Return, of each utterance's receipt, the side of each module."""
    await page.until(lambda one: all("total" in _receipt(one, each.utterance_id) for each in heard.utterances))
    return [_receipt(page, each.utterance_id).get("sides", {}) for each in heard.utterances]


def _receipt(page: Onlooker, utterance_id: str) -> Json:
    receipt: Json = page.cards.get(utterance_id, {}).get("latency_ms", {})
    return {name: value for name, value in receipt.items() if value is not None}


@pytest.mark.long  # the scripts alone: tests/contract/test_sides.py
async def test_a_channel_is_given_to_a_side_and_what_is_made_says_which_one_made_it(site: Site) -> None:
    operator, talk = Operator(site), shift_talk()
    async with onlooking(site) as page:
        before = await say(site, talk)
        assert await sides_of(page, before) == [{}] * len(before.utterances)
        assert b'side="' not in (await asyncio.to_thread(site.get, "/metrics", "read")).body
        channel = page.cards[before.utterances[0].utterance_id]["channel"]
        await operator.migrate("start", "intelligence", "--force")
        refused = await operator.migrate("weight", "intelligence", "10", status=1)
        assert "in a canary alone" in refused
        await operator.migrate("step", "intelligence", "--force")
        assert "canary 0.5 %" not in await operator.migrate("status")
        told = await operator.migrate("weight", "intelligence", "1.5", "--force")
        assert "canary 1.5 %" in told
        for side in ("services", "monolith"):
            await operator.migrate("override", "intelligence", "--channel", channel, "--to", side, "--reason", "a test")
            heard = await say(site, talk)
            served = {"audio": "monolith", "intelligence": side.removesuffix("s"), "dashboard": "monolith"}
            assert await sides_of(page, heard) == [served] * len(heard.utterances)
            told = await asyncio.to_thread(
                quickcomm, "trace", heard.utterances[0].utterance_id, "--json", "--data-dir", str(site.data_dir)
            )
            assert {step["side"] for step in json.loads(told)["steps"] if step["stage"] == "classify"} == {
                side.removesuffix("s")
            }
        metrics = (await asyncio.to_thread(site.get, "/metrics", "read")).body.decode()
        for side in ("services", "monolith"):
            assert f'quickcomm_stage_seconds_count{{side="{side}",stage="classify"}}' in metrics
        assert 'quickcomm_stage_seconds_count{side="services",stage="stt"}' not in metrics
        assert 'process_cpu_seconds_total{side="monolith"}' in metrics
        status = json.loads(await operator.migrate("status", "--json"))["modules"][1]
        assert [(each["kind"], each["of"], each["side"]) for each in status["overrides"]] == [
            ("channel", channel, "monolith")
        ]
        assert all(figure["numbers"] for figure in status["figures"] if figure["detail"][:1].isdigit())
        await operator.migrate("rollback", "intelligence")
        status = json.loads(await operator.migrate("status", "--json"))["modules"][1]
        assert (status["mode"], status["overrides"]) == ("shadow", [])
        assert {each["intelligence"] for each in await sides_of(page, await say(site, talk))} == {"monolith"}


@pytest.mark.long  # each store alone: tests/contract/test_routing.py
async def test_a_site_starts_with_routes_that_cannot_be_read(site: Site) -> None:
    """By what the controller has stored; it publishes them again."""
    operator = Operator(site)
    await operator.migrate("start", "dashboard")
    await operator.migrate("promote", "dashboard", "--force")
    await operator.migrate("step", "dashboard", "--force")
    await asyncio.to_thread(quickcomm, "scale", "traffic=0", "--data-dir", str(site.data_dir), timeout=120)
    link = Link(for_user(store.url(site.layout), UP))
    try:
        await link.call("HSET", f"{PREFIX}:routes", "routes", "no JSON", "version", "no number")
    finally:
        await link.aclose()
    await asyncio.to_thread(site.down)
    site.launch()
    await asyncio.to_thread(site.wait_ready)
    assert (await operator.until(lambda found: not found["change"]))["mode"] == "retired"
    await assert_listed_once(site, await say(site, shift_talk()))
    status: Json = json.loads(await operator.migrate("status", "--json"))
    assert set(status["followers"].values()) == {status["version"]}
    logs = (site.layout.logs / "monolith-1.log").read_text()
    assert logs.count("routes.not_known") == 1
