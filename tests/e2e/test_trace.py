"""One trace for an utterance, from the microphone to the pixel; and the same story without any backend."""

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.conftest import NewServer, NewSite
from tests.support.otlp import Received, Span, otlp_receiver
from tests.support.server import Server, quickcomm
from tests.support.talk import Talk
from tests.support.viewer import PAINTED_MS, viewer
from tests.support.wire import Wire, converse, new_id

from quickcomm.kernel.telemetry import trace_id_of

Json = dict[str, Any]
STAGES: Final = ("receive", "vad", "stt", "publish", "queue", "classify", "store", "push", "painted")
AUDIO: Final = "GET /v1/conversations/{conversation_id}/audio"
SERVICES: Final = {
    **dict.fromkeys(("receive", "vad", "stt", "publish"), "quickcomm-audio"),
    **dict.fromkeys(("queue", "classify"), "quickcomm-intelligence"),
    **dict.fromkeys(("store", "push", "painted"), "quickcomm-dashboard"),
}


def tracing_to(received: Received, **more: str) -> dict[str, str]:
    return {"QUICKCOMM_TELEMETRY_OTLP_URL": received.url, "QUICKCOMM_TELEMETRY_SAMPLE": "1", **more}


def whole(received: Received, wire: Wire) -> bool:
    """Whether every utterance's trace has all its stages, and the conversation has its span."""
    traces = [{span.name for span in received.trace(of(each["utterance_id"]))} for each in wire.of("utterance")]
    return all(names.issuperset(STAGES) for names in traces) and bool(received.named("conversation"))


def of(utterance_id: str) -> str:
    return f"{trace_id_of('main', utterance_id):032x}"


def trace(server: Server, utterance_id: str, *options: str, statuses: tuple[int, ...] = (0,)) -> str:
    arguments = ("trace", utterance_id, "--data-dir", str(server.data_dir), *options)
    return quickcomm(*arguments, statuses=statuses, errors=statuses != (0,))


async def test_a_spoken_utterance_is_one_trace(new_server: NewServer, talk: Talk) -> None:
    async with otlp_receiver() as received:
        flags = ("--log-json", "--log-level", "debug")
        server = await asyncio.to_thread(new_server, *flags, **tracing_to(received))
        key = await asyncio.to_thread(server.key)
        async with viewer(server) as cards:
            wire = await converse(server.url, key, talk.wire, conversation_id=new_id("traced"), channel="radio")
            await received.until(lambda got: whole(got, wire))
        first = wire.of("utterance")[0]["utterance_id"]
        for said in wire.of("utterance"):
            card = cards[said["utterance_id"]]
            assert card["trace_id"] == of(said["utterance_id"]), "one click from the card to its trace"
            holds_together(received, received.trace(card["trace_id"]), card)
        await asyncio.to_thread(tells_without_a_backend, server, cards[first])
        await asyncio.to_thread(counts_every_stage, server, len(wire.of("utterance")))
        lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        published = [line for line in lines if line["event"] == "utterance.published"]
        assert {line["trace_id"] for line in published} == {of(each["utterance_id"]) for each in wire.of("utterance")}


def holds_together(received: Received, spans: list[Span], card: Json) -> None:
    by_name = {span.name: span for span in spans}
    [root] = [span for span in spans if not span.parent_id]
    assert root.name == "utterance"
    assert root.attributes["quickcomm.utterance_id"] == card["utterance_id"]
    assert root.attributes["quickcomm.channel"] == "radio"
    [conversation] = received.named("conversation")
    assert (conversation.trace_id, conversation.span_id) in root.links
    stages = [by_name[name] for name in STAGES]
    assert {span.name: span.service for span in stages} == SERVICES
    assert {span.parent_id for span in stages} == {root.span_id}
    for before, after in pairwise(stages):
        assert after.start_ns == before.end_ns, f"{after.name} begins where {before.name} ends"
    assert root.start_ns == stages[0].start_ns
    assert root.end_ns == stages[-1].end_ns
    for field, span in zip(
        ("endpoint", "stt", "publish", "queue", "classify", "store", "push"), stages[1:], strict=False
    ):
        assert abs((span.end_ns - span.start_ns) / 1e6 - card["latency_ms"][field]) < 0.001
    assert by_name["store.commit"].parent_id == by_name["store"].span_id
    assert by_name["publish.commit"].parent_id == by_name["queue"].span_id
    # The engine's call is a trace of its own: several utterances may share it, and each points to it.
    batches = [span for span in received.named("stt.batch") if (span.trace_id, span.span_id) in by_name["stt"].links]
    assert len(batches) == 1
    assert (root.trace_id, by_name["stt"].span_id) in batches[0].links


