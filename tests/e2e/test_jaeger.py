"""Somebody speaks, and a real Jaeger shows the whole way of it."""

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest
from tests.e2e.conftest import NewServer
from tests.support.jaeger import jaeger, jaeger_binary
from tests.support.talk import Talk
from tests.support.viewer import viewer
from tests.support.wire import converse, new_id

Json = dict[str, Any]
STAGES: Final = ("receive", "vad", "stt", "publish", "queue", "classify", "store", "push", "painted")
SERVICES: Final = {"quickcomm-audio", "quickcomm-intelligence", "quickcomm-dashboard"}


@pytest.mark.long
@pytest.mark.jaeger
async def test_jaeger_has_the_trace_of_a_spoken_utterance(new_server: NewServer, talk: Talk, tmp_path: Path) -> None:
    binary = jaeger_binary()
    async with jaeger(binary, tmp_path / "jaeger.log") as backend:
        settings = {"QUICKCOMM_TELEMETRY_OTLP_URL": backend.otlp_url, "QUICKCOMM_TELEMETRY_SAMPLE": "1"}
        server = await asyncio.to_thread(new_server, **settings)
        key = await asyncio.to_thread(server.key)
        async with viewer(server) as cards:
            wire = await converse(server.url, key, talk.wire, conversation_id=new_id("jaeger"))
            path = f"/api/traces/{wire_trace(cards, wire.of('utterance')[0]['utterance_id'])}"
            answer = await backend.until(path, lambda answer: {*STAGES, "utterance"} <= operations(answer))
        [trace] = answer["data"]
        names = {span["spanID"]: span["operationName"] for span in trace["spans"]}
        assert {names[parent_of(span)] for span in trace["spans"] if span["operationName"] in STAGES} == {"utterance"}
        assert {process["serviceName"] for process in trace["processes"].values()} == SERVICES
        services = await backend.until("/api/services", lambda answer: set(answer["data"] or ()) >= SERVICES)
        assert services["data"]
        tags = f'{{"quickcomm.conversation_id":"{wire.conversation_id}"}}'
        found = await backend.until(
            "/api/traces",
            lambda answer: len(answer["data"]) > len(wire.of("utterance")),
            service="quickcomm-audio",
            tags=tags,
            limit="100",
        )
        assert "conversation" in operations(found), "the conversation and its utterances are found by its id"


def wire_trace(cards: dict[str, Json], utterance_id: str) -> str:
    return str(cards[utterance_id]["trace_id"])


def operations(answer: Json) -> set[str]:
    return {span["operationName"] for trace in answer["data"] or () for span in trace["spans"]}


def parent_of(span: Json) -> str:
    [parent] = [ref["spanID"] for ref in span["references"] if ref["refType"] == "CHILD_OF"]
    return str(parent)
