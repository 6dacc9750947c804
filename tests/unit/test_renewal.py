"""What was answered in the model's place is made good: once, in the next revision, with the receipt of the first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection
from tests.support.intelligence import Desk, heard, insight

from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.timing import Latency
from quickcomm.intelligence.adapters.sql_results import MIGRATIONS, SqlResults
from quickcomm.intelligence.ports import ModelAnswerError, ModelError, ModelNotAllowedError, Owed
from quickcomm.intelligence.service.renewal import ATTEMPTS, Renewal
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.messaging.bus.sql_tables import messages
from quickcomm.kernel.storage import Database, StorageError, migrate

MINUTE_NS = 60 * 10**9


def degraded(number: int, at_ns: int, text: str = "") -> Owed:
    one = heard(text or f"fix lamp {number}", number)
    local = insight(f"Local: {one.text}", model="local-1", degraded=True)
    return Owed(
        heard=one,
        found=InsightsFound(
            site="main",
            conversation_id="c",
            utterance_id=one.utterance_id,
            revision=1,
            insights=(local,),
            speech_ended_ns=at_ns - 900_000_000,
            published_ns=at_ns,
            latency=Latency(stt=100.0, queue=1.0, classify=3.0),
            traceparent="00-trace",
        ),
    )


class Office:
    """A desk with a real store behind it."""

    def __init__(self, database: Database) -> None:
        self.clock = FakeClock()
        self.desk = Desk(clock=self.clock)
        self.desk.guard.succeeded()  # the model was heard of
        self.database = database
        self.results = SqlResults(database)
        self.renewal = Renewal(
            self.desk.llm, self.desk.fallback, self.results, self.results, self.clock, lambda intent: intent == "repair"
        )

    async def publish(self, *items: Owed) -> None:
        await self.results.publish([item.found for item in items], items)

    async def renew(self) -> int:
        return await self.renewal.renew(0)

    async def owed(self) -> list[str]:
        return [item.heard.utterance_id for item in await self.results.oldest(100, 0)]

    async def published(self) -> list[InsightsFound]:
        def load(connection: Connection) -> list[InsightsFound]:
            rows = connection.execute(messages.select().order_by(messages.c.id)).all()
            assert {row.stream for row in rows} <= {INSIGHTS}
            return [msgspec.json.decode(row.payload, type=InsightsFound) for row in rows]

        return await self.database.read(load)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Office]:
    database = Database(path / "q.sqlite")
    database.open()
    SqlBus(database, FakeClock()).migrate()
    migrate(database.engine, "intelligence", MIGRATIONS)
    try:
        yield Office(database)
    finally:
        await database.aclose()


async def test_a_renewal_is_the_next_revision_with_the_receipt_of_the_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        first = degraded(1, office.clock.now_ns())
        await office.publish(first)
        office.clock.advance(60)
        assert await office.renew() == 1
        before, after = await office.published()
        assert before == first.found
        [found] = after.insights
        assert (after.revision, found.revision, found.source, found.degraded) == (2, 2, "llm", False)
        assert found.summary == "fix lamp 1"
        assert after.opens_tasks == (0,)
        kept = msgspec.structs.replace(
            after, revision=1, insights=first.found.insights, opens_tasks=first.found.opens_tasks
        )
        assert kept == first.found, "times, receipt and trace are those of the first"
        assert await office.renew() == 0
        assert len(await office.published()) == 2


async def test_only_what_is_degraded_is_owed(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        one, two = degraded(1, office.clock.now_ns()), degraded(2, office.clock.now_ns())
        await office.results.publish([one.found, two.found], [two])
        assert await office.owed() == ["c:0:2"]


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        await office.publish(degraded(1, office.clock.now_ns()))
    async with opened(tmp_path) as office:
        assert await office.renew() == 1
    async with opened(tmp_path) as office:
        assert await office.renew() == 0
        assert [found.revision for found in await office.published()] == [1, 2]


async def test_what_dies_while_publishing_is_renewed_later_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as office:
        await office.publish(degraded(1, office.clock.now_ns()))
        publish = office.results.publish

        async def fail(*_: object) -> None:
            raise StorageError("The disk is full.")

        monkeypatch.setattr(office.results, "publish", fail)
        assert await office.renew() == 0
        assert await office.owed() == ["c:0:1"]
        monkeypatch.setattr(office.results, "publish", publish)
        assert await office.renew() == 1
        assert len(office.desk.model.requests) == 1, "the answer was in the cache"


async def test_a_higher_revision_goes_through_and_a_lower_or_equal_one_does_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        found = degraded(1, office.clock.now_ns()).found
        for revision in (1, 1, 3, 2, 3):
            await office.results.publish([msgspec.structs.replace(found, revision=revision)])
        assert [item.revision for item in await office.published()] == [1, 3]
        assert await office.results.known([("main", "c:0:1")]) == {("main", "c:0:1")}


async def test_the_oldest_come_first_and_the_too_old_not_at_all(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        now = office.clock.now_ns()
        await office.publish(degraded(1, now), degraded(2, now - MINUTE_NS), degraded(3, now - 20 * MINUTE_NS))
        assert await office.owed() == ["c:0:3", "c:0:2", "c:0:1"]
        since = now - 15 * MINUTE_NS
        assert [item.heard.utterance_id for item in await office.results.oldest(1, since)] == ["c:0:2"]
        assert await office.results.forget_before(since) == 1
        assert await office.owed() == ["c:0:2", "c:0:1"]


async def test_while_the_model_is_away_nothing_is_tried(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        await office.publish(degraded(1, office.clock.now_ns()))
        office.desk.guard.failed(ModelNotAllowedError("no"), office.clock.monotonic())
        assert await office.renew() == 0
        assert office.desk.model.requests == []
        assert await office.owed() == ["c:0:1"]


async def test_when_it_goes_away_again_in_the_middle_nothing_is_given_up(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        await office.publish(*(degraded(number, office.clock.now_ns()) for number in range(20)))
        office.desk.model.down = ModelError("500")
        for _ in range(ATTEMPTS + 1):
            assert await office.renew() == 0
            office.clock.advance(600)
        assert len(await office.owed()) == 20
        assert len(office.desk.model.requests) < 20, "and it is left alone"


async def test_one_that_the_model_has_no_answer_for_is_given_up_and_the_others_are_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        now = office.clock.now_ns()
        await office.publish(degraded(1, now, "nonsense"), degraded(2, now))
        assert await office.renew() == 1
        for _ in range(ATTEMPTS - 1):
            assert await office.owed() == ["c:0:1"]
            calls = len(office.desk.grounding.seen)
            assert await office.renew() == 0
            assert len(office.desk.grounding.seen) == calls, "not at once"
            office.clock.advance(600)
            assert await office.renew() == 0
            assert len(office.desk.grounding.seen) == calls + 1
        assert await office.owed() == []


async def test_they_take_only_places_that_live_utterances_leave(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        await office.publish(*(degraded(number, office.clock.now_ns()) for number in range(20)))
        office.desk.model.gate.clear()
        renewing = asyncio.ensure_future(office.renew())
        await office.desk.model.asked(6)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(office.desk.model.requests) == 6, "three quarters of eight"
        live = asyncio.ensure_future(office.desk.answer(heard("fire in the lobby")))
        await office.desk.model.asked(7)
        office.desk.model.gate.set()
        await live
        assert await renewing == 20


async def test_run_renews_until_it_is_stopped_and_gives_up_what_is_too_old(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        now = office.clock.now_ns()
        await office.publish(degraded(1, now), degraded(2, now - 16 * MINUTE_NS))
        pauses = 0

        async def sleep(_: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 3:
                office.renewal.stop()

        await office.renewal.run(15, sleep)
        assert [(found.utterance_id, found.revision) for found in await office.published()][2:] == [("c:0:1", 2)]
        assert await office.owed() == []


async def test_what_another_version_wrote_stops_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        await office.publish(degraded(1, office.clock.now_ns() - 1), degraded(2, office.clock.now_ns()))
        await office.database.write(
            lambda connection: connection.exec_driver_sql(
                "UPDATE intelligence_owed SET payload = '{}' WHERE utterance_id = 'c:0:1'"
            )
        )
        assert await office.renew() == 1


async def test_an_answer_error_of_the_endpoint_counts_against_it_here_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as office:
        await office.publish(*(degraded(number, office.clock.now_ns()) for number in range(6)))
        office.desk.model.down = ModelAnswerError("cut off")
        assert await office.renew() == 0
        assert not office.desk.fallback.well
        assert len(office.desk.model.requests) == 1, "one is enough to see that"
