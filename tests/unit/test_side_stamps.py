"""What is made during a migration says which side made it; without one, nothing is added."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from tests.support.talking import spoken

from quickcomm.audio.adapters.redis_rows import Row
from quickcomm.cli.trace import drawn
from quickcomm.contracts.audio_socket import AudioFormat
from quickcomm.contracts.captions import Caption
from quickcomm.contracts.conversations import ConversationChanged
from quickcomm.contracts.insights import InsightsFound
from quickcomm.contracts.routes import Side
from quickcomm.contracts.timing import Latency
from quickcomm.contracts.transcripts import UtteranceTranscribed
from quickcomm.dashboard.model.projections import latency_of
from quickcomm.dashboard.model.records import UtteranceRecord
from quickcomm.dashboard.model.views import card_view
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.telemetry.exposition import exposition
from quickcomm.kernel.telemetry.live import LiveStages
from quickcomm.kernel.telemetry.otlp import OtlpSink
from quickcomm.kernel.telemetry.settings import Budget
from quickcomm.kernel.telemetry.side import set_side, stamp
from quickcomm.kernel.telemetry.spans import MODULES, Detail, Kept, Made, Origin
from quickcomm.kernel.telemetry.stages import waterfall

WHOLE: Final = Latency(endpoint=520, stt=300, publish=4, queue=3, classify=20, store=8, push=1, total=856)
SPLIT: Final = {"audio": "monolith", "intelligence": "service", "dashboard": "monolith"}
MOVED: Final = msgspec.structs.replace(WHOLE, sides=SPLIT)


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    yield
    set_side(None)


def on(side: Side | None) -> None:
    set_side(lambda: side)


# -- messages ---------------------------------------------------------------------------------------------------------


def change() -> ConversationChanged:
    row = Row(
        site="main",
        conversation_id="c",
        channel="desk",
        format=AudioFormat(),
        token_hash=b"",
        epoch=1,
        seq=0,
        state="live",
        checkpoints=b"[]",
        ledgers=(),
        updated_ns=1,
        owner="monolith",
        version=1,
    )
    return row.change("ended", 2)


@pytest.mark.parametrize("side", ["monolith", "service"])
def test_messages_say_their_side_while_modules_move(side: Side) -> None:
    on(side)
    said = msgspec.to_builtins(change())
    assert said["side"] == side
    assert msgspec.json.decode(msgspec.json.encode(change()), type=ConversationChanged) == change()


def test_without_a_migration_no_message_has_a_field_more() -> None:
    plain = [
        change(),
        spoken(1, "towels"),
        WHOLE,
        Caption(site="main", conversation_id="c", channel="desk", speaker=0, start_offset=0, text="t", side=stamp()),
    ]
    assert all(b'"side' not in msgspec.json.encode(each) for each in plain)


def test_a_message_of_an_older_release_has_no_side_and_an_older_reader_passes_it_over() -> None:
    class Older(msgspec.Struct, kw_only=True):
        utterance_id: str
        text: str

    on("service")
    message = msgspec.structs.replace(spoken(1, "towels"), side=stamp())
    assert msgspec.json.decode(msgspec.json.encode(message), type=Older).text == "towels"
    on(None)
    old = msgspec.json.decode(msgspec.json.encode(spoken(1, "towels")), type=UtteranceTranscribed)
    assert old.side is msgspec.UNSET


# -- receipts ---------------------------------------------------------------------------------------------------------


def record(side: str | None, owner: str = "service", pushed: str | None = "monolith") -> UtteranceRecord:
    heard = spoken(1, "towels")
    if side is not None:
        heard = msgspec.structs.replace(heard, side=side, latency=Latency(stt=300.0))
    found = InsightsFound(
        site=heard.site,
        conversation_id=heard.conversation_id,
        utterance_id=heard.utterance_id,
        revision=1,
        insights=(),
        speech_ended_ns=1,
        published_ns=2,
        latency=Latency(classify=20.0),
        owner=owner,
    )
    receipt = Latency(push=1.0, total=800.0)
    if pushed is not None:
        receipt = msgspec.structs.replace(receipt, sides={"dashboard": pushed})
    return UtteranceRecord(
        site=heard.site,
        utterance_id=heard.utterance_id,
        conversation_id=heard.conversation_id,
        heard=heard,
        found=found,
        receipt=receipt,
    )


def test_a_receipt_says_which_side_served_each_module() -> None:
    latency = latency_of(record("monolith"))
    assert latency.sides == SPLIT
    assert (latency.stt, latency.classify, latency.total) == (300.0, 20.0, 800.0)
    assert msgspec.to_builtins(card_view(record("monolith"), ()))["latency_ms"]["sides"] == SPLIT
    stored = msgspec.json.decode(msgspec.json.encode(latency), type=Latency)
    assert stored == latency


def test_a_receipt_from_before_the_migration_says_no_side() -> None:
    assert latency_of(record(None, owner="monolith", pushed=None)).sides is msgspec.UNSET
    assert latency_of(record(None, pushed="service")).sides == {"dashboard": "service"}


def test_the_waterfall_says_who_served_each_stage() -> None:
    fall = waterfall(MOVED, Budget(), 30.0)
    assert {step.stage: step.side for step in fall.steps}["classify"] == "service"
    assert {step.side for step in waterfall(WHOLE, Budget()).steps} == {msgspec.UNSET}
    view = msgspec.to_builtins(fall) | {"utterance_id": "u", "channel": "desk", "spoken_at": None, "trace_id": None}
    assert any("classify" in line and "service" in line for line in drawn(view))
    view = msgspec.to_builtins(waterfall(WHOLE, Budget())) | {"utterance_id": "u", "channel": "d", "spoken_at": None}
    assert not any("service" in line for line in drawn(view | {"trace_id": None}))


# -- metrics ----------------------------------------------------------------------------------------------------------


def told(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_stages_are_counted_by_the_side_that_served_them() -> None:
    clock = FakeClock()
    live = LiveStages(clock, Budget)
    before = told("quickcomm_stage_seconds_count", stage="classify", side="services") or 0.0
    live.observe(MOVED)
    live.observe(WHOLE)
    assert told("quickcomm_stage_seconds_count", stage="classify", side="services") == before + 1
    assert told("quickcomm_stage_seconds_count", stage="classify", side="monolith") is None
    assert told("quickcomm_budget_used_ratio", stage="stt", side="monolith") == 300 / 200
    assert told("quickcomm_budget_used_ratio", stage="stt", side="") == 300 / 200
    on("service")
    live.painted(10.0)
    assert told("quickcomm_stage_seconds_count", stage="painted", side="services") == 1
    clock.advance(400)
    assert told("quickcomm_budget_used_ratio", stage="stt", side="monolith") == 0.0


def test_each_series_of_a_process_says_its_side_and_only_while_modules_move() -> None:
    registry = CollectorRegistry()
    Counter("quiet", "Q", registry=registry).inc()
    named = Counter("named", "N", ["side", "kind"], registry=registry)
    named.labels("monolith", "a").inc()
    named.labels("", "b").inc()
    plain = exposition(registry).decode()
    assert "quiet_total 1.0" in plain
    assert 'named_total{kind="b"} 1.0' in plain
    on("service")
    moving = exposition(registry).decode()
    assert 'quiet_total{side="services"} 1.0' in moving
    assert 'named_total{kind="a",side="monolith"} 1.0' in moving
    on(None)
    assert exposition(registry).decode() == plain


# -- spans ------------------------------------------------------------------------------------------------------------


def exported(act: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the attributes of all spans that the sink sends, by name."""
    exporter = InMemorySpanExporter()
    sink = OtlpSink("http://127.0.0.1:9", exporter=exporter)
    act(sink)
    sink.close(5.0)
    return {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}


