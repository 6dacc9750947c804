"""From words to tasks without speech: the local classifier on the default pack, the bus, the dashboard."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from benchmarks.classify import HELD_BACK
from benchmarks.understanding import closings, exact
from tests.support.dashboard_site import Site, found, heard, running

from quickcomm.contracts.insight import CLOSING_CONFIDENCE
from quickcomm.intelligence.adapters.local import LocalClassifier, build_local_classifier
from quickcomm.intelligence.ports import Heard
from quickcomm.kernel.site_pack import SitePack, load_pack, load_phrases

pytestmark = pytest.mark.long

OPEN = [
    "the towels never came to 412",
    "nothing has come to 412",
    "412 not done yet",
    "412 is only half finished",
    "412 still isn't done",
    "almost done in 412",
    "is 412 done?",
    "the band plays on in 412",
    "done with 412 but the towels are missing",
    "not until 412 is finished",
]
CLOSED = ["412 done", "412 is done", "all sorted in 412", "towels delivered to 412", "four twelve is finished"]


@pytest.fixture(scope="module")
def pack() -> SitePack:
    return load_pack()


@pytest.fixture(scope="module")
def classifier(pack: SitePack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalClassifier]:
    built = build_local_classifier(pack, tmp_path_factory.mktemp("cache"))
    yield built
    asyncio.run(built.aclose())


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as site:
        yield site


async def said(site: Site, pack: SitePack, classifier: LocalClassifier, start: int, text: str) -> None:
    """Have a text classified, published and projected, and wait until it is."""
    [insights] = await classifier.classify([Heard(text=text)])
    transcript = heard(start, text)
    opens = tuple(one.index for one in insights if pack.opens_task(one.intent))
    await site.publish(transcript, msgspec.structs.replace(found(transcript, *insights), opens_tasks=opens))
    async with asyncio.timeout(20):
        await site.receipts.get()


async def first_task(site: Site) -> dict[str, Any]:
    tasks = (await site.get("/v1/tasks"))["items"]
    return next(task for task in tasks if task["task_id"] == "shift-1:0:0:0")


@pytest.mark.parametrize("text", OPEN)
async def test_live_work_leaves_the_task_open(
    site: Site, pack: SitePack, classifier: LocalClassifier, text: str
) -> None:
    await said(site, pack, classifier, 0, "412 needs two towels")
    await said(site, pack, classifier, 16_000, text)
    assert (await first_task(site))["status"] == "open"
    card = await site.get("/v1/utterances/shift-1:0:16000")
    assert card["text"] == text
    assert card["insights"]


@pytest.mark.parametrize("text", CLOSED)
async def test_a_finished_job_closes_the_task(
    site: Site, pack: SitePack, classifier: LocalClassifier, text: str
) -> None:
    await said(site, pack, classifier, 0, "412 needs two towels")
    await said(site, pack, classifier, 16_000, text)
    task = await first_task(site)
    assert (task["status"], task["completed_by_utterance"]) == ("done", "shift-1:0:16000")


@pytest.mark.parametrize(("name", "most_missed"), [("closings", 0.22), ("closings_check", 0.4)])
def test_held_back_closings(pack: SitePack, classifier: LocalClassifier, name: str, most_missed: float) -> None:
    phrases = load_phrases(pack, HELD_BACK / f"hospitality_{name}.jsonl")
    missed, wrong = closings(phrases, classifier.understand([one.text for one in phrases]), CLOSING_CONFIDENCE)
    assert wrong <= 0.05
    assert missed <= most_missed


@pytest.mark.parametrize(
    ("name", "least", "most_unasked"),
    [("", 0.78, 4), ("_blind", 0.79, 3), ("_relations", 0.57, 5), ("_relations_check", 0.74, 6)],
)
def test_held_back_utterances_get_exactly_their_cards(
    pack: SitePack, classifier: LocalClassifier, name: str, least: float, most_unasked: float
) -> None:
    phrases = load_phrases(pack, HELD_BACK / f"hospitality{name}.jsonl")
    figures = exact(pack, phrases, classifier.understand([one.text for one in phrases]))["all"]
    assert figures["exact"] >= least
    assert figures["tasks_unasked"] <= most_unasked
