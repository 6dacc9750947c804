"""What audio tells tracing of an utterance that it has published."""

import msgspec

from quickcomm.contracts.transcripts import TRANSCRIPTS, UtteranceTranscribed
from quickcomm.kernel.telemetry import Batch, Detail, origin_of, tracing
from quickcomm.kernel.telemetry.spans import Attributes

UNINTELLIGIBLE = "Speech-to-text failed on this utterance again and again."


def trace_published(message: UtteranceTranscribed, batch: Batch | None, stored_ns: tuple[int, int]) -> None:
    """`batch`: the engine's call that its text came from. `stored_ns`: when its transaction began and was committed."""
    traces = tracing()
    error = UNINTELLIGIBLE if message.unintelligible else ""
    traces.heard(origin_of(message), message.latency, batch=batch, error=error)
    attributes: Attributes = {"messaging.destination.name": TRANSCRIPTS, "messaging.operation.type": "send"}
    if message.held_up is not msgspec.UNSET:
        attributes["quickcomm.held_up"] = message.held_up
    # Its time is part of the way to the next module: the message cannot say when it was itself committed.
    commit = Detail(
        name="publish.commit",
        module="audio",
        stage="queue",
        start_ns=stored_ns[0],
        end_ns=stored_ns[1],
        attributes=attributes,
        kind="producer",
    )
    traces.detail(message.site, message.utterance_id, commit)