def kept(latency: Latency) -> Kept:
    origin = Origin(
        site="main",
        conversation_id="c",
        utterance_id="c:0:0",
        channel="desk",
        spoken_at_ns=1_000_000_000,
        speech_ended_ns=2_000_000_000,
    )
    detail = Detail(name="store.commit", module="dashboard", stage="store", start_ns=2, end_ns=3)
    return Kept(
        origin=origin,
        latency=latency,
        painted_ms=None,
        details=(detail,),
        batches=(),
        why="slow",
        error="",
        modules=MODULES,
    )


def test_spans_say_the_side_that_made_them_and_leave_the_other_sides_stages_to_it() -> None:
    on("monolith")
    spans = exported(lambda sink: sink.utterance(kept(MOVED)))
    assert {"utterance", "receive", "stt", "store", "push", "store.commit"} <= spans.keys()
    assert {attributes["quickcomm.side"] for attributes in spans.values()} == {"monolith"}
    assert not {"queue", "classify"} & spans.keys()
    elsewhere = msgspec.structs.replace(WHOLE, sides={**SPLIT, "dashboard": "service"})
    assert not {"store", "push"} & exported(lambda sink: sink.utterance(kept(elsewhere))).keys()
    on("service")
    spans = exported(
        lambda sink: sink.utterance(msgspec.structs.replace(kept(MOVED), modules=frozenset({"intelligence"})))
    )
    assert spans.keys() >= {"queue", "classify"}
    assert spans["classify"]["quickcomm.side"] == "services"


def test_without_a_migration_spans_say_no_side() -> None:
    made = Made(
        name="GET /x",
        module="dashboard",
        kind="server",
        trace_id=1,
        span_id=2,
        parent_id=None,
        start_ns=1,
        end_ns=2,
        attributes={},
    )

    def act(sink: OtlpSink) -> None:
        sink.utterance(kept(WHOLE))
        sink.call(made)

    spans = exported(act)
    assert {"classify", "GET /x"} <= spans.keys()
    assert not any("quickcomm.side" in attributes for attributes in spans.values())
