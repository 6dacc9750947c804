"""Trace ids survive the bus: from the transcript over the insights to the card, also where one comes twice."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tests.support.talking import insight, spoken

from quickcomm.contracts.insight import Insight
from quickcomm.contracts.insights import INSIGHTS, InsightsFound
from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.dashboard.adapters.state import SqlStore
from quickcomm.dashboard.model.views import card_view
from quickcomm.dashboard.module import MIGRATIONS
from quickcomm.dashboard.ports import State
from quickcomm.dashboard.service.projector import Projector
from quickcomm.intelligence.adapters.sql_results import SqlResults
from quickcomm.intelligence.module import Heard, Intelligence
from quickcomm.intelligence.service.understanding import Understanding
from quickcomm.kernel.clock import SystemClock
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.sql import SqlBus
from quickcomm.kernel.storage import Database, migrate
from quickcomm.kernel.telemetry import trace_id_of
from quickcomm.kernel.telemetry.ids import traceparent


class Towels:
    model = "towels"

    async def classify(self, heard: Sequence[Heard]) -> list[tuple[Insight, ...]]:
        return [(insight("request_item", "Bring towels", "412"),) for _ in heard]


def traced(number: int) -> UtteranceTranscribed:
    message = spoken(number, "towels to 412")
    return msgspec.structs.replace(message, traceparent=traceparent("main", message.utterance_id, 1.0))


async def test_trace_ids_survive_the_bus(tmp_path: Path) -> None:
    database, clock = Database(tmp_path / "site.sqlite"), SystemClock()
    database.open()
    bus = SqlBus(database, clock)
    bus.migrate()
    Intelligence.migrate_tables(database)
    migrate(database.engine, "dashboard", MIGRATIONS)
    understanding = Understanding(Towels(), SqlResults(database), clock, lambda _: True)
    found: dict[str, InsightsFound] = {}
    all_there = asyncio.Event()

    async def take(batch: Sequence[Delivery]) -> None:
        for delivery in batch:
            message = msgspec.json.decode(delivery.payload, type=InsightsFound)
            found[message.utterance_id] = message
        if len(found) == 3:
            all_there.set()

    sent = [traced(number) for number in range(3)]
    try:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            consumers = [
                tasks.create_task(bus.subscribe(TRANSCRIPTS, "intelligence", understanding.handle)),
                tasks.create_task(bus.subscribe(INSIGHTS, "dashboard", take)),
            ]
            for message in [*sent, sent[0]]:
                await bus.publish(TRANSCRIPTS, message.conversation_id, msgspec.json.encode(message))
            await all_there.wait()
            for consumer in consumers:
                consumer.cancel()
        for message in sent:
            assert found[message.utterance_id].traceparent == message.traceparent

        def project(state: State) -> list[str | None]:
            projector = Projector(state)
            for message in sent:
                projector.transcript(message)
                projector.insights(found[message.utterance_id])
            return [card_view(record, tasks).trace_id for record, tasks in projector.finish().cards]

        ids = await SqlStore(database).transact(project)
        assert ids == [f"{trace_id_of('main', message.utterance_id):032x}" for message in sent]
    finally:
        await database.aclose()
