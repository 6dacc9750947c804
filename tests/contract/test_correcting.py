"""A corrected text, where decisions are transactions and in the log of a site; and what comes late of the heard one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from tests.support.dashboard_site import Site, events, found, heard, insight, running
from tests.support.examples import examples
from tests.support.valkey import Valkey

from quickcomm.contracts.checking import CompareDashboard
from quickcomm.contracts.correcting import (
    Amended,
    AmendUtterance,
    Correction,
    CorrectUtterance,
    ReadCorrection,
    RestoreUtterance,
    first_revision,
)
from quickcomm.contracts.erasing import EraseDashboard, FindDashboard, Scope, Wanted
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.operations import StartOperation
from quickcomm.contracts.saga import OperationView, Undone
from quickcomm.dashboard.adapters.digests import digest_answers
from quickcomm.dashboard.adapters.queries import SqlQueries
from quickcomm.dashboard.adapters.tables import utterances
from quickcomm.dashboard.backfill import backfill, source
from quickcomm.dashboard.model.projections import with_insights
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import Page, UtteranceFilter
from quickcomm.kernel.errors import BusyError, ConflictError, InvalidInputError, NotFoundError
from quickcomm.kernel.saga import CompensatedError
from quickcomm.kernel.saga.keys import migrate_keys
from quickcomm.kernel.storage import Database, migrate

SECRET: Final = "zanzibarquartz"
SAID = heard(0, "towels to 415")
UTTERANCE = SAID.utterance_id
CARD = f"/v1/utterances/{UTTERANCE}"
TASK = f"/v1/tasks/{UTTERANCE}:0"
RIGHT = "towels to 412"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()


async def _started(request: StartOperation) -> OperationView:
    """As the executor answers that has only begun."""
    return OperationView(
        id=f"op-{request.given['number']}",
        name=request.operation,
        site=request.site,
        subject=str(request.given["utterance_id"]),
        by=request.by,
        status="running",
        started_ns=1,
        changed_ns=1,
    )


@pytest.fixture(params=["database", "log"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, server: Valkey) -> AsyncIterator[Site]:
    url = server.url if request.param == "log" else None
    async with running(tmp_path / "site", redis_url=url, answers=[(StartOperation, _started)]) as site:
        migrate_keys(site.database.engine)
        yield site


async def call(site: Site, request: Any) -> Any:
    answers: dict[type[Any], Callable[[Any], Any]] = dict(site.dashboard._answers())
    return await answers[type(request)](request)


async def propose(site: Site, text: str, utterance_id: str = UTTERANCE) -> str:
    asked = CorrectUtterance(site="main", utterance_id=utterance_id, text=text, by="grace")
    return str((await call(site, asked)).id)


def amending(number: int, utterance_id: str = UTTERANCE) -> AmendUtterance:
    return AmendUtterance(key=f"{number}:amend", site="main", utterance_id=utterance_id, number=number, by="grace")


def restoring(number: int, utterance_id: str = UTTERANCE) -> RestoreUtterance:
    return RestoreUtterance(key=f"{number}:amend", site="main", utterance_id=utterance_id, number=number, by="grace")


def reading(number: int) -> ReadCorrection:
    return ReadCorrection(site="main", utterance_id=UTTERANCE, number=number, context=3)


def understood(number: int, room: str = "412") -> InsightsFound:
    """As intelligence publishes them of a corrected text."""
    revision = first_revision(number)
    one = msgspec.structs.replace(insight("request_item", room, summary=f"Towels to {room}"), revision=revision)
    return msgspec.structs.replace(found(SAID, one, revision=revision), text=RIGHT)


class Cards:
    """What a page is told of one utterance."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed

    async def until(self, wanted: Callable[[Any], bool], utterance_id: str = UTTERANCE) -> Any:
        while True:
            card = (await events(self._feed, "card"))["card"]
            if card["utterance_id"] == utterance_id and wanted(card):
                return card


def revision_of(card: Any) -> int:
    return int(max(each["revision"] for each in card["insights"]))


async def test_a_text_is_in_force_once_and_everywhere(site: Site) -> None:
    await site.say(SAID, insight("request_item", "415", summary="Towels to 415"))
    assert await propose(site, f"  {RIGHT.replace(' ', '  ')} ") == "op-1"
    card = await site.get(CARD)
    assert (card["text"], card["corrected"]) == (SAID.text, None), "only the operation puts it in force"
    first: Amended = await call(site, amending(1))
    card = await site.get(CARD)
    assert (card["text"], card["words"]) == (RIGHT, [])
    assert (card["corrected"]["by"], card["corrected"]["heard"]) == ("grace", SAID.text)
    assert len((await site.get("/v1/utterances", {"query": "412"}))["items"]) == 1
    assert await call(site, amending(1)) == first, "sent again, it changes nothing"
    assert await propose(site, RIGHT) == "op-1", "the same text is the same correction"
    assert await propose(site, "towels to 411") == "op-2"
    await call(site, amending(2))
    assert (await call(site, reading(2))).text == "towels to 411"
    card = await site.get(CARD)
    assert (card["text"], card["corrected"]["heard"]) == ("towels to 411", SAID.text)
    assert (await site.get("/v1/utterances", {"query": "412"}))["items"] == []


