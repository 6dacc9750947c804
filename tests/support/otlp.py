"""A small real OTLP/HTTP receiver: takes what any OpenTelemetry exporter sends, and keeps it as plain values."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

PATIENCE_S: Final = 60.0
_UNPACK: Final[dict[str, Callable[[bytes], bytes]]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span as it came over the wire; ids in hexadecimal, `links` are (trace id, span id)."""

    service: str
    instance: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    error: str


class Received:
    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.requests = 0
        self._news = asyncio.Condition()

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    async def until(self, holds: Callable[["Received"], bool]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(lambda: holds(self))
        except TimeoutError:
            names = sorted(span.name for span in self.spans)
            raise AssertionError(f"The spans do not become what they should: {names}") from None

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        unpack = _UNPACK.get(request.headers.get("Content-Encoding", ""))
        message = ExportTraceServiceRequest.FromString(unpack(body) if unpack else body)
        async with self._news:
            self.requests += 1
            self.spans += _spans(message)
            self._news.notify_all()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )


def _spans(message: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            service=str(_values(resource.resource.attributes)["service.name"]),
            instance=str(_values(resource.resource.attributes).get("service.instance.id", "")),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            attributes=_values(span.attributes),
            links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            error=span.status.message,
        )
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return getattr(pair.value, kind) if kind else None


@asynccontextmanager
async def otlp_receiver() -> AsyncGenerator[Received]:
    received = Received()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", received.take)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        received.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield received
    finally:
        await runner.cleanup()
