"""The shadow of understanding: which share it takes, what it compares, and what it counts of the rest."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from tests.support.talking import START_NS
from tests.unit.test_understanding import settle

from quickcomm.contracts.evidence import Shadowed
from quickcomm.contracts.insight import Insight, Item
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.routes import SERVICE, Mode, ModuleRoute, Routes, Side
from quickcomm.contracts.timing import Latency
from quickcomm.intelligence.model.comparing import FIELDS, differing
from quickcomm.intelligence.ports import Heard
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.shadow import (
    DEGRADED,
    MAX_PAIRS,
    MAX_WAITING,
    NO_ANSWER,
    SERVED_WITHIN_S,
    Shadow,
)
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import QuickCommError
from quickcomm.kernel.routing import FixedRoutes

replace = msgspec.structs.replace
TOWELS = Insight(
    index=0,
    intent="supplies",
    department="housekeeping",
    urgency="normal",
    rooms=("412", "507"),
    items=(Item(name="Bath towel", quantity=2),),
    summary="Two towels",
    confidence=0.9,
    model="local",
)


def opens(intent: str) -> bool:
    return intent != "chatter"


# -- comparing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"summary": "Towels, two", "confidence": 0.1},
        {"revision": 2, "model": "other", "source": "llm", "prompt_version": "p2"},
        {"rooms": ("507", "412")},
        {"items": (Item(name="bath  towel", quantity=2),)},
    ],
)
def test_what_differs_from_call_to_call_is_no_difference(changed: dict[str, Any]) -> None:
    assert differing([TOWELS], [replace(TOWELS, **changed)], opens) == ()


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"intent": "repair"}, ("intent",)),
        ({"intent": "chatter"}, ("intent", "tasks")),
        ({"department": "engineering"}, ("department",)),
        ({"urgency": "critical"}, ("urgency",)),
        ({"rooms": ("412",), "unverified": ("507",)}, ("rooms", "unverified")),
        ({"items": (Item(name="bath towel", quantity=3),)}, ("items",)),
        ({"items": ()}, ("items",)),
    ],
)
def test_a_field_that_differs_is_named(changed: dict[str, Any], fields: tuple[str, ...]) -> None:
    assert differing([TOWELS], [replace(TOWELS, **changed)], opens) == fields
    assert set(fields) <= set(FIELDS)


def test_several_insights_are_compared_whatever_their_order() -> None:
    other = replace(TOWELS, intent="repair", rooms=("101",))
    assert differing([TOWELS, other], [other, TOWELS], opens) == ()
    assert differing([TOWELS, other], [TOWELS], opens) == ("number",)
    assert differing([TOWELS, TOWELS], [TOWELS, other], opens) == ("intent", "rooms")


# -- the shadow -------------------------------------------------------------------------------------------------------


class Moving(FixedRoutes):
    def __init__(self, mode: Mode) -> None:
        self.to(mode)

    def to(self, mode: Mode) -> None:
        self.routes = Routes(version=1, modules={"intelligence": ModuleRoute(mode=mode)})


class Candidate:
    """Understands the same as everybody, unless told otherwise; may be held."""

    model = "candidate"

    def __init__(self, clock: FakeClock) -> None:
        self.heard: list[str] = []
        self.answer = TOWELS
        self.failure: Exception | None = None
        self.free = asyncio.Event()
        self.free.set()
        self._clock = clock

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        self.heard += [one.utterance_id for one in heard]
        await self.free.wait()
        self._clock.advance(0.03)
        if self.failure is not None:
            raise self.failure
        return [(self.answer,) for _ in heard]


class Desk:
    def __init__(self, side: Side = SERVICE, mode: Mode = "shadow", share: float = 1.0) -> None:
        self.clock = FakeClock(START_NS, pauses=0.0)
        self.routes = Moving(mode)
        self.candidate = Candidate(self.clock)
        self.busy = self.exhausted = False
        self.shadow = Shadow(
            self.candidate,
            self.clock,
            Ownership(side, self.routes),
            opens,
            share,
            busy=lambda: self.busy,
            exhausted=lambda: self.exhausted,
            within_s=0.2,
        )

    def offer(self, *numbers: int) -> None:
        for number in numbers:
            self.shadow.offer(Heard(text="towels", conversation_id="c", utterance_id=f"c:0:{number}"))

    def serve(self, *numbers: int, insight: Insight = TOWELS) -> None:
        for number in numbers:
            self.shadow.served(
                InsightsFound(
                    site="main",
                    conversation_id="c",
                    utterance_id=f"c:0:{number}",
                    revision=1,
                    insights=(insight,),
                    speech_ended_ns=1,
                    published_ns=2,
                    latency=Latency(classify=20.0),
                )
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        work = asyncio.create_task(self.shadow.run())
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    @property
    def found(self) -> Shadowed:
        found = self.shadow.since(0)
        assert found is not None
        return found

    async def until(self, compared: int) -> Shadowed:
        async with asyncio.timeout(20):
            while self.found.compared < compared:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)
        return self.found


@pytest.mark.parametrize(("side", "modes"), [("service", {"shadow", "canary"}), ("monolith", {"canary"})])
def test_a_side_is_a_shadow_while_the_other_one_serves_what_it_could(side: Side, modes: set[str]) -> None:
    for mode in ("off", "shadow", "canary", "full", "retired"):
        desk = Desk(side, mode)
        desk.offer(1)
        assert desk.shadow.active == (mode in modes)
        assert (desk.shadow.since(0) is not None) == (mode in modes)
        assert len(desk.shadow._pairs) == (mode in modes)
    assert not Ownership().shadows


def test_the_share_is_the_same_whoever_asks_and_grows_with_the_setting() -> None:
    ids = [f"c:0:{number}" for number in range(4_000)]
    taken = [{each for each in ids if Desk(share=share).shadow.takes(each)} for share in (0.0, 0.25, 0.5, 1.0)]
    assert taken[0] < taken[1] < taken[2] < taken[3]
    assert abs(len(taken[1]) / len(ids) - 0.25) < 0.03
    assert taken[1] == {each for each in ids if Desk("monolith", "canary", 0.25).shadow.takes(each)}


async def test_what_is_delivered_again_is_understood_once() -> None:
    desk = Desk()
    async with desk.running():
        desk.offer(1, 1, 2)
        await settle()
        desk.offer(1)
        desk.serve(1, 2, 1)
        await desk.until(2)
        desk.offer(1)
        await settle()
    assert desk.candidate.heard == ["c:0:1", "c:0:2"]


async def test_a_side_that_is_behind_hears_the_answer_before_the_utterance() -> None:
    desk = Desk()
    desk.serve(1, 2, insight=replace(TOWELS, urgency="high"))
    async with desk.running():
        desk.offer(1)
        assert (await desk.until(1)).differences[0].fields == ("urgency",)
        desk.serve(1)
        desk.offer(1)
        await settle()
    assert (desk.found.compared, desk.candidate.heard) == (1, ["c:0:1"])


async def test_what_is_remembered_is_bounded() -> None:
    desk = Desk()
    for number in range(MAX_PAIRS + 10):
        desk.serve(number)
    assert len(desk.shadow._early) == MAX_PAIRS
    async with desk.running():
        for number in range(MAX_PAIRS + 10):
            desk.offer(number)
            desk.serve(number)
            await asyncio.sleep(0)
        await settle()
    assert len(desk.shadow._done) <= MAX_PAIRS
    desk.routes.to("full")
    desk.shadow.expire()
    assert not any((desk.shadow._early, desk.shadow._done, desk.shadow._pairs, desk.shadow._waiting))


async def test_answers_are_compared_whichever_comes_first() -> None:
    desk = Desk()
    async with desk.running():
        desk.candidate.free.clear()
        desk.offer(1, 2)
        await settle()
        desk.serve(1)
        desk.candidate.free.set()
        await settle()
        desk.serve(2, insight=replace(TOWELS, urgency="high"))
        found = await desk.until(2)
    assert (found.compared, found.alike) == (2, 1)
    assert [alike for _, alike in found.recent] == [True, False]
    assert {field.name: (field.alike, field.of) for field in found.fields}["urgency"] == (1, 2)
    assert {field.name: (field.alike, field.of) for field in found.fields}["intent"] == (2, 2)
    assert found.served_ms == (20.0, 20.0)
    assert all(ms >= 29 for ms in found.own_ms)
    [difference] = found.differences
    assert (difference.utterance_id, difference.fields, difference.by) == ("c:0:2", ("urgency",), SERVICE)
    assert "towels" not in str(found).lower(), "what was said is not told"


async def test_a_candidate_that_gives_no_answer_does_not_agree() -> None:
    desk = Desk()
    desk.candidate.failure = QuickCommError("broken")
    async with desk.running():
        desk.offer(1)
        desk.serve(1)
        failed = await desk.until(1)
        assert (failed.compared, failed.alike, failed.unanswered) == (1, 0, 1)
        desk.candidate.failure = None
        desk.candidate.free.clear()
        desk.offer(2)
        desk.serve(2)
        late = await desk.until(2)
        desk.candidate.free.set()
        desk.offer(3)
        desk.serve(3)
        found = await desk.until(3)
    assert (late.unanswered, late.alike) == (2, 0)
    assert (found.compared, found.alike) == (3, 1)
    assert {difference.fields for difference in found.differences} == {(NO_ANSWER,)}
    assert all((field.alike, field.of) == (1, 1) for field in found.fields), "there is nothing to compare without one"


async def test_an_answer_in_the_models_place_is_no_reference_and_no_answer() -> None:
    desk = Desk()
    async with desk.running():
        desk.offer(1)
        desk.serve(1, insight=replace(TOWELS, degraded=True))
        desk.candidate.answer = replace(TOWELS, degraded=True)
        desk.offer(2)
        desk.serve(2)
        found = await desk.until(1)
    assert (found.degraded, found.compared, found.alike) == (1, 1, 0)
    assert found.differences[0].fields == (DEGRADED,)


async def test_an_answer_that_never_comes_is_counted_and_no_difference() -> None:
    desk = Desk()
    async with desk.running():
        desk.offer(1)
        await settle()
        assert desk.candidate.heard == ["c:0:1"]
    desk.clock.advance(SERVED_WITHIN_S + 1)
    desk.shadow.expire()
    desk.serve(1)
    assert (desk.found.unserved, desk.found.compared, desk.found.shed) == (1, 0, 0)


async def test_too_much_is_left_out_and_counted_and_the_offer_never_waits() -> None:
    desk = Desk()
    desk.candidate.free.clear()
    async with desk.running():
        desk.offer(0)
        await settle()
        desk.offer(*range(1, MAX_WAITING + 11))
        assert desk.found.shed == 10
        assert desk.candidate.heard == ["c:0:0"], "one at a time"
    desk.exhausted = True
    desk.shadow.expire()
    desk.offer(999)
    assert desk.found.shed == 11
    desk.clock.advance(SERVED_WITHIN_S + 1)
    desk.shadow.expire()
    assert len(desk.shadow._pairs) == len(desk.shadow._waiting) == 0
    assert desk.found.shed >= 11 + MAX_WAITING


async def test_what_people_wait_for_comes_first() -> None:
    desk = Desk()
    desk.busy = True
    async with desk.running():
        desk.offer(1)
        desk.serve(1)
        await settle()
        assert desk.candidate.heard == []
        desk.busy = False
        assert (await desk.until(1)).alike == 1


async def test_what_this_side_has_answered_itself_is_not_compared() -> None:
    desk = Desk()
    async with desk.running():
        desk.offer(1, 2)
        await settle()
        desk.shadow.forget("main", "c:0:1")
        desk.serve(1, 2)
        await settle()
    assert desk.found.compared == 1


async def test_nothing_of_another_stage_is_told_and_nothing_is_kept_once_it_is_no_shadow() -> None:
    desk = Desk()
    async with desk.running():
        desk.offer(1)
        desk.serve(1)
        await desk.until(1)
        desk.clock.advance(10.0)
        later = desk.shadow.since(desk.clock.now_ns())
        assert later is not None
        assert (later.compared, later.own_ms) == (0, ())
        desk.candidate.free.clear()
        desk.offer(2, 3)
        desk.routes.to("full")
        desk.shadow.expire()
        assert len(desk.shadow._pairs) == len(desk.shadow._waiting) == 0


async def test_what_the_model_costs_is_told_apart() -> None:
    desk = Desk()
    async with desk.running():
        desk.shadow.bill.add(100, 20, 0.5)
        desk.shadow.bill.add(50, 10, 0.25)
        desk.offer(1)
        desk.serve(1)
        spent = (await desk.until(1)).spent
    assert (spent.answers, spent.calls, spent.prompt_tokens, spent.completion_tokens) == (1, 2, 150, 30)
    assert spent.cost == 0.75