async def test_taken_back_the_text_before_it_is_in_force_again(site: Site) -> None:
    await site.say(SAID, insight("request_item", "415"))
    for number, text in ((1, RIGHT), (2, "towels to 411")):
        await propose(site, text)
        await call(site, amending(number))
    assert await call(site, restoring(2)) == Undone(found=True)
    await call(site, restoring(2))
    with pytest.raises(CompensatedError):
        await call(site, reading(2))
    assert (await site.get(CARD))["text"] == RIGHT
    with pytest.raises(CompensatedError):
        await call(site, amending(2))
    assert await propose(site, "towels to 411") == "op-3", "a number that was taken back is never used again"
    assert await call(site, restoring(3)) == Undone(found=False)
    with pytest.raises(CompensatedError):
        await call(site, amending(3))
    await call(site, restoring(1))
    card = await site.get(CARD)
    assert (card["text"], card["corrected"], len(card["words"])) == (SAID.text, None, 1)


async def test_what_cannot_be_corrected_is_refused(site: Site) -> None:
    with pytest.raises(NotFoundError):
        await propose(site, RIGHT)
    await site.publish(SAID)
    async with site.live("?after=0") as feed:
        await Cards(feed).until(lambda _: True)
    for text in ("", "  ", "x" * 1_001, "a\0b"):
        with pytest.raises(InvalidInputError):
            await propose(site, text)
    await site.post(f"{CARD}/correct", body={"text": SAID.text}, expect=409)
    await propose(site, RIGHT)
    with pytest.raises(BusyError):
        await call(site, amending(1))
    with pytest.raises(BusyError):
        await call(site, reading(1))
    for body in ({}, {"text": ""}, {"text": "x" * 1_001}):
        await site.post(f"{CARD}/correct", body=body, expect=400)
    await site.post("/v1/utterances/nobody:0:0/correct", body={"text": RIGHT}, expect=404)
    await site.post(f"{CARD}/correct", "read", body={"text": RIGHT}, expect=403)
    stand = await site.post(f"{CARD}/correct", body={"text": RIGHT})
    assert (stand["operation"], stand["operation_id"], stand["status"]) == ("correct", "op-1", "running")


async def test_a_copy_is_corrected_where_its_work_is_and_stays_one(site: Site) -> None:
    copy = heard(0, SAID.text, conversation="shift-2", channel="engineering")
    for message in (SAID, copy):
        await site.say(message, insight("request_item", "415"))
    first, second = sorted((SAID.utterance_id, copy.utterance_id))
    async with site.live("?after=0") as feed:
        related = await Cards(feed).until(lambda card: card["relates_to"] is not None, second)
    assert related["relates_to"]["utterance_id"] == first == UTTERANCE
    with pytest.raises(ConflictError, match=first):
        await propose(site, RIGHT, second)
    await propose(site, RIGHT)
    await call(site, amending(1))
    async with site.live("?after=0") as feed:
        await site.publish(understood(1))
        await Cards(feed).until(lambda card: revision_of(card) == first_revision(1))
    assert (await site.get(f"/v1/utterances/{second}"))["relates_to"]["utterance_id"] == first
    tasks = (await site.get("/v1/tasks"))["items"]
    assert [task["rooms"] for task in tasks] == [["412"]]


async def test_later_insights_of_the_heard_text_do_not_win(site: Site) -> None:
    await site.say(SAID, insight("request_item", "415"))
    await propose(site, RIGHT)
    await call(site, amending(1))
    async with site.live("?after=0") as feed:
        cards = Cards(feed)
        await site.publish(understood(1))
        await cards.until(lambda card: revision_of(card) == first_revision(1))
        for late in (found(SAID, insight("request_item", "415"), revision=number) for number in (2, 3, 999)):
            await site.publish(late)
        await site.publish(msgspec.structs.replace(understood(1, "412 A"), revision=first_revision(1) + 1))
        card = await cards.until(lambda card: card["insights"][0]["rooms"] == ["412 A"])
    assert [task["rooms"] for task in card["tasks"]] == [["412 A"]]


