"""What a dashboard asks of intelligence over HTTP, and what it says while nobody answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from tests.support.dashboard_site import running
from tests.support.linked import Word, served

from quickcomm.contracts.prompts import PromptsView
from quickcomm.contracts.usage import DayUsage, UsageReport
from quickcomm.dashboard.adapters.questions import AwayError, Questions
from quickcomm.dashboard.module import Neighbours
from quickcomm.intelligence.adapters.questions import Questions as Answers
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.discovery import DirectoryRegistry


class Knowing:
    """Implements `Asked`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, int]] = []
        self.words: str | None = "A quiet shift."

    async def prompts(self) -> PromptsView:
        return PromptsView(connected=True, model="scripted")

    async def usage(self, site: str, conversation_id: str | None, limit: int) -> UsageReport:
        self.asked.append((site, conversation_id, limit))
        return UsageReport(state="none", today=DayUsage(day="2026-01-01", calls=7))

    async def narrate(self, site: str, facts: str) -> str | None:
        return None if self.words is None else f"{site}: {facts}: {self.words}"


def routes(knowing: Knowing) -> list[web.RouteDef]:
    trust = Word()
    return Answers(knowing, lambda request: trust.require(request, "dashboard")).routes()


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryRegistry:
    return DirectoryRegistry(tmp_path / "instances", lease_s=3_600)


@pytest_asyncio.fixture
async def questions(registry: DirectoryRegistry) -> AsyncIterator[Questions]:
    made = Questions(registry, Word(), frozenset({"core"}), SystemClock())
    yield made
    await made.aclose()


async def test_answers_come_as_they_were_given(
    registry: DirectoryRegistry, questions: Questions, tmp_path: Path
) -> None:
    knowing = Knowing()
    async with served(routes(knowing), registry, tmp_path):
        assert await questions.prompts() == PromptsView(connected=True, model="scripted")
        assert (await questions.usage("hotel & spa", "c/1", 5)).today.calls == 7
        await questions.usage("main", None, 200)
        assert await questions.narrate("main", "3 tasks") == "main: 3 tasks: A quiet shift."
        knowing.words = None
        assert await questions.narrate("main", "3 tasks") is None
    assert knowing.asked == [("hotel & spa", "c/1", 5), ("main", None, 200)]


async def test_a_stranger_is_told_nothing(registry: DirectoryRegistry, tmp_path: Path) -> None:
    stranger = Questions(registry, Word("foe"), frozenset({"core"}), SystemClock())
    knowing = Knowing()
    async with served(routes(knowing), registry, tmp_path):
        for question in (stranger.prompts(), stranger.usage("main", None, 5)):
            with pytest.raises(AwayError):
                await question
        assert await stranger.narrate("main", "3 tasks") is None
    await stranger.aclose()
    assert knowing.asked == []


async def test_while_nobody_answers_it_is_said_and_the_next_one_is_asked(
    registry: DirectoryRegistry, questions: Questions, tmp_path: Path
) -> None:
    with pytest.raises(AwayError, match="intelligence service is away"):
        await questions.prompts()
    async with served([web.get("/{path:.*}", _hanging)], registry, tmp_path, "core-1"):
        with pytest.raises(AwayError, match="what the language model costs"):
            await questions.usage("main", None, 5)
        async with served(routes(Knowing()), registry, tmp_path, "core-2"):
            assert (await questions.prompts()).connected


async def _hanging(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def test_rest_says_that_it_is_away_and_when_to_come_again(questions: Questions, tmp_path: Path) -> None:
    neighbours = Neighbours(prompts=questions.prompts, usage=questions.usage, narrator=questions.narrate)
    (tmp_path / "site").mkdir()
    async with running(tmp_path / "site", neighbours=neighbours) as site:
        for path in ("/v1/prompts", "/v1/usage"):
            async with site.http.get(site.url + path, headers=site.headers()) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
                problem = await answer.json(content_type=None)
            assert (problem["code"], problem["retryable"]) == ("intelligence.away", True)
            assert "intelligence service is away" in problem["detail"]
        report = await site.get("/v1/reports/shift")
        assert report["narrative"]["source"] == "local"
