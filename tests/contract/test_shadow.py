"""The shadow of understanding, from transcripts to the gate: what agrees passes, what is wrong is taken back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.support.intelligence import Believing, Local, Model, Prompts
from tests.support.intelligence import heard as heard_text
from tests.support.intelligence_store import opened
from tests.support.two_minds import PACK, TwoMinds
from tests.support.valkey import Valkey
from tests.unit.test_shadow import Moving

from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.routes import MONOLITH, SERVICE, Mode
from quickcomm.contracts.timing import Latency
from quickcomm.intelligence.adapters.shadowing import Metered, shadow_local, shadow_model
from quickcomm.intelligence.adapters.sql_cache import SqlCache
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.adapters.sql_usage import SqlUsage
from quickcomm.intelligence.assembly import _Work
from quickcomm.intelligence.model.settings import LlmSettings
from quickcomm.intelligence.model.usage import UsageSettings
from quickcomm.intelligence.ports import ModelError
from quickcomm.intelligence.service import summaries
from quickcomm.intelligence.service.llm import Parts, Unmasked
from quickcomm.intelligence.service.metrics import SERVED
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.shadow import DEGRADED
from quickcomm.kernel.clock import SystemClock
from quickcomm.traffic.service.operating import GateError

ENOUGH = 80
"""So many utterances show that the 95th percentile is within its budget."""


@pytest.fixture
async def two(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TwoMinds]:
    monkeypatch.setattr(summaries, "LINGER_S", 0.02)
    made = TwoMinds(tmp_path, valkey.url, tmp_path.name)
    async with made.running():
        yield made


async def test_a_candidate_that_agrees_passes_by_itself(two: TwoMinds) -> None:
    assert (await two.start()).mode == "shadow"
    with pytest.raises(GateError, match=r"agreement: nothing was compared yet.* about 25 samples are missing"):
        await two.step()
    await two.say(ENOUGH)
    found = await two.compared(ENOUGH)
    await two.until(lambda module: module.gate == "pass")
    assert (await two.step()).mode == "canary"
    assert found.understood is not None
    assert found.understood.alike == ENOUGH
    assert {field.name: (field.alike, field.of) for field in found.understood.fields}["intent"] == (ENOUGH, ENOUGH)
    [service, monolith] = found.understood.sides
    assert (service.samples, monolith.samples) == (ENOUGH, ENOUGH)
    assert None not in {service.p95_ms, monolith.p95_ms}
    assert (service.served.answers, monolith.served.answers) == (0, ENOUGH)
    for number in range(ENOUGH):
        [(_, side, _)] = await two.sound.insights(f"c{number}")
        assert side == MONOLITH, "what the shadow understands is not published"


async def test_a_candidate_that_is_wrong_never_gets_a_conversation(two: TwoMinds) -> None:
    two.minds[SERVICE].classifier.wrong = True
    await two.start()
    await two.say(30)
    await two.until(lambda module: module.mode == "off")
    audit = await two.journal.audit(10)
    [breach] = [entry for entry in audit if entry.action == "rollback"]
    assert breach.who == "controller"
    assert "agreement: 0 of" in breach.why


async def test_a_candidate_that_goes_wrong_in_a_canary_is_taken_back(two: TwoMinds) -> None:
    await two.start()
    for _ in range(4):
        await two.step(force=True)
    assert (await two.status()).weight == 5_000
    two.minds[SERVICE].classifier.wrong = True
    said = await two.say(60)
    found = await two.until(lambda module: module.mode == "shadow")
    assert found.weight == 0
    [breach] = [entry for entry in await two.journal.audit(50) if entry.action == "rollback"]
    assert (breach.who, breach.before) == ("controller", "canary 50 %")
    assert "agreement" in {figure.name for figure in breach.evidence if figure.outcome == "breach"}
    answered = [await two.sound.insights(f"c{number}") for number in range(len(said))]
    assert [len(each) for each in answered] == [1] * len(said)
    assert {side for [(_, side, _)] in answered} == {MONOLITH, SERVICE}


async def test_in_a_canary_each_side_is_the_shadow_of_the_other(two: TwoMinds) -> None:
    await two.start()
    for _ in range(4):
        await two.step(force=True)
    await two.say(40)
    found = (await two.compared(40)).understood
    assert found is not None
    assert (found.compared, found.alike) == (40, 40)
    [service, monolith] = found.sides
    assert service.samples == monolith.samples == 40
    assert min(service.shadow.answers, monolith.shadow.answers) > 0
    assert service.shadow.answers + monolith.shadow.answers == 40
    assert service.shadow.answers == monolith.served.answers


async def test_a_shadow_that_hangs_holds_nothing_up(two: TwoMinds) -> None:
    two.minds[SERVICE].classifier.free.clear()
    await two.start()
    said = await two.say(100)
    assert len(said) == 100, "all is answered by the side that serves"
    found = await two.until(lambda module: module.understood is not None and module.understood.shed > 0)
    assert found.understood is not None
    assert found.understood.compared == 0
    assert two.minds[SERVICE].classifier.heard == 1
    async with asyncio.timeout(20):
        while any((await two.minds[MONOLITH].bus.backlog()).values()):  # noqa: ASYNC110 - only the store knows
            await asyncio.sleep(0.02)
    assert two.minds[SERVICE].intelligence.busy is False


# -- without effects outside -----------------------------------------------------------------------------------------


def served_as(utterance_id: str) -> InsightsFound:
    return InsightsFound(
        site="main",
        conversation_id="c",
        utterance_id=utterance_id,
        revision=1,
        insights=(),
        speech_ended_ns=1,
        published_ns=2,
        latency=Latency(classify=5.0),
    )


async def test_calls_of_the_shadow_are_in_no_other_bill_and_open_no_breaker(tmp_path: Path) -> None:
    model, clock = Model(), SystemClock(pauses=0.02)
    async with opened(tmp_path) as database:
        usage = SqlUsage(database, clock, UsageSettings(prompt_price=2.0, completion_price=4.0, daily_tokens=100))
        cache = SqlCache(database, clock)
        parts = Parts(
            model=model,
            prompts=Prompts(),
            grounding=Believing(),
            cache=cache,
            usage=Metered(usage, lambda *_: pytest.fail("this is not served")),
            mask=Unmasked,
        )
        settings = LlmSettings(url="http://x/v1", budget_s=0.5)
        ownership = Ownership(SERVICE, Moving("shadow"))
        shadow = shadow_model(parts, usage, Local(), PACK, clock, settings, ownership, 1.0)
        open_before = SERVED.breaker_open._value.get()
        running = asyncio.create_task(shadow.run())

        async def compared(number: int, count: int) -> tuple[str, ...]:
            one = heard_text(f"text {number}", number, site="main")
            shadow.offer(one)
            shadow.served(served_as(one.utterance_id))
            async with asyncio.timeout(20):
                while (found := shadow.since(0)) is None or found.compared < count:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            return found.differences[0].fields

        try:
            await compared(1, 1)
            model.down = ModelError("down")
            assert await compared(2, 2) == (DEGRADED,)
            model.down = None
            for number in range(3, 20):
                shadow.offer(heard_text(f"text {number}", number, site="main"))
                await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        found = shadow.since(0)
        assert found is not None
        assert found.spent.calls > 0
        assert found.spent.prompt_tokens == 10 * found.spent.calls
        assert found.spent.cost == pytest.approx(found.spent.calls * (10 * 2.0 + 5 * 4.0) / 1e6)
        assert found.spent.calls <= 8, "no more than the day's cap leaves: 100 tokens, 15 a call"
        assert found.shed > 0
        assert usage.today().calls == 0
        assert not usage.exhausted
        assert len(cache) == 0
        assert SERVED.breaker_open._value.get() == open_before


async def test_a_quarter_is_taken_where_calls_cost_something_else_all(tmp_path: Path) -> None:
    clock, ownership = SystemClock(), Ownership(SERVICE, Moving("shadow"))
    ids = [f"c:0:{number}" for number in range(2_000)]
    async with opened(tmp_path) as database:
        usage = SqlUsage(database, clock)
        cache = SqlCache(database, clock)
        parts = Parts(model=Model(), prompts=Prompts(), grounding=Believing(), cache=cache, usage=usage, mask=Unmasked)
        settings = LlmSettings(url="http://x/v1")

        def taken(share: float | None) -> list[float]:
            asking = shadow_model(parts, usage, Local(), PACK, clock, settings, ownership, share)
            local = shadow_local(Local(), PACK, clock, ownership, share, lambda: False)
            return [sum(map(each.takes, ids)) / len(ids) for each in (asking, local)]

        assert taken(None) == pytest.approx([0.25, 1.0], abs=0.04)
        assert taken(0.5) == pytest.approx([0.5, 0.5], abs=0.04)
        assert taken(0.0) == [0.0, 0.0]


@pytest.mark.parametrize(("mode", "version", "kept"), [("off", 3, 0), ("off", 0, 1), ("shadow", 3, 1), ("full", 3, 1)])
async def test_a_service_that_was_off_begins_with_a_copy_anew(
    tmp_path: Path, mode: Mode, version: int, kept: int
) -> None:
    """Messages may have been trimmed meanwhile. Where the store knows no routes, it may have served: it keeps all."""
    routes = Moving(mode)
    routes.routes = msgspec.structs.replace(routes.routes, version=version)
    async with opened(tmp_path) as database:
        await SqlResults(database).publish([served_as("c:0:1")])
        app = SimpleNamespace(alone=True)
        context: Any = SimpleNamespace(moving=True, side="service", app=app, routes=routes, database=database)
        work: Any = _Work(context, SimpleNamespace())  # type: ignore[arg-type]
        assert await work._begins_warm()
        assert len(await SqlResults(database).known([("main", "c:0:1")])) == kept
