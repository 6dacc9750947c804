"""An operation as a trace: its turns are one, whichever process does them, and when."""

from typing import Final

import msgspec

from quickcomm.kernel.saga.definition import Operation
from quickcomm.kernel.saga.progress import Progress
from quickcomm.kernel.telemetry.ids import CONVERSATION, SAMPLED, span_id_of, trace_id_of
from quickcomm.kernel.telemetry.ids import ROOT as UTTERANCE
from quickcomm.kernel.telemetry.spans import Made

ROOT: Final = "operation"
MODULE: Final = "operations"


def parent_of(progress: Progress) -> str:
    """Return the `traceparent` of the operation, for its turns."""
    trace_id = trace_id_of(progress.site, progress.id)
    return f"00-{trace_id:032x}-{span_id_of(trace_id, ROOT):016x}-{SAMPLED:02x}"


def span_of(operation: Operation, progress: Progress) -> Made:
    """Return the root span of an operation that rests, linked to the utterance or conversation that it is about."""
    trace_id = trace_id_of(progress.site, progress.id)
    return Made(
        name=ROOT,
        module=MODULE,
        kind="internal",
        trace_id=trace_id,
        span_id=span_id_of(trace_id, ROOT),
        parent_id=None,
        start_ns=progress.history[0].at_ns,
        end_ns=progress.history[-1].at_ns,
        attributes={
            "saga.id": progress.id,
            "saga.operation": progress.operation,
            "saga.status": progress.status,
            "quickcomm.site": progress.site,
        },
        links=_links(operation, progress),
        error="" if progress.status == "done" else progress.status,
    )


def _links(operation: Operation, progress: Progress) -> tuple[tuple[int, int], ...]:
    if operation.spoken is None:
        return ()
    about = operation.spoken(msgspec.json.decode(progress.input, type=operation.input))
    trace_id = trace_id_of(progress.site, about)
    return ((trace_id, span_id_of(trace_id, UTTERANCE if ":" in about else CONVERSATION)),)
