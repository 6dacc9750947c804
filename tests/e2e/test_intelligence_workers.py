"""A site whose intelligence is several processes: they agree, one dies under load, the model goes and comes back."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewSite
from tests.e2e.test_prompts import SHORTER, prompts
from tests.support.llm import fake_llm
from tests.support.onlooker import onlooking
from tests.support.postgres import PostgresServer
from tests.support.prompting import write
from tests.support.resuming import assert_as_undisturbed, assert_listed_once, stream
from tests.support.server import EVENTUALLY_S, quickcomm
from tests.support.site import Site
from tests.support.talk import Talk
from tests.support.wire import converse

WORKERS: Final = ("intelligence-1", "intelligence-2")
PATIENT: Final = {"QUICKCOMM_LLM_BUDGET_S": "60"}


def workers(site: Site) -> dict[str, dict[str, Any]]:
    return {row["process"]: row for row in site.status() if row["module"] == "intelligence"}


async def started(new_site: NewSite, postgres: PostgresServer, llm_url: str, **settings: str) -> Site:
    """With two workers."""
    url = postgres.url(postgres.create())
    site = new_site(
        "--deployment", "services", "--llm-url", llm_url, QUICKCOMM_INTELLIGENCE_DATABASE_URL=url, **PATIENT, **settings
    )
    await asyncio.to_thread(site.start)
    await asyncio.to_thread(quickcomm, "scale", "intelligence=2", "--data-dir", str(site.data_dir), timeout=240)
    assert tuple(await asyncio.to_thread(workers, site)) == WORKERS
    return site


async def until_state(site: Site, state: str) -> None:
    """Both say so."""
    async with asyncio.timeout(EVENTUALLY_S):
        while {row["llm"]["state"] for row in (await asyncio.to_thread(workers, site)).values()} != {state}:
            pass


async def logged(site: Site, what: str) -> None:
    async with asyncio.timeout(EVENTUALLY_S):
        while not all(what in (site.layout.logs / f"{name}.log").read_text() for name in WORKERS):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.long
async def test_two_workers_agree_and_one_dies_under_load(
    new_site: NewSite, postgres: PostgresServer, talk: Talk, tmp_path: Path
) -> None:
    async with fake_llm() as fake:
        site = await started(new_site, postgres, fake.url)
        key = await asyncio.to_thread(site.key)
        mine = write(tmp_path, "mine.toml", SHORTER)
        [row] = await asyncio.to_thread(prompts, site, "deploy", mine, "--force")
        await logged(site, f"live={row['prompt_id']}")

        undisturbed = await stream(site.url, key, talk.wire)
        victim = (await asyncio.to_thread(workers, site))[WORKERS[0]]["pid"]
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(stream(site.url, key, talk.wire)) for _ in range(6)]
            calls = len(fake.calls)
            while len(fake.calls) < calls + 3:  # noqa: ASYNC110 - the endpoint has no event for it
                await asyncio.sleep(0.01)
            os.kill(victim, signal.SIGKILL)
        heard = [task.result() for task in talking]
        for each in heard:
            assert_as_undisturbed(each, undisturbed)
            await assert_listed_once(site, each)
            path = f"/v1/utterances?conversation={each.conversation_id}&limit=200"
            listed = (await asyncio.to_thread(site.get, path, "admin")).json()
            cards = [one for card in listed["items"] for one in card["insights"]]
            assert {one["prompt_version"] for one in cards} == {row["prompt_id"]}
        await asyncio.to_thread(site.wait_ready)
        assert tuple(await asyncio.to_thread(workers, site)) == WORKERS


@pytest.mark.long
async def test_the_model_goes_and_comes_back_for_both(new_site: NewSite, postgres: PostgresServer, talk: Talk) -> None:
    async with fake_llm() as fake:
        site = await started(new_site, postgres, fake.url)
        await until_state(site, "up")
        fake.mode = "401"
        said = await converse(site.url, await asyncio.to_thread(site.key), talk.wire)
        await until_state(site, "degraded")
        fake.mode = "answer"
        await until_state(site, "up")
        path = f"/v1/utterances?conversation={said.conversation_id}&limit=100"
        body = await site.until(
            path,
            lambda body: all(item["insights"] and item["insights"][0]["source"] == "llm" for item in body["items"]),
        )
        assert len(body["items"]) == len(said.of("utterance"))


@pytest.mark.long
async def test_while_their_database_is_away_what_is_said_waits_and_is_classified_in_its_order(
    new_site: NewSite, postgres: PostgresServer, talk: Talk
) -> None:
    async with fake_llm() as fake:
        site = await started(new_site, postgres, fake.url, QUICKCOMM_AUDIO_ANSWER_WAIT_S="240")
        key = await asyncio.to_thread(site.key)
        undisturbed = await stream(site.url, key, talk.wire)
        before = await asyncio.to_thread(workers, site)
        async with onlooking(site) as onlooker, asyncio.TaskGroup() as tasks:
            await onlooker.until(lambda one: not one.alarms)
            await asyncio.to_thread(postgres.kill)
            try:
                await onlooker.until(lambda one: "intelligence.store" in one.alarms)
                talking = tasks.create_task(stream(site.url, key, talk.wire))
                await onlooker.until(
                    lambda one: sum(not card["insights"] for card in one.cards.values()) == len(undisturbed.utterances)
                )
            finally:
                await asyncio.to_thread(postgres.start)
            heard = await talking
            await onlooker.until(lambda one: not one.alarms)
        assert_as_undisturbed(heard, undisturbed)
        assert [each.utterance_id for each in heard.insights] == [each.utterance_id for each in heard.utterances]
        await assert_listed_once(site, heard)
        after = await asyncio.to_thread(workers, site)
        assert [row["pid"] for row in after.values()] == [row["pid"] for row in before.values()]
