"""Kept traces as OpenTelemetry spans, sent by OTLP over HTTP in its own thread. Loaded only where tracing is on."""

import os
import platform
import threading
from typing import Final
from urllib.parse import urlsplit

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
from quickcomm.kernel.telemetry.spans import Attributes, Batch, Detail, Kept, Origin, Over
from quickcomm.kernel.telemetry.stages import STAGES

QUEUE: Final = 8_192
BATCH: Final = 512
EVERY_MS: Final = 1_000
PATH: Final = "/v1/traces"
RECEIVE: Final = "receive"
NS_PER_MS: Final = 1_000_000


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
        if kept.stages:
            self._stages(kept, trace_id)
        for number, detail in enumerate(kept.details):
            self._detail(detail, number, trace_id)

    def painted(self, origin: Origin, start_ns: int, end_ns: int) -> None:
        trace_id = trace_id_of(*origin.key)
        stage = STAGES[-1]
        self._span(stage.module, stage.span, (trace_id, span_id_of(trace_id, ROOT)), (start_ns, end_ns), {})

    def conversation(self, over: Over) -> None:
        trace_id = trace_id_of(over.site, over.conversation_id)
        said: Attributes = {"quickcomm.state": over.state, **_whose(over.site, over.conversation_id, over.channel)}
        self._span("audio", CONVERSATION, (trace_id, None), (over.started_ns, over.ended_ns), said)

    def close(self, timeout_s: float) -> None:
        # A collector that is away would be tried for half a minute; the process must not wait for it.
        closing = threading.Thread(target=self._processor.shutdown, name="otlp:close", daemon=True)
        closing.start()
        closing.join(timeout_s)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _stages(self, kept: Kept, trace_id: int) -> None:
        origin, latency, at = kept.origin, kept.latency, kept.origin.speech_ended_ns
        root = (trace_id, span_id_of(trace_id, ROOT))
        self._span("audio", RECEIVE, root, (origin.spoken_at_ns, at), {})
        for stage in STAGES:
            ms = kept.painted_ms if stage.name == "painted" else getattr(latency, stage.name)
            if ms is None:
                continue
            links = [_link(batch) for batch in kept.batches if batch.name.startswith(stage.name)]
            end = at + round(ms * NS_PER_MS)
            self._span(stage.module, stage.span, root, (at, end), {"quickcomm.stage": stage.name}, links)
            at = end
        said: Attributes = {
            "quickcomm.utterance_id": origin.utterance_id,
            "quickcomm.kept": kept.why,
            **_whose(origin.site, origin.conversation_id, origin.channel),
        }
        if latency.total is not None:
            said["quickcomm.total_ms"] = latency.total
        conversation = trace_id_of(origin.site, origin.conversation_id)
        talk = Link(_context(conversation, span_id_of(conversation, CONVERSATION)), {"quickcomm.link": CONVERSATION})
        when = (origin.spoken_at_ns, max(at, origin.spoken_at_ns))
        self._span("audio", ROOT, (trace_id, None), when, said, [talk], kept.error)

    def _detail(self, detail: Detail, number: int, trace_id: int) -> None:
        name = f"{detail.name}:{number}"
        parent = (trace_id, span_id_of(trace_id, detail.stage))
        when = (detail.start_ns, detail.end_ns)
        self._span(detail.module, detail.name, parent, when, detail.attributes, error=detail.error, unique=name)

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
        when = (batch.start_ns, batch.end_ns)
        self._span(batch.module, batch.name, (trace_id, None), when, batch.attributes, links, batch.error)

    def _span(
        self,
        module: str,
        name: str,
        parent: tuple[int, int | None],
        when: tuple[int, int],
        attributes: Attributes,
        links: list[Link] | None = None,
        error: str = "",
        *,
        unique: str = "",
    ) -> None:
        trace_id, parent_span = parent
        self._ids.choose(trace_id, span_id_of(trace_id, unique or name))
        context = Context()
        if parent_span is not None:
            context = set_span_in_context(NonRecordingSpan(_context(trace_id, parent_span)), context)
        kind = SpanKind.CONSUMER if name == "queue" else SpanKind.INTERNAL
        span = self._of(module).start_span(name, context, kind, attributes, links, when[0])
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(max(when))

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


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _batch_trace(batch: Batch) -> int:
    return trace_id_of(batch.module, f"{batch.name}:{batch.start_ns}:{id(batch)}")


def _link(batch: Batch) -> Link:
    trace_id = _batch_trace(batch)
    return Link(_context(trace_id, span_id_of(trace_id, batch.name)), {"quickcomm.link": batch.name})


def _whose(site: str, conversation_id: str, channel: str) -> Attributes:
    return {"quickcomm.site": site, "quickcomm.conversation_id": conversation_id, "quickcomm.channel": channel}
