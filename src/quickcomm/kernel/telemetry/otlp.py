"""Kept traces as OpenTelemetry spans, sent by OTLP over HTTP in its own thread. Loaded only where tracing is on."""

import os
import platform
import threading
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from quickcomm import __version__
from quickcomm.kernel.telemetry.ids import CONVERSATION, ROOT, span_id_of, trace_id_of
from quickcomm.kernel.telemetry.side import label_of, side_here
from quickcomm.kernel.telemetry.spans import Attributes, Batch, Detail, Kept, Kind, Made, Origin, Over
from quickcomm.kernel.telemetry.stages import STAGES

QUEUE: Final = 8_192
BATCH: Final = 512
EVERY_MS: Final = 1_000
PATH: Final = "/v1/traces"
RECEIVE: Final = "receive"
SIDE: Final = "quickcomm.side"
NS_PER_MS: Final = 1_000_000
PRODUCERS: Final = {"queue": "publish.commit", "store": "insights.commit"}
"""Stages that begin with a message from the bus, and the detail in which that was published."""
_KINDS: Final[dict[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}


class _Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span to be made. `when`: its beginning and its end."""

    module: str
    name: str
    trace_id: int
    span_id: int
    when: tuple[int, int]
    parent_id: int | None = None
    kind: Kind = "internal"
    attributes: Attributes = {}
    links: tuple[Link, ...] = ()
    error: str = ""


class OtlpSink:
    """A `Sink`. Beyond its queue spans are dropped: a collector that is away holds up nobody."""

    def __init__(self, url: str, *, exporter: SpanExporter | None = None) -> None:
        self._processor = BatchSpanProcessor(
            exporter or OTLPSpanExporter(endpoint=endpoint(url)),
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            schedule_delay_millis=EVERY_MS,
        )
        self._ids = _ChosenIds()
        self._modules: dict[str, TracerProvider] = {}

    def utterance(self, kept: Kept) -> None:
        origin = kept.origin
        trace_id = trace_id_of(*origin.key)
        for batch in kept.batches:
            self._batch(batch)
        self._stages(kept, trace_id)
        seen: Counter[str] = Counter()
        for detail in kept.details:
            self._detail(detail, seen[detail.name], trace_id)
            seen[detail.name] += 1

    def painted(self, origin: Origin, start_ns: int, end_ns: int) -> None:
        trace_id = trace_id_of(*origin.key)
        stage = STAGES[-1]
        self._part(stage.module, stage.span, trace_id, (start_ns, end_ns))

    def conversation(self, over: Over) -> None:
        trace_id = trace_id_of(over.site, over.conversation_id)
        self._send(
            _Span(
                module=over.module,
                name=CONVERSATION,
                trace_id=trace_id,
                span_id=span_id_of(trace_id, CONVERSATION),
                when=(over.started_ns, over.ended_ns),
                attributes={"quickcomm.state": over.state, **_whose(over.site, over.conversation_id, over.channel)},
            )
        )

    def call(self, made: Made) -> None:
        self._send(
            _Span(
                module=made.module,
                name=made.name,
                trace_id=made.trace_id,
                span_id=made.span_id,
                when=(made.start_ns, made.end_ns),
                parent_id=made.parent_id,
                kind=made.kind,
                attributes=made.attributes,
                links=tuple(Link(_context(*link)) for link in made.links),
                error=made.error,
            )
        )

    def close(self, timeout_s: float) -> None:
        # A collector that is away would be tried for half a minute; the process must not wait for it.
        closing = threading.Thread(target=self._processor.shutdown, name="otlp:close", daemon=True)
        closing.start()
        closing.join(timeout_s)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _stages(self, kept: Kept, trace_id: int) -> None:
        origin, latency, at = kept.origin, kept.latency, kept.origin.speech_ended_ns
        if "audio" in kept.modules:
            self._part("audio", RECEIVE, trace_id, (origin.spoken_at_ns, at))
        for stage in STAGES:
            ms = kept.painted_ms if stage.name == "painted" else getattr(latency, stage.name)
            if ms is None:
                continue
            end = at + round(ms * NS_PER_MS)
            if stage.module in kept.modules and _served_here(kept, stage.module):
                links = [_link(batch) for batch in kept.batches if batch.name.startswith(stage.name)]
                if stage.span in PRODUCERS:
                    links.append(Link(_context(trace_id, span_id_of(trace_id, f"{PRODUCERS[stage.span]}:0"))))
                self._part(stage.module, stage.span, trace_id, (at, end), stage.name, tuple(links))
            at = end
        if "audio" in kept.modules:
            self._root(kept, trace_id, max(at, origin.spoken_at_ns))

    def _root(self, kept: Kept, trace_id: int, end_ns: int) -> None:
        origin, total = kept.origin, kept.latency.total
        said: Attributes = {
            "quickcomm.utterance_id": origin.utterance_id,
            "quickcomm.kept": kept.why,
            **_whose(origin.site, origin.conversation_id, origin.channel),
        }
        if total is not None:
            said["quickcomm.total_ms"] = total
        conversation = trace_id_of(origin.site, origin.conversation_id)
        talk = Link(_context(conversation, span_id_of(conversation, CONVERSATION)), {"quickcomm.link": CONVERSATION})
        self._send(
            _Span(
                module="audio",
                name=ROOT,
                trace_id=trace_id,
                span_id=span_id_of(trace_id, ROOT),
                when=(origin.spoken_at_ns, end_ns),
                attributes=said,
                links=(talk,),
                error=kept.error,
            )
        )

    def _part(
        self,
        module: str,
        name: str,
        trace_id: int,
        when: tuple[int, int],
        stage: str | None = None,
        links: tuple[Link, ...] = (),
    ) -> None:
        """A stage, below the root."""
        self._send(
            _Span(
                module=module,
                name=name,
                trace_id=trace_id,
                span_id=span_id_of(trace_id, name),
                when=when,
                parent_id=span_id_of(trace_id, ROOT),
                kind="consumer" if name in PRODUCERS else "internal",
                attributes={} if stage is None else {"quickcomm.stage": stage},
                links=links,
            )
        )

    def _detail(self, detail: Detail, number: int, trace_id: int) -> None:
        self._send(
            _Span(
                module=detail.module,
                name=detail.name,
                trace_id=trace_id,
                span_id=span_id_of(trace_id, f"{detail.name}:{number}"),
                when=(detail.start_ns, detail.end_ns),
                parent_id=span_id_of(trace_id, detail.stage),
                kind=detail.kind,
                attributes=detail.attributes,
                error=detail.error,
            )
        )

    def _batch(self, batch: Batch) -> None:
        """Once, in a trace of its own, linked to everybody whom it was for as far as that is known."""
        if batch.exported:
            return
        batch.exported = True
        links = []
        for member in batch.members:
            trace_id = trace_id_of(*member)
            links.append(Link(_context(trace_id, span_id_of(trace_id, "stt")), {"quickcomm.utterance_id": member[1]}))
        trace_id = _batch_trace(batch)
        self._send(
            _Span(
                module=batch.module,
                name=batch.name,
                trace_id=trace_id,
                span_id=span_id_of(trace_id, batch.name),
                when=(batch.start_ns, batch.end_ns),
                attributes=batch.attributes,
                links=tuple(links),
                error=batch.error,
            )
        )

    def _send(self, new: _Span) -> None:
        self._ids.choose(new.trace_id, new.span_id)
        side = label_of(side_here())
        attributes = new.attributes | {SIDE: side} if side else new.attributes
        context = Context()
        if new.parent_id is not None:
            context = set_span_in_context(NonRecordingSpan(_context(new.trace_id, new.parent_id)), context)
        start_ns = new.when[0]
        span = self._of(new.module).start_span(
            new.name, context, _KINDS[new.kind], attributes, list(new.links), start_ns
        )
        if new.error:
            span.set_status(Status(StatusCode.ERROR, new.error))
        span.end(max(new.when))

    def _of(self, module: str) -> Tracer:
        provider = self._modules.get(module)
        if provider is None:
            resource = Resource.create(
                {
                    "service.name": f"quickcomm-{module}",
                    "service.namespace": "quickcomm",
                    "service.version": __version__,
                    "service.instance.id": f"{platform.node()}:{os.getpid()}",
                }
            )
            provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
            provider.add_span_processor(self._processor)
            self._modules[module] = provider
        return provider.get_tracer("quickcomm", __version__)


class _ChosenIds(IdGenerator):
    """Ids that follow from the utterance, instead of random ones. Used from one thread."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = 1

    def choose(self, trace_id: int, span_id: int) -> None:
        self._trace_id, self._span_id = trace_id, span_id

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_id


def endpoint(url: str) -> str:
    """The whole address where only that of the collector is given."""
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + PATH


def _served_here(kept: Kept, module: str) -> bool:
    """Return False for stages that the other side served: it tells them itself."""
    here = side_here()
    return here is None or kept.latency.served_by.get(module, here) == here


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _batch_trace(batch: Batch) -> int:
    return trace_id_of(batch.module, f"{batch.name}:{batch.start_ns}:{id(batch)}")


def _link(batch: Batch) -> Link:
    trace_id = _batch_trace(batch)
    return Link(_context(trace_id, span_id_of(trace_id, batch.name)), {"quickcomm.link": batch.name})


def _whose(site: str, conversation_id: str, channel: str) -> Attributes:
    return {"quickcomm.site": site, "quickcomm.conversation_id": conversation_id, "quickcomm.channel": channel}