@given(order=st.permutations([1, 2, 3, 1_000, 1_001, 2_000, 2_001]))
@examples(60)
def test_the_newest_insights_of_the_newest_text_stand_in_any_order(order: list[int]) -> None:
    record = None
    for revision in order:
        record = with_insights(record, found(SAID, insight(), revision=revision))
    assert record is not None
    assert record.found is not None
    assert record.found.revision == 2_001


async def test_what_a_person_has_done_with_a_task_stays(site: Site) -> None:
    two = (insight("request_item", "415"), insight("request_item", "417", index=1))
    await site.say(SAID, *two)
    await site.post(f"{TASK}/assign", body={"assignee": "Ann"})
    await site.post(f"{TASK}/complete")
    await propose(site, RIGHT)
    await call(site, amending(1))
    async with site.live("?after=0") as feed:
        await site.publish(understood(1))
        card = await Cards(feed).until(lambda card: revision_of(card) == first_revision(1))
    [task] = card["tasks"]
    assert (task["rooms"], task["summary"]) == (["412"], "Towels to 412")
    assert (task["status"], task["assignee"], task["version"]) == ("done", "Ann", 2)


async def test_who_understands_it_gets_what_was_said_before_as_it_stands(site: Site) -> None:
    early = heard(16_000, "good morning")
    last = heard(32_000, "towels to 415")
    for message in (SAID, early, last):
        await site.say(message, insight("request_item", "415"))
    await propose(site, RIGHT)
    await call(site, amending(1))
    await propose(site, "towels to 418", last.utterance_id)
    asked = msgspec.structs.replace(reading(1), utterance_id=last.utterance_id)
    told: Correction = await call(site, asked)
    assert (told.text, told.context) == ("towels to 418", (RIGHT, "good morning"))
    assert (told.found.utterance_id, told.channel) == (last.utterance_id, "housekeeping")


async def test_an_erasure_takes_the_correction_and_it_does_not_come_back(site: Site) -> None:
    await site.say(SAID, insight("request_item", "415"))
    await propose(site, f"towels for {SECRET}")
    await call(site, amending(1))
    scope = await call(site, FindDashboard(wanted=Wanted(name=SECRET)))
    assert scope == Scope(utterances=(UTTERANCE,))
    await call(site, EraseDashboard(erasure="e", at_ns=1, scope=scope))
    with pytest.raises(NotFoundError):
        await propose(site, RIGHT)
    with pytest.raises(NotFoundError):
        await call(site, msgspec.structs.replace(amending(1), key="another:amend"))
    with pytest.raises(NotFoundError):
        await call(site, reading(1))
    assert await call(site, restoring(1)) in (Undone(), Undone(found=True))
    query = sa.text("SELECT payload FROM dashboard_decisions")
    assert await site.database.read(lambda connection: connection.execute(query).scalars().all()) == []


async def test_a_copied_dashboard_has_the_corrected_text(site: Site, tmp_path: Path) -> None:
    await site.say(SAID, insight("request_item", "415"))
    await propose(site, RIGHT)
    await call(site, amending(1))
    copied = Database(tmp_path / "copy.sqlite")
    copied.open()
    try:
        migrate(copied.engine, "dashboard", MIGRATIONS)
        await backfill(copied, source(site.database))
        compare = CompareDashboard(content=True)
        contents = [await _contents(each, compare) for each in (site.database, copied)]
        assert contents[0].kinds == contents[1].kinds
        card = await SqlQueries(copied).utterance("main", UTTERANCE)
        assert (card.text, card.corrected and card.corrected.heard) == (RIGHT, SAID.text)
        listed = await SqlQueries(copied).utterances("main", UtteranceFilter(query="412"), Page())
        assert len(listed.items) == 1
    finally:
        await copied.aclose()


async def test_the_checker_finds_a_card_without_its_corrected_text(site: Site) -> None:
    await site.say(SAID, insight("request_item", "415"))
    for number, text in ((1, RIGHT), (2, "towels to 411")):
        await propose(site, text)
        await call(site, amending(number))
    compare, content = CompareDashboard(), CompareDashboard(content=True)
    before = await _contents(site.database, content)
    assert (await _contents(site.database, compare)).faults == []
    await site.database.write(lambda connection: connection.execute(sa.update(utterances).values(corrected=None)))
    assert {fault.code for fault in (await _contents(site.database, compare)).faults} == {"decision.unfolded"}
    assert (await _contents(site.database, content)).kinds["cards"] != before.kinds["cards"], "two sides would differ"


async def _contents(database: Database, request: CompareDashboard) -> Any:
    return await dict(digest_answers(database))[CompareDashboard](request)
