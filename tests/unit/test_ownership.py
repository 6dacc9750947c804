"""A side of intelligence answers what is stamped for it, and does the rest by the routes."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.intelligence_store import opened as database_in
from tests.support.talking import START_NS, insight, spoken, understood
from tests.unit.test_renewal import Office, degraded, opened
from tests.unit.test_understanding import Results, Words

from quickcomm.contracts.identity import bucket
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.routes import ModuleRoute, Routes, Side
from quickcomm.contracts.summaries import ConversationSummarized
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.adapters.sql_talks import SqlTalks
from quickcomm.intelligence.model import talk as talks
from quickcomm.intelligence.model.talk import SummarySettings, Talk
from quickcomm.intelligence.ports import Owed
from quickcomm.intelligence.service.ownership import Ownership
from quickcomm.intelligence.service.renewal import Renewal
from quickcomm.intelligence.service.side_questions import SideQuestions
from quickcomm.intelligence.service.summaries import POSTPONED_NS, Summaries
from quickcomm.intelligence.service.understanding import Understanding
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.redis_assignments import Assignment
from quickcomm.kernel.routing import FixedRoutes

RULES = SummarySettings(quiet_s=20)


class Moved(FixedRoutes):
    """Routes that a test sets, and the stamps of conversations."""

    def __init__(self, side: Side = "monolith") -> None:
        self.stamps: dict[str, Assignment] = {}
        self.to(side)

    def to(self, side: Side, *conversations: str) -> None:
        weight = 10_000 if side == "service" and not conversations else 0
        route = ModuleRoute(weight=weight, overrides=dict.fromkeys(conversations, side))
        self.routes = Routes(version=1, modules={"intelligence": route})

    async def of(self, _site: str, conversation_id: str) -> Assignment | None:
        return self.stamps.get(conversation_id)

    async def aclose(self) -> None:
        """There is no connection."""

    def side(self, side: Side) -> Ownership:
        return Ownership(side, self, self)


def stamped(number: int, text: str, owner: Side, epoch: int) -> UtteranceTranscribed:
    return msgspec.structs.replace(spoken(number, text), owner=owner, owner_epoch=epoch)


def delivered(*messages: msgspec.Struct, fresh: bool = True) -> list[Delivery]:
    return [
        Delivery(message_id=number, stream=TRANSCRIPTS, key="c", payload=msgspec.json.encode(message), fresh=fresh)
        for number, message in enumerate(messages)
    ]


def test_it_has_what_the_routes_give_it_and_everything_where_nothing_moves() -> None:
    routes = Moved()
    half = Routes(version=1, modules={"intelligence": ModuleRoute(weight=5_000)})
    routes.routes = half
    for name in map(str, range(20)):
        in_service = bucket("intelligence", name) < 5_000
        assert routes.side("service").has("main", name, "desk") == in_service
        assert routes.side("monolith").has("main", name, "desk") != in_service
        assert Ownership().has("main", name, "desk")
    routes.routes = Routes(
        version=2, modules={"intelligence": ModuleRoute(channels={"desk": "service"}, sites={"east": "service"})}
    )
    assert [
        routes.side("service").has(*of) for of in (("main", "c", "desk"), ("east", "c", "bar"), ("main", "c", "bar"))
    ] == [
        True,
        True,
        False,
    ]
    assert (routes.side("service").group("g"), Ownership().group("g")) == ("g@service", "g")


# -- understanding ----------------------------------------------------------------------------------------------------


class Desk:
    def __init__(self, side: Side) -> None:
        clock = FakeClock(START_NS)
        self.classifier, self.results = Words(clock), Results()
        ownership = Moved().side(side)
        self.understanding = Understanding(self.classifier, self.results, clock, lambda _: True, ownership=ownership)

    async def hear(self, *messages: UtteranceTranscribed) -> None:
        await self.understanding.handle(delivered(*messages))


async def test_what_is_stamped_for_the_other_side_is_remembered_and_not_answered() -> None:
    desk = Desk("service")
    await desk.hear(stamped(1, "one", "monolith", 1), stamped(2, "two", "service", 2))
    [found] = desk.results.published
    assert (found.utterance_id, found.owner, found.owner_epoch) == ("c:0:2", "service", 2)
    assert [heard.context for heard in desk.classifier.heard] == [("one",)]


async def test_what_has_no_stamp_is_the_monoliths() -> None:
    for side, count in (("monolith", 1), ("service", 0)):
        desk = Desk(side)
        await desk.hear(spoken(1, "one"))
        assert len(desk.results.published) == count


async def test_what_comes_along_later_is_answered_with_the_context_that_it_had() -> None:
    desk = Desk("service")
    said = [stamped(number, text, "monolith", 1) for number, text in enumerate(("one", "two", "three"))]
    await desk.hear(*said)
    await desk.hear(*(msgspec.structs.replace(each, owner="service", owner_epoch=2) for each in said[1:]))
    assert [heard.context for heard in desk.classifier.heard] == [("one",), ("one", "two")]
    assert [found.utterance_id for found in desk.results.published] == ["c:0:1", "c:0:2"]


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def results(tmp_path: Path) -> AsyncIterator[SqlResults]:
    async with database_in(tmp_path) as database:
        yield SqlResults(database)


def in_epoch(item: Owed, epoch: int, revision: int = 1) -> InsightsFound:
    return msgspec.structs.replace(item.found, owner_epoch=epoch, revision=revision)


async def test_what_was_answered_in_an_earlier_epoch_is_answered_again(results: SqlResults) -> None:
    one = degraded(1, START_NS)
    key = ("main", one.found.utterance_id)
    await results.publish([in_epoch(one, 1, revision=2)])
    assert await results.known([key], [1]) == {key}
    assert await results.known([key], [3]) == set()
    await results.publish([in_epoch(one, 3)])
    assert await results.known([key], [3]) == {key}


async def test_debts_of_the_other_side_are_kept_and_paid(results: SqlResults) -> None:
    one = degraded(1, START_NS)
    await results.follow([one.found], [one])
    assert await results.oldest(9, 0) == [one]
    await results.follow([in_epoch(one, 2, revision=2)])
    assert await results.oldest(9, 0) == []


# -- renewing ---------------------------------------------------------------------------------------------------------


def renewal_of(office: Office, ownership: Ownership) -> Renewal:
    llm, fallback, results = office.desk.llm, office.desk.fallback, office.results
    return Renewal(llm, fallback, results, results, office.clock, lambda _: True, ownership)


async def test_insights_are_renewed_by_the_side_of_the_routes_in_its_epoch(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        routes = Moved()
        await office.publish(*(degraded(number, office.clock.now_ns()) for number in range(3)))
        renewal = renewal_of(office, routes.side("service"))
        assert await renewal.renew(0) == 0
        assert len(await office.owed()) == 3
        routes.to("service")
        routes.stamps["c"] = Assignment(side="monolith", epoch=1)
        assert await renewal.renew(0) == 0, "it has not come here yet"
        routes.stamps["c"] = Assignment(side="service", epoch=2)
        assert await renewal.renew(0) == 3
        assert {(each.owner, each.owner_epoch) for each in (await office.published())[3:]} == {("service", 2)}


async def test_debts_of_the_other_side_are_in_nobodys_way(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        routes = Moved()
        routes.to("service", "mine")
        theirs = [degraded(number, office.clock.now_ns()) for number in range(200)]
        last = degraded(200, office.clock.now_ns() + 1)
        mine = Owed(found=msgspec.structs.replace(last.found, conversation_id="mine"), heard=last.heard)
        await office.publish(*theirs, mine)
        assert await renewal_of(office, routes.side("service")).renew(0) == 1


# -- summaries --------------------------------------------------------------------------------------------------------


async def test_a_summary_is_written_by_the_side_of_the_routes(tmp_path: Path) -> None:
    async with database_in(tmp_path) as database:
        clock, routes = FakeClock(START_NS), Moved()
        store = SqlTalks(database, RULES)
        summaries = Summaries(store, SideQuestions(None, None), clock, RULES, routes.side("service"))
        leak = spoken(1, "leak in 305")
        await summaries.transcripts(delivered(leak))
        await summaries.insights(delivered(understood(leak, insight("repair", "Fix leak in 305", "305"))))
        clock.advance(20)
        assert await summaries.renew() == 1
        assert await summaries.renew() == 0, "the other side's is looked at now and then"
        routes.to("service")
        clock.advance(POSTPONED_NS / 10**9)
        assert [each.revision for each in await store.due(clock.now_ns(), 9)] == [0]
        assert await summaries.renew() == 1
        assert await store.due(clock.now_ns() + POSTPONED_NS, 9) == []


def summarized(revision: int, utterances: int) -> ConversationSummarized:
    return ConversationSummarized(
        site="main",
        conversation_id="c",
        channel="housekeeping",
        revision=revision,
        text="A leak is open.",
        source="llm",
        utterances=utterances,
        at_ns=START_NS,
    )


def test_a_summary_goes_on_from_the_other_sides() -> None:
    before = Talk(site="main", conversation_id="c", channel="housekeeping")
    for number in (1, 2):
        before = talks.heard(before, spoken(number, f"line {number}"), RULES, START_NS)
    whole = talks.adopted(before, summarized(4, utterances=2))
    assert (whole.revision, whole.base, whole.lines) == (4, "A leak is open.", ())
    assert talks.due_ns(whole, RULES) is None
    part = talks.adopted(before, summarized(4, utterances=1))
    assert [line.text for line in part.lines] == ["line 2"]
    assert talks.due_ns(part, RULES) is not None
    assert talks.adopted(whole, summarized(3, utterances=2)) is whole
    assert talks.summarized(whole, whole, "Another.", "local").revision == 5
