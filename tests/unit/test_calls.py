"""Requests, batches and transactions as spans: which of them, whose children they are, and that off means off."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from tests.unit.test_traces import Outbox

from quickcomm.cli.logs import add_trace_id
from quickcomm.kernel.clock import FakeClock
from quickcomm.kernel.errors import BusyError
from quickcomm.kernel.http import create_app, traced_client
from quickcomm.kernel.http.traced import traced
from quickcomm.kernel.messaging.bus import Delivery
from quickcomm.kernel.messaging.bus.handling import handle
from quickcomm.kernel.telemetry import set_tracing, tracing
from quickcomm.kernel.telemetry.ids import parsed, traceparent
from quickcomm.kernel.telemetry.settings import TelemetrySettings
from quickcomm.kernel.telemetry.spans import Made
from quickcomm.kernel.telemetry.traces import Traces

KEPT = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
NOT_KEPT = KEPT[:-1] + "0"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Desk:
    def __init__(self, sample: float) -> None:
        self.clock, self.outbox = FakeClock(), Outbox()
        settings = TelemetrySettings(sample=sample)
        set_tracing(Traces(settings, self.clock, self.outbox, lambda: 1000.0, process="core"))

    @property
    def names(self) -> list[str]:
        return [made.name for made in self.outbox.calls]

    def one(self, name: str) -> Made:
        [made] = [made for made in self.outbox.calls if made.name == name]
        return made


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Nothing is in the sample."""
    yield Desk(0.0)
    set_tracing(None)


@pytest.fixture
def keen() -> Iterator[Desk]:
    """Everything is."""
    yield Desk(1.0)
    set_tracing(None)


def test_off_it_is_nothing() -> None:
    with tracing().call("GET /", "server", parent=KEPT) as call:
        call.note(a=1)
        assert call.traceparent is None
        assert tracing().here is None


def test_what_is_quick_and_well_is_not_kept(desk: Desk) -> None:
    with tracing().call("db.read"), tracing().call("GET /", "server"):
        pass
    assert desk.names == []


def test_what_is_slow_is_kept_but_for_what_is_meant_to_last(desk: Desk) -> None:
    for kind in ("server", "internal", "consumer"):
        with tracing().call(kind, kind):
            desk.clock.advance(1)
    with tracing().call("socket", "server") as call:
        call.lasting()
        desk.clock.advance(1)
    assert desk.names == ["server", "internal"]
    made = desk.one("server")
    assert made.end_ns - made.start_ns == 10**9
    assert made.module == "core"


def test_what_fails_is_kept_with_its_code(desk: Desk) -> None:
    with pytest.raises(BusyError), tracing().call("db.write"):
        raise BusyError("full")
    with pytest.raises(KeyError), tracing().call("db.read"):
        raise KeyError
    with pytest.raises(asyncio.CancelledError), tracing().call("GET /", "server"):
        raise asyncio.CancelledError
    assert [(made.name, made.error) for made in desk.outbox.calls] == [
        ("db.write", BusyError.code),
        ("db.read", "KeyError"),
    ]


@pytest.mark.parametrize(("parent", "kept"), [(KEPT, True), (NOT_KEPT, False), ("nonsense", False), (None, False)])
def test_what_the_caller_keeps_is_kept(desk: Desk, parent: str | None, kept: bool) -> None:  # noqa: FBT001
    with tracing().call("GET /", "server", parent=parent):
        pass
    assert desk.names == (["GET /"] if kept else [])
    if kept:
        assert (desk.one("GET /").trace_id, desk.one("GET /").parent_id) == parsed(KEPT)[:2]  # type: ignore[index]


async def test_what_is_within_is_a_child_also_in_another_task(keen: Desk) -> None:
    async def work() -> None:
        with tracing().call("db.write"):
            await asyncio.sleep(0)

    with tracing().call("GET /", "server"):
        assert tracing().here == f"{parsed(traceparent_here())[0]:032x}"  # type: ignore[index]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work())
    with tracing().call("GET /other", "server"):
        pass
    parent, child, other = keen.one("GET /"), keen.one("db.write"), keen.one("GET /other")
    assert (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id)
    assert parent.parent_id is None
    assert other.trace_id != parent.trace_id


def traceparent_here() -> str:
    with tracing().call("probe") as call:
        assert call.traceparent is not None
        return call.traceparent


async def answer(_request: web.Request) -> web.StreamResponse:
    return web.Response(text=tracing().here or "none")


async def fail(_request: web.Request) -> web.StreamResponse:
    raise RuntimeError


async def test_both_ends_of_a_request_are_one_trace(keen: Desk) -> None:
    app = create_app([web.get("/v1/things/{id}", answer), web.get("/readyz", answer)])
    async with TestClient(TestServer(app), trace_configs=traced_client()) as client:
        await client.get("/readyz")
        with tracing().call("GET /v1/outer", "server"):
            told = await (await client.get("/v1/things/7?key=secret")).text()
    sent, taken = keen.one("GET"), keen.one("GET /v1/things/{id}")
    assert (sent.trace_id, sent.parent_id) == (keen.one("GET /v1/outer").trace_id, keen.one("GET /v1/outer").span_id)
    assert (taken.trace_id, taken.parent_id) == (sent.trace_id, sent.span_id)
    assert told == f"{taken.trace_id:032x}"
    assert taken.attributes["http.response.status_code"] == 200
    assert "secret" not in repr(keen.outbox.calls)


async def test_a_request_that_fails_is_kept(desk: Desk) -> None:
    async with TestClient(TestServer(create_app([web.get("/v1/things", fail)]))) as client:
        assert (await client.get("/v1/things")).status == 500
        assert (await client.get("/nowhere")).status == 404
    assert [(made.name, made.error) for made in desk.outbox.calls] == [("GET /v1/things", "500")]


async def test_without_tracing_nothing_is_in_the_way() -> None:
    assert traced_client() == []
    assert traced not in create_app([]).middlewares


async def test_a_client_that_reaches_nobody_says_so(desk: Desk) -> None:
    async with aiohttp.ClientSession(trace_configs=traced_client()) as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get("http://127.0.0.1:9/")
    assert desk.one("GET").error


async def test_a_batch_links_to_those_who_caused_it(keen: Desk) -> None:
    parents = [traceparent("main", f"talk:0:{number}", 1.0) for number in range(2)]
    payloads = [f'{{"traceparent":"{parent}","text":"x"}}'.encode() for parent in parents]
    batch = [
        Delivery(message_id=number, stream="transcripts.v1", key="talk", payload=payload)
        for number, payload in enumerate([*payloads, b"no JSON", b"{}"])
    ]

    async def take(_batch: object) -> None:
        with tracing().call("db.write"):
            pass

    assert await handle("dashboard", batch, take, FakeClock()) == []
    made = keen.one("process transcripts.v1")
    assert made.links == tuple(found[:2] for parent in parents if (found := parsed(parent)) is not None)
    assert (made.kind, made.attributes["messaging.consumer.group.name"]) == ("consumer", "dashboard")
    assert keen.one("db.write").parent_id == made.span_id


def test_log_lines_within_a_call_have_its_trace_id(keen: Desk) -> None:
    assert "trace_id" not in add_trace_id(None, "info", {"event": "x"})
    with tracing().call("GET /", "server", parent=KEPT):
        assert add_trace_id(None, "info", {"event": "x"})["trace_id"] == "ab" * 16
        line = add_trace_id(None, "info", {"event": "x", "utterance_id": "talk:0:1"})
        assert line["trace_id"] != "ab" * 16, "an utterance has a trace of its own"
    assert keen.names == ["GET /"]