def tells_without_a_backend(server: Server, card: Json) -> None:
    utterance_id = card["utterance_id"]
    told: Json = json.loads(trace(server, utterance_id, "--json"))
    assert told["trace_id"] == card["trace_id"]
    assert told["complete"]
    measured = {step["stage"]: step["ms"] for step in told["steps"]}
    total = measured | {"total": told["total_ms"]}
    assert total == card["latency_ms"] | {"painted": PAINTED_MS}
    for_people = trace(server, utterance_id)
    for step in told["steps"]:
        assert step["words"] in for_people
        assert step["over"] == (step["ms"] > step["budget_ms"])
    assert told["verdict"] in for_people
    assert "There is no utterance 'nobody:0:1'" in trace(server, "nobody:0:1", statuses=(1,))


def counts_every_stage(server: Server, utterances: int) -> None:
    families = {
        family.name: family for family in text_string_to_metric_families(server.get("/metrics", "read").body.decode())
    }
    counted = {
        sample.labels["stage"]: sample.value
        for sample in families["quickcomm_stage_seconds"].samples
        if sample.name.endswith("_count")
    }
    assert counted == dict.fromkeys(
        ("endpoint", "stt", "publish", "queue", "classify", "store", "push", "painted", "total"), utterances
    )
    [row] = [
        json.loads(line) for line in quickcomm("status", "--json", "--data-dir", str(server.data_dir)).splitlines()
    ]
    stages = {stage["stage"]: stage for stage in row["stages"]}
    assert stages.keys() == counted.keys()
    for sample in families["quickcomm_budget_used_ratio"].samples:
        stage = stages[sample.labels["stage"]]
        assert stage["count"] == utterances
        assert stage["p50_ms"] <= stage["p95_ms"] <= stage["p99_ms"]
        assert sample.value == stage["used"] == round(stage["p95_ms"] / stage["budget_ms"], 3)


async def test_what_is_out_of_the_sample_is_kept_when_it_is_slow(new_server: NewServer, talk: Talk) -> None:
    """Nothing is in the sample, and of nothing that is said here a millisecond is fast enough."""
    async with otlp_receiver() as received:
        settings = tracing_to(
            received,
            QUICKCOMM_TELEMETRY_SAMPLE="0",
            QUICKCOMM_TELEMETRY_SLOW_MS="1",
            QUICKCOMM_BUDGETS_CLASSIFY="0.001",
        )
        server = await asyncio.to_thread(new_server, **settings)
        key = await asyncio.to_thread(server.key)
        async with viewer(server):
            wire = await converse(server.url, key, talk.wire)
            await received.until(lambda got: whole(got, wire))
        assert {span.attributes["quickcomm.kept"] for span in received.named("utterance")} == {"slow"}
        said = wire.of("utterance")[0]["utterance_id"]
        server.kill()  # and nobody is there to ask
        arguments = ("trace", said, "--data-dir", str(server.data_dir))
        for_people = await asyncio.to_thread(quickcomm, *arguments, env=settings)
        assert "Understanding (classify, of intelligence) took" in for_people, (
            "the stage that broke its budget is named"
        )


