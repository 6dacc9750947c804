"""Two sides of intelligence with a database each: what is deployed and spent on one of them is known to both."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.intelligence_store import opened
from tests.support.prompting import PACK, named

from quickcomm.contracts.commands import DeployPrompt, ListPrompts, RollBackPrompt
from quickcomm.contracts.messaging import Request
from quickcomm.contracts.prompts import GetPrompts
from quickcomm.contracts.routes import MONOLITH, SERVICE, ModuleRoute, Routes, Side
from quickcomm.intelligence.adapters.other_side import GetSideNews, OtherSide
from quickcomm.intelligence.adapters.prompt_commands import PromptCommands
from quickcomm.intelligence.adapters.prompting import Prompting
from quickcomm.intelligence.adapters.sql_prompts import SqlPrompts
from quickcomm.intelligence.adapters.sql_usage import SqlUsage
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.ports import ModelAnswer
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.messaging.rpc import Answer, NotOwnerError, UnansweredError
from quickcomm.kernel.routing import FixedRoutes
from quickcomm.kernel.storage import Database

CAPPED = UsageSettings(daily_tokens=100, time_zone="UTC")


class Moved(FixedRoutes):
    """The routes in the store, which both sides look up."""

    def decides(self, side: Side) -> None:
        route = ModuleRoute(mode="canary", weight=5_000, decides=side)
        self.routes = Routes(version=self.routes.version + 1, modules={"intelligence": route})


class OneSide:
    """As `Intelligence` has it in each of two processes."""

    def __init__(self, side: Side, database: Database, routes: Moved, clock: FakeClock) -> None:
        ownership = Ownership(side, routes)
        self.other: OneSide
        self.runs = True
        self.prompts = Prompting(database, PACK, clock)
        self.usage = SqlUsage(database, clock, CAPPED, side)
        self.across = OtherSide(SqlPrompts(database), self.usage, ownership, clock)

        async def view(_request: GetPrompts) -> Any:
            return await self.prompts.desk.view()

        own: Sequence[Answer] = [(GetPrompts, view), *PromptCommands(self.prompts).answers()]
        self._answers = dict(self.across.answers(own, lambda: self))

    async def ask(self, request: Request[Any]) -> Any:
        return await self._answers[type(request)](request)

    async def call_all(self, request: Request[Any]) -> Mapping[str, Any | QuickCommError]:
        """Ask the processes of both sides, as they are registered."""
        gone = UnansweredError(request)
        return {"peer": await self.ask(request), "other": await self.other.ask(request) if self.other.runs else gone}

    async def look(self, *, prompts: bool = True) -> None:
        await self.across.look(self, prompts=prompts)

    async def live(self) -> str:
        await self.prompts.prompts.refresh()
        return self.prompts.prompts.now.live.file.name


class Both:
    def __init__(self, monolith: OneSide, service: OneSide, routes: Moved, clock: FakeClock) -> None:
        monolith.other, service.other = service, monolith
        self.monolith = monolith
        self.service = service
        self.routes = routes
        self.clock = clock


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    clock, routes = FakeClock(1_782_907_200 * 10**9), Moved()
    routes.decides(MONOLITH)
    async with AsyncExitStack() as stack:
        mine = await stack.enter_async_context(opened(tmp_path / "monolith.sqlite"))
        theirs = await stack.enter_async_context(opened(tmp_path / "service.sqlite"))
        yield Both(OneSide(MONOLITH, mine, routes, clock), OneSide(SERVICE, theirs, routes, clock), routes, clock)


def deploy(name: str, weight: int = 100) -> DeployPrompt:
    return DeployPrompt(prompt=name, source=named(name), weight=weight, force=True, by="ann")


async def test_the_side_that_decides_deploys_and_the_other_one_has_it_in_force(both: Both) -> None:
    both.clock.advance(1)
    await both.monolith.ask(deploy("one"))
    await both.monolith.ask(deploy("canary", 10))
    for request in (deploy("other"), RollBackPrompt(by="bob"), ListPrompts(), GetPrompts()):
        with pytest.raises(NotOwnerError):
            await both.service.ask(request)
    for _ in range(2):
        await both.service.look()
    assert await both.service.live() == "one"
    now = both.service.prompts.prompts.now
    assert (now.canary and now.canary.file.name, now.weight) == ("canary", 10)
    assert [event.action for event in (await both.service.prompts.desk.view()).events] == [
        event.action for event in (await both.monolith.prompts.desk.view()).events
    ]
    await both.monolith.ask(RollBackPrompt(by="ann"))
    await both.service.look()
    assert both.service.prompts.prompts.now.canary is not None, "not before the prompts are read again"
    assert await both.service.live() == "one"
    assert both.service.prompts.prompts.now.canary is None


async def test_a_side_that_begins_to_decide_has_first_what_the_other_one_had_deployed(both: Both) -> None:
    await both.monolith.ask(deploy("one"))
    both.routes.decides(SERVICE)
    both.clock.advance(1)
    await both.service.ask(deploy("two"))
    with pytest.raises(NotOwnerError):
        await both.monolith.ask(deploy("late"))
    await both.monolith.look()
    assert await both.monolith.live() == "two"
    await both.service.ask(RollBackPrompt(by="ann"))
    await both.monolith.look()
    assert (await both.service.live(), await both.monolith.live()) == ("one", "one")


async def test_of_two_deployments_at_the_same_time_that_of_the_deciding_side_counts(both: Both) -> None:
    await both.monolith.ask(deploy("one"))
    await both.service.look()
    both.monolith.runs = False  # it does not answer while the service takes over
    both.routes.decides(SERVICE)
    both.clock.advance(1)
    await both.service.ask(deploy("two"))
    await both.monolith.prompts.desk.deploy(
        await both.monolith.prompts.desk.add(named("lost"), "bob"), "bob", force=True
    )
    both.monolith.runs = True
    await both.monolith.look()
    assert await both.monolith.live() == "two"
    assert {"lost", "two"} <= {event.name for event in (await both.monolith.prompts.desk.view()).events}


async def test_what_both_sides_spend_is_summed_and_capped(both: Both) -> None:
    for side, tokens in ((both.monolith, 40), (both.service, 70)):
        side.usage.record("main", "c1", ModelAnswer(text="{}", prompt_tokens=tokens, completion_tokens=0))
        assert not side.usage.exhausted
    for _ in range(2):
        for side in (both.monolith, both.service):
            await side.look(prompts=False)
            await side.usage.learn()
    for side in (both.monolith, both.service):
        report = await side.usage.report("main", None, 9)
        assert (report.today.calls, report.today.prompt_tokens) == (2, 110)
        assert [(each.conversation_id, each.prompt_tokens) for each in report.conversations] == [("c1", 110)]
        assert [day.prompt_tokens for day in report.days] == [110]
        assert side.usage.exhausted
    both.service.usage.record("main", "c2", ModelAnswer(text="{}", prompt_tokens=5, completion_tokens=0))
    await both.monolith.look()
    assert (await both.monolith.usage.report("main", "c2", 9)).conversations[0].prompt_tokens == 5


async def test_a_side_that_is_away_changes_nothing(both: Both) -> None:
    both.service.runs = False
    await both.monolith.ask(deploy("one"))
    await both.monolith.look()
    assert await both.monolith.live() == "one"
    news = await both.monolith.ask(GetSideNews(prompts_since_ns=0, spent_since_ns=0))
    assert [prompt.name for prompt in news.prompts.prompts if prompt.name == "one"] == ["one"]
