"""Intelligence with a model over HTTP, the real bus, store and dashboard: what fails is made good on the page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from tests.support.dashboard_site import Site, heard, running
from tests.support.intelligence import Local
from tests.support.llm import TOKENS, FakeLlm, fake_llm

from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.intelligence.adapters.openai_model import OpenAiModel
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.module import Intelligence, IntelligenceSettings
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.site_pack import load_pack

PATIENCE_S = 30.0
PACK = load_pack()


class House:
    """A dashboard, a pipeline and a model server, and what a page was shown of each utterance."""

    def __init__(self, site: Site, fake: FakeLlm, pipeline: Intelligence) -> None:
        self.site = site
        self.fake = fake
        self.pipeline = pipeline
        self.cards: dict[str, list[dict[str, Any]]] = {}
        self.tasks: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    async def watch(self) -> None:
        async with self.site.live() as socket:
            async for message in socket:
                event = message.json()
                if event["type"] == "card" and event["card"]["insights"]:
                    self.cards.setdefault(event["card"]["utterance_id"], []).append(event["card"])
                elif event["type"] == "task":
                    self.tasks.append(event["task"])
                self._news.set()

    async def until(self, holds: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def say(self, *transcripts: UtteranceTranscribed) -> None:
        await self.site.publish(*transcripts)
        await self.until(lambda: all(each.utterance_id in self.cards for each in transcripts))

    def newest(self, transcript: UtteranceTranscribed) -> dict[str, Any]:
        insights: dict[str, Any] = self.cards[transcript.utterance_id][-1]["insights"][0]
        return insights

    def renewed(self, *transcripts: UtteranceTranscribed) -> bool:
        return all(self.newest(each)["source"] == "llm" for each in transcripts)


@asynccontextmanager
async def intelligence(site: Site, url: str, **settings: float) -> AsyncIterator[Intelligence]:
    clock = SystemClock(pauses=0.02)
    llm = msgspec.convert({"url": url, "model": "fake-1", **settings}, LlmSettings)
    pipeline = Intelligence(
        database=site.database,
        bus=site.bus,
        clock=clock,
        classifier=Local(),
        pack=PACK,
        model=OpenAiModel(llm),
        settings=IntelligenceSettings(llm=llm),
    )
    pipeline.migrate()
    try:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(pipeline.run())
            yield pipeline
            pipeline.drain()
            task.cancel()
    finally:
        await pipeline.aclose()


@asynccontextmanager
async def house(path: Path, **settings: float) -> AsyncIterator[House]:
    async with running(path) as site, fake_llm() as fake, intelligence(site, fake.url, **settings) as pipeline:
        here = House(site, fake, pipeline)
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(here.watch())
            yield here
            watching.cancel()


def talk(count: int, start: int = 0) -> list[UtteranceTranscribed]:
    """Three conversations, all texts different."""
    return [
        heard(16_000 * (start + i), f"Bring towel number {start + i}", conversation=f"shift-{i % 3}")
        for i in range(count)
    ]


async def test_the_model_answers(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        said = talk(9)
        await here.say(*said)
        for each in said:
            found = here.newest(each)
            assert (found["source"], found["degraded"], found["revision"]) == ("llm", False, 1)
            assert found["summary"] == f"Model: {each.text}"
            assert (found["model"], bool(found["prompt_version"])) == ("fake-1", True)
        assert here.pipeline.state.state == "up"


@pytest.mark.parametrize("fault", ["500", "garbage", "wrong", "cut", "no json", "429", "hang", "drip", "dead"])
async def test_whatever_it_does_nothing_stays_unclassified_and_all_is_made_good(tmp_path: Path, fault: str) -> None:
    async with house(tmp_path, budget_s=0.5) as here:
        await here.say(*talk(3))
        if fault == "dead":
            await here.fake.stop()
        here.fake.mode = fault
        said = talk(12, start=100)
        await here.say(*said)
        for each in said:
            found = here.newest(each)
            assert (found["source"], found["degraded"]) == ("local", True)
            assert found["summary"] == f"Local: {each.text}"
        await here.until(lambda: here.pipeline.state.state == "degraded")
        assert "language model" in here.pipeline.state.why
        receipts = {each.utterance_id: here.cards[each.utterance_id][-1]["latency_ms"] for each in said}

        here.fake.mode = "answer"
        if fault == "dead":
            await here.fake.start()
        await here.until(lambda: here.renewed(*said))
        assert here.pipeline.state.state == "up"
        for each in said:
            found = here.newest(each)
            assert (found["revision"], found["degraded"], found["summary"]) == (2, False, f"Model: {each.text}")
            assert here.cards[each.utterance_id][-1]["latency_ms"] == receipts[each.utterance_id]
            card = await here.site.get(f"/v1/utterances/{each.utterance_id}")
            assert [one["revision"] for one in card["insights"]] == [2]


async def test_a_renewed_card_keeps_what_a_person_did_with_its_task(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.fake.mode = "500"
        [said] = talk(1)
        await here.say(said)
        await here.until(lambda: bool(here.tasks))
        task = here.tasks[-1]
        await here.site.post(f"/v1/tasks/{task['task_id']}/assign", body={"assignee": "Ada"})
        await here.site.post(f"/v1/tasks/{task['task_id']}/acknowledge")
        here.fake.mode = "answer"
        await here.until(lambda: here.renewed(said))
        card = await here.site.get(f"/v1/utterances/{said.utterance_id}")
        [after] = card["tasks"]
        assert (after["task_id"], after["assignee"], after["status"]) == (task["task_id"], "Ada", "acknowledged")
        assert after["summary"] == f"Model: {said.text}"
        assert (task["department"], after["department"]) == ("engineering", "housekeeping")


async def test_what_is_owed_survives_the_process(tmp_path: Path) -> None:
    async with running(tmp_path) as site, fake_llm() as fake:
        here = House(site, fake, Intelligence.__new__(Intelligence))
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(here.watch())
            fake.mode = "500"
            said = talk(5)
            async with intelligence(site, fake.url):
                await here.say(*said)
            fake.mode = "answer"
            async with intelligence(site, fake.url):
                await here.until(lambda: here.renewed(*said))
            watching.cancel()
        assert [len(here.cards[each.utterance_id]) for each in said] == [2] * 5


async def test_order_within_a_conversation_whatever_the_model_is_slow_with(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.fake.mode = "gate"
        first, second = (heard(16_000 * i, f"Bring towel {i}", conversation="one") for i in range(2))
        other = heard(0, "Bring soap", conversation="two")
        await here.site.publish(first)
        async with asyncio.timeout(PATIENCE_S):
            while not here.fake.calls:  # noqa: ASYNC110 - the endpoint has no event for it
                await asyncio.sleep(0)
        here.fake.mode = "answer"
        await here.say(other)
        await here.site.publish(second)
        async with asyncio.timeout(PATIENCE_S):
            while len(here.fake.calls) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert first.utterance_id not in here.cards
        assert second.utterance_id not in here.cards
        here.fake.gate.set()
        await here.until(lambda: here.cards.keys() >= {first.utterance_id, second.utterance_id})
        shown = list(here.cards)
        assert shown.index(first.utterance_id) < shown.index(second.utterance_id)


async def test_metrics_say_what_happened(tmp_path: Path) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = {
        "probed": value("quickcomm_llm_tokens_total", kind="completion"),
        "ok": value("quickcomm_llm_calls_total", outcome="ok"),
        "tokens": value("quickcomm_llm_tokens_total", kind="prompt"),
        "renewed": value("quickcomm_llm_renewed_total", result="renewed"),
        "degraded": value("quickcomm_llm_utterances_total", source="degraded"),
    }
    async with house(tmp_path) as here:
        await here.until(lambda: value("quickcomm_llm_tokens_total", kind="completion") > before["probed"])
        await here.say(*talk(2))
        assert value("quickcomm_llm_calls_total", outcome="ok") == before["ok"] + 2
        assert value("quickcomm_llm_tokens_total", kind="prompt") == before["tokens"] + 3 * TOKENS["prompt_tokens"]
        here.fake.mode = "401"
        said = talk(2, start=50)
        await here.say(*said)
        assert value("quickcomm_llm_breaker_open") == 1.0
        assert value("quickcomm_llm_utterances_total", source="degraded") == before["degraded"] + 2
        here.fake.mode = "answer"
        await here.until(lambda: here.renewed(*said))
        assert value("quickcomm_llm_renewed_total", result="renewed") == before["renewed"] + 2
        assert value("quickcomm_llm_breaker_open") == 0.0