@pytest.mark.long
async def test_over_three_services_it_is_one_trace_and_each_tells_its_part(new_site: NewSite, talk: Talk) -> None:
    """Nothing is in the sample; all of it is slow, which the others hear by their direct links."""
    async with otlp_receiver() as received:
        settings = tracing_to(received, QUICKCOMM_TELEMETRY_SAMPLE="0", QUICKCOMM_TELEMETRY_SLOW_MS="1")
        site = new_site("--deployment", "services", **settings)
        await asyncio.to_thread(site.start)
        key = await asyncio.to_thread(site.key)
        async with viewer(site) as cards:
            wire = await converse(site.url, key, talk.wire, conversation_id=new_id("apart"))
            await received.until(lambda got: whole(got, wire))
        for said in wire.of("utterance"):
            spans = {span.name: span for span in received.trace(of(said["utterance_id"]))}
            assert {name: spans[name].service for name in STAGES} == SERVICES
            assert {spans[name].parent_id for name in STAGES} == {spans["utterance"].span_id}
            assert spans["utterance"].attributes["quickcomm.kept"] == "slow"
            told = [{spans[name].instance for name in names} for names in (STAGES[:4], STAGES[4:6], STAGES[6:])]
            assert [len(instances) for instances in told] == [1, 1, 1]
            assert len(set[str]().union(*told)) == 3
            _, understands, _ = told
            # What happened within a stage may be known to another process than the stage itself.
            assert (spans["insights.commit"].instance, spans["insights.commit"].parent_id) == (
                *understands,
                spans["store"].span_id,
            )
            assert cards[said["utterance_id"]]["trace_id"] == spans["utterance"].trace_id
        [conversation] = received.named("conversation")
        assert conversation.service == "quickcomm-dashboard"


@pytest.mark.long
async def test_behind_an_edge_a_request_is_one_trace_from_the_public_port_on(new_site: NewSite, talk: Talk) -> None:
    """The collector is named once, for the processes; the edge's access log and the server's spans have the same id."""
    async with otlp_receiver() as received:
        site = new_site("--log-json", **tracing_to(received))
        await asyncio.to_thread(site.start)
        key = await asyncio.to_thread(site.key)
        wire = await converse(site.url, key, talk.wire, conversation_id=new_id("edge"))
        said = wire.of("utterance")[0]["utterance_id"]
        await site.until(f"/v1/utterances?conversation={wire.conversation_id}", lambda answer: bool(answer["items"]))
        await received.until(lambda got: {"GET /v1/utterances", AUDIO, "process transcripts.v1"} <= names(got))
        for name in ("GET /v1/utterances", AUDIO):
            served = received.named(name)[0]
            edge = await edge_span(received, served.trace_id)
            assert (served.service, served.parent_id) == ("quickcomm-monolith", edge.span_id)
        linked = {link for span in received.named("process transcripts.v1") for link in span.links}
        assert of(said) in {trace_id for trace_id, _ in linked}, "a batch leads to the utterances in it"
        await received.until(lambda got: any(span.name == "utterance" for span in got.trace(of(said))))
    asked = {span.trace_id for span in received.named("GET /v1/utterances")}
    async with asyncio.timeout(60):
        while not asked <= logged(site.layout.logs / "edge-access.log"):  # noqa: ASYNC110 - written now and then
            await asyncio.sleep(0.1)


def logged(access_log: Path) -> set[str]:
    return {json.loads(line)["trace_id"] for line in access_log.read_text().splitlines() if line.endswith("}")}


async def edge_span(received: Received, trace_id: str) -> Span:
    await received.until(lambda got: any(span.service == "edge" for span in got.trace(trace_id)))
    [found] = [span for span in received.trace(trace_id) if span.service == "edge"]
    return found


def names(received: Received) -> set[str]:
    return {span.name for span in received.spans}


async def test_a_collector_that_is_away_holds_up_nobody(new_server: NewServer, talk: Talk) -> None:
    server = await asyncio.to_thread(new_server, QUICKCOMM_TELEMETRY_OTLP_URL="http://127.0.0.1:9")
    wire = await converse(server.url, await asyncio.to_thread(server.key), talk.wire)
    assert len(wire.of("insights")) == len(wire.of("utterance")) > 0
    assert server.stop() == 0
